"""The gRPC door: bytes through, with metadata, deadline, cancellation and trailers."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from counterfoil.common.v1 import receipts_pb2 as common_receipts
from counterfoil.governance.v1 import receipts_pb2, receipts_pb2_grpc, workspaces_pb2, workspaces_pb2_grpc
from counterfoil.ingest.v1 import imports_pb2, imports_pb2_grpc, queries_pb2, queries_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.gateway.conftest import ADMIN, Doors

pytestmark = pytest.mark.asyncio(loop_scope="session")
C = grpc.StatusCode
KEY = (("x-api-key", ADMIN),)


async def test_metadata_goes_through_but_for_what_is_ours(doors: Doors):
    stub: Any = workspaces_pb2_grpc.WorkspaceServiceStub(doors.rpc)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    mine = (
        ("x-tag", "1"),
        ("tenant", "t"),
        ("x-raw-bin", b"\x00\xff"),
        ("traceparent", f"00-{trace}-00f067aa0ba902b7-01"),
    )
    call = stub.GetWorkspace(
        workspaces_pb2.GetWorkspaceRequest(workspace_id="mine"), metadata=(*KEY, *mine), timeout=30
    )
    answer = await call
    assert answer.workspace_id == "w"
    seen = doors.backend.metadata[-1]
    assert (seen["x-tag"], seen["tenant"], seen["x-raw-bin"]) == ("1", "t", b"\x00\xff")
    assert "x-api-key" not in seen
    assert seen["authorization"].startswith("Bearer ey")
    assert seen["traceparent"].split("-")[1] == trace
    assert 20 < doors.backend.remaining[-1] <= 30.1
    assert dict(await call.trailing_metadata())["x-answered-by"] == "backend"


async def test_a_key_may_come_as_bearer_and_no_deadline_becomes_a_minute(doors: Doors):
    stub: Any = workspaces_pb2_grpc.WorkspaceServiceStub(doors.rpc)
    request = workspaces_pb2.GetWorkspaceRequest(workspace_id="mine")
    await stub.GetWorkspace(request, metadata=(("authorization", f"Bearer {ADMIN}"),))
    assert 45 < doors.backend.remaining[-1] <= 60.1


async def test_rich_errors_go_through(doors: Doors):
    stub: Any = workspaces_pb2_grpc.WorkspaceServiceStub(doors.rpc)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stub.GetWorkspace(workspaces_pb2.GetWorkspaceRequest(workspace_id="none"), metadata=KEY)
    assert failure.value.code() is C.NOT_FOUND
    assert failure.value.details() == "there is no such workspace"
    assert "grpc-status-details-bin" in dict(failure.value.trailing_metadata())


async def test_a_deadline_ends_the_call_behind(doors: Doors):
    stub: Any = workspaces_pb2_grpc.WorkspaceServiceStub(doors.rpc)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stub.GetWorkspace(workspaces_pb2.GetWorkspaceRequest(workspace_id="slow"), metadata=KEY, timeout=1)
    assert failure.value.code() is C.DEADLINE_EXCEEDED
    await asyncio.wait_for(doors.backend.cancelled.wait(), 60)


async def test_a_cancelled_call_is_cancelled_behind(doors: Doors):
    stub: Any = workspaces_pb2_grpc.WorkspaceServiceStub(doors.rpc)
    call = stub.GetWorkspace(workspaces_pb2.GetWorkspaceRequest(workspace_id="slow"), metadata=KEY)
    await asyncio.wait_for(doors.backend.asked.wait(), 60)
    call.cancel()
    await asyncio.wait_for(doors.backend.cancelled.wait(), 60)


async def test_streams_go_through_and_end_with_their_reader(doors: Doors):
    stub: Any = queries_pb2_grpc.QueryServiceStub(doors.rpc)
    rows = [r.rows async for r in stub.StreamQuery(queries_pb2.StreamQueryRequest(sql="3"), metadata=KEY)]
    assert rows == [0, 1, 2]
    call = stub.StreamQuery(queries_pb2.StreamQueryRequest(sql="late"), metadata=KEY)
    assert (await call.read()).rows == 0
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call.read()
    assert failure.value.code() is C.RESOURCE_EXHAUSTED
    call = stub.StreamQuery(queries_pb2.StreamQueryRequest(sql="forever"), metadata=KEY)
    async for _ in call:
        break
    call.cancel()
    await asyncio.wait_for(doors.backend.cancelled.wait(), 60)


async def test_uploads_go_through(doors: Doors):
    stub: Any = imports_pb2_grpc.ImportServiceStub(doors.rpc)

    async def parts() -> Any:
        yield imports_pb2.UploadImportRequest(header={"dataset": "sales", "format": "CSV"})
        for _ in range(5):
            yield imports_pb2.UploadImportRequest(chunk=b"x" * (1 << 20))
        yield imports_pb2.UploadImportRequest(end=imports_pb2.ImportEnd())

    answer = await stub.UploadImport(parts(), metadata=KEY)
    assert (answer.dataset, answer.file_bytes) == ("sales", 5 << 20)


async def test_a_broken_off_upload_is_not_passed_on_as_a_whole_one(doors: Doors):
    stub: Any = imports_pb2_grpc.ImportServiceStub(doors.rpc)
    doors.imports.kept.clear()
    for _ in range(50):
        doors.backend.refused.clear()
        doors.backend.asked.clear()
        call = stub.UploadImport(metadata=KEY)
        await call.write(imports_pb2.UploadImportRequest(header={"dataset": "sales", "format": "CSV"}))
        await call.write(imports_pb2.UploadImportRequest(chunk=b"x" * 1000))
        await asyncio.wait_for(doors.backend.asked.wait(), 60)
        call.cancel()
        await asyncio.wait_for(doors.backend.refused.wait(), 60)
    assert doors.imports.kept == []


async def test_receipts_are_answered_here_as_by_rest(doors: Doors):
    stub: Any = receipts_pb2_grpc.ReceiptServiceStub(doors.rpc)
    doors.backend.produced["models.2"] = common_receipts.Receipt(receipt_id="models.2")
    answer = await stub.GetReceipt(receipts_pb2.GetReceiptRequest(receipt_id="models.2"), metadata=KEY)
    assert answer.receipt_id == "models.2"
    answer = await stub.ReplayReceipt(receipts_pb2.ReplayReceiptRequest(receipt_id="models.2"), metadata=KEY)
    assert answer.outcome == common_receipts.ReplayResult.Outcome.MATCH
    for receipt_id, code in (("nobody.1", C.NOT_FOUND), ("", C.INVALID_ARGUMENT)):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stub.ReplayReceipt(receipts_pb2.ReplayReceiptRequest(receipt_id=receipt_id), metadata=KEY)
        assert failure.value.code() is code
    raw = doors.rpc.unary_unary("/counterfoil.governance.v1.ReceiptService/GetReceipt")
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await raw(b"\xff\xff", metadata=KEY)
    assert failure.value.code() is C.INVALID_ARGUMENT


async def test_the_door_answers_health_checks(doors: Doors):
    stub: Any = health_pb2_grpc.HealthStub(doors.rpc)
    for service in ("", "readiness", "liveness"):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
