"""What a service did, told to the audit log that governance keeps: written with the deed, delivered after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import grpc
from counterfoil.governance.v1 import audit_pb2 as pb
from counterfoil.governance.v1.audit_pb2_grpc import AuditServiceStub
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_chassis import telemetry
from counterfoil_chassis.call import outgoing
from counterfoil_chassis.canonical import canonical_json
from counterfoil_chassis.clock import Clock, Ids, to_micros, to_timestamp
from counterfoil_chassis.database import Database
from counterfoil_chassis.errors import BadFieldError
from counterfoil_chassis.fields import check_fields
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.outbox import ENQUEUE, OutboxRelay, enqueue

TOPIC = "audit"
NO_DETAILS: Mapping[str, Any] = MappingProxyType({})
_SECONDS = 10.0


async def record(
    connection: AsyncConnection,
    *,
    ids: Ids,
    clock: Clock,
    workspace: str,
    principal: str,
    action: str,
    resource: str,
    details: Mapping[str, Any] = NO_DETAILS,
) -> None:
    """Write an audit entry in the open transaction, to be delivered once it commits; wake the relay after that.

    `principal` is the caller's (`Caller.principal`), `action` like `model.promote`, `resource` like `models/churn`;
    `details` is a JSON object without personal data. Raise ValueError for an entry that governance would refuse: it
    would hold up every later one.
    """
    now = clock.now()
    entry = pb.NewAuditEntry(
        workspace=workspace,
        entry_id=ids.new(),
        happened_at=to_timestamp(now),
        principal=principal,
        action=action,
        resource=resource,
        details=canonical_json(dict(details)),
        trace_id=telemetry.current_trace_id(),
    )
    await enqueue(connection, topic=TOPIC, payload=_payload(entry), now=now)


class AuditTrail:
    """Records what a service does and delivers it at once after the commit; run `run` in the background."""

    def __init__(
        self, database: Database, channel: grpc.aio.Channel, signer: TokenSigner, *, ids: Ids, clock: Clock
    ) -> None:
        self._database = database
        self._relay = audit_relay(database, channel, signer, clock)
        self._ids = ids
        self._clock = clock

    async def record(
        self,
        connection: AsyncConnection,
        *,
        workspace: str,
        principal: str,
        action: str,
        resource: str,
        details: Mapping[str, Any] = NO_DETAILS,
    ) -> None:
        """Write an audit entry in the open transaction, as `record` does."""
        await record(
            connection,
            ids=self._ids,
            clock=self._clock,
            workspace=workspace,
            principal=principal,
            action=action,
            resource=resource,
            details=details,
        )
        self._database.after_commit(connection, self._relay.wake)

    def note(
        self,
        execute: Callable[[str, Sequence[Any]], object],
        *,
        workspace: str,
        principal: str,
        action: str,
        resource: str,
        details: Mapping[str, Any],
        traceparent: str,
    ) -> None:
        """Do as `record` does in a transaction that is not SQLAlchemy's, in any thread; `wake` once it has committed.

        `execute` takes a statement with numbered places, and their values.
        """
        now = self._clock.now()
        entry = pb.NewAuditEntry(
            workspace=workspace,
            entry_id=self._ids.new(),
            happened_at=to_timestamp(now),
            principal=principal,
            action=action,
            resource=resource,
            details=canonical_json(dict(details)),
            trace_id=traceparent[3:35],
        )
        execute(ENQUEUE, (TOPIC, _payload(entry), traceparent, to_micros(now)))

    def wake(self) -> None:
        """Say that there is something to deliver."""
        self._relay.wake()

    async def run(self) -> None:
        """Deliver for ever."""
        await self._relay.run()


def _payload(entry: pb.NewAuditEntry) -> bytes:
    try:
        check_fields(entry)
    except BadFieldError as error:
        raise ValueError(f"not an audit entry: {error.violations}") from error
    return entry.SerializeToString()


def audit_relay(database: Database, channel: grpc.aio.Channel, signer: TokenSigner, clock: Clock) -> OutboxRelay:
    """Return the relay that delivers this service's audit entries to governance; run it in the background."""
    stub = AuditServiceStub(channel)

    async def deliver(payloads: Sequence[bytes]) -> None:
        request = pb.AppendAuditEntriesRequest(entries=[pb.NewAuditEntry.FromString(each) for each in payloads])
        await stub.AppendAuditEntries(request, **outgoing(default=_SECONDS, signer=signer))

    return OutboxRelay(database, TOPIC, deliver, clock)
