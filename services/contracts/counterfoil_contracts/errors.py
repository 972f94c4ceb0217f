"""What can go wrong with contracts, each with its reason."""

from __future__ import annotations

from counterfoil_chassis.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
)


class ContractInvalidError(InvalidArgumentError):
    """The document has findings; each is a violation whose field is a JSON path."""

    reason = "CONTRACT_INVALID"


class ContractNotFoundError(NotFoundError):
    """No contract has this id in this workspace."""

    reason = "CONTRACT_NOT_FOUND"


class VersionNotFoundError(NotFoundError):
    """The contract has no such version."""

    reason = "VERSION_NOT_FOUND"


class VersionExistsError(AlreadyExistsError):
    """The contract has another document under this version."""

    reason = "VERSION_EXISTS"


class ReasonRequiredError(FailedPreconditionError):
    """A version that was in force before comes into force again only for a stated reason."""

    reason = "REASON_REQUIRED"


class DatasetTakenError(FailedPreconditionError):
    """Another active contract governs a dataset of this one."""

    reason = "DATASET_TAKEN"


class NoContractError(NotFoundError):
    """No active contract governs the dataset."""

    reason = "NO_CONTRACT"
