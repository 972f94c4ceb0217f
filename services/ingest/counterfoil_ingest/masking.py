"""Which classified fields a caller does not see, and what stands in their place."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from counterfoil_chassis.jsonpath import steps_of


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
    return tuple(step if isinstance(step, str) else None for step in steps_of(path))
