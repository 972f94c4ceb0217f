"""The life of a contract: proposed, read by somebody, announced to end, retired."""

from counterfoil.contracts.v1 import consumers_pb2, contracts_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tests.system.story import Step, World
from tests.system.tenant import ok

NOTES = """
apiVersion: v3.1.0
kind: DataContract
id: shop-notes
name: Notes
version: 1.0.0
status: active
schema:
  - name: notes
    logicalType: object
    properties:
      - {name: message_id, logicalType: string, required: true}
      - {name: about, logicalType: string}
      - {name: text, logicalType: string}
"""
VERSION = {"contract_id": "shop-notes", "version": "1.0.0"}


def _submit(world: World) -> None:
    ok(world.tenant.http.post("/v1/contracts", content=NOTES, headers={"content-type": "application/yaml"}))


def _register_another(world: World) -> None:
    passing = {"name": "passing", "dataset": "notes", "owner": "nobody"}
    world.answers["passing"] = ok(world.tenant.http.post("/v1/consumers", json=passing))


def _deprecate(world: World) -> Message:
    return contracts_pb2.DeprecateContractVersionRequest(
        **VERSION, sunset_at=Timestamp(seconds=1_746_090_000), reason="nobody writes notes"
    )


LIFECYCLE_STORY: dict[str, Step] = {
    "ContractService/ProposeContractVersion": Step(
        lambda w: contracts_pb2.ProposeContractVersionRequest(**VERSION, reason="to keep notes"), before=_submit
    ),
    "ConsumerService/RegisterConsumer": Step(
        lambda w: consumers_pb2.RegisterConsumerRequest(
            name="board report",
            dataset="notes",
            fields=["about", "$.text", "stars"],
            version_range=">=2.0.0",
            owner="finance",
            contact="finance@example.com",
        )
    ),
    "ConsumerService/GetConsumer": Step(
        lambda w: consumers_pb2.GetConsumerRequest(
            consumer_id=w.answers["ConsumerService/RegisterConsumer"]["consumer_id"]
        )
    ),
    "ConsumerService/ListConsumers": Step(lambda w: consumers_pb2.ListConsumersRequest(dataset="notes")),
    "ConsumerService/ListContractFields": Step(
        lambda w: consumers_pb2.ListContractFieldsRequest(contract_id="shop-notes", page_size=2)
    ),
    "ConsumerService/RemoveConsumer": Step(
        lambda w: consumers_pb2.RemoveConsumerRequest(consumer_id=w.answers["passing"]["consumer_id"]),
        before=_register_another,
    ),
    "ContractService/DeprecateContractVersion": Step(_deprecate),
    "ContractService/RetireContractVersion": Step(
        lambda w: contracts_pb2.RetireContractVersionRequest(**VERSION, reason="nobody reads them either")
    ),
    "ContractService/ListChangelogEntries": Step(
        lambda w: contracts_pb2.ListChangelogEntriesRequest(contract_id="shop-notes", page_size=3)
    ),
}
"""`Service/Method` to its question, in order."""
