"""What attribution and lift share: finding, keeping and listing outputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from counterfoil.common.v1 import receipts_pb2
from counterfoil_chassis import lineage
from counterfoil_chassis.clock import Clock, Ids
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.outbox import enqueue
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.runtime import Runtime

from counterfoil_models.entities import Output, OutputKind
from counterfoil_models.lineage import Reads, output_event
from counterfoil_models.store import RECEIPTS_TOPIC, Stores


@dataclass(frozen=True)
class Outputs:
    """The kept outputs of one kind; `receipts_added` wakes the relays of receipts and of lineage."""

    kind: OutputKind
    stores: Stores
    runtime: Runtime
    pager: Pager
    clock: Clock
    ids: Ids
    receipts_added: Callable[[], None]

    async def find(self, workspace: str, question_sha256: str) -> Output | None:
        """Return the output that answered this question before."""
        async with self.stores.read() as transaction:
            return await transaction.outputs.find(workspace, self.kind, question_sha256)

    async def get(self, output_id: str) -> Output:
        """Return one output of the caller's workspace; raise AttributionNotFoundError or LiftNotFoundError."""
        async with self.stores.read() as transaction:
            return await transaction.outputs.get(current_caller().workspace, self.kind, output_id)

    async def keep(self, output: Output, *, receipt: receipts_pb2.Receipt, reads: Reads) -> Output:
        """Keep output, receipt and outbox rows together; return the one that answered the question meanwhile instead.

        `reads` are the fields of each dataset that it was made of.
        """
        payload = receipt.SerializeToString(deterministic=True)
        async with self.stores.begin() as transaction:
            if not await transaction.outputs.add(output, receipt=payload):
                known = await transaction.outputs.find(output.workspace, self.kind, output.question_sha256)
                assert known is not None  # noqa: S101 - outputs are never deleted
                return known
            await enqueue(transaction.connection, topic=RECEIPTS_TOPIC, payload=payload, now=output.created_at)
            told = output_event(receipt, reads=reads)
            await lineage.record(transaction.connection, workspace=output.workspace, event=told, now=output.created_at)
        self.receipts_added()
        return output

    async def page(self, request: Any, *, method: str) -> tuple[list[Output], str]:
        """Return one page of the caller's workspace, newest first, and the token of the next."""
        place = {"method": method, "workspace": current_caller().workspace}
        page = self.pager.open(request, **place)
        async with self.stores.read() as transaction:
            found = await transaction.outputs.page(
                place["workspace"], self.kind, limit=page.limit + 1, before=page.after[0] if page.after else ""
            )
        kept = found[: page.limit]
        token = self.pager.token(request, **place, after=[kept[-1].output_id]) if len(found) > len(kept) else ""
        return kept, token
