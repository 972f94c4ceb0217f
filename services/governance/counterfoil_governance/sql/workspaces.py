"""Workspaces in SQL."""

from __future__ import annotations

from typing import Any

from counterfoil_chassis.clock import from_micros, to_micros
from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_governance.entities import Workspace
from counterfoil_governance.errors import WorkspaceExistsError, WorkspaceNotFoundError
from counterfoil_governance.sql.tables import WORKSPACES


class SqlWorkspaces:
    """Workspaces of one open connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

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
        """Replace the name and timezone of the workspace with this id."""
        await self._connection.execute(
            update(WORKSPACES)
            .where(WORKSPACES.c.workspace == workspace.workspace_id)
            .values(display_name=workspace.display_name, timezone=workspace.timezone)
        )

    async def any(self) -> bool:
        """Tell whether there is a workspace at all."""
        return (await self._connection.execute(select(WORKSPACES.c.workspace).limit(1))).first() is not None


def _workspace(row: Row[Any]) -> Workspace:
    return Workspace(row.workspace, row.display_name, row.timezone, from_micros(row.created_at))
