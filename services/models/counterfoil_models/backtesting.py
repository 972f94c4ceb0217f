"""Rolling-origin backtests: what a method's forecasts would have been worth in the past.

Up to six origins, one horizon apart, each trained on everything before it (expanding window). Errors are scaled as MASE
(Hyndman and Koehler 2006). The interval's scale is one number for all series: the coverage quantile of |error| / native
half-width over every series, origin and day (split conformal, multiplicative); the coverage that is reported leaves the
tested origin out of that quantile.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from counterfoil_models.entities import Method
from counterfoil_models.forecasting import Prediction, Smoothing, fit_smoothing, predict, predict_seasonal_naive

Floats = npt.NDArray[np.float64]

MAX_ORIGINS = 6


@dataclass(frozen=True)
class Trained:
    """One series' method and parameters with its backtest.

    `ratios` is |error| / native half-width of what serves, shape (origins, horizon), oldest origin first.
    """

    series: str
    method: Method
    smoothing: Smoothing | None
    mase: float
    mase_seasonal_naive: float
    ratios: Floats


def mase(errors: Floats, history: Floats, *, season: int) -> float:
    """Return the mean absolute error over the history's mean absolute seasonal difference; NaN when that is 0.

    Hyndman and Koehler 2006, Another look at measures of forecast accuracy.
    """
    scale = float(np.mean(np.abs(history[season:] - history[:-season])))
    return float(np.mean(np.abs(errors))) / scale if scale > 0 else math.nan


def origins(length: int, *, season: int, horizon: int) -> list[int]:
    """Return the lengths of the histories that are forecast from, oldest first; empty when the series is too short."""
    shortest = max(28, 4 * season)
    count = min(MAX_ORIGINS, (length - shortest) // horizon)
    return [length - horizon * back for back in range(count, 0, -1)]


def train(series: str, values: Floats, *, season: int, horizon: int, coverage: float) -> Trained:
    """Backtest both methods, choose the one with the smaller error, and fit it to the whole history."""
    cuts = origins(len(values), season=season, horizon=horizon)
    smooth = [_smooth(values[:cut], season=season, horizon=horizon, coverage=coverage) for cut in cuts]
    naive = [predict_seasonal_naive(values[:cut], season=season, horizon=horizon, coverage=coverage) for cut in cuts]
    error = _mean_mase(values, smooth, cuts=cuts, season=season)
    floor = _mean_mase(values, naive, cuts=cuts, season=season)
    smoothing = fit_smoothing(values, season=season) if error < floor else None
    method = Method.SEASONAL_NAIVE if smoothing is None else Method.THETA_ETS_MEAN
    served = naive if smoothing is None else smooth
    return Trained(series, method, smoothing, error, floor, _ratios(values, served, cuts=cuts))


def interval_scale(trained: Sequence[Trained], *, coverage: float, without: int | None = None) -> float:
    """Return the factor on native half-widths, from every origin but one (`without`: 1 = the newest)."""
    kept = [
        np.delete(one.ratios, len(one.ratios) - without, axis=0)
        if without and without <= len(one.ratios)
        else one.ratios
        for one in trained
    ]
    pool = np.concatenate([ratios.ravel() for ratios in kept]) if kept else np.empty(0)
    pool = pool[np.isfinite(pool)]
    if not len(pool):
        return 1.0
    rank = min(1.0, math.ceil((len(pool) + 1) * coverage) / len(pool))
    return float(np.quantile(pool, rank, method="higher"))


def measured_coverage(one: Trained, trained: Sequence[Trained], *, coverage: float) -> float:
    """Return the share of days inside the interval, its scale taken from the other origins."""
    count = len(one.ratios)
    inside = 0
    for row in range(count):
        scale = interval_scale(trained, coverage=coverage, without=count - row)
        inside += int(np.sum(np.nan_to_num(one.ratios[row], nan=0.0) <= scale))
    return inside / one.ratios.size if one.ratios.size else 0.0


def _smooth(history: Floats, *, season: int, horizon: int, coverage: float) -> Prediction:
    smoothing = fit_smoothing(history, season=season)
    method = Method.SEASONAL_NAIVE if smoothing is None else Method.THETA_ETS_MEAN
    return predict(history, method, smoothing, season=season, horizon=horizon, coverage=coverage)


def _errors(values: Floats, prediction: Prediction, cut: int) -> Floats:
    errors: Floats = values[cut : cut + len(prediction.mean)] - prediction.mean
    return errors


def _mean_mase(values: Floats, predictions: Sequence[Prediction], *, cuts: Sequence[int], season: int) -> float:
    scores = [
        mase(_errors(values, prediction, cut), values[:cut], season=season)
        for prediction, cut in zip(predictions, cuts, strict=True)
    ]
    finite = [score for score in scores if math.isfinite(score)]
    return math.fsum(finite) / len(finite) if finite else 0.0


def _ratios(values: Floats, predictions: Sequence[Prediction], *, cuts: Sequence[int]) -> Floats:
    rows = []
    for prediction, cut in zip(predictions, cuts, strict=True):
        errors = np.abs(_errors(values, prediction, cut))
        width = prediction.half_width
        zero = np.where(errors > 0, np.inf, np.nan)  # a width of 0 says nothing of the scale
        rows.append(np.divide(errors, width, out=zero, where=width > 0))
    return np.array(rows)
