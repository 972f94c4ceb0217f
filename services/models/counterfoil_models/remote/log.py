"""The log of ingest, followed block by block."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import zstandard
from counterfoil.ingest.v1 import records_pb2, records_pb2_grpc
from counterfoil_chassis.call import following
from counterfoil_chassis.identity import TokenSigner

from counterfoil_models.entities import LogBlock
from counterfoil_models.errors import BlockUnreadableError

LAYOUT = 1
"""The layout of blocks that is understood: zstd of JSON lines."""

_MOST_BYTES = 64 << 20  # what a block may decompress to; ingest writes about 2 MiB


class IngestLog:
    """See `store.Log`."""

    def __init__(self, channel: grpc.aio.Channel, signer: TokenSigner) -> None:
        self._records = records_pb2_grpc.RecordServiceStub(channel)
        self._signer = signer

    async def follow(
        self, workspace: str, partition: int, *, from_offset: int, log_epoch: str
    ) -> AsyncIterator[tuple[str, int, LogBlock | None]]:
        """Yield (epoch, next offset, block or heartbeat) for ever; raise BlockUnreadableError."""
        request = records_pb2.ReadRecordsRequest(
            workspace=workspace, partition=partition, from_offset=from_offset, follow=True, log_epoch=log_epoch
        )
        async for answer in self._records.ReadRecords(request, **following(signer=self._signer)):
            block = _block(answer.block, answer.next_offset) if answer.HasField("block") else None
            yield answer.log_epoch, answer.next_offset, block


def _block(block: records_pb2.Block, next_offset: int) -> LogBlock:
    if block.layout != LAYOUT:
        raise BlockUnreadableError(
            f"The block at {block.first_offset} has layout {block.layout}, which this release does not know; update it."
        )
    try:
        lines = zstandard.ZstdDecompressor().decompress(block.payload, max_output_size=_MOST_BYTES)
    except zstandard.ZstdError as error:
        raise BlockUnreadableError(f"The block at {block.first_offset} cannot be decompressed: {error}.") from error
    traceparents = tuple(one.traceparent for one in block.headers if one.traceparent)
    received_us = max((one.received_at.ToMicroseconds() for one in block.headers), default=0)
    return LogBlock(block.first_offset, next_offset, lines, traceparents, received_us)
