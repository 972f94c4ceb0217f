"""What can go wrong in the graph, each with its stable reason."""

from __future__ import annotations

from collections.abc import Sequence

from counterfoil_chassis.errors import (
    AbortedError,
    DataLossError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)


class PersonNotFoundError(NotFoundError):
    """No person has this id in this workspace."""

    reason = "PERSON_NOT_FOUND"


class PersonErasedError(PersonNotFoundError):
    """The person asked to be erased, and was."""

    reason = "PERSON_ERASED"


class GraphErasedError(FailedPreconditionError):
    """An erasure has changed the graph since the state was read."""

    reason = "GRAPH_ERASED"


class ErasureHeldError(FailedPreconditionError):
    """Legal holds keep what was to be erased; it is tried again until they are over."""

    reason = "ERASURE_HELD"

    def __init__(self, legal_hold_ids: Sequence[str]) -> None:
        self.legal_hold_ids = tuple(legal_hold_ids)
        super().__init__(f"Legal holds keep what was to be erased: {', '.join(legal_hold_ids)}.")


class ErasureIncompleteError(UnavailableError):
    """The search after an erasure still finds something of the person; it is carried out again."""

    reason = "ERASURE_INCOMPLETE"


class NodeNotFoundError(NotFoundError):
    """No record describes this node in this workspace, at that time."""

    reason = "NODE_NOT_FOUND"


class NodeIdInvalidError(InvalidArgumentError):
    """A node's id is `<type>.<key>`."""

    reason = "NODE_ID_INVALID"


class MappingNotFoundError(NotFoundError):
    """No mapping in force has this id in this workspace."""

    reason = "MAPPING_NOT_FOUND"


class MappingInvalidError(InvalidArgumentError):
    """The mapping has faults; the violations name each one."""

    reason = "MAPPING_INVALID"


class DecisionNotFoundError(NotFoundError):
    """No decision about this person has this id."""

    reason = "DECISION_NOT_FOUND"


class DecisionReversedError(FailedPreconditionError):
    """The merge was taken back already."""

    reason = "DECISION_REVERSED"


class PersonsAlreadyOneError(FailedPreconditionError):
    """Some of the persons to merge are one person already."""

    reason = "PERSONS_ALREADY_ONE"


class SplitInvalidError(InvalidArgumentError):
    """A split names either the merge it takes back or the identifiers that leave, and not all of a person's."""

    reason = "SPLIT_INVALID"


class DecisionTooLargeError(FailedPreconditionError):
    """The person has more identifiers than one decision can name."""

    reason = "DECISION_TOO_LARGE"


class DecisionNotKeptError(UnavailableError):
    """The log did not take the decision."""

    reason = "DECISION_NOT_KEPT"


class RequestIdReusedError(AbortedError):
    """The request id was used for another request; take a fresh one."""

    reason = "REQUEST_ID_REUSED"


class GraphRebuildingError(UnavailableError):
    """The graph reads the log again from its beginning."""

    reason = "GRAPH_REBUILDING"


class GraphRebuiltError(FailedPreconditionError):
    """The state belongs to another life of the log or to mappings that are no longer in force."""

    reason = "GRAPH_REBUILT"


class GraphBehindError(UnavailableError):
    """The graph has not read the log as far as was asked."""

    reason = "GRAPH_BEHIND"


class StateUnknownError(InvalidArgumentError):
    """No state of the graph ends at this offset."""

    reason = "STATE_UNKNOWN"


class BlockUnreadableError(DataLossError):
    """A block of the log cannot be read."""

    reason = "BLOCK_UNREADABLE"


class ApprovalNotNeededError(FailedPreconditionError):
    """Policy asks for no second person here."""

    reason = "APPROVAL_NOT_NEEDED"


class ChangeUsedError(FailedPreconditionError):
    """The approved change was used for another export."""

    reason = "CHANGE_APPLIED"


class ReceiptNotFoundError(NotFoundError):
    """This service made no receipt of this id in this workspace."""

    reason = "RECEIPT_NOT_FOUND"
