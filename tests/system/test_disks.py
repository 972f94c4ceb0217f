"""Disks that are full, and files whose ends were torn: refused before anything is lost, whole again afterwards."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.system.installation import Installation, until
from tests.system.tenant import ok, problem

SMALL = "64m"
COUNT = "SELECT count(*), count(DISTINCT message_id) FROM events WHERE event = 'Kept'"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", place], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


class Shop:
    """Sends single events, each until it is told what became of it, and counts those acknowledged."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.acknowledged = 0
        self._number = 0
        with installation.http(installation.admin_key) as client:
            self._write_key = ok(client.post("/v1/sources", json={"display_name": "Shop"}))["write_key"]

    def send(self, *, bytes_each: int = 100) -> httpx.Response:
        """Send one more event."""
        self._number += 1
        event = {
            "type": "track",
            "event": "Kept",
            "userId": "u",
            "messageId": f"kept-{self._number}",
            "properties": {"noise": os.urandom(bytes_each // 2).hex()},
        }
        with self.installation.http() as client:
            answer = client.post("/v1/batch", json={"batch": [event]}, auth=(self._write_key, ""), timeout=30)
        self.acknowledged += answer.status_code == 200
        return answer

    def check(self, installation: Installation) -> None:
        """Assert that what was acknowledged is there, once, and nothing else."""
        with installation.http(installation.admin_key) as client:
            rows = ok(client.post("/v1/sql", json={"sql": COUNT}, timeout=60))["rows"]
        assert rows == [[self.acknowledged, self.acknowledged]]


def test_a_full_disk_refuses_before_it_loses_and_recovers_when_there_is_room(small_disk: Path):
    with Installation.running(small_disk / "data") as installation:
        shop = Shop(installation)
        for _ in range(20):
            assert shop.send().status_code == 200
        processes = _services(installation)
        filler = small_disk / "filler"
        _fill(filler)
        refused = until(lambda: _refused(shop), seconds=60, what="a full disk takes whatever comes")
        told = problem(refused, status=503, reason="LOG_UNAVAILABLE")
        assert "retry-after" in refused.headers
        assert "disk" in told["detail"]
        with installation.http(installation.admin_key) as client:
            answer = until(lambda: _no_room(client), seconds=60, what="governance writes to a full disk")
            problem(answer, status=503, reason="STORE_UNAVAILABLE")
            assert client.get("/v1/workspaces").status_code == 200  # what needs no room goes on
        assert shop.send(bytes_each=20_000).status_code == 503
        filler.unlink()
        until(lambda: True if shop.send().status_code == 200 else None, seconds=60, what="room alone does not help")
        until(installation._ready, seconds=60, what="not ready again")
        shop.check(installation)
        assert _services(installation) == processes, installation.output.read_text()
        assert installation.stop() == 0


def _services(installation: Installation) -> set[int]:
    """Return the processes that the command started; queries run in children of those."""
    return {child.pid for child in psutil.Process(installation.process.pid).children()}


def _refused(shop: Shop) -> httpx.Response | None:
    answer = shop.send(bytes_each=20_000)
    return None if answer.status_code == 200 else answer


def _no_room(client: httpx.Client) -> httpx.Response | None:
    name = f"late-{os.urandom(4).hex()}"
    answer = client.post("/v1/principals", json={"principal_id": name, "kind": "PROGRAM", "display_name": "x" * 150})
    return None if answer.status_code == 200 else answer


def _fill(filler: Path) -> None:
    """Write until there is no room for another byte."""
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


def test_torn_ends_of_files_after_a_power_cut_cost_nothing_that_was_acknowledged(tmp_path: Path):
    data = tmp_path / "data"
    with Installation.running(data) as first:
        shop = Shop(first)
        for _ in range(30):
            assert shop.send().status_code == 200
        until(lambda: True if list(data.glob("lake/**/_delta_log/*.json")) else None, seconds=60, what="no lake yet")
        children = first.children()
        first.process.kill()
        for child in children:
            child.kill()
        first.process.wait()
        until(lambda: True if not first.leftovers() else None, seconds=60, what="something outlives kill -9")
    for file in data.glob("*.db-wal"):
        with file.open("ab") as log:
            log.write(os.urandom(2_500))  # a commit that was being written and was told to nobody
    with (data / "dedup.table").open("r+b") as table:
        table.truncate(100_000)
    newest = max(data.glob("lake/**/_delta_log/*.json"), key=lambda file: file.name)
    newest.write_bytes(b"")  # its name reached the disk, its content did not
    with Installation.running(data) as second:
        shop.installation = second
        shop.check(second)
        assert shop.send().status_code == 200
        shop.check(second)
        assert second.stop() == 0
