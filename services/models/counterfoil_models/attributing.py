"""One attribution from journeys and costs: the document that its receipt's hash is of, and what it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from counterfoil_chassis.canonical import rounded
from counterfoil_chassis.clock import to_micros

from counterfoil_models.attribution import MODELS, Attributor, Credit
from counterfoil_models.attribution_spec import DAY_US, AttributionSpec, Window, period_of
from counterfoil_models.costs import Cost, spend_of
from counterfoil_models.documents import Document
from counterfoil_models.entities import Gap, JourneyReading
from counterfoil_models.journeys import Journeys, journeys_of, touchpoint_gaps
from counterfoil_models.windows import Found, PathFinder


@dataclass(frozen=True)
class Attributed:
    """An attribution's document and its gaps."""

    document: Document
    gaps: tuple[Gap, ...]


@dataclass(frozen=True)
class Row:
    """One channel or campaign: its touchpoints in the period, every model's credit, its cost where it is known."""

    subject: str
    touchpoints: int
    credits: Mapping[str, tuple[float, int]]
    cost: Cost | None


def journeys_from(spec: AttributionSpec, timezone: str) -> int:
    """Return the moment from which touchpoints can matter, in microseconds; 0 when any earlier one can."""
    return period_of(spec, timezone).begin - spec.lookback_days * DAY_US if spec.window is Window.LOOKBACK else 0


def attribute(
    spec: AttributionSpec, rows: pa.Table, costs: Sequence[pa.Table], *, reading: JourneyReading, timezone: str
) -> Attributed:
    """Attribute the conversions of the spec's period; `rows` are graph's, `costs` in the order of the spec's sources.

    Raises SubjectsTooManyError, and SeriesFieldError for a cost's property that cannot serve.
    """
    period = period_of(spec, timezone)
    data_end = period.begin if reading.known_at is None else to_micros(reading.known_at)
    journeys = journeys_of(rows, subject=spec.subject, period=period)
    finder = PathFinder(journeys, lookback_us=spec.lookback_days * DAY_US, period=period, data_end=data_end)
    attributor = Attributor(len(journeys.subjects), half_life_us=spec.half_life_days * DAY_US)
    for paths in finder.converting():
        attributor.add(paths)
    found = finder.left()
    attributor.add(found.nulls)
    touched = np.bincount(journeys.touchpoints.subjects[finder.in_period], minlength=len(journeys.subjects))
    spend = spend_of(spec, costs, timezone=timezone)
    table = _rows(journeys, attributor.credits(), touched.tolist(), spend.costs)
    gaps = [
        *_gaps_of_reading(reading),
        *_gaps_of_paths(finder, found),
        *journeys.gaps,
        *touchpoint_gaps(journeys, period=period, data_end=data_end, timezone=timezone),
        *spend.gaps,
        *(_gaps_of_costs(table) if spec.costs else ()),
    ]
    conversions = journeys.conversions
    document = {
        "conversions": len(conversions.times),
        "value_micros": str(sum(conversions.values.tolist())),
        "currency": journeys.currency,
        "attributed_conversions": attributor.conversions,
        "attributed_value_micros": str(attributor.value),
        "null_paths": len(found.nulls),
        "open_paths": found.open_paths,
        "rows": [_row_document(row) for row in table],
    }
    return Attributed(document, tuple(gaps))


def _rows(
    journeys: Journeys, credits_of: Mapping[str, Credit], touched: Sequence[int], costs: Mapping[str, Cost]
) -> list[Row]:
    rows = []
    for code, subject in enumerate(journeys.subjects):
        own = {
            model: (rounded(float(credit.conversions[code])), int(credit.values[code]))
            for model, credit in credits_of.items()
        }
        if touched[code] or any(any(pair) for pair in own.values()) or subject in costs:
            rows.append(Row(subject, touched[code], own, costs.get(subject)))
    untouched = costs.keys() - set(journeys.subjects)
    rows += [Row(subject, 0, dict.fromkeys(MODELS, (0.0, 0)), costs[subject]) for subject in untouched]
    return sorted(rows, key=lambda row: row.subject)


def _row_document(row: Row) -> Document:
    """Return a row as JSON; money is text, since JSON's numbers do not hold every millionth."""
    return {
        "subject": row.subject,
        "touchpoints": row.touchpoints,
        "credits": [
            {
                "model": model,
                "conversions": row.credits[model][0],
                "value_micros": str(row.credits[model][1]),
                "cost_per_conversion_micros": _per_conversion(row.cost, row.credits[model][0]),
            }
            for model in MODELS
        ],
        "cost_micros": None if row.cost is None else str(row.cost.micros),
        "cost_currency": "" if row.cost is None else row.cost.currency,
    }


def _per_conversion(cost: Cost | None, conversions: float) -> str | None:
    return None if cost is None or conversions <= 0 else str(round(cost.micros / conversions))


def _gaps_of_reading(reading: JourneyReading) -> list[Gap]:
    left_out = reading.persons_without_consent
    if not left_out:
        return []
    detail = f"{left_out} persons are left out: there is no consent of theirs for this purpose."
    return [Gap("NO_CONSENT", detail, left_out)]


def _gaps_of_paths(finder: PathFinder, found: Found) -> list[Gap]:
    told = [
        ("CONVERSIONS_WITHOUT_TOUCHPOINT", finder.without, "conversions have no touchpoint and are nobody's credit."),
        ("JOURNEY_TRUNCATED", finder.truncated, "paths have more than 200 touchpoints; the latest 200 count."),
        ("OPEN_PATHS", found.open_paths, "paths may yet convert; they count neither as converted nor as null."),
        ("FLIGHT_UNKNOWN", finder.endless, "touchpoints are of no campaign whose end is known; they get no credit."),
    ]
    return [Gap(reason, f"{count} {detail}", count) for reason, count, detail in told if count]


def _gaps_of_costs(rows: Sequence[Row]) -> list[Gap]:
    unknown = [row for row in rows if row.cost is None]
    detail = "The cost of {} is not known, which is not zero."
    return [Gap("COST_UNKNOWN", detail.format(row.subject), row.touchpoints) for row in unknown]
