"""Compiled datasets in SQL: bytes of a schema and a JSON list of columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Row, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_contracts.entities import Column, ColumnType, CompiledDataset, ContractVersion, RecordRule
from counterfoil_contracts.sql.monitors import monitors_json, to_monitors
from counterfoil_contracts.sql.tables import COMPILED


async def add_compiled(connection: AsyncConnection, version: ContractVersion) -> None:
    """Keep what a version compiles to, in the document's order."""
    key = {"workspace": version.workspace, "contract_id": version.contract_id, "version": version.version}
    rows = [
        {
            **key,
            "dataset": compiled.dataset,
            "position": position,
            "json_schema": compiled.json_schema,
            "sha256": compiled.sha256,
            "columns": orjson.dumps([_column_values(column) for column in compiled.columns]),
            "record_rules": orjson.dumps(compiled.record_rules),
            "classifications": orjson.dumps(compiled.classifications),
            "golden_records": orjson.dumps([orjson.Fragment(each) for each in compiled.golden_records]),
            "monitors": monitors_json(compiled.monitors),
        }
        for position, compiled in enumerate(version.compiled)
    ]
    if rows:  # an unfinished draft compiles to nothing
        await connection.execute(insert(COMPILED), rows)


async def read_compiled(
    connection: AsyncConnection, *, workspace: str, contract_id: str, version: str
) -> Sequence[CompiledDataset]:
    """Return what a version compiles to, in the document's order."""
    query = (
        select(COMPILED)
        .where(
            COMPILED.c.workspace == workspace,
            COMPILED.c.contract_id == contract_id,
            COMPILED.c.version == version,
        )
        .order_by(COMPILED.c.position)
    )
    return [to_compiled(row) for row in await connection.execute(query)]


def to_compiled(row: Row[Any]) -> CompiledDataset:
    """Return the compiled dataset of a row that holds the table's columns."""
    columns = tuple(_column(values) for values in orjson.loads(row.columns))
    return CompiledDataset(
        row.dataset,
        row.json_schema,
        row.sha256,
        columns,
        record_rules=tuple(RecordRule(**values) for values in orjson.loads(row.record_rules or b"[]")),
        classifications=tuple((path, name) for path, name in orjson.loads(row.classifications or b"[]")),
        golden_records=tuple(orjson.dumps(each) for each in orjson.loads(row.golden_records or b"[]")),
        monitors=to_monitors(row.monitors),
    )


def _column_values(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.type.value,
        "required": column.required,
        "default_timezone": column.default_timezone,
        "classification": column.classification,
    }


def _column(values: dict[str, Any]) -> Column:
    return Column(**{**values, "type": ColumnType(values["type"])})
