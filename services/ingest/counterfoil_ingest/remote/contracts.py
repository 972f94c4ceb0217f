"""The contracts service as ingest uses it: compiled contracts watched, and one looked up when it is not known yet."""

from __future__ import annotations

import logging

import grpc
from counterfoil.contracts.v1 import contracts_pb2 as pb
from counterfoil.contracts.v1.contracts_pb2_grpc import ContractServiceStub
from counterfoil_chassis.call import following, outgoing
from counterfoil_chassis.errors import Code
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.status import code_of
from counterfoil_chassis.watch import Watcher
from google.protobuf.any_pb2 import Any as AnyMessage

from counterfoil_ingest.errors import ContractsUnavailableError
from counterfoil_ingest.registry import Column, ColumnType, Compiled, Contracts, validator_of

_LOOKUP_SECONDS = 2.0

_logger = logging.getLogger(__name__)


class ContractsClient:
    """Asks the contracts service, in ingest's own name."""

    def __init__(self, channel: grpc.aio.Channel, *, signer: TokenSigner) -> None:
        self._stub = ContractServiceStub(channel)
        self._signer = signer

    async def lookup(self, workspace: str, dataset: str) -> Compiled | None:
        """Return the contract in force for a dataset, None when it has none; raise ContractsUnavailableError."""
        request = pb.LookupCompiledContractRequest(workspace=workspace, dataset=dataset)
        try:
            found = await self._stub.LookupCompiledContract(
                request, **outgoing(default=_LOOKUP_SECONDS, signer=self._signer)
            )
            return compiled_of(found)
        except grpc.aio.AioRpcError as error:
            if code_of(error) is Code.NOT_FOUND:
                return None
            raise ContractsUnavailableError(
                "The contracts service cannot be asked about this dataset now. Send the records again.",
                metadata={"dataset": dataset},
            ) from error
        except ValueError as error:
            _logger.exception("compiled contract is unusable", extra={"dataset": dataset})
            raise ContractsUnavailableError(
                "The dataset's compiled contract cannot be used. Activate another version.",
                metadata={"dataset": dataset},
            ) from error

    def watcher(self, contracts: Contracts) -> Watcher:
        """Return what keeps `contracts` up to date while its `run` runs."""

        def put(key: str, packed: AnyMessage) -> None:
            message = pb.CompiledContract()
            packed.Unpack(message)
            try:
                contracts.put(compiled_of(message))
            except ValueError:  # the last good one stays in force
                _logger.exception("compiled contract is unusable", extra={"key": key})

        def drop(key: str) -> None:
            workspace, _, dataset = key.partition("/")
            contracts.drop(workspace, dataset)

        return Watcher(
            lambda after: self._stub.WatchCompiledContracts(
                pb.WatchCompiledContractsRequest(after_revision=after), **following(signer=self._signer)
            ),
            put,
            drop,
        )


def compiled_of(message: pb.CompiledContract) -> Compiled:
    """Return a compiled contract ready to validate; raise ValueError when its schema does not compile."""
    return Compiled(
        workspace=message.workspace,
        dataset=message.dataset,
        contract_id=message.contract_id,
        version=message.version,
        compiled_sha256=message.compiled_sha256,
        validator=validator_of(message.json_schema),
        columns=tuple(
            Column(each.name, ColumnType(each.type), each.required, each.default_timezone, each.classification)
            for each in message.columns
        ),
    )
