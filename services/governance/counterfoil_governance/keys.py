"""API keys: making, granting and revoking them without locking a workspace out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Final

from counterfoil_chassis.errors import FieldViolation

from counterfoil_governance.entities import Key, Principal
from counterfoil_governance.errors import (
    CredentialNotFoundError,
    ExpiryPastError,
    LastAdminKeyError,
    PrincipalDisabledError,
)
from counterfoil_governance.recording import Recorder
from counterfoil_governance.scopes import GOVERNANCE_WRITE, bounded, require_within
from counterfoil_governance.store import Stores

PREFIX: Final = "cfk_"


async def create_key(stores: Stores, key: Key, *, asked: Collection[str], recorder: Recorder) -> Key:
    """Keep a new key of an active principal; it is accepted as soon as the transaction commits.

    Its scopes are cut to what the principal's roles allow, unless they were `asked` for by name: then it is refused.
    Raises PrincipalNotFoundError, PrincipalDisabledError, ExpiryPastError, ScopeOutsideRolesError.
    """
    principal = await stores.principals.get(key.workspace, key.principal_id)
    if principal.disabled_at is not None:
        raise PrincipalDisabledError(
            f"Principal {key.principal_id!r} is disabled and gets no keys. Name an active principal.",
            metadata={"principal": key.principal_id},
        )
    if key.expires_at is not None and key.expires_at <= key.created_at:
        raise ExpiryPastError(
            "expires_at lies in the past. Say a later time, or leave it out for a key without end.",
            violations=[FieldViolation("expires_at", "EXPIRY_PAST", "must lie in the future")],
        )
    require_within(asked, roles=principal.roles)
    key = replace(key, scopes=bounded(key.scopes, roles=principal.roles))
    await stores.keys.add(key)
    await stores.credentials.put(key, roles=principal.roles)
    await recorder.record(stores, "key.create", _resource(key), principal=key.principal_id, scopes=list(key.scopes))
    return key


async def revoke_key(stores: Stores, *, key_id: str, recorder: Recorder) -> Key:
    """Refuse a key from now on; revoking it again changes nothing.

    Raises LastAdminKeyError when nobody else could govern the workspace then.
    """
    workspace, now = recorder.workspace, recorder.now
    key = await stores.keys.get(workspace, key_id)
    if key.revoked_at is not None:
        return key
    guard_lockout(await stores.keys.unrevoked(workspace), lost=[key], now=now)
    await stores.keys.revoke(workspace, key_id, at=now)
    await stores.credentials.delete(key.secret_sha256)
    await recorder.record(stores, "key.revoke", _resource(key), principal=key.principal_id)
    return replace(key, revoked_at=now)


async def accepted_key(stores: Stores, secret_sha256: bytes, *, now: datetime) -> tuple[Key, Principal]:
    """Return the key with this digest and whose it is; raise CredentialNotFoundError unless it signs in now."""
    key = await stores.keys.by_secret(secret_sha256)
    if not key.accepted(now):
        raise CredentialNotFoundError("This API key has expired. Ask for a new one.")
    return key, await stores.principals.get(key.workspace, key.principal_id)


def guard_lockout(unrevoked: Collection[Key], *, lost: Collection[Key], now: datetime) -> None:
    """Raise LastAdminKeyError when the lost keys are the last accepted ones with `governance.write`."""
    governing = {key.key_id for key in unrevoked if key.accepted(now) and GOVERNANCE_WRITE in key.scopes}
    losing = governing & {key.key_id for key in lost}
    if losing and losing == governing:
        raise LastAdminKeyError(
            "No other active key of this workspace has governance.write. Create one for another principal first.",
            metadata={"key_id": ",".join(sorted(losing))},
        )


def _resource(key: Key) -> str:
    return f"keys/{key.key_id}"
