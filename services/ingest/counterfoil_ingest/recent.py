"""The records of a dataset that came in last, and what a contract that is not in force would make of them.

What is told of them holds no value of a record: faults by place and reason, with how many records have each.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from counterfoil_ingest import blocks, validation
from counterfoil_ingest.entities import Finding, LogRecord
from counterfoil_ingest.registry import Compiled
from counterfoil_ingest.store import Log

MOST_FAULTS: Final = 50
_MOST_BLOCKS: Final = 20_000
_MOST_READ: Final = 64 << 20
"""Bytes of blocks that are looked at: a dataset may be rare in the log, and a check must not take minutes."""
_MOST_KEPT: Final = 32 << 20  # bytes of records

_INDEX: Final = re.compile(r"\[\d+\]")
_PERSONAL_KEY: Final = re.compile(r"\['[^']*(?:@|\d{6})[^']*'\]|\.[A-Za-z_]*\d{6}\w*")


@dataclass(frozen=True, slots=True)
class Recent:
    """Records of a dataset, oldest first; the offsets are 0 where there are none."""

    records: Sequence[LogRecord]

    @property
    def from_offset(self) -> int:
        """Return the offset of the oldest."""
        return self.records[0].offset if self.records else 0

    @property
    def next_offset(self) -> int:
        """Return the offset after the newest."""
        return self.records[-1].offset + 1 if self.records else 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records; an empty `type` or `event` fits any."""

    dataset: str
    most: int
    type: str = ""
    event: str = ""

    def fits(self, record: LogRecord) -> bool:
        """Tell whether a record is wanted."""
        if record.dataset != self.dataset:
            return False
        if not self.type and not self.event:
            return True
        value = orjson.loads(record.data)
        return self.type in ("", value.get("type")) and self.event in ("", value.get("event"))


def recent(log: Log, workspace: str, wanted: Wanted, *, partition: int = 0) -> Recent:
    """Return the newest records that are wanted, as far as they are found in the newest part of the log.

    It reads storage, and may take seconds: run it in a thread.
    """
    found: deque[LogRecord] = deque()
    end, looked_at, kept = log.next_offset(workspace, wanted.dataset), 0, 0
    for _ in range(_MOST_BLOCKS):
        if end <= 0 or len(found) >= wanted.most or looked_at > _MOST_READ or kept > _MOST_KEPT:
            break
        block = log.read(workspace, partition, end - 1, max_bytes=0)[0]
        some = [each for each in blocks.decode(block) if each.offset < end and wanted.fits(each)]
        found.extendleft(reversed(some[-(wanted.most - len(found)) :]))
        looked_at += len(block.payload)
        kept += sum(len(each.data) for each in some)
        end = block.first_offset
    return Recent(list(found))


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which records break a contract: how many do, and the offset of the newest."""

    path: str
    reason: str
    detail: str
    records: int
    offset: int


@dataclass(frozen=True, slots=True)
class Trial:
    """How many records were held against a contract, how many broke it, and how, the commonest first."""

    dataset: str
    tried: int
    failed: int
    faults: Sequence[Fault]
    from_offset: int
    next_offset: int


def try_on(found: Recent, compiled: Compiled) -> Trial:
    """Hold records against a contract that is not in force."""
    counts: Counter[tuple[str, str]] = Counter()
    newest: dict[tuple[str, str], tuple[Finding, int]] = {}
    failed = 0
    for record in found.records:
        findings = validation.contract_findings(compiled, orjson.loads(record.data), record.data)
        failed += bool(findings)
        told = {(anywhere(each.path), each.reason): each for each in findings}
        counts.update(told.keys())
        newest.update((place, (each, record.offset)) for place, each in told.items())
    faults = [
        Fault(path, reason, newest[path, reason][0].detail, count, newest[path, reason][1])
        for (path, reason), count in counts.most_common(MOST_FAULTS)
    ]
    return Trial(compiled.dataset, len(found.records), failed, faults, found.from_offset, found.next_offset)


def anywhere(path: str) -> str:
    """Return a JSON path with `[*]` for any item, and for a key that may name a person."""
    return _PERSONAL_KEY.sub("[*]", _INDEX.sub("[*]", path))
