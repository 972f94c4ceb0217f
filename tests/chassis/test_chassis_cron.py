"""A schedule names the moments that crontab(5) says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from counterfoil_chassis.cron import Cron
from hypothesis import given
from hypothesis import strategies as st

NOON = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)  # a Thursday


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("* * * * *", datetime(2026, 11, 26, 12, 1, tzinfo=UTC)),
        ("0 20 * * *", datetime(2026, 11, 26, 20, 0, tzinfo=UTC)),
        ("0 12 * * *", datetime(2026, 11, 27, 12, 0, tzinfo=UTC)),
        ("*/15 12 * * *", datetime(2026, 11, 26, 12, 15, tzinfo=UTC)),
        ("30 6 * * mon-wed", datetime(2026, 11, 30, 6, 30, tzinfo=UTC)),
        ("0 0 * * 7", datetime(2026, 11, 29, 0, 0, tzinfo=UTC)),
        ("0 0 1 * *", datetime(2026, 12, 1, 0, 0, tzinfo=UTC)),
        ("5 4 1,15 feb *", datetime(2027, 2, 1, 4, 5, tzinfo=UTC)),
        ("0 0 29 2 *", datetime(2028, 2, 29, 0, 0, tzinfo=UTC)),
        ("0 0 1 * fri", datetime(2026, 11, 27, 0, 0, tzinfo=UTC)),  # the day of the month or that of the week
        ("10-59/20 23 * * *", datetime(2026, 11, 26, 23, 10, tzinfo=UTC)),
        ("0 8/6 * * *", datetime(2026, 11, 26, 14, 0, tzinfo=UTC)),
    ],
)
def test_the_next_moment_is_the_first_that_fits(text: str, moment: datetime) -> None:
    assert Cron.parse(text).next_after(NOON) == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "5-1 * * * *",
        "*/0 * * * *",
        "1/ * * * *",
        "a * * * *",
        "-1 * * * *",
        "1,,2 * * * *",
        "² * * * *",
        "@daily",
        "0 0 30 2 *",
        "0 0 31 4,6,9,11 *",
        "9" * 5_000 + " * * * *",
        ",".join(["1"] * 5_000) + " * * * *",
    ],
)
def test_what_names_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Cron.parse(text)


@given(
    minute=st.integers(0, 59),
    hour=st.integers(0, 23),
    weekday=st.integers(0, 6),
    begin=st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis adds the zone
)
def test_a_weekly_schedule_comes_within_a_week_and_fits(minute: int, hour: int, weekday: int, begin: datetime) -> None:
    found = Cron.parse(f"{minute} {hour} * * {weekday}").next_after(begin)
    assert begin < found <= begin + timedelta(days=7)
    assert (found.minute, found.hour, found.isoweekday() % 7, found.second) == (minute, hour, weekday, 0)
