"""AuditService: translate, open the transaction, delegate, translate back."""

from __future__ import annotations

import asyncio
import tempfile
import zipfile
from collections.abc import AsyncIterator
from datetime import datetime
from typing import IO, Any, Final

import grpc
import orjson
from counterfoil.governance.v1 import audit_pb2 as pb
from counterfoil.governance.v1.audit_pb2_grpc import AuditServiceServicer
from counterfoil_chassis import audit_verify
from counterfoil_chassis.canonical import canonical_json
from counterfoil_chassis.clock import Clock, from_timestamp, to_timestamp
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.paging import Pager
from google.protobuf.message import Message

from counterfoil_governance import audit, audit_checkpoints, audit_export, receipts, tree
from counterfoil_governance.audit_checkpoints import CheckpointSigner
from counterfoil_governance.entities import AuditEntry, AuditHead, AuditQuery, KeptCheckpoint, NewAuditEntry
from counterfoil_governance.errors import AuditBrokenError, AuditEntryMalformedError, AuditRangeError
from counterfoil_governance.store import Transactions

Context = grpc.aio.ServicerContext[Message, Message]

PAGE_BYTES: Final = 4 << 20
"""A page ends early here, well below the largest message (8 MiB); entries have no fixed size."""

CHUNK_BYTES: Final = 512 * 1024
_MEMORY_BYTES: Final = 4 << 20


class AuditServicer(AuditServiceServicer):
    """Serves the audit log of the caller's workspace; services append to any."""

    def __init__(self, transactions: Transactions, *, signer: CheckpointSigner, pager: Pager, clock: Clock) -> None:
        self._transactions = transactions
        self._signer = signer
        self._pager = pager
        self._clock = clock

    async def GetCheckpoint(self, request: pb.GetCheckpointRequest, context: Context) -> pb.Checkpoint:
        """Return a checkpoint over every entry there is."""
        return to_proto(await self._checkpoint(current_caller().workspace))

    async def ListAuditEntries(
        self, request: pb.ListAuditEntriesRequest, context: Context
    ) -> pb.ListAuditEntriesResponse:
        """List entries in the order of the log, or against it."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListAuditEntries", workspace=workspace)
        query = AuditQuery(request.resource, request.principal, newest_first=request.newest_first)
        after = int(page.after[0]) if page.after else None
        async with self._transactions.read() as stores:
            found = await stores.audit.list(workspace, query=query, after=after, limit=page.limit + 1)
        shown = receipts.fitting(found[: page.limit], size=PAGE_BYTES)
        answer = pb.ListAuditEntriesResponse(entries=[_entry(each) for each in shown])
        if len(found) > len(shown):
            answer.next_page_token = self._pager.token(
                request, method="ListAuditEntries", workspace=workspace, after=[str(shown[-1].index)]
            )
        return answer

    async def GetInclusionProof(self, request: pb.GetInclusionProofRequest, context: Context) -> pb.InclusionProof:
        """Prove that an entry is in the tree."""
        workspace = current_caller().workspace
        size = request.tree_size or (await self._checkpoint(workspace)).tree_size
        if request.index >= size:
            raise _out_of_range(f"Entry {request.index} is not in a tree of {size} entries.", size=size)
        async with self._transactions.read() as stores:
            head = _long_enough(await stores.audit.head(workspace), size)
            path = tree.inclusion(request.index, size)
            places = [(0, request.index), *tree.places_of([*path, tree.Span(0, size)])]
            hashes = await audit.hashes_at(stores, head.workspace, places)
        return pb.InclusionProof(
            index=request.index,
            tree_size=size,
            leaf_sha256=hashes[0, request.index].hex(),
            hashes=[span.hash(hashes).hex() for span in path],
            root_sha256=tree.Span(0, size).hash(hashes).hex(),
        )

    async def GetConsistencyProof(
        self, request: pb.GetConsistencyProofRequest, context: Context
    ) -> pb.ConsistencyProof:
        """Prove that a tree is the beginning of a later one."""
        workspace = current_caller().workspace
        earlier = request.from_size
        later = request.to_size or (await self._checkpoint(workspace)).tree_size
        if earlier > later:
            raise _out_of_range(f"A tree of {earlier} entries is not the beginning of one of {later}.", size=later)
        ends = (tree.Span(0, earlier), tree.Span(0, later))
        proof = tree.consistency(earlier, later)
        async with self._transactions.read() as stores:
            head = _long_enough(await stores.audit.head(workspace), later)
            hashes = await audit.hashes_at(stores, head.workspace, tree.places_of([*proof, *ends]))
        roots = [end.hash(hashes).hex() for end in ends]
        return pb.ConsistencyProof(
            from_size=earlier,
            to_size=later,
            from_root_sha256=roots[0],
            to_root_sha256=roots[1],
            hashes=[span.hash(hashes).hex() for span in proof],
        )

    async def VerifyAudit(self, request: pb.VerifyAuditRequest, context: Context) -> pb.VerifyAuditResponse:
        """Verify the log by what every export holds: an export and its verifier."""
        with _file() as file:
            await self._export(file, compression=zipfile.ZIP_STORED)
            report = await asyncio.to_thread(audit_verify.verify, file)
        return pb.VerifyAuditResponse(
            ok=report.ok,
            entries=report.entries,
            checkpoints=report.checkpoints,
            root_sha256=report.root.hex(),
            findings=[
                pb.AuditFinding(reason=found.reason, index=found.index, detail=found.detail)
                for found in report.findings[:1000]
            ],
        )

    async def ExportAudit(
        self, request: pb.ExportAuditRequest, context: Context
    ) -> AsyncIterator[pb.ExportAuditResponse]:
        """Stream the log as a ZIP archive; it is complete before its first byte leaves."""
        with _file() as file:
            await self._export(file, compression=zipfile.ZIP_DEFLATED)
            file.seek(0)
            while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield pb.ExportAuditResponse(data=data)

    async def AppendAuditEntries(
        self, request: pb.AppendAuditEntriesRequest, context: Context
    ) -> pb.AppendAuditEntriesResponse:
        """Append what a service did: all of it or nothing."""
        service = current_caller().service
        entries = [_new_entry(each, service=service) for each in request.entries]
        async with self._transactions.begin() as stores:
            return pb.AppendAuditEntriesResponse(added=await audit.append(stores, entries))

    async def _checkpoint(self, workspace: str) -> KeptCheckpoint:
        return await audit_checkpoints.current(
            self._transactions, workspace, signer=self._signer, now=self._clock.now()
        )

    async def _export(self, file: IO[bytes], *, compression: int) -> None:
        await audit_export.export(
            self._transactions,
            current_caller().workspace,
            file,
            signer=self._signer,
            now=self._clock.now(),
            compression=compression,
        )


def to_proto(kept: KeptCheckpoint) -> pb.Checkpoint:
    """Return a checkpoint as callers see it."""
    signed = audit_verify.SignedCheckpoint.parse(kept.note)
    return pb.Checkpoint(
        origin=signed.origin,
        tree_size=signed.size,
        root_sha256=signed.root.hex(),
        note=kept.note,
        signed_at=to_timestamp(datetime.fromisoformat(signed.signed_at)),
        verifier_key=kept.verifier_key,
    )


def _entry(kept: AuditEntry) -> pb.AuditEntry:
    try:
        said: dict[str, Any] = orjson.loads(kept.body)
        return pb.AuditEntry(
            index=kept.index,
            entry_id=said["entry_id"],
            happened_at=to_timestamp(datetime.fromisoformat(said["happened_at"])),
            service=said["service"],
            principal=said["principal"],
            action=said["action"],
            resource=said["resource"],
            details=canonical_json(said["details"]),
            trace_id=said["trace_id"],
            leaf_sha256=kept.leaf.hex(),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise AuditBrokenError(
            f"Entry {kept.index} of the audit log cannot be read any more. Export the log and verify the export.",
            metadata={"index": str(kept.index)},
        ) from error


def _new_entry(asked: pb.NewAuditEntry, *, service: str) -> NewAuditEntry:
    try:
        details = orjson.loads(asked.details or b"{}")
    except orjson.JSONDecodeError:
        details = None
    if not isinstance(details, dict):
        raise AuditEntryMalformedError(
            f"The details of entry {asked.entry_id!r} are no JSON object; nothing was appended.",
            metadata={"entry_id": asked.entry_id},
        )
    return NewAuditEntry(
        workspace=asked.workspace,
        entry_id=asked.entry_id,
        happened_at=from_timestamp(asked.happened_at),
        service=service,
        principal=asked.principal,
        action=asked.action,
        resource=asked.resource,
        details=details,
        trace_id=asked.trace_id,
    )


def _long_enough(head: AuditHead, size: int) -> AuditHead:
    if size > head.size:
        raise _out_of_range(f"The log has {head.size} entries, not {size}.", size=head.size)
    return head


def _out_of_range(message: str, *, size: int) -> AuditRangeError:
    return AuditRangeError(f"{message} Ask for less.", metadata={"tree_size": str(size)})


def _file() -> IO[bytes]:
    return tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES)
