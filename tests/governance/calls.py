"""A running governance service and its callers: principals with tokens of the gateway, services with their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from counterfoil.governance.v1 import keys_pb2, principals_pb2
from counterfoil.governance.v1.audit_pb2_grpc import AuditServiceStub
from counterfoil.governance.v1.changes_pb2_grpc import ChangeServiceStub
from counterfoil.governance.v1.consents_pb2_grpc import ConsentServiceStub
from counterfoil.governance.v1.credentials_pb2_grpc import CredentialServiceStub
from counterfoil.governance.v1.incidents_pb2_grpc import IncidentServiceStub
from counterfoil.governance.v1.keys_pb2_grpc import KeyServiceStub
from counterfoil.governance.v1.legal_holds_pb2_grpc import LegalHoldServiceStub
from counterfoil.governance.v1.policies_pb2_grpc import PolicyServiceStub
from counterfoil.governance.v1.principals_pb2_grpc import PrincipalServiceStub
from counterfoil.governance.v1.privacy_requests_pb2_grpc import PrivacyRequestServiceStub
from counterfoil.governance.v1.receipts_pb2_grpc import ReceiptServiceStub
from counterfoil.governance.v1.retention_policies_pb2_grpc import RetentionPolicyServiceStub
from counterfoil.governance.v1.workspaces_pb2_grpc import WorkspaceServiceStub
from counterfoil_chassis.call import connect, outgoing
from counterfoil_chassis.identity import TokenSigner, load_private_key, write_key_pair
from counterfoil_chassis.serve import started
from counterfoil_chassis.status import RemoteFailure, failure_of
from counterfoil_governance.__main__ import build
from counterfoil_governance.scopes import ALL_SCOPES
from counterfoil_governance.settings import Settings

SERVICES = ("gateway", "models", "graph", "ingest", "contracts")
ADMIN_KEY = "cfk_the-key-that-the-installation-starts-with"


class MovableClock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self._now = datetime(2026, 11, 23, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self._now

    def move(self, by: timedelta) -> None:
        self._now += by


@dataclass
class Refusal:
    """What a refused call answered."""

    failure: RemoteFailure | None = field(default=None)

    @property
    def reason(self) -> str:
        assert self.failure is not None
        return self.failure.reason


@contextmanager
def refused(reason: str) -> Iterator[Refusal]:
    """Expect the call inside to be refused for a reason."""
    refusal = Refusal()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        yield refusal
    refusal.failure = failure_of(raised.value)
    assert refusal.failure.reason == reason, refusal.failure


class Governance:
    """Stubs of one running governance service."""

    def __init__(self, channel: grpc.aio.Channel, *, address: str, keys: Path, clock: MovableClock) -> None:
        self.address = address
        self.clock = clock
        self.channel = channel
        self.workspaces = WorkspaceServiceStub(channel)
        self.principals = PrincipalServiceStub(channel)
        self.keys = KeyServiceStub(channel)
        self.credentials = CredentialServiceStub(channel)
        self.receipts = ReceiptServiceStub(channel)
        self.audit = AuditServiceStub(channel)
        self.policies = PolicyServiceStub(channel)
        self.changes = ChangeServiceStub(channel)
        self.consents = ConsentServiceStub(channel)
        self.privacy_requests = PrivacyRequestServiceStub(channel)
        self.legal_holds = LegalHoldServiceStub(channel)
        self.retention_policies = RetentionPolicyServiceStub(channel)
        self.incidents = IncidentServiceStub(channel)
        self.hired: dict[str, dict[str, Any]] = {}
        self.signers = {name: TokenSigner(name, load_private_key(keys / f"{name}.pem"), clock) for name in SERVICES}

    def as_principal(
        self,
        *,
        workspace: str = "default",
        principal: str = "admin",
        scopes: frozenset[str] = ALL_SCOPES,
        roles: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Return the timeout and metadata of a principal's call."""
        token = self.signers["gateway"].mint(workspace=workspace, principal=principal, scopes=scopes, roles=roles)
        return outgoing(default=60.0, token=token)

    async def hire(
        self,
        name: str,
        *,
        workspace: str = "default",
        human: bool = True,
        scopes: frozenset[str] = frozenset(),
        roles: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Create a principal with a key of these scopes (none = all that its roles allow); return how it calls."""
        kind = principals_pb2.Principal.Kind.HUMAN if human else principals_pb2.Principal.Kind.PROGRAM
        request = principals_pb2.CreatePrincipalRequest(principal_id=name, kind=kind, roles=roles)
        admin = self.as_principal(workspace=workspace)
        await self.principals.CreatePrincipal(request, **admin)
        wanted = keys_pb2.CreateKeyRequest(principal_id=name, scopes=sorted(scopes))
        key = (await self.keys.CreateKey(wanted, **admin)).key
        self.hired[name] = {"workspace": workspace, "scopes": frozenset(key.scopes), "roles": roles}
        return self.as_hired(name)

    def as_hired(self, name: str) -> dict[str, Any]:
        """Return how a hired principal calls now; tokens end when the clock is moved."""
        return self.as_principal(principal=name, **self.hired[name])

    def as_service(self, name: str) -> dict[str, Any]:
        """Return the timeout and metadata of a service's own call."""
        return outgoing(default=60.0, signer=self.signers[name])


@asynccontextmanager
async def governance_in(folder: Path, clock: MovableClock, *, bootstrap_key_sha256: str) -> AsyncIterator[Governance]:
    """Serve governance from a data folder; the same folder again is a restart."""
    keys = folder / "keys"
    for name in ("governance", *SERVICES):
        write_key_pair(keys / f"{name}.pem", keys / "trusted", name)
    settings = Settings(
        listen="127.0.0.1:0", data_dir=folder, drain_seconds=0, bootstrap_key_sha256=bootstrap_key_sha256
    )
    async with (
        started("governance", settings, build, clock=clock, migrations="counterfoil_governance") as running,
        connect(running.address) as channel,
    ):
        yield Governance(channel, address=running.address, keys=keys, clock=clock)
