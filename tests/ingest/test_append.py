"""Appending: verdicts, durability, order, group commit."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from counterfoil_ingest import blocks
from counterfoil_ingest.entities import Candidate, Outcome, Verdict
from counterfoil_ingest.errors import ContractsUnavailableError
from counterfoil_ingest.registry import Compiled, Contracts
from counterfoil_ingest.store import Statements

from tests.ingest.conftest import LogRig, batch, compiled, event
from tests.postgres import direct

pytestmark = pytest.mark.both_engines("ingest")


def records(rig: LogRig, workspace: str) -> list[tuple[int, str]]:
    found = []
    for block in rig.log.read(workspace, 0, 0, max_bytes=1 << 30):
        found += [(each.offset, each.record_id) for each in blocks.decode(block)]
    return found


async def test_gives_consecutive_offsets_per_workspace(rig: LogRig) -> None:
    first = await rig.appender.append(batch("acme", event("a"), event("b")))
    other = await rig.appender.append(batch("zeta", event("a")))
    second = await rig.appender.append(batch("acme", event("c")))
    assert [each.offset for each in (*first, *other, *second)] == [0, 1, 0, 2]
    assert records(rig, "acme") == [(0, "a"), (1, "b"), (2, "c")]
    assert records(rig, "zeta") == [(0, "a")]
    assert rig.log.workspaces() == ["acme", "zeta"]


async def test_requests_that_arrive_together_share_commits_and_never_mix_workspaces(rig: LogRig) -> None:
    answers = await asyncio.gather(
        *(rig.appender.append(batch(("acme", "zeta")[n % 2], event(f"m{n}"), source_id=f"s{n}")) for n in range(100))
    )
    assert all(each[0].outcome is Outcome.ACCEPTED for each in answers)
    for workspace in ("acme", "zeta"):
        found = rig.log.read(workspace, 0, 0)
        assert len(found) < 5
        assert {block.workspace for block in found} == {workspace}
        assert [offset for offset, _ in records(rig, workspace)] == list(range(50))
    decoded = [each for block in rig.log.read("acme", 0, 0) for each in blocks.decode(block)]
    assert all(each.header.source_id == "s" + each.record_id[1:] for each in decoded)


async def test_tells_a_repeat_with_the_position_of_the_first(rig: LogRig) -> None:
    await rig.appender.append(batch("acme", event("a"), event("b")))
    verdicts = await rig.appender.append(batch("acme", event("b"), event("c"), event("c")))
    assert [(each.outcome, each.offset) for each in verdicts] == [
        (Outcome.DUPLICATE, 1),
        (Outcome.ACCEPTED, 2),
        (Outcome.DUPLICATE, 2),
    ]


async def test_the_same_id_from_another_source_workspace_or_dataset_is_another_record(rig: LogRig) -> None:
    await rig.appender.append(batch("acme", event("a")))
    (other_dataset,) = await rig.appender.append(batch("acme", Candidate("a", "unplanned", b"{}", {})))
    assert other_dataset.outcome is Outcome.ACCEPTED
    (other_source,) = await rig.appender.append(batch("acme", event("a"), source_id="s2"))
    (other_workspace,) = await rig.appender.append(batch("zeta", event("a")))
    assert other_source.outcome is Outcome.ACCEPTED
    assert other_workspace.outcome is Outcome.ACCEPTED


async def test_a_bad_record_costs_its_neighbours_nothing(rig: LogRig) -> None:
    verdicts = await rig.appender.append(
        batch("acme", event("a"), event("b", properties={"total": -1}, user_id=7), event("c"))
    )
    assert [each.outcome for each in verdicts] == [Outcome.ACCEPTED, Outcome.QUARANTINED, Outcome.ACCEPTED]
    assert {(each.reason, each.path) for each in verdicts[1].findings} == {
        ("CONTRACT_RANGE", "$.properties.total"),
        ("CONTRACT_TYPE", "$.user_id"),
    }
    assert records(rig, "acme") == [(0, "a"), (1, "c")]
    (counts,) = rig.log.counts("acme")
    assert (counts.records, counts.quarantined, counts.last_received_at) == (2, 1, 1_000_000)


async def test_a_bad_record_sent_again_is_kept_once_in_quarantine(rig: LogRig) -> None:
    bad = event("b", user_id=7)
    (first,) = await rig.appender.append(batch("acme", bad))
    (second,) = await rig.appender.append(batch("acme", bad))
    (other,) = await rig.appender.append(batch("acme", event("b", user_id=8)))
    assert first.quarantine_id
    assert second.quarantine_id == first.quarantine_id
    assert other.quarantine_id != first.quarantine_id
    assert rig.log.counts("acme")[0].quarantined == 2


async def test_a_repaired_record_is_accepted_after_its_bad_version_was_quarantined(rig: LogRig) -> None:
    await rig.appender.append(batch("acme", event("b", user_id=7)))
    (verdict,) = await rig.appender.append(batch("acme", event("b", user_id="7")))
    assert verdict.outcome is Outcome.ACCEPTED


async def test_a_dataset_without_contract_takes_nothing_but_unplanned_takes_any_object(rig: LogRig) -> None:
    stray = Candidate("x", "stray", b'{"a":1}', {"a": 1})
    unplanned = Candidate("y", "unplanned", b'{"a":1}', {"a": 1})
    no_object = Candidate("z", "unplanned", b"[1]", [1])
    first, second, third = await rig.appender.append(batch("acme", stray, unplanned, no_object))
    assert first.findings[0].reason == "NO_CONTRACT"
    assert second.outcome is Outcome.ACCEPTED
    assert third.findings[0].reason == "NOT_AN_OBJECT"


async def test_a_dataset_that_cannot_be_asked_about_is_to_be_retried(rig: LogRig) -> None:
    async def unreachable(_workspace: str, _dataset: str) -> Compiled | None:
        raise ContractsUnavailableError("contracts is down")

    rig.contracts._lookup = unreachable
    verdicts = await rig.appender.append(batch("acme", Candidate("x", "ads", b"{}", {}), event("a")))
    assert [each.outcome for each in verdicts] == [Outcome.RETRY, Outcome.ACCEPTED]
    assert rig.log.head("acme") == 1


async def test_headers_keep_source_trace_and_contract_version(rig: LogRig) -> None:
    rig.contracts.put(compiled("acme", version="2.1.0"))
    await rig.appender.append(batch("acme", event("a")))
    (block,) = rig.log.read("acme", 0, 0)
    (record,) = blocks.decode(block)
    assert (record.header.source_id, record.header.received_at, record.contract_version) == ("s1", 1_000_000, "2.1.0")


async def test_an_effect_commits_with_its_batch_and_sees_its_verdicts(rig: LogRig) -> None:
    def keep(statements: Statements, verdicts: list[Verdict]) -> None:
        statements.execute("INSERT INTO log_state VALUES ('kept', ?1)", (str(verdicts[0].offset),))

    await rig.appender.append(batch("acme", event("a")), effect=keep)
    kept = rig.log._connections.read("SELECT value FROM log_state WHERE name = 'kept'")
    assert kept == [("0",)]


async def test_an_effect_that_fails_keeps_nothing_of_its_batch_and_harms_no_other(rig: LogRig) -> None:
    def fail(_statements: Statements, _verdicts: list[Verdict]) -> None:
        raise LookupError("no such import")

    answers = await asyncio.gather(
        rig.appender.append(batch("acme", event("a"))),
        rig.appender.append(batch("acme", event("b")), effect=fail),
        rig.appender.append(batch("acme", event("c"))),
        return_exceptions=True,
    )
    assert isinstance(answers[1], LookupError)
    assert records(rig, "acme") == [(0, "a"), (1, "c")]
    (verdict,) = await rig.appender.append(batch("acme", event("b")))
    assert verdict.outcome is Outcome.ACCEPTED


async def test_a_large_batch_becomes_several_blocks(rig: LogRig) -> None:
    verdicts = await rig.appender.append(batch("acme", *(event(f"m{n}") for n in range(12_000))))
    assert [each.offset for each in verdicts] == list(range(12_000))
    found = rig.log.read("acme", 0, 0, max_bytes=1 << 30)
    assert [block.count for block in found] == [5000, 5000, 2000]
    assert len(records(rig, "acme")) == 12_000


async def test_reading_starts_with_the_block_that_holds_the_offset(rig: LogRig) -> None:
    for n in range(5):
        await rig.appender.append(batch("acme", *(event(f"m{n}-{i}") for i in range(3))))
    assert [block.first_offset for block in rig.log.read("acme", 0, 7)] == [6, 9, 12]
    assert [block.first_offset for block in rig.log.read("acme", 0, 7, max_bytes=1)] == [6]
    assert rig.log.read("acme", 0, 15) == []


async def test_who_waits_is_woken_by_the_commit(rig: LogRig) -> None:
    assert await rig.log.wait("acme", 0, 0, timeout=0.01) == 0
    waiting = asyncio.create_task(rig.log.wait("acme", 0, 0, timeout=30))
    await rig.appender.append(batch("zeta", event("a")))
    await rig.appender.append(batch("acme", event("a"), event("b")))
    assert await asyncio.wait_for(waiting, 5) == 2


async def test_a_deep_or_large_record_is_quarantined(rig: LogRig) -> None:
    deep: dict[str, object] = {}
    for _ in range(70):
        deep = {"d": deep}
    wide = [[] for _ in range(200)]
    large = "x" * (1 << 20)
    verdicts = await rig.appender.append(
        batch("acme", event("a", context=deep), event("b", context={"wide": wide}), event("c", context={"l": large}))
    )
    assert [each.findings[0].reason if each.findings else "" for each in verdicts] == ["TOO_DEEP", "", "TOO_LARGE"]


async def test_findings_never_hold_the_record_s_values(rig: LogRig) -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "b": {"enum": ["x", "y"]},
            "c": {"type": "string", "pattern": "^z"},
            "d": {"type": "string", "format": "email"},
            "e": {"type": "number", "maximum": 3},
            "f": {"type": "string", "maxLength": 2},
            "g": {"type": "array", "uniqueItems": True},
            "h": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "i": {"const": 4},
        },
        "required": ["missing"],
        "additionalProperties": False,
    }
    rig.contracts.put(compiled("acme", "people", schema=schema))
    secret = "secret-value"
    value = {
        **dict.fromkeys(("a", "b", "c", "d", "f", "i", "odd key"), secret),
        "e": 7777,
        "g": [secret, secret],
        "h": [secret],
    }
    (verdict,) = await rig.appender.append(batch("acme", Candidate("x", "people", orjson.dumps(value), value)))
    assert {(each.reason, each.path) for each in verdict.findings} == {
        ("CONTRACT_TYPE", "$.a"),
        ("CONTRACT_ENUM", "$.b"),
        ("CONTRACT_PATTERN", "$.c"),
        ("CONTRACT_FORMAT", "$.d"),
        ("CONTRACT_RANGE", "$.e"),
        ("CONTRACT_RANGE", "$.f"),
        ("CONTRACT_RANGE", "$.g"),
        ("CONTRACT_OTHER", "$.h"),
        ("CONTRACT_ENUM", "$.i"),
        ("CONTRACT_REQUIRED", "$.missing"),
        ("CONTRACT_UNKNOWN_FIELD", "$['odd key']"),
    }
    assert not any(secret in each.detail or "7777" in each.detail for each in verdict.findings)


async def test_an_unknown_contract_is_asked_for_once_by_many() -> None:
    asked = []

    async def lookup(workspace: str, dataset: str) -> Compiled | None:
        asked.append((workspace, dataset))
        await asyncio.sleep(0)
        return compiled(workspace, dataset) if dataset == "ads" else None

    now = 0.0
    contracts = Contracts(lookup, monotonic=lambda: now)
    found = await asyncio.gather(*(contracts.find("acme", "ads") for _ in range(10)))
    assert len({id(each) for each in found}) == 1
    assert await contracts.find("acme", "none") is None
    assert await contracts.find("acme", "none") is None
    assert asked == [("acme", "ads"), ("acme", "none")]
    now = 2.0
    assert await contracts.find("acme", "none") is None
    assert len(asked) == 3
    contracts.drop("acme", "ads")
    assert contracts.in_force("acme", "ads") is None
    assert contracts.version("acme", "ads", "1.0.0") is not None


@pytest.mark.parametrize("damage", ["layout", "payload"])
async def test_a_damaged_block_is_told_and_not_guessed(rig: LogRig, damage: str) -> None:
    await rig.appender.append(batch("acme", event("a")))
    with direct(rig.url) as database:
        database.execute(
            "UPDATE log_block SET layout = 9"
            if damage == "layout"
            else "UPDATE log_block SET payload = substr(payload, 2)"
        )
    (block,) = rig.log.read("acme", 0, 0)
    said = "layout 9, .* start that one again" if damage == "layout" else "cannot be read .* Restore it from a backup"
    with pytest.raises(blocks.BlockUnreadableError, match=said):
        blocks.decode(block)


async def test_ids_of_any_characters_are_kept_and_told_apart(rig: LogRig) -> None:
    ids = ["", '","', '"', "\\", "\n", "é", '\\","', "a", '["a"]', "\u2028", "\x7f", "x" * 255]
    for outcome in ("ACCEPTED", "DUPLICATE"):
        verdicts = await rig.appender.append(batch("acme", *map(event, ids)))
        assert list(verdicts) == verdicts_of(ids, outcome)
    found = [record for block in rig.log.read("acme", 0, 0) for record in blocks.decode(block)]
    assert [(each.offset, each.record_id) for each in found] == list(enumerate(ids))
    assert [orjson.loads(each.data)["message_id"] for each in found] == ids


async def test_a_batch_of_everything_keeps_its_order(rig: LogRig) -> None:
    await rig.appender.append(batch("acme", event("old"), Candidate("u", "unplanned", b"{}", {})))
    mixed = batch("acme", event("n1"), event("old"), event("bad", user_id=7), event("n2"), event("n1"), event("n3"))
    verdicts = await rig.appender.append(mixed)
    assert [(each.outcome.name, each.offset) for each in verdicts] == [
        *(("ACCEPTED", 2), ("DUPLICATE", 0), ("QUARANTINED", -1), ("ACCEPTED", 3), ("DUPLICATE", 2), ("ACCEPTED", 4)),
    ]
    assert [verdicts.number(each) for each in Outcome] == [3, 2, 1, 0]
    assert (rig.log.next_offset("acme", "events"), rig.log.next_offset("acme", "unplanned")) == (5, 2)
    found = [record for block in rig.log.read("acme", 0, 2) for record in blocks.decode(block)]
    assert [(each.offset, each.record_id) for each in found][-3:] == [(2, "n1"), (3, "n2"), (4, "n3")]


def verdicts_of(ids: list[str], outcome: str) -> list[Verdict]:
    return [Verdict(Outcome[outcome], each, "events", 0, offset) for offset, each in enumerate(ids)]


async def test_a_record_whose_id_holds_a_nul_is_kept_and_quarantined_as_any_other(rig: LogRig) -> None:
    faulty = event("a\0b", user_id=7)
    refused, kept = await rig.appender.append(batch("acme", faulty, event("c\0d")))
    assert (refused.outcome, kept.outcome) == (Outcome.QUARANTINED, Outcome.ACCEPTED)
    again = await rig.appender.append(batch("acme", faulty, event("c\0d")))
    assert [each.outcome for each in again] == [Outcome.QUARANTINED, Outcome.DUPLICATE]
    assert again[0].quarantine_id == refused.quarantine_id
