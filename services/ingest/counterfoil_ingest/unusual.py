"""Tells what is unusual of a dataset by its own past; while there is too little of it, it says that it learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Final

from counterfoil_ingest.histories import HOURS_PER_SLOT, HOURS_PER_WEEK, SLOTS_PER_WEEK, History
from counterfoil_ingest.monitors import Outcome, worded

_MAD: Final = 1.4826
"""What makes a median absolute deviation comparable with a standard deviation (normal distribution)."""

WEEKS_NEEDED: Final = 3
_WEEKS_COMPARED: Final = 8
_ENOUGH_PER_CELL: Final = 50
_LEAST_VARIATION: Final = 0.05
_MOST_CHANGE_OF_LEVEL: Final = 2.0
_FEW: Final = 5
"""Added to counts before their logarithms are compared: that 0 came instead of 3 says little."""

_FRESHNESS_DAYS: Final = 7
_FRESHNESS_WEEKS: Final = 4
_FRESHNESS_HOURS: Final = 24
"""So many hours with records show how long a dataset is silent at times."""

ROWS_NEEDED: Final = 500
_FILLING_WEEKS: Final = 4
_WINDOWS: Final = (1, 4, SLOTS_PER_WEEK)
"""In slots: the last six hours, the last day, the last week; the shortest that has enough records is looked at."""

_DRIFT_ROWS: Final = 100
_DRIFT_SLOTS: Final = 4
_NEW_SHARE, _NEW_RECORDS = 0.01, 10
_GONE_SHARE, _GONE_RECORDS = 0.2, 20
_NAMED: Final = 5


def volume(history: History, *, now: datetime) -> Outcome:
    """Return by how many robust deviations the records of the last whole hour are from what is usual.

    Usual is the median of the same hour of the week in up to eight weeks, times how busy the last seven days were by
    that measure. Logarithms are compared, and their deviation is the median absolute one of those seven days with
    Poisson's. A dataset with few records in an hour is looked at by days.
    """
    began = history.began
    if began is None:
        return _learning("There are no records yet.")
    counts = {hour: each.records for hour, each in history.hours.items()}
    hour = _hour_of(now)
    hours = _Series(counts, began, hour, HOURS_PER_WEEK)
    if len(hours.past(hour - 1)) < WEEKS_NEEDED:
        return _learning(f"Three weeks tell what is usual: it learns until {_day(began + 3 * HOURS_PER_WEEK + 24)}.")
    if hours.usual_cell() >= _ENOUGH_PER_CELL:
        return hours.judged("in the last hour")
    days: dict[int, int] = {}
    for each, records in counts.items():
        days[each // 24] = days.get(each // 24, 0) + records
    whole = _Series(days, -(-began // 24), hour // 24, 7)
    if len(whole.past(hour // 24 - 1)) < WEEKS_NEEDED:
        return _learning(f"Three weeks tell what is usual: it learns until {_day(began + 3 * HOURS_PER_WEEK + 48)}.")
    if whole.usual_cell() < 1:
        return _learning("So few records come that no number of them is unusual.")
    return whole.judged("on the last day")


@dataclass(frozen=True)
class _Series:
    """Counts by cell (an hour or a day) from `began` up to the exclusive `end`; `week` cells make a week."""

    counts: Mapping[int, int]
    began: int
    end: int
    week: int

    def past(self, cell: int) -> list[int]:
        """Return the counts of the same cell in the weeks before."""
        cells = (cell - back * self.week for back in range(1, _WEEKS_COMPARED + 1))
        return [self.counts.get(each, 0) for each in cells if each >= self.began]

    def usual_cell(self) -> float:
        """Return how many records a cell of the last four weeks has, at the median."""
        cells = range(max(self.began, self.end - 4 * self.week), self.end)
        return median([self.counts.get(each, 0) for each in cells])

    def judged(self, when: str) -> Outcome:
        last = self.end - 1
        seen = [(each, usual) for each in range(last - self.week, last) if (usual := self._usual(each)) > 0]
        ratios = [self.counts.get(each, 0) / usual for each, usual in seen]
        level = min(max(median(ratios or [1.0]), 1 / _MOST_CHANGE_OF_LEVEL), _MOST_CHANGE_OF_LEVEL)
        busy = median([usual for _, usual in seen] or [0.0])
        errors = [abs(_apart(self.counts.get(each, 0), level * usual)) for each, usual in seen if usual >= busy]
        variation = max(_MAD * median(errors or [0.0]), _LEAST_VARIATION)
        expected, found = level * self._usual(last), self.counts.get(last, 0)
        deviation = math.sqrt(variation**2 + 1 / (expected + _FEW))
        return Outcome(
            round(_apart(found, expected) / deviation, 2), f"{found} records {when}, {expected:.0f} are usual."
        )

    def _usual(self, cell: int) -> float:
        return float(median(self.past(cell) or [0]))


def _apart(found: float, expected: float) -> float:
    """Return how far two counts are apart in logarithms, small ones less."""
    return math.log((found + _FEW) / (expected + _FEW))


def staleness(history: History, *, now: datetime, bounded: bool) -> Outcome:
    """Return how old the newest event is, in seconds.

    Unless it is `bounded`, the bound is half as much again as the longest silence of four weeks, and an hour.
    """
    known = [history.hours[each] for each in sorted(history.hours) if history.hours[each].newest is not None]
    if not known:
        return _learning("No record has a time in the past.")
    newest = max(each.newest for each in known if each.newest is not None)
    age = max(0.0, now.timestamp() - newest / 1e6)
    if bounded:
        return Outcome(age)
    hour, began = _hour_of(now), history.began or 0
    known = [each for each in known if each.hour >= hour - _FRESHNESS_WEEKS * HOURS_PER_WEEK]
    if hour - began < _FRESHNESS_DAYS * 24 or len(known) < _FRESHNESS_HOURS:
        return _learning(
            f"The newest is {worded(age, 'seconds')} old; a week and a day's worth of hours tell the usual."
        )
    longest, top = 0.0, 0
    for before, after in pairwise(known):
        top = max(top, before.newest or 0)
        longest = max(longest, after.hour * 3600 - top / 1e6)
    return Outcome(age, "As the longest silence of four weeks tells.", bound=1.5 * longest + 3600)


def null_share(history: History, columns: Sequence[str], *, now: datetime) -> Outcome:
    """Return by how many points of percent more of a column is null than at the same time of earlier weeks.

    The worst of the columns counts; how far those weeks lie apart themselves is taken off.
    """

    def off(name: str, windows: _Windows) -> float:
        shares: list[float] = [
            100.0 * (1 - history.filled(each, name).filled / history.records(each)) for each in windows.all
        ]
        now_, *past = shares
        return max(0.0, now_ - median(past) - (max(past) - min(past)))

    return _worst(history, columns, off, now=now)


def distribution(history: History, columns: Sequence[str], *, now: datetime) -> Outcome:
    """Return how far the values of a column are from those of the same time of earlier weeks: the worst column's index.

    It is the population stability index, less twice what those weeks differ among themselves: of a column that is never
    alike nothing is expected.
    """

    def off(name: str, windows: _Windows) -> float:
        now_, *past = (history.filled(each, name).buckets for each in windows.all)
        if min(sum(each.values()) for each in (now_, *past)) < ROWS_NEEDED:
            return 0.0
        whole = [_sum(past[:at] + past[at + 1 :]) for at in range(len(past))]
        among = max(stability(each, rest) for each, rest in zip(past, whole, strict=True))
        return max(0.0, stability(now_, _sum(past)) - 2 * among)

    return _worst(history, columns, off, now=now)


def stability(left: Mapping[str, int], right: Mapping[str, int]) -> float:
    """Return the population stability index of two counts by bucket; half a value is added to each bucket."""
    keys = sorted({*left, *right})
    lefts, rights = ([each.get(key, 0) + 0.5 for key in keys] for each in (left, right))
    pairs = [(p / sum(lefts), q / sum(rights)) for p, q in zip(lefts, rights, strict=True)]
    return sum((p - q) * math.log(p / q) for p, q in pairs)


def drift(history: History, *, now: datetime) -> Outcome:
    """Return how many properties are new, gone, or of another JSON type than in the four weeks before."""
    end = _hour_of(now) // HOURS_PER_SLOT
    window = next((each for each in _back(end) if history.records(each) >= _DRIFT_ROWS), None)
    if window is None:
        return _learning("Too few records came lately to tell.")
    before = [
        each for each in range(window[0] - _FILLING_WEEKS * SLOTS_PER_WEEK, window[0]) if each in history.fillings
    ]
    rows, past = history.records(window), history.records(before)
    if len(before) < _DRIFT_SLOTS or past < ROWS_NEEDED:
        return _learning("A day of records tells which properties are usual.")
    found: list[str] = []
    for name in sorted(history.names(window) | history.names(before)):
        here, there = history.filled(window, name), history.filled(before, name)
        expected = rows * there.filled / past
        if not there.filled and here.filled >= max(_NEW_RECORDS, _NEW_SHARE * rows):
            found.append(f"{name} is new")
        elif not here.filled and there.filled >= _GONE_SHARE * past and expected >= _GONE_RECORDS:
            found.append(f"{name} is gone")
        elif "." in name and here.filled >= _NEW_RECORDS and (kind := _retyped(here.buckets, there.buckets)):
            found.append(f"{name} is {kind} now")
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return Outcome(float(len(found)), f"{', '.join(found[:_NAMED])}{more}." if found else "")


def _retyped(here: Mapping[str, int], there: Mapping[str, int]) -> str:
    kind = max(here, key=lambda each: here[each])
    was = there.get(kind, 0) / max(1, sum(there.values()))
    return kind if here[kind] >= 0.5 * sum(here.values()) and was < 0.05 else ""


@dataclass(frozen=True)
class _Windows:
    """The slots of now, and the same of earlier weeks."""

    now: Sequence[int]
    past: Sequence[Sequence[int]]

    @property
    def all(self) -> Sequence[Sequence[int]]:
        return (self.now, *self.past)


def _back(end: int) -> list[Sequence[int]]:
    return [range(end - size, end) for size in _WINDOWS]


def _windows(history: History, end: int) -> _Windows | None:
    """Return the shortest window that has records enough, now and in three weeks before."""
    for size in _WINDOWS:
        shifts = [end - back * SLOTS_PER_WEEK for back in range(_FILLING_WEEKS + 1)]
        now, *past = (range(each - size, each) for each in shifts)
        full = [each for each in past if history.records(each) >= ROWS_NEEDED]
        if history.records(now) >= ROWS_NEEDED and len(full) >= WEEKS_NEEDED:
            return _Windows(now, full)
    return None


def _worst(
    history: History, columns: Sequence[str], off: Callable[[str, _Windows], float], *, now: datetime
) -> Outcome:
    windows = _windows(history, _hour_of(now) // HOURS_PER_SLOT)
    if windows is None:
        return _learning(f"Three weeks with {ROWS_NEEDED} records each tell what is usual.")
    if not columns:
        return _learning("The dataset has no column to compare.")
    found = {name: off(name, windows) for name in columns}
    name = max(sorted(found), key=lambda each: found[each])
    hours = len(windows.now) * HOURS_PER_SLOT
    told = f"Of {name} in {hours} h, against {len(windows.past)} weeks before."
    return Outcome(round(found[name], 4), told if found[name] else "")


def _sum(counts: Sequence[Mapping[str, int]]) -> Mapping[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for key, number in each.items():
            total[key] = total.get(key, 0) + number
    return total


def _learning(detail: str) -> Outcome:
    return Outcome(None, detail, learning=True)


def _hour_of(now: datetime) -> int:
    return int(now.timestamp() // 3600)


def _day(hour: int) -> str:
    return (datetime.fromtimestamp(0, UTC) + timedelta(hours=hour)).strftime("%Y-%m-%d")
