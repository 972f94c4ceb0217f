"""What SQL tries to get out by: every attempt is refused with a stable reason, or shown to bring nothing."""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from counterfoil_chassis.apart import read, write
from counterfoil_ingest import query_process
from counterfoil_ingest.queries import Queries
from counterfoil_ingest.query_processes import QueryProcesses
from counterfoil_ingest.read_errors import QueryTimeoutError, QueryTooLargeError, SqlInvalidError
from counterfoil_ingest.snapshots import Snapshot

FILES = [
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_csv_auto('/etc/passwd')",
    "SELECT * FROM ReAd_CsV('/etc/passwd')",
    "SELECT * FROM \"read_csv\"('/etc/passwd')",
    "SELECT * FROM main.read_csv('/etc/passwd')",
    "SELECT * FROM system.main.read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_text(['/etc/passwd'])",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM read_json('/etc/passwd')",
    "SELECT * FROM read_ndjson_objects('/etc/passwd')",
    "SELECT * FROM read_parquet('{other}')",
    "SELECT * FROM read_parquet('{own}')",
    "SELECT * FROM parquet_scan(['{other}'])",
    "SELECT * FROM parquet_metadata('{own}')",
    "SELECT * FROM parquet_schema('{own}')",
    "SELECT * FROM parquet_kv_metadata('{own}')",
    "SELECT * FROM parquet_file_metadata('{own}')",
    "SELECT * FROM parquet_bloom_probe('{own}', 'n', 1)",
    "SELECT * FROM glob('/**')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM read_duckdb('/tmp/x.db')",
    "SELECT * FROM '/etc/passwd'",
    'SELECT * FROM "/etc/passwd"',
    "SELECT * FROM '{other}'",
    'SELECT * FROM "{other}"',
    'SELECT * FROM "{own}"',
    'SELECT * FROM "{own}", (WITH "{own}" AS (SELECT 1) SELECT * FROM "{own}") y',
    "SELECT * FROM '/etc/*.csv'",
    "SELECT * FROM 'file:///etc/passwd'",
    "SELECT (SELECT content FROM read_text('/etc/passwd'))",
    "WITH x AS (SELECT * FROM read_text('/etc/passwd')) SELECT * FROM x",
    "WITH x AS MATERIALIZED (SELECT * FROM '/etc/passwd') SELECT * FROM x",
    "SELECT * FROM sales WHERE EXISTS (SELECT 1 FROM read_text('/etc/passwd'))",
    "SELECT * FROM sales, LATERAL (SELECT * FROM read_text('/etc/passwd'))",
    "SELECT n FROM sales UNION ALL SELECT length(content) FROM read_text('/etc/passwd')",
    "SELECT n FROM sales ORDER BY (SELECT count(*) FROM glob('/*'))",
    "SELECT * FROM (PIVOT (FROM glob('/*')) ON file USING count(*))",
    "FROM read_text('/etc/passwd')",
    "SELECT * FROM sales POSITIONAL JOIN read_text('/etc/passwd')",
    "COPY sales TO '/tmp/stolen.csv'",
    "COPY (SELECT 1) TO '/tmp/stolen.parquet' (FORMAT parquet)",
    "COPY sales FROM '/etc/passwd'",
    "EXPORT DATABASE '/tmp/stolen'",
    "IMPORT DATABASE '/tmp/stolen'",
    "ATTACH '/tmp/x.db'",
    "ATTACH '{other}' AS x (TYPE sqlite)",
    "ATTACH ':memory:' AS x",
    "DETACH memory",
    "USE memory",
]
NETWORK = [
    "SELECT * FROM 'http://169.254.169.254/latest/meta-data/'",
    "SELECT * FROM 'https://example.com/a.parquet'",
    "SELECT * FROM 's3://bucket/a.parquet'",
    "SELECT * FROM read_csv('https://example.com/a.csv')",
    "SELECT * FROM read_parquet('hf://datasets/a/b')",
    "SELECT * FROM sqlite_scan('x.db', 't')",
    "SELECT * FROM postgres_scan('host=127.0.0.1', 'public', 't')",
    "SELECT * FROM iceberg_scan('s3://x')",
    "SELECT * FROM delta_scan('s3://x')",
    "INSTALL httpfs",
    "FORCE INSTALL httpfs FROM community",
    "LOAD httpfs",
    "LOAD '/tmp/evil.duckdb_extension'",
    "UPDATE EXTENSIONS",
    "CREATE SECRET s (TYPE s3)",
]
SETTINGS = [
    "SET threads = 8",
    "SET memory_limit = '100GB'",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET allowed_paths = ['/']",
    "SET VARIABLE x = 1",
    "RESET lock_configuration",
    "RESET ALL",
    "PRAGMA version",
    "PRAGMA enable_profiling = 'json'",
    "PRAGMA database_list",
    "PRAGMA table_info('sales')",
    "CALL pragma_version()",
    "CALL enable_logging()",
    "SELECT current_setting('allowed_paths')",
    "SELECT CURRENT_SETTING('allowed_paths')",
    "SELECT main.current_setting('allowed_paths')",
    "SELECT getenv('HOME')",
    "SELECT getvariable('x')",
    "SELECT (SELECT current_setting('allowed_paths'))",
    "SELECT n FROM sales GROUP BY n HAVING current_setting('allowed_paths') IS NOT NULL",
    "SELECT list_transform([1], lambda x: current_setting('allowed_paths'))",
    "SELECT setseed(0.5)",
    "SELECT write_log('x')",
    "SELECT sleep_ms(100000)",
    "SELECT pg_sleep(1000)",
    "SELECT nextval('s')",
    "SELECT current_query()",
]
CATALOG = [
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_views()",
    "SELECT * FROM duckdb_views",
    "SELECT * FROM duckdb_tables()",
    "SELECT * FROM duckdb_columns()",
    "SELECT * FROM duckdb_databases()",
    "SELECT * FROM duckdb_functions()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_logs()",
    "SELECT * FROM duckdb_memory()",
    "SELECT * FROM duckdb_extensions()",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM sqlite_schema",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM information_schema.columns",
    "SELECT * FROM pg_catalog.pg_views",
    "SELECT * FROM pg_catalog.pg_class",
    "SELECT * FROM pg_tables",
    "SELECT pg_get_viewdef(1)",
    "WITH duckdb_views AS (SELECT 7 AS x) SELECT * FROM duckdb_views",
    "SELECT v.sql FROM duckdb_views v, (WITH duckdb_views AS (SELECT 1) SELECT * FROM duckdb_views) y",
    "SELECT * FROM DUCKDB_VIEWS, (WITH duckdb_views AS (SELECT 1) FROM duckdb_views)",
    "SELECT * FROM main.sales",
    "SELECT * FROM memory.main.sales",
    "SELECT * FROM system.main.duckdb_views",
    "SELECT * FROM pragma_table_info('sales')",
    "SELECT * FROM pragma_storage_info('sales')",
    "SELECT * FROM pragma_show('sales')",
    "SELECT * FROM query('SELECT * FROM duckdb_views()')",
    "SELECT * FROM query_table('duckdb_views')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "SELECT * FROM which_secret('s3://x', 's3')",
    "SELECT * FROM summary(TABLE sales)",
    "SELECT filename FROM sales",
    "SELECT file_row_number FROM sales",
    "SELECT file_index FROM sales",
]
STATEMENTS = [
    "WITH x AS (INSERT INTO sales VALUES (1) RETURNING *) SELECT * FROM x",
    "WITH x AS (DELETE FROM sales RETURNING *) SELECT * FROM x",
    "INSERT INTO sales VALUES (1)",
    "UPDATE sales SET n = 1",
    "DELETE FROM sales",
    "TRUNCATE sales",
    "MERGE INTO sales USING sales s ON true WHEN MATCHED THEN DELETE",
    "CREATE TABLE t AS SELECT 1",
    "CREATE TEMP TABLE t AS SELECT * FROM '/etc/passwd'",
    "CREATE VIEW v AS SELECT * FROM read_text('/etc/passwd')",
    "CREATE OR REPLACE VIEW sales AS SELECT 1",
    "CREATE MACRO m(x) AS TABLE SELECT * FROM read_text(x)",
    "CREATE FUNCTION f() AS 1",
    "CREATE TYPE t AS ENUM ('a')",
    "CREATE SEQUENCE s",
    "DROP VIEW sales",
    "ALTER VIEW sales RENAME TO x",
    "COMMENT ON VIEW sales IS 'x'",
    "CHECKPOINT",
    "VACUUM",
    "ANALYZE",
    "EXPLAIN SELECT 1",
    "EXPLAIN ANALYZE SELECT 1",
    "DESCRIBE sales",
    "SUMMARIZE sales",
    "SHOW TABLES",
    "SHOW ALL TABLES",
    "SELECT * FROM (DESCRIBE sales)",
    "SELECT * FROM (SHOW TABLES)",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "BEGIN",
    "COMMIT",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP VIEW sales",
    "SELECT 1;; SELECT 2",
    "SELECT 1 /* ; */; COPY sales TO '/tmp/stolen'",
    "SELECT 1 -- x\n; COPY sales TO '/tmp/stolen'",
    "SELECT 1\u003b COPY sales TO '/tmp/stolen'",
    "/* SELECT */ COPY sales TO '/tmp/stolen'",
    "",
    ";",
    "-- nothing",
    "/* nothing",
    "SELEC 1",
    "SELECT 1 \x00 UNION SELECT 2",
    "\uff33ELECT 1",
    "SELECT * FROM re\u200bad_text('/etc/passwd')",
    "SELECT * FROM \u202eread_text('/etc/passwd')",
    "SELECT * FROM r\u0435ad_text('/etc/passwd')",
    "SELECT $$",
    "SELECT nope FROM sales",
    "SELECT * FROM nothing",
    "SELECT * FROM zeta.sales",
    'SELECT * FROM "zeta/sales"',
    'SELECT * FROM "../zeta/sales"',
    "SELECT error('x')",
    "SELECT 'a'::INTEGER",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM arrow_scan_dumb(1, 2, 3)",
    "SELECT * FROM pandas_scan(1)",
    "SELECT * FROM python_map_function(1)",
    "SELECT * FROM seq_scan()",
    "SELECT * FROM test_all_types()",
    "SELECT " + "(" * 2000 + "1" + ")" * 2000,
    "SELECT " + "NOT " * 2000 + "true",
]
ATTEMPTS = [*FILES, *NETWORK, *SETTINGS, *CATALOG, *STATEMENTS]

HARMLESS = [
    ("SELECT 'read_csv(''/etc/passwd'')' AS t", [["read_csv('/etc/passwd')"]]),
    ("SELECT /* read_text('/etc/passwd') */ 1", [[1]]),
    ("SELECT 1 AS read_text -- ; DROP VIEW sales", [[1]]),
    ("SELECT 1;", [[1]]),
    ('WITH "my total" AS (SELECT 7 AS x) SELECT * FROM "my total"', [[7]]),
    ("SELECT json_serialize_sql('SELECT * FROM read_text(''/etc/passwd'')') IS NOT NULL", [[True]]),
    ("SELECT current_user, current_database(), current_schema()", [["duckdb", "memory", "main"]]),
    ("SELECT regexp_matches(repeat('a', 100000), '(a+)+$b')", [[False]]),
    ("SELECT max(n) FROM sales", [[2]]),
]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A file that the view of the workspace reads, and one that it does not."""
    folder: Path = tmp_path_factory.mktemp("lake")
    found = {}
    for name in ("own", "other"):
        (folder / name).mkdir()
        found[name] = str(folder / name / f"{name}.parquet")
        pq.write_table(pa.table({"n": [1, 2]}), found[name])
    return found | {"folder": str(folder)}


def views(paths: dict[str, str]) -> dict[str, str]:
    return {"sales": f"SELECT n FROM read_parquet(['{paths['own']}'])"}


def attempt(sql: str, paths: dict[str, str]) -> tuple[list[dict[str, Any]], bytes]:
    """Run a query as its process does, in this one; return the messages of the answer and the rows."""
    opening = {"sql": sql, "seconds": 20, "hidden": paths["folder"], "receipt": False}
    asked = {
        "views": views(paths),
        "files": [paths["own"]],
        "values": [],
        "form": "json",
        "max_rows": 100,
        "max_bytes": 1 << 20,
        "receipt": False,
    }
    incoming, outgoing = io.BytesIO(), io.BytesIO()
    write(incoming, asked)
    incoming.seek(0)
    query_process.answer(opening, incoming, outgoing, memory="512MB")
    outgoing.seek(0)
    messages, rows = [], b""
    while (message := read(outgoing)) is not None:
        messages.append(message)
        rows += outgoing.read(message.get("size", 0))
    return messages, rows


def test_there_are_more_than_a_hundred_attempts() -> None:
    assert len({*ATTEMPTS}) == len(ATTEMPTS) > 180


@pytest.mark.parametrize("sql", ATTEMPTS)
def test_refuses_an_escape(sql: str, paths: dict[str, str]) -> None:
    for name in ("own", "other"):
        sql = sql.replace(f"{{{name}}}", paths[name])
    messages, rows = attempt(sql, paths)
    assert messages[-1]["refused"] == "SQL_INVALID"
    assert rows == b""
    told = messages[-1]["message"].replace(sql, "")
    assert "root:" not in told
    if paths["folder"] not in sql:
        assert paths["folder"] not in told


@pytest.mark.parametrize(("sql", "found"), HARMLESS)
def test_takes_what_only_looks_like_an_escape(sql: str, found: list[Any], paths: dict[str, str]) -> None:
    messages, rows = attempt(sql, paths)
    assert messages[-1].get("end"), messages
    assert orjson.loads(rows) == found


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_parquet('{other}')",
        "SELECT * FROM '{other}'",
        "COPY (SELECT 1) TO '{folder}/stolen'",
        "SELECT * FROM 'https://example.com/a.parquet'",
    ],
)
def test_duckdb_itself_is_locked_down_behind_the_look_at_the_sql(sql: str, paths: dict[str, str]) -> None:
    with closing(query_process.connect()) as connection:
        query_process.lock_down(connection, views(paths), [paths["own"]], memory="512MB")
        with pytest.raises(duckdb.Error):
            connection.execute(sql.format(**paths)).fetchall()
        assert connection.execute("SELECT count(*) FROM sales").fetchall() != [(0,)]
    assert not Path(paths["folder"], "stolen").exists()


BOMBS = [
    "SELECT repeat('x', 4000000000)",
    "SELECT range(100000000)",
    "SELECT string_split(repeat('a,', 50000000), ',')",
    "SELECT levenshtein(repeat('a', 200000), repeat('b', 200000))",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
    "SELECT count(*) FROM range(100000000) a, range(100000000) b",
]


class _NoLake:
    """Has nothing: names that the queries define themselves are looked for first."""

    async def find(self, _workspace: str, _dataset: str) -> None:
        return None

    def at_head(self, _workspace: str, _dataset: str) -> Snapshot:
        return Snapshot("t", {0: 0}, "e1", 0)

    async def flush(self, _workspace: str, _offset: int, *, within: float) -> None:
        assert within > 0

    async def table(self, _workspace: str, _dataset: str) -> None:
        return None


async def test_bombs_cost_their_own_process_and_nothing_else(tmp_path: Path) -> None:
    none: Any = _NoLake()
    queries = Queries(none, snapshots=none, contracts=none, folder=tmp_path, memory="64MB", at_once=1)
    try:
        for bomb in BOMBS:
            with pytest.raises((QueryTooLargeError, QueryTimeoutError)):
                await queries.run("acme", bomb, b"", max_rows=10, within=2.0)
        found = await queries.run("acme", "SELECT 1", b"", max_rows=10, within=60)
        assert found.rows == b"[[1]]"
    finally:
        await queries.close()


def told_by_the_system(pid: int) -> tuple[bytes, list[str]]:
    """Return the environment of a process, and the largest file that it may write."""
    limits = Path(f"/proc/{pid}/limits").read_text()
    (size,) = [line.split()[3:5] for line in limits.splitlines() if line.startswith("Max file size")]
    return Path(f"/proc/{pid}/environ").read_bytes(), size


async def test_the_process_knows_no_secret_and_writes_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COUNTERFOIL_SECRET", "s3cret")
    processes = QueryProcesses(memory="64MB", idle=1)
    try:
        async with processes.lent() as process:
            await process.send({"sql": "SELECT", "seconds": 5, "hidden": str(tmp_path), "receipt": False})
            with pytest.raises(SqlInvalidError):
                await process.receive()
            assert told_by_the_system(process.pid) == (b"ARROW_DEFAULT_MEMORY_POOL=system\0", ["0", "0"])
    finally:
        await processes.close()
