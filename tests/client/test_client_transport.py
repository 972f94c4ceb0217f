"""What the client does when the server is busy, away, or refuses: against a server that answers as it is told."""

import asyncio
import http.server
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from counterfoil_client import AsyncCounterfoil, Counterfoil, Problem

REFUSAL = {
    "type": "https://counterfoil.dev/problems/person-not-found",
    "title": "Not found",
    "status": 404,
    "detail": "No person has this id.",
    "code": "NOT_FOUND",
    "reason": "PERSON_NOT_FOUND",
    "metadata": {"person_id": "per_1"},
    "trace_id": "0" * 32,
}


@dataclass
class Answers:
    """What to answer next, and what was asked."""

    waiting: list[tuple[int, dict[str, str], object]] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    def add(self, status: int, body: object, **headers: str) -> None:
        self.waiting.append((status, headers, body))


@pytest.fixture
def server() -> Iterator[Answers]:
    answers = Answers()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            if self.headers.get("transfer-encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                self._answer(b"".join(parts))
            else:
                self._answer(self.rfile.read(int(self.headers.get("content-length", "0"))))

        def _answer(self, body: bytes) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            answers.asked.append((self.command, self.path, headers, body))
            status, more, content = answers.waiting.pop(0)
            if status == 0:  # as if the connection broke
                self.close_connection = True
                return
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        answers.url = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield answers
        running.shutdown()
        thread.join()


@pytest.fixture
def client(server: Answers) -> Iterator[Counterfoil]:
    with Counterfoil(server.url, api_key="cfk_test") as made:
        yield made


def test_a_read_is_sent_again_when_the_server_is_busy_or_the_connection_breaks(server: Answers, client: Counterfoil):
    server.add(503, {}, retry_after="0")
    server.add(0, {})
    server.add(429, {}, retry_after="0")
    server.add(200, {"person_id": "per_1"})
    assert client.persons.get_person("per_1") == {"person_id": "per_1"}
    assert [each[:2] for each in server.asked] == [("GET", "/v1/persons/per_1")] * 4


def test_a_write_with_a_key_is_sent_again_under_the_same_key(server: Answers, client: Counterfoil):
    server.add(503, {}, retry_after="0")
    server.add(200, {"verdicts": []})
    client.records.append_records("sales", body=[{"amount": 1}])
    (_, _, first, body), (_, _, second, same) = server.asked
    assert first["idempotency-key"] == second["idempotency-key"] != ""
    assert body == same == b'[{"amount":1}]'


def test_a_write_without_a_key_is_sent_once(server: Answers, client: Counterfoil):
    server.add(503, REFUSAL | {"status": 503, "reason": "UNAVAILABLE"}, retry_after="0")
    with pytest.raises(Problem) as refused:
        client.models.rollback_model("demand", reason="worse")
    assert refused.value.status == 503
    assert len(server.asked) == 1


def test_a_refusal_is_told_in_the_servers_words_and_not_tried_again(server: Answers, client: Counterfoil):
    server.add(404, REFUSAL)
    with pytest.raises(Problem, match="404 PERSON_NOT_FOUND: No person has this id") as refused:
        client.persons.get_person("per_1")
    assert (refused.value.reason, refused.value.metadata) == ("PERSON_NOT_FOUND", {"person_id": "per_1"})
    assert len(server.asked) == 1


def test_what_something_on_the_way_refuses_is_told_as_it_stands(server: Answers, client: Counterfoil):
    server.add(403, b"<html>not today</html>")
    with pytest.raises(Problem, match="NOT_FROM_COUNTERFOIL: <html>not today"):
        client.persons.get_person("per_1")


def test_the_attempts_end(server: Answers):
    for _ in range(2):
        server.add(503, REFUSAL | {"status": 503}, retry_after="0")
    with Counterfoil(server.url, api_key="k", attempts=2) as client, pytest.raises(Problem):
        client.persons.get_person("per_1")
    assert len(server.asked) == 2


def test_lists_go_through_every_page_and_only_as_far_as_asked(server: Answers, client: Counterfoil):
    server.add(200, {"persons": [{"person_id": "a"}, {"person_id": "b"}], "next_page_token": "t/2"})
    server.add(200, {"persons": [{"person_id": "c"}]})
    found = client.persons.list_persons(page_size=2)
    assert next(found)["person_id"] == "a"
    assert len(server.asked) == 1
    assert [each["person_id"] for each in found] == ["b", "c"]
    assert [each[1] for each in server.asked] == ["/v1/persons?page_size=2", "/v1/persons?page_size=2&page_token=t%2F2"]


def test_path_parts_are_quoted_and_what_is_not_given_is_not_sent(server: Answers, client: Counterfoil):
    server.add(200, {})
    client.graphs  # noqa: B018 - every tag has its attribute
    client.nodes.get_node("campaign:a/b c")
    assert server.asked[0][1] == "/v1/graph/nodes/campaign%3Aa%2Fb%20c"


def test_files_are_streamed_and_streams_are_not_sent_twice(server: Answers, client: Counterfoil):
    server.add(200, {"import_id": "1"})
    server.add(503, {}, retry_after="0")
    content = b"a,b\n" + b"1,2\n" * 50_000
    client.imports.upload_import(content=io.BytesIO(content), dataset="sales", format="csv")
    _, path, headers, body = server.asked[0]
    assert (path, body) == ("/v1/imports?format=csv&dataset=sales", content)
    assert headers["content-type"] == "application/octet-stream"
    with pytest.raises(Problem):
        client.imports.upload_import(content=io.BytesIO(content), dataset="sales", format="csv")
    assert len(server.asked) == 2


def test_a_tail_yields_line_by_line(server: Answers, client: Counterfoil):
    server.add(200, b'{"next_offset": 1}\n\n{"next_offset": 2}\n')
    assert [each["next_offset"] for each in client.records.tail_records(dataset="events")] == [1, 2]
    assert server.asked[0][2]["accept"] == "application/x-ndjson"
    server.add(404, REFUSAL)
    with pytest.raises(Problem):
        next(client.records.tail_records(dataset="none"))


def test_a_server_that_is_not_there_is_a_transport_error():
    with Counterfoil("http://127.0.0.1:9", api_key="k", attempts=1) as client, pytest.raises(httpx.ConnectError):
        client.persons.get_person("per_1")


async def test_the_asynchronous_client_does_the_same(server: Answers):
    async with AsyncCounterfoil(server.url, api_key="k") as client:
        server.add(503, {}, retry_after="0")
        server.add(200, {"person_id": "per_1"})
        assert await client.persons.get_person("per_1") == {"person_id": "per_1"}
        server.add(200, {"persons": [{"person_id": "a"}], "next_page_token": "2"})
        server.add(200, {"persons": [{"person_id": "b"}]})
        assert [each["person_id"] async for each in client.persons.list_persons()] == ["a", "b"]
        server.add(200, b'{"next_offset": 1}\n')
        assert [each["next_offset"] async for each in client.records.tail_records(dataset="events")] == [1]
        server.add(200, {"import_id": "1"})
        await client.imports.upload_import(content=io.BytesIO(b"x" * 100_000), dataset="sales", format="csv")
        assert server.asked[-1][3] == b"x" * 100_000
        server.add(404, REFUSAL)
        with pytest.raises(Problem):
            await client.persons.get_person("per_1")
        server.add(200, b"PK")
        assert await client.audit.export_audit() == b"PK"
        await asyncio.sleep(0)
