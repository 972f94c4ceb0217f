"""The gateway's own routes in the API document."""

from __future__ import annotations

from typing import Any

OWN_TAG = {"name": "Gateway", "description": "The door itself. No key is needed."}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_STATUS = {"type": "string"}
_READY = {"type": "object", "required": ["status", "checks"], "properties": {"status": _STATUS, "checks": _TEXTS}}


def own_operations() -> dict[str, dict[str, Any]]:
    """Return the operations by path and verb."""
    alive = {"type": "object", "required": ["status"], "properties": {"status": _STATUS}}
    ready = {"200": _answer("Ready.", _READY), "503": _answer("Not ready; `checks` says what is missing.", _READY)}
    return {
        "/": _get("Links", "Return where to go from here.", {"200": _answer("Links.", _TEXTS)}),
        "/healthz": _get("Liveness", "Say that the process lives.", {"200": _answer("It lives.", alive)}),
        "/readyz": _get("Readiness", "Say whether every part is there to serve.", ready),
        "/openapi.json": _get("OpenApi", "Return this document.", {"200": _answer("It.", {"type": "object"})}),
    }


def _get(operation: str, summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    tags = [OWN_TAG["name"]]
    return {"get": {"operationId": operation, "summary": summary, "tags": tags, "security": [], "responses": responses}}


def _answer(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}
