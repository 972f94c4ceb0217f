"""What a contract version changes, whom that breaks, and what was done to a contract."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from counterfoil_contracts.entities import Break, ContractVersion, GovernedDataset, Verdict


class Level(enum.Enum):
    """How much a version changes: the part of its number that has to rise."""

    PATCH = "patch"
    MINOR = "minor"
    MAJOR = "major"


class FieldFate(enum.Enum):
    """What becomes of a field."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True)
class FieldChange:
    """What becomes of one field of a dataset; `path` is a JSON path."""

    dataset: str
    path: str
    fate: FieldFate


@dataclass(frozen=True)
class Consumer:
    """Who reads which fields of a dataset.

    No `fields` means the whole record, an empty `version_range` whichever version is in force. `service` is empty for
    one that somebody registered.
    """

    workspace: str
    consumer_id: str
    name: str
    dataset: str
    fields: tuple[str, ...]
    version_range: str
    owner: str
    contact: str
    service: str
    registered_by: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class BrokenConsumer:
    """A consumer that a version breaks, or, when unproven, might break; a break that no record shows has no witness."""

    consumer: Consumer
    verdict: Verdict
    breaks: tuple[Break, ...]


@dataclass(frozen=True)
class VersionComparison:
    """How a version compares with the one in force; without one `level` is None, and nothing can break.

    `needed_version` is empty when any number will do: nothing is in force, or it was in force before.
    """

    in_force_version: str = ""
    level: Level | None = None
    needed_version: str = ""
    version_suffices: bool = True
    broken: tuple[BrokenConsumer, ...] = ()
    fields: tuple[FieldChange, ...] = ()
    dropped_datasets: tuple[str, ...] = ()

    @property
    def needs_approval(self) -> bool:
        """Tell whether a second person has to approve it."""
        return bool(self.broken)


@dataclass(frozen=True)
class Situation:
    """All that a version is judged by, as it is in one state of the store: equal situations get equal verdicts."""

    version: ContractVersion
    in_force: ContractVersion | None
    governed: tuple[GovernedDataset, ...]
    """What governs those of the version's datasets that are governed."""
    consumers: tuple[Consumer, ...]
    """Those that read the datasets of the version in force, by name."""


class ChangelogAction(enum.Enum):
    """What was done to a contract."""

    SUBMITTED = "submitted"
    PROPOSED = "proposed"
    WITHDRAWN = "withdrawn"
    ACTIVATED = "activated"
    REVERTED = "reverted"
    DEPRECATED = "deprecated"
    RETIRED = "retired"


@dataclass(frozen=True)
class ChangelogEntry:
    """One thing that was done to a contract; `number` counts from 1, 0 before it is kept."""

    workspace: str
    contract_id: str
    version: str
    action: ChangelogAction
    principal: str
    at: datetime
    number: int = 0
    reason: str = ""
    previous_version: str = ""
    change_id: str = ""
    level: Level | None = None
    fields: tuple[FieldChange, ...] = ()
    consumers: tuple[str, ...] = ()
    sunset_at: datetime | None = None
