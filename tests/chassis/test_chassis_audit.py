"""What a service did is told to governance once its transaction commits, in order, at least once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import grpc
import pytest
from counterfoil.governance.v1 import audit_pb2 as pb
from counterfoil.governance.v1.audit_pb2_grpc import AuditServiceServicer, add_AuditServiceServicer_to_server
from counterfoil_chassis.audit import audit_relay, record
from counterfoil_chassis.call import connect
from counterfoil_chassis.clock import SystemIds, to_timestamp
from counterfoil_chassis.database import Database
from counterfoil_chassis.identity import TokenSigner, load_private_key
from counterfoil_chassis.outbox import OutboxRelay
from sqlalchemy import text

from tests.chassis.probe import HandClock, ProbeSettings

CLOCK = HandClock()
IDS = SystemIds(CLOCK)


class Log(AuditServiceServicer):
    """Takes entries as governance does; refuses the first calls when told to."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.entries: list[pb.NewAuditEntry] = []
        self.tokens: set[str] = set()
        self.changed = asyncio.Condition()

    async def AppendAuditEntries(self, request, context):
        if self.refusals:
            self.refusals -= 1
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now")
        async with self.changed:
            self.tokens |= {value for key, value in context.invocation_metadata() if key == "authorization"}
            self.entries += request.entries
            self.changed.notify_all()
        return pb.AppendAuditEntriesResponse(added=len(request.entries))

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60), self.changed:
            await self.changed.wait_for(lambda: len(self.entries) >= count)


@asynccontextmanager
async def relaying(log: Log, database: Database, settings: ProbeSettings) -> AsyncIterator[OutboxRelay]:
    """Serve the log, and run the relay that delivers to it."""
    server = grpc.aio.server()
    add_AuditServiceServicer_to_server(log, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    signer = TokenSigner("models", load_private_key(settings.data_dir / "keys" / "models.pem"), CLOCK)
    async with connect(f"127.0.0.1:{port}") as channel:
        relay = audit_relay(database, channel, signer, CLOCK)
        task = asyncio.create_task(relay.run())
        try:
            yield relay
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await server.stop(None)


async def write(database: Database, relay: OutboxRelay | None, resource: str, **fields) -> None:
    async with database.begin() as connection:
        await record(
            connection,
            ids=IDS,
            clock=CLOCK,
            **{"workspace": "acme", "principal": "ada", "action": "model.promote", "resource": resource, **fields},
        )
        if relay is not None:
            database.after_commit(connection, relay.wake)


async def test_an_entry_arrives_as_it_was_recorded_in_the_service_s_own_name(
    database: Database, settings: ProbeSettings
) -> None:
    log = Log()
    async with relaying(log, database, settings) as relay:
        await write(database, relay, "models/churn", details={"to": 2, "from": 1})
        await write(database, relay, "models/other")
        await log.until(2)
    first, second = log.entries
    assert (first.workspace, first.principal, first.action) == ("acme", "ada", "model.promote")
    assert (first.resource, first.details, first.happened_at) == (
        "models/churn",
        b'{"from":1,"to":2}',
        to_timestamp(CLOCK.now()),
    )
    assert (second.resource, second.details) == ("models/other", b"{}")
    assert first.entry_id < second.entry_id
    assert len(log.tokens) == 1


async def test_entries_refused_for_now_are_delivered_later_in_their_order(
    database: Database, settings: ProbeSettings
) -> None:
    log = Log(refusals=2)
    for number in range(5):
        await write(database, None, f"models/{number}")
    async with relaying(log, database, settings):
        await log.until(5)
    assert [each.resource for each in log.entries] == [f"models/{number}" for number in range(5)]


async def test_what_rolls_back_was_not_done(database: Database, settings: ProbeSettings) -> None:
    log = Log()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the transaction is the statement
        async with database.begin() as connection:
            await record(
                connection, ids=IDS, clock=CLOCK, workspace="acme", principal="ada", action="a.b", resource="lost"
            )
            raise ZeroDivisionError
    async with relaying(log, database, settings) as relay:
        await write(database, relay, "kept")
        await log.until(1)
    assert [each.resource for each in log.entries] == ["kept"]


@pytest.mark.parametrize("fields", [{"resource": ""}, {"resource": "x" * 301}, {"details": {"n": 2**60}}])
async def test_an_entry_that_would_be_refused_for_ever_fails_the_deed(database: Database, fields) -> None:
    with pytest.raises(ValueError, match=r"audit entry|integer|2\*\*|exceeds"):
        await write(database, None, **{"resource": "models/churn", **fields})
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM outbox"))).scalar_one() == 0
