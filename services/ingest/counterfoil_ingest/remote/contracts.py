"""The contracts service as ingest uses it: compiled contracts watched, and one looked up when it is not known yet."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterable, Callable

import grpc
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.contracts.v1 import contracts_pb2 as pb
from counterfoil.contracts.v1.contracts_pb2_grpc import ContractServiceStub
from counterfoil_chassis.call import following, outgoing
from counterfoil_chassis.errors import Code
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.status import code_of
from counterfoil_chassis.watch import Watcher
from google.protobuf.any_pb2 import Any as AnyMessage

from counterfoil_ingest.entities import KeptContract
from counterfoil_ingest.errors import ContractsUnavailableError
from counterfoil_ingest.registry import Column, ColumnType, Compiled, Contracts, validator_of
from counterfoil_ingest.remote.promises import promises_of
from counterfoil_ingest.rules import RecordRule, RecordRules
from counterfoil_ingest.store import ContractStore

_LOOKUP_SECONDS = 2.0

_logger = logging.getLogger(__name__)


class ContractsClient:
    """Asks the contracts service, in ingest's own name."""

    def __init__(self, channel: grpc.aio.Channel, *, signer: TokenSigner) -> None:
        self._stub = ContractServiceStub(channel)
        self._signer = signer

    async def lookup(self, workspace: str, dataset: str) -> pb.CompiledContract | None:
        """Return the contract in force for a dataset, None when it has none; raise ContractsUnavailableError."""
        request = pb.LookupCompiledContractRequest(workspace=workspace, dataset=dataset)
        try:
            return await self._stub.LookupCompiledContract(
                request, **outgoing(default=_LOOKUP_SECONDS, signer=self._signer)
            )
        except grpc.aio.AioRpcError as error:
            if code_of(error) is Code.NOT_FOUND:
                return None
            raise ContractsUnavailableError(
                "The contracts service cannot be asked about this dataset now. Send the records again.",
                metadata={"dataset": dataset},
            ) from error

    def watch(self, after_revision: int) -> AsyncIterable[WatchResponse]:
        """Open the stream of the compiled contracts in force."""
        request = pb.WatchCompiledContractsRequest(after_revision=after_revision)
        return self._stub.WatchCompiledContracts(request, **following(signer=self._signer))


class ContractsFollower:
    """Keeps `contracts` as the contracts service says, and in the database, so that a restart begins with them."""

    def __init__(self, client: ContractsClient, kept: ContractStore, *, monotonic: Callable[[], float]) -> None:
        self.contracts = Contracts(self._lookup, monotonic=monotonic)
        self.settled = False
        """Whether the watch has told the present state."""
        self._client = client
        self._kept = kept
        self._watcher = Watcher(client.watch, self._put, self._drop, name="contracts compiled contracts")
        self._unconfirmed: set[tuple[str, str]] = set()
        self._written: dict[tuple[str, str], bytes] = {}
        self._changes: deque[KeptContract | tuple[str, str]] = deque()
        self._changed = asyncio.Event()

    async def restore(self) -> None:
        """Put what was in force when this service last ran; what the watch does not confirm is dropped again."""
        for each in await self._kept.all():
            try:
                compiled = compiled_of(pb.CompiledContract.FromString(each.message))
            except ValueError:
                _logger.exception("kept contract is unusable", extra={"dataset": each.dataset})
                continue
            if each.in_force:
                self.contracts.put(compiled)
                self._unconfirmed.add((each.workspace, each.dataset))
                self._written[each.workspace, each.dataset] = each.message
            else:
                self.contracts.remember(compiled)

    async def watch(self) -> None:
        """Follow the contracts service for ever."""
        await self._watcher.run()

    async def settle(self) -> None:
        """Drop, once the watch has told the present state, what was restored and is in force no more."""
        await self._watcher.current()
        for workspace, dataset in self._unconfirmed:
            self._drop(f"{workspace}/{dataset}")
        self.settled = True

    async def keep(self) -> None:
        """Write what changes into the database, for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write what waits to be kept; once more when the process ends, since `keep` may have been stopped midway."""
        while self._changes:
            await self._write(self._changes[0])
            self._changes.popleft()

    async def _write(self, change: KeptContract | tuple[str, str]) -> None:
        if isinstance(change, KeptContract):
            await self._kept.put(change)
        else:
            await self._kept.retire(*change)

    async def _lookup(self, workspace: str, dataset: str) -> Compiled | None:
        """Return the contract in force for a dataset now; it is kept as one that the watch has brought."""
        message = await self._client.lookup(workspace, dataset)
        if message is None:
            return None
        try:
            compiled = compiled_of(message)
        except ValueError as error:
            _logger.exception("compiled contract is unusable", extra={"dataset": dataset})
            raise ContractsUnavailableError(
                "The dataset's compiled contract cannot be used. Activate another version.",
                metadata={"dataset": dataset},
            ) from error
        if self.contracts.in_force(workspace, dataset) is None:  # else the watch was faster
            self._note(message, message.SerializeToString())
        return compiled

    def _put(self, key: str, packed: AnyMessage) -> None:
        message = pb.CompiledContract()
        packed.Unpack(message)
        self._unconfirmed.discard((message.workspace, message.dataset))
        try:
            compiled = compiled_of(message)
        except ValueError:  # the last good one stays in force
            _logger.exception("compiled contract is unusable", extra={"key": key})
            return
        self._note(message, packed.value)
        self.contracts.put(compiled)

    def _note(self, message: pb.CompiledContract, data: bytes) -> None:
        """Have a contract in force written, unless it is already."""
        if self._written.get((message.workspace, message.dataset)) != data:
            self._written[message.workspace, message.dataset] = data
            self._change(KeptContract(message.workspace, message.dataset, message.version, True, data))

    def _drop(self, key: str) -> None:
        workspace, _, dataset = key.partition("/")
        self.contracts.drop(workspace, dataset)
        self._written.pop((workspace, dataset), None)
        self._change((workspace, dataset))

    def _change(self, change: KeptContract | tuple[str, str]) -> None:
        self._changes.append(change)
        self._changed.set()


def compiled_of(message: pb.CompiledContract) -> Compiled:
    """Return a compiled contract ready to validate; raise ValueError when it does not compile."""
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
        json_schema=message.json_schema,
        rules=_rules_of(message),
        promises=promises_of(message),
        classifications={each.path: each.classification for each in message.classifications},
    )


def _rules_of(message: pb.CompiledContract) -> RecordRules | None:
    rules = [
        RecordRule(each.rule_id, each.expression, each.description, each.path, each.crossing)
        for each in message.record_rules
    ]
    return RecordRules(rules) if rules else None
