"""The models service: forecasts, attribution, lift; versions, champions, freshness, replay."""

from contextlib import AsyncExitStack

from counterfoil.common.v1 import receipts_pb2_grpc
from counterfoil.models.v1 import attributions_pb2_grpc, forecasts_pb2_grpc, lifts_pb2_grpc, models_pb2_grpc
from counterfoil_chassis.audit import audit_relay
from counterfoil_chassis.changes import Changes
from counterfoil_chassis.database import Database
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.outbox import OutboxRelay
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.policy import PolicyChecker
from counterfoil_chassis.runtime import running_code
from counterfoil_chassis.serve import Host, Service, run
from counterfoil_chassis.worker import Worker

from counterfoil_models.approvals import Approvals
from counterfoil_models.entities import OutputKind
from counterfoil_models.files.artifacts import FileArtifactStore
from counterfoil_models.freshness import Freshness
from counterfoil_models.remote.consents import LedgerConsents
from counterfoil_models.remote.governance import Governance
from counterfoil_models.remote.graph import GraphJourneys
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


async def build(settings: Settings, host: Host, stack: AsyncExitStack) -> Service:
    """Compose the service."""
    database = Database(settings.database_url, lease=host.lease)
    stack.push_async_callback(database.close)
    ingest = await stack.enter_async_context(host.connect("ingest", settings.ingest_target))
    graph = await stack.enter_async_context(host.connect("graph", settings.graph_target))
    governance_channel = await stack.enter_async_context(host.connect("governance", settings.governance_target))
    governance = Governance(governance_channel, host.signer)
    # Two threads: a training of minutes must not hold up a forecast of seconds.
    training, serving = Worker("training"), Worker("serving")
    stack.callback(training.close)
    stack.callback(serving.close)
    stores, source = SqlStores(database), IngestSnapshots(ingest, host.signer)
    artifacts = FileArtifactStore(settings.data_dir / "artifacts")
    runtime, pager = (
        running_code("counterfoil-models", image_digest=settings.image_digest, libraries=LIBRARIES),
        Pager(host.secret),
    )
    relay = OutboxRelay(database, RECEIPTS_TOPIC, governance.put_receipts, host.clock)
    trainer = Trainer(
        stores=stores,
        source=source,
        artifacts=artifacts,
        worker=training,
        clock=host.clock,
        libraries=runtime.libraries,
    )
    await trainer.end_interrupted()
    freshness = Freshness(database, log=IngestLog(ingest, host.signer), seen=SqlRecordsSeenStore)
    policies = PolicyChecker(
        governance_channel,
        host.signer,
        host.clock,
        on_workspace=freshness.follow,
        on_workspace_gone=freshness.forget,
    )
    audit = audit_relay(database, governance_channel, host.signer, host.clock)
    approvals = Approvals(
        stores=stores,
        changes=Changes(governance_channel, host.signer),
        clock=host.clock,
        ids=host.ids,
        audit_added=audit.wake,
    )
    models = ModelServices(
        stores=stores,
        source=source,
        trainer=trainer,
        timezone=governance.timezone,
        pager=pager,
        idempotency=Idempotency(host.secret, host.clock),
        clock=host.clock,
        ids=host.ids,
        policies=policies,
        approvals=approvals,
        audit_added=audit.wake,
    )
    forecasts = ForecastServices(
        stores=stores,
        source=source,
        artifacts=artifacts,
        worker=serving,
        runtime=runtime,
        pager=pager,
        clock=host.clock,
        ids=host.ids,
        receipts_added=relay.wake,
        policies=policies,
    )
    lifts = LiftServices(
        Outputs(OutputKind.LIFT, stores, runtime, pager, host.clock, host.ids, relay.wake),
        source,
        LedgerConsents(governance_channel, host.signer),
        policies,
        serving,
        governance.timezone,
    )
    attributions = AttributionServices(
        Outputs(OutputKind.ATTRIBUTION, stores, runtime, pager, host.clock, host.ids, relay.wake),
        GraphJourneys(graph, host.signer),
        source,
        policies,
        serving,
        governance.timezone,
    )
    replayers: dict[str, Replayer] = {
        FORECASTS: ForecastReplayer(forecasts),
        OutputKind.ATTRIBUTION.value: AttributionReplayer(attributions),
        OutputKind.LIFT.value: LiftReplayer(lifts),
    }
    receipts = ReceiptServices(stores, runtime, host.clock, replayers)
    return Service(
        servicers=[
            (models_pb2_grpc.add_ModelServiceServicer_to_server, ModelServicer(models)),
            (forecasts_pb2_grpc.add_ForecastServiceServicer_to_server, ForecastServicer(forecasts)),
            (attributions_pb2_grpc.add_AttributionServiceServicer_to_server, AttributionServicer(attributions)),
            (lifts_pb2_grpc.add_LiftServiceServicer_to_server, LiftServicer(lifts)),
            (receipts_pb2_grpc.add_ReceiptProducerServiceServicer_to_server, ReceiptProducerServicer(receipts)),
        ],
        unchanging=UNCHANGING,
        background=[relay.run, trainer.run, policies.run, audit.run, approvals.run, freshness.run],
    )


def main() -> None:
    """Serve, or with the argument `migrate` upgrade the database."""
    run("models", Settings, build, migrations="counterfoil_models")


if __name__ == "__main__":
    main()
