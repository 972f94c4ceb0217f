"""Models, versions and events in SQL."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson
from counterfoil_chassis.clock import from_micros, to_micros
from sqlalchemy import Row, Select, and_, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_models.documents import (
    backtest_document,
    backtest_of,
    inputs_document,
    inputs_of,
    skipped_document,
    skipped_of,
    spec_document,
    spec_of,
)
from counterfoil_models.entities import Change, ImpactTier, Model, ModelEvent, ModelVersion, State
from counterfoil_models.errors import ModelExistsError, ModelNotFoundError, ModelVersionNotFoundError
from counterfoil_models.sql.records_seen import SqlRecordsSeenStore
from counterfoil_models.sql.tables import CHAMPION, MODEL, MODEL_EVENT, MODEL_VERSION, VERSION_STATE
from counterfoil_models.store import Ending

_MODELS = select(MODEL, func.coalesce(CHAMPION.c.version, 0).label("champion_version")).outerjoin(
    CHAMPION, and_(CHAMPION.c.workspace == MODEL.c.workspace, CHAMPION.c.model_id == MODEL.c.model_id)
)
_VERSIONS = select(MODEL_VERSION, VERSION_STATE.c.state).join(
    VERSION_STATE,
    and_(
        VERSION_STATE.c.workspace == MODEL_VERSION.c.workspace,
        VERSION_STATE.c.model_id == MODEL_VERSION.c.model_id,
        VERSION_STATE.c.version == MODEL_VERSION.c.version,
    ),
)


class SqlModelStore:
    """See `store.ModelStore`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, model: Model) -> None:
        """Add a model; raise ModelExistsError when its id is taken."""
        values = {
            "workspace": model.workspace,
            "model_id": model.model_id,
            "display_name": model.display_name,
            "purpose": model.purpose,
            "impact_tier": model.impact_tier.value,
            "spec": _json(spec_document(model.spec)),
            "created_by": model.created_by,
            "created_at": to_micros(model.created_at),
        }
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(insert(MODEL).values(values))
        except IntegrityError as error:
            raise ModelExistsError(
                f"A model {model.model_id} exists; choose another id.", metadata={"model_id": model.model_id}
            ) from error

    async def get(self, workspace: str, model_id: str) -> Model:
        """Return one model with its champion; raise ModelNotFoundError."""
        found = await self._one(_MODELS.where(MODEL.c.workspace == workspace, MODEL.c.model_id == model_id))
        if found is None:
            raise ModelNotFoundError(f"There is no model {model_id}.", metadata={"model_id": model_id})
        return await self._with_news(_model(found))

    async def page(self, workspace: str, *, limit: int, after: str) -> list[Model]:
        """Return models by id, from the one after `after` on."""
        query = _MODELS.where(MODEL.c.workspace == workspace, MODEL.c.model_id > after)
        rows = await self._all(query.order_by(MODEL.c.model_id).limit(limit))
        return [await self._with_news(_model(row)) for row in rows]

    async def add_version(self, version: ModelVersion) -> None:
        """Add a version; its events give it a state."""
        values = {
            "workspace": version.workspace,
            "model_id": version.model_id,
            "version": version.version,
            "inputs": _json(inputs_document(version.inputs)),
            "created_by": version.created_by,
            "created_at": to_micros(version.created_at),
            "trace_id": version.trace_id,
        }
        await self._connection.execute(insert(MODEL_VERSION).values(values))

    async def next_version(self, workspace: str, model_id: str) -> int:
        """Return the number the next version gets."""
        newest = select(func.coalesce(func.max(MODEL_VERSION.c.version), 0))
        return int(await self._connection.scalar(newest.where(*_of(MODEL_VERSION, workspace, model_id))) or 0) + 1

    async def get_version(self, workspace: str, model_id: str, version: int) -> ModelVersion:
        """Return one version; raise ModelVersionNotFoundError."""
        query = _VERSIONS.where(*_of(MODEL_VERSION, workspace, model_id), MODEL_VERSION.c.version == version)
        found = await self._one(query)
        if found is None:
            raise ModelVersionNotFoundError(
                f"Model {model_id} has no version {version}.", metadata={"model_id": model_id, "version": str(version)}
            )
        return _version(found)

    async def page_versions(self, workspace: str, model_id: str, *, limit: int, before: int) -> list[ModelVersion]:
        """Return versions, newest first, below `before` (0 = from the newest)."""
        query = _VERSIONS.where(*_of(MODEL_VERSION, workspace, model_id))
        if before:
            query = query.where(MODEL_VERSION.c.version < before)
        rows = await self._all(query.order_by(MODEL_VERSION.c.version.desc()).limit(limit))
        return [_version(row) for row in rows]

    async def end_training(self, workspace: str, model_id: str, version: int, ending: Ending) -> None:
        """Keep how a training ended."""
        values = {
            "artifact_sha256": ending.artifact_sha256,
            "artifact_bytes": ending.artifact_bytes,
            "backtests": _json([backtest_document(one) for one in ending.backtests]),
            "skipped": _json([skipped_document(one) for one in ending.skipped]),
            "input_rows": _json(ending.input_rows),
            "error_reason": ending.error_reason,
            "error_detail": ending.error_detail,
            "finished_at": to_micros(ending.finished_at),
        }
        place = (*_of(MODEL_VERSION, workspace, model_id), MODEL_VERSION.c.version == version)
        await self._connection.execute(update(MODEL_VERSION).where(*place).values(values))

    async def running(self, workspace: str, model_id: str) -> int:
        """Return the version that is being trained, 0 = none."""
        place = (*_of(MODEL_VERSION, workspace, model_id), MODEL_VERSION.c.finished_at.is_(None))
        return int(await self._connection.scalar(select(func.max(MODEL_VERSION.c.version)).where(*place)) or 0)

    async def unfinished(self) -> list[ModelVersion]:
        """Return the versions of every workspace whose training has not ended."""
        return [_version(row) for row in await self._all(_VERSIONS.where(MODEL_VERSION.c.finished_at.is_(None)))]

    async def pending(self) -> list[ModelVersion]:
        """Return the versions of every workspace that wait for an approval."""
        waiting = VERSION_STATE.c.state == State.PENDING_APPROVAL.value
        return [_version(row) for row in await self._all(_VERSIONS.where(waiting))]

    async def set_change(self, workspace: str, model_id: str, version: int, change_id: str) -> None:
        """Keep which change a version's promotion waits for or was approved by, "" = none."""
        place = (*_of(MODEL_VERSION, workspace, model_id), MODEL_VERSION.c.version == version)
        await self._connection.execute(update(MODEL_VERSION).where(*place).values(change_id=change_id))

    async def append(self, workspace: str, model_id: str, changes: Sequence[Change], *, now: datetime) -> None:
        """Append events; they are never changed or deleted."""
        newest = select(func.max(MODEL_EVENT.c.sequence)).where(*_of(MODEL_EVENT, workspace, model_id))
        last = int(await self._connection.scalar(newest) or 0)
        rows = [
            {
                "workspace": workspace,
                "model_id": model_id,
                "sequence": sequence,
                "version": change.version,
                "from_state": None if change.from_state is None else change.from_state.value,
                "to_state": change.to_state.value,
                "actor": change.actor,
                "reason": change.reason,
                "created_at": to_micros(now),
            }
            for sequence, change in enumerate(changes, start=last + 1)
        ]
        await self._connection.execute(insert(MODEL_EVENT), rows)

    async def events(
        self, workspace: str, model_id: str, *, after: int = 0, limit: int | None = None
    ) -> list[ModelEvent]:
        """Return events, oldest first, after a sequence."""
        query = select(MODEL_EVENT).where(*_of(MODEL_EVENT, workspace, model_id), MODEL_EVENT.c.sequence > after)
        return [_event(row) for row in await self._all(query.order_by(MODEL_EVENT.c.sequence).limit(limit))]

    async def _with_news(self, model: Model) -> Model:
        if not model.champion_version:
            return model
        champion = await self.get_version(model.workspace, model.model_id, model.champion_version)
        rows = {one.snapshot.dataset: held for one, held in zip(champion.inputs, champion.input_rows, strict=False)}
        seen = SqlRecordsSeenStore(self._connection)
        # the counting can be behind a snapshot, too
        since = [max(0, await seen.total(model.workspace, dataset) - held) for dataset, held in rows.items()]
        return replace(model, records_since_training=sum(since))

    async def _one(self, query: Select[Any]) -> Row[Any] | None:
        found: Row[Any] | None = (await self._connection.execute(query)).one_or_none()
        return found

    async def _all(self, query: Select[Any]) -> Sequence[Row[Any]]:
        found: Sequence[Row[Any]] = (await self._connection.execute(query)).all()
        return found


def _of(table: Any, workspace: str, model_id: str) -> tuple[Any, Any]:
    return table.c.workspace == workspace, table.c.model_id == model_id


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _model(row: Row[Any]) -> Model:
    return Model(
        workspace=row.workspace,
        model_id=row.model_id,
        display_name=row.display_name,
        purpose=row.purpose,
        impact_tier=ImpactTier(row.impact_tier),
        spec=spec_of(orjson.loads(row.spec)),
        created_by=row.created_by,
        created_at=from_micros(row.created_at),
        champion_version=row.champion_version,
    )


def _version(row: Row[Any]) -> ModelVersion:
    return ModelVersion(
        workspace=row.workspace,
        model_id=row.model_id,
        version=row.version,
        state=State(row.state),
        inputs=inputs_of(orjson.loads(row.inputs)),
        created_by=row.created_by,
        created_at=from_micros(row.created_at),
        trace_id=row.trace_id,
        artifact_sha256=row.artifact_sha256,
        artifact_bytes=row.artifact_bytes,
        backtests=tuple(backtest_of(one) for one in orjson.loads(row.backtests)),
        skipped=tuple(skipped_of(one) for one in orjson.loads(row.skipped)),
        input_rows=tuple(orjson.loads(row.input_rows)),
        error_reason=row.error_reason,
        error_detail=row.error_detail,
        finished_at=None if row.finished_at is None else from_micros(row.finished_at),
        change_id=row.change_id,
    )


def _event(row: Row[Any]) -> ModelEvent:
    return ModelEvent(
        workspace=row.workspace,
        model_id=row.model_id,
        sequence=row.sequence,
        version=row.version,
        from_state=None if row.from_state is None else State(row.from_state),
        to_state=State(row.to_state),
        actor=row.actor,
        reason=row.reason,
        created_at=from_micros(row.created_at),
    )
