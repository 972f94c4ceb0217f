"""A real ingest process's service in this loop, reached by gRPC in the gateway's or a principal's name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from counterfoil.ingest.v1.append_pb2 import AppendItem, AppendManyRequest, AppendResult
from counterfoil.ingest.v1.append_pb2_grpc import AppendServiceStub
from counterfoil.ingest.v1.quarantine_pb2_grpc import QuarantineServiceStub
from counterfoil.ingest.v1.sources_pb2_grpc import SourceServiceStub
from counterfoil_chassis.call import connect, outgoing
from counterfoil_chassis.clock import SystemClock
from counterfoil_chassis.identity import TokenSigner, load_private_key, write_key_pair
from counterfoil_chassis.serve import started
from counterfoil_contracts.__main__ import build as build_contracts
from counterfoil_contracts.settings import Settings as ContractsSettings
from counterfoil_ingest.__main__ import build
from counterfoil_ingest.settings import Settings

READ, WRITE, ADMIN, APPEND = "ingest.read", "ingest.write", "ingest.admin", "ingest.append"
EVERYTHING = (READ, WRITE, ADMIN, APPEND)


class IngestService:
    """Stubs of a running ingest."""

    def __init__(self, address: str, channel: Any, gateway: TokenSigner, folder: Path) -> None:
        self.address = address
        self.folder = folder
        self.gateway = gateway
        self.append: Any = AppendServiceStub(channel)
        self.sources: Any = SourceServiceStub(channel)
        self.quarantine: Any = QuarantineServiceStub(channel)

    def token(self, workspace: str = "acme", principal: str = "admin", scopes: tuple[str, ...] = EVERYTHING) -> str:
        return self.gateway.mint(workspace=workspace, principal=principal, scopes=frozenset(scopes))

    def called(self, workspace: str = "acme", scopes: tuple[str, ...] = EVERYTHING) -> dict[str, Any]:
        """Return what a principal's call carries."""
        return outgoing(default=60.0, token=self.token(workspace, scopes=scopes))

    def as_gateway(self) -> dict[str, Any]:
        """Return what the gateway's own call carries."""
        return outgoing(default=60.0, signer=self.gateway)

    def item(self, body: bytes, *, source_id: str = "", workspace: str = "acme", **fields: Any) -> AppendItem:
        """Return what the gateway makes of a request with a source's write key, or with an API key."""
        by_source = (f"source:{source_id}", (APPEND,)) if source_id else ("admin", EVERYTHING)
        token = self.token(workspace, *by_source)
        return AppendItem(**{"token": token, "protocol": "segment", "route": "batch", "body": body, **fields})

    async def append_many(self, *items: AppendItem) -> list[AppendResult]:
        answer = await self.append.AppendMany(AppendManyRequest(items=items), **self.as_gateway())
        return list(answer.results)


@asynccontextmanager
async def ingest_in(
    folder: Path, *, contracts_target: str = "127.0.0.1:9", governance_target: str = "127.0.0.1:9"
) -> AsyncIterator[IngestService]:
    """Serve ingest from a folder; by default nothing answers as contracts and governance (port 9, discard)."""
    trusted = folder / "keys" / "trusted"
    for name in ("gateway", "ingest", "contracts", "models"):
        write_key_pair(folder / "keys" / f"{name}.pem", trusted, name)
    gateway = TokenSigner("gateway", load_private_key(folder / "keys" / "gateway.pem"), SystemClock())
    settings = Settings(
        data_dir=folder,
        listen="127.0.0.1:0",
        contracts_target=contracts_target,
        governance_target=governance_target,
        drain_seconds=0,
        otlp_endpoint="",
    )
    async with started("ingest", settings, build, migrations="counterfoil_ingest") as running:
        channel = connect(running.address)
        try:
            yield IngestService(running.address, channel, gateway, folder)
        finally:
            await channel.close()


@asynccontextmanager
async def contracts_in(folder: Path) -> AsyncIterator[str]:
    """Serve contracts from the same folder; yield its address."""
    settings = ContractsSettings(
        data_dir=folder, listen="127.0.0.1:0", governance_target="127.0.0.1:9", drain_seconds=0, otlp_endpoint=""
    )
    for name in ("gateway", "ingest", "contracts"):
        write_key_pair(folder / "keys" / f"{name}.pem", folder / "keys" / "trusted", name)
    async with started("contracts", settings, build_contracts, migrations="counterfoil_contracts") as running:
        yield running.address
