"""A models service over real gRPC beside two small servers that speak ingest's and governance's protocols."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from counterfoil.governance.v1 import receipts_pb2_grpc, workspaces_pb2_grpc
from counterfoil.ingest.v1 import records_pb2_grpc
from counterfoil_chassis.identity import write_key_pair
from counterfoil_chassis.serve import Service, started
from counterfoil_models.settings import Settings

from tests.models.shop import Client, GovernanceSettings, IngestSettings, Ledgers, Office, World, shop_sales


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    for name in ("gateway", "ingest", "governance", "models"):
        write_key_pair(tmp_path / f"keys/{name}.pem", tmp_path / "keys/trusted", name)
    ingest, office = Ledgers(), Office()
    ingest.gate.set()

    async def build_ingest(settings: Any, host: Any, stack: AsyncExitStack) -> Service:
        return Service([(records_pb2_grpc.add_RecordServiceServicer_to_server, ingest)])

    async def build_governance(settings: Any, host: Any, stack: AsyncExitStack) -> Service:
        return Service(
            [
                (workspaces_pb2_grpc.add_WorkspaceServiceServicer_to_server, office),
                (receipts_pb2_grpc.add_ReceiptServiceServicer_to_server, office),
            ]
        )

    common = {"data_dir": tmp_path, "listen": "127.0.0.1:0", "drain_seconds": 0.1}
    async with (
        started("ingest", IngestSettings(**common), build_ingest) as first,
        started("governance", GovernanceSettings(**common), build_governance) as second,
    ):
        targets = {"ingest_target": first.address, "governance_target": second.address}
        yield World(tmp_path, ingest, office, Settings(**common, **targets))


@pytest.fixture
async def client(world: World) -> AsyncIterator[Client]:
    async with world.serving() as running, world.client(running) as client:
        yield client


@pytest.fixture
def shop(world: World) -> World:
    """A workspace with sales and the catalogue that names their departments."""
    world.ingest.put("acme", "sales", shop_sales())
    catalogue = pa.table({"product_id": [1, 2, 3], "department": ["GROCERY", "FLORAL", "TOYS"]})
    world.ingest.put("acme", "products", catalogue)
    return world
