"""Hold records against their contract: every fault becomes a finding with a JSON path, and none holds a value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from counterfoil_chassis import jsonpath

from counterfoil_ingest.entities import MAX_DEPTH, MAX_RECORD_BYTES, UNPLANNED, Candidate, Finding
from counterfoil_ingest.registry import Compiled
from counterfoil_ingest.rules import Fault, RecordRule

MAX_FINDINGS = 50
"""A record's further faults are not told; repairing these shows them."""

_MAX_SHOWN = 200  # characters of a contract's own text (an enum, a pattern) or of a key that a finding repeats


def not_an_object() -> Finding:
    """Return the finding of a record that is no JSON object."""
    return Finding("NOT_AN_OBJECT", "$", "A record must be a JSON object.")


def not_json() -> Finding:
    """Return the finding of a record that is no JSON."""
    return Finding("BAD_JSON", "$", "This is not JSON (RFC 8259): look for NaN, a bare surrogate or a cut-off text.")


def not_utf8() -> Finding:
    """Return the finding of a record that is not UTF-8."""
    return Finding("BAD_UTF8", "$", "This is not UTF-8; send JSON in UTF-8.")


def too_deep() -> Finding:
    """Return the finding of a record that nests too deep."""
    return Finding("TOO_DEEP", "$", f"A record nests at most {MAX_DEPTH} levels of objects and arrays.")


def too_large() -> Finding:
    """Return the finding of a record that is too long."""
    return Finding("TOO_LARGE", "$", f"A record is at most {MAX_RECORD_BYTES} bytes of JSON.")


def no_contract(dataset: str) -> Finding:
    """Return the finding of a record whose dataset has no contract in force."""
    return Finding("NO_CONTRACT", "$", f"No contract is in force for `{dataset}`: activate one, then send again.")


def faults(
    candidates: Sequence[Candidate], contracts: Mapping[str, Compiled | None], *, unknown: frozenset[str], start: int
) -> dict[int, tuple[Finding, ...]]:
    """Return the findings of those candidates that have any, by index from `start` on.

    A candidate of a dataset in `unknown` is not held against a contract.
    """
    found: dict[int, tuple[Finding, ...]] = {}
    checks: dict[str, Callable[[Any], bool]] = {
        name: each.validator.is_valid for name, each in contracts.items() if each
    }
    rules = {name: each.rules for name, each in contracts.items() if each and each.rules is not None}
    for index, candidate in enumerate(candidates, start):
        check, data, value = checks.get(candidate.dataset), candidate.data, candidate.value
        if (
            check is not None
            and type(value) is dict
            and not candidate.findings
            and len(data) <= MAX_RECORD_BYTES
            and data.count(b"{") + data.count(b"[") <= MAX_DEPTH
            and check(value)
            and (candidate.dataset not in rules or rules[candidate.dataset].keep(value, data))
        ):
            continue
        if candidate.findings or candidate.dataset not in unknown:
            findings = findings_of(candidate, contracts.get(candidate.dataset))
            if findings:
                found[index] = findings
    return found


def findings_of(candidate: Candidate, compiled: Compiled | None) -> tuple[Finding, ...]:
    """Return everything that keeps a record out of the log; empty = it is accepted.

    `unplanned` has no contract and takes any object; another dataset without one takes nothing.
    """
    value, data = candidate.value, candidate.data
    if candidate.findings:
        return candidate.findings
    if not isinstance(value, dict):
        return (not_an_object(),)
    if len(data) > MAX_RECORD_BYTES:
        return (too_large(),)
    if nests_too_deep(data, value):
        return (too_deep(),)
    if compiled is None:
        return () if candidate.dataset == UNPLANNED else (no_contract(candidate.dataset),)
    return contract_findings(compiled, value, data)


def contract_findings(compiled: Compiled, value: Any, data: bytes) -> tuple[Finding, ...]:
    """Return how a record, given with its JSON text, breaks its contract, at most `MAX_FINDINGS`; empty = it keeps it.

    Rules are for records that the JSON Schema takes: of others they would tell what follows from that.
    """
    if not compiled.validator.is_valid(value):
        return tuple(islice(_findings(compiled.validator.iter_errors(value)), MAX_FINDINGS))
    if compiled.rules is None or compiled.rules.keep(value, data):
        return ()
    return tuple(_rule_finding(rule, fault) for rule, fault in compiled.rules.faults(value, data))


def nests_too_deep(text: bytes, value: Any) -> bool:
    """Tell whether a value, given with its JSON text, nests more than `MAX_DEPTH` levels."""
    # Counting bytes is a hundred times cheaper than walking, and bounds the depth of all but the oddest records.
    return text.count(b"{") + text.count(b"[") > MAX_DEPTH and deeper_than(value, MAX_DEPTH)


def deeper_than(value: Any, levels: int) -> bool:
    """Tell whether a value nests more than so many levels of objects and arrays."""
    layer = [value]
    for _ in range(levels + 1):
        layer = [each for each in layer if isinstance(each, (dict, list))]
        if not layer:
            return False
        layer = [inner for each in layer for inner in (each.values() if isinstance(each, dict) else each)]
    return True


def json_path(steps: Iterable[str | int]) -> str:
    """Return steps as a JSON path (RFC 9535), e.g. `$.products[0].price`; of a key, its first 200 characters."""
    return jsonpath.json_path(_shown(step) if isinstance(step, str) else step for step in steps)


def _shown(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


def _findings(errors: Iterable[Any]) -> Iterable[Finding]:
    for error in errors:
        kind, path = error.kind, error.instance_path
        keyword = kind.name
        if keyword == "required":
            yield Finding("CONTRACT_REQUIRED", json_path([*path, kind.property]), "The contract requires it.")
        elif keyword in ("additionalProperties", "unevaluatedProperties"):
            for name in kind.unexpected:
                yield Finding("CONTRACT_UNKNOWN_FIELD", json_path([*path, name]), "The contract does not know it.")
        else:
            reason, tell = _KINDS.get(keyword, ("CONTRACT_OTHER", _tell_other))
            yield Finding(reason, json_path(path), tell(keyword, kind.as_dict()))


def _rule_finding(rule: RecordRule, fault: Fault) -> Finding:
    named = f"the rule `{_shown(rule.rule_id)}`"
    if fault is Fault.BROKEN:
        meaning = f": {_shown(rule.description)}" if rule.description else "."
        return Finding("CONTRACT_RULE", rule.path, f"It breaks {named}{meaning}")
    if fault is Fault.TOO_MUCH:
        detail = f"There is too much in it for {named}, which holds items against the rest of the record: split it."
        return Finding("CONTRACT_RULE_ERROR", rule.path, detail)
    detail = f"For {named} a value is missing, of another type, or there are too many of them."
    return Finding("CONTRACT_RULE_ERROR", rule.path, detail)


def _tell_type(_keyword: str, kind: Mapping[str, Any]) -> str:
    types = [each for each in kind["types"] if each != "null"]
    return f"It must be {_one_of(types)}{' or null' if 'null' in kind['types'] else ''}."


def _tell_enum(_keyword: str, kind: Mapping[str, Any]) -> str:
    options = kind.get("options", [kind.get("expected_value")])
    return f"It must be {_one_of([str(each) for each in options])}."


def _tell_pattern(_keyword: str, kind: Mapping[str, Any]) -> str:
    return f"It must match `{_shown(str(kind['pattern']))}`."


def _tell_format(_keyword: str, kind: Mapping[str, Any]) -> str:
    return f"It must be a valid {kind['format']}."


def _tell_range(keyword: str, kind: Mapping[str, Any]) -> str:
    limit = kind.get("limit", kind.get("multiple_of"))
    return f"It must keep to {keyword} {limit}."


def _tell_unique(_keyword: str, _kind: Mapping[str, Any]) -> str:
    return "Its items must differ."


def _tell_other(keyword: str, _kind: Mapping[str, Any]) -> str:
    return f"It breaks the contract's `{keyword}`."


def _one_of(options: Sequence[str]) -> str:
    return _shown(" or ".join([", ".join(options[:-1]), options[-1]] if len(options) > 1 else options))


_RANGES = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
    *("minItems", "maxItems", "minProperties", "maxProperties"),
)

_KINDS: Mapping[str, tuple[str, Callable[[str, Mapping[str, Any]], str]]] = {
    "type": ("CONTRACT_TYPE", _tell_type),
    "enum": ("CONTRACT_ENUM", _tell_enum),
    "const": ("CONTRACT_ENUM", _tell_enum),
    "pattern": ("CONTRACT_PATTERN", _tell_pattern),
    "format": ("CONTRACT_FORMAT", _tell_format),
    "uniqueItems": ("CONTRACT_RANGE", _tell_unique),
    **dict.fromkeys(_RANGES, ("CONTRACT_RANGE", _tell_range)),
}
