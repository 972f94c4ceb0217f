"""Policy bundles in SQL, and the feed of those in force."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from counterfoil_chassis.clock import from_micros, to_micros
from counterfoil_chassis.watch import Feed, record_put
from sqlalchemy import Row, Select, and_, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_governance.entities import BundleState, PolicyBundle
from counterfoil_governance.errors import PolicyBundleNotFoundError
from counterfoil_governance.messages import bundle_message
from counterfoil_governance.sql.tables import POLICY_BUNDLES, WORKSPACES

TOPIC: Final = "policy_bundles"
_columns = POLICY_BUNDLES.c


class SqlPolicyBundles:
    """Policy bundles of one open connection."""

    def __init__(self, connection: AsyncConnection, feed: Feed) -> None:
        self._connection = connection
        self._feed = feed

    async def get(self, workspace: str, version: int) -> PolicyBundle:
        """Return one version; raise PolicyBundleNotFoundError when there is none."""
        place = (_columns.workspace == workspace, _columns.version == version)
        return await self._one(select(POLICY_BUNDLES).where(*place), workspace=workspace, version=str(version))

    async def in_force(self, workspace: str) -> PolicyBundle:
        """Return the version in force; raise PolicyBundleNotFoundError when the workspace has none."""
        place = (_columns.workspace == workspace, _columns.state == BundleState.ACTIVE.value)
        return await self._one(select(POLICY_BUNDLES).where(*place), workspace=workspace, version="in force")

    async def newest_version(self, workspace: str) -> int:
        """Return the largest version of a workspace, 0 without any."""
        query = select(func.max(_columns.version)).where(_columns.workspace == workspace)
        return (await self._connection.execute(query)).scalar() or 0

    async def list(self, workspace: str, *, below: int | None, limit: int) -> Sequence[PolicyBundle]:
        """Return at most `limit` versions below one (None = from the newest), newest first."""
        query = select(POLICY_BUNDLES).where(_columns.workspace == workspace)
        if below is not None:
            query = query.where(_columns.version < below)
        query = query.order_by(_columns.version.desc()).limit(limit)
        return [_bundle(row) for row in await self._connection.execute(query)]

    async def workspaces_without(self) -> Sequence[str]:
        """Return the workspaces that have no bundle at all."""
        has = exists().where(_columns.workspace == WORKSPACES.c.workspace)
        query = select(WORKSPACES.c.workspace).where(~has).order_by(WORKSPACES.c.workspace)
        return [row.workspace for row in await self._connection.execute(query)]

    async def outdated(self, policies: str, schema: str, *, platform: str) -> Sequence[PolicyBundle]:
        """Return the bundles in force with another schema, and those that `platform` submitted with other policies."""
        other = or_(_columns.schema != schema, and_(_columns.created_by == platform, _columns.policies != policies))
        query = select(POLICY_BUNDLES).where(_columns.state == BundleState.ACTIVE.value, other)
        return [_bundle(row) for row in await self._connection.execute(query.order_by(_columns.workspace))]

    async def add(self, bundle: PolicyBundle) -> None:
        """Keep a new version."""
        values = {
            "workspace": bundle.workspace,
            "version": bundle.version,
            "state": bundle.state.value,
            "sha256": bundle.sha256,
            "policies": bundle.policies,
            "schema": bundle.schema,
            "created_by": bundle.created_by,
            "created_at": to_micros(bundle.created_at),
            "reason": bundle.reason,
            "change_id": bundle.change_id,
            "activated_at": None if bundle.activated_at is None else to_micros(bundle.activated_at),
        }
        await self._connection.execute(insert(POLICY_BUNDLES).values(values))

    async def set_state(self, bundle: PolicyBundle) -> None:
        """Replace the state of a version, and when it came in force."""
        place = (_columns.workspace == bundle.workspace, _columns.version == bundle.version)
        activated = None if bundle.activated_at is None else to_micros(bundle.activated_at)
        await self._connection.execute(
            update(POLICY_BUNDLES).where(*place).values(state=bundle.state.value, activated_at=activated)
        )

    async def publish(self, bundle: PolicyBundle) -> None:
        """Say that this version is in force."""
        resource = bundle_message(bundle, for_service=True)
        await record_put(self._connection, topic=TOPIC, key=bundle.workspace, resource=resource)
        self._feed.changed(self._connection)

    async def _one(self, query: Select[Any], *, workspace: str, version: str) -> PolicyBundle:
        row = (await self._connection.execute(query)).one_or_none()
        if row is None:
            raise PolicyBundleNotFoundError(
                f"This workspace has no policy bundle {version}.", metadata={"workspace": workspace, "version": version}
            )
        return _bundle(row)


def _bundle(row: Row[Any]) -> PolicyBundle:
    return PolicyBundle(
        workspace=row.workspace,
        version=row.version,
        state=BundleState(row.state),
        sha256=row.sha256,
        policies=row.policies,
        schema=row.schema,
        created_by=row.created_by,
        created_at=from_micros(row.created_at),
        reason=row.reason,
        change_id=row.change_id,
        activated_at=None if row.activated_at is None else from_micros(row.activated_at),
    )
