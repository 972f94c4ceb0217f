"""ErasureService: records that have to go."""

from __future__ import annotations

import grpc
from counterfoil.ingest.v1 import erasures_pb2 as pb
from counterfoil.ingest.v1.erasures_pb2_grpc import ErasureServiceServicer
from google.protobuf.message import Message

from counterfoil_ingest.erasing import Eraser

Context = grpc.aio.ServicerContext[Message, Message]


class ErasureServicer(ErasureServiceServicer):
    """Erases records of the workspace that the calling service names."""

    def __init__(self, eraser: Eraser) -> None:
        self._eraser = eraser

    async def EraseRecords(self, request: pb.EraseRecordsRequest, context: Context) -> pb.EraseRecordsResponse:
        """Erase records by their places."""
        erased = await self._eraser.erase(
            request.workspace, request.partition, request.offsets, texts=request.identifiers
        )
        return pb.EraseRecordsResponse(
            erased=erased.records,
            quarantined_erased=erased.quarantined,
            erasure_revision=erased.revision,
            remaining=erased.remaining,
        )
