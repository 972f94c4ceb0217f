"""HubSpot's CRM API as its documentation describes it, on this machine: search, list, pages, limits, refusals."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

FIXTURES = Path(__file__).parent / "fixtures"
TOKEN = "pat-eu1-6ec0bd7f-secret"
WINDOW = 10_000
CHANGED = {"contacts": "lastmodifieddate", "deals": "hs_lastmodifieddate"}


class HubSpot:
    """What the portal holds, and how it answers; `refusals` are given before answers, `asked` is what came."""

    def __init__(self) -> None:
        self.objects = {kind: json.loads((FIXTURES / f"{kind}.json").read_text()) for kind in CHANGED}
        self.refusals: deque[tuple[int, dict[str, str]]] = deque()
        self.asked: list[tuple[str, Any]] = []
        self.most = 200
        self.url = ""

    def change(self, kind: str, number: int, at: str, **properties: Any) -> None:
        """Change an object."""
        each = self.objects[kind][number]
        each["properties"] |= properties | {CHANGED[kind]: at}
        each["updatedAt"] = at

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        """Return status and body of an answer."""
        *_, kind, last = ("", *path.strip("/").split("/"))
        if path.startswith("/crm/v3/objects/") and last == "search" and method == "POST" and kind in CHANGED:
            return self._search(kind, body)
        if path.startswith("/crm/v3/objects/") and method == "GET" and last in CHANGED:
            archived = query.get("archived") == ["true"]
            found = [each for each in self.objects[last] if each["archived"] is archived]
            limit, wanted = int(query["limit"][0]), query["properties"][0].split(",")
            return 200, _page(found, wanted, start=int(query.get("after", ["0"])[0]), limit=min(limit, self.most, 100))
        return 404, {"status": "error", "message": "resource not found", "category": "OBJECT_NOT_FOUND"}

    def _search(self, kind: str, body: Any) -> tuple[int, Any]:
        ((wanted,),) = (group["filters"] for group in body["filterGroups"])
        (order,) = body["sorts"]
        changed, start = wanted["propertyName"], int(body.get("after", 0))
        assert (wanted["operator"], order) == ("GTE", {"propertyName": changed, "direction": "ASCENDING"})
        if start >= WINDOW:
            return 400, {
                "status": "error",
                "message": "The paging offset may not exceed 10000",
                "category": "VALIDATION",
            }
        found = [
            each
            for each in self.objects[kind]
            if not each["archived"] and _millis(each, changed) >= int(wanted["value"])
        ]
        found.sort(key=lambda each: _millis(each, changed))
        page = _page(found, body["properties"], start=start, limit=min(body["limit"], self.most))
        return 200, {"total": len(found), **page}


def _millis(each: Any, changed: str) -> int:
    return _moment(each["properties"][changed])


@cache
def _moment(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _page(found: list[Any], wanted: list[str], *, start: int, limit: int) -> dict[str, Any]:
    results = deepcopy(found[start : start + limit])
    for each in results:
        each["properties"] = {n: v for n, v in each["properties"].items() if n in {*wanted, "hs_object_id"}}
    after = str(start + limit)
    more = {"paging": {"next": {"after": after, "link": f"?after={after}"}}} if start + limit < len(found) else {}
    return {"results": results, **more}


@contextmanager
def hubspot() -> Iterator[HubSpot]:
    """Serve a portal."""
    portal = HubSpot()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one: the second of two waits 40 ms for the first one's acknowledgement

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def do_GET(self) -> None:
            self._reply(None)

        def _reply(self, body: Any) -> None:
            url = urlsplit(self.path)
            portal.asked.append((f"{self.command} {url.path}", deepcopy(body)))
            headers: dict[str, str] = {}
            if self.headers["authorization"] != f"Bearer {TOKEN}":
                status, answer = (
                    401,
                    {
                        "status": "error",
                        "message": "Authentication credentials not found.",
                        "category": "INVALID_AUTHENTICATION",
                    },
                )
            elif portal.refusals:
                status, headers = portal.refusals.popleft()
                answer = {
                    "status": "error",
                    "message": "You have reached your secondly limit.",
                    "errorType": "RATE_LIMIT",
                    "policyName": "SECONDLY",
                }
            else:
                status, answer = portal.answer(self.command, url.path, parse_qs(url.query), body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {
                "content-type": "application/json",
                "content-length": str(len(data)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_args: object) -> None:
            """Tell nobody."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    portal.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield portal
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
