"""The models service: forecasts, attribution, lift; versions, champions, freshness, replay."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from counterfoil.common.v1 import receipts_pb2_grpc
from counterfoil.models.v1 import attributions_pb2_grpc, forecasts_pb2_grpc, lifts_pb2_grpc, models_pb2_grpc
from counterfoil_chassis.announce import Announcer
from counterfoil_chassis.audit import audit_relay
from counterfoil_chassis.changes import Changes
from counterfoil_chassis.database import Database
from counterfoil_chassis.guarded import GuardedChannel
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.lineage import LineageTrail
from counterfoil_chassis.outbox import OutboxRelay
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.policy import PolicyChecker
from counterfoil_chassis.runtime import Runtime, running_code
from counterfoil_chassis.serve import Host, Service, run
from counterfoil_chassis.worker import Worker

from counterfoil_models.approvals import Approvals
from counterfoil_models.entities import OutputKind
from counterfoil_models.files.artifacts import ArtifactFiles
from counterfoil_models.forecasting import load_libraries
from counterfoil_models.freshness import Freshness
from counterfoil_models.holds import Holds
from counterfoil_models.remote.consents import LedgerConsents
from counterfoil_models.remote.consumers import Consumers
from counterfoil_models.remote.governance import Governance
from counterfoil_models.remote.graph import GraphJourneys
from counterfoil_models.remote.holds import IngestHolds
from counterfoil_models.remote.ingest import IngestSnapshots
from counterfoil_models.remote.log import IngestLog
from counterfoil_models.servicers.attributions import AttributionReplayer, AttributionServicer, AttributionServices
from counterfoil_models.servicers.forecasts import ForecastReplayer, ForecastServicer, ForecastServices
from counterfoil_models.servicers.lifts import LiftReplayer, LiftServicer, LiftServices
from counterfoil_models.servicers.models import ModelServicer, ModelServices
from counterfoil_models.servicers.outputs import Outputs
from counterfoil_models.servicers.provenance import FORECASTS
from counterfoil_models.servicers.receipts import ReceiptProducerServicer, ReceiptServices
from counterfoil_models.servicers.replaying import Replayer
from counterfoil_models.settings import Settings
from counterfoil_models.sql.records_seen import SqlRecordsSeenStore
from counterfoil_models.sql.stores import SqlStores
from counterfoil_models.store import RECEIPTS_TOPIC
from counterfoil_models.trainer import Trainer

UNCHANGING = tuple(
    f"/counterfoil.models.v1.{name}"
    for name in ("ForecastService/GetForecast", "AttributionService/GetAttribution", "LiftService/GetLift")
)
"""Outputs are made once; a receipt cites them as they are."""

LIBRARIES = ("numpy", "pandas", "scipy", "sktime", "statsmodels")
"""The distributions whose versions can change an output's digits; artifacts name them."""


@dataclass(frozen=True)
class Shared:
    """What every part of a process works with."""

    settings: Settings
    host: Host
    database: Database
    stores: SqlStores
    source: IngestSnapshots
    ingest: GuardedChannel
    graph: GuardedChannel
    contracts: GuardedChannel
    governance_channel: GuardedChannel
    governance: Governance
    runtime: Runtime
    pager: Pager
    worker: Callable[[str], Worker]
    """Makes a thread of its own, which ends with the process."""


async def build(settings: Settings, host: Host, stack: AsyncExitStack) -> Service:
    """Compose the service: all of it, or what makes and replays outputs."""
    shared = await _share(settings, host, stack)
    if settings.role == "all":
        return await _all(shared)
    policies = PolicyChecker(shared.governance_channel, host.signer, host.clock)
    # The receipts are in the database: the process that holds the lease delivers them.
    servicers = _output_servicers(shared, policies, receipts_added=lambda: None)

    async def loaded() -> None:
        """Have a process that was added under load forecast at once: the first forecast would take seconds."""
        await asyncio.to_thread(load_libraries)

    return Service(servicers=servicers, unchanging=UNCHANGING, background=[policies.run], ready=loaded)


async def _share(settings: Settings, host: Host, stack: AsyncExitStack) -> Shared:
    database = Database(settings.database_url, lease=host.lease)
    stack.push_async_callback(database.close)
    ingest = await stack.enter_async_context(host.connect("ingest", settings.ingest_target))
    graph = await stack.enter_async_context(host.connect("graph", settings.graph_target))
    contracts = await stack.enter_async_context(host.connect("contracts", settings.contracts_target))
    governance = await stack.enter_async_context(host.connect("governance", settings.governance_target))

    def worker(name: str) -> Worker:
        made = Worker(name)
        stack.callback(made.close)
        return made

    files = None if settings.shares_database else ArtifactFiles(settings.data_dir / "artifacts")
    return Shared(
        settings=settings,
        host=host,
        database=database,
        stores=SqlStores(database, files=files),
        source=IngestSnapshots(ingest, host.signer),
        ingest=ingest,
        graph=graph,
        contracts=contracts,
        governance_channel=governance,
        governance=Governance(governance, host.signer),
        runtime=running_code("counterfoil-models", image_digest=settings.image_digest, libraries=LIBRARIES),
        pager=Pager(host.secret),
        worker=worker,
    )


async def _all(shared: Shared) -> Service:
    host, database, stores = shared.host, shared.database, shared.stores
    lineage = LineageTrail(database, shared.contracts, host.signer, host.clock)
    # A thread of its own: a training of minutes must not hold up a forecast of seconds.
    trainer = Trainer(
        stores=stores,
        source=shared.source,
        worker=shared.worker("training"),
        clock=host.clock,
        libraries=shared.runtime.libraries,
        tell=lineage.record,
    )
    await trainer.bring_in(ArtifactFiles(shared.settings.data_dir / "artifacts"))
    await trainer.end_interrupted()
    freshness = Freshness(database, log=IngestLog(shared.ingest, host.signer), seen=SqlRecordsSeenStore)
    reading = Announcer(Consumers(shared.contracts, host.signer, stores).announce, name="what models read")

    def on_workspace(workspace: str) -> None:
        freshness.follow(workspace)
        reading.changed(workspace)

    def on_workspace_gone(workspace: str) -> None:
        freshness.forget(workspace)
        reading.forget(workspace)

    policies = PolicyChecker(
        shared.governance_channel,
        host.signer,
        host.clock,
        on_workspace=on_workspace,
        on_workspace_gone=on_workspace_gone,
    )
    relay = OutboxRelay(database, RECEIPTS_TOPIC, shared.governance.put_receipts, host.clock)
    audit = audit_relay(database, shared.governance_channel, host.signer, host.clock)
    approvals = Approvals(
        stores=stores,
        changes=Changes(shared.governance_channel, host.signer),
        clock=host.clock,
        ids=host.ids,
        audit_added=audit.wake,
    )
    holds = Holds(stores, IngestHolds(shared.ingest, host.signer))
    models = ModelServices(
        stores=stores,
        source=shared.source,
        trainer=trainer,
        timezone=shared.governance.timezone,
        pager=shared.pager,
        idempotency=Idempotency(host.secret, host.clock),
        clock=host.clock,
        ids=host.ids,
        policies=policies,
        approvals=approvals,
        audit_added=audit.wake,
        reads_changed=reading.changed,
    )

    def outputs_added() -> None:
        relay.wake()
        lineage.wake()

    return Service(
        servicers=[
            (models_pb2_grpc.add_ModelServiceServicer_to_server, ModelServicer(models)),
            *_output_servicers(shared, policies, receipts_added=outputs_added),
        ],
        unchanging=UNCHANGING,
        background=[
            relay.run,
            trainer.run,
            policies.run,
            audit.run,
            approvals.run,
            freshness.run,
            reading.run,
            holds.run,
            lineage.run,
        ],
    )


def _output_servicers(
    shared: Shared, policies: PolicyChecker, *, receipts_added: Callable[[], None]
) -> list[tuple[Callable[..., None], object]]:
    """Return what makes outputs, reads them and makes them again; all they know is in the database."""
    host, stores, source, runtime = shared.host, shared.stores, shared.source, shared.runtime
    worker = shared.worker("serving")
    forecasts = ForecastServices(
        stores=stores,
        source=source,
        worker=worker,
        runtime=runtime,
        pager=shared.pager,
        clock=host.clock,
        ids=host.ids,
        receipts_added=receipts_added,
        policies=policies,
    )
    lifts = LiftServices(
        Outputs(OutputKind.LIFT, stores, runtime, shared.pager, host.clock, host.ids, receipts_added),
        source,
        LedgerConsents(shared.governance_channel, host.signer),
        policies,
        worker,
        shared.governance.timezone,
    )
    attributions = AttributionServices(
        Outputs(OutputKind.ATTRIBUTION, stores, runtime, shared.pager, host.clock, host.ids, receipts_added),
        GraphJourneys(shared.graph, host.signer),
        source,
        policies,
        worker,
        shared.governance.timezone,
    )
    replayers: dict[str, Replayer] = {
        FORECASTS: ForecastReplayer(forecasts),
        OutputKind.ATTRIBUTION.value: AttributionReplayer(attributions),
        OutputKind.LIFT.value: LiftReplayer(lifts),
    }
    receipts = ReceiptServices(stores, runtime, host.clock, replayers)
    return [
        (forecasts_pb2_grpc.add_ForecastServiceServicer_to_server, ForecastServicer(forecasts)),
        (attributions_pb2_grpc.add_AttributionServiceServicer_to_server, AttributionServicer(attributions)),
        (lifts_pb2_grpc.add_LiftServiceServicer_to_server, LiftServicer(lifts)),
        (receipts_pb2_grpc.add_ReceiptProducerServiceServicer_to_server, ReceiptProducerServicer(receipts)),
    ]


def main() -> None:
    """Serve, or with the argument `migrate` upgrade the database."""
    run("models", Settings, build, migrations="counterfoil_models")


if __name__ == "__main__":
    main()
