"""Bounds and zoneless forms, which JSON Schema has no words for, as regular expressions."""

from __future__ import annotations

import operator
from datetime import date, datetime
from typing import Any

import jsonschema_rs
import pytest
from counterfoil_contracts.odcs.bounds import BOUNDS, CLOCK, DAY, bound_pattern
from counterfoil_contracts.odcs.temporal import ZONELESS_TIMESTAMP
from hypothesis import example, given, settings
from hypothesis import strategies as st

SIDES = dict(zip(BOUNDS, (operator.ge, operator.gt, operator.le, operator.lt), strict=True))
NANOSECONDS_OF_A_DAY = 86_400 * 10**9


def matcher(pattern: str) -> Any:
    return jsonschema_rs.Draft202012Validator({"pattern": pattern}).is_valid


@settings(deadline=None)
@given(bound=st.sampled_from(BOUNDS), limit=st.dates(), near=st.integers(-40, 40), far=st.dates())
@example(bound="maximum", limit=date(1999, 12, 31), near=0, far=date(2000, 1, 1))
def test_a_bound_of_dates_is_their_order(bound: str, limit: date, near: int, far: date) -> None:
    matches = matcher(bound_pattern(bound, limit.isoformat(), DAY))
    beside = date.fromordinal(min(max(limit.toordinal() + near, 1), date.max.toordinal()))
    for value in (beside, far, limit):
        assert matches(value.isoformat()) is SIDES[bound](value, limit)


def clock(nanoseconds: int, digits: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{rest:09}"[: len(text) + 1 + digits] if digits else text


@settings(deadline=None)
@given(
    bound=st.sampled_from(BOUNDS),
    limit=st.integers(0, 86_399),
    near=st.sampled_from([-(10**9), -1, 0, 1, 10**8, 10**9]),
    digits=st.integers(0, 9),
)
def test_a_bound_of_times_is_their_order_to_the_nanosecond(bound: str, limit: int, near: int, digits: int) -> None:
    matches = matcher(bound_pattern(bound, clock(limit * 10**9, 0), CLOCK))
    grain = 10 ** (9 - digits)
    value = min(max(limit * 10**9 + near, 0), NANOSECONDS_OF_A_DAY - 1) // grain * grain
    assert matches(clock(value, digits)) is SIDES[bound](value, limit * 10**9)


@pytest.mark.parametrize("year", [1, 4, 1900, 2000, 2023, 2024, 2100, 2400, 9999])
def test_a_zoneless_timestamp_has_a_day_that_exists(year: int) -> None:
    matches = matcher(ZONELESS_TIMESTAMP)
    for month in range(14):
        for day in range(33):
            text = f"{year:04}-{month:02}-{day:02}"
            try:
                exists = bool(date.fromisoformat(text))
            except ValueError:
                exists = False
            assert matches(f"{text}T23:59:59") is exists, text


def test_a_zoneless_timestamp_has_no_year_zero() -> None:
    assert not matcher(ZONELESS_TIMESTAMP)("0000-02-29T00:00:00")


@given(moment=st.datetimes(), separator=st.sampled_from("T "))
def test_what_python_writes_without_a_zone_is_read(moment: datetime, separator: str) -> None:
    assert matcher(ZONELESS_TIMESTAMP)(moment.isoformat(separator))


@pytest.mark.parametrize(
    "text",
    [
        "2020-01-01",
        "2020-01-01T00:00",
        "2020-01-01T24:00:00",
        "2020-01-01T00:60:00",
        "2020-01-01T00:00:60",
        "2020-01-01T00:00:00.",
        "2020-01-01T00:00:00Z",
        "2020-01-01T00:00:00+01:00",
        "2020-01-01t00:00:00",
        "2020-01-01T00:00:00\n",
        " 2020-01-01T00:00:00",
        "٢٠٢٠-01-01T00:00:00",
    ],
)
def test_other_forms_are_not_zoneless_timestamps(text: str) -> None:
    assert not matcher(ZONELESS_TIMESTAMP)(text)
