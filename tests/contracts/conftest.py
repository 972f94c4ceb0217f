"""One contracts service per test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contracts.calls import Contracts, contracts_in


@pytest.fixture
async def contracts(tmp_path: Path) -> AsyncIterator[Contracts]:
    async with contracts_in(tmp_path) as running:
        yield running
