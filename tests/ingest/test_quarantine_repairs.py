"""Whatever is repaired, replayed, sent again and cut off: no record is in the log twice, and none is lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import pytest
from counterfoil_ingest import blocks
from counterfoil_ingest.entities import Outcome, QuarantineFilter, QuarantineState
from counterfoil_ingest.errors import QuarantineChangedError
from counterfoil_ingest.holds import Hold
from counterfoil_ingest.repairing import Deed, Repairing
from counterfoil_ingest.repairs import Convert, Default, Drop, Kind, Repair, read_fix
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.ingest.read_rig import SALES, ReadSide, contract, read_side, sale

OPEN = QuarantineFilter(state=QuarantineState.OPEN)
DEED = Deed("ada", 1_800_000_000_000_000, "")
REPAIRS = {
    "to a number": Repair(fixes=(read_fix("$.amount", Convert(Kind.NUMBER)),)),
    "without it": Repair(fixes=(read_fix("$.amount", Drop()),)),
    "in vain": Repair(fixes=(read_fix("$.shop", Drop()), read_fix("$.shop", Default(b"7")))),
    "elsewhere": Repair(fixes=(read_fix("$.amount", Drop()),), dataset="returns"),
    "none": Repair(),
}
STEPS = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 2)),
    st.tuples(st.just("repair"), st.sampled_from(sorted(REPAIRS))),
    st.tuples(st.sampled_from(["replay", "replay what was read before", "read", "stop before the commit"]), st.just(0)),
)
FIRST = count(0, 3)  # every story has sales of its own, in the log that they share


class Story:
    """Three sales of which each was broken when it arrived, and what is done to them."""

    def __init__(self, side: ReadSide, first: int) -> None:
        self.side = side
        self.repairing = Repairing(side.quarantine, side.appender)
        self.first = first
        self.sent: set[str] = set()
        self.read: list[Any] = []

    async def do(self, step: tuple[str, Any]) -> None:
        """Take one step."""
        what, which = step
        steps: dict[str, Callable[[], Awaitable[Any]]] = {
            "send": lambda: self._send(which),
            "repair": lambda: self._repair(REPAIRS[which]),
            "read": self._read,
            "replay": lambda: self._replay(None),
            "replay what was read before": lambda: self._replay(self.read),
            "stop before the commit": self._stop,
        }
        await steps[what]()

    async def _send(self, which: int) -> None:
        await self.side.append(sale(self.first + which, amount=f"{which}.5"))
        self.sent.add(f"s{self.first + which}")

    async def open(self) -> list[Any]:
        found, more = await self.side.quarantine.some("acme", OPEN, after="", limit=1000)
        assert not more
        return [each for each in found if each.record_id in self.sent]

    async def _read(self) -> None:
        self.read = await self.open()

    async def _repair(self, repair: Repair) -> None:
        repaired = await self.repairing.repair(await self.open(), repair, DEED)
        async with self.side.quarantine.begin() as changes:
            await changes.repair([each.record for each in repaired if each.fits])

    async def _replay(self, records: list[Any] | None) -> None:
        some = await self.open() if records is None else records
        try:
            await self.repairing.replay(some, DEED, tell=lambda _statements, _verdicts: None)
        except QuarantineChangedError:
            assert records is not None, "only what was read before can have changed meanwhile"

    async def _stop(self) -> None:
        told: list[Any] = []

        def stop(_statements: Any, verdicts: Any) -> None:
            told.extend(verdicts)
            raise RuntimeError("the process ends here")

        head = self.side.log.head("acme")
        try:
            await self.repairing.replay(await self.open(), DEED, tell=stop)
        except RuntimeError:
            assert told
        assert self.side.log.head("acme") == head

    async def check(self) -> None:
        """Hold log and quarantine against what was sent."""
        found = self.side.log.read("acme", 0, 0, max_bytes=1 << 30) if self.side.log.head("acme") else []
        records = {each.offset: each for block in found for each in blocks.decode(block)}
        in_log = [each.record_id for each in records.values() if each.record_id in self.sent]
        assert len(in_log) == len(set(in_log)), "a record is in the log twice"
        listed = await self.side.quarantine.list("acme", QuarantineFilter(), before="", limit=1000)
        mine = [each for each in listed if each.record_id in self.sent]
        waiting = [each.record_id for each in mine if each.state is QuarantineState.OPEN]
        assert sorted(in_log + waiting) == sorted(self.sent), "a record is lost, or both in the log and waiting"
        for each in mine:
            if each.state is QuarantineState.REPLAYED:
                kept = records[each.replayed_offset]
                assert (kept.record_id, kept.dataset) == (each.record_id, each.replay_dataset)
        counted = sum(each.quarantined for each in self.side.log.counts("acme"))
        assert counted == sum(each.state is QuarantineState.OPEN for each in listed)


@pytest.mark.both_engines("ingest")
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=3, max_size=12))
async def test_nothing_is_twice_in_the_log_and_nothing_is_lost(rig: Any, steps: list[tuple[str, Any]]) -> None:
    rig.contracts.put(contract("sales", SALES))
    rig.contracts.put(contract("returns", SALES))
    async with read_side(rig, run=False) as side:
        story = Story(side, next(FIRST))
        for step in [("send", 0), ("send", 1), *steps]:
            await story.do(step)
            await story.check()


@pytest.mark.both_engines("ingest")
async def test_a_namesake_in_a_held_dataset_stays(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    rig.contracts.put(contract("returns", SALES))
    async with read_side(rig, run=False) as side:
        story = Story(side, 0)
        await story.do(("send", 0))
        (held,) = await story.open()
        await story.do(("repair", "elsewhere"))
        await story.do(("replay", 0))
        assert side.log.head("acme") == 1
        side.holds.put("acme/h1", Hold("acme", "h1", "sales", None))
        erased = await side.eraser.erase("acme", 0, [0], texts=[])
        assert (erased.records, erased.quarantined) == (1, 0)
        assert (await side.kept(held.quarantine_id)).state is QuarantineState.REPLAYED
        (verdict,) = await story.repairing.replay(
            [await side.kept(held.quarantine_id)], DEED, tell=lambda _statements, _verdicts: None
        )
        assert verdict.outcome is Outcome.DUPLICATE
