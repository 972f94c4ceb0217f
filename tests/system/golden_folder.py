"""The data folder that the previous release's own processes left behind, and what its gateway said of it."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import zstandard

from tests.system.installation import Installation
from tests.system.tenant import ok

FOLDER = Path(__file__).parent / "golden"
RELEASE = "0.1"
_MOST_BYTES = 256 << 20


def expected() -> dict[str, Any]:
    """Return what that release said: answers by path, receipts with their replays, counts, heads, its checkpoint."""
    return json.loads(_unpacked(f"{RELEASE}.json.zst"))


def unpack(to: Path) -> None:
    """Write a copy of the folder."""
    with tarfile.open(fileobj=io.BytesIO(_unpacked(f"{RELEASE}.tar.zst"))) as archive:
        archive.extractall(to, filter="data")


def differences(was: Any, now: Any, place: str = "") -> list[str]:
    """Return where an answer says something else than it did; what is new in it is no difference."""
    if isinstance(was, dict) and isinstance(now, dict):
        found = [f"{place}/{name}: gone" for name in was.keys() - now.keys()]
        return found + [
            each for name in was.keys() & now.keys() for each in differences(was[name], now[name], f"{place}/{name}")
        ]
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        return [
            each for at, pair in enumerate(zip(was, now, strict=True)) for each in differences(*pair, f"{place}[{at}]")
        ]
    return [] if was == now else [f"{place}: {str(was)[:200]} is {str(now)[:200]} now"]


def _comparable(path: str, was: Any, now: Any) -> tuple[Any, Any]:
    """Return both answers without what a release changes: policies follow it, and the active bundle is followed."""
    if path != "/v1/policy-bundles":
        return was, now
    then, since = (
        [{name: each[name] for name in each if name != "state"} for each in answer["policy_bundles"]]
        for answer in (was, now)
    )
    return then, since[-len(then) :]


def assert_says_the_same(installation: Installation, said: dict[str, Any]) -> None:
    """Read everything back; each receipt replays as it did, and the audit log continues the one that was signed."""
    with installation.http(said["api_key"]) as client:
        for path, was in said["reads"].items():
            assert differences(*_comparable(path, was, ok(client.get(path))), path) == []
        for text, rows in said["sql"].items():
            assert ok(client.post("/v1/sql", json={"sql": text}))["rows"] == rows
        for receipt, outcome in said["replays"].items():
            replay = ok(client.post(f"/v1/receipts/{receipt}:replay", json={}))
            assert (replay["outcome"], replay["expected_sha256"]) == (outcome, said["receipts"][receipt]), replay
        was = said["checkpoint"]
        now = ok(client.get("/v1/audit/checkpoint"))
        sizes = {"from_size": was["tree_size"], "to_size": now["tree_size"]}
        proof = ok(client.get("/v1/audit/consistency", params=sizes))
        assert proof["from_root_sha256"] == was["root_sha256"]
        assert ok(client.post("/v1/audit:verify", json={}))["ok"]


def _unpacked(name: str) -> bytes:
    return zstandard.decompress((FOLDER / name).read_bytes(), max_output_size=_MOST_BYTES)
