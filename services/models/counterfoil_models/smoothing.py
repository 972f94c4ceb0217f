"""Exponential smoothing by sktime. Importing this module costs seconds: `forecasting` does so on first use."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from sktime.forecasting.exp_smoothing import ExponentialSmoothing
from sktime.transformations.detrend import Deseasonalizer
from statsmodels.tools.sm_exceptions import ConvergenceWarning

Floats = npt.NDArray[np.float64]


class FittedOnce(ExponentialSmoothing):  # type: ignore[misc]  # sktime is untyped
    """Keeps no copy of its data; the constructor warns about sktime's coming default unless the class says so."""

    _config: ClassVar = {"remember_data": False}


def deseasonalise(values: Floats, *, season: int, horizon: int) -> tuple[Floats, Floats]:
    """Return the series without its additive season (classical decomposition), and the season of the days ahead."""
    if season == 1:
        return values, np.zeros(horizon)
    adjusted = Deseasonalizer(sp=season, model="additive").fit_transform(pd.Series(values)).to_numpy()
    pattern = (values - adjusted)[:season]
    return adjusted, pattern[(len(values) + np.arange(horizon)) % season]


def find_levels(values: Floats, *, season: int) -> tuple[float, float]:
    """Search the smoothing levels of level and season (0 when season is 1) that minimise the squared errors."""
    with _quiet_search():
        fitted = _forecaster(season).fit(pd.Series(values))
    parameters = fitted._fitted_forecaster.params  # noqa: SLF001 - sktime has no public name for the smoothing levels
    level, seasonal = float(parameters["smoothing_level"]), float(parameters["smoothing_seasonal"])
    return level, 0.0 if math.isnan(seasonal) else seasonal


def smooth(values: Floats, *, season: int, horizon: int, levels: tuple[float, float]) -> tuple[Floats, Floats]:
    """Return the days ahead and the one-step-ahead fit of the history, under given levels."""
    fixed = {"smoothing_level": levels[0], "optimized": False}
    if season > 1:
        fixed["smoothing_seasonal"] = levels[1]
    fitted = _forecaster(season, **fixed).fit(pd.Series(values))
    both = fitted.predict(np.arange(1 - len(values), horizon + 1)).to_numpy()
    return both[len(values) :], both[: len(values)]


def _forecaster(season: int, **parameters: Any) -> Any:
    form = {"seasonal": "additive", "sp": season} if season > 1 else {}
    return FittedOnce(initialization_method="heuristic", **form, **parameters)


@contextmanager
def _quiet_search() -> Iterator[None]:
    """Leave out the one warning of a search that is no fault: it stopped before the last digit of the optimum."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=ConvergenceWarning)
        yield
