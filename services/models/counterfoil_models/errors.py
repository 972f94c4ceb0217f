"""What can go wrong in models, each with its stable reason."""

from datetime import timedelta

from counterfoil_chassis.errors import (
    AlreadyExistsError,
    DataLossError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)


class ModelNotFoundError(NotFoundError):
    """No model has this id in this workspace."""

    reason = "MODEL_NOT_FOUND"


class ModelVersionNotFoundError(NotFoundError):
    """The model has no such version."""

    reason = "MODEL_VERSION_NOT_FOUND"


class ForecastNotFoundError(NotFoundError):
    """No forecast has this id in this workspace."""

    reason = "FORECAST_NOT_FOUND"


class AttributionNotFoundError(NotFoundError):
    """No attribution has this id in this workspace."""

    reason = "ATTRIBUTION_NOT_FOUND"


class LiftNotFoundError(NotFoundError):
    """No lift has this id in this workspace."""

    reason = "LIFT_NOT_FOUND"


class ReceiptNotFoundError(NotFoundError):
    """This service made no receipt of this id in this workspace."""

    reason = "RECEIPT_NOT_FOUND"


class ModelExistsError(AlreadyExistsError):
    """A model of this id exists in this workspace."""

    reason = "MODEL_EXISTS"


class SpecInvalidError(InvalidArgumentError):
    """The fields of a model's spec contradict each other."""

    reason = "BAD_FIELD"


class HorizonTooLongError(InvalidArgumentError):
    """The horizon asked for is longer than the model's."""

    reason = "HORIZON_TOO_LONG"


class SeriesUnknownError(InvalidArgumentError):
    """The champion was not trained on a series of this name."""

    reason = "SERIES_UNKNOWN"


class TrainingRunningError(FailedPreconditionError):
    """A version of this model is being trained."""

    reason = "TRAINING_RUNNING"


class NoChampionError(FailedPreconditionError):
    """No version of the model serves."""

    reason = "NO_CHAMPION"


class NoEarlierChampionError(FailedPreconditionError):
    """No version served before the present champion."""

    reason = "NO_EARLIER_CHAMPION"


class StateTransitionError(FailedPreconditionError):
    """The version's state does not allow this."""

    reason = "STATE_TRANSITION_INVALID"


class SeriesFieldError(FailedPreconditionError):
    """A property the spec names is not in the dataset or has an unusable type."""

    reason = "SERIES_FIELD_INVALID"


class NoWholeDaysError(FailedPreconditionError):
    """The dataset holds no whole day."""

    reason = "NO_WHOLE_DAYS"


class SeriesTooLargeError(FailedPreconditionError):
    """The data would make more days or more series than one model holds."""

    reason = "SERIES_TOO_LARGE"


class BlockUnreadableError(DataLossError):
    """A block of the log is damaged, or of a layout that this release does not know."""

    reason = "BLOCK_UNREADABLE"


class ArtifactCorruptError(DataLossError):
    """The artifact's bytes are not those that were kept, or are gone."""

    reason = "ARTIFACT_CORRUPT"

    def __init__(self, sha256: str, *, actual: str) -> None:
        """Take the hash that was kept and that of the bytes there are, empty = none."""
        found = f"its bytes have the hash {actual}" if actual else "it is gone"
        super().__init__(
            f"The artifact {sha256} is not as it was kept: {found}. Restore it from a backup, or train a new version.",
            metadata={"artifact_sha256": sha256, "actual_sha256": actual},
        )


class ArtifactAbsentError(UnavailableError):
    """The artifact is not in the database; the process that trains brings in what an earlier release kept in files."""

    reason = "ARTIFACT_ABSENT"

    def __init__(self, sha256: str) -> None:
        super().__init__(
            f"The artifact {sha256} is not in the database. The process that trains brings in what an earlier release "
            "kept in its data folder: start it with that folder, or restore a backup.",
            metadata={"artifact_sha256": sha256},
            retry_after=timedelta(seconds=5),
        )


class HistoryTooShortError(FailedPreconditionError):
    """The data has fewer whole days than the champion's method needs."""

    reason = "HISTORY_TOO_SHORT"


class GraphErasedError(FailedPreconditionError):
    """Records that a cited state of the graph was made of have been erased since."""

    reason = "GRAPH_ERASED"


class SnapshotErasedError(FailedPreconditionError):
    """An erasure changed records of the snapshot since it was taken."""

    reason = "SNAPSHOT_ERASED"


class GraphEmptyError(FailedPreconditionError):
    """The graph of this workspace has read no records yet."""

    reason = "GRAPH_EMPTY"


class SubjectsTooManyError(FailedPreconditionError):
    """The touchpoints name more channels or campaigns than one attribution holds."""

    reason = "SUBJECTS_TOO_MANY"


class GraphRebuiltError(FailedPreconditionError):
    """The graph is no longer read under the mappings or the log that were cited."""

    reason = "GRAPH_REBUILT"


class SnapshotExpiredError(FailedPreconditionError):
    """The snapshot belongs to a log that is no longer kept."""

    reason = "SNAPSHOT_EPOCH_UNKNOWN"


class NoUnitsError(FailedPreconditionError):
    """The outcome dataset names no unit."""

    reason = "NO_UNITS"


class LiftTooLargeError(FailedPreconditionError):
    """The outcome dataset has more units than a lift compares."""

    reason = "LIFT_TOO_LARGE"


class GroupTooSmallError(FailedPreconditionError):
    """Fewer than two units were treated, or fewer than two were not."""

    reason = "GROUP_TOO_SMALL"


class DataHeldError(FailedPreconditionError):
    """A dataset that this would be made from is held, since it broke its contract."""

    reason = "DATA_HELD"
