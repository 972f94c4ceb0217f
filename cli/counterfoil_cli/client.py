"""A small client of the REST API: one request function, problems as exceptions, and the calls that commands use."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

from counterfoil_cli.tls import trusting

CHUNK_BYTES = 512 * 1024
PAGE_SIZE = 200
Json = dict[str, Any]


class ApiError(Exception):
    """A call did not give an answer; its text is one line for people."""


class ApiUnreachableError(ApiError):
    """Nothing answered, or the answer broke off."""


class ApiProblem(ApiError):  # noqa: N818 - RFC 9457 calls it a problem
    """The API answered with a problem (RFC 9457)."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        self.status = status
        self.code = str(body.get("code", ""))
        self.reason = str(body.get("reason", ""))
        self.detail = str(body.get("detail") or body.get("title") or f"HTTP {status}")
        self.metadata: Mapping[str, str] = body.get("metadata") or {}
        self.errors: list[Mapping[str, str]] = list(body.get("errors") or ())
        self.trace_id = str(body.get("trace_id", ""))
        super().__init__(self._line())

    def _line(self) -> str:
        marks = [mark for mark in (self.reason, f"trace {self.trace_id}" if self.trace_id else "") if mark]
        return f"{self.detail} ({', '.join([f'HTTP {self.status}', *marks])})"


class Client:
    """Calls one gateway with one API key; close it, or use it in a `with` block."""

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        ca_file: Path | None = None,
    ) -> None:
        """Take the gateway, a key, and for TLS the file of the authority to trust instead of the machine's."""
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            headers={"x-api-key": api_key, "user-agent": "counterfoil-cli"},
            timeout=httpx.Timeout(timeout, connect=5.0),
            transport=transport,
            verify=trusting(ca_file) if ca_file else True,
            trust_env=False,  # a proxy from the environment never stands between us and a local gateway
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        content: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> httpx.Response:
        """Send one request and return the answer; raise ApiProblem from status 400 on, ApiUnreachableError without one.

        `json` is encoded and wins over `content`; `timeout` in seconds replaces the client's.
        """
        sent = dict(headers or {})
        if json is not None:
            content = orjson.dumps(json)
            sent.setdefault("content-type", "application/json")
        query = {key: value for key, value in (params or {}).items() if value not in (None, "")}
        limits: dict[str, Any] = {} if timeout is None else {"timeout": httpx.Timeout(timeout, connect=5.0)}
        with self._told(method, path):
            answer = self._http.request(method, path, params=query, content=content, headers=sent, **limits)
        if answer.status_code >= 400:
            raise ApiProblem(answer.status_code, _object(answer.content))
        return answer

    @contextmanager
    def _told(self, method: str, path: str) -> Iterator[None]:
        """Turn what breaks off a call into one line for people."""
        try:
            yield
        except httpx.ConnectError as error:
            raise ApiUnreachableError(f"Nothing answers at {self.url}; start it with `counterfoil up`.") from error
        except httpx.TimeoutException as error:
            raise ApiUnreachableError(f"{self.url} gave no answer to {method} {path} in time.") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ApiUnreachableError(f"{method} {path} at {self.url} broke off: {error}") from error

    def download(self, path: str, file: Path, *, on_bytes: Callable[[int], None]) -> int:
        """GET a body into a file and return its length; `on_bytes` hears how many bytes came with each part.

        The file is left as it was written so far when the answer breaks off; raises as `send` does.
        """
        timeout = httpx.Timeout(300.0, connect=5.0)  # the first byte leaves once the whole body is made
        with self._told("GET", path), self._http.stream("GET", path, timeout=timeout) as answer:
            if answer.status_code >= 400:
                raise ApiProblem(answer.status_code, _object(answer.read()))
            with file.open("wb") as target:
                for part in answer.iter_bytes():
                    target.write(part)
                    on_bytes(len(part))
                return target.tell()

    def request(self, method: str, path: str, **options: Any) -> Json:
        """Send one request as `send` does and return the answer's JSON object ({} when it is empty)."""
        answer = self.send(method, path, **options)
        if not answer.content:
            return {}
        body = _object(answer.content)
        if not body and answer.content.strip() != b"{}":
            raise ApiUnreachableError(f"{self.url} answered {method} {path} with something other than a JSON object.")
        return body

    def get(self, path: str, **params: Any) -> Json:
        """GET a resource; keyword arguments are query parameters."""
        return self.request("GET", path, params=params)

    def post(self, path: str, json: Any = None, **options: Any) -> Json:
        """POST a JSON body ({} when none is given)."""
        return self.request("POST", path, json={} if json is None else json, **options)

    def pages(self, path: str, field: str, **params: Any) -> Iterator[Json]:
        """Yield every item of `field` over all pages of a list."""
        token = ""
        while True:
            page = self.get(path, page_size=PAGE_SIZE, page_token=token, **params)
            yield from page.get(field, ())
            token = page.get("next_page_token", "")
            if not token:
                return

    def check_contract(self, document: bytes) -> Json:
        """Check an ODCS document (YAML or JSON bytes) without keeping it: `findings`, `compiled`, `comparisons`."""
        return self.request(
            "POST", "/v1/contracts:check", content=document, headers={"content-type": "application/yaml"}
        )

    def submit_contract(self, document: bytes, *, activate: bool = True) -> Json:
        """Submit an ODCS document as a contract version, and put it in force when it has no finding."""
        headers = {"content-type": "application/yaml"}
        params = {"activate": "true"} if activate else {}
        return self.request("POST", "/v1/contracts", params=params, content=document, headers=headers)

    def upload_import(
        self,
        path: Path,
        *,
        asked: Mapping[str, str | Sequence[str]],
        on_bytes: Callable[[int], None] | None = None,
    ) -> Json:
        """Stream a file in and return the import; `on_bytes` hears how many bytes went with each chunk.

        `asked` are the query's parameters: `format`, and `dataset` or `mapping`, at the least.
        """
        with path.open("rb") as file:

            def chunks() -> Iterator[bytes]:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
                    if on_bytes is not None:
                        on_bytes(len(chunk))

            return self.request(
                "POST",
                "/v1/imports",
                params={**{name: value for name, value in asked.items() if value}, "file_name": path.name},
                content=chunks(),
                headers={"content-type": "application/octet-stream", "content-length": str(path.stat().st_size)},
                timeout=300.0,
            )

    def follow_import(self, import_id: str, *, interval: float = 0.25) -> Iterator[Json]:
        """Yield the import every `interval` seconds until it has ended; the last one is the outcome.

        One lost or overloaded answer is not the end: a minute of them is.
        """
        silent_since: float | None = None
        while True:
            try:
                found = self.get(f"/v1/imports/{import_id}")
                silent_since = None
                yield found
                if found["state"] in ("SUCCEEDED", "FAILED", "REVERTED"):
                    return
            except ApiError as error:
                now = time.monotonic()
                silent_since = silent_since or now
                if (isinstance(error, ApiProblem) and error.status not in (429, 503, 504)) or now - silent_since > 60:
                    raise
            time.sleep(interval)

    def create_source(self, display_name: str, *, protocol: str = "segment") -> Json:
        """Create a source and return `source` and, this once, `write_key`."""
        return self.post("/v1/sources", {"display_name": display_name, "protocol": protocol})

    def sql(self, statement: str, *parameters: Any, max_rows: int = 1000) -> list[list[Any]]:
        """Run one SELECT over the lake and return its rows; `?` stands for a parameter."""
        body: Json = {"sql": statement, "max_rows": max_rows}
        if parameters:
            body["parameters"] = list(parameters)
        rows: list[list[Any]] = self.post("/v1/sql", body, timeout=120.0).get("rows", [])
        return rows


def _object(content: bytes) -> Json:
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}
