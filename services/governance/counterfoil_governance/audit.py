"""The audit log: one per workspace, an RFC 6962 tree whose leaves are entries as RFC 8785 JSON, only ever added to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from types import MappingProxyType
from typing import Any, Final

from counterfoil_chassis import telemetry
from counterfoil_chassis.audit_verify import leaf_hash
from counterfoil_chassis.canonical import canonical_json
from counterfoil_chassis.clock import Clock, Ids

from counterfoil_governance import tree
from counterfoil_governance.entities import AuditEntry, AuditHead, NewAuditEntry
from counterfoil_governance.errors import AuditBrokenError, AuditEntryDiffersError, AuditEntryMalformedError
from counterfoil_governance.store import Stores

NO_DETAILS: Final[Mapping[str, Any]] = MappingProxyType({})
SERVICE: Final = "governance"
CHECKPOINT_ENTRIES: Final = 1000
"""A checkpoint is signed at least so often; and whenever one is asked for."""

_WORKSPACE: Final = re.compile(r"[!-*,-~]{1,63}")  # what C2SP lets stand in a name: no space, no plus


async def record(
    stores: Stores,
    *,
    ids: Ids,
    clock: Clock,
    workspace: str,
    principal: str,
    action: str,
    resource: str,
    details: Mapping[str, Any] = NO_DETAILS,
) -> None:
    """Append what governance itself did to the workspace's log, in the open transaction of the deed.

    `action` is like `key.create`, `resource` like `keys/<id>`; `details` is a JSON object without personal data.
    """
    entry = NewAuditEntry(
        workspace=workspace,
        entry_id=ids.new(),
        happened_at=clock.now(),
        service=SERVICE,
        principal=principal,
        action=action,
        resource=resource,
        details=details,
        trace_id=telemetry.current_trace_id(),
    )
    await append(stores, [entry])


async def append(stores: Stores, entries: Sequence[NewAuditEntry]) -> int:
    """Append the entries that are new, each to its workspace's log, and return how many; on an error, none.

    Raises AuditEntryDiffersError when a log holds another entry under an id, AuditEntryMalformedError.
    """
    added = 0
    for workspace in sorted({entry.workspace for entry in entries}):  # in one order: locks never cross
        mine = [entry for entry in entries if entry.workspace == workspace]
        added += await _append_to(stores, workspace, mine)
    return added


async def _append_to(stores: Stores, workspace: str, entries: Sequence[NewAuditEntry]) -> int:
    if not _WORKSPACE.fullmatch(workspace):
        raise AuditEntryMalformedError(
            f"{workspace!r} is no id of a workspace; nothing was appended.", metadata={"workspace": workspace}
        )
    head = await stores.audit.lock(workspace)
    known = dict(await stores.audit.known(workspace, [entry.entry_id for entry in entries]))
    new: list[AuditEntry] = []
    for entry in entries:
        kept = known.get(entry.entry_id)
        if kept is None:
            known[entry.entry_id] = _filed(entry, index=head.size + len(new))
            new.append(known[entry.entry_id])
        elif kept.body != body_of(entry, index=kept.index):
            raise AuditEntryDiffersError(
                f"The audit log holds another entry under {entry.entry_id!r}. An entry never changes; make a new one.",
                metadata={"entry_id": entry.entry_id, "workspace": workspace},
            )
    if new:
        hashes = await hashes_at(stores, workspace, tree.frontier(head.size))
        nodes = tree.extend(head.size, [entry.leaf for entry in new], hashes)
        due = head.size % CHECKPOINT_ENTRIES + len(new) >= CHECKPOINT_ENTRIES
        await stores.audit.add(head, new, nodes, checkpoint_due=due)
    return len(new)


def body_of(entry: NewAuditEntry, *, index: int) -> bytes:
    """Return what is hashed and kept of an entry at its place: RFC 8785 JSON, times to the microsecond in UTC.

    Raises AuditEntryMalformedError for details that I-JSON (RFC 7493) cannot say.
    """
    document = {
        "action": entry.action,
        "details": dict(entry.details),
        "entry_id": entry.entry_id,
        "happened_at": entry.happened_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "index": index,
        "principal": entry.principal,
        "resource": entry.resource,
        "service": entry.service,
        "trace_id": entry.trace_id,
        "workspace": entry.workspace,
    }
    try:
        return canonical_json(document)
    except ValueError as error:
        raise AuditEntryMalformedError(
            f"The details of entry {entry.entry_id!r} cannot be written as I-JSON: {error}.",
            metadata={"entry_id": entry.entry_id},
        ) from error


async def hashes_at(stores: Stores, workspace: str, places: Iterable[tree.Place]) -> tree.Hashes:
    """Return the stored hashes at these places; raise AuditBrokenError when one is missing."""
    wanted = list(places)
    found = await stores.audit.hashes(workspace, wanted)
    for level, index in wanted:
        if (level, index) not in found:
            raise AuditBrokenError(
                "The audit log lacks a hash of its tree. Verify an export of it.",
                metadata={"workspace": workspace, "level": str(level), "index": str(index)},
            )
    return found


async def root(stores: Stores, head: AuditHead, *, size: int) -> bytes:
    """Return the root hash of the first `size` entries."""
    whole = tree.Span(0, size)
    return whole.hash(await hashes_at(stores, head.workspace, whole.places))


def _filed(entry: NewAuditEntry, *, index: int) -> AuditEntry:
    body = body_of(entry, index=index)
    return AuditEntry(index, entry.entry_id, entry.principal, entry.resource, body, leaf_hash(body))
