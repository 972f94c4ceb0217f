"""Processes that are told to stop, or whose launcher dies: nothing is left behind."""

import signal
import subprocess
from pathlib import Path

from tests.system.installation import COMMAND, Installation, until
from tests.system.tenant import ok


def _source(installation: Installation) -> str:
    with installation.http(installation.admin_key) as client:
        return str(ok(client.post("/v1/sources", json={"display_name": "Load"}))["write_key"])


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
    until(lambda: not installation.leftovers() or None, seconds=30, what="processes are left behind")


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
        until(lambda: True if not started.leftovers() else None, seconds=60, what="children outlive the launcher")
