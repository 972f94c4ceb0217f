"""What governance's rules and stores share."""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final


@dataclass(frozen=True)
class Quotas:
    """What a workspace may use; 0 = no bound but the installation's."""

    requests_per_second: int = 0
    event_requests_per_second: int = 0
    records_per_day: int = 0
    stored_bytes: int = 0


@dataclass(frozen=True)
class Workspace:
    """A tenant; `timezone` is an IANA name."""

    workspace_id: str
    display_name: str
    timezone: str
    created_at: datetime
    quotas: Quotas = Quotas()

    @property
    def etag(self) -> str:
        """Name the content: equal workspaces have equal etags."""
        content = f"{self.workspace_id}\n{self.timezone}\n{self.display_name}"
        if self.quotas != Quotas():
            content += f"\n{self.quotas}"
        return hashlib.sha256(content.encode()).hexdigest()[:32]


class PrincipalKind(enum.Enum):
    """A person or a program."""

    HUMAN = "human"
    PROGRAM = "program"


@dataclass(frozen=True)
class Principal:
    """A person or program of one workspace; `disabled_at` is None while it may act."""

    workspace: str
    principal_id: str
    display_name: str
    kind: PrincipalKind
    created_at: datetime
    disabled_at: datetime | None = None
    roles: tuple[str, ...] = ()
    """They bound the scopes of its keys; empty = not bound."""


@dataclass(frozen=True)
class Role:
    """A name for what a kind of principal may do."""

    role: str
    description: str
    scopes: frozenset[str]


@dataclass(frozen=True)
class Key:
    """An API key without the key: `secret_sha256` is its 32-byte digest, `last_four` its end ("" when never seen)."""

    workspace: str
    key_id: str
    principal_id: str
    display_name: str
    scopes: tuple[str, ...]
    secret_sha256: bytes
    last_four: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    bootstrap: bool = False

    def accepted(self, at: datetime) -> bool:
        """Tell whether it signs its principal in at this time."""
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)


@dataclass(frozen=True)
class ReceiptEntry:
    """One receipt of the ledger: its serialised bytes and what they are found by."""

    workspace: str
    receipt_id: str
    producer: str
    body: bytes

    @property
    def unique_id(self) -> str:
        """Return the UUIDv7 of the id: receipts of all producers sort by it in time."""
        return self.receipt_id.rpartition(".")[2]


@dataclass(frozen=True)
class NewAuditEntry:
    """Something that was done, not yet in a log; `details` is a JSON object without personal data."""

    workspace: str
    entry_id: str
    happened_at: datetime
    service: str
    principal: str
    action: str
    resource: str
    details: Mapping[str, Any]
    trace_id: str


@dataclass(frozen=True)
class AuditEntry:
    """One entry of a log: `body` is the RFC 8785 JSON that `leaf` is the hash of; the ids say what is in it."""

    index: int
    entry_id: str
    principal: str
    resource: str
    body: bytes
    leaf: bytes


@dataclass(frozen=True)
class AuditQuery:
    """Which entries to list: those of one resource, of one principal; "" = of all."""

    resource: str = ""
    principal: str = ""
    newest_first: bool = False


@dataclass(frozen=True)
class AuditHead:
    """How many entries and checkpoints a workspace's log has."""

    workspace: str
    size: int
    checkpoints: int


@dataclass(frozen=True)
class TreeNode:
    """The stored hash of a complete subtree: of the leaves [index << level, (index + 1) << level)."""

    level: int
    index: int
    hash: bytes


@dataclass(frozen=True)
class KeptCheckpoint:
    """A log's signed note (C2SP tlog-checkpoint) over its first `tree_size` entries, and the key that checks it."""

    number: int
    tree_size: int
    note: str
    verifier_key: str


class PolicyEffect(enum.Enum):
    """What a policy does to a question that it fits."""

    PERMIT = "permit"
    FORBID = "forbid"


@dataclass(frozen=True)
class Policy:
    """One policy of a bundle, with its annotations."""

    policy_id: str
    owner: str
    effect: PolicyEffect
    description: str
    text: str


class BundleState(enum.Enum):
    """Where a policy bundle is in its life."""

    PROPOSED = "proposed"
    ACTIVE = "active"
    RETIRED = "retired"
    REJECTED = "rejected"


@dataclass(frozen=True)
class PolicyBundle:
    """One version of a workspace's policies; `change_id` is "" for what came with the platform."""

    workspace: str
    version: int
    state: BundleState
    sha256: str
    policies: str
    schema: str
    created_by: str
    created_at: datetime
    reason: str
    change_id: str = ""
    activated_at: datetime | None = None


class Verdict(enum.Enum):
    """How somebody voted."""

    APPROVE = "approve"
    REJECT = "reject"


class ChangeState(enum.Enum):
    """Where a change is in its life."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    APPLIED = "applied"
    FAILED = "failed"


@dataclass(frozen=True)
class Vote:
    """One vote on what it names: the payload by its SHA-256. `mac` seals it together with its change."""

    voter: str
    verdict: Verdict
    reason: str
    payload_sha256: str
    voted_at: datetime
    mac: bytes = b""


@dataclass(frozen=True)
class Change:
    """What one person asks for and others approve; `payload` is RFC 8785 canonical JSON.

    `outcome` is None until it is settled: rejected, applied or failed. Whether it is approved or expired follows from
    its votes and the clock alone; nothing is stored that could be edited into an approval.
    """

    workspace: str
    change_id: str
    service: str
    request_id: str
    kind: str
    resource: str
    payload: bytes
    requester: str
    reason: str
    policy_id: str
    quorum: int
    created_at: datetime
    pending_until: datetime
    outcome: ChangeState | None = None
    settled_at: datetime | None = None
    detail: str = ""
    votes: tuple[Vote, ...] = ()

    @property
    def payload_sha256(self) -> str:
        """Return the hash of what is asked for, as it is stored now."""
        return hashlib.sha256(self.payload).hexdigest()


@dataclass(frozen=True)
class Standing:
    """Where a change is now: its state, when that ends by itself, and which of its votes count, in their order."""

    state: ChangeState
    expires_at: datetime
    counting: tuple[bool, ...]


EMPTY_LEDGER: Final = 1
"""The revision of a consent ledger without records. It is not 0: that asks for the ledger as it is now, and what was
checked against an empty ledger has to be checked against it again."""


class ConsentState(enum.Enum):
    """What a record of the consent ledger says."""

    GRANTED = "granted"
    WITHDRAWN = "withdrawn"


class ConsentBasis(enum.Enum):
    """The legal basis (GDPR, article 6)."""

    CONSENT = "consent"
    CONTRACT = "contract"
    LEGAL_OBLIGATION = "legal_obligation"
    LEGITIMATE_INTEREST = "legitimate_interest"


@dataclass(frozen=True)
class Consent:
    """One record of the consent ledger; `revision` is its place there, 0 before it has one.

    `subject` is the keyed hash of an identifier. `content` is the SHA-256 of all that was said: two records with the
    same content are the very same.
    """

    workspace: str
    consent_id: str
    subject: bytes
    purpose: str
    state: ConsentState
    basis: ConsentBasis
    happened_at: datetime
    expires_at: datetime | None
    evidence: str
    content: bytes
    recorded_at: datetime
    recorded_by: str
    revision: int = 0

    @property
    def rank(self) -> tuple[datetime, bool, float, bytes]:
        """Return what decides which of two records holds: the later; at the same moment what allows less.

        That is the withdrawal, then the grant that ends first. The content ends every tie, so that the order of arrival
        never matters.
        """
        ends = math.inf if self.expires_at is None else self.expires_at.timestamp()
        return self.happened_at, self.state is ConsentState.WITHDRAWN, -ends, self.content


@dataclass(frozen=True)
class ErasureReport:
    """What one service did for an erasure: how many things of each kind are gone."""

    service: str
    erased: Mapping[str, int]
    completed_at: datetime


@dataclass(frozen=True)
class PrivacyRequest:
    """A person's request to be erased; the identifiers are there as keyed hashes and by their types alone."""

    workspace: str
    privacy_request_id: str
    identifier_types: tuple[str, ...]
    identifier_hashes: tuple[bytes, ...]
    reference: str
    created_by: str
    created_at: datetime
    due_at: datetime
    reports: tuple[ErasureReport, ...] = ()
    held_by: tuple[str, ...] = ()
    """The legal holds that it was last said to wait for; one that is over counts no more."""


@dataclass(frozen=True)
class LegalHold:
    """Data that must be kept: a dataset, or a person, whose identifiers are there by keyed hash and type alone."""

    workspace: str
    legal_hold_id: str
    dataset: str
    identifier_types: tuple[str, ...]
    identifier_hashes: tuple[bytes, ...]
    reason: str
    owner: str
    expires_at: datetime | None
    created_by: str
    created_at: datetime
    released_by: str = ""
    released_at: datetime | None = None
    release_reason: str = ""

    def is_active(self, now: datetime) -> bool:
        """Tell whether it keeps anything."""
        return self.released_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True)
class RetentionReport:
    """What ingest did for a policy: counts of what was erased under it in all, of what is held, and of what is left."""

    received_before: datetime
    records: int
    quarantined: int
    held: int
    completed_at: datetime
    waiting_for: str = ""


@dataclass(frozen=True)
class RetentionPolicy:
    """For how many whole days the records of a dataset are kept after the day they were received."""

    workspace: str
    dataset: str
    days: int
    purpose: str
    owner: str
    set_by: str
    set_at: datetime
    report: RetentionReport | None = None

    @property
    def etag(self) -> str:
        """Name the content, which is what was set: reports change nothing."""
        content = f"{self.workspace}\n{self.dataset}\n{self.days}\n{self.purpose}\n{self.owner}\n{self.set_at}"
        return hashlib.sha256(content.encode()).hexdigest()[:32]


class IncidentState(enum.Enum):
    """How far an incident is."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


@dataclass(frozen=True)
class Incident:
    """A promise that was broken, as its producer tells it, and what people said and did about it."""

    workspace: str
    incident_id: str
    producer: str
    resource: str
    dataset: str
    contract_id: str
    contract_version: str
    owner: str
    severity: str
    summary: str
    detail: str
    holds_data: bool
    opened_at: datetime
    recovered_at: datetime | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str = ""
    note: str = ""
    resolved_at: datetime | None = None
    resolved_by: str = ""
    reason: str = ""
    breach_accepted: bool = False

    @property
    def state(self) -> IncidentState:
        """Return how far it is."""
        if self.resolved_at is not None:
            return IncidentState.RESOLVED
        return IncidentState.OPEN if self.acknowledged_at is None else IncidentState.ACKNOWLEDGED
