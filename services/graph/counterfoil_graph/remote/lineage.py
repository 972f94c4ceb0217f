"""What the graph is made of, told to lineage whenever its mappings change."""

from __future__ import annotations

import grpc
import orjson
from counterfoil.contracts.v1 import lineage_pb2, lineage_pb2_grpc
from counterfoil_chassis.clock import Clock
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.lineage import emit

from counterfoil_graph.lineage import mappings_event
from counterfoil_graph.mapping import shipped_document
from counterfoil_graph.store import Stores


class Lineage:
    """Calls in the graph's own name."""

    def __init__(self, channel: grpc.aio.Channel, signer: TokenSigner, stores: Stores, clock: Clock) -> None:
        self._stub = lineage_pb2_grpc.LineageServiceStub(channel)
        self._signer = signer
        self._stores = stores
        self._clock = clock

    async def announce(self, workspace: str) -> None:
        """Say what the mappings of a workspace make: the same ones again make the same event, which changes nothing.

        A workspace without mappings gets the shipped one.
        """
        async with self._stores.read() as transaction:
            versions = await transaction.mappings(workspace).in_force()
        documents = [version.document for version in versions] or [shipped_document()]
        at = max((version.created_at for version in versions), default=self._clock.now())
        event = orjson.dumps(mappings_event(documents, at=at))
        await emit(self._stub, [lineage_pb2.LineageEvent(workspace=workspace, event=event)], self._signer)
