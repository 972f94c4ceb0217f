"""Sessions of the console: a cookie that refers to an API key by its digest, sealed so that only this gateway makes it.

Nothing is kept but the sessions that were signed out of, so a restart ends none; and since the key is looked up on
every request, a session ends at once when its key is revoked or expires.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from counterfoil_chassis.clock import Clock
from counterfoil_chassis.secrecy import derive_key
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from counterfoil_gateway.credentials import unauthenticated

COOKIE = "counterfoil_session"
LASTS = timedelta(hours=12)
SIGN_IN_AGAIN = "sign in again: `counterfoil console` prints a link"
_PURPOSE = "console session"
_NONCE_BYTES = 12
_DIGEST_BYTES = 32
_LONGEST = 200
_MOST_ENDED = 10_000


@dataclass(frozen=True)
class Session:
    """One session of a browser; `expires` in seconds since 1970."""

    session_id: bytes
    digest: bytes
    """SHA-256 of the API key it stands for."""
    expires: float


class Sessions:
    """Makes and reads the cookie's value."""

    def __init__(self, secret: bytes, clock: Clock, random_bytes: Callable[[int], bytes]) -> None:
        """Take the gateway's secret: whoever has another cannot read or make sessions of this one."""
        self._seal = AESGCM(derive_key(secret, _PURPOSE))
        self._clock = clock
        self._random_bytes = random_bytes
        self._ended: dict[bytes, float] = {}

    def begin(self, digest: bytes) -> str:
        """Return the cookie value of a new session for the key with this digest."""
        expires = int((self._clock.now() + LASTS).timestamp())
        nonce = self._random_bytes(_NONCE_BYTES)  # it names the session, too
        sealed = self._seal.encrypt(nonce, digest + expires.to_bytes(8, "big"), _PURPOSE.encode())
        return base64.urlsafe_b64encode(nonce + sealed).decode()

    def of(self, headers: Mapping[bytes, bytes]) -> Session | None:
        """Return the session of a request's cookie, None when it has none; raise Problem 401 when it is no good."""
        value = _cookie(headers.get(b"cookie", b""))
        if value is None:
            return None
        session = self._read(value)
        now = self._clock.now().timestamp()
        if session.expires <= now:
            raise unauthenticated(f"this session has ended; {SIGN_IN_AGAIN}", "SESSION_EXPIRED")
        if session.session_id in self._ended:
            raise unauthenticated(f"this session was signed out of; {SIGN_IN_AGAIN}", "SESSION_EXPIRED")
        return session

    def end(self, session: Session) -> None:
        """Refuse a session from now on, in this process; its browser forgets the cookie anyway."""
        now = self._clock.now().timestamp()
        self._ended = {known: until for known, until in self._ended.items() if until > now}
        while len(self._ended) >= _MOST_ENDED:
            del self._ended[next(iter(self._ended))]
        self._ended[session.session_id] = session.expires

    def _read(self, value: str) -> Session:
        try:
            raw = base64.b64decode(value, altchars=b"-_", validate=True) if len(value) <= _LONGEST else b""
            opened = self._seal.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _PURPOSE.encode())
        except (binascii.Error, InvalidTag, ValueError):
            raise unauthenticated(f"this session is not one of ours; {SIGN_IN_AGAIN}", "SESSION_INVALID") from None
        expires = int.from_bytes(opened[_DIGEST_BYTES:], "big")
        return Session(raw[:_NONCE_BYTES], opened[:_DIGEST_BYTES], expires)


def set_cookie(value: str, *, secure: bool) -> str:
    """Return the `Set-Cookie` that keeps a session; an empty value ends it.

    Scripts cannot read it, and no other site's page makes a browser send it (RFC 6265bis, SameSite=Strict).
    """
    seconds = int(LASTS.total_seconds()) if value else 0
    return f"{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"


def _cookie(header: bytes) -> str | None:
    for pair in header.decode("latin-1").split(";"):
        name, equals, value = pair.strip().partition("=")
        if equals and name == COOKIE:
            return value
    return None
