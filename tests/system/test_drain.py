"""Processes by themselves: started before everything that they need, and stopped one after the other under load."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from counterfoil.governance.v1.workspaces_pb2 import ListWorkspacesRequest
from counterfoil.governance.v1.workspaces_pb2_grpc import WorkspaceServiceStub
from counterfoil_cli.env import CALL_ORDER

from tests.postgres import Server
from tests.system.house import House, a_house
from tests.system.installation import until
from tests.system.load import BATCH, Consents, Events, Reads, Sender
from tests.system.tenant import ok

RETRIES = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
}


class Calls(threading.Thread):
    """Calls the gRPC doors one after the other, by a client with gRPC's own retries, and after those with its own."""

    def __init__(self, house: House) -> None:
        super().__init__(daemon=True)
        self.answered = 0
        self.repeated = 0
        """Calls that gRPC gave up."""
        self.failures: list[str] = []
        self._key = house.admin_key
        doors = ",".join(f"127.0.0.1:{8081 + house.offset + door}" for door in (0, house.beside))
        self._target = f"ipv4:{doors}"
        self._stopped = threading.Event()

    def run(self) -> None:
        """Call until stopped."""
        options = [("grpc.service_config", json.dumps(RETRIES)), ("grpc.max_reconnect_backoff_ms", 1000)]
        with grpc.insecure_channel(self._target, options=options) as channel:
            stub = WorkspaceServiceStub(channel)
            while not self._stopped.wait(0.02):
                try:
                    stub.ListWorkspaces(ListWorkspacesRequest(), timeout=20, metadata=(("x-api-key", self._key),))
                    self.answered += 1
                except grpc.RpcError as error:
                    self.repeated += 1
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        self.failures.append(f"{error.code()} {error.details()}")

    def stop(self) -> None:
        """End after the call that is under way."""
        self._stopped.set()
        self.join(60)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, postgres: Server) -> Iterator[House]:
    with a_house(tmp_path_factory.mktemp("house"), postgres) as house:
        yield house


def test_processes_that_begin_before_all_they_need_wait_name_it_and_become_ready_alone(house: House) -> None:
    for name in CALL_ORDER:  # callers first
        house.start(name)
    for name in CALL_ORDER:
        house.wait(name, "/startupz")
        assert house.says(name, "/livez")[0] == 200
        status, missing = house.says(name, "/readyz")
        assert (status, ("have not arrived" if name == "gateway" else "the database cannot be asked") in missing) == (
            503,
            True,
        ), missing
    house.open()
    for name in CALL_ORDER:
        house.wait(name, "/readyz")
    with house.http(house.admin_key) as client:
        until(lambda: client.get("/readyz").is_success or None, seconds=60, what="the door is not ready")


@contextmanager
def load(house: House) -> Iterator[list[Sender]]:
    """Send by REST while the block runs; every sender repeats what was not acknowledged until it is."""
    with house.http(house.admin_key) as client:
        write_key = ok(client.post("/v1/sources", json={"display_name": "Drained"}))["write_key"]
    senders = [
        Events("ada", house, write_key),
        Events("grace", house, write_key),
        Consents("karen", house, house.admin_key),
        Reads("donald", house, house.admin_key),
    ]
    for sender in senders:
        sender.start()
    try:
        yield senders
    finally:
        for sender in senders:
            sender.stop()


def progress(senders: list[Sender], calls: Calls) -> None:
    """Wait until everybody has had an answer more."""
    marks = [sender.acknowledged for sender in senders]
    answered = calls.answered
    until(
        lambda: (
            True
            if calls.answered > answered and all(s.acknowledged > mark for s, mark in zip(senders, marks, strict=True))
            else None
        ),
        seconds=60,
        what=f"not everybody goes on: {[(s.name, s.answers) for s in senders]}, {calls.failures}",
    )


def test_processes_that_are_stopped_under_load_lose_nothing_and_no_client_that_repeats_fails(house: House) -> None:
    calls = Calls(house)
    with load(house) as senders:
        calls.start()
        progress(senders, calls)
        house.start("gateway", door=house.beside)
        house.wait("gateway", "/readyz", door=house.beside)
        assert house.stop("gateway") == 0
        progress(senders, calls)
        assert calls.repeated == 0
        assert all(set(sender.answers) == {"200"} for sender in senders)
        for name in ("ingest", "governance"):  # alone with its data each; until the next one serves, callers wait
            assert house.stop(name) == 0
            house.start(name)
            house.wait(name, "/readyz")
            progress(senders, calls)
    calls.stop()
    print({sender.name: (dict(sender.answers), sender.silent) for sender in senders}, calls.answered)
    assert not calls.failures
    assert not [each for sender in senders for each in sender.refused]
    events = [sender for sender in senders if isinstance(sender, Events)]
    sent = {
        f"{sender.name}-{number}-{place}"
        for sender in events
        for number, place in itertools.product(range(sender.acknowledged), range(BATCH))
    }
    with house.http(house.admin_key) as client:
        sql = "SELECT count(*), count(DISTINCT message_id), min(message_id) FROM events WHERE event = 'Load'"
        counted = ok(client.post("/v1/sql", json={"sql": sql}))["rows"][0]
    assert counted[:2] == [len(sent), len(sent)]
    for name in ("gateway", "graph", "contracts", "governance"):
        assert not list((house.folder / name).iterdir()), f"{name} keeps something outside of its database"
