"""Prove that one JSON Schema accepts all that another accepts. The only module that knows the library that can.

jsonschema-rs calls this part of it experimental, so its version is pinned, and what it says is held against records.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import jsonschema_rs

_LARGEST = 20_000
"""Values in a schema; what it takes to prove something can grow much faster than this."""


class Proof(StrEnum):
    """Whether the reader accepts all that the writer accepts."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Containment:
    """What was proven; `difference` is a schema of what the writer accepts and the reader does not, where known."""

    proof: Proof
    difference: Any = None


def contained(writer: Any, reader: Any) -> Containment:
    """Prove what can be proven of two valid schemas of draft 2020-12; what they refer to elsewhere is not fetched."""
    if max(map(size_of, (writer, reader))) > _LARGEST:
        return Containment(Proof.UNKNOWN)
    try:
        written, read = (
            jsonschema_rs.canonicalize(each, draft=jsonschema_rs.Draft202012, validate_formats=True, offline=True)
            for each in (writer, reader)
        )
        proof = Proof(str(read.covers(written)))
        if proof is Proof.YES:
            return Containment(proof)
        return Containment(proof, written.subtract(read).to_json_schema())
    except (ValueError, jsonschema_rs.ReferencingError):
        return Containment(Proof.UNKNOWN)


def size_of(schema: Any) -> int:
    """Return how many values a schema is made of."""
    size, waiting = 0, [schema]
    while waiting:
        size += 1
        value = waiting.pop()
        waiting.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
    return size
