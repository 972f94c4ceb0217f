"""The process: one clear line when it cannot start, and a graceful end when it is told to stop."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from counterfoil_gateway.__main__ import main

from tests.ports import free_port


@pytest.fixture
def environment(keys_dir: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("COUNTERFOIL_", "OTEL_"))}
    ports = {
        f"COUNTERFOIL_GATEWAY_{name}": f"127.0.0.1:{free_port()}"
        for name in ("LISTEN", "GRPC_LISTEN", "METRICS_LISTEN")
    }
    services = ("INGEST", "CONTRACTS", "GRAPH", "MODELS", "GOVERNANCE")
    targets = {f"COUNTERFOIL_GATEWAY_{name}_TARGET": f"127.0.0.1:{free_port()}" for name in services}
    return kept | ports | targets | {"COUNTERFOIL_DATA_DIR": str(keys_dir)}


@pytest.fixture
def process(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    started = _start(environment)
    yield started
    started.kill()
    started.communicate()


def _start(environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "counterfoil_gateway"]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def _until_alive(url: str) -> httpx.Response:
    end = time.monotonic() + 60
    while True:
        try:
            return httpx.get(f"{url}/healthz", timeout=30)
        except httpx.TransportError:
            assert time.monotonic() < end, "it does not come up"
            time.sleep(0.05)


def test_lives_before_its_services_do_and_leaves_when_told(environment: dict[str, str], process: subprocess.Popen[str]):
    url = f"http://{environment['COUNTERFOIL_GATEWAY_LISTEN']}"
    assert _until_alive(url).status_code == 200
    ready = httpx.get(f"{url}/readyz", timeout=30)
    assert ready.status_code == 503
    assert ready.json()["checks"]["governance"].startswith("does not answer")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_finishes_what_runs_before_it_leaves(environment: dict[str, str], process: subprocess.Popen[str]):
    url = f"http://{environment['COUNTERFOIL_GATEWAY_LISTEN']}"
    _until_alive(url)

    def body() -> Iterator[bytes]:
        yield b"["
        process.send_signal(signal.SIGTERM)
        time.sleep(1)  # longer than the pause in which the door still takes requests
        yield b"]"

    answer = httpx.post(f"{url}/v1/batch", content=body(), timeout=60)
    assert (answer.status_code, answer.json()["reason"]) == (401, "CREDENTIAL_MISSING")
    assert process.wait(60) == 0


def _said(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Start in this process, where it must refuse; return what it says besides its log."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["gateway"])
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with pytest.raises(SystemExit) as exit_:
            main()
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert exit_.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("{")]
    return line


@pytest.mark.parametrize("door", ["LISTEN", "GRPC_LISTEN"])
def test_a_taken_port_is_one_clear_line(
    environment: dict[str, str], door: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = _said(environment | {f"COUNTERFOIL_GATEWAY_{door}": address}, monkeypatch, capsys)
    assert line.startswith(f"counterfoil gateway: cannot listen on {address}: Address already in use")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"COUNTERFOIL_GATEWAY_PRIVATE_KEY_FILE": "/nowhere/key.pem"}, "/nowhere/key.pem does not exist"),
        ({"COUNTERFOIL_GATEWAY_LISTEN": "nonsense"}, "the address nonsense is not host:port"),
        ({"COUNTERFOIL_GATEWAY_DRAIN_SECONDS": "soon"}, "drain_seconds is wrong"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(
    environment: dict[str, str],
    change: dict[str, str],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    assert complaint in _said(environment | change, monkeypatch, capsys)
