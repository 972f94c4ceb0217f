"""The consent ledger in SQL; triggers refuse any change of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from counterfoil_chassis.clock import from_micros, to_micros
from sqlalchemy import Row, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_governance.entities import EMPTY_LEDGER, Consent, ConsentBasis, ConsentState
from counterfoil_governance.sql.tables import CONSENT_LEDGERS, CONSENTS

_PARAMETERS: Final = 5_000
"""Bound values of one query; SQLite takes 32,766 and PostgreSQL 65,535."""
_columns = CONSENTS.c


class SqlConsents:
    """The ledger of one open connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def revision(self, workspace: str) -> int:
        """Return the revision of a ledger; it begins at EMPTY_LEDGER."""
        query = select(CONSENT_LEDGERS.c.revision).where(CONSENT_LEDGERS.c.workspace == workspace)
        return (await self._connection.execute(query)).scalar() or EMPTY_LEDGER

    async def lock(self, workspace: str) -> int:
        """Return the revision, and let nobody else record until the transaction ends."""
        insert_row = postgresql.insert if self._connection.dialect.name == "postgresql" else sqlite.insert
        taken = insert_row(CONSENT_LEDGERS).values(workspace=workspace, revision=EMPTY_LEDGER)
        taken = taken.on_conflict_do_update(
            index_elements=[CONSENT_LEDGERS.c.workspace], set_={"revision": CONSENT_LEDGERS.c.revision}
        )
        revision: int = (await self._connection.execute(taken.returning(CONSENT_LEDGERS.c.revision))).scalar_one()
        return revision

    async def known(self, workspace: str, contents: Sequence[bytes]) -> frozenset[bytes]:
        """Return which of these contents are recorded."""
        found: set[bytes] = set()
        for part in _parts(contents):
            query = select(_columns.content).where(_columns.workspace == workspace, _columns.content.in_(part))
            found.update(row.content for row in await self._connection.execute(query))
        return frozenset(found)

    async def of_subjects(
        self, workspace: str, subjects: Sequence[bytes], *, purpose: str, revision: int
    ) -> Sequence[Consent]:
        """Return what was recorded of these subjects for one purpose ("" = for all), up to a revision."""
        found: list[Consent] = []
        for part in _parts(subjects):
            query = select(CONSENTS).where(
                _columns.workspace == workspace, _columns.subject.in_(part), _columns.revision <= revision
            )
            if purpose:
                query = query.where(_columns.purpose == purpose)
            found += [_consent(row) for row in await self._connection.execute(query)]
        return found

    async def list(
        self, workspace: str, subject: bytes, *, purpose: str, below: int | None, limit: int
    ) -> Sequence[Consent]:
        """Return at most `limit` records of a subject below a revision, newest first; `purpose` "" = for all."""
        query = select(CONSENTS).where(_columns.workspace == workspace, _columns.subject == subject)
        if purpose:
            query = query.where(_columns.purpose == purpose)
        if below is not None:
            query = query.where(_columns.revision < below)
        query = query.order_by(_columns.revision.desc()).limit(limit)
        return [_consent(row) for row in await self._connection.execute(query)]

    async def add(self, consents: Sequence[Consent]) -> None:
        """Append records with their revisions to a locked ledger."""
        if not consents:
            return
        values = [
            {
                "workspace": consent.workspace,
                "revision": consent.revision,
                "consent_id": consent.consent_id,
                "subject": consent.subject,
                "purpose": consent.purpose,
                "state": consent.state.value,
                "basis": consent.basis.value,
                "happened_at": to_micros(consent.happened_at),
                "expires_at": None if consent.expires_at is None else to_micros(consent.expires_at),
                "evidence": consent.evidence,
                "content": consent.content,
                "recorded_at": to_micros(consent.recorded_at),
                "recorded_by": consent.recorded_by,
            }
            for consent in consents
        ]
        await self._connection.execute(insert(CONSENTS), values)
        newest = max(consent.revision for consent in consents)
        place = CONSENT_LEDGERS.c.workspace == consents[0].workspace
        await self._connection.execute(update(CONSENT_LEDGERS).where(place).values(revision=newest))


def _parts(values: Sequence[bytes]) -> list[Sequence[bytes]]:
    return [values[begin : begin + _PARAMETERS] for begin in range(0, len(values), _PARAMETERS)]


def _consent(row: Row[Any]) -> Consent:
    return Consent(
        workspace=row.workspace,
        consent_id=row.consent_id,
        subject=row.subject,
        purpose=row.purpose,
        state=ConsentState(row.state),
        basis=ConsentBasis(row.basis),
        happened_at=from_micros(row.happened_at),
        expires_at=None if row.expires_at is None else from_micros(row.expires_at),
        evidence=row.evidence,
        content=row.content,
        recorded_at=from_micros(row.recorded_at),
        recorded_by=row.recorded_by,
        revision=row.revision,
    )
