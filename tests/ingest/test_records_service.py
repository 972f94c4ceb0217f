"""Records, snapshots, imports and queries over gRPC, under contracts of a real contracts service."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from counterfoil.common.v1.verdict_pb2 import Verdict
from counterfoil.contracts.v1 import contracts_pb2
from counterfoil.contracts.v1.contracts_pb2_grpc import ContractServiceStub
from counterfoil.ingest.v1 import imports_pb2, queries_pb2, records_pb2
from counterfoil.ingest.v1.imports_pb2_grpc import ImportServiceStub
from counterfoil.ingest.v1.queries_pb2_grpc import QueryServiceStub
from counterfoil.ingest.v1.records_pb2_grpc import RecordServiceStub
from counterfoil_chassis.call import connect, following, outgoing
from counterfoil_chassis.clock import SystemClock
from counterfoil_chassis.identity import TokenSigner, load_private_key, write_key_pair
from counterfoil_chassis.serve import started
from counterfoil_chassis.status import failure_of
from counterfoil_ingest.__main__ import build
from counterfoil_ingest.settings import Settings

from tests.ingest.ingest_service import contracts_in

SCOPES = frozenset({"ingest.read", "ingest.write", "contracts.read", "contracts.write"})
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: sales
name: Sales
version: 1.0.0
status: active
schema:
  - name: sales
    logicalType: object
    properties:
      - name: sale_id
        logicalType: integer
        required: true
      - name: shop
        logicalType: string
      - name: message_id
        logicalType: string
"""

UNFINISHED = (imports_pb2.Import.PENDING, imports_pb2.Import.RUNNING)


@dataclass
class Service:
    """Stubs of a running ingest and the signers of those who call it."""

    records: Any
    imports: Any
    queries: Any
    contracts: Any
    gateway: TokenSigner
    models: TokenSigner

    def called(self, workspace: str = "acme", scopes: frozenset[str] = SCOPES) -> dict[str, Any]:
        """Return what a principal's call carries."""
        token = self.gateway.mint(workspace=workspace, principal="ada", scopes=scopes)
        return outgoing(default=20.0, token=token)

    async def append(self, *values: dict[str, Any], dataset: str = "sales", **fields: Any) -> list[Any]:
        """Append records; return their verdicts."""
        request = records_pb2.AppendRecordsRequest(dataset=dataset, records=orjson.dumps(values), **fields)
        return list((await self.records.AppendRecords(request, **self.called())).verdicts)

    async def upload(self, data: bytes, format_: int, dataset: str = "sales", **called: Any) -> imports_pb2.Import:
        """Upload a file."""

        async def parts() -> AsyncIterator[imports_pb2.UploadImportRequest]:
            header = imports_pb2.ImportHeader(dataset=dataset, format=format_, file_name="a file")
            yield imports_pb2.UploadImportRequest(header=header)
            for start in range(0, len(data), 1000):
                yield imports_pb2.UploadImportRequest(chunk=data[start : start + 1000])
            yield imports_pb2.UploadImportRequest(end=imports_pb2.ImportEnd())

        answer: imports_pb2.Import = await self.imports.UploadImport(parts(), **(called or self.called()))
        return answer


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """Serve contracts and ingest from a folder, with the contract `sales` in force for acme."""
    for name in ("gateway", "ingest", "contracts", "models"):
        write_key_pair(tmp_path / "keys" / f"{name}.pem", tmp_path / "keys" / "trusted", name)
    signers = [
        TokenSigner(name, load_private_key(tmp_path / "keys" / f"{name}.pem"), SystemClock())
        for name in ("gateway", "models")
    ]
    async with contracts_in(tmp_path) as target:
        settings = Settings(
            data_dir=tmp_path, listen="127.0.0.1:0", contracts_target=target, drain_seconds=0, otlp_endpoint=""
        )
        async with started("ingest", settings, build, migrations="counterfoil_ingest") as running:
            channels = [connect(running.address), connect(target)]
            stubs = [make(channels[0]) for make in (RecordServiceStub, ImportServiceStub, QueryServiceStub)]
            opened = Service(*stubs, ContractServiceStub(channels[1]), *signers)
            submitted = contracts_pb2.SubmitContractRequest(document=CONTRACT, activate=True)
            await opened.contracts.SubmitContract(submitted, **opened.called())
            yield opened
            for channel in channels:
                await channel.close()


async def refused(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call if not hasattr(call, "__aiter__") else [each async for each in call]
    return failure_of(caught.value).reason


async def test_each_record_gets_its_own_verdict_and_is_listed(service: Service) -> None:
    verdicts = await service.append({"sale_id": 1, "message_id": "m1"}, {"sale_id": "x"}, {"sale_id": 3})
    assert [each.outcome for each in verdicts] == [Verdict.ACCEPTED, Verdict.QUARANTINED, Verdict.ACCEPTED]
    assert verdicts[1].findings[0].path == "$.sale_id"
    assert (await service.append({"sale_id": 1, "message_id": "m1"}))[0].outcome == Verdict.DUPLICATE
    first = await service.records.ListRecords(
        records_pb2.ListRecordsRequest(dataset="sales", page_size=1), **service.called()
    )
    rest = await service.records.ListRecords(
        records_pb2.ListRecordsRequest(dataset="sales", page_size=1, page_token=first.next_page_token),
        **service.called(),
    )
    listed = [*first.records, *rest.records]
    assert [orjson.loads(each.data)["sale_id"] for each in listed] == [1, 3]
    assert [each.position.offset for each in listed] == [0, 1]
    assert (listed[0].record_id, listed[0].source_id, listed[0].contract_version) == ("m1", "api", "1.0.0")
    assert rest.next_page_token == ""


async def test_a_service_appends_for_itself_and_is_the_records_source(service: Service) -> None:
    body = {"dataset": "sales", "records": b'{"sale_id": 1, "message_id": "m1"}'}
    as_itself = outgoing(default=20.0, signer=service.models)
    unnamed = service.records.AppendRecords(records_pb2.AppendRecordsRequest(**body), **as_itself)
    assert await refused(unnamed) == "WORKSPACE_REQUIRED"
    request = records_pb2.AppendRecordsRequest(**body, workspace="acme")
    answer = await service.records.AppendRecords(request, **as_itself)
    assert [each.outcome for each in answer.verdicts] == [Verdict.ACCEPTED]
    # a principal's token says whose records they are, whatever the request names
    other = records_pb2.AppendRecordsRequest(dataset="sales", records=b'{"sale_id": 2}', workspace="zeta")
    await service.records.AppendRecords(other, **service.called())
    listed = await service.records.ListRecords(records_pb2.ListRecordsRequest(dataset="sales"), **service.called())
    assert [each.source_id for each in listed.records] == ["service:models", "api"]


async def test_lists_datasets_with_contracts_and_counts(service: Service) -> None:
    await service.append({"sale_id": 1}, {"sale_id": "x"})
    found = await service.records.ListDatasets(records_pb2.ListDatasetsRequest(), **service.called())
    (sales,) = [each for each in found.datasets if each.dataset == "sales"]
    assert (sales.contract_id, sales.contract_version, sales.records, sales.quarantined) == ("sales", "1.0.0", 1, 1)
    assert sales.HasField("last_received_at")
    page = await service.records.ListDatasets(records_pb2.ListDatasetsRequest(page_size=1), **service.called())
    assert len(page.datasets) == 1
    other = await service.records.ListDatasets(records_pb2.ListDatasetsRequest(), **service.called("zeta"))
    assert "sales" not in [each.dataset for each in other.datasets]


async def test_a_snapshot_reads_back_as_arrow_for_principals_and_services(service: Service) -> None:
    await service.append(*({"sale_id": n} for n in range(5)))
    snapshot = await service.records.CreateSnapshot(
        records_pb2.CreateSnapshotRequest(dataset="sales"), **service.called()
    )
    await service.append({"sale_id": 99})
    request = records_pb2.ReadSnapshotRequest(snapshot=snapshot, columns=["sale_id"], workspace="acme")
    for called in (service.called(), outgoing(default=20.0, signer=service.models)):
        (message,) = [each async for each in service.records.ReadSnapshot(request, **called)]
        table = pa.ipc.open_stream(zstandard.decompress(message.arrow_ipc_zstd)).read_all()
        assert table.to_pydict() == {"sale_id": [0, 1, 2, 3, 4]}
        (contract,) = message.contracts
        assert (contract.contract_id, contract.version, len(contract.compiled_sha256)) == ("sales", "1.0.0", 64)
    request.ClearField("workspace")
    nameless = service.records.ReadSnapshot(request, **outgoing(default=5.0, signer=service.models))
    assert await refused(nameless) == "WORKSPACE_REQUIRED"
    assert await refused(service.records.ReadSnapshot(request, **service.called("zeta"))) == "SNAPSHOT_AHEAD"
    request.columns.append("nope")
    assert await refused(service.records.ReadSnapshot(request, **service.called())) == "COLUMN_UNKNOWN"
    request.snapshot.log_epoch = "x"
    assert await refused(service.records.ReadSnapshot(request, **service.called())) == "SNAPSHOT_EPOCH_UNKNOWN"
    unknown = records_pb2.CreateSnapshotRequest(dataset="nothing")
    assert await refused(service.records.CreateSnapshot(unknown, **service.called())) == "DATASET_NOT_FOUND"


async def test_blocks_are_followed_as_they_commit(service: Service, monkeypatch: Any) -> None:
    monkeypatch.setattr("counterfoil_ingest.reading.HEARTBEAT_SECONDS", 0.05)
    await service.append({"sale_id": 1}, {"sale_id": 2})
    request = records_pb2.ReadRecordsRequest(workspace="acme", follow=True)
    stream = service.records.ReadRecords(request, **following(signer=service.models))
    hello, block = await stream.read(), await stream.read()
    assert (hello.next_offset, hello.HasField("block"), bool(hello.log_epoch)) == (0, False, True)
    assert (block.next_offset, block.block.first_offset, block.block.count) == (2, 0, 2)
    assert block.block.headers[0].contract_versions == {"sales": "1.0.0"}
    quiet = await stream.read()
    assert (quiet.next_offset, quiet.HasField("block")) == (2, False)
    await service.append({"sale_id": 3})
    async with asyncio.timeout(10):
        while not (fresh := await stream.read()).HasField("block"):
            pass
    assert fresh.next_offset == 3
    stream.cancel()
    ended = [
        each
        async for each in service.records.ReadRecords(
            records_pb2.ReadRecordsRequest(workspace="acme", from_offset=1, log_epoch=hello.log_epoch),
            **outgoing(default=5.0, signer=service.models),
        )
    ]
    assert [each.next_offset for each in ended] == [1, 2, 3]
    foreign = records_pb2.ReadRecordsRequest(workspace="acme", log_epoch="another")
    assert await refused(service.records.ReadRecords(foreign, **service.called())) == "LOG_EPOCH_UNKNOWN"
    theirs = [each async for each in service.records.ReadRecords(request_of("acme"), **service.called("zeta"))]
    assert [each.HasField("block") for each in theirs] == [False]


async def test_records_are_tailed_as_they_come_in(service: Service, monkeypatch: Any) -> None:
    monkeypatch.setattr("counterfoil_ingest.reading.HEARTBEAT_SECONDS", 0.05)
    await service.append({"sale_id": 1}, {"sale_id": 2})
    called = {"metadata": service.called()["metadata"]}
    past = service.records.TailRecords(records_pb2.TailRecordsRequest(dataset="sales", from_offset=1), **called)
    hello, second = await past.read(), await past.read()
    assert (hello.next_offset, hello.HasField("record")) == (1, False)
    assert (second.next_offset, second.record.position.offset, orjson.loads(second.record.data)) == (
        2,
        1,
        {"sale_id": 2},
    )
    assert (second.record.dataset, second.record.contract_version) == ("sales", "1.0.0")
    fresh = service.records.TailRecords(records_pb2.TailRecordsRequest(), **called)
    other = service.records.TailRecords(records_pb2.TailRecordsRequest(dataset="unplanned"), **called)
    theirs = service.records.TailRecords(
        records_pb2.TailRecordsRequest(from_offset=0), metadata=service.called("zeta")["metadata"]
    )
    assert [(await each.read()).next_offset for each in (fresh, other, theirs)] == [2, 2, 0]
    await service.append({"sale_id": 3})
    async with asyncio.timeout(10):
        for each in (past, fresh):
            while not (third := await each.read()).HasField("record"):
                assert third.next_offset == 2
            assert (third.next_offset, orjson.loads(third.record.data)) == (3, {"sale_id": 3})
        while (passed := await other.read()).next_offset == 2:
            pass
    assert (passed.next_offset, passed.HasField("record")) == (3, False), "what others got is passed over"
    quiet = await theirs.read()
    assert (quiet.next_offset, quiet.HasField("record")) == (0, False)
    async with asyncio.timeout(10):
        for source, seen in ((third.record.source_id, 1), ("another", 0)):
            of_source = records_pb2.TailRecordsRequest(source_id=source, from_offset=2)
            call = service.records.TailRecords(of_source, **called)
            assert [(await call.read()).HasField("record") for _ in range(2)].count(True) == seen, source
            call.cancel()
    unknown = service.records.TailRecords(records_pb2.TailRecordsRequest(dataset="nothing"), **called)
    assert await refused(unknown) == "DATASET_NOT_FOUND"
    for each in (past, fresh, other, theirs):
        each.cancel()


def request_of(workspace: str) -> records_pb2.ReadRecordsRequest:
    return records_pb2.ReadRecordsRequest(workspace=workspace)


async def test_a_file_is_imported_and_can_be_queried(service: Service) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"sale_id": range(3000), "shop": ["x"] * 3000}), sink)
    started_ = await service.upload(sink.getvalue(), imports_pb2.Import.PARQUET)
    assert (started_.state, started_.created_by, started_.file_bytes) == (1, "ada", len(sink.getvalue()))
    wanted = imports_pb2.GetImportRequest(import_id=started_.import_id)
    async with asyncio.timeout(30):
        while (done := await service.imports.GetImport(wanted, **service.called())).state in (1, 2):
            await asyncio.sleep(0.05)
    assert (done.state, done.rows_accepted, done.rows_total) == (imports_pb2.Import.SUCCEEDED, 3000, 3000)
    assert (done.snapshot.dataset, done.snapshot.offsets[0].offset) == ("sales", 3000)
    listed = await service.imports.ListImports(imports_pb2.ListImportsRequest(), **service.called())
    assert list(listed.imports) == [done]
    assert await refused(service.imports.GetImport(wanted, **service.called("zeta"))) == "IMPORT_NOT_FOUND"
    sql = queries_pb2.RunQueryRequest(sql="SELECT sum(sale_id) FROM sales WHERE shop = ?", parameters=b'["x"]')
    found = await service.queries.RunQuery(sql, **service.called())
    assert (found.rows, found.columns[0].type, found.snapshots[0].offsets[0].offset) == (
        b"[[4498500]]",
        "HUGEINT",
        3000,
    )
    every = queries_pb2.StreamQueryRequest(sql="SELECT sale_id FROM sales")
    assert sum([each.rows async for each in service.queries.StreamQuery(every, **service.called())]) == 3000
    wrong = queries_pb2.RunQueryRequest(sql="DROP TABLE sales")
    assert await refused(service.queries.RunQuery(wrong, **service.called())) == "SQL_INVALID"


async def test_a_query_whose_process_cannot_start_is_answered_as_something_to_send_again(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "apart" / "duckdb.py"
    broken.parent.mkdir()
    broken.write_text("import a_library_that_nobody_has")
    asked = queries_pb2.RunQueryRequest(sql="SELECT 1")
    with monkeypatch.context() as found:
        found.setenv("PYTHONPATH", str(broken.parent))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.queries.RunQuery(asked, **service.called())
    failure = failure_of(caught.value)
    assert (caught.value.code(), failure.reason) == (grpc.StatusCode.UNAVAILABLE, "PROCESS_NOT_STARTED")
    assert failure.retry_after is not None
    assert (await service.queries.RunQuery(asked, **service.called())).rows == b"[[1]]"


async def test_uploads_of_a_workspace_have_a_bound_and_others_keep_theirs(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counterfoil_ingest.servicers.imports.MOST_WAITING", 1)
    end = asyncio.Event()

    async def held() -> AsyncIterator[imports_pb2.UploadImportRequest]:
        header = imports_pb2.ImportHeader(dataset="sales", format=imports_pb2.Import.CSV, file_name="a file")
        yield imports_pb2.UploadImportRequest(header=header)
        await end.wait()
        yield imports_pb2.UploadImportRequest(chunk=b"sale_id\n")
        yield imports_pb2.UploadImportRequest(end=imports_pb2.ImportEnd())

    first = service.imports.UploadImport(held(), **service.called())
    while not list((tmp_path / "imports").glob("*.part")):
        await asyncio.sleep(0.01)
    assert await refused(service.upload(b"x", imports_pb2.Import.CSV)) == "TOO_MANY_IMPORTS"
    elsewhere = service.called(workspace="zeta")
    assert await refused(service.upload(b"x", imports_pb2.Import.CSV, **elsewhere)) == "NO_CONTRACT"
    end.set()
    wanted = imports_pb2.GetImportRequest(import_id=(await first).import_id)
    while (await service.imports.GetImport(wanted, **service.called())).state in UNFINISHED:
        await asyncio.sleep(0.05)
    assert (await service.upload(b"sale_id\n", imports_pb2.Import.CSV)).state == imports_pb2.Import.PENDING


async def test_uploads_are_refused_before_or_while_they_arrive(service: Service) -> None:
    assert await refused(service.upload(b"x", imports_pb2.Import.CSV, "nothing")) == "NO_CONTRACT"
    reader = service.called(scopes=frozenset({"ingest.read"}))
    assert await refused(service.upload(b"x", imports_pb2.Import.CSV, **reader)) == "SCOPE_MISSING"

    async def chunk_first() -> AsyncIterator[imports_pb2.UploadImportRequest]:
        yield imports_pb2.UploadImportRequest(chunk=b"x")

    assert await refused(service.imports.UploadImport(chunk_first(), **service.called())) == "UPLOAD_INVALID"

    async def without_end() -> AsyncIterator[imports_pb2.UploadImportRequest]:
        header = imports_pb2.ImportHeader(dataset="sales", format=imports_pb2.Import.CSV)
        yield imports_pb2.UploadImportRequest(header=header)
        yield imports_pb2.UploadImportRequest(chunk=b"sale_id")

    assert await refused(service.imports.UploadImport(without_end(), **service.called())) == "UPLOAD_INVALID"
    listed = await service.imports.ListImports(imports_pb2.ListImportsRequest(), **service.called())
    assert not listed.imports
