"""Values that a JSON Schema probably accepts, few and at its edges; whoever draws them holds them against it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from counterfoil_contracts.compatibility.strings import LONGEST, matching

WIDE = 16
"""Values that are drawn of one place in a schema."""
MOST_DRAWN = 5_000
"""Schemas that are drawn from: a contract may be large, and what it allows larger."""
_DEEP = 32
_TYPES = ("object", "string", "integer", "number", "boolean", "array", "null")
_SPREAD: Sequence[Any] = ("", "a", 0, 1, -1, 0.5, True, False, None, [], {})
_FORMATS: Mapping[str, Sequence[str]] = {
    "date-time": ("2026-01-31T12:00:00Z",),
    "date": ("2026-01-31",),
    "time": ("12:00:00Z",),
    "duration": ("P1D",),
    "email": ("a@example.org",),
    "idn-email": ("a@example.org",),
    "hostname": ("example.org",),
    "idn-hostname": ("example.org",),
    "ipv4": ("192.0.2.1",),
    "ipv6": ("2001:db8::1",),
    "uri": ("https://example.org/",),
    "uri-reference": ("/a",),
    "iri": ("https://example.org/",),
    "iri-reference": ("/a",),
    "uuid": ("00000000-0000-4000-8000-000000000000",),
    "json-pointer": ("/a",),
    "relative-json-pointer": ("0",),
    "regex": ("a",),
    "uri-template": ("/{a}",),
}
_OF_TYPE: Mapping[str, frozenset[str]] = {
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
    "array": frozenset({"items", "prefixItems", "additionalItems", "minItems", "maxItems", "contains", "uniqueItems"}),
    "object": frozenset(
        {
            "properties", "patternProperties", "additionalProperties", "propertyNames", "required", "minProperties",
            "maxProperties", "dependencies", "dependentRequired", "dependentSchemas", "unevaluatedProperties",
        }
    ),
}  # fmt: skip


class Samples:
    """Draws from the schemas of one document, whose `$ref`s it follows; from each once, and from so many at most."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = MOST_DRAWN
        self._drawn: dict[int, tuple[Any, list[Any]]] = {}  # by the identity of the schema, which is kept alive

    def of(self, schema: Any, depth: int = 0) -> list[Any]:
        """Return at most `WIDE` different values, the plainest first; none once too many schemas were drawn from."""
        known = self._drawn.get(id(schema))
        if known is not None:
            return known[1]
        if self._left == 0:
            return []
        self._left -= 1
        values = list(islice(_different(self._values(schema, depth)), WIDE))
        self._drawn[id(schema)] = (schema, values)
        return values

    def _values(self, schema: Any, depth: int) -> Iterator[Any]:
        if schema is True or schema == {}:
            yield from _SPREAD
        elif isinstance(schema, dict) and depth <= _DEEP:
            yield from self._of_object(schema, depth)

    def _of_object(self, schema: Mapping[str, Any], depth: int) -> Iterator[Any]:
        if "const" in schema:
            yield schema["const"]
            return
        if isinstance(schema.get("enum"), list):
            yield from schema["enum"]
            return
        if isinstance(schema.get("$ref"), str):
            target = self._resolve(schema["$ref"])
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            yield from self._values(_merged(target, rest) if isinstance(target, dict) else target, depth + 1)
            return
        for key in ("anyOf", "oneOf"):
            if isinstance(schema.get(key), list):
                rest = {name: value for name, value in schema.items() if name != key}
                yield from _in_turn([self.of(_merged(rest, branch), depth + 1) for branch in schema[key]])
                return
        if isinstance(schema.get("allOf"), list):
            whole: Any = {name: value for name, value in schema.items() if name != "allOf"}
            for branch in schema["allOf"]:
                whole = _merged(whole, self._resolved(branch))
            yield from self._values(whole, depth + 1)
            return
        if isinstance(schema.get("if"), dict):
            plain = {name: value for name, value in schema.items() if name not in ("if", "then", "else")}
            then = _merged(_merged(plain, schema["if"]), schema.get("then", True))
            otherwise = _merged(plain, schema.get("else", True))
            yield from _in_turn([self.of(then, depth + 1), self.of(otherwise, depth + 1)])
            return
        yield from _in_turn([self._of_type(kind, schema, depth) for kind in _types(schema)])
        if isinstance(schema.get("not"), dict):
            yield from self._against(schema["not"], depth)

    def _of_type(self, kind: str, schema: Mapping[str, Any], depth: int) -> Iterable[Any]:
        if kind == "string":
            return _strings(schema)
        if kind in ("integer", "number"):
            return _numbers(schema, whole=kind == "integer")
        if kind == "boolean":
            return (True, False)
        if kind == "null":
            return (None,)
        if kind == "array":
            return self._arrays(schema, depth)
        return self._objects(schema, depth)

    def _against(self, schema: Mapping[str, Any], depth: int) -> Iterator[Any]:
        """Yield values that the schema probably refuses, by what it says of them."""
        yield from _SPREAD
        for bound, step in (("minimum", -1), ("maximum", 1), ("exclusiveMinimum", 0), ("exclusiveMaximum", 0)):
            if _is_number(schema.get(bound)):
                yield schema[bound] + step
        for key in schema.get("required", ()):
            yield {name: value for name, value in self._plain_object(schema, depth).items() if name != key}
        properties = schema.get("properties")
        for name, part in properties.items() if isinstance(properties, dict) else ():
            for value in self._against(part, depth + 1) if isinstance(part, dict) and depth < _DEEP else ():
                yield {**self._plain_object(schema, depth), name: value}
        for pattern, part in _patterns(schema):
            name = matching(pattern)
            for value in (
                self._against(part, depth + 1) if name and isinstance(part, dict) and depth < _DEEP else _SPREAD
            ):
                yield {name: value}
        if isinstance(schema.get("propertyNames"), dict):
            yield from ({value: 0} for value in self._against(schema["propertyNames"], depth + 1) if type(value) is str)
        for length in (schema.get("maxLength"), schema.get("minLength")):
            if type(length) is int and length < LONGEST:
                yield from ("a" * max(length - 1, 0), "a" * (length + 1))

    def _arrays(self, schema: Mapping[str, Any], depth: int) -> Iterator[Any]:
        first = schema.get("prefixItems", schema.get("items"))
        tuple_of = first if isinstance(first, list) else []
        rest = schema.get("items" if "prefixItems" in schema else "additionalItems", True) if tuple_of else first
        rest = True if rest is None else rest
        least, most = _count(schema.get("minItems"), 0), _count(schema.get("maxItems"), WIDE)
        others = self.of(rest, depth + 1)
        contained = self.of(schema["contains"], depth + 1)[:1] if "contains" in schema else []
        heads = [self.of(part, depth + 1) for part in tuple_of]

        def filled(length: int, chosen: Sequence[Any]) -> list[Any] | None:
            array = [*contained, *chosen][:length] if not heads else [head[0] for head in heads[:length] if head]
            while len(array) < length:
                if not others:
                    return None
                array.append(others[len(array) % len(others)])
            return array

        for length in dict.fromkeys((least, max(least, len(heads)), least + 1, most)):
            if length <= min(most, LONGEST) and (array := filled(length, ())) is not None:
                yield array
        for value in others:
            if most > 0 and not heads and (array := filled(max(least, 1 + len(contained)), (value,))) is not None:
                yield array
        plain = [head[0] for head in heads if head]
        for index, head in enumerate(heads):
            if len(plain) == len(heads):
                yield from ([*plain[:index], value, *plain[index + 1 :]] for value in head[1:])

    def _objects(self, schema: Mapping[str, Any], depth: int) -> Iterator[Any]:
        plain = self._plain_object(schema, depth)
        yield plain
        parts: list[Iterable[Any]] = []
        properties = schema.get("properties")
        for name, part in properties.items() if isinstance(properties, dict) else ():
            parts.append([{**plain, name: value} for value in self.of(part, depth + 1)])
        for pattern, part in _patterns(schema):
            if (name := matching(pattern)) is not None:
                parts.append([{**plain, name: value} for value in self.of(part, depth + 1)])
        names: Any = schema.get("propertyNames", True)
        more = [name for name in self.of(names, depth + 1) if type(name) is str] or ["a"]
        for key in ("additionalProperties", "unevaluatedProperties"):
            if schema.get(key, True) is not False:
                other = self._new_name(schema, more)
                parts.append([{**plain, other: value} for value in self.of(schema.get(key, True), depth + 1)])
                break
        yield from _in_turn(parts)
        whole = dict(plain)
        for name, part in properties.items() if isinstance(properties, dict) else ():
            values = self.of(part, depth + 1)
            if name not in whole and values:
                whole[name] = values[0]
        yield whole

    def _plain_object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        """Return the smallest object that may be accepted."""
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        plain: dict[str, Any] = {}
        for name in schema.get("required", ()):
            values = self.of(properties.get(name, schema.get("additionalProperties", True)), depth + 1)
            if values:
                plain[name] = values[0]
        for name, part in properties.items():
            if len(plain) >= _count(schema.get("minProperties"), 0):
                break
            values = self.of(part, depth + 1)
            if name not in plain and values:
                plain[name] = values[0]
        number = 0
        while len(plain) < min(_count(schema.get("minProperties"), 0), LONGEST):
            plain[f"a{number}"] = 0
            number += 1
        return plain

    @staticmethod
    def _new_name(schema: Mapping[str, Any], names: Sequence[str]) -> str:
        known = schema.get("properties") or {}
        return next((name for name in (*names, "other", "another") if name not in known), "yet_another")

    def _resolved(self, schema: Any) -> Any:
        if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
            return self._resolve(schema["$ref"])
        return schema

    def _resolve(self, reference: str) -> Any:
        """Return what a reference within the document names; nothing is said of what another one holds."""
        found: Any = self._root
        if not reference.startswith("#"):
            return True
        for part in reference[1:].split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isdigit() and int(key) < len(found):
                found = found[int(key)]
            else:
                return True
        return found


def _types(schema: Mapping[str, Any]) -> Sequence[str]:
    """Return the types a schema allows; where it names none, first those that its keywords speak of."""
    said = schema.get("type")
    if isinstance(said, str):
        return (said,)
    if isinstance(said, list):
        return [each for each in said if isinstance(each, str)]
    spoken = [kind for kind, keywords in _OF_TYPE.items() if keywords & schema.keys()]
    return [*spoken, *(kind for kind in _TYPES if kind not in spoken)]


def _strings(schema: Mapping[str, Any]) -> Iterator[str]:
    least, most = _count(schema.get("minLength"), 0), _count(schema.get("maxLength"), LONGEST)
    if isinstance(schema.get("pattern"), str):
        for length in (least, min(most, least + 1)):
            if (text := matching(schema["pattern"], least=min(length, LONGEST))) is not None:
                yield text
    yield from _FORMATS.get(str(schema.get("format")), ())
    for length in (least, min(most, least + 1), min(most, 5), most):
        if least <= length <= LONGEST:
            yield "a" * length


def _numbers(schema: Mapping[str, Any], *, whole: bool) -> Iterator[float]:
    step = schema["multipleOf"] if _is_number(schema.get("multipleOf")) and schema["multipleOf"] > 0 else 0
    low = [schema[key] for key in ("minimum", "exclusiveMinimum") if _is_number(schema.get(key))]
    high = [schema[key] for key in ("maximum", "exclusiveMaximum") if _is_number(schema.get(key))]
    for value in (*low, *high):
        if abs(value) < 2**53:
            for offset in (0, 1, -1, *(() if whole else (0.5, -0.5))):
                yield from _fitting(value + offset, whole=whole)
        if step and math.isfinite(value / step) and abs(value / step) < 2**53:
            yield from (_whole(times * step) for times in (math.floor(value / step), math.ceil(value / step)))
    if step:
        yield from (_whole(step), _whole(step * 2), _whole(step * 3), 0, _whole(-step))
    yield from (0, 1, -1, 2, 10, 100, 2**31, *(() if whole else (0.5, 1.5, -0.5)))


def _fitting(value: float, *, whole: bool) -> Iterator[float]:
    if not whole:
        yield _whole(value)
    elif float(value).is_integer():
        yield int(value)
    else:
        yield from (math.floor(value), math.ceil(value))


def _whole(value: float) -> float:
    """Return a float that is a whole number as an integer, which both are in JSON."""
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: Any, default: int) -> int:
    return int(value) if _is_number(value) and 0 <= value < 2**31 else default


def _patterns(schema: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    found = schema.get("patternProperties")
    return found.items() if isinstance(found, dict) else ()


def _merged(one: Any, other: Any) -> Any:
    """Return a schema near to both at once: keywords that only one has, and for shared ones the narrower where easy."""
    if one is True or one == {}:
        return other
    if other is True or other == {}:
        return one
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return False
    whole: dict[str, Any] = dict(one)
    for key, value in other.items():
        known = whole.get(key)
        if key not in whole or known == value:
            whole[key] = value
        elif (
            isinstance(known, dict) and isinstance(value, dict) and key in ("properties", "patternProperties", "$defs")
        ):
            whole[key] = {**known, **{name: _merged(known.get(name, True), part) for name, part in value.items()}}
        elif isinstance(known, list) and isinstance(value, list):
            joined = [*known, *(each for each in value if each not in known)]
            whole[key] = joined if key in ("required", "allOf") else [each for each in known if each in value]
        elif key.startswith(("min", "exclusiveMin")) and _is_number(known) and _is_number(value):
            whole[key] = max(known, value)
        elif key.startswith(("max", "exclusiveMax")) and _is_number(known) and _is_number(value):
            whole[key] = min(known, value)
        elif isinstance(known, dict) and isinstance(value, dict):
            whole[key] = _merged(known, value)
        else:
            whole[key] = value
    return whole


def _in_turn(groups: Sequence[Iterable[Any]]) -> Iterator[Any]:
    """Yield from each group in turn, so that the first few values are of all of them."""
    iterators = [iter(group) for group in groups]
    while iterators:
        left = []
        for each in iterators:
            for value in each:
                yield value
                left.append(each)
                break
        iterators = left


def _different(values: Iterable[Any]) -> Iterator[Any]:
    seen: set[str] = set()
    for value in values:
        name = repr(value)
        if name not in seen:
            seen.add(name)
            yield value
