"""Spans in one SQLite file: batch inserts on one connection, reads on connections of their own."""

import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import orjson

from counterfoil_cli.traces.otlp import MADE_TAGS, Origin, span_json
from counterfoil_cli.traces.spans import Search, SpanRow, Trace, TraceSummary

MAX_TRACE_SPANS = 20_000  # spans of one trace that are read
CACHED_NAMES = 20_000
_DELETED_AT_ONCE = 20_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS origin (id INTEGER PRIMARY KEY, body BLOB NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS operation (service TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL,
    PRIMARY KEY (service, name, kind)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS span (id INTEGER PRIMARY KEY, trace_id BLOB NOT NULL, span_id BLOB NOT NULL,
    parent_id BLOB NOT NULL, origin_id INTEGER NOT NULL, service TEXT NOT NULL, operation TEXT NOT NULL,
    start_us INTEGER NOT NULL, duration_us INTEGER NOT NULL, error INTEGER NOT NULL, received_us INTEGER NOT NULL,
    body BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS span_of_trace ON span (trace_id, span_id);
CREATE INDEX IF NOT EXISTS span_of_service ON span (service, start_us);
"""
_SCHEMA_VERSION = 1
_INSERT = """INSERT OR IGNORE INTO span (trace_id, span_id, parent_id, origin_id, service, operation, start_us,
    duration_us, error, received_us, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_SUMMARY = """SELECT trace_id, count(*), min(start_us), max(start_us + duration_us), sum(error),
    json_group_array(DISTINCT service) FROM span WHERE trace_id = ? GROUP BY trace_id"""
_ROOT = """SELECT operation, service FROM span WHERE trace_id = ? ORDER BY parent_id <> x'', start_us LIMIT 1"""
_DEPENDENCIES = """SELECT parent.service, child.service, count(*) FROM span AS child
    JOIN span AS parent ON parent.trace_id = child.trace_id AND parent.span_id = child.parent_id
    WHERE child.parent_id <> x'' AND child.service <> parent.service AND child.start_us BETWEEN ? AND ?
    GROUP BY 1, 2 ORDER BY 1, 2"""

_log = logging.getLogger(__name__)


class SpanStore:
    """Keeps spans; `put` and `prune` belong to one thread, the reads to any."""

    def __init__(self, file: Path, *, max_spans: int, max_days: float) -> None:
        self._file = file
        self._max_spans = max_spans
        self._max_us = int(max_days * 86_400_000_000)
        self._origins: dict[bytes, int] = {}
        self._operations: set[tuple[str, str, str]] = set()
        self._connection = _open(file)

    def close(self) -> None:
        """Close the writing connection."""
        self._connection.close()

    def put(self, rows: Sequence[SpanRow]) -> None:
        """Insert spans in one transaction; a span that is known already is left as it is. Raise sqlite3.Error."""
        now = time.time_ns() // 1000
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._name(rows)
            connection.executemany(_INSERT, (self._values(row, now) for row in rows))
            connection.execute("COMMIT")
        except sqlite3.Error:
            self._forget()  # ids that were given in this transaction are gone with it
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def prune(self) -> int:
        """Delete what is too old or too much, oldest first, and return how many spans went."""
        deleted = 0
        while (last := self._last_to_delete()) is not None:
            with self._connection:
                deleted += self._connection.execute(
                    "DELETE FROM span WHERE id IN (SELECT id FROM span WHERE id <= ? ORDER BY id LIMIT ?)",
                    (last, _DELETED_AT_ONCE),
                ).rowcount
        if deleted:
            with self._connection:
                self._connection.execute("DELETE FROM origin WHERE id NOT IN (SELECT origin_id FROM span)")
                self._connection.execute(
                    "DELETE FROM operation WHERE NOT EXISTS (SELECT 1 FROM span "
                    "WHERE span.service = operation.service AND span.operation = operation.name)"
                )
            self._forget()
        return deleted

    def services(self) -> list[str]:
        """Return the names of the services that sent spans, in order."""
        return [row[0] for row in self._read("SELECT DISTINCT service FROM operation ORDER BY service")]

    def operations(self, service: str, *, kind: str = "") -> list[tuple[str, str]]:
        """Return the (name, span kind) pairs of a service's operations."""
        return self._read(
            "SELECT name, kind FROM operation WHERE service = ? AND ? IN ('', kind) ORDER BY name, kind",
            (service, kind),
        )

    def find(self, search: Search) -> list[str]:
        """Return the ids of the traces that hold a fitting span, newest first."""
        sql, values = _statement(search)
        found: dict[bytes, None] = {}
        with self._reading() as connection:
            for trace_id, body, origin in connection.execute(sql, values):
                if trace_id not in found and _has_tags(body, origin, search.tags):
                    found[trace_id] = None
                    if len(found) >= search.limit:
                        break
        return [trace_id.hex() for trace_id in found]

    def trace(self, trace_id: str) -> Trace | None:
        """Return one trace by its 32 hex digits, or None; at most MAX_TRACE_SPANS of its spans, by start."""
        rows = self._read(
            "SELECT span.body, origin.body FROM span JOIN origin ON origin.id = origin_id "
            "WHERE trace_id = ? ORDER BY start_us, span.id LIMIT ?",
            (bytes.fromhex(trace_id), MAX_TRACE_SPANS + 1),
        )
        if not rows:
            return None
        origins: dict[bytes, Origin] = {}
        names: dict[str, str] = {}
        processes: dict[str, dict[str, Any]] = {}
        spans = []
        for body, stored in rows[:MAX_TRACE_SPANS]:
            origin = origins.get(stored) or origins.setdefault(stored, Origin(stored))
            process = {"serviceName": origin.service, "tags": origin.tags}
            name = names.setdefault(repr(process), f"p{len(names) + 1}")
            processes.setdefault(name, process)
            spans.append({**span_json(body, origin), "processID": name})
        cut = len(rows) > MAX_TRACE_SPANS
        warnings = [f"Only the first {MAX_TRACE_SPANS} spans are shown."] if cut else []
        return Trace(trace_id, spans, processes, warnings)

    def recent(self, *, service: str = "", limit: int = 50) -> list[TraceSummary]:
        """Return the traces that spans came for last, newest first."""
        ids: dict[bytes, None] = {}
        with self._reading() as connection:
            where = "WHERE service = ? ORDER BY start_us" if service else "WHERE ? = '' ORDER BY id"
            for (trace_id,) in connection.execute(f"SELECT trace_id FROM span {where} DESC", (service,)):  # noqa: S608
                ids[trace_id] = None
                if len(ids) >= limit:
                    break
            return [_summary(connection, trace_id) for trace_id in ids]

    def dependencies(self, *, start_us: int, end_us: int) -> list[tuple[str, str, int]]:
        """Return (caller, callee, calls) between services, from spans whose parent is another service's."""
        return self._read(_DEPENDENCIES, (start_us, end_us))

    def _name(self, rows: Iterable[SpanRow]) -> None:
        if len(self._operations) + len(self._origins) > CACHED_NAMES:
            self._forget()
        operations = {(row.service, row.operation, row.kind) for row in rows} - self._operations
        self._connection.executemany("INSERT OR IGNORE INTO operation VALUES (?, ?, ?)", operations)
        self._operations |= operations
        for origin in {row.origin for row in rows} - self._origins.keys():
            self._connection.execute("INSERT OR IGNORE INTO origin (body) VALUES (?)", (origin,))
            found = self._connection.execute("SELECT id FROM origin WHERE body = ?", (origin,))
            self._origins[origin] = found.fetchone()[0]

    def _values(self, row: SpanRow, now: int) -> tuple[Any, ...]:
        ids = (row.trace_id, row.span_id, row.parent_id, self._origins[row.origin], row.service, row.operation)
        return (*ids, row.start_us, row.duration_us, row.error, now, row.body)

    def _forget(self) -> None:
        self._origins.clear()
        self._operations.clear()

    def _last_to_delete(self) -> int | None:
        """Return the id up to which spans must go; ids grow with the time of receipt."""
        oldest, newest = self._connection.execute("SELECT min(id), max(id) FROM span").fetchone()
        if oldest is None:
            return None
        cutoff = time.time_ns() // 1000 - self._max_us
        young = self._connection.execute("SELECT id FROM span WHERE received_us >= ? ORDER BY id LIMIT 1", (cutoff,))
        row = young.fetchone()
        last = max(newest - self._max_spans, newest if row is None else row[0] - 1)
        return last if last >= oldest else None

    def _read(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._reading() as connection:
            return connection.execute(sql, values).fetchall()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        uri = f"{self._file.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=5, isolation_level=None)) as connection:
            yield connection


def _open(file: Path) -> sqlite3.Connection:
    """Open the file, and begin a new one where the old one is broken: traces are not worth a refused start."""
    try:
        return _connect(file)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        aside = file.with_name(f"{file.name}.broken")
        _log.warning("traces_file_broken", extra={"moved_to": str(aside), "error": str(error)})
        file.replace(aside)
        for rest in ("-wal", "-shm"):
            file.with_name(f"{file.name}{rest}").unlink(missing_ok=True)
        return _connect(file)


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=5, isolation_level=None, check_same_thread=False)
    try:
        if connection.execute("PRAGMA user_version").fetchone()[0] not in (0, _SCHEMA_VERSION):
            raise sqlite3.DatabaseError("it was written by another release")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -32768")  # KiB
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _statement(search: Search) -> tuple[str, list[Any]]:
    wheres = ["start_us BETWEEN ? AND ?", "duration_us BETWEEN ? AND ?"]
    values: list[Any] = [search.start_us, search.end_us, search.min_duration_us, search.max_duration_us]
    if search.service:
        wheres.append("span.service = ?")
        values.append(search.service)
    if search.operation:
        wheres.append("operation = ?")
        values.append(search.operation)
    for key, _ in search.tags:
        if key not in MADE_TAGS:  # a cheap first sieve: the key stands somewhere in the bytes
            wheres.append("(instr(span.body, ?) OR instr(origin.body, ?))")
            values += [key.encode(), key.encode()]
    found = "SELECT trace_id, span.body, origin.body FROM span JOIN origin ON origin.id = origin_id"
    return f"{found} WHERE {' AND '.join(wheres)} ORDER BY start_us DESC", values


def _has_tags(body: bytes, stored: bytes, wanted: Sequence[tuple[str, str]]) -> bool:
    """Whether the span has every tag, in its tags, its logs or its process, compared as text as Jaeger does."""
    if not wanted:
        return True
    origin = Origin(stored)
    span = span_json(body, origin)
    fields = (field for log in span["logs"] for field in log["fields"])
    have = {(tag["key"], _text(tag["value"])) for tag in (*span["tags"], *fields, *origin.tags)}
    return have.issuperset(wanted)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _summary(connection: sqlite3.Connection, trace_id: bytes) -> TraceSummary:
    _, spans, start, end, errors, services = connection.execute(_SUMMARY, (trace_id,)).fetchone()
    name, root = connection.execute(_ROOT, (trace_id,)).fetchone()
    return TraceSummary(
        trace_id=trace_id.hex(),
        name=name,
        root_service=root,
        services=tuple(sorted(orjson.loads(services))),
        spans=spans,
        errors=errors,
        start_us=start,
        duration_us=end - start,
    )
