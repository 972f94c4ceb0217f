"""`GET /v1/audit:export`: the archive itself, streamed from governance without being held here."""

from __future__ import annotations

from counterfoil.governance.v1.audit_pb2 import ExportAuditRequest, ExportAuditResponse

from counterfoil_gateway.admission import PLACE
from counterfoil_gateway.api import Api, Binding
from counterfoil_gateway.asgi import Reply
from counterfoil_gateway.calls import Calls
from counterfoil_gateway.deadlines import left
from counterfoil_gateway.serve import Exchange
from counterfoil_gateway.streams import Part, send_file

EXPORT = "/counterfoil.governance.v1.AuditService/ExportAudit"
ZIP = b"application/zip"
_AS_FILE = (b"content-disposition", b'attachment; filename="counterfoil-audit.zip"')


class ExportAudit:
    """The endpoint."""

    binding = Binding("GET", "/v1/audit:export", "", ("v1", "audit"), "export")

    def __init__(self, api: Api, calls: Calls) -> None:
        self.method = api.named(EXPORT)
        self._call = calls.stream(self.method)

    async def answer(self, exchange: Exchange) -> Reply | None:
        """Send the archive on as it comes; its size has no bound."""
        timeout = left(exchange.headers, self.method)
        exchange.scope[PLACE].streams()
        request = ExportAuditRequest().SerializeToString()
        call = self._call(request, timeout=timeout, metadata=exchange.metadata)
        await send_file(call, _part, media_type=ZIP, receive=exchange.receive, send=exchange.send)
        return None


def _part(raw: bytes) -> Part:
    return ExportAuditResponse.FromString(raw).data, [_AS_FILE]
