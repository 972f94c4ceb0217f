"""Daily series: exact, whatever the order, in the workspace's days."""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from counterfoil_models.entities import Aggregation, SeriesFilter, SeriesLookup, SeriesSpec
from counterfoil_models.errors import NoWholeDaysError, SeriesFieldError, SeriesTooLargeError
from counterfoil_models.series import cut, local_micros
from hypothesis import given, settings
from hypothesis import strategies as st

SPEC = SeriesSpec("sales", "at", Aggregation.SUM, value_field="amount", dimension="shop")
ZONES = ["UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Asia/Kathmandu",
         "America/Sao_Paulo", "Africa/Cairo", "Pacific/Apia"]  # fmt: skip


def moments(first: str, last: str) -> st.SearchStrategy[datetime]:
    return st.datetimes(datetime.fromisoformat(first), datetime.fromisoformat(last), timezones=st.just(UTC))


instants = moments("2010-10-01", "2012-04-30")
cents = st.integers(-10_000, 1_000_000).map(lambda n: n / 100)
sale = st.tuples(
    moments("2017-02-01", "2017-04-30"),
    cents,
    st.sampled_from(["north", "south", None]),
)


def table(rows: list[tuple[datetime | None, float | None, str | None]]) -> pa.Table:
    at, amount, shop = zip(*rows, strict=True)
    return pa.table(
        {
            "at": pa.array(at, pa.timestamp("us", "UTC")),
            "amount": pa.array(amount, pa.float64()),
            "shop": pa.array(shop, pa.string()),
        }
    )


def day_of(at: datetime, zone: str) -> date:
    return at.astimezone(ZoneInfo(zone)).date()


@settings(deadline=None)
@given(st.lists(instants, min_size=1, max_size=40), st.sampled_from(ZONES))
def test_local_time_equals_the_zone_database_at_every_instant(times, zone):
    base = datetime(1970, 1, 1, tzinfo=UTC)
    micros = np.array([(t - base) // timedelta(microseconds=1) for t in times])
    local = local_micros(micros, ZoneInfo(zone))
    naive = [base.replace(tzinfo=None) + timedelta(microseconds=int(value)) for value in local]
    assert naive == [t.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for t in times]


@settings(max_examples=60, deadline=None)
@given(st.lists(sale, min_size=3, max_size=60), st.sampled_from(ZONES))
def test_each_day_holds_the_exact_sum_of_its_records(rows, zone):
    days = sorted({day_of(at, zone) for at, _, _ in rows})
    try:
        cut_table = cut(SPEC, zone, table(rows))
    except NoWholeDaysError:
        assert (days[-1] - days[0]).days <= 1
        return
    expected: dict[tuple[str, date], list[float]] = defaultdict(list)
    for at, amount, shop in rows:
        expected[shop or "unknown", day_of(at, zone)].append(amount)
    for name, series in cut_table.series.items():
        for place, value in enumerate(series.values):
            assert value == math.fsum(expected[name, cut_table.first_day + timedelta(days=place)])
    totals = math.fsum(series.total for series in cut_table.series.values())
    assert Decimal(f"{totals:.9g}") == Decimal(f"{math.fsum(amount for _, amount, _ in rows):.9g}")
    assert sum(series.records for series in cut_table.series.values()) == len(rows)


@settings(max_examples=40, deadline=None)
@given(st.lists(sale, min_size=5, max_size=60), st.randoms())
def test_the_order_of_the_records_changes_no_bit(rows, random):
    rows = [
        *rows,
        (datetime(2017, 1, 1, 12, tzinfo=UTC), 1.0, "north"),
        (datetime(2017, 6, 1, tzinfo=UTC), 2.0, "north"),
    ]
    shuffled = list(rows)
    random.shuffle(shuffled)
    one, other = (cut(SPEC, "America/New_York", table(each)) for each in (rows, shuffled))
    assert one.series.keys() == other.series.keys()
    for name, series in one.series.items():
        assert series.values.tobytes() == other.series[name].values.tobytes()
        assert series.total == other.series[name].total


@pytest.mark.parametrize(("day", "hours"), [(date(2017, 3, 12), 23), (date(2017, 11, 5), 25)])
def test_a_day_of_daylight_saving_holds_23_or_25_hours(day, hours):
    start = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=2)
    rows = [(start + timedelta(hours=hour), 1.0, "north") for hour in range(24 * 5)]
    found = cut(SPEC, "America/New_York", table(rows))
    assert found.series["north"].values[(day - found.first_day).days] == hours


def test_partial_end_days_are_dropped_and_told():
    rows = [(datetime(2024, 5, day, 12, tzinfo=UTC), 10.0, "north") for day in (1, 2, 3, 4)]
    found = cut(SPEC, "UTC", table(rows))
    assert (found.first_day, found.last_day) == (date(2024, 5, 2), date(2024, 5, 3))
    assert [(gap.reason, gap.records) for gap in found.gaps] == [("PARTIAL_END_DAYS", 2)]
    assert found.series["north"].total == 40.0


def test_the_first_day_is_whole_when_a_record_lies_at_its_first_instant():
    rows = [(datetime(2024, 5, 1, tzinfo=UTC), 1.0, "north"), (datetime(2024, 5, 3, 1, tzinfo=UTC), 1.0, "north")]
    assert cut(SPEC, "UTC", table(rows)).first_day == date(2024, 5, 1)


def test_dates_are_days_of_their_own_and_all_whole():
    records = pa.table(
        {"at": pa.array([date(2024, 5, 1), date(2024, 5, 3)], pa.date32()), "amount": [1, 2], "shop": ["n", "n"]}
    )
    found = cut(SPEC, "Pacific/Auckland", records)
    assert (found.first_day, list(found.series["n"].values)) == (date(2024, 5, 1), [1.0, 0.0, 2.0])
    assert found.gaps == ()


def test_missing_days_are_zero_and_not_active():
    rows = [(datetime(2024, 5, day, tzinfo=UTC), 5.0, "north") for day in (1, 2, 5, 6)]
    series = cut(SPEC, "UTC", table(rows)).series["north"]
    assert list(series.values) == [5.0, 5.0, 0.0, 0.0, 5.0]
    assert series.active_days == 3


def test_records_without_time_or_finite_value_are_left_out_and_counted():
    rows = [(datetime(2024, 5, day, tzinfo=UTC), 1.0, "north") for day in range(1, 9)]
    rows += [(None, 1.0, "north"), (datetime(2024, 5, 3, tzinfo=UTC), None, "north")]
    rows += [(datetime(2024, 5, 3, tzinfo=UTC), math.nan, "north"), (datetime(2024, 5, 3, tzinfo=UTC), math.inf, None)]
    found = cut(SPEC, "UTC", table(rows))
    reasons = {gap.reason: gap.records for gap in found.gaps}
    assert reasons == {"MISSING_TIME": 1, "MISSING_VALUE": 3, "PARTIAL_END_DAYS": 1, "MISSING_DIMENSION": 1}
    assert found.series["north"].values.sum() == 7.0


def test_a_lookup_without_a_match_is_unknown_with_its_count_and_sum():
    spec = SeriesSpec("sales", "at", Aggregation.SUM, "amount", "department", SeriesLookup("products", "shop"))
    rows = [(datetime(2024, 5, day, tzinfo=UTC), 0.1, shop) for day in range(1, 6) for shop in ("north", "lost", None)]
    lookup = pa.table({"shop": ["north"], "department": ["FOOD"], "_partition": [0], "_offset": [0]})
    found = cut(spec, "UTC", table(rows), lookup)
    assert set(found.series) == {"FOOD", "unknown"}
    note = next(gap for gap in found.gaps if gap.reason == "UNMATCHED_LOOKUP")
    assert note.records == 10
    assert "worth 1 " in note.detail


def test_the_last_record_of_a_lookup_key_wins_by_offset_not_by_place():
    spec = SeriesSpec("sales", "at", Aggregation.COUNT, "", "department", SeriesLookup("products", "shop"))
    rows = [(datetime(2024, 5, day, tzinfo=UTC), 1.0, "north") for day in range(1, 6)]
    lookup = pa.table(
        {"shop": ["north"] * 3, "department": ["NEW", "OLD", "OLDER"], "_partition": [0] * 3, "_offset": [9, 5, 2]}
    )
    found = cut(spec, "UTC", table(rows), lookup)
    assert set(found.series) == {"NEW"}
    assert (found.gaps[0].reason, found.gaps[0].records) == ("DUPLICATE_LOOKUP_KEY", 2)


def test_keys_of_different_types_join_by_their_text():
    spec = SeriesSpec("sales", "at", Aggregation.COUNT, "", "department", SeriesLookup("products", "shop"))
    rows = [(datetime(2024, 5, day, tzinfo=UTC), 1.0, "12") for day in range(1, 6)]
    lookup = pa.table({"shop": [12], "department": ["FOOD"], "_partition": [0], "_offset": [0]})
    assert set(cut(spec, "UTC", table(rows), lookup).series) == {"FOOD"}


def test_filters_are_equalities_of_text():
    spec = SeriesSpec("sales", "at", Aggregation.COUNT, filters=(SeriesFilter("shop", "north"),))
    rows = [(datetime(2024, 5, day, tzinfo=UTC), 1.0, shop) for day in range(1, 6) for shop in ("north", "south", None)]
    assert list(cut(spec, "UTC", table(rows)).series["total"].values) == [1.0] * 4


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (SeriesSpec("sales", "when", Aggregation.COUNT), SeriesFieldError),
        (SeriesSpec("sales", "shop", Aggregation.COUNT), SeriesFieldError),
        (SeriesSpec("sales", "at", Aggregation.SUM, value_field="shop"), SeriesFieldError),
        (SeriesSpec("sales", "at", Aggregation.COUNT, filters=(SeriesFilter("shop", "x"),)), NoWholeDaysError),
    ],
)
def test_a_spec_that_does_not_fit_the_data_is_told(spec, error):
    rows = [(datetime(2024, 5, day, tzinfo=UTC), 1.0, "north") for day in range(1, 6)]
    with pytest.raises(error):
        cut(spec, "UTC", table(rows))


@pytest.mark.parametrize("year", [1776, 9999])
def test_an_absurd_time_is_refused_rather_than_filled_with_zeros(year):
    rows = [(datetime(2024, 5, day, tzinfo=UTC), 1.0, "north") for day in range(1, 6)]
    with pytest.raises(SeriesTooLargeError):
        cut(SPEC, "UTC", table([*rows, (datetime(year, 6, 1, tzinfo=UTC), 1.0, "north")]))
