"""A models service over real gRPC beside small servers that speak ingest's, graph's and governance's protocols."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from counterfoil.governance.v1 import (
    audit_pb2_grpc,
    changes_pb2_grpc,
    consents_pb2_grpc,
    policies_pb2_grpc,
    receipts_pb2_grpc,
    workspaces_pb2_grpc,
)
from counterfoil.graph.v1 import journeys_pb2_grpc
from counterfoil.ingest.v1 import monitors_pb2_grpc, records_pb2_grpc
from counterfoil_chassis.identity import write_key_pair
from counterfoil_chassis.serve import Service, started
from counterfoil_models.settings import Settings

from tests.models.journey_room import JourneyRoom
from tests.models.shop import (
    Client,
    GovernanceSettings,
    GraphSettings,
    Holds,
    IngestSettings,
    Ledgers,
    Office,
    World,
    shop_sales,
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    for name in ("gateway", "ingest", "graph", "governance", "models"):
        write_key_pair(tmp_path / f"keys/{name}.pem", tmp_path / "keys/trusted", name)
    ingest, holds, office, journeys = Ledgers(), Holds(), Office(), JourneyRoom()
    ingest.gate.set()
    journeys.gate.set()
    for workspace in ("acme", "rival"):
        office.policies.put_in_force(workspace)

    async def build_ingest(settings: Any, host: Any, stack: AsyncExitStack) -> Service:
        return Service(
            [
                (records_pb2_grpc.add_RecordServiceServicer_to_server, ingest),
                (monitors_pb2_grpc.add_MonitorServiceServicer_to_server, holds),
            ]
        )

    async def build_graph(settings: Any, host: Any, stack: AsyncExitStack) -> Service:
        return Service([(journeys_pb2_grpc.add_JourneyServiceServicer_to_server, journeys)])

    async def build_governance(settings: Any, host: Any, stack: AsyncExitStack) -> Service:
        return Service(
            [
                (workspaces_pb2_grpc.add_WorkspaceServiceServicer_to_server, office),
                (receipts_pb2_grpc.add_ReceiptServiceServicer_to_server, office),
                (policies_pb2_grpc.add_PolicyServiceServicer_to_server, office.policies),
                (consents_pb2_grpc.add_ConsentServiceServicer_to_server, office.consents),
                (changes_pb2_grpc.add_ChangeServiceServicer_to_server, office.changes),
                (audit_pb2_grpc.add_AuditServiceServicer_to_server, office.audit),
            ]
        )

    common = {"data_dir": tmp_path, "listen": "127.0.0.1:0", "drain_seconds": 0.1}
    async with (
        started("ingest", IngestSettings(**common), build_ingest) as first,
        started("governance", GovernanceSettings(**common), build_governance) as second,
        started("graph", GraphSettings(**common), build_graph) as third,
    ):
        targets = {
            "ingest_target": first.address,
            "governance_target": second.address,
            "graph_target": third.address,
        }
        yield World(tmp_path, ingest, holds, office, journeys, Settings(**common, **targets))


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
