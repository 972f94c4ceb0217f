"""Canonical JSON and hashes: what two parties must agree on to the byte (RFC 8785)."""

import hashlib
import math
from typing import Any

import rfc8785

SIGNIFICANT_DIGITS = 9


def rounded(value: Any) -> Any:
    """Round every float inside a JSON value to 9 significant digits; -0 becomes 0.

    Raises ValueError on NaN or infinity.
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("JSON has no NaN and no infinity")
        return float(f"{value:.{SIGNIFICANT_DIGITS - 1}e}") + 0.0
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return value


def canonical_json(value: Any) -> bytes:
    """Return the RFC 8785 form of a JSON value."""
    return rfc8785.dumps(value)


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def output_sha256(document: Any) -> str:
    """Return the hash that receipts hold of an output: numbers rounded to 9 significant digits, RFC 8785, SHA-256."""
    return sha256_hex(canonical_json(rounded(document)))
