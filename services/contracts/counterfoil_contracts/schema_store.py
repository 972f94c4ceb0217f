"""What the rules of schema subjects need from storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from counterfoil_contracts.schema_entities import (
    KeptSchema,
    Reference,
    SchemaContent,
    SchemaVersion,
    SubjectSettings,
    VersionOfSubject,
)
from counterfoil_contracts.store import Audit


class SchemaStore(Protocol):
    """Schemas, subjects and their settings of one transaction; the caller opens and commits it."""

    async def find_schema(self, workspace: str, schema_id: int) -> KeptSchema | None:
        """Return a schema by its number, or None."""

    async def find_content(self, workspace: str, guid: str) -> KeptSchema | None:
        """Return the schema with this content, or None."""

    async def add_schema(self, workspace: str, content: SchemaContent, *, schema_id: int, at: datetime) -> KeptSchema:
        """Keep a schema under a number that is free, or under the next one for 0."""

    async def versions_of(self, workspace: str, subject: str) -> Sequence[VersionOfSubject]:
        """Return every version of a subject, those that were softly deleted, too, in ascending order."""

    async def get_version(self, workspace: str, subject: str, version: int) -> SchemaVersion:
        """Return one version that is there, with its schema."""

    async def schemas(self, workspace: str, schema_ids: Sequence[int]) -> Mapping[int, KeptSchema]:
        """Return the schemas with these numbers."""

    async def put_version(self, workspace: str, version: VersionOfSubject, *, created_by: str, at: datetime) -> None:
        """Keep a version, or take a softly deleted one back."""

    async def delete_softly(self, workspace: str, subject: str, versions: Sequence[int]) -> None:
        """Mark versions as deleted."""

    async def delete(self, workspace: str, subject: str, versions: Sequence[int]) -> None:
        """Delete versions for good, and the schemas that no version is any more."""

    async def subjects(
        self, workspace: str, *, prefix: str, with_deleted: bool, only_deleted: bool, offset: int, limit: int
    ) -> Sequence[str]:
        """Return subjects by name: those with a version, `with_deleted` or `only_deleted` those without one, too."""

    async def versions_with(
        self, workspace: str, schema_id: int, *, subject: str, with_deleted: bool, offset: int, limit: int
    ) -> Sequence[VersionOfSubject]:
        """Return the versions that are a schema, by subject, of one subject unless it is empty."""

    async def referring(
        self, workspace: str, reference: Reference, *, with_deleted: bool, offset: int, limit: int
    ) -> Sequence[int]:
        """Return the numbers of the schemas that refer to a version and are versions themselves; the name is free."""

    async def settings(self, workspace: str, subject: str) -> SubjectSettings:
        """Return what was said of a subject, or of every subject."""

    async def put_settings(self, workspace: str, subject: str, settings: SubjectSettings) -> None:
        """Keep what is said of a subject from now on."""

    async def has_schemas(self, workspace: str, subject: str) -> bool:
        """Say whether a subject, or the workspace, has a version that is not deleted."""


@dataclass(frozen=True)
class SchemaStores:
    """The stores of one open transaction."""

    schemas: SchemaStore
    audit: Audit


class SchemaTransactions(Protocol):
    """Opens transactions."""

    def begin(self) -> AbstractAsyncContextManager[SchemaStores]:
        """Open a transaction that writes; it commits at exit and rolls back on an error."""

    def read(self) -> AbstractAsyncContextManager[SchemaStores]:
        """Open a transaction that reads one state."""
