"""What can go wrong, apart from any transport: a canonical code, a stable reason, a message that says what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import ClassVar


class Code(IntEnum):
    """The canonical codes with gRPC's numbers (google.rpc.Code)."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True)
class FieldViolation:
    """One fault of one request field: its path as the caller wrote it, a stable reason, and what is wrong."""

    field: str
    reason: str
    description: str


class CounterfoilError(Exception):
    """A failure that callers are told about; subclasses fix `code` and `reason`, dynamic values go in `metadata`."""

    code: ClassVar[Code] = Code.INTERNAL
    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after


class InvalidArgumentError(CounterfoilError):
    """The request is wrong whatever the state."""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"


class BadFieldError(InvalidArgumentError):
    """A field of the request breaks its rule; the violations name each one."""

    reason = "BAD_FIELD"


class NotFoundError(CounterfoilError):
    """The resource does not exist, or belongs to somebody else."""

    code = Code.NOT_FOUND
    reason = "NOT_FOUND"


class AlreadyExistsError(CounterfoilError):
    """A resource with this id exists."""

    code = Code.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class PermissionDeniedError(CounterfoilError):
    """The caller is known and may not do this."""

    code = Code.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class UnauthenticatedError(CounterfoilError):
    """The caller is not known."""

    code = Code.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class FailedPreconditionError(CounterfoilError):
    """The state does not allow it; retrying without changing the state fails again."""

    code = Code.FAILED_PRECONDITION
    reason = "FAILED_PRECONDITION"


class AbortedError(CounterfoilError):
    """Somebody else was at it; read again and retry the whole."""

    code = Code.ABORTED
    reason = "ABORTED"


class EtagMismatchError(AbortedError):
    """The resource has changed since the etag was read; read it again."""

    reason = "ETAG_MISMATCH"


class ResourceExhaustedError(CounterfoilError):
    """A quota or limit is used up."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "RESOURCE_EXHAUSTED"


class UnavailableError(CounterfoilError):
    """Not now; retrying the same call later can succeed."""

    code = Code.UNAVAILABLE
    reason = "UNAVAILABLE"


class UnimplementedError(CounterfoilError):
    """This is not offered here."""

    code = Code.UNIMPLEMENTED
    reason = "UNIMPLEMENTED"


class DeadlineExceededError(CounterfoilError):
    """The time the caller gave has run out."""

    code = Code.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class OutOfRangeError(CounterfoilError):
    """Past the end of what there is."""

    code = Code.OUT_OF_RANGE
    reason = "OUT_OF_RANGE"


class DataLossError(CounterfoilError):
    """Stored data is damaged."""

    code = Code.DATA_LOSS
    reason = "DATA_LOSS"


class InternalError(CounterfoilError):
    """Something broke here; the trace id leads to the log."""

    reason = "INTERNAL"


class StartError(Exception):
    """The process cannot start; the message is one line that says what to do."""
