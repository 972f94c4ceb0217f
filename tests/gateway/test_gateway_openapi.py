"""The API document: valid, current, complete, and true of what is served."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import orjson
import pytest
import requests
import schemathesis
from counterfoil_gateway import api as apis
from counterfoil_gateway import openapi
from counterfoil_gateway.events import load_routes
from counterfoil_gateway.exports import EXPORT
from counterfoil_gateway.imports import UPLOAD
from hypothesis import HealthCheck, Phase, settings

from tests.gateway.conftest import ADMIN, gateway_and_backend

COMMITTED = Path(__file__).parents[2] / "docs" / "reference" / "openapi.json"
TEXT = openapi.text()
DOCUMENT = orjson.loads(TEXT)
BY_HAND = (UPLOAD, EXPORT)
PROBLEM = {"type", "title", "status", "detail", "code", "reason", "metadata", "trace_id"}
REGISTRY = {"error_code", "message"}
"""How Kafka's clients read what went wrong."""


def test_the_document_is_valid():
    from openapi_spec_validator import validate  # compiles grammars for seconds: not in every worker

    validate(DOCUMENT)
    assert DOCUMENT["openapi"] == "3.1.0"


def test_the_committed_copy_is_current():
    assert COMMITTED.read_bytes() == TEXT, "python -m counterfoil_gateway.openapi > docs/reference/openapi.json"


def test_every_operation_has_a_name_of_its_own_a_summary_and_its_scope():
    operations = [o for item in DOCUMENT["paths"].values() for o in item.values()]
    names = [o["operationId"] for o in operations]
    assert len(names) == len(set(names))
    assert all(o["summary"] for o in operations)
    public = {m.rpc: m.scope for m in apis.load(apis.image()).methods if m.bindings or m.name in BY_HAND}
    scopes = {o["operationId"]: o["x-scope"] for o in operations if "x-scope" in o}
    assert scopes.items() >= public.items()
    assert {scopes[name] for name in scopes.keys() - public.keys()} <= set(public.values())  # other people's APIs


def test_everything_served_is_described():
    served = {(b.verb, b.path.count("{"), b.action) for m in apis.load(apis.image()).methods for b in m.bindings}
    described = {
        (verb.upper(), path.count("{"), path.rpartition(":")[2] if ":" in path else "")
        for path, item in DOCUMENT["paths"].items()
        for verb in item
    }
    assert served <= described
    for route in load_routes():
        assert route.verb.lower() in DOCUMENT["paths"][route.path]
    for path in ("/v1/imports", "/v1/audit:export", "/console/session", "/healthz", "/readyz", "/openapi.json", "/"):
        assert path in DOCUMENT["paths"]


def test_every_property_is_explained():
    schemas = DOCUMENT["components"]["schemas"]
    silent = [
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field, inner in schema.get("properties", {}).items()
        if name != "Problem" and not ({"description", "anyOf"} & inner.keys())
    ]
    assert silent == []


def test_raw_bodies_list_every_media_type():
    content = DOCUMENT["paths"]["/v1/datasets/{dataset}/records"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "application/x-ndjson"}
    content = DOCUMENT["paths"]["/v1/contracts"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "application/yaml", "application/x-yaml", "text/yaml"}


@pytest.fixture(scope="module")
def url(keys_dir: Path) -> Iterator[str]:
    """A gateway in a thread of its own, since schemathesis calls it synchronously."""
    found: list[str] = []
    up, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            doors = await stack.enter_async_context(asynccontextmanager(gateway_and_backend)(keys_dir))
            found.append(doors.url)
            up.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert up.wait(20)
    yield found[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@schemathesis.serializer("application/x-ndjson", "application/vnd.apache.parquet")
def as_text(_context: object, value: object) -> dict[str, object]:
    return {"data": value if isinstance(value, bytes) else str(value).encode(errors="replace")}


SOAK = settings.get_current_profile_name() == "soak"
"""Whether requests at the bounds of what is described are made too, twelve thousand, besides those by chance."""

CONFIG = schemathesis.Config.from_dict({"phases": {"coverage": {"enabled": SOAK}}})
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG)


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """Connections that are kept; without the environment's proxies, which are looked for at each request."""
    with requests.Session() as kept:
        kept.trust_env = False
        yield kept


@pytest.mark.filterwarnings(  # schemathesis draws its invalid values so, now and then
    "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
)
@SCHEMA.parametrize()
@settings(
    max_examples=20 if SOAK else 5,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_the_document_describes_is_an_accident(case: schemathesis.Case, url: str, session: requests.Session):
    bounded = (
        {"Request-Timeout": "0.1"} if case.operation.path == "/v1/records:tail" else {}
    )  # it has no end of its own
    answer = case.call(base_url=url, session=session, headers={"X-Api-Key": ADMIN, **bounded}, timeout=20)
    assert answer.status_code not in (500, 501, 502), answer.text
    if answer.status_code >= 400 and case.operation.path != "/readyz":
        assert set(answer.json()) >= (REGISTRY if case.operation.path.startswith("/schema-registry") else PROBLEM)
