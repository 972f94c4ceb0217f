from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from counterfoil_chassis.clock import (
    SystemIds,
    from_micros,
    from_timestamp,
    to_micros,
    to_timestamp,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.chassis.probe import HandClock

EARLIEST, LATEST = datetime(1900, 1, 2), datetime(9999, 12, 30)  # noqa: DTZ001 - hypothesis adds the zone
zones = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
times = st.datetimes(EARLIEST, LATEST, timezones=zones)


@given(times)
def test_a_time_survives_micros_and_timestamp_exactly(moment: datetime) -> None:
    assert from_micros(to_micros(moment)) == moment
    assert from_timestamp(to_timestamp(moment)) == moment
    assert to_timestamp(moment).ToDatetime(UTC) == moment


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no zone"):
        to_micros(datetime(2026, 1, 1))  # noqa: DTZ001 - the point


def test_ids_are_version_7_and_ascend_even_when_the_clock_steps_back() -> None:
    clock = HandClock()
    ids = SystemIds(clock)
    made = [ids.new() for _ in range(5000)]
    clock.forward(timedelta(hours=-1))
    made += [ids.new() for _ in range(5000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {(uuid.UUID(each).version, uuid.UUID(each).variant) for each in made} == {(7, uuid.RFC_4122)}


def test_an_id_says_when_it_was_made() -> None:
    clock = HandClock()
    assert uuid.UUID(SystemIds(clock).new()).int >> 80 == to_micros(clock.now()) // 1000
