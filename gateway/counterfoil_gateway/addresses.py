"""Addresses at both ends: the one that people reach the REST door by, and the one a caller comes from."""

from __future__ import annotations

from collections.abc import Mapping

from counterfoil_gateway.asgi import Scope
from counterfoil_gateway.problems import C, Problem

SAFE = frozenset({"GET", "HEAD"})


class PublicAddress:
    """Where the REST door is for people; told by the setting, else by the request itself."""

    def __init__(self, setting: str = "") -> None:
        """Take `https://host[:port]`, needed where a proxy ends TLS; empty = as the request says."""
        self._setting = setting.rstrip("/")

    def of(self, scope: Scope, headers: Mapping[bytes, bytes]) -> str:
        """Return scheme and host of the door as this request's sender sees it, e.g. `http://127.0.0.1:8080`."""
        return self._setting or f"{scope['scheme']}://{headers.get(b'host', b'').decode('latin-1')}"

    def is_https(self, scope: Scope) -> bool:
        """Say whether people come by HTTPS."""
        return (self._setting or f"{scope['scheme']}:").startswith("https:")

    def require_same_origin(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        """Raise Problem 403 for a change that a page of another site may have asked a signed-in browser for.

        Browsers send `Origin` with every such request (Fetch, section 3.2); one without it is refused, too.
        """
        if scope["method"] in SAFE:
            return
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin.lower() != self.of(scope, headers).lower():
            text = "a session opens changes only to the console's own pages; send an API key instead"
            raise Problem(C.PERMISSION_DENIED, text, "ORIGIN_REFUSED")
