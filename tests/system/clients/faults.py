"""A door before the gateway that fails as networks and overloaded servers do: once, then all goes through."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
FAULTS = ("none", "429", "503", "lost")
"""Nothing; refused with Retry-After; refused; taken, and the answer lost."""


@dataclass
class FaultyDoor:
    """What stands before the gateway, and what it did."""

    url: str
    fault: str
    failed: int = 0
    answers: list[int] = field(default_factory=list)
    """The status of every answer to a POST, or to a GET that carries an event; 0 = none was given."""


@contextlib.contextmanager
def faulty_door(gateway: str, fault: str, *, times: int = 1) -> Iterator[FaultyDoor]:
    """Serve on a free port; the first `times` requests with events meet the fault."""
    lock = threading.Lock()
    to = urlsplit(gateway)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        names: ClassVar[set[str]] = HOP_BY_HOP

        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            carries = self.command == "POST" or self.path.startswith("/i?")
            with lock:
                fails = carries and fault != "none" and door.failed < times
                door.failed += fails
            if fails and fault in ("429", "503"):
                self.answer(int(fault), {"Retry-After": "1", "Access-Control-Expose-Headers": "Retry-After"}, b"{}")
                return
            status, fields, content = self.forward(body)
            if fails:  # it is there, and nobody is told
                door.answers.append(0)
                self.close_connection = True
                return
            if carries:
                door.answers.append(status)
            self.send(status, fields, content)

        def forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(to.hostname or "", to.port, timeout=60)
            fields = {name: value for name, value in self.headers.items() if name.lower() not in self.names}
            connection.request(self.command, self.path, body, fields)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            return answer.status, dict(answer.getheaders()), content

        def answer(self, status: int, fields: dict[str, str], content: bytes) -> None:
            origin = self.headers.get("origin")
            page = {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true"} if origin else {}
            door.answers.append(status)
            self.send(status, fields | page, content)

        def send(self, status: int, fields: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in fields.items():
                if name.lower() not in self.names:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is given
            """Say nothing."""

        do_POST = do_GET = do_OPTIONS = handle_one  # noqa: N815 - the names are given

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    door = FaultyDoor(f"http://127.0.0.1:{server.server_address[1]}", fault)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield door
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
