"""What campaigns cost: spend per channel or campaign in a period, to the millionth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from counterfoil_models.attribution_spec import AttributionSpec, CostSource, Subject
from counterfoil_models.entities import Gap
from counterfoil_models.errors import SeriesFieldError
from counterfoil_models.paths import Ints
from counterfoil_models.series import EPOCH_DAY, NO_DAY, column_of, local_days, text_of

MICROS = 1_000_000


@dataclass(frozen=True)
class Cost:
    """What one channel or campaign cost, in millionths of the currency."""

    micros: int
    currency: str


@dataclass(frozen=True)
class Spend:
    """The cost by channel or campaign, and what could not be counted."""

    costs: Mapping[str, Cost]
    gaps: tuple[Gap, ...]


def cost_columns(source: CostSource, subject: Subject) -> list[str]:
    """Return the columns of the dataset that `spend_of` needs."""
    named = [source.campaign_field] if subject is Subject.CAMPAIGN else []
    return list(dict.fromkeys([source.time_field, source.amount_field, *named]))


def spend_of(spec: AttributionSpec, tables: Sequence[pa.Table], *, timezone: str) -> Spend:
    """Add up what each source, in the spec's order, says was spent in the period's days.

    A subject with spend in two currencies has no cost that is known. Raises SeriesFieldError when a property is absent
    or its type cannot serve.
    """
    amounts: dict[str, dict[str, int]] = {}
    gaps: list[Gap] = []
    for source, table in zip(spec.costs, tables, strict=True):
        for subject, micros in _spent(spec, source, table, timezone=timezone, gaps=gaps).items():
            own = amounts.setdefault(subject, {})
            own[source.currency] = own.get(source.currency, 0) + micros
    costs = {}
    for subject, own in sorted(amounts.items()):
        if len(own) == 1:
            ((currency, micros),) = own.items()
            costs[subject] = Cost(micros, currency)
        else:
            detail = f"The spend of {subject} is in {' and '.join(sorted(own))}; it is not added up."
            gaps.append(Gap("COST_CURRENCIES", detail, 0))
    return Spend(costs, tuple(gaps))


def _spent(
    spec: AttributionSpec, source: CostSource, table: pa.Table, *, timezone: str, gaps: list[Gap]
) -> dict[str, int]:
    days = _days(column_of(table, source.time_field), source.time_field, ZoneInfo(timezone))
    first, last = ((day - EPOCH_DAY).days for day in (spec.first_day, spec.last_day))
    amounts, known = _amounts(source, table)
    broken = int((~known | (days == NO_DAY)).sum())
    if broken:
        detail = f"{broken} records of {source.dataset} have no {source.time_field} or no {source.amount_field}."
        gaps.append(Gap("COST_MISSING", detail, broken))
    inside = known & (days >= first) & (days <= last)
    if not inside.any():
        return {}
    if spec.subject is Subject.CHANNEL:
        return {source.channel: sum(amounts[inside].tolist())}
    texts = (
        text_of(column_of(table, source.campaign_field), source.campaign_field)
        .fill_null("")
        .to_numpy(zero_copy_only=False)
    )
    spent: dict[str, int] = {}
    for campaign, micros in zip(texts[inside], amounts[inside].tolist(), strict=True):
        spent[campaign] = spent.get(campaign, 0) + micros
    nameless = spent.pop("", None)
    if nameless is not None:
        records = int((texts[inside] == "").sum())
        detail = f"{records} records of {source.dataset} name no {source.campaign_field}; they are nobody's cost."
        gaps.append(Gap("COST_WITHOUT_CAMPAIGN", detail, records))
    return spent


def _days(column: Any, name: str, zone: ZoneInfo) -> Ints:
    if pa.types.is_string(column.type):  # reports name days as text
        try:
            column = column.cast(pa.date32())
        except pa.ArrowInvalid as error:
            raise SeriesFieldError(
                f"Property {name} holds texts that are no days.", metadata={"field": name}
            ) from error
    return local_days(column, name, zone)[0]


def _amounts(source: CostSource, table: pa.Table) -> tuple[Ints, Any]:
    """Return amounts in millionths, and which are known."""
    name = source.amount_field
    column = column_of(table, name)
    scale = 1 if source.micros else MICROS
    try:
        if pa.types.is_integer(column.type):
            known = column.is_valid().to_numpy(zero_copy_only=False)
            whole: Ints = column.fill_null(0).cast(pa.int64()).to_numpy(zero_copy_only=False) * scale
            return whole, known
        numbers = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SeriesFieldError(
            f"Property {name} is {column.type}; a cost needs numbers.", metadata={"field": name}
        ) from error
    known = np.isfinite(numbers)
    return np.rint(np.where(known, numbers, 0.0) * scale).astype(np.int64), known
