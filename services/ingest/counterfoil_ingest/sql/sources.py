"""Sources and write keys in SQL; every change of a key reaches the watchers of credentials when it commits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson
from counterfoil.common.v1.credentials_pb2 import Credential
from counterfoil_chassis.clock import from_micros, to_timestamp
from counterfoil_chassis.database import Database
from counterfoil_chassis.watch import Feed, record_delete, record_put
from sqlalchemy import Row, and_, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_ingest.entities import Arrived, Source, SourceMapping, WriteKey
from counterfoil_ingest.errors import SourceNotFoundError
from counterfoil_ingest.sources import SCOPE, principal_of
from counterfoil_ingest.sql.tables import SOURCE, SOURCE_COUNT, SOURCE_KEY

TOPIC: Final = "credentials"
_COUNTS = [SOURCE_COUNT.c.events, SOURCE_COUNT.c.first_received_at, SOURCE_COUNT.c.last_received_at]
_OF_SOURCE = and_(SOURCE_COUNT.c.workspace == SOURCE.c.workspace, SOURCE_COUNT.c.source_id == SOURCE.c.source_id)
_WITH_COUNTS = select(*[*SOURCE.c, *_COUNTS]).outerjoin_from(SOURCE, SOURCE_COUNT, _OF_SOURCE)


class SqlSources:
    """The sources of one transaction."""

    def __init__(self, connection: AsyncConnection, feed: Feed) -> None:
        self.connection = connection
        self._feed = feed

    async def add(self, source: Source) -> None:
        """Keep a new source."""
        mappings = [[each.type, each.event, each.dataset] for each in source.mappings]
        await self.connection.execute(
            insert(SOURCE).values(
                workspace=source.workspace,
                source_id=source.source_id,
                display_name=source.display_name,
                protocol=source.protocol,
                mappings=orjson.dumps(mappings).decode(),
                write_key_last_four=source.write_key_last_four,
                created_at=source.created_at,
            )
        )

    async def get(self, workspace: str, source_id: str) -> Source:
        """Return one source; raise SourceNotFoundError when absent or in another workspace."""
        found = await self.connection.execute(_WITH_COUNTS.where(_is(workspace, source_id)))
        row = found.first()
        if row is None:
            raise SourceNotFoundError(
                f"No source {source_id!r} in this workspace. List the sources for their ids.",
                metadata={"source_id": source_id},
            )
        return _source(row)

    async def list(self, workspace: str, *, after: str, limit: int) -> Sequence[Source]:
        """Return the sources after an id, by id."""
        found = await self.connection.execute(
            _WITH_COUNTS.where(SOURCE.c.workspace == workspace, SOURCE.c.source_id > after)
            .order_by(SOURCE.c.source_id)
            .limit(limit)
        )
        return [_source(row) for row in found]

    async def add_key(self, key: WriteKey, *, last_four: str) -> None:
        """Accept a new write key and show its end on its source."""
        await self.connection.execute(
            insert(SOURCE_KEY).values(
                workspace=key.workspace,
                source_id=key.source_id,
                secret_sha256=key.secret_sha256,
                valid_until=key.valid_until,
            )
        )
        await self.connection.execute(
            update(SOURCE).where(_is(key.workspace, key.source_id)).values(write_key_last_four=last_four)
        )
        await self._publish(key)

    async def keys(self, workspace: str, source_id: str) -> Sequence[WriteKey]:
        """Return every key of a source."""
        found = await self.connection.execute(
            select(SOURCE_KEY).where(SOURCE_KEY.c.workspace == workspace, SOURCE_KEY.c.source_id == source_id)
        )
        return [_key(row) for row in found]

    async def find_key(self, secret_sha256: bytes) -> WriteKey | None:
        """Return the key with this hash, whatever its end."""
        found = await self.connection.execute(select(SOURCE_KEY).where(SOURCE_KEY.c.secret_sha256 == secret_sha256))
        row = found.first()
        return None if row is None else _key(row)

    async def end_key(self, key: WriteKey, *, valid_until: int) -> None:
        """Let a key end at a time."""
        await self.connection.execute(update(SOURCE_KEY).where(_is_key(key)).values(valid_until=valid_until))
        await self._publish(WriteKey(key.secret_sha256, key.workspace, key.source_id, valid_until))

    async def drop_key(self, key: WriteKey) -> None:
        """Accept a key no longer."""
        await self.connection.execute(delete(SOURCE_KEY).where(_is_key(key)))
        await record_delete(self.connection, topic=TOPIC, key=key.secret_sha256.hex())
        self._feed.changed(self.connection)

    async def _publish(self, key: WriteKey) -> None:
        resource = credential_of(key)
        await record_put(self.connection, topic=TOPIC, key=key.secret_sha256.hex(), resource=resource)
        self._feed.changed(self.connection)


class SqlSourceTransactions:
    """Transactions whose changes of write keys reach the feed's watchers once they commit."""

    def __init__(self, database: Database, feed: Feed) -> None:
        self._database = database
        self._feed = feed

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[SqlSources]:
        """Open a transaction that writes; it commits at exit and rolls back on an error."""
        async with self._database.begin() as connection:
            yield SqlSources(connection, self._feed)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[SqlSources]:
        """Open a transaction that reads one state."""
        async with self._database.read() as connection:
            yield SqlSources(connection, self._feed)


def credential_of(key: WriteKey) -> Credential:
    """Return what a gateway needs to recognise a write key."""
    return Credential(
        secret_sha256=key.secret_sha256,
        credential_id=key.source_id,
        workspace=key.workspace,
        principal=principal_of(key.source_id),
        scopes=[SCOPE],
        expires_at=to_timestamp(from_micros(key.valid_until)) if key.valid_until else None,
    )


def _is(workspace: str, source_id: str) -> Any:
    return and_(SOURCE.c.workspace == workspace, SOURCE.c.source_id == source_id)


def _is_key(key: WriteKey) -> Any:
    return and_(
        SOURCE_KEY.c.workspace == key.workspace,
        SOURCE_KEY.c.source_id == key.source_id,
        SOURCE_KEY.c.secret_sha256 == key.secret_sha256,
    )


def _source(row: Row[Any]) -> Source:
    return Source(
        workspace=row.workspace,
        source_id=row.source_id,
        display_name=row.display_name,
        protocol=row.protocol,
        write_key_last_four=row.write_key_last_four,
        created_at=row.created_at,
        mappings=tuple(SourceMapping(*each) for each in orjson.loads(row.mappings)),
        arrived=None if row.events is None else Arrived(row.events, row.first_received_at, row.last_received_at),
    )


def _key(row: Row[Any]) -> WriteKey:
    return WriteKey(row.secret_sha256, row.workspace, row.source_id, row.valid_until)
