"""One governance service per test, bootstrapped with a known admin key."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.governance.calls import ADMIN_KEY, Governance, MovableClock, governance_in


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
async def governance(tmp_path: Path, clock: MovableClock) -> AsyncIterator[Governance]:
    digest = hashlib.sha256(ADMIN_KEY.encode()).hexdigest()
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=digest) as running:
        yield running
