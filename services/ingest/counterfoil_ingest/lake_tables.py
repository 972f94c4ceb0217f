"""A table of the lake as who reads it sees it, and how it and its columns are told from one process to another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa

from counterfoil_ingest.arrow import LakeColumn
from counterfoil_ingest.registry import ColumnType

CURSOR_FILE = "_cursor.json"
"""Lies beside the tables of a workspace; where it is gone, they are written again."""


@dataclass(frozen=True, slots=True)
class LakeFile:
    """One Parquet file of a table with the range of what it holds; `version` is set when all its rows share one.

    The table knows it by `name`; it is read at `path`.
    """

    name: str
    path: str
    day: date
    rows: int
    first_partition: int
    last_partition: int
    first_offset: int
    last_offset: int
    contract_version: str | None


@dataclass(frozen=True, slots=True)
class LakeTable:
    """One table at one moment: its files stay readable for an hour after a compaction has replaced them."""

    dataset: str
    schema: pa.Schema
    files: tuple[LakeFile, ...]


def told_table(table: LakeTable) -> tuple[dict[str, Any], bytes]:
    """Return a table as a message tells it, and the bytes of its schema."""
    return {"dataset": table.dataset, "files": table.files}, table.schema.serialize().to_pybytes()


def table_of(told: dict[str, Any], schema: bytes) -> LakeTable:
    """Return a table that was told."""
    files = (LakeFile(**each | {"day": date.fromisoformat(each["day"])}) for each in told["files"])
    return LakeTable(told["dataset"], pa.ipc.read_schema(pa.py_buffer(schema)), tuple(files))


def told_columns(columns: Iterable[LakeColumn]) -> list[Sequence[Any]]:
    """Return columns as a message tells them."""
    return [(each.name, each.type.value, each.timezone) for each in columns]


def columns_of(told: Iterable[Sequence[Any]]) -> list[LakeColumn]:
    """Return columns that were told."""
    return [LakeColumn(name, ColumnType(kind), timezone) for name, kind, timezone in told]
