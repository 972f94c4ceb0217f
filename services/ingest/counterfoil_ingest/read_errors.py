"""What can go wrong when records are imported and read back, each with its reason."""

from __future__ import annotations

from counterfoil_chassis.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)


class LakeBehindError(UnavailableError):
    """The lake did not reach the head of the log in time."""

    reason = "LAKE_BEHIND"


class LakeUnavailableError(UnavailableError):
    """The lake's disk or storage failed, when it was read or rewritten for an erasure."""

    reason = "LAKE_UNAVAILABLE"


class DatasetNotFoundError(NotFoundError):
    """No contract in force governs this dataset, and the log has no record of it."""

    reason = "DATASET_NOT_FOUND"


class ColumnUnknownError(InvalidArgumentError):
    """The dataset has no column of this name."""

    reason = "COLUMN_UNKNOWN"


class EpochUnknownError(FailedPreconditionError):
    """The offset belongs to a life of the log that this one does not continue, or lies beyond what was restored."""

    reason = "LOG_EPOCH_UNKNOWN"


class SnapshotEpochUnknownError(FailedPreconditionError):
    """The snapshot belongs to a life of the log that this one does not continue, or to records that a restore lost."""

    reason = "SNAPSHOT_EPOCH_UNKNOWN"


class SnapshotErasedError(FailedPreconditionError):
    """An erasure has changed records below the snapshot's offsets."""

    reason = "SNAPSHOT_ERASED"


class SnapshotAheadError(InvalidArgumentError):
    """The snapshot names offsets or partitions that the log does not have."""

    reason = "SNAPSHOT_AHEAD"


class WorkspaceRequiredError(InvalidArgumentError):
    """A service that acts for itself names no workspace."""

    reason = "WORKSPACE_REQUIRED"


class SqlInvalidError(InvalidArgumentError):
    """The SQL is not one SELECT over this workspace's datasets, or it failed."""

    reason = "SQL_INVALID"


class ParametersInvalidError(InvalidArgumentError):
    """The parameters are no JSON array of plain values."""

    reason = "PARAMETERS_INVALID"


class QueryTimeoutError(DeadlineExceededError):
    """The query did not end in time."""

    reason = "QUERY_TIMEOUT"


class QueryTooLargeError(ResourceExhaustedError):
    """The query needs more memory than a query may have."""

    reason = "QUERY_TOO_LARGE"


class ImportNotFoundError(NotFoundError):
    """No import has this id in this workspace."""

    reason = "IMPORT_NOT_FOUND"


class ConnectionNotFoundError(NotFoundError):
    """No import of this workspace names this connection."""

    reason = "CONNECTION_NOT_FOUND"


class ConnectionMovedError(FailedPreconditionError):
    """The connection stands elsewhere than where the run began: another one or a revert came between."""

    reason = "CONNECTION_MOVED"


class ImportNotRevertibleError(FailedPreconditionError):
    """The import cannot be reverted: it has not ended, or nobody knows where its records lie."""

    reason = "IMPORT_NOT_REVERTIBLE"


class ImportParameterError(InvalidArgumentError):
    """The import names a mapping or a parameter that there is not, or lacks one that its mapping needs."""

    reason = "IMPORT_PARAMETER_INVALID"


class NoContractError(FailedPreconditionError):
    """No contract in force governs the dataset of an import."""

    reason = "NO_CONTRACT"


class UploadInvalidError(InvalidArgumentError):
    """The upload's messages are not one header and then the file's bytes."""

    reason = "UPLOAD_INVALID"


class FileTooLargeError(ResourceExhaustedError):
    """The file is larger than an import may be."""

    reason = "FILE_TOO_LARGE"


class DiskFullError(ResourceExhaustedError):
    """The disk has no room for the file beside its reserve."""

    reason = "DISK_FULL"


class TooManyImportsError(ResourceExhaustedError):
    """As many imports of this workspace are uploaded or wait as may."""

    reason = "TOO_MANY_IMPORTS"
