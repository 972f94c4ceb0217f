"""The data that the previous release left behind: opened by this one, backed up, restored, and moved to PostgreSQL."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from counterfoil_cli.backups import manifest

from tests.postgres import Server, direct
from tests.system import golden_folder
from tests.system.golden_folder import assert_says_the_same
from tests.system.installation import COMMAND, Installation, until
from tests.system.load import Forecasts, Load
from tests.system.tenant import DAY_SALES, SALES_MODEL, Tenant, ok, sales_csv

RECEIPTS = 20
SERVER = "COUNTERFOIL_DATABASE_URL"


def counterfoil(*arguments: str | Path, settings: Mapping[str, str] | None = None) -> str:
    """Run the command to its end and return what it said."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("COUNTERFOIL_", "OTEL_"))}
    done = subprocess.run(
        [COMMAND, *arguments],
        env=clean | dict(settings or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def counts_of(data: Path) -> dict[str, dict[str, int]]:
    """Return how many rows each table of a folder's databases has."""
    found: dict[str, dict[str, int]] = {}
    for file in sorted(data.glob("*.db")):
        with direct(f"sqlite:///{file}") as database:
            names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            found[file.stem] = {
                name: database.execute(f'SELECT count(*) FROM "{name}"')[0][0]
                for name in names
                if not name.startswith("sqlite_")
            }
    return found


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    """What the previous release said of its data."""
    return golden_folder.expected()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A copy of the previous release's folder, opened by this release."""
    data = tmp_path_factory.mktemp("previous") / "data"
    golden_folder.unpack(data)
    with Installation.running(data, arguments=["--no-traces"]) as started:
        yield started


GROWING = {"alembic_version", "idempotency", "outbox", "change", "revision", "cursor", "log_state", "records_seen"}
GROWING |= {"policy_bundles", "audit_entries"}  # policies follow releases, and that is noted
"""Tables in which a release may note what is its own."""


def test_this_release_opens_what_the_previous_one_left(opened: Installation, said: dict[str, Any]):
    found = counts_of(opened.data)
    for service, tables in said["counts"].items():
        kept = {name: count for name, count in tables.items() if name not in GROWING}
        assert {name: found[service][name] for name in kept} == kept
    with direct(f"sqlite:///{opened.data / 'ingest.db'}") as log:
        heads = log.execute("SELECT workspace, max(first_offset + count) FROM log_block GROUP BY workspace")
    assert dict(heads) == said["heads"]
    assert_says_the_same(opened, said)


@dataclass
class History:
    """What happened since: many receipts, a backup under load, somebody erased, another backup."""

    said: dict[str, Any]
    backups: Path
    key: str
    """Of the workspace with the many receipts."""

    receipts: dict[str, str]
    """Output hashes by receipt."""

    before: dict[str, int]
    after: dict[str, int]
    """What the senders had acknowledged when the first backup began and when it had ended, by their names."""

    early: list[str]
    """Receipts that were acknowledged before the first backup began."""

    load: Load
    printed: str
    privacy_request: dict[str, Any]

    @property
    def first(self) -> Path:
        """The backup that was taken under load."""
        return self.backups / "first"

    @property
    def second(self) -> Path:
        """The backup that was taken after the erasure."""
        return self.backups / "second"


@pytest.fixture(scope="module")
def history(opened: Installation, said: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> History:
    """Use the opened installation, and stop it."""
    backups = tmp_path_factory.mktemp("backups")
    with opened.http(said["api_key"]) as client, opened.http(opened.admin_key) as admin:
        many = Tenant.create(opened, admin, workspace="many")
        receipts = _many_receipts(many)
        load = Load.begin(Tenant.create(opened, admin, workspace="busy"))
        try:
            load.wait_for_progress(seconds=60)
            before = {sender.name: sender.acknowledged for sender in load.senders}
            [forecasts] = load.of(Forecasts)
            early = list(forecasts.receipts.values())  # fewer than acknowledged: the same question has one
            printed = counterfoil("backup", "--data", opened.data, "--to", backups / "first")
            after = {sender.name: sender.acknowledged + 1 for sender in load.senders}  # one may be under way
        finally:
            load.stop()
            many.http.close()
            load.tenant.http.close()
        assert load.refused() == []
        request = _erase(client)
    assert opened.stop() == 0
    counterfoil("backup", "--data", opened.data, "--to", backups / "second")
    return History(said, backups, many.key, receipts, before, after, early, load, printed, request)


def _many_receipts(tenant: Tenant) -> dict[str, str]:
    """Make so many forecasts that differ; return their receipts with their output hashes."""
    tenant.activate(DAY_SALES.format(version="1.0.0"))
    assert tenant.upload("sales", sales_csv(140), form="csv", name="sales.csv")["state"] == "SUCCEEDED"
    spec = {"forecast": SALES_MODEL["forecast"] | {"horizon_days": RECEIPTS}}
    body = {"model_id": "sales", "purpose": "stocking", "impact_tier": "IMPACT_TIER_LOW", **spec}
    ok(tenant.http.post("/v1/models", json=body))
    tenant.train("sales")
    receipts: dict[str, str] = {}
    for days in range(1, RECEIPTS + 1):
        made = ok(tenant.http.post("/v1/forecasts", json={"model_id": "sales", "horizon_days": days}))["receipt_id"]
        receipts[made] = ok(tenant.http.get(f"/v1/receipts/{made}"))["output_sha256"]
    assert len(receipts) == RECEIPTS
    return receipts


ERASED = {"type": "user_id", "value": "c05"}


def _erase(client: httpx.Client) -> dict[str, Any]:
    """Have a person erased who the log, the graph and the ledger of consents know."""
    assert ok(client.post("/v1/persons:lookup", json=ERASED))["person_id"]
    asked = ok(client.post("/v1/privacy-requests", json={"kind": "ERASURE", "identifiers": [ERASED]}))
    path = f"/v1/privacy-requests/{asked['privacy_request_id']}"

    def completed() -> dict[str, Any] | None:
        found = ok(client.get(path))
        return found if found["state"] == "COMPLETED" else None

    return until(completed, seconds=180, what="the erasure is not completed")


def assert_history(installation: Installation, history: History) -> None:
    """Read back what the first backup holds: all that was acknowledged before it, whole, once, in every service."""
    assert_says_the_same(installation, history.said)
    with installation.http(history.key) as client, ThreadPoolExecutor(4) as threads:
        replays = threads.map(lambda each: ok(client.post(f"/v1/receipts/{each}:replay", json={})), history.receipts)
        outcomes = {replay["receipt_id"]: (replay["outcome"], replay["actual_sha256"]) for replay in replays}
    assert outcomes == {receipt: ("MATCH", sha256) for receipt, sha256 in history.receipts.items()}
    with installation.http(history.load.tenant.key) as client:
        tenant = Tenant(installation, "busy", history.load.tenant.key, client)
        [[kept, distinct]] = tenant.sql("SELECT count(*), count(DISTINCT message_id) FROM events WHERE event = 'Load'")
        assert kept == distinct
        batches, remainder = divmod(kept, 50)
        assert remainder == 0
        assert sum(history.before[name] for name in ("ada", "grace")) <= batches
        assert batches <= sum(history.after[name] for name in ("ada", "grace"))
        for receipt in history.early:
            ok(client.get(f"/v1/receipts/{receipt}"))
        consents = _consents(client, history.after["karen"])
        assert history.before["karen"] <= consents <= history.after["karen"]
        _wait_for_graph(client, persons=batches)
        assert ok(client.post("/v1/audit:verify", json={}))["ok"]


def _consents(client: httpx.Client, most: int) -> int:
    """Return how many people in a row have their consent."""
    for number in range(most):
        subject = {"subject_type": "user_id", "subject_value": f"karen-{number}"}
        if not ok(client.get("/v1/consents", params=subject))["consents"]:
            return number
    return most


def _wait_for_graph(client: httpx.Client, *, persons: int) -> None:
    def read() -> bool | None:
        answer = client.get("/v1/graph")
        return True if answer.status_code == 200 and answer.json()["persons"] == persons else None

    until(read, seconds=90, what=f"the graph does not come to {persons} persons")


def test_a_backup_under_load_holds_its_writers_for_a_moment_only(history: History):
    held = float(re.search(r"held for ([0-9.]+) ms", history.printed)[1])  # type: ignore[index]
    print(history.printed)
    assert held < 1000
    assert "is whole" in counterfoil("backup", "--verify", history.first)


@pytest.fixture(scope="module")
def restored(history: History, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first backup restored where nothing newer lies beside it."""
    place = tmp_path_factory.mktemp("elsewhere")
    moved = place / "backup"
    moved.symlink_to(history.first)
    printed = counterfoil("restore", moved, "--data", place / "data")
    assert "No newer data" in printed
    return place / "data"


def test_a_restore_has_every_row_of_the_cut_and_a_new_life_of_the_log(history: History, restored: Path):
    made = manifest.read(history.first)
    found = counts_of(restored)
    for service, said in made.services.items():
        expected = dict(said["tables"])
        if service == "ingest":  # the audit entries of the restore, one per workspace, and the life before
            expected["outbox"] += len(made.workspaces)
            expected["log_state"] += 1
        assert {name: found[service][name] for name in expected} == expected
    with direct(f"sqlite:///{restored / 'ingest.db'}") as log:
        state = dict(log.execute("SELECT name, value FROM log_state"))
    assert state["epoch"] != made.log["log_epoch"]
    [life] = json.loads(state["predecessors"])
    assert life["epoch"] == made.log["log_epoch"]
    assert {workspace: head for workspace, _, head in life["heads"]} == {
        workspace: heads["0"] for workspace, heads in made.log["heads"].items()
    }


@pytest.fixture(scope="module")
def on_postgresql(restored: Path, postgres: Server) -> str:
    """The restored installation moved to PostgreSQL, though that was killed in the middle."""
    url = f"{postgres.url}/moved"
    moving = subprocess.Popen(
        [COMMAND, "migrate-engine", "--data", restored, "--to", url], stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        until(lambda: _being_filled(f"{url}_graph"), seconds=60, what="the graph is not being filled")
    finally:
        os.killpg(moving.pid, signal.SIGKILL)
        moving.wait()
    with pytest.raises(AssertionError):  # the last of them was not begun
        _rows(f"{url}_governance", "audit_entries")
    before = counts_of(restored)
    print(counterfoil("migrate-engine", "--data", restored, "--to", url))
    assert counts_of(restored) == before
    return url


def _being_filled(url: str) -> bool | None:
    try:
        return True if _rows(url, "counterfoil_copy") else None
    except AssertionError:
        return None


def _rows(url: str, table: str) -> int:
    """Return how many rows a table has; it may not be there."""
    try:
        with direct(url) as database:
            return int(database.execute(f"SELECT count(*) FROM {table}")[0][0])
    except Exception as error:
        raise AssertionError(error) from error


def test_moved_to_postgresql_it_says_the_same_and_so_does_its_backup_restored(
    history: History, on_postgresql: str, restored: Path, tmp_path: Path
):
    shutil.rmtree(restored / "artifacts")  # what the previous release kept there came along in the database
    settings = {SERVER: on_postgresql}
    with Installation.running(restored, arguments=["--no-traces"], settings=settings) as moved:
        assert_history(moved, history)
        counterfoil("backup", "--data", restored, "--to", tmp_path / "backup", settings=settings)
        assert moved.stop() == 0
    counterfoil("restore", tmp_path / "backup", "--data", tmp_path / "data")
    with Installation.running(tmp_path / "data", arguments=["--no-traces"]) as back:
        assert_history(back, history)
        with back.http(history.said["api_key"]) as client:
            entries = ok(client.get("/v1/audit/entries", params={"resource": "installation"}))["entries"]
        assert [entry["action"] for entry in entries] == ["installation.restore"] * 2
        assert back.stop() == 0


def test_who_was_erased_after_the_backup_is_erased_again_before_anything_is_served(history: History, tmp_path: Path):
    printed = counterfoil("restore", history.first, "--data", tmp_path / "data")
    assert f"Erasures asked for since and carried out again: 1, known from {history.second}" in printed
    with Installation.running(tmp_path / "data", arguments=["--no-traces"]) as back:
        with back.http(history.said["api_key"]) as client:
            assert client.post("/v1/persons:lookup", json=ERASED).status_code == 404
            assert ok(client.get("/v1/privacy-requests"))["privacy_requests"][0]["state"] == "COMPLETED"
            subject = {"subject_type": "user_id", "subject_value": ERASED["value"]}
            consents = ok(client.get("/v1/consents", params=subject))["consents"]
            assert {each["state"] for each in consents if each["holds"]} == {"WITHDRAWN"}
            [[found]] = ok(client.post("/v1/sql", json={"sql": "SELECT count(*) FROM visits WHERE customer = 'c05'"}))[
                "rows"
            ]
            assert int(found) == 0
            sample = next(iter(history.said["receipts"]))
            assert ok(client.post(f"/v1/receipts/{sample}:replay", json={}))["outcome"] in ("INPUT_ERASED", "MATCH")
        assert back.stop() == 0
