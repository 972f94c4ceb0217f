"""API keys in SQL: digests, never the keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from counterfoil_chassis.clock import from_micros, to_micros
from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_governance.entities import Key
from counterfoil_governance.errors import CredentialNotFoundError, KeyNotFoundError
from counterfoil_governance.sql.tables import KEYS


class SqlKeys:
    """API keys of one open connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def get(self, workspace: str, key_id: str) -> Key:
        """Return one key; raise KeyNotFoundError when absent or in another workspace."""
        query = select(KEYS).where(KEYS.c.workspace == workspace, KEYS.c.key_id == key_id)
        row = (await self._connection.execute(query)).one_or_none()
        if row is None:
            raise KeyNotFoundError(f"There is no key {key_id!r} in this workspace.", metadata={"key_id": key_id})
        return _key(row)

    async def list(self, workspace: str, *, principal_id: str, after: str, limit: int) -> Sequence[Key]:
        """Return at most `limit` keys with ids above `after`, by id; of all principals when `principal_id` is empty."""
        query = select(KEYS).where(KEYS.c.workspace == workspace, KEYS.c.key_id > after)
        if principal_id:
            query = query.where(KEYS.c.principal_id == principal_id)
        return [_key(row) for row in await self._connection.execute(query.order_by(KEYS.c.key_id).limit(limit))]

    async def unrevoked(self, workspace: str) -> Sequence[Key]:
        """Return the keys that were not revoked; some may have expired."""
        query = select(KEYS).where(KEYS.c.workspace == workspace, KEYS.c.revoked_at.is_(None))
        return [_key(row) for row in await self._connection.execute(query)]

    async def by_secret(self, secret_sha256: bytes) -> Key:
        """Return the unrevoked key with this digest, of any workspace; raise CredentialNotFoundError without one."""
        query = select(KEYS).where(KEYS.c.secret_sha256 == secret_sha256, KEYS.c.revoked_at.is_(None)).limit(1)
        row = (await self._connection.execute(query)).one_or_none()
        if row is None:
            raise CredentialNotFoundError("No accepted API key has this hash.")
        return _key(row)

    async def bootstrap(self) -> Key | None:
        """Return the key of the bootstrap setting that is in force, else the newest revoked one."""
        # The newest by id is not always the one in force: a clock may be set back between two starts.
        in_force_first = (KEYS.c.revoked_at.is_not(None), KEYS.c.key_id.desc())
        query = select(KEYS).where(KEYS.c.bootstrap).order_by(*in_force_first).limit(1)
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else _key(row)

    async def add(self, key: Key) -> None:
        """Keep a new key."""
        await self._connection.execute(
            insert(KEYS).values(
                workspace=key.workspace,
                key_id=key.key_id,
                principal_id=key.principal_id,
                display_name=key.display_name,
                scopes=" ".join(key.scopes),
                secret_sha256=key.secret_sha256,
                last_four=key.last_four,
                created_at=to_micros(key.created_at),
                expires_at=None if key.expires_at is None else to_micros(key.expires_at),
                bootstrap=key.bootstrap,
            )
        )

    async def revoke(self, workspace: str, key_id: str, *, at: datetime) -> None:
        """Mark a key as revoked."""
        await self._connection.execute(
            update(KEYS).where(KEYS.c.workspace == workspace, KEYS.c.key_id == key_id).values(revoked_at=to_micros(at))
        )

    async def set_scopes(self, workspace: str, key_id: str, *, scopes: Sequence[str]) -> None:
        """Replace the scopes of a key."""
        query = update(KEYS).where(KEYS.c.workspace == workspace, KEYS.c.key_id == key_id)
        await self._connection.execute(query.values(scopes=" ".join(scopes)))


def _key(row: Row[Any]) -> Key:
    return Key(
        workspace=row.workspace,
        key_id=row.key_id,
        principal_id=row.principal_id,
        display_name=row.display_name,
        scopes=tuple(row.scopes.split()),
        secret_sha256=row.secret_sha256,
        last_four=row.last_four,
        created_at=from_micros(row.created_at),
        expires_at=None if row.expires_at is None else from_micros(row.expires_at),
        revoked_at=None if row.revoked_at is None else from_micros(row.revoked_at),
        bootstrap=row.bootstrap,
    )
