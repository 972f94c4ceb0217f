"""PostgreSQL's tables and queries, from a real server."""

from __future__ import annotations

from typing import Any

import adbc_driver_postgresql.dbapi as postgresql
import orjson
import pytest
from counterfoil_connectors.postgresql import POSTGRESQL

from tests.connectors.conformance import ConnectorConformance, Run
from tests.postgres import Server

ORDERS = """
CREATE TABLE shop."Orders" (
    id bigint PRIMARY KEY, total numeric(20, 4), rate float8, at timestamptz, seen timestamp, day date, paid boolean,
    note text, tags text[], more jsonb, ref uuid, raw bytea, changed timestamptz
)
"""
ROW = """
INSERT INTO shop."Orders" VALUES (
    9007199254740993, 12345678901234.5678, 0.1, '2026-01-01T12:00:00.000001+02', '2026-01-01T12:00:00', '2026-01-01',
    true, E'a "b"\\nc 🚢', '{x,NULL}', '{"a": [1, 1.50]}', '6ec0bd7f-11c0-43da-975e-2a8ad9ebae0b', '\\xdeadbeef',
    '2026-02-01T00:00:00Z'
)
"""
MORE = """
INSERT INTO shop."Orders" (id, total, changed) VALUES (2, 'NaN', '2026-02-01T00:00:00Z'), (3, NULL, NULL)
"""


class Source:
    """A database of a shop; `run` runs a statement in it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.run("DROP SCHEMA IF EXISTS shop CASCADE", "CREATE SCHEMA shop", ORDERS, ROW, MORE)

    def run(self, *statements: str) -> None:
        with postgresql.connect(self.url) as connection, connection.cursor() as cursor:
            for each in statements:
                cursor.execute(each)
            connection.commit()


class TestPostgreSQL(ConnectorConformance):
    connector = POSTGRESQL

    @pytest.fixture
    def source(self, postgres: Server) -> Source:
        return Source(f"{postgres.url}/postgres")

    def given(self, source: Source) -> dict[str, str]:
        return {"uri": source.url, "stream": "orders", "table": "shop.Orders", "cursor": "changed", "key": "id"}

    def change(self, source: Source) -> int:
        source.run(
            "UPDATE shop.\"Orders\" SET note = 'changed', changed = '2026-02-03' WHERE id IN (2, 3)",
            'UPDATE shop."Orders" SET note = NULL WHERE id = 9007199254740993',  # and does not say that it did
            "INSERT INTO shop.\"Orders\" (id, changed) VALUES (4, '2026-01-31T23:58:00Z')",  # it began earlier
        )
        return 4

    def refuse(self, source: Source) -> dict[str, str]:
        return self.given(source) | {"uri": source.url.replace("@", "-wrong@")}

    def test_values_keep_their_types(self, source: Source) -> None:
        run = Run(POSTGRESQL, self.given(source))
        second, empty, first = sorted((each["data"] for each in run.records), key=lambda row: row["id"])
        assert first == {
            "id": 9007199254740993,
            "total": 12345678901234.5678,
            "rate": 0.1,
            "at": "2026-01-01T10:00:00.000001Z",
            "seen": "2026-01-01T12:00:00",
            "day": "2026-01-01",
            "paid": True,
            "note": 'a "b"\nc 🚢',
            "tags": ["x", None],
            "more": {"a": [1, 1.5]},
            "ref": "6ec0bd7f-11c0-43da-975e-2a8ad9ebae0b",
            "raw": "3q2+7w==",
            "changed": "2026-02-01T00:00:00Z",
        }
        assert b'"total":12345678901234.5678,' in run.text
        assert (second["total"], empty) == (None, dict.fromkeys(first) | {"id": 3})

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ({"query": "SELECT 1"}, "either `table` or `query`"),
            ({"key": ""}, "go together"),
            ({"key": "nobody"}, "no column `nobody`"),
            ({"cursor": "nobody"}, "nobody"),
            ({"table": 'shop.Orders"; DROP TABLE shop."Orders'}, "cross-database"),
            ({"table": "", "query": "SELECT '10.0.0.1'::inet AS id, 1 AS changed"}, "casts it to text"),
            ({"table": "", "query": "SELECT ARRAY[1.5] AS id, 1 AS changed"}, "casts it to text"),
            ({"table": "", "query": "SELECT 'infinity'::timestamptz AS id, 1 AS changed"}, "leaves it out"),
            ({"table": "", "query": "SELECT 1 AS id, setval('shop.seq', 7) AS changed"}, "read-only"),
            ({"table": "", "query": "SELECT 1/0 AS id, 1 AS changed"}, "division by zero"),
            ({"uri": "postgresql://u:top secret@127.0.0.1/x"}, "no connection URI"),
            ({"uri": "host=127.0.0.1 top-secret"}, "no connection URI"),
        ],
    )
    def test_what_cannot_be_read_is_said(self, source: Source, given: dict[str, str], told: str) -> None:
        source.run("CREATE SEQUENCE IF NOT EXISTS shop.seq")
        run = Run(POSTGRESQL, self.given(source) | given)
        assert told in run.errors[0]
        assert "secret" not in run.text.decode()
        assert not run.records
        source.run('SELECT FROM shop."Orders"')

    @pytest.mark.parametrize("kind", ["integer", "text", "date", "timestamp", "numeric"])
    def test_a_cursor_of_any_ordered_type_goes_on(self, source: Source, kind: str) -> None:
        value = "date '2026-01-01' + n" if kind in ("date", "timestamp") else "n"
        source.run("DROP TABLE IF EXISTS shop.marks", f"CREATE TABLE shop.marks (id int, at {kind})")
        fill = f"INSERT INTO shop.marks SELECT n, ({value})::{kind} FROM generate_series(%s, %s) AS n"
        given = self.given(source) | {"table": "", "query": "SELECT * FROM shop.marks;", "cursor": "at"}
        source.run(fill % (10, 60))
        first = Run(POSTGRESQL, given)
        source.run(fill % (61, 99))
        second = Run(POSTGRESQL, given, first.state)
        assert [each["data"]["id"] for each in first.records] == [*range(10, 61)]
        assert [each["data"]["id"] for each in second.records] == [*range(60, 100)]

    def test_without_a_cursor_every_run_reads_every_row(self, source: Source) -> None:
        given = {"uri": source.url, "stream": "pairs", "query": "SELECT 1 AS a FROM generate_series(1, 3)"}
        run = Run(POSTGRESQL, given)
        assert [each["data"] for each in run.records] == [{"a": 1}] * 3
        assert not any("record_id" in each for each in run.records)
        assert orjson.loads(run.state) == []

    def test_a_large_table_passes_through_in_batches(self, source: Source) -> None:
        given: dict[str, str] = {
            "uri": source.url,
            "stream": "large",
            "query": "SELECT n AS id, repeat('x', 200) AS text FROM generate_series(1, 50000) AS n",
            "cursor": "id",
            "key": "id",
        }
        lines: Any = POSTGRESQL.messages(given, state="", emitted_at=7)
        kinds = [line[9:14] for line in lines]
        assert (kinds.count(b"RECOR"), kinds.count(b"STATE")) == (50_000, 50)
