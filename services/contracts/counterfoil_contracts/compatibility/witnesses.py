"""Search for records that one schema accepts and another refuses: near to examples, and where the two differ.

Every record that is found has been held against both, so that it proves by itself that the change breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Protocol, TypeAlias

from counterfoil_contracts.compatibility.containment import size_of
from counterfoil_contracts.compatibility.samples import Samples
from counterfoil_contracts.compatibility.strings import LONGEST, matching

MOST_TRIED = 20_000
"""Candidates that are tried where nothing is proven."""
TO_CHECK_A_PROOF = 1_000
"""Candidates that are to hold a proof that there is none."""
AFTER_THE_FIRST = 2_000
"""Candidates that are still tried once one was found, to find what else breaks."""
_USUAL_SIZE = 200  # values in a schema
_MOST_VALUES = 64
_MOST_NAMES = 48
_MOST_POSITIONS = 200
_STARTS = 6
Path: TypeAlias = tuple[str | int, ...]


class Fault(Protocol):
    """What jsonschema-rs says of one fault of a record."""

    @property
    def message(self) -> str:
        """Return what is wrong, in a sentence."""

    @property
    def instance_path(self) -> Sequence[str | int]:
        """Return where in the record."""

    @property
    def schema_path(self) -> Sequence[str | int]:
        """Return where in the schema."""


@dataclass(frozen=True)
class Witness:
    """A record that the writer's schema accepts and the reader's refuses, and why it does."""

    record: Any
    path: Path
    location: Path
    """Where the reader's schema says what the record breaks."""
    detail: str = ""
    """What it says, as the judge's fault has it."""

    @property
    def keyword(self) -> str:
        """Return the JSON Schema keyword that is broken."""
        return next((part for part in reversed(self.location) if isinstance(part, str)), "")


@dataclass(frozen=True)
class Judges:
    """Both schemas, compiled: what the writer accepts, and every fault that the reader finds."""

    accepts: Callable[[Any], bool]
    refuses: Callable[[Any], bool]
    faults: Callable[[Any], Iterable[Fault]]


def search(
    judges: Judges,
    *,
    writer: Any,
    reader: Any,
    difference: Any = None,
    telling: Any = None,
    examples: Sequence[Any] = (),
    most: int,
) -> tuple[Witness, ...]:
    """Return one small witness for each place in the reader's schema that was found to break, the surest first.

    So many candidates are tried at `most` of schemas of a usual size, of larger ones fewer. What else is worth trying
    is said by `telling`, as the keywords of schemas do.
    """
    found: dict[Path, Witness] = {}
    left, costs = float(most), max(1.0, max(size_of(writer), size_of(reader)) / _USUAL_SIZE)
    hints = _hints(writer, reader, difference, telling)
    for candidate in _candidates(writer, reader, difference, examples, hints):
        if left <= 0:
            break
        left -= costs
        if not judges.accepts(candidate) or not judges.refuses(candidate):
            continue
        if not found:
            left = min(left, float(AFTER_THE_FIRST))
        for fault in islice(judges.faults(candidate), 4):
            location = tuple(fault.schema_path)
            if location not in found:
                found[location] = _smallest(candidate, location, judges)
    return tuple(found.values())


def _candidates(writer: Any, reader: Any, difference: Any, examples: Sequence[Any], hints: _Hints) -> Iterator[Any]:
    starts = [*examples[:_STARTS], *Samples(writer).of(writer)]
    if difference is not None:
        yield from Samples(difference).of(difference)
    yield from starts
    yield from Samples(reader).of(reader)
    # example by example, but each of a few gets its turn
    for start in starts[:_STARTS]:
        yield from _edited(start, hints)


@dataclass(frozen=True)
class _Hints:
    values: Sequence[Any]
    names: Sequence[str]


def _hints(*schemas: Any) -> _Hints:
    """Return what the schemas themselves say is worth trying: constants, bounds and what lies beside them, names."""
    values: dict[str, Any] = {}
    names: dict[str, None] = {}
    for node in chain.from_iterable(map(_nodes, schemas)):
        for value in _telling(node):
            values.setdefault(repr(value), value)
        for name in _names_in(node):
            names.setdefault(name)
    plain: Sequence[Any] = (0, "a", True, None, [], {}, 1.5, -1, "")
    values = {repr(value): value for value in plain} | values
    return _Hints(list(values.values())[:_MOST_VALUES], list(names)[:_MOST_NAMES] or ["a"])


def _nodes(schema: Any) -> Iterator[Mapping[str, Any]]:
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _telling(node: Mapping[str, Any]) -> Iterator[Any]:
    if "const" in node:
        yield node["const"]
    if isinstance(node.get("enum"), list):
        yield from node["enum"]
    for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"):
        value = node.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield from (value, value + 1, value - 1)
    for key in ("minLength", "maxLength"):
        value = node.get(key)
        if type(value) is int and 0 <= value < LONGEST:
            yield from ("a" * value, "a" * (value + 1), "a" * max(value - 1, 0))
    for key in ("minItems", "maxItems"):
        value = node.get(key)
        if type(value) is int and 0 <= value < LONGEST:
            yield from ([0] * value, list(range(value + 1)))
    if isinstance(node.get("pattern"), str) and (text := matching(node["pattern"])) is not None:
        yield from (text, text + "a", text.swapcase())
    if node.get("uniqueItems") is True:
        yield [0, 0]
    if isinstance(node.get("format"), str) or "type" in node:
        yield from Samples(True).of({key: node[key] for key in ("type", "format") if key in node})[:2]


def _names_in(node: Mapping[str, Any]) -> Iterator[str]:
    for key in ("properties", "dependentRequired", "dependentSchemas", "dependencies"):
        part = node.get(key)
        if isinstance(part, dict):
            yield from (name for name in part if isinstance(name, str))
    required = node.get("required")
    if isinstance(required, list):
        yield from (name for name in required if isinstance(name, str))
    patterns = node.get("patternProperties")
    for pattern in patterns if isinstance(patterns, dict) else ():
        if (text := matching(pattern)) is not None:
            yield text
    names = node.get("propertyNames")
    if isinstance(names, dict):
        yield from (text for text in Samples(True).of(names) if isinstance(text, str))


def _edited(start: Any, hints: _Hints) -> Iterator[Any]:
    """Yield what one edit makes of a value: a part taken out, put in, or replaced."""
    positions = list(islice(_positions(start), _MOST_POSITIONS))
    for path, _ in positions:
        if path:
            yield _without(start, path)
    for path, value in positions:
        for other in hints.values:
            yield _with(start, path, other)
            if isinstance(value, list):
                yield _with(start, path, [*value, other])
    for path, value in positions:
        if isinstance(value, dict):
            for name in hints.names:
                if name not in value:
                    for other in hints.values:
                        yield _with(start, (*path, name), other)


def _positions(value: Any) -> Iterator[tuple[Path, Any]]:
    waiting: list[tuple[Path, Any]] = [((), value)]
    while waiting:
        path, part = waiting.pop(0)
        yield path, part
        if isinstance(part, dict):
            waiting.extend(((*path, name), each) for name, each in part.items())
        elif isinstance(part, list):
            waiting.extend(((*path, index), each) for index, each in enumerate(part[:3]))


def _with(value: Any, path: Path, other: Any) -> Any:
    """Return a copy with one part replaced; what is not on the way to it is shared."""
    if not path:
        return other
    copied: Any = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = _with(value.get(path[0]) if isinstance(value, dict) else value[path[0]], path[1:], other)
    return copied


def _without(value: Any, path: Path) -> Any:
    copied: Any = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1:
        del copied[path[0]]
    else:
        copied[path[0]] = _without(value[path[0]], path[1:])
    return copied


def _smallest(record: Any, location: Path, judges: Judges) -> Witness:
    """Take out of a record what it can do without and still break at the same place."""

    def breaks(candidate: Any) -> Fault | None:
        if not judges.accepts(candidate):
            return None
        return next((each for each in judges.faults(candidate) if tuple(each.schema_path) == location), None)

    smaller = True
    while smaller:
        smaller = False
        for path, _ in list(islice(_positions(record), _MOST_POSITIONS)):
            if path and breaks(candidate := _without(record, path)) is not None:
                record, smaller = candidate, True
                break
    fault = breaks(record)
    if fault is None:  # two faults at one place, told in another order
        return Witness(record, (), location)
    return Witness(record, tuple(fault.instance_path), location, fault.message)
