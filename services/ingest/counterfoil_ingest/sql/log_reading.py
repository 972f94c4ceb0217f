"""The log's blocks for a process that only reads: it needs no lease, and takes what is committed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from counterfoil_ingest import blocks
from counterfoil_ingest.entities import Block
from counterfoil_ingest.sql.log_sqlite import SqliteReaders


class Readers(Protocol):
    """How an engine reads."""

    def read_blocks(self, workspace: str, partition: int, from_offset: int, *, max_bytes: int) -> list[tuple[Any, ...]]:
        """Return the rows of the next blocks as `Log.read` does, from any thread."""
        ...


class BlockReader:
    """Reads blocks; see `Log.read`."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    def read(self, workspace: str, partition: int, from_offset: int, *, max_bytes: int = 4 << 20) -> list[Block]:
        """Return the next blocks from the one that holds `from_offset` on."""
        rows = self._readers.read_blocks(workspace, partition, from_offset, max_bytes=max_bytes)
        return [block_of(row) for row in rows]


def block_of(row: tuple[Any, ...]) -> Block:
    """Return a block as it is stored: workspace, partition, first offset, count, layout, payload, headers."""
    workspace, partition, first_offset, count, layout, payload, headers = row
    return Block(workspace, partition, first_offset, count, layout, payload, blocks.decode_headers(headers))


def open_blocks(engine: str, where: str) -> BlockReader:
    """Open the blocks of a database that `log.found_at` has named."""
    if engine == "sqlite":
        return BlockReader(SqliteReaders(Path(where)))
    from counterfoil_ingest.sql.log_postgresql import PostgresqlReaders  # noqa: PLC0415 - SQLite needs no such driver

    return BlockReader(PostgresqlReaders(where))
