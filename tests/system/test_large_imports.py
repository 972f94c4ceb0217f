"""A large file, ingest killed at half of it: resumed, exact, in bounded memory; taken back, every count is as before.

IMPORT_MB says how large: 12 by default, 1024 in `make soak`.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.system.installation import Installation, own_memory, until
from tests.system.tenant import Tenant, ok

MEGABYTES = int(os.environ.get("IMPORT_MB", "12"))
BROKEN_EVERY = 5_000
MOST_MEMORY = 1_000 << 20
"""Bytes that ingest may take beyond what it had, even for a gigabyte: reading it takes most of that."""
SECONDS = 60 + MEGABYTES * 2
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: receipts
name: Receipts
version: 1.0.0
status: active
schema:
  - name: receipts
    logicalType: object
    properties:
      - {name: n, logicalType: integer, required: true}
      - {name: sold_at, logicalType: timestamp, required: true, logicalTypeOptions: {defaultTimezone: UTC}}
      - {name: shop, logicalType: string, required: true}
      - {name: amount, logicalType: number, required: true, logicalTypeOptions: {minimum: 0}}
      - {name: note, logicalType: string}
"""
HEADER = "n,sold_at,shop,amount,note\n"


def write(file: Path, size: int) -> int:
    """Write so many bytes of rows, with quoted line breaks and some that break the contract; return their number."""
    number = 0
    with file.open("w") as out:
        out.write(HEADER)
        while out.tell() < size:
            out.write("".join(map(_row, range(number, number + 10_000))))
            number += 10_000
    return number


def _row(n: int) -> str:
    amount = -1 if n % BROKEN_EVERY == 7 else n % 1_000 / 4
    note = f'"{n} said ""yes"",\nand {"more " * 20}"' if n % 3 else f"a plain note of {n} {'again ' * 18}"
    return f"{n},2026-{n % 12 + 1:02}-{n % 28 + 1:02}T{n % 24:02}:{n % 60:02}:00,shop {n % 97},{amount},{note}\n"


class Memory:
    """The most memory that ingest had, in whichever process, with the lake's, while it is looked at."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._stop = threading.Event()
        self.before = self.most = self._own()

    def taken(self) -> int:
        """Return the most since the last call, or the beginning."""
        most, self.most = self.most, 0
        return most

    def _own(self) -> int:
        return own_memory(self._installation.child("ingest"))

    @contextlib.contextmanager
    def watched(self) -> Iterator["Memory"]:
        """Look every 50 ms."""
        watcher = threading.Thread(target=self._watch)
        watcher.start()
        try:
            yield self
        finally:
            self._stop.set()
            watcher.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            with contextlib.suppress(psutil.NoSuchProcess, AssertionError):  # it is being killed
                self.most = max(self.most, self._own())


@pytest.mark.alone
@pytest.mark.figures
def test_a_large_import_survives_a_kill_at_half_and_is_taken_back_without_a_trace(
    installation: Installation, make_tenant: Callable[[str], Tenant], tmp_path: Path
) -> None:
    shop = make_tenant("large")
    shop.activate(CONTRACT)
    shop.upload("receipts", (HEADER + "".join(map(_row, range(50)))).encode(), form="csv")
    before = _counts(shop)
    file = tmp_path / "receipts.csv"
    rows = write(file, MEGABYTES << 20)
    broken = sum(n % BROKEN_EVERY == 7 for n in range(rows))
    with Memory(installation).watched() as memory:
        started = time.monotonic()
        import_id = _upload(shop, file)
        uploaded = time.monotonic()
        at_kill = until(lambda: _read(shop, import_id, rows // 2), seconds=SECONDS, what="half is not read")
        installation.child("ingest").kill()
        assert rows // 2 <= at_kill < rows
        done = until(lambda: _ended(shop, import_id), seconds=SECONDS, what="the import has not ended")
        imported = time.monotonic()
        importing = memory.taken()
        assert done["state"] == "SUCCEEDED", done
        assert [done[f"rows_{each}"] for each in ("total", "read", "accepted", "duplicate", "quarantined")] == [
            rows, rows, rows - broken, 0, broken,
        ]  # fmt: skip
        after = _counts(shop)
        good = [n for n in range(rows) if n % BROKEN_EVERY != 7]
        for name, more in {
            "records": rows - broken,
            "quarantined": broken,
            "sum": sum(good),
            "squares": sum(n * n for n in good),
        }.items():
            assert after[name] == before[name] + more, name
        asked = time.monotonic()
        ok(shop.http.post(f"/v1/imports/{import_id}:revert", json={"reason": "the wrong year"}))
        reverted = until(lambda: _ended(shop, import_id, "REVERTED"), seconds=SECONDS, what="it is not reverted")
        undone = time.monotonic()
        reverting = memory.taken()
    assert (reverted["revert"]["records"], reverted["revert"]["quarantined"]) == (rows - broken, broken)
    assert _counts(shop) == before
    print(
        f"\n{file.stat().st_size >> 20} MiB, {rows:,} rows of CSV, ingest killed after {at_kill:,}: uploaded in "
        f"{uploaded - started:.1f} s, imported in {imported - uploaded:.1f} s, reverted in {undone - asked:.1f} s; "
        f"memory of ingest {memory.before >> 20} MiB before, at the most {importing >> 20} MiB while it imported and "
        f"{reverting >> 20} MiB while it reverted"
    )
    assert max(importing, reverting) - memory.before < MOST_MEMORY


def _counts(shop: Tenant) -> dict[str, Any]:
    """Return what there is, counted by the log, by the lake and in quarantine."""
    dataset = shop.datasets()["receipts"]
    sums = "SELECT count(*), sum(n)::BIGINT, sum(n::HUGEINT * n)::VARCHAR FROM receipts"
    [[in_lake, total, squares]] = shop.sql(sums)
    assert in_lake == dataset["records"]
    return {
        "records": in_lake,
        "quarantined": dataset.get("quarantined", 0),
        "sum": int(total),
        "squares": int(squares),
    }


def _upload(shop: Tenant, file: Path) -> str:
    params = {"dataset": "receipts", "format": "csv", "file_name": file.name}
    with file.open("rb") as content:
        parts = iter(lambda: content.read(1 << 20), b"")
        return str(ok(shop.http.post("/v1/imports", params=params, content=parts, timeout=SECONDS))["import_id"])


def _read(shop: Tenant, import_id: str, least: int) -> int | None:
    """Return the rows that have a verdict, once they are so many."""
    rows = int(ok(shop.http.get(f"/v1/imports/{import_id}"))["rows_read"])
    return rows if rows >= least else None


def _ended(shop: Tenant, import_id: str, *states: str) -> dict[str, Any] | None:
    """Return the import once it has ended; ingest may be away meanwhile."""
    answer: httpx.Response = shop.http.get(f"/v1/imports/{import_id}")
    if answer.status_code in (503, 504):
        return None
    found = ok(answer)
    return found if found["state"] in (states or ("SUCCEEDED", "FAILED")) else None
