"""How many records each dataset has received, in SQL."""

from collections.abc import Mapping

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_models.sql.tables import RECORDS_SEEN


class SqlRecordsSeenStore:
    """See `store.RecordsSeenStore`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, workspace: str, partition: int, counts: Mapping[str, int]) -> None:
        """Count records of datasets."""
        insert = postgresql.insert if self._connection.dialect.name == "postgresql" else sqlite.insert
        for dataset, count in counts.items():
            key = {"workspace": workspace, "dataset": dataset, "partition": partition}
            row = insert(RECORDS_SEEN).values(**key, records=count)
            more = {"records": RECORDS_SEEN.c.records + row.excluded.records}
            await self._connection.execute(row.on_conflict_do_update(index_elements=list(key), set_=more))

    async def total(self, workspace: str, dataset: str) -> int:
        """Return how many records a dataset has received."""
        seen = RECORDS_SEEN.c
        query = select(func.sum(seen.records)).where(seen.workspace == workspace, seen.dataset == dataset)
        return int(await self._connection.scalar(query) or 0)
