"""The gateway's own routes in the API document."""

from __future__ import annotations

from typing import Any

from counterfoil_gateway.console.sessions import COOKIE

OWN_TAG = {"name": "Gateway", "description": "The door itself. No key is needed."}
CONSOLE_TAG = {"name": "Console", "description": "Sessions of the console: a browser's, opened by a one-time link."}
SESSION = {"type": "apiKey", "in": "cookie", "name": COOKIE}
"""How a browser that is signed in is told."""
_PROBLEM = {"$ref": "#/components/responses/Problem"}
_MOMENT = {"type": "string", "format": "date-time"}
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
        **_console(),
    }


def _console() -> dict[str, dict[str, Any]]:
    tags = [CONSOLE_TAG["name"]]
    refused = {str(status): _PROBLEM for status in (401, 429, 503)}
    link = _object({"url": {"type": "string", "format": "uri"}, "expires_at": _MOMENT})
    texts = {"type": "array", "items": _STATUS}
    who = _object({"workspace": _STATUS, "principal": _STATUS, "scopes": texts, "expires_at": _MOMENT})
    make = {
        "operationId": "CreateSignInLink",
        "summary": "Return a link that signs its first opener in as the key's holder, for twelve hours.",
        "description": "It works once, within ten minutes.",
        "tags": tags,
        "security": [{"api_key": []}, {"bearer": []}],
        "responses": {"200": _answer("The link.", link), **refused},
    }
    show = {
        "operationId": "GetSession",
        "summary": "Return who is signed in.",
        "tags": tags,
        "security": [{"session": []}],
        "responses": {"200": _answer("The session.", who), **refused},
    }
    end = {
        "operationId": "SignOut",
        "summary": "End the session.",
        "tags": tags,
        "security": [{"session": []}],
        "responses": {"204": {"description": "It is ended."}, "403": _PROBLEM},
    }
    return {
        "/console/sign-in-links": {"post": make},
        "/console/session": {"get": show},
        "/console/sign-out": {"post": end},
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _get(operation: str, summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    tags = [OWN_TAG["name"]]
    return {"get": {"operationId": operation, "summary": summary, "tags": tags, "security": [], "responses": responses}}


def _answer(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}
