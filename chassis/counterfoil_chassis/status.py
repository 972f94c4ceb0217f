"""Errors as `google.rpc.Status`, the form they travel in (trailer `grpc-status-details-bin`), and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from counterfoil_chassis.errors import Code, CounterfoilError, FieldViolation

DOMAIN = "counterfoil.dev"
DETAILS_KEY = "grpc-status-details-bin"

# A plain gRPC client takes at most 8 KiB of trailers, and the binary trailer travels as base64.
_MESSAGE_CHARACTERS = 800
_DETAILS_BYTES = 4_096
_DESCRIPTION_CHARACTERS = 300


@dataclass(frozen=True)
class RemoteFailure:
    """What another service answered instead of a result; `detail` is its message, `reason` its stable reason."""

    code: Code
    reason: str
    detail: str
    metadata: dict[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_after: timedelta | None = None


def to_status(error: CounterfoilError) -> Status:
    """Return the status with ErrorInfo, BadRequest and RetryInfo, cut to what fits a gRPC trailer."""
    status = Status(code=int(error.code), message=error.message[:_MESSAGE_CHARACTERS])
    status.details.add().Pack(ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=_short(error.metadata)))
    if error.retry_after is not None:
        delay = Duration()
        delay.FromTimedelta(error.retry_after)
        status.details.add().Pack(RetryInfo(retry_delay=delay))
    if error.violations:
        bad_request = BadRequest(
            field_violations=[
                BadRequest.FieldViolation(
                    field=violation.field[:_DESCRIPTION_CHARACTERS],
                    reason=violation.reason,
                    description=violation.description[:_DESCRIPTION_CHARACTERS],
                )
                for violation in error.violations
            ]
        )
        room = _DETAILS_BYTES - status.ByteSize()
        while bad_request.field_violations and bad_request.ByteSize() > room:
            del bad_request.field_violations[len(bad_request.field_violations) // 2 :]
        status.details.add().Pack(bad_request)
    return status


def failure_of(error: grpc.aio.AioRpcError) -> RemoteFailure:
    """Return what the callee said; without details of ours the reason is the code's name."""
    code = code_of(error)
    reason, metadata, retry_after = code.name, dict[str, str](), None
    violations: tuple[FieldViolation, ...] = ()
    status = status_of(error)
    for detail in status.details if status else ():
        info, bad_request, retry = ErrorInfo(), BadRequest(), RetryInfo()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta()
        elif detail.Unpack(bad_request):
            violations = tuple(
                FieldViolation(field=each.field, reason=each.reason, description=each.description)
                for each in bad_request.field_violations
            )
    return RemoteFailure(
        code=code,
        reason=reason,
        detail=(status.message if status else error.details()) or "",
        metadata=metadata,
        violations=violations,
        retry_after=retry_after,
    )


def cause_of(error: grpc.aio.AioRpcError) -> str:
    """Return why a call failed, for people: its code, and the callee's words but not gRPC's, which name addresses."""
    status = status_of(error)
    return f"{error.code().name}: {status.message}" if status else error.code().name


def code_of(error: grpc.aio.AioRpcError) -> Code:
    """Return the canonical code of a failed call."""
    return Code(error.code().value[0])


def status_of(error: grpc.aio.AioRpcError) -> Status | None:
    """Return the rich status that came with a failed call, or None."""
    trailers = error.trailing_metadata() or ()
    for key, value in trailers:
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return Status.FromString(value)
            except DecodeError:
                return None
    return None


def _short(metadata: dict[str, str]) -> dict[str, str]:
    return {key: value[:_DESCRIPTION_CHARACTERS] for key, value in list(metadata.items())[:8]}
