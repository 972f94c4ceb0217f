"""What the graph reads, said to contracts: what breaks it is not put in force without approval."""

from __future__ import annotations

from typing import Final

import grpc
from counterfoil.contracts.v1 import consumers_pb2, consumers_pb2_grpc
from counterfoil_chassis.call import outgoing
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.jsonpath import json_path

from counterfoil_graph.reads import Reads, all_reads
from counterfoil_graph.store import Stores

_SECONDS: Final = 10.0
_MOST_FIELDS: Final = 1_000  # of one consumer; whoever reads more reads the whole record


class Consumers:
    """Calls in the graph's own name."""

    def __init__(self, channel: grpc.aio.Channel, signer: TokenSigner, stores: Stores) -> None:
        self._stub = consumers_pb2_grpc.ConsumerServiceStub(channel)
        self._signer = signer
        self._stores = stores

    async def announce(self, workspace: str) -> None:
        """Say all that the mappings of a workspace read."""
        async with self._stores.read() as transaction:
            versions = await transaction.mappings(workspace).in_force()
        request = consumers_pb2.ReplaceOwnConsumersRequest(
            workspace=workspace, consumers=[_message(each) for each in all_reads(versions)]
        )
        await self._stub.ReplaceOwnConsumers(request, **outgoing(default=_SECONDS, signer=self._signer))


def _message(reads: Reads) -> consumers_pb2.OwnConsumer:
    paths = [json_path(path) for path in reads.fields]
    return consumers_pb2.OwnConsumer(
        name=f"mappings/{reads.mapping_id}",
        dataset=reads.dataset,
        fields=paths if len(paths) <= _MOST_FIELDS else [],
        owner=reads.owner,
    )
