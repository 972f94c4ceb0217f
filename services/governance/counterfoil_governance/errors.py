"""What can go wrong in governance, each with its reason."""

from __future__ import annotations

from counterfoil_chassis.errors import (
    AlreadyExistsError,
    DataLossError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
)


class WorkspaceNotFoundError(NotFoundError):
    """The caller may not see such a workspace, or there is none."""

    reason = "WORKSPACE_NOT_FOUND"


class WorkspaceExistsError(AlreadyExistsError):
    """A workspace has this id."""

    reason = "WORKSPACE_EXISTS"


class TimezoneUnknownError(InvalidArgumentError):
    """The IANA database has no such timezone."""

    reason = "TIMEZONE_UNKNOWN"


class UpdateMaskError(InvalidArgumentError):
    """The update mask names what cannot be changed, or nothing."""

    reason = "UPDATE_MASK_INVALID"


class PrincipalNotFoundError(NotFoundError):
    """No principal has this id in this workspace."""

    reason = "PRINCIPAL_NOT_FOUND"


class PrincipalExistsError(AlreadyExistsError):
    """A principal of this workspace has this id."""

    reason = "PRINCIPAL_EXISTS"


class PrincipalDisabledError(FailedPreconditionError):
    """A disabled principal gets no keys."""

    reason = "PRINCIPAL_DISABLED"


class KeyNotFoundError(NotFoundError):
    """No key has this id in this workspace."""

    reason = "KEY_NOT_FOUND"


class ScopeUnknownError(InvalidArgumentError):
    """There is no such scope."""

    reason = "SCOPE_UNKNOWN"


class ScopeNotHeldError(PermissionDeniedError):
    """A key was to get a scope that its creator lacks."""

    reason = "SCOPE_NOT_HELD"


class ScopeOutsideRolesError(FailedPreconditionError):
    """A key was to get a scope that the roles of its principal do not allow."""

    reason = "SCOPE_OUTSIDE_ROLES"


class RoleUnknownError(InvalidArgumentError):
    """There is no such role."""

    reason = "ROLE_UNKNOWN"


class ExpiryPastError(InvalidArgumentError):
    """A key was to end before it began."""

    reason = "EXPIRY_PAST"


class LastAdminKeyError(FailedPreconditionError):
    """Without this key nobody could govern the workspace any more."""

    reason = "LAST_ADMIN_KEY"


class CredentialNotFoundError(NotFoundError):
    """No accepted API key has this hash."""

    reason = "CREDENTIAL_NOT_FOUND"


class ReceiptNotFoundError(NotFoundError):
    """The ledger has no such receipt of this workspace."""

    reason = "RECEIPT_NOT_FOUND"


class ReceiptMalformedError(InvalidArgumentError):
    """The bytes are no receipt, or one without id or workspace."""

    reason = "RECEIPT_MALFORMED"


class ReceiptProducerError(PermissionDeniedError):
    """A service put a receipt that names another producer."""

    reason = "RECEIPT_PRODUCER"


class ReceiptDiffersError(AlreadyExistsError):
    """The ledger holds other bytes under this receipt id."""

    reason = "RECEIPT_DIFFERS"


class AuditEntryMalformedError(InvalidArgumentError):
    """The details of an audit entry are no JSON object, or its workspace is none."""

    reason = "AUDIT_ENTRY_MALFORMED"


class AuditEntryDiffersError(AlreadyExistsError):
    """The log holds another entry under this id."""

    reason = "AUDIT_ENTRY_DIFFERS"


class AuditRangeError(OutOfRangeError):
    """The log has no such entry, or is not that long."""

    reason = "AUDIT_RANGE"


class AuditBrokenError(DataLossError):
    """What is stored of the audit log does not fit together; verify an export of it."""

    reason = "AUDIT_BROKEN"


class PoliciesInvalidError(InvalidArgumentError):
    """The text of a policy bundle has faults; the violations name each with its line."""

    reason = "POLICIES_INVALID"


class PolicyBundleNotFoundError(NotFoundError):
    """The workspace has no policy bundle of this version."""

    reason = "POLICY_BUNDLE_NOT_FOUND"


class PolicyLockoutError(FailedPreconditionError):
    """Under this bundle nobody could change the policies any more."""

    reason = "POLICY_LOCKOUT"


class PolicyBundleOutdatedError(FailedPreconditionError):
    """Another bundle came in force since this one was submitted."""

    reason = "POLICY_BUNDLE_OUTDATED"


class QuestionMalformedError(InvalidArgumentError):
    """The attributes or the context of a policy question are no JSON object."""

    reason = "QUESTION_MALFORMED"


class ChangeNotFoundError(NotFoundError):
    """The workspace has no such change."""

    reason = "CHANGE_NOT_FOUND"


class ChangePayloadError(InvalidArgumentError):
    """The payload of a change is no JSON object that I-JSON (RFC 7493) can say."""

    reason = "CHANGE_PAYLOAD"


class ChangeRequesterError(FailedPreconditionError):
    """The requester of a change is no active principal of the workspace."""

    reason = "CHANGE_REQUESTER"


class ChangeRequestReusedError(AlreadyExistsError):
    """The request id of this service belongs to another change."""

    reason = "CHANGE_REQUEST_REUSED"


class ChangeExpiredError(FailedPreconditionError):
    """Nobody approved it in time, or it was not carried out while its approval held."""

    reason = "CHANGE_EXPIRED"


class ChangeNotApprovedError(FailedPreconditionError):
    """The change lacks votes, or was rejected."""

    reason = "CHANGE_NOT_APPROVED"


class ChangeNotPendingError(FailedPreconditionError):
    """The change waits for no votes any more."""

    reason = "CHANGE_NOT_PENDING"


class ChangePayloadDiffersError(FailedPreconditionError):
    """What is to be carried out is not what was approved."""

    reason = "CHANGE_PAYLOAD_DIFFERS"


class ChangeAppliedError(FailedPreconditionError):
    """The change was carried out already, or has failed."""

    reason = "CHANGE_APPLIED"


class ChangeOwnerError(PermissionDeniedError):
    """Another service asked for this change and carries it out."""

    reason = "CHANGE_OWNER"


class VoteOwnChangeError(PermissionDeniedError):
    """Who asks for a change does not vote on it."""

    reason = "VOTE_OWN_CHANGE"


class VoterNotHumanError(PermissionDeniedError):
    """Only an active person votes, never a program."""

    reason = "VOTER_NOT_HUMAN"


class VoteExistsError(AlreadyExistsError):
    """A person votes on a change once."""

    reason = "VOTE_EXISTS"


class VotePayloadDiffersError(FailedPreconditionError):
    """The vote names another payload than the change has."""

    reason = "VOTE_PAYLOAD_DIFFERS"


class ConsentPeriodError(InvalidArgumentError):
    """A consent ends before it begins, or begins in the future."""

    reason = "CONSENT_PERIOD"


class LedgerRevisionUnknownError(OutOfRangeError):
    """The consent ledger has not reached this revision."""

    reason = "LEDGER_REVISION_UNKNOWN"


class PrivacyRequestNotFoundError(NotFoundError):
    """The workspace has no such privacy request."""

    reason = "PRIVACY_REQUEST_NOT_FOUND"


class ErasureIncompleteError(FailedPreconditionError):
    """A service reported an erasure although its own search still finds something of the person."""

    reason = "ERASURE_INCOMPLETE"


class ErasureReporterError(PermissionDeniedError):
    """A service reports what it did itself, and only if it holds personal data."""

    reason = "ERASURE_REPORTER"


class IncidentNotFoundError(NotFoundError):
    """The workspace has no such incident."""

    reason = "INCIDENT_NOT_FOUND"


class IncidentResolvedError(FailedPreconditionError):
    """The incident is over; there is nothing to look after."""

    reason = "INCIDENT_RESOLVED"


class BreachLastsError(FailedPreconditionError):
    """The promise is still broken, and nobody has said that this is accepted."""

    reason = "BREACH_LASTS"


class LegalHoldNotFoundError(NotFoundError):
    """The workspace has no such legal hold."""

    reason = "LEGAL_HOLD_NOT_FOUND"


class LegalHoldTargetError(InvalidArgumentError):
    """A legal hold names either a dataset or the identifiers of a person."""

    reason = "LEGAL_HOLD_TARGET"


class LegalHoldPeriodError(InvalidArgumentError):
    """A legal hold ends in the future, or never."""

    reason = "LEGAL_HOLD_PERIOD"


class RetentionPolicyNotFoundError(NotFoundError):
    """The dataset has no retention policy in this workspace."""

    reason = "RETENTION_POLICY_NOT_FOUND"


class RetentionIncompleteError(FailedPreconditionError):
    """A service reported that retention is done although its own search still finds what has expired."""

    reason = "RETENTION_INCOMPLETE"
