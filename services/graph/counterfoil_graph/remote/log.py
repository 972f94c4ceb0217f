"""The log of ingest: followed block by block, and appended to for decisions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable

import grpc
from counterfoil.common.v1.verdict_pb2 import Verdict
from counterfoil.ingest.v1 import records_pb2, records_pb2_grpc
from counterfoil_chassis.call import following, outgoing
from counterfoil_chassis.clock import from_timestamp, to_micros
from counterfoil_chassis.identity import TokenSigner

from counterfoil_graph.entities import PARTITION
from counterfoil_graph.errors import BlockUnreadableError, DecisionNotKeptError
from counterfoil_graph.store import LogBlock, LogHeader, LogMessage

LAYOUT = 1
"""The layout of blocks that is understood: zstd of JSON lines."""

_SECONDS = 10.0
_KEPT = (Verdict.ACCEPTED, Verdict.DUPLICATE)


class IngestLog:
    """See `store.Log`."""

    def __init__(self, channel: grpc.aio.Channel, signer: TokenSigner) -> None:
        self._records = records_pb2_grpc.RecordServiceStub(channel)
        self._signer = signer

    async def follow(self, workspace: str, *, from_offset: int, log_epoch: str) -> AsyncIterator[LogMessage]:
        """Yield blocks and heartbeats for ever."""
        request = records_pb2.ReadRecordsRequest(
            workspace=workspace, partition=PARTITION, from_offset=from_offset, follow=True, log_epoch=log_epoch
        )
        async for answer in self._records.ReadRecords(request, **following(signer=self._signer)):
            block = _block(answer.block, answer.next_offset) if answer.HasField("block") else None
            yield LogMessage(answer.log_epoch, answer.next_offset, block, answer.predecessors)

    async def scan(self, workspace: str) -> AsyncGenerator[LogBlock, None]:
        """Yield every block up to the head of the log as it is when it is reached."""
        request = records_pb2.ReadRecordsRequest(workspace=workspace, partition=PARTITION)
        async for answer in self._records.ReadRecords(request, **following(signer=self._signer)):
            if answer.HasField("block"):
                yield _block(answer.block, answer.next_offset)

    async def append(self, workspace: str, dataset: str, records: Iterable[bytes]) -> list[int]:
        """Append records as this service; return their offsets. Raises DecisionNotKeptError for one not taken."""
        request = records_pb2.AppendRecordsRequest(dataset=dataset, records=b"\n".join(records), workspace=workspace)
        answer = await self._records.AppendRecords(request, **outgoing(default=_SECONDS, signer=self._signer))
        for verdict in answer.verdicts:
            if verdict.outcome not in _KEPT:
                found = ", ".join(each.reason for each in verdict.findings) or Verdict.Outcome.Name(verdict.outcome)
                raise DecisionNotKeptError(
                    f"The log did not take the decision ({found}). Try again; look at the contract {dataset}.",
                    metadata={"dataset": dataset, "quarantine_id": verdict.quarantine_id},
                )
        return [verdict.position.offset for verdict in answer.verdicts]


def _block(of: records_pb2.Block, next_offset: int) -> LogBlock:
    if of.layout != LAYOUT:
        raise BlockUnreadableError(
            f"The block at {of.first_offset} has layout {of.layout}, which this release does not know; update it.",
            metadata={"first_offset": str(of.first_offset), "layout": str(of.layout)},
        )
    headers = tuple(
        LogHeader(each.source_id, to_micros(from_timestamp(each.received_at)), each.traceparent) for each in of.headers
    )
    return LogBlock(next_offset, of.payload, headers)
