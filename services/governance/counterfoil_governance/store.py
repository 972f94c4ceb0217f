"""What governance's rules need from storage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_governance.entities import (
    AuditEntry,
    AuditHead,
    AuditQuery,
    Change,
    ChangeState,
    Consent,
    ErasureReport,
    Incident,
    IncidentState,
    KeptCheckpoint,
    Key,
    LegalHold,
    PolicyBundle,
    Principal,
    PrivacyRequest,
    ReceiptEntry,
    RetentionPolicy,
    Standing,
    TreeNode,
    Vote,
    Workspace,
)


class WorkspaceStore(Protocol):
    """Workspaces of one transaction; the caller opens and commits it."""

    async def get(self, workspace: str) -> Workspace:
        """Return one workspace; raise WorkspaceNotFoundError when there is none."""

    async def add(self, workspace: Workspace) -> None:
        """Keep a new workspace; raise WorkspaceExistsError when its id is taken."""

    async def change(self, workspace: Workspace) -> None:
        """Replace the name and timezone of the workspace with this id."""

    async def any(self) -> bool:
        """Tell whether there is a workspace at all."""


class PrincipalStore(Protocol):
    """Principals of one transaction."""

    async def get(self, workspace: str, principal_id: str) -> Principal:
        """Return one principal; raise PrincipalNotFoundError when absent or in another workspace."""

    async def list(self, workspace: str, *, after: str, limit: int) -> Sequence[Principal]:
        """Return at most `limit` principals with ids above `after`, by id."""

    async def add(self, principal: Principal) -> None:
        """Keep a new principal; raise PrincipalExistsError when its id is taken."""

    async def disable(self, workspace: str, principal_id: str, *, at: datetime) -> None:
        """Mark a principal as disabled."""

    async def enable(self, workspace: str, principal_id: str) -> None:
        """Let a principal act again; the keys it had stay revoked."""

    async def set_roles(self, workspace: str, principal_id: str, *, roles: Sequence[str]) -> None:
        """Replace the roles of a principal."""


class KeyStore(Protocol):
    """API keys of one transaction."""

    async def get(self, workspace: str, key_id: str) -> Key:
        """Return one key; raise KeyNotFoundError when absent or in another workspace."""

    async def list(self, workspace: str, *, principal_id: str, after: str, limit: int) -> Sequence[Key]:
        """Return at most `limit` keys with ids above `after`, by id; of all principals when `principal_id` is empty."""

    async def unrevoked(self, workspace: str) -> Sequence[Key]:
        """Return the keys that were not revoked; some may have expired."""

    async def by_secret(self, secret_sha256: bytes) -> Key:
        """Return the unrevoked key with this digest, of any workspace; raise CredentialNotFoundError without one."""

    async def bootstrap(self) -> Key | None:
        """Return the key of the bootstrap setting that is in force, else the newest revoked one."""

    async def add(self, key: Key) -> None:
        """Keep a new key."""

    async def revoke(self, workspace: str, key_id: str, *, at: datetime) -> None:
        """Mark a key as revoked."""

    async def set_scopes(self, workspace: str, key_id: str, *, scopes: Sequence[str]) -> None:
        """Replace the scopes of a key."""


class CredentialFeed(Protocol):
    """The accepted keys as the gateway watches them; changes reach it once the transaction commits."""

    async def put(self, key: Key, *, roles: Sequence[str]) -> None:
        """Say that a key is accepted, for a principal with these roles."""

    async def delete(self, secret_sha256: bytes) -> None:
        """Say that the key with this digest is refused from now on."""


class ReceiptStore(Protocol):
    """The ledger of receipts: rows are added, never changed or deleted."""

    async def get(self, workspace: str, receipt_id: str) -> ReceiptEntry:
        """Return one receipt; raise ReceiptNotFoundError when absent or in another workspace."""

    async def list(self, workspace: str, *, producer: str, before: str, limit: int) -> Sequence[ReceiptEntry]:
        """Return at most `limit` receipts, newest first, with unique ids below `before` ("" = from the newest)."""

    async def bodies(self, receipt_ids: Sequence[str]) -> Mapping[tuple[str, str], bytes]:
        """Return the bytes kept under these ids in any workspace, by (workspace, receipt id)."""

    async def add(self, entries: Sequence[ReceiptEntry], *, at: datetime) -> None:
        """Append receipts whose ids are new."""


class AuditStore(Protocol):
    """The audit logs of one transaction: entries, nodes of their trees and checkpoints are added, never changed."""

    async def head(self, workspace: str) -> AuditHead:
        """Return how long a log is; a workspace without a log has an empty one."""

    async def lock(self, workspace: str) -> AuditHead:
        """Return the head, and let nobody else add to the log until the transaction ends."""

    async def hashes(self, workspace: str, places: Sequence[tuple[int, int]]) -> Mapping[tuple[int, int], bytes]:
        """Return the stored hashes at these (level, index); one that is missing is left out."""

    async def known(self, workspace: str, entry_ids: Sequence[str]) -> Mapping[str, AuditEntry]:
        """Return the entries that have these ids, by id."""

    async def list(self, workspace: str, *, query: AuditQuery, after: int | None, limit: int) -> Sequence[AuditEntry]:
        """Return at most `limit` entries behind the index `after`, in the order asked for."""

    async def add(
        self, head: AuditHead, entries: Sequence[AuditEntry], nodes: Sequence[TreeNode], *, checkpoint_due: bool
    ) -> None:
        """Append entries, and the nodes they complete, to a locked log; raise AuditBrokenError for a taken place.

        Once it commits, whoever signs checkpoints hears of it when one is due.
        """

    async def checkpoint(self, workspace: str) -> KeptCheckpoint | None:
        """Return the newest checkpoint, or None."""

    async def add_checkpoint(self, head: AuditHead, checkpoint: KeptCheckpoint) -> None:
        """Keep a new checkpoint of a locked log."""

    def stored_entries(self, workspace: str) -> AsyncIterator[Sequence[AuditEntry]]:
        """Yield all entries by index, in pages, as they stand: to be verified, not trusted."""

    def stored_nodes(self, workspace: str) -> AsyncIterator[Sequence[TreeNode]]:
        """Yield all nodes in the same way."""

    def stored_checkpoints(self, workspace: str) -> AsyncIterator[Sequence[KeptCheckpoint]]:
        """Yield all checkpoints in the same way."""


class PolicyBundleStore(Protocol):
    """Policy bundles of one transaction, and their feed, whose watchers are told once it commits."""

    async def get(self, workspace: str, version: int) -> PolicyBundle:
        """Return one version; raise PolicyBundleNotFoundError when there is none."""

    async def in_force(self, workspace: str) -> PolicyBundle:
        """Return the version in force; raise PolicyBundleNotFoundError when the workspace has none."""

    async def newest_version(self, workspace: str) -> int:
        """Return the largest version of a workspace, 0 without any."""

    async def list(self, workspace: str, *, below: int | None, limit: int) -> Sequence[PolicyBundle]:
        """Return at most `limit` versions below one (None = from the newest), newest first."""

    async def workspaces_without(self) -> Sequence[str]:
        """Return the workspaces that have no bundle at all."""

    async def outdated(self, policies: str, schema: str, *, platform: str) -> Sequence[PolicyBundle]:
        """Return the bundles in force with another schema, and those that `platform` submitted with other policies."""

    async def add(self, bundle: PolicyBundle) -> None:
        """Keep a new version."""

    async def set_state(self, bundle: PolicyBundle) -> None:
        """Replace the state of a version, and when it came in force."""

    async def publish(self, bundle: PolicyBundle) -> None:
        """Say that this version is in force."""


class ChangeStore(Protocol):
    """Changes and their votes of one transaction, and their feed; what was asked for and every vote never change."""

    async def get(self, workspace: str, change_id: str) -> Change:
        """Return one change with its votes; raise ChangeNotFoundError when absent or in another workspace."""

    async def find(self, workspace: str, *, service: str, request_id: str) -> Change | None:
        """Return the change that a service made with a request id, or None."""

    async def list(
        self, workspace: str, *, outcome: ChangeState | None, unsettled: bool, before: str, limit: int
    ) -> Sequence[Change]:
        """Return at most `limit` changes with ids below `before` ("" = from the newest), newest first.

        Only those settled in one way when `outcome` is given, only those that are not settled when `unsettled` is.
        """

    async def add(self, change: Change) -> None:
        """Keep a new change."""

    async def add_vote(self, change: Change, vote: Vote) -> None:
        """Append a vote; raise VoteExistsError when this voter has voted."""

    async def settle(self, change: Change) -> None:
        """Keep how a change ended; raise AbortedError when somebody else has settled it meanwhile."""

    async def publish(self, change: Change, standing: Standing, *, until: datetime) -> None:
        """Put a change in the feed as it is now, to stay there until a time."""

    async def unpublish(self, *, at: datetime) -> None:
        """Take the changes whose time is over out of the feed."""


class ConsentStore(Protocol):
    """The consent ledger of one transaction: records are added, never changed or deleted."""

    async def revision(self, workspace: str) -> int:
        """Return the revision of a ledger; it begins at EMPTY_LEDGER."""

    async def lock(self, workspace: str) -> int:
        """Return the revision, and let nobody else record until the transaction ends."""

    async def known(self, workspace: str, contents: Sequence[bytes]) -> frozenset[bytes]:
        """Return which of these contents are recorded."""

    async def of_subjects(
        self, workspace: str, subjects: Sequence[bytes], *, purpose: str, revision: int
    ) -> Sequence[Consent]:
        """Return what was recorded of these subjects for one purpose ("" = for all), up to a revision."""

    async def list(
        self, workspace: str, subject: bytes, *, purpose: str, below: int | None, limit: int
    ) -> Sequence[Consent]:
        """Return at most `limit` records of a subject below a revision, newest first; `purpose` "" = for all."""

    async def add(self, consents: Sequence[Consent]) -> None:
        """Append records with their revisions to a locked ledger."""


class PrivacyRequestStore(Protocol):
    """Privacy requests of one transaction with their reports, and the feed of erasures."""

    async def get(self, workspace: str, privacy_request_id: str) -> PrivacyRequest:
        """Return one request with its reports; raise PrivacyRequestNotFoundError when it is not of this workspace."""

    async def list(self, workspace: str, *, before: str, limit: int) -> Sequence[PrivacyRequest]:
        """Return at most `limit` requests with ids below `before` ("" = from the newest), newest first."""

    async def add(self, request: PrivacyRequest) -> None:
        """Keep a new request."""

    async def add_report(self, request: PrivacyRequest, report: ErasureReport) -> None:
        """Keep what a service did for a request."""

    async def set_held(self, request: PrivacyRequest, legal_hold_ids: Sequence[str]) -> None:
        """Keep which legal holds a request waits for."""

    async def publish(self, request: PrivacyRequest, *, reported: bool) -> None:
        """Put an erasure in the feed, and whether every service has reported it."""

    async def with_news(self) -> Sequence[tuple[PrivacyRequest, bool | None]]:
        """Return every workspace's requests, and whether the feed says they are reported (None = it knows nothing)."""


class LegalHoldStore(Protocol):
    """Legal holds of one transaction, and the feed of those that are not released."""

    async def find(self, workspace: str, legal_hold_id: str) -> LegalHold | None:
        """Return one hold, or None when it is not of this workspace."""

    async def list(self, workspace: str, *, before: str, limit: int) -> Sequence[LegalHold]:
        """Return at most `limit` holds with ids below `before` ("" = from the newest), newest first."""

    async def unreleased(self, workspace: str) -> Sequence[LegalHold]:
        """Return the holds that nobody has released, some of which may have ended by themselves."""

    async def put(self, hold: LegalHold) -> None:
        """Keep a hold as it now is, and let the watchers know; one that is released leaves the feed."""

    async def unpublished(self) -> Sequence[LegalHold]:
        """Return the unreleased holds of every workspace that the feed knows nothing of."""


class RetentionPolicyStore(Protocol):
    """Retention policies of one transaction, and the feed of them."""

    async def find(self, workspace: str, dataset: str) -> RetentionPolicy | None:
        """Return the policy of a dataset, or None."""

    async def list(self, workspace: str, *, after: str, limit: int) -> Sequence[RetentionPolicy]:
        """Return at most `limit` policies of datasets after one, by dataset."""

    async def put(self, policy: RetentionPolicy) -> None:
        """Keep a policy as it now is; the watchers are told what was set, not what was reported."""

    async def delete(self, policy: RetentionPolicy) -> None:
        """Forget a policy, and let the watchers know."""


class IncidentStore(Protocol):
    """Incidents of one transaction, and the feed that their producers watch."""

    async def find(self, workspace: str, incident_id: str) -> Incident | None:
        """Return one incident, or None when it is not of this workspace."""

    async def list(
        self, workspace: str, *, state: IncidentState | None, dataset: str, before: str, limit: int
    ) -> Sequence[Incident]:
        """Return at most `limit` incidents with ids below `before` ("" = from the newest), newest first."""

    async def unresolved(self, workspace: str, producer: str, resource: str) -> Sequence[Incident]:
        """Return a resource's incidents that are not over."""

    async def put(self, incident: Incident) -> None:
        """Keep an incident as it now is."""

    async def publish(self, incident: Incident) -> None:
        """Let the producer know how an incident is."""

    async def withdraw(self, incident: Incident) -> None:
        """Tell the producer no more of an incident."""


@dataclass(frozen=True)
class Stores:
    """Every store of one open transaction; `connection` is for the chassis, which keeps its tables beside ours."""

    workspaces: WorkspaceStore
    principals: PrincipalStore
    keys: KeyStore
    credentials: CredentialFeed
    receipts: ReceiptStore
    audit: AuditStore
    bundles: PolicyBundleStore
    changes: ChangeStore
    consents: ConsentStore
    privacy_requests: PrivacyRequestStore
    legal_holds: LegalHoldStore
    retention_policies: RetentionPolicyStore
    incidents: IncidentStore
    connection: AsyncConnection


class Transactions(Protocol):
    """Opens transactions."""

    def begin(self) -> AbstractAsyncContextManager[Stores]:
        """Open a transaction that writes; it commits at exit and rolls back on an error."""

    def read(self) -> AbstractAsyncContextManager[Stores]:
        """Open a transaction that reads one state."""
