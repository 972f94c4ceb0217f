"""Processes that die or are told to stop: nothing acknowledged is lost, nothing is left behind."""

import signal
import subprocess
import threading
from pathlib import Path

import httpx

from tests.system.installation import COMMAND, Installation, until
from tests.system.tenant import ok

BATCH = 50
KILLS = 3


def _source(installation: Installation) -> str:
    with installation.http(installation.admin_key) as client:
        return str(ok(client.post("/v1/sources", json={"display_name": "Load"}))["write_key"])


class Sender(threading.Thread):
    """Sends batches one after the other until stopped, each until it is acknowledged, and notes what was."""

    def __init__(self, installation: Installation, write_key: str, name: str) -> None:
        super().__init__(name=name)
        self._installation = installation
        self._write_key = write_key
        self._stopped = threading.Event()
        self.acknowledged: list[str] = []
        self.refused: list[str] = []
        self.tries = 0

    def run(self) -> None:
        """Send until stopped."""
        number = 0
        with self._installation.http() as client:
            while not self._stopped.is_set():
                ids = [f"{self.name}-{number}-{place}" for place in range(BATCH)]
                batch = [{"type": "track", "event": "Load", "userId": "u", "messageId": each} for each in ids]
                while not self._post(client, batch):
                    pass
                self.acknowledged += ids
                number += 1

    def _post(self, client: httpx.Client, batch: list[dict[str, str]]) -> bool:
        self.tries += 1
        try:
            answer = client.post("/v1/batch", json={"batch": batch}, auth=(self._write_key, ""), timeout=10)
        except httpx.TransportError:
            return False
        if answer.status_code not in (200, 429, 503, 504):
            self.refused.append(f"{answer.status_code} {answer.text}")
        return answer.status_code == 200

    def stop(self) -> None:
        """End after the batch under way is acknowledged."""
        self._stopped.set()
        self.join(60)


def test_kill_9_of_ingest_under_load_loses_no_acknowledged_event(installation: Installation):
    write_key = _source(installation)
    senders = [Sender(installation, write_key, name) for name in ("ada", "grace", "edsger")]
    for sender in senders:
        sender.start()
    try:
        for _ in range(KILLS):
            mark = sum(len(sender.acknowledged) for sender in senders)
            _wait_for_progress(senders, mark)
            victim = installation.child("ingest")
            victim.kill()
            until(lambda old=victim: _successor(installation, old.pid), seconds=30, what="ingest is not back")
        _wait_for_progress(senders, sum(len(sender.acknowledged) for sender in senders))
    finally:
        for sender in senders:
            sender.stop()
    assert [sender.refused for sender in senders] == [[], [], []]
    acknowledged = {each for sender in senders for each in sender.acknowledged}
    with installation.http(installation.admin_key) as client:
        body = {"sql": "SELECT count(*), count(DISTINCT message_id) FROM events WHERE event = 'Load'"}
        [[kept, distinct]] = ok(client.post("/v1/sql", json=body, timeout=60))["rows"]
    assert kept == distinct, "an event is in the log twice"
    assert distinct == len(acknowledged)


def _wait_for_progress(senders: list[Sender], mark: int) -> None:
    until(
        lambda: True if sum(len(sender.acknowledged) for sender in senders) >= mark + 10 * BATCH else None,
        seconds=30,
        what="no batch is acknowledged any more",
    )


def _successor(installation: Installation, old: int) -> bool | None:
    try:
        return True if installation.child("ingest").pid != old else None
    except AssertionError:
        return None


def test_ctrl_c_and_sigterm_stop_everything_and_a_second_start_finds_the_data(tmp_path: Path):
    body = {"batch": [{"type": "track", "event": "Kept", "userId": "u", "messageId": "kept"}]}
    with Installation.running(tmp_path / "data") as first:
        write_key = _source(first)
        _post(first, body, write_key)
        _assert_stops(first, signal.SIGINT)
    with Installation.running(tmp_path / "data") as second:
        _post(second, body, write_key)
        with second.http(second.admin_key) as client:
            counted = ok(client.post("/v1/sql", json={"sql": "SELECT count(*) FROM events WHERE event = 'Kept'"}))
        assert counted["rows"] == [[1]]
        _assert_stops(second, signal.SIGTERM)


def _assert_stops(installation: Installation, number: signal.Signals) -> None:
    assert len(installation.children()) >= 6
    assert installation.stop(number) == 0
    assert installation.leftovers() == []


def _post(installation: Installation, body: dict[str, object], write_key: str) -> None:
    with installation.http() as client:
        assert client.post("/v1/batch", json=body, auth=(write_key, "")).status_code == 200


def test_a_second_start_is_one_clear_line_and_the_children_end_with_the_launcher(tmp_path: Path):
    with Installation.running(tmp_path / "data") as started:
        for data, offset in ((tmp_path / "data", started.offset + 15000), (tmp_path / "other", started.offset)):
            refused = subprocess.run(
                [COMMAND, "up", "--data", data, "--port-offset", str(offset)],
                check=False,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert refused.returncode not in (0, None)
            assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
            assert "Traceback" not in refused.stderr
        assert len(started.children()) >= 6
        started.process.kill()
        started.process.wait()
        until(lambda: True if not started.leftovers() else None, seconds=20, what="children outlive the launcher")
