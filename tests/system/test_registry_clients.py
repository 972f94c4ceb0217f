"""The unmodified registry clients of Kafka's users: they evolve schemas here, and are refused what breaks others."""

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import httpx
import pytest
from confluent_kafka.schema_registry import (
    Metadata,
    MetadataProperties,
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    ServerConfig,
)
from confluent_kafka.schema_registry.common.schema_registry_client import ConfigCompatibilityLevel
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext, SerializationError
from schema_registry.client import SchemaRegistryClient as OtherClient
from schema_registry.client.errors import ClientError
from schema_registry.client.schema import AvroSchema, JsonSchema

from tests.system.installation import Installation, until
from tests.system.tenant import Tenant, ok

DRAFT_2020 = "https://json-schema.org/draft/2020-12/schema"
Connect: TypeAlias = Callable[..., SchemaRegistryClient]

ORDER = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "Order",
    "type": "object",
    "properties": {"order_id": {"type": "string"}, "total": {"type": "number"}},
    "required": ["order_id"],
    "additionalProperties": False,
}


def changed(**properties: Any) -> dict[str, Any]:
    """Return the order's schema with other properties; None takes one out."""
    merged = {name: schema for name, schema in {**ORDER["properties"], **properties}.items() if schema is not None}
    return {**ORDER, "properties": merged}


def text(document: Any) -> str:
    """Return a schema as it is registered."""
    return json.dumps(document)


@pytest.fixture
def subject() -> str:
    """A subject of the test's own; it holds what has to be encoded in a path."""
    return f"orders/{uuid.uuid4().hex[:8]}:value"


@pytest.fixture(scope="module")
def url(installation: Installation) -> str:
    return f"{installation.url}/schema-registry"


@pytest.fixture
def connected(url: str, tenant: Tenant) -> Iterator[Connect]:
    """Make Confluent's clients, each with nothing in its cache, and close them."""
    with contextlib.ExitStack() as clients:

        def connect(key: str = tenant.key) -> SchemaRegistryClient:
            made = SchemaRegistryClient({"url": url, "basic.auth.user.info": f"key:{key}"})
            return clients.enter_context(made)

        yield connect


@pytest.fixture
def registry(connected: Connect) -> SchemaRegistryClient:
    return connected()


@pytest.fixture
def http(url: str, tenant: Tenant) -> Iterator[httpx.Client]:
    """Any other client of the API."""
    with httpx.Client(base_url=url, auth=("key", tenant.key), timeout=60, trust_env=False) as client:
        yield client


def refused(error: pytest.ExceptionInfo[SchemaRegistryError]) -> tuple[int, int]:
    """Return HTTP status and error code of a refusal."""
    return error.value.http_status_code, error.value.error_code


def test_confluents_client_registers_evolves_and_finds_schemas(
    registry: SchemaRegistryClient, subject: str, connected: Connect
):
    first = registry.register_schema(subject, Schema(text(ORDER), "JSON"))
    second = registry.register_schema(subject, Schema(text(changed(coupon={"type": "string"})), "JSON"))
    assert second > first
    assert registry.register_schema(subject, Schema(text(ORDER), "JSON"), normalize_schemas=False) == first
    latest = registry.get_latest_version(subject)
    assert (latest.version, latest.schema_id, latest.subject) == (2, second, subject)
    assert uuid.UUID(latest.guid)
    fresh = connected()
    assert json.loads(fresh.get_schema(first).schema_str) == ORDER
    assert json.loads(fresh.get_schema_by_guid(latest.guid).schema_str) == changed(coupon={"type": "string"})
    assert fresh.get_versions(subject) == [1, 2]
    assert fresh.lookup_schema(subject, Schema(text(ORDER), "JSON")).version == 1
    assert subject in fresh.get_subjects()
    assert fresh.get_subjects(subject_prefix=subject[:10]) == [subject]
    assert fresh.get_subjects_by_schema_id(first) == [subject]
    assert [(each.subject, each.version) for each in fresh.get_schema_versions(first)] == [(subject, 1)]
    assert fresh.get_schema_types() == ["JSON"]
    assert fresh.get_contexts() == ["."]


def test_confluents_serializer_and_deserializer_carry_a_record(
    registry: SchemaRegistryClient, subject: str, connected: Connect
):
    topic = subject.partition(":")[0]
    context = SerializationContext(topic, MessageField.VALUE)
    serialize = JSONSerializer(text(ORDER), registry)
    message = serialize({"order_id": "1", "total": 2.5}, context)
    assert message is not None
    assert message[0] == 0
    schema_id = int.from_bytes(message[1:5])
    assert registry.get_latest_version(f"{topic}-value").schema_id == schema_id
    reader = connected()
    assert JSONDeserializer(None, schema_registry_client=reader)(message, context) == {"order_id": "1", "total": 2.5}
    with pytest.raises(SerializationError):
        serialize({"total": "much"}, context)
    newest = JSONSerializer(None, reader, conf={"auto.register.schemas": False, "use.latest.version": True})
    assert newest({"order_id": "2"}, context)[1:5] == message[1:5]


def test_a_breaking_schema_is_refused_with_a_record_that_shows_it(
    registry: SchemaRegistryClient, http: httpx.Client, subject: str
):
    registry.register_schema(subject, Schema(text(ORDER), "JSON"))
    breaking = Schema(text({**ORDER, "required": ["order_id", "total"]}), "JSON")
    with pytest.raises(SchemaRegistryError) as error:
        registry.register_schema(subject, breaking)
    assert refused(error) == (409, 40901)
    assert '{"order_id"' in error.value.error_message
    assert "required" in error.value.error_message
    assert registry.test_compatibility(subject, breaking) is False
    assert registry.test_compatibility(subject, Schema(text(changed(coupon=True)), "JSON")) is True
    quoted = subject.replace("/", "%2F").replace(":", "%3A")
    body = {"schemaType": "JSON", "schema": breaking.schema_str}
    said = http.post(f"/compatibility/subjects/{quoted}/versions/latest?verbose=True", json=body).json()
    assert said["is_compatible"] is False
    assert any("required" in message and "such as {" in message for message in said["messages"])
    assert registry.get_versions(subject) == [1]


def test_levels_say_in_which_direction_and_with_how_many_versions(registry: SchemaRegistryClient, subject: str):
    removal = Schema(text(changed(total=None)), "JSON")
    registry.register_schema(subject, Schema(text(ORDER), "JSON"))
    assert registry.test_compatibility(subject, removal) is False
    registry.set_compatibility(subject, "FORWARD")
    assert registry.get_compatibility(subject) == "FORWARD"
    registry.register_schema(subject, removal)
    registry.set_config(subject, ServerConfig(compatibility=ConfigCompatibilityLevel.BACKWARD_TRANSITIVE))
    assert registry.get_config(subject).compatibility_level is ConfigCompatibilityLevel.BACKWARD_TRANSITIVE
    added = Schema(text(changed(total=None, note={"type": "string"})), "JSON")
    assert registry.test_compatibility(subject, added) is True, "with the newest alone"
    assert registry.test_compatibility_all_versions(subject, added) is False, "with the first, too"
    with pytest.raises(SchemaRegistryError) as error:
        registry.register_schema(subject, added)
    assert refused(error) == (409, 40901)
    registry.set_compatibility(subject, "NONE")
    assert registry.register_schema(subject, Schema('{"type":"integer"}', "JSON")) > 0
    registry.delete_config(subject)
    with pytest.raises(SchemaRegistryError) as error:
        registry.get_compatibility(subject)
    assert refused(error) == (404, 40408)
    assert registry.get_compatibility() == "BACKWARD"


def test_policies_decide_how_compatible_is_found_out(http: httpx.Client, registry: SchemaRegistryClient, subject: str):
    """An optional property is added to an open content model: a proof says no, and users of registries ask for it."""
    open_order = {name: part for name, part in ORDER.items() if name != "additionalProperties"}
    registry.register_schema(subject, Schema(text(open_order), "JSON"))
    grown = {**open_order, "properties": {**open_order["properties"], "coupon": {"type": "string"}}}
    body = {"schemaType": "JSON", "schema": text(grown)}
    quoted = subject.replace("/", "%2F")
    found = {}
    for policy in ("exact", "confluent_strict", "confluent_lenient", "LENIENT"):
        ok(http.put(f"/config/{quoted}", json={"compatibilityPolicy": policy}))
        said = ok(http.post(f"/compatibility/subjects/{quoted}/versions/latest?verbose=true", json=body))
        found[policy] = (said["is_compatible"], " ".join(said["messages"]))
    assert found["exact"][0] is False
    assert "such as" in found["exact"][1]
    assert found["confluent_strict"][0] is False
    assert "OPTIONAL_PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL at #/properties/coupon" in found["confluent_strict"][1]
    assert found["confluent_lenient"] == found["LENIENT"] == (True, "")
    config = ok(http.get(f"/config/{quoted}"))
    assert config == {"compatibilityLevel": "BACKWARD", "compatibilityPolicy": "confluent_lenient", "normalize": False}


def test_references_are_resolved_shown_and_guarded(registry: SchemaRegistryClient, subject: str, connected: Connect):
    money = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"micros": {"$ref": "#/definitions/whole"}, "currency": {"type": "string"}},
        "required": ["micros"],
        "definitions": {"whole": {"type": "integer"}},
        "additionalProperties": False,
    }
    money_subject = f"{subject}-money"
    registry.register_schema(money_subject, Schema(text(money), "JSON"))
    reference = [SchemaReference("money.json", money_subject, 1)]
    priced = text(changed(total={"$ref": "money.json"}))
    referring = registry.register_schema(subject, Schema(priced, "JSON", reference))
    assert registry.get_referenced_by(money_subject, 1) == [referring]
    fresh = connected()
    [shown] = fresh.get_schema(referring).references
    assert (shown.name, shown.subject, shown.version) == ("money.json", money_subject, 1)
    context = SerializationContext(subject, MessageField.VALUE)
    write = JSONSerializer(
        Schema(priced, "JSON", reference),
        fresh,
        conf={"auto.register.schemas": False, "subject.name.strategy": lambda *_: subject},
    )
    read = JSONDeserializer(None, schema_registry_client=fresh, conf={"subject.name.strategy": lambda *_: subject})
    record = {"order_id": "1", "total": {"micros": 5}}
    assert read(write(record, context), context) == record
    with pytest.raises(SerializationError):
        write({"order_id": "1", "total": {"micros": "five"}}, context)
    with pytest.raises(SchemaRegistryError) as error:
        registry.delete_version(money_subject, 1)
    assert refused(error) == (422, 42206)
    looser = Schema(text({**money, "definitions": {"whole": {"type": "number"}}}), "JSON")
    tighter = Schema(text({**money, "definitions": {"whole": {"type": "integer", "minimum": 0}}}), "JSON")
    for number, schema, compatible in ((2, looser, True), (3, tighter, False)):
        registry.set_compatibility(money_subject, "NONE")
        registry.register_schema(money_subject, schema)
        moved = Schema(priced, "JSON", [SchemaReference("money.json", money_subject, number)])
        assert registry.test_compatibility(subject, moved) is compatible
    lost = Schema(priced, "JSON", [SchemaReference("money.json", money_subject, 9)])
    with pytest.raises(SchemaRegistryError) as error:
        registry.register_schema(subject, lost)
    assert refused(error) == (422, 42201)


def test_versions_and_subjects_are_deleted_softly_then_for_good(
    registry: SchemaRegistryClient, subject: str, connected: Connect
):
    mine = {**ORDER, "title": subject}
    first = registry.register_schema(subject, Schema(text(mine), "JSON"))
    registry.register_schema(subject, Schema(text({**changed(note={"type": "string"}), "title": subject}), "JSON"))
    with pytest.raises(SchemaRegistryError) as error:
        registry.delete_version(subject, 1, permanent=True)
    assert refused(error) == (404, 40407)
    assert registry.delete_version(subject, 1) == 1
    with pytest.raises(SchemaRegistryError) as error:
        registry.delete_version(subject, 1)
    assert refused(error) == (404, 40406)
    fresh = connected()
    assert fresh.get_versions(subject) == [2]
    assert fresh.get_versions(subject, deleted=True) == [1, 2]
    assert fresh.get_versions(subject, deleted_only=True) == [1]
    assert fresh.get_version(subject, 1, deleted=True).schema_id == first
    with pytest.raises(SchemaRegistryError) as error:
        connected().get_version(subject, 1)
    assert refused(error) == (404, 40402)
    assert json.loads(fresh.get_schema(first).schema_str) == mine, "what was written with it can still be read"
    assert registry.delete_version(subject, 1, permanent=True) == 1
    with pytest.raises(SchemaRegistryError) as error:
        connected().get_schema(first)
    assert refused(error) == (404, 40403)
    assert registry.delete_subject(subject) == [2]
    with pytest.raises(SchemaRegistryError) as error:
        registry.get_latest_version(subject)
    assert refused(error) == (404, 40401)
    assert subject not in registry.get_subjects()
    assert subject in registry.get_subjects(deleted=True)
    with pytest.raises(SchemaRegistryError) as error:
        registry.delete_subject(subject)
    assert refused(error) == (404, 40404)
    assert registry.delete_subject(subject, permanent=True) == [2]
    assert subject not in registry.get_subjects(deleted=True)
    assert connected().register_schema(subject, Schema(text(mine), "JSON")) > first + 1


def test_modes_close_a_subject_or_take_ids_from_elsewhere(
    registry: SchemaRegistryClient, http: httpx.Client, subject: str
):
    registry.update_mode(subject, "IMPORT")
    quoted = subject.replace("/", "%2F")
    body = {"schemaType": "JSON", "schema": text({**ORDER, "title": subject}), "id": 4711, "version": 7}
    assert ok(http.post(f"/subjects/{quoted}/versions", json=body))["id"] == 4711
    other = {**body, "schema": text(changed(total=None))}
    assert http.post(f"/subjects/{quoted}/versions", json=other).json()["error_code"] == 42207
    registry.update_mode(subject, "READONLY")
    assert registry.get_mode(subject) == "READONLY"
    with pytest.raises(SchemaRegistryError) as error:
        registry.register_schema(subject, Schema(text(changed(note=True)), "JSON"))
    assert refused(error) == (422, 42205)
    with pytest.raises(SchemaRegistryError) as error:
        registry.delete_subject(subject)
    assert refused(error) == (422, 42205)
    assert registry.delete_mode(subject) == "READONLY"
    with pytest.raises(SchemaRegistryError) as error:
        registry.get_mode(subject)
    assert refused(error) == (404, 40409)
    assert registry.get_global_mode() == "READWRITE"
    assert registry.register_schema(subject, Schema(text({**changed(note=True), "title": subject}), "JSON")) > 4711
    assert registry.get_versions(subject) == [7, 8]
    with pytest.raises(SchemaRegistryError) as error:
        registry.update_mode(subject, "IMPORT")
    assert refused(error) == (422, 42204)
    assert registry.update_mode(subject, "IMPORT", force=True) == "IMPORT"
    registry.delete_mode(subject)
    assert http.post(f"/subjects/{quoted}/versions", json=other).json()["error_code"] == 42205


def test_normalised_schemas_are_one_whatever_the_order_of_their_keys(
    registry: SchemaRegistryClient, subject: str, connected: Connect
):
    turned = dict(reversed(ORDER.items()))
    first = registry.register_schema(subject, Schema(text(ORDER), "JSON"), normalize_schemas=True)
    fresh = connected()
    assert fresh.register_schema(subject, Schema(text(turned), "JSON"), normalize_schemas=True) == first
    assert fresh.lookup_schema(subject, Schema(text(turned), "JSON"), normalize_schemas=True).version == 1
    spaced = json.dumps(json.loads(fresh.get_schema(first).schema_str), indent=4)
    assert fresh.lookup_schema(subject, Schema(spaced, "JSON")).version == 1
    with pytest.raises(SchemaRegistryError) as error:
        connected().lookup_schema(subject, Schema(text(turned), "JSON"))
    assert refused(error) == (404, 40403)


def test_metadata_find_a_version_and_group_what_is_compared(
    registry: SchemaRegistryClient, http: httpx.Client, subject: str
):
    def with_major(document: Any, major: str) -> Schema:
        metadata = Metadata(tags=None, properties=MetadataProperties({"major": major}), sensitive=None)
        return Schema(text(document), "JSON", [], metadata)

    registry.set_config(subject, ServerConfig(compatibility_group="major"))
    registry.register_schema(subject, with_major(ORDER, "1"))
    registry.register_schema(subject, with_major({"type": "integer"}, "2"))
    found = registry.get_latest_with_metadata(subject, {"major": "1"})
    assert (found.version, found.schema.metadata.properties.properties) == (1, {"major": "1"})
    assert registry.test_compatibility_all_versions(subject, with_major({"type": "string"}, "2")) is False
    assert registry.register_schema(subject, with_major(changed(note={"type": "string"}), "1")) > 0
    with pytest.raises(SchemaRegistryError) as error:
        registry.get_latest_with_metadata(subject, {"major": "3"})
    assert refused(error) == (404, 40403)


def test_the_other_client_registers_evolves_and_deletes(url: str, tenant: Tenant, subject: str):
    """python-schema-registry-client does not encode subjects, and ends the global paths with a slash."""
    plain = subject.replace("/", "-").replace(":", "-")
    client = OtherClient(url=url, auth=httpx.BasicAuth("key", tenant.key))
    first = client.register(plain, JsonSchema(ORDER))
    assert client.get_by_id(first).raw_schema == ORDER
    assert client.check_version(plain, JsonSchema(ORDER)).version == 1
    grown = JsonSchema(changed(coupon={"type": "string"}))
    assert client.test_compatibility(plain, grown)
    assert client.register(plain, grown) > first
    assert client.get_versions(plain) == [1, 2]
    assert client.get_schema(plain).version == 2
    breaking = JsonSchema({**ORDER, "required": ["order_id", "total"]})
    with pytest.raises(ClientError) as error:
        client.register(plain, breaking)
    assert error.value.http_code == 409
    assert client.test_compatibility(plain, breaking, verbose=True)["is_compatible"] is False
    assert client.update_compatibility("NONE", subject=plain)
    assert client.get_compatibility(plain) == "NONE"
    assert client.get_compatibility() == "BACKWARD"
    assert plain in client.get_subjects()
    assert client.delete_version(plain, "latest") == 2
    assert client.delete_subject(plain) == [1]
    avro = AvroSchema({"type": "record", "name": "Order", "fields": []})
    with pytest.raises(ClientError) as error:
        client.register(plain, avro)
    assert error.value.http_code == 422
    assert "JSON Schema" in str(error.value.server_traceback)


def test_a_workspace_is_a_registry_of_its_own(
    registry: SchemaRegistryClient, url: str, make_tenant: Any, subject: str, connected: Connect
):
    schema_id = registry.register_schema(subject, Schema(text(ORDER), "JSON"))
    outsider = make_tenant("registry")
    other = connected(outsider.key)
    assert other.get_subjects() == []
    with pytest.raises(SchemaRegistryError) as error:
        other.get_schema(schema_id)
    assert refused(error) == (404, 40403)
    assert other.register_schema("mine", Schema(text(ORDER), "JSON")) == 1


def test_what_is_done_to_a_subject_is_in_the_audit_log(registry: SchemaRegistryClient, tenant: Tenant, subject: str):
    registry.register_schema(subject, Schema(text(ORDER), "JSON"))
    registry.set_compatibility(subject, "FULL")
    registry.delete_subject(subject)

    def told() -> set[str] | None:
        found: set[str] = set()
        for resource in (f"subjects/{subject}", f"subjects/{subject}/versions/1"):
            answer = ok(tenant.http.get("/v1/audit/entries", params={"resource": resource}))
            found |= {entry["action"] for entry in answer["entries"]}
        return found if len(found) == 3 else None

    actions = until(told, seconds=60, what="the audit log does not have it")
    assert actions == {"schema.register", "schema.set_config", "schema.delete"}


def test_a_key_is_needed_and_its_scope(url: str, tenant: Tenant):
    for auth in (None, ("key", "cfk_" + "A" * 43), ("key", "")):
        answer = httpx.get(f"{url}/subjects", auth=auth, trust_env=False, timeout=60)
        assert (answer.status_code, answer.json()["error_code"]) == (401, 401)
        assert answer.headers["www-authenticate"].startswith("Basic")
    narrow = ok(tenant.http.post("/v1/keys", json={"principal_id": "admin", "scopes": ["contracts.read"]}))["api_key"]
    for headers in ({"X-Api-Key": narrow}, {"Authorization": f"Bearer {narrow}"}):
        assert httpx.get(f"{url}/subjects/", headers=headers, trust_env=False, timeout=60).status_code == 200
        body = {"schemaType": "JSON", "schema": "{}"}
        answer = httpx.post(f"{url}/subjects/x/versions", headers=headers, json=body, trust_env=False, timeout=60)
        assert (answer.status_code, answer.json()["error_code"]) == (403, 40301)


def test_what_is_hostile_is_refused_in_bounded_time(http: httpx.Client, subject: str):
    quoted = subject.replace("/", "%2F")

    def code(schema: str, **body: Any) -> int:
        answer = http.post(f"/subjects/{quoted}/versions", json={"schemaType": "JSON", "schema": schema, **body})
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.json()["message"]
        return int(answer.json()["error_code"])

    large = text({"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(170_000)}})
    assert len(large) > 5_000_000
    assert code(large) == 42209
    assert code(large[:2_000_000]) == 42209
    assert code('{"not":' * 10_000 + "{}" + "}" * 10_000) == 42201
    assert code('{"$ref":"http://127.0.0.1:9/elsewhere.json"}') == 42201
    assert code('{"$ref":"#/definitions/nowhere"}') == 42201
    assert code('{"type":"strin"}') == 42201
    assert code('{"type":') == 42201
    assert code("[]") == 42201
    assert code('{"pattern":"((a{1,1000}){1,1000}){1,1000}"}') == 42201
    assert code("{}", schemaType="PROTOBUF") == 42201
    assert code("{}", references=[{"name": "x"}]) == 422
    assert code("{}", ruleSet={"domainRules": ["no object"]}) == 42210
    for name in ("%00", "%20", ":.other:orders", "__GLOBAL", "x" * 300):
        assert http.get(f"/subjects/{name}/versions").json()["error_code"] == 42208, name
    for version in ("0", "-2", "newest", "99999999999"):
        assert http.get(f"/subjects/{quoted}/versions/{version}").json()["error_code"] == 42202, version
    assert http.put("/config", json={"compatibility": "SIDEWAYS"}).json()["error_code"] == 42203
    assert http.put("/mode", json={"mode": "FORWARD"}).json()["error_code"] == 42204
    assert http.get("/nowhere").json()["error_code"] == 404
    assert http.patch("/subjects").status_code == 405


def test_schemas_that_nobody_can_compare_are_unproven_and_the_registry_goes_on(
    http: httpx.Client, registry: SchemaRegistryClient, subject: str
):
    """A proof of the first takes longer than anybody waits."""
    parts = [{"oneOf": [{"required": [f"{letter}{n}"]} for letter in "abc"]} for n in range(12)]
    registry.register_schema(subject, Schema(text({"allOf": parts}), "JSON"))
    body = {"schemaType": "JSON", "schema": text({"allOf": parts, "required": ["total"]})}
    answer = http.post(f"/subjects/{subject.replace('/', '%2F')}/versions", json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (409, 40901)
    assert "UNPROVEN" in answer.json()["message"]
    cyclic = {
        "$schema": DRAFT_2020,
        "$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}}},
        "$ref": "#/$defs/node",
    }
    registry.register_schema(f"{subject}-cyclic", Schema(text(cyclic), "JSON"))
    assert registry.test_compatibility(f"{subject}-cyclic", Schema(text({**cyclic, "type": "object"}), "JSON")) is False
