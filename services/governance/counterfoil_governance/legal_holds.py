"""Legal holds: what must be kept, whatever retention or a privacy request says; created, and released with a reason."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from counterfoil_governance.entities import LegalHold
from counterfoil_governance.errors import LegalHoldNotFoundError, LegalHoldPeriodError, LegalHoldTargetError
from counterfoil_governance.recording import Recorder
from counterfoil_governance.store import Stores


async def get(stores: Stores, workspace: str, legal_hold_id: str) -> LegalHold:
    """Return one hold; raise LegalHoldNotFoundError when it is not of this workspace."""
    found = await stores.legal_holds.find(workspace, legal_hold_id)
    if found is None:
        raise LegalHoldNotFoundError(
            f"There is no legal hold {legal_hold_id!r} in this workspace. List the legal holds.",
            metadata={"legal_hold_id": legal_hold_id},
        )
    return found


async def create(stores: Stores, hold: LegalHold, *, recorder: Recorder) -> LegalHold:
    """Keep a hold; raise LegalHoldTargetError, LegalHoldPeriodError."""
    if bool(hold.dataset) is bool(hold.identifier_hashes):
        raise LegalHoldTargetError("Name either the `dataset` to hold or the `identifiers` of a person, not both.")
    if not hold.is_active(recorder.now):
        raise LegalHoldPeriodError("`expires_at` is over already. Name a later moment, or none to hold without end.")
    await stores.legal_holds.put(hold)
    await recorder.record(
        stores,
        "legal_hold.create",
        _resource(hold),
        dataset=hold.dataset,
        identifiers=len(hold.identifier_hashes),
        owner=hold.owner,
        expires_at=hold.expires_at.isoformat() if hold.expires_at else "",
        reason=hold.reason,
    )
    return hold


async def release(stores: Stores, legal_hold_id: str, *, reason: str, recorder: Recorder) -> LegalHold:
    """End a hold; one that is over already stays as it is. Raises LegalHoldNotFoundError."""
    hold = await get(stores, recorder.workspace, legal_hold_id)
    if not hold.is_active(recorder.now):
        return hold
    released = replace(hold, released_by=recorder.principal, released_at=recorder.now, release_reason=reason)
    await stores.legal_holds.put(released)
    await recorder.record(stores, "legal_hold.release", _resource(hold), reason=reason)
    return released


async def active(stores: Stores, workspace: str, *, now: datetime) -> Sequence[LegalHold]:
    """Return the holds that keep something now."""
    return [hold for hold in await stores.legal_holds.unreleased(workspace) if hold.is_active(now)]


async def on_person(stores: Stores, workspace: str, hashes: Collection[bytes], *, now: datetime) -> tuple[str, ...]:
    """Return the ids of the active holds that name a person by any of some identifiers."""
    named = frozenset(hashes)
    found = await active(stores, workspace, now=now)
    return tuple(hold.legal_hold_id for hold in found if not named.isdisjoint(hold.identifier_hashes))


async def keep_in_step(stores: Stores) -> int:
    """Have the feed tell of holds that were restored from elsewhere; return how many there were."""
    unpublished = await stores.legal_holds.unpublished()
    for hold in unpublished:
        await stores.legal_holds.put(hold)
    return len(unpublished)


def _resource(hold: LegalHold) -> str:
    return f"legal-holds/{hold.legal_hold_id}"
