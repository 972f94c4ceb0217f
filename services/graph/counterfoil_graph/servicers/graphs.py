"""GraphService: how far the graph is, and reading the log again."""

from __future__ import annotations

from typing import Any

import grpc
from counterfoil.graph.v1 import graphs_pb2, graphs_pb2_grpc

from counterfoil_graph.servicers.messages import state_message
from counterfoil_graph.servicers.services import GraphServices

Context = grpc.aio.ServicerContext[Any, Any]


class GraphServicer(graphs_pb2_grpc.GraphServiceServicer):
    """See graphs.proto."""

    def __init__(self, services: GraphServices) -> None:
        self._services = services

    async def GetGraph(self, request: graphs_pb2.GetGraphRequest, context: Context) -> graphs_pb2.Graph:
        """Return how far the graph is, and what is in it."""
        caller = await self._services.caller()
        return await self._graph(caller.workspace)

    async def RebuildGraph(self, request: graphs_pb2.RebuildGraphRequest, context: Context) -> graphs_pb2.Graph:
        """Forget everything that was derived and read the log again from its beginning."""
        caller = await self._services.caller()

        async def forget() -> None:
            async with self._services.stores.begin() as transaction:
                store = transaction.mappings(caller.workspace)
                applied = await store.applied()
                await store.apply(applied or "", rebuild=True)
                details = {"reason": request.reason, "mappings_sha256": applied}
                await self._services.tell(transaction, caller, "graph.rebuild", "graph", details)

        await self._services.followers.change(caller.workspace, forget)
        return await self._graph(caller.workspace)

    async def _graph(self, workspace: str) -> graphs_pb2.Graph:
        async with self._services.stores.read() as transaction:
            reader = transaction.reader(workspace)
            state, counts = await reader.state(), await reader.counts()
            rebuilding = state.next_offset < await reader.rebuild_until()
        return graphs_pb2.Graph(
            state=state_message(state),
            rebuilding=rebuilding,
            persons=counts.persons,
            identifiers=counts.identifiers,
            nodes=counts.nodes,
            edges=counts.edges,
            touchpoints=counts.touchpoints,
            conversions=counts.conversions,
            unread=[
                graphs_pb2.UnreadRecords(dataset=dataset, reason=reason, records=records)
                for (dataset, reason), records in sorted(counts.unread.items())
            ],
        )
