"""Principals in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from counterfoil_chassis.clock import from_micros, to_micros
from sqlalchemy import ColumnElement, Row, and_, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_governance.entities import Principal, PrincipalKind
from counterfoil_governance.errors import PrincipalExistsError, PrincipalNotFoundError
from counterfoil_governance.sql.tables import PRINCIPALS


class SqlPrincipals:
    """Principals of one open connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def get(self, workspace: str, principal_id: str) -> Principal:
        """Return one principal; raise PrincipalNotFoundError when absent or in another workspace."""
        query = select(PRINCIPALS).where(_is(workspace, principal_id))
        row = (await self._connection.execute(query)).one_or_none()
        if row is None:
            raise PrincipalNotFoundError(
                f"There is no principal {principal_id!r} in this workspace.", metadata={"principal": principal_id}
            )
        return _principal(row)

    async def list(self, workspace: str, *, after: str, limit: int) -> Sequence[Principal]:
        """Return at most `limit` principals with ids above `after`, by id."""
        query = (
            select(PRINCIPALS)
            .where(PRINCIPALS.c.workspace == workspace, PRINCIPALS.c.principal_id > after)
            .order_by(PRINCIPALS.c.principal_id)
            .limit(limit)
        )
        return [_principal(row) for row in await self._connection.execute(query)]

    async def add(self, principal: Principal) -> None:
        """Keep a new principal; raise PrincipalExistsError when its id is taken."""
        values = {
            "workspace": principal.workspace,
            "principal_id": principal.principal_id,
            "display_name": principal.display_name,
            "kind": principal.kind.value,
            "created_at": to_micros(principal.created_at),
            "roles": " ".join(principal.roles),
        }
        try:
            await self._connection.execute(insert(PRINCIPALS).values(values))
        except IntegrityError as error:
            raise PrincipalExistsError(
                f"A principal {principal.principal_id!r} exists; ids are never used again. Choose another.",
                metadata={"principal": principal.principal_id},
            ) from error

    async def disable(self, workspace: str, principal_id: str, *, at: datetime) -> None:
        """Mark a principal as disabled."""
        await self._set_disabled(workspace, principal_id, to_micros(at))

    async def enable(self, workspace: str, principal_id: str) -> None:
        """Let a principal act again; the keys it had stay revoked."""
        await self._set_disabled(workspace, principal_id, None)

    async def set_roles(self, workspace: str, principal_id: str, *, roles: Sequence[str]) -> None:
        """Replace the roles of a principal."""
        await self._connection.execute(
            update(PRINCIPALS).where(_is(workspace, principal_id)).values(roles=" ".join(roles))
        )

    async def _set_disabled(self, workspace: str, principal_id: str, at: int | None) -> None:
        query = update(PRINCIPALS).where(_is(workspace, principal_id)).values(disabled_at=at)
        await self._connection.execute(query)


def _is(workspace: str, principal_id: str) -> ColumnElement[bool]:
    return and_(PRINCIPALS.c.workspace == workspace, PRINCIPALS.c.principal_id == principal_id)


def _principal(row: Row[Any]) -> Principal:
    return Principal(
        workspace=row.workspace,
        principal_id=row.principal_id,
        display_name=row.display_name,
        kind=PrincipalKind(row.kind),
        created_at=from_micros(row.created_at),
        disabled_at=None if row.disabled_at is None else from_micros(row.disabled_at),
        roles=tuple(row.roles.split()),
    )
