"""Compose ingest by hand and serve it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from counterfoil.common.v1.receipts_pb2_grpc import add_ReceiptProducerServiceServicer_to_server
from counterfoil.ingest.v1.append_pb2_grpc import add_AppendServiceServicer_to_server
from counterfoil.ingest.v1.erasures_pb2_grpc import add_ErasureServiceServicer_to_server
from counterfoil.ingest.v1.imports_pb2_grpc import add_ImportServiceServicer_to_server
from counterfoil.ingest.v1.monitors_pb2_grpc import add_MonitorServiceServicer_to_server
from counterfoil.ingest.v1.quarantine_pb2_grpc import add_QuarantineServiceServicer_to_server
from counterfoil.ingest.v1.queries_pb2_grpc import add_QueryServiceServicer_to_server
from counterfoil.ingest.v1.reconciliations_pb2_grpc import add_ReconciliationServiceServicer_to_server
from counterfoil.ingest.v1.records_pb2_grpc import add_RecordServiceServicer_to_server
from counterfoil.ingest.v1.sources_pb2_grpc import add_SourceServiceServicer_to_server
from counterfoil_chassis.audit import AuditTrail
from counterfoil_chassis.database import Database
from counterfoil_chassis.guarded import GuardedChannel
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.lineage import LineageTrail
from counterfoil_chassis.memory import keep_freed_memory
from counterfoil_chassis.outbox import OutboxRelay
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.policy import PolicyChecker
from counterfoil_chassis.runtime import running_code
from counterfoil_chassis.secrecy import derive_key
from counterfoil_chassis.serve import Host, Service, run
from counterfoil_chassis.watch import Feed

from counterfoil_ingest import protocols
from counterfoil_ingest.append import Appender, open_appender
from counterfoil_ingest.counting import Counting
from counterfoil_ingest.erasing import Eraser
from counterfoil_ingest.holds import Holds
from counterfoil_ingest.import_mappings import load_mappings
from counterfoil_ingest.imports import ImportWorker
from counterfoil_ingest.lake import Lake
from counterfoil_ingest.lake_calls import LakeProcess
from counterfoil_ingest.lake_places import lake_place
from counterfoil_ingest.measuring import Measurer
from counterfoil_ingest.monitoring import AT_ONCE, Monitoring
from counterfoil_ingest.openlineage import LakeShape, lake_event
from counterfoil_ingest.plans import Plans
from counterfoil_ingest.queries import Queries
from counterfoil_ingest.quotas import Quotas
from counterfoil_ingest.reading import LogReader
from counterfoil_ingest.reconciling import Reconciling
from counterfoil_ingest.registry import Contracts
from counterfoil_ingest.remote.checks import CheckRunner
from counterfoil_ingest.remote.contracts import ContractsClient, ContractsFollower
from counterfoil_ingest.remote.incidents import IncidentsClient
from counterfoil_ingest.remote.receipts import ReceiptsClient
from counterfoil_ingest.remote.retention import RetentionClient
from counterfoil_ingest.remote.workspaces import follow_quotas
from counterfoil_ingest.repairing import Repairing
from counterfoil_ingest.retention import Retention
from counterfoil_ingest.servicers.append import RECORDS, AppendServicer, SourceMappings
from counterfoil_ingest.servicers.erasures import ErasureServicer
from counterfoil_ingest.servicers.imports import ImportServicer
from counterfoil_ingest.servicers.monitors import MonitorServicer, disowned_message, hold_message, report_message
from counterfoil_ingest.servicers.quarantine import QuarantineServicer
from counterfoil_ingest.servicers.queries import QueryServicer, QueryServices
from counterfoil_ingest.servicers.receipts import ReceiptProducerServicer
from counterfoil_ingest.servicers.reconciliations import ReconciliationServicer
from counterfoil_ingest.servicers.records import RecordServicer
from counterfoil_ingest.servicers.sources import SourceServicer
from counterfoil_ingest.settings import Settings
from counterfoil_ingest.snapshots import Snapshots
from counterfoil_ingest.sql.contracts import SqlKeptContracts
from counterfoil_ingest.sql.histories import SqlHistoryTransactions
from counterfoil_ingest.sql.imports import SqlImportStore
from counterfoil_ingest.sql.log import SqlLog, found_at, open_log
from counterfoil_ingest.sql.monitors import INCIDENTS, SqlMonitorTransactions
from counterfoil_ingest.sql.monitors import TOPIC as HOLDS
from counterfoil_ingest.sql.quarantine import SqlQuarantine
from counterfoil_ingest.sql.query_receipts import RECEIPTS, SqlQueryReceipts
from counterfoil_ingest.sql.reconciliations import SqlReconciliationTransactions
from counterfoil_ingest.sql.sources import TOPIC, SqlSourceTransactions, credential_of
from counterfoil_ingest.uploads import Spool

_MONITOR_NICENESS = 5
"""Monitors can wait: on a busy machine their queries get a third of what others get."""

Registrations = list[tuple[Callable[..., None], object]]


@dataclass(frozen=True)
class Engines:
    """What both sides of the service stand on."""

    database: Database
    log: SqlLog
    contracts: Contracts
    appender: Appender
    pager: Pager
    quotas: Quotas
    governance: GuardedChannel
    trail: AuditTrail
    lineage: LineageTrail
    settled: Callable[[], bool]
    """Whether the contracts known are those in force."""


async def build(settings: Settings, host: Host, stack: AsyncExitStack) -> Service:
    """Open the log and the database, follow the contracts, and return what is served."""
    database = Database(settings.database_url, lease=host.lease)
    stack.push_async_callback(database.close)
    log = await asyncio.to_thread(open_log, settings.database_url, lease=host.lease, new_epoch=host.ids.new)
    stack.callback(log.close)
    channel = host.connect("contracts", settings.contracts_target)
    stack.push_async_callback(channel.close)
    client = ContractsClient(channel, signer=host.signer)
    follower = ContractsFollower(client, SqlKeptContracts(database), monotonic=time.monotonic)
    await follower.restore()
    stack.push_async_callback(follower.flush)
    contracts = follower.contracts
    checks = CheckRunner(channel, log, contracts, signer=host.signer)
    appender = await open_appender(
        log,
        settings.data_dir / "dedup.table",
        contracts=contracts,
        ids=host.ids,
        keep=timedelta(days=settings.dedup_days),
    )
    stack.push_async_callback(appender.close)
    governance = await stack.enter_async_context(host.connect("governance", settings.governance_target))
    trail = AuditTrail(database, governance, host.signer, ids=host.ids, clock=host.clock)
    lineage = LineageTrail(database, channel, host.signer, host.clock)
    quotas = Quotas(log, host.clock, monotonic=time.monotonic)
    engines = Engines(
        database=database,
        log=log,
        contracts=contracts,
        appender=appender,
        pager=Pager(host.secret),
        quotas=quotas,
        governance=governance,
        trail=trail,
        lineage=lineage,
        settled=lambda: follower.settled,
    )
    repairing = Repairing(SqlQuarantine(database), appender)
    reading, background = await _reading(settings, host, engines, stack)
    return Service(
        servicers=[*_writing(host, engines, repairing), *reading],
        background=[
            follower.watch,
            follower.settle,
            follower.keep,
            checks.watch,
            checks.run,
            follow_quotas(governance, quotas, signer=host.signer).run,
            repairing.count,
            trail.run,
            lineage.run,
            *background,
        ],
    )


def _writing(host: Host, engines: Engines, repairing: Repairing) -> Registrations:
    installed = protocols.installed()
    feed = Feed(engines.database, TOPIC)
    transactions = SqlSourceTransactions(engines.database, feed)
    append = AppendServicer(
        engines.appender,
        SourceMappings(transactions),
        quotas=engines.quotas,
        protocols=installed,
        verifier=host.verifier,
        clock=host.clock,
        ids=host.ids,
    )
    sources = SourceServicer(
        transactions,
        feed=feed,
        to_credential=credential_of,
        protocols=installed.keys() - {RECORDS},
        idempotency=Idempotency(host.secret, host.clock),
        trail=engines.trail,
        pager=engines.pager,
        clock=host.clock,
        ids=host.ids,
        random_bytes=secrets.token_bytes,
    )
    quarantine = QuarantineServicer(
        SqlQuarantine(engines.database),
        repairing,
        quotas=engines.quotas,
        idempotency=Idempotency(host.secret, host.clock),
        trail=engines.trail,
        pager=engines.pager,
        clock=host.clock,
    )
    return [
        (add_AppendServiceServicer_to_server, append),
        (add_SourceServiceServicer_to_server, sources),
        (add_QuarantineServiceServicer_to_server, quarantine),
    ]


async def _reading(
    settings: Settings, host: Host, engines: Engines, stack: AsyncExitStack
) -> tuple[Registrations, list[Callable[[], Coroutine[Any, Any, None]]]]:
    log, contracts, pager = engines.log, engines.contracts, engines.pager
    folder = settings.data_dir / "lake"

    async def tell(workspace: str, dataset: str, shape: LakeShape) -> None:
        event = lake_event(workspace, dataset, shape, at=host.clock.now())
        await engines.lineage.tell(workspace=workspace, event=event)

    place = lake_place(settings.lake_url, settings.lake_options_file, folder=folder)
    writing = LakeProcess(place.address, log=found_at(settings.database_url), epoch=log.epoch)
    stack.push_async_callback(writing.close)
    lake = Lake(
        place,
        log,
        contracts,
        writing,
        clock=host.clock,
        commit_seconds=settings.lake_commit_seconds,
        tell=tell,
    )
    snapshots = Snapshots(log, lake, contracts)
    spool = Spool(settings.data_dir / "imports", max_bytes=settings.max_import_bytes)
    store = SqlImportStore(engines.database, engines.lineage)
    mappings = load_mappings(settings.import_mappings)
    holds = Holds(host.clock, monotonic=time.monotonic)
    eraser = Eraser(log, engines.appender, lake, SqlQuarantine(engines.database), holds=holds)
    worker = ImportWorker(
        spool.folder,
        imports=store,
        appender=engines.appender,
        eraser=eraser,
        contracts=contracts,
        mappings=mappings,
        log=log,
        lake=lake,
        clock=host.clock,
        ids=host.ids,
    )
    await worker.clean()
    imports = ImportServicer(
        store,
        mappings=mappings,
        trail=engines.trail,
        worker=worker,
        spool=spool,
        contracts=contracts,
        quotas=engines.quotas,
        pager=pager,
        clock=host.clock,
        ids=host.ids,
    )
    records = RecordServicer(
        engines.appender,
        quotas=engines.quotas,
        reader=LogReader(log, contracts=contracts),
        snapshots=snapshots,
        pager=pager,
        clock=host.clock,
        ids=host.ids,
    )
    asking, receipts, asked = _asking(settings, host, engines, stack, lake=lake, snapshots=snapshots)
    watching, watched = await _watching(settings, host, engines, stack, lake=lake, snapshots=snapshots)
    servicers: Registrations = [
        (add_RecordServiceServicer_to_server, records),
        (add_ImportServiceServicer_to_server, imports),
        *asking,
        (add_ErasureServiceServicer_to_server, ErasureServicer(eraser, holds, receipts)),
        *watching,
    ]
    retaining = _retaining(settings, host, engines, eraser=eraser, lake=lake, holds=holds)
    return servicers, [lake.run, worker.run, *retaining, *asked, *watched]


def _retaining(
    settings: Settings, host: Host, engines: Engines, *, eraser: Eraser, lake: Lake, holds: Holds
) -> list[Callable[[], Coroutine[Any, Any, None]]]:
    client = RetentionClient(engines.governance, signer=host.signer)
    retention = Retention(
        eraser,
        log=engines.log,
        lake=lake,
        quarantine=SqlQuarantine(engines.database),
        holds=holds,
        report=client.report,
        clock=host.clock,
        period=timedelta(seconds=settings.retention_seconds),
    )
    held, kept = client.follow_holds(holds), client.follow_policies(retention)

    async def known() -> None:
        await held.current()
        await kept.current()

    return [held.run, kept.run, partial(retention.run, known)]


def _asking(
    settings: Settings, host: Host, engines: Engines, stack: AsyncExitStack, *, lake: Lake, snapshots: Snapshots
) -> tuple[Registrations, SqlQueryReceipts, list[Callable[[], Coroutine[Any, Any, None]]]]:
    """Compose SQL for callers: masked as the policies say, with receipts on request."""
    queries = Queries(
        lake,
        snapshots=snapshots,
        contracts=engines.contracts,
        folder=settings.data_dir / "lake",
        pseudonym_secret=derive_key(host.secret, "pseudonyms of queries"),
        memory=settings.query_memory,
        at_once=settings.queries_at_once,
        of_workspace=settings.queries_per_workspace,
    )
    stack.push_async_callback(queries.close)
    ledger = ReceiptsClient(engines.governance, signer=host.signer)
    relay = OutboxRelay(engines.database, RECEIPTS, ledger.deliver, host.clock)
    policies = PolicyChecker(engines.governance, host.signer, host.clock)
    receipts = SqlQueryReceipts(engines.database, relay, host.clock)
    runtime = running_code("counterfoil-ingest", image_digest=settings.image_digest)
    services = QueryServices(policies, receipts, snapshots, runtime, host.clock, host.ids)
    producer = ReceiptProducerServicer(receipts, queries, runtime=runtime, clock=host.clock)
    servicers: Registrations = [
        (add_QueryServiceServicer_to_server, QueryServicer(queries, services)),
        (add_ReceiptProducerServiceServicer_to_server, producer),
    ]
    return servicers, receipts, [relay.run, policies.run]


async def _watching(
    settings: Settings, host: Host, engines: Engines, stack: AsyncExitStack, *, lake: Lake, snapshots: Snapshots
) -> tuple[Registrations, list[Callable[[], Coroutine[Any, Any, None]]]]:
    """Compose the monitors, with queries of their own: they keep nobody waiting who asks by SQL."""
    feed = Feed(engines.database, HOLDS)
    incidents = IncidentsClient(engines.governance, signer=host.signer)
    relay = OutboxRelay(engines.database, INCIDENTS, incidents.deliver, host.clock)
    transactions = SqlMonitorTransactions(
        engines.database,
        feed,
        relay=relay,
        trail=engines.trail,
        to_hold=hold_message,
        to_report=report_message,
        to_disowned=disowned_message,
    )
    queries = Queries(
        lake,
        snapshots=snapshots,
        contracts=engines.contracts,
        folder=settings.data_dir / "lake",
        memory=settings.query_memory,
        at_once=AT_ONCE + 1,  # who has a monitor evaluated does not wait for those whose time has come
        niceness=_MONITOR_NICENESS,
    )
    stack.push_async_callback(queries.close)
    period = timedelta(seconds=settings.monitor_seconds)
    plans = Plans(engines.contracts)
    totals = SqlReconciliationTransactions(engines.database, trail=engines.trail)
    reconciling = Reconciling(totals, queries, log=engines.log, plans=plans)
    measurer = Measurer(
        queries,
        log=engines.log,
        quarantine=SqlQuarantine(engines.database),
        period=period,
        counting=Counting(SqlHistoryTransactions(engines.database), queries, log=engines.log),
        reconciling=reconciling,
        waiting=lake.waiting_seconds,
    )
    monitoring = Monitoring(
        transactions,
        measurer,
        plans=plans,
        log=engines.log,
        settled=engines.settled,
        period=period,
        clock=host.clock,
        ids=host.ids,
    )
    await monitoring.restore()
    await reconciling.restore()
    servicer = MonitorServicer(
        monitoring,
        transactions,
        idempotency=Idempotency(host.secret, host.clock),
        feed=feed,
        pager=engines.pager,
    )
    reported = ReconciliationServicer(
        reconciling, totals, monitoring=monitoring, plans=plans, pager=engines.pager, clock=host.clock
    )
    followed = incidents.follow(monitoring.told)
    return [
        (add_MonitorServiceServicer_to_server, servicer),
        (add_ReconciliationServiceServicer_to_server, reported),
    ], [
        monitoring.run,
        relay.run,
        followed.run,
    ]


def main() -> None:
    """Serve ingest, or run `migrate`."""
    keep_freed_memory()
    run("ingest", Settings, build, migrations="counterfoil_ingest")


if __name__ == "__main__":
    main()
