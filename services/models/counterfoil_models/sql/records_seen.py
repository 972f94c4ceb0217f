"""How many records each dataset has received, in SQL."""

from collections.abc import Mapping, Sequence

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_models.entities import Input
from counterfoil_models.sql.tables import RECORDS_SEEN


class SqlRecordsSeenStore:
    """See `store.RecordsSeenStore`.

    A row is a dataset's running total at the end of a block; snapshots lie between blocks, so that the row at or before
    a snapshot's offset has exactly the records below it.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, workspace: str, partition: int, *, next_offset: int, counts: Mapping[str, int]) -> None:
        """Count the records of the blocks up to an offset."""
        rows = [
            {
                "workspace": workspace,
                "dataset": dataset,
                "partition": partition,
                "next_offset": next_offset,
                "records": count + await self._total(workspace, dataset, partition),
            }
            for dataset, count in counts.items()
        ]
        if rows:
            await self._connection.execute(insert(RECORDS_SEEN), rows)

    async def since(self, workspace: str, inputs: Sequence[Input]) -> int:
        """Return how many records the inputs' datasets have received beyond their snapshots."""
        since = 0
        for snapshot in dict.fromkeys(one.snapshot for one in inputs):
            for partition, offset in snapshot.offsets:
                place = (workspace, snapshot.dataset, partition)
                since += await self._total(*place) - await self._total(*place, up_to=offset)
        return since

    async def _total(self, workspace: str, dataset: str, partition: int, *, up_to: int | None = None) -> int:
        seen = RECORDS_SEEN.c
        query = select(seen.records).where(
            seen.workspace == workspace, seen.dataset == dataset, seen.partition == partition
        )
        if up_to is not None:
            query = query.where(seen.next_offset <= up_to)
        return await self._connection.scalar(query.order_by(seen.next_offset.desc()).limit(1)) or 0
