"""Which columns a statement reads for each that it writes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import pytest
from counterfoil_contracts.errors import SqlUnreadableError
from counterfoil_contracts.lineage.sql import Analysis, analyze

from tests.contracts.lineage_world import THREE_CTES

KNOWN = {
    "raw.orders": ["id", "customer_id", "amount", "discount", "created_at", "status"],
    "raw.customers": ["customer_id", "region"],
}


def analysis(sql: str, known: Mapping[str, Sequence[str]] | None = None, *, dialect: str = "") -> Analysis:
    return analyze(sql, dialect=dialect, columns_of=lambda table: (known or {}).get(table, ()))


def direct(found: Analysis) -> dict[str, set[str]]:
    return {
        column: {f"{origin.table}.{origin.column}" for origin in origins if origin.direct}
        for column, origins in found.columns.items()
    }


def rows(found: Analysis) -> set[tuple[str, str]]:
    return {(f"{origin.table}.{origin.column}", origin.subtype) for origin in found.rows}


@pytest.mark.parametrize("known", [{}, KNOWN], ids=["unknown tables", "known tables"])
def test_all_six_columns_of_the_three_cte_insert_are_exact(known: Mapping[str, Sequence[str]]) -> None:
    found = analysis(THREE_CTES, known)
    assert (found.inputs, found.output) == (("raw.orders", "raw.customers"), "marts.customer_value")
    origins = {
        column: {f"{origin.table}.{origin.column}" for origin in made_of} for column, made_of in found.columns.items()
    }
    assert origins == {
        "customer_id": {"raw.orders.customer_id"},
        "region": {"raw.customers.region"},
        "order_count": {"raw.orders.id"},
        "revenue": {"raw.orders.amount", "raw.orders.discount"},
        "last_order_at": {"raw.orders.created_at"},
        "revenue_rank": {"raw.customers.region", "raw.orders.amount", "raw.orders.discount"},
    }
    assert rows(found) == {
        ("raw.orders.status", "FILTER"),
        ("raw.orders.customer_id", "GROUP_BY"),
        ("raw.orders.customer_id", "JOIN"),
        ("raw.customers.customer_id", "JOIN"),
    }


def test_a_star_is_what_the_table_has() -> None:
    assert direct(analysis("SELECT * FROM t", {"t": ["a", "b"]})) == {"a": {"t.a"}, "b": {"t.b"}}
    assert direct(analysis("SELECT * FROM t")) == {"*": {"t.*"}}
    excluded = analysis("SELECT * EXCLUDE (a) FROM t", {"t": ["a", "b"]}, dialect="duckdb")
    assert direct(excluded) == {"b": {"t.b"}}


def test_a_column_belongs_to_the_table_that_has_it() -> None:
    known = {"t": ["a", "k"], "u": ["b", "k"]}
    found = analysis("SELECT a, b FROM t JOIN u ON t.k = u.k", known)
    assert direct(found) == {"a": {"t.a"}, "b": {"u.b"}}
    assert rows(found) == {("t.k", "JOIN"), ("u.k", "JOIN")}


def test_a_condition_decides_and_is_not_the_value() -> None:
    [origin] = [each for each in analysis("SELECT CASE WHEN a THEN b END AS c FROM t").columns["c"] if not each.direct]
    assert (origin.column, origin.subtype) == ("a", "CONDITIONAL")


def test_both_sides_of_a_union_count() -> None:
    assert direct(analysis("SELECT a FROM t UNION ALL SELECT b FROM u")) == {"a": {"t.a", "u.b"}}


def test_a_subquery_tells_its_columns_and_what_decides_its_rows() -> None:
    found = analysis("SELECT (SELECT max(x) FROM u WHERE u.id = t.id) AS m FROM t WHERE k IN (SELECT k FROM v)")
    assert direct(found) == {"m": {"u.x"}}
    assert {(origin.column, origin.subtype) for origin in found.columns["m"] if not origin.direct} == {("id", "FILTER")}
    assert rows(found) == {("t.k", "FILTER"), ("v.k", "FILTER")}


def test_a_hash_hides_the_value() -> None:
    [origin] = analysis("SELECT md5(email) AS h FROM t").columns["h"]
    assert origin.masking


@pytest.mark.parametrize(
    "sql",
    ["", "SELECT (", "not sql at all (", "SELECT " + "(" * 2000 + "1" + ")" * 2000, "SELECT " + "NOT " * 5000 + "a"],
    ids=["nothing", "open", "words", "deep", "long"],
)
def test_what_cannot_be_read_is_refused(sql: str) -> None:
    with pytest.raises(SqlUnreadableError):
        analysis(sql)


def test_an_unknown_dialect_is_refused() -> None:
    with pytest.raises(SqlUnreadableError):
        analysis("SELECT 1", dialect="klingon")


@pytest.mark.parametrize(
    "sql",
    [
        "WITH a0 AS (SELECT x FROM t)"
        + "".join(f", a{n} AS (SELECT * FROM a{n - 1} a JOIN a{n - 1} b ON a.x = b.x)" for n in range(1, 60))
        + " SELECT * FROM a59",
        "WITH a0 AS (SELECT x, x AS y FROM t)"
        + "".join(f", a{n} AS (SELECT l.*, r.x AS x{n} FROM a{n - 1} l, a{n - 1} r)" for n in range(1, 40))
        + " SELECT * FROM a39",
        "SELECT " + ",".join(f"(SELECT max(b) FROM u WHERE u.a = t.c{n})" for n in range(1200)) + " FROM t",
    ],
    ids=["doubling joins", "growing stars", "many subqueries"],
)
def test_a_statement_costs_by_its_size_and_not_by_what_it_unfolds_to(sql: str) -> None:
    began = time.process_time()
    analysis(sql)
    assert time.process_time() - began < 30


def test_a_statement_that_unfolds_too_far_is_refused() -> None:
    columns = ", ".join(f"c{n}" for n in range(2000))
    steps = "".join(f", a{n} AS (SELECT * FROM a{n - 1})" for n in range(1, 200))
    with pytest.raises(SqlUnreadableError, match="more columns"):
        analysis(f"WITH a0 AS (SELECT {columns} FROM t){steps} SELECT * FROM a199")
