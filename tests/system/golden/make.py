"""Make the golden data folder of a release, by that release's own processes and its own story.

Run it in a checkout of the release, with that checkout's environment:

    git worktree add /tmp/previous <commit>; cd /tmp/previous; make setup
    .venv/bin/python <this repository>/tests/system/golden/make.py <this repository>/tests/system/golden/0.1

It writes `0.1.tar.zst`, the stopped installation's data folder without logs, and `0.1.json.zst`, what its gateway said:
`zstd -dc tests/system/golden/0.1.json.zst | python -m json.tool` shows it.
"""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import sys
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import zstandard

sys.path.insert(0, str(Path.cwd()))

from tests.system.doors import RestDoor
from tests.system.installation import Installation
from tests.system.story import MODEL, World
from tests.system.tenant import Tenant, ok
from tests.system.trust_story import PEOPLE, WHOLE_STORY

LEFT_OUT = ("lock", "*.lock", "*-shm", "*-wal")
READ = (
    "/v1/workspaces",
    "/v1/principals",
    "/v1/keys",
    "/v1/contracts",
    "/v1/sources",
    "/v1/datasets",
    "/v1/imports",
    "/v1/quarantine?page_size=1000",
    "/v1/datasets/sales/records?page_size=1000",
    "/v1/datasets/events/records?page_size=1000",
    "/v1/models",
    f"/v1/models/{MODEL}/versions",
    f"/v1/models/{MODEL}/events",
    "/v1/forecasts",
    "/v1/attribution",
    "/v1/lift",
    "/v1/persons?page_size=100",
    "/v1/graph/nodes?type=campaign",
    "/v1/graph/mappings",
    "/v1/changes",
    "/v1/policy-bundles",
    "/v1/consents?subject_type=user_id&subject_value=c01",
)
"""What is read back: each answer must be the same from any later release, but for fields that are new."""
QUERIES = (
    "SELECT shop, count(*), sum(amount::DECIMAL(18,2)) FROM sales GROUP BY 1 ORDER BY 1",
    "SELECT count(*), count(DISTINCT message_id) FROM events",
)


def tell(installation: Installation) -> World:
    """Do everything once in a workspace of its own, then what makes a log look used: duplicates, bad events, more."""
    with installation.http(installation.admin_key) as admin, installation.http() as client:
        tenant = Tenant.create(installation, admin, workspace="golden")
        world = World(tenant, installation.admin_key)
        world.tell(RestDoor(client), WHOLE_STORY)
    _, write_key = tenant.source("Site")
    events = [
        {
            "type": "track",
            "event": "Order Completed",
            "userId": f"c{number % PEOPLE:02}",
            "messageId": f"order-{number}",
            "timestamp": "2025-03-01T10:00:00Z",
            "properties": {"total": number},
        }
        for number in range(150)
    ]
    for batch in (events[:100], events[50:], events[:10]):  # half of it, and then some, is sent again
        assert tenant.send_events(write_key, batch).status_code == 200
    bad = {"type": "track", "event": "Broken", "userId": "c01", "messageId": "broken", "timestamp": "yesterday-ish"}
    assert tenant.send_events(write_key, [bad]).status_code == 200
    for days in range(1, 8):
        body = {"model_id": MODEL, "horizon_days": days}
        ok(tenant.http.post("/v1/forecasts", json=body))
    return world


def ask(world: World) -> dict[str, Any]:
    """Return what the gateway says of the workspace, every receipt's replay, and where its audit log stands."""
    client = world.tenant.http
    receipts = {each["receipt_id"]: each["output_sha256"] for each in _all(client, "/v1/receipts", "receipts")}
    replays = {each: ok(client.post(f"/v1/receipts/{each}:replay", json={}))["outcome"] for each in receipts}
    return {
        "reads": {path: ok(client.get(path)) for path in READ},
        "receipts": receipts,
        "replays": replays,
        "sql": {text: ok(client.post("/v1/sql", json={"sql": text}))["rows"] for text in QUERIES},
        "checkpoint": ok(client.get("/v1/audit/checkpoint")),
        "graph": ok(client.get("/v1/graph")),
    }


def _all(client: Any, path: str, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        page = ok(client.get(path, params={"page_size": 100, "page_token": token}))
        found += page[name]
        token = page["next_page_token"]
        if not token:
            return found


def counts(data: Path) -> dict[str, dict[str, int]]:
    """Return how many rows each table of each database has."""
    found: dict[str, dict[str, int]] = {}
    for file in sorted(data.glob("*.db")):
        if file.stem == "traces":
            continue
        with closing(sqlite3.connect(file)) as connection:
            names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            found[file.stem] = {
                name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in sorted(names)
            }
    return found


def heads(data: Path) -> dict[str, int]:
    """Return each workspace's head of the log."""
    with closing(sqlite3.connect(data / "ingest.db")) as connection:
        return dict(connection.execute("SELECT workspace, max(first_offset + count) FROM log_block GROUP BY workspace"))


def pack(data: Path, to: Path) -> None:
    """Write a folder as a compressed archive."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in sorted(data.rglob("*")):
            name = file.relative_to(data)
            if name.parts[0] != "logs" and not any(name.match(each) for each in LEFT_OUT):
                archive.add(file, name, recursive=False)
    to.write_bytes(zstandard.ZstdCompressor(level=19).compress(plain.getvalue()))


def main(to: Path) -> None:
    """Make the folder and what is expected of it."""
    folder = Path(tempfile.mkdtemp(prefix="golden-"))
    try:
        data = folder / "data"
        installation = Installation.start(data, arguments=["--no-traces"])
        try:
            world = tell(installation)
            said = ask(world)
            key = world.tenant.key
        finally:
            assert installation.stop() == 0
        for file in data.glob("*.db"):  # a stopped installation's WAL is emptied into its database
            with closing(sqlite3.connect(file)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        said |= {"workspace": world.workspace, "api_key": key, "counts": counts(data), "heads": heads(data)}
        to.parent.mkdir(parents=True, exist_ok=True)
        compress = zstandard.ZstdCompressor(level=19).compress
        to.with_name(f"{to.name}.json.zst").write_bytes(compress(json.dumps(said, sort_keys=True).encode()))
        pack(data, to.with_name(f"{to.name}.tar.zst"))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
