"""The text of a key: shown to its owner once, kept as its SHA-256."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Final

RANDOM_BYTES: Final = 32


@dataclass(frozen=True)
class Secret:
    """A key as its owner sees it once: `text` is never kept."""

    text: str

    @property
    def sha256(self) -> bytes:
        """Return what is kept of it."""
        return hashlib.sha256(self.text.encode()).digest()

    @property
    def last_four(self) -> str:
        """Return the end that tells keys apart."""
        return self.text[-4:]


def make_secret(prefix: str, random: bytes) -> Secret:
    """Return the key made of 32 random bytes: the prefix and 43 URL-safe characters."""
    if len(random) != RANDOM_BYTES:
        raise ValueError("a key is made of 32 random bytes")
    return Secret(prefix + base64.urlsafe_b64encode(random).rstrip(b"=").decode())
