"""Principals: creating them, and disabling them with their keys."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from counterfoil_governance.entities import Principal
from counterfoil_governance.keys import guard_lockout
from counterfoil_governance.store import Stores


async def create_principal(stores: Stores, principal: Principal) -> Principal:
    """Keep a new principal, named by its id when it has no other name."""
    named = replace(principal, display_name=principal.display_name or principal.principal_id)
    await stores.principals.add(named)
    return named


async def disable_principal(stores: Stores, *, workspace: str, principal_id: str, now: datetime) -> Principal:
    """Disable a principal and revoke its keys at once; disabling it again changes nothing.

    Raises LastAdminKeyError when nobody else could govern the workspace then.
    """
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
    return replace(principal, disabled_at=now)
