"""What models read, said to contracts: what breaks it is not put in force without approval."""

from collections.abc import Iterator, Sequence

import grpc
from counterfoil.contracts.v1 import consumers_pb2, consumers_pb2_grpc
from counterfoil_chassis.call import outgoing
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.jsonpath import json_path

from counterfoil_models.entities import Model
from counterfoil_models.models import fields_read
from counterfoil_models.store import Stores

_SECONDS = 10.0
_PAGE = 500


class Consumers:
    """Calls in the service's own name."""

    def __init__(self, channel: grpc.aio.Channel, signer: TokenSigner, stores: Stores) -> None:
        self._stub = consumers_pb2_grpc.ConsumerServiceStub(channel)
        self._signer = signer
        self._stores = stores

    async def announce(self, workspace: str) -> None:
        """Say all that the models of a workspace read."""
        consumers = [each for model in await self._models(workspace) for each in _messages(model)]
        request = consumers_pb2.ReplaceOwnConsumersRequest(workspace=workspace, consumers=consumers)
        await self._stub.ReplaceOwnConsumers(request, **outgoing(default=_SECONDS, signer=self._signer))

    async def _models(self, workspace: str) -> Sequence[Model]:
        found: list[Model] = []
        async with self._stores.read() as transaction:
            while True:
                after = found[-1].model_id if found else ""
                page = await transaction.models.page(workspace, limit=_PAGE, after=after)
                found += page
                if len(page) < _PAGE:
                    return found


def _messages(model: Model) -> Iterator[consumers_pb2.OwnConsumer]:
    for dataset, fields in fields_read(model.spec).items():
        yield consumers_pb2.OwnConsumer(
            name=f"models/{model.model_id}",
            dataset=dataset,
            fields=[json_path([each]) for each in fields],
            owner=model.created_by,
        )
