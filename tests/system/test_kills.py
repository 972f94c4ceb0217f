"""kill -9 of every process, one after the other, under load: nothing acknowledged is lost or doubled, all recovers.

Once each by default. `make soak` sets SOAK_ROUNDS: so many rounds, in each of which every process dies once.
"""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.installation import Installation, until
from tests.system.load import Load
from tests.system.tenant import Tenant

SERVICES = ("governance", "contracts", "ingest", "graph", "models", "gateway")
MOST_DEATHS = 4
"""Of one process within a minute: at five the launcher gives up, as it should."""
RECOVERY_SECONDS = 60


@pytest.fixture
def alone(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    """One for this test alone: what it measures is not how long others' monitors take after a restart."""
    settings = {}
    if request.config.getoption("--engine") == "postgresql":
        settings["COUNTERFOIL_DATABASE_URL"] = request.getfixturevalue("postgres").installation()
    with Installation.running(tmp_path / "data", settings=settings) as started:
        yield started


def test_kill_9_of_any_process_under_load_loses_and_doubles_nothing(alone: Installation):
    with alone.http(alone.admin_key) as admin:
        tenant = Tenant.create(alone, admin, workspace="killed")
    load = Load.begin(tenant)
    recoveries: list[tuple[float, str]] = []
    deaths: dict[str, list[float]] = {service: [] for service in SERVICES}
    try:
        load.wait_for_progress(seconds=RECOVERY_SECONDS)
        for victim in _victims():
            _wait_for_patience(deaths[victim])
            deaths[victim].append(time.monotonic())
            killed = alone.child(victim)
            killed.kill()
            until(lambda: _successor(alone, victim, killed.pid), seconds=60, what=f"{victim} is not back")  # noqa: B023
            load.wait_for_progress(seconds=RECOVERY_SECONDS)
            recoveries.append((time.monotonic() - deaths[victim][-1], victim))
    finally:
        load.stop()
    until(alone._ready, seconds=RECOVERY_SECONDS, what="not ready again")
    assert load.refused() == []
    load.check()
    tenant.http.close()
    print(f"\n{len(recoveries)} kills; seconds until everyone's work goes on; answers {load.answers()}")
    for service in SERVICES:
        of_service = sorted(seconds for seconds, victim in recoveries if victim == service)
        print(f"{service:>11}: median {of_service[len(of_service) // 2]:.1f}, longest {of_service[-1]:.1f}")


def _victims() -> Iterator[str]:
    rounds = int(os.environ.get("SOAK_ROUNDS", "0"))
    chance = random.Random(4)
    if not rounds:
        yield from SERVICES
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", flush=True)
        yield from chance.sample(SERVICES, len(SERVICES))


def _wait_for_patience(deaths: list[float]) -> None:
    """Wait until another death does not make the launcher give up."""
    if len(deaths) >= MOST_DEATHS:
        time.sleep(max(0.0, deaths[-MOST_DEATHS] + 61 - time.monotonic()))


def _successor(installation: Installation, service: str, old: int) -> bool | None:
    try:
        return True if installation.child(service).pid != old else None
    except AssertionError:
        return None
