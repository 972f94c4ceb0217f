"""Compose contracts by hand and serve it."""

from __future__ import annotations

from contextlib import AsyncExitStack

from counterfoil.contracts.v1.checks_pb2_grpc import add_CheckServiceServicer_to_server
from counterfoil.contracts.v1.consumers_pb2_grpc import add_ConsumerServiceServicer_to_server
from counterfoil.contracts.v1.contracts_pb2_grpc import add_ContractServiceServicer_to_server
from counterfoil.contracts.v1.lineage_pb2_grpc import add_LineageServiceServicer_to_server
from counterfoil.contracts.v1.schemas_pb2_grpc import add_SchemaServiceServicer_to_server
from counterfoil_chassis.audit import AuditTrail
from counterfoil_chassis.calls import KEPT_BYTES, Answers
from counterfoil_chassis.changes import Changes
from counterfoil_chassis.database import Database
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.kept import Kept
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.serve import Host, Service, run
from counterfoil_chassis.watch import Feed
from counterfoil_chassis.worker import Worker

from counterfoil_contracts.apart import Apart
from counterfoil_contracts.approvals import Approvals
from counterfoil_contracts.registry.registering import Registrar
from counterfoil_contracts.servicers.check_translation import to_pending
from counterfoil_contracts.servicers.checks import CheckServicer
from counterfoil_contracts.servicers.consumers import ConsumerServicer
from counterfoil_contracts.servicers.contracts import ContractServicer
from counterfoil_contracts.servicers.lineage import LineageServicer
from counterfoil_contracts.servicers.schemas import GET_SCHEMA, SchemaServicer
from counterfoil_contracts.servicers.translation import to_compiled
from counterfoil_contracts.settings import Settings
from counterfoil_contracts.shipping import Shipping
from counterfoil_contracts.sql import checks as sql_checks
from counterfoil_contracts.sql.governed import TOPIC
from counterfoil_contracts.sql.lineage import SqlLineageTransactions
from counterfoil_contracts.sql.schemas import SqlSchemaTransactions
from counterfoil_contracts.sql.transactions import SqlTransactions


async def build(settings: Settings, host: Host, stack: AsyncExitStack) -> Service:
    """Open the database and return what is served."""
    database = Database(settings.database_url, lease=host.lease)
    stack.push_async_callback(database.close)
    feed = Feed(database, TOPIC)
    governance = await stack.enter_async_context(host.connect("governance", settings.governance_target))
    trail = AuditTrail(database, governance, host.signer, ids=host.ids, clock=host.clock)
    transactions = SqlTransactions(database, feed, to_compiled, trail)
    approvals = Approvals(transactions, Changes(governance, host.signer), host.clock)
    shipping, pager = Shipping(transactions, host.clock), Pager(host.secret)
    servicer = ContractServicer(
        transactions, approvals=approvals, shipping=shipping, feed=feed, pager=pager, clock=host.clock
    )
    consumers = ConsumerServicer(transactions, shipping=shipping, pager=pager, clock=host.clock, ids=host.ids)
    pending = Feed(database, sql_checks.TOPIC)
    checks = CheckServicer(
        sql_checks.SqlCheckTransactions(database, pending, to_pending),
        versions=transactions,
        shipping=shipping,
        feed=pending,
        idempotency=Idempotency(host.secret, host.clock),
        pager=pager,
        clock=host.clock,
        ids=host.ids,
    )
    worker = Worker("sql")
    stack.callback(worker.close)
    lineage = LineageServicer(
        SqlLineageTransactions(database),
        contracts=transactions,
        shipping=shipping,
        worker=worker,
        pager=pager,
        clock=host.clock,
    )
    apart = Apart()
    stack.push_async_callback(apart.close)
    subjects = SqlSchemaTransactions(database, trail)
    kept: Answers = Kept(KEPT_BYTES)
    schemas = SchemaServicer(subjects, Registrar(subjects, apart, host.clock), kept=kept)
    return Service(
        servicers=[
            (add_SchemaServiceServicer_to_server, schemas),
            (add_LineageServiceServicer_to_server, lineage),
            (add_ContractServiceServicer_to_server, servicer),
            (add_ConsumerServiceServicer_to_server, consumers),
            (add_CheckServiceServicer_to_server, checks),
        ],
        unchanging=[GET_SCHEMA],
        kept=kept,
        background=[trail.run, approvals.run],
    )


def main() -> None:
    """Serve contracts, or run `migrate`."""
    run("contracts", Settings, build, migrations="counterfoil_contracts")


if __name__ == "__main__":
    main()
