"""Changes: asked for by one, approved by another, carried out once and in time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from counterfoil.governance.v1 import audit_pb2, policies_pb2, principals_pb2
from counterfoil.governance.v1 import changes_pb2 as pb
from counterfoil_chassis.changes import Changes, payload_sha256
from counterfoil_chassis.clock import from_timestamp
from counterfoil_governance.policy_text import shipped_policies

from tests.governance.calls import Governance, governance_in, refused

State = pb.Change.State
PAYLOAD = {"model": "churn", "version": 2}
SHA256 = payload_sha256(PAYLOAD)


async def ask(governance: Governance, *, request_id: str = "1", service: str = "models", **fields: Any) -> pb.Change:
    asked = {
        "workspace": "default",
        "kind": "model.promote",
        "resource": "models/churn/versions/2",
        "payload": PAYLOAD,
        "requester": "admin",
        "reason": "It is better.",
        "policy_id": "promotion-needs-second-person",
        **fields,
    }
    return await client(governance, service).create(request_id=request_id, **asked)  # type: ignore[arg-type]


def client(governance: Governance, service: str = "models") -> Changes:
    return Changes(governance.channel, governance.signers[service])


async def report(
    governance: Governance, change: pb.Change, *, applied: bool = True, service: str = "models", sha256: str = SHA256
) -> pb.Change:
    return await client(governance, service).report(
        workspace="default", change_id=change.change_id, payload_sha256=sha256, applied=applied, detail="done"
    )


async def approve(governance: Governance, change: pb.Change, caller: dict[str, Any], sha256: str = "") -> pb.Change:
    request = pb.ApproveChangeRequest(change_id=change.change_id, payload_sha256=sha256 or change.payload_sha256)
    return await governance.changes.ApproveChange(request, **caller)


async def reject(governance: Governance, change: pb.Change, caller: dict[str, Any]) -> pb.Change:
    request = pb.RejectChangeRequest(change_id=change.change_id, reason="no")
    return await governance.changes.RejectChange(request, **caller)


async def read(governance: Governance, change: pb.Change) -> pb.Change:
    request = pb.GetChangeRequest(change_id=change.change_id)
    return await governance.changes.GetChange(request, **governance.as_principal())


async def test_an_approved_change_is_carried_out_once(governance: Governance) -> None:
    change = await ask(governance)
    assert (change.state, change.workspace, change.payload_sha256) == (State.PENDING, "default", SHA256)
    assert from_timestamp(change.expires_at) == governance.clock.now() + timedelta(days=7)
    governance.clock.move(timedelta(hours=1))
    approved = await approve(governance, change, await governance.hire("rex", roles=["reviewer"]))
    assert (approved.state, approved.workspace) == (State.APPROVED, "")
    assert from_timestamp(approved.expires_at) == governance.clock.now() + timedelta(hours=24)
    [vote] = approved.votes
    assert (vote.voter, vote.verdict, vote.payload_sha256, vote.counts) == (
        "rex",
        pb.Vote.Verdict.APPROVE,
        SHA256,
        True,
    )
    applied = await report(governance, change)
    assert (applied.state, applied.detail) == (State.APPLIED, "done")
    assert from_timestamp(applied.applied_at) == governance.clock.now()
    governance.clock.move(timedelta(days=30))
    assert await report(governance, change) == applied
    with refused("CHANGE_APPLIED"):
        await report(governance, change, applied=False)


async def test_a_failed_change_is_over(governance: Governance) -> None:
    change = await ask(governance)
    await approve(governance, change, await governance.hire("rex", roles=["reviewer"]))
    failed = await report(governance, change, applied=False)
    assert (failed.state, failed.HasField("applied_at")) == (State.FAILED, False)
    assert await report(governance, change, applied=False) == failed
    with refused("CHANGE_APPLIED"):
        await report(governance, change)


async def test_nothing_is_done_for_a_change_that_nobody_approved(governance: Governance) -> None:
    change = await ask(governance)
    for applied in (True, False):
        with refused("CHANGE_NOT_APPROVED") as refusal:
            await report(governance, change, applied=applied)
        assert refusal.failure is not None
        assert refusal.failure.metadata["policy_id"] == "promotion-needs-second-person"
    await reject(governance, change, await governance.hire("rex", roles=["reviewer"]))
    with refused("CHANGE_NOT_APPROVED"):
        await report(governance, change)


async def test_an_approval_holds_for_a_day(governance: Governance) -> None:
    change = await ask(governance)
    await approve(governance, change, await governance.hire("rex", roles=["reviewer"]))
    governance.clock.move(timedelta(hours=24) - timedelta(microseconds=1))
    assert (await read(governance, change)).state == State.APPROVED
    governance.clock.move(timedelta(microseconds=1))
    assert (await read(governance, change)).state == State.EXPIRED
    for applied in (True, False):
        with refused("CHANGE_EXPIRED"):
            await report(governance, change, applied=applied)


async def test_what_is_not_approved_within_seven_days_has_expired(governance: Governance) -> None:
    change = await ask(governance)
    await governance.hire("rex", roles=["reviewer"])
    governance.clock.move(timedelta(days=7))
    assert (await read(governance, change)).state == State.EXPIRED
    for vote in (approve, reject):
        with refused("CHANGE_EXPIRED"):
            await vote(governance, change, governance.as_hired("rex"))
    with refused("CHANGE_EXPIRED"):
        await report(governance, change)


async def test_only_what_was_approved_is_carried_out(governance: Governance) -> None:
    change = await ask(governance)
    await approve(governance, change, await governance.hire("rex", roles=["reviewer"]))
    other = payload_sha256({**PAYLOAD, "version": 3})
    with refused("CHANGE_PAYLOAD_DIFFERS"):
        await report(governance, change, sha256=other)
    assert (await report(governance, change)).state == State.APPLIED
    with refused("CHANGE_PAYLOAD_DIFFERS"):
        await report(governance, change, sha256=other)


async def test_only_the_service_that_asked_carries_it_out(governance: Governance) -> None:
    change = await ask(governance)
    await approve(governance, change, await governance.hire("rex", roles=["reviewer"]))
    with refused("CHANGE_OWNER"):
        await report(governance, change, service="graph")


async def test_the_requester_does_not_vote(governance: Governance) -> None:
    change = await ask(governance)
    for vote in (approve, reject):
        with refused("VOTE_OWN_CHANGE") as refusal:
            await vote(governance, change, governance.as_principal())
        assert refusal.failure is not None
        assert refusal.failure.metadata["policy_id"] == "promotion-needs-second-person"


async def test_a_program_does_not_vote_nor_whoever_is_disabled(governance: Governance) -> None:
    change = await ask(governance)
    robot = await governance.hire("robot", human=False, roles=["reviewer"])
    former = await governance.hire("rex", roles=["reviewer"])
    await governance.principals.DisablePrincipal(
        principals_pb2.DisablePrincipalRequest(principal_id="rex"), **governance.as_principal()
    )
    for caller in (robot, former):
        with refused("VOTER_NOT_HUMAN"):
            await approve(governance, change, caller)


async def test_voting_takes_its_scope(governance: Governance) -> None:
    change = await ask(governance)
    for vote in (approve, reject):
        with refused("SCOPE_MISSING"):
            await vote(governance, change, await governance.hire(f"v{vote.__name__}", roles=["viewer"]))


async def test_a_person_votes_once(governance: Governance) -> None:
    change = await ask(governance)
    reviewer = await governance.hire("rex", roles=["reviewer"])
    await approve(governance, change, reviewer)
    for vote in (approve, reject):
        with refused("VOTE_EXISTS"):
            await vote(governance, change, reviewer)
    with refused("CHANGE_NOT_PENDING"):
        await approve(governance, change, await governance.hire("pat", roles=["reviewer"]))


async def test_what_is_approved_can_be_stopped_until_it_is_carried_out(governance: Governance) -> None:
    change = await ask(governance)
    await approve(governance, change, await governance.hire("rex", roles=["reviewer"]))
    stopped = await reject(governance, change, await governance.hire("pat", roles=["reviewer"]))
    assert (stopped.state, len(stopped.votes)) == (State.REJECTED, 2)
    with refused("CHANGE_NOT_APPROVED"):
        await report(governance, change)


async def test_a_vote_is_for_the_payload_it_names(governance: Governance) -> None:
    change = await ask(governance)
    reviewer = await governance.hire("rex", roles=["reviewer"])
    with refused("VOTE_PAYLOAD_DIFFERS") as refusal:
        await approve(governance, change, reviewer, sha256=payload_sha256({"model": "churn", "version": 1}))
    assert refusal.failure is not None
    assert refusal.failure.metadata["payload_sha256"] == SHA256
    assert (await approve(governance, change, reviewer)).state == State.APPROVED


async def test_the_same_request_returns_the_first_change_whatever_became_of_it(governance: Governance) -> None:
    change = await ask(governance)
    assert await ask(governance, payload={"version": 2, "model": "churn"}) == change
    assert (await ask(governance, service="graph")).change_id != change.change_id
    assert (await ask(governance, request_id="2")).change_id != change.change_id
    await reject(governance, change, await governance.hire("rex", roles=["reviewer"]))
    assert (await ask(governance)).state == State.REJECTED
    with refused("CHANGE_REQUEST_REUSED"):
        await ask(governance, payload={**PAYLOAD, "version": 3})


async def test_a_requester_is_an_active_principal_of_the_workspace(governance: Governance) -> None:
    with refused("PRINCIPAL_NOT_FOUND"):
        await ask(governance, requester="nobody")
    with refused("PRINCIPAL_NOT_FOUND"):
        await ask(governance, workspace="nowhere")
    await governance.hire("rex")
    await governance.principals.DisablePrincipal(
        principals_pb2.DisablePrincipalRequest(principal_id="rex"), **governance.as_principal()
    )
    with refused("CHANGE_REQUESTER"):
        await ask(governance, requester="rex")


@pytest.mark.parametrize("payload", [b"[]", b"{]", b'"x"', b'{"a": 1e400}', b'{"a": 9007199254740993}', b"\xff\xff"])
async def test_a_payload_is_a_json_object(governance: Governance, payload: bytes) -> None:
    request = pb.CreateChangeRequest(
        workspace="default",
        kind="k",
        resource="r",
        payload=payload,
        requester="admin",
        reason="r",
        policy_id="p",
        request_id="1",
    )
    with refused("CHANGE_PAYLOAD"):
        await governance.changes.CreateChange(request, **governance.as_service("models"))


async def test_lists_newest_first_page_by_page_by_state(governance: Governance) -> None:
    made = [await ask(governance, request_id=str(number)) for number in range(9)]
    reviewer = await governance.hire("rex", roles=["reviewer"])
    for change in made[:3]:
        await approve(governance, change, reviewer)
    await report(governance, made[0])
    await reject(governance, made[8], reviewer)

    async def listed(**fields: Any) -> list[str]:
        seen, request = [], pb.ListChangesRequest(page_size=2, **fields)
        while True:
            page = await governance.changes.ListChanges(request, **governance.as_principal())
            seen += [change.change_id for change in page.changes]
            if not page.next_page_token:
                return seen
            request.page_token = page.next_page_token

    ids = [change.change_id for change in reversed(made)]
    assert await listed() == ids
    assert await listed(state=State.PENDING) == ids[1:6]
    assert await listed(state=State.APPROVED) == ids[6:8]
    assert await listed(state=State.APPLIED) == ids[8:]
    assert await listed(state=State.REJECTED) == ids[:1]
    assert await listed(state=State.EXPIRED) == []
    other = await governance.changes.ListChanges(pb.ListChangesRequest(), **governance.as_principal(workspace="acme"))
    assert not other.changes


async def test_only_services_ask_and_report_and_watch(governance: Governance) -> None:
    with pytest.raises(Exception, match="PERMISSION_DENIED"):
        await governance.changes.CreateChange(
            pb.CreateChangeRequest(
                workspace="default",
                kind="k",
                resource="r",
                payload=b"{}",
                requester="rex",
                reason="r",
                policy_id="p",
                request_id="1",
            ),
            **governance.as_principal(),
        )


@asynccontextmanager
async def watching(governance: Governance) -> AsyncIterator[tuple[dict[str, pb.Change], asyncio.Event]]:
    """Follow the changes; the event is set with each message."""
    seen: dict[str, pb.Change] = {}
    heard = asyncio.Event()

    def on_change(change: pb.Change) -> None:
        seen[f"{change.workspace}/{change.change_id}"] = change
        heard.set()

    def on_gone(key: str) -> None:
        del seen[key]
        heard.set()

    watcher = client(governance).watch(on_change, on_gone)
    task = asyncio.create_task(watcher.run())
    async with asyncio.timeout(60):
        await watcher.current()
    yield seen, heard
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(seen: dict[str, pb.Change], heard: asyncio.Event, expected: dict[str, int]) -> None:
    async with asyncio.timeout(60):
        while {key: change.state for key, change in seen.items()} != expected:
            heard.clear()
            await heard.wait()


async def test_services_see_each_change_and_forget_it_a_day_after_its_end(governance: Governance) -> None:
    first = await ask(governance, request_id="1")
    async with watching(governance) as (seen, heard):
        key = f"default/{first.change_id}"
        await until(seen, heard, {key: State.PENDING})
        assert seen[key] == first
        reviewer = await governance.hire("rex", roles=["reviewer"])
        await approve(governance, first, reviewer)
        await until(seen, heard, {key: State.APPROVED})
        assert [vote.counts for vote in seen[key].votes] == [True]
        await report(governance, first)
        await until(seen, heard, {key: State.APPLIED})
        governance.clock.move(timedelta(days=1))
        second = await ask(governance, request_id="2")
        await until(seen, heard, {f"default/{second.change_id}": State.PENDING})
        governance.clock.move(timedelta(days=8))  # the second has expired a day ago
        third = await ask(governance, request_id="3")
        await until(seen, heard, {f"default/{third.change_id}": State.PENDING})
    assert (await read(governance, first)).state == State.APPLIED


EMPTY = hashlib.sha256(b"{}").hexdigest()
TAMPERED = {
    "another voter": "UPDATE votes SET voter = 'pat'",
    "another verdict": "UPDATE votes SET verdict = 'reject'",
    "another time": "UPDATE votes SET voted_at = voted_at + 1",
    "another reason": "UPDATE votes SET reason = 'because'",
    "no seal": "UPDATE votes SET mac = x''",
    "another payload": "UPDATE changes SET payload = CAST('{}' AS BLOB)",
    "another payload in both": (
        f"UPDATE changes SET payload = CAST('{{}}' AS BLOB);UPDATE votes SET payload_sha256 = '{EMPTY}'"
    ),
    "another resource": "UPDATE changes SET resource = 'models/other/versions/1'",
    "another kind": "UPDATE changes SET kind = 'persons.export'",
    "another service": "UPDATE changes SET service = 'graph'",
    "a longer life": "UPDATE changes SET pending_until = pending_until + 1",
    "another quorum": "UPDATE changes SET quorum = 2",
    "a vote for another change": "UPDATE votes SET change_id = (SELECT change_id FROM changes WHERE request_id = 'b')",
}


@pytest.mark.parametrize("edit", TAMPERED.values(), ids=TAMPERED)
async def test_an_edited_vote_does_not_count(governance: Governance, tmp_path: Path, edit: str) -> None:
    change, other = await ask(governance, request_id="a"), await ask(governance, request_id="b")
    await approve(governance, change, await governance.hire("rex", roles=["reviewer"]))
    await governance.hire("pat", roles=["reviewer"])
    with closing(sqlite3.connect(tmp_path / "governance.db")) as database, database:
        for table in ("votes", "changes"):
            database.execute(f"DROP TRIGGER {table}_refuse_update")
        database.executescript(edit)
    for each in (change, other):
        now = await read(governance, each)
        assert now.state in {State.PENDING, State.REJECTED}
        assert not any(vote.counts for vote in now.votes)
        with refused("CHANGE_NOT_APPROVED"):
            await report(governance, each, service=_service(tmp_path, each), sha256=now.payload_sha256)


def _service(folder: Path, change: pb.Change) -> str:
    with closing(sqlite3.connect(folder / "governance.db")) as database:
        query = "SELECT service FROM changes WHERE change_id = ?"
        return database.execute(query, (change.change_id,)).fetchone()[0]


async def test_a_rejection_that_was_edited_into_an_approval_approves_nothing(
    governance: Governance, tmp_path: Path
) -> None:
    change = await ask(governance)
    await reject(governance, change, await governance.hire("rex", roles=["reviewer"]))
    with closing(sqlite3.connect(tmp_path / "governance.db")) as database, database:
        database.execute("DROP TRIGGER votes_refuse_update")
        database.execute("UPDATE votes SET verdict = 'approve'")
        database.execute("UPDATE changes SET outcome = ''")
    now = await read(governance, change)
    assert (now.state, [vote.counts for vote in now.votes]) == (State.PENDING, [False])


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE votes SET verdict = 'reject'",
        "DELETE FROM votes",
        "INSERT OR REPLACE INTO votes SELECT * FROM votes",
        "UPDATE changes SET payload = '{}'",
        "UPDATE changes SET requester = 'rex'",
        "DELETE FROM changes",
        "INSERT OR REPLACE INTO changes SELECT * FROM changes",
    ],
)
async def test_the_database_itself_refuses_to_change_what_was_asked_or_voted(
    governance: Governance, tmp_path: Path, statement: str
) -> None:
    change = await ask(governance)
    await approve(governance, change, await governance.hire("rex", roles=["reviewer"]))
    with (
        closing(sqlite3.connect(tmp_path / "governance.db")) as database,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        database.execute(statement)


async def test_the_database_itself_refuses_a_vote_of_the_requester(governance: Governance, tmp_path: Path) -> None:
    change = await ask(governance)
    row = ("default", change.change_id, "admin", "admin", "approve", "", SHA256, 0, b"")
    with closing(sqlite3.connect(tmp_path / "governance.db")) as database:
        database.execute("PRAGMA foreign_keys = ON")
        with pytest.raises(sqlite3.IntegrityError, match="votes_second_person"):
            database.execute("INSERT INTO votes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            database.execute(
                "INSERT INTO votes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row[:3], "somebody-else", *row[4:])
            )


async def test_votes_still_count_after_a_restart(tmp_path: Path, clock: Any) -> None:
    digest = hashlib.sha256(b"key").hexdigest()
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=digest) as governance:
        change = await ask(governance)
        await approve(governance, change, await governance.hire("rex", roles=["reviewer"]))
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=digest) as governance:
        assert (await report(governance, change)).state == State.APPLIED


async def test_what_is_done_is_in_the_audit_log_with_hashes_only(governance: Governance) -> None:
    change = await ask(governance)
    reviewer = await governance.hire("rex", roles=["reviewer"])
    await approve(governance, change, reviewer)
    await report(governance, change)
    other = await ask(governance, request_id="2")
    await reject(governance, other, reviewer)
    listed = await governance.audit.ListAuditEntries(
        audit_pb2.ListAuditEntriesRequest(page_size=100), **governance.as_principal()
    )
    entries = [entry for entry in listed.entries if entry.action.startswith("change.")]
    assert [(entry.action, entry.principal) for entry in entries] == [
        ("change.create", "admin"),
        ("change.approve", "rex"),
        ("change.apply", "service:models"),
        ("change.create", "admin"),
        ("change.reject", "rex"),
    ]
    assert {json.loads(entry.details)["payload_sha256"] for entry in entries} == {SHA256}


async def test_services_may_not_ask_for_changes_of_policies(governance: Governance) -> None:
    change = await ask(
        governance,
        kind="policy_bundle.activate",
        resource="policy-bundles/1",
        payload={"version": 1, "sha256": "", "base_version": 1, "base_sha256": ""},
    )
    approved = await approve(governance, change, await governance.hire("rex", roles=["reviewer"]))
    assert approved.state == State.APPROVED  # models would have to carry it out, and cannot
    bundle = await governance.policies.GetPolicyBundle(
        policies_pb2.GetPolicyBundleRequest(), **governance.as_principal()
    )
    assert (bundle.version, bundle.policies) == (1, shipped_policies())
