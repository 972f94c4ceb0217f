"""The first workspace, principal and key of an installation."""

from __future__ import annotations

import enum
from dataclasses import replace
from datetime import datetime
from typing import Final

from counterfoil_chassis.identity import Caller

from counterfoil_governance.entities import Key, Principal, PrincipalKind, Workspace
from counterfoil_governance.policy_shipping import let_in, ship_bundle
from counterfoil_governance.recording import Recorder
from counterfoil_governance.scopes import ALL_SCOPES, bounded
from counterfoil_governance.store import Stores
from counterfoil_governance.workspaces import ADMIN, DEFAULT_TIMEZONE

DEFAULT_WORKSPACE: Final = "default"


class BootstrapOutcome(enum.Enum):
    """What the bootstrap found or did; the value is the line for the log."""

    NO_KEY = (
        "there is no workspace and no bootstrap key, so nobody can sign in: set "
        "COUNTERFOIL_GOVERNANCE_BOOTSTRAP_KEY_SHA256 to the hex SHA-256 of a key and start again"
    )
    CREATED = "created workspace default with principal admin and the bootstrap key"
    REPLACED = "the bootstrap setting changed: replaced the bootstrap key"
    WIDENED = "the bootstrap key gained the scopes that this release brings"
    UNCHANGED = "workspaces exist; bootstrap changed nothing"


async def bootstrap(stores: Stores, *, secret_sha256: bytes | None, recorder: Recorder) -> BootstrapOutcome:
    """Make an empty installation usable, or replace the bootstrap key when the setting holds another hash.

    Replacing revokes the old bootstrap key at once, accepts the new one and lets `admin` act again, bound by no role:
    whoever sets the environment can always get in, also where the policies in force would not let it govern. A
    bootstrap key that was revoked by hand stays revoked while the setting stays the same. One in force gains the scopes
    that a newer release brought, within the roles of `admin`. Without a setting nothing ever changes.
    """
    now = recorder.now
    empty = not await stores.workspaces.any()
    if secret_sha256 is None:
        return BootstrapOutcome.NO_KEY if empty else BootstrapOutcome.UNCHANGED
    if empty:
        await stores.workspaces.add(Workspace(DEFAULT_WORKSPACE, "Default", DEFAULT_TIMEZONE, now))
        await ship_bundle(stores, workspace=DEFAULT_WORKSPACE, now=now)
        await stores.principals.add(Principal(DEFAULT_WORKSPACE, ADMIN, "Administrator", PrincipalKind.HUMAN, now))
        await recorder.record(stores, "workspace.create", f"workspaces/{DEFAULT_WORKSPACE}")
    old = await stores.keys.bootstrap()
    if old is not None and old.secret_sha256 == secret_sha256:
        return await _widen(stores, old, recorder=recorder)
    if old is not None and old.revoked_at is None:
        await stores.keys.revoke(old.workspace, old.key_id, at=now)
        await stores.credentials.delete(old.secret_sha256)
        await recorder.record(stores, "key.revoke", f"keys/{old.key_id}", principal=ADMIN)
    await stores.principals.enable(DEFAULT_WORKSPACE, ADMIN)
    await stores.principals.set_roles(DEFAULT_WORKSPACE, ADMIN, roles=())
    key = _bootstrap_key(key_id=recorder.ids.new(), secret_sha256=secret_sha256, now=now)
    await stores.keys.add(key)
    await stores.credentials.put(key, roles=())
    await recorder.record(stores, "key.create", f"keys/{key.key_id}", principal=ADMIN, scopes=list(key.scopes))
    if empty:
        return BootstrapOutcome.CREATED
    await let_in(stores, Caller(DEFAULT_WORKSPACE, ADMIN, ALL_SCOPES, ""), recorder=recorder)
    return BootstrapOutcome.REPLACED


async def _widen(stores: Stores, key: Key, *, recorder: Recorder) -> BootstrapOutcome:
    if key.revoked_at is not None:
        return BootstrapOutcome.UNCHANGED
    roles = (await stores.principals.get(key.workspace, key.principal_id)).roles
    scopes = bounded(ALL_SCOPES, roles=roles)
    if scopes == key.scopes:
        return BootstrapOutcome.UNCHANGED
    await stores.keys.set_scopes(key.workspace, key.key_id, scopes=scopes)
    await stores.credentials.put(replace(key, scopes=scopes), roles=roles)
    await recorder.record(stores, "key.widen", f"keys/{key.key_id}", principal=ADMIN, scopes=list(scopes))
    return BootstrapOutcome.WIDENED


def _bootstrap_key(*, key_id: str, secret_sha256: bytes, now: datetime) -> Key:
    return Key(
        workspace=DEFAULT_WORKSPACE,
        key_id=key_id,
        principal_id=ADMIN,
        display_name="Bootstrap key",
        scopes=tuple(sorted(ALL_SCOPES)),
        secret_sha256=secret_sha256,
        last_four="",
        created_at=now,
        bootstrap=True,
    )
