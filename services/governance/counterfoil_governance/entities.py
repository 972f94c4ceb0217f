"""What governance's rules and stores share."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Workspace:
    """A tenant; `timezone` is an IANA name."""

    workspace_id: str
    display_name: str
    timezone: str
    created_at: datetime

    @property
    def etag(self) -> str:
        """Name the content: equal workspaces have equal etags."""
        content = f"{self.workspace_id}\n{self.timezone}\n{self.display_name}"
        return hashlib.sha256(content.encode()).hexdigest()[:32]


class PrincipalKind(enum.Enum):
    """A person or a program."""

    HUMAN = "human"
    PROGRAM = "program"


@dataclass(frozen=True)
class Principal:
    """A person or program of one workspace; `disabled_at` is None while it may act."""

    workspace: str
    principal_id: str
    display_name: str
    kind: PrincipalKind
    created_at: datetime
    disabled_at: datetime | None = None
    roles: tuple[str, ...] = ()
    """They bound the scopes of its keys; empty = not bound."""


@dataclass(frozen=True)
class Role:
    """A name for what a kind of principal may do."""

    role: str
    description: str
    scopes: frozenset[str]


@dataclass(frozen=True)
class Key:
    """An API key without the key: `secret_sha256` is its 32-byte digest, `last_four` its end ("" when never seen)."""

    workspace: str
    key_id: str
    principal_id: str
    display_name: str
    scopes: tuple[str, ...]
    secret_sha256: bytes
    last_four: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    bootstrap: bool = False

    def accepted(self, at: datetime) -> bool:
        """Tell whether it signs its principal in at this time."""
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)


@dataclass(frozen=True)
class ReceiptEntry:
    """One receipt of the ledger: its serialised bytes and what they are found by."""

    workspace: str
    receipt_id: str
    producer: str
    body: bytes

    @property
    def unique_id(self) -> str:
        """Return the UUIDv7 of the id: receipts of all producers sort by it in time."""
        return self.receipt_id.rpartition(".")[2]


@dataclass(frozen=True)
class NewAuditEntry:
    """Something that was done, not yet in a log; `details` is a JSON object without personal data."""

    workspace: str
    entry_id: str
    happened_at: datetime
    service: str
    principal: str
    action: str
    resource: str
    details: Mapping[str, Any]
    trace_id: str


@dataclass(frozen=True)
class AuditEntry:
    """One entry of a log: `body` is the RFC 8785 JSON that `leaf` is the hash of; the ids say what is in it."""

    index: int
    entry_id: str
    principal: str
    resource: str
    body: bytes
    leaf: bytes


@dataclass(frozen=True)
class AuditQuery:
    """Which entries to list: those of one resource, of one principal; "" = of all."""

    resource: str = ""
    principal: str = ""
    newest_first: bool = False


@dataclass(frozen=True)
class AuditHead:
    """How many entries and checkpoints a workspace's log has."""

    workspace: str
    size: int
    checkpoints: int


@dataclass(frozen=True)
class TreeNode:
    """The stored hash of a complete subtree: of the leaves [index << level, (index + 1) << level)."""

    level: int
    index: int
    hash: bytes


@dataclass(frozen=True)
class KeptCheckpoint:
    """A signed note (C2SP tlog-checkpoint) over the first `tree_size` entries, and the key that checks it."""

    tree_size: int
    note: str
    verifier_key: str
