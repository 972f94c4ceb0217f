"""What the demos print where something is not known, and what no table may hide."""

import io
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table
from walkthrough import tables
from walkthrough.loading import Check
from walkthrough.trust import Approval

ESTIMATE = {
    "measure": "count",
    "method": "adjusted",
    "treated_mean": 1.25,
    "control_mean": 0.0,
    "difference": 1.25,
    "lower": -0.5,
    "upper": 3.0,
}


def printed(table: Table) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    return console.file.getvalue()


def lift(**more: Any) -> dict[str, Any]:
    return {"spec": {"coverage": 0.95}, "estimates": [ESTIMATE], "caveat": "Mind.", **more}


@pytest.mark.parametrize(("truth", "answer"), [(1.0, "yes"), (3.5, "no")])
def test_a_lift_says_whether_its_interval_holds_the_truth(truth: float, answer: str):
    text = printed(tables.lift_table(lift(), "count", title="Lift", truth=truth))
    assert f"Holds {truth:g}?" in text
    assert answer in text
    assert "-0.50 to 3.00" in text


def test_a_ratio_to_nothing_is_left_empty():
    assert "inf" not in printed(tables.lift_table(lift(), "count", title="Lift"))


def test_a_cost_that_is_not_known_is_not_zero():
    assert tables.cost_lines(lift(cost={"currency": "USD"}), what="order") == [
        "What it cost is not known, which is not zero."
    ]


def test_cost_per_incremental_unit_has_its_bounds_or_says_that_there_is_none():
    cost = {
        "cost_micros": 5_000_000,
        "currency": "USD",
        "parts": [{"field": "discount", "cost_micros": 5_000_000}],
        "per_incremental": [
            {"method": "naive", "cost_micros": 500_000, "lower_micros": 400_000, "upper_micros": 800_000},
            {"method": "adjusted", "cost_micros": 2_000_000, "lower_micros": 1_000_000},
            {"method": "matched"},
        ],
    }
    lines = tables.cost_lines(lift(cost=cost), what="order")
    assert "5.00 USD (discount 5.00)" in lines[0]
    assert lines[1].endswith("naive: 0.50 (from 0.40 to 0.80).")
    assert lines[2].endswith("adjusted: 2.00 (from 1.00 without an upper bound).")
    assert lines[3].endswith("matched: none, for the estimate is not above zero.")


def test_a_channel_without_cost_stands_beside_one_with_it():
    def row(subject: str, **more: Any) -> dict[str, Any]:
        credits_ = [{"model": model, "conversions": 2.0, "value_micros": 1} for model in ("last", "linear", "markov")]
        return {"subject": subject, "name": subject, "touchpoints": 3, "credits": credits_, **more}

    priced = row("google", cost_micros=4_000_000, cost_currency="EUR")
    priced["credits"][0]["cost_per_conversion_micros"] = 2_000_000
    attribution = {"spec": {"subject": "CHANNEL"}, "rows": [priced, row("mailing"), row("third")], "caveat": "Mind."}
    text = printed(tables.attribution_table(attribution, title="Attribution", most=2))
    assert "4.00" in text
    assert "not known" in text
    assert "1 more" in text


def test_a_figure_that_differs_is_marked():
    text = printed(tables.checks_table([Check("rows", 2, 2), Check("sales", 2, 1)]))
    assert "same" in text
    assert "DIFFERENT" in text


def test_a_refusal_names_the_policy_and_both_persons():
    line = tables.approval_line("Promotion", Approval("needs-two", "c-1", "admin", "reviewer"))
    assert "'needs-two'" in line
    assert "'admin' tried alone" in line
    assert "'reviewer' (change c-1)" in line
