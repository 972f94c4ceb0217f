"""What the rules of contracts need from storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from counterfoil_contracts.entities import CompiledDataset, Contract, ContractVersion, GovernedDataset, VersionSummary
from counterfoil_contracts.evolution import ChangelogEntry, Consumer


class ContractStore(Protocol):
    """Contracts and their versions of one transaction; the caller opens and commits it."""

    async def exists(self, workspace: str, contract_id: str) -> bool:
        """Tell whether the workspace has such a contract."""

    async def get(self, workspace: str, contract_id: str) -> Contract:
        """Return one contract; raise ContractNotFoundError when absent or in another workspace."""

    async def list(self, workspace: str, *, after: str, limit: int) -> Sequence[Contract]:
        """Return at most `limit` contracts with ids above `after`, by id."""

    async def find_version(self, workspace: str, contract_id: str, version: str) -> ContractVersion | None:
        """Return one version with document and schemas, or None."""

    async def version_in_force(self, workspace: str, contract_id: str) -> ContractVersion | None:
        """Return the version in force with document and schemas, or None."""

    async def list_versions(
        self, workspace: str, contract_id: str, *, after: int, limit: int
    ) -> Sequence[VersionSummary]:
        """Return at most `limit` versions numbered above `after`, oldest first, without documents and schemas."""

    async def add_version(self, version: ContractVersion, *, shipped: bool) -> None:
        """Keep a new version, and its contract if it is the first; `shipped` counts for a new contract only."""

    async def save_state(self, version: ContractVersion) -> None:
        """Keep where a version is in its life: state, reason, times, change, and whether it is in force.

        Of a contract at most one version is in force, and one active: take the other out first.
        """

    async def proposed(self) -> Sequence[ContractVersion]:
        """Return every workspace's proposed versions, with documents and schemas."""


class ConsumerStore(Protocol):
    """Who reads which fields, of one transaction; the caller opens and commits it."""

    async def get(self, workspace: str, consumer_id: str) -> Consumer:
        """Return one consumer; raise ConsumerNotFoundError when absent or in another workspace."""

    async def find(self, workspace: str, *, service: str, name: str, dataset: str) -> Consumer | None:
        """Return the consumer of a service (`""`: registered by somebody) with this name and dataset, or None."""

    async def list(
        self, workspace: str, *, dataset: str, after: tuple[str, str, str], limit: int
    ) -> Sequence[Consumer]:
        """Return at most `limit` consumers above (name, dataset, id) `after`, in order; an empty dataset means all."""

    async def readers(self, workspace: str, datasets: Sequence[str]) -> Sequence[Consumer]:
        """Return all that read one of the datasets, by name, dataset and id."""

    async def of_service(self, workspace: str, service: str) -> Sequence[Consumer]:
        """Return all that a service reads."""

    async def count(self, workspace: str) -> int:
        """Return how many somebody registered."""

    async def put(self, consumer: Consumer) -> None:
        """Keep a consumer, in place of the one with its id."""

    async def remove(self, consumer: Consumer) -> None:
        """Forget a consumer."""


class ChangelogStore(Protocol):
    """What was done to contracts, of one transaction; entries are only added."""

    async def add(self, entry: ChangelogEntry) -> None:
        """Keep an entry under the contract's next number."""

    async def list(self, workspace: str, contract_id: str, *, before: int, limit: int) -> Sequence[ChangelogEntry]:
        """Return at most `limit` entries numbered below `before` (0 = all), newest first."""

    async def withdrawn(self, workspace: str, contract_id: str, version: str) -> int:
        """Return how often a version was withdrawn."""


class GovernedDatasetStore(Protocol):
    """Which contract version governs each dataset; changes reach the watchers once the transaction commits."""

    async def find(self, workspace: str, dataset: str) -> GovernedDataset | None:
        """Return what governs a dataset, or None."""

    async def put(self, version: ContractVersion, compiled: CompiledDataset) -> None:
        """Let a version govern one of its datasets from now on."""

    async def delete(self, workspace: str, dataset: str) -> None:
        """Let nothing govern a dataset any more."""


class Audit(Protocol):
    """Where audit entries are written, which reach the audit log once the transaction commits."""

    async def record(
        self, *, workspace: str, principal: str, action: str, resource: str, details: Mapping[str, Any]
    ) -> None:
        """Write an entry of what a principal did to a resource; the details are JSON without personal data."""


@dataclass(frozen=True)
class Stores:
    """Every store of one open transaction."""

    contracts: ContractStore
    governed: GovernedDatasetStore
    audit: Audit
    consumers: ConsumerStore
    changelog: ChangelogStore


class Transactions(Protocol):
    """Opens transactions."""

    def begin(self) -> AbstractAsyncContextManager[Stores]:
        """Open a transaction that writes; it commits at exit and rolls back on an error."""

    def read(self) -> AbstractAsyncContextManager[Stores]:
        """Open a transaction that reads one state."""
