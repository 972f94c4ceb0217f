"""What the rules of contracts need from storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from counterfoil_contracts.entities import CompiledDataset, Contract, ContractVersion, GovernedDataset, VersionSummary


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

    async def active_version(self, workspace: str, contract_id: str) -> ContractVersion | None:
        """Return the version in force with document and schemas, or None."""

    async def list_versions(
        self, workspace: str, contract_id: str, *, after: int, limit: int
    ) -> Sequence[VersionSummary]:
        """Return at most `limit` versions numbered above `after`, oldest first, without documents and schemas."""

    async def add_version(self, version: ContractVersion, *, shipped: bool) -> None:
        """Keep a new version, and its contract if it is the first; `shipped` counts for a new contract only."""

    async def deprecate(self, version: ContractVersion) -> None:
        """Take the version in force out of force."""

    async def activate(self, version: ContractVersion, *, reason: str, at: datetime) -> None:
        """Put a version in force; the one in force before was deprecated already."""


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


class Transactions(Protocol):
    """Opens transactions."""

    def begin(self) -> AbstractAsyncContextManager[Stores]:
        """Open a transaction that writes; it commits at exit and rolls back on an error."""

    def read(self) -> AbstractAsyncContextManager[Stores]:
        """Open a transaction that reads one state."""
