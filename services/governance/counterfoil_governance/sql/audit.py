"""The audit logs in SQL; triggers refuse any change of what was added."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from counterfoil_chassis.database import Database
from sqlalchemy import ColumnElement, LargeBinary, Select, Table, cast, func, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_governance.entities import AuditEntry, AuditHead, AuditQuery, KeptCheckpoint, TreeNode
from counterfoil_governance.errors import AuditBrokenError
from counterfoil_governance.sql.tables import AUDIT_CHECKPOINTS, AUDIT_ENTRIES, AUDIT_HEADS, AUDIT_NODES

PAGE_ROWS: Final = 2_000


class SqlAudit:
    """The audit logs of one open connection; `due` gets a workspace once its log wants a checkpoint."""

    def __init__(self, connection: AsyncConnection, database: Database, due: asyncio.Queue[str]) -> None:
        self._connection = connection
        self._database = database
        self._due = due

    async def head(self, workspace: str) -> AuditHead:
        """Return how long a log is; a workspace without a log has an empty one."""
        return await self._head(workspace) or AuditHead(workspace, 0, 0)

    async def lock(self, workspace: str) -> AuditHead:
        """Return the head, and let nobody else add to the log until the transaction ends.

        On SQLite the write transaction is the lock, on PostgreSQL the head's row.
        """
        head = await self._head(workspace, lock=True)
        if head is not None:
            return head
        postgres = self._connection.dialect.name == "postgresql"
        row = (postgresql.insert if postgres else sqlite.insert)(AUDIT_HEADS)
        values = {"workspace": workspace, "size": 0, "checkpoints": 0}
        await self._connection.execute(row.values(values).on_conflict_do_nothing())
        return await self._head(workspace, lock=True) or AuditHead(workspace, 0, 0)

    async def _head(self, workspace: str, *, lock: bool = False) -> AuditHead | None:
        query = select(AUDIT_HEADS).where(AUDIT_HEADS.c.workspace == workspace)
        row = (await self._connection.execute(query.with_for_update() if lock else query)).one_or_none()
        return None if row is None else AuditHead(row.workspace, row.size, row.checkpoints)

    async def hashes(self, workspace: str, places: Sequence[tuple[int, int]]) -> Mapping[tuple[int, int], bytes]:
        """Return the stored hashes at these (level, index); one that is missing is left out."""
        leaves = [index for level, index in places if level == 0]
        nodes = [place for place in places if place[0] > 0]
        found: dict[tuple[int, int], bytes] = {}
        if leaves:
            table = AUDIT_ENTRIES.c
            query = select(table.index, table.leaf).where(table.workspace == workspace, table.index.in_(leaves))
            found |= {(0, row[0]): row[1] for row in await self._connection.execute(query)}
        if nodes:
            table = AUDIT_NODES.c
            wanted = tuple_(table.level, table.index).in_(nodes)
            query = select(table.level, table.index, table.hash).where(table.workspace == workspace, wanted)
            found |= {(row[0], row[1]): row[2] for row in await self._connection.execute(query)}
        return found

    async def known(self, workspace: str, entry_ids: Sequence[str]) -> Mapping[str, AuditEntry]:
        """Return the entries that have these ids, by id."""
        query = self._entries(workspace).where(AUDIT_ENTRIES.c.entry_id.in_(entry_ids))
        found = [_entry(row) for row in await self._connection.execute(query)]
        return {entry.entry_id: entry for entry in found}

    async def list(self, workspace: str, *, query: AuditQuery, after: int | None, limit: int) -> Sequence[AuditEntry]:
        """Return at most `limit` entries behind the index `after`, in the order asked for."""
        table = AUDIT_ENTRIES.c
        wanted = self._entries(workspace).order_by(table.index.desc() if query.newest_first else table.index)
        if query.resource:
            wanted = wanted.where(table.resource == query.resource)
        if query.principal:
            wanted = wanted.where(table.principal == query.principal)
        if after is not None:
            wanted = wanted.where(table.index < after if query.newest_first else table.index > after)
        return [_entry(row) for row in await self._connection.execute(wanted.limit(limit))]

    async def add(
        self, head: AuditHead, entries: Sequence[AuditEntry], nodes: Sequence[TreeNode], *, checkpoint_due: bool
    ) -> None:
        """Append entries, and the nodes they complete, to a locked log; raise AuditBrokenError for a taken place.

        Once it commits, whoever signs checkpoints hears of it when one is due.
        """
        grown = update(AUDIT_HEADS).where(AUDIT_HEADS.c.workspace == head.workspace)
        try:
            await self._insert(AUDIT_ENTRIES, head.workspace, entries)
            await self._insert(AUDIT_NODES, head.workspace, nodes)
        except IntegrityError as error:
            raise AuditBrokenError(
                "The audit log has entries behind its end. Verify an export of it before anything else.",
                metadata={"workspace": head.workspace, "size": str(head.size)},
            ) from error
        await self._connection.execute(grown.values(size=head.size + len(entries)))
        if checkpoint_due:
            self._database.after_commit(self._connection, partial(self._due.put_nowait, head.workspace))

    async def _insert(self, table: Table, workspace: str, items: Sequence[object]) -> None:
        if items:
            values = [{"workspace": workspace, **vars(item)} for item in items]
            await self._connection.execute(insert(table), values)

    async def checkpoint(self, workspace: str) -> KeptCheckpoint | None:
        """Return the newest checkpoint, or None."""
        query = self._checkpoints(workspace).order_by(AUDIT_CHECKPOINTS.c.number.desc()).limit(1)
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else _checkpoint(row)

    async def add_checkpoint(self, head: AuditHead, checkpoint: KeptCheckpoint) -> None:
        """Keep a new checkpoint of a locked log."""
        await self._insert(AUDIT_CHECKPOINTS, head.workspace, [checkpoint])
        counted = update(AUDIT_HEADS).where(AUDIT_HEADS.c.workspace == head.workspace)
        await self._connection.execute(counted.values(checkpoints=head.checkpoints + 1))

    async def stored_entries(self, workspace: str) -> AsyncIterator[Sequence[AuditEntry]]:
        """Yield all entries by index, in pages, as they stand: to be verified, not trusted."""
        async for rows in self._pages(self._entries(workspace).order_by(AUDIT_ENTRIES.c.index)):
            yield [_entry(row) for row in rows]

    async def stored_nodes(self, workspace: str) -> AsyncIterator[Sequence[TreeNode]]:
        """Yield all nodes in the same way."""
        table = AUDIT_NODES.c
        query = select(table.level, table.index, table.hash).where(table.workspace == workspace)
        async for rows in self._pages(query.order_by(table.level, table.index)):
            yield [TreeNode(_whole(level), _whole(index), bytes(digest)) for level, index, digest in rows]

    async def stored_checkpoints(self, workspace: str) -> AsyncIterator[Sequence[KeptCheckpoint]]:
        """Yield all checkpoints in the same way."""
        async for rows in self._pages(self._checkpoints(workspace).order_by(AUDIT_CHECKPOINTS.c.number)):
            yield [_checkpoint(row) for row in rows]

    async def _pages(self, query: Select[Any]) -> AsyncIterator[Sequence[Any]]:
        async with self._connection.stream(query) as result:
            async for rows in result.partitions(PAGE_ROWS):
                yield rows

    def _entries(self, workspace: str) -> Select[Any]:
        table = AUDIT_ENTRIES.c
        texts = [self._bytes(column) for column in (table.entry_id, table.principal, table.resource)]
        return select(table.index, *texts, table.body, table.leaf).where(table.workspace == workspace)

    def _checkpoints(self, workspace: str) -> Select[Any]:
        table = AUDIT_CHECKPOINTS.c
        texts = [self._bytes(column) for column in (table.note, table.verifier_key)]
        return select(table.number, table.tree_size, *texts).where(table.workspace == workspace)

    def _bytes(self, text: ColumnElement[str]) -> ColumnElement[bytes]:
        """Read a text as its bytes: one that is no UTF-8 any more is a finding, not a failure to read."""
        name = text.key or ""
        if self._connection.dialect.name == "postgresql":
            return func.convert_to(text, "UTF8", type_=LargeBinary).label(name)
        return cast(text, LargeBinary).label(name)


def _entry(row: Any) -> AuditEntry:
    index, entry_id, principal, resource, body, leaf = row  # by place: a row's `index` is tuple's own
    return AuditEntry(_whole(index), _text(entry_id), _text(principal), _text(resource), bytes(body), bytes(leaf))


def _checkpoint(row: Any) -> KeptCheckpoint:
    return KeptCheckpoint(_whole(row.number), _whole(row.tree_size), _text(row.note), _text(row.verifier_key))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _whole(value: Any) -> int:
    """Return an integer column's value; SQLite keeps whatever was written to it, and -1 is no index."""
    return value if type(value) is int else -1
