"""Principals: creating them, giving them roles, and disabling them with their keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from counterfoil_chassis.identity import Caller

from counterfoil_governance.entities import Principal
from counterfoil_governance.keys import guard_lockout
from counterfoil_governance.recording import Recorder
from counterfoil_governance.scopes import GOVERNANCE_WRITE, bounded, given_roles
from counterfoil_governance.store import Stores


async def create_principal(stores: Stores, principal: Principal, *, recorder: Recorder) -> Principal:
    """Keep a new principal, named by its id when it has no other name."""
    named = replace(principal, display_name=principal.display_name or principal.principal_id)
    await stores.principals.add(named)
    await recorder.record(
        stores, "principal.create", _resource(named), kind=principal.kind.value, roles=list(principal.roles)
    )
    return named


async def disable_principal(stores: Stores, *, principal_id: str, recorder: Recorder) -> Principal:
    """Disable a principal and revoke its keys at once; disabling it again changes nothing.

    Raises LastAdminKeyError when nobody else could govern the workspace then.
    """
    workspace, now = recorder.workspace, recorder.now
    principal = await stores.principals.get(workspace, principal_id)
    if principal.disabled_at is not None:
        return principal
    unrevoked = await stores.keys.unrevoked(workspace)
    lost = [key for key in unrevoked if key.principal_id == principal_id]
    guard_lockout(unrevoked, lost=lost, now=now)
    await stores.principals.disable(workspace, principal_id, at=now)
    for key in lost:
        await stores.keys.revoke(workspace, key.key_id, at=now)
        await stores.credentials.delete(key.secret_sha256)
    await recorder.record(stores, "principal.disable", _resource(principal), keys=[key.key_id for key in lost])
    return replace(principal, disabled_at=now)


async def set_principal_roles(
    stores: Stores, *, principal_id: str, roles: Sequence[str], holder: frozenset[str], recorder: Recorder
) -> Principal:
    """Replace a principal's roles and take from its keys, for good, the scopes that the new ones do not allow.

    A key never gets a scope back by a wider role: whoever gave it less may have meant it. Raises RoleUnknownError,
    ScopeNotHeldError, and LastAdminKeyError when nobody could govern the workspace then.
    """
    workspace, now = recorder.workspace, recorder.now
    principal = await stores.principals.get(workspace, principal_id)
    changed = replace(principal, roles=given_roles(roles, known=principal.roles, holder=holder))
    if changed == principal:
        return principal
    unrevoked = await stores.keys.unrevoked(workspace)
    kept = [replace(key, scopes=bounded(key.scopes, roles=changed.roles)) for key in unrevoked]
    own = [
        (before, after) for before, after in zip(unrevoked, kept, strict=True) if before.principal_id == principal_id
    ]
    lost = [before for before, after in own if GOVERNANCE_WRITE not in after.scopes]
    guard_lockout(unrevoked, lost=lost, now=now)
    await stores.principals.set_roles(workspace, principal_id, roles=changed.roles)
    for before, after in own:
        if after != before:
            await stores.keys.set_scopes(workspace, after.key_id, scopes=after.scopes)
        await stores.credentials.put(after, roles=changed.roles)
    await recorder.record(
        stores, "principal.set_roles", _resource(changed), before=list(principal.roles), after=list(changed.roles)
    )
    return changed


async def as_caller(stores: Stores, workspace: str, principal_id: str, *, now: datetime) -> Caller:
    """Return a principal as policies would see it: with its roles, and every scope of its accepted keys."""
    principal = await stores.principals.get(workspace, principal_id)
    keys = await stores.keys.unrevoked(workspace)
    held = [frozenset(key.scopes) for key in keys if key.principal_id == principal_id and key.accepted(now)]
    scopes: frozenset[str] = frozenset().union(*held)
    return Caller(workspace, principal_id, scopes, "", frozenset(principal.roles))


def _resource(principal: Principal) -> str:
    return f"principals/{principal.principal_id}"
