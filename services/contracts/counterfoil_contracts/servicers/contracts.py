"""ContractService: translate, open the transaction, delegate, translate back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

import grpc
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.contracts.v1 import contracts_pb2 as pb
from counterfoil.contracts.v1.contracts_pb2_grpc import ContractServiceServicer
from counterfoil_chassis.clock import Clock, from_timestamp
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.watch import Feed
from google.protobuf.message import Message

from counterfoil_contracts import contracts
from counterfoil_contracts.approvals import Approvals
from counterfoil_contracts.entities import ContractVersion, GovernedDataset
from counterfoil_contracts.judging import Find, judge, judged
from counterfoil_contracts.odcs.check import check_document
from counterfoil_contracts.servicers.lifecycle_messages import to_changelog_entry, to_version_comparison
from counterfoil_contracts.servicers.translation import (
    to_compiled,
    to_contract,
    to_dataset_comparison,
    to_finding,
    to_version,
)
from counterfoil_contracts.shipping import Shipping
from counterfoil_contracts.store import Stores, Transactions

Context = grpc.aio.ServicerContext[Message, Message]


class _NamesVersion(Protocol):
    """A request about one contract version."""

    contract_id: str
    version: str


class ContractServicer(ContractServiceServicer):
    """Serves the contracts of the caller's workspace; each call first sees to the shipped ones."""

    def __init__(
        self,
        transactions: Transactions,
        *,
        approvals: Approvals,
        shipping: Shipping,
        feed: Feed,
        pager: Pager,
        clock: Clock,
    ) -> None:
        self._transactions = transactions
        self._approvals = approvals
        self._shipping = shipping
        self._feed = feed
        self._pager = pager
        self._clock = clock

    async def SubmitContract(self, request: pb.SubmitContractRequest, context: Context) -> pb.ContractVersion:
        """Keep an ODCS document as a new contract version."""
        caller = current_caller()
        await self._shipping.ensure(caller.workspace)
        checked = await asyncio.to_thread(check_document, request.document)
        now = self._clock.now()
        version = contracts.draft(
            request.document,
            checked,
            workspace=caller.workspace,
            created_by=caller.principal,
            now=now,
            unfinished=not request.activate,
        )

        async def find(stores: Stores) -> ContractVersion:
            return await contracts.known_or(stores, version)

        if not request.activate:
            async with self._transactions.begin() as stores:
                return to_version(await contracts.submit(stores, version))
        async with judged(self._transactions, find) as (stores, found):
            await contracts.submit(stores, version)
            return to_version(await contracts.activate(stores, found, reason="", principal=caller.principal, now=now))

    async def CheckContract(self, request: pb.CheckContractRequest, context: Context) -> pb.CheckContractResponse:
        """Check an ODCS document without keeping it."""
        caller = current_caller()
        await self._shipping.ensure(caller.workspace)
        checked = await asyncio.to_thread(check_document, request.document)
        if checked.findings:
            return pb.CheckContractResponse(findings=[to_finding(finding) for finding in checked.findings])
        version = contracts.draft(
            request.document, checked, workspace=caller.workspace, created_by=caller.principal, now=self._clock.now()
        )

        async def find(stores: Stores) -> ContractVersion:
            return await contracts.as_submitted(stores, version)

        found = await judge(self._transactions, find, beside=request.against_version)
        return pb.CheckContractResponse(
            compiled=[
                to_compiled(GovernedDataset(caller.workspace, checked.contract_id, checked.version, dataset))
                for dataset in checked.compiled
            ],
            comparisons=[to_dataset_comparison(each) for each in found.compared.datasets],
            comparison=to_version_comparison(found.compared.whole),
        )

    async def GetContract(self, request: pb.GetContractRequest, context: Context) -> pb.Contract:
        """Return one contract."""
        workspace = await self._workspace()
        async with self._transactions.read() as stores:
            return to_contract(await stores.contracts.get(workspace, request.contract_id))

    async def ListContracts(self, request: pb.ListContractsRequest, context: Context) -> pb.ListContractsResponse:
        """List the workspace's contracts by id."""
        workspace = await self._workspace()
        page = self._pager.open(request, method="ListContracts", workspace=workspace)
        after = page.after[0] if page.after else ""
        async with self._transactions.read() as stores:
            found = await stores.contracts.list(workspace, after=after, limit=page.limit + 1)
        answer = pb.ListContractsResponse(contracts=[to_contract(contract) for contract in found[: page.limit]])
        if len(found) > page.limit:
            answer.next_page_token = self._pager.token(
                request, method="ListContracts", workspace=workspace, after=[answer.contracts[-1].contract_id]
            )
        return answer

    async def GetContractVersion(self, request: pb.GetContractVersionRequest, context: Context) -> pb.ContractVersion:
        """Return one contract version with its document and compiled schemas."""
        workspace = await self._workspace()
        async with self._transactions.read() as stores:
            return to_version(
                await contracts.get_version(
                    stores, workspace=workspace, contract_id=request.contract_id, version=request.version
                )
            )

    async def ListContractVersions(
        self, request: pb.ListContractVersionsRequest, context: Context
    ) -> pb.ListContractVersionsResponse:
        """List a contract's versions, oldest first.

        Documents and compiled schemas are left out, since a page of them could be larger than a message;
        GetContractVersion has them.
        """
        workspace = await self._workspace()
        page = self._pager.open(request, method="ListContractVersions", workspace=workspace)
        after = int(page.after[0]) if page.after else 0
        async with self._transactions.read() as stores:
            await stores.contracts.get(workspace, request.contract_id)
            found = await stores.contracts.list_versions(
                workspace, request.contract_id, after=after, limit=page.limit + 1
            )
        shown = found[: page.limit]
        answer = pb.ListContractVersionsResponse(versions=[to_version(summary.version) for summary in shown])
        if len(found) > page.limit:
            answer.next_page_token = self._pager.token(
                request, method="ListContractVersions", workspace=workspace, after=[str(shown[-1].number)]
            )
        return answer

    async def ActivateContractVersion(
        self, request: pb.ActivateContractVersionRequest, context: Context
    ) -> pb.ContractVersion:
        """Put a contract version in force."""
        principal = current_caller().principal
        async with judged(self._transactions, await self._finder(request)) as (stores, found):
            return to_version(
                await contracts.activate(
                    stores, found, reason=request.reason, principal=principal, now=self._clock.now()
                )
            )

    async def ProposeContractVersion(
        self, request: pb.ProposeContractVersionRequest, context: Context
    ) -> pb.ProposeContractVersionResponse:
        """Activate a contract version at once if it breaks nobody, else ask a second person to approve that."""
        find = await self._finder(request)
        version, found = await self._approvals.propose(
            find, principal=current_caller().principal, reason=request.reason
        )
        return pb.ProposeContractVersionResponse(
            version=to_version(version),
            comparisons=[to_dataset_comparison(each) for each in found.compared.datasets],
            comparison=to_version_comparison(found.compared.whole),
        )

    async def DeprecateContractVersion(
        self, request: pb.DeprecateContractVersionRequest, context: Context
    ) -> pb.ContractVersion:
        """Announce the end of a contract version."""
        find, principal = await self._finder(request), current_caller().principal
        async with self._transactions.begin() as stores:
            return to_version(
                await contracts.deprecate(
                    stores,
                    await find(stores),
                    sunset_at=from_timestamp(request.sunset_at),
                    reason=request.reason,
                    principal=principal,
                    now=self._clock.now(),
                )
            )

    async def RetireContractVersion(
        self, request: pb.RetireContractVersionRequest, context: Context
    ) -> pb.ContractVersion:
        """Retire a contract version for good."""
        find, principal = await self._finder(request), current_caller().principal
        async with self._transactions.begin() as stores:
            return to_version(
                await contracts.retire(
                    stores, await find(stores), reason=request.reason, principal=principal, now=self._clock.now()
                )
            )

    async def ListChangelogEntries(
        self, request: pb.ListChangelogEntriesRequest, context: Context
    ) -> pb.ListChangelogEntriesResponse:
        """List what was done to a contract, newest first."""
        workspace = await self._workspace()
        page = self._pager.open(request, method="ListChangelogEntries", workspace=workspace)
        before = int(page.after[0]) if page.after else 0
        async with self._transactions.read() as stores:
            await stores.contracts.get(workspace, request.contract_id)
            found = await stores.changelog.list(workspace, request.contract_id, before=before, limit=page.limit + 1)
        shown = found[: page.limit]
        answer = pb.ListChangelogEntriesResponse(entries=[to_changelog_entry(each) for each in shown])
        if len(found) > page.limit:
            answer.next_page_token = self._pager.token(
                request, method="ListChangelogEntries", workspace=workspace, after=[str(shown[-1].number)]
            )
        return answer

    async def WatchCompiledContracts(
        self, request: pb.WatchCompiledContractsRequest, context: Context
    ) -> AsyncIterator[WatchResponse]:
        """Stream the compiled contracts in force of every workspace, and their changes."""
        async for response in self._feed.stream(request.after_revision):
            yield response

    async def LookupCompiledContract(
        self, request: pb.LookupCompiledContractRequest, context: Context
    ) -> pb.CompiledContract:
        """Return the compiled contract in force for one dataset of any workspace."""
        await self._shipping.ensure(request.workspace)
        async with self._transactions.read() as stores:
            return to_compiled(await contracts.governing(stores, workspace=request.workspace, dataset=request.dataset))

    async def _workspace(self) -> str:
        """Return the caller's workspace once it has the shipped contracts."""
        workspace = current_caller().workspace
        await self._shipping.ensure(workspace)
        return workspace

    async def _finder(self, request: _NamesVersion) -> Find:
        """Return what finds the version that a request names, in the caller's workspace."""
        workspace = await self._workspace()

        async def find(stores: Stores) -> ContractVersion:
            return await contracts.get_version(
                stores, workspace=workspace, contract_id=request.contract_id, version=request.version
            )

        return find
