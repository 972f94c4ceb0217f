"""Addresses at both ends: the one that people reach the REST door by, and the one a caller comes from."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from urllib.parse import unquote

from counterfoil_gateway.asgi import Scope
from counterfoil_gateway.problems import C, Problem

SAFE = frozenset({"GET", "HEAD"})


def client_of(scope: Scope) -> str:
    """Return the address that a REST request came from, empty when it came by a socket without one."""
    client = scope.get("client")
    return client[0] if client else ""


def peer_of(peer: str) -> str:
    """Return the address in what gRPC calls a peer, e.g. `ipv4:127.0.0.1:50012` or `ipv6:%5B::1%5D:50012`."""
    kind, _, rest = peer.partition(":")
    return unquote(rest).rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""


def network_of(address: str) -> str:
    """Return what one party is given: an IPv4 address, or the 64 bits of an IPv6 address that name its network."""
    if ":" not in address:
        return address
    try:
        return str(ip_network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address


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
