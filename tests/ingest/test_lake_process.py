"""The process that writes the lake: whatever ends it or its ingest, the lake has each record once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from counterfoil_ingest import lake as lakes
from counterfoil_ingest.lake_calls import LakeFailedError, LakeProcess
from counterfoil_ingest.lake_places import FolderPlace
from counterfoil_ingest.lake_process import answer
from counterfoil_ingest.lake_writer import LakeWriter
from counterfoil_ingest.read_errors import LakeUnavailableError
from counterfoil_ingest.sql.log import found_at
from deltalake.exceptions import DeltaError

from tests.ingest.conftest import LogRig
from tests.ingest.read_rig import SALES, ReadSide, contract, read_side, record, sale

ALIVE = """
import asyncio, sys, time
from counterfoil_ingest.lake_calls import LakeProcess

async def main():
    folder, engine, where, epoch = sys.argv[1:]
    calls = LakeProcess(("", {}, folder), log=(engine, where), epoch=epoch)

    def in_force(dataset):
        print(calls.pid, flush=True)
        time.sleep(60)

    await calls.call({"call": "read", "workspace": "acme", "head": 10, "rows": 10}, in_force)

asyncio.run(main())
"""


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


def _process_of(side: ReadSide) -> LakeProcess:
    assert isinstance(side.calls, LakeProcess)
    return side.calls


def _pid_of(side: ReadSide) -> int:
    pid = _process_of(side).pid
    assert pid is not None
    return pid


async def _append(side: ReadSide, first: int, count: int) -> None:
    await side.append(*(sale(n) for n in range(first, first + count)))
    await side.append(*(record("other", f"o{n}", {"sale_id": n}) for n in range(first, first + count)))


async def test_a_dataset_without_a_contract_gets_there_too(rig: LogRig) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig, apart=True) as side:
        await side.append(sale(1), sale(2))
        await side.append(record("unplanned", "u1", {"sale_id": 3}))
        await side.flush()
        for dataset, rows in (("sales", 2), ("unplanned", 1)):
            request = {"call": "view", "workspace": "acme", "dataset": dataset}
            found, _ = await side.calls.call(request, lambda _: None)
            assert [file["rows"] for file in found["table"]["files"]] == [rows]


@pytest.mark.both_engines("ingest")
async def test_each_row_is_there_once_whenever_the_process_is_killed(
    rig: LogRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lakes, "_RETRY_SECONDS", 0.05)
    for dataset in ("sales", "other"):
        rig.contracts.put(contract(dataset, SALES))
    tables = rig.folder / "lake" / "acme"
    killed: list[str] = []
    async with read_side(rig, apart=True) as side:
        whole = _process_of(side).call

        def killing(at: str, when: Callable[[], bool]) -> None:
            async def call(request: Any, in_force: Any) -> Any:
                if request["call"] != at or at in killed:
                    return await whole(request, in_force)
                task = asyncio.create_task(whole(request, in_force))
                await _until(lambda: when() and _process_of(side).pid is not None)
                killed.append(at)
                os.kill(_pid_of(side), signal.SIGKILL)
                return await task

            monkeypatch.setattr(side.calls, "call", call)

        await _append(side, 0, 500)
        killing("read", lambda: True)
        await side.flush()
        await _append(side, 500, 500)
        written = len(list(tables.glob("*/_delta_log/*.json")))
        killing("write", lambda: len(list(tables.glob("*/_delta_log/*.json"))) > written)  # one table of the two
        await side.flush()
        monkeypatch.setattr(side.calls, "call", whole)
        os.kill(_pid_of(side), signal.SIGKILL)  # while it does nothing
        await _append(side, 1000, 10)
        for dataset in ("sales", "other"):
            rows = await side.rows(dataset, ["sale_id"])
            assert [row["sale_id"] for row in rows] == list(range(1010))
    assert killed == ["read", "write"]


async def test_it_ends_with_its_ingest_and_in_the_middle_of_a_call_when_that_is_killed(rig: LogRig) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig, apart=True) as side:
        await side.append(sale(1))
        await side.flush()
        pid = _pid_of(side)
    assert not psutil.pid_exists(pid)
    ingest = subprocess.Popen(  # noqa: ASYNC220 - it has begun in some milliseconds
        [sys.executable, "-c", ALIVE, str(rig.folder / "elsewhere"), *found_at(rig.url), rig.log.epoch],
        stdout=subprocess.PIPE,
    )
    with ingest:
        assert ingest.stdout is not None
        pid = int(await asyncio.to_thread(ingest.stdout.readline))
        assert psutil.pid_exists(pid)
        ingest.kill()
    await _until(lambda: not psutil.pid_exists(pid))


async def test_another_process_of_the_folder_writes_only_once_it_has_ended(rig: LogRig) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig, apart=True) as side:
        await side.append(sale(1))
        await side.flush()
        another = LakeProcess(FolderPlace(rig.folder / "lake").address, log=found_at(rig.url), epoch=rig.log.epoch)
        request = {"call": "view", "workspace": "acme", "dataset": "sales"}
        with pytest.raises(LakeFailedError) as told:
            await another.call(request, lambda _: None)
        assert told.value.kind == "BlockingIOError"
        os.kill(_pid_of(side), signal.SIGKILL)
        await _until(lambda: psutil.Process(_pid_of(side)).status() == psutil.STATUS_ZOMBIE)
        found, _ = await another.call(request, lambda _: None)
        assert [file["rows"] for file in found["table"]["files"]] == [1]
        await another.close()
        with pytest.raises(LakeFailedError, match="ingest is ending"):
            await another.call(request, lambda _: None)


@pytest.mark.parametrize("known", [True, False])
async def test_delta_refuses_who_read_the_same_records_and_comes_second(rig: LogRig, *, known: bool) -> None:
    rig.contracts.put(contract("sales", SALES))
    place = FolderPlace(rig.folder / "lake")
    async with read_side(rig, run=False) as side:
        await side.append(*(sale(n) for n in range(5)))
        if known:
            LakeWriter(place, rig.log, epoch=rig.log.epoch).view("acme", "sales")
            _write(LakeWriter(place, rig.log, epoch=rig.log.epoch), 5)
            await side.append(*(sale(n) for n in range(5, 10)))
        orphan, ours = (LakeWriter(place, rig.log, epoch=rig.log.epoch) for _ in range(2))
        head = rig.log.head("acme")
        for writer in (orphan, ours):
            assert set(writer.read("acme", lambda _: None, head=head, rows=100)) == {"sales"}
        assert ours.write("acme", {}) == head
        with pytest.raises(FileExistsError if known else DeltaError):
            orphan.write("acme", {})
        orphan.forget("acme")
        assert orphan.read("acme", lambda _: None, head=head, rows=100) == {}
        assert orphan.write("acme", {}) == head
        table = ours.view("acme", "sales")
        assert table is not None
        assert sum(file.rows for file in table.files) == head


def _write(writer: LakeWriter, rows: int) -> None:
    writer.read("acme", lambda _: None, head=rows, rows=rows)
    assert writer.write("acme", {}) == rows


async def test_what_fails_in_it_is_told_as_the_lakes_failure_and_by_health(
    rig: LogRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lakes, "_RETRY_SECONDS", 0.05)
    rig.contracts.put(contract("sales", SALES))
    (rig.folder / "lake").mkdir()
    (rig.folder / "lake/acme").write_bytes(b"where a folder should be")
    async with read_side(rig, apart=True, commit_seconds=0.05) as side:
        await side.append(sale(1))

        def told() -> bool:
            return "NotADirectoryError" in side.lake._problem()

        await _until(told)
        with pytest.raises(LakeUnavailableError) as refused:
            await side.lake.table("acme", "sales")
        assert str(rig.folder) not in refused.value.message
        (rig.folder / "lake/acme").unlink()
        await side.flush()
        await _until(lambda: side.lake._problem() == "")


async def test_who_no_longer_waits_disturbs_nobody(rig: LogRig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.contracts.put(contract("sales", SALES))
    monkeypatch.chdir(rig.folder)  # paths are ingest's, from where it is
    async with read_side(rig, apart=True, place=FolderPlace(Path("lake"))) as side:
        await side.append(sale(1))
        await side.flush()
        for _ in range(20):
            leaving = asyncio.create_task(side.lake.rows_before("acme", "absent", lakes.date(2100, 1, 1)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            leaving.cancel()
            assert await side.lake.rows_before("acme", "sales", lakes.date(2100, 1, 1)) == 1


def test_a_mistake_of_ours_is_told_with_where_it_happened(rig: LogRig) -> None:
    writer = LakeWriter(FolderPlace(rig.folder / "lake"), rig.log, epoch=rig.log.epoch)
    told, _ = answer(writer, {"call": "view", "workspace": "acme"}, lambda _: None)
    assert (told["failed"], "_view" in told["trace"]) == ("KeyError", True)
    (rig.folder / "lake").mkdir()
    (rig.folder / "lake/zeta").write_bytes(b"")
    told, _ = answer(writer, {"call": "view", "workspace": "zeta", "dataset": "sales"}, lambda _: None)
    assert (told["failed"], told["trace"]) == ("NotADirectoryError", "")


def test_ingest_itself_loads_nothing_of_delta(tmp_path: Path) -> None:
    look = "import sys, counterfoil_ingest.__main__; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "'pyarrow'" in loaded.stdout
    assert "deltalake" not in loaded.stdout
