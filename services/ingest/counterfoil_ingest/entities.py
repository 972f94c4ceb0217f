"""What the rules, the log and the servicers share. Times here are microseconds UTC, as they are stored.

What exists once per record is a frozen `msgspec.Struct`: it is made ten times faster than a frozen dataclass, and the
garbage collector need not look at it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

UNPLANNED = "unplanned"
"""The dataset of events that no mapping of their source names. It has no contract and takes any JSON object."""

MAX_RECORD_BYTES = 1 << 20
"""A larger record is quarantined as TOO_LARGE."""

MAX_DEPTH = 64
"""A record nested deeper is quarantined as TOO_DEEP."""


class Outcome(enum.IntEnum):
    """What became of one record; the numbers are those of `common.v1.Verdict.Outcome`."""

    ACCEPTED = 1
    DUPLICATE = 2
    QUARANTINED = 3
    RETRY = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of a record. `detail` never holds the record's own values."""

    reason: str
    path: str
    detail: str


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of one request that brought records. `contract_versions` is dataset -> version."""

    source_id: str
    received_at: int
    traceparent: str
    contract_versions: Mapping[str, str]


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """One record before its verdict.

    `data` is its JSON text in one line (or the bytes as they arrived, when they are no JSON), `value` the same parsed.
    A protocol that could not make a record of it says so in `findings`; it then goes to quarantine. `origin` is what
    was sent, parsed, where the protocol made another record of it: quarantine keeps that, not the mapped record.
    """

    record_id: str
    dataset: str
    data: bytes
    value: Any
    findings: tuple[Finding, ...] = ()
    origin: Any = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one request brings for one workspace and source."""

    workspace: str
    source_id: str
    received_at: int
    traceparent: str
    candidates: Sequence[Candidate]


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What became of one record. `offset` is -1 where there is no position in the log."""

    outcome: Outcome
    record_id: str
    dataset: str
    partition: int = 0
    offset: int = -1
    quarantine_id: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive records of one workspace as they lie in the log; `blocks.decode` opens it."""

    workspace: str
    partition: int
    first_offset: int
    count: int
    layout: int
    payload: bytes
    headers: tuple[Header, ...]

    @property
    def next_offset(self) -> int:
        """The offset after its last record."""
        return self.first_offset + self.count


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record of the log. `data` is its JSON text in one line."""

    offset: int
    dataset: str
    record_id: str
    data: bytes
    header: Header

    @property
    def contract_version(self) -> str:
        """The contract version it was validated under; empty when its dataset had no contract."""
        return self.header.contract_versions.get(self.dataset, "")


@dataclass(frozen=True, slots=True)
class DatasetCounts:
    """How much there is of one dataset. `last_received_at` is 0 when the log has none of it."""

    dataset: str
    records: int
    quarantined: int
    last_received_at: int


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One quarantined record; `raw` is empty in lists."""

    quarantine_id: str
    workspace: str
    dataset: str
    source_id: str
    record_id: str
    findings: tuple[Finding, ...]
    contract_id: str
    contract_version: str
    received_at: int
    traceparent: str
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class KeptContract:
    """One contract version as the contracts service sent it: a serialised `contracts.v1.CompiledContract`."""

    workspace: str
    dataset: str
    version: str
    in_force: bool
    message: bytes


@dataclass(frozen=True, slots=True)
class SourceMapping:
    """Which events go to a dataset; an empty `type` or `event` fits any."""

    type: str
    event: str
    dataset: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where events come from."""

    workspace: str
    source_id: str
    display_name: str
    protocol: str
    write_key_last_four: str
    created_at: int
    mappings: tuple[SourceMapping, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class WriteKey:
    """One accepted write key of a source; `valid_until` is 0 when it has no end."""

    secret_sha256: bytes
    workspace: str
    source_id: str
    valid_until: int
