"""Hold many records against their contract at once, column by column.

Most contracts say of most properties no more than their type, and most batches keep them. So a contract is taken apart
once: a property whose type says everything costs nothing per record, and the values of any other are validated in one
call. This only ever says "they all keep it": what it cannot say that of is looked at record by record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
import orjson

from counterfoil_ingest.entities import Columns

_TAKEN_APART = {"$schema", "type", "properties", "required", "additionalProperties", "patternProperties", "x-readers"}
_TELLS_NOTHING = {"type", "x-classification"}


@dataclass(frozen=True, slots=True)
class Columnwise:
    """A contract, taken apart. A validator takes the list of a column's values; without one any value is right."""

    texts: Mapping[str, Any]
    objects: Mapping[str, Any]
    declared: frozenset[str]
    required: frozenset[str]
    closed: bool

    def keep(self, columns: Columns) -> bool:
        """Tell whether it is sure that every record keeps the contract."""
        return all(self._is_there(name, columns) for name in self.required) and self._values_keep(columns)

    def _is_there(self, name: str, columns: Columns) -> bool:
        if name in columns.texts:
            return all(columns.texts[name]) or None not in columns.texts[name]  # the first is ten times as fast
        return len(columns.objects.get(name, ())) == len(columns.ids)

    def _values_keep(self, columns: Columns) -> bool:
        return all(self._keep(name, values, self.texts) for name, values in columns.texts.items()) and all(
            self._keep(name, values, self.objects) for name, values in columns.objects.items()
        )

    def _keep(self, name: str, values: Sequence[Any], validators: Mapping[str, Any]) -> bool:
        if name not in validators:  # of another type, or not declared
            return name not in self.declared and not self.closed
        validator = validators[name]
        if validator is None:
            return True
        if validators is self.objects:
            return bool(validator.is_valid(orjson.loads(b"[%b]" % b",".join(values))))
        return bool(validator.is_valid([each for each in set(values) if each is not None]))


def take_apart(schema: Mapping[str, Any]) -> Columnwise | None:
    """Return a contract's JSON Schema by column; None when it says something that is not about one property alone."""
    properties: Mapping[str, Any] = schema.get("properties", {})
    if schema.get("type") != "object" or not schema.keys() <= _TAKEN_APART:
        return None
    if "additionalProperties" in schema and schema["additionalProperties"] is not False:
        return None
    if "patternProperties" in schema and "additionalProperties" not in schema:
        return None
    if not all(isinstance(each, Mapping) and "type" in each for each in properties.values()):
        return None
    return Columnwise(
        texts={name: _validator(each) for name, each in properties.items() if "string" in _types(each)},
        objects={name: _validator(each) for name, each in properties.items() if "object" in _types(each)},
        declared=frozenset(properties),
        required=frozenset(schema.get("required", ())),
        closed="additionalProperties" in schema,
    )


def _types(schema: Mapping[str, Any]) -> Sequence[str]:
    types: str | Sequence[str] = schema["type"]
    return (types,) if isinstance(types, str) else types


def _validator(schema: Mapping[str, Any]) -> Any:
    """Return what validates a list of values; None when their type is all that is asked."""
    if schema.keys() <= _TELLS_NOTHING:
        return None
    of_all = {"type": "array", "items": schema}
    return jsonschema_rs.Draft202012Validator(of_all, validate_formats=True, offline=True)
