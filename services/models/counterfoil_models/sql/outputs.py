"""Attributions and lifts in SQL."""

from typing import Any

import orjson
from counterfoil_chassis.canonical import canonical_json
from counterfoil_chassis.clock import from_micros, to_micros
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_models.entities import Output, OutputKind
from counterfoil_models.errors import AttributionNotFoundError, LiftNotFoundError
from counterfoil_models.sql.inserting import insert_first
from counterfoil_models.sql.tables import OUTPUT

_NOT_FOUND = {OutputKind.ATTRIBUTION: AttributionNotFoundError, OutputKind.LIFT: LiftNotFoundError}


class SqlOutputStore:
    """See `store.OutputStore`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def find(self, workspace: str, kind: OutputKind, question_sha256: str) -> Output | None:
        """Return the output that answered this question before."""
        asked = (*_of(workspace, kind), OUTPUT.c.question_sha256 == question_sha256)
        found = (await self._connection.execute(select(OUTPUT).where(*asked))).one_or_none()
        return None if found is None else _output(found)

    async def get(self, workspace: str, kind: OutputKind, output_id: str) -> Output:
        """Return one output; raise AttributionNotFoundError or LiftNotFoundError."""
        place = (*_of(workspace, kind), OUTPUT.c.output_id == output_id)
        found = (await self._connection.execute(select(OUTPUT).where(*place))).one_or_none()
        if found is None:
            raise _NOT_FOUND[kind](f"There is no {kind.value} {output_id}.", metadata={f"{kind.value}_id": output_id})
        return _output(found)

    async def page(self, workspace: str, kind: OutputKind, *, limit: int, before: str) -> list[Output]:
        """Return outputs of a kind, newest first, with ids below `before` ("" = from the newest)."""
        query = select(OUTPUT).where(*_of(workspace, kind))
        if before:
            query = query.where(OUTPUT.c.output_id < before)
        rows = await self._connection.execute(query.order_by(OUTPUT.c.output_id.desc()).limit(limit))
        return [_output(row) for row in rows]

    async def add(self, output: Output, *, receipt: bytes) -> bool:
        """Keep an output with its receipt's bytes; False = its question was answered, maybe by another process."""
        values = {
            "workspace": output.workspace,
            "kind": output.kind.value,
            "output_id": output.output_id,
            "receipt_id": output.receipt_id,
            "question_sha256": output.question_sha256,
            "output": canonical_json(output.document).decode(),
            "meta": orjson.dumps(output.meta).decode(),
            "receipt": receipt,
            "created_at": to_micros(output.created_at),
        }
        question = (OUTPUT.c.workspace, OUTPUT.c.kind, OUTPUT.c.question_sha256)
        return await insert_first(self._connection, OUTPUT, values, unless=question)


def _of(workspace: str, kind: OutputKind) -> tuple[Any, Any]:
    return OUTPUT.c.workspace == workspace, OUTPUT.c.kind == kind.value


def _output(row: Row[Any]) -> Output:
    return Output(
        workspace=row.workspace,
        kind=OutputKind(row.kind),
        output_id=row.output_id,
        receipt_id=row.receipt_id,
        question_sha256=row.question_sha256,
        document=orjson.loads(row.output),
        meta=orjson.loads(row.meta),
        created_at=from_micros(row.created_at),
    )
