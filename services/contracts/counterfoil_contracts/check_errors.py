"""What can go wrong with checks, each with its reason."""

from __future__ import annotations

from counterfoil_chassis.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)


class CheckNotFoundError(NotFoundError):
    """No check has this id in this workspace; the newest 200 are kept."""

    reason = "CHECK_NOT_FOUND"


class CheckSubjectError(InvalidArgumentError):
    """A trial is of a document or of a version that was submitted: one of the two, not both."""

    reason = "CHECK_SUBJECT"


class CheckTooLargeError(InvalidArgumentError):
    """The contract compiles to more than can be tried at once."""

    reason = "CHECK_TOO_LARGE"


class TooManyChecksError(ResourceExhaustedError):
    """Too many checks of this workspace wait for ingest."""

    reason = "TOO_MANY_CHECKS"


class ProfileNotDoneError(FailedPreconditionError):
    """A contract is drafted from a profile that is done."""

    reason = "PROFILE_NOT_DONE"


class ProfileEmptyError(FailedPreconditionError):
    """The profile describes no field that a contract could declare."""

    reason = "PROFILE_EMPTY"
