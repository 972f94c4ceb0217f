"""Mappings and the graph's row in SQL."""

from __future__ import annotations

import orjson
from counterfoil_chassis.clock import from_micros, to_micros
from sqlalchemy import and_, case, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_graph.entities import MappingVersion
from counterfoil_graph.sql.batches import upsert
from counterfoil_graph.sql.tables import CHASSIS, DATASET, DERIVED, FORMER_MAPPINGS, GRAPH, MAPPING
from counterfoil_graph.store import CONSUMER


class SqlMappingStore:
    """See `store.MappingStore`."""

    def __init__(self, connection: AsyncConnection, workspace: str) -> None:
        self._connection = connection
        self._workspace = workspace

    async def in_force(self) -> list[MappingVersion]:
        """Return the newest version of each mapping, by id."""
        table = MAPPING.c
        newest = select(table.mapping_id, func.max(table.version).label("version"))
        newest_of = newest.where(table.workspace == self._workspace).group_by(table.mapping_id).subquery()
        same = and_(table.mapping_id == newest_of.c.mapping_id, table.version == newest_of.c.version)
        wanted = select(MAPPING).join(newest_of, same).where(table.workspace == self._workspace)
        rows = await self._connection.execute(wanted.order_by(table.mapping_id))
        return [
            MappingVersion(
                workspace=row.workspace,
                mapping_id=row.mapping_id,
                version=row.version,
                document=row.document,
                sha256=row.sha256,
                datasets=tuple(orjson.loads(row.datasets)),
                created_by=row.created_by,
                created_at=from_micros(row.created_at),
            )
            for row in rows
        ]

    async def add(self, version: MappingVersion) -> None:
        """Keep a version."""
        row = {
            "workspace": self._workspace,
            "mapping_id": version.mapping_id,
            "version": version.version,
            "document": version.document,
            "sha256": version.sha256,
            "datasets": orjson.dumps(version.datasets).decode(),
            "created_by": version.created_by,
            "created_at": to_micros(version.created_at),
        }
        await self._connection.execute(insert(MAPPING).values(row))

    async def datasets_seen(self) -> dict[str, int]:
        """Return the datasets that the log has shown, each with the offset of its first record."""
        wanted = select(DATASET.c.dataset, DATASET.c.first_offset).where(DATASET.c.workspace == self._workspace)
        return {row.dataset: row.first_offset for row in await self._connection.execute(wanted)}

    async def applied(self) -> str | None:
        """Return the hash of the mappings that the graph was made with, None when there is no graph."""
        wanted = select(GRAPH.c.mappings_sha256).where(GRAPH.c.workspace == self._workspace)
        found: str | None = (await self._connection.execute(wanted)).scalar()
        return found

    async def apply(self, mappings_sha256: str, *, rebuild: bool) -> None:
        """Say which mappings are in force; with `rebuild`, forget everything that was derived."""
        applied, reached = await self.applied(), await self._reached()
        row = {"workspace": self._workspace, "mappings_sha256": mappings_sha256}
        changed = {"mappings_sha256": mappings_sha256}
        made = upsert(self._connection.dialect.name, GRAPH)
        if not rebuild:
            kept = made.values(row | {"rebuild_until": 0})
            await self._connection.execute(kept.on_conflict_do_update(index_elements=["workspace"], set_=changed))
            if applied not in (None, mappings_sha256):
                former = {"workspace": self._workspace, "mappings_sha256": applied, "until_offset": reached}
                statement = upsert(self._connection.dialect.name, FORMER_MAPPINGS).values(former)
                await self._connection.execute(statement.on_conflict_do_nothing())
            return
        for table in DERIVED if applied == mappings_sha256 else (*DERIVED, FORMER_MAPPINGS):
            await self._connection.execute(delete(table).where(table.c.workspace == self._workspace))
        cursor = CHASSIS.cursor.c
        mine = and_(cursor.workspace == self._workspace, cursor.consumer == CONSUMER)
        await self._connection.execute(delete(CHASSIS.cursor).where(mine))
        kept = made.values(row | {"rebuild_until": reached})
        longer = case((GRAPH.c.rebuild_until > reached, GRAPH.c.rebuild_until), else_=reached)
        again = changed | {"rebuild_until": longer}
        await self._connection.execute(kept.on_conflict_do_update(index_elements=["workspace"], set_=again))

    async def end_rebuild(self) -> None:
        """Say that a rebuild has reached the head of the log, wherever that is now."""
        mine = GRAPH.c.workspace == self._workspace
        await self._connection.execute(update(GRAPH).where(mine).values(rebuild_until=0))

    async def _reached(self) -> int:
        cursor = CHASSIS.cursor.c
        mine = and_(cursor.workspace == self._workspace, cursor.consumer == CONSUMER)
        return (await self._connection.execute(select(cursor.next_offset).where(mine))).scalar() or 0
