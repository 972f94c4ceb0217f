"""ConsumerService: who reads which fields."""

from __future__ import annotations

from typing import Final

import grpc
from counterfoil.contracts.v1 import consumers_pb2 as pb
from counterfoil.contracts.v1.consumers_pb2_grpc import ConsumerServiceServicer
from counterfoil_chassis.clock import Clock, Ids
from counterfoil_chassis.errors import BadFieldError, FieldViolation
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.paging import Pager
from google.protobuf.message import Message

from counterfoil_contracts import consumers
from counterfoil_contracts.consumers import Registration
from counterfoil_contracts.servicers.lifecycle_messages import to_consumer, to_contract_field
from counterfoil_contracts.shipping import Shipping
from counterfoil_contracts.store import Transactions

Context = grpc.aio.ServicerContext[Message, Message]

_FIRST: Final = ("", "", "")


class ConsumerServicer(ConsumerServiceServicer):
    """Serves the consumers of the caller's workspace."""

    def __init__(self, transactions: Transactions, *, shipping: Shipping, pager: Pager, clock: Clock, ids: Ids) -> None:
        self._transactions = transactions
        self._shipping = shipping
        self._pager = pager
        self._clock = clock
        self._ids = ids

    async def RegisterConsumer(self, request: pb.RegisterConsumerRequest, context: Context) -> pb.Consumer:
        """Register who reads which fields of a dataset."""
        caller = current_caller()
        await self._shipping.ensure(caller.workspace)
        registration = Registration(
            workspace=caller.workspace,
            name=request.name,
            dataset=request.dataset,
            fields=request.fields,
            version_range=request.version_range,
            owner=request.owner,
            contact=request.contact,
        )
        async with self._transactions.begin() as stores:
            consumer = await consumers.register(
                stores, registration, principal=caller.principal, ids=self._ids, now=self._clock.now()
            )
            return to_consumer(consumer, undeclared=await consumers.undeclared(stores, consumer))

    async def GetConsumer(self, request: pb.GetConsumerRequest, context: Context) -> pb.Consumer:
        """Return one consumer."""
        async with self._transactions.read() as stores:
            consumer = await stores.consumers.get(current_caller().workspace, request.consumer_id)
            return to_consumer(consumer, undeclared=await consumers.undeclared(stores, consumer))

    async def ListConsumers(self, request: pb.ListConsumersRequest, context: Context) -> pb.ListConsumersResponse:
        """List the workspace's consumers by name and dataset."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListConsumers", workspace=workspace)
        name, dataset, consumer_id = page.after or _FIRST
        answer = pb.ListConsumersResponse()
        async with self._transactions.read() as stores:
            found = await stores.consumers.list(
                workspace, dataset=request.dataset, after=(name, dataset, consumer_id), limit=page.limit + 1
            )
            for each in found[: page.limit]:
                answer.consumers.append(to_consumer(each, undeclared=await consumers.undeclared(stores, each)))
        if len(found) > page.limit:
            last = found[page.limit - 1]
            after = [last.name, last.dataset, last.consumer_id]
            answer.next_page_token = self._pager.token(
                request, method="ListConsumers", workspace=workspace, after=after
            )
        return answer

    async def RemoveConsumer(self, request: pb.RemoveConsumerRequest, context: Context) -> pb.RemoveConsumerResponse:
        """Remove a consumer that somebody registered."""
        caller = current_caller()
        async with self._transactions.begin() as stores:
            await consumers.remove(stores, caller.workspace, request.consumer_id, principal=caller.principal)
        return pb.RemoveConsumerResponse()

    async def ListContractFields(
        self, request: pb.ListContractFieldsRequest, context: Context
    ) -> pb.ListContractFieldsResponse:
        """List every field that the version in force declares, with those who read it."""
        workspace = current_caller().workspace
        await self._shipping.ensure(workspace)
        page = self._pager.open(request, method="ListContractFields", workspace=workspace)
        async with self._transactions.read() as stores:
            fields = await consumers.fields_of(stores, workspace, request.contract_id)
        # a place by number: another version in force is another list, and nobody turns pages across that
        start = int(page.after[0]) if page.after else 0
        end = start + page.limit
        answer = pb.ListContractFieldsResponse(fields=[to_contract_field(each) for each in fields[start:end]])
        if end < len(fields):
            answer.next_page_token = self._pager.token(
                request, method="ListContractFields", workspace=workspace, after=[str(end)]
            )
        return answer

    async def ReplaceOwnConsumers(
        self, request: pb.ReplaceOwnConsumersRequest, context: Context
    ) -> pb.ReplaceOwnConsumersResponse:
        """Keep all that the calling service reads in a workspace."""
        caller = current_caller()
        registrations = [
            Registration(
                workspace=request.workspace,
                name=each.name,
                dataset=each.dataset,
                fields=each.fields,
                owner=each.owner,
                service=caller.service,
            )
            for each in request.consumers
        ]
        if len({(each.name, each.dataset) for each in registrations}) < len(registrations):
            raise BadFieldError(
                "Two consumers have the same name and dataset.",
                violations=[FieldViolation("consumers", "BAD_FIELD", "say each name and dataset once")],
            )
        async with self._transactions.begin() as stores:
            await consumers.replace_own(
                stores,
                request.workspace,
                caller.service,
                registrations,
                principal=caller.principal,
                ids=self._ids,
                now=self._clock.now(),
            )
        return pb.ReplaceOwnConsumersResponse()
