"""Who may do what, for every public method through both doors: generated from the descriptor image."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from counterfoil.governance.v1 import audit_pb2
from counterfoil.ingest.v1 import imports_pb2, queries_pb2, records_pb2

from tests.system.doors import Door, GrpcDoor, Refusal, RestDoor, annotated_methods, public_methods, refusal
from tests.system.installation import Installation, until
from tests.system.story import EXCEPTIONS, World
from tests.system.tenant import Tenant, ok, problem
from tests.system.trust_story import WHOLE_STORY

NAMES_NOTHING = {
    "WorkspaceService/CreateWorkspace": "makes a new one",
    "WorkspaceService/SetQuotas": "sets any workspace's, and takes a scope that no workspace's own keys can have",
    "PrincipalService/CreatePrincipal": "makes a new one in the caller's workspace",
    "ContractService/CheckContract": "judges the document it is given",
    "LineageService/AnalyzeSql": "analyses the statement it is given, with the caller's own contracts",
    "CheckService/CreateCheck": "describes the caller's own records of a dataset that need not exist",
    "ContractService/SubmitContract": "makes a new one in the caller's workspace",
    "ConsumerService/RegisterConsumer": "makes a new one in the caller's workspace",
    "SourceService/CreateSource": "makes a new one in the caller's workspace",
    "RecordService/AppendRecords": "goes to the caller's own dataset of that name or to its quarantine",
    "QueryService/RunQuery": "names tables in its text; test_queries_see_no_other_workspace holds it",
    "ModelService/CreateModel": "names a dataset that need not exist yet; it is looked for in training",
    "PolicyService/CheckPolicy": "asks the caller's own policies about a resource that need not exist",
    "PolicyService/CreatePolicyBundle": "makes a new one in the caller's workspace",
    "ConsentService/RecordConsents": "goes to the caller's own ledger",
    "PrivacyRequestService/CreatePrivacyRequest": "makes a new one in the caller's workspace",
    "LegalHoldService/CreateLegalHold": "makes a new one in the caller's workspace",
    "RetentionPolicyService/SetRetentionPolicy": "sets that of the caller's own dataset, which need not exist yet",
    "ConsentService/CheckConsents": "reads the caller's own ledger; test_consents_are_hidden holds it",
    "AuditService/GetCheckpoint": "the caller's own log",
    "AuditService/GetInclusionProof": "the caller's own log",
    "AuditService/GetConsistencyProof": "the caller's own log",
    "AuditService/VerifyAudit": "the caller's own log",
    "MappingService/CheckMapping": "judges the document it is given",
    "MappingService/CreateMapping": "makes a new one in the caller's workspace",
    "GraphService/GetGraph": "the caller's own graph",
    "GraphService/RebuildGraph": "the caller's own graph",
    "AttributionService/CreateAttribution": "reads the caller's own journeys; its cost dataset is not found",
}
"""Methods that name no resource which could belong to another workspace, and why."""

LISTS = {name for name in annotated_methods() if name.split("/")[1].startswith("List")}
SHIPPED = "events"
"""The contract that every workspace begins with."""

NESTED_LISTS = {
    "ContractService/ListContractVersions",
    "ContractService/ListChangelogEntries",
    "ConsumerService/ListContractFields",
    "ModelService/ListModelVersions",
    "ModelService/ListModelEvents",
    "RecordService/ListRecords",
    "NodeService/ListNeighbors",
    "JourneyService/ListJourneyEvents",
}
"""Lists under a resource: the resource itself is not found."""

ASKS_FOR_MORE = {"ConsentService/ListConsents", "NodeService/ListNodes"}
"""Lists that do not answer to an empty request."""

OF_THE_PLATFORM = {
    "PrincipalService/ListRoles",
    "PolicyService/ListPolicies",
    "ImportService/ListImportMappings",
}
"""Lists of what every workspace begins with."""

NAMES_RESOURCE = annotated_methods().keys() - NAMES_NOTHING.keys() - (LISTS - NESTED_LISTS)


@pytest.fixture(params=["rest", "grpc"])
def door(request: pytest.FixtureRequest, rest_door: RestDoor, grpc_door: GrpcDoor) -> Door:
    """Each door in turn."""
    return rest_door if request.param == "rest" else grpc_door


@pytest.fixture(scope="module")
def outsider(make_tenant: Callable[[str], Tenant]) -> Tenant:
    """A workspace in which nothing was ever done."""
    return make_tenant("outsider")


@pytest.fixture(scope="module")
def bad_keys(outsider: Tenant, rest_door: RestDoor) -> dict[str, str | None]:
    """Keys that are no good, each once it is refused."""
    revoked = ok(outsider.http.post("/v1/keys", json={"principal_id": "admin"}))
    ok(outsider.http.post(f"/v1/keys/{revoked['key']['key_id']}:revoke", json={}))
    soon = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()  # when the key is made, that must lie ahead
    expired = ok(outsider.http.post("/v1/keys", json={"principal_id": "admin", "expires_at": soon}))
    robot = {"principal_id": "helper", "kind": "PROGRAM"}
    ok(outsider.http.post("/v1/principals", json=robot))
    disabled = ok(outsider.http.post("/v1/keys", json={"principal_id": "helper"}))
    ok(outsider.http.post("/v1/principals/helper:disable", json={}))
    keys = {
        "none": None,
        "unknown": "cfk_" + "A" * 43,
        "malformed": "let me in",
        "revoked": revoked["api_key"],
        "expired": expired["api_key"],
        "of a disabled principal": disabled["api_key"],
    }
    for what, key in keys.items():
        until(lambda key=key: _is_refused(outsider, key), seconds=60, what=f"the key that is {what} is still accepted")
    return keys


def _is_refused(tenant: Tenant, key: str | None) -> bool | None:
    with tenant.installation.http(key) as client:
        return True if client.get("/v1/workspaces").status_code == 401 else None


def _refusal(door: Door, name: str, request: Any, key: str | None) -> Refusal:
    with pytest.raises(Refusal) as refused:
        door.call(public_methods()[name], request, key=key)
    return refused.value


@pytest.mark.parametrize("name", annotated_methods())
def test_refuses_a_caller_without_a_good_key(
    name: str, door: Door, worlds: tuple[World, World], bad_keys: dict[str, str | None]
):
    for what, key in bad_keys.items():
        refused = _refusal(door, name, worlds[0].requests[name], key)
        assert refused.code == "UNAUTHENTICATED", what
        assert refused.http_status in (401, None), what


@pytest.mark.parametrize("name", sorted(NAMES_RESOURCE))
def test_finds_nothing_of_another_workspace(name: str, door: Door, worlds: tuple[World, World], outsider: Tenant):
    refused = _refusal(door, name, worlds[0].requests[name], outsider.key)
    assert refused.code == "NOT_FOUND", refused
    assert refused.http_status in (404, None)


@pytest.mark.parametrize("name", sorted(LISTS - NESTED_LISTS - OF_THE_PLATFORM))
def test_lists_nothing_of_another_workspace(name: str, door: Door, worlds: tuple[World, World], outsider: Tenant):
    method = public_methods()[name]
    request = method.input() if name not in ASKS_FOR_MORE else worlds[0].requests[name]
    seen = door.call(method, request, key=outsider.key)
    own = door.call(method, request, key=worlds[0].tenant.key)
    [items] = [field.name for field in method.output.DESCRIPTOR.fields if field.is_repeated]
    assert own[items], "the other workspace has something to hide"
    shipped = ({"contract_id": SHIPPED}, {"mapping_id": SHIPPED}, {"contract_id": "identity_decisions"})
    shared = [i for i in seen[items] if i in own[items] and not any(one.items() <= i.items() for one in shipped)]
    assert shared == []
    assert worlds[0].workspace not in str(seen)


def test_consents_are_hidden(worlds: tuple[World, World], outsider: Tenant):
    asked = {"purpose": "advertising", "people": [{"subjects": [{"type": "user_id", "value": "c01"}]}]}
    assert ok(worlds[0].tenant.http.post("/v1/consents:check", json=asked))["verdicts"][0]["allowed"]
    [verdict] = ok(outsider.http.post("/v1/consents:check", json=asked))["verdicts"]
    assert (verdict["allowed"], verdict["reason"]) == (False, "NO_RECORD")


def test_queries_see_no_other_workspace(worlds: tuple[World, World], outsider: Tenant):
    assert worlds[0].tenant.sql("SELECT count(*) FROM sales") != [[0]]
    answer = outsider.http.post("/v1/sql", json={"sql": "SELECT count(*) FROM sales"})
    problem(answer, status=400)


@pytest.mark.parametrize("name", annotated_methods())
def test_names_the_policy_when_a_scope_is_missing(
    name: str, door: Door, worlds: tuple[World, World], narrow_keys: dict[str, str]
):
    scope = public_methods()[name].scope
    key = narrow_keys["contracts.read" if scope != "contracts.read" else "models.read"]
    refused = _refusal(door, name, worlds[0].requests[name], key)
    assert refused.code == "PERMISSION_DENIED"
    assert refused.reason == "SCOPE_MISSING"
    assert refused.metadata["policy_id"] == f"scope:{scope}"
    assert refused.http_status in (403, None)


@pytest.fixture(scope="module")
def narrow_keys(worlds: tuple[World, World]) -> dict[str, str]:
    """Keys of the first workspace with one scope each."""
    client = worlds[0].tenant.http
    return {
        scope: ok(client.post("/v1/keys", json={"principal_id": "admin", "scopes": [scope]}))["api_key"]
        for scope in ("contracts.read", "models.read")
    }


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_guards_the_streams_too(
    name: str,
    installation: Installation,
    worlds: tuple[World, World],
    bad_keys: dict[str, str | None],
    narrow_keys: dict[str, str],
):
    expected = dict.fromkeys(bad_keys.values(), "UNAUTHENTICATED")
    for key, code in {**expected, narrow_keys["contracts.read"]: "PERMISSION_DENIED"}.items():
        assert _stream_refusal(installation, name, key).code == code


def _stream_refusal(installation: Installation, name: str, key: str | None) -> Refusal:
    with installation.channel() as channel, pytest.raises(grpc.RpcError) as failure:
        _call_stream(channel, name, metadata=(("x-api-key", key),) if key else ())
    return refusal(failure.value)


def _call_stream(channel: grpc.Channel, name: str, **options: Any) -> None:
    method = public_methods()[name]
    codecs = {"request_serializer": method.input.SerializeToString, "response_deserializer": method.output.FromString}
    if method.client_streaming:
        header = imports_pb2.ImportHeader(dataset="sales", format=imports_pb2.Import.CSV)
        parts = iter([imports_pb2.UploadImportRequest(header=header)])
        channel.stream_unary(method.name, **codecs)(parts, timeout=60, **options)
    else:
        list(channel.unary_stream(method.name, **codecs)(STREAM_REQUESTS[name], timeout=60, **options))


STREAM_REQUESTS = {
    "QueryService/StreamQuery": queries_pb2.StreamQueryRequest(sql="SELECT 1"),
    "RecordService/TailRecords": records_pb2.TailRecordsRequest(from_offset=0),
    "AuditService/ExportAudit": audit_pb2.ExportAuditRequest(),
}


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/track", "/v1/identify"])
def test_event_routes_refuse_a_write_key_that_nobody_has(path: str, installation: Installation):
    with installation.http() as client:
        for auth in (None, ("cfw_" + "A" * 43, ""), (installation.admin_key, "")):
            problem(client.post(path, json={"batch": []}, auth=auth), status=401)


def test_upload_route_refuses_as_the_method_does(
    outsider: Tenant, bad_keys: dict[str, str | None], narrow_keys: dict[str, str]
):
    for key, status in [*((key, 401) for key in bad_keys.values()), (narrow_keys["contracts.read"], 403)]:
        with outsider.installation.http(key) as client:
            answer = client.post("/v1/imports", params={"dataset": "sales", "format": "csv"}, content=b"a\n1\n")
            problem(answer, status=status)


def test_a_write_key_opens_nothing_but_the_event_routes(installation: Installation, outsider: Tenant):
    _, write_key = outsider.source()
    with installation.http(write_key) as client:
        problem(client.get("/v1/datasets"), status=401, reason="CREDENTIAL_WRONG_KIND")
        problem(client.post("/v1/datasets/events/records", json=[{}]), status=401, reason="CREDENTIAL_WRONG_KIND")


def test_a_key_cannot_be_given_more_than_its_maker_may_do(outsider: Tenant):
    narrow = ok(
        outsider.http.post("/v1/keys", json={"principal_id": "admin", "scopes": ["governance.write", "ingest.read"]})
    )
    with outsider.installation.http(narrow["api_key"]) as client:
        wide = client.post("/v1/keys", json={"principal_id": "admin", "scopes": ["ingest.admin"]})
        problem(wide, status=403)


def test_story_is_told_for_every_method_here():
    assert WHOLE_STORY.keys() >= NAMES_RESOURCE
    assert all(NAMES_NOTHING.values())
