"""Compatibility by rules over the text of two schemas, as registries of schemas have it; no proof, no record.

What the rules look at, and what they take for compatible, is what users of Confluent's registry are used to: each
difference between a writer's and a reader's schema has a kind, and some kinds are allowed. They do not look at
`patternProperties` that change, `propertyNames`, `contains`, `if`, `format`. Where both policies of that registry would
let pass that a key is required from now on which `properties` does not name, this one does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

from counterfoil_contracts.compatibility.views import ANY, COMBINED, NEVER, Kind, View, Views, content_of

_MOST_STEPS: Final = 100_000
"""Pairs of schemas that are looked at."""
_MOST_BRANCHES: Final = 200
"""Branches of one combination that are paired with those of another."""
_MOST_KEPT: Final = 50
"""Differences of one pair of schemas that are told."""
_ADDED, _REMOVED, _CHANGED = "ADDED", "REMOVED", "CHANGED"

_UPPER: Final = ("maxLength", "maximum", "exclusiveMaximum", "maxProperties", "maxItems", "maxContains")
_LOWER: Final = ("minLength", "minimum", "exclusiveMinimum", "minProperties", "minItems", "minContains")
_NAMES: Final[Mapping[str, str]] = {
    "maxLength": "MAX_LENGTH",
    "minLength": "MIN_LENGTH",
    "maximum": "MAXIMUM",
    "minimum": "MINIMUM",
    "exclusiveMaximum": "EXCLUSIVE_MAXIMUM",
    "exclusiveMinimum": "EXCLUSIVE_MINIMUM",
    "maxProperties": "MAX_PROPERTIES",
    "minProperties": "MIN_PROPERTIES",
    "maxItems": "MAX_ITEMS",
    "minItems": "MIN_ITEMS",
    "maxContains": "MAX_CONTAINS",
    "minContains": "MIN_CONTAINS",
}
_BOUNDS: Final[Mapping[Kind, Sequence[str]]] = {
    Kind.STRING: ("maxLength", "minLength"),
    Kind.OBJECT: ("maxProperties", "minProperties"),
    Kind.ARRAY: ("maxItems", "minItems", "maxContains", "minContains"),
}

STRICT: Final = frozenset(
    {
        *(f"{_NAMES[each]}_{how}" for each in _UPPER for how in ("REMOVED", "INCREASED")),
        *(f"{_NAMES[each]}_{how}" for each in _LOWER for how in ("REMOVED", "DECREASED")),
        "TYPE_EXTENDED",
        "PATTERN_REMOVED",
        "MULTIPLE_OF_REMOVED",
        "MULTIPLE_OF_REDUCED",
        "UNIQUE_ITEMS_REMOVED",
        "ENUM_ARRAY_EXTENDED",
        "REQUIRED_ATTRIBUTE_REMOVED",
        "REQUIRED_ATTRIBUTE_WITH_DEFAULT_ADDED",
        "DEPENDENCY_ARRAY_NARROWED",
        "DEPENDENCY_ARRAY_REMOVED",
        "DEPENDENCY_SCHEMA_REMOVED",
        "ADDITIONAL_PROPERTIES_ADDED",
        "ADDITIONAL_PROPERTIES_EXTENDED",
        "UNEVALUATED_PROPERTIES_ADDED",
        "UNEVALUATED_PROPERTIES_EXTENDED",
        "PROPERTY_WITH_EMPTY_SCHEMA_ADDED_TO_OPEN_CONTENT_MODEL",
        "REQUIRED_PROPERTY_WITH_DEFAULT_ADDED_TO_UNOPEN_CONTENT_MODEL",
        "OPTIONAL_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL",
        "PROPERTY_WITH_FALSE_REMOVED_FROM_CLOSED_CONTENT_MODEL",
        "PROPERTY_REMOVED_FROM_OPEN_CONTENT_MODEL",
        "PROPERTY_ADDED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        "PROPERTY_REMOVED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        "ADDITIONAL_ITEMS_ADDED",
        "ADDITIONAL_ITEMS_EXTENDED",
        "ITEM_WITH_EMPTY_SCHEMA_ADDED_TO_OPEN_CONTENT_MODEL",
        "ITEM_ADDED_TO_CLOSED_CONTENT_MODEL",
        "ITEM_WITH_FALSE_REMOVED_FROM_CLOSED_CONTENT_MODEL",
        "ITEM_REMOVED_FROM_OPEN_CONTENT_MODEL",
        "ITEM_ADDED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        "ITEM_REMOVED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        "COMBINED_TYPE_EXTENDED",
        "PRODUCT_TYPE_NARROWED",
        "SUM_TYPE_EXTENDED",
        "NOT_TYPE_NARROWED",
    }
)
"""Kinds of differences after which a reader goes on reading."""
LENIENT: Final = STRICT | {
    "ADDITIONAL_PROPERTIES_NARROWED",
    "ADDITIONAL_PROPERTIES_REMOVED",
    "UNEVALUATED_PROPERTIES_NARROWED",
    "UNEVALUATED_PROPERTIES_REMOVED",
    "REQUIRED_PROPERTY_WITH_DEFAULT_ADDED_TO_OPEN_CONTENT_MODEL",
    "OPTIONAL_PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL",
    "PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL",
    "PROPERTY_ADDED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
    "PROPERTY_REMOVED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
}
"""The same, where producers are trusted not to use names that are not theirs."""


class TooMuchToCompareError(Exception):
    """The schemas are of a size or shape at which comparing them by rules has no bound."""


@dataclass(frozen=True)
class Difference:
    """One difference between two schemas: its kind, and where in the schemas."""

    kind: str
    path: tuple[str, ...] = ()


def violations(writer: Any, reader: Any, *, allowed: frozenset[str]) -> Sequence[Difference]:
    """Return the differences that are not allowed between two documents of draft 2020-12.

    Raises TooMuchToCompareError.
    """
    try:
        return _Comparer(Views(writer), Views(reader), allowed).result()
    except RecursionError:
        raise TooMuchToCompareError from None


_Pair: TypeAlias = tuple[int, int]


class _Comparer:
    """Compares pairs of schemas, each once. Of a pair within itself it is assumed that it differs in nothing bad.

    Where that turns out wrong, all is compared again knowing it: what remains is the largest set of pairs that hold.
    """

    def __init__(self, writer: Views, reader: Views, allowed: frozenset[str], *, steps: int = 0) -> None:
        self._writer = writer
        self._reader = reader
        self._allowed = allowed
        self._steps = steps
        self._known: dict[_Pair, Sequence[Difference]] = {}
        self._running: set[_Pair] = set()
        self._assumed: set[_Pair] = set()
        self._broken: set[_Pair] = set()

    def result(self) -> Sequence[Difference]:
        """Return the differences of the two documents that are not allowed."""
        while True:
            found = self._compare(self._writer.root, self._reader.root)
            wrong = {pair for pair in self._assumed - self._broken if self._known[pair]}
            if not wrong:
                return found
            self._broken |= wrong
            self._known.clear()

    def holds_at_once(self, writer: View, reader: View) -> tuple[bool, int]:
        """Return whether a pair is compatible without any assumption, and the steps taken so far."""
        return self._compatible(writer, reader) and not self._assumed, self._steps

    def _compatible(self, writer: View, reader: View) -> bool:
        return not self._compare(writer, reader)

    def _compare(self, writer: View, reader: View) -> Sequence[Difference]:
        """Return the differences of a pair that are not allowed, or the first ones."""
        pair = (id(writer), id(reader))
        if pair in self._running:
            self._assumed.add(pair)
            return [Difference("RECURSIVE_TYPE_CHANGED")] if pair in self._broken else []
        known = self._known.get(pair)
        if known is None:
            self._steps += 1
            if self._steps > _MOST_STEPS:
                raise TooMuchToCompareError
            self._running.add(pair)
            breaking = (each for each in self._differences(writer, reader) if each.kind not in self._allowed)
            known = self._known[pair] = list(islice(breaking, _MOST_KEPT))
            self._running.discard(pair)
        return known

    def _at(self, path: Sequence[str], writer: View, reader: View) -> Iterator[Difference]:
        for each in self._compare(writer, reader):
            yield Difference(each.kind, (*path, *each.path))

    def _of(self, path: Sequence[str], writer: Any, reader: Any) -> Iterator[Difference]:
        yield from self._at(path, self._writer.of(writer), self._reader.of(reader))

    def _differences(self, writer: View, reader: View) -> Iterator[Difference]:
        if reader is ANY or writer is NEVER:
            return
        if writer is ANY or reader is NEVER:
            yield Difference("TYPE_NARROWED")
        elif writer.kind in COMBINED or reader.kind in COMBINED:
            yield from self._combinations(writer, reader)
        elif writer.kind is not reader.kind:
            yield Difference("TYPE_CHANGED")
        else:
            if reader.is_typed and not writer.is_typed:
                yield Difference("TYPE_NARROWED")
            yield from _bounds(writer, reader)
            compare = self._by_kind().get(writer.kind)
            if compare is not None:
                yield from compare(writer, reader)

    def _by_kind(self) -> Mapping[Kind, Callable[[View, View], Iterator[Difference]]]:
        return {
            Kind.NOT: self._negations,
            Kind.ENUM: _enums,
            Kind.STRING: _strings,
            Kind.NUMBER: _numbers,
            Kind.OBJECT: self._objects,
            Kind.ARRAY: self._arrays,
        }

    def _negations(self, writer: View, reader: View) -> Iterator[Difference]:
        """Compare what is refused, the other way round; where that takes an assumption, it is not made."""
        turned = _Comparer(self._reader, self._writer, self._allowed, steps=self._steps)
        holds, self._steps = turned.holds_at_once(reader.parts[0], writer.parts[0])
        yield Difference("NOT_TYPE_NARROWED" if holds else "NOT_TYPE_EXTENDED")

    def _combinations(self, writer: View, reader: View) -> Iterator[Difference]:
        written, read = _branches(writer), _branches(reader)
        if writer.kind not in COMBINED:
            yield from self._into(writer, reader)
        elif reader.kind not in COMBINED:
            yield from self._out_of(writer, reader)
        elif writer.kind is not reader.kind and reader.kind is not Kind.ANY_OF:
            yield Difference("COMBINED_TYPE_CHANGED")
        else:
            if writer.kind is not reader.kind:
                yield Difference("COMBINED_TYPE_EXTENDED")
            if len(read) != len(written):
                grows = len(read) > len(written)
                name = "PRODUCT_TYPE" if reader.kind is Kind.ALL_OF else "SUM_TYPE"
                yield Difference(f"{name}_{'EXTENDED' if grows else 'NARROWED'}")
            yield from self._paired(written, read)

    def _into(self, writer: View, reader: View) -> Iterator[Difference]:
        """Compare a schema with a combination that takes its place."""
        if reader.kind is Kind.ALL_OF:
            yield Difference("PRODUCT_TYPE_EXTENDED")
        elif any(self._compatible(writer, each) for each in reader.parts):
            yield Difference("SUM_TYPE_EXTENDED")
        else:
            yield Difference("COMBINED_TYPE_SUBSCHEMAS_CHANGED")

    def _out_of(self, writer: View, reader: View) -> Iterator[Difference]:
        """Compare a combination with a schema that takes its place."""
        if writer.kind is not Kind.ALL_OF:
            yield Difference("SUM_TYPE_NARROWED")
        elif any(self._compatible(each, reader) for each in writer.parts):
            yield Difference("PRODUCT_TYPE_NARROWED")
        else:
            yield Difference("COMBINED_TYPE_SUBSCHEMAS_CHANGED")

    def _paired(self, written: Sequence[View], read: Sequence[View]) -> Iterator[Difference]:
        """Pair the branches, each with one that is compatible; all of the smaller side have to find one."""
        if max(len(written), len(read)) > _MOST_BRANCHES:
            raise TooMuchToCompareError
        few, many = (written, read) if len(written) <= len(read) else (read, written)

        def fits(one: View, other: View) -> bool:
            return self._compatible(one, other) if few is written else self._compatible(other, one)

        edges = [[place for place, other in enumerate(many) if fits(one, other)] for one in few]
        partners = _matching(edges)
        if len(partners) == len(few):
            return
        yield Difference("COMBINED_TYPE_SUBSCHEMAS_CHANGED")
        for place, (one, other) in enumerate(zip(written, read, strict=False)):
            if one.kind is other.kind and not self._compatible(one, other):
                yield from self._at((str(place),), one, other)

    def _objects(self, writer: View, reader: View) -> Iterator[Difference]:
        written, read = _properties(writer), _properties(reader)
        for name in sorted(written.keys() & read.keys()):
            yield from self._of(("properties", name), written[name], read[name])
        for name in sorted(written.keys() - read.keys()):
            yield Difference(self._removed(self._writer.of(written[name]), reader, name), ("properties", name))
        for name in sorted(read.keys() - written.keys()):
            yield Difference(self._added(writer, reader, name), ("properties", name))
        yield from _required(writer, reader)
        for keyword, title in (
            ("additionalProperties", "ADDITIONAL_PROPERTIES"),
            ("unevaluatedProperties", "UNEVALUATED_PROPERTIES"),
        ):
            yield from self._others(writer, reader, keyword, title)
        yield from _dependent_names(writer, reader)
        yield from self._dependent_schemas(writer, reader)

    def _removed(self, gone: View, reader: View, name: str) -> str:
        """Return how the reader's content model takes a property that it no longer names."""
        covering = content_of(reader)(name)
        if covering is True or covering == {}:
            return "PROPERTY_REMOVED_FROM_OPEN_CONTENT_MODEL"
        if covering is False:
            kind = "PROPERTY_WITH_FALSE_REMOVED" if gone is NEVER else "PROPERTY_REMOVED"
            return f"{kind}_FROM_CLOSED_CONTENT_MODEL"
        covered = self._compatible(gone, self._reader.of(covering))
        return f"PROPERTY_REMOVED_{'IS' if covered else 'NOT'}_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL"

    def _added(self, writer: View, reader: View, name: str) -> str:
        """Return how the writer's content model had a property that the reader names from now on."""
        schema = _properties(reader)[name]
        new = self._reader.of(schema)
        covering = content_of(writer)(name)
        is_open = covering is True or covering == {}
        if name in _names(reader, "required") and name not in _names(writer, "required"):
            kind = "REQUIRED_PROPERTY_WITH_DEFAULT_ADDED" if _has_default(schema) else "REQUIRED_PROPERTY_ADDED"
            if is_open or covering is False or kind == "REQUIRED_PROPERTY_ADDED":
                return f"{kind}_TO_{'OPEN' if is_open else 'UNOPEN'}_CONTENT_MODEL"
        if is_open:
            kind = "PROPERTY_WITH_EMPTY_SCHEMA" if new is ANY else "OPTIONAL_PROPERTY"
            return f"{kind}_ADDED_TO_OPEN_CONTENT_MODEL"
        if covering is False:
            return "OPTIONAL_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL"
        covered = self._compatible(self._writer.of(covering), new)
        return f"PROPERTY_ADDED_{'IS' if covered else 'NOT'}_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL"

    def _others(self, writer: View, reader: View, keyword: str, title: str) -> Iterator[Difference]:
        """Compare what is said of whatever is not named."""
        before, after = writer.schema.get(keyword, True), reader.schema.get(keyword, True)
        if isinstance(before, bool) and isinstance(after, bool):
            if before != after:
                yield Difference(f"{title}_{_ADDED if after else _REMOVED}", (keyword,))
        elif isinstance(after, bool):
            yield Difference(f"{title}_{'EXTENDED' if after else _REMOVED}", (keyword,))
        elif isinstance(before, bool):
            yield Difference(f"{title}_{'NARROWED' if before else 'EXTENDED'}", (keyword,))
        else:
            yield from self._of((keyword,), before, after)

    def _dependent_schemas(self, writer: View, reader: View) -> Iterator[Difference]:
        written, read = (_mapping(each, "dependentSchemas") for each in (writer, reader))
        for name in sorted(written.keys() | read.keys()):
            path = ("dependentSchemas", name)
            if name not in read:
                yield Difference("DEPENDENCY_SCHEMA_REMOVED", path)
            elif name not in written:
                yield Difference("DEPENDENCY_SCHEMA_ADDED", path)
            else:
                yield from self._of(path, written[name], read[name])

    def _arrays(self, writer: View, reader: View) -> Iterator[Difference]:
        unique = [each.schema.get("uniqueItems") is True for each in (writer, reader)]
        if unique[0] != unique[1]:
            yield Difference(f"UNIQUE_ITEMS_{_ADDED if unique[1] else _REMOVED}", ("uniqueItems",))
        written, read = (each.schema.get("prefixItems") or [] for each in (writer, reader))
        for place, (before, after) in enumerate(zip(written, read, strict=False)):
            yield from self._of(("prefixItems", str(place)), before, after)
        for place in range(len(read), len(written)):
            kind = self._item_removed(self._writer.of(written[place]), reader.schema.get("items", True))
            yield Difference(kind, ("prefixItems", str(place)))
        for place in range(len(written), len(read)):
            kind = self._item_added(writer.schema.get("items", True), self._reader.of(read[place]))
            yield Difference(kind, ("prefixItems", str(place)))
        yield from self._others(writer, reader, "items", "ADDITIONAL_ITEMS")

    def _item_removed(self, gone: View, covering: Any) -> str:
        if covering is True or covering == {}:
            return "ITEM_REMOVED_FROM_OPEN_CONTENT_MODEL"
        if covering is False:
            kind = "ITEM_WITH_FALSE_REMOVED" if gone is NEVER else "ITEM_REMOVED"
            return f"{kind}_FROM_CLOSED_CONTENT_MODEL"
        covered = self._compatible(gone, self._reader.of(covering))
        return f"ITEM_REMOVED_{'IS' if covered else 'NOT'}_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL"

    def _item_added(self, covering: Any, new: View) -> str:
        if covering is True or covering == {}:
            return f"ITEM_{'WITH_EMPTY_SCHEMA_' if new is ANY else ''}ADDED_TO_OPEN_CONTENT_MODEL"
        if covering is False:
            return "ITEM_ADDED_TO_CLOSED_CONTENT_MODEL"
        covered = self._compatible(self._writer.of(covering), new)
        return f"ITEM_ADDED_{'IS' if covered else 'NOT'}_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL"


def _branches(view: View) -> Sequence[View]:
    return view.parts if view.kind in COMBINED else (view,)


def _matching(edges: Sequence[Sequence[int]]) -> Mapping[int, int]:
    """Return a largest matching of a bipartite graph, as partners on the right with those on the left.

    By augmenting paths: Kuhn, "The Hungarian method for the assignment problem", 1955.
    """
    partners: dict[int, int] = {}

    def find(place: int, seen: set[int]) -> bool:
        for other in edges[place]:
            if other not in seen:
                seen.add(other)
                if other not in partners or find(partners[other], seen):
                    partners[other] = place
                    return True
        return False

    for place in range(len(edges)):
        find(place, set())
    return partners


def _bounds(writer: View, reader: View) -> Iterator[Difference]:
    for keyword in _BOUNDS.get(writer.kind, ()):
        before, after = writer.schema.get(keyword), reader.schema.get(keyword)
        if before == after:
            continue
        if before is None:
            how = _ADDED
        elif after is None:
            how = _REMOVED
        else:
            how = "INCREASED" if after > before else "DECREASED"
        yield Difference(f"{_NAMES[keyword]}_{how}", (keyword,))


def _limits(writer: View, reader: View, *, sign: int) -> Iterator[Difference]:
    """Compare the lower bounds of numbers, or the upper ones with the sign -1: including their value or not."""
    before, after = (_limit(each, sign) for each in (writer, reader))
    if before == after:
        return
    name = _NAMES[_KEYWORDS[sign][(after or before or (0, False))[1]]]
    if before is None or after is None:
        yield Difference(f"{name}_{_ADDED if before is None else _REMOVED}")
    elif before[0] == after[0]:
        exclusive = _NAMES[_KEYWORDS[sign][True]]
        yield Difference(f"{exclusive}_{_ADDED if after[1] else _REMOVED}")
    else:
        rises = (after[0] > before[0]) is (sign > 0)
        yield Difference(f"{name}_{'INCREASED' if rises else 'DECREASED'}")


_KEYWORDS: Final = {1: ("minimum", "exclusiveMinimum"), -1: ("maximum", "exclusiveMaximum")}


def _limit(view: View, sign: int) -> tuple[float, bool] | None:
    """Return the tighter of the two bounds of a side, times the sign, and whether it excludes its value."""
    said = [(view.schema.get(keyword), bool(exclusive)) for exclusive, keyword in enumerate(_KEYWORDS[sign])]
    return max(((value * sign, exclusive) for value, exclusive in said if value is not None), default=None)


def _strings(writer: View, reader: View) -> Iterator[Difference]:
    yield from _said("PATTERN", writer.schema.get("pattern"), reader.schema.get("pattern"), "pattern")


def _numbers(writer: View, reader: View) -> Iterator[Difference]:
    for sign in _KEYWORDS:
        yield from _limits(writer, reader, sign=sign)
    if writer.is_whole != reader.is_whole:
        yield Difference("TYPE_EXTENDED" if writer.is_whole else "TYPE_NARROWED", ("type",))
    before, after = writer.schema.get("multipleOf"), reader.schema.get("multipleOf")
    if before is None or after is None or before == after:
        yield from _said("MULTIPLE_OF", before, after, "multipleOf")
    elif before % after == 0:
        yield Difference("MULTIPLE_OF_REDUCED", ("multipleOf",))
    else:
        yield Difference(f"MULTIPLE_OF_{'EXPANDED' if after % before == 0 else _CHANGED}", ("multipleOf",))


def _said(title: str, before: Any, after: Any, keyword: str) -> Iterator[Difference]:
    if before != after:
        how = _ADDED if before is None else _REMOVED if after is None else _CHANGED
        yield Difference(f"{title}_{how}", (keyword,))


def _enums(writer: View, reader: View) -> Iterator[Difference]:
    before, after = (list(map(_frozen, each.schema["enum"])) for each in (writer, reader))
    yield from _sets("ENUM_ARRAY", frozenset(before), frozenset(after), ("enum",), wider="EXTENDED", fewer="NARROWED")


def _frozen(value: Any) -> Any:
    """Return a value that is equal to another exactly where JSON Schema says that they are."""
    if isinstance(value, dict):
        return ("object", frozenset((name, _frozen(part)) for name, part in value.items()))
    if isinstance(value, list):
        return ("array", tuple(map(_frozen, value)))
    return (isinstance(value, bool), value)


def _sets(
    title: str, before: frozenset[Any], after: frozenset[Any], path: tuple[str, ...], *, wider: str, fewer: str
) -> Iterator[Difference]:
    if before != after:
        how = wider if before < after else fewer if after < before else _CHANGED
        yield Difference(f"{title}_{how}", path)


def _required(writer: View, reader: View) -> Iterator[Difference]:
    before, after = _names(writer, "required"), _names(reader, "required")
    named, known = _properties(reader), _properties(writer)
    for name in sorted(after - before):
        if name in named and name not in known:
            continue  # told as a property that was added
        if name in named and _has_default(named[name]):
            yield Difference("REQUIRED_ATTRIBUTE_WITH_DEFAULT_ADDED", ("required", name))
        else:
            yield Difference("REQUIRED_ATTRIBUTE_ADDED", ("required", name))
    for name in sorted(before - after):
        yield Difference("REQUIRED_ATTRIBUTE_REMOVED", ("required", name))


def _dependent_names(writer: View, reader: View) -> Iterator[Difference]:
    written, read = (_mapping(each, "dependentRequired") for each in (writer, reader))
    for name in sorted(written.keys() | read.keys()):
        path = ("dependentRequired", name)
        if name not in read:
            yield Difference("DEPENDENCY_ARRAY_REMOVED", path)
        elif name not in written:
            yield Difference("DEPENDENCY_ARRAY_ADDED", path)
        else:
            before, after = frozenset(written[name]), frozenset(read[name])
            yield from _sets("DEPENDENCY_ARRAY", before, after, path, wider="EXTENDED", fewer="NARROWED")


def _properties(view: View) -> Mapping[str, Any]:
    return _mapping(view, "properties")


def _mapping(view: View, keyword: str) -> Mapping[str, Any]:
    found = view.schema.get(keyword)
    return found if isinstance(found, dict) else {}


def _names(view: View, keyword: str) -> frozenset[str]:
    found = view.schema.get(keyword)
    return frozenset(found) if isinstance(found, list) else frozenset()


def _has_default(schema: Any) -> bool:
    return isinstance(schema, dict) and "default" in schema
