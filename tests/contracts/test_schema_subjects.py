"""Schema subjects as the gateway asks for them, on both engines."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from counterfoil.common.v1.calls_pb2 import CallItem, CallManyRequest
from counterfoil.common.v1.calls_pb2_grpc import CallServiceStub
from counterfoil.contracts.v1 import schemas_pb2 as pb
from counterfoil.contracts.v1.schemas_pb2_grpc import SchemaServiceStub
from counterfoil_contracts.servicers.schemas import GET_SCHEMA
from google.rpc.status_pb2 import Status

from tests.contracts.calls import Contracts, refused

pytestmark = pytest.mark.both_engines("contracts")


def order(**properties: Any) -> str:
    """Return a closed object's schema as text."""
    properties = {"order_id": {"type": "string"}, **properties}
    return json.dumps({"type": "object", "properties": properties, "additionalProperties": False})


def new(text: str, *references: tuple[str, str, int], **values: Any) -> pb.NewSchema:
    """Return a schema to register."""
    named = [pb.SchemaReference(name=name, subject=subject, version=version) for name, subject, version in references]
    return pb.NewSchema(schema_type="JSON", text=text, references=named, **values)


class Registry:
    """The registry of one workspace."""

    def __init__(self, contracts: Contracts, workspace: str = "default") -> None:
        self.stub = SchemaServiceStub(contracts.channel)
        self._contracts = contracts
        self.workspace = workspace

    @property
    def call(self) -> dict[str, Any]:
        """Return the timeout and metadata of a call."""
        return self._contracts.as_principal(self.workspace)

    async def register(self, subject: str, schema: pb.NewSchema | str, **values: Any) -> pb.SchemaVersion:
        content = schema if isinstance(schema, pb.NewSchema) else new(schema)
        return await self.stub.RegisterSchemaVersion(
            pb.RegisterSchemaVersionRequest(subject=subject, schema=content, **values), **self.call
        )

    async def check(self, subject: str, schema: pb.NewSchema | str, version: str = "") -> pb.CheckSchemaResponse:
        content = schema if isinstance(schema, pb.NewSchema) else new(schema)
        return await self.stub.CheckSchema(
            pb.CheckSchemaRequest(subject=subject, schema=content, version=version), **self.call
        )

    async def configure(self, subject: str = "", **values: Any) -> pb.SubjectConfig:
        return await self.stub.SetSubjectConfig(pb.SetSubjectConfigRequest(subject=subject, **values), **self.call)

    async def delete(self, subject: str, *, permanent: bool = False) -> list[int]:
        answer = await self.stub.DeleteSchemaSubject(
            pb.DeleteSchemaSubjectRequest(subject=subject, permanent=permanent), **self.call
        )
        return list(answer.versions)

    async def get(self, schema_id: int) -> pb.Schema:
        return await self.stub.GetSchema(pb.GetSchemaRequest(schema_id=schema_id), **self.call)

    async def subjects(self, **values: Any) -> list[str]:
        request = pb.ListSchemaSubjectsRequest(**{"limit": 100, **values})
        return list((await self.stub.ListSchemaSubjects(request, **self.call)).subjects)


@pytest.fixture
def registry(contracts: Contracts) -> Registry:
    return Registry(contracts)


async def test_those_who_register_one_schema_at_once_get_one_version(registry: Registry):
    found = await asyncio.gather(*(registry.register("orders", order()) for _ in range(8)))
    assert {(each.version, each.schema.schema_id) for each in found} == {(1, 1)}


async def test_those_who_register_different_schemas_at_once_get_versions_of_their_own(registry: Registry):
    names = [f"p{number}" for number in range(4)]
    await registry.configure("orders", level=pb.COMPATIBILITY_LEVEL_NONE)
    found = await asyncio.gather(*(registry.register("orders", order(**{name: True})) for name in names))
    assert sorted(each.version for each in found) == [1, 2, 3, 4]
    assert len({each.schema.schema_id for each in found}) == 4


async def test_an_id_is_never_given_again(registry: Registry):
    first = await registry.register("orders", order())
    await registry.delete("orders")
    await registry.delete("orders", permanent=True)
    assert await registry.subjects(deleted=True) == []
    again = await registry.register("orders", order())
    assert (again.version, again.schema.schema_id) == (1, first.schema.schema_id + 1)
    assert again.schema.guid == first.schema.guid


async def test_one_schema_under_two_subjects_has_one_id_and_stays_until_both_are_gone(registry: Registry):
    one, other = await registry.register("orders", order()), await registry.register("returns", order())
    assert one.schema.schema_id == other.schema.schema_id
    asked = pb.ListVersionsOfSchemaRequest(schema_id=one.schema.schema_id, limit=10)
    found = await registry.stub.ListVersionsOfSchema(asked, **registry.call)
    assert [each.subject for each in found.versions] == ["orders", "returns"]
    for permanent in (False, True):
        await registry.delete("orders", permanent=permanent)
    assert (await registry.get(one.schema.schema_id)).text == order()


async def test_a_kept_answer_is_forgotten_when_its_schema_is_deleted_for_good(registry: Registry, contracts: Contracts):
    made = await registry.register("orders", order())
    shared = CallServiceStub(contracts.channel)
    _, token = dict(registry.call["metadata"])["authorization"].split(" ")
    request = pb.GetSchemaRequest(schema_id=made.schema.schema_id).SerializeToString()
    items = CallManyRequest(items=[CallItem(token=token, method=GET_SCHEMA, request=request)])

    async def ask() -> tuple[int, str]:
        [result] = (await shared.CallMany(items, **contracts.as_service("gateway"))).results
        return Status.FromString(result.status).code, pb.Schema.FromString(result.response).text

    assert await ask() == await ask() == (0, order())
    await registry.delete("orders")
    assert await ask() == (0, order())
    await registry.delete("orders", permanent=True)
    assert (await ask())[0] == 5


async def test_a_level_with_every_version_looks_at_all_of_them(registry: Registry):
    await registry.configure("orders", level=pb.COMPATIBILITY_LEVEL_FORWARD_TRANSITIVE)
    for number in range(4):
        names = [f"p{each}" for each in range(3, number, -1)]
        await registry.register("orders", order(**{name: {"type": "string"} for name in names}))
    back = order(p3={"type": "string"})
    assert not (await registry.check("orders", back)).compatible
    assert (await registry.check("orders", back, "3")).compatible
    assert not (await registry.check("orders", back, "4")).compatible
    answer = await registry.check("orders", back, "latest")
    assert any("p3" in message and "version 4" in message for message in answer.messages)
    with refused("SCHEMA_VERSION_NOT_FOUND"):
        await registry.check("orders", back, "9")
    assert (await registry.check("unknown", back, "latest")).compatible
    with refused("SUBJECT_NOT_FOUND"):
        await registry.check("unknown", back, "1")


async def test_a_breaking_schema_is_refused_with_each_place_and_a_record(registry: Registry):
    await registry.register("orders", order(total={"type": "number"}, note={"type": "string"}))
    with refused("SCHEMA_INCOMPATIBLE") as failures:
        await registry.register("orders", order(total={"type": "integer"}, note={"type": "string", "maxLength": 3}))
    found = {violation.reason: violation.description for violation in failures[0].violations}
    assert found.keys() >= {"type", "maxLength"}
    assert all("such as {" in text for text in found.values())
    assert failures[0].metadata["level"] == "BACKWARD"
    assert failures[0].metadata["policy"] == "exact"


async def test_what_is_said_of_every_subject_holds_until_a_subject_says_otherwise(registry: Registry):
    await registry.configure(level=pb.COMPATIBILITY_LEVEL_NONE, policy=pb.COMPATIBILITY_POLICY_CONFLUENT_STRICT)
    await registry.configure("orders", level=pb.COMPATIBILITY_LEVEL_FULL)
    asked = pb.GetSubjectConfigRequest(subject="orders")
    own = await registry.stub.GetSubjectConfig(asked, **registry.call)
    assert own.level == pb.COMPATIBILITY_LEVEL_FULL
    assert own.policy == pb.COMPATIBILITY_POLICY_CONFLUENT_STRICT
    await registry.register("returns", '{"type":"string"}')
    await registry.register("returns", '{"type":"integer"}')
    await registry.stub.DeleteSubjectConfig(pb.DeleteSubjectConfigRequest(), **registry.call)
    with refused("SCHEMA_INCOMPATIBLE"):
        await registry.register("returns", '{"type":"boolean"}')


async def test_a_reference_to_the_newest_version_is_that_version_for_good(registry: Registry):
    await registry.register("money", '{"type":"integer"}')
    priced = order(total={"$ref": "money.json"})
    made = await registry.register("orders", new(priced, ("money.json", "money", -1)))
    assert made.schema.references[0].version == 1
    await registry.register("money", '{"type":"number"}')
    assert (await registry.register("orders", new(priced, ("money.json", "money", 1)))).version == 1
    assert (await registry.register("orders", new(priced, ("money.json", "money", -1)))).version == 2
    asked = pb.ListReferringSchemasRequest(subject="money", version="1", limit=10)
    answer = await registry.stub.ListReferringSchemas(asked, **registry.call)
    assert list(answer.schema_ids) == [made.schema.schema_id]


async def test_references_lead_on_and_a_change_far_away_is_seen(registry: Registry):
    """The `$ref`s are relative to `$id`, lead into parts, and two ways to the same schema."""
    await registry.register("whole", '{"$id":"https://example.com/whole.json","definitions":{"w":{"type":"integer"}}}')
    money = '{"type":"object","properties":{"micros":{"$ref":"whole.json#/definitions/w"}}}'
    await registry.register("money", new(money, ("whole.json", "whole", 1)))
    priced = '{"$id":"https://example.com/order.json","type":"object","properties":{"a":{"$ref":"money.json"},"b":{"$ref":"https://example.com/whole.json#/definitions/w"}}}'
    links = [("https://example.com/money.json", "money", 1), ("https://example.com/whole.json", "whole", 1)]
    await registry.register("orders", new(priced, *links))
    await registry.configure("whole", level=pb.COMPATIBILITY_LEVEL_NONE)
    await registry.register("whole", '{"definitions":{"w":{"type":"integer","minimum":0}}}')
    await registry.configure("money", level=pb.COMPATIBILITY_LEVEL_NONE)
    await registry.register("money", new(money, ("whole.json", "whole", 2)))
    moved = [("https://example.com/money.json", "money", 2), links[1]]
    answer = await registry.check("orders", new(priced, *moved))
    assert not answer.compatible
    assert any("$.a.micros" in message for message in answer.messages)
    assert (await registry.check("orders", new(priced, *links))).compatible


async def test_what_others_refer_to_stays(registry: Registry):
    await registry.register("money", '{"type":"integer"}')
    await registry.register("orders", new(order(total={"$ref": "m"}), ("m", "money", 1)))
    with refused("SCHEMA_REFERENCED"):
        await registry.delete("money")
    await registry.delete("orders")
    assert await registry.delete("money") == [1]
    with refused("SCHEMA_REFERENCED"):
        await registry.delete("money", permanent=True)
    with refused("SCHEMA_INVALID"):
        await registry.register("returns", new(order(total={"$ref": "m"}), ("m", "money", 1)))
    await registry.delete("orders", permanent=True)
    assert await registry.delete("money", permanent=True) == [1]


async def test_subjects_are_listed_by_prefix_page_and_whether_they_are_deleted(registry: Registry):
    for name in ("a_1", "A_1", "aX1", "b"):
        await registry.register(name, order())
    await registry.delete("b")
    assert sorted(await registry.subjects()) == ["A_1", "aX1", "a_1"]
    assert await registry.subjects(prefix="a_") == ["a_1"], "a prefix is no pattern"
    assert await registry.subjects(deleted_only=True) == ["b"]
    everything = await registry.subjects(deleted=True)
    assert [
        *await registry.subjects(deleted=True, limit=2),
        *await registry.subjects(deleted=True, offset=2),
    ] == everything


async def test_another_workspace_has_other_ids_subjects_and_settings(registry: Registry, contracts: Contracts):
    await registry.register("orders", order())
    await registry.configure("orders", level=pb.COMPATIBILITY_LEVEL_NONE)
    other = Registry(contracts, "elsewhere")
    assert await other.subjects(deleted=True) == []
    with refused("SCHEMA_NOT_FOUND"):
        await other.get(1)
    with refused("SUBJECT_NOT_FOUND"):
        await other.delete("orders")
    with refused("SUBJECT_CONFIG_NOT_FOUND"):
        await other.stub.GetSubjectConfig(pb.GetSubjectConfigRequest(subject="orders"), **other.call)
    with refused("SCHEMA_INVALID"):
        await other.register("mine", new(order(total={"$ref": "o"}), ("o", "orders", 1)))
    assert (await other.register("orders", '{"type":"string"}')).schema.schema_id == 1


async def test_metadata_and_rules_belong_to_the_schema(registry: Registry):
    plain = await registry.register("orders", order())
    metadata = b'{"properties": {"owner": "shop"}, "tags": {"order_id": ["PII"]}}'
    rules = b'{"domainRules":[{"name":"positive","kind":"CONDITION","type":"CEL","expr":"message.total > 0"}]}'
    made = await registry.register("orders", new(order(), metadata=metadata, rule_set=rules))
    assert (made.version, made.schema.schema_id) == (2, plain.schema.schema_id + 1)
    assert json.loads(made.schema.metadata) == json.loads(metadata)
    assert json.loads(made.schema.rule_set) == json.loads(rules)
    for bad in (b'{"tags":["a"]}', b'{"other":{}}', b"[]", b'{"properties":{"a":1}}', b"{"):
        with refused("SCHEMA_METADATA_INVALID"):
            await registry.register("orders", new(order(), metadata=bad))
    for bad in (b'{"domainRules":{"name":"x"}}', b'{"domainRules":[{}]}', b'{"others":[{"name":"x"}]}', b"1"):
        with refused("SCHEMA_RULE_SET_INVALID"):
            await registry.register("orders", new(order(), rule_set=bad))


async def test_a_workspace_with_hard_schemas_keeps_no_other_waiting(registry: Registry, contracts: Contracts):
    """A proof takes as long as there is; two processes would be busy with the first two requests."""
    hard = {"allOf": [{"oneOf": [{"required": [f"{letter}{n}"]} for letter in "abc"]} for n in range(14)]}
    await registry.register("hard", json.dumps(hard))
    asked = [asyncio.create_task(registry.check("hard", json.dumps({**hard, "minProperties": n}))) for n in range(1, 4)]
    other = Registry(contracts, "elsewhere")
    await other.register("easy", order())
    assert (await other.check("easy", order(note={"type": "string"}))).compatible
    assert not all(each.done() for each in asked)
    for each in asked:
        each.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
