"""From records to one row per unit: what it did before and after, when it was assigned, what is known of it.

Sums are correctly rounded (`math.fsum`) and units are in the order of their names, so that a table depends on the
records alone, never on the order they are read in.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from counterfoil_models.entities import Gap
from counterfoil_models.errors import LiftTooLargeError, NoUnitsError, SeriesFieldError
from counterfoil_models.lift_spec import (
    ASSIGNMENT_ROLE,
    COVARIATES_ROLE,
    LOOKUP_ROLE,
    OUTCOME_ROLE,
    LiftAssignment,
    LiftCovariates,
    LiftSpec,
)
from counterfoil_models.series import EPOCH_DAY, NO_DAY, OFFSET_COLUMNS, Floats, Ints, column_of, local_days, text_of

MAX_UNITS = 200_000
"""Nearest neighbours of more units take minutes."""

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Known:
    """One property of the units: numbers with NaN for absent, or texts with None for absent."""

    field: str
    numbers: Floats | None
    texts: tuple[str | None, ...]


@dataclass(frozen=True)
class UnitTable:
    """A row per unit of the outcome dataset, by name.

    `first_assigned` is a day since 1970, or NO_DAY for a unit that was not assigned or whose times are not known.
    """

    names: tuple[str, ...]
    period: Mapping[str, Floats]
    before: Mapping[str, Floats]
    costs: Mapping[str, Floats]
    assigned: Flags
    first_assigned: Ints
    known: tuple[Known, ...]
    gaps: tuple[Gap, ...]


def lift_columns(spec: LiftSpec) -> dict[str, list[str]]:
    """Return the columns of each dataset that `unit_table` needs, by role."""
    outcome, assignment = spec.outcome, spec.assignment
    wanted = {
        OUTCOME_ROLE: [
            outcome.unit_field, outcome.time_field, outcome.value_field, outcome.count_field, *outcome.cost_fields,
        ],
        ASSIGNMENT_ROLE: [
            assignment.unit_field,
            assignment.filter_field,
            assignment.lookup_key if assignment.lookup_dataset else assignment.time_field,
        ],
    }  # fmt: skip
    if assignment.lookup_dataset:
        wanted[LOOKUP_ROLE] = [*OFFSET_COLUMNS, assignment.lookup_key, assignment.time_field]
    if spec.covariates is not None:
        wanted[COVARIATES_ROLE] = [*OFFSET_COLUMNS, spec.covariates.unit_field, *spec.covariates.fields]
    return {role: [name for name in dict.fromkeys(names) if name] for role, names in wanted.items()}


def unit_table(spec: LiftSpec, timezone: str, tables: Mapping[str, pa.Table]) -> UnitTable:
    """Make the rows of all units from the records of snapshots, by role, in a timezone's days.

    Records without a unit or a time are left out and counted in the gaps; a unit without a usable record is kept with
    zeros, since it could have done something.

    Raises:
        SeriesFieldError: a property is absent or its type cannot serve.
        NoUnitsError: the outcome dataset names no unit.
        LiftTooLargeError: more than 200,000 units.
        SeriesTooLargeError: times that span more than 7,320 days.
    """
    zone, gaps = ZoneInfo(timezone), list[Gap]()
    rows = _rows(spec, tables[OUTCOME_ROLE], gaps)
    days, _ = local_days(column_of(rows.records, spec.outcome.time_field), spec.outcome.time_field, zone)
    named = rows.units >= 0
    lacking = int((named & (days == NO_DAY)).sum())
    _count(gaps, "MISSING_TIME", lacking, f"records have no {spec.outcome.time_field}")
    period = named & _inside(days, spec.first_day, spec.last_day)
    before = named & _inside(days, spec.pre_first_day, spec.pre_last_day)
    assigned, first = _assignments(spec.assignment, rows.names, zone=zone, tables=tables, gaps=gaps)
    return UnitTable(
        names=rows.names,
        period=_measures(spec, rows, inside=period, gaps=gaps),
        before=_measures(spec, rows, inside=before, gaps=None),
        costs={field: rows.sums(field, inside=period, gaps=gaps) for field in spec.outcome.cost_fields},
        assigned=assigned,
        first_assigned=first,
        known=_known(spec.covariates, rows.names, tables=tables, gaps=gaps),
        gaps=tuple(gaps),
    )


def day_number(day: date) -> int:
    """Return days since 1970."""
    return (day - EPOCH_DAY).days


def _inside(days: Ints, first: date, last: date) -> Flags:
    inside: Flags = (days >= day_number(first)) & (days <= day_number(last))
    return inside


def _count(gaps: list[Gap] | None, reason: str, records: int, what: str) -> None:
    if records and gaps is not None:
        gaps.append(Gap(reason, f"{records} {what}.", records))


@dataclass(frozen=True)
class _Rows:
    """The records of the outcome, the units' names in order, and each record's place among them (-1 = it has none)."""

    records: pa.Table
    names: tuple[str, ...]
    units: Ints

    def sums(self, field: str, *, inside: Flags, gaps: list[Gap] | None) -> Floats:
        """Sum a property per unit over the records inside; those without a finite number are counted."""
        column = column_of(self.records, field)
        if not _is_number(column.type):
            raise SeriesFieldError(
                f"Property {field} is {column.type}; a sum needs numbers.", metadata={"field": field}
            )
        values = column.cast(pa.float64(), safe=False).fill_null(math.nan).to_numpy(zero_copy_only=False)
        finite = np.isfinite(values)
        _count(gaps, "MISSING_VALUE", int((inside & ~finite).sum()), f"records of the period have no finite {field}")
        summed = inside & finite
        order = np.argsort(self.units[summed], kind="stable")
        ends = np.searchsorted(self.units[summed][order], np.arange(len(self.names) + 1)).tolist()
        ordered = values[summed][order].tolist()
        return np.array([math.fsum(ordered[begin:end]) for begin, end in pairwise(ends)])

    def counts(self, field: str, *, inside: Flags, gaps: list[Gap] | None) -> Floats:
        """Count the records inside per unit, or the distinct values of a property."""
        size = len(self.names)
        if not field:
            return np.bincount(self.units[inside], minlength=size).astype(np.float64)
        encoded = column_of(self.records, field).dictionary_encode()
        values = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        _count(gaps, "MISSING_COUNT", int((inside & (values < 0)).sum()), f"records of the period have no {field}")
        counted, span = inside & (values >= 0), max(len(encoded.dictionary), 1)
        distinct = np.unique(self.units[counted] * span + values[counted])
        return np.bincount(distinct // span, minlength=size).astype(np.float64)


def _rows(spec: LiftSpec, records: pa.Table, gaps: list[Gap]) -> _Rows:
    dataset, field = spec.outcome.dataset, spec.outcome.unit_field
    if not records.num_rows:
        raise NoUnitsError(f"{dataset} holds no records.")
    encoded = column_of(records, field).dictionary_encode()
    found = text_of(encoded.dictionary, field).to_pylist()
    if not found:
        raise NoUnitsError(f"No record of {dataset} has a {field}.")
    names = sorted(set(found))
    if len(names) > MAX_UNITS:
        raise LiftTooLargeError(f"{dataset} has {len(names)} units; a lift compares at most {MAX_UNITS}.")
    place = {name: number for number, name in enumerate(names)}
    codes = np.asarray([place[name] for name in found], dtype=np.int64)
    indices = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    units = np.where(indices >= 0, codes[indices], -1)
    _count(gaps, "MISSING_UNIT", int((units < 0).sum()), f"records have no {field}")
    return _Rows(records, tuple(names), units)


def _measures(spec: LiftSpec, rows: _Rows, *, inside: Flags, gaps: list[Gap] | None) -> dict[str, Floats]:
    measures: dict[str, Floats] = {}
    if spec.outcome.value_field:
        measures["value"] = rows.sums(spec.outcome.value_field, inside=inside, gaps=gaps)
    measures["count"] = rows.counts(spec.outcome.count_field, inside=inside, gaps=gaps)
    return measures


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _assignments(
    assignment: LiftAssignment,
    names: tuple[str, ...],
    *,
    zone: ZoneInfo,
    tables: Mapping[str, pa.Table],
    gaps: list[Gap],
) -> tuple[Flags, Ints]:
    """Return which units were assigned, and the first day they were."""
    records = tables[ASSIGNMENT_ROLE]
    if assignment.filter_values and records.num_rows:
        texts = text_of(column_of(records, assignment.filter_field), assignment.filter_field)
        records = records.filter(pc.is_in(texts, value_set=pa.array(assignment.filter_values, pa.string())))
    assigned, first = np.zeros(len(names), dtype=np.bool_), np.full(len(names), NO_DAY)
    if not records.num_rows:
        return assigned, first
    wanted = text_of(column_of(records, assignment.unit_field), assignment.unit_field)
    place = pc.index_in(wanted, value_set=pa.array(names, pa.string()))
    units = place.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    nameless = int(wanted.null_count)
    _count(
        gaps, "ASSIGNMENT_WITHOUT_UNIT", nameless, f"records of {assignment.dataset} have no {assignment.unit_field}"
    )
    strangers = len(pc.unique(wanted.filter(place.is_null()).drop_null()))
    _count(gaps, "ASSIGNED_NOT_IN_POPULATION", strangers, "assigned units have no record in the outcome dataset")
    assigned[units[units >= 0]] = True
    if assignment.time_field:
        days = _assigned_days(assignment, records, zone=zone, tables=tables, gaps=gaps)
        timed = (units >= 0) & (days != NO_DAY)
        earliest = np.full(len(names), np.iinfo(np.int64).max)
        np.minimum.at(earliest, units[timed], days[timed])
        first = np.where(earliest < np.iinfo(np.int64).max, earliest, NO_DAY)
        unknown = int((assigned & (first == NO_DAY)).sum())
        _count(gaps, "ASSIGNED_WITHOUT_TIME", unknown, "assigned units have no time of assignment; they are kept")
    return assigned, first


def _assigned_days(
    assignment: LiftAssignment, records: pa.Table, *, zone: ZoneInfo, tables: Mapping[str, pa.Table], gaps: list[Gap]
) -> Ints:
    if not assignment.lookup_dataset:
        return local_days(column_of(records, assignment.time_field), assignment.time_field, zone)[0]
    lookup = tables[LOOKUP_ROLE]
    if not lookup.num_rows:
        return np.full(records.num_rows, NO_DAY)
    newest = _newest(lookup, assignment.lookup_key, dataset=assignment.lookup_dataset, gaps=gaps)
    days, _ = local_days(column_of(newest, assignment.time_field), assignment.time_field, zone)
    keys = text_of(column_of(newest, assignment.lookup_key), assignment.lookup_key)
    found = pc.index_in(text_of(column_of(records, assignment.lookup_key), assignment.lookup_key), value_set=keys)
    place = found.fill_null(-1).to_numpy(zero_copy_only=False)
    detail = f"records of {assignment.dataset} match no {assignment.lookup_key} of {assignment.lookup_dataset}"
    _count(gaps, "UNMATCHED_LOOKUP", int((place < 0).sum()), detail)
    return np.where(place >= 0, days[place], NO_DAY) if len(days) else np.full(len(place), NO_DAY)


def _newest(table: pa.Table, key: str, *, dataset: str, gaps: list[Gap]) -> pa.Table:
    """Keep of each key the record that came last; those that a later one replaces are counted."""
    keyed = table.filter(pc.is_valid(column_of(table, key)))
    keyed = keyed.sort_by([(name, "descending") for name in OFFSET_COLUMNS])
    keys = text_of(column_of(keyed, key), key)
    distinct = pc.unique(keys)
    detail = f"records of {dataset} have a {key} that a later one has too; the later one counts"
    _count(gaps, "DUPLICATE_LOOKUP_KEY", len(keys) - len(distinct), detail)
    return keyed.take(pc.index_in(distinct, value_set=keys))


def _known(
    covariates: LiftCovariates | None, names: tuple[str, ...], *, tables: Mapping[str, pa.Table], gaps: list[Gap]
) -> tuple[Known, ...]:
    if covariates is None:
        return ()
    records = tables[COVARIATES_ROLE]
    if not records.num_rows:
        _count(gaps, "UNKNOWN_UNITS", len(names), f"units have no record in {covariates.dataset}, which is empty")
        return ()
    newest = _newest(records, covariates.unit_field, dataset=covariates.dataset, gaps=gaps)
    keys = text_of(column_of(newest, covariates.unit_field), covariates.unit_field)
    place = pc.index_in(pa.array(names, pa.string()), value_set=keys)
    _count(gaps, "UNKNOWN_UNITS", int(place.null_count), f"units have no record in {covariates.dataset}")
    return tuple(_property(field, column_of(newest, field).take(place)) for field in covariates.fields)


def _property(field: str, column: Any) -> Known:
    if _is_number(column.type):
        numbers = column.cast(pa.float64(), safe=False).fill_null(math.nan).to_numpy(zero_copy_only=False)
        return Known(field, np.where(np.isfinite(numbers), numbers, math.nan), ())
    return Known(field, None, tuple(text_of(column, field).to_pylist()))
