"""What can go wrong with queries and their receipts beside what `read_errors` says, each with its reason."""

from __future__ import annotations

from counterfoil_chassis.errors import InvalidArgumentError, NotFoundError, ResourceExhaustedError


class ResultTooLargeError(ResourceExhaustedError):
    """The query's rows are larger than a result may be."""

    reason = "RESULT_TOO_LARGE"


class TooManyQueriesError(ResourceExhaustedError):
    """As many queries of this workspace wait already as may."""

    reason = "TOO_MANY_QUERIES"


class NotReplayableError(InvalidArgumentError):
    """A receipt is asked for, and the SQL would give something else each time."""

    reason = "SQL_NOT_REPLAYABLE"


class ReceiptNotFoundError(NotFoundError):
    """No receipt of ingest has this id in this workspace."""

    reason = "RECEIPT_NOT_FOUND"
