"""What legal holds refuse."""

from __future__ import annotations

from counterfoil_chassis.errors import FailedPreconditionError, UnavailableError


class DatasetHeldError(FailedPreconditionError):
    """A legal hold keeps the dataset; nothing of it is erased or reverted."""

    reason = "DATASET_HELD"


class PersonHeldError(FailedPreconditionError):
    """A record that was to go tells of a person whom a legal hold keeps."""

    reason = "PERSON_HELD"


class HoldsUnknownError(UnavailableError):
    """It is not known yet what legal holds keep, so that nothing is erased."""

    reason = "HOLDS_UNKNOWN"


class RetentionUntoldError(UnavailableError):
    """Governance could not be told what retention has done."""

    reason = "RETENTION_UNTOLD"
