"""QueryService: translate, delegate, translate back; a receipt is kept before its result is whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import grpc
from counterfoil.ingest.v1 import queries_pb2 as pb
from counterfoil.ingest.v1.queries_pb2_grpc import QueryServiceServicer
from counterfoil_chassis.call import budget
from counterfoil_chassis.clock import Clock, Ids
from counterfoil_chassis.identity import Caller, current_caller
from counterfoil_chassis.policy import PolicyChecker
from counterfoil_chassis.runtime import Runtime
from google.protobuf.message import Message

from counterfoil_ingest.queries import Asked, Queries, Result
from counterfoil_ingest.query_receipts import QueryReceipts, Question
from counterfoil_ingest.query_results import Form
from counterfoil_ingest.servicers.query_provenance import PRODUCER, Made, query_receipt
from counterfoil_ingest.servicers.questions import FieldPolicies
from counterfoil_ingest.servicers.records import snapshot_message
from counterfoil_ingest.snapshots import Snapshots

Context = grpc.aio.ServicerContext[Message, Message]

QUERY_SECONDS: Final = 30.0
_TELLING_SECONDS: Final = 1.0
_DEFAULT_ROWS: Final = 1000
_FORMS: Final = {
    pb.StreamQueryRequest.FORMAT_ARROW_STREAM: Form.ARROW,
    pb.StreamQueryRequest.FORMAT_CSV: Form.CSV,
}


@dataclass(frozen=True)
class QueryServices:
    """What queries need beside the lake."""

    policies: PolicyChecker
    receipts: QueryReceipts
    snapshots: Snapshots
    runtime: Runtime
    clock: Clock
    ids: Ids


def _seconds() -> float:
    """Return how long a query may take: not until the caller leaves, who is to hear why it was ended."""
    left = budget(QUERY_SECONDS + _TELLING_SECONDS)
    return max(left - _TELLING_SECONDS, left / 2)


class QueryServicer(QueryServiceServicer):
    """Runs SQL over the datasets of the caller's workspace."""

    def __init__(self, queries: Queries, services: QueryServices) -> None:
        self._queries = queries
        self._services = services

    async def RunQuery(self, request: pb.RunQueryRequest, context: Context) -> pb.RunQueryResponse:
        """Run one SELECT and return its rows as JSON."""
        running = self._running(request, Form.JSON, max_rows=request.max_rows or _DEFAULT_ROWS)
        async with self._queries.opened(running.caller.workspace, running.asked, within=_seconds()) as result:
            rows = b"".join([piece.data async for piece in result.pieces()])
        await self._keep(running, result)
        head = _head(running, result)
        return pb.RunQueryResponse(
            columns=head.columns,
            rows=rows,
            row_count=result.rows,
            truncated=result.truncated,
            snapshots=head.snapshots,
            masked=head.masked,
            receipt_id=head.receipt_id,
        )

    async def StreamQuery(
        self, request: pb.StreamQueryRequest, context: Context
    ) -> AsyncIterator[pb.StreamQueryResponse]:
        """Run one SELECT and stream all its rows as Arrow or CSV."""
        form = _FORMS.get(request.format, Form.CHUNKS)
        running = self._running(request, form, max_rows=0)
        async with self._queries.opened(running.caller.workspace, running.asked, within=_seconds()) as result:
            head: pb.QueryResult | None = _head(running, result)
            async for piece in result.pieces():
                if form is Form.CHUNKS:
                    yield pb.StreamQueryResponse(arrow_ipc_zstd=piece.data, rows=piece.rows, result=head)
                else:
                    yield pb.StreamQueryResponse(data=piece.data, rows=piece.rows, result=head)
                head = None
        await self._keep(running, result)

    def _running(self, request: pb.RunQueryRequest | pb.StreamQueryRequest, form: Form, *, max_rows: int) -> _Running:
        caller = current_caller()
        fields = FieldPolicies(self._services.policies, caller)
        asked = Asked(
            request.sql,
            request.parameters,
            form=form,
            max_rows=max_rows,
            receipt=request.receipt,
            masks=fields.masks,
        )
        receipt_id = f"{PRODUCER}.{self._services.ids.new()}" if request.receipt else ""
        return _Running(caller, asked, fields, receipt_id, request.purpose)

    async def _keep(self, running: _Running, result: Result) -> None:
        """Keep the receipt of a result, when one was asked for."""
        if not running.receipt_id:
            return
        services, workspace, asked = self._services, running.caller.workspace, running.asked
        made = Made(
            running.caller,
            running.receipt_id,
            running.purpose,
            asked,
            result,
            running.fields.answers,
            services.clock.now(),
        )
        receipt = query_receipt(
            made, snapshots=services.snapshots, key=self._queries.key(workspace), runtime=services.runtime
        )
        key_id = self._queries.key_id(workspace)
        question = Question(asked.sql, asked.parameters, asked.max_rows, key_id, result.cited)
        payload = receipt.SerializeToString(deterministic=True)
        await services.receipts.add(workspace, running.receipt_id, payload, question)


@dataclass(frozen=True)
class _Running:
    """A query of a caller."""

    caller: Caller
    asked: Asked
    fields: FieldPolicies
    receipt_id: str
    purpose: str


def _head(running: _Running, result: Result) -> pb.QueryResult:
    return pb.QueryResult(
        columns=[pb.QueryColumn(name=name, type=kind) for name, kind in result.columns],
        snapshots=[snapshot_message(each) for each in result.snapshots],
        masked=[
            pb.MaskedField(
                dataset=field.dataset,
                path=field.path,
                classification=field.classification,
                mask=pb.MaskedField.Mask.ValueType(field.mask),
                policy_ids=field.policy_ids,
            )
            for each in result.cited.values()
            for field in each.masked
        ],
        receipt_id=running.receipt_id,
    )
