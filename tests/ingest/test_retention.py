"""Retention and legal holds in ingest: what has expired is nowhere any more, and what is held stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from counterfoil_chassis.clock import to_micros
from counterfoil_ingest.hold_errors import DatasetHeldError, HoldsUnknownError, PersonHeldError, RetentionUntoldError
from counterfoil_ingest.holds import Hold, Holds
from counterfoil_ingest.import_jobs import Format, State
from counterfoil_ingest.read_errors import SnapshotErasedError
from counterfoil_ingest.registry import ColumnType
from counterfoil_ingest.retention import Done, Policy, Retention

from tests.byte_scan import holding
from tests.ingest.conftest import LogRig
from tests.ingest.read_rig import ReadSide, contract, read_side, record

COLUMNS = {"name": ColumnType.VARCHAR}
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
ADA, GRACE = "ada@example.com", "grace@example.com"


class StandingClock:
    """Stands where a test has set it."""

    def __init__(self) -> None:
        self.at = NOON

    def now(self) -> datetime:
        return self.at


@dataclass
class Room:
    """A lake with its retention; what that reports is kept here."""

    rig: LogRig
    side: ReadSide
    retention: Retention
    holds: Holds
    clock: StandingClock
    reports: list[Done]
    told: bool = True

    async def add(self, *names: str, dataset: str = "visits", days_ago: int = 0, broken: bool = False) -> None:
        """Append a record per name, received so many days before noon; a broken one goes into quarantine."""
        received = to_micros(NOON - timedelta(days=days_ago))
        some = [
            record(dataset, f"{name}/{days_ago}{broken}", {"nick": name} if broken else {"name": name})
            for name in names
        ]
        await self.side.append(*some, received_at=received)

    async def visit(self) -> Done:
        """Carry out the policies of the workspace; return what was reported of the one on `visits`."""
        before = len(self.reports)
        await self.retention.visit("acme")
        return next(each for each in self.reports[before:] if each.policy.dataset == "visits")

    async def visit_again(self) -> int:
        """Carry them out on another day; return how many records that has erased."""
        self.clock.at += timedelta(days=1)
        return (await self.visit()).records

    async def names(self, dataset: str = "visits") -> list[str]:
        """Return who is in the lake."""
        return [row["name"] for row in await self.side.rows(dataset, ["name"])]


@pytest.fixture
async def room(rig: LogRig) -> AsyncIterator[Room]:
    for dataset in ("visits", "orders"):
        rig.contracts.put(contract(dataset, COLUMNS, required=["name"]))
    async with opened(rig) as found:
        yield found


@asynccontextmanager
async def opened(rig: LogRig) -> AsyncIterator[Room]:
    clock = StandingClock()
    reports: list[Done] = []

    async def report(done: Done) -> None:
        if not found.told:
            raise RetentionUntoldError("Governance is away.")
        reports.append(done)

    async with read_side(rig) as side:
        retention = Retention(
            side.eraser,
            log=rig.log,
            lake=side.lake,
            quarantine=side.quarantine,
            holds=side.holds,
            report=report,
            clock=clock,
            period=timedelta(hours=1),
        )
        retention.put("acme/visits", Policy("acme", "visits", 7))
        found = Room(rig, side, retention, side.holds, clock, reports)
        yield found


def hold(room: Room, *, dataset: str = "", expires_us: int | None = None, number: int = 1) -> str:
    """Have governance tell of a hold; return its key."""
    room.holds.put(f"acme/h{number}", Hold("acme", f"h{number}", dataset, expires_us))
    return f"acme/h{number}"


async def test_what_was_received_before_the_kept_days_is_in_no_file_and_the_rest_as_it_was(room: Room) -> None:
    await room.add(ADA, GRACE, days_ago=30)
    await room.add("eve-eve-eve-eve", days_ago=30, dataset="orders")
    await room.add("old-and-broken", days_ago=9, broken=True)
    await room.add("new-and-broken", days_ago=6, broken=True)
    await room.add("a-week-and-a-day", days_ago=8)
    await room.add("just-a-week", days_ago=7)
    await room.side.flush()
    snapshot = room.side.snapshots.at_head("acme", "visits")
    kept = room.side.snapshots.at_head("acme", "orders")
    done = await room.visit()
    assert (done.records, done.quarantined, done.held, done.remaining, done.waiting_for) == (3, 1, 0, 0, "")
    assert done.received_before == datetime(2026, 11, 13, tzinfo=UTC)
    assert holding(room.rig.folder, ADA, GRACE, "old-and-broken", "a-week-and-a-day") == []
    assert (await room.names(), await room.names("orders")) == (["just-a-week"], ["eve-eve-eve-eve"])
    counted = {each.dataset: (each.records, each.quarantined) for each in room.rig.log.counts("acme")}
    assert (counted["visits"], counted["orders"]) == ((1, 1), (1, 0))
    with pytest.raises(SnapshotErasedError):
        room.side.snapshots.check("acme", snapshot)
    room.side.snapshots.check("acme", kept)


async def test_it_is_done_once_a_day_and_when_a_policy_or_a_hold_has_changed(room: Room) -> None:
    await room.add(ADA, days_ago=7)
    await room.side.flush()
    assert (await room.visit()).records == 0
    await room.retention.visit("acme")
    assert len(room.reports) == 1
    room.clock.at += timedelta(days=1)
    assert (await room.visit()).records == 1
    await room.add(GRACE, days_ago=5)
    room.retention.put("acme/visits", Policy("acme", "visits", 3))
    assert (await room.visit()).records == 1
    room.retention.delete("acme/visits")
    await room.retention.visit("acme")
    assert len(room.reports) == 3


async def test_a_held_dataset_is_kept_until_the_hold_is_over(room: Room) -> None:
    await room.add(ADA, days_ago=30)
    await room.side.flush()
    key = hold(room, dataset="visits")
    waiting = await room.visit()
    assert "h1" in waiting.waiting_for
    assert (waiting.records, await room.names()) == (0, [ADA])
    with pytest.raises(DatasetHeldError):
        await room.side.eraser.erase("acme", 0, [0], texts=[])
    room.holds.delete(key)
    assert ((await room.visit()).records, await room.names()) == (1, [])


async def test_a_hold_that_ends_by_itself_keeps_nothing_after_its_time(room: Room) -> None:
    await room.add(ADA, days_ago=30)
    ends = to_micros(NOON + timedelta(hours=2))
    held = Holds(room.clock, monotonic=lambda: 0.0)
    held.known = True
    held.put("acme/h1", Hold("acme", "h1", "visits", ends))
    with pytest.raises(DatasetHeldError):
        held.require_free("acme", ["visits"])
    room.clock.at += timedelta(hours=2)
    held.require_free("acme", ["visits"])


async def test_records_of_a_held_person_stay_wherever_they_are_and_go_when_released(room: Room) -> None:
    await room.add(ADA, GRACE, days_ago=30)
    await room.add(ADA, GRACE, days_ago=30, broken=True)
    await room.side.flush()
    key = hold(room)
    assert "graph" in (await room.visit()).waiting_for
    assert await room.names() == [ADA, GRACE]
    room.holds.tell_persons("acme", ["h1"], [ADA.upper(), "id-of-ada"])
    done = await room.visit()
    assert (done.records, done.quarantined, done.held, done.remaining) == (1, 1, 1, 0)
    assert await room.names() == [ADA]
    assert holding(room.rig.folder, GRACE) == []
    assert holding(room.rig.folder, ADA)
    room.holds.delete(key)
    done = await room.visit()
    assert (done.records, done.quarantined, done.held) == (1, 1, 0)
    assert holding(room.rig.folder, ADA) == []


async def test_whom_the_graph_named_an_hour_ago_is_not_known_any_more() -> None:
    now = 0.0
    holds = Holds(StandingClock(), monotonic=lambda: now)
    holds.known = True
    holds.put("acme/h1", Hold("acme", "h1", "", None))
    holds.tell_persons("acme", ["h1"], [ADA])
    assert holds.persons("acme") is not None
    now = 3601.0
    with pytest.raises(HoldsUnknownError):
        holds.persons("acme")
    holds.tell_persons("acme", ["h1"], [])
    assert holds.persons("acme") is None
    holds.put("acme/h2", Hold("acme", "h2", "", None))
    with pytest.raises(HoldsUnknownError):
        holds.persons("acme")


async def test_nothing_is_erased_before_governance_has_told_of_every_hold(room: Room) -> None:
    await room.add(ADA, days_ago=30)
    await room.side.flush()
    room.holds.known = False
    assert "Governance" in (await room.visit()).waiting_for
    with pytest.raises(HoldsUnknownError):
        await room.side.eraser.erase("acme", 0, [0], texts=[])
    assert await room.names() == [ADA]


async def test_an_import_with_held_records_is_reverted_once_the_hold_is_over(room: Room) -> None:
    text = f"name\n{ADA}\n{GRACE}\n".encode()
    job = await room.side.import_file("visits", text, Format.CSV)
    assert job.state is State.SUCCEEDED
    records = await room.side.imports.records(job)

    def no_effect(_statements: Any, _erasure: Any) -> None:
        """Nothing commits with it."""

    async def no_ids(_after: str) -> list[str]:
        return []

    async def revert() -> None:
        await room.side.eraser.revert("acme", records, quarantined=no_ids, effect=no_effect)

    key = hold(room)
    room.holds.tell_persons("acme", ["h1"], [GRACE])
    with pytest.raises(PersonHeldError):
        await revert()
    room.holds.delete(key)
    key = hold(room, dataset="visits")
    with pytest.raises(DatasetHeldError):
        await revert()
    assert len(await room.names()) == 2
    room.holds.delete(key)
    await revert()
    assert await room.names() == []


async def test_what_could_not_be_told_is_told_at_the_next_visit(room: Room) -> None:
    await room.add(ADA, days_ago=30)
    await room.side.flush()
    room.told = False
    await room.retention.visit("acme")
    assert room.reports == []
    room.told = True
    done = await room.visit()
    assert (done.remaining, done.received_before) == (0, datetime(2026, 11, 13, tzinfo=UTC))
    assert holding(room.rig.folder, ADA) == []


async def test_what_expired_may_come_again_and_is_new(room: Room) -> None:
    await room.add(ADA, days_ago=30)
    await room.visit()
    await room.add(ADA, days_ago=30)
    assert room.rig.log.head("acme") == 2
    assert (await room.visit_again(), await room.names()) == (1, [])
