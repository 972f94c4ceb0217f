"""Governance as models sees it, in memory and at the test's command: policies, consents, changes, audit log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import orjson
from counterfoil.common.v1 import watch_pb2
from counterfoil.governance.v1 import (
    audit_pb2,
    audit_pb2_grpc,
    changes_pb2,
    changes_pb2_grpc,
    consents_pb2,
    consents_pb2_grpc,
    policies_pb2,
    policies_pb2_grpc,
)
from counterfoil_chassis.canonical import canonical_json, sha256_hex
from counterfoil_chassis.clock import from_timestamp, to_timestamp
from counterfoil_chassis.errors import FailedPreconditionError, NotFoundError, UnavailableError
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.policy import bundle_sha256
from google.protobuf import any_pb2
from google.protobuf.message import Message

C = changes_pb2.Change
SHIPPED = files("counterfoil_governance") / "shipped"


class State:
    """Resources by key that any number of watchers follow; every watch stream begins with the whole state."""

    def __init__(self) -> None:
        self.resources: dict[str, Message] = {}
        self._log: list[str] = []
        self._changed = asyncio.Event()

    def put(self, key: str, resource: Message) -> None:
        copy = type(resource)()
        copy.CopyFrom(resource)
        self.resources[key] = copy
        self._log.append(key)
        self._changed.set()
        self._changed = asyncio.Event()

    def delete(self, key: str) -> None:
        del self.resources[key]
        self._log.append(key)
        self._changed.set()
        self._changed = asyncio.Event()

    async def watch(self, after: int) -> AsyncIterator[watch_pb2.WatchResponse]:
        while True:
            changed, head = self._changed, len(self._log)
            for key in dict.fromkeys(self._log[after:]):
                resource = self.resources.get(key)
                if resource is None:
                    yield watch_pb2.WatchResponse(revision=head, delete=watch_pb2.WatchDelete(key=key))
                else:
                    packed = any_pb2.Any()
                    packed.Pack(resource)
                    put = watch_pb2.WatchPut(key=key, resource=packed)
                    yield watch_pb2.WatchResponse(revision=head, put=put)
            yield watch_pb2.WatchResponse(revision=head, heartbeat=watch_pb2.WatchHeartbeat())
            after = head
            await changed.wait()


@dataclass
class PolicyRoom(policies_pb2_grpc.PolicyServiceServicer):
    """The shipped bundle in force in every workspace that is named, until another is put in force."""

    state: State = field(default_factory=State)

    def put_in_force(self, workspace: str, *, version: int = 1, more: str = "") -> policies_pb2.PolicyBundle:
        policies = SHIPPED.joinpath("policies.cedar").read_text() + more
        schema = SHIPPED.joinpath("schema.cedarschema").read_text()
        bundle = policies_pb2.PolicyBundle(
            version=version,
            state=policies_pb2.PolicyBundle.ACTIVE,
            sha256=bundle_sha256(policies, schema),
            policies=policies,
            schema=schema,
            workspace=workspace,
        )
        self.state.put(workspace, bundle)
        return bundle

    async def WatchPolicyBundles(
        self, request: policies_pb2.WatchPolicyBundlesRequest, context: Any
    ) -> AsyncIterator[watch_pb2.WatchResponse]:
        async for response in self.state.watch(request.after_revision):
            yield response

    async def LookupPolicyBundle(
        self, request: policies_pb2.LookupPolicyBundleRequest, context: Any
    ) -> policies_pb2.PolicyBundle:
        return self.state.resources[request.workspace]


@dataclass
class ConsentRoom(consents_pb2_grpc.ConsentServiceServicer):
    """A ledger of (type, value, purpose, allowed, until when); its revision is its length."""

    records: list[tuple[str, str, str, bool, datetime | None]] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def record(
        self,
        units: Iterable[object],
        *,
        allowed: bool = True,
        purpose: str = "measurement",
        kind: str = "household_id",
        until: datetime | None = None,
    ) -> None:
        self.records += [(kind, str(unit), purpose, allowed, until) for unit in units]

    async def CheckConsents(
        self, request: consents_pb2.CheckConsentsRequest, context: Any
    ) -> consents_pb2.CheckConsentsResponse:
        assert current_caller().service == "models"
        assert request.workspace == "acme"
        self.asked.append(len(request.people))
        revision = request.ledger_revision or len(self.records)
        at = from_timestamp(request.at) if request.HasField("at") else self.now()
        held = {(kind, value): (allowed, until) for kind, value, purpose, allowed, until in self.records[:revision]
                if purpose == request.purpose}  # fmt: skip
        verdicts = []
        for person in request.people:
            (subject,) = person.subjects
            allowed, until = held.get((subject.type, subject.value), (False, None))
            valid = allowed and (until is None or at < until)
            basis = consents_pb2.Consent.LEGITIMATE_INTEREST if valid else consents_pb2.Consent.BASIS_UNSPECIFIED
            verdicts.append(consents_pb2.ConsentVerdict(allowed=valid, basis=basis))
        return consents_pb2.CheckConsentsResponse(verdicts=verdicts, ledger_revision=revision, at=to_timestamp(at))


class ChangeExpiredError(FailedPreconditionError):
    reason = "CHANGE_EXPIRED"


class ChangeNotApprovedError(FailedPreconditionError):
    reason = "CHANGE_NOT_APPROVED"


class ChangePayloadDiffersError(FailedPreconditionError):
    reason = "CHANGE_PAYLOAD_DIFFERS"


class ChangeNotFoundError(NotFoundError):
    reason = "CHANGE_NOT_FOUND"


@dataclass
class ChangeRoom(changes_pb2_grpc.ChangeServiceServicer):
    """Changes that the test approves, rejects or lets expire; `watched` is what the watch shows instead of all."""

    state: State = field(default_factory=State)
    by_request: dict[str, str] = field(default_factory=dict)
    reports: list[changes_pb2.ReportChangeRequest] = field(default_factory=list)
    reachable: bool = True
    refusals: int = 0
    watched: State | None = None

    def change(self, change_id: str) -> Any:
        return self.state.resources[f"acme/{change_id}"]

    def move(self, change_id: str, state: C.State.ValueType, *, voter: str = "grace", seconds: float = 3_600) -> None:
        change = self.change(change_id)
        change.state = state
        change.expires_at.CopyFrom(to_timestamp(datetime.now(UTC) + timedelta(seconds=seconds)))
        if voter:
            verdict = changes_pb2.Vote.REJECT if state == C.REJECTED else changes_pb2.Vote.APPROVE
            change.votes.add(voter=voter, verdict=verdict, reason="Looked at it.", counts=True)
        self.state.put(f"acme/{change_id}", change)

    async def CreateChange(self, request: changes_pb2.CreateChangeRequest, context: Any) -> C:
        assert current_caller().service == "models"
        if not self.reachable:
            raise UnavailableError("not now")
        known = self.by_request.get(request.request_id)
        if known:
            return self.change(known)
        change = C(
            change_id=f"chg_{len(self.by_request) + 1}",
            kind=request.kind,
            resource=request.resource,
            payload=request.payload,
            payload_sha256=sha256_hex(canonical_json(orjson.loads(request.payload))),
            requester=request.requester,
            reason=request.reason,
            policy_id=request.policy_id,
            quorum=1,
            state=C.PENDING,
            expires_at=to_timestamp(datetime.now(UTC) + timedelta(days=7)),
            workspace=request.workspace,
        )
        self.by_request[request.request_id] = change.change_id
        self.state.put(f"{request.workspace}/{change.change_id}", change)
        return change

    async def WatchChanges(
        self, request: changes_pb2.WatchChangesRequest, context: Any
    ) -> AsyncIterator[watch_pb2.WatchResponse]:
        async for response in (self.watched or self.state).watch(request.after_revision):
            yield response

    async def ReportChange(self, request: changes_pb2.ReportChangeRequest, context: Any) -> C:
        if not self.reachable:
            self.refusals += 1
            raise UnavailableError("not now")
        self.reports.append(request)
        change = self.state.resources.get(f"{request.workspace}/{request.change_id}")
        if change is None:
            raise ChangeNotFoundError("There is no such change.")
        if change.payload_sha256 != request.payload_sha256:
            raise ChangePayloadDiffersError("Another payload was approved.")
        if change.state == (C.APPLIED if request.applied else C.FAILED):
            return change
        if change.state == C.EXPIRED or from_timestamp(change.expires_at) <= datetime.now(UTC):
            raise ChangeExpiredError("Nobody may carry it out any more.")
        if change.state != C.APPROVED:
            raise ChangeNotApprovedError("It is not approved.")
        change.state, change.detail = (C.APPLIED if request.applied else C.FAILED), request.detail
        self.state.put(f"{request.workspace}/{request.change_id}", change)
        return change


@dataclass
class AuditRoom(audit_pb2_grpc.AuditServiceServicer):
    """The entries that arrived."""

    entries: asyncio.Queue[audit_pb2.NewAuditEntry] = field(default_factory=asyncio.Queue)

    async def AppendAuditEntries(
        self, request: audit_pb2.AppendAuditEntriesRequest, context: Any
    ) -> audit_pb2.AppendAuditEntriesResponse:
        for entry in request.entries:
            self.entries.put_nowait(entry)
        return audit_pb2.AppendAuditEntriesResponse(added=len(request.entries))

    async def next(self, action: str) -> audit_pb2.NewAuditEntry:
        """Wait for the next entry of an action."""
        async with asyncio.timeout(60):
            while True:
                entry = await self.entries.get()
                if entry.action == action:
                    return entry
