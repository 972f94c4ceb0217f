"""Snapshots as messages and back, for what asks ingest and for what answers callers."""

from counterfoil.common.v1 import snapshot_pb2

from counterfoil_models.entities import Snapshot


def snapshot_of(message: snapshot_pb2.Snapshot) -> Snapshot:
    """Read a snapshot's message."""
    return Snapshot(
        dataset=message.dataset,
        offsets=tuple((one.partition, one.offset) for one in message.offsets),
        log_epoch=message.log_epoch,
        erasure_revision=message.erasure_revision,
    )


def snapshot_message(snapshot: Snapshot) -> snapshot_pb2.Snapshot:
    """Write a snapshot as a message."""
    return snapshot_pb2.Snapshot(
        dataset=snapshot.dataset,
        offsets=[
            snapshot_pb2.PartitionOffset(partition=partition, offset=offset) for partition, offset in snapshot.offsets
        ],
        log_epoch=snapshot.log_epoch,
        erasure_revision=snapshot.erasure_revision,
    )
