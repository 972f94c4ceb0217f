"""What things may be called: contracts, versions, datasets, properties."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from counterfoil_contracts.odcs.findings import Findings, Path
from counterfoil_contracts.odcs.keywords import SQL_KEYWORDS

LONGEST_NAME: Final = 200
LONGEST_VERSION: Final = 64

_DATASET: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_CONTRACT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:@-]{0,199}")  # one segment of a path, unescaped
_API_VERSION: Final = re.compile(r"v3\.[0-2]\.[0-9]+")
# Semantic Versioning 2.0.0, the expression suggested on semver.org.
_SEMVER: Final = re.compile(
    r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(-((0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(\+([0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*))?"
)


def check_head(document: Mapping[str, Any], found: Findings) -> None:
    """Check id, version and apiVersion of an officially valid document."""
    if not _CONTRACT_ID.fullmatch(document["id"]):
        found.add(
            "CONTRACT_ID", ("id",), "An id is 1 to 200 letters, digits and ._~:@- and begins with a letter or digit."
        )
    version = document["version"]
    if len(version) > LONGEST_VERSION or not _SEMVER.fullmatch(version):
        found.add("CONTRACT_VERSION", ("version",), "A version follows Semantic Versioning 2.0.0, such as 1.0.0.")
    if not _API_VERSION.fullmatch(document["apiVersion"]):
        found.add("API_VERSION", ("apiVersion",), "ODCS v3.0 to v3.2 are read here. Bring the document up to v3.2.0.")


def check_datasets(schema: Sequence[Mapping[str, Any]], found: Findings) -> None:
    """Check that there are datasets, and that each can be a table of its own."""
    if not schema:
        found.add("NO_DATASET", ("schema",), "A contract governs at least one dataset. Add an object to schema.")
    seen: set[str] = set()
    for index, dataset in enumerate(schema):
        name, path = dataset["name"], ("schema", index, "name")
        if not _DATASET.fullmatch(name):
            found.add("DATASET_NAME", path, "A dataset's name is [a-z][a-z0-9_]{0,62}: lower case, digits, _.")
        elif name in SQL_KEYWORDS:
            found.add("DATASET_NAME", path, "The name is an SQL keyword. Choose another, such as its plural.")
        elif name in seen:
            found.add("DATASET_TWICE", path, "Another object of this contract has the name. Names are unique.")
        seen.add(name)


def check_columns(properties: Sequence[Mapping[str, Any]], path: Path, found: Findings) -> None:
    """Check that each top-level property can be a column beside our own, whose names begin with `_`."""
    seen: set[str] = set()
    for index, node in enumerate(properties):
        name, place = node["name"], (*path, index, "name")
        if name.startswith("_"):
            found.add("PROPERTY_NAME", place, "Names that begin with _ are the platform's. Choose another.")
        _check_name(name, place, found)
        if name.casefold() in seen:
            found.add("PROPERTY_TWICE", place, "Another property has the name; columns ignore upper and lower case.")
        seen.add(name.casefold())


def check_nested(properties: Sequence[Mapping[str, Any]], path: Path, found: Findings) -> None:
    """Check that the properties of a nested object have names of their own."""
    seen: set[str] = set()
    for index, node in enumerate(properties):
        name, place = node["name"], (*path, index, "name")
        _check_name(name, place, found)
        if name in seen:
            found.add("PROPERTY_TWICE", place, "Another property of this object has the name.")
        seen.add(name)


def _check_name(name: str, path: Path, found: Findings) -> None:
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        found.add("PROPERTY_NAME", path, f"A name is 1 to {LONGEST_NAME} printable characters.")
