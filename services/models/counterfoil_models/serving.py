"""Forecasts from an artifact and the data as it is: recorded parameters are applied again, nothing is searched."""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
from counterfoil_chassis.canonical import rounded

from counterfoil_models.artifact import Artifact, ArtifactSeries
from counterfoil_models.entities import UNKNOWN_SERIES, ForecastOutput, ForecastSeries, Gap, Method, Point
from counterfoil_models.errors import HistoryTooShortError, HorizonTooLongError, SeriesUnknownError
from counterfoil_models.forecasting import predict
from counterfoil_models.series import SeriesTable


def chosen_series(artifact: Artifact, names: Sequence[str]) -> tuple[str, ...]:
    """Return the asked series in order, all when none is named; raise SeriesUnknownError for one not trained."""
    known = {one.series for one in artifact.series}
    for name in names:
        if name not in known:
            raise SeriesUnknownError(
                f"The champion was not trained on a series {name!r}; leave it out, or see the version's backtests.",
                metadata={"series": name},
            )
    return tuple(sorted(names or known))


def chosen_horizon(artifact: Artifact, horizon_days: int) -> int:
    """Return the asked horizon, the model's for 0; raise HorizonTooLongError beyond it."""
    longest = artifact.spec.horizon_days
    if horizon_days > longest:
        raise HorizonTooLongError(
            f"The model forecasts at most {longest} days ahead.", metadata={"horizon_days": str(longest)}
        )
    return horizon_days or longest


def make_output(
    artifact: Artifact, table: SeriesTable, *, model_id: str, version: int, horizon: int, names: Sequence[str]
) -> ForecastOutput:
    """Forecast the named series; numbers have 9 significant digits, so that what is served is what is hashed.

    Raises HistoryTooShortError when the data has fewer whole days than the method needs.
    """
    need = max(10, 2 * artifact.spec.season_days + 1)
    if table.days < need:
        raise HistoryTooShortError(f"The data has {table.days} whole days; a forecast needs {need}.")
    wanted = set(names)
    return ForecastOutput(
        model_id=model_id,
        model_version=version,
        horizon_days=horizon,
        coverage=artifact.spec.coverage,
        timezone=artifact.timezone,
        series=tuple(
            _forecast(artifact, one, table, horizon=horizon) for one in artifact.series if one.series in wanted
        ),
    )


def serving_gaps(artifact: Artifact, table: SeriesTable) -> tuple[Gap, ...]:
    """Return the data's gaps and which series are left out of the forecast."""
    trained = {one.series for one in artifact.series}
    gaps = list(table.gaps)
    left_out = [one for name, one in table.series.items() if name not in trained and name != UNKNOWN_SERIES]
    if left_out:
        records = sum(one.records for one in left_out)
        detail = f"{records} records of {len(left_out)} series that the model was not trained on are not forecast."
        gaps.append(Gap("SERIES_NOT_FORECAST", detail, records))
    gone = sorted(trained - table.series.keys())
    if gone:
        gaps.append(
            Gap("SERIES_WITHOUT_RECORDS", f"No record is left of {', '.join(gone[:10])}: forecast from zeros.", 0)
        )
    return tuple(gaps)


def _forecast(artifact: Artifact, one: ArtifactSeries, table: SeriesTable, *, horizon: int) -> ForecastSeries:
    spec = artifact.spec
    series = table.series.get(one.series)
    values = np.zeros(table.days) if series is None else series.values
    prediction = predict(
        values, one.method, one.smoothing, season=spec.season_days, horizon=horizon, coverage=spec.coverage
    )
    floor = 0.0 if one.floor_zero else -np.inf
    mean = np.maximum(prediction.mean, floor)
    width = prediction.half_width * artifact.interval_scale
    lower = np.minimum(np.maximum(prediction.mean - width, floor), mean)
    upper = np.maximum(prediction.mean + width, mean)
    points = tuple(
        Point(table.last_day + timedelta(days=ahead + 1), *rounded([float(each) for each in row]))
        for ahead, row in enumerate(zip(mean, lower, upper, strict=True))
    )
    return ForecastSeries(one.series, Method(one.method), table.last_day, points)
