"""QueryService: translate, delegate, translate back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
from counterfoil.ingest.v1 import queries_pb2 as pb
from counterfoil.ingest.v1.queries_pb2_grpc import QueryServiceServicer
from counterfoil_chassis.call import budget
from counterfoil_chassis.identity import current_caller
from google.protobuf.message import Message

from counterfoil_ingest.queries import Queries
from counterfoil_ingest.servicers.records import snapshot_message

Context = grpc.aio.ServicerContext[Message, Message]

QUERY_SECONDS = 30.0
_DEFAULT_ROWS = 1000


class QueryServicer(QueryServiceServicer):
    """Runs SQL over the datasets of the caller's workspace."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def RunQuery(self, request: pb.RunQueryRequest, context: Context) -> pb.RunQueryResponse:
        """Run one SELECT and return its rows as JSON."""
        result = await self._queries.run(
            current_caller().workspace,
            request.sql,
            request.parameters,
            max_rows=request.max_rows or _DEFAULT_ROWS,
            within=budget(QUERY_SECONDS),
        )
        return pb.RunQueryResponse(
            columns=[pb.QueryColumn(name=name, type=kind) for name, kind in result.columns],
            rows=result.rows,
            row_count=result.row_count,
            truncated=result.truncated,
            snapshots=[snapshot_message(each) for each in result.snapshots],
        )

    async def StreamQuery(
        self, request: pb.StreamQueryRequest, context: Context
    ) -> AsyncIterator[pb.StreamQueryResponse]:
        """Run one SELECT and stream all its rows as Arrow."""
        found = self._queries.stream(
            current_caller().workspace, request.sql, request.parameters, within=budget(QUERY_SECONDS)
        )
        async for chunk in found:
            yield pb.StreamQueryResponse(arrow_ipc_zstd=chunk.data, rows=chunk.rows)
