"""Training of one version: choose the series, backtest and fit them, and judge whether they may serve."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from counterfoil_models.artifact import Artifact, ArtifactSeries
from counterfoil_models.backtesting import Trained, interval_scale, measured_coverage, origins, train
from counterfoil_models.entities import (
    UNKNOWN_SERIES,
    Aggregation,
    ForecastSpec,
    Input,
    SeriesBacktest,
    SkippedSeries,
)
from counterfoil_models.series import DailySeries, SeriesTable


@dataclass(frozen=True)
class Training:
    """What a training gave; no artifact when no series could be trained."""

    artifact: Artifact | None
    backtests: tuple[SeriesBacktest, ...]
    skipped: tuple[SkippedSeries, ...]


def train_version(
    spec: ForecastSpec, table: SeriesTable, *, timezone: str, inputs: Sequence[Input], libraries: Mapping[str, str]
) -> Training:
    """Backtest and fit every series that has enough active days; takes about 0.6 s per series of a year."""
    chosen, skipped = choose(spec, table)
    season, horizon, coverage = spec.season_days, spec.horizon_days, spec.coverage
    trained = [train(one.name, one.values, season=season, horizon=horizon, coverage=coverage) for one in chosen]
    if not trained:
        return Training(None, (), tuple(skipped))
    artifact = Artifact(
        spec=spec,
        timezone=timezone,
        inputs=tuple(inputs),
        first_day=table.first_day,
        last_day=table.last_day,
        interval_scale=interval_scale(trained, coverage=coverage),
        series=tuple(_fitted(spec, one, series) for one, series in zip(trained, chosen, strict=True)),
        libraries=libraries,
    )
    backtests = [
        SeriesBacktest(
            series=one.series,
            method=one.method,
            mase=one.mase,
            mase_seasonal_naive=one.mase_seasonal_naive,
            coverage=measured_coverage(one, trained, coverage=coverage),
            origins=len(one.ratios),
            active_days=series.active_days,
        )
        for one, series in zip(trained, chosen, strict=True)
    ]
    return Training(artifact, tuple(backtests), tuple(skipped))


def choose(spec: ForecastSpec, table: SeriesTable) -> tuple[list[DailySeries], list[SkippedSeries]]:
    """Part the series into those to train and those left out with their reason; `unknown` is always left out."""
    long_enough = bool(origins(table.days, season=spec.season_days, horizon=spec.horizon_days))
    chosen, skipped = [], []
    for one in table.series.values():
        reason = ""
        if one.name == UNKNOWN_SERIES and spec.series.dimension:
            reason = "UNKNOWN_DIMENSION"
        elif one.active_days < spec.min_active_days:
            reason = "TOO_FEW_ACTIVE_DAYS"
        elif not long_enough:
            reason = "HISTORY_TOO_SHORT"
        if reason:
            skipped.append(SkippedSeries(one.name, reason, one.active_days, one.records, one.total))
        else:
            chosen.append(one)
    return chosen, skipped


def verdict(training: Training) -> tuple[bool, str]:
    """Say whether the version may serve, and why: what serves must not be worse than the seasonal naive floor."""
    if not training.backtests:
        return False, "NO_TRAINABLE_SERIES: no series has enough active days and history."
    served = _mean([one.mase_served for one in training.backtests])
    floor = _mean([one.mase_seasonal_naive for one in training.backtests])
    figures = f"mean MASE {served:.3f}, seasonal naive {floor:.3f}, {len(training.backtests)} series"
    if served > floor:
        return False, f"WORSE_THAN_SEASONAL_NAIVE: {figures}."
    return True, f"{figures[0].upper()}{figures[1:]}."


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _fitted(spec: ForecastSpec, trained: Trained, series: DailySeries) -> ArtifactSeries:
    floor_zero = spec.series.aggregation is Aggregation.COUNT or bool(series.values.min() >= 0)
    return ArtifactSeries(trained.series, trained.method, trained.smoothing, floor_zero)
