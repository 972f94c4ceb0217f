"""From records to units and groups: exact whatever the order, and every record that is left out is counted."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from counterfoil_models.errors import GroupTooSmallError, LiftTooLargeError, NoUnitsError, SeriesFieldError
from counterfoil_models.lift_groups import ABSENT, MAX_CATEGORIES, OTHER, groups_of
from counterfoil_models.lift_spec import (
    LiftAssignment,
    LiftCovariates,
    LiftOutcome,
    LiftSpec,
    completed_lift_spec,
    lift_spec_document,
    lift_spec_of,
)
from counterfoil_models.lift_units import MAX_UNITS, UnitTable, unit_table
from counterfoil_models.lifts import make_lift

from tests.models.shop import numbered

SPEC = completed_lift_spec(
    LiftSpec(
        outcome=LiftOutcome("visits", "unit", "at", value_field="amount", count_field="basket"),
        assignment=LiftAssignment("members", "unit"),
        first_day=date(2024, 2, 1),
        last_day=date(2024, 2, 29),
        pre_first_day=date(2024, 1, 1),
        pre_last_day=date(2024, 1, 31),
    )
)
KNOWING = replace(SPEC, covariates=LiftCovariates("households", "unit", ("region", "size")))
BEFORE, AFTER = datetime(2024, 1, 15, tzinfo=UTC), datetime(2024, 2, 15, tzinfo=UTC)

Visit = tuple[str | None, datetime | None, float | None, str | None]


def visits(rows: list[Visit]) -> pa.Table:
    unit, at, amount, basket = zip(*rows, strict=True)
    return pa.table(
        {
            "unit": pa.array(unit, pa.string()),
            "at": pa.array(at, pa.timestamp("us", "UTC")),
            "amount": pa.array(amount, pa.float64()),
            "basket": pa.array(basket, pa.string()),
        }
    )


def members(*units: str | None) -> pa.Table:
    return pa.table({"unit": pa.array(units, pa.string())})


def two_groups(size: int = 40, *, seed: int = 0, gain: float = 5.0) -> tuple[pa.Table, pa.Table]:
    """Units u0, u1, … with a visit before and one after; the first half is treated."""
    random = np.random.default_rng(seed)
    rows: list[Visit] = []
    for number in range(size):
        level = float(random.gamma(4, 5))
        rows.append((f"u{number}", BEFORE, level, f"b{number}"))
        rows.append((f"u{number}", AFTER, level + gain * (number < size // 2) + float(random.normal()), f"a{number}"))
    return visits(rows), members(*(f"u{number}" for number in range(size // 2)))


def units_of(
    records: pa.Table, assigned: pa.Table, *, spec: LiftSpec = SPEC, zone: str = "UTC", **more: Any
) -> UnitTable:
    return unit_table(spec, zone, {"outcome": records, "assignment": assigned, **more})


def measured(records: pa.Table, assigned: pa.Table, *, spec: LiftSpec = SPEC, **more: Any) -> dict[str, Any]:
    return make_lift(spec, units_of(records, assigned, spec=spec, **more), purpose="measurement", allowed=None)


def reasons(gaps: Any) -> dict[str, int]:
    return {gap["reason"]: gap["records"] for gap in (vars(one) if not isinstance(one, dict) else one for one in gaps)}


def test_a_lift_depends_on_the_records_and_not_on_their_order():
    records, assigned = two_groups()
    order = np.random.default_rng(1).permutation(records.num_rows)
    assert measured(records.take(order), assigned.take(np.arange(19, -1, -1))) == measured(records, assigned)


def test_records_that_lack_something_are_counted_and_units_without_a_usable_one_are_kept_with_zeros():
    units = units_of(
        visits(
            [
                ("a", BEFORE, 1.0, "x"),
                ("a", BEFORE, 2.0, "x"),
                ("a", AFTER, 4.0, "y"),
                ("a", AFTER, None, "z"),
                ("a", AFTER, math.inf, None),
                ("b", None, 9.0, "w"),
                (None, AFTER, 9.0, "v"),
                ("c", AFTER + timedelta(days=60), 9.0, "u"),
            ]
        ),
        members("a", None, "nobody", "nobody"),
    )
    assert units.names == ("a", "b", "c")
    assert units.before["value"].tolist() == [3.0, 0.0, 0.0]
    assert units.before["count"].tolist() == [1.0, 0.0, 0.0]
    assert units.period["value"].tolist() == [4.0, 0.0, 0.0]
    assert units.period["count"].tolist() == [2.0, 0.0, 0.0]
    assert units.assigned.tolist() == [True, False, False]
    assert reasons(units.gaps) == {
        "MISSING_UNIT": 1,
        "MISSING_TIME": 1,
        "MISSING_VALUE": 2,
        "MISSING_COUNT": 1,
        "ASSIGNMENT_WITHOUT_UNIT": 1,
        "ASSIGNED_NOT_IN_POPULATION": 1,
    }


def test_sums_are_exact():
    rows: list[Visit] = [("a", AFTER, value, "x") for value in [1e16, 1.0, -1e16, 0.1] * 100]
    assert units_of(visits(rows), members("a")).period["value"].tolist() == [math.fsum([1.0, 0.1] * 100)]


def test_without_a_count_field_records_are_counted_and_without_a_value_field_nothing_is_summed():
    spec = replace(SPEC, outcome=LiftOutcome("visits", "unit", "at"))
    records, assigned = two_groups()
    found = measured(records, assigned, spec=spec)
    assert {one["measure"] for one in found["estimates"]} == {"count"}
    units = units_of(visits([("a", AFTER, 1.0, "x")] * 3), members("a"), spec=spec)
    assert units.period["count"].tolist() == [3.0]


def test_days_are_those_of_the_workspace():
    midnight = datetime(2024, 2, 1, 4, 59, tzinfo=UTC)
    rows: list[Visit] = [("a", midnight, 1.0, "x"), ("a", midnight + timedelta(minutes=1), 2.0, "y")]
    east = units_of(visits(rows), members("a"), zone="America/New_York")
    assert (east.before["value"][0], east.period["value"][0]) == (1.0, 2.0)
    west = units_of(visits(rows), members("a"), zone="UTC")
    assert (west.before["value"][0], west.period["value"][0]) == (0.0, 3.0)


def test_units_are_the_same_whether_they_are_numbers_or_text():
    records = pa.table({"unit": [1, 2], "at": pa.array([AFTER] * 2, pa.timestamp("us", "UTC")), "amount": [1, 2],
                        "basket": ["x", "y"]})  # fmt: skip
    units = units_of(records, members("2"))
    assert units.names == ("1", "2")
    assert units.assigned.tolist() == [False, True]


def test_categories_have_one_for_absent_and_one_for_the_rest():
    records, assigned = two_groups(400)
    numbers = list(range(390))
    regions = [f"r{number % 35:02}" if number >= 3 else f"only {number}" for number in numbers]
    sizes = [None if number % 10 == 0 else float(number) for number in numbers]
    households = {"unit": [f"u{number}" for number in numbers], "region": regions, "size": pa.array(sizes)}
    units = units_of(records, assigned, spec=KNOWING, covariates=numbered(pa.table(households)))
    groups = groups_of(KNOWING, units, allowed=None)
    columns = {one.name: one.values for one in groups.covariates}
    shown = [name for name in columns if name.startswith("region=")]
    assert len(shown) == MAX_CATEGORIES + 2
    assert columns[f"region={ABSENT}"].sum() == 10
    assert sum(columns[name].sum() for name in shown) == 400
    assert f"region={OTHER}" in shown
    assert columns[f"size={ABSENT}"].sum() == 49
    known = [size for size in sizes if size is not None]
    assert columns["size"].mean() == pytest.approx(np.mean(known))
    assert reasons(units.gaps) == {"UNKNOWN_UNITS": 10}


def test_a_balance_does_not_tell_of_single_people():
    records, assigned = two_groups(60)
    units = [f"u{number}" for number in range(60)]
    regions = [f"{unit}@example.com" if number % 3 else "shared" for number, unit in enumerate(units)]
    households = pa.table({"unit": units, "region": regions, "size": [1.0] * 60})
    found = measured(records, assigned, spec=KNOWING, covariates=numbered(households))
    names = {one["covariate"] for one in found["balance"]}
    assert names == {"value before", "count before", f"region={OTHER}", "region=shared", "size"}


def test_of_two_records_of_a_unit_the_later_one_counts():
    records, assigned = two_groups(8)
    units = [f"u{number}" for number in range(8)]
    households = pa.table({"unit": [*units, "u3"], "region": [*["old"] * 8, "new"], "size": [1.0] * 9})
    found = units_of(records, assigned, spec=KNOWING, covariates=numbered(households))
    assert found.known[0].texts[3] == "new"
    assert reasons(found.gaps) == {"DUPLICATE_LOOKUP_KEY": 1}


def test_without_any_record_of_covariates_all_units_are_unknown_and_measured_all_the_same():
    records, assigned = two_groups()
    empty = pa.table({name: pa.array([], pa.string()) for name in ("unit", "region", "size", "_partition", "_offset")})
    found = measured(records, assigned, spec=KNOWING, covariates=empty)
    assert reasons(found["gaps"])["UNKNOWN_UNITS"] == 40
    assert found["estimates"][1]["lower"] < 5 < found["estimates"][1]["upper"]


def test_a_time_before_without_records_adjusts_for_nothing_and_says_so():
    records, assigned = two_groups()
    spec = replace(SPEC, pre_first_day=date(2023, 1, 1), pre_last_day=date(2023, 1, 31))
    found = measured(records, assigned, spec=spec)
    assert "NOTHING_BEFORE" in reasons(found["gaps"])
    naive, adjusted, matched = found["estimates"][:3]
    for name in ("difference", "lower", "upper"):
        assert adjusted[name] == naive[name]
    assert matched["difference"] == naive["difference"]


def test_a_control_that_did_nothing_has_no_ratio_and_no_infinite_figures():
    rows: list[Visit] = [(f"u{number}", AFTER, 3.0 if number < 10 else 0.0, "x") for number in range(20)]
    found = measured(visits(rows), members(*(f"u{number}" for number in range(10))))
    value = found["estimates"][:3]
    assert [one["ratio"] for one in value] == [None, None, None]
    assert [(one["difference"], one["lower"], one["upper"]) for one in value] == [(3.0, 3.0, 3.0)] * 3
    assert [one["incremental"] for one in value] == [30.0] * 3


def test_groups_that_do_the_same_without_variance_have_no_effect_at_all():
    rows: list[Visit] = [(f"u{number}", AFTER, 0.1, "x") for number in range(30) for _ in range(3)]
    found = measured(visits(rows), members(*(f"u{number}" for number in range(10))))
    for one in found["estimates"]:
        assert (one["difference"], one["lower"], one["upper"], one["ratio"]) == (0.0, 0.0, 0.0, 1.0)


def test_a_small_group_is_told_and_takes_fewer_covariates():
    records, assigned = two_groups(100)
    few = members("u0", "u1", "u2")
    found = measured(records, few)
    told = reasons(found["gaps"])
    assert told["SMALL_GROUP"] == 3
    assert told["NOT_ADJUSTED_FOR"] == 100
    naive, adjusted = found["estimates"][:2]
    assert adjusted["difference"] == naive["difference"]
    assert "SMALL_GROUP" not in reasons(measured(records, assigned)["gaps"])


def test_a_category_without_control_is_matched_on_and_not_adjusted_for():
    records, assigned = two_groups(60)
    units = [f"u{number}" for number in range(60)]
    regions = ["only treated" if number < 15 else "both" for number in range(60)]
    households = pa.table({"unit": units, "region": regions, "size": [1.0] * 60})
    found = measured(records, assigned, spec=KNOWING, covariates=numbered(households))
    assert reasons(found["gaps"])["NOT_ADJUSTED_FOR"] == 60  # both columns of the region
    adjusted = found["estimates"][1]
    assert adjusted["lower"] < 5 < adjusted["upper"]
    balance = {one["covariate"]: one for one in found["balance"]}
    assert balance["region=only treated"]["treated_mean"] == 0.5
    assert balance["region=only treated"]["matched_mean"] == 0.0


@pytest.mark.parametrize("treated", [0, 1, 39, 40])
def test_groups_of_fewer_than_two_units_are_refused(treated):
    records, _ = two_groups()
    with pytest.raises(GroupTooSmallError):
        measured(records, members(*(f"u{number}" for number in range(treated))))


def test_without_units_there_is_nothing_to_measure():
    with pytest.raises(NoUnitsError):
        units_of(visits([("a", AFTER, 1.0, "x")]).slice(0, 0), members("a"))
    with pytest.raises(NoUnitsError):
        units_of(visits([(None, AFTER, 1.0, "x")]), members("a"))


def test_a_time_that_is_none_is_refused():
    records = visits([("a", AFTER, 1.0, "x")])
    text = records.set_column(1, "at", pa.array(["yesterday"]))
    with pytest.raises(SeriesFieldError, match="at"):
        units_of(text, members("a"))


def test_more_units_than_can_be_matched_are_refused():
    size = MAX_UNITS + 1
    unit = [str(number) for number in range(size)]
    many = pa.table({"unit": unit, "at": pa.array([AFTER] * size, pa.timestamp("us", "UTC"))})
    with pytest.raises(LiftTooLargeError, match="200001"):
        units_of(many, members("1"), spec=replace(SPEC, outcome=LiftOutcome("visits", "unit", "at")))


def test_a_spec_survives_its_document():
    spec = replace(
        KNOWING,
        assignment=LiftAssignment("members", "unit", ("7",), "campaign", "begins", "campaigns", "campaign", True),
        name="February",
    )
    assert lift_spec_of(lift_spec_document(spec)) == spec
