"""The receipt methods that no single service can answer: the ledger first, then the producer that the id names."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping
from typing import Any

import grpc
import protovalidate
from counterfoil.governance.v1 import receipts_pb2
from google.protobuf.message import DecodeError

from counterfoil_gateway.calls import Metadata, Unary, UnaryCall
from counterfoil_gateway.problems import C, Problem, bad_request
from counterfoil_gateway.serving import home
from counterfoil_gateway.values import Fault

GET = "/counterfoil.governance.v1.ReceiptService/GetReceipt"
REPLAY = "/counterfoil.governance.v1.ReceiptService/ReplayReceipt"
PRODUCERS = ("models", "graph", "ingest")
"""The services that implement `common.v1.ReceiptProducerService`."""
_PRODUCER_GET = "/counterfoil.common.v1.ReceiptProducerService/GetReceipt"
_PRODUCER_REPLAY = "/counterfoil.common.v1.ReceiptProducerService/Replay"


def composed(channels: Mapping[str, grpc.aio.Channel]) -> dict[str, Unary]:
    """Return what answers the receipt methods, by wire name.

    The public requests and those of the producers hold one field, `receipt_id = 1`, so their bytes go through as they
    are.
    """
    producers = {name: channels[home(name, "ReceiptProducerService", channels)] for name in PRODUCERS}
    get: dict[str, Unary] = {name: channel.unary_unary(_PRODUCER_GET) for name, channel in producers.items()}
    replay: dict[str, Unary] = {name: channel.unary_unary(_PRODUCER_REPLAY) for name, channel in producers.items()}
    return {GET: GetReceipt(channels["governance"].unary_unary(GET), get), REPLAY: ReplayReceipt(replay)}


class ReplayReceipt:
    """Sends the question to the producer."""

    def __init__(self, producers: Mapping[str, Unary]) -> None:
        self._producers = producers

    def __call__(self, request: bytes, /, *, timeout: float | None, metadata: Metadata) -> UnaryCall:
        """Start the call; raise Problem when the id names no producer."""
        receipt_id = _receipt_id(request)
        producer = self._producers.get(receipt_id.partition(".")[0])
        if producer is None:
            raise _not_found(receipt_id)
        return producer(request, timeout=timeout, metadata=metadata)


class GetReceipt:
    """Asks the ledger, then the producer."""

    def __init__(self, ledger: Unary, producers: Mapping[str, Unary]) -> None:
        self._ledger = ledger
        self._producers = producers

    def __call__(self, request: bytes, /, *, timeout: float | None, metadata: Metadata) -> UnaryCall:
        """Start the call."""
        fallback = self._producers.get(_receipt_id(request).partition(".")[0])
        return _Either(self._ledger, fallback, request, timeout=timeout, metadata=metadata)


class _Either:
    """A call to the ledger that goes on at the producer, within the same time, when the ledger does not have it yet."""

    def __init__(
        self, first: Unary, second: Unary | None, request: bytes, *, timeout: float | None, metadata: Metadata
    ) -> None:
        self._second = second
        self._request = request
        self._metadata = metadata
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self._deadline = None if timeout is None else loop.time() + timeout
        self._call = first(request, timeout=timeout, metadata=metadata)

    def __await__(self) -> Generator[Any, None, bytes]:
        """Return the receipt's bytes."""
        return self._answer().__await__()

    async def _answer(self) -> bytes:
        try:
            return await self._call
        except grpc.aio.AioRpcError as error:
            if error.code() is not C.NOT_FOUND or self._second is None:
                raise
        remaining = None if self._deadline is None else max(0.0, self._deadline - self._now())
        self._call = self._second(self._request, timeout=remaining, metadata=self._metadata)
        return await self._call

    def cancel(self) -> bool:
        """Stop whichever call is under way."""
        return self._call.cancel()

    async def initial_metadata(self) -> Any:
        """Return none: which call answers is not known before it does."""
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> Any:
        """Return that of the call that answered."""
        return await self._call.trailing_metadata()


def _receipt_id(request: bytes) -> str:
    """Return the id, held to the field's own rule: a producer may never see the request."""
    try:
        message = receipts_pb2.ReplayReceiptRequest.FromString(request)
    except DecodeError:
        raise Problem(C.INVALID_ARGUMENT, "the request cannot be read", "BAD_MESSAGE") from None
    violations = protovalidate.collect_violations(message)
    if violations:
        raise bad_request([Fault("receipt_id", v.proto.rule_id, v.proto.message) for v in violations])
    return message.receipt_id


def _not_found(receipt_id: str) -> Problem:
    text = "there is no receipt with this id"
    return Problem(C.NOT_FOUND, text, "RECEIPT_NOT_FOUND", metadata={"receipt_id": receipt_id[:80]})
