"""Compose ingest by hand and serve it."""

from __future__ import annotations

import secrets
import time
from contextlib import AsyncExitStack
from pathlib import Path

from counterfoil.ingest.v1.append_pb2_grpc import add_AppendServiceServicer_to_server
from counterfoil.ingest.v1.quarantine_pb2_grpc import add_QuarantineServiceServicer_to_server
from counterfoil.ingest.v1.sources_pb2_grpc import add_SourceServiceServicer_to_server
from counterfoil_chassis.call import connect
from counterfoil_chassis.database import Database
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.serve import Host, Service, run
from counterfoil_chassis.watch import Feed
from sqlalchemy.engine import make_url

from counterfoil_ingest import protocols
from counterfoil_ingest.append import open_appender
from counterfoil_ingest.registry import Contracts
from counterfoil_ingest.remote.contracts import ContractsClient
from counterfoil_ingest.servicers.append import RECORDS, AppendServicer, SourceMappings
from counterfoil_ingest.servicers.quarantine import QuarantineServicer
from counterfoil_ingest.servicers.sources import SourceServicer
from counterfoil_ingest.settings import Settings
from counterfoil_ingest.sql.log import SqliteLog
from counterfoil_ingest.sql.sources import TOPIC


async def build(settings: Settings, host: Host, stack: AsyncExitStack) -> Service:
    """Open the log and the database, follow the contracts, and return what is served."""
    database = Database(settings.database_url)
    stack.push_async_callback(database.close)
    log = SqliteLog(Path(make_url(settings.database_url).database or ""), new_epoch=host.ids.new)
    stack.callback(log.close)
    channel = connect(settings.contracts_target)
    stack.push_async_callback(channel.close)
    client = ContractsClient(channel, signer=host.signer)
    contracts = Contracts(client.lookup, monotonic=time.monotonic)
    appender = await open_appender(log, settings.data_dir / "dedup.table", contracts=contracts, ids=host.ids)
    stack.push_async_callback(appender.close)
    installed = protocols.installed()
    feed = Feed(database, TOPIC)
    pager, idempotency = Pager(host.secret), Idempotency(host.secret, host.clock)
    append = AppendServicer(
        appender,
        SourceMappings(database, feed),
        protocols=installed,
        verifier=host.verifier,
        clock=host.clock,
        ids=host.ids,
    )
    sources = SourceServicer(
        database,
        feed,
        protocols=installed.keys() - {RECORDS},
        idempotency=idempotency,
        pager=pager,
        clock=host.clock,
        ids=host.ids,
        random_bytes=secrets.token_bytes,
    )
    return Service(
        servicers=[
            (add_AppendServiceServicer_to_server, append),
            (add_SourceServiceServicer_to_server, sources),
            (add_QuarantineServiceServicer_to_server, QuarantineServicer(database, pager=pager)),
        ],
        background=[client.watcher(contracts).run],
    )


def main() -> None:
    """Serve ingest, or run `migrate`."""
    run("ingest", Settings, build, migrations="counterfoil_ingest")


if __name__ == "__main__":
    main()
