"""Records as they come in, by both doors."""

import threading
from typing import Any

import grpc
import httpx
import orjson
from counterfoil.ingest.v1 import records_pb2

from tests.system.doors import public_methods, to_json
from tests.system.tenant import DAY_SALES, Tenant

SALE = {"sold_at": "2025-05-01T09:00:00Z", "shop": "north", "amount": 1.5}


def test_a_browser_follows_and_goes_on_where_it_was(tenant: Tenant):
    tenant.activate(DAY_SALES.format(version="1.0.0"))
    tenant.append("sales", [{**SALE, "message_id": "first"}, {**SALE, "message_id": "second"}])
    names, last = _events(tenant, wanted=2, params={"from_offset": "0", "dataset": "sales"})
    assert names == ["first", "second"]
    tenant.append("sales", [{**SALE, "message_id": "third"}])
    names, _ = _events(tenant, wanted=1, params={"dataset": "sales"}, headers={"Last-Event-ID": last})
    assert names == ["third"]


def test_without_an_offset_only_what_comes_from_now_on(tenant: Tenant):
    started = threading.Event()
    seen: list[str] = []

    def follow() -> None:
        with tenant.http.stream("GET", "/v1/records:tail", headers={"Accept": "text/event-stream"}) as answer:
            for line in answer.iter_lines():
                started.set()
                if line.startswith("data:") and (name := _name(line)):
                    seen.append(name)
                    return

    follower = threading.Thread(target=follow)
    follower.start()
    assert started.wait(20), "no sign of life"
    tenant.append("sales", [{**SALE, "message_id": "fresh"}])
    follower.join(20)
    assert seen == ["fresh"]


def test_grpc_streams_the_same_records(tenant: Tenant):
    method = public_methods()["RecordService/TailRecords"]
    with tenant.installation.channel() as channel:
        call = channel.unary_stream(
            method.name,
            request_serializer=method.input.SerializeToString,
            response_deserializer=method.output.FromString,
        )
        request = records_pb2.TailRecordsRequest(from_offset=0, dataset="sales")
        names: list[str] = []
        stream = call(request, metadata=(("x-api-key", tenant.key),), timeout=20)
        for response in stream:
            if response.HasField("record"):
                names.append(to_json(response)["record"]["record_id"])
            if len(names) == 3:
                break
        stream.cancel()
    assert names == ["first", "second", "third"]
    assert isinstance(stream, grpc.Call)


def _events(
    tenant: Tenant, *, wanted: int, params: dict[str, str], headers: dict[str, str] | None = None
) -> tuple[list[str], str]:
    """Return the record ids of the first events, and the last event's id."""
    names: list[str] = []
    last = ""
    accept = {"Accept": "text/event-stream", **(headers or {})}
    with tenant.http.stream(
        "GET", "/v1/records:tail", params=params, headers=accept, timeout=httpx.Timeout(20)
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("id:"):
                last = line.removeprefix("id:").strip()
            if line.startswith("data:") and (name := _name(line)):
                names.append(name)
            if not line and len(names) == wanted:
                break
    return names, last


def _name(line: str) -> str:
    document: dict[str, Any] = orjson.loads(line.removeprefix("data:"))
    record = document.get("record")
    return str(record["record_id"]) if record else ""
