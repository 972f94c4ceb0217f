"""The doors for spans: OTLP over gRPC, and over HTTP in protobuf or JSON (OTLP 1.x)."""

import zlib
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from counterfoil_cli.traces.intake import Intake, OverloadedError
from counterfoil_cli.traces.otlp import MalformedExportError, decode_json, decode_protobuf

MAX_REQUEST_BYTES = 16 * 1024 * 1024  # also after decompression
PROTOBUF = "application/x-protobuf"
JSON = "application/json"
_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
_CODES = {400: 3, 413: 3, 415: 3, 503: 14}  # google.rpc.Code


class _RefusedError(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def grpc_handler(intake: Intake) -> grpc.GenericRpcHandler:
    """Return the TraceService: bytes in, decoded by the writer."""

    async def export(payload: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        try:
            return _answer(await intake.put(payload, decode_protobuf)).SerializeToString()
        except MalformedExportError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except OverloadedError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

    return grpc.method_handlers_generic_handler(_SERVICE, {"Export": grpc.unary_unary_rpc_method_handler(export)})


class HttpReceiver:
    """`POST /v1/traces`."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def export(self, request: Request) -> Response:
        """Take one export request; 400 when it is malformed, 503 when it shall come again later."""
        as_json = _media_type(request) == JSON
        try:
            payload = await _body(request)
            rejected = await self._intake.put(payload, decode_json if as_json else decode_protobuf)
        except ClientDisconnect:
            return Response(status_code=400)
        except _RefusedError as error:
            return _problem(error.status, str(error), as_json=as_json)
        except MalformedExportError as error:
            return _problem(400, str(error), as_json=as_json)
        except OverloadedError as error:
            return _problem(503, str(error), as_json=as_json)
        answer = _answer(rejected)
        if as_json:
            return JSONResponse(MessageToDict(answer))
        return Response(answer.SerializeToString(), media_type=PROTOBUF)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _body(request: Request) -> bytes:
    if _media_type(request) not in (PROTOBUF, JSON):
        raise _RefusedError(415, f"send {PROTOBUF} or {JSON}")
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_REQUEST_BYTES:
            raise _RefusedError(413, f"more than {MAX_REQUEST_BYTES} bytes")
        chunks.append(chunk)
    body = b"".join(chunks)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "gzip":
        return _gunzip(body)
    if encoding not in ("", "identity"):
        raise _RefusedError(415, f"content-encoding {encoding} is not known; send gzip or none")
    return body


def _gunzip(body: bytes) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    try:
        text = stream.decompress(body, MAX_REQUEST_BYTES)
    except zlib.error as error:
        raise _RefusedError(400, f"not gzip: {error}") from error
    if stream.unconsumed_tail:
        raise _RefusedError(413, f"more than {MAX_REQUEST_BYTES} bytes after decompression")
    if not stream.eof:
        raise _RefusedError(400, "the gzip stream breaks off")
    return text


def _answer(rejected: int) -> ExportTraceServiceResponse:
    answer = ExportTraceServiceResponse()
    if rejected:
        answer.partial_success.rejected_spans = rejected
        answer.partial_success.error_message = "spans without a valid trace_id (16 bytes) and span_id (8 bytes)"
    return answer


def _problem(status: int, detail: str, *, as_json: bool) -> Response:
    """Return the error as google.rpc.Status, as OTLP/HTTP wants it."""
    problem = Status(code=_CODES[status], message=detail)
    headers = {"retry-after": "1"} if status == 503 else {}
    if as_json:
        return JSONResponse(MessageToDict(problem), status_code=status, headers=headers)
    return Response(problem.SerializeToString(), status_code=status, headers=headers, media_type=PROTOBUF)
