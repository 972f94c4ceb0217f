"""What is malformed, too large, too deep, wrongly encoded or not allowed: problem JSON with a stable reason."""

import base64
import gzip

import httpx
import orjson
import pytest

from tests.system.tenant import DAY_SALES, Tenant, ok, problem

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def shop(tenant: Tenant) -> Tenant:
    """A workspace with a contract for `sales`."""
    tenant.activate(DAY_SALES.format(version="1.0.0"))
    return tenant


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "BAD_JSON"),
        (b'{"a": 1}garbage', "BAD_JSON"),
        (b"\xff\xfe\x00", "BAD_JSON"),
        (b'{"workspace_id": "\xed\xa0\x80"}', "BAD_JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "BODY_TOO_DEEP"),
        (b'{"workspace_id": ' * 70 + b"1" + b"}" * 70, "BODY_TOO_DEEP"),
        (b"[]", "BAD_FIELD"),
        (b'{"no_such_field": 1}', "BAD_FIELD"),
        (b'{"sql": 7}', "BAD_FIELD"),
        (b'{"sql": ""}', "BAD_FIELD"),
    ],
)
def test_bad_bodies_are_problems(shop: Tenant, content: bytes, reason: str):
    body = problem(shop.http.post("/v1/sql", content=content, headers=JSON), status=400, reason=reason)
    assert body["code"] == "INVALID_ARGUMENT"
    assert body["detail"]


def test_names_every_fault_with_its_path(shop: Tenant):
    answer = shop.http.post("/v1/models", json={"model_id": "UPPER", "forecast": {"series": {"dataset": "No!"}}})
    faults = {fault["field"] for fault in problem(answer, status=400, reason="BAD_FIELD")["errors"]}
    assert faults >= {"model_id", "forecast.series.dataset", "forecast.series.time_field"}


def test_refuses_a_body_over_the_limit(shop: Tenant):
    content = b'{"sql": "' + b"x" * (5 << 20) + b'"}'
    problem(shop.http.post("/v1/sql", content=content, headers=JSON), status=413, reason="BODY_TOO_LARGE")

    def pieces():
        for _ in range(6):
            yield b"x" * (1 << 20)

    problem(shop.http.post("/v1/sql", content=pieces(), headers=JSON), status=413, reason="BODY_TOO_LARGE")


def test_refuses_media_types_and_encodings_it_does_not_read(shop: Tenant):
    problem(
        shop.http.post("/v1/sql", content=b"a=1", headers={"content-type": "application/x-www-form-urlencoded"}),
        status=415,
        reason="UNSUPPORTED_MEDIA_TYPE",
    )
    packed = gzip.compress(b'{"sql": "SELECT 1"}')
    problem(
        shop.http.post("/v1/sql", content=packed, headers=JSON | {"content-encoding": "gzip"}),
        status=415,
        reason="UNSUPPORTED_ENCODING",
    )


def test_unknown_paths_and_verbs_are_problems(shop: Tenant):
    problem(shop.http.get("/v1/nothing"), status=404)
    problem(shop.http.get("/v1/models/a/versions:explode"), status=404)
    refused = shop.http.delete("/v1/models")
    problem(refused, status=405)
    assert set(refused.headers["allow"].replace(" ", "").split(",")) >= {"GET", "POST"}
    problem(shop.http.get("/v1/models", params={"no_such": "1"}), status=400, reason="BAD_FIELD")
    problem(shop.http.get("/v1/models", params={"page_size": "many"}), status=400, reason="BAD_FIELD")
    problem(shop.http.get("/v1/models", params={"page_token": "forged"}), status=400, reason="PAGE_TOKEN_INVALID")


def test_a_gzip_bomb_is_refused_without_being_unpacked_whole(shop: Tenant):
    _, write_key = shop.source()
    bomb = gzip.compress(b'{"batch": [' + b" " * (512 << 20) + b"]}", 9)
    assert len(bomb) < 1 << 20
    memory = shop.installation.child("ingest").memory_info().rss
    with shop.installation.http() as client:
        answer = client.post(
            "/v1/batch", content=bomb, headers=JSON | {"content-encoding": "gzip"}, auth=(write_key, "")
        )
    problem(answer, status=answer.status_code)
    assert answer.status_code in (400, 413)
    assert shop.installation.child("ingest").memory_info().rss - memory < 200 << 20


def test_a_truncated_gzip_body_is_a_problem(shop: Tenant):
    _, write_key = shop.source()
    half = gzip.compress(b'{"batch": []}' * 50)[:20]
    with shop.installation.http() as client:
        answer = client.post(
            "/v1/batch", content=half, headers=JSON | {"content-encoding": "gzip"}, auth=(write_key, "")
        )
    problem(answer, status=400)


def test_a_record_that_breaks_its_contract_costs_its_neighbours_nothing(shop: Tenant):
    good = {"sold_at": "2025-01-01T10:00:00Z", "shop": "north", "amount": 5}
    verdicts = shop.append(
        "sales",
        [
            good | {"message_id": "a"},
            good | {"message_id": "b", "amount": -1},
            {"message_id": "c", "shop": 7},
            good | {"message_id": "d"},
            "text",
            good | {"message_id": "a"},
        ],
    )
    assert [verdict["outcome"] for verdict in verdicts] == [
        "ACCEPTED",
        "QUARANTINED",
        "QUARANTINED",
        "ACCEPTED",
        "QUARANTINED",
        "DUPLICATE",
    ]
    assert [finding["path"] for finding in verdicts[1]["findings"]] == ["$.amount"]
    assert {finding["path"] for finding in verdicts[2]["findings"]} >= {"$.shop"}
    assert shop.datasets()["sales"]["records"] == 2
    listed = ok(shop.http.get("/v1/quarantine", params={"dataset": "sales"}))["quarantined_records"]
    assert {record["quarantine_id"] for record in listed} == {
        verdict["quarantine_id"] for verdict in verdicts if verdict["outcome"] == "QUARANTINED"
    }
    shown = ok(shop.http.get(f"/v1/quarantine/{verdicts[1]['quarantine_id']}"))
    assert shown["contract_id"] == "day-sales"
    assert shown["contract_version"] == "1.0.0"
    assert orjson.loads(base64.b64decode(shown["raw"]))["amount"] == -1


def test_records_of_a_dataset_without_a_contract_wait_in_quarantine(shop: Tenant):
    [verdict] = shop.append("nowhere", [{"a": 1}])
    assert verdict["outcome"] == "QUARANTINED"
    assert [finding["reason"] for finding in verdict["findings"]] == ["NO_CONTRACT"]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM sales",
        "DROP TABLE sales",
        "CREATE TABLE t AS SELECT 1",
        "INSERT INTO sales SELECT * FROM sales",
        "COPY sales TO '/tmp/out.csv'",
        "ATTACH '/tmp/x.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "PRAGMA database_list",
        "SELECT 1; SELECT 2",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT getenv('HOME')",
        "SELEKT",
    ],
)
def test_sql_only_reads_and_only_the_lake(shop: Tenant, sql: str):
    body = problem(shop.http.post("/v1/sql", json={"sql": sql}), status=400)
    assert body["reason"] not in ("", "INTERNAL", "UNKNOWN")


def test_problems_carry_the_trace_of_their_request(shop: Tenant):
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
    answer = shop.http.get("/v1/models/none", headers=headers)
    assert problem(answer, status=httpx.codes.NOT_FOUND)["trace_id"] == trace_id


def test_who_asks_too_much_of_a_query_hears_which_limit_it_was(shop: Tenant) -> None:
    """The query is ended before the call is, even by a caller in a hurry."""
    for seconds in ("1", "3"):
        answer = shop.http.post(
            "/v1/sql", json={"sql": "SELECT count(*) FROM range(100000000000)"}, headers={"Request-Timeout": seconds}
        )
        problem(answer, status=504, reason="QUERY_TIMEOUT")
