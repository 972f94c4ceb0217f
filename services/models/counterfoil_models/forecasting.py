"""Forecasts of one daily series: the mean of Theta and ETS, and the seasonal naive floor.

Theta is simple exponential smoothing with half the trend as drift (Assimakopoulos and Nikolopoulos 2000; Hyndman and Billah
2003) on the additively deseasonalised series; ETS has the fixed form (A,N,A) (Hyndman et al. 2008). Both start from heuristic
states of the series itself, so that a few smoothing parameters and the data give the same forecast again, without a search.
sktime is imported on first use: it costs seconds and half a thousand modules.
"""

import functools
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from counterfoil_models.entities import Method

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Smoothing:
    """Fitted smoothing parameters, each in [0, 1]; all that an artifact keeps of a fit."""

    theta_level: float
    ets_level: float
    ets_season: float


@dataclass(frozen=True)
class Prediction:
    """Expected values and native half-widths of their interval, one per day ahead."""

    mean: Floats
    half_width: Floats


def fit_smoothing(values: Floats, *, season: int) -> Smoothing | None:
    """Find the smoothing parameters of a series; None when nothing can be smoothed (constant, or no finite optimum)."""
    if len(values) < max(10, 2 * season + 1) or values.max() == values.min():
        return None
    adjusted, _ = _deseasonalised(values, season=season, horizon=1)
    theta = _levels(_fitted(adjusted, season=1))
    ets = _levels(_fitted(values, season=season))
    found = Smoothing(theta[0], ets[0], ets[1])
    finite = all(math.isfinite(level) for level in (found.theta_level, found.ets_level, found.ets_season))
    return found if finite else None


def predict_theta_ets(
    values: Floats, smoothing: Smoothing, *, season: int, horizon: int, coverage: float
) -> Prediction:
    """Predict with given smoothing parameters; nothing is searched, so the same input gives the same output."""
    z = NormalDist().inv_cdf((1 + coverage) / 2)
    steps = np.arange(1, horizon + 1, dtype=np.float64)
    adjusted, seasonal = _deseasonalised(values, season=season, horizon=horizon)
    level, fitted = _smoothed(adjusted, season=1, horizon=horizon, levels=(smoothing.theta_level, 0.0))
    alpha = smoothing.theta_level
    drift = _slope(adjusted) / 2
    memory = (1 - (1 - alpha) ** len(values)) / alpha if alpha > 1e-8 else float(len(values))
    theta = level + drift * (steps - 1 + memory) + seasonal
    theta_width = _spread(adjusted - fitted) * np.sqrt(1 + alpha**2 * (steps - 1))
    ets, fitted = _smoothed(
        values, season=season, horizon=horizon, levels=(smoothing.ets_level, smoothing.ets_season)
    )
    a, g, k = smoothing.ets_level, smoothing.ets_season, np.floor((steps - 1) / season)
    # Hyndman et al. 2008, table 6.1, form (A,N,A)
    ets_width = _spread(values - fitted) * np.sqrt(1 + a**2 * (steps - 1) + g * k * (2 * a + g))
    return Prediction((theta + ets) / 2, z * (theta_width + ets_width) / 2)


def predict_seasonal_naive(values: Floats, *, season: int, horizon: int, coverage: float) -> Prediction:
    """Repeat the last season; the half-width grows with the seasons ahead (Hyndman and Athanasopoulos 2021, section 5.5)."""
    z = NormalDist().inv_cdf((1 + coverage) / 2)
    ahead = np.arange(horizon)
    mean = values[len(values) - season + ahead % season]
    spread = _spread(values[season:] - values[:-season])
    return Prediction(mean, z * spread * np.sqrt(1 + ahead // season))


def predict(
    values: Floats, method: Method, smoothing: Smoothing | None, *, season: int, horizon: int, coverage: float
) -> Prediction:
    """Predict with the recorded method and parameters."""
    if method is Method.SEASONAL_NAIVE or smoothing is None:
        return predict_seasonal_naive(values, season=season, horizon=horizon, coverage=coverage)
    return predict_theta_ets(values, smoothing, season=season, horizon=horizon, coverage=coverage)


def _spread(residuals: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(residuals)))) if len(residuals) else 0.0


def _slope(values: Floats) -> float:
    steps = np.arange(len(values)) - (len(values) - 1) / 2
    return float(np.sum(steps * values) / np.sum(steps * steps))


def _deseasonalised(values: Floats, *, season: int, horizon: int) -> tuple[Floats, Floats]:
    """Return the series without its additive season, and the season of the days ahead."""
    if season == 1:
        return values, np.zeros(horizon)
    import pandas as pd
    from sktime.transformations.detrend import Deseasonalizer

    adjusted = Deseasonalizer(sp=season, model="additive").fit_transform(pd.Series(values)).to_numpy()
    pattern = (values - adjusted)[:season]
    return adjusted, pattern[(len(values) + np.arange(horizon)) % season]


@contextmanager
def _quiet_search() -> Iterator[None]:
    """Leave out the one warning of the search that is no fault: a stop before the last digit of the optimum."""
    from statsmodels.tools.sm_exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=ConvergenceWarning)
        yield


@functools.cache
def _exponential_smoothing() -> Any:
    from sktime.forecasting.exp_smoothing import ExponentialSmoothing

    class FittedOnce(ExponentialSmoothing):  # type: ignore[misc]  # sktime is untyped
        """Keeps no copy of its data; the constructor warns about sktime's coming default unless the class says so."""

        _config: ClassVar = {"remember_data": False}

    return FittedOnce


def _forecaster(season: int, **parameters: Any) -> Any:
    form = {"seasonal": "additive", "sp": season} if season > 1 else {}
    return _exponential_smoothing()(initialization_method="heuristic", **form, **parameters)


def _fitted(values: Floats, *, season: int) -> Any:
    import pandas as pd

    with _quiet_search():
        return _forecaster(season).fit(pd.Series(values))


def _levels(fitted: Any) -> tuple[float, float]:
    parameters = fitted._fitted_forecaster.params  # noqa: SLF001 - sktime has no public name for the smoothing parameters
    level, season = float(parameters["smoothing_level"]), float(parameters["smoothing_seasonal"])
    return level, 0.0 if math.isnan(season) else season


def _smoothed(values: Floats, *, season: int, horizon: int, levels: tuple[float, float]) -> tuple[Floats, Floats]:
    """Return the days ahead and the fitted history under fixed parameters."""
    import pandas as pd

    fixed = {"smoothing_level": levels[0], "optimized": False}
    if season > 1:
        fixed["smoothing_seasonal"] = levels[1]
    fitted = _forecaster(season, **fixed).fit(pd.Series(values))
    steps = np.arange(1 - len(values), horizon + 1)
    both = fitted.predict(steps).to_numpy()
    return both[len(values) :], both[: len(values)]
