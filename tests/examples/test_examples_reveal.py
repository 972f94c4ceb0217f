"""The Complete Journey's reveal: the figures of the demo's own question equal an independent polars computation."""

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
import yaml
from complete_journey import files, reveal

ZONE = files.STORES_TIMEZONE


class Lake:
    """Answers SQL as the gateway's `/v1/sql` does, from the files."""

    def __init__(self, folder: Path) -> None:
        files.write_campaigns_csv(folder / "campaigns.csv")
        self._database = duckdb.connect()
        self._database.execute("SET TimeZone = 'UTC'")
        for dataset in ("campaign_members", "transactions"):
            self._database.read_parquet(str(files.data_file(dataset))).create_view(f"{dataset}_file")
        self._database.execute("CREATE VIEW campaign_members AS SELECT * FROM campaign_members_file")
        self._database.execute(
            "CREATE VIEW transactions AS SELECT * REPLACE (transaction_timestamp AT TIME ZONE 'UTC' "
            "AS transaction_timestamp) FROM transactions_file"
        )
        self._database.execute(
            f"CREATE TABLE campaigns AS SELECT * REPLACE (start_date::TIMESTAMPTZ AS start_date, "
            f"flight_end::TIMESTAMPTZ AS flight_end) FROM read_csv('{folder / 'campaigns.csv'}', all_varchar = true)"
        )
        self._database.execute("ALTER TABLE campaigns ALTER campaign_id TYPE BIGINT")

    def sql(self, statement: str, *parameters: Any) -> list[list[Any]]:
        """Return the rows of one SELECT."""
        return [list(row) for row in self._database.execute(statement, list(parameters)).fetchall()]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The files as tables."""
    return Lake(tmp_path_factory.mktemp("lake"))


def days(column: str) -> pl.Expr:
    """Return the stores' day of a zoneless UTC time."""
    return pl.col(column).dt.replace_time_zone("UTC").dt.convert_time_zone(ZONE).dt.date()


def cents() -> pl.Expr:
    return (pl.col("sales_value") * 100).round().cast(pl.Int64)


@pytest.fixture(scope="module")
def households() -> pl.DataFrame:
    """One row per household: first assigned on which day, spent before and in the year, in cents."""
    sales = pl.read_parquet(files.data_file("transactions")).with_columns(days("transaction_timestamp").alias("day"))
    starts = pl.read_parquet(files.data_file("campaigns")).with_columns(pl.col("start_date").dt.date())
    first = (
        pl.read_parquet(files.data_file("campaign_members"))
        .join(starts, on="campaign_id")
        .group_by("household_id")
        .agg(pl.col("start_date").min().alias("first"))
    )
    before = cents().filter(pl.col("day") < date(2017, 2, 8)).sum()
    return (
        sales.group_by("household_id")
        .agg(cents().sum().alias("year"), before.alias("before"))
        .join(first, on="household_id", how="left")
    )


def group(households: pl.DataFrame) -> reveal.Group:
    return reveal.Group(
        households.height, Decimal(households["before"].sum()) / 100, Decimal(households["year"].sum()) / 100
    )


def test_who_was_chosen_equals_polars_to_the_cent(lake: Lake, households: pl.DataFrame):
    first = pl.col("first")
    expected = reveal.Chosen(
        earlier=group(households.filter(first < date(2017, 2, 8))),
        later=group(households.filter(first >= date(2017, 2, 8))),
        never=group(households.filter(first.is_null())),
    )
    assert reveal.who_was_chosen(lake) == expected
    assert (expected.earlier.households, expected.later.households, expected.never.households) == (140, 1419, 910)


def test_the_chosen_had_spent_five_to_six_times_as_much_before_and_over_four_times_in_the_year(lake: Lake):
    chosen = reveal.who_was_chosen(lake)
    assert chosen.times_before == pytest.approx(5.7, abs=0.05)
    assert chosen.times_year == pytest.approx(4.4, abs=0.05)
    assert (chosen.later.mean_before, chosen.never.mean_before) == pytest.approx((268, 47), abs=1.5)


def test_campaigns_begin_and_end_at_the_stores_midnights(tmp_path: Path):
    files.write_campaigns_csv(tmp_path / "campaigns.csv")
    lines = (tmp_path / "campaigns.csv").read_text().splitlines()
    assert lines[0] == "campaign_id,campaign_type,start_date,end_date,flight_end"
    assert len(lines) == 28
    assert "18,Type A,2017-10-30T00:00:00-04:00,2017-12-24T00:00:00-05:00,2017-12-25T00:00:00-05:00" in lines


def test_the_legal_basis_names_every_household_once():
    consents = files.legal_basis()
    assert len({consent["subject"]["value"] for consent in consents}) == len(consents) == 2469
    assert {consent["basis"] for consent in consents} == {"LEGITIMATE_INTEREST"}
    assert all(consent["evidence"] and len(consent["evidence"]) <= 500 for consent in consents)


def test_the_label_of_redemptions_is_no_touchpoint():
    mapping = (Path(files.__file__).parent / "mapping.yaml").read_text()
    reading = yaml.safe_load(mapping)["datasets"]
    assert [name for name, found in reading.items() if "touchpoints" in found] == ["campaign_members"]
    assert "campaign_id" not in str(reading["redemptions"])
