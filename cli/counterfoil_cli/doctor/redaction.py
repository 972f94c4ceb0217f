"""What may leave the machine in a support bundle: only what is known to be harmless, and then scrubbed all the same."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

OMITTED: Final = "(left out)"
_LOG_FIELDS: Final = frozenset(
    {
        "time",
        "level",
        "service",
        "logger",
        "trace_id",
        "method",
        "reason",
        "code",
        "check",
        "watch",
        "topic",
        "items",
        "oldest_seconds",
        "consumer",
        "route",
        "verb",
        "lease",
        "bundle_version",
        "next_offset",
    }
)
"""Fields of a log line that hold names of ours or numbers; every other one may quote what a caller sent."""
_OURS: Final = "counterfoil_"
_PLACE: Final = re.compile(r'^\s+File "(?:[^"]*/)?([^"/]+/[^"/]+)", line (\d+), in (\w+|<\w+>)')
_SCRUBBED: Final = (
    (re.compile(r"cf[kw]_[A-Za-z0-9_-]+"), "(key)"),
    (re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), "(token)"),
    (re.compile(r"(?<=://)[^/@\s\"']+@"), "(user)@"),
    (re.compile(r"[A-Za-z0-9._%+-]+(?:@|%40)[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"), "(address)"),
    (re.compile(r"(?i)bearer\s+[A-Za-z0-9._~+/=-]+"), "Bearer (token)"),
)
_SHOWN_TEXTS: Final = ("listen", "target", "log_level", "query_memory", "reflection")


def scrubbed(text: str) -> str:
    """Return a text without what looks like a key, a token, a password in a URL or an e-mail address."""
    for pattern, instead in _SCRUBBED:
        text = pattern.sub(instead, text)
    return text


def shown_setting(name: str, value: Any, *, data: Path) -> Any:
    """Return a setting's value where it is a number, a path, an address or one of few words, else whether it is set."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value).replace(str(data), "(data)").replace(str(Path.home()), "~")
    text = str(value)
    if not text or name.endswith(_SHOWN_TEXTS):
        return text
    if name.endswith(("_url", "_endpoint")):
        place = urlsplit(text)
        return f"{place.scheme}://{place.hostname or ''}{f':{place.port}' if place.port else ''}/..."
    return OMITTED


def log_lines(lines: Sequence[str]) -> Iterator[str]:
    """Yield log lines without anything that a caller or a record may have put there."""
    dropped = 0
    for line in lines:
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError:
            fields = None
        if isinstance(fields, dict):
            yield orjson.dumps(_log_line(fields)).decode()
        else:
            dropped += 1
    if dropped:
        yield orjson.dumps({"event": OMITTED, "lines": dropped}).decode()


def _log_line(fields: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {
        key: value for key, value in fields.items() if key in _LOG_FIELDS and isinstance(value, str | int | float)
    }
    # Our own events are constants; a library's may quote what it was given.
    ours = str(fields.get("logger", "")).startswith(_OURS)
    kept["event"] = fields.get("event", "") if ours else OMITTED
    if error := fields.get("error"):
        kept["error"] = list(_error(str(error)))
    left_out = sorted(key for key in fields.keys() - kept.keys() if ours and key.isidentifier())
    return kept | ({"left_out": left_out} if left_out else {})


def _error(text: str) -> Iterator[str]:
    """Yield the places of a traceback and the kinds of its errors, never their texts."""
    for line in text.splitlines():
        if place := _PLACE.match(line):
            yield f"{place[1]}:{place[2]} {place[3]}"
        elif kind := re.match(r"^([A-Za-z_][A-Za-z0-9_.]*(?:Error|Exception|Interrupt|Exit|Warning))\b", line):
            yield kind[1]
