"""Journeys as arrays: everybody's touchpoints and conversions, by person and time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from counterfoil_models.attribution_spec import DAY_US, Period, Subject
from counterfoil_models.entities import Gap
from counterfoil_models.errors import SubjectsTooManyError
from counterfoil_models.paths import Ints
from counterfoil_models.series import EPOCH_DAY, local_micros

UNKNOWN_SUBJECT = "unknown"
"""The subject of touchpoints that name no channel or campaign."""

MAX_SUBJECTS = 2_000

NO_END = np.iinfo(np.int64).min
"""The end of a campaign whose end is not known, or of none."""

DAILY_SHARE = 0.75
"""A channel has touchpoints daily when at least this share of its days has some."""

MIN_DAILY_DAYS = 14
MIN_GAP_DAYS = 2
_LISTED_GAPS = 10


@dataclass(frozen=True)
class Touchpoints:
    """Touchpoints by person and time; `subjects` and `channels` are codes, `campaign_ends` NO_END where unknown."""

    persons: Ints
    times: Ints
    subjects: Ints
    channels: Ints
    campaign_ends: Ints


@dataclass(frozen=True)
class Conversions:
    """Conversions by person and time; `touched` is the place after the last touchpoint that is not later."""

    persons: Ints
    times: Ints
    values: Ints
    touched: Ints


@dataclass(frozen=True)
class Journeys:
    """Touchpoints and the conversions of a period, the names of the codes, and what was found wanting."""

    touchpoints: Touchpoints
    conversions: Conversions
    subjects: tuple[str, ...]
    channels: tuple[str, ...]
    currency: str
    gaps: tuple[Gap, ...]


def journeys_of(rows: Any, *, subject: Subject, period: Period) -> Journeys:
    """Sort the rows of graph's Arrow table and take them apart; conversions outside the period are left out.

    What happens at the same moment is ordered by event id, touchpoints before conversions, so that the order does not
    depend on how the rows came. Raises SubjectsTooManyError above 2,000 channels or campaigns.
    """
    persons = _codes(rows, "person_id")[0]
    times = _ints(rows, "time_us")
    converts = rows.column("conversion").to_numpy().astype(bool)
    order = _order(rows, persons=persons, times=times, converts=converts)
    persons, times, converts = persons[order], times[order], converts[order]
    subjects, subject_names = _codes(rows, subject.value)
    channels, channel_names = _codes(rows, Subject.CHANNEL.value)
    touches = ~converts
    touchpoints = Touchpoints(
        persons=persons[touches],
        times=times[touches],
        subjects=subjects[order][touches],
        channels=channels[order][touches],
        campaign_ends=_ints(rows, "campaign_end_us", missing=NO_END)[order][touches],
    )
    inside = converts & (times >= period.begin) & (times < period.end)
    currency, values, gaps = _values(rows.take(pa.array(order[inside])))
    conversions = Conversions(persons[inside], times[inside], values, np.cumsum(touches)[inside])
    return _coded(Journeys(touchpoints, conversions, subject_names, channel_names, currency, gaps), subject)


def _coded(journeys: Journeys, subject: Subject) -> Journeys:
    """Give codes to the subjects that touchpoints name, by name; rows of conversions name none."""
    touchpoints = journeys.touchpoints
    found, places = np.unique(touchpoints.subjects, return_inverse=True)
    names = [journeys.subjects[code] for code in found]
    if len(names) > MAX_SUBJECTS:
        raise SubjectsTooManyError(
            f"The touchpoints name {len(names)} {subject.value}s; at most {MAX_SUBJECTS} can share the credit. "
            "Choose a shorter period or the other subject.",
            metadata={"subjects": str(len(names))},
        )
    order = np.argsort(np.array(names, dtype=object), kind="stable")
    ranks = np.empty(len(names), dtype=np.int64)
    ranks[order] = np.arange(len(names))
    gaps = list(journeys.gaps)
    unknown = int((places == names.index(UNKNOWN_SUBJECT)).sum()) if UNKNOWN_SUBJECT in names else 0
    if unknown:
        detail = f"{unknown} touchpoints name no {subject.value}; they are the row {UNKNOWN_SUBJECT}."
        gaps.append(Gap("SUBJECT_UNKNOWN", detail, unknown))
    return Journeys(
        Touchpoints(**{**vars(touchpoints), "subjects": ranks[places.reshape(-1)]}),
        journeys.conversions,
        tuple(names[place] for place in order),
        journeys.channels,
        journeys.currency,
        tuple(gaps),
    )


def _codes(rows: Any, name: str) -> tuple[Ints, tuple[str, ...]]:
    column = rows.column(name).combine_chunks().cast(pa.string()).fill_null("")
    encoded = column.dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, tuple(each or UNKNOWN_SUBJECT for each in encoded.dictionary.to_pylist())


def _ints(rows: Any, name: str, *, missing: int = 0) -> Ints:
    column = rows.column(name).cast(pa.int64()).fill_null(missing)
    found: Ints = column.to_numpy().astype(np.int64, copy=False)
    return found


def _order(rows: Any, *, persons: Ints, times: Ints, converts: Any) -> Ints:
    order: Ints = np.lexsort((converts, times, persons))
    keys = [each[order] for each in (persons, times, converts)]
    same = np.logical_and.reduce([key[1:] == key[:-1] for key in keys])
    tied = np.flatnonzero(np.concatenate((same, [False])) | np.concatenate(([False], same)))
    if len(tied):
        ids = np.array(rows.column("event_id").take(pa.array(order[tied])).to_pylist(), dtype=object)
        ranks = np.unique(ids, return_inverse=True)[1].reshape(-1)
        within = np.lexsort((ranks, *(key[tied] for key in reversed(keys))))
        order[tied] = order[tied][within]
    return order


def _values(rows: Any) -> tuple[str, Ints, tuple[Gap, ...]]:
    """Return the currency of most conversions, the values in it, and how many values are in another one."""
    values = _ints(rows, "value_micros")
    currencies = rows.column("currency").cast(pa.string()).fill_null("").to_numpy()
    valued = values != 0
    names, counts = np.unique(currencies[valued].astype(str), return_counts=True)
    if not len(names):
        return "", values, ()
    currency = str(names[np.argmax(counts)])
    others = valued & (currencies != currency)
    count = int(others.sum())
    if not count:
        return currency, values, ()
    told = (
        f"{count} conversions have a value that is not in {currency or 'the unit of most'}; they count without value."
    )
    return currency, np.where(others, 0, values), (Gap("OTHER_CURRENCY", told, count),)


def touchpoint_gaps(journeys: Journeys, *, period: Period, data_end: int, timezone: str) -> tuple[Gap, ...]:
    """Return the runs of days on which a channel that usually has touchpoints daily has none.

    Only whole days between a channel's first touchpoint in the period and the end of the data are looked at.
    """
    touchpoints = journeys.touchpoints
    end = min(period.end, data_end)
    inside = (touchpoints.times >= period.begin) & (touchpoints.times < end)
    if not inside.any():
        return ()
    zone = ZoneInfo(timezone)
    days = local_micros(touchpoints.times[inside], zone) // DAY_US
    after = int(local_micros(np.array([end]), zone)[0] // DAY_US)  # the day that is not whole, or not in the period
    gaps = []
    for code, channel in sorted(enumerate(journeys.channels), key=lambda pair: pair[1]):
        own = np.unique(days[touchpoints.channels[inside] == code])
        span = after - int(own[0]) if len(own) else 0
        active = int((own < after).sum())
        if span < MIN_DAILY_DAYS or active < DAILY_SHARE * span:
            continue
        runs = _runs(own[own < after], after)
        if runs:
            missing = sum(last - first + 1 for first, last in runs)
            told = ", ".join(_told(first, last) for first, last in runs[:_LISTED_GAPS])
            gaps.append(
                Gap(
                    "TOUCHPOINT_GAP", f"{channel} usually has touchpoints daily, and none on {missing} days: {told}.", 0
                )
            )
    return tuple(gaps)


def _runs(days: Ints, after: int) -> list[tuple[int, int]]:
    bounds = [*days.tolist(), after]
    return [(day + 1, following - 1) for day, following in pairwise(bounds) if following - day > MIN_GAP_DAYS]


def _told(first: int, last: int) -> str:
    return " to ".join((EPOCH_DAY + timedelta(days=day)).isoformat() for day in (first, last))
