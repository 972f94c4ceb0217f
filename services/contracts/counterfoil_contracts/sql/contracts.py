"""Contracts and their versions in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from counterfoil_chassis.clock import from_micros, to_micros
from sqlalchemy import ColumnElement, Row, Select, and_, case, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_contracts.entities import CompiledDataset, Contract, ContractVersion, VersionState, VersionSummary
from counterfoil_contracts.errors import ContractNotFoundError
from counterfoil_contracts.sql.compiled import add_compiled, read_compiled
from counterfoil_contracts.sql.tables import COMPILED, CONTRACTS, VERSIONS


class SqlContracts:
    """Contracts of one open connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def exists(self, workspace: str, contract_id: str) -> bool:
        """Tell whether the workspace has such a contract."""
        query = select(CONTRACTS.c.contract_id).where(_is_contract(workspace, contract_id))
        return (await self._connection.execute(query)).first() is not None

    async def get(self, workspace: str, contract_id: str) -> Contract:
        """Return one contract; raise ContractNotFoundError when absent or in another workspace."""
        query = select(CONTRACTS).where(_is_contract(workspace, contract_id))
        contracts = await self._with_datasets(list(await self._connection.execute(query)))
        if not contracts:
            raise ContractNotFoundError(
                f"There is no contract {contract_id!r} in this workspace.", metadata={"contract_id": contract_id}
            )
        return contracts[0]

    async def list(self, workspace: str, *, after: str, limit: int) -> Sequence[Contract]:
        """Return at most `limit` contracts with ids above `after`, by id."""
        query = (
            select(CONTRACTS)
            .where(CONTRACTS.c.workspace == workspace, CONTRACTS.c.contract_id > after)
            .order_by(CONTRACTS.c.contract_id)
            .limit(limit)
        )
        return await self._with_datasets([*await self._connection.execute(query)])

    async def find_version(self, workspace: str, contract_id: str, version: str) -> ContractVersion | None:
        """Return one version with document and schemas, or None."""
        return await self._version(and_(_is_version(workspace, contract_id), VERSIONS.c.version == version))

    async def version_in_force(self, workspace: str, contract_id: str) -> ContractVersion | None:
        """Return the version in force with document and schemas, or None."""
        in_force = VERSIONS.c.version == CONTRACTS.c.active_version
        return await self._version(and_(_is_version(workspace, contract_id), in_force))

    async def proposed(self) -> Sequence[ContractVersion]:
        """Return every workspace's proposed versions, with documents and schemas."""
        query = _versions(VERSIONS).where(VERSIONS.c.state == VersionState.PROPOSED.value)
        return [await self._complete(row) for row in list(await self._connection.execute(query))]

    async def list_versions(
        self, workspace: str, contract_id: str, *, after: int, limit: int
    ) -> Sequence[VersionSummary]:
        """Return at most `limit` versions numbered above `after`, oldest first, without documents and schemas."""
        light = [column for column in VERSIONS.c if column.name != "document"]
        query = (
            _versions(*light)
            .where(_is_version(workspace, contract_id), VERSIONS.c.number > after)
            .order_by(VERSIONS.c.number)
            .limit(limit)
        )
        rows = await self._connection.execute(query)
        return [VersionSummary(row.number, _version(row, document="", compiled=())) for row in rows]

    async def add_version(self, version: ContractVersion, *, shipped: bool) -> None:
        """Keep a new version, and its contract if it is the first; `shipped` counts for a new contract only."""
        place = _is_version(version.workspace, version.contract_id)
        newest = (await self._connection.execute(select(func.max(VERSIONS.c.number)).where(place))).scalar()
        named = {"display_name": version.display_name, "latest_version": version.version}
        if newest is None:
            await self._connection.execute(
                insert(CONTRACTS).values(
                    workspace=version.workspace,
                    contract_id=version.contract_id,
                    active_version="",
                    shipped=shipped,
                    created_at=to_micros(version.created_at),
                    **named,
                )
            )
        else:
            contract = _is_contract(version.workspace, version.contract_id)
            await self._connection.execute(update(CONTRACTS).where(contract).values(named))
        await self._connection.execute(insert(VERSIONS).values(_version_values(version, number=(newest or 0) + 1)))
        await add_compiled(self._connection, version)

    async def save_state(self, version: ContractVersion) -> None:
        """Keep where a version is in its life: state, reason, times, change, and whether it is in force."""
        place = and_(_is_version(version.workspace, version.contract_id), VERSIONS.c.version == version.version)
        await self._connection.execute(update(VERSIONS).where(place).values(_state_values(version)))
        contract = _is_contract(version.workspace, version.contract_id)
        if version.in_force:
            values = {"active_version": version.version}
        else:
            contract, values = and_(contract, CONTRACTS.c.active_version == version.version), {"active_version": ""}
        await self._connection.execute(update(CONTRACTS).where(contract).values(values))

    async def _version(self, place: ColumnElement[bool]) -> ContractVersion | None:
        row = (await self._connection.execute(_versions(VERSIONS).where(place))).one_or_none()
        return None if row is None else await self._complete(row)

    async def _complete(self, row: Row[Any]) -> ContractVersion:
        compiled = await read_compiled(
            self._connection, workspace=row.workspace, contract_id=row.contract_id, version=row.version
        )
        return _version(row, document=row.document, compiled=tuple(compiled))

    async def _with_datasets(self, rows: Sequence[Row[Any]]) -> Sequence[Contract]:
        datasets: dict[str, list[str]] = {row.contract_id: [] for row in rows}
        if rows:
            shown = case(
                (CONTRACTS.c.active_version != "", CONTRACTS.c.active_version), else_=CONTRACTS.c.latest_version
            )
            query = (
                select(COMPILED.c.contract_id, COMPILED.c.dataset)
                .join(
                    CONTRACTS,
                    and_(
                        CONTRACTS.c.workspace == COMPILED.c.workspace,
                        CONTRACTS.c.contract_id == COMPILED.c.contract_id,
                        COMPILED.c.version == shown,
                    ),
                )
                .where(CONTRACTS.c.workspace == rows[0].workspace, CONTRACTS.c.contract_id.in_(datasets))
                .order_by(COMPILED.c.position)
            )
            for contract_id, dataset in await self._connection.execute(query):
                datasets[contract_id].append(dataset)
        return [_contract(row, datasets=tuple(datasets[row.contract_id])) for row in rows]


def _versions(*columns: Any) -> Select[Any]:
    """Select versions, each with the version of its contract that is in force."""
    same = and_(VERSIONS.c.workspace == CONTRACTS.c.workspace, VERSIONS.c.contract_id == CONTRACTS.c.contract_id)
    return select(*columns, CONTRACTS.c.active_version).join_from(VERSIONS, CONTRACTS, same)


def _is_contract(workspace: str, contract_id: str) -> ColumnElement[bool]:
    return and_(CONTRACTS.c.workspace == workspace, CONTRACTS.c.contract_id == contract_id)


def _is_version(workspace: str, contract_id: str) -> ColumnElement[bool]:
    return and_(VERSIONS.c.workspace == workspace, VERSIONS.c.contract_id == contract_id)


def _contract(row: Row[Any], *, datasets: tuple[str, ...]) -> Contract:
    return Contract(
        workspace=row.workspace,
        contract_id=row.contract_id,
        display_name=row.display_name,
        active_version=row.active_version,
        latest_version=row.latest_version,
        datasets=datasets,
        shipped=row.shipped,
        created_at=from_micros(row.created_at),
    )


def _version_values(version: ContractVersion, *, number: int) -> dict[str, Any]:
    return {
        "workspace": version.workspace,
        "contract_id": version.contract_id,
        "version": version.version,
        "number": number,
        "display_name": version.display_name,
        "document": version.document,
        "document_sha256": version.document_sha256,
        "created_by": version.created_by,
        "created_at": to_micros(version.created_at),
        **_state_values(version),
    }


def _state_values(version: ContractVersion) -> dict[str, Any]:
    return {
        "state": version.state.value,
        "activated_at": None if version.activated_at is None else to_micros(version.activated_at),
        "reason": version.reason,
        "sunset_at": None if version.sunset_at is None else to_micros(version.sunset_at),
        "change_id": version.change_id,
    }


def _version(row: Row[Any], *, document: str, compiled: tuple[CompiledDataset, ...]) -> ContractVersion:
    return ContractVersion(
        workspace=row.workspace,
        contract_id=row.contract_id,
        version=row.version,
        display_name=row.display_name,
        state=VersionState(row.state),
        document=document,
        document_sha256=row.document_sha256,
        compiled=compiled,
        created_by=row.created_by,
        created_at=from_micros(row.created_at),
        activated_at=None if row.activated_at is None else from_micros(row.activated_at),
        reason=row.reason,
        sunset_at=None if row.sunset_at is None else from_micros(row.sunset_at),
        change_id=row.change_id,
        in_force=row.version == row.active_version,
    )
