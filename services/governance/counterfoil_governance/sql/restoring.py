"""What a backup says of the workspaces, and what a restore takes over from newer data: erasures and legal holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

OUTSTANDING = (
    "SELECT count(*) FROM privacy_requests AS r WHERE NOT EXISTS (SELECT 1 FROM privacy_reports AS p"
    " WHERE p.workspace = r.workspace AND p.privacy_request_id = r.privacy_request_id)"
)
"""How many erasures nobody has reported yet; runs on either engine."""

_REQUESTS = (
    "workspace, privacy_request_id, kind, identifier_types, identifier_hashes, reference, created_by, created_at,"
    " due_at"
)
_HOLDS = (
    "workspace, legal_hold_id, dataset, identifier_types, identifier_hashes, reason, owner, expires_at, created_by,"
    " created_at, released_by, released_at, release_reason"
)
_CONSENTS = (
    "workspace, consent_id, subject, purpose, state, basis, happened_at, expires_at, evidence, content, recorded_at,"
    " recorded_by"
)


def describe(connection: sqlite3.Connection) -> Mapping[str, Any]:
    """Return the workspaces there are."""
    return {"workspaces": [row[0] for row in connection.execute("SELECT workspace FROM workspaces ORDER BY 1")]}


def merge(connection: sqlite3.Connection, newer: sqlite3.Connection) -> Mapping[str, int]:
    """Take over the erasures that newer data knows, as not reported, with the consents they withdrew, and its holds.

    Legal holds that were released since are in force again: whoever restored decides. Returns, by workspace, how many
    erasures there were that this data knows nothing of or holds for done.
    """
    taken: dict[str, int] = {}
    if not newer.execute("SELECT 1 FROM sqlite_master WHERE name = 'privacy_requests'").fetchone():
        return taken  # of a release that knew no erasures
    ours = {row[0] for row in connection.execute("SELECT workspace FROM workspaces")}
    if newer.execute("SELECT 1 FROM sqlite_master WHERE name = 'legal_holds'").fetchone():
        held = newer.execute(f"SELECT {_HOLDS} FROM legal_holds WHERE released_at IS NULL")  # noqa: S608  (a constant)
        _insert(connection, "legal_holds", _HOLDS, [row for row in held if row[0] in ours])
    done = set(connection.execute("SELECT workspace, privacy_request_id FROM privacy_reports"))
    for row in newer.execute(f"SELECT {_REQUESTS} FROM privacy_requests ORDER BY workspace, privacy_request_id"):  # noqa: S608  (a constant)
        workspace, request_id = row[:2]
        if workspace not in ours or (workspace, request_id) in done:
            continue  # what was reported before the cut was erased before it, in every store
        _insert(connection, "privacy_requests", _REQUESTS, [row])
        taken[workspace] = taken.get(workspace, 0) + 1
        _withdraw(connection, newer, workspace, request_id)
    return taken


def _withdraw(connection: sqlite3.Connection, newer: sqlite3.Connection, workspace: str, request_id: str) -> None:
    """Take over the consents that an erasure withdrew, as the ledger's newest entries."""
    known = {row[0] for row in connection.execute("SELECT consent_id FROM consents WHERE workspace = ?", (workspace,))}
    found = newer.execute(
        f"SELECT {_CONSENTS} FROM consents WHERE workspace = ? AND evidence = ? ORDER BY revision",  # noqa: S608  (a constant)
        (workspace, f"privacy-requests/{request_id}"),
    )
    withdrawn = [row for row in found if row[1] not in known]
    if not withdrawn:
        return
    head = connection.execute("SELECT revision FROM consent_ledgers WHERE workspace = ?", (workspace,)).fetchone()
    first = (head[0] if head else 0) + 1
    numbered = [(*row, first + place) for place, row in enumerate(withdrawn)]
    _insert(connection, "consents", f"{_CONSENTS}, revision", numbered)
    connection.execute(
        "INSERT INTO consent_ledgers (workspace, revision) VALUES (?, ?)"
        " ON CONFLICT (workspace) DO UPDATE SET revision = excluded.revision",
        (workspace, first + len(withdrawn) - 1),
    )


def _insert(connection: sqlite3.Connection, table: str, columns: str, rows: Iterable[tuple[Any, ...]]) -> None:
    places = ", ".join("?" for _ in columns.split(","))
    connection.executemany(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({places})", rows)  # noqa: S608  (constants)
