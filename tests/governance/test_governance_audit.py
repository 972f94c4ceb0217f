"""The audit log as callers meet it: entries, checkpoints, proofs, verification and export."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
import sys
import zipfile
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from counterfoil.governance.v1 import audit_pb2 as pb
from counterfoil_chassis import audit_verify
from counterfoil_chassis.clock import SystemIds, to_timestamp
from counterfoil_governance.audit import CHECKPOINT_ENTRIES

from tests.governance.calls import Governance, MovableClock, governance_in, refused


@pytest.fixture
def ids(governance: Governance) -> SystemIds:
    return SystemIds(governance.clock)


class Log:
    """Calls of one workspace's principal, and of the service that appends to its log."""

    def __init__(self, governance: Governance, ids: SystemIds, workspace: str = "acme") -> None:
        self.workspace = workspace
        self._governance = governance
        self._ids = ids
        self._calls = governance.as_principal(workspace=workspace)

    def entry(self, number: int = 0, **fields: object) -> pb.NewAuditEntry:
        """Return a new entry."""
        made = {
            "workspace": self.workspace,
            "entry_id": self._ids.new(),
            "happened_at": to_timestamp(self._governance.clock.now()),
            "principal": "ada",
            "action": "model.promote",
            "resource": f"models/churn/versions/{number}",
            "details": json.dumps({"number": number}).encode(),
            "trace_id": "ab" * 16,
        }
        return pb.NewAuditEntry(**{**made, **fields})  # type: ignore[arg-type]

    async def put(self, *entries: pb.NewAuditEntry, service: str = "models") -> int:
        request = pb.AppendAuditEntriesRequest(entries=entries)
        answer = await self._governance.audit.AppendAuditEntries(request, **self._governance.as_service(service))
        return int(answer.added)

    async def grow(self, count: int) -> None:
        for begin in range(0, count, 500):
            await self.put(*(self.entry(begin + number) for number in range(min(500, count - begin))))

    async def checkpoint(self) -> pb.Checkpoint:
        return await self._governance.audit.GetCheckpoint(pb.GetCheckpointRequest(), **self._calls)

    async def list(self, **fields: object) -> pb.ListAuditEntriesResponse:
        request = pb.ListAuditEntriesRequest(**fields)  # type: ignore[arg-type]
        return await self._governance.audit.ListAuditEntries(request, **self._calls)

    async def inclusion(self, index: int, tree_size: int = 0) -> pb.InclusionProof:
        request = pb.GetInclusionProofRequest(index=index, tree_size=tree_size)
        return await self._governance.audit.GetInclusionProof(request, **self._calls)

    async def consistency(self, from_size: int, to_size: int = 0) -> pb.ConsistencyProof:
        request = pb.GetConsistencyProofRequest(from_size=from_size, to_size=to_size)
        return await self._governance.audit.GetConsistencyProof(request, **self._calls)

    async def verify(self) -> pb.VerifyAuditResponse:
        return await self._governance.audit.VerifyAudit(pb.VerifyAuditRequest(), **self._calls)

    async def export(self) -> bytes:
        stream = self._governance.audit.ExportAudit(pb.ExportAuditRequest(), **self._calls)
        return b"".join([part.data async for part in stream])


@pytest.fixture
def log(governance: Governance, ids: SystemIds) -> Log:
    return Log(governance, ids)


async def test_an_entry_is_listed_as_it_was_written(log: Log, governance: Governance) -> None:
    made = log.entry(7)
    assert await log.put(made) == 1
    [found] = (await log.list()).entries
    assert (found.index, found.entry_id, found.service, found.principal) == (0, made.entry_id, "models", "ada")
    assert (found.action, found.resource, found.trace_id) == ("model.promote", "models/churn/versions/7", "ab" * 16)
    assert (found.details, found.happened_at) == (b'{"number":7}', made.happened_at)


async def test_the_same_entry_again_changes_nothing(log: Log) -> None:
    first, second = log.entry(1), log.entry(2)
    assert await log.put(first, first) == 1
    assert await log.put(first, second) == 1
    assert [each.entry_id for each in (await log.list()).entries] == [first.entry_id, second.entry_id]


@pytest.mark.parametrize("change", [{"action": "model.rollback"}, {"details": b'{"number":2}'}, {"trace_id": ""}])
async def test_another_entry_under_a_known_id_costs_the_whole_call(log: Log, change: dict[str, object]) -> None:
    known, new = log.entry(1), log.entry(2)
    await log.put(known)
    differing = log.entry(1, entry_id=known.entry_id, **change)
    with refused("AUDIT_ENTRY_DIFFERS") as refusal:
        await log.put(new, differing)
    assert refusal.failure is not None
    assert refusal.failure.metadata["entry_id"] == known.entry_id
    assert len((await log.list()).entries) == 1


async def test_the_same_entry_of_another_service_is_another_entry(log: Log) -> None:
    made = log.entry()
    await log.put(made)
    with refused("AUDIT_ENTRY_DIFFERS"):
        await log.put(made, service="gateway")


@pytest.mark.parametrize("details", [b"[]", b"{", b"1", b'{"n":9007199254740993}', b"\xff"])
async def test_details_that_are_no_object_of_interoperable_json_cost_the_whole_call(log: Log, details: bytes) -> None:
    with refused("AUDIT_ENTRY_MALFORMED"):
        await log.put(log.entry(), log.entry(details=details))
    assert not (await log.list()).entries


async def test_no_details_are_an_empty_object_and_the_order_of_their_keys_does_not_matter(log: Log) -> None:
    await log.put(log.entry(details=b""), log.entry(details=b'{"b":1,"a":{"d":[1.50,"\\u00e9"],"c":null}}'))
    assert [each.details for each in (await log.list()).entries] == [
        b"{}",
        '{"a":{"c":null,"d":[1.5,"é"]},"b":1}'.encode(),
    ]


async def test_a_workspace_that_can_be_none_is_refused(log: Log) -> None:
    with refused("AUDIT_ENTRY_MALFORMED"):
        await log.put(log.entry(workspace="Not a workspace"))


async def test_principals_append_nothing(log: Log, governance: Governance) -> None:
    request = pb.AppendAuditEntriesRequest(entries=[log.entry()])
    with pytest.raises(grpc.aio.AioRpcError, match="PERMISSION_DENIED"):
        await governance.audit.AppendAuditEntries(request, **governance.as_principal())


async def test_one_call_appends_to_several_logs_and_each_workspace_sees_its_own(
    governance: Governance, ids: SystemIds
) -> None:
    here, there = Log(governance, ids, "acme"), Log(governance, ids, "zenith")
    assert await here.put(here.entry(1), there.entry(2), here.entry(3)) == 3
    assert [each.index for each in (await here.list()).entries] == [0, 1]
    assert [each.resource for each in (await there.list()).entries] == ["models/churn/versions/2"]
    assert (await there.checkpoint()).origin == "counterfoil/zenith"
    with refused("AUDIT_RANGE"):
        await there.inclusion(1)


async def test_lists_page_by_page_in_both_directions(log: Log) -> None:
    await log.grow(7)
    for newest_first in (False, True):
        seen, token = [], ""
        while True:
            page = await log.list(page_size=3, page_token=token, newest_first=newest_first)
            seen += [each.index for each in page.entries]
            token = page.next_page_token
            if not token:
                break
        assert seen == sorted(range(7), reverse=newest_first)


async def test_lists_what_one_principal_did_and_what_was_done_to_one_resource(log: Log) -> None:
    await log.put(log.entry(1), log.entry(2, principal="bob"), log.entry(1, principal="bob"))
    assert [each.index for each in (await log.list(principal="bob")).entries] == [1, 2]
    assert [each.index for each in (await log.list(resource="models/churn/versions/1")).entries] == [0, 2]
    both = await log.list(resource="models/churn/versions/1", principal="bob", newest_first=True)
    assert [each.index for each in both.entries] == [2]


async def test_a_page_of_large_entries_stays_below_the_largest_message(log: Log) -> None:
    for _ in range(2):
        large = json.dumps({"text": "x" * 16_000}).encode()
        await log.put(*(log.entry(details=large) for _ in range(300)))
    page = await log.list(page_size=1000)
    assert 200 < len(page.entries) < 600
    rest = await log.list(page_size=1000, page_token=page.next_page_token)
    assert rest.entries[0].index == page.entries[-1].index + 1


async def test_a_checkpoint_covers_every_entry_and_carries_its_key(log: Log) -> None:
    empty = await log.checkpoint()
    assert (empty.tree_size, empty.root_sha256) == (0, audit_verify.EMPTY_ROOT.hex())
    await log.grow(5)
    made = await log.checkpoint()
    signed = audit_verify.SignedCheckpoint.parse(made.note)
    assert (made.origin, made.tree_size, made.root_sha256) == ("counterfoil/acme", 5, signed.root.hex())
    assert signed.signed_by(audit_verify.VerifierKey.parse(made.verifier_key))
    assert made.note.startswith("counterfoil/acme\n5\n")
    assert (await log.checkpoint()).note == made.note


async def test_checkpoints_are_signed_by_the_same_key_after_a_restart(clock: MovableClock, tmp_path: Path) -> None:
    async with governance_in(tmp_path, clock, bootstrap_key_sha256="") as governance:
        log = Log(governance, SystemIds(clock))
        await log.grow(3)
        made = await log.checkpoint()
    async with governance_in(tmp_path, clock, bootstrap_key_sha256="") as again:
        found = await again.audit.GetCheckpoint(pb.GetCheckpointRequest(), **again.as_principal(workspace="acme"))
    assert found == made


async def test_a_checkpoint_is_signed_every_thousand_entries_without_being_asked(log: Log, tmp_path: Path) -> None:
    await log.grow(2 * CHECKPOINT_ENTRIES + 1)
    exported = await log.export()  # asks for one more, and waits for the writer's turn behind the other two
    with zipfile.ZipFile(io.BytesIO(exported)) as archive:
        sizes = [json.loads(line)["tree_size"] for line in archive.read("checkpoints.jsonl").splitlines()]
    assert sizes[-1] == 2 * CHECKPOINT_ENTRIES + 1
    assert len(sizes) >= 2
    report = audit_verify.verify(io.BytesIO(exported))
    assert report.ok, report.text()


async def test_appending_and_signing_at_the_same_time_make_one_log(log: Log) -> None:
    puts = [log.put(*(log.entry(number) for _ in range(1 + number % 3))) for number in range(24)]
    await asyncio.gather(*puts, *(log.checkpoint() for _ in range(6)))
    found = (await log.list(page_size=1000)).entries
    assert [each.index for each in found] == list(range(48))
    report = audit_verify.verify(io.BytesIO(await log.export()))
    assert (report.ok, report.entries) == (True, 48), report.text()


async def test_every_entry_is_proved_to_be_in_the_tree(log: Log) -> None:
    await log.grow(11)
    root = bytes.fromhex((await log.checkpoint()).root_sha256)
    leaves = [bytes.fromhex(each.leaf_sha256) for each in (await log.list()).entries]
    for index, leaf in enumerate(leaves):
        proof = await log.inclusion(index)
        assert (proof.tree_size, proof.leaf_sha256, proof.root_sha256) == (11, leaf.hex(), root.hex())
        path = [bytes.fromhex(each) for each in proof.hashes]
        assert audit_verify.proves_inclusion(leaf, index=index, size=11, path=path, root=root)
        assert not audit_verify.proves_inclusion(leaf, index=(index + 1) % 11, size=11, path=path, root=root)


async def test_every_tree_is_proved_to_be_the_beginning_of_a_later_one(log: Log) -> None:
    roots = {}
    for size in range(1, 8):
        await log.put(log.entry(size))
        roots[size] = bytes.fromhex((await log.checkpoint()).root_sha256)
    for earlier in range(1, 8):
        for later in range(earlier, 8):
            proof = await log.consistency(earlier, later)
            assert (proof.from_root_sha256, proof.to_root_sha256) == (roots[earlier].hex(), roots[later].hex())
            hashes = [bytes.fromhex(each) for each in proof.hashes]
            given = {"earlier_root": roots[earlier], "later_root": roots[later]}
            assert audit_verify.proves_consistency(earlier, later, **given, proof=hashes)
    nothing = await log.consistency(0)
    assert (nothing.from_root_sha256, list(nothing.hashes)) == (audit_verify.EMPTY_ROOT.hex(), [])


async def test_proofs_beyond_the_log_are_refused(log: Log) -> None:
    await log.grow(3)
    for call in (log.inclusion(3), log.inclusion(0, 4), log.inclusion(2, 2), log.consistency(1, 4), log.consistency(4)):
        with refused("AUDIT_RANGE"):
            await call


async def test_an_untouched_log_is_verified(log: Log) -> None:
    await log.grow(40)
    found = await log.verify()
    assert (found.ok, found.entries, list(found.findings)) == (True, 40, [])
    assert found.root_sha256 == (await log.checkpoint()).root_sha256
    assert found.checkpoints == 1


async def test_verification_names_the_entry_that_was_changed_in_the_store(log: Log, tmp_path: Path) -> None:
    await log.grow(9)
    await log.checkpoint()
    with closing(sqlite3.connect(tmp_path / "governance.db")) as database, database:
        database.execute("DROP TRIGGER audit_entries_refuse_update")
        database.execute(
            "UPDATE audit_entries SET body = CAST(replace(CAST(body AS TEXT), 'ada', 'eve') AS BLOB) "
            "WHERE workspace = 'acme' AND \"index\" = 5"
        )
    found = await log.verify()
    assert not found.ok
    assert [(each.reason, each.index) for each in found.findings] == [("ENTRY_CHANGED", 5)]
    assert "eve model.promote models/churn/versions/5" in found.findings[0].detail


async def test_nothing_is_signed_that_contradicts_what_was(log: Log, tmp_path: Path) -> None:
    await log.grow(4)
    await log.checkpoint()
    with closing(sqlite3.connect(tmp_path / "governance.db")) as database, database:
        database.execute("DROP TRIGGER audit_nodes_refuse_update")
        database.execute("UPDATE audit_nodes SET hash = zeroblob(32) WHERE workspace = 'acme' AND level = 2")
    await log.put(log.entry())
    with refused("AUDIT_BROKEN"):
        await log.checkpoint()
    found = await log.verify()
    assert [(each.reason, each.index) for each in found.findings] == [("NODE_CHANGED", 0), ("ENTRY_UNSIGNED", 4)]


async def test_an_export_is_verified_by_python_alone(log: Log, tmp_path: Path) -> None:
    await log.grow(12)
    await log.checkpoint()
    await log.grow(3)
    archive = tmp_path / "export.zip"
    archive.write_bytes(await log.export())
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(archive) as packed:
        assert packed.testzip() is None
        packed.extractall(folder)
    key = (folder / "key.txt").read_text().strip()
    for arguments in ([], [str(archive), "--key", key]):
        code, text = await verify_as_a_stranger(folder, *arguments)
        assert code == 0, text
        assert "OK: nothing was changed" in text
        assert "15 hashed again" in text
        assert key in text
    body = (folder / "entries.jsonl").read_bytes()
    (folder / "entries.jsonl").write_bytes(body.replace(b"versions/7", b"versions/8"))
    code, text = await verify_as_a_stranger(folder)
    assert code == 1, text
    assert "ENTRY_CHANGED, entry 7" in text


async def verify_as_a_stranger(folder: Path, *arguments: str) -> tuple[int | None, str]:
    """Run an export's own verifier: without the environment, site-packages and this folder."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "verify.py", *arguments),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    text, _ = await process.communicate()
    return process.returncode, text.decode()


async def test_an_empty_log_is_exported_and_verified_too(log: Log) -> None:
    report = audit_verify.verify(io.BytesIO(await log.export()))
    assert (report.ok, report.entries, report.checkpoints) == (True, 0, 1), report.text()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit_entries SET body = x'00'",
        "DELETE FROM audit_entries",
        "REPLACE INTO audit_entries SELECT workspace, \"index\", entry_id, '', '', x'', leaf FROM audit_entries",
        "REPLACE INTO audit_entries SELECT workspace, 99, entry_id, principal, resource, body, leaf FROM audit_entries",
        "UPDATE audit_nodes SET hash = x'00'",
        "DELETE FROM audit_nodes",
        "REPLACE INTO audit_nodes SELECT workspace, level, \"index\", x'00' FROM audit_nodes",
        "UPDATE audit_checkpoints SET note = ''",
        "DELETE FROM audit_checkpoints",
        "REPLACE INTO audit_checkpoints SELECT workspace, number, tree_size, '', '' FROM audit_checkpoints",
        "UPDATE audit_heads SET size = size - 1",
        "UPDATE audit_heads SET checkpoints = 0",
        "UPDATE audit_heads SET workspace = 'other'",
        "DELETE FROM audit_heads",
        "REPLACE INTO audit_heads SELECT workspace, 0, 0 FROM audit_heads",
    ],
)
async def test_the_database_itself_refuses_any_change(log: Log, tmp_path: Path, change: str) -> None:
    await log.grow(2)
    await log.checkpoint()
    database = sqlite3.connect(tmp_path / "governance.db")
    with pytest.raises(sqlite3.IntegrityError, match=r"append-only|only grow"):
        database.execute(change)
    database.close()


async def test_times_are_those_of_the_deed(log: Log, governance: Governance) -> None:
    made = log.entry(happened_at=to_timestamp(governance.clock.now() - timedelta(hours=3, microseconds=1)))
    await log.put(made)
    governance.clock.move(timedelta(minutes=1))
    assert (await log.list()).entries[0].happened_at == made.happened_at
    assert (await log.checkpoint()).signed_at == to_timestamp(governance.clock.now())
