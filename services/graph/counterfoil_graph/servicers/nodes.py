"""NodeService: things, and how they are connected."""

from __future__ import annotations

from typing import Any

import grpc
from counterfoil.graph.v1 import nodes_pb2, nodes_pb2_grpc

from counterfoil_graph import nodes, states
from counterfoil_graph.nodes import Followed
from counterfoil_graph.servicers.messages import edge_message, micros, node_message
from counterfoil_graph.servicers.services import GraphServices

Context = grpc.aio.ServicerContext[Any, Any]
_Request = nodes_pb2.ListNeighborsRequest


class NodeServicer(nodes_pb2_grpc.NodeServiceServicer):
    """See nodes.proto."""

    def __init__(self, services: GraphServices) -> None:
        self._services = services
        self._stores = services.stores

    async def GetNode(self, request: nodes_pb2.GetNodeRequest, context: Context) -> nodes_pb2.Node:
        """Return one node."""
        caller = await self._services.caller()
        async with self._stores.read() as transaction:
            reader = transaction.reader(caller.workspace)
            at = await states.known_at(reader, micros(request, "known_at"))
            node = await nodes.get(reader, request.node_id, at=at, valid_us=micros(request, "as_of"))
            known = await reader.known_times({node.tx_from})
        return node_message(node, known_from_us=known.get(node.tx_from))

    async def ListNodes(self, request: nodes_pb2.ListNodesRequest, context: Context) -> nodes_pb2.ListNodesResponse:
        """List the nodes of a type, by key."""
        place = {"method": "ListNodes", "workspace": (await self._services.caller()).workspace}
        page = self._services.pager.open(request, **place)
        async with self._stores.read() as transaction:
            reader = transaction.reader(place["workspace"])
            state = await states.present(reader)
            found = await reader.node_page(
                request.type,
                after=page.after[0] if page.after else "",
                limit=page.limit + 1,
                at=state.next_offset,
                valid_us=micros(request, "as_of"),
            )
            known = await reader.known_times({each.tx_from for each in found})
        kept, more = found[: page.limit], len(found) > page.limit
        return nodes_pb2.ListNodesResponse(
            nodes=[node_message(each, known_from_us=known.get(each.tx_from)) for each in kept],
            next_page_token=self._services.pager.token(request, **place, after=[kept[-1].key]) if more else "",
        )

    async def ListNeighbors(
        self, request: nodes_pb2.ListNeighborsRequest, context: Context
    ) -> nodes_pb2.ListNeighborsResponse:
        """List what a node is connected with."""
        place = {"method": "ListNeighbors", "workspace": (await self._services.caller()).workspace}
        page = self._services.pager.open(request, **place)
        followed = Followed(
            edge_type=request.edge_type,
            outgoing=request.direction != _Request.IN,
            incoming=request.direction != _Request.OUT,
            valid_us=micros(request, "as_of"),
        )
        after = (*page.after[:4], int(page.after[4])) if page.after else ()
        async with self._stores.read() as transaction:
            reader = transaction.reader(place["workspace"])
            at = await states.known_at(reader, micros(request, "known_at"))
            found = await nodes.neighbors(reader, request.node_id, at=at, followed=followed)
            left = [each for each in found if nodes.order(each) > after]
            kept, more = left[: page.limit], len(left) > page.limit
            known = await reader.known_times(nodes.offsets_of(kept))
        marks = [str(each) for each in nodes.order(kept[-1])] if more else []
        return nodes_pb2.ListNeighborsResponse(
            neighbors=[
                nodes_pb2.Neighbor(
                    edge=edge_message(each.edge, known_from_us=known.get(each.edge.tx_from)),
                    node=node_message(each.node, known_from_us=known.get(each.node.tx_from)),
                )
                for each in kept
            ],
            next_page_token=self._services.pager.token(request, **place, after=marks) if more else "",
        )
