"""ModelService: models, their versions and which one serves."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from counterfoil.models.v1 import models_pb2, models_pb2_grpc
from counterfoil_chassis import audit
from counterfoil_chassis.clock import Clock, Ids
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.identity import Caller, current_caller, require_scope
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.policy import PolicyChecker
from counterfoil_chassis.telemetry import current_trace_id, current_traceparent

from counterfoil_models.approvals import Approvals, record_promotion
from counterfoil_models.entities import Change, Model, ModelVersion, State
from counterfoil_models.errors import StateTransitionError, TrainingRunningError
from counterfoil_models.holds import require_released
from counterfoil_models.models import begin, completed_spec, promote, rollback
from counterfoil_models.reading import take_inputs
from counterfoil_models.servicers.messages import (
    event_message,
    model_message,
    spec_of_message,
    tier_of,
    version_message,
)
from counterfoil_models.servicers.questions import promote_question, train_question, use_question
from counterfoil_models.store import SnapshotSource, Stores, Transaction
from counterfoil_models.trainer import Job, Trainer

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class ModelServices:
    """What ModelService needs from elsewhere.

    `timezone` returns a workspace's, `audit_added` wakes the relay, `reads_changed` has contracts know what a
    workspace's models read.
    """

    stores: Stores
    source: SnapshotSource
    trainer: Trainer
    timezone: Callable[[str], Awaitable[str]]
    pager: Pager
    idempotency: Idempotency
    clock: Clock
    ids: Ids
    policies: PolicyChecker
    approvals: Approvals
    audit_added: Callable[[], None]
    reads_changed: Callable[[str], None]


class ModelServicer(models_pb2_grpc.ModelServiceServicer):
    """See models.proto."""

    def __init__(self, services: ModelServices) -> None:
        self._services = services
        self._stores = services.stores
        self._pager = services.pager

    async def CreateModel(self, request: models_pb2.CreateModelRequest, context: Context) -> models_pb2.Model:
        """Create a model."""
        caller = current_caller()
        model = Model(
            workspace=caller.workspace,
            model_id=request.model_id,
            display_name=request.display_name or request.model_id,
            purpose=request.purpose or "analytics",
            impact_tier=tier_of(request.impact_tier),
            spec=completed_spec(spec_of_message(request.forecast)),
            created_by=caller.principal,
            created_at=self._services.clock.now(),
        )
        async with self._stores.begin() as transaction:

            async def make() -> models_pb2.Model:
                await transaction.models.add(model)
                details = {"impact_tier": model.impact_tier.value, "purpose": model.purpose}
                await self._record(transaction, caller, "model.create", f"models/{model.model_id}", details)
                return model_message(model)

            answer = await self._services.idempotency.once(
                transaction.connection,
                request,
                method="CreateModel",
                workspace=caller.workspace,
                answer=models_pb2.Model,
                make=make,
            )
        self._services.audit_added()
        self._services.reads_changed(caller.workspace)
        return answer

    async def GetModel(self, request: models_pb2.GetModelRequest, context: Context) -> models_pb2.Model:
        """Return one model."""
        async with self._stores.read() as transaction:
            return model_message(await transaction.models.get(current_caller().workspace, request.model_id))

    async def ListModels(
        self, request: models_pb2.ListModelsRequest, context: Context
    ) -> models_pb2.ListModelsResponse:
        """List the workspace's models by id."""
        place = {"method": "ListModels", "workspace": current_caller().workspace}
        page = self._pager.open(request, **place)
        async with self._stores.read() as transaction:
            after = page.after[0] if page.after else ""
            found = await transaction.models.page(place["workspace"], limit=page.limit + 1, after=after)
        kept = found[: page.limit]
        token = self._pager.token(request, **place, after=[kept[-1].model_id]) if len(found) > len(kept) else ""
        return models_pb2.ListModelsResponse(models=[model_message(one) for one in kept], next_page_token=token)

    async def TrainModelVersion(
        self, request: models_pb2.TrainModelVersionRequest, context: Context
    ) -> models_pb2.ModelVersion:
        """Begin to train a version on the data as it is now."""
        caller = current_caller()
        require_scope(caller, "ingest.read")
        async with self._stores.read() as transaction:
            model = await transaction.models.get(caller.workspace, request.model_id)
        await self._services.policies.require(caller, train_question(model))
        for dataset in model.spec.datasets():
            await self._services.policies.require(caller, use_question(dataset, purpose=model.purpose))
        await require_released(self._stores, caller.workspace, model.spec.datasets())
        timezone = await self._services.timezone(caller.workspace)
        inputs = await take_inputs(self._services.source, model.spec)
        jobs: list[Job] = []
        async with self._stores.begin() as transaction:

            async def make() -> models_pb2.ModelVersion:
                number = await _begin_version(transaction, model, caller)
                job = Job(caller.workspace, model.model_id, number, model.spec, timezone, inputs, current_traceparent())
                version = await self._add_version(transaction, job, caller)
                place = f"models/{job.model_id}/versions/{job.version}"
                await self._record(transaction, caller, "model.train", place, {"trace_id": version.trace_id})
                jobs.append(job)
                return version_message(version)

            answer = await self._services.idempotency.once(
                transaction.connection,
                request,
                method="TrainModelVersion",
                workspace=caller.workspace,
                answer=models_pb2.ModelVersion,
                make=make,
            )
        for job in jobs:
            self._services.trainer.submit(job)
        self._services.audit_added()
        return answer

    async def GetModelVersion(
        self, request: models_pb2.GetModelVersionRequest, context: Context
    ) -> models_pb2.ModelVersion:
        """Return one version with its backtest."""
        async with self._stores.read() as transaction:
            workspace = current_caller().workspace
            return version_message(await transaction.models.get_version(workspace, request.model_id, request.version))

    async def ListModelVersions(
        self, request: models_pb2.ListModelVersionsRequest, context: Context
    ) -> models_pb2.ListModelVersionsResponse:
        """List a model's versions, newest first."""
        place = {"method": "ListModelVersions", "workspace": current_caller().workspace}
        page = self._pager.open(request, **place)
        async with self._stores.read() as transaction:
            model = await transaction.models.get(place["workspace"], request.model_id)
            before = int(page.after[0]) if page.after else 0
            found = await transaction.models.page_versions(
                model.workspace, model.model_id, limit=page.limit + 1, before=before
            )
        kept = found[: page.limit]
        token = self._pager.token(request, **place, after=[str(kept[-1].version)]) if len(found) > len(kept) else ""
        return models_pb2.ListModelVersionsResponse(
            versions=[version_message(one) for one in kept], next_page_token=token
        )

    async def PromoteModelVersion(
        self, request: models_pb2.PromoteModelVersionRequest, context: Context
    ) -> models_pb2.ModelVersion:
        """Make a version the champion, or ask a second person to approve that."""
        caller, policies = current_caller(), self._services.policies
        async with self._stores.read() as transaction:
            model = await transaction.models.get(caller.workspace, request.model_id)
            target = await transaction.models.get_version(caller.workspace, request.model_id, request.version)
        if target.state is State.CHAMPION or (target.state is State.PENDING_APPROVAL and request.request_approval):
            return version_message(target)
        alone = await policies.ask(caller, promote_question(model, approved=False))
        if alone.allowed:
            return await self._promote(request, caller)
        together = await policies.ask(caller, promote_question(model, approved=True))
        if not (together.allowed and request.request_approval):
            (alone if together.allowed else together).require()
        waiting = await self._services.approvals.ask(
            model,
            target,
            principal=caller.principal,
            reason=request.reason or "Promotion was asked for.",
            policy_id=alone.policy_ids[0],
        )
        return version_message(waiting)

    async def RollbackModel(
        self, request: models_pb2.RollbackModelRequest, context: Context
    ) -> models_pb2.ModelVersion:
        """Let the champion before the present one serve again."""
        caller = current_caller()
        async with self._stores.read() as transaction:
            model = await transaction.models.get(caller.workspace, request.model_id)
            events = await transaction.models.events(caller.workspace, request.model_id)
            earlier = rollback(events, actor=caller.principal, reason=request.reason)[-1].version
            target = await transaction.models.get_version(caller.workspace, request.model_id, earlier)
        # What was approved once may serve again without asking anew: a rollback cannot wait.
        approved = bool(target.change_id)
        await self._services.policies.require(caller, promote_question(model, approved=approved))
        async with self._stores.begin() as transaction:
            events = await transaction.models.events(caller.workspace, request.model_id)
            changes = rollback(events, actor=caller.principal, reason=request.reason)
            if changes[-1].version != earlier:
                raise StateTransitionError(
                    "Another version was promoted meanwhile; look at it, then roll back again.",
                    metadata={"version": str(changes[-1].version)},
                )
            details = {"from": changes[0].version, "to": earlier, "reason": request.reason}
            await self._record(transaction, caller, "model.rollback", f"models/{model.model_id}", details)
            version = await self._change(transaction, model, changes, shown=earlier)
        self._services.audit_added()
        return version

    async def ListModelEvents(
        self, request: models_pb2.ListModelEventsRequest, context: Context
    ) -> models_pb2.ListModelEventsResponse:
        """List what happened to a model's versions, oldest first."""
        place = {"method": "ListModelEvents", "workspace": current_caller().workspace}
        page = self._pager.open(request, **place)
        async with self._stores.read() as transaction:
            model = await transaction.models.get(place["workspace"], request.model_id)
            after = int(page.after[0]) if page.after else 0
            found = await transaction.models.events(model.workspace, model.model_id, after=after, limit=page.limit + 1)
        kept = found[: page.limit]
        token = self._pager.token(request, **place, after=[str(kept[-1].sequence)]) if len(found) > len(kept) else ""
        return models_pb2.ListModelEventsResponse(events=[event_message(one) for one in kept], next_page_token=token)

    async def _promote(self, request: models_pb2.PromoteModelVersionRequest, caller: Caller) -> models_pb2.ModelVersion:
        services = self._services
        async with self._stores.begin() as transaction:
            model = await transaction.models.get(caller.workspace, request.model_id)
            target = await transaction.models.get_version(caller.workspace, request.model_id, request.version)
            reason = request.reason or "Promoted."
            changes = promote(target, model.champion_version, actor=caller.principal, reason=reason)
            if changes:
                await transaction.models.set_change(caller.workspace, model.model_id, target.version, "")
                clock, ids = services.clock, services.ids
                await record_promotion(
                    transaction, target, ids=ids, clock=clock, principal=caller.principal, details={"reason": reason}
                )
            version = await self._change(transaction, model, changes, shown=request.version)
        services.audit_added()
        return version

    async def _record(
        self, transaction: Transaction, caller: Caller, action: str, resource: str, details: Mapping[str, Any]
    ) -> None:
        await audit.record(
            transaction.connection,
            ids=self._services.ids,
            clock=self._services.clock,
            workspace=caller.workspace,
            principal=caller.principal,
            action=action,
            resource=resource,
            details=details,
        )

    async def _add_version(self, transaction: Transaction, job: Job, caller: Caller) -> ModelVersion:
        now = self._services.clock.now()
        changes = begin(job.version, actor=caller.principal)
        version = ModelVersion(
            workspace=job.workspace,
            model_id=job.model_id,
            version=job.version,
            state=changes[-1].to_state,
            inputs=job.inputs,
            created_by=caller.principal,
            created_at=now,
            trace_id=current_trace_id(),
        )
        await transaction.models.add_version(version)
        await transaction.models.append(job.workspace, job.model_id, changes, now=now)
        return version

    async def _change(
        self, transaction: Transaction, model: Model, changes: list[Change], *, shown: int
    ) -> models_pb2.ModelVersion:
        if changes:
            await transaction.models.append(model.workspace, model.model_id, changes, now=self._services.clock.now())
        return version_message(await transaction.models.get_version(model.workspace, model.model_id, shown))


async def _begin_version(transaction: Transaction, model: Model, caller: Caller) -> int:
    """Return the next version's number; raise TrainingRunningError while another is trained."""
    running = await transaction.models.running(caller.workspace, model.model_id)
    if running:
        raise TrainingRunningError(
            f"Version {running} of {model.model_id} is being trained; wait for its end.",
            metadata={"version": str(running)},
        )
    return await transaction.models.next_version(caller.workspace, model.model_id)
