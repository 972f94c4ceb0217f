"""Keys for one purpose each, derived from the service's secret (RFC 5869)."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def derive_key(secret: bytes, purpose: str) -> bytes:
    """Return 32 bytes for one purpose; a key for one purpose says nothing about another's."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=f"counterfoil {purpose}".encode()).derive(secret)
