"""Which datasets have a contract in force, by workspace: only the names, watched from the contracts service."""

from __future__ import annotations

import grpc
from counterfoil.contracts.v1 import contracts_pb2 as pb
from counterfoil.contracts.v1.contracts_pb2_grpc import ContractServiceStub
from counterfoil_chassis.call import following
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.watch import Watcher


class Catalog:
    """The names of every workspace's contracted datasets, right while `watcher` runs."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    def datasets(self, workspace: str) -> frozenset[str]:
        """Return the datasets of a workspace that have a contract in force."""
        return frozenset(self._names.get(workspace, ()))

    def put(self, key: str) -> None:
        """Note `<workspace>/<dataset>`."""
        workspace, _, dataset = key.partition("/")
        self._names.setdefault(workspace, set()).add(dataset)

    def drop(self, key: str) -> None:
        """Forget `<workspace>/<dataset>`."""
        workspace, _, dataset = key.partition("/")
        self._names.get(workspace, set()).discard(dataset)

    def watcher(self, channel: grpc.aio.Channel, *, signer: TokenSigner) -> Watcher:
        """Return what keeps the names up to date while its `run` runs."""
        stub = ContractServiceStub(channel)
        return Watcher(
            lambda after: stub.WatchCompiledContracts(
                pb.WatchCompiledContractsRequest(after_revision=after), **following(signer=signer)
            ),
            lambda key, _resource: self.put(key),
            self.drop,
        )
