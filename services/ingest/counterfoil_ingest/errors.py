"""What can go wrong in ingest, each with its reason."""

from __future__ import annotations

from datetime import timedelta
from typing import Self

from counterfoil_chassis.errors import (
    AbortedError,
    AlreadyExistsError,
    DataLossError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)


class BodyTooLargeError(InvalidArgumentError):
    """A request's body is larger than 20 MiB once decompressed."""

    reason = "BODY_TOO_LARGE"


class BadGzipError(InvalidArgumentError):
    """A body begins as gzip does, and is none."""

    reason = "BAD_GZIP"


class BadJsonError(InvalidArgumentError):
    """A body is not JSON at all. A single record that is not is quarantined instead."""

    reason = "BAD_JSON"


class TooManyRecordsError(InvalidArgumentError):
    """One request holds more records than its protocol takes."""

    reason = "TOO_MANY_RECORDS"


class UnknownProtocolError(InvalidArgumentError):
    """No event protocol has this name here."""

    reason = "PROTOCOL_UNKNOWN"


class BadDatasetError(InvalidArgumentError):
    """A dataset's name does not follow the rule for names."""

    reason = "DATASET_INVALID"


class QuotaExceededError(ResourceExhaustedError):
    """The workspace has used up what it may; nothing of the request was kept."""

    reason = "QUOTA_EXCEEDED"


class ContractsUnavailableError(UnavailableError):
    """The contracts service cannot be asked about a dataset that is not known yet."""

    reason = "CONTRACTS_UNAVAILABLE"


class LogUnavailableError(UnavailableError):
    """The log could not be written or read; nothing of the request was kept."""

    reason = "LOG_UNAVAILABLE"

    @classmethod
    def because(cls, cause: str, *, look_at: str) -> Self:
        """Return the error of a storage's failure."""
        return cls(
            f"The log cannot be written or read ({cause}); nothing was kept. Send it again, and look at {look_at}.",
            retry_after=timedelta(seconds=1),
        )


class LogBusyError(ResourceExhaustedError):
    """More waits for the log than it may hold in memory."""

    reason = "LOG_BUSY"


class BlockUnreadableError(DataLossError):
    """A block of the log is damaged."""

    reason = "BLOCK_UNREADABLE"


class SourceNotFoundError(NotFoundError):
    """No source has this id in this workspace."""

    reason = "SOURCE_NOT_FOUND"


class QuarantinedRecordNotFoundError(NotFoundError):
    """No quarantined record has this id in this workspace."""

    reason = "QUARANTINED_RECORD_NOT_FOUND"


class WriteKeyNotFoundError(NotFoundError):
    """No write key has this hash, or it has ended."""

    reason = "WRITE_KEY_NOT_FOUND"


class ErasureAheadError(InvalidArgumentError):
    """An erasure names offsets that the log does not have."""

    reason = "ERASURE_AHEAD"


class LogReadError(UnavailableError):
    """What was erased cannot be overwritten on disk, because somebody reads an older state of the log."""

    reason = "LOG_READ"


class MonitorNotFoundError(NotFoundError):
    """No contract in force has a monitor with this id."""

    reason = "MONITOR_NOT_FOUND"


class MonitorExistsError(AlreadyExistsError):
    """The dataset has a monitor of this name already."""

    reason = "MONITOR_EXISTS"


class MonitorOfContractError(FailedPreconditionError):
    """The monitor is what a contract promises: a new version of it changes it."""

    reason = "MONITOR_OF_CONTRACT"


class MonitorInvalidError(InvalidArgumentError):
    """A monitor's settings contradict its dataset or each other."""

    reason = "MONITOR_INVALID"


class TooManyMonitorsError(ResourceExhaustedError):
    """The dataset has as many monitors as it may have."""

    reason = "TOO_MANY_MONITORS"


class TotalInvalidError(InvalidArgumentError):
    """A reported total names what its dataset has not, or what must not be named."""

    reason = "TOTAL_INVALID"


class TooManyTotalsError(ResourceExhaustedError):
    """As many totals of the dataset are kept as may be."""

    reason = "TOO_MANY_TOTALS"


class ReconciliationNotFoundError(NotFoundError):
    """No reported total has this id in this workspace."""

    reason = "RECONCILIATION_NOT_FOUND"


class NothingToResumeError(FailedPreconditionError):
    """The monitor has no open incident."""

    reason = "NOTHING_TO_RESUME"


class MonitorFailingError(FailedPreconditionError):
    """The promise is still broken, and nobody has said that this is accepted."""

    reason = "MONITOR_FAILING"


class RepairInvalidError(InvalidArgumentError):
    """A patch or a fix is not one, whatever the record."""

    reason = "REPAIR_INVALID"


class SelectionInvalidError(InvalidArgumentError):
    """A request names quarantined records both by ids and by a filter, or by neither."""

    reason = "SELECTION_INVALID"


class QuarantineChangedError(AbortedError):
    """Quarantined records were repaired, replayed, discarded, erased or reverted by somebody else meanwhile."""

    reason = "QUARANTINE_CHANGED"
