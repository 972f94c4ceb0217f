"""The Complete Journey: contracts and files are what its pages say, and a part of it gives the figures of polars."""

import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema_rs
import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml
from complete_journey import approvals, files, reveal, steps
from counterfoil_cli.client import Client
from rich.progress import Progress
from walkthrough import loading, measuring, trust

from tests.system.tenant import Tenant

CONTRACTS = sorted(steps.CONTRACTS.glob("*.odcs.yaml"))
LOGICAL = {"int64": "integer", "double": "number", "string": "string", "timestamp[ns]": "timestamp"}
COMPUTED = {"campaigns": {"flight_end"}}
"""Columns that the demo adds to a file."""

SHARE = 16
"""One household in so many is loaded by the tests that need a running Counterfoil."""


@pytest.mark.parametrize("file", CONTRACTS, ids=lambda file: file.name)
def test_contracts_are_valid_odcs(file: Path):
    schema = json.loads(resources.files("open_data_contract_standard").joinpath("schema.json").read_text())
    faults = jsonschema_rs.validator_for(schema).iter_errors(yaml.safe_load(file.read_text()))
    assert [fault.message for fault in faults] == []


@pytest.mark.parametrize("file", CONTRACTS, ids=lambda file: file.name)
def test_contracts_say_the_types_and_gaps_of_the_files(file: Path):
    [dataset] = yaml.safe_load(file.read_text())["schema"]
    table = pq.read_table(files.data_file(dataset["name"]))
    described = {
        found["name"]: (found["logicalType"], found["required"])
        for found in dataset["properties"]
        if found["name"] not in COMPUTED.get(dataset["name"], ())
    }
    assert described == {
        column: (LOGICAL[str(table.schema.field(column).type)], table.column(column).null_count == 0)
        for column in table.column_names
    }


def test_files_hold_what_the_pages_say():
    assert files.count_totals() == files.Totals(
        rows={
            "products": 92_331,
            "households": 801,
            "campaigns": 27,
            "campaign_members": 6_589,
            "coupons": 116_204,
            "redemptions": 2_102,
            "transactions": 1_469_307,
        },
        sales=Decimal("4596039.58"),
        unmatched=4_836,
        unmatched_sales=Decimal("172.57"),
        repeated_coupons=4_872,
        shoppers=2_469,
    )


def test_orders_are_the_same_every_time_and_add_up():
    first, second = list(files.latest_orders(200)), list(files.latest_orders(200))
    assert first == second
    assert len({order.message_id for order in first}) == 200
    for order in first:
        lines = order.properties["products"]
        value = sum(Decimal(str(line["price"])) * max(line["quantity"], 1) for line in lines)
        assert abs(value - order.total) < Decimal("0.0001") * sum(line["quantity"] + 1 for line in lines)


def test_written_files_are_the_same_every_time(tmp_path: Path):
    for write, lines in ((files.write_products_csv, 92_331), (files.write_campaigns_csv, 27)):
        for name in ("first.csv", "second.csv"):
            write(tmp_path / name)
        content = (tmp_path / "first.csv").read_bytes()
        assert content == (tmp_path / "second.csv").read_bytes()
        assert content.count(b"\n") == lines + 1


@pytest.fixture(scope="module")
def sales() -> pl.DataFrame:
    """The transactions of one household in sixteen."""
    return pl.read_parquet(files.data_file("transactions")).filter(pl.col("household_id") % SHARE == 0)


@pytest.fixture(scope="module")
def loaded(tenant: Tenant, sales: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A workspace with these transactions and all that campaigns need, loaded by the demo's own steps."""
    folder = tmp_path_factory.mktemp("part")
    sales.write_parquet(folder / "transactions.parquet")
    with Client(tenant.installation.url, tenant.key) as api:
        load(api, folder, workspace=tenant.workspace)
        yield api


def load(api: Client, folder: Path, *, workspace: str) -> None:
    """Load a workspace; the folder holds the transactions."""
    api.request("PATCH", f"/v1/workspaces/{workspace}", json={"timezone": files.STORES_TIMEZONE})
    datasets = ("households", "campaigns", "campaign_members", "redemptions")
    with Progress(disable=True) as progress:
        task = progress.add_task("")
        loading.activate_contracts(api, steps.CONTRACTS)
        loading.put_mapping(api, steps.MAPPING)
        loading.record_consents(api, files.legal_basis(), progress=progress, task=task)
        for dataset in datasets:
            file = files.file_to_import(dataset, folder)
            loading.import_file(api, file, dataset=dataset, progress=progress, task=task)
        part = folder / "transactions.parquet"
        loading.import_file(api, part, dataset="transactions", progress=progress, task=task)
        end = loading.log_end(api, [*datasets, "transactions"])
        loading.wait_for_graph(api, end, progress=progress, task=task)


def in_stores_days(column: str) -> pl.Expr:
    """Return the stores' day of a zoneless UTC time."""
    return pl.col(column).dt.replace_time_zone("UTC").dt.convert_time_zone(files.STORES_TIMEZONE).dt.date()


@pytest.fixture(scope="module")
def baskets(sales: pl.DataFrame) -> pl.DataFrame:
    """One row per basket: whose, on which day, worth how much."""
    return sales.group_by("basket_id").agg(
        pl.col("household_id").first(),
        in_stores_days("transaction_timestamp").min().alias("day"),
        pl.col("sales_value").sum().alias("value"),
    )


@pytest.fixture(scope="module")
def flights() -> pl.DataFrame:
    """One row per household and campaign it was assigned to, with the campaign's first and last day."""
    days = [pl.col(name).dt.date() for name in ("start_date", "end_date")]
    campaigns = pl.read_parquet(files.data_file("campaigns")).with_columns(days)
    return pl.read_parquet(files.data_file("campaign_members")).join(campaigns, on="campaign_id")


@pytest.fixture(scope="module")
def lift(loaded: Client) -> dict[str, Any]:
    """The demo's lift."""
    return measuring.measure_lift(loaded, reveal.LIFT)


@pytest.fixture(scope="module")
def attribution(loaded: Client) -> dict[str, Any]:
    """The demo's attribution."""
    return measuring.attribute(loaded, reveal.ATTRIBUTION)


def test_who_was_chosen_equals_polars(loaded: Client, baskets: pl.DataFrame, flights: pl.DataFrame):
    first = flights.group_by("household_id").agg(pl.col("start_date").min().alias("first"))
    spent = (
        baskets.with_columns((pl.col("value") * 100).round().cast(pl.Int64).alias("cents"))
        .group_by("household_id")
        .agg(
            pl.col("cents").sum().alias("year"),
            pl.col("cents").filter(pl.col("day") < date(2017, 2, 8)).sum().alias("before"),
        )
        .join(first, on="household_id", how="left")
    )
    chosen = reveal.who_was_chosen(loaded)
    for group, rows in (
        (chosen.earlier, spent.filter(pl.col("first") < date(2017, 2, 8))),
        (chosen.later, spent.filter(pl.col("first") >= date(2017, 2, 8))),
        (chosen.never, spent.filter(pl.col("first").is_null())),
    ):
        assert group == reveal.Group(
            rows.height, Decimal(int(rows["before"].sum())) / 100, Decimal(int(rows["year"].sum())) / 100
        )


def test_the_naive_lift_is_the_difference_of_polars_means(
    lift: dict[str, Any], baskets: pl.DataFrame, flights: pl.DataFrame
):
    first = flights.group_by("household_id").agg(pl.col("start_date").min().alias("first"))
    units = (
        baskets.group_by("household_id")
        .agg(
            pl.col("value").filter(pl.col("day") >= date(2017, 2, 8)).sum(),
            (pl.col("day") >= date(2017, 2, 8)).sum().alias("count"),
        )
        .join(first, on="household_id", how="left")
    )
    treated = units.filter(pl.col("first") >= date(2017, 2, 8))
    control = units.filter(pl.col("first").is_null())
    assert (lift["treated"], lift["control"]) == (treated.height, control.height)
    assert lift["treated"] + lift["control"] + lift["left_out"] == units.height
    for measure in ("value", "count"):
        naive = measuring.estimates_of(lift, measure)["naive"]
        means = (treated[measure].mean(), control[measure].mean())
        assert (naive["treated_mean"], naive["control_mean"]) == pytest.approx(means, rel=1e-6)
        assert naive["difference"] > measuring.estimates_of(lift, measure)["adjusted"]["difference"]


def test_baskets_in_the_flight_of_an_assigned_campaign_are_attributed(
    attribution: dict[str, Any], baskets: pl.DataFrame, flights: pl.DataFrame
):
    inside = baskets.join(flights, on="household_id").filter(
        (pl.col("day") >= pl.col("start_date")) & (pl.col("day") <= pl.col("end_date"))
    )
    assert attribution["conversions"] == baskets.height
    assert attribution["attributed_conversions"] == inside["basket_id"].n_unique()
    value = baskets.join(inside.select("basket_id").unique(), on="basket_id")["value"].sum()
    assert attribution["attributed_value_micros"] == pytest.approx(value * 1e6, abs=baskets.height)
    for model in ("first", "last", "linear", "markov"):
        given = [
            credit["conversions"]
            for row in attribution["rows"]
            for credit in row["credits"]
            if credit["model"] == model
        ]
        assert sum(given) == pytest.approx(attribution["attributed_conversions"], rel=1e-6), model


@pytest.mark.parametrize(
    ("model", "start"), [("last", pl.col("start_date").max()), ("first", pl.col("start_date").min())]
)
def test_the_first_and_last_assigned_campaign_in_flight_get_the_credit(
    attribution: dict[str, Any], baskets: pl.DataFrame, flights: pl.DataFrame, model: str, start: pl.Expr
):
    inside = baskets.join(flights, on="household_id").filter(
        (pl.col("day") >= pl.col("start_date")) & (pl.col("day") <= pl.col("end_date"))
    )
    credited = inside.group_by("basket_id").agg(start)["start_date"].value_counts()
    starts = dict(flights.select("campaign_id", "start_date").unique().iter_rows())
    found: dict[date, float] = {}
    for row in attribution["rows"]:
        day = starts[int(row["subject"])]  # campaigns that begin on one day share what one of them gets
        given = next(credit["conversions"] for credit in row["credits"] if credit["model"] == model)
        found[day] = found.get(day, 0.0) + given
    assert {day: given for day, given in found.items() if given} == dict(credited.iter_rows())


def test_receipts_of_both_replay_and_say_the_legal_basis(
    loaded: Client, lift: dict[str, Any], attribution: dict[str, Any]
):
    for output in (lift, attribution):
        receipt = measuring.read_receipt(loaded, output["receipt_id"])
        assert receipt["consent"]["purpose"] == "measurement"
        assert "LEGITIMATE_INTEREST" in receipt["consent"]["basis"].upper()
        assert receipt["policy_checks"]
        assert measuring.replay_receipt(loaded, output["receipt_id"])["outcome"] == "MATCH"


def test_an_export_needs_consent_and_a_second_person(loaded: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(approvals, "HOUSEHOLDS", ("16", "32", "48"))
    assert approvals.export_of_before(loaded) is None
    with trust.second_person(loaded) as reviewer:
        without_consent, approval, exported = approvals.export(loaded, reviewer)
    assert without_consent == "export-needs-consent"
    assert approval.refused_by == "export-needs-second-person"
    assert (approval.requester, approval.approver) == (exported_by(loaded, exported), trust.REVIEWER)
    assert len(exported["persons"]) == 3
    assert approvals.export_of_before(loaded) == approval
    assert trust.verify_audit(loaded).ok


def exported_by(api: Client, exported: dict[str, Any]) -> str:
    """Return who asked for an export, as its receipt says."""
    return str(measuring.read_receipt(api, exported["receipt_id"])["principal"])
