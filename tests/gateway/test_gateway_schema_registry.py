"""The schema registry's door: what its clients send is understood, and what they are told is what they understand."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import pytest
from counterfoil.contracts.v1 import schemas_pb2 as pb
from counterfoil_governance.policy_text import shipped_policies

from tests.gateway.conftest import ADMIN, READER, UNKNOWN, WRITE, Doors

pytestmark = pytest.mark.asyncio(loop_scope="session")
BASE = "/schema-registry"
V1 = "application/vnd.schemaregistry.v1+json"
BODY = {"schemaType": "JSON", "schema": "{}"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


async def asked(doors: Doors, verb: str, path: str, **options: Any) -> Any:
    """Send a request that is served, and return what contracts was asked."""
    options.setdefault("headers", basic("key", ADMIN))
    answer = await doors.http.request(verb, BASE + path, **options)
    assert answer.status_code == 200, answer.text
    return doors.backend.requests[-1]


@pytest.mark.parametrize(
    ("path", "subject"),
    [
        ("orders-value", "orders-value"),
        ("a%2Fb%20c", "a/b c"),
        ("a%252Fb", "a%2Fb"),
        (":.:orders", ":.:orders"),
        ("a:b", "a:b"),
        ("%3Acheck", ":check"),
        ("%C3%A4", "ä"),
    ],
)
async def test_a_subject_is_what_the_raw_path_says(doors: Doors, path: str, subject: str):
    for verb, where in (
        ("GET", f"/subjects/{path}/versions"),
        ("GET", f"/subjects/{path}/versions/"),
        ("DELETE", f"/subjects/{path}"),
        ("GET", f"/config/{path}"),
        ("GET", f"/mode/{path}/"),
        ("GET", f"/subjects/{path}/versions/latest"),
    ):
        assert (await asked(doors, verb, where)).subject == subject, where


async def test_global_paths_may_end_with_a_slash(doors: Doors):
    assert (await asked(doors, "GET", "/config/")) == pb.GetSubjectConfigRequest()
    request = await asked(doors, "PUT", "/config/", json={"compatibility": "full_transitive"})
    assert request.level == pb.COMPATIBILITY_LEVEL_FULL_TRANSITIVE


@pytest.mark.parametrize("true", ["true", "True", "TRUE", "1"])
async def test_booleans_come_in_any_case(doors: Doors, true: str):
    request = await asked(doors, "POST", "/subjects/s/versions", params={"normalize": true}, json=BODY)
    assert request.normalize
    assert (await asked(doors, "DELETE", "/subjects/s", params={"permanent": true})).permanent
    for name in ("deletedOnly", "deleted_only"):
        assert (await asked(doors, "GET", "/subjects", params={name: true, "deleted": "False"})).deleted_only
        assert not doors.backend.requests[-1].deleted


@pytest.mark.parametrize(
    "headers", [basic("key", ADMIN), basic("", ADMIN), {"x-api-key": ADMIN}, {"authorization": f"Bearer {ADMIN}"}]
)
async def test_a_key_signs_in_whichever_way_it_comes(doors: Doors, headers: dict[str, str]):
    await asked(doors, "GET", "/subjects", headers=headers)
    assert (doors.backend.callers[-1].workspace, doors.backend.callers[-1].principal) == ("w", "ada")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, 401),
        (basic(ADMIN, ""), 401, 401),
        (basic("key", UNKNOWN), 401, 401),
        (basic("key", WRITE), 401, 401),
        ({"authorization": "Basic ***"}, 401, 401),
        (basic("key", READER), 403, 40301),
    ],
)
@pytest.mark.parametrize("path", ["/subjects", "/schemas/ids/1", "/contexts"])
async def test_who_may_not_is_told_in_the_clients_words(
    doors: Doors, headers: dict[str, str], status: int, code: int, path: str
):
    answer = await doors.http.get(BASE + path, headers=headers)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    assert answer.json()["message"]
    assert answer.headers["content-type"] == V1
    assert ("www-authenticate" in answer.headers) is (status == 401)


async def test_a_policy_forbids_an_operation_by_its_method(doors: Doors):
    method = "counterfoil.contracts.v1.SchemaService/RegisterSchemaVersion"
    forbids = f"""
@id("schemas-are-frozen") @owner("legal") @description("Not now.")
forbid (principal, action == Counterfoil::Action::"call", resource == Counterfoil::Method::"{method}");
"""
    doors.backend.policies.activate(shipped_policies() + forbids)
    try:
        async with asyncio.timeout(60):
            while (answer := await register(doors)).status_code != 403:
                await asyncio.sleep(0)
        assert (answer.json()["error_code"], "schemas-are-frozen" in answer.json()["message"]) == (403, True)
        await asked(doors, "GET", "/subjects")
    finally:
        doors.backend.policies.activate(shipped_policies())
        async with asyncio.timeout(60):
            while (await register(doors)).status_code != 200:
                await asyncio.sleep(0)


async def register(doors: Doors) -> httpx.Response:
    return await doors.http.post(f"{BASE}/subjects/s/versions", headers=basic("key", ADMIN), json=BODY)


@pytest.mark.parametrize(
    ("accept", "given"),
    [
        (f"{V1}, application/vnd.schemaregistry+json, application/json", V1),
        ("application/json", "application/json"),
        ("*/*", V1),
        ("application/vnd.schemaregistry+json; q=0.9, application/json", "application/vnd.schemaregistry+json"),
    ],
)
async def test_an_answer_has_the_media_type_that_is_accepted(doors: Doors, accept: str, given: str):
    for path in ("/subjects", "/schemas/ids/1", "/nowhere"):
        answer = await doors.http.get(BASE + path, headers={**basic("key", ADMIN), "accept": accept})
        assert answer.headers["content-type"] == given


async def test_schemas_are_read_by_id_together_whatever_the_query_says(doors: Doors):
    headers = basic("key", ADMIN)
    doors.backend.held = asyncio.Event()
    paths = [f"{BASE}/schemas/ids/{n}?subject=orders-{n}" for n in range(1, 31)]
    tasks = [asyncio.create_task(doors.http.get(path, headers=headers)) for path in paths]
    async with asyncio.timeout(60):
        while not doors.backend.shared:
            await asyncio.sleep(0.005)
    doors.backend.held.set()
    answers = await asyncio.gather(*tasks)
    assert {answer.status_code for answer in answers} == {200}
    assert sum(doors.backend.shared) == 30
    assert len(doors.backend.shared) < 30
    alone = await doors.http.get(f"{BASE}/schemas/ids/1/", headers=headers)  # by the other door
    assert (alone.content, sum(doors.backend.shared)) == (answers[0].content, 30)


@pytest.mark.parametrize(
    "path", ["/schemas/ids/one", "/schemas/ids/0x1", "/schemas/ids/99999999999", "/schemas/ids/%31x"]
)
async def test_what_is_no_id_is_said_so(doors: Doors, path: str):
    answer = await doors.http.get(BASE + path, headers=basic("key", ADMIN))
    assert (answer.status_code, answer.json()["error_code"]) == (422, 422)


async def test_what_is_not_served_is_told_in_the_clients_words_and_nothing_else_is_touched(doors: Doors, admin: dict):
    for verb, path, status in (
        ("GET", "/nowhere", 404),
        ("POST", "/associations", 404),
        ("PATCH", "/subjects", 405),
        ("GET", "/subjects//versions", 404),
    ):
        answer = await doors.http.request(verb, BASE + path, headers=admin)
        assert (answer.status_code, answer.json()["error_code"]) == (status, status), path
    assert (await doors.http.get("/schema-registryx", headers=admin)).json()["reason"] == "PATH_NOT_FOUND"
    assert (await doors.http.get("/schema-registry", headers=admin)).json() == {}
    assert (await doors.http.get(f"{BASE}/associations/resources/-/orders", headers=admin)).json() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"schemaType":"JSON"}',
        b'{"schemaType":"JSON","schema":{}}',
        b'{"schemaType":7,"schema":"{}"}',
        b'{"schemaType":"JSON","schema":"{}","references":[1]}',
        b'{"schemaType":"JSON","schema":"{}","references":[{"name":"a","subject":"b","version":"c"}]}',
        b'{"schemaType":"JSON","schema":"{}","references":{"a":1}}',
        b'{"schemaType":"JSON","schema":"{}","id":"one"}',
        b'{"schemaType":"JSON","schema":"{}","id":1.5}',
        b'{"schemaType":"JSON","schema":"\\ud800"}',
    ],
)
async def test_a_body_that_is_no_schema_is_refused(doors: Doors, body: bytes):
    answer = await doors.http.post(f"{BASE}/subjects/s/versions", headers=basic("key", ADMIN), content=body)
    assert (answer.status_code, answer.json()["error_code"]) == (422, 422), answer.text


async def test_a_body_over_the_limit_is_a_schema_too_large(doors: Doors):
    content = b'{"schemaType":"JSON","schema":"' + b"x" * (5 << 20) + b'"}'
    answer = await doors.http.post(f"{BASE}/subjects/s/versions", headers=basic("key", ADMIN), content=content)
    assert (answer.status_code, answer.json()["error_code"]) == (422, 42209)


async def test_lists_are_asked_for_in_parts(doors: Doors):
    request = await asked(doors, "GET", "/subjects", params={"offset": 5, "limit": 7})
    assert (request.offset, request.limit) == (5, 7)
    request = await asked(doors, "GET", "/subjects", params={"offset": 0, "limit": -1})
    assert (request.offset, request.limit) == (0, 10_000)
    doors.backend.requests.clear()
    answer = await doors.http.get(f"{BASE}/subjects", params={"limit": 0}, headers=basic("key", ADMIN))
    assert answer.json() == []
    for bad in ("x", "1.5", "99999999999"):
        answer = await doors.http.get(f"{BASE}/subjects", params={"limit": bad}, headers=basic("key", ADMIN))
        assert answer.status_code == 422
