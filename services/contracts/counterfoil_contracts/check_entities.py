"""Checks of recent records, and what a profile tells of them."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from counterfoil_contracts.entities import CompiledDataset


class CheckState(enum.Enum):
    """Where a check is."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class TrialSubject:
    """The contract version that is tried; its document need not have been submitted."""

    contract_id: str
    version: str
    document_sha256: str


@dataclass(frozen=True)
class ProfileSubject:
    """Whose records are described; an empty `type` or `event` fits any."""

    dataset: str
    type: str = ""
    event: str = ""


@dataclass(frozen=True)
class Check:
    """A check; `result` is what ingest reported of one that is finished, as it reported it."""

    workspace: str
    check_id: str
    state: CheckState
    subject: TrialSubject | ProfileSubject
    records: int
    created_by: str
    created_at: datetime
    finished_at: datetime | None = None
    result: bytes = b""


@dataclass(frozen=True)
class Wanted:
    """A check that waits to be run, with what a trial holds records against; empty = a profile."""

    check: Check
    compiled: tuple[CompiledDataset, ...] = ()


@dataclass(frozen=True)
class FieldProfile:
    """What one field of recent records looks like; `path` is a JSON path, `[*]` any item of an array.

    `types` and `values` are told with how often each was seen, the commonest first. `values` is empty where they are
    many or personal.
    """

    path: str
    parents: int
    present: int
    nulls: int
    types: tuple[tuple[str, int], ...]
    format: str = ""
    values: tuple[tuple[str, int], ...] = ()
    distinct: int = 0
    minimum: float = 0.0
    maximum: float = 0.0
    personal: str = ""


@dataclass(frozen=True)
class DatasetProfile:
    """What a dataset's recent records look like, parents before their children."""

    dataset: str
    records: int
    fields: tuple[FieldProfile, ...]
