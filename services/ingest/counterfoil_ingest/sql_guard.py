"""What SQL may say: one SELECT over datasets. DuckDB parses it; the parsed tree is looked through before anything runs.

Everything not listed here is refused. DuckDB itself is locked down as well, but its catalogue functions would show
where the lake lies, and some table functions take the address of memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import orjson

from counterfoil_ingest.read_errors import SqlInvalidError

_QUERY_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_TABLE_FUNCTIONS = frozenset({"generate_series", "json_each", "json_tree", "range", "repeat", "unnest"})
_REFUSED_FUNCTIONS = frozenset(
    {
        "current_query",
        "current_query_id",
        "current_setting",
        "current_transaction_id",
        "currval",
        "getenv",
        "getvariable",
        "in_search_path",
        "json_execute_serialized_sql",
        "nextval",
        "query",
        "query_table",
        "setseed",
        "setval",
        "sleep_ms",
        "stats",
        "txid_current",
        "write_log",
    }
)
_OF_FILES = frozenset("./\\:*?[")
_OWN_VIEWS = "SELECT view_name FROM duckdb_views() WHERE internal AND schema_name IN ('main', 'pg_catalog')"
_CLOCKS = frozenset({"ago", "current_localtime", "current_localtimestamp"})  # said to be constant, and are not
_CLOCK_WORDS = frozenset({"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"})


def parsed(connection: duckdb.DuckDBPyConnection, sql: str) -> Any:
    """Return the tree of one SELECT, as DuckDB parses it and the others here take it; raise SqlInvalidError."""
    if "\0" in sql:
        raise SqlInvalidError("SQL holds no NUL characters.")
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise SqlInvalidError(str(error)) from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise SqlInvalidError("Send one SELECT; other statements, or several, are not taken.")
    found = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    tree = orjson.loads(found[0][0])
    if tree["error"]:
        raise SqlInvalidError(f"This cannot be taken as one SELECT: {tree['error_message']}.")
    return tree["statements"]


def tables_of(connection: duckdb.DuckDBPyConnection, tree: Any) -> frozenset[str]:
    """Return the names, in lower case, that a SELECT reads and does not define itself; raise SqlInvalidError.

    A name that the SELECT defines (WITH) may also be a dataset's: then it is among them too, when it is read at all.
    """
    read: set[str] = set()
    for node in _nodes(tree):
        _check(node, read)
    found = connection.execute(_OWN_VIEWS).fetchall()
    if catalogue := read.intersection(name for (name,) in found):  # also where the SELECT defines that name elsewhere
        raise SqlInvalidError(f"`{min(catalogue)}` is a name of the catalogue, which may not be read. Use another.")
    return frozenset(read)


def defined_by(tree: Any) -> frozenset[str]:
    """Return the names, in lower case, that a SELECT defines by WITH."""
    names: set[str] = set()
    for node in _nodes(tree):
        names.update(entry["key"].lower() for entry in _entries(node))
        if node.get("type") == "RECURSIVE_CTE_NODE":
            names.add(str(node.get("cte_name", "")).lower())
    return frozenset(names)


def volatile_in(connection: duckdb.DuckDBPyConnection, tree: Any) -> str:
    """Return a function or clause of a SELECT whose value differs from time to time; "" when there is none."""
    rows = connection.execute("SELECT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'").fetchall()
    volatile = {name.lower() for (name,) in rows} | _CLOCKS
    for node in _nodes(tree):
        if isinstance(node.get("sample"), dict):
            return "TABLESAMPLE"
        kind = node.get("class")
        name = str(node["function_name"] if kind == "FUNCTION" else "").lower()
        if name in volatile or (name == "age" and len(node["arguments"]) == 1):
            return name
        if kind == "COLUMN_REF" and node["column_names"][-1].lower() in _CLOCK_WORDS:
            return str(node["column_names"][-1])
    return ""


def _entries(node: dict[str, Any]) -> list[dict[str, Any]]:
    cte_map = node.get("cte_map")
    entries: list[dict[str, Any]] = cte_map["map"] if isinstance(cte_map, dict) else []
    return entries


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _check(node: dict[str, Any], read: set[str]) -> None:
    kind = node.get("type")
    if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _QUERY_NODES:
        raise SqlInvalidError("Only SELECT may be used, also within WITH.")
    if kind == "BASE_TABLE":
        if node["schema_name"] or node["catalog_name"]:
            raise SqlInvalidError(f"Name datasets without a schema: `{node['table_name']}`.")
        if _OF_FILES.intersection(node["table_name"]):  # DuckDB takes what no table is called for a file
            raise SqlInvalidError(f"`{node['table_name']}` is no name of a table; it holds a character of file names.")
        read.add(node["table_name"].lower())
    elif kind == "TABLE_FUNCTION":
        name = node["function"]["function_name"].lower()
        if name not in _TABLE_FUNCTIONS or node["function"]["schema"] or node["function"]["catalog"]:
            raise SqlInvalidError(f"The table function `{name}` may not be used; datasets are tables.")
    elif kind == "SHOW_REF":
        raise SqlInvalidError("SHOW, DESCRIBE and SUMMARIZE are not taken; list the datasets and their contracts.")
    elif node.get("class") == "FUNCTION":
        name = node["function_name"].lower()
        if name in _REFUSED_FUNCTIONS or name.startswith(("__internal", "pragma_", "duckdb_", "pg_")):
            raise SqlInvalidError(f"The function `{name}` may not be used.")
