"""What the console's address answers: its files, signing in by a one-time link, and who is signed in."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

import orjson
from fastapi import FastAPI, Request, Response

from counterfoil_gateway.access import Access
from counterfoil_gateway.addresses import PublicAddress
from counterfoil_gateway.asgi import SECURITY
from counterfoil_gateway.console.files import Files
from counterfoil_gateway.console.links import Links
from counterfoil_gateway.console.pages import LINK_REFUSED, POLICY
from counterfoil_gateway.console.sessions import Sessions, set_cookie
from counterfoil_gateway.problems import C, Problem

HOME = "/console/"
SIGN_IN = "/console/sign-in"
SIGN_IN_LINKS = "/console/sign-in-links"
SIGN_OUT = "/console/sign-out"
SESSION = "/console/session"
_HEADERS = {**{name.decode(): value.decode() for name, value in SECURITY}, "content-security-policy": POLICY}
_HTTPS_ONLY = {"strict-transport-security": "max-age=31536000"}
_NEVER_KEPT = {"cache-control": "no-store"}
_ASK_AGAIN = {"cache-control": "no-cache"}
_KEPT_FOR_GOOD = {"cache-control": "public, max-age=31536000, immutable"}


class Console:
    """The routes."""

    def __init__(self, access: Access, sessions: Sessions, links: Links, *, address: PublicAddress) -> None:
        self._access = access
        self._sessions = sessions
        self._links = links
        self._address = address
        self._files = Files()

    def add_to(self, app: FastAPI) -> None:
        """Serve them; the files come last, since they take every path that is left."""
        app.add_api_route("/console", self._home, methods=["GET", "HEAD"])
        app.add_api_route(SIGN_IN_LINKS, self._make_link, methods=["POST"])
        app.add_api_route(SIGN_IN, self._sign_in, methods=["GET"])
        app.add_api_route(SIGN_OUT, self._sign_out, methods=["POST"])
        app.add_api_route(SESSION, self._session, methods=["GET"])
        app.add_api_route(HOME + "{path:path}", self._file, methods=["GET", "HEAD"])

    async def _home(self) -> Response:
        return _moved(HOME)

    async def _make_link(self, request: Request) -> Response:
        """Answer a link that signs its first opener in as the holder of the API key."""
        headers = _headers(request)
        holder = await self._access.by_key(request.scope, headers)
        code, expires = self._links.make(holder.digest)
        url = f"{self._address.of(request.scope, headers)}{SIGN_IN}?code={quote(code)}"
        return _json({"url": url, "expires_at": _text(expires)})

    async def _sign_in(self, request: Request) -> Response:
        """Begin a session and go to the console; a link that does not work says how to get another."""
        digest = self._links.use(request.query_params.get("code", ""))
        if digest is None:
            return Response(LINK_REFUSED, 410, headers=_HEADERS | _NEVER_KEPT, media_type="text/html")
        cookie = set_cookie(self._sessions.begin(digest), secure=self._address.is_https(request.scope))
        return _moved(HOME, {"set-cookie": cookie})

    async def _sign_out(self, request: Request) -> Response:
        """End the session, if there is a good one, and have the browser forget it."""
        headers = _headers(request)
        self._address.require_same_origin(request.scope, headers)
        try:
            session = self._sessions.of(headers)
        except Problem:
            session = None  # it opens nothing any more, and goes now
        if session is not None:
            self._sessions.end(session)
        cookie = set_cookie("", secure=self._address.is_https(request.scope))
        return Response(status_code=204, headers={"set-cookie": cookie, **_NEVER_KEPT})

    async def _session(self, request: Request) -> Response:
        """Answer who is signed in."""
        session, holder = await self._access.by_session(request.scope, _headers(request))
        return _json(
            {
                "workspace": holder.workspace,
                "principal": holder.principal,
                "scopes": sorted(holder.scopes),
                "expires_at": _text(datetime.fromtimestamp(session.expires, UTC)),
            }
        )

    async def _file(self, request: Request, path: str) -> Response:
        found = await asyncio.to_thread(self._files.find, path, version=request.query_params.get("v", ""))
        if found is None:
            raise Problem(C.NOT_FOUND, "no such path", "PATH_NOT_FOUND")
        tag = f'"{found.version}"'
        headers = {**_HEADERS, **(_KEPT_FOR_GOOD if found.fixed else _ASK_AGAIN), "etag": tag}
        if self._address.is_https(request.scope):
            headers |= _HTTPS_ONLY
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(found.content, headers=headers, media_type=found.media_type)


def _headers(request: Request) -> dict[bytes, bytes]:
    return dict(request.scope["headers"])


def _moved(where: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status_code=303, headers={"location": where, **_NEVER_KEPT, **(headers or {})})


def _text(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def _json(body: object) -> Response:
    return Response(orjson.dumps(body), headers=_NEVER_KEPT, media_type="application/json")
