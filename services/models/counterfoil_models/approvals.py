"""Promotions that need a second person: asked for as a change, and done by this service once somebody approved it.

The change's state is governance's; the version's is ours. A report comes before the effect is committed, so that an
approval that has expired, or was for another artifact, never has one; a process that dies in between finds the version
still waiting and reports the same again, which governance takes as often as it comes.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
from counterfoil.governance.v1 import changes_pb2
from counterfoil_chassis import audit
from counterfoil_chassis.backoff import Backoff, wait
from counterfoil_chassis.canonical import canonical_json, sha256_hex
from counterfoil_chassis.changes import Changes, payload_sha256
from counterfoil_chassis.clock import Clock, Ids, from_timestamp
from counterfoil_chassis.errors import Code
from counterfoil_chassis.status import failure_of
from counterfoil_chassis.telemetry import tracer

from counterfoil_models.entities import SERVICE_ACTOR, Change, Model, ModelEvent, ModelVersion, State
from counterfoil_models.errors import ModelNotFoundError, ModelVersionNotFoundError
from counterfoil_models.models import PROMOTABLE, approve, ask_approval, withdraw
from counterfoil_models.store import Stores, Transaction

KIND = "model.promote"
SPAN_APPLY = "apply approved promotion"

_State = changes_pb2.Change
_ENDED = {_State.REJECTED: "was rejected", _State.EXPIRED: "has expired", _State.FAILED: "could not be carried out"}
_FINAL = (Code.FAILED_PRECONDITION, Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED)
_RESOURCE = re.compile(r"models/([^/]+)/versions/(\d+)")
_LONGEST_WAIT = 60.0
_REASON_CHARACTERS = 1_000
_logger = logging.getLogger(__name__)

Key = tuple[str, str]


class Approvals:
    """Asks for changes on callers' behalf and carries out those that were approved."""

    def __init__(
        self, *, stores: Stores, changes: Changes, clock: Clock, ids: Ids, audit_added: Callable[[], None]
    ) -> None:
        self._stores = stores
        self._changes = changes
        self._clock = clock
        self._ids = ids
        self._audit_added = audit_added
        self._watcher = changes.watch(self._take, self._forget)
        self._known: dict[Key, changes_pb2.Change] = {}
        self._unseen: set[Key] = set()
        self._refused: set[Key] = set()
        self._awake = asyncio.Event()

    async def ask(
        self, model: Model, target: ModelVersion, *, principal: str, reason: str, policy_id: str
    ) -> ModelVersion:
        """Ask for a version's promotion and return it waiting; asking again asks for the same.

        Raises StateTransitionError when its state does not let it serve.
        """
        steps = ask_approval(target, actor=principal, reason=reason)
        async with self._stores.read() as transaction:
            events = await transaction.models.events(model.workspace, model.model_id)
        change = await self._changes.create(
            workspace=model.workspace,
            kind=KIND,
            resource=f"models/{model.model_id}/versions/{target.version}",
            payload=payload_of(target),
            requester=principal,
            reason=reason,
            policy_id=policy_id,
            request_id=_request_id(target, events, principal=principal, reason=reason),
        )
        async with self._stores.begin() as transaction:
            place = (model.workspace, model.model_id, target.version)
            current = await transaction.models.get_version(*place)
            if current.change_id != change.change_id:  # else it was asked for, or even approved, meanwhile
                if current.state is not target.state:
                    steps = ask_approval(current, actor=principal, reason=reason)
                await self._await(transaction, current, steps, change_id=change.change_id)
            return await transaction.models.get_version(*place)

    async def run(self) -> None:
        """Follow the changes and carry them out for the process's life."""
        async with self._stores.read() as transaction:
            # Read before the watch begins: whatever of these it does not show has ended more than a day ago.
            waiting = {(one.workspace, one.change_id) for one in await transaction.models.pending()}
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
            except grpc.aio.AioRpcError as error:
                failure = failure_of(error)
                if backoff.attempt == 0:
                    fields = {"cause": f"{failure.code.name}: {failure.detail}"}
                    _logger.warning("a promotion cannot be reported; it is tried again", extra=fields)
                await backoff.pause()
            else:
                backoff.reset()
                await wait(self._awake, pause)

    async def _settle(self) -> float:
        """Do what the changes as they are known ask for; return after how many seconds the next one expires."""
        for change in list(self._known.values()):
            if change.state == _State.APPROVED:
                await self._adopt(change)
        async with self._stores.read() as transaction:
            pending = await transaction.models.pending()
        pauses = [await self._settle_one(version) for version in pending]
        self._unseen.clear()
        return min([_LONGEST_WAIT, *pauses])

    async def _settle_one(self, version: ModelVersion) -> float:
        key = (version.workspace, version.change_id)
        change = self._known.get(key)
        if change is None:
            if key in self._unseen:
                await self._apply(version)  # the answer tells what became of it
        elif change.state in _ENDED:
            await self._withdraw(version, _why(change))
        elif change.state in (_State.APPROVED, _State.APPLIED):
            await self._apply(version)
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
        target = await self._target(change)
        if target is None or target.change_id == change.change_id:
            return
        if target.state in PROMOTABLE and payload_sha256(payload_of(target)) == change.payload_sha256:
            async with self._stores.begin() as transaction:
                steps = ask_approval(target, actor=change.requester, reason=change.reason)
                await self._await(transaction, target, steps, change_id=change.change_id)
            return
        detail = f"Version {target.version} is {target.state.name}; this change is not the one it waits for."
        await self._report(change.workspace, change.change_id, change.payload_sha256, applied=False, detail=detail)

    async def _target(self, change: changes_pb2.Change) -> ModelVersion | None:
        place = _RESOURCE.fullmatch(change.resource)
        try:
            if place is not None:
                async with self._stores.read() as transaction:
                    return await transaction.models.get_version(change.workspace, place[1], int(place[2]))
        except (ModelNotFoundError, ModelVersionNotFoundError):
            pass  # told below, as a resource that names nothing is
        self._refused.add((change.workspace, change.change_id))
        fields = {"change": change.change_id, "resource": change.resource}
        _logger.warning("a change names a version that is not here", extra=fields)
        return None

    async def _await(
        self, transaction: Transaction, target: ModelVersion, steps: Sequence[Change], *, change_id: str
    ) -> None:
        await transaction.models.append(target.workspace, target.model_id, steps, now=self._clock.now())
        await transaction.models.set_change(target.workspace, target.model_id, target.version, change_id)

    async def _apply(self, version: ModelVersion) -> None:
        with tracer().start_as_current_span(SPAN_APPLY):
            sha256 = payload_sha256(payload_of(version))
            detail = f"Version {version.version} of {version.model_id} serves."
            change = await self._report(version.workspace, version.change_id, sha256, applied=True, detail=detail)
            if isinstance(change, str):
                await self._withdraw(version, f"Change {version.change_id} cannot be carried out: {change}")
                return
            await self._promote(version, change)

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

    async def _promote(self, version: ModelVersion, change: changes_pb2.Change) -> None:
        approvers = [vote.voter for vote in change.votes if vote.verdict == changes_pb2.Vote.APPROVE and vote.counts]
        reason = f"Change {change.change_id}: {change.reason}"[:_REASON_CHARACTERS]
        async with self._stores.begin() as transaction:
            current = await self._still_waiting(transaction, version)
            if current is None:
                return
            model = await transaction.models.get(version.workspace, version.model_id)
            steps = approve(
                current, model.champion_version, approver=", ".join(approvers) or SERVICE_ACTOR, reason=reason
            )
            await transaction.models.append(version.workspace, version.model_id, steps, now=self._clock.now())
            await record_promotion(
                transaction,
                current,
                ids=self._ids,
                clock=self._clock,
                principal=change.requester,
                details={"change_id": change.change_id, "approved_by": approvers},
            )
        self._audit_added()
        fields = {"model": version.model_id, "version": version.version, "change": change.change_id}
        _logger.info("promoted", extra=fields)

    async def _withdraw(self, version: ModelVersion, reason: str) -> None:
        async with self._stores.begin() as transaction:
            current = await self._still_waiting(transaction, version)
            if current is not None:
                steps = withdraw(current, reason=reason[:_REASON_CHARACTERS])
                await self._await(transaction, current, steps, change_id="")

    async def _still_waiting(self, transaction: Transaction, version: ModelVersion) -> ModelVersion | None:
        current = await transaction.models.get_version(version.workspace, version.model_id, version.version)
        waits = current.state is State.PENDING_APPROVAL and current.change_id == version.change_id
        return current if waits else None


def payload_of(version: ModelVersion) -> Mapping[str, Any]:
    """Return what exactly is approved: this version with this artifact."""
    return {
        "model_id": version.model_id,
        "version": version.version,
        "artifact_sha256": version.artifact_sha256,
    }


async def record_promotion(
    transaction: Transaction,
    version: ModelVersion,
    *,
    ids: Ids,
    clock: Clock,
    principal: str,
    details: Mapping[str, Any],
) -> None:
    """Write the audit entry of a version that serves from now on."""
    await audit.record(
        transaction.connection,
        ids=ids,
        clock=clock,
        workspace=version.workspace,
        principal=principal,
        action=KIND,
        resource=f"models/{version.model_id}/versions/{version.version}",
        details={"artifact_sha256": version.artifact_sha256, **details},
    )


def _request_id(target: ModelVersion, events: Sequence[ModelEvent], *, principal: str, reason: str) -> str:
    """Name an asking by the version's last event: retries ask for the same change, a later asking for another."""
    last = max(event.sequence for event in events if event.version == target.version)
    return sha256_hex(canonical_json([target.workspace, target.model_id, target.version, last, principal, reason]))


def _why(change: changes_pb2.Change) -> str:
    said = [vote.reason for vote in change.votes if vote.verdict == changes_pb2.Vote.REJECT]
    return " ".join([f"Change {change.change_id} {_ENDED[change.state]}.", *said, change.detail]).strip()
