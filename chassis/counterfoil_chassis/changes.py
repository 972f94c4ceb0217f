"""Changes as the service sees them that carries them out: ask, watch, and report before the effect is committed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc
from counterfoil.governance.v1 import changes_pb2 as pb
from counterfoil.governance.v1.changes_pb2_grpc import ChangeServiceStub
from google.protobuf import any_pb2

from counterfoil_chassis.call import following, outgoing
from counterfoil_chassis.canonical import canonical_json, sha256_hex
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.watch import Watcher

SECONDS: Final = 10.0


def payload_sha256(payload: Mapping[str, Any]) -> str:
    """Return the hash by which votes and reports name a payload: SHA-256, hex, of its RFC 8785 JSON."""
    return sha256_hex(canonical_json(dict(payload)))


class Changes:
    """Governance's changes, called in the service's own name; failures are those of gRPC (`status.failure_of`)."""

    def __init__(self, channel: grpc.aio.Channel, signer: TokenSigner) -> None:
        self._stub = ChangeServiceStub(channel)
        self._signer = signer

    async def create(
        self,
        *,
        workspace: str,
        kind: str,
        resource: str,
        payload: Mapping[str, Any],
        requester: str,
        reason: str,
        policy_id: str,
        request_id: str,
    ) -> pb.Change:
        """Ask for a change on a principal's behalf; the same request id again returns the first one."""
        request = pb.CreateChangeRequest(
            workspace=workspace,
            kind=kind,
            resource=resource,
            payload=canonical_json(dict(payload)),
            requester=requester,
            reason=reason,
            policy_id=policy_id,
            request_id=request_id,
        )
        return await self._stub.CreateChange(request, **outgoing(default=SECONDS, signer=self._signer))

    async def report(
        self, *, workspace: str, change_id: str, payload_sha256: str, applied: bool, detail: str = ""
    ) -> pb.Change:
        """Say that an approved change is carried out, or failed; call it before the effect is committed.

        It is refused with CHANGE_EXPIRED, CHANGE_NOT_APPROVED, CHANGE_PAYLOAD_DIFFERS or CHANGE_APPLIED; the same
        report again is not.
        """
        request = pb.ReportChangeRequest(
            workspace=workspace,
            change_id=change_id,
            payload_sha256=payload_sha256,
            applied=applied,
            detail=detail,
        )
        return await self._stub.ReportChange(request, **outgoing(default=SECONDS, signer=self._signer))

    def watch(self, on_change: Callable[[pb.Change], None], on_gone: Callable[[str], None] = lambda _: None) -> Watcher:
        """Return a watcher of every workspace's changes; `on_gone` gets `<workspace>/<change_id>` of one long over.

        A state in the stream is that of its last vote or report: that one expired meanwhile follows from `expires_at`
        and the clock, and a report is refused then.
        """

        def on_put(_key: str, packed: any_pb2.Any) -> None:
            change = pb.Change()
            packed.Unpack(change)
            on_change(change)

        return Watcher(
            lambda after: self._stub.WatchChanges(
                pb.WatchChangesRequest(after_revision=after), **following(signer=self._signer)
            ),
            on_put,
            on_gone,
            name="governance changes",
        )
