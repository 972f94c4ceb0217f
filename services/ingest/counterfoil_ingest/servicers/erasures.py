"""ErasureService: records that have to go, and persons who have to stay."""

from __future__ import annotations

import grpc
from counterfoil.ingest.v1 import erasures_pb2 as pb
from counterfoil.ingest.v1.erasures_pb2_grpc import ErasureServiceServicer
from google.protobuf.message import Message

from counterfoil_ingest.erasing import Eraser
from counterfoil_ingest.holds import Holds
from counterfoil_ingest.query_receipts import QueryReceipts

Context = grpc.aio.ServicerContext[Message, Message]


class ErasureServicer(ErasureServiceServicer):
    """Erases records of the workspace that the calling service names, and hears whom legal holds keep there."""

    def __init__(self, eraser: Eraser, holds: Holds, receipts: QueryReceipts) -> None:
        self._eraser = eraser
        self._holds = holds
        self._receipts = receipts

    async def EraseRecords(self, request: pb.EraseRecordsRequest, context: Context) -> pb.EraseRecordsResponse:
        """Erase records by their places, then the questions of receipts that name the person.

        In this order a hold refuses before anything is gone; a failure in between is healed by the caller, who asks
        again.
        """
        erased = await self._eraser.erase(
            request.workspace, request.partition, request.offsets, texts=request.identifiers
        )
        if request.identifiers:
            await self._receipts.forget(request.workspace, request.identifiers)
        return pb.EraseRecordsResponse(
            erased=erased.records,
            quarantined_erased=erased.quarantined,
            erasure_revision=erased.revision,
            remaining=erased.remaining,
        )

    async def HoldPersons(self, request: pb.HoldPersonsRequest, context: Context) -> pb.HoldPersonsResponse:
        """Keep whom legal holds name."""
        self._holds.tell_persons(request.workspace, request.legal_hold_ids, request.identifiers)
        return pb.HoldPersonsResponse()
