"""What a query sees of a dataset: a view of its files, with what the caller may not see left out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import pyarrow as pa

from counterfoil_ingest.arrow import DAY, SYSTEM_SCHEMA
from counterfoil_ingest.lake_tables import LakeTable
from counterfoil_ingest.masking import Mask, MaskedField, steps
from counterfoil_ingest.registry import ColumnType, Compiled
from counterfoil_ingest.snapshots import Snapshot
from counterfoil_ingest.sql_text import literal, quoted

_SQL_TYPES: Final = {
    pa.string(): "VARCHAR",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.date32(): "DATE",
    pa.timestamp("us", "UTC"): "TIMESTAMPTZ",
}


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a query sees of one dataset; `json` are its columns that hold JSON text."""

    snapshot: Snapshot
    schema: pa.Schema
    table: LakeTable | None
    json: frozenset[str] = frozenset()
    masked: tuple[MaskedField, ...] = ()


def json_columns(compiled: Compiled | None) -> frozenset[str]:
    """Return the columns of a contract that hold JSON text."""
    columns = compiled.columns if compiled else ()
    return frozenset(column.name for column in columns if column.type is ColumnType.JSON)


def view_of(dataset: Dataset, *, key: str, ordered: bool) -> str:
    """Return the SELECT of a dataset: its rows below the snapshot's offsets, with every column there is.

    `key` is that of pseudonyms. `ordered` rows come in the order of the log, so that what depends on an order is the
    same at another time.
    """
    files = [literal(file.path) for file in dataset.table.files] if dataset.table else []
    present = set(dataset.table.schema.names) if files and dataset.table else set()
    shown = ", ".join(_column(field, dataset, present=present, key=key) for field in dataset.schema)
    if not files:
        return f"SELECT {shown} WHERE false"
    limits = " OR ".join(f"(_partition = {p} AND _offset < {o})" for p, o in dataset.snapshot.offsets.items())
    options = f"union_by_name = true, hive_partitioning = true, hive_types = {{'{DAY}': DATE}}"
    source = f"read_parquet([{', '.join(files)}], {options})"
    order = " ORDER BY source._partition, source._offset" if ordered else ""
    return f"SELECT {shown} FROM {source} AS source WHERE {limits}{order}"  # noqa: S608  (names and texts are quoted)


def _column(field: pa.Field[Any], dataset: Dataset, *, present: set[str], key: str) -> str:
    name, kind = quoted(field.name), _SQL_TYPES[field.type]
    if field.name not in present:
        return f"NULL::{kind} AS {name}"
    if field.name in SYSTEM_SCHEMA.names:
        return name
    masked = [(steps(each.path), each.mask) for each in dataset.masked]
    masked = [each for each in masked if each[0] and each[0][0] == field.name]
    if not masked:
        return name
    whole = [mask for path, mask in masked if len(path) == 1]
    inside = [path[1:] for path, _ in masked if len(path) > 1]
    is_json = field.name in dataset.json
    if whole and whole[0] is Mask.PSEUDONYM and kind == "VARCHAR" and not is_json:
        return f"sha256({literal(key)} || {name}) AS {name}"
    if whole or not is_json or any(None in path for path in inside):
        return f"NULL::{kind} AS {name}"
    return f"json_merge_patch({name}, {literal(_without(inside))})::VARCHAR AS {name}"


def _without(paths: Sequence[Sequence[str | None]]) -> str:
    """Return the JSON Merge Patch (RFC 7396) that takes paths out of an object."""
    patch: dict[str, Any] = {}
    for path in sorted(paths, key=len, reverse=True):  # what holds another path is taken out with it
        inner = patch
        for name in path[:-1]:
            inner = inner.setdefault(str(name), {})
        inner[str(path[-1])] = None
    return orjson.dumps(patch).decode()


def files_of(datasets: Mapping[str, Dataset]) -> list[str]:
    """Return the files that views read."""
    return [file.path for each in datasets.values() if each.table for file in each.table.files]
