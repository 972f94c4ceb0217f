"""Reads a document, YAML or JSON, without trusting it: bounded in size, depth and aliases, no tags, no doubled keys."""

from __future__ import annotations

import json
from typing import Any, Final

import orjson

from counterfoil_contracts.odcs.findings import Findings, Path
from counterfoil_contracts.odcs.yaml_values import UnreadableDocumentError, read_yaml

MOST_BYTES: Final = 1 << 20
MOST_DEPTH: Final = 64

_LARGEST: Final = (1 << 64) - 1
_SMALLEST: Final = -(1 << 63)


def read_document(text: str, found: Findings) -> Any:
    """Return the document as JSON values; on a fault return None and add findings.

    A text that is JSON is read as JSON, whose strings YAML reads otherwise; everything else as YAML 1.2 (core schema).
    """
    if len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        found.add("DOCUMENT_TOO_LARGE", (), "A document holds at most 1 MiB. Split the contract.")
        return None
    try:
        value = _read_json(text) if text.lstrip()[:1] == "{" else None
        if value is None:
            value = read_yaml(text, most_depth=MOST_DEPTH)
        _check_values(value, (), found)
    except UnreadableDocumentError as fault:
        found.add_at(fault.line, fault.reason, fault.path, fault.detail)
    return None if found else value


def _read_json(text: str) -> Any:
    """Return the value of a JSON text, None when it is no JSON; raise UnreadableDocumentError when it is too deep."""
    try:
        orjson.loads(text)  # strict where json is not: NaN, lone surrogates
        return _from_pairs(json.loads(text, object_pairs_hook=_Pairs), ())
    except (orjson.JSONDecodeError, ValueError):
        return None
    except RecursionError:
        raise _too_deep() from None


class _Pairs(list[tuple[str, Any]]):
    """A JSON object before its keys are known to be single."""


def _from_pairs(value: Any, path: Path) -> Any:
    if len(path) > MOST_DEPTH:
        raise _too_deep()
    if isinstance(value, _Pairs):
        result: dict[str, Any] = {}
        for key, item in value:
            if key in result:
                raise UnreadableDocumentError(
                    "DOCUMENT_DUPLICATE_KEY", (*path, key), "The key stands here twice. Keep one."
                )
            result[key] = _from_pairs(item, (*path, key))
        return result
    if isinstance(value, list):
        return [_from_pairs(item, (*path, index)) for index, item in enumerate(value)]
    return value


def _check_values(value: Any, path: Path, found: Findings) -> None:
    """Add a finding for each integer that neither JSON Schema nor a column can hold exactly."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_values(item, (*path, key), found)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_values(item, (*path, index), found)
    elif isinstance(value, int) and not _SMALLEST <= value <= _LARGEST:
        found.add("DOCUMENT_NUMBER", path, "An integer holds at most 64 bits. Write it as a string or a float.")


def _too_deep() -> UnreadableDocumentError:
    return UnreadableDocumentError("DOCUMENT_TOO_DEEP", (), f"A document nests at most {MOST_DEPTH} levels.")
