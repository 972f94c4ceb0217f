"""Entities as messages and back."""

from __future__ import annotations

from counterfoil.common.v1 import receipts_pb2
from counterfoil.models.v1 import forecasts_pb2, models_pb2
from counterfoil_chassis.clock import to_timestamp

from counterfoil_models.entities import (
    Aggregation,
    Forecast,
    ForecastSeries,
    ForecastSpec,
    Gap,
    ImpactTier,
    Model,
    ModelEvent,
    ModelVersion,
    SeriesFilter,
    SeriesLookup,
    SeriesSpec,
    State,
)
from counterfoil_models.snapshot_messages import snapshot_message

_TIERS = {
    ImpactTier.LOW: receipts_pb2.IMPACT_TIER_LOW,
    ImpactTier.MEDIUM: receipts_pb2.IMPACT_TIER_MEDIUM,
    ImpactTier.HIGH: receipts_pb2.IMPACT_TIER_HIGH,
}
_TIER_OF = {message: tier for tier, message in _TIERS.items()}
_STATES = {state: models_pb2.ModelVersion.State.Value(state.name) for state in State}


def tier_of(message: receipts_pb2.ImpactTier.ValueType) -> ImpactTier:
    """Read an impact tier; unspecified is low."""
    return _TIER_OF.get(message, ImpactTier.LOW)


def tier_message(tier: ImpactTier) -> receipts_pb2.ImpactTier.ValueType:
    """Write an impact tier."""
    return _TIERS[tier]


def spec_of_message(message: models_pb2.ForecastSpec) -> ForecastSpec:
    """Read a forecast spec as it was sent: 0 where nothing was said."""
    series = message.series
    counted = series.aggregation == models_pb2.SeriesSpec.COUNT
    return ForecastSpec(
        series=SeriesSpec(
            dataset=series.dataset,
            time_field=series.time_field,
            value_field=series.value_field,
            aggregation=Aggregation.COUNT if counted else Aggregation.SUM,
            dimension=series.dimension,
            lookup=SeriesLookup(series.lookup.dataset, series.lookup.key) if series.HasField("lookup") else None,
            filters=tuple(SeriesFilter(one.field, one.value) for one in series.filters),
        ),
        horizon_days=message.horizon_days,
        season_days=message.season_days,
        coverage=message.coverage,
        min_active_days=message.min_active_days,
    )


def _spec_message(spec: ForecastSpec) -> models_pb2.ForecastSpec:
    series, lookup = spec.series, spec.series.lookup
    message = models_pb2.SeriesSpec(
        dataset=series.dataset,
        time_field=series.time_field,
        value_field=series.value_field,
        aggregation=models_pb2.SeriesSpec.Aggregation.Value(series.aggregation.name),
        dimension=series.dimension,
        lookup=None if lookup is None else models_pb2.SeriesLookup(dataset=lookup.dataset, key=lookup.key),
        filters=[models_pb2.SeriesFilter(field=one.field, value=one.value) for one in series.filters],
    )
    return models_pb2.ForecastSpec(
        series=message,
        horizon_days=spec.horizon_days,
        season_days=spec.season_days,
        coverage=spec.coverage,
        min_active_days=spec.min_active_days,
    )


def model_message(model: Model) -> models_pb2.Model:
    """Write a model."""
    return models_pb2.Model(
        model_id=model.model_id,
        display_name=model.display_name,
        purpose=model.purpose,
        impact_tier=tier_message(model.impact_tier),
        forecast=_spec_message(model.spec),
        champion_version=model.champion_version,
        created_by=model.created_by,
        created_at=to_timestamp(model.created_at),
        records_since_training=model.records_since_training,
    )


def version_message(version: ModelVersion) -> models_pb2.ModelVersion:
    """Write a version with its backtests."""
    error = None
    if version.error_reason:
        error = models_pb2.ModelVersionError(reason=version.error_reason, detail=version.error_detail)
    return models_pb2.ModelVersion(
        model_id=version.model_id,
        version=version.version,
        state=_STATES[version.state],
        artifact_sha256=version.artifact_sha256,
        artifact_bytes=version.artifact_bytes,
        snapshots=[snapshot_message(one.snapshot) for one in version.inputs],
        backtests=[models_pb2.SeriesBacktest(**{**vars(one), "method": one.method.value}) for one in version.backtests],
        skipped=[models_pb2.SkippedSeries(**vars(one)) for one in version.skipped],
        error=error,
        created_by=version.created_by,
        created_at=to_timestamp(version.created_at),
        finished_at=None if version.finished_at is None else to_timestamp(version.finished_at),
        trace_id=version.trace_id,
        change_id=version.change_id,
    )


def event_message(event: ModelEvent) -> models_pb2.ModelEvent:
    """Write an event."""
    unspecified = models_pb2.ModelVersion.STATE_UNSPECIFIED
    return models_pb2.ModelEvent(
        sequence=event.sequence,
        version=event.version,
        from_state=unspecified if event.from_state is None else _STATES[event.from_state],
        to_state=_STATES[event.to_state],
        actor=event.actor,
        reason=event.reason,
        created_at=to_timestamp(event.created_at),
    )


def completeness_message(gaps: tuple[Gap, ...]) -> receipts_pb2.Completeness:
    """Write what was left out."""
    notes = [receipts_pb2.CompletenessNote(reason=gap.reason, detail=gap.detail, records=gap.records) for gap in gaps]
    return receipts_pb2.Completeness(complete=not notes, notes=notes)


def forecast_message(forecast: Forecast, *, points: bool = True) -> forecasts_pb2.Forecast:
    """Write a forecast, for lists without its points."""
    output = forecast.output
    return forecasts_pb2.Forecast(
        forecast_id=forecast.forecast_id,
        model_id=output.model_id,
        model_version=output.model_version,
        receipt_id=forecast.receipt_id,
        horizon_days=output.horizon_days,
        coverage=output.coverage,
        timezone=output.timezone,
        series=[_series_message(one, points=points) for one in output.series],
        completeness=completeness_message(forecast.gaps),
        snapshots=[snapshot_message(one.snapshot) for one in forecast.inputs],
        created_at=to_timestamp(forecast.created_at),
    )


def _series_message(series: ForecastSeries, *, points: bool) -> forecasts_pb2.ForecastSeries:
    return forecasts_pb2.ForecastSeries(
        series=series.series,
        method=series.method.value,
        last_day=series.last_day.isoformat(),
        points=[
            forecasts_pb2.ForecastPoint(day=one.day.isoformat(), mean=one.mean, lower=one.lower, upper=one.upper)
            for one in (series.points if points else ())
        ],
    )
