"""Field rules (protovalidate) as JSON Schema keywords."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor

from counterfoil_gateway.fields import REQUIRED, behaves

_BOUNDS = {"gt": "exclusiveMinimum", "gte": "minimum", "lt": "exclusiveMaximum", "lte": "maximum"}
_FORMATS = ("email", "uuid", "uri", "hostname")


def rules_of(field: FieldDescriptor) -> Any:
    """Return the field's rules, empty ones when it has none."""
    return field.GetOptions().Extensions[validate_pb2.field]


def is_required(field: FieldDescriptor) -> bool:
    """Say whether the field must be sent: it is said so, or its rule refuses the zero value of an absent field."""
    rules = rules_of(field)
    if behaves(field, REQUIRED) or rules.required:
        return True
    if field.is_repeated:
        return bool(rules.repeated.min_items)
    kind = rules.WhichOneof("type")
    if field.has_presence or kind is None:
        return False
    return _REFUSES.get(kind, _refuses_zero)(getattr(rules, kind))


def _refuses_no_text(rule: Any) -> bool:
    mismatch = rule.pattern and not re.search(rule.pattern, "")
    return bool(rule.min_len or rule.len or rule.WhichOneof("well_known") or getattr(rule, "in") or mismatch)


def _refuses_no_bytes(rule: Any) -> bool:
    return bool(rule.min_len or rule.len)


def _refuses_unspecified(rule: Any) -> bool:
    return 0 in rule.not_in


def _refuses_zero(rule: Any) -> bool:
    low = rule.WhichOneof("greater_than") if "greater_than" in rule.DESCRIPTOR.oneofs_by_name else None
    if low is None or not isinstance(getattr(rule, low), int | float):
        return False
    limit = getattr(rule, low)
    return bool(limit > 0 or (low == "gt" and limit == 0))


_REFUSES: Mapping[str, Callable[[Any], bool]] = {
    "string": _refuses_no_text,
    "bytes": _refuses_no_bytes,
    "enum": _refuses_unspecified,
}
"""Whether a rule refuses the empty value, by the rule's kind; numbers are not listed."""


def for_string(rules: Any) -> dict[str, Any]:
    """Return length, pattern, enumeration and format of a string rule."""
    rule = rules.string
    pairs = {
        "minLength": rule.len or rule.min_len,
        "maxLength": rule.len or rule.max_len or rule.max_bytes,
        "pattern": rule.pattern,
        "enum": list(getattr(rule, "in")),
    }
    out = {k: v for k, v in pairs.items() if v}
    known = rule.WhichOneof("well_known")
    return out | ({"format": known} if known in _FORMATS else {})


def for_number(rules: Any) -> dict[str, Any]:
    """Return the bounds of a numeric rule."""
    kind = rules.WhichOneof("type")
    if kind is None:
        return {}
    rule = getattr(rules, kind)
    found = (rule.WhichOneof(group) for group in ("greater_than", "less_than"))
    return {_BOUNDS[k]: getattr(rule, k) for k in found if k}


def for_list(rules: Any) -> dict[str, Any]:
    """Return the bounds of a repeated rule."""
    rule = rules.repeated
    out: dict[str, Any] = {k: v for k, v in (("minItems", rule.min_items), ("maxItems", rule.max_items)) if v}
    return out | ({"uniqueItems": True} if rule.unique else {})
