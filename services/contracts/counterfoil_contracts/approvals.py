"""Activations that need a second person: asked for as a change, and done by this service once somebody approved it.

The change's state is governance's; the version's is ours. A report comes before the effect is committed, so that an
approval that has expired, or was for something else, never has one; a process that dies in between finds the version
still waiting and reports the same again, which governance takes as often as it comes.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Any, Final

import grpc
from counterfoil.governance.v1 import changes_pb2
from counterfoil_chassis.backoff import Backoff, wait
from counterfoil_chassis.canonical import canonical_json, sha256_hex
from counterfoil_chassis.changes import Changes, payload_sha256
from counterfoil_chassis.clock import Clock, from_timestamp
from counterfoil_chassis.errors import (
    AbortedError,
    Code,
    FailedPreconditionError,
    InvalidArgumentError,
    UnavailableError,
)
from counterfoil_chassis.status import cause_of, failure_of
from counterfoil_chassis.telemetry import tracer

from counterfoil_contracts import contracts
from counterfoil_contracts.contracts import Approval, Judged
from counterfoil_contracts.entities import ContractVersion, VersionState
from counterfoil_contracts.judging import Find, judge, judged
from counterfoil_contracts.store import Stores, Transactions

KIND: Final = "contract.activate"
POLICY: Final = "contract-breaks-consumers"
"""Not a policy of the workspace but a rule of the platform, which its policies cannot lift."""
SPAN_APPLY: Final = "apply approved activation"
SERVICE_ACTOR: Final = "service:contracts"

_State = changes_pb2.Change
_ENDED: Final = {
    _State.REJECTED: "was rejected",
    _State.EXPIRED: "has expired",
    _State.FAILED: "could not be carried out",
}
_FINAL: Final = (Code.FAILED_PRECONDITION, Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED)
_RESOURCE: Final = re.compile(r"contracts/([^/]+)/versions/([^/]+)")
_LONGEST_WAIT: Final = 60.0
_REASON_CHARACTERS: Final = 1_000
_NAMED_IN_PAYLOAD: Final = 50
_logger = logging.getLogger(__name__)

Key = tuple[str, str]


class Approvals:
    """Asks for changes on callers' behalf and carries out those that were approved."""

    def __init__(self, transactions: Transactions, changes: Changes, clock: Clock) -> None:
        self._transactions = transactions
        self._changes = changes
        self._clock = clock
        self._watcher = changes.watch(self._take, self._forget)
        self._known: dict[Key, changes_pb2.Change] = {}
        self._unseen: set[Key] = set()
        self._refused: set[Key] = set()
        self._awake = asyncio.Event()

    async def propose(self, find: Find, *, principal: str, reason: str) -> tuple[ContractVersion, Judged]:
        """Activate a version at once if it breaks nobody; else have it wait for approval. Asking again asks the same.

        Raises what `contracts.activate` raises.
        """
        async with judged(self._transactions, find) as (stores, found):
            contracts.require_activable(found, reason=reason)
            await contracts.require_free(stores, found.situation.version)
            if not found.compared.whole.needs_approval:
                now = self._clock.now()
                return await contracts.activate(stores, found, reason=reason, principal=principal, now=now), found
        version = found.situation.version
        payload = payload_of(found)
        change = await self._changes.create(
            workspace=version.workspace,
            kind=KIND,
            resource=f"contracts/{version.contract_id}/versions/{version.version}",
            payload=payload,
            requester=principal,
            reason=reason,
            policy_id=POLICY,
            request_id=await self._request_id(version, payload, principal=principal, reason=reason),
        )
        async with judged(self._transactions, find) as (stores, found):
            # what changed meanwhile is found when the approved change is carried out
            if found.situation.version.state is VersionState.ACTIVE:
                return found.situation.version, found
            contracts.require_activable(found, reason=reason)
            waiting = await contracts.wait_for(
                stores, found, change_id=change.change_id, reason=reason, principal=principal, now=self._clock.now()
            )
        self._awake.set()  # it may have been approved already
        return waiting, found

    async def _request_id(
        self, version: ContractVersion, payload: Mapping[str, Any], *, principal: str, reason: str
    ) -> str:
        """Name an asking by how often the version was withdrawn: a retry asks for the same change, a later one not."""
        place = (version.workspace, version.contract_id)
        async with self._transactions.read() as stores:
            withdrawn = await stores.changelog.withdrawn(*place, version.version)
        return sha256_hex(canonical_json([*place, version.version, withdrawn, principal, reason, dict(payload)]))

    async def run(self) -> None:
        """Follow the changes and carry them out for the process's life."""
        async with self._transactions.read() as stores:
            # Read before the watch begins: whatever of these it does not show has ended more than a day ago.
            waiting = {(one.workspace, one.change_id) for one in await stores.contracts.proposed()}
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watcher.run())
            await self._watcher.current()
            self._unseen |= waiting - self._known.keys()
            group.create_task(self._carry_out())

    def _take(self, change: changes_pb2.Change) -> None:
        if change.kind == KIND:
            self._known[change.workspace, change.change_id] = change
            self._unseen.discard((change.workspace, change.change_id))
            self._awake.set()

    def _forget(self, key: str) -> None:
        workspace, _, change_id = key.partition("/")
        self._refused.discard((workspace, change_id))
        if self._known.pop((workspace, change_id), None) is not None:
            self._unseen.add((workspace, change_id))
            self._awake.set()

    async def _carry_out(self) -> None:
        backoff = Backoff(first=0.2, longest=30.0)
        while True:
            self._awake.clear()
            try:
                pause = await self._settle()
            except (grpc.aio.AioRpcError, AbortedError, UnavailableError) as error:
                if backoff.attempt == 0:
                    cause = cause_of(error) if isinstance(error, grpc.aio.AioRpcError) else str(error)
                    _logger.warning(
                        "an activation cannot be carried out now; it is tried again", extra={"cause": cause}
                    )
                await backoff.pause()
            else:
                backoff.reset()
                await wait(self._awake, pause)

    async def _settle(self) -> float:
        """Do what the changes as they are known ask for; return after how many seconds the next one expires."""
        for change in list(self._known.values()):
            if change.state == _State.APPROVED:
                await self._adopt(change)
        async with self._transactions.read() as stores:
            proposed = await stores.contracts.proposed()
        pauses = [await self._settle_one(version) for version in proposed]
        self._unseen.clear()
        return min([_LONGEST_WAIT, *pauses])

    async def _settle_one(self, version: ContractVersion) -> float:
        key = (version.workspace, version.change_id)
        change = self._known.get(key)
        if change is None:
            if key in self._unseen:
                await self._apply(version, applied=False)  # the answer tells what became of it
        elif change.state in _ENDED:
            await self._withdraw(version, _why(change))
        elif change.state in (_State.APPROVED, _State.APPLIED):
            await self._apply(version, applied=change.state == _State.APPLIED)
        else:
            left = (from_timestamp(change.expires_at) - self._clock.now()).total_seconds()
            if left > 0:
                return left
            await self._withdraw(version, f"Nobody approved change {change.change_id} in time.")
        return _LONGEST_WAIT

    async def _adopt(self, change: changes_pb2.Change) -> None:
        """Have a version wait for an approved change that it does not know of: its asking died before it was kept."""
        key = (change.workspace, change.change_id)
        if key in self._refused or from_timestamp(change.expires_at) <= self._clock.now():
            return
        place = _RESOURCE.fullmatch(change.resource)
        if place is None:
            self._refused.add(key)
            return
        async with self._transactions.read() as stores:
            target = await stores.contracts.find_version(change.workspace, place[1], place[2])
        if target is not None and target.change_id == change.change_id:
            return
        if target is not None and target.state in (VersionState.DRAFT, VersionState.DEPRECATED):
            async with judged(self._transactions, _finder(target)) as (stores, found):
                if payload_sha256(payload_of(found)) == change.payload_sha256:
                    await contracts.wait_for(
                        stores,
                        found,
                        change_id=change.change_id,
                        reason=change.reason,
                        principal=change.requester,
                        now=self._clock.now(),
                    )
                    return
        detail = "This change is not the one that its version waits for."
        await self._report(change.workspace, change.change_id, change.payload_sha256, applied=False, detail=detail)
        self._refused.add(key)

    async def _apply(self, version: ContractVersion, *, applied: bool) -> None:
        """Report and activate; what governance has as applied is done whatever has changed since."""
        with tracer().start_as_current_span(SPAN_APPLY):
            found = await judge(self._transactions, _finder(version))
            change = self._known.get((version.workspace, version.change_id))
            sha256 = change.payload_sha256 if change is not None and applied else payload_sha256(payload_of(found))
            if change is not None and sha256 != change.payload_sha256:
                detail = "The version in force, or whom this breaks, is not what it was when this was proposed."
                await self._fail(version, change.payload_sha256, detail)
                return
            if fault := await self._fault(found):
                # one that was reported and not done before the process died cannot be taken back
                await (self._withdraw(version, fault) if applied else self._fail(version, sha256, fault))
                return
            detail = f"Version {version.version} of {version.contract_id} is in force."
            reported = await self._report(version.workspace, version.change_id, sha256, applied=True, detail=detail)
            if isinstance(reported, str):
                await self._withdraw(version, f"Change {version.change_id} cannot be carried out: {reported}")
                return
            await self._activate(version, reported)

    async def _fault(self, found: Judged) -> str:
        """Return why a version cannot come into force although it is approved."""
        version = found.situation.version
        try:
            contracts.require_activable(found, reason=version.reason)
            async with self._transactions.read() as stores:
                await contracts.require_free(stores, version)
        except (FailedPreconditionError, InvalidArgumentError) as error:
            return error.message
        return ""

    async def _fail(self, version: ContractVersion, sha256: str, detail: str) -> None:
        await self._report(version.workspace, version.change_id, sha256, applied=False, detail=detail)
        await self._withdraw(version, detail)

    async def _report(
        self, workspace: str, change_id: str, sha256: str, *, applied: bool, detail: str
    ) -> changes_pb2.Change | str:
        """Report; return the change, or why governance refuses it for good."""
        try:
            return await self._changes.report(
                workspace=workspace, change_id=change_id, payload_sha256=sha256, applied=applied, detail=detail
            )
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
            if failure.code not in _FINAL:
                raise
            self._refused.add((workspace, change_id))
            fields = {"change": change_id, "reason": failure.reason}
            _logger.warning("a change is refused", extra=fields)
            return f"{failure.reason}: {failure.detail}"

    async def _activate(self, version: ContractVersion, change: changes_pb2.Change) -> None:
        approvers = [vote.voter for vote in change.votes if vote.verdict == changes_pb2.Vote.APPROVE and vote.counts]
        async with judged(self._transactions, _finder(version)) as (stores, found):
            if not _waits(found.situation.version, version):
                return
            await contracts.activate(
                stores,
                found,
                reason=change.reason,
                principal=change.requester,
                now=self._clock.now(),
                approved=Approval(change.change_id, tuple(approvers)),
            )
        fields = {"contract": version.contract_id, "version": version.version, "change": change.change_id}
        _logger.info("activated", extra=fields)

    async def _withdraw(self, version: ContractVersion, reason: str) -> None:
        async with self._transactions.begin() as stores:
            current = await _finder(version)(stores)
            if _waits(current, version):
                said = reason[:_REASON_CHARACTERS]
                now = self._clock.now()
                await contracts.withdraw(stores, current, reason=said, principal=SERVICE_ACTOR, now=now)


def _finder(version: ContractVersion) -> Find:
    async def find(stores: Stores) -> ContractVersion:
        return await contracts.get_version(
            stores, workspace=version.workspace, contract_id=version.contract_id, version=version.version
        )

    return find


def _waits(current: ContractVersion, version: ContractVersion) -> bool:
    return current.state is VersionState.PROPOSED and current.change_id == version.change_id


def payload_of(found: Judged) -> Mapping[str, Any]:
    """Return what exactly is approved: this document in place of that version, although it breaks these consumers."""
    version, whole = found.situation.version, found.compared.whole
    broken = sorted((each.consumer.dataset, each.consumer.name, each.consumer.consumer_id) for each in whole.broken)
    return {
        "contract_id": version.contract_id,
        "version": version.version,
        "document_sha256": version.document_sha256,
        "in_force_version": whole.in_force_version,
        "level": "" if whole.level is None else whole.level.value,
        "consumers": [f"{name} ({dataset})" for dataset, name, _ in broken[:_NAMED_IN_PAYLOAD]],
        "consumer_count": len(broken),
        "consumers_sha256": sha256_hex(canonical_json([list(each) for each in broken])),
    }


def _why(change: changes_pb2.Change) -> str:
    said = [vote.reason for vote in change.votes if vote.verdict == changes_pb2.Vote.REJECT]
    return " ".join([f"Change {change.change_id} {_ENDED[change.state]}.", *said, change.detail]).strip()
