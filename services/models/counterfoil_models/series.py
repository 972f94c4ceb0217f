"""Daily series cut from records: exact sums per workspace day, the same whatever the order of the records.

Sums are correctly rounded (Shewchuk 1997, `math.fsum`), so they depend on the records alone, never on their order.
A day is an end day, and dropped, when it begins before the oldest record of the dataset or ends after the newest one;
a record of type DATE spans its whole day.
"""

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from counterfoil_models.entities import UNKNOWN_SERIES, Aggregation, Gap, SeriesLookup, SeriesSpec
from counterfoil_models.errors import NoWholeDaysError, SeriesFieldError, SeriesTooLargeError

TOTAL_SERIES = "total"
"""The one series of a spec without a dimension."""

MAX_DAYS = 7_320
MAX_SERIES = 5_000
OFFSET_COLUMNS = ("_partition", "_offset")

NO_DAY = np.iinfo(np.int64).min
"""The day of a record without a time."""

EPOCH_DAY = date(1970, 1, 1)
"""Day 0."""

_DAY_US = 86_400_000_000
_HOUR_S = 3_600
_LAST_SECOND = 253_370_764_800  # the year 9999, where datetime ends

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DailySeries:
    """One series over the table's days; `records` and `total` count the dropped end days too."""

    name: str
    values: Floats
    active_days: int
    records: int
    total: float


@dataclass(frozen=True)
class SeriesTable:
    """Series over the same whole days, by name, with what was left out."""

    first_day: date
    days: int
    series: dict[str, DailySeries]
    gaps: tuple[Gap, ...]

    @property
    def last_day(self) -> date:
        """The last whole day."""
        return self.first_day + timedelta(days=self.days - 1)


def series_columns(spec: SeriesSpec) -> list[str]:
    """Return the columns of the dataset that `cut` needs."""
    wanted = [spec.time_field]
    if spec.aggregation is Aggregation.SUM:
        wanted.append(spec.value_field)
    if spec.lookup is not None:
        wanted.append(spec.lookup.key)
    elif spec.dimension:
        wanted.append(spec.dimension)
    wanted += [condition.field for condition in spec.filters]
    return list(dict.fromkeys(wanted))


def lookup_columns(spec: SeriesSpec) -> list[str]:
    """Return the columns of the lookup dataset that `cut` needs; none without a lookup."""
    if spec.lookup is None:
        return []
    return list(dict.fromkeys([*OFFSET_COLUMNS, spec.lookup.key, spec.dimension]))


def cut(spec: SeriesSpec, timezone: str, records: pa.Table, lookup: pa.Table | None = None) -> SeriesTable:
    """Cut daily series from the records of a snapshot in a timezone's days.

    Missing days are 0. Records without a time or a finite value are left out and counted in the gaps.

    Raises:
        SeriesFieldError: a property is absent or its type cannot serve.
        NoWholeDaysError: no whole day is left.
        SeriesTooLargeError: more than 7,320 days or 5,000 series.
    """
    if not records.num_rows:
        raise NoWholeDaysError(f"{spec.dataset} holds no records.")
    records = _filtered(spec, records)
    gaps: list[Gap] = []
    days, sub_day = local_days(column_of(records, spec.time_field), spec.time_field, ZoneInfo(timezone))
    has_time = days != NO_DAY
    values = _values(spec, records)
    usable = has_time & np.isfinite(values)
    _count(gaps, "MISSING_TIME", int((~has_time).sum()), f"records have no {spec.time_field}")
    _count(gaps, "MISSING_VALUE", int((has_time & ~usable).sum()), f"records have no finite {spec.value_field}")
    names, codes = _dimension(spec, records, lookup, gaps, values=np.where(np.isfinite(values), values, 0.0))
    if not usable.any():
        raise NoWholeDaysError(f"{spec.dataset} holds no record with a time and a value.")
    first, last = _whole_days(days[has_time], None if sub_day is None else sub_day[has_time])
    if last < first:
        raise NoWholeDaysError(f"{spec.dataset} holds no whole day: the first and the last day are left out.")
    if last - first >= MAX_DAYS:
        raise SeriesTooLargeError(
            f"{spec.dataset}.{spec.time_field} spans {last - first + 1} days; at most {MAX_DAYS} fit. "
            "Look for records with a wrong time."
        )
    inside = usable & (days >= first) & (days <= last)
    _count(gaps, "PARTIAL_END_DAYS", int((usable & ~inside).sum()), "records lie in the partial first or last day")
    span = int(last - first) + 1
    table = _aggregate(names, codes=codes[usable], values=values[usable], days=days[usable] - first, span=span)
    return SeriesTable(EPOCH_DAY + timedelta(days=int(first)), span, table, tuple(gaps))


def _count(gaps: list[Gap], reason: str, records: int, what: str) -> None:
    if records:
        gaps.append(Gap(reason, f"{records} {what}.", records))


def column_of(table: pa.Table, name: str) -> Any:
    """Return a property's values in one piece; raise SeriesFieldError when the dataset has none."""
    if name not in table.column_names:
        raise SeriesFieldError(f"The dataset has no property {name}.", metadata={"field": name})
    return table.column(name).combine_chunks()


def text_of(column: Any, name: str) -> Any:
    """Return values as text; raise SeriesFieldError for a type that has none."""
    try:
        return column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise SeriesFieldError(
            f"Property {name} of type {column.type} has no text.", metadata={"field": name}
        ) from error


def _filtered(spec: SeriesSpec, records: pa.Table) -> pa.Table:
    for condition in spec.filters:
        equal = pc.equal(text_of(column_of(records, condition.field), condition.field), pa.scalar(condition.value))
        records = records.filter(equal)
    return records


def _values(spec: SeriesSpec, records: pa.Table) -> Floats:
    if spec.aggregation is Aggregation.COUNT:
        return np.ones(records.num_rows)
    column = column_of(records, spec.value_field)
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise SeriesFieldError(
            f"Property {spec.value_field} is {kind}; a sum needs numbers.", metadata={"field": spec.value_field}
        )
    values = column.cast(pa.float64(), safe=False)
    return np.asarray(values.fill_null(math.nan).to_numpy(zero_copy_only=False), dtype=np.float64)


def local_days(column: Any, name: str, zone: ZoneInfo) -> tuple[Ints, Ints | None]:
    """Return each record's local day (days since 1970) and its microseconds into the day, None for dates."""
    kind = column.type
    missing = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_date(kind):
        raw = column.cast(pa.date32()).cast(pa.int32()).fill_null(0).to_numpy(zero_copy_only=False)
        return np.where(missing, NO_DAY, raw.astype(np.int64)), None
    if not pa.types.is_timestamp(kind):
        raise SeriesFieldError(f"Property {name} is {kind}; it needs to be a time.", metadata={"field": name})
    instants = column.cast(pa.timestamp("us", tz=kind.tz), safe=False).cast(pa.int64()).fill_null(0)
    micros = instants.to_numpy(zero_copy_only=False)
    local = np.zeros_like(micros)
    if not missing.all():
        local[~missing] = local_micros(micros[~missing], zone)
    return np.where(missing, NO_DAY, local // _DAY_US), local % _DAY_US


def local_micros(micros: Ints, zone: ZoneInfo) -> Ints:
    """Turn microseconds UTC into microseconds of the zone's wall clock, exact across every change of offset.

    The offset is asked once per hour of the range; where two neighbours differ, the change is found by bisection
    to the second. So a million records cost what their time span costs.
    """
    first, last = int(micros.min()) // 1_000_000, int(micros.max()) // 1_000_000 + 1
    if last - first > (MAX_DAYS + 2) * 86_400 or not 0 <= first <= last < _LAST_SECOND:
        raise SeriesTooLargeError(
            f"The times span {(last - first) // 86_400 + 1} days; at most {MAX_DAYS} fit, between the years 1970 and "
            "9998. Look for records with a wrong time."
        )
    starts, offsets = [first], [_offset(first, zone)]
    for start in range(first, last, _HOUR_S):
        end = min(start + _HOUR_S, last)
        if _offset(end, zone) != offsets[-1]:
            starts.append(_change(start, end, zone))
            offsets.append(_offset(end, zone))
    place = np.searchsorted(np.asarray(starts) * 1_000_000, micros, side="right") - 1
    shifted: Ints = micros + np.asarray(offsets, dtype=np.int64)[place] * 1_000_000
    return shifted


def _offset(second: int, zone: ZoneInfo) -> int:
    shift = (datetime.fromtimestamp(second, UTC)).astimezone(zone).utcoffset()
    return 0 if shift is None else int(shift.total_seconds())


def _change(low: int, high: int, zone: ZoneInfo) -> int:
    before = _offset(low, zone)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(middle, zone) == before:
            low = middle
        else:
            high = middle
    return high


def _whole_days(days: Ints, sub_day: Ints | None) -> tuple[int, int]:
    first, last = int(days.min()), int(days.max())
    if sub_day is None:
        return first, last
    starts_whole = bool((sub_day[days == first] == 0).any())
    return (first if starts_whole else first + 1), last - 1


def _dimension(
    spec: SeriesSpec, records: pa.Table, lookup: pa.Table | None, gaps: list[Gap], *, values: Floats
) -> tuple[list[str], Ints]:
    """Return the series' names and each record's place among them; a record without one is `unknown`."""
    if not spec.dimension:
        return [TOTAL_SERIES], np.zeros(records.num_rows, dtype=np.int64)
    if spec.lookup is None:
        column = text_of(column_of(records, spec.dimension), spec.dimension)
    elif lookup is None:
        raise SeriesFieldError(f"The lookup dataset {spec.lookup.dataset} was not read.")
    else:
        column = _looked_up(spec, spec.lookup, records, lookup, gaps, values=values)
    missing = column.is_null().to_numpy(zero_copy_only=False)
    unmatched = sum(gap.records for gap in gaps if gap.reason == "UNMATCHED_LOOKUP")
    _count(gaps, "MISSING_DIMENSION", int(missing.sum()) - unmatched, f"records have no {spec.dimension}")
    encoded = column.fill_null(UNKNOWN_SERIES).dictionary_encode()
    names = encoded.dictionary.to_pylist()
    if len(names) > MAX_SERIES:
        raise SeriesTooLargeError(
            f"{spec.dimension} has {len(names)} values; at most {MAX_SERIES} series fit. Choose a coarser dimension."
        )
    return names, encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _looked_up(
    spec: SeriesSpec, join: SeriesLookup, records: pa.Table, lookup: pa.Table, gaps: list[Gap], *, values: Floats
) -> Any:
    keyed = lookup.filter(pc.is_valid(column_of(lookup, join.key)))
    keyed = keyed.sort_by([(name, "descending") for name in OFFSET_COLUMNS])
    keys, wanted = column_of(keyed, join.key), column_of(records, join.key)
    if keys.type != wanted.type:
        keys, wanted = text_of(keys, join.key), text_of(wanted, join.key)
    distinct = pc.unique(keys)
    newest = pc.index_in(distinct, value_set=keys)  # the first place, hence the last by offset
    _count(
        gaps, "DUPLICATE_LOOKUP_KEY", len(keys) - len(distinct),
        f"records of {join.dataset} have a {join.key} that a later one has too; the later one counts",
    )  # fmt: skip
    place = pc.index_in(wanted, value_set=distinct)
    unmatched = place.is_null().to_numpy(zero_copy_only=False)
    if unmatched.any():
        worth = f" worth {math.fsum(values[unmatched].tolist()):.9g}" if spec.aggregation is Aggregation.SUM else ""
        detail = f"records{worth} match no {join.key} of {join.dataset}; they are the series {UNKNOWN_SERIES}"
        _count(gaps, "UNMATCHED_LOOKUP", int(unmatched.sum()), detail)
    return text_of(column_of(keyed, spec.dimension), spec.dimension).take(newest).take(place)


def _aggregate(names: list[str], *, codes: Ints, values: Floats, days: Ints, span: int) -> dict[str, DailySeries]:
    order = np.lexsort((days, codes))
    codes, days, values = codes[order], days[order], values[order]
    table: dict[str, DailySeries] = {}
    for code, name in sorted(enumerate(names), key=lambda pair: pair[1]):
        begin, end = np.searchsorted(codes, [code, code + 1])
        own_days, own = days[begin:end], values[begin:end].tolist()
        if begin == end:
            continue  # none of its records is usable
        found, starts = np.unique(own_days, return_index=True)
        ends = [*starts[1:].tolist(), len(own)]
        daily = np.zeros(span)
        active = 0
        for day, start, stop in zip(found.tolist(), starts.tolist(), ends, strict=True):
            if 0 <= day < span:
                daily[day] = math.fsum(own[start:stop])
                active += 1
        table[name] = DailySeries(name, daily, active, len(own), math.fsum(own))
    return table
