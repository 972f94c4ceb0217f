"""Workspaces: who sees which, and what may change."""

from __future__ import annotations

import functools
import zoneinfo
from collections.abc import Collection
from dataclasses import asdict, replace
from datetime import datetime
from typing import Final

from counterfoil_chassis.errors import EtagMismatchError, FieldViolation

from counterfoil_governance.entities import Key, Principal, PrincipalKind, Quotas, Workspace
from counterfoil_governance.errors import TimezoneUnknownError, UpdateMaskError, WorkspaceNotFoundError
from counterfoil_governance.policy_shipping import ship_bundle
from counterfoil_governance.recording import Recorder
from counterfoil_governance.scopes import WORKSPACE_SCOPES
from counterfoil_governance.store import Stores

DEFAULT_TIMEZONE: Final = "UTC"
ADMIN: Final = "admin"
CHANGEABLE: Final = frozenset({"display_name", "timezone"})


@functools.cache
def _timezones() -> frozenset[str]:
    # Membership is safe where ZoneInfo(name) is not: it opens a file by that name and, on some systems, a directory.
    return frozenset(zoneinfo.available_timezones())


def check_timezone(name: str) -> str:
    """Return the IANA name, `UTC` for an empty one; raise TimezoneUnknownError for any other text."""
    if name and name not in _timezones():
        raise TimezoneUnknownError(
            f"{name!r} is no IANA timezone. Say a name such as UTC or America/New_York.",
            violations=[FieldViolation("timezone", "TIMEZONE_UNKNOWN", "must be an IANA timezone name")],
        )
    return name or DEFAULT_TIMEZONE


async def create_workspace(
    stores: Stores, *, workspace_id: str, display_name: str, timezone: str, first_key: Key, recorder: Recorder
) -> Workspace:
    """Create a workspace with its principal `admin`, that principal's first key, and the policies of the platform.

    Written down twice: in its own log, and in that of who made it.
    """
    now = recorder.now
    workspace = Workspace(workspace_id, display_name or workspace_id, check_timezone(timezone), now)
    await stores.workspaces.add(workspace)
    await stores.principals.add(Principal(workspace_id, ADMIN, "Administrator", PrincipalKind.HUMAN, now))
    await stores.keys.add(first_key)
    await stores.credentials.put(first_key, roles=())
    await ship_bundle(stores, workspace=workspace_id, now=now)
    for log in (recorder.workspace, workspace_id):
        await recorder.record(
            stores, "workspace.create", f"workspaces/{workspace_id}", workspace=log, by_workspace=recorder.workspace
        )
    await recorder.record(
        stores, "key.create", f"keys/{first_key.key_id}", workspace=workspace_id, scopes=list(first_key.scopes)
    )
    return workspace


def first_key(*, workspace_id: str, key_id: str, secret_sha256: bytes, last_four: str, now: datetime) -> Key:
    """Return the key that a new workspace's `admin` gets: every scope but `platform.admin`."""
    return Key(
        workspace=workspace_id,
        key_id=key_id,
        principal_id=ADMIN,
        display_name="First key",
        scopes=tuple(sorted(WORKSPACE_SCOPES)),
        secret_sha256=secret_sha256,
        last_four=last_four,
        created_at=now,
    )


async def visible_workspace(stores: Stores, workspace_id: str, *, own: str, service: str) -> Workspace:
    """Return a workspace: any for a service acting for itself, otherwise only the caller's own.

    Raises WorkspaceNotFoundError for another's as for none, so that ids cannot be probed.
    """
    if not service and workspace_id != own:
        raise WorkspaceNotFoundError(
            f"There is no workspace {workspace_id!r} that this key can see.", metadata={"workspace": workspace_id}
        )
    return await stores.workspaces.get(workspace_id)


async def update_workspace(
    stores: Stores, wanted: Workspace, *, paths: Collection[str], etag: str, recorder: Recorder
) -> Workspace:
    """Change the named fields of the caller's workspace, only when it still has the etag (if one is given).

    An emptied name becomes the id, an emptied timezone `UTC`, as at creation.
    Raises UpdateMaskError, EtagMismatchError, TimezoneUnknownError, WorkspaceNotFoundError.
    """
    if unknown := sorted(set(paths) - CHANGEABLE):
        raise UpdateMaskError(
            f"{', '.join(unknown)} cannot be changed; update_mask takes display_name and timezone.",
            violations=[FieldViolation("update_mask", "UPDATE_MASK_INVALID", f"cannot change {p}") for p in unknown],
        )
    current = await visible_workspace(stores, wanted.workspace_id, own=recorder.workspace, service="")
    _require_etag(current, etag)
    changed = current
    if "display_name" in paths:
        changed = replace(changed, display_name=wanted.display_name or wanted.workspace_id)
    if "timezone" in paths:
        changed = replace(changed, timezone=check_timezone(wanted.timezone))
    if changed != current:
        await stores.workspaces.change(changed)
        await recorder.record(
            stores, "workspace.update", f"workspaces/{changed.workspace_id}", fields=sorted(set(paths))
        )
    return changed


async def set_quotas(stores: Stores, workspace_id: str, *, quotas: Quotas, etag: str, recorder: Recorder) -> Workspace:
    """Set what any workspace may use, only when it still has the etag (if one is given).

    Written down in its own log and in that of who did it. Raises WorkspaceNotFoundError, EtagMismatchError.
    """
    current = await stores.workspaces.get(workspace_id)
    _require_etag(current, etag)
    changed = replace(current, quotas=quotas)
    if changed != current:
        await stores.workspaces.change(changed)
        for log in sorted({recorder.workspace, workspace_id}):
            await recorder.record(
                stores,
                "workspace.set_quotas",
                f"workspaces/{workspace_id}",
                workspace=log,
                by_workspace=recorder.workspace,
                **asdict(quotas),
            )
    return changed


def _require_etag(current: Workspace, etag: str) -> None:
    if etag and etag != current.etag:
        raise EtagMismatchError(
            "The workspace changed since you read it. Get it again and send its present etag.",
            metadata={"etag": current.etag},
        )
