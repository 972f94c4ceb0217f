"""A running contracts service and its callers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from counterfoil.contracts.v1 import contracts_pb2 as pb
from counterfoil.contracts.v1.consumers_pb2_grpc import ConsumerServiceStub
from counterfoil.contracts.v1.contracts_pb2_grpc import ContractServiceStub
from counterfoil_chassis.call import connect, outgoing
from counterfoil_chassis.clock import SystemClock
from counterfoil_chassis.identity import TokenSigner, load_private_key, write_key_pair
from counterfoil_chassis.serve import started
from counterfoil_chassis.status import RemoteFailure, failure_of
from counterfoil_contracts.__main__ import build
from counterfoil_contracts.settings import Settings

CALLERS = ("gateway", "ingest", "graph", "models")
SCOPES = frozenset({"contracts.read", "contracts.write"})
STRING = {"name": "name", "logicalType": "string"}


def document(
    contract_id: str = "shop",
    version: str = "1.0.0",
    *,
    datasets: tuple[str, ...] = ("orders",),
    properties: list[dict[str, Any]] | None = None,
    **extra: Any,
) -> str:
    """Return a small ODCS document, every dataset with the same properties."""
    schema = [{"name": name, "properties": properties or [STRING]} for name in datasets]
    head = {"apiVersion": "v3.2.0", "kind": "DataContract", "id": contract_id, "version": version, "status": "active"}
    return yaml.safe_dump({**head, "schema": schema, **extra}, sort_keys=False)


@contextmanager
def refused(reason: str) -> Iterator[list[RemoteFailure]]:
    """Expect the call inside to be refused for a reason; the failure is in the list afterwards."""
    failures: list[RemoteFailure] = []
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        yield failures
    failures.append(failure_of(raised.value))
    assert failures[0].reason == reason, failures


class Contracts:
    """The stub of one running contracts service."""

    def __init__(self, channel: grpc.aio.Channel, keys: Path, *, address: str) -> None:
        self.address = address
        self.channel = channel
        self.stub = ContractServiceStub(channel)
        self.consumers = ConsumerServiceStub(channel)
        clock = SystemClock()
        self._signers = {name: TokenSigner(name, load_private_key(keys / f"{name}.pem"), clock) for name in CALLERS}

    def as_principal(self, workspace: str = "default", *, scopes: frozenset[str] = SCOPES) -> dict[str, Any]:
        """Return the timeout and metadata of a principal's call."""
        token = self._signers["gateway"].mint(workspace=workspace, principal="ada", scopes=scopes)
        return outgoing(default=60.0, token=token)

    def as_ingest(self) -> dict[str, Any]:
        """Return the timeout and metadata of ingest's own call."""
        return self.as_service("ingest")

    def as_service(self, name: str) -> dict[str, Any]:
        """Return the timeout and metadata of a service's own call."""
        return outgoing(default=60.0, signer=self._signers[name])

    async def submit(self, text: str, *, activate: bool = False, workspace: str = "default") -> pb.ContractVersion:
        request = pb.SubmitContractRequest(document=text, activate=activate)
        return await self.stub.SubmitContract(request, **self.as_principal(workspace))

    async def activate(
        self, contract_id: str, version: str, *, reason: str = "", workspace: str = "default"
    ) -> pb.ContractVersion:
        request = pb.ActivateContractVersionRequest(contract_id=contract_id, version=version, reason=reason)
        return await self.stub.ActivateContractVersion(request, **self.as_principal(workspace))

    async def get(self, contract_id: str, version: str, *, workspace: str = "default") -> pb.ContractVersion:
        request = pb.GetContractVersionRequest(contract_id=contract_id, version=version)
        return await self.stub.GetContractVersion(request, **self.as_principal(workspace))

    async def look_up(self, dataset: str, *, workspace: str = "default") -> pb.CompiledContract:
        request = pb.LookupCompiledContractRequest(workspace=workspace, dataset=dataset)
        return await self.stub.LookupCompiledContract(request, **self.as_ingest())

    async def in_force(self) -> dict[str, pb.CompiledContract]:
        """Return the state that a new watcher gets, by key."""
        state = {}
        async for response in self.stub.WatchCompiledContracts(pb.WatchCompiledContractsRequest(), **self.as_ingest()):
            if response.WhichOneof("change") == "heartbeat":
                return state
            compiled = pb.CompiledContract()
            response.put.resource.Unpack(compiled)
            state[response.put.key] = compiled
        raise AssertionError("the stream ended")


@asynccontextmanager
async def contracts_in(folder: Path, *, governance_target: str = "127.0.0.1:9") -> AsyncIterator[Contracts]:
    """Serve contracts from a data folder; the same folder again is a restart. By default no governance answers."""
    keys = folder / "keys"
    for name in ("contracts", *CALLERS):
        write_key_pair(keys / f"{name}.pem", keys / "trusted", name)
    settings = Settings(listen="127.0.0.1:0", data_dir=folder, drain_seconds=0, governance_target=governance_target)
    async with (
        started("contracts", settings, build, migrations="counterfoil_contracts") as running,
        connect(running.address) as channel,
    ):
        yield Contracts(channel, keys, address=running.address)
