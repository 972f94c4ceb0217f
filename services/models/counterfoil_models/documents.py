"""Entities as JSON documents and back: what stores, artifacts and hashes hold."""

from collections.abc import Sequence
from datetime import date
from typing import Any

from counterfoil_models.entities import (
    Aggregation,
    ForecastOutput,
    ForecastSeries,
    ForecastSpec,
    Gap,
    Input,
    Method,
    Point,
    SeriesBacktest,
    SeriesFilter,
    SeriesLookup,
    SeriesSpec,
    SkippedSeries,
    Snapshot,
)

Document = dict[str, Any]


def spec_document(spec: ForecastSpec) -> Document:
    """Return a forecast spec as JSON."""
    series, lookup = spec.series, spec.series.lookup
    return {
        "series": {
            "dataset": series.dataset,
            "time_field": series.time_field,
            "value_field": series.value_field,
            "aggregation": series.aggregation.value,
            "dimension": series.dimension,
            "lookup": None if lookup is None else {"dataset": lookup.dataset, "key": lookup.key},
            "filters": [{"field": one.field, "value": one.value} for one in series.filters],
        },
        "horizon_days": spec.horizon_days,
        "season_days": spec.season_days,
        "coverage": spec.coverage,
        "min_active_days": spec.min_active_days,
    }


def spec_of(document: Document) -> ForecastSpec:
    """Read a forecast spec."""
    series = dict(document["series"])
    lookup = series.pop("lookup")
    return ForecastSpec(
        series=SeriesSpec(
            **{
                **series,
                "aggregation": Aggregation(series["aggregation"]),
                "lookup": None if lookup is None else SeriesLookup(**lookup),
                "filters": tuple(SeriesFilter(**one) for one in series["filters"]),
            }
        ),
        horizon_days=int(document["horizon_days"]),
        season_days=int(document["season_days"]),
        coverage=float(document["coverage"]),
        min_active_days=int(document["min_active_days"]),
    )


def inputs_document(inputs: Sequence[Input]) -> list[Document]:
    """Return snapshots in their roles as JSON."""
    return [
        {
            "role": one.role,
            "dataset": one.snapshot.dataset,
            "offsets": [list(pair) for pair in one.snapshot.offsets],
            "log_epoch": one.snapshot.log_epoch,
            "erasure_revision": one.snapshot.erasure_revision,
        }
        for one in inputs
    ]


def inputs_of(documents: Sequence[Document]) -> tuple[Input, ...]:
    """Read snapshots in their roles."""
    return tuple(
        Input(
            one["role"],
            Snapshot(
                one["dataset"],
                tuple((int(partition), int(offset)) for partition, offset in one["offsets"]),
                one["log_epoch"],
                int(one["erasure_revision"]),
            ),
        )
        for one in documents
    )


def output_document(output: ForecastOutput) -> Document:
    """Return a forecast's output as JSON: the document that a receipt's hash is of."""
    return {
        "model_id": output.model_id,
        "model_version": output.model_version,
        "horizon_days": output.horizon_days,
        "coverage": output.coverage,
        "timezone": output.timezone,
        "series": [
            {
                "series": one.series,
                "method": one.method.value,
                "last_day": one.last_day.isoformat(),
                "points": [
                    {"day": point.day.isoformat(), "mean": point.mean, "lower": point.lower, "upper": point.upper}
                    for point in one.points
                ],
            }
            for one in output.series
        ],
    }


def output_of(document: Document) -> ForecastOutput:
    """Read a forecast's output."""
    return ForecastOutput(
        model_id=document["model_id"],
        model_version=int(document["model_version"]),
        horizon_days=int(document["horizon_days"]),
        coverage=float(document["coverage"]),
        timezone=document["timezone"],
        series=tuple(
            ForecastSeries(
                one["series"],
                Method(one["method"]),
                date.fromisoformat(one["last_day"]),
                tuple(
                    Point(
                        date.fromisoformat(point["day"]),
                        float(point["mean"]),
                        float(point["lower"]),
                        float(point["upper"]),
                    )
                    for point in one["points"]
                ),
            )
            for one in document["series"]
        ),
    )


def backtest_document(one: SeriesBacktest) -> Document:
    """Return one series' backtest as JSON."""
    return {**vars(one), "method": one.method.value}


def backtest_of(document: Document) -> SeriesBacktest:
    """Read one series' backtest."""
    return SeriesBacktest(**{**document, "method": Method(document["method"])})


def skipped_document(one: SkippedSeries) -> Document:
    """Return a left-out series as JSON."""
    return dict(vars(one))


def skipped_of(document: Document) -> SkippedSeries:
    """Read a left-out series."""
    return SkippedSeries(**document)


def gap_document(gap: Gap) -> Document:
    """Return a gap as JSON."""
    return dict(vars(gap))


def gap_of(document: Document) -> Gap:
    """Read a gap."""
    return Gap(**document)
