"""One-time sign-in links: whoever opens one is signed in as the holder of the key that asked for it.

They are kept in this process, which is what makes them work once only: a restart forgets those that nobody has opened,
and behind several gateways a link has to reach the one that made it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta

from counterfoil_chassis.clock import Clock

LASTS = timedelta(minutes=10)
MOST_OPEN = 1_000
_CODE_BYTES = 32


class Links:
    """The links that nobody has opened yet."""

    def __init__(self, clock: Clock, random_bytes: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._random_bytes = random_bytes
        self._open: dict[bytes, tuple[bytes, float]] = {}  # hash of the code -> digest of the key, end

    def make(self, digest: bytes) -> tuple[str, datetime]:
        """Return a code that opens a session for the key with this digest, and until when it does."""
        expires = self._clock.now() + LASTS
        self._forget()
        code = base64.urlsafe_b64encode(self._random_bytes(_CODE_BYTES)).decode().rstrip("=")
        self._open[_hashed(code)] = (digest, expires.timestamp())
        return code, expires

    def use(self, code: str) -> bytes | None:
        """Return the digest of the key and forget the code; None when it was used, is too old, or was never made."""
        digest, until = self._open.pop(_hashed(code), (None, 0.0))
        return digest if until > self._clock.now().timestamp() else None

    def _forget(self) -> None:
        now = self._clock.now().timestamp()
        self._open = {code: kept for code, kept in self._open.items() if kept[1] > now}
        while len(self._open) >= MOST_OPEN:
            del self._open[next(iter(self._open))]


def _hashed(code: str) -> bytes:
    return hashlib.sha256(code.encode("utf-8", "replace")).digest()
