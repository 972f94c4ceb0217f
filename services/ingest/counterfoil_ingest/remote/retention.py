"""Governance's retention policies and legal holds: followed, and told what was done for the policies."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Final

import grpc
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.governance.v1 import legal_holds_pb2, retention_policies_pb2
from counterfoil.governance.v1.legal_holds_pb2_grpc import LegalHoldServiceStub
from counterfoil.governance.v1.retention_policies_pb2_grpc import RetentionPolicyServiceStub
from counterfoil_chassis.call import following, outgoing
from counterfoil_chassis.clock import from_timestamp, to_micros, to_timestamp
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.status import failure_of
from counterfoil_chassis.watch import Watcher
from google.protobuf import any_pb2

from counterfoil_ingest.hold_errors import RetentionUntoldError
from counterfoil_ingest.holds import Hold, Holds
from counterfoil_ingest.retention import Done, Policy, Retention

_SECONDS: Final = 10.0


class RetentionClient:
    """Follows and reports, in ingest's own name."""

    def __init__(self, channel: grpc.aio.Channel, *, signer: TokenSigner) -> None:
        self._policies = RetentionPolicyServiceStub(channel)
        self._holds = LegalHoldServiceStub(channel)
        self._signer = signer

    async def report(self, done: Done) -> None:
        """Tell what was done for a policy; raise RetentionUntoldError."""
        report = retention_policies_pb2.RetentionReport(
            received_before=to_timestamp(done.received_before),
            records=done.records,
            quarantined=done.quarantined,
            held=done.held,
            remaining=done.remaining,
            waiting_for=done.waiting_for,
        )
        request = retention_policies_pb2.ReportRetentionRequest(
            workspace=done.policy.workspace, dataset=done.policy.dataset, report=report
        )
        try:
            await self._policies.ReportRetention(request, **outgoing(default=_SECONDS, signer=self._signer))
        except grpc.aio.AioRpcError as error:
            raise RetentionUntoldError(f"Governance was not told of it ({failure_of(error).detail}).") from error

    def follow_holds(self, holds: Holds) -> Watcher:
        """Return what keeps holds as governance says."""

        def watch(after_revision: int) -> AsyncIterable[WatchResponse]:
            request = legal_holds_pb2.WatchLegalHoldsRequest(after_revision=after_revision)
            return self._holds.WatchLegalHolds(request, **following(signer=self._signer))

        def put(key: str, resource: any_pb2.Any) -> None:
            held = legal_holds_pb2.HeldData()
            resource.Unpack(held)
            ends = to_micros(from_timestamp(held.expires_at)) if held.HasField("expires_at") else None
            holds.put(key, Hold(held.workspace, held.legal_hold_id, held.dataset, ends))

        return Watcher(watch, put, holds.delete, name="governance legal holds")

    def follow_policies(self, retention: Retention) -> Watcher:
        """Return what keeps policies as governance says."""

        def watch(after_revision: int) -> AsyncIterable[WatchResponse]:
            request = retention_policies_pb2.WatchRetentionPoliciesRequest(after_revision=after_revision)
            return self._policies.WatchRetentionPolicies(request, **following(signer=self._signer))

        def put(key: str, resource: any_pb2.Any) -> None:
            policy = retention_policies_pb2.RetentionPolicy()
            resource.Unpack(policy)
            retention.put(key, Policy(policy.workspace, policy.dataset, policy.days))

        return Watcher(watch, put, retention.delete, name="governance retention policies")
