"""`POST /v1/imports`: a file of any size as the body, streamed to ingest without being held here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import grpc
import orjson
import protovalidate
from counterfoil.ingest.v1.imports_pb2 import ImportEnd, ImportHeader, UploadImportRequest
from counterfoil_chassis.telemetry import current_traceparent

from counterfoil_gateway.admission import PLACE
from counterfoil_gateway.api import Api, Binding
from counterfoil_gateway.asgi import Receive, Reply
from counterfoil_gateway.bodies import refuse_encoding
from counterfoil_gateway.deadlines import left
from counterfoil_gateway.fields import descriptor
from counterfoil_gateway.problems import bad_request
from counterfoil_gateway.read import Reader
from counterfoil_gateway.serve import Exchange
from counterfoil_gateway.streams import PATIENCE
from counterfoil_gateway.values import Fault, Faults
from counterfoil_gateway.write import Writers

UPLOAD = "/counterfoil.ingest.v1.ImportService/UploadImport"
CHUNK = 1 << 20
"""The most bytes in one message, as the proto says."""


class UploadImport:
    """The endpoint. Its query parameters are the fields of `ImportHeader`; the format may be in small letters."""

    binding = Binding("POST", "/v1/imports", "", ("v1", "imports"), "")

    def __init__(self, api: Api, untraced: grpc.aio.Channel) -> None:
        """Take a channel without interceptors: through them, the call's initial metadata come with its answer only."""
        self.method = api.named(UPLOAD)
        self._call: Any = untraced.stream_unary(UPLOAD)  # bytes in, bytes out
        self._write = Writers().of(descriptor(self.method.output))
        self._reader = Reader()

    async def answer(self, exchange: Exchange) -> Reply | None:
        """Send the file on as it comes; its size has no bound."""
        if exchange.headers.get(b"content-encoding", b"").lower() != b"gzip":  # which ingest sees by itself
            refuse_encoding(exchange.headers)
        header = self._header(exchange.scope["query_string"])
        exchange.scope[PLACE].streams()
        upload = _Upload(header, exchange.receive)
        trace = ("traceparent", current_traceparent())
        call = self._call(
            upload.messages(), timeout=left(exchange.headers, self.method), metadata=(*exchange.metadata, trace)
        )
        upload.accepted = call.initial_metadata
        try:
            raw: bytes = await call
        except grpc.aio.AioRpcError:
            if upload.abandoned:
                return None
            raise
        finally:
            call.cancel()
        message = self.method.output.FromString(raw)
        return Reply(200, orjson.dumps(self._write(message)), [(b"content-type", b"application/json")])

    def _header(self, query: bytes) -> ImportHeader:
        header, faults = ImportHeader(), Faults()
        grouped: dict[str, list[str]] = {}
        for name, text in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
            grouped.setdefault(name, []).append(text.upper() if name == "format" else text)
        for name, texts in grouped.items():
            self._reader.from_text(header, name, texts, faults)
        if not faults.found:
            found: list[Any] = protovalidate.collect_violations(header)
            faults.found += [
                Fault(v.proto.field.elements[0].field_name, v.proto.rule_id, v.proto.message) for v in found
            ]
        if faults.found:
            raise bad_request(faults.found)
        return header


class _Upload:
    """A request body as the messages of UploadImport, at most one chunk of it held at a time."""

    def __init__(self, header: ImportHeader, receive: Receive) -> None:
        self._header = header
        self._receive = receive
        self.abandoned = False
        self.accepted: Callable[[], Awaitable[Any]]
        """Returns when ingest has found the header good, or has ended the call."""

    async def messages(self) -> AsyncIterator[bytes]:
        """Yield the header, the chunks, the end; a body that breaks off has none, so ingest keeps nothing of it."""
        yield UploadImportRequest(header=self._header).SerializeToString()
        if not dict(await self.accepted()).get("upload"):
            return  # sending into a call that ingest has refused would hide its reason
        held = bytearray()
        more = True
        while more:
            event = await self._next()
            if event["type"] == "http.disconnect":
                self.abandoned = True
                return
            held += event.get("body", b"")
            more = event.get("more_body", False)
            while len(held) >= CHUNK or (held and not more):
                yield UploadImportRequest(chunk=bytes(held[:CHUNK])).SerializeToString()
                del held[:CHUNK]
        yield UploadImportRequest(end=ImportEnd()).SerializeToString()

    async def _next(self) -> Mapping[str, Any]:
        """Return what the caller sends next; one who sends nothing for a minute has left."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._receive()
        except TimeoutError:
            return {"type": "http.disconnect"}
