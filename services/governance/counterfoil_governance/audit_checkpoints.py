"""Signed checkpoints of audit logs (C2SP tlog-checkpoint): what governance states that a log holds, for ever."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

from counterfoil_chassis.audit_verify import NotACheckpointError, SignedCheckpoint, VerifierKey
from counterfoil_chassis.audit_verify import checkpoint_body as body_of
from counterfoil_chassis.audit_verify import signed_note as note_of
from counterfoil_chassis.clock import Clock
from counterfoil_chassis.secrecy import derive_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from counterfoil_governance import audit
from counterfoil_governance.entities import AuditHead, KeptCheckpoint
from counterfoil_governance.errors import AuditBrokenError
from counterfoil_governance.store import Stores, Transactions

_log = logging.getLogger(__name__)


def origin_of(workspace: str) -> str:
    """Return the name of a workspace's log; it is the name of the key that signs it, too."""
    return f"counterfoil/{workspace}"


class CheckpointSigner:
    """Signs with the Ed25519 key whose seed is derived from the service's secret (RFC 5869, RFC 8032)."""

    def __init__(self, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(derive_key(secret, "audit checkpoint"))

    def verifier_key(self, workspace: str) -> VerifierKey:
        """Return what checks the signatures of a workspace's log."""
        return VerifierKey.of(origin_of(workspace), self._key.public_key().public_bytes_raw())

    def sign(self, head: AuditHead, *, root: bytes, at: datetime) -> KeptCheckpoint:
        """Return the next checkpoint of a log, over all its entries."""
        key = self.verifier_key(head.workspace)
        signed_at = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        body = body_of(key.name, size=head.size, root=root, signed_at=signed_at)
        note = note_of(body, key, self._key.sign(body.encode()))
        return KeptCheckpoint(head.checkpoints, head.size, note, key.text)


def covers(checkpoint: KeptCheckpoint | None, head: AuditHead, *, key: VerifierKey) -> bool:
    """Tell whether a checkpoint is over the whole log and by this key."""
    return checkpoint is not None and (checkpoint.tree_size, checkpoint.verifier_key) == (head.size, key.text)


async def current(
    transactions: Transactions, workspace: str, *, signer: CheckpointSigner, now: datetime
) -> KeptCheckpoint:
    """Return the checkpoint over the whole log, signed now unless it was before; raise AuditBrokenError as `newest`."""
    async with transactions.read() as stores:
        head, last = await stores.audit.head(workspace), await stores.audit.checkpoint(workspace)
    if last is not None and covers(last, head, key=signer.verifier_key(workspace)):
        return last
    async with transactions.begin() as stores:
        return await newest(stores, workspace, signer=signer, now=now)


async def newest(stores: Stores, workspace: str, *, signer: CheckpointSigner, now: datetime) -> KeptCheckpoint:
    """Return the checkpoint over the whole log, signed now unless it was before; the transaction must write.

    Raises AuditBrokenError when the log does not continue what was signed last: nothing that contradicts an earlier
    checkpoint is ever signed.
    """
    head = await stores.audit.lock(workspace)
    last = await stores.audit.checkpoint(workspace)
    if last is not None and covers(last, head, key=signer.verifier_key(workspace)):
        return last
    await _require_continued(stores, head, last)
    signed = signer.sign(head, root=await audit.root(stores, head, size=head.size), at=now)
    await stores.audit.add_checkpoint(head, signed)
    return signed


async def keep_signed(
    transactions: Transactions, due: asyncio.Queue[str], *, signer: CheckpointSigner, clock: Clock
) -> None:
    """Sign the log of each workspace that is due, for ever; one that is broken is logged and left as it is."""
    while True:
        workspace = await due.get()
        try:
            async with transactions.begin() as stores:
                await newest(stores, workspace, signer=signer, now=clock.now())
        except AuditBrokenError as error:
            _log.error("audit log broken", extra={"workspace": workspace, "cause": error.message})


async def _require_continued(stores: Stores, head: AuditHead, last: KeptCheckpoint | None) -> None:
    if head.size < 0 or await stores.audit.hashes(head.workspace, [(0, head.size)]):
        raise _broken(head, "has entries behind its end")
    if last is None:
        if head.checkpoints:
            raise _broken(head, "lacks its checkpoints")
        return
    try:
        signed = SignedCheckpoint.parse(last.note)
    except NotACheckpointError:
        raise _broken(head, "has a newest checkpoint that cannot be read") from None
    if last.number != head.checkpoints - 1 or signed.size != last.tree_size or signed.size > head.size:
        raise _broken(head, "is shorter than what was signed")
    if signed.root != await audit.root(stores, head, size=signed.size):
        raise _broken(head, "differs from what was signed")


def _broken(head: AuditHead, how: str) -> AuditBrokenError:
    return AuditBrokenError(
        f"The audit log {how}; no checkpoint is signed. Export it and verify the export.",
        metadata={"workspace": head.workspace, "size": str(head.size)},
    )
