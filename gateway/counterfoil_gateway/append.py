"""Sends what event protocols receive to ingest, and says what the sender is to be told."""

from __future__ import annotations

import itertools
import logging
import math
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import grpc
from counterfoil.ingest.v1.append_pb2 import AppendItem, AppendManyRequest, AppendManyResponse, AppendResult
from counterfoil_chassis.call import outgoing
from counterfoil_chassis.calls import TakesLongError
from counterfoil_chassis.clock import Clock, to_timestamp
from counterfoil_chassis.coalesce import Coalescer, TooMuchWaitsError
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.status import failure_of
from counterfoil_chassis.telemetry import current_traceparent
from google.protobuf.message import Message

from counterfoil_gateway.bodies import too_large
from counterfoil_gateway.credentials import SignedIn
from counterfoil_gateway.problems import C, Problem

APPEND_MANY = "/counterfoil.ingest.v1.AppendService/AppendMany"
TIMEOUT = 10.0
MANY_ITEMS = 64
"""Single events are judged together, in passes over all of a call, so that a call costs as much as thirty of them."""
_SENDERS_FAULT = frozenset({C.INVALID_ARGUMENT.value[0], C.OUT_OF_RANGE.value[0]})
_PASSING = frozenset(c.value[0] for c in (C.UNAVAILABLE, C.DEADLINE_EXCEEDED, C.ABORTED, C.CANCELLED))
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Item:
    """One item of AppendMany: its body, and the rest of it encoded."""

    head: bytes
    body: bytes

    def size(self) -> int:
        """Return its bytes in a call, or a few more."""
        return len(self.head) + len(self.body) + 32


class Appender:
    """One request in, one item of AppendMany out; what arrives at once travels together."""

    def __init__(self, channel: grpc.aio.Channel, *, signer: TokenSigner, clock: Clock) -> None:
        """Take an untraced channel: each item carries its own trace."""
        self._call: Any = channel.unary_unary(
            APPEND_MANY, request_serializer=encode, response_deserializer=AppendManyResponse.FromString
        )
        self._signer = signer
        self._clock = clock
        self._start = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._items: Coalescer[Item, AppendResult] = Coalescer(self._send, size_of=Item.size, many=MANY_ITEMS)

    def now(self) -> datetime:
        """Return when a request is received."""
        return self._clock.now()

    async def append(
        self, signed_in: SignedIn, body: bytes, *, protocol: str, route: str, content_type: str, received_at: datetime
    ) -> None:
        """Return once every record of the body is kept or quarantined.

        Raise Problem: 400 when the body cannot be read at all, 413, 429 or 503 when it is to be sent again.
        """
        own = AppendItem(
            received_at=to_timestamp(received_at),
            traceparent=current_traceparent(),
            request_id=f"{self._start}-{next(self._numbers)}",
        )
        item = Item(_shared(signed_in.token, protocol, route, content_type) + own.SerializeToString(), body)
        try:
            result = await self._ask(item)
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
            raise _later(int(failure.code), failure.reason, failure.detail, metadata=failure.metadata) from error
        except TimeoutError:
            text = "ingest did not answer in time"
            code = C.DEADLINE_EXCEEDED
            raise _later(code.value[0], code.name, text, metadata={"dependency": "ingest"}) from None
        except TooMuchWaitsError as error:
            raise _later(C.RESOURCE_EXHAUSTED.value[0], error.reason, error.message) from error
        _check(result)

    async def _ask(self, item: Item) -> AppendResult:
        deadline = time.monotonic() + TIMEOUT
        result = await self._items.ask(item, timeout=TIMEOUT)
        if result.code == C.ABORTED.value[0] and result.reason == TakesLongError.reason:
            (result,) = await self._send([item], max(0.001, deadline - time.monotonic()))
        return result

    async def _send(self, items: Sequence[Item], seconds: float) -> Sequence[AppendResult]:
        call = outgoing(default=seconds, signer=self._signer)
        response: AppendManyResponse = await self._call(items, **call)
        return response.results


def encode(items: Sequence[Item]) -> bytes:
    """Return an AppendManyRequest of items, encoded.

    By hand, since a message made of them would copy each body four times: into its item, into the request, into the
    text of it, into the call. Encoded messages one after the other are one message with the fields of all.
    """
    parts: list[bytes] = []
    for item in items:
        opening = item.head + _BODY + _varint(len(item.body))
        parts += (_ITEM, _varint(len(opening) + len(item.body)), opening, item.body)
    return b"".join(parts)


@lru_cache(maxsize=1_024)
def _shared(token: str, protocol: str, route: str, content_type: str) -> bytes:
    """Return what the items of one source have in common, encoded."""
    item = AppendItem(token=token, protocol=protocol, route=route, content_type=content_type)
    item.timeout.FromTimedelta(timedelta(seconds=TIMEOUT))
    return item.SerializeToString()


def _tag(message: type[Message], field: str) -> bytes:
    """Return what stands before a field of bytes or of messages (protobuf's encoding: length-delimited)."""
    return _varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | _LENGTH_DELIMITED)


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number > _LOW_SEVEN_BITS:
        groups.append(number & _LOW_SEVEN_BITS | _MORE)
        number >>= 7
    groups.append(number)
    return bytes(groups)


_LENGTH_DELIMITED, _LOW_SEVEN_BITS, _MORE = 2, 0x7F, 0x80
_ITEM, _BODY = _tag(AppendManyRequest, "items"), _tag(AppendItem, "body")


def _check(result: AppendResult) -> None:
    if result.code in _SENDERS_FAULT:
        if result.reason == "BODY_TOO_LARGE":
            raise too_large("20 MiB once decompressed")
        raise Problem(C.INVALID_ARGUMENT, result.detail, result.reason or "BAD_JSON")
    if result.code:
        wait = math.ceil(result.retry_after.ToTimedelta().total_seconds()) if result.HasField("retry_after") else 1
        raise _later(result.code, result.reason, result.detail, wait=max(1, wait))


def _later(
    code: int, reason: str, detail: str, *, wait: int = 1, metadata: Mapping[str, str] = MappingProxyType({})
) -> Problem:
    """Return what makes every SDK keep its events and send them again; most other answers would lose them."""
    headers = {"retry-after": str(wait)}
    if code == C.RESOURCE_EXHAUSTED.value[0]:
        return Problem(C.RESOURCE_EXHAUSTED, detail, reason, headers=headers)  # a bound says itself what to do
    if code not in _PASSING:
        log.error("ingest refused events", extra={"code": code, "reason": reason, "detail": detail})
        reason, detail = "INGEST_FAILED", "the log refused them"
    text = f"events cannot be taken now; send them again: {detail}"
    return Problem(C.UNAVAILABLE, text, reason, metadata=metadata, headers=headers)
