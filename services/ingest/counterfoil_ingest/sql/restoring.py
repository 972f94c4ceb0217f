"""What a backup says of the log, and what a restore changes in it: a new life that continues the one backed up."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from counterfoil.governance.v1 import audit_pb2
from counterfoil_chassis import audit
from counterfoil_chassis.canonical import canonical_json
from counterfoil_chassis.clock import from_micros, to_timestamp
from counterfoil_chassis.stores import Restored

from counterfoil_ingest.lineage import Predecessor, from_text, to_text

PRINCIPAL = "service:ingest"
ACTION = "installation.restore"

_HEADS = "SELECT workspace, partition, max(first_offset + count) FROM log_block GROUP BY workspace, partition"


def describe(connection: sqlite3.Connection) -> Mapping[str, Any]:
    """Return the life of the log, its erasure revision, and the heads per workspace and partition."""
    state = _state(connection)
    heads: dict[str, dict[str, int]] = {}
    for workspace, partition, head in connection.execute(_HEADS):
        heads.setdefault(workspace, {})[str(partition)] = head
    return {
        "log_epoch": state.get("epoch", ""),
        "predecessors": [life.epoch for life in from_text(state.get("predecessors", "[]"))],
        "erasure_revision": int(state.get("erasure_revision", "0")),
        "heads": heads,
    }


def restore(connection: sqlite3.Connection, restored: Restored) -> None:
    """Begin a new life of the log, and have the restore told to every workspace's audit log."""
    state = _state(connection)
    heads = {(workspace, partition): head for workspace, partition, head in connection.execute(_HEADS)}
    lives = from_text(state.get("predecessors", "[]"))
    if epoch := state.get("epoch"):
        lives = (*lives, Predecessor(epoch, int(state["erasure_revision"]), restored.now_us, heads))
    changed = {"epoch": restored.log_epoch, "predecessors": to_text(lives)}
    connection.executemany("INSERT OR REPLACE INTO log_state (name, value) VALUES (?, ?)", changed.items())
    for workspace in restored.workspaces:
        entry = audit_pb2.NewAuditEntry(
            workspace=workspace,
            entry_id=restored.new_id(),
            happened_at=to_timestamp(from_micros(restored.now_us)),
            principal=PRINCIPAL,
            action=ACTION,
            resource="installation",
            details=canonical_json(
                {
                    "backup_taken_at": restored.backup_taken_at,
                    "log_epoch": restored.log_epoch,
                    "previous_log_epoch": epoch or "",
                    "heads": {str(place[1]): head for place, head in sorted(heads.items()) if place[0] == workspace},
                    "erasures_to_repeat": restored.erasures.get(workspace, 0),
                }
            ),
        )
        connection.execute(
            "INSERT INTO outbox (topic, payload, traceparent, created_us) VALUES (?, ?, '', ?)",
            (audit.TOPIC, entry.SerializeToString(), restored.now_us),
        )


def _state(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT name, value FROM log_state"))
