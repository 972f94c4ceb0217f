"""What went wrong, as RFC 9457 problem JSON: the one table from gRPC codes to HTTP."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import orjson
from counterfoil_chassis.errors import CounterfoilError
from counterfoil_chassis.status import DETAILS_KEY, DOMAIN, failure_of
from counterfoil_chassis.telemetry import current_trace_id
from google.rpc import error_details_pb2, status_pb2

from counterfoil_gateway.values import Fault

C = grpc.StatusCode
HTTP: Mapping[grpc.StatusCode, int] = {
    C.OK: 200,
    C.CANCELLED: 499,
    C.UNKNOWN: 500,
    C.INVALID_ARGUMENT: 400,
    C.DEADLINE_EXCEEDED: 504,
    C.NOT_FOUND: 404,
    C.ALREADY_EXISTS: 409,
    C.PERMISSION_DENIED: 403,
    C.UNAUTHENTICATED: 401,
    C.RESOURCE_EXHAUSTED: 429,
    C.FAILED_PRECONDITION: 400,
    C.ABORTED: 409,
    C.OUT_OF_RANGE: 400,
    C.UNIMPLEMENTED: 501,
    C.INTERNAL: 500,
    C.UNAVAILABLE: 503,
    C.DATA_LOSS: 500,
}
HTTP_OF_REASON: Mapping[str, int] = {"ETAG_MISMATCH": 412, "FILE_TOO_LARGE": 413}
"""Reasons whose HTTP status is finer than their code's: what sending again does not mend is no 429."""
HIDDEN = frozenset({C.UNKNOWN, C.INTERNAL, C.DATA_LOSS})
"""Codes whose text is for our logs, not for callers."""
HIDDEN_DETAIL = "Something failed on our side; quote the trace_id."
MEDIA_TYPE = b"application/problem+json"


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """A request that cannot be served, with all that the caller is told."""

    def __init__(
        self,
        code: grpc.StatusCode,
        detail: str,
        reason: str,
        *,
        http: int | None = None,
        errors: Sequence[Fault] = (),
        metadata: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.reason = reason
        self.status = http or HTTP_OF_REASON.get(reason, HTTP[code])
        self.errors = tuple(errors)
        self.metadata = dict(metadata or {})
        self.headers = dict(headers or {})
        if code is C.UNAVAILABLE:
            self.headers.setdefault("retry-after", "1")

    def json(self) -> bytes:
        """Return the problem document, with the id of the current trace."""
        body: dict[str, Any] = {
            "type": f"https://{DOMAIN}/problems/{self.reason.lower().replace('_', '-')}",
            "title": self.code.name.replace("_", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
            "code": self.code.name,
            "reason": self.reason,
            "metadata": self.metadata,
            "trace_id": current_trace_id(),
        }
        if self.errors:
            body["errors"] = [{"field": e.field, "code": e.code, "detail": e.detail} for e in self.errors]
        return orjson.dumps(body)

    def fields(self) -> list[tuple[bytes, bytes]]:
        """Return the HTTP header fields of the answer."""
        return [(b"content-type", MEDIA_TYPE), *((k.encode(), v.encode()) for k, v in self.headers.items())]

    def trailers(self) -> tuple[tuple[str, bytes], ...]:
        """Return the gRPC trailing metadata that says the same as the document."""
        status = status_pb2.Status(code=self.code.value[0], message=self.detail)
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata)
        status.details.add().Pack(info)
        if self.errors:
            violation = error_details_pb2.BadRequest.FieldViolation
            found = [violation(field=e.field, reason=e.code, description=e.detail) for e in self.errors]
            status.details.add().Pack(error_details_pb2.BadRequest(field_violations=found))
        if "retry-after" in self.headers:
            wait = error_details_pb2.RetryInfo()
            wait.retry_delay.FromSeconds(int(self.headers["retry-after"]))
            status.details.add().Pack(wait)
        return ((DETAILS_KEY, status.SerializeToString()),)


def bad_request(faults: Sequence[Fault]) -> Problem:
    """Return the problem that lists every fault."""
    first = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Problem(C.INVALID_ARGUMENT, f"{first.field or 'body'}: {first.detail}{more}", "BAD_FIELD", errors=faults)


def from_rpc(error: grpc.aio.AioRpcError, body: str = "") -> Problem:
    """Return what a backend's status means to the caller; `body` is the field that was sent as the body."""
    failure = failure_of(error)
    code = error.code()
    violations = failure.violations
    faults = [Fault(v.field.removeprefix(f"{body}."), v.reason or "rule", v.description) for v in violations]
    wait = failure.retry_after
    headers = {"retry-after": str(math.ceil(wait.total_seconds()))} if wait is not None else {}
    text = HIDDEN_DETAIL if code in HIDDEN else failure.detail or code.name
    return Problem(code, text, failure.reason, errors=faults, metadata=failure.metadata, headers=headers)


def from_failure(error: CounterfoilError) -> Problem:
    """Return what a failure of the chassis, found here, means to the caller."""
    code = next(c for c in C if c.value[0] == error.code)
    wait = error.retry_after
    headers = {"retry-after": str(math.ceil(wait.total_seconds()))} if wait is not None else {}
    return Problem(code, error.message, error.reason, metadata=error.metadata, headers=headers)


def internal() -> Problem:
    """Return the problem of an error that is ours."""
    return Problem(C.INTERNAL, HIDDEN_DETAIL, "INTERNAL")
