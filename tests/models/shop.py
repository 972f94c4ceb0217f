"""What the tests of models share: servers that speak ingest's and governance's protocols, a client, a shop's data."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pytest
import zstandard
from counterfoil.common.v1 import receipts_pb2_grpc, snapshot_pb2
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.governance.v1 import receipts_pb2, workspaces_pb2, workspaces_pb2_grpc
from counterfoil.governance.v1 import receipts_pb2_grpc as ledger_pb2_grpc
from counterfoil.ingest.v1 import monitors_pb2, monitors_pb2_grpc, records_pb2, records_pb2_grpc
from counterfoil.models.v1 import attributions_pb2_grpc, forecasts_pb2_grpc, lifts_pb2_grpc, models_pb2, models_pb2_grpc
from counterfoil_chassis.clock import SystemClock
from counterfoil_chassis.errors import FailedPreconditionError, NotFoundError
from counterfoil_chassis.identity import TokenSigner, current_caller, load_private_key
from counterfoil_chassis.serve import Running, started
from counterfoil_chassis.settings import ServiceSettings
from counterfoil_chassis.status import RemoteFailure, failure_of
from counterfoil_models.__main__ import build
from counterfoil_models.settings import Settings
from pydantic_settings import SettingsConfigDict

from tests.models.journey_room import JourneyRoom
from tests.models.office import AuditRoom, ChangeRoom, ConsentRoom, PolicyRoom, State

SCOPES = ("models.read", "models.write", "ingest.read", "governance.read")


class ErasedError(FailedPreconditionError):
    reason = "SNAPSHOT_ERASED"


class EpochUnknownError(FailedPreconditionError):
    reason = "SNAPSHOT_EPOCH_UNKNOWN"


class LogRestoredError(FailedPreconditionError):
    reason = "LOG_EPOCH_UNKNOWN"


class DatasetNotFoundError(NotFoundError):
    reason = "DATASET_NOT_FOUND"


def numbered(table: pa.Table, first: int = 0) -> pa.Table:
    """Add the place in the log that every record has."""
    rows = table.num_rows
    table = table.append_column("_partition", pa.array(np.zeros(rows, dtype=np.int32)))
    return table.append_column("_offset", pa.array(np.arange(first, first + rows)))


@dataclass
class Ledgers(records_pb2_grpc.RecordServiceServicer):
    """Datasets in memory by (workspace, name), served as ingest serves the lake."""

    datasets: dict[tuple[str, str], pa.Table] = field(default_factory=dict)
    log_epoch: str = "epoch-1"
    erasure_revision: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: Counter[str] = field(default_factory=Counter)
    """Reads that wait at the gate, by dataset."""
    reads: int = 0
    blocks: list[records_pb2.ReadRecordsResponse] = field(default_factory=list)
    """The log of the workspace `acme`, followed block by block."""
    appended: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, workspace: str, dataset: str, table: pa.Table) -> None:
        self.datasets[workspace, dataset] = numbered(table)

    async def CreateSnapshot(self, request: records_pb2.CreateSnapshotRequest, context: Any) -> snapshot_pb2.Snapshot:
        caller = current_caller()
        if (caller.workspace, request.dataset) not in self.datasets:
            raise DatasetNotFoundError(f"There is no dataset {request.dataset}.")
        rows = self.datasets[caller.workspace, request.dataset].num_rows
        return snapshot_pb2.Snapshot(
            dataset=request.dataset,
            offsets=[snapshot_pb2.PartitionOffset(partition=0, offset=rows)],
            log_epoch=self.log_epoch,
            erasure_revision=self.erasure_revision,
        )

    async def ReadSnapshot(
        self, request: records_pb2.ReadSnapshotRequest, context: Any
    ) -> AsyncIterator[records_pb2.ReadSnapshotResponse]:
        assert current_caller().service == "models"
        self.waiting[request.snapshot.dataset] += 1
        await self.gate.wait()
        self.waiting[request.snapshot.dataset] -= 1
        self.reads += 1
        snapshot = request.snapshot
        if snapshot.log_epoch != self.log_epoch:
            raise EpochUnknownError("The snapshot belongs to a log that is no longer kept.")
        if snapshot.erasure_revision != self.erasure_revision:
            raise ErasedError("An erasure changed records of this snapshot.")
        table = self.datasets[request.workspace, snapshot.dataset].slice(0, snapshot.offsets[0].offset)
        contracts = [records_pb2.SnapshotContract(contract_id="sales", version="1.0.0", compiled_sha256="c" * 64)]
        for batch in table.select(list(request.columns)).combine_chunks().to_batches(max_chunksize=65_536):
            sink = io.BytesIO()
            with pa.ipc.new_stream(sink, batch.schema) as stream:
                stream.write_batch(batch)
            packed = zstandard.ZstdCompressor().compress(sink.getvalue())
            yield records_pb2.ReadSnapshotResponse(arrow_ipc_zstd=packed, rows=batch.num_rows, contracts=contracts)
            contracts = []

    def append(self, *datasets: str, first: int, traceparents: Iterable[str] = (), layout: int = 1) -> None:
        """Append a block with a record of each dataset from an offset on."""
        lines = [
            b'{"o":%d,"h":0,"d":"%b","i":"id-%d","r":{"d":"other"}}\n' % (first + place, dataset.encode(), place)
            for place, dataset in enumerate(datasets)
        ]
        block = records_pb2.Block(
            first_offset=first,
            count=len(lines),
            layout=layout,
            payload=zstandard.ZstdCompressor().compress(b"".join(lines)),
            headers=[records_pb2.BlockHeader(source_id="web", traceparent=each) for each in traceparents],
        )
        self.blocks.append(
            records_pb2.ReadRecordsResponse(log_epoch=self.log_epoch, next_offset=first + len(lines), block=block)
        )
        self.appended.set()
        self.appended = asyncio.Event()

    async def ReadRecords(
        self, request: records_pb2.ReadRecordsRequest, context: Any
    ) -> AsyncIterator[records_pb2.ReadRecordsResponse]:
        assert current_caller().service == "models"
        assert request.follow
        if request.log_epoch not in ("", self.log_epoch):
            raise LogRestoredError("The log was restored.")
        done = request.from_offset
        while True:
            appended = self.appended
            for block in self.blocks if request.workspace == "acme" else ():
                if block.next_offset > done:
                    done = block.next_offset
                    yield block
            yield records_pb2.ReadRecordsResponse(log_epoch=self.log_epoch, next_offset=done)
            await appended.wait()


class Holds(monitors_pb2_grpc.MonitorServiceServicer):
    """What ingest's monitors hold."""

    def __init__(self) -> None:
        self.state = State()

    def hold(
        self,
        dataset: str,
        *,
        workspace: str = "acme",
        recovered: bool = False,
        held: bool = True,
        incident: str = "?",
        metric: str = "latency",
        days: Sequence[str] = (),
    ) -> None:
        hold = monitors_pb2.Hold(
            workspace=workspace,
            dataset=dataset,
            monitor_id=f"{dataset}.latency",
            incident_id=f"incident-of-{dataset}" if incident == "?" else incident,
            detail="2 d, and it must be at most 1 d.",
            held=held,
            metric=metric,
            days=days,
        )
        hold.since.GetCurrentTime()
        if recovered:
            hold.recovered_at.GetCurrentTime()
        self.state.put(f"{workspace}/{dataset}.latency", hold)

    def release(self, dataset: str, *, workspace: str = "acme") -> None:
        self.state.delete(f"{workspace}/{dataset}.latency")

    async def WatchHolds(self, request: monitors_pb2.WatchHoldsRequest, context: Any) -> AsyncIterator[WatchResponse]:
        assert current_caller().service == "models"
        async for response in self.state.watch(request.after_revision):
            yield response


class Office(workspaces_pb2_grpc.WorkspaceServiceServicer, ledger_pb2_grpc.ReceiptServiceServicer):
    """Workspaces with one timezone, a ledger that keeps what it is sent, and governance's other rooms."""

    def __init__(self) -> None:
        self.policies, self.consents, self.changes, self.audit = PolicyRoom(), ConsentRoom(), ChangeRoom(), AuditRoom()
        self.timezone = "America/New_York"
        self.receipts: asyncio.Queue[bytes] = asyncio.Queue()

    async def GetWorkspace(self, request: Any, context: Any) -> workspaces_pb2.Workspace:
        return workspaces_pb2.Workspace(workspace_id=request.workspace_id, timezone=self.timezone)

    async def PutReceipts(self, request: Any, context: Any) -> receipts_pb2.PutReceiptsResponse:
        for receipt in request.receipts:
            self.receipts.put_nowait(bytes(receipt))
        return receipts_pb2.PutReceiptsResponse(added=len(request.receipts))


class IngestSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="COUNTERFOIL_INGEST_", frozen=True, populate_by_name=True)


class GraphSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="COUNTERFOIL_GRAPH_", frozen=True, populate_by_name=True)


class GovernanceSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="COUNTERFOIL_GOVERNANCE_", frozen=True, populate_by_name=True)


class Client:
    """Stubs of the models service as one principal."""

    def __init__(self, channel: grpc.aio.Channel, token: Callable[[], str]) -> None:
        self._token = token
        self.models: Any = models_pb2_grpc.ModelServiceStub(channel)
        self.forecasts: Any = forecasts_pb2_grpc.ForecastServiceStub(channel)
        self.attributions: Any = attributions_pb2_grpc.AttributionServiceStub(channel)
        self.lifts: Any = lifts_pb2_grpc.LiftServiceStub(channel)
        self.receipts: Any = receipts_pb2_grpc.ReceiptProducerServiceStub(channel)

    async def __call__(self, method: Any, request: Any) -> Any:
        return await method(request, timeout=60, metadata=(("authorization", f"Bearer {self._token()}"),))

    async def refused(self, method: Any, request: Any) -> RemoteFailure:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await self(method, request)
        return failure_of(failure.value)

    async def trained(self, model_id: str) -> models_pb2.ModelVersion:
        """Train a version and wait for its end."""
        version = await self(self.models.TrainModelVersion, models_pb2.TrainModelVersionRequest(model_id=model_id))
        return await self.ended(model_id, version.version)

    async def ended(self, model_id: str, version: int) -> models_pb2.ModelVersion:
        request = models_pb2.GetModelVersionRequest(model_id=model_id, version=version)
        async with asyncio.timeout(60):
            while True:
                found = await self(self.models.GetModelVersion, request)
                if found.HasField("finished_at"):
                    return found
                await asyncio.sleep(0.02)


@dataclass
class World:
    """The peers that run, and where the models service keeps its things."""

    data_dir: Path
    ingest: Ledgers
    holds: Holds
    office: Office
    journeys: JourneyRoom
    settings: Settings

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Running]:
        async with started("models", self.settings, build, migrations="counterfoil_models") as running:
            yield running

    @asynccontextmanager
    async def client(
        self, running: Running, *, workspace: str = "acme", scopes: Iterable[str] = SCOPES
    ) -> AsyncIterator[Client]:
        signer = TokenSigner("gateway", load_private_key(self.data_dir / "keys/gateway.pem"), SystemClock())
        async with grpc.aio.insecure_channel(running.address) as channel:
            yield Client(channel, lambda: signer.mint(workspace=workspace, principal="ada", scopes=scopes))


def shop_sales(days: int = 70, *, seed: int = 7, start: datetime = datetime(2024, 2, 1, 5, tzinfo=UTC)) -> pa.Table:
    """Sales of three products with a weekly season and noise, several a day; product 9 is in no catalogue."""
    random = np.random.default_rng(seed)
    rows: dict[str, list[Any]] = {"sold_at": [], "amount": [], "product_id": []}
    for day in range(days):
        for product, level in ((1, 100.0), (2, 40.0), (9, 1.0)):
            for part in range(3):
                rows["sold_at"].append(start + timedelta(days=day, hours=3 + 5 * part))
                season = 1.5 if day % 7 in (5, 6) else 1.0
                rows["amount"].append(round(level * season + float(random.normal(0, level / 10)), 2))
                rows["product_id"].append(product)
    return pa.table(
        {
            "sold_at": pa.array(rows["sold_at"], pa.timestamp("us", "UTC")),
            "amount": pa.array(rows["amount"], pa.float64()),
            "product_id": pa.array(rows["product_id"], pa.int64()),
        }
    )


def demand(model_id: str = "demand", **changes: Any) -> models_pb2.CreateModelRequest:
    """A model of the shop's sales per department, small enough for a test."""
    series = models_pb2.SeriesSpec(
        dataset="sales",
        time_field="sold_at",
        value_field="amount",
        aggregation=models_pb2.SeriesSpec.SUM,
        dimension="department",
        lookup=models_pb2.SeriesLookup(dataset="products", key="product_id"),
    )
    spec = models_pb2.ForecastSpec(series=series, horizon_days=14, min_active_days=40, **changes)
    return models_pb2.CreateModelRequest(model_id=model_id, purpose="demand_planning", forecast=spec)
