"""Promotions that need a second person: asked for as a change, and done by this service once somebody approved it."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from counterfoil.governance.v1 import changes_pb2
from counterfoil_chassis import approvals, audit
from counterfoil_chassis.canonical import canonical_json, sha256_hex
from counterfoil_chassis.changes import Changes, payload_sha256
from counterfoil_chassis.clock import Clock, Ids
from counterfoil_chassis.telemetry import tracer

from counterfoil_models.entities import SERVICE_ACTOR, Change, Model, ModelEvent, ModelVersion, State
from counterfoil_models.errors import ModelNotFoundError, ModelVersionNotFoundError
from counterfoil_models.models import PROMOTABLE, approve, ask_approval, withdraw
from counterfoil_models.store import Stores, Transaction

KIND = "model.promote"
SPAN_APPLY = "apply approved promotion"

_RESOURCE = re.compile(r"models/([^/]+)/versions/(\d+)")
_REASON_CHARACTERS = 1_000
_logger = logging.getLogger(__name__)


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
        self._approvals = approvals.Approvals(changes, clock, self, kind=KIND)

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
        await self._approvals.run()

    async def waiting(self) -> Sequence[ModelVersion]:
        """Return the versions that wait."""
        async with self._stores.read() as transaction:
            return await transaction.models.pending()

    async def adopt(self, change: changes_pb2.Change) -> None:
        """Have a version wait for a change that it does not know of, or refuse the change."""
        target = await self._target(change)
        if target is None or target.change_id == change.change_id:
            return
        if target.state in PROMOTABLE and payload_sha256(payload_of(target)) == change.payload_sha256:
            async with self._stores.begin() as transaction:
                steps = ask_approval(target, actor=change.requester, reason=change.reason)
                await self._await(transaction, target, steps, change_id=change.change_id)
            return
        detail = f"Version {target.version} is {target.state.name}; this change is not the one it waits for."
        at = (change.workspace, change.change_id, change.payload_sha256)
        await self._approvals.report(*at, applied=False, detail=detail)

    async def _target(self, change: changes_pb2.Change) -> ModelVersion | None:
        place = _RESOURCE.fullmatch(change.resource)
        try:
            if place is not None:
                async with self._stores.read() as transaction:
                    return await transaction.models.get_version(change.workspace, place[1], int(place[2]))
        except (ModelNotFoundError, ModelVersionNotFoundError):
            pass  # told below, as a resource that names nothing is
        self._approvals.refuse(change)
        fields = {"change": change.change_id, "resource": change.resource}
        _logger.warning("a change names a version that is not here", extra=fields)
        return None

    async def _await(
        self, transaction: Transaction, target: ModelVersion, steps: Sequence[Change], *, change_id: str
    ) -> None:
        await transaction.models.append(target.workspace, target.model_id, steps, now=self._clock.now())
        await transaction.models.set_change(target.workspace, target.model_id, target.version, change_id)

    async def apply(self, version: ModelVersion, change: changes_pb2.Change | None) -> None:
        """Report and promote."""
        with tracer().start_as_current_span(SPAN_APPLY):
            sha256 = payload_sha256(payload_of(version))
            detail = f"Version {version.version} of {version.model_id} serves."
            at = (version.workspace, version.change_id, sha256)
            reported = await self._approvals.report(*at, applied=True, detail=detail)
            if isinstance(reported, str):
                await self.withdraw(version, f"Change {version.change_id} cannot be carried out: {reported}")
                return
            await self._promote(version, reported)

    async def _promote(self, version: ModelVersion, change: changes_pb2.Change) -> None:
        voters = approvals.approvers(change)
        reason = f"Change {change.change_id}: {change.reason}"[:_REASON_CHARACTERS]
        async with self._stores.begin() as transaction:
            current = await self._still_waiting(transaction, version)
            if current is None:
                return
            model = await transaction.models.get(version.workspace, version.model_id)
            steps = approve(current, model.champion_version, approver=", ".join(voters) or SERVICE_ACTOR, reason=reason)
            await transaction.models.append(version.workspace, version.model_id, steps, now=self._clock.now())
            await record_promotion(
                transaction,
                current,
                ids=self._ids,
                clock=self._clock,
                principal=change.requester,
                details={"change_id": change.change_id, "approved_by": voters},
            )
        self._audit_added()
        fields = {"model": version.model_id, "version": version.version, "change": change.change_id}
        _logger.info("promoted", extra=fields)

    async def withdraw(self, version: ModelVersion, reason: str) -> None:
        """Let a version be again what it was before, if it still waits for that change."""
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
