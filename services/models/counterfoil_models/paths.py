"""Paths: the touchpoints that a conversion, or its absence, is credited to, as arrays.

Paths lie one after the other, so that a million of them are one pass of numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Paths:
    """Paths over subjects given as codes 0, 1, ...; path p is `codes[starts[p]:starts[p + 1]]` and never empty.

    `conversions` and `nulls` count how often each path ended so; `values` are the conversions' in millionths;
    `ages` are the microseconds from each touchpoint to its path's end.
    """

    codes: Ints
    starts: Ints
    conversions: Ints
    nulls: Ints
    values: Ints
    ages: Ints

    @property
    def lengths(self) -> Ints:
        """How many touchpoints each path has."""
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.conversions)


def concatenated(begins: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Return the places of the ranges [begin, end) one after the other, and where each range starts among them."""
    lengths = ends - begins
    starts = np.concatenate(([0], np.cumsum(lengths)))
    places = np.arange(starts[-1]) + np.repeat(begins - starts[:-1], lengths)
    return places, starts
