"""`POST /v1/sql`: rows as JSON or, by `Accept`, all of them as CSV or one Arrow stream, as they are computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from counterfoil.ingest.v1.queries_pb2 import QueryResult, RunQueryRequest, StreamQueryRequest, StreamQueryResponse

from counterfoil_gateway.admission import PLACE
from counterfoil_gateway.api import Api
from counterfoil_gateway.asgi import Reply
from counterfoil_gateway.bodies import read_body, refuse_encoding
from counterfoil_gateway.calls import Calls
from counterfoil_gateway.deadlines import left
from counterfoil_gateway.problems import bad_request
from counterfoil_gateway.read import Reader
from counterfoil_gateway.serve import Exchange, Transcoded
from counterfoil_gateway.streams import Following, Part, send_file
from counterfoil_gateway.transcode import Arrived, Transcoder
from counterfoil_gateway.values import Fault
from counterfoil_gateway.write import Writers

RUN: Final = "/counterfoil.ingest.v1.QueryService/RunQuery"
_STREAM: Final = "/counterfoil.ingest.v1.QueryService/StreamQuery"
FORMATS: Final[Mapping[str, StreamQueryRequest.Format.ValueType]] = {
    "text/csv": StreamQueryRequest.FORMAT_CSV,
    "application/vnd.apache.arrow.stream": StreamQueryRequest.FORMAT_ARROW_STREAM,
}
_MOST_NAMED: Final = 50


class QueryResults:
    """The endpoint."""

    def __init__(self, api: Api, calls: Calls) -> None:
        self.method = api.named(RUN)
        (self.binding,) = self.method.bindings
        self._transcoder = Transcoder(self.method, self.binding, reader=Reader(), writers=Writers())
        self._as_json = Transcoded(self._transcoder, calls, Following())
        self._call = calls.stream(api.named(_STREAM))

    async def answer(self, exchange: Exchange) -> Reply | None:
        """Answer in the form that is asked for; JSON unless it is one of the others."""
        accepted = exchange.headers.get(b"accept", b"").decode("latin-1").lower()
        kinds = [kind for kind in FORMATS if kind in accepted]
        if not kinds:
            return await self._as_json.answer(exchange)
        request = await self._request(exchange, FORMATS[kinds[0]])
        exchange.scope[PLACE].streams()
        timeout = left(exchange.headers, self.method)
        call = self._call(request.SerializeToString(), timeout=timeout, metadata=exchange.metadata)
        await send_file(call, _part, media_type=_media_type(kinds[0]), receive=exchange.receive, send=exchange.send)
        return None

    async def _request(self, exchange: Exchange, form: StreamQueryRequest.Format.ValueType) -> StreamQueryRequest:
        refuse_encoding(exchange.headers)
        body = await read_body(exchange.receive, exchange.headers)
        arrived = Arrived(exchange.found, exchange.scope["query_string"], body, exchange.headers)
        asked = RunQueryRequest.FromString(self._transcoder.request(arrived))
        if asked.max_rows:
            text = "CSV and Arrow hold all rows; leave it out, or write LIMIT"
            raise bad_request([Fault("max_rows", "json_only", text)])
        return StreamQueryRequest(
            sql=asked.sql,
            parameters=asked.parameters,
            format=form,
            receipt=asked.receipt,
            purpose=asked.purpose,
        )


def _media_type(kind: str) -> bytes:
    return b"text/csv; charset=utf-8; header=present" if kind == "text/csv" else kind.encode()


def _part(raw: bytes) -> Part:
    message = StreamQueryResponse.FromString(raw)
    return message.data, _fields(message.result)


def _fields(result: QueryResult) -> list[tuple[bytes, bytes]]:
    """Return what the header fields say of a result: its receipt, and which fields are masked."""
    found = []
    if result.receipt_id:
        found.append((b"counterfoil-receipt-id", result.receipt_id.encode()))
    if result.masked:
        named = [quote(f"{each.dataset}:{each.path}", safe=":$.*[]'") for each in result.masked[:_MOST_NAMED]]
        found.append((b"counterfoil-masked-fields", ", ".join(named).encode()))
    return found
