"""One workspace of an installation and what tests do in it over REST."""

import gzip
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import httpx
import orjson
import yaml

from tests.system.installation import Installation, until

DAY_SALES = """
apiVersion: v3.1.0
kind: DataContract
id: day-sales
name: Sales
version: {version}
status: active
schema:
  - name: sales
    logicalType: object
    properties:
      - {{name: sold_at, logicalType: timestamp, required: true, logicalTypeOptions: {{defaultTimezone: UTC}}}}
      - {{name: shop, logicalType: string, required: true}}
      - {{name: amount, logicalType: number, required: true, logicalTypeOptions: {{minimum: 0}}}}
      - {{name: note, logicalType: string}}
      - {{name: message_id, logicalType: string}}
"""


@dataclass
class Tenant:
    """A workspace, and a client that is signed in to it with every scope a workspace can have."""

    installation: Installation
    workspace: str
    key: str
    http: httpx.Client

    @classmethod
    def create(cls, installation: Installation, admin: httpx.Client, *, workspace: str) -> "Tenant":
        """Create the workspace and sign in with its first key."""
        answer = ok(admin.post("/v1/workspaces", json={"workspace_id": workspace, "timezone": "Europe/Berlin"}))
        return cls(installation, workspace, answer["api_key"], installation.http(answer["api_key"]))

    def activate(self, document: str) -> dict[str, Any]:
        """Put a contract in force."""
        yaml.safe_load(document)
        return ok(
            self.http.post(
                "/v1/contracts",
                params={"activate": "true"},
                content=document.encode(),
                headers={"content-type": "application/yaml"},
            )
        )

    def source(self, name: str = "Shop") -> tuple[str, str]:
        """Create a source; return its id and write key."""
        answer = ok(self.http.post("/v1/sources", json={"display_name": name}))
        return answer["source"]["source_id"], answer["write_key"]

    def append(self, dataset: str, records: list[Any], **headers: str) -> list[dict[str, Any]]:
        """Append records and return their verdicts."""
        answer = ok(self.http.post(f"/v1/datasets/{dataset}/records", content=orjson.dumps(records), headers=headers))
        return answer["verdicts"]

    def upload(self, dataset: str, content: bytes, *, form: str, name: str = "file", **params: Any) -> dict[str, Any]:
        """Import a file to its end."""
        begun = ok(
            self.http.post(
                "/v1/imports",
                params={"dataset": dataset, "format": form, "file_name": name, **params},
                content=content,
                headers={"content-type": "application/octet-stream"},
            )
        )
        return self.ended_import(begun["import_id"])

    def ended_import(self, import_id: str) -> dict[str, Any]:
        """Return an import once nothing is done with it any more."""

        def ended() -> dict[str, Any] | None:
            found = ok(self.http.get(f"/v1/imports/{import_id}"))
            return found if found["state"] in ("SUCCEEDED", "FAILED", "REVERTED") else None

        return until(ended, seconds=300, what="the import has not ended")

    def sql(self, text: str, *parameters: Any) -> list[list[Any]]:
        """Return the rows of one SELECT."""
        return ok(self.http.post("/v1/sql", json={"sql": text, "parameters": list(parameters)}))["rows"]

    def datasets(self) -> dict[str, dict[str, Any]]:
        """Return the datasets by name."""
        return {dataset["dataset"]: dataset for dataset in ok(self.http.get("/v1/datasets"))["datasets"]}

    def send_events(self, write_key: str, events: list[dict[str, Any]], *, compress: bool = False) -> httpx.Response:
        """Post one batch as an event SDK does."""
        body = orjson.dumps({"batch": events})
        headers = {"content-type": "application/json"}
        if compress:
            body, headers["content-encoding"] = gzip.compress(body), "gzip"
        with self.installation.http() as client:
            return client.post("/v1/batch", content=body, headers=headers, auth=(write_key, ""))

    def train(self, model_id: str) -> dict[str, Any]:
        """Train a version to its end and make it the champion."""
        versions = f"/v1/models/{model_id}/versions"
        version = ok(self.http.post(f"{versions}:train", json={}))["version"]

        def ended() -> dict[str, Any] | None:
            found = ok(self.http.get(f"{versions}/{version}"))
            return None if found["state"] in ("DRAFT", "TRAINED") and "error" not in found else found

        trained = until(ended, seconds=300, what="the training has not ended")
        assert trained["state"] == "VALIDATED", trained
        return ok(self.http.post(f"{versions}/{version}:promote", json={"reason": "passed"}))


def ok(answer: httpx.Response) -> dict[str, Any]:
    """Return the JSON of an answer that must be a success."""
    assert answer.status_code == 200, (
        f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}"
    )
    return answer.json()


def problem(answer: httpx.Response, *, status: int, reason: str = "") -> dict[str, Any]:
    """Return the problem JSON of an answer that must be one, complete and with this status and reason."""
    assert answer.status_code == status, f"{answer.request.url}: {answer.status_code} {answer.text}"
    assert answer.headers["content-type"].startswith("application/problem+json"), answer.headers
    body = answer.json()
    assert body.keys() >= {"type", "title", "status", "detail", "code", "reason", "metadata", "trace_id"}, body
    assert body["status"] == status
    if reason:
        assert body["reason"] == reason, body
    return body


def sales_csv(days: int, *, shops: tuple[str, ...] = ("north", "south")) -> bytes:
    """Return a CSV of one sale per shop and day from 2025-01-01 on: weekly in shape, the same every time."""
    lines = ["sold_at,shop,amount,note"]
    for number in range(days):
        day = date(2025, 1, 1) + timedelta(days=number)
        for place, shop in enumerate(shops):
            amount = 100 + 10 * place + 7 * (number % 7) + (number * 37 % 11) / 10
            lines.append(f"{day}T12:00:00,{shop},{amount:.2f},")
    return ("\n".join(lines) + "\n").encode()


SALES_MODEL: dict[str, Any] = {
    "forecast": {
        "series": {
            "dataset": "sales",
            "time_field": "sold_at",
            "value_field": "amount",
            "aggregation": "SUM",
            "dimension": "shop",
        },
        "horizon_days": 7,
        "season_days": 7,
        "min_active_days": 60,
    }
}
