"""The official JSON Schema of the Open Data Contract Standard, as PyPI's open-data-contract-standard ships it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from importlib.resources import files
from itertools import islice
from typing import Any, Final

import jsonschema_rs
import orjson

from counterfoil_contracts.odcs.findings import Findings, Path

_CAPITAL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_UNEVALUATED: Final = "unevaluatedProperties"
_MOST_ERRORS: Final = 1000  # they are compared with one another below
_PROPERTY_KEYS: Final = frozenset({"items", "key", "value"})


@functools.cache
def _validator() -> jsonschema_rs.Draft201909Validator:
    schema = orjson.loads((files("open_data_contract_standard") / "schema.json").read_bytes())
    # Formats are annotations in draft 2019-09 unless one asks for more; the standard's own examples rely on it.
    return jsonschema_rs.Draft201909Validator(schema, validate_formats=False, mask="the value")


def check_officially(document: Any, found: Findings) -> None:
    """Add one finding per fault against the official schema, its reason `ODCS_<KEYWORD>`.

    A property without logicalType is a fault of ours: the official schema then applies the options of every type at
    once, and its errors there would mislead.
    """
    untyped = set(_untyped(document.get("schema"), ("schema",))) if isinstance(document, dict) else set()
    for path in sorted(untyped, key=str):
        found.add("LOGICAL_TYPE", path, "Say logicalType: without it neither schema nor column can be made.")
    errors = list(islice(_validator().iter_errors(document), _MOST_ERRORS))
    paths = {(error.kind.name, tuple(error.instance_path)) for error in errors}
    for error in errors:
        path = tuple(error.instance_path)
        if any(path[:length] in untyped for length in range(len(path) + 1)):
            continue
        if error.kind.name == _UNEVALUATED and _is_echo(path, paths):
            continue
        keyword = _CAPITAL.sub("_", error.kind.name).upper()
        found.add(f"ODCS_{keyword}", path, f"{error.message} (Open Data Contract Standard)")


def _is_echo(path: Path, paths: set[tuple[str, Path]]) -> bool:
    """Tell whether keys at a path are unevaluated only because another keyword failed there or below."""
    return any(other[: len(path)] == path and (name != _UNEVALUATED or len(other) > len(path)) for name, other in paths)


def _untyped(value: Any, path: Path) -> Iterator[Path]:
    """Return the paths of properties without logicalType; the document may have any shape."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _untyped(item, (*path, index))
    elif isinstance(value, dict):
        is_property = path[-1] in _PROPERTY_KEYS or path[-2] == "properties"
        if is_property and "logicalType" not in value:
            yield path
        for key in ("properties", "items", "map", "key", "value"):
            if key in value:
                yield from _untyped(value[key], (*path, key))
