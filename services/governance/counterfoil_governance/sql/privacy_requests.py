"""Privacy requests, their reports, and the feed of erasures in SQL."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from counterfoil.governance.v1 import privacy_requests_pb2 as pb
from counterfoil_chassis.clock import from_micros, to_micros, to_timestamp
from counterfoil_chassis.tables import TABLES
from counterfoil_chassis.watch import Feed, record_put
from sqlalchemy import ColumnElement, Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_governance.entities import ErasureReport, PrivacyRequest
from counterfoil_governance.errors import PrivacyRequestNotFoundError
from counterfoil_governance.sql.tables import PRIVACY_REPORTS, PRIVACY_REQUESTS

TOPIC: Final = "erasures"
_DIGEST_BYTES: Final = 32
_requests, _reports, _changes = PRIVACY_REQUESTS.c, PRIVACY_REPORTS.c, TABLES.change.c


class SqlPrivacyRequests:
    """Privacy requests of one open connection."""

    def __init__(self, connection: AsyncConnection, feed: Feed) -> None:
        self._connection = connection
        self._feed = feed

    async def get(self, workspace: str, privacy_request_id: str) -> PrivacyRequest:
        """Return one request with its reports; raise PrivacyRequestNotFoundError when it is not of this workspace."""
        found = await self._found(
            _requests.workspace == workspace, _requests.privacy_request_id == privacy_request_id, limit=1
        )
        if not found:
            raise PrivacyRequestNotFoundError(
                f"There is no privacy request {privacy_request_id!r} in this workspace.",
                metadata={"privacy_request_id": privacy_request_id},
            )
        return found[0]

    async def list(self, workspace: str, *, before: str, limit: int) -> Sequence[PrivacyRequest]:
        """Return at most `limit` requests with ids below `before` ("" = from the newest), newest first."""
        wanted = [_requests.workspace == workspace]
        if before:
            wanted.append(_requests.privacy_request_id < before)
        return await self._found(*wanted, limit=limit)

    async def add(self, request: PrivacyRequest) -> None:
        """Keep a new request."""
        values = {
            "workspace": request.workspace,
            "privacy_request_id": request.privacy_request_id,
            "kind": "erasure",
            "identifier_types": " ".join(request.identifier_types),
            "identifier_hashes": b"".join(request.identifier_hashes),
            "reference": request.reference,
            "created_by": request.created_by,
            "created_at": to_micros(request.created_at),
            "due_at": to_micros(request.due_at),
            "held_by": " ".join(request.held_by),
        }
        await self._connection.execute(insert(PRIVACY_REQUESTS).values(values))

    async def add_report(self, request: PrivacyRequest, report: ErasureReport) -> None:
        """Keep what a service did for a request."""
        values = {
            "workspace": request.workspace,
            "privacy_request_id": request.privacy_request_id,
            "service": report.service,
            "erased": json.dumps(dict(report.erased)),
            "completed_at": to_micros(report.completed_at),
        }
        await self._connection.execute(insert(PRIVACY_REPORTS).values(values))

    async def set_held(self, request: PrivacyRequest, legal_hold_ids: Sequence[str]) -> None:
        """Keep which legal holds a request waits for."""
        held = update(PRIVACY_REQUESTS).where(
            _requests.workspace == request.workspace, _requests.privacy_request_id == request.privacy_request_id
        )
        await self._connection.execute(held.values(held_by=" ".join(legal_hold_ids)))

    async def publish(self, request: PrivacyRequest, *, reported: bool) -> None:
        """Put an erasure in the feed, and whether every service has reported it.

        The key of the hashes is not stored beside them: whoever streams the feed adds it.
        """
        erasure = pb.Erasure(
            workspace=request.workspace,
            privacy_request_id=request.privacy_request_id,
            identifier_hashes=request.identifier_hashes,
            reported=reported,
            created_at=to_timestamp(request.created_at),
        )
        key = f"{request.workspace}/{request.privacy_request_id}"
        await record_put(self._connection, topic=TOPIC, key=key, resource=erasure)
        self._feed.changed(self._connection)

    async def with_news(self) -> Sequence[tuple[PrivacyRequest, bool | None]]:
        """Return every workspace's requests, and whether the feed says they are reported (None = it knows nothing)."""
        query = select(_changes.resource).where(_changes.topic == TOPIC, _changes.deleted.is_(False))
        told = {
            (erasure.workspace, erasure.privacy_request_id): erasure.reported
            for (body,) in await self._connection.execute(query)
            for erasure in (pb.Erasure.FromString(body),)
        }
        found = await self._found(limit=None)
        return [(request, told.get((request.workspace, request.privacy_request_id))) for request in found]

    async def _found(self, *wanted: ColumnElement[bool], limit: int | None) -> Sequence[PrivacyRequest]:
        query = select(PRIVACY_REQUESTS).where(*wanted).order_by(_requests.privacy_request_id.desc()).limit(limit)
        rows = list(await self._connection.execute(query))
        reports: dict[tuple[str, str], list[ErasureReport]] = defaultdict(list)
        asked = select(PRIVACY_REPORTS).order_by(_reports.service)
        if limit is not None:
            asked = asked.where(
                _reports.workspace.in_({row.workspace for row in rows}),
                _reports.privacy_request_id.in_([row.privacy_request_id for row in rows]),
            )
        for row in await self._connection.execute(asked):
            reports[row.workspace, row.privacy_request_id].append(_report(row))
        return [_request(row, reports[row.workspace, row.privacy_request_id]) for row in rows]


def _report(row: Row[Any]) -> ErasureReport:
    return ErasureReport(row.service, json.loads(row.erased), from_micros(row.completed_at))


def _request(row: Row[Any], reports: Sequence[ErasureReport]) -> PrivacyRequest:
    hashes: bytes = row.identifier_hashes
    return PrivacyRequest(
        workspace=row.workspace,
        privacy_request_id=row.privacy_request_id,
        identifier_types=tuple(row.identifier_types.split()),
        identifier_hashes=tuple(hashes[at : at + _DIGEST_BYTES] for at in range(0, len(hashes), _DIGEST_BYTES)),
        reference=row.reference,
        created_by=row.created_by,
        created_at=from_micros(row.created_at),
        due_at=from_micros(row.due_at),
        reports=tuple(reports),
        held_by=tuple(row.held_by.split()),
    )
