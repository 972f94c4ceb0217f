"""The compiled contracts seen, kept so that a restart knows them while the contracts service is away."""

from __future__ import annotations

from collections.abc import Sequence

from counterfoil_chassis.database import Database
from sqlalchemy import delete, insert, select, update

from counterfoil_ingest.entities import KeptContract
from counterfoil_ingest.sql.tables import COMPILED_CONTRACT as TABLE


class SqlKeptContracts:
    """Keeps every version of each dataset's contract, and which one is in force."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> Sequence[KeptContract]:
        """Return all that is kept."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(TABLE))
            return [KeptContract(row.workspace, row.dataset, row.version, row.in_force, row.message) for row in rows]

    async def put(self, kept: KeptContract) -> None:
        """Keep a version, in force instead of any other of its dataset."""
        dataset = (TABLE.c.workspace == kept.workspace, TABLE.c.dataset == kept.dataset)
        async with self._database.begin() as connection:
            await connection.execute(update(TABLE).where(*dataset).values(in_force=False))
            await connection.execute(delete(TABLE).where(*dataset, TABLE.c.version == kept.version))
            await connection.execute(
                insert(TABLE).values(
                    workspace=kept.workspace,
                    dataset=kept.dataset,
                    version=kept.version,
                    in_force=True,
                    message=kept.message,
                )
            )

    async def retire(self, workspace: str, dataset: str) -> None:
        """Keep a dataset's versions, none of them in force."""
        async with self._database.begin() as connection:
            await connection.execute(
                update(TABLE).where(TABLE.c.workspace == workspace, TABLE.c.dataset == dataset).values(in_force=False)
            )
