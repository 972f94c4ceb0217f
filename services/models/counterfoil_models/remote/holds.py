"""Which datasets are held, followed from ingest."""

from __future__ import annotations

from collections.abc import Callable

import grpc
from counterfoil.ingest.v1 import monitors_pb2, monitors_pb2_grpc
from counterfoil_chassis.call import following
from counterfoil_chassis.clock import from_timestamp
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.watch import Watcher
from google.protobuf import any_pb2

from counterfoil_models.entities import Hold


class IngestHolds:
    """See `store.HoldSource`."""

    def __init__(self, channel: grpc.aio.Channel, signer: TokenSigner) -> None:
        self._monitors = monitors_pb2_grpc.MonitorServiceStub(channel)
        self._signer = signer

    def watch(self, on_hold: Callable[[Hold], None], on_release: Callable[[tuple[str, str]], None]) -> Watcher:
        """Return a watcher of every workspace's holds; a release comes with the workspace and the monitor's id."""

        def put(_key: str, packed: any_pb2.Any) -> None:
            hold = monitors_pb2.Hold()
            packed.Unpack(hold)
            on_hold(_hold(hold))

        def gone(key: str) -> None:
            workspace, _, monitor_id = key.partition("/")
            on_release((workspace, monitor_id))

        return Watcher(
            lambda after: self._monitors.WatchHolds(
                monitors_pb2.WatchHoldsRequest(after_revision=after), **following(signer=self._signer)
            ),
            put,
            gone,
            name="ingest holds",
        )


def _hold(message: monitors_pb2.Hold) -> Hold:
    return Hold(
        workspace=message.workspace,
        dataset=message.dataset,
        monitor_id=message.monitor_id,
        incident_id=message.incident_id,
        detail=message.detail,
        since=from_timestamp(message.since),
        recovered_at=from_timestamp(message.recovered_at) if message.HasField("recovered_at") else None,
        held=message.held,
        metric=message.metric,
        days=tuple(message.days),
    )
