"""Imports: every row has its verdict once, whatever the format, the order of crashes and the faults of single rows."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import AsyncIterator, Callable
from datetime import date, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from counterfoil_ingest.errors import BadGzipError, ContractsUnavailableError, LogBusyError
from counterfoil_ingest.import_jobs import Format, State
from counterfoil_ingest.read_errors import DiskFullError, FileTooLargeError
from counterfoil_ingest.registry import ColumnType
from counterfoil_ingest.uploads import Spool

from tests.ingest.read_rig import SALES, contract, read_side

HEADER = b"sale_id,shop,amount,paid,day,sold_at\n"


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def dying_at(call: int, work: Callable[..., None]) -> Callable[..., None]:
    calls = 0

    def wrapped(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise RuntimeError("killed")
        work(*args)

    return wrapped


async def test_imports_csv_with_the_types_of_the_contract(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    data = b"\xef\xbb\xbf" + HEADER + b'1,"a ""b"", c\nd",1.5,TRUE,2017-03-01,2017-03-01 12:00:00\n2,,,,,\n'
    async with read_side(rig) as side:
        done = await side.import_file("sales", data, Format.CSV)
        assert (done.state, done.rows_read, done.rows_accepted, done.rows_total) == (State.SUCCEEDED, 2, 2, 2)
        rows = await side.rows("sales", [*SALES, "_record_id", "_source_id", "_extra"])
    assert rows[0] == {
        "sale_id": 1,
        "shop": 'a "b", c\nd',
        "amount": 1.5,
        "paid": True,
        "day": date(2017, 3, 1),
        "sold_at": datetime.fromisoformat("2017-03-01T17:00:00+00:00"),
        "_record_id": f"{done.file_sha256}#1",
        "_source_id": "import",
        "_extra": None,
    }
    assert [rows[1][name] for name in SALES] == [2, None, None, None, None, None]
    assert not list((rig.folder / "imports").iterdir())


async def test_quarantines_csv_rows_that_do_not_fit_and_takes_their_neighbours(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    data = HEADER + b"1,a,1,true,,\nx,b,2,true,,\n3,c\n4,d,4,true,,,,\n5,e,five,true,,\n6,f,6,no,,\n7,g,7,false,,\n"
    async with read_side(rig) as side:
        done = await side.import_file("sales", data, Format.CSV)
        rows = await side.rows("sales", ["sale_id", "_record_id"])
    assert (done.state, done.rows_read, done.rows_accepted, done.rows_quarantined) == (State.SUCCEEDED, 7, 2, 5)
    assert [(row["sale_id"], row["_record_id"].rpartition("#")[2]) for row in rows] == [(1, "1"), (7, "7")]


async def test_refuses_a_csv_in_utf8_that_is_damaged(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    rows = "1,café,1,true,,\n2,Müller,1,true,,\n".encode() + b"3,caf\xe9,1,true,,\n"
    async with read_side(rig) as side:
        done = await side.import_file("sales", HEADER + rows, Format.CSV)
    assert (done.state, done.error_reason) == (State.FAILED, "BAD_ENCODING")


async def test_takes_every_line_of_jsonl_that_is_a_record(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    data = b'{"sale_id": 1}\n\n[1]\n{"sale_id": \n{"sale_id": 1}\r\n{"sale_id": "x"}\n{"sale_id": 5, "more": {"a": 1}}'
    async with read_side(rig) as side:
        done = await side.import_file("sales", data, Format.JSONL)
        rows = await side.rows("sales", ["sale_id", "_extra"])
    assert (done.rows_read, done.rows_accepted, done.rows_quarantined) == (6, 3, 3)
    assert rows == [
        {"sale_id": 1, "_extra": None},
        {"sale_id": 1, "_extra": None},
        {"sale_id": 5, "_extra": '{"more":{"a":1}}'},
    ]


async def test_imports_every_kind_of_parquet_column_exactly(rig: Any) -> None:
    kinds = {
        "n": ColumnType.BIGINT,
        "whole": ColumnType.BIGINT,
        "price": ColumnType.DOUBLE,
        "exact": ColumnType.VARCHAR,
        "at": ColumnType.TIMESTAMPTZ,
        "zoned": ColumnType.TIMESTAMPTZ,
        "day": ColumnType.DATE,
        "flag": ColumnType.BOOLEAN,
        "tag": ColumnType.VARCHAR,
        "list": ColumnType.JSON,
    }
    rig.contracts.put(contract("things", kinds))
    table = pa.table(
        {
            "n": pa.array([1, None], pa.uint16()),
            "whole": pa.array([7.0, float("nan")]),
            "price": pa.array([Decimal("12.30"), None], pa.decimal128(10, 2)),
            "exact": pa.array([Decimal("12345678901234567890.10"), None], pa.decimal128(30, 2)),
            "at": pa.array(["2017-07-01T12:00:00.25", None]).cast(pa.timestamp("ns")),
            "zoned": pa.array(["2017-07-01T12:00:00Z", None]).cast(pa.timestamp("ms", "America/New_York")),
            "day": pa.array(["2017-07-01", None]).cast(pa.timestamp("us")),
            "flag": pa.array([True, None]),
            "tag": pa.array(["x", None]).dictionary_encode(),
            "list": pa.array([[1, 2], None], pa.list_(pa.int64())),
        }
    )
    async with read_side(rig) as side:
        done = await side.import_file("things", parquet(table), Format.PARQUET)
        rows = await side.rows("things", list(kinds))
    assert (done.state, done.rows_accepted) == (State.SUCCEEDED, 2)
    assert rows[0] == {
        "n": 1,
        "whole": 7,
        "price": 12.3,
        "exact": "12345678901234567890.10",
        "at": datetime.fromisoformat("2017-07-01T16:00:00.250000+00:00"),
        "zoned": datetime.fromisoformat("2017-07-01T12:00:00+00:00"),
        "day": date(2017, 7, 1),
        "flag": True,
        "tag": "x",
        "list": "[1,2]",
    }
    assert set(rows[1].values()) == {None}


async def test_the_same_file_again_adds_nothing_and_equal_rows_are_kept(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    data = parquet(pa.table({"sale_id": [1, 1, 1], "shop": ["a", "a", "a"]}))
    async with read_side(rig) as side:
        first = await side.import_file("sales", data, Format.PARQUET)
        second = await side.import_file("sales", data, Format.PARQUET)
        assert len(await side.rows("sales", ["sale_id"])) == 3
    assert (first.rows_accepted, first.rows_duplicate) == (3, 0)
    assert (second.rows_accepted, second.rows_duplicate, second.state) == (0, 3, State.SUCCEEDED)


async def test_goes_on_after_a_stop_where_it_was(open_log: Callable[..., Any], monkeypatch: Any) -> None:
    monkeypatch.setattr("counterfoil_ingest.files.BATCH_ROWS", 10)
    for kind, data in (
        (Format.PARQUET, parquet(pa.table({"sale_id": range(95)}), row_group_size=25)),
        (Format.CSV, b"sale_id,shop\n" + b"".join(b"%d,x\n" % n for n in range(95))),
        (Format.JSONL, b"".join(b'{"sale_id":%d}\n' % n for n in range(95))),
    ):
        rig = await open_log()
        rig.contracts.put(contract("sales", SALES))
        async with read_side(rig, run=False) as side:
            import_id = await side.upload("sales", data, kind)
            job = await side.imports.get("acme", import_id)
            monkeypatch.setattr(side.imports, "count", dying_at(4, side.imports.count))
            with pytest.raises(RuntimeError, match="killed"):
                await side.worker._read(job)
        rig = await open_log()
        rig.contracts.put(contract("sales", SALES))
        async with read_side(rig) as side:
            done = await side.ended(import_id)
            assert (done.state, done.rows_read, done.rows_accepted, done.rows_duplicate) == (State.SUCCEEDED, 95, 95, 0)


async def test_fails_with_a_reason_on_what_is_no_file_of_its_format(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        for data, kind in ((b"PAR1 nothing PAR1", Format.PARQUET), (b"", Format.CSV), (b"", Format.PARQUET)):
            done = await side.import_file("sales", data, kind)
            assert (done.state, done.error_reason) == (State.FAILED, "FILE_UNREADABLE"), kind
            assert "/" not in done.error_detail
        twice = await side.import_file("sales", b"sale_id,sale_id\n1,2\n", Format.CSV)
        assert twice.error_reason == "COLUMN_REPEATED"
        gone = await side.import_file("other", b"a\n1\n", Format.CSV)
        assert (gone.state, gone.error_reason) == (State.FAILED, "NO_CONTRACT")


async def test_waits_while_the_contracts_service_is_away(rig: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("counterfoil_ingest.imports._PAUSE_SECONDS", 0.01)
    asked = 0

    async def away_at_first(_workspace: str, _dataset: str) -> Any:
        nonlocal asked
        asked += 1
        if asked < 4:
            raise ContractsUnavailableError("away")
        return contract("sales", SALES)

    monkeypatch.setattr(rig.contracts, "_lookup", away_at_first)
    async with read_side(rig) as side:
        done = await side.import_file("sales", HEADER + b"1,a,1,true,,\n", Format.CSV)
    assert (done.state, done.rows_accepted, asked) == (State.SUCCEEDED, 1, 4)


async def test_tries_a_batch_again_that_the_log_could_not_take(rig: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("counterfoil_ingest.imports._PAUSE_SECONDS", 0.01)
    rig.contracts.put(contract("sales", SALES))
    append, refused = rig.appender.append_judged, []

    async def busy_at_first(*args: Any, **kwargs: Any) -> Any:
        if len(refused) < 2:
            refused.append(args)
            raise LogBusyError("busy")
        return await append(*args, **kwargs)

    monkeypatch.setattr(rig.appender, "append_judged", busy_at_first)
    async with read_side(rig) as side:
        done = await side.import_file("sales", HEADER + b"1,a,1,true,,\n", Format.CSV)
    assert (done.rows_read, done.rows_accepted, len(refused)) == (1, 1, 2)


async def test_a_broken_upload_leaves_nothing_and_a_large_one_is_refused(rig: Any) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 100
        raise ConnectionResetError

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100

    spool = Spool(rig.folder / "small", max_bytes=1000)
    with pytest.raises(ConnectionResetError):
        await spool.receive("one", broken())
    with pytest.raises(FileTooLargeError):
        await spool.receive("two", endless())
    assert not list(spool.folder.iterdir())


async def test_a_gzip_archive_is_the_file_that_is_in_it(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    plain = HEADER + b"1,a,1.5,true,,\n2,b,2,true,,\n"
    packed = gzip.compress(plain[:50]) + gzip.compress(b"") + gzip.compress(plain[50:])
    async with read_side(rig) as side:
        first = await side.import_file("sales", packed, Format.CSV)
        again = await side.import_file("sales", plain, Format.CSV)
    assert (first.state, first.rows_accepted, first.file_bytes) == (State.SUCCEEDED, 2, len(plain))
    assert (again.rows_duplicate, again.file_sha256) == (2, first.file_sha256)


@pytest.mark.parametrize("size", [1, 1000, 10 << 20])
async def test_an_archive_is_unpacked_however_it_is_cut(rig: Any, size: int) -> None:
    async def file() -> AsyncIterator[bytes]:
        for start in range(0, len(packed), size):
            yield packed[start : start + size]

    plain = os.urandom(5 << 20) if size > 1 else os.urandom(5000)
    plain += b"a row like many\n" * (1 << 20)
    packed = gzip.compress(plain, 1)
    spool = Spool(rig.folder / "cut")
    assert (await spool.receive("one", file())).size == len(plain)
    assert (spool.folder / "one.file").read_bytes() == plain


@pytest.mark.parametrize("fault", ["cut", "checksum", "data", "trailer"])
async def test_an_archive_that_is_broken_leaves_nothing(rig: Any, fault: str) -> None:
    packed = bytearray(gzip.compress(os.urandom(1000)))
    broken = {
        "cut": packed[:-1],
        "checksum": packed[:-6] + b"\0\0" + packed[-4:],
        "data": packed[:10] + b"\xff" * 20,
        "trailer": packed + b"more",
    }

    async def file() -> AsyncIterator[bytes]:
        yield bytes(broken[fault])

    spool = Spool(rig.folder / "broken")
    with pytest.raises(BadGzipError):
        await spool.receive("one", file())
    assert not list(spool.folder.iterdir())


async def test_an_archive_that_holds_too_much_is_not_unpacked_to_its_end(rig: Any) -> None:
    async def bomb() -> AsyncIterator[bytes]:
        yield gzip.compress(b"\0" * (64 << 20))

    spool = Spool(rig.folder / "bombed", max_bytes=10 << 20)
    with pytest.raises(FileTooLargeError, match="unpacked"):
        await spool.receive("one", bomb())
    assert not list(spool.folder.iterdir())


async def test_an_upload_leaves_the_disk_its_reserve(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def file() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * (4 << 20)
            free["bytes"] -= 300 << 20

    free = {"bytes": 2 << 30}
    monkeypatch.setattr(
        "shutil.disk_usage", lambda _folder: SimpleNamespace(total=100 << 30, used=0, free=free["bytes"])
    )
    spool = Spool(rig.folder / "shared")
    assert (await spool.receive("fits", file())).size == 12 << 20
    for name in ("fills", "finds no room"):
        with pytest.raises(DiskFullError) as refused:
            await spool.receive(name, file())
        assert refused.value.retry_after is not None
    assert [path.name for path in spool.folder.iterdir()] == ["fits.file"]


async def test_deletes_at_the_start_what_no_unfinished_import_needs(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig, run=False) as side:
        import_id = await side.upload("sales", HEADER, Format.CSV)
        (side.spool.folder / "left.part").write_bytes(b"x")
        (side.spool.folder / "ended.file").write_bytes(b"x")
        await side.worker.clean()
        assert [path.name for path in side.spool.folder.iterdir()] == [f"{import_id}.file"]
