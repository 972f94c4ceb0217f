"""SQL through the door: rows in three formats, masks by policy, receipts that make results again, nothing else."""

import csv
import io
from typing import Any

import orjson
import pyarrow as pa
import pytest

from tests.system.installation import until
from tests.system.tenant import Tenant, ok, problem

PEOPLE = """
apiVersion: v3.1.0
kind: DataContract
id: people
name: People
version: 1.0.0
status: active
schema:
  - name: people
    logicalType: object
    properties:
      - {name: email, logicalType: string, classification: restricted}
      - {name: plan, logicalType: string}
      - name: traits
        logicalType: object
        properties:
          - {name: phone, logicalType: string, classification: confidential}
          - {name: city, logicalType: string}
"""
ROWS = "SELECT email, plan, traits FROM people ORDER BY plan"


@pytest.fixture(scope="module")
def people(tenant: Tenant) -> Tenant:
    """A workspace with three people."""
    tenant.activate(PEOPLE)
    rows = [
        {"email": f"{who}@example.com", "plan": f"plan {n}", "traits": {"phone": "+47 1", "city": "Oslo"}}
        for n, who in enumerate(("ada", "bob", "eve"))
    ]
    assert {each["outcome"] for each in tenant.append("people", rows)} == {"ACCEPTED"}
    return tenant


@pytest.fixture(scope="module")
def analyst(people: Tenant) -> Any:
    """A client of somebody who may ask by SQL, and does not hold `ingest.admin`."""
    ok(people.http.post("/v1/principals", json={"principal_id": "ann", "kind": "HUMAN", "roles": ["analyst"]}))
    key = ok(people.http.post("/v1/keys", json={"principal_id": "ann", "scopes": ["ingest.read", "governance.read"]}))
    with people.installation.http(key["api_key"]) as client:
        until(
            lambda: client.post("/v1/sql", json={"sql": "SELECT 1"}).is_success or None,
            seconds=60,
            what="the key is not known",
        )
        yield client


def test_shows_restricted_fields_to_those_whom_policies_let(people: Tenant, analyst: Any):
    seen = ok(people.http.post("/v1/sql", json={"sql": ROWS}))
    assert "masked" not in seen or seen["masked"] == []
    assert seen["rows"][0][0] == "ada@example.com"
    shown = ok(analyst.post("/v1/sql", json={"sql": ROWS}))
    assert {row[0] for row in shown["rows"]}.isdisjoint({row[0] for row in seen["rows"]})
    assert [orjson.loads(row[2]) for row in shown["rows"]] == [{"city": "Oslo"}] * 3
    assert [(each["path"], each["mask"], each["policy_ids"]) for each in shown["masked"]] == [
        ("$.traits.phone", "MASK_PSEUDONYM", ["restricted-needs-ingest-admin"]),
        ("$.email", "MASK_PSEUDONYM", ["restricted-needs-ingest-admin"]),
    ]
    looking = {"sql": "SELECT count(*) FROM people WHERE email = ?", "parameters": ["ada@example.com"]}
    assert ok(analyst.post("/v1/sql", json=looking))["rows"] == [[0]]


def test_answers_csv_and_arrow_as_asked(people: Tenant, analyst: Any):
    answer = analyst.post("/v1/sql", json={"sql": ROWS}, headers={"accept": "text/csv"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/csv")
    assert "people:$.email" in answer.headers["counterfoil-masked-fields"]
    found = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["plan"] for row in found] == ["plan 0", "plan 1", "plan 2"]
    answer = people.http.post(
        "/v1/sql",
        json={"sql": "SELECT range AS n FROM range(100000)"},
        headers={"accept": "application/vnd.apache.arrow.stream"},
    )
    assert pa.ipc.open_stream(answer.content).read_all().num_rows == 100_000
    refused = analyst.post("/v1/sql", json={"sql": ROWS, "max_rows": 5}, headers={"accept": "text/csv"})
    problem(refused, status=400, reason="BAD_FIELD")


@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "COPY people TO '/tmp/stolen'",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM 'http://127.0.0.1:7105/'",
        "SELECT 1; DROP VIEW people",
    ],
)
def test_refuses_to_be_let_out(people: Tenant, sql: str, accept: str):
    refused = people.http.post("/v1/sql", json={"sql": sql}, headers={"accept": accept})
    problem(refused, status=400, reason="SQL_INVALID")


def test_a_bomb_is_refused_and_the_next_query_answered(people: Tenant):
    refused = people.http.post("/v1/sql", json={"sql": "SELECT string_agg(repeat('x', 1000), '') FROM range(1000000)"})
    problem(refused, status=429, reason="QUERY_TOO_LARGE")
    assert ok(people.http.post("/v1/sql", json={"sql": "SELECT 1"}))["rows"] == [[1]]


def test_a_result_has_a_receipt_that_makes_it_again(people: Tenant, analyst: Any):
    asked = {"sql": f"{ROWS} LIMIT ?", "parameters": [2], "receipt": True, "purpose": "media_planning"}
    made = ok(analyst.post("/v1/sql", json=asked))
    receipt = ok(analyst.get(f"/v1/receipts/{made['receipt_id']}"))
    assert (receipt["producer"], receipt["principal"], receipt["purpose"]) == ("ingest", "ann", "media_planning")
    assert [(each["role"], each["rows"]) for each in receipt["inputs"]] == [("people", 3)]
    assert [each["contract_id"] for each in receipt["contracts"]] == ["people"]
    assert {each["action"]: each["allowed"] for each in receipt["policy_checks"]} == {
        "read": False,
        "read_pseudonym": True,
    }
    assert "plan" not in receipt["parameters"]
    replayed = ok(people.http.post(f"/v1/receipts/{made['receipt_id']}:replay", json={}))
    assert (replayed["outcome"], replayed["actual_sha256"]) == ("MATCH", receipt["output_sha256"])
    streamed = analyst.post("/v1/sql", json={"sql": ROWS, "receipt": True}, headers={"accept": "text/csv"})
    replayed = ok(people.http.post(f"/v1/receipts/{streamed.headers['counterfoil-receipt-id']}:replay", json={}))
    assert replayed["outcome"] == "MATCH"
    refused = analyst.post("/v1/sql", json={"sql": "SELECT now()", "receipt": True})
    problem(refused, status=400, reason="SQL_NOT_REPLAYABLE")
    until(lambda: _in_ledger(people, made["receipt_id"]), seconds=60, what="the ledger has no receipt of ingest")


def _in_ledger(tenant: Tenant, receipt_id: str) -> bool | None:
    listed = ok(tenant.http.get("/v1/receipts", params={"producer": "ingest"}))
    return True if receipt_id in {each["receipt_id"] for each in listed["receipts"]} else None
