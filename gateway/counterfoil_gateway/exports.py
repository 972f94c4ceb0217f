"""`GET /v1/audit:export`: the archive itself, streamed from governance without being held here."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
from counterfoil.governance.v1.audit_pb2 import ExportAuditRequest, ExportAuditResponse

from counterfoil_gateway.admission import PLACE
from counterfoil_gateway.api import Api, Binding
from counterfoil_gateway.asgi import Reply
from counterfoil_gateway.calls import Calls
from counterfoil_gateway.deadlines import left
from counterfoil_gateway.problems import from_rpc
from counterfoil_gateway.serve import Exchange
from counterfoil_gateway.streams import send_part, start, until_gone

EXPORT = "/counterfoil.governance.v1.AuditService/ExportAudit"
ZIP = b"application/zip"
_AS_FILE = (b"content-disposition", b'attachment; filename="counterfoil-audit.zip"')
log = logging.getLogger(__name__)


class ExportAudit:
    """The endpoint. An export that fails on the way is broken off, so that nobody takes it for a whole one."""

    binding = Binding("GET", "/v1/audit:export", "", ("v1", "audit"), "export")

    def __init__(self, api: Api, calls: Calls) -> None:
        self.method = next(m for m in api.methods if m.name == EXPORT)
        self._call = calls.stream(self.method)

    async def answer(self, exchange: Exchange) -> Reply | None:
        """Send the archive on as it comes; its size has no bound."""
        timeout = left(exchange.headers, self.method)
        exchange.scope[PLACE].streams()
        request = ExportAuditRequest().SerializeToString()
        call = self._call(request, timeout=timeout, metadata=exchange.metadata)
        gone = asyncio.ensure_future(until_gone(exchange.receive, call))
        started = False
        try:
            async for raw in call:
                if not started:
                    await start(exchange.send, ZIP, _AS_FILE)
                    started = True
                data = ExportAuditResponse.FromString(raw).data
                await send_part(exchange.send, data)
        except grpc.aio.AioRpcError as error:
            if not started:
                raise
            problem = from_rpc(error)
            log.warning("an audit export broke off", extra={"code": problem.code.name, "reason": problem.reason})
            return None
        except asyncio.CancelledError:
            if not gone.done() or gone.cancelled():
                raise
            return None
        finally:
            gone.cancel()
            call.cancel()
        return await _ended(exchange, started=started)


async def _ended(exchange: Exchange, *, started: bool) -> Reply | None:
    if not started:
        return Reply(200, b"", [(b"content-type", ZIP), _AS_FILE])
    end: dict[str, Any] = {"type": "http.response.body", "body": b""}
    await exchange.send(end)
    return None
