"""Compose the graph by hand and serve it."""

from __future__ import annotations

from contextlib import AsyncExitStack

from counterfoil.graph.v1 import graphs_pb2_grpc, journeys_pb2_grpc, mappings_pb2_grpc
from counterfoil_chassis.audit import audit_relay
from counterfoil_chassis.call import connect
from counterfoil_chassis.database import Database
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.serve import Host, Service, run
from counterfoil_chassis.worker import Worker

from counterfoil_graph.following import Followers, Means
from counterfoil_graph.remote.governance import Governance
from counterfoil_graph.remote.log import IngestLog
from counterfoil_graph.servicers.graphs import GraphServicer
from counterfoil_graph.servicers.journeys import JourneyServicer
from counterfoil_graph.servicers.mappings import MappingServicer
from counterfoil_graph.servicers.services import GraphServices
from counterfoil_graph.settings import Settings
from counterfoil_graph.sql.stores import SqlStores, writer


async def build(settings: Settings, host: Host, stack: AsyncExitStack) -> Service:
    """Open the database, follow the log of every workspace, and return what is served."""
    database = Database(settings.database_url)
    stack.push_async_callback(database.close)
    ingest = await stack.enter_async_context(connect(settings.ingest_target))
    governance_channel = await stack.enter_async_context(connect(settings.governance_target))
    governance = Governance(governance_channel, host.signer)
    # Two threads: taking in a long log must not hold up whoever reads.
    consuming, serving = Worker("consuming"), Worker("serving")
    stack.callback(consuming.close)
    stack.callback(serving.close)
    stores, log = SqlStores(database), IngestLog(ingest, host.signer)
    followers = Followers(Means(database, stores, log, consuming, writer, host.clock))
    for workspace in await stores.workspaces():
        followers.of(workspace)
    workspaces = governance.workspaces(followers.of)
    audit = audit_relay(database, governance_channel, host.signer, host.clock)
    services = GraphServices(
        stores=stores,
        followers=followers,
        worker=serving,
        pager=Pager(host.secret),
        idempotency=Idempotency(host.secret, host.clock),
        clock=host.clock,
        ids=host.ids,
        told=audit.wake,
    )
    return Service(
        servicers=[
            (mappings_pb2_grpc.add_MappingServiceServicer_to_server, MappingServicer(services)),
            (graphs_pb2_grpc.add_GraphServiceServicer_to_server, GraphServicer(services)),
            (journeys_pb2_grpc.add_JourneyServiceServicer_to_server, JourneyServicer(services, governance)),
        ],
        background=[followers.run, workspaces.run, audit.run],
    )


def main() -> None:
    """Serve the graph, or run `migrate`."""
    run("graph", Settings, build, migrations="counterfoil_graph")


if __name__ == "__main__":
    main()
