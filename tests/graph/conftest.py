"""A graph with everything it needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.graph.world import Client, Peers, World, peers_in


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
