"""What can go wrong with contracts, each with its reason."""

from __future__ import annotations

from counterfoil_chassis.errors import (
    AbortedError,
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
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


class VersionTooLowError(FailedPreconditionError):
    """The version's number is lower than what it changes asks for; `needed_version` is the lowest that will do."""

    reason = "VERSION_TOO_LOW"


class ConsumersBrokenError(FailedPreconditionError):
    """The version breaks consumers, or that it does not could not be proven; each violation is one of them."""

    reason = "CONSUMERS_BROKEN"


class ConsumersReadError(FailedPreconditionError):
    """Consumers read the version, so it cannot be retired; each violation is one of them."""

    reason = "CONSUMERS_READ"


class VersionStateError(FailedPreconditionError):
    """The version's state does not allow this."""

    reason = "VERSION_STATE"


class SunsetAheadError(FailedPreconditionError):
    """The version is in force, and its sunset was announced for later."""

    reason = "SUNSET_AHEAD"


class ContractChangedError(AbortedError):
    """The contract or its consumers changed while a version was compared with them; try again."""

    reason = "CONTRACT_CHANGED"


class ConsumerNotFoundError(NotFoundError):
    """No consumer has this id in this workspace."""

    reason = "CONSUMER_NOT_FOUND"


class ConsumerOfServiceError(FailedPreconditionError):
    """The consumer is a mapping or a model of the platform, and ends with it."""

    reason = "CONSUMER_OF_SERVICE"


class TooManyConsumersError(ResourceExhaustedError):
    """The workspace has as many consumers as it can have."""

    reason = "TOO_MANY_CONSUMERS"


class FieldPathInvalidError(InvalidArgumentError):
    """A field is not named by a JSON path of names and elements."""

    reason = "FIELD_PATH_INVALID"


class VersionRangeInvalidError(InvalidArgumentError):
    """A range of versions is not written as one."""

    reason = "VERSION_RANGE_INVALID"


class LineageNodeNotFoundError(NotFoundError):
    """No event named such a dataset or job in this workspace."""

    reason = "LINEAGE_NODE_NOT_FOUND"


class LineageRunNotFoundError(NotFoundError):
    """No event named such a run in this workspace."""

    reason = "LINEAGE_RUN_NOT_FOUND"


class ImpactUnclearError(InvalidArgumentError):
    """The impact of either a dataset or a contract can be asked for."""

    reason = "IMPACT_UNCLEAR"


class SqlUnreadableError(InvalidArgumentError):
    """The statement cannot be read as SQL of this dialect, or is too large to follow."""

    reason = "SQL_UNREADABLE"
