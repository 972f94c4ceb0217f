"""Workspaces in SQL."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from counterfoil.governance.v1 import workspaces_pb2 as pb
from counterfoil_chassis.clock import from_micros, to_micros, to_timestamp
from counterfoil_chassis.watch import Feed, record_delete, record_put
from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_governance.entities import Quotas, Workspace
from counterfoil_governance.errors import WorkspaceExistsError, WorkspaceNotFoundError
from counterfoil_governance.sql.tables import WORKSPACES

TOPIC: Final = "workspaces"


class SqlWorkspaces:
    """Workspaces of one open connection; those with quotas are watched."""

    def __init__(self, connection: AsyncConnection, feed: Feed) -> None:
        self._connection = connection
        self._feed = feed

    async def get(self, workspace: str) -> Workspace:
        """Return one workspace; raise WorkspaceNotFoundError when there is none."""
        query = select(WORKSPACES).where(WORKSPACES.c.workspace == workspace)
        row = (await self._connection.execute(query)).one_or_none()
        if row is None:
            raise WorkspaceNotFoundError(f"There is no workspace {workspace!r}.", metadata={"workspace": workspace})
        return _workspace(row)

    async def add(self, workspace: Workspace) -> None:
        """Keep a new workspace; raise WorkspaceExistsError when its id is taken."""
        values = {
            "workspace": workspace.workspace_id,
            "display_name": workspace.display_name,
            "timezone": workspace.timezone,
            "created_at": to_micros(workspace.created_at),
        }
        try:
            await self._connection.execute(insert(WORKSPACES).values(values))
        except IntegrityError as error:
            raise WorkspaceExistsError(
                f"A workspace {workspace.workspace_id!r} exists. Choose another id.",
                metadata={"workspace": workspace.workspace_id},
            ) from error

    async def change(self, workspace: Workspace) -> None:
        """Replace the name, timezone and quotas of the workspace with this id."""
        before = await self.get(workspace.workspace_id)
        await self._connection.execute(
            update(WORKSPACES)
            .where(WORKSPACES.c.workspace == workspace.workspace_id)
            .values(display_name=workspace.display_name, timezone=workspace.timezone, **asdict(workspace.quotas))
        )
        if workspace.quotas != Quotas():
            await record_put(
                self._connection, topic=TOPIC, key=workspace.workspace_id, resource=workspace_message(workspace)
            )
        elif before.quotas != Quotas():
            await record_delete(self._connection, topic=TOPIC, key=workspace.workspace_id)
        self._feed.changed(self._connection)

    async def any(self) -> bool:
        """Tell whether there is a workspace at all."""
        return (await self._connection.execute(select(WORKSPACES.c.workspace).limit(1))).first() is not None


def _workspace(row: Row[Any]) -> Workspace:
    quotas = Quotas(row.requests_per_second, row.event_requests_per_second, row.records_per_day, row.stored_bytes)
    return Workspace(row.workspace, row.display_name, row.timezone, from_micros(row.created_at), quotas)


def workspace_message(workspace: Workspace) -> pb.Workspace:
    """Return the workspace as callers and watchers see it."""
    return pb.Workspace(
        workspace_id=workspace.workspace_id,
        display_name=workspace.display_name,
        timezone=workspace.timezone,
        created_at=to_timestamp(workspace.created_at),
        etag=workspace.etag,
        quotas=pb.Quotas(**asdict(workspace.quotas)) if workspace.quotas != Quotas() else None,
    )
