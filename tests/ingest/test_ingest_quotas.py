"""Quotas: a day's records in the workspace's timezone, bytes of the log; over a real log."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from counterfoil_chassis.clock import to_micros
from counterfoil_ingest.entities import Finding
from counterfoil_ingest.errors import QuotaExceededError
from counterfoil_ingest.quotas import LONGEST_WAIT, Quota, Quotas, first_offset_since

from tests.ingest.conftest import LogRig, batch, event

EVENING_IN_BERLIN = datetime(2026, 7, 1, 21, 30, tzinfo=UTC)  # 23:30 there


class Time:
    """A clock that stands where it is put."""

    def __init__(self, now: datetime) -> None:
        self.time = now
        self.seconds = 0.0

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.seconds


async def _append(rig: LogRig, count: int, at: datetime, name: str) -> None:
    await rig.appender.append(batch("acme", *(event(f"{name}-{n}") for n in range(count)), received_at=to_micros(at)))


async def test_the_day_ends_at_midnight_in_the_workspaces_timezone(rig: LogRig) -> None:
    time = Time(EVENING_IN_BERLIN)
    quotas = Quotas(rig.log, time, monotonic=time.monotonic)
    await _append(rig, 3, EVENING_IN_BERLIN - timedelta(days=1), "yesterday")
    await _append(rig, 2, EVENING_IN_BERLIN, "today")
    quotas.put("acme", Quota("Europe/Berlin", records_per_day=3, stored_bytes=0))
    await quotas.require("acme")
    await _append(rig, 2, EVENING_IN_BERLIN, "over")  # began below the bound: taken whole
    with pytest.raises(
        QuotaExceededError, match=r"brought 4 records today and may bring 3.*2026-07-01T22:00:00"
    ) as told:
        await quotas.require("acme")
    assert told.value.retry_after == timedelta(minutes=30)
    await quotas.require("zeta")
    time.time += timedelta(minutes=30)
    await quotas.require("acme")
    quotas.put("acme", Quota("UTC", records_per_day=3, stored_bytes=0))  # where it is still the first of July
    with pytest.raises(QuotaExceededError) as told:
        await quotas.require("acme")
    assert told.value.retry_after == LONGEST_WAIT
    quotas.delete("acme")
    await quotas.require("acme")


async def test_a_full_share_of_the_log_is_told_until_the_quota_is_raised(rig: LogRig) -> None:
    time = Time(EVENING_IN_BERLIN)
    quotas = Quotas(rig.log, time, monotonic=time.monotonic)
    quotas.put("acme", Quota("UTC", records_per_day=0, stored_bytes=1))
    await quotas.require("acme")
    await _append(rig, 1, EVENING_IN_BERLIN, "first")
    await quotas.require("acme")  # the size is looked up once a minute
    time.seconds += 61
    with pytest.raises(QuotaExceededError, match="may fill 1"):
        await quotas.require("acme")
    quotas.put("acme", Quota("UTC", records_per_day=0, stored_bytes=1 << 30))
    await quotas.require("acme")


@pytest.mark.both_engines("ingest")
async def test_what_lies_in_quarantine_fills_the_workspaces_share_too(rig: LogRig) -> None:
    time = Time(EVENING_IN_BERLIN)
    quotas = Quotas(rig.log, time, monotonic=time.monotonic)
    await _append(rig, 1, EVENING_IN_BERLIN, "good")
    size = rig.log.stored_bytes("acme")
    quotas.put("acme", Quota("UTC", records_per_day=0, stored_bytes=size + 1))
    await quotas.require("acme")
    finding = Finding("TOO_DEEP", "$", "It is nested too deep.")
    bad = msgspec.structs.replace(
        event("bad"), findings=(finding,), data=random.Random(1).randbytes(500).hex().encode()
    )
    await rig.appender.append(batch("acme", bad, received_at=to_micros(EVENING_IN_BERLIN)))
    assert rig.log.stored_bytes("acme") >= size + 500
    time.seconds += 61
    with pytest.raises(QuotaExceededError, match="of the log and of quarantine"):
        await quotas.require("acme")


async def test_finds_the_first_block_since_a_time_among_many(rig: LogRig) -> None:
    begin = EVENING_IN_BERLIN
    for number in range(20):
        await _append(rig, 1 + number % 3, begin + timedelta(minutes=number), str(number))
    offsets = [0]
    for number in range(20):
        offsets.append(offsets[-1] + 1 + number % 3)
    for number in range(20):
        assert first_offset_since(rig.log, "acme", to_micros(begin + timedelta(minutes=number))) == offsets[number]
    assert first_offset_since(rig.log, "acme", to_micros(begin - timedelta(days=1))) == 0
    assert first_offset_since(rig.log, "acme", to_micros(begin + timedelta(days=1))) == offsets[-1]
    assert first_offset_since(rig.log, "nobody", 0) == 0
