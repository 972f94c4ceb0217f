"""Forecasts, backtests and intervals, against known values and sktime's own Theta."""

from __future__ import annotations

import math
import warnings
from datetime import date

import numpy as np
import pandas as pd
import pytest
from counterfoil_models.artifact import decode
from counterfoil_models.backtesting import interval_scale, mase, measured_coverage, origins, train
from counterfoil_models.differences import first_difference
from counterfoil_models.entities import Aggregation, ForecastSpec, Method, SeriesSpec
from counterfoil_models.errors import HistoryTooShortError, SeriesUnknownError
from counterfoil_models.forecasting import fit_smoothing, predict_seasonal_naive, predict_theta_ets
from counterfoil_models.series import DailySeries, SeriesTable
from counterfoil_models.serving import chosen_series, make_output, serving_gaps
from counterfoil_models.training import train_version, verdict

SPEC = ForecastSpec(SeriesSpec("sales", "at", Aggregation.SUM, "amount", "shop"), horizon_days=14, min_active_days=60)


def weekly(days: int = 120, *, noise: float = 3.0, trend: float = 0.1, seed: int = 3) -> np.ndarray:
    random = np.random.default_rng(seed)
    pattern = np.array([0, 2, -3, 1, 5, 20, 15])
    steps = np.arange(days)
    return 100 + trend * steps + pattern[steps % 7] + random.normal(0, noise, days)


def daily(name: str, values: np.ndarray, *, active: int | None = None) -> DailySeries:
    days = len(values) if active is None else active
    return DailySeries(name, values, days, days, float(values.sum()))


def table(**series: np.ndarray) -> SeriesTable:
    days = len(next(iter(series.values())))
    found = {name: daily(name, values) for name, values in series.items()}
    return SeriesTable(date(2024, 1, 1), days, found, ())


def trained(spec: ForecastSpec, data: SeriesTable):
    return train_version(spec, data, timezone="UTC", inputs=(), libraries={})


def test_mase_is_the_value_computed_by_hand():
    # history 1, 3, 2, 6 with season 2: |2-1| = 1 and |6-3| = 3, mean 2; errors 1, -3, 2: mean 2; 2 / 2 = 1
    assert mase(np.array([1.0, -3.0, 2.0]), np.array([1.0, 3.0, 2.0, 6.0]), season=2) == 1.0
    assert mase(np.array([1.0]), np.array([1.0, 3.0, 2.0, 6.0]), season=2) == 0.5
    assert math.isnan(mase(np.array([1.0]), np.ones(9), season=2))


def test_origins_lie_a_horizon_apart_and_end_where_the_whole_horizon_is_known():
    assert origins(363, season=7, horizon=28) == [195, 223, 251, 279, 307, 335]
    assert origins(60, season=7, horizon=28) == [32]
    assert origins(55, season=7, horizon=28) == []


def test_the_seasonal_naive_repeats_the_last_week_and_widens_by_week():
    values = np.arange(21, dtype=float)
    found = predict_seasonal_naive(values, season=7, horizon=9, coverage=0.8)
    assert list(found.mean) == [14, 15, 16, 17, 18, 19, 20, 14, 15]
    assert found.half_width[0] == pytest.approx(7 * 1.2815515655446004)
    assert found.half_width[7] == pytest.approx(found.half_width[0] * math.sqrt(2))


def test_theta_agrees_with_the_theta_of_sktime():
    values = weekly()
    ours = fit_smoothing(values, season=7)
    from sktime.forecasting.theta import ThetaForecaster

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The default of config ``remember_data``", category=FutureWarning)
        theirs = ThetaForecaster(sp=7, deseasonalize_model="additive").fit(pd.Series(values))
        expected = theirs.predict(np.arange(1, 29)).to_numpy()
    both = predict_theta_ets(values, ours, season=7, horizon=28, coverage=0.8).mean
    flat = predict_theta_ets(values - 0.1 * np.arange(120), ours, season=7, horizon=28, coverage=0.8).mean
    assert np.abs(both - expected).max() < 0.03 * expected.mean()
    assert (both - flat).mean() > 10  # the trend of 0.1 a day is still there after 120 days


def test_recorded_parameters_give_the_same_forecast_bit_for_bit():
    values = weekly()
    smoothing = fit_smoothing(values, season=7)
    one, other = (predict_theta_ets(values, smoothing, season=7, horizon=28, coverage=0.8) for _ in range(2))
    assert one.mean.tobytes() == other.mean.tobytes()
    assert one.half_width.tobytes() == other.half_width.tobytes()


def test_a_noisy_season_is_served_by_theta_and_ets_and_beats_the_floor():
    found = train("s", weekly(), season=7, horizon=14, coverage=0.8)
    assert found.method is Method.THETA_ETS_MEAN
    assert found.mase < found.mase_seasonal_naive


def test_a_pure_season_is_served_by_the_floor():
    found = train("s", np.tile(np.array([1.0, 2, 3, 4, 5, 9, 8]), 20), season=7, horizon=14, coverage=0.8)
    assert (found.method, found.mase_seasonal_naive) == (Method.SEASONAL_NAIVE, 0.0)


@pytest.mark.parametrize("level", [0.0, 12.5])
def test_a_constant_series_is_forecast_as_it_is(level):
    data = table(flat=np.full(120, level))
    training = trained(SPEC, data)
    output = make_output(training.artifact, data, model_id="m", version=1, horizon=14, names=["flat"])
    assert {(point.mean, point.lower, point.upper) for point in output.series[0].points} == {(level, level, level)}
    assert training.backtests[0].method is Method.SEASONAL_NAIVE


def test_intervals_hold_their_share_of_days_and_the_mean():
    data = {f"s{seed}": weekly(150, seed=seed) for seed in range(5)}
    found = [train(name, values, season=7, horizon=14, coverage=0.8) for name, values in data.items()]
    coverage = np.mean([measured_coverage(one, found, coverage=0.8) for one in found])
    assert 0.72 < coverage < 0.9
    assert 0.7 < interval_scale(found, coverage=0.8) < 1.5


def test_a_season_of_one_day_is_smoothed_without_season():
    spec = ForecastSpec(SPEC.series, horizon_days=7, season_days=1, min_active_days=10)
    training = trained(spec, table(s=np.cumsum(np.random.default_rng(5).normal(0, 1, 120)) + 50))
    assert len(training.backtests) == 1


def test_series_are_left_out_with_their_reason():
    data = table(good=weekly(), unknown=weekly())
    data.series["rare"] = daily("rare", weekly(), active=5)
    training = trained(SPEC, data)
    assert [(one.series, one.reason) for one in training.skipped] == [
        ("unknown", "UNKNOWN_DIMENSION"),
        ("rare", "TOO_FEW_ACTIVE_DAYS"),
    ]
    assert [one.series for one in training.artifact.series] == ["good"]


def test_nothing_to_train_is_refused_by_the_gate():
    training = trained(SPEC, table(unknown=weekly()))
    assert training.artifact is None
    assert verdict(training)[0] is False


def test_an_artifact_reads_back_as_it_was_written():
    artifact = trained(SPEC, table(good=weekly())).artifact
    assert decode(artifact.encode()) == artifact
    assert decode(artifact.encode()).encode() == artifact.encode()


def test_forecasts_of_sales_that_were_never_negative_stay_above_zero():
    values = np.maximum(weekly(noise=4) - 100, 0)
    data = table(small=values)
    output = make_output(trained(SPEC, data).artifact, data, model_id="m", version=1, horizon=14, names=["small"])
    for point in output.series[0].points:
        assert 0 <= point.lower <= point.mean <= point.upper


def test_a_series_that_is_gone_is_told_and_a_new_one_too():
    artifact = trained(SPEC, table(a=weekly(), b=weekly(seed=4))).artifact
    gaps = {gap.reason for gap in serving_gaps(artifact, table(a=weekly(), c=weekly()))}
    assert gaps == {"SERIES_NOT_FORECAST", "SERIES_WITHOUT_RECORDS"}
    with pytest.raises(SeriesUnknownError):
        chosen_series(artifact, ["c"])


def test_too_short_a_history_is_refused():
    artifact = trained(SPEC, table(a=weekly())).artifact
    with pytest.raises(HistoryTooShortError):
        make_output(artifact, table(a=weekly(12)), model_id="m", version=1, horizon=14, names=["a"])


def test_the_first_difference_is_named_by_series_and_place():
    one = {"series": [{"series": "GROCERY", "points": [{"mean": 1.0}, {"mean": 2.0}]}]}
    other = {"series": [{"series": "GROCERY", "points": [{"mean": 1.0}, {"mean": 2.5}]}]}
    assert first_difference(one, other) == "series[GROCERY].points[1].mean"
    assert first_difference(one, one) == ""
    shorter = {"series": [{"series": "GROCERY", "points": [{"mean": 1.0}]}]}
    assert first_difference(one, shorter) == "series[GROCERY].points[1]"
    assert first_difference({"a": 1}, {"a": 1, "b": 2}) == "b"
