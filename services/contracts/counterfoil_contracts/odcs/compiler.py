"""Compiles the datasets of a checked document to JSON Schema 2020-12 and columns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import jsonschema_rs
import orjson

from counterfoil_contracts.entities import Column, ColumnType, CompiledDataset
from counterfoil_contracts.odcs.findings import Findings, Path
from counterfoil_contracts.odcs.golden import golden_records
from counterfoil_contracts.odcs.names import check_columns
from counterfoil_contracts.odcs.properties import ContentModel, admits_null, content_model, object_keywords
from counterfoil_contracts.odcs.rules import classifications, record_rules

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_COLUMN_TYPES: Final[Mapping[str, ColumnType]] = {
    "string": ColumnType.VARCHAR,
    "time": ColumnType.VARCHAR,
    "integer": ColumnType.BIGINT,
    "number": ColumnType.DOUBLE,
    "boolean": ColumnType.BOOLEAN,
    "date": ColumnType.DATE,
    "timestamp": ColumnType.TIMESTAMPTZ,
    "object": ColumnType.JSON,
    "array": ColumnType.JSON,
    "map": ColumnType.JSON,
    "vector": ColumnType.JSON,
}


def compile_dataset(node: Mapping[str, Any], path: Path, found: Findings) -> CompiledDataset | None:
    """Return what validates the records of one `schema[]` object, or None when the validator refuses the result.

    The bytes depend on the meaning of the object alone, not on the order or the prose of the document: JSON with sorted
    keys and no blanks, near to RFC 8785. The columns keep the document's order.
    """
    properties = node.get("properties", [])
    model = content_model(node, path, found, default=ContentModel.CLOSED)
    if not properties and model.is_closed:
        found.add("NO_PROPERTY", path, "A closed dataset needs properties. Declare some, or say contentModel: open.")
    check_columns(properties, (*path, "properties"), found)
    rules = record_rules(node, path, found)
    schema = {"$schema": DIALECT, **object_keywords(properties, path, found, model=model)}
    if found or not _is_usable(schema, path, found):
        return None
    golden = golden_records(node, path, found, schema=schema, rules=rules)
    if found:
        return None
    text = orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)
    columns = tuple(_column(item, schema["properties"][item["name"]]) for item in properties)
    return CompiledDataset(
        dataset=node["name"],
        json_schema=text,
        sha256=hashlib.sha256(text).hexdigest(),
        columns=columns,
        record_rules=rules,
        classifications=classifications(node),
        golden_records=golden,
    )


def _is_usable(schema: dict[str, Any], path: Path, found: Findings) -> bool:
    try:
        jsonschema_rs.meta.validate(schema)
        jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    except ValueError as error:
        found.add("SCHEMA_UNUSABLE", path, f"The object compiles to no usable JSON Schema: {error}")
        return False
    return True


def _column(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Column:
    kind = node["logicalType"]
    options = node.get("logicalTypeOptions", {})
    return Column(
        name=node["name"],
        type=_COLUMN_TYPES[kind],
        required=not admits_null(schema),
        default_timezone=options.get("defaultTimezone", "") if kind == "timestamp" else "",
        classification=node.get("classification", ""),
    )
