"""Version numbers (Semantic Versioning 2.0.0): the one that a change needs, and ranges of them.

A pre-release is judged by the numbers it leads to: 2.0.0-rc.1 is as high as 2.0.0.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from counterfoil_contracts.errors import VersionRangeInvalidError
from counterfoil_contracts.evolution import Level

Core = tuple[int, int, int]
Range = Callable[[str], bool]

_CORE: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)(-[^+]*)?")
_TERM: Final = re.compile(r"(>=|<=|>|<|=)?(\d{1,18}|x)(?:\.(\d{1,18}|x))?(?:\.(\d{1,18}|x))?", re.ASCII)
_MOST_TERMS: Final = 20


def core(version: str) -> Core:
    """Return major, minor and patch of a version."""
    found = _CORE.match(version)
    if found is None:
        raise ValueError(f"not a version: {version!r}")
    return int(found[1]), int(found[2]), int(found[3])


def needed(in_force: str, level: Level) -> str:
    """Return the lowest version that a change of this level may be called.

    What only ends a pre-release keeps its numbers.
    """
    major, minor, patch = core(in_force)
    found = _CORE.match(in_force)
    if found is not None and found[4]:
        promised = Level.MAJOR if not minor and not patch else Level.MINOR if not patch else Level.PATCH
        if _RANKS[promised] >= _RANKS[level]:
            return f"{major}.{minor}.{patch}"
    if level is Level.MAJOR:
        return f"{major + 1}.0.0"
    return f"{major}.{minor + 1}.0" if level is Level.MINOR else f"{major}.{minor}.{patch + 1}"


_RANKS: Final = {Level.PATCH: 0, Level.MINOR: 1, Level.MAJOR: 2}


def suffices(version: str, lowest: str) -> bool:
    """Tell whether a version is called at least the lowest one that it may be called."""
    return core(version) >= core(lowest)


def read_range(text: str) -> Range:
    """Return what tells whether a version is in a range: `1.x`, `1.4.2`, `>=1.2.0 <3.0.0`, or several with `||`.

    Raises VersionRangeInvalidError.
    """
    parts = [part.split() for part in text.split("||")]
    if not all(parts) or sum(map(len, parts)) > _MOST_TERMS:
        raise _invalid(text)
    alternatives = [[_term(word, text) for word in part] for part in parts]

    def contains(version: str) -> bool:
        place = core(version)
        return any(all(low <= place < high for low, high in terms) for terms in alternatives)

    return contains


_HIGHEST: Final[Core] = (1 << 300, 0, 0)  # a version has at most 64 characters
_LOWEST: Final[Core] = (0, 0, 0)


def _term(word: str, text: str) -> tuple[Core, Core]:
    """Return the versions of one term: from the first to before the second."""
    found = _TERM.fullmatch(word)
    if found is None:
        raise _invalid(text)
    numbers: list[int] = []
    for part in found.groups()[1:]:
        if part is None or part == "x":
            break
        numbers.append(int(part))
    first, after = _span(numbers)
    operator = found[1]
    if operator == ">=":
        return first, _HIGHEST
    if operator == ">":
        return after, _HIGHEST
    if operator == "<":
        return _LOWEST, first
    if operator == "<=":
        return _LOWEST, after
    return first, after


def _span(numbers: list[int]) -> tuple[Core, Core]:
    if not numbers:
        return _LOWEST, _HIGHEST
    major, minor, patch = (*numbers, 0, 0)[:3]
    if len(numbers) == 1:
        return (major, 0, 0), (major + 1, 0, 0)
    if len(numbers) == 2:
        return (major, minor, 0), (major, minor + 1, 0)
    return (major, minor, patch), (major, minor, patch + 1)


def _invalid(text: str) -> VersionRangeInvalidError:
    return VersionRangeInvalidError(
        "A range is written like `1.x`, `1.4.2` or `>=1.2.0 <3.0.0`, several of them with `||` between.",
        metadata={"version_range": text},
    )
