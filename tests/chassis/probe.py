"""A small real service for the chassis tests: real protos, real server, handlers given by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from counterfoil.common.v1 import receipts_pb2
from counterfoil.common.v1.receipts_pb2_grpc import (
    ReceiptProducerServiceServicer,
    ReceiptProducerServiceStub,
    add_ReceiptProducerServiceServicer_to_server,
)
from counterfoil.ingest.v1 import imports_pb2, records_pb2
from counterfoil.ingest.v1.imports_pb2_grpc import ImportServiceServicer, add_ImportServiceServicer_to_server
from counterfoil.ingest.v1.records_pb2_grpc import RecordServiceServicer, add_RecordServiceServicer_to_server
from counterfoil_chassis.call import connect
from counterfoil_chassis.clock import SystemClock
from counterfoil_chassis.identity import TokenSigner, load_private_key
from counterfoil_chassis.serve import Host, Running, Service
from counterfoil_chassis.settings import ServiceSettings
from pydantic_settings import SettingsConfigDict

SCOPE = "governance.read"


class ProbeSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="COUNTERFOIL_PROBE_")

    listen: str = "127.0.0.1:0"


class HandClock:
    """A clock that moves when it is told to."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.time = start

    def now(self) -> datetime:
        return self.time

    def forward(self, by: timedelta) -> None:
        self.time += by


Handler = Callable[[Any, Any], Awaitable[Any]]


@dataclass
class Probe(ReceiptProducerServiceServicer, RecordServiceServicer, ImportServiceServicer):
    """Serves what the test gives it."""

    get: Handler | None = None
    follow: Callable[[Any, Any], AsyncIterator[Any]] | None = None
    upload: Handler | None = None
    background: tuple[Callable[[], Any], ...] = ()
    ready: Callable[[], Any] | None = None

    async def GetReceipt(self, request: receipts_pb2.GetReceiptRequest, context: Any) -> receipts_pb2.Receipt:
        return await self.get(request, context)

    async def ReadRecords(self, request: records_pb2.ReadRecordsRequest, context: Any) -> AsyncIterator[Any]:
        async for each in self.follow(request, context):
            yield each

    async def UploadImport(self, request_iterator: Any, context: Any) -> imports_pb2.Import:
        return await self.upload(request_iterator, context)

    async def build(self, _settings: ProbeSettings, _host: Host, _stack: AsyncExitStack) -> Service:
        return Service(
            servicers=[
                (add_ReceiptProducerServiceServicer_to_server, self),
                (add_RecordServiceServicer_to_server, self),
                (add_ImportServiceServicer_to_server, self),
            ],
            background=self.background,
            ready=self.ready,
        )


def signer(data_dir: Path, name: str, clock: Any = None) -> TokenSigner:
    return TokenSigner(name, load_private_key(data_dir / "keys" / f"{name}.pem"), clock or SystemClock())


def principal_token(data_dir: Path, *scopes: str, workspace: str = "acme") -> str:
    return signer(data_dir, "gateway").mint(workspace=workspace, principal="ada", scopes=scopes or (SCOPE,))


def bearer(token: str, timeout: float | None = 30.0) -> dict[str, Any]:
    return {"metadata": (("authorization", f"Bearer {token}"),), "timeout": timeout}


async def open_stub(stack: AsyncExitStack, running: Running, stub: type = ReceiptProducerServiceStub) -> Any:
    return stub(await stack.enter_async_context(connect(running.address)))


def receipt_of(receipt_id: str = "probe.1") -> receipts_pb2.GetReceiptRequest:
    return receipts_pb2.GetReceiptRequest(receipt_id=receipt_id)


async def answer(request: receipts_pb2.GetReceiptRequest, _context: Any) -> receipts_pb2.Receipt:
    return receipts_pb2.Receipt(receipt_id=request.receipt_id)


async def failed(call: Any) -> grpc.aio.AioRpcError:
    """Return how a call failed; one that succeeds fails the test."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call succeeded")


async def eventually(check: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    """Wait until something stored or remote, which sends no event, is so."""
    async with asyncio.timeout(seconds):
        while not await check():
            await asyncio.sleep(0.002)
