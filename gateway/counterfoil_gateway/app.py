"""The HTTP application: FastAPI with the few routes that are its own, everything else by the generated door."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from starlette.exceptions import HTTPException

from counterfoil_gateway.asgi import App, secured
from counterfoil_gateway.console.routes import Console
from counterfoil_gateway.events import EventDoor
from counterfoil_gateway.metrics import REFUSALS
from counterfoil_gateway.problems import C, Problem
from counterfoil_gateway.readiness import Readiness
from counterfoil_gateway.reads import ReadDoor
from counterfoil_gateway.schema_registry import SchemaRegistry
from counterfoil_gateway.serve import Rest

_NOT_TRACED = "/healthz,/readyz,^https?://[^/]+/console(/|$)"
"""Probes, and the console's files and links: a link's code would stand in its span."""
_LINKS = {
    "name": "counterfoil",
    "openapi": "/openapi.json",
    "health": "/healthz",
    "readiness": "/readyz",
    "console": "/console/",
}


def build(
    rest: Rest,
    registry: SchemaRegistry,
    reads: ReadDoor,
    events: EventDoor,
    console: Console,
    *,
    readiness: Readiness,
    document: bytes,
) -> App:
    """Return the application: events first, then reads by id, both bare; then tracing, once; then FastAPI.

    The schema registry's door and the generated one stand behind FastAPI's own routes.
    """
    app = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        exception_handlers={HTTPException: _problem, Problem: _refused},
    )

    async def liveness() -> Response:
        return _json({"status": "ok"})

    async def ready() -> Response:
        well, checks = await readiness.report()
        return _json({"status": "ready" if well else "not ready", "checks": checks}, 200 if well else 503)

    async def links() -> Response:
        return _json(_LINKS)

    async def openapi() -> Response:
        return Response(document, media_type="application/json", headers={"access-control-allow-origin": "*"})

    app.add_api_route("/", links)
    app.add_api_route("/healthz", liveness)
    app.add_api_route("/readyz", ready)
    app.add_api_route("/openapi.json", openapi)
    console.add_to(app)
    registry.then = rest
    app.router.default = registry
    traced: Any = OpenTelemetryMiddleware(app, excluded_urls=_NOT_TRACED, exclude_spans=["receive", "send"])
    reads.then = secured(traced)
    events.then = reads
    return events


async def _problem(_request: Request, error: Exception) -> Response:
    """Answer for FastAPI's own refusals, such as a wrong verb on one of its routes."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 405:
        problem = Problem(C.UNIMPLEMENTED, "this verb is not served here", "METHOD_NOT_ALLOWED", http=405)
    else:
        problem = Problem(C.NOT_FOUND, "no such path", "PATH_NOT_FOUND", http=status)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    REFUSALS.labels(problem.reason).inc()
    return Response(problem.json(), problem.status, headers=headers, media_type="application/problem+json")


async def _refused(_request: Request, problem: Exception) -> Response:
    """Answer for a route of ours that raised a problem."""
    if not isinstance(problem, Problem):
        raise problem
    REFUSALS.labels(problem.reason).inc()
    media_type = "application/problem+json"
    return Response(problem.json(), problem.status, headers=problem.headers, media_type=media_type)


def _json(body: Any, status: int = 200) -> Response:
    headers = {"cache-control": "no-store"}
    return Response(orjson.dumps(body), status, headers=headers, media_type="application/json")
