"""Forecasts of one daily series: the mean of Theta and ETS, and the seasonal naive floor.

Theta is simple exponential smoothing with half the trend as drift (Assimakopoulos and Nikolopoulos 2000; Hyndman and
Billah 2003) on the additively deseasonalised series; ETS has the fixed form (A,N,A) (Hyndman et al. 2008). Both start
from heuristic states of the series itself, so that a few smoothing parameters and the data give the same forecast
again, without a search.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

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
    engine = _engine()
    adjusted, _ = engine.deseasonalise(values, season=season, horizon=1)
    theta = engine.find_levels(adjusted, season=1)
    ets = engine.find_levels(values, season=season)
    found = Smoothing(theta[0], ets[0], ets[1])
    finite = all(math.isfinite(level) for level in (found.theta_level, found.ets_level, found.ets_season))
    return found if finite else None


def predict_theta_ets(
    values: Floats, smoothing: Smoothing, *, season: int, horizon: int, coverage: float
) -> Prediction:
    """Predict with given smoothing parameters; nothing is searched, so the same input gives the same output."""
    z = NormalDist().inv_cdf((1 + coverage) / 2)
    steps = np.arange(1, horizon + 1, dtype=np.float64)
    engine = _engine()
    adjusted, seasonal = engine.deseasonalise(values, season=season, horizon=horizon)
    level, fitted = engine.smooth(adjusted, season=1, horizon=horizon, levels=(smoothing.theta_level, 0.0))
    alpha = smoothing.theta_level
    drift = _slope(adjusted) / 2
    memory = (1 - (1 - alpha) ** len(values)) / alpha if alpha > 1e-8 else float(len(values))
    theta = level + drift * (steps - 1 + memory) + seasonal
    theta_width = _spread(adjusted - fitted) * np.sqrt(1 + alpha**2 * (steps - 1))
    ets, fitted = engine.smooth(
        values, season=season, horizon=horizon, levels=(smoothing.ets_level, smoothing.ets_season)
    )
    a, g, k = smoothing.ets_level, smoothing.ets_season, np.floor((steps - 1) / season)
    # Hyndman et al. 2008, table 6.1, form (A,N,A)
    ets_width = _spread(values - fitted) * np.sqrt(1 + a**2 * (steps - 1) + g * k * (2 * a + g))
    return Prediction((theta + ets) / 2, z * (theta_width + ets_width) / 2)


def predict_seasonal_naive(values: Floats, *, season: int, horizon: int, coverage: float) -> Prediction:
    """Repeat the last season; the half-width grows with the seasons ahead.

    Hyndman and Athanasopoulos 2021, Forecasting: principles and practice, section 5.5.
    """
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


def load_libraries() -> None:
    """Import what the first prediction would import; takes seconds."""
    _engine()


def _spread(residuals: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(residuals)))) if len(residuals) else 0.0


def _slope(values: Floats) -> float:
    steps = np.arange(len(values)) - (len(values) - 1) / 2
    return float(np.sum(steps * values) / np.sum(steps * steps))


def _engine() -> Any:
    from counterfoil_models import smoothing  # noqa: PLC0415 - sktime costs seconds and hundreds of modules at start

    return smoothing
