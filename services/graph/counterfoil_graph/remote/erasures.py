"""Erasures: told by governance, carried out in the log by ingest, reported to governance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import grpc
from counterfoil.governance.v1 import (
    legal_holds_pb2,
    legal_holds_pb2_grpc,
    privacy_requests_pb2,
    privacy_requests_pb2_grpc,
)
from counterfoil.ingest.v1 import erasures_pb2, erasures_pb2_grpc
from counterfoil_chassis.call import following, outgoing
from counterfoil_chassis.clock import from_timestamp, to_micros
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.status import failure_of
from counterfoil_chassis.watch import Watcher
from google.protobuf import any_pb2

from counterfoil_graph.entities import PARTITION, Erasure, Hold
from counterfoil_graph.errors import ErasureHeldError
from counterfoil_graph.store import LogErased

_SECONDS = 10.0
_ERASE_SECONDS = 600.0  # blocks and tables are rewritten; whoever appends goes first


class ErasureOffices:
    """See `store.ErasureOffices`."""

    def __init__(self, governance: grpc.aio.Channel, ingest: grpc.aio.Channel, signer: TokenSigner) -> None:
        self._requests = privacy_requests_pb2_grpc.PrivacyRequestServiceStub(governance)
        self._holds = legal_holds_pb2_grpc.LegalHoldServiceStub(governance)
        self._erasures = erasures_pb2_grpc.ErasureServiceStub(ingest)
        self._signer = signer

    def watcher(self, on_due: Callable[[Erasure], None], on_done: Callable[[str, str], None]) -> Watcher:
        """Return what tells of each erasure that is due, and of each (workspace, request) that is reported."""

        def on_put(_key: str, resource: any_pb2.Any) -> None:
            told = privacy_requests_pb2.Erasure()
            resource.Unpack(told)
            if told.reported:
                on_done(told.workspace, told.privacy_request_id)
            else:
                on_due(_erasure(told))

        def on_delete(key: str) -> None:
            workspace, _, privacy_request_id = key.partition("/")
            on_done(workspace, privacy_request_id)

        return Watcher(
            lambda after: self._requests.WatchErasures(
                privacy_requests_pb2.WatchErasuresRequest(after_revision=after), **following(signer=self._signer)
            ),
            on_put,
            on_delete,
            name="governance erasures",
        )

    def hold_watcher(self, on_put: Callable[[str, Hold], None], on_delete: Callable[[str], None]) -> Watcher:
        """Return what tells of each legal hold on persons, and of the key of each that is released."""

        def put(key: str, resource: any_pb2.Any) -> None:
            told = legal_holds_pb2.HeldData()
            resource.Unpack(told)
            if not told.dataset:  # those on datasets are ingest's to keep
                on_put(key, _hold(told))

        return Watcher(
            lambda after: self._holds.WatchLegalHolds(
                legal_holds_pb2.WatchLegalHoldsRequest(after_revision=after), **following(signer=self._signer)
            ),
            put,
            on_delete,
            name="governance legal holds",
        )

    async def holds(self) -> Sequence[Hold]:
        """Return the legal holds on persons that nobody has released, of every workspace, as they are now."""
        found = []
        call = self._holds.WatchLegalHolds(
            legal_holds_pb2.WatchLegalHoldsRequest(), **outgoing(default=_SECONDS, signer=self._signer)
        )
        try:
            async for response in call:
                if response.HasField("heartbeat"):  # the present state is complete
                    break
                told = legal_holds_pb2.HeldData()
                response.put.resource.Unpack(told)
                if not told.dataset:
                    found.append(_hold(told))
        finally:
            call.cancel()
        return found

    async def hold_persons(self, workspace: str, legal_hold_ids: Sequence[str], identifiers: Sequence[str]) -> None:
        """Tell ingest whom all the legal holds on persons of a workspace name."""
        request = erasures_pb2.HoldPersonsRequest(
            workspace=workspace, legal_hold_ids=legal_hold_ids, identifiers=identifiers
        )
        await self._erasures.HoldPersons(request, **outgoing(default=_SECONDS, signer=self._signer))

    async def report_held(self, workspace: str, privacy_request_id: str, legal_hold_ids: Sequence[str]) -> None:
        """Tell that an erasure waits for legal holds."""
        request = privacy_requests_pb2.ReportErasureHeldRequest(
            workspace=workspace, privacy_request_id=privacy_request_id, legal_hold_ids=legal_hold_ids
        )
        await self._requests.ReportErasureHeld(request, **outgoing(default=_SECONDS, signer=self._signer))

    async def erase(
        self, workspace: str, privacy_request_id: str, offsets: Sequence[int], *, identifiers: Sequence[str]
    ) -> LogErased:
        """Have records erased wherever ingest keeps them, and quarantined ones that hold an identifier.

        Raises ErasureHeldError when a legal hold keeps one of their datasets.
        """
        request = erasures_pb2.EraseRecordsRequest(
            workspace=workspace,
            privacy_request_id=privacy_request_id,
            partition=PARTITION,
            offsets=offsets,
            identifiers=identifiers,
        )
        call = outgoing(default=_ERASE_SECONDS, signer=self._signer)
        try:
            answer = await self._erasures.EraseRecords(request, **call)
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
            if failure.reason == "DATASET_HELD":
                raise ErasureHeldError(failure.metadata["legal_hold_ids"].split(",")) from error
            raise
        return LogErased(answer.erased, answer.quarantined_erased, answer.remaining)

    async def report(self, workspace: str, privacy_request_id: str, erased: Mapping[str, int]) -> None:
        """Tell that an erasure is carried out and that nothing is left."""
        request = privacy_requests_pb2.ReportErasureRequest(
            workspace=workspace,
            privacy_request_id=privacy_request_id,
            report=privacy_requests_pb2.ErasureReport(service="graph", erased=erased),
        )
        await self._requests.ReportErasure(request, **outgoing(default=_SECONDS, signer=self._signer))


def _erasure(told: privacy_requests_pb2.Erasure) -> Erasure:
    return Erasure(
        workspace=told.workspace,
        privacy_request_id=told.privacy_request_id,
        hash_key=told.hash_key,
        identifier_hashes=frozenset(told.identifier_hashes),
        asked_us=to_micros(from_timestamp(told.created_at)),
    )


def _hold(told: legal_holds_pb2.HeldData) -> Hold:
    return Hold(
        workspace=told.workspace,
        legal_hold_id=told.legal_hold_id,
        hash_key=told.hash_key,
        identifier_hashes=frozenset(told.identifier_hashes),
        expires_us=to_micros(from_timestamp(told.expires_at)) if told.HasField("expires_at") else None,
    )
