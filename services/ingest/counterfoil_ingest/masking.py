"""Which classified fields a caller does not see, and what stands in their place."""

from __future__ import annotations

import enum
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_STEP: Final = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\['((?:[^'\\]|\\.)*)'\]|(\[[^\]]*\])")


class Mask(enum.IntEnum):
    """What stands in a field's place; the numbers are those of `ingest.v1.MaskedField.Mask`."""

    NULL = 1
    PSEUDONYM = 2


@dataclass(frozen=True, slots=True)
class MaskedField:
    """One field, by its JSON path in a record, that a caller does not see as it is."""

    dataset: str
    path: str
    classification: str
    mask: Mask
    policy_ids: tuple[str, ...] = ()


Masks = Callable[[str, Mapping[str, str]], Awaitable[Sequence[MaskedField]]]
"""A dataset and its classified fields by path, to those of them that the caller does not see."""


def steps(path: str) -> tuple[str | None, ...]:
    """Return the names along a JSON path such as `$.traits.email`; None is an element of an array."""
    return tuple(
        None if element else name or re.sub(r"\\(.)", r"\1", quoted) for name, quoted, element in _STEP.findall(path)
    )
