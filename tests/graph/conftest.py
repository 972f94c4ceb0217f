"""A graph with everything it needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from counterfoil_chassis.health import HEALTH

from tests.graph.world import Client, Peers, World, peers_in


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what other tests' servers in this process, some of them in another loop, have to check."""
    monkeypatch.setattr(HEALTH, "_sources", {})
    monkeypatch.setattr(HEALTH, "_known", {})


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[Peers]:
    async with peers_in(tmp_path) as peers:
        yield peers


@pytest.fixture
async def world(peers: Peers) -> AsyncIterator[World]:
    async with peers.graph() as world:
        yield world


@pytest.fixture
def client(world: World) -> Client:
    return world.client()
