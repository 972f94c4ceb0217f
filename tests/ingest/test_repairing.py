"""Quarantined records come back: repaired beside their bytes, replayed once, closed with the append or not at all."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson
import pytest
from counterfoil.common.v1.verdict_pb2 import Verdict as VerdictMessage
from counterfoil.ingest.v1 import quarantine_pb2 as pb
from counterfoil_chassis.texts import WholeTexts
from counterfoil_ingest import repairs
from counterfoil_ingest.entities import Outcome, QuarantineFilter, QuarantineState
from counterfoil_ingest.errors import QuarantineChangedError, RepairInvalidError
from counterfoil_ingest.import_jobs import Format, State
from counterfoil_ingest.metrics import QUARANTINED, QUARANTINED_MOST
from counterfoil_ingest.registry import ColumnType
from counterfoil_ingest.repairing import Deed, Repairing
from counterfoil_ingest.repairs import Convert, Default, Drop, Kind, MisfitError, Rename, Repair, read_fix
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ingest.read_rig import SALES, contract, read_side, sale

OPEN = QuarantineFilter(state=QuarantineState.OPEN)
DEED = Deed("ada", 1_800_000_000_000_000, "")
AS_NUMBERS = Repair(fixes=(read_fix("$.amount", Convert(Kind.NUMBER)),))


def nobody_told(_statements: Any, _verdicts: Any) -> None:
    """Nothing else commits with it."""


class Quarantine:
    """What is in quarantine over a read side, and the way back."""

    def __init__(self, side: Any) -> None:
        self.side = side
        self.repairing = Repairing(side.quarantine, side.appender)

    async def open(self) -> list[Any]:
        found, more = await self.side.quarantine.some("acme", OPEN, after="", limit=100)
        assert not more
        return list(found)

    async def repair(self, repair: Repair, records: Any = None) -> Any:
        repaired = await self.repairing.repair(records or await self.open(), repair, DEED)
        async with self.side.quarantine.begin() as changes:
            await changes.repair([each.record for each in repaired if each.fits])
        return repaired

    async def replay(self, records: Any = None, tell: Any = nobody_told) -> list[Any]:
        return list(await self.repairing.replay(records or await self.open(), DEED, tell=tell))

    def counts(self) -> tuple[int, int]:
        (of,) = [each for each in self.side.log.counts("acme") if each.dataset == "sales"]
        return of.records, of.quarantined


async def test_replays_what_a_changed_contract_takes_and_then_never_again(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        quarantine = Quarantine(side)
        await side.append(sale(1), sale(2, amount="x"), sale(3, amount="y"))
        assert quarantine.counts() == (1, 2)
        before = await quarantine.open()
        assert {each.outcome for each in await quarantine.replay()} == {Outcome.QUARANTINED}
        rig.contracts.put(contract("sales", SALES | {"amount": ColumnType.VARCHAR}, version="2.0.0"))
        tried = await quarantine.repairing.try_replay(before, DEED)
        assert [(each.outcome, each.offset) for each in tried] == [(Outcome.ACCEPTED, -1)] * 2
        assert quarantine.counts() == (1, 2)
        accepted = await quarantine.replay()
        assert [(each.outcome, each.offset) for each in accepted] == [(Outcome.ACCEPTED, 1), (Outcome.ACCEPTED, 2)]
        assert quarantine.counts() == (3, 0)
        assert await quarantine.open() == []
        closed = [await side.kept(each.quarantine_id) for each in before]
        again = await quarantine.replay(closed)
        assert [(each.outcome, each.offset) for each in again] == [(Outcome.DUPLICATE, 1), (Outcome.DUPLICATE, 2)]
        with pytest.raises(QuarantineChangedError):
            await quarantine.replay(before)  # as somebody else had read them before
        assert (quarantine.counts(), side.log.head("acme")) == ((3, 0), 3)


async def test_a_sender_that_repeats_the_broken_bytes_opens_nothing_again(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        quarantine = Quarantine(side)
        await side.append(sale(2, amount="2.5"))
        await quarantine.repair(AS_NUMBERS)
        (replayed,) = await quarantine.replay()
        assert replayed.outcome is Outcome.ACCEPTED
        await side.append(sale(2, amount="2.5"))
        assert (quarantine.counts(), await quarantine.open()) == ((1, 0), [])
        kept = await side.kept(replayed.quarantine_id)
        assert (kept.state, kept.replayed_offset, kept.closed_by) == (QuarantineState.REPLAYED, 0, "ada")
        assert orjson.loads(kept.raw)["amount"] == "2.5"
        assert orjson.loads(kept.repaired)["amount"] == 2.5
        assert [row["amount"] for row in await side.rows("sales", ["amount"])] == [2.5]


async def test_a_stop_between_append_and_close_leaves_neither(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        quarantine = Quarantine(side)
        await side.append(sale(1, amount="1"))
        await quarantine.repair(AS_NUMBERS)

        def stop(_statements: Any, _verdicts: Any) -> None:
            raise RuntimeError("the process ends here")

        with pytest.raises(RuntimeError, match="ends here"):
            await quarantine.replay(tell=stop)
        assert (quarantine.counts(), side.log.head("acme")) == ((0, 1), 0)
        (verdict,) = await quarantine.replay()
        assert (verdict.outcome, quarantine.counts()) == (Outcome.ACCEPTED, (1, 0))


async def test_metrics_tell_how_many_lie_open(rig: Any) -> None:
    def told() -> list[float]:
        families = [family for each in (QUARANTINED, QUARANTINED_MOST) for family in each.collect()]
        return [sample.value for family in families for sample in family.samples]

    for workspace in ("acme", "zeta"):
        rig.contracts.put(contract("sales", SALES, workspace=workspace))
    async with read_side(rig) as side:
        quarantine = Quarantine(side)
        await side.append(sale(1), sale(2, amount="2"), sale(3, amount="3"), sale(4, amount="x"))
        await side.append(sale(5, amount="x"), workspace="zeta")
        assert await side.quarantine.count_open() == (4, 3)
        await quarantine.repair(AS_NUMBERS)
        await quarantine.replay()
        assert await side.quarantine.count_open() == (2, 1)
        assert told() == []
        counting = asyncio.create_task(quarantine.repairing.count())
        while told() != [2, 1]:
            await asyncio.sleep(0.01)
        counting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await counting
        assert told() == []


async def test_a_repair_begins_at_the_record_as_it_was_kept(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        quarantine = Quarantine(side)
        await side.append(sale(1, amount="1"), sale(2, amount={}))
        first, second = await quarantine.repair(AS_NUMBERS)
        assert (first.fits, first.findings) == (True, ())
        assert (second.fits, second.findings[0].reason, second.findings[0].path) == (False, "FIX_MISFIT", "$.amount")
        patch = Repair(
            patch=orjson.dumps([{"op": "test", "path": "/amount", "value": "1"}, {"op": "remove", "path": "/amount"}])
        )
        first, second = await quarantine.repair(patch)
        assert (first.fits, "amount" in orjson.loads(first.record.repaired)) == (True, False)
        assert second.findings[0].reason == "PATCH_TEST_FAILED"
        (back, _) = await quarantine.repair(Repair())
        assert (back.record.repaired, [f.reason for f in back.findings]) == (b"", ["CONTRACT_TYPE"])


async def test_an_import_takes_back_what_was_replayed_of_it(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    data = b"sale_id,amount\n" + b"".join(b"%d,%s\n" % (n, b"x" if n % 4 == 0 else b"1.5") for n in range(20))
    async with read_side(rig) as side:
        quarantine = Quarantine(side)
        await side.append(sale(100), sale(101, amount="mine"))
        before = quarantine.counts()
        done = await side.import_file("sales", data, Format.CSV)
        assert (done.rows_accepted, done.rows_quarantined) == (15, 5)
        brought = replace(OPEN, import_id=done.import_id)
        found, _ = await side.quarantine.some("acme", brought, after="", limit=100)
        await quarantine.repair(Repair(fixes=(read_fix("$.amount", Drop()),)), found[:3])
        found, _ = await side.quarantine.some("acme", brought, after="", limit=100)
        verdicts = await quarantine.replay(found)
        assert [each.outcome.name for each in verdicts] == ["ACCEPTED"] * 3 + ["QUARANTINED"] * 2
        now = await side.imports.get("acme", done.import_id)
        assert (now.rows_accepted, now.rows_quarantined) == (18, 2)
        reverted = await side.revert(done.import_id)
        assert (reverted.state, reverted.reverted_records, reverted.reverted_quarantined) == (State.REVERTED, 18, 2)
        assert (quarantine.counts(), len(await side.rows("sales", ["sale_id"]))) == (before, 1)


async def test_who_is_erased_is_found_in_repaired_bytes(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        quarantine = Quarantine(side)
        await side.append(sale(1, amount="1"))
        await quarantine.repair(
            Repair(fixes=(read_fix("$.shop", Drop()), read_fix("$.shop", Default(b'"of ada@example.com"'))))
        )
        found = await side.quarantine.holding("acme", WholeTexts(["ada@example.com"]))
        assert list(found) == [each.quarantine_id for each in await quarantine.open()]
        assert (await side.eraser.erase("acme", 0, [], texts=["ada@example.com"])).quarantined == 1
        assert (quarantine.counts(), await quarantine.open()) == ((0, 0), [])


@pytest.mark.parametrize(
    ("path", "change", "before", "after"),
    [
        ("$.a", Rename("b"), {"a": 1}, {"b": 1}),
        ("$.a", Rename("b"), {"a": 1, "b": 2}, {"a": 1, "b": 2}),
        ("$.a[*].p", Convert(Kind.INTEGER), {"a": [{"p": "7"}, {"p": 8.0}, {}]}, {"a": [{"p": 7}, {"p": 8}, {}]}),
        ("$['a b'].c", Convert(Kind.BOOLEAN), {"a b": {"c": "TRUE"}}, {"a b": {"c": True}}),
        ("$.a", Convert(Kind.STRING), {"a": 1.5}, {"a": "1.5"}),
        ("$.a", Convert(Kind.TIMESTAMP), {"a": 1_700_000_000}, {"a": "2023-11-14T22:13:20Z"}),
        ("$.a", Convert(Kind.TIMESTAMP), {"a": 1_700_000_000_500}, {"a": "2023-11-14T22:13:20.500000Z"}),
        ("$.a.b", Default(b'{"c":1}'), {"a": {"b": None}}, {"a": {"b": {"c": 1}}}),
        ("$.a.b", Default(b"1"), {}, {}),
        ("$.a[*]", Drop(), {"a": [1, 2, 3]}, {"a": []}),
    ],
)
def test_a_fix_changes_what_is_at_its_path(path: str, change: Any, before: Any, after: Any) -> None:
    assert orjson.loads(repairs.repaired(orjson.dumps(before), Repair(fixes=(read_fix(path, change),)))) == after


@pytest.mark.parametrize("path", ["", "a", "$", "$.", "$..a", "$[", "$['a", "$.a[-1]", "$[*]x", "$.a b"])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(RepairInvalidError):
        read_fix(path, Drop())


@pytest.mark.parametrize(
    "patch", [b"{", b"{}", b"[1]", b"[{}]", b'[{"op":"add"}]', b'[{"op":"fly","path":""}]', b"[" * 99 + b"]" * 99]
)
def test_a_patch_that_is_none_is_refused(patch: bytes) -> None:
    with pytest.raises(RepairInvalidError):
        repairs.require_patch(patch)


def test_copies_of_copies_are_bounded() -> None:
    bomb = [{"op": "copy", "from": "", "path": "/a"}, {"op": "copy", "from": "/a", "path": "/b"}] * 50
    with pytest.raises(MisfitError) as wide:
        repairs.repaired(orjson.dumps({"x": "y" * 1000}), Repair(patch=orjson.dumps(bomb)))
    assert wide.value.finding.reason in ("TOO_LARGE", "TOO_DEEP")
    many = orjson.dumps({"a": [{} for _ in range(100_000)]})
    with pytest.raises(MisfitError):
        repairs.repaired(many, Repair(fixes=(read_fix("$.a[*].b", Default(orjson.dumps("z" * 10_000))),)))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab/~"), inner, max_size=3),
    max_leaves=8,
)
POINTERS = st.lists(st.sampled_from(["a", "b", "~1", "~0", "0", "1", "-", ""]), max_size=3).map(
    lambda steps: "".join(f"/{step}" for step in steps)
)
OPERATIONS = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
        "path": POINTERS,
        "from": POINTERS,
        "value": VALUES,
    }
)
CHANGES = st.sampled_from([Rename("b"), Drop(), Default(b"[1]"), *map(Convert, Kind)])
PATHS = st.sampled_from(["$.a", "$.b", "$['/']", "$.a.b", "$.a[0]", "$.a[*]", "$.a[*].b", "$.b[1]"])


@settings(max_examples=200, deadline=None)
@given(VALUES, st.lists(OPERATIONS, max_size=4), st.lists(st.tuples(PATHS, CHANGES), max_size=4))
def test_whatever_is_done_to_whatever_ends_as_json_or_as_a_finding(value: Any, patch: Any, fixes: Any) -> None:
    repair = Repair(
        patch=orjson.dumps(patch),
        fixes=tuple(
            read_fix("$.a" if isinstance(change, Rename) and path.endswith("]") and "'" not in path else path, change)
            for path, change in fixes
        ),
    )
    text = orjson.dumps(value)
    found = []
    for _ in range(2):  # a repair leaves nothing behind that changes the next
        try:
            found.append(repairs.repaired(text, repair))
        except MisfitError as misfit:
            found.append(misfit.finding)
    assert found[0] == found[1]
    if isinstance(found[0], bytes):
        orjson.loads(found[0])


async def test_the_service_groups_repairs_replays_and_discards(ingest: Any) -> None:
    call = ingest.called()
    item = ingest.item(b"[1, 2, 3, 4]", protocol="records", route="", dataset="unplanned", request_id="four numbers")
    await ingest.append_many(item)
    groups = (await ingest.quarantine.ListQuarantineGroups(pb.ListQuarantineGroupsRequest(), **call)).groups
    (group,) = groups
    wanted = pb.QuarantineFilter(
        dataset=group.dataset, reason=group.reason, path=group.path, contract_version=group.contract_version
    )
    assert group.records == 4
    first = await ingest.quarantine.GetQuarantinedRecord(
        pb.GetQuarantinedRecordRequest(quarantine_id=group.example_quarantine_id), **call
    )
    assert (first.state, first.raw_bytes) == (pb.QuarantinedRecord.OPEN, len(first.raw))
    patch = b'[{"op": "replace", "path": "", "value": {"n": 1}}]'
    ask = pb.RepairQuarantinedRecordsRequest(filter=wanted, patch=patch, page_size=3)
    tokens = []
    while not tokens or ask.page_token:
        repaired = await ingest.quarantine.RepairQuarantinedRecords(ask, **call)
        assert all(each.passes for each in repaired.records)
        ask.page_token = repaired.next_page_token
        tokens.append(ask.page_token)
    assert len(tokens) == 2
    replay = pb.ReplayQuarantinedRecordsRequest(filter=wanted, page_size=2, request_id="r1")
    done = await ingest.quarantine.ReplayQuarantinedRecords(replay, **call)
    assert [each.outcome for each in done.verdicts] == [VerdictMessage.ACCEPTED] * 2
    assert await ingest.quarantine.ReplayQuarantinedRecords(replay, **call) == done
    discard = pb.DiscardQuarantinedRecordsRequest(filter=wanted, reason="a test", request_id="d1")
    gone = await ingest.quarantine.DiscardQuarantinedRecords(discard, **call)
    assert (gone.discarded, await ingest.quarantine.DiscardQuarantinedRecords(discard, **call)) == (2, gone)
    listed = await ingest.quarantine.ListQuarantinedRecords(pb.ListQuarantinedRecordsRequest(), **call)
    states = sorted(each.state for each in listed.quarantined_records)
    assert states == [pb.QuarantinedRecord.REPLAYED] * 2 + [pb.QuarantinedRecord.DISCARDED] * 2
