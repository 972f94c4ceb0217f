"""Compose the graph by hand and serve it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from counterfoil.common.v1 import receipts_pb2_grpc
from counterfoil.graph.v1 import (
    graphs_pb2_grpc,
    journeys_pb2_grpc,
    mappings_pb2_grpc,
    nodes_pb2_grpc,
    persons_pb2_grpc,
)
from counterfoil_chassis import audit
from counterfoil_chassis.announce import Announcer
from counterfoil_chassis.changes import Changes
from counterfoil_chassis.database import Database
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.outbox import OutboxRelay
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.policy import PolicyChecker
from counterfoil_chassis.runtime import running_code
from counterfoil_chassis.serve import Host, Service, run
from counterfoil_chassis.worker import Worker

from counterfoil_graph.deciding import Decisions
from counterfoil_graph.entities import Decision
from counterfoil_graph.erasing import Erasing, ErasureMeans
from counterfoil_graph.following import Followers, Means
from counterfoil_graph.holding import Holding
from counterfoil_graph.remote.consumers import Consumers
from counterfoil_graph.remote.erasures import ErasureOffices
from counterfoil_graph.remote.governance import Governance
from counterfoil_graph.remote.lineage import Lineage
from counterfoil_graph.remote.log import IngestLog
from counterfoil_graph.servicers.exports import Exports, ExportServices, ReceiptProducerServicer
from counterfoil_graph.servicers.graphs import GraphServicer
from counterfoil_graph.servicers.journeys import JourneyServicer
from counterfoil_graph.servicers.mappings import MappingServicer
from counterfoil_graph.servicers.nodes import NodeServicer
from counterfoil_graph.servicers.persons import PersonServicer
from counterfoil_graph.servicers.services import GraphServices
from counterfoil_graph.settings import Settings
from counterfoil_graph.sql.stores import SqlStores, writer
from counterfoil_graph.store import RECEIPTS_TOPIC


async def build(settings: Settings, host: Host, stack: AsyncExitStack) -> Service:
    """Open the database, follow the log of every workspace, and return what is served."""
    database = Database(settings.database_url, lease=host.lease)
    stack.push_async_callback(database.close)
    ingest = await stack.enter_async_context(host.connect("ingest", settings.ingest_target))
    contracts = await stack.enter_async_context(host.connect("contracts", settings.contracts_target))
    channel = await stack.enter_async_context(host.connect("governance", settings.governance_target))
    governance, log = Governance(channel, host.signer), IngestLog(ingest, host.signer)
    # Two threads: taking in a long log must not hold up whoever reads.
    consuming, serving = Worker("consuming"), Worker("serving")
    stack.callback(consuming.close)
    stack.callback(serving.close)
    told = audit.audit_relay(database, channel, host.signer, host.clock)
    stores = SqlStores(database)
    tell = _teller(host, database, told.wake)
    followers = Followers(Means(database, stores, log, consuming, writer, tell, host.clock))
    for workspace in await stores.workspaces():
        followers.of(workspace)
    reading = Announcer(Consumers(contracts, host.signer, stores).announce, name="what mappings read")
    made = Announcer(Lineage(contracts, host.signer, stores, host.clock).announce, name="what the graph is made of")

    def reads_changed(workspace: str) -> None:
        reading.changed(workspace)
        made.changed(workspace)

    services = GraphServices(
        stores=stores,
        followers=followers,
        worker=serving,
        pager=Pager(host.secret),
        idempotency=Idempotency(host.secret, host.clock),
        clock=host.clock,
        ids=host.ids,
        told=told.wake,
        reads_changed=reads_changed,
    )
    receipts = OutboxRelay(database, RECEIPTS_TOPIC, governance.put_receipts, host.clock)

    def on_workspace(workspace: str) -> None:
        followers.of(workspace)
        reads_changed(workspace)

    def on_workspace_gone(workspace: str) -> None:
        reading.forget(workspace)
        made.forget(workspace)

    policies = PolicyChecker(
        channel, host.signer, host.clock, on_workspace=on_workspace, on_workspace_gone=on_workspace_gone
    )
    exports = ExportServices(
        policies=policies,
        consents=governance,
        changes=Changes(channel, host.signer),
        runtime=running_code("counterfoil-graph", image_digest=settings.image_digest),
        receipts_added=receipts.wake,
    )
    decisions = Decisions(stores, followers, log, clock=host.clock, ids=host.ids)
    offices = ErasureOffices(channel, ingest, host.signer)
    holding = Holding(stores, offices, host.clock)
    erasing = Erasing(ErasureMeans(stores, followers, log, offices, holding, database.forget))
    persons = PersonServicer(services, policies=policies, decisions=decisions, exports=Exports(services, exports))
    return Service(
        servicers=[
            (persons_pb2_grpc.add_PersonServiceServicer_to_server, persons),
            (nodes_pb2_grpc.add_NodeServiceServicer_to_server, NodeServicer(services)),
            (mappings_pb2_grpc.add_MappingServiceServicer_to_server, MappingServicer(services)),
            (graphs_pb2_grpc.add_GraphServiceServicer_to_server, GraphServicer(services)),
            (journeys_pb2_grpc.add_JourneyServiceServicer_to_server, JourneyServicer(services, governance)),
            (
                receipts_pb2_grpc.add_ReceiptProducerServiceServicer_to_server,
                ReceiptProducerServicer(services, exports),
            ),
        ],
        background=[
            followers.run,
            policies.run,
            reading.run,
            made.run,
            told.run,
            receipts.run,
            holding.run,
            erasing.run,
        ],
        ready=erasing.ready,
    )


def _teller(
    host: Host, database: Database, wake: Callable[[], None]
) -> Callable[[Any, str, Decision], Awaitable[None]]:
    """Return what writes the audit entry of a merge or split with its effect."""

    async def tell(connection: Any, workspace: str, decision: Decision) -> None:
        await audit.record(
            connection,
            ids=host.ids,
            clock=host.clock,
            workspace=workspace,
            principal=decision.decided_by,
            action=f"persons.{decision.kind.value}",
            resource=f"decisions/{decision.decision_id}",
            details={"identifiers": len(decision.identifiers), "reverses": decision.reverses},
        )
        database.after_commit(connection, wake)

    return tell


def main() -> None:
    """Serve the graph, or run `migrate`."""
    run("graph", Settings, build, migrations="counterfoil_graph")


if __name__ == "__main__":
    main()
