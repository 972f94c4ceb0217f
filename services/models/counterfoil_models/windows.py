"""From journeys to paths: which touchpoints each conversion can be credited to, and which led to none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from counterfoil_models.attribution_spec import Period
from counterfoil_models.journeys import NO_END, Journeys
from counterfoil_models.paths import Ints, Paths, concatenated

MAX_TOUCHPOINTS = 200
"""What one path holds at most; of a longer one the latest are kept, and it is counted."""

CHUNK = 2_000_000
"""About how many touchpoints are laid out at a time."""


@dataclass(frozen=True)
class Found:
    """What became of touchpoints that led to no conversion: paths to null, and how many may yet convert."""

    nulls: Paths
    open_paths: int


class PathFinder:
    """Finds every conversion's own path, then what is left: the paths that led to none.

    LOOKBACK (`lookback_us` > 0): the touchpoints of the time before, exclusive of its beginning. FLIGHT (0): those
    whose campaign has not ended when the conversion happens; one whose campaign has no known end is on no path.
    `truncated` counts the paths that were longer than they may be, `without` the conversions without touchpoints,
    `endless` the touchpoints in the period that no flight can be told of.
    """

    def __init__(self, journeys: Journeys, *, lookback_us: int, period: Period, data_end: int) -> None:
        self.truncated = 0
        self.without = 0
        self._touchpoints = journeys.touchpoints
        self._conversions = journeys.conversions
        self._lookback = lookback_us
        self._end = min(period.end, data_end)
        times = self._touchpoints.times
        self.in_period = (times >= period.begin) & (times < period.end)
        known = np.ones_like(self.in_period) if lookback_us else self._touchpoints.campaign_ends != NO_END
        self.endless = int((self.in_period & ~known).sum())
        self._left = self.in_period & known

    def converting(self) -> Iterator[Paths]:
        """Yield the paths of all conversions, some at a time."""
        conversions = self._conversions
        begins, ends = self._begins(), conversions.touched
        if self._lookback:
            self._take_away(begins, ends)
        bounds = _chunks(ends - begins)
        for first, last in pairwise(bounds):
            own = slice(first, last)
            yield self._paths(begins[own], ends[own], times=conversions.times[own], values=conversions.values[own])

    def left(self) -> Found:
        """Return what is left once every converting path was taken: each person's touchpoints as one path."""
        touchpoints = self._touchpoints
        closes = touchpoints.times + self._lookback if self._lookback else touchpoints.campaign_ends
        may_convert = self._left & (closes > self._end)
        open_paths = len(np.unique(touchpoints.persons[may_convert]))
        places = np.flatnonzero(self._left & ~may_convert)
        _, starts = np.unique(touchpoints.persons[places], return_index=True)
        lengths = np.diff([*starts, len(places)])
        nulls = np.ones(len(lengths), dtype=np.int64)
        none = np.zeros(len(lengths), dtype=np.int64)
        ends = touchpoints.times[places[np.cumsum(lengths) - 1]] if len(lengths) else none
        return Found(self._made(places, lengths, conversions=none, nulls=nulls, values=none, ends=ends), open_paths)

    def _begins(self) -> Ints:
        """Return the place of the first touchpoint that each conversion can be credited to, as far as time says."""
        touchpoints, conversions = self._touchpoints, self._conversions
        if not self._lookback:
            return np.searchsorted(touchpoints.persons, conversions.persons)
        moments = np.concatenate((touchpoints.times, conversions.times - self._lookback))
        found, ranks = np.unique(moments, return_inverse=True)
        keys = np.concatenate((touchpoints.persons, conversions.persons)) * (len(found) + 1) + ranks.reshape(-1)
        count = len(touchpoints.times)
        return np.searchsorted(keys[:count], keys[count:], side="right")

    def _take_away(self, begins: Ints, ends: Ints) -> None:
        """Mark the touchpoints of ranges as being on a path."""
        covered = np.zeros(len(self._left) + 1, dtype=np.int64)
        np.add.at(covered, begins, 1)
        np.add.at(covered, ends, -1)
        self._left &= np.cumsum(covered[:-1]) == 0

    def _paths(self, begins: Ints, ends: Ints, *, times: Ints, values: Ints) -> Paths:
        if self._lookback:
            lengths = ends - begins
            self.truncated += int((lengths > MAX_TOUCHPOINTS).sum())
            begins = np.maximum(begins, ends - MAX_TOUCHPOINTS)
            places, starts = concatenated(begins, ends)
            lengths = np.diff(starts)
        else:
            places, starts = concatenated(begins, ends)
            runs = self._touchpoints.campaign_ends[places] >= np.repeat(times, np.diff(starts))
            owners = np.repeat(np.arange(len(times)), np.diff(starts))[runs]
            places = places[runs]
            self._left[places] = False
            lengths = np.bincount(owners, minlength=len(times))
        some = lengths > 0
        self.without += int((~some).sum())
        ones = np.ones(int(some.sum()), dtype=np.int64)
        return self._made(
            places, lengths[some], conversions=ones, nulls=np.zeros_like(ones), values=values[some], ends=times[some]
        )

    def _made(self, places: Ints, lengths: Ints, *, conversions: Ints, nulls: Ints, values: Ints, ends: Ints) -> Paths:
        """Make paths of touchpoints that lie path after path, of each the latest 200."""
        stops = np.cumsum(lengths)
        if (lengths > MAX_TOUCHPOINTS).any():
            self.truncated += int((lengths > MAX_TOUCHPOINTS).sum())
            kept, starts = concatenated(np.maximum(stops - lengths, stops - MAX_TOUCHPOINTS), stops)
            places = places[kept]
        else:
            starts = np.concatenate(([0], stops))
        ages = np.repeat(ends, np.diff(starts)) - self._touchpoints.times[places]
        return Paths(self._touchpoints.subjects[places], starts, conversions, nulls, values, ages)


def _chunks(sizes: Ints) -> list[int]:
    """Return bounds between which the sizes add up to about CHUNK, so that memory stays bounded."""
    if not len(sizes):
        return [0]
    total = np.cumsum(sizes)
    cuts = np.searchsorted(total, np.arange(CHUNK, int(total[-1]) + CHUNK, CHUNK)) + 1
    return sorted({0, *(min(int(cut), len(sizes)) for cut in cuts), len(sizes)})
