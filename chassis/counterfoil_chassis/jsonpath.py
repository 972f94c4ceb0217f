"""Places in a JSON value, written as JSON paths (RFC 9535), and read from them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STEP: Final = re.compile(
    r"""\.(?P<name>[^.\[\]'"\s]+) | \[(?P<index>\d{1,9})\] | \[(?P<every>\*)\] | \['(?P<quoted>(?:[^'\\]|\\.)*)'\]""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


def json_path(steps: Iterable[str | int | None]) -> str:
    """Return the path of names and indexes from the root; None is every element."""
    text = "$"
    for step in steps:
        if step is None:
            text += "[*]"
        elif isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN.fullmatch(step):
            text += f".{step}"
        else:
            escaped = step.replace("\\", "\\\\").replace("'", "\\'")
            text += f"['{escaped}']"
    return text


def steps_of(text: str) -> tuple[str | int | None, ...]:
    """Return the steps of a path as `json_path` takes them; raise ValueError, which says where it cannot be read."""
    if not text.startswith("$"):
        raise ValueError("it begins with $")
    steps: list[str | int | None] = []
    at = 1
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None:
            raise ValueError(f"it cannot be read from character {at + 1} on")
        if found["name"] is not None:
            steps.append(found["name"])
        elif found["quoted"] is not None:
            steps.append(_ESCAPED.sub(r"\1", found["quoted"]))
        else:
            steps.append(None if found["every"] else int(found["index"]))
        at = found.end()
    return tuple(steps)
