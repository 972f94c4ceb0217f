"""Schemas that are closed for who sends and open for who reads: a reader is not broken by what it does not know."""

from __future__ import annotations

from typing import Any

from counterfoil_contracts.entities import OPEN_TO_READERS, READERS


def for_readers(schema: Any) -> Any:
    """Return a schema as who reads holds records against it."""
    if isinstance(schema, list):
        return [for_readers(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    opened = {key: for_readers(value) for key, value in schema.items()}
    if opened.get(READERS) == OPEN_TO_READERS:
        opened.pop("additionalProperties", None)
    return opened
