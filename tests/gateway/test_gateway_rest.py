"""The REST door: what requests become, and what answers and refusals look like."""

from __future__ import annotations

import asyncio
import json
import socket

import httpx
import pytest
from counterfoil.common.v1.receipts_pb2 import Receipt

from tests.gateway.conftest import ADMIN, WRITE, Doors

pytestmark = pytest.mark.asyncio(loop_scope="session")
JSON = {"content-type": "application/json"}
PROBLEM = {"type", "title", "status", "detail", "code", "reason", "metadata", "trace_id"}


def problem(answer: httpx.Response, status: int, reason: str) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["reason"] == reason
    assert set(body) - {"errors"} == PROBLEM
    assert len(body["trace_id"]) == 32
    return body


async def test_path_query_and_headers_become_the_request(doors: Doors, admin: dict):
    answer = await doors.http.get("/v1/contracts/a%2Fb%3Ac/versions/1.0.0", headers=admin)
    assert answer.json()["contract_id"] == "a/b:c"
    await doors.http.get("/v1/datasets/sales/records?partition=0&fromOffset=7&page_size=3", headers=admin)
    request = doors.backend.requests[-1]
    assert (request.dataset, request.from_offset, request.page_size) == ("sales", 7, 3)


async def test_services_see_the_callers_token_and_not_its_key(doors: Doors, admin: dict):
    await doors.http.get("/v1/workspaces/mine", headers=admin)
    metadata = doors.backend.metadata[-1]
    caller = doors.backend.verifier.verify(metadata["authorization"].removeprefix("Bearer "))
    assert (caller.workspace, caller.principal, caller.service) == ("w", "ada", "")
    assert "x-api-key" not in metadata
    assert "traceparent" in metadata


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "BAD_JSON"),
        (b'{"a":1} x', "BAD_JSON"),
        (b"\xff\xfe", "BAD_JSON"),
        (b'{"workspace_id":"\\ud800"}', "BAD_JSON"),
        (b'{"workspace_id":"\xed\xa0\x80"}', "BAD_JSON"),
        (b"[" * 100_000, "BODY_TOO_DEEP"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "BODY_TOO_DEEP"),
        (b"[]", "BAD_FIELD"),
        (b"7", "BAD_FIELD"),
        (b"null", "BAD_FIELD"),
        (b'{"no_such":1}', "BAD_FIELD"),
        (b'{"workspace_id":null}', "BAD_FIELD"),
        (b'{"workspace_id":"shop","workspaceId":"shop"}', "BAD_FIELD"),
        (b"", "BAD_FIELD"),
    ],
)
async def test_bad_bodies_are_problems(doors: Doors, admin: dict, content: bytes, reason: str):
    problem(await doors.http.post("/v1/workspaces", content=content, headers=admin | JSON), 400, reason)
    assert doors.backend.requests == []


async def test_every_fault_is_named_with_its_path(doors: Doors, admin: dict):
    model = {"model_id": "UPPER", "impact_tier": "HUGE", "forecast": {"series": {"dataset": 7}, "horizon_days": 1.5}}
    body = problem(await doors.http.post("/v1/models", json=model, headers=admin), 400, "BAD_FIELD")
    assert {e["field"] for e in body["errors"]} == {"impact_tier", "forecast.series.dataset", "forecast.horizon_days"}
    model = {"model_id": "UPPER", "forecast": {"series": {"dataset": "No"}}}
    body = problem(await doors.http.post("/v1/models", json=model, headers=admin), 400, "BAD_FIELD")
    fields = {e["field"] for e in body["errors"]}
    assert fields >= {"model_id", "forecast.series.dataset", "forecast.series.time_field"}


async def test_bodies_over_the_limit_are_refused_declared_or_not(doors: Doors, admin: dict):
    big = b'{"sql":"' + b"x" * (5 << 20) + b'"}'
    problem(await doors.http.post("/v1/sql", content=big, headers=admin | JSON), 413, "BODY_TOO_LARGE")

    async def pieces():
        for _ in range(6):
            yield b"x" * (1 << 20)

    problem(await doors.http.post("/v1/sql", content=pieces(), headers=admin | JSON), 413, "BODY_TOO_LARGE")


@pytest.mark.parametrize("path", ["/v1/sql", "/v1/batch", "/com.snowplowanalytics.snowplow/tp2"])
@pytest.mark.parametrize("declared", [True, False])
async def test_who_sends_too_much_hears_so_and_sees_no_broken_connection(doors: Doors, path: str, declared: bool):
    """SDKs read no answer before all is sent, and send again when the connection breaks."""
    body = b'{"data":[{"aid":"' + WRITE.encode() + b'","x":"' + b"x" * (12 << 20) + b'"}]}'
    size = f"Content-Length: {len(body)}" if declared else "Transfer-Encoding: chunked"
    if not declared:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\n{size}\r\nX-Api-Key: {ADMIN}\r\nContent-Type: application/json\r\n"
    key = f"X-Write-Key: {WRITE}\r\n" if path == "/v1/batch" else ""

    def send() -> bytes:
        host, _, port = doors.url.rpartition("/")[2].partition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(f"{head}{key}\r\n".encode() + body)
            return connection.recv(65536)

    status = (await asyncio.to_thread(send)).split(b" ", 2)[1]
    assert status == (b"200" if path.endswith("tp2") else b"413")


async def test_unread_media_types_and_encodings_are_refused(doors: Doors, admin: dict):
    form = {"content-type": "application/x-www-form-urlencoded"}
    problem(await doors.http.post("/v1/sql", content=b"a=1", headers=admin | form), 415, "UNSUPPORTED_MEDIA_TYPE")
    packed = JSON | {"content-encoding": "gzip"}
    problem(await doors.http.post("/v1/sql", content=b"x", headers=admin | packed), 415, "UNSUPPORTED_ENCODING")


async def test_unknown_paths_verbs_and_parameters_are_problems(doors: Doors, admin: dict):
    problem(await doors.http.get("/v1/nothing", headers=admin), 404, "PATH_NOT_FOUND")
    problem(await doors.http.get("/v1/keys/k:explode", headers=admin), 404, "PATH_NOT_FOUND")
    problem(await doors.http.get("/v1/keys/", headers=admin), 404, "PATH_NOT_FOUND")
    refused = await doors.http.delete("/v1/models", headers=admin)
    problem(refused, 405, "METHOD_NOT_ALLOWED")
    assert refused.headers["allow"] == "GET, POST"
    refused = await doors.http.get("/v1/keys/k:revoke", headers=admin)
    problem(refused, 405, "METHOD_NOT_ALLOWED")
    assert refused.headers["allow"] == "POST"
    for query in ("no_such=1", "page_size=many", "page_size=1&page_size=2", "page_size=1_0", "page_size=99999"):
        problem(await doors.http.get(f"/v1/models?{query}", headers=admin), 400, "BAD_FIELD")
    problem(await doors.http.post("/v1/sql?sql=x", json={"sql": "x"}, headers=admin), 400, "BAD_FIELD")


async def test_what_the_backend_says_becomes_a_problem(doors: Doors, admin: dict):
    body = problem(await doors.http.get("/v1/workspaces/none", headers=admin), 404, "NOT_FOUND")
    assert body["metadata"] == {"workspace_id": "none"}
    assert body["detail"] == "there is no such workspace"
    busy = await doors.http.get("/v1/workspaces/busy", headers=admin)
    problem(busy, 429, "RESOURCE_EXHAUSTED")
    assert busy.headers["retry-after"] == "3"
    broken = await doors.http.get("/v1/workspaces/broken", headers=admin)
    assert broken.status_code == 500
    assert "secret" not in broken.text


async def test_the_trace_of_the_caller_goes_through(doors: Doors, admin: dict):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = admin | {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    body = problem(await doors.http.get("/v1/workspaces/none", headers=headers), 404, "NOT_FOUND")
    assert body["trace_id"] == trace
    assert doors.backend.metadata[-1]["traceparent"].split("-")[1] == trace


async def test_a_kept_connection_does_not_carry_a_trace_over_to_the_next_request(doors: Doors, admin: dict):
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(base_url=doors.url, headers=admin, limits=limits) as client:
        refused = await client.post("/v1/sql", content=b"x" * (5 << 20), headers=JSON)
        assert refused.status_code == 413
        first, second = [(await client.get("/v1/nothing")).json()["trace_id"] for _ in range(2)]
    assert len({refused.json()["trace_id"], first, second}) == 3


async def test_patch_changes_what_is_sent_and_null_clears(doors: Doors, admin: dict):
    whole = {"display_name": "New", "timezone": None, "etag": "e1", "created_at": "2026-01-01T00:00:00Z"}
    answer = await doors.http.patch("/v1/workspaces/shop", json=whole, headers=admin)
    assert answer.status_code == 200, answer.text
    request = doors.backend.requests[-1]
    assert list(request.update_mask.paths) == ["display_name", "timezone"], "output-only fields never change"
    assert (request.workspace.workspace_id, request.workspace.timezone) == ("shop", "")
    await doors.http.patch("/v1/workspaces/shop?updateMask=displayName", json={"display_name": "x"}, headers=admin)
    assert list(doors.backend.requests[-1].update_mask.paths) == ["display_name"]
    body = {"workspace_id": "other"}
    problem(await doors.http.patch("/v1/workspaces/shop", json=body, headers=admin), 400, "BAD_FIELD")
    refused = await doors.http.patch("/v1/workspaces/shop", json={"display_name": "x" * 201}, headers=admin)
    assert [e["field"] for e in problem(refused, 400, "BAD_FIELD")["errors"]] == ["display_name"]


async def test_etags_guard_changes_and_spare_reads(doors: Doors, admin: dict):
    answer = await doors.http.get("/v1/workspaces/mine", headers=admin)
    tag = answer.headers["etag"]
    assert tag == '"e1"'
    same = await doors.http.get("/v1/workspaces/mine", headers=admin | {"if-none-match": f'"x", W/{tag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    changed = await doors.http.patch("/v1/workspaces/w1", json={"display_name": "a"}, headers=admin | {"if-match": tag})
    assert changed.status_code == 200
    old = admin | {"if-match": 'W/"old"'}
    problem(await doors.http.patch("/v1/workspaces/w1", json={"display_name": "a"}, headers=old), 412, "ETAG_MISMATCH")
    doors.backend.workspace.etag = "line\r\nbreak"
    answer = await doors.http.get("/v1/workspaces/mine", headers=admin)
    assert answer.status_code == 200
    assert "etag" not in answer.headers


async def test_idempotency_key_is_the_request_id(doors: Doors, admin: dict):
    headers = admin | {"idempotency-key": "k1"}
    answer = await doors.http.post("/v1/workspaces", json={"workspace_id": "shop"}, headers=headers)
    assert answer.json()["api_key"] == "k1"
    both = {"workspace_id": "shop", "request_id": "other"}
    problem(await doors.http.post("/v1/workspaces", json=both, headers=headers), 400, "BAD_FIELD")


async def test_json_fields_hold_any_value(doors: Doors, admin: dict):
    for value in ([1, "a", None, {"b": 2.5}], {"a": []}, "text", 7, False, None):
        answer = await doors.http.post("/v1/sql", json={"sql": "x", "parameters": value}, headers=admin)
        assert answer.json()["rows"] == value
        sent = doors.backend.requests[-1].parameters
        assert sent == (b"" if value is None else json.dumps(value, separators=(",", ":")).encode())
    listed = await doors.http.get("/v1/datasets/sales/records", headers=admin)
    assert '"data":{"n":1.50}' in listed.text, "bytes go out as they are"
    assert listed.json()["records"][1]["data"] is None


async def test_raw_bodies_are_the_field_byte_for_byte(doors: Doors, admin: dict):
    body = b' [ {"a" : 1.50} ] '
    answer = await doors.http.post("/v1/datasets/sales/records", content=body, headers=admin | JSON)
    assert answer.status_code == 200, answer.text
    assert (doors.backend.requests[-1].records, doors.backend.requests[-1].dataset) == (body, "sales")
    lines = {"content-type": "application/x-ndjson; charset=utf-8"}
    url = "/v1/datasets/sales/records?request_id=r1"
    await doors.http.post(url, content=b"{}\n{}", headers=admin | lines)
    assert (doors.backend.requests[-1].records, doors.backend.requests[-1].request_id) == (b"{}\n{}", "r1")
    problem(await doors.http.post(url + "&records=x", content=b"{}", headers=admin | lines), 400, "BAD_FIELD")
    problem(await doors.http.post(url, content=b"", headers=admin | lines), 400, "BAD_FIELD")


async def test_raw_text_is_strict_utf_8_and_query_sets_the_rest(doors: Doors, admin: dict):
    yaml = {"content-type": "application/yaml"}
    answer = await doors.http.post("/v1/contracts?activate=true", content="a: é".encode(), headers=admin | yaml)
    assert answer.json()["document"] == "a: é"
    assert doors.backend.requests[-1].activate is True
    refused = await doors.http.post("/v1/contracts", content=b"a: \xe9", headers=admin | yaml)
    assert [e["field"] for e in problem(refused, 400, "BAD_FIELD")["errors"]] == ["document"]
    answer = await doors.http.post("/v1/contracts", json={"document": "x", "activate": True}, headers=admin)
    assert answer.json()["document"] == "x"


async def test_deadlines_come_from_the_caller_within_bounds(doors: Doors, admin: dict):
    for text, longest in (("25.5", 25.5), ("1000", 60), (None, 10)):
        await doors.http.get("/v1/workspaces/mine", headers=admin | ({"request-timeout": text} if text else {}))
        assert longest * 0.6 < doors.backend.remaining[-1] <= longest + 0.1
    for text in ("0", "-1", "nan", "inf", "soon"):
        answer = await doors.http.get("/v1/workspaces/mine", headers=admin | {"request-timeout": text})
        problem(answer, 400, "BAD_FIELD")
    slow = await doors.http.get("/v1/workspaces/slow", headers=admin | {"request-timeout": "0.2"})
    problem(slow, 504, "DEADLINE_EXCEEDED")


async def test_a_caller_that_leaves_cancels_the_backends_work(doors: Doors, admin: dict):
    with pytest.raises(httpx.ReadTimeout):
        await doors.http.get("/v1/workspaces/slow", headers=admin, timeout=1.5)
    await asyncio.wait_for(doors.backend.cancelled.wait(), 60)


async def test_receipts_come_from_the_ledger_then_from_the_producer(doors: Doors, admin: dict):

    doors.backend.ledger["models.1"] = Receipt(receipt_id="models.1", purpose="ledger")
    doors.backend.produced["models.1"] = Receipt(receipt_id="models.1", purpose="producer")
    doors.backend.produced["models.2"] = Receipt(receipt_id="models.2", purpose="producer")
    assert (await doors.http.get("/v1/receipts/models.1", headers=admin)).json()["purpose"] == "ledger"
    assert (await doors.http.get("/v1/receipts/models.2", headers=admin)).json()["purpose"] == "producer"
    for unknown in ("models.3", "nobody.1", "x"):
        problem(await doors.http.get(f"/v1/receipts/{unknown}", headers=admin), 404, "NOT_FOUND")
    await doors.http.get("/v1/receipts/models.2", headers=admin | {"request-timeout": "30"})
    assert 20 < doors.backend.remaining[-1] <= 30.1, "both calls share one deadline"


async def test_replay_goes_to_the_producer_that_the_id_names(doors: Doors, admin: dict):
    answer = await doors.http.post("/v1/receipts/models.1:replay", json={}, headers=admin)
    assert answer.json()["outcome"] == "MATCH"
    assert doors.backend.remaining[-1] > 50
    problem(await doors.http.post("/v1/receipts/nobody.1:replay", json={}, headers=admin), 404, "RECEIPT_NOT_FOUND")
    problem(await doors.http.post("/v1/receipts/models.none:replay", json={}, headers=admin), 404, "NOT_FOUND")


async def test_health_readiness_and_links_need_no_key(doors: Doors):
    assert (await doors.http.get("/healthz")).json() == {"status": "ok"}
    ready = await doors.http.get("/readyz")
    assert ready.status_code == 200
    names = {"ingest", "contracts", "graph", "models", "governance", "api_keys", "write_keys", "policies", "quotas"}
    assert ready.json() == {"status": "ready", "checks": dict.fromkeys(names, "ok")}
    assert (await doors.http.get("/")).json()["openapi"] == "/openapi.json"
    refused = await doors.http.post("/healthz")
    assert (refused.status_code, refused.json()["reason"]) == (405, "METHOD_NOT_ALLOWED")


async def test_every_answer_carries_the_security_fields(doors: Doors, admin: dict):
    for answer in (
        await doors.http.get("/healthz"),
        await doors.http.get("/v1/workspaces/mine", headers=admin),
        await doors.http.get("/v1/nothing"),
        await doors.http.post("/v1/track", content=b"{"),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers
