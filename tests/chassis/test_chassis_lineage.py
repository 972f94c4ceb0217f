"""What a service tells of its jobs leaves with the transaction that did them, once contracts takes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from counterfoil.contracts.v1 import lineage_pb2 as pb
from counterfoil.contracts.v1 import lineage_pb2_grpc
from counterfoil_chassis.clock import SystemClock
from counterfoil_chassis.database import Database
from counterfoil_chassis.identity import TokenSigner, load_private_key, write_key_pair
from counterfoil_chassis.lineage import LineageDataset, LineageTrail, emit, job_event, run_event, run_id_of
from counterfoil_chassis.tables import TABLES
from counterfoil_contracts.lineage.events import read_event
from sqlalchemy import func, select

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Keeper(lineage_pb2_grpc.LineageServiceServicer):
    """Takes events; refuses those of the job `bad`."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, dict[str, Any]]] = []

    async def EmitLineage(self, request: pb.EmitLineageRequest, context: Any) -> pb.EmitLineageResponse:
        answer = pb.EmitLineageResponse()
        for each in request.events:
            event = orjson.loads(each.event)
            refused = event["job"]["name"] == "bad"
            answer.results.add(reason="EVENT_INVALID" if refused else "")
            if not refused:
                self.kept.append((each.workspace, event))
        return answer


@asynccontextmanager
async def keeping() -> AsyncIterator[tuple[Keeper, grpc.aio.Channel]]:
    """Serve a keeper."""
    server, keeper = grpc.aio.server(), Keeper()
    lineage_pb2_grpc.add_LineageServiceServicer_to_server(keeper, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield keeper, channel
    await server.stop(None)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(f"sqlite+aiosqlite:///{tmp_path / 'told.db'}")
    async with made.begin() as connection:
        await connection.run_sync(TABLES.outbox.metadata.create_all)
    yield made
    await made.close()


@pytest.fixture
def signer(tmp_path: Path) -> TokenSigner:
    write_key_pair(tmp_path / "models.pem", tmp_path / "trusted", "models")
    return TokenSigner("models", load_private_key(tmp_path / "models.pem"), SystemClock())


def told(job: str) -> dict[str, Any]:
    return job_event("models", job, at=NOON, inputs=[LineageDataset("sales")])


async def waiting(database: Database) -> int:
    async with database.read() as connection:
        return (await connection.execute(select(func.count()).select_from(TABLES.outbox))).scalar_one()


async def test_what_is_rolled_back_is_not_told(database: Database, signer: TokenSigner) -> None:
    async with keeping() as (_, channel):
        trail = LineageTrail(database, channel, signer, SystemClock())

        async def fail() -> None:
            async with database.begin() as connection:
                await trail.record(connection, workspace="w", event=told("train"))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert await waiting(database) == 0
        await trail.tell(workspace="w", event=told("train"))
        assert await waiting(database) == 1


async def test_a_refused_event_is_logged_and_holds_up_none_after_it(
    signer: TokenSigner, caplog: pytest.LogCaptureFixture
) -> None:
    events = [pb.LineageEvent(workspace="w", event=orjson.dumps(told(job))) for job in ("bad", "good")]
    async with keeping() as (keeper, channel):
        await emit(lineage_pb2_grpc.LineageServiceStub(channel), events, signer)
    assert [(workspace, event["job"]["name"]) for workspace, event in keeper.kept] == [("w", "good")]
    [record] = [record for record in caplog.records if record.message == "an event for lineage is refused"]
    assert record.__dict__["reason"] == "EVENT_INVALID"


def test_what_we_tell_is_openlineage() -> None:
    model = LineageDataset(
        "models/churn", type="MODEL", version="3", fields=[("score", "DOUBLE")], made_of={"": [("sales", "amount")]}
    )
    event = run_event(
        "models", "train/churn", run_id=run_id_of("models", "w", "churn"), state="COMPLETE", at=NOON, outputs=[model]
    )
    [output] = read_event(orjson.dumps(event)).outputs
    assert output.facets["datasetType"]["datasetType"] == "MODEL"
    assert output.columns is not None
    [link] = output.columns
    assert (link.source.name, link.source_field, link.target_field) == ("sales", "amount", "")
    assert run_id_of("a", "b") == run_id_of("a", "b") != run_id_of("ab")
