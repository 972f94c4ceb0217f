"""Snapshots from ingest, as Arrow."""

from collections.abc import Sequence
from typing import Any

import grpc
import pyarrow as pa
from counterfoil.ingest.v1 import records_pb2, records_pb2_grpc
from counterfoil_chassis.call import outgoing
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.status import failure_of

from counterfoil_models.entities import Contract, Snapshot
from counterfoil_models.errors import SnapshotErasedError, SnapshotExpiredError
from counterfoil_models.remote.arrow import table_of
from counterfoil_models.snapshot_messages import snapshot_message, snapshot_of
from counterfoil_models.store import SnapshotRead

_TAKE_SECONDS = 30.0
_READ_SECONDS = 600.0
_GONE = {error.reason: error for error in (SnapshotErasedError, SnapshotExpiredError)}


class IngestSnapshots:
    """See `store.SnapshotSource`."""

    def __init__(self, channel: grpc.aio.Channel, signer: TokenSigner) -> None:
        self._records = records_pb2_grpc.RecordServiceStub(channel)
        self._signer = signer

    async def take(self, dataset: str) -> Snapshot:
        """Take a snapshot on behalf of the running request's caller."""
        request = records_pb2.CreateSnapshotRequest(dataset=dataset)
        return snapshot_of(await self._records.CreateSnapshot(request, **outgoing(default=_TAKE_SECONDS)))

    async def read(self, snapshot: Snapshot, columns: Sequence[str], *, workspace: str) -> SnapshotRead:
        """Read columns of a snapshot as this service itself.

        Raises SnapshotErasedError or SnapshotExpiredError when its records are no longer those that were cited.
        """
        request = records_pb2.ReadSnapshotRequest(
            snapshot=snapshot_message(snapshot), columns=columns, workspace=workspace
        )
        tables: list[Any] = []
        contracts: list[Contract] = []
        rows = 0
        try:
            call = self._records.ReadSnapshot(request, **outgoing(default=_READ_SECONDS, signer=self._signer))
            async for chunk in call:
                contracts += [_contract(one, snapshot.dataset) for one in chunk.contracts]
                rows += chunk.rows
                if chunk.arrow_ipc_zstd:
                    tables.append(table_of(chunk.arrow_ipc_zstd))
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
            gone = _GONE.get(failure.reason)
            if gone is None:
                raise
            raise gone(failure.detail, metadata=failure.metadata) from error
        table = pa.concat_tables(tables) if tables else pa.table({name: pa.array([], pa.string()) for name in columns})
        return SnapshotRead(table, rows, tuple(contracts))


def _contract(message: records_pb2.SnapshotContract, dataset: str) -> Contract:
    return Contract(message.contract_id, message.version, dataset, message.compiled_sha256)
