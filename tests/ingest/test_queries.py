"""SQL reads the workspace's datasets and nothing else, and its answers are exact JSON."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import orjson
import psutil
import pyarrow as pa
import pytest
from counterfoil_chassis.apart import NotStartedError
from counterfoil_ingest.arrow import Chunk
from counterfoil_ingest.queries import MOST_WAITING, Asked, Queries, Result
from counterfoil_ingest.query_errors import ResultTooLargeError, TooManyQueriesError
from counterfoil_ingest.query_results import Form
from counterfoil_ingest.read_errors import (
    ParametersInvalidError,
    QueryTimeoutError,
    QueryTooLargeError,
    SqlInvalidError,
)
from counterfoil_ingest.registry import ColumnType

from tests.ingest.read_rig import SALES, ReadSide, arrow_of, contract, read_side, sale


async def run(side: ReadSide, sql: str, parameters: bytes = b"", max_rows: int = 100) -> Any:
    return await side.queries.run("acme", sql, parameters, max_rows=max_rows, within=20)


@pytest.fixture
async def side(rig: Any) -> Any:
    """The read side with ten sales of acme and one of zeta."""
    rig.contracts.put(contract("sales", SALES))
    rig.contracts.put(contract("sales", SALES, workspace="zeta"))
    async with read_side(rig) as opened:
        await opened.append(*(sale(n) for n in range(10)))
        await opened.append(sale(999), workspace="zeta")
        yield opened


async def test_sees_what_was_appended_just_before(side: ReadSide) -> None:
    first = await run(side, "SELECT count(*) AS n, sum(sale_id) AS s, sum(amount::DECIMAL(10, 2)) AS a FROM sales")
    assert first.rows == b'[[10,45,"5.00"]]'
    assert [tuple(column) for column in first.columns] == [("n", "BIGINT"), ("s", "HUGEINT"), ("a", "DECIMAL(38,2)")]
    assert [(each.dataset, dict(each.offsets)) for each in first.snapshots] == [("sales", {0: 10})]
    await side.append(sale(10))
    assert (await run(side, "FROM Sales SELECT max(sale_id)")).rows == b"[[10]]"


async def test_shows_values_as_exact_json(side: ReadSide) -> None:
    sql = """SELECT sold_at, day, '\\xAA'::BLOB, 'nan'::DOUBLE, 1e308 * 10, 12345678901234567890::HUGEINT,
        [1, NULL], {'a': TIMESTAMPTZ '2020-01-01 00:00:00.25+01'}, TIMESTAMP '2020-01-01 00:00:00',
        170141183460469231731687303715884105727::HUGEINT, 18446744073709551615::UBIGINT, TIME '01:02:03', NULL,
        INTERVAL 3 DAY, uuid() IS NOT NULL, TIMESTAMP_NS '2020-01-01 00:00:00.123456789'
        FROM sales WHERE sale_id = 1"""
    assert orjson.loads((await run(side, sql)).rows)[0][:-3] == [
        "2017-03-01T17:01:00Z",
        "2017-03-01",
        "qg==",
        None,
        None,
        "12345678901234567890",
        [1, None],
        {"a": "2019-12-31T23:00:00.250000Z"},
        "2020-01-01T00:00:00",
        "170141183460469231731687303715884105727",
        18446744073709551615,
        "01:02:03",
        None,
    ]


async def test_cuts_rows_at_the_limit_and_says_so(side: ReadSide) -> None:
    cut = await run(side, "SELECT sale_id FROM sales ORDER BY sale_id DESC", max_rows=3)
    assert (cut.rows, cut.row_count, cut.truncated) == (b"[[9],[8],[7]]", 3, True)
    whole = await run(side, "SELECT sale_id FROM sales", max_rows=10)
    assert (whole.row_count, whole.truncated) == (10, False)


async def test_binds_parameters(side: ReadSide) -> None:
    sql = "SELECT sale_id FROM sales WHERE shop = ? AND sale_id > ?"
    assert (await run(side, sql, b'["shop 1", 1]')).rows == b"[[8]]"
    assert (await run(side, sql, b'["x\' OR 1=1 --", 1]')).rows == b"[]"
    for wrong in (b"{}", b"[[1]]", b"[", b'[{"a": 1}]'):
        with pytest.raises(ParametersInvalidError):
            await run(side, sql, wrong)
    with pytest.raises(SqlInvalidError, match="parameters"):
        await run(side, sql, b"[1]")


async def test_reads_system_columns_joins_and_definitions(side: ReadSide) -> None:
    sql = """WITH sold AS (SELECT sale_id, _offset, _received_day FROM sales), sales2 AS (SELECT 1 AS one)
        SELECT sold._received_day, count(*) FROM sold JOIN sales USING (sale_id) CROSS JOIN sales2
        WHERE sale_id IN (SELECT sale_id FROM sales) GROUP BY ALL"""
    assert (await run(side, sql)).rows == b'[["2023-11-14",10]]'
    recursive = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 4) SELECT sum(n) FROM t"
    assert (await run(side, recursive)).rows == b"[[10]]"
    assert (await run(side, "SELECT sum(x) FROM range(4) r(x), unnest([1, 2])")).rows == b"[[12]]"


async def test_shows_a_contracted_dataset_without_records_as_empty(side: ReadSide) -> None:
    side.contracts.put(contract("later", SALES | {"more": ColumnType.JSON}))
    found = await run(side, "SELECT sold_at, more, _received_day, _extra FROM later")
    assert found.rows == b"[]"
    assert [kind for _, kind in found.columns] == ["TIMESTAMP WITH TIME ZONE", "VARCHAR", "DATE", "VARCHAR"]


async def test_does_not_see_another_workspaces_records(side: ReadSide) -> None:
    assert (await run(side, "SELECT count(*) FROM sales WHERE sale_id = 999")).rows == b"[[0]]"
    await side.flush("zeta")
    for path in ("lake/zeta/sales/*/*.parquet", "lake/zeta/sales", "lake/**/*.parquet"):
        for reading in ("read_parquet('{}')", "'{}'", '"{}"', "parquet_scan(['{}'])"):
            with pytest.raises(SqlInvalidError):
                await run(side, "SELECT * FROM " + reading.format(side.folder / path))
    with pytest.raises(SqlInvalidError, match="no dataset"):
        await side.queries.run("nobody", "SELECT * FROM sales", b"", max_rows=1, within=5)


async def test_does_not_show_where_the_lake_lies_when_its_files_are_damaged(side: ReadSide) -> None:
    await side.flush()
    for path in (side.folder / "lake/acme/sales").glob("*/*.parquet"):
        path.write_bytes(b"no parquet at all")
    with pytest.raises(SqlInvalidError) as failure:
        await run(side, "SELECT * FROM sales")
    assert str(side.folder) not in str(failure.value)
    assert ".parquet" not in str(failure.value)


async def test_ends_a_query_at_its_deadline_and_serves_the_next(side: ReadSide) -> None:
    endless = "SELECT count(*) FROM range(10000000000000) t(x) WHERE x * 7 % 11 = 3"
    with pytest.raises(QueryTimeoutError):
        await side.queries.run("acme", endless, b"", max_rows=1, within=0.5)
    assert (await run(side, "SELECT 1")).rows == b"[[1]]"


async def test_refuses_a_query_that_needs_too_much_memory(side: ReadSide) -> None:
    greedy = "SELECT list(a.range::VARCHAR || repeat('x', 200)) FROM range(20000000) a"
    with pytest.raises(QueryTooLargeError):
        await run(side, greedy)


async def test_a_small_query_leaves_the_memory_to_the_next_of_its_process(side: ReadSide) -> None:
    large = "SELECT count(*) FROM (SELECT DISTINCT hash(range) FROM range(4000000))"
    for sql, rows in (("FROM sales SELECT max(sale_id)", b"[[9]]"), (large, b"[[4000000]]"), (large, b"[[4000000]]")):
        assert (await run(side, sql)).rows == rows
    processes = [each for each in psutil.Process().children() if "counterfoil_ingest.query_process" in each.cmdline()]
    assert len(processes) == 1


async def test_a_query_whose_process_is_killed_is_told_as_too_large(side: ReadSide) -> None:
    assert (await run(side, "SELECT 1")).rows == b"[[1]]"
    [child] = [each for each in psutil.Process().children() if "counterfoil_ingest.query_process" in each.cmdline()]
    used = sum(child.cpu_times()[:2])
    task = asyncio.create_task(run(side, "SELECT count(*) FROM range(10000000000000) t(x) WHERE x * 7 % 11 = 3"))
    while sum(child.cpu_times()[:2]) < used + 0.05:  # it works on the query
        await asyncio.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(QueryTooLargeError):
        await task
    assert (await run(side, "SELECT 1")).rows == b"[[1]]"


async def test_that_its_process_cannot_start_is_no_fault_of_the_query(
    side: ReadSide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "duckdb.py"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for text in ("import a_library_that_nobody_has", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"):
        broken.write_text(text)
        with pytest.raises(NotStartedError, match="service's log"):
            await run(side, "SELECT 1")
    broken.unlink()
    assert (await run(side, "SELECT 1")).rows == b"[[1]]"


async def drawn(side: ReadSide, asked: Asked, within: float = 20) -> tuple[list[Chunk], Result]:
    """Return the whole result of a query."""
    async with side.queries.opened("acme", asked, within=within) as result:
        return [piece async for piece in result.pieces()], result


async def test_streams_all_rows_as_arrow(side: ReadSide) -> None:
    sql = "SELECT range AS n FROM range(200000) WHERE range >= ?"
    found, result = await drawn(side, Asked(sql, b"[1]", form=Form.CHUNKS))
    assert arrow_of(found)["n"].to_pylist() == list(range(1, 200_000))
    assert (result.rows, result.truncated) == (199_999, False)
    whole, _ = await drawn(side, Asked(sql, b"[1]", form=Form.ARROW))
    assert len(whole) > 1
    table = pa.ipc.open_stream(b"".join(piece.data for piece in whole)).read_all()
    assert table["n"].to_pylist() == list(range(1, 200_000))
    empty, _ = await drawn(side, Asked("SELECT * FROM sales LIMIT 0", form=Form.CHUNKS))
    assert [chunk.rows for chunk in empty] == [0]
    async with side.queries.opened("acme", Asked(sql, b"[0]", form=Form.CHUNKS), within=20) as stopped:
        await anext(stopped.pieces())
    assert (await run(side, "SELECT 1")).rows == b"[[1]]"


async def test_writes_csv_that_tells_null_from_an_empty_text(side: ReadSide) -> None:
    sql = """SELECT NULL AS n, '' AS "e,1", 'a"b' AS q, E'two\nlines' AS l, 0.5::DECIMAL(3, 2) AS d, 'nan'::DOUBLE AS x,
        TRUE AS t, [1, NULL] AS a, sold_at FROM sales WHERE sale_id = 1"""
    found, _ = await drawn(side, Asked(sql, form=Form.CSV))
    assert b"".join(piece.data for piece in found).decode() == (
        'n,"e,1",q,l,d,x,t,a,sold_at\r\n,"","a""b","two\nlines",0.50,,true,"[1,null]",2017-03-01T17:01:00Z\r\n'
    )


async def test_refuses_rows_that_do_not_fit_into_one_answer(side: ReadSide) -> None:
    with pytest.raises(ResultTooLargeError):
        await run(side, "SELECT repeat('x', 1000) FROM range(10000)", max_rows=10_000)
    found, _ = await drawn(side, Asked("SELECT repeat('x', 1000) FROM range(10000)", form=Form.CSV))
    assert sum(len(piece.data) for piece in found) > 10_000_000


async def test_ends_the_query_of_a_caller_who_has_left(side: ReadSide) -> None:
    task = asyncio.create_task(run(side, "SELECT count(*) FROM range(10000000000000) t(x) WHERE x * 7 % 11 = 3"))
    while not side.queries.running:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert side.queries.running == 0
    assert (await run(side, "SELECT 1")).rows == b"[[1]]"


async def test_lets_one_workspace_keep_nobody_else_waiting(side: ReadSide) -> None:
    busy = Queries(
        side.lake, snapshots=side.snapshots, contracts=side.contracts, folder=side.folder, at_once=2, of_workspace=1
    )
    endless = "SELECT count(*) FROM range(10000000000000) t(x) WHERE x * 7 % 11 = 3"
    tasks = [
        asyncio.create_task(busy.run("acme", endless, b"", max_rows=1, within=60)) for _ in range(1 + MOST_WAITING)
    ]
    await asyncio.sleep(0)
    with pytest.raises(TooManyQueriesError) as refused:
        await busy.run("acme", "SELECT 1", b"", max_rows=1, within=60)
    assert refused.value.retry_after is not None
    found = await busy.run("zeta", "SELECT count(*) FROM sales", b"", max_rows=1, within=60)
    assert found.rows == b"[[1]]"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await busy.close()
