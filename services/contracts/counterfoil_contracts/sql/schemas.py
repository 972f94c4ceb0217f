"""Schemas, subjects and their settings in SQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import orjson
from counterfoil_chassis.audit import AuditTrail
from counterfoil_chassis.clock import from_micros, to_micros
from counterfoil_chassis.database import Database
from sqlalchemy import ColumnElement, Row, and_, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_contracts.schema_entities import (
    EVERY_SUBJECT,
    CompatibilityLevel,
    KeptSchema,
    Mode,
    Policy,
    Reference,
    SchemaContent,
    SchemaVersion,
    SubjectSettings,
    VersionOfSubject,
)
from counterfoil_contracts.schema_store import SchemaStores
from counterfoil_contracts.sql.audit import SqlAudit
from counterfoil_contracts.sql.registry_tables import (
    SCHEMA_IDS,
    SCHEMA_REFERENCES,
    SCHEMA_VERSIONS,
    SCHEMAS,
    SUBJECT_SETTINGS,
)

_ONE_VERSION = and_(
    SCHEMAS.c.workspace == SCHEMA_VERSIONS.c.workspace, SCHEMAS.c.schema_id == SCHEMA_VERSIONS.c.schema_id
)


class SqlSchemaTransactions:
    """Opens transactions on the database of contracts with the stores of schemas bound to them."""

    def __init__(self, database: Database, trail: AuditTrail) -> None:
        self._database = database
        self._trail = trail

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[SchemaStores]:
        """Open a transaction that writes; it commits at exit and rolls back on an error."""
        async with self._database.begin() as connection:
            yield SchemaStores(SqlSchemas(connection), SqlAudit(connection, self._trail))

    @asynccontextmanager
    async def read(self) -> AsyncIterator[SchemaStores]:
        """Open a transaction that reads one state."""
        async with self._database.read() as connection:
            yield SchemaStores(SqlSchemas(connection), SqlAudit(connection, self._trail))


class SqlSchemas:
    """Schemas of one open connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def find_schema(self, workspace: str, schema_id: int) -> KeptSchema | None:
        """Return a schema by its number, or None."""
        return (await self.schemas(workspace, [schema_id])).get(schema_id)

    async def find_content(self, workspace: str, guid: str) -> KeptSchema | None:
        """Return the schema with this content, or None."""
        query = select(SCHEMAS).where(SCHEMAS.c.workspace == workspace, SCHEMAS.c.guid == guid)
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else _schema(row)

    async def schemas(self, workspace: str, schema_ids: Sequence[int]) -> Mapping[int, KeptSchema]:
        """Return the schemas with these numbers."""
        query = select(SCHEMAS).where(SCHEMAS.c.workspace == workspace, SCHEMAS.c.schema_id.in_(schema_ids))
        return {row.schema_id: _schema(row) for row in await self._connection.execute(query)}

    async def add_schema(self, workspace: str, content: SchemaContent, *, schema_id: int, at: datetime) -> KeptSchema:
        """Keep a schema under a number that is free, or under the next one for 0."""
        number = await self._number(workspace, schema_id)
        await self._connection.execute(
            insert(SCHEMAS).values(
                workspace=workspace,
                schema_id=number,
                guid=content.guid,
                text=content.text,
                refs=orjson.dumps([[each.name, each.subject, each.version] for each in content.references]),
                metadata=content.metadata,
                rule_set=content.rule_set,
                created_at=to_micros(at),
            )
        )
        referred = {(each.subject, each.version) for each in content.references}
        for subject, version in sorted(referred):
            values = {"workspace": workspace, "subject": subject, "version": version, "schema_id": number}
            await self._connection.execute(insert(SCHEMA_REFERENCES).values(values))
        return KeptSchema(number, content)

    async def _number(self, workspace: str, wanted: int) -> int:
        """Return the number to give, and see to it that it is never given again."""
        place = SCHEMA_IDS.c.workspace == workspace
        following = (await self._connection.execute(select(SCHEMA_IDS.c.next_id).where(place))).scalar()
        number = wanted or following or 1
        after = max(following or 1, number + 1)
        if following is None:
            await self._connection.execute(insert(SCHEMA_IDS).values(workspace=workspace, next_id=after))
        elif after != following:
            await self._connection.execute(update(SCHEMA_IDS).where(place).values(next_id=after))
        return number

    async def versions_of(self, workspace: str, subject: str) -> Sequence[VersionOfSubject]:
        """Return every version of a subject, those that were softly deleted, too, in ascending order."""
        query = select(SCHEMA_VERSIONS).where(_of(workspace, subject)).order_by(SCHEMA_VERSIONS.c.version)
        return [_version(row) for row in await self._connection.execute(query)]

    async def get_version(self, workspace: str, subject: str, version: int) -> SchemaVersion:
        """Return one version that is there, with its schema."""
        query = (
            select(SCHEMAS, *(SCHEMA_VERSIONS.c[name] for name in ("deleted", "created_by")))
            .add_columns(SCHEMA_VERSIONS.c.created_at.label("registered_at"))
            .join(SCHEMA_VERSIONS, _ONE_VERSION)
            .where(_of(workspace, subject), SCHEMA_VERSIONS.c.version == version)
        )
        row = (await self._connection.execute(query)).one()
        return SchemaVersion(
            workspace=workspace,
            subject=subject,
            version=version,
            schema=_schema(row),
            deleted=row.deleted,
            created_by=row.created_by,
            created_at=from_micros(row.registered_at),
        )

    async def put_version(self, workspace: str, version: VersionOfSubject, *, created_by: str, at: datetime) -> None:
        """Keep a version, or take a softly deleted one back."""
        place = and_(_of(workspace, version.subject), SCHEMA_VERSIONS.c.version == version.version)
        await self._connection.execute(delete(SCHEMA_VERSIONS).where(place))
        await self._connection.execute(
            insert(SCHEMA_VERSIONS).values(
                workspace=workspace,
                subject=version.subject,
                version=version.version,
                schema_id=version.schema_id,
                deleted=version.deleted,
                created_by=created_by,
                created_at=to_micros(at),
            )
        )

    async def delete_softly(self, workspace: str, subject: str, versions: Sequence[int]) -> None:
        """Mark versions as deleted."""
        place = and_(_of(workspace, subject), SCHEMA_VERSIONS.c.version.in_(versions))
        await self._connection.execute(update(SCHEMA_VERSIONS).where(place).values(deleted=True))

    async def delete(self, workspace: str, subject: str, versions: Sequence[int]) -> None:
        """Delete versions for good, and the schemas that no version is any more."""
        place = and_(_of(workspace, subject), SCHEMA_VERSIONS.c.version.in_(versions))
        gone = set((await self._connection.execute(select(SCHEMA_VERSIONS.c.schema_id).where(place))).scalars())
        await self._connection.execute(delete(SCHEMA_VERSIONS).where(place))
        for schema_id in gone:
            used = select(SCHEMA_VERSIONS.c.version).where(
                SCHEMA_VERSIONS.c.workspace == workspace, SCHEMA_VERSIONS.c.schema_id == schema_id
            )
            if (await self._connection.execute(used.limit(1))).first() is None:
                for table in (SCHEMAS, SCHEMA_REFERENCES):
                    mine = and_(table.c.workspace == workspace, table.c.schema_id == schema_id)
                    await self._connection.execute(delete(table).where(mine))

    async def subjects(
        self, workspace: str, *, prefix: str, with_deleted: bool, only_deleted: bool, offset: int, limit: int
    ) -> Sequence[str]:
        """Return subjects by name: those with a version, `with_deleted` or `only_deleted` those without one, too."""
        subject = SCHEMA_VERSIONS.c.subject
        query = select(subject).where(SCHEMA_VERSIONS.c.workspace == workspace).group_by(subject).order_by(subject)
        if prefix:
            query = query.where(func.substr(subject, 1, len(prefix)) == prefix)
        left = func.count().filter(SCHEMA_VERSIONS.c.deleted.is_(False))
        if only_deleted:
            query = query.having(left == 0)
        elif not with_deleted:
            query = query.having(left > 0)
        return list((await self._connection.execute(query.offset(offset).limit(limit))).scalars())

    async def versions_with(
        self, workspace: str, schema_id: int, *, subject: str, with_deleted: bool, offset: int, limit: int
    ) -> Sequence[VersionOfSubject]:
        """Return the versions that are a schema, by subject, of one subject unless it is empty."""
        query = select(SCHEMA_VERSIONS).where(
            SCHEMA_VERSIONS.c.workspace == workspace, SCHEMA_VERSIONS.c.schema_id == schema_id
        )
        if subject:
            query = query.where(SCHEMA_VERSIONS.c.subject == subject)
        if not with_deleted:
            query = query.where(SCHEMA_VERSIONS.c.deleted.is_(False))
        query = query.order_by(SCHEMA_VERSIONS.c.subject, SCHEMA_VERSIONS.c.version).offset(offset).limit(limit)
        return [_version(row) for row in await self._connection.execute(query)]

    async def referring(
        self, workspace: str, reference: Reference, *, with_deleted: bool, offset: int, limit: int
    ) -> Sequence[int]:
        """Return the numbers of the schemas that refer to a version and are versions themselves; the name is free."""
        is_version = and_(
            SCHEMA_VERSIONS.c.workspace == SCHEMA_REFERENCES.c.workspace,
            SCHEMA_VERSIONS.c.schema_id == SCHEMA_REFERENCES.c.schema_id,
        )
        query = (
            select(SCHEMA_REFERENCES.c.schema_id)
            .distinct()
            .join(SCHEMA_VERSIONS, is_version)
            .where(
                SCHEMA_REFERENCES.c.workspace == workspace,
                SCHEMA_REFERENCES.c.subject == reference.subject,
                SCHEMA_REFERENCES.c.version == reference.version,
            )
            .order_by(SCHEMA_REFERENCES.c.schema_id)
        )
        if not with_deleted:
            query = query.where(SCHEMA_VERSIONS.c.deleted.is_(False))
        return list((await self._connection.execute(query.offset(offset).limit(limit))).scalars())

    async def settings(self, workspace: str, subject: str) -> SubjectSettings:
        """Return what was said of a subject, or of every subject."""
        query = select(SUBJECT_SETTINGS).where(_settings_of(workspace, subject))
        row = (await self._connection.execute(query)).one_or_none()
        if row is None:
            return SubjectSettings()
        return SubjectSettings(
            level=CompatibilityLevel(row.level) if row.level else None,
            policy=Policy(row.policy) if row.policy else None,
            normalize=row.normalize,
            compatibility_group=row.compatibility_group or None,
            mode=Mode(row.mode) if row.mode else None,
        )

    async def put_settings(self, workspace: str, subject: str, settings: SubjectSettings) -> None:
        """Keep what is said of a subject from now on."""
        await self._connection.execute(delete(SUBJECT_SETTINGS).where(_settings_of(workspace, subject)))
        if not settings.says_config and settings.mode is None:
            return
        await self._connection.execute(
            insert(SUBJECT_SETTINGS).values(
                workspace=workspace,
                subject=subject,
                level=settings.level.value if settings.level else "",
                policy=settings.policy.value if settings.policy else "",
                normalize=settings.normalize,
                compatibility_group=settings.compatibility_group or "",
                mode=settings.mode.value if settings.mode else "",
            )
        )

    async def has_schemas(self, workspace: str, subject: str) -> bool:
        """Say whether a subject, or the workspace, has a version that is not deleted."""
        query = select(SCHEMA_VERSIONS.c.version).where(
            SCHEMA_VERSIONS.c.workspace == workspace, SCHEMA_VERSIONS.c.deleted.is_(False)
        )
        if subject != EVERY_SUBJECT:
            query = query.where(SCHEMA_VERSIONS.c.subject == subject)
        return (await self._connection.execute(query.limit(1))).first() is not None


def _of(workspace: str, subject: str) -> ColumnElement[bool]:
    return and_(SCHEMA_VERSIONS.c.workspace == workspace, SCHEMA_VERSIONS.c.subject == subject)


def _settings_of(workspace: str, subject: str) -> ColumnElement[bool]:
    return and_(SUBJECT_SETTINGS.c.workspace == workspace, SUBJECT_SETTINGS.c.subject == subject)


def _schema(row: Row[Any]) -> KeptSchema:
    references = tuple(Reference(*each) for each in orjson.loads(row.refs))
    return KeptSchema(row.schema_id, SchemaContent(row.text, references, row.metadata, row.rule_set, row.guid))


def _version(row: Row[Any]) -> VersionOfSubject:
    return VersionOfSubject(row.subject, row.version, row.schema_id, row.deleted)
