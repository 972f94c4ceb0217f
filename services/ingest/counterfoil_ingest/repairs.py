"""Repairs of records: a JSON Patch (RFC 6902, by jsonpatch) and fixes by path, bounded whatever they are made of."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import jsonpatch
import jsonpointer
import orjson
from counterfoil_chassis.jsonpath import steps_of

from counterfoil_ingest import validation
from counterfoil_ingest.entities import MAX_DEPTH, MAX_RECORD_BYTES, Finding
from counterfoil_ingest.errors import RepairInvalidError

MAX_OPERATIONS: Final = 100
"""Of one patch."""

_WHOLE = re.compile(r"[+-]?\d{1,19}")
_INT64 = range(-(1 << 63), 1 << 63)
_MILLISECONDS: Final = 100_000_000_000  # as seconds that would be the year 5138

_PATCH_ERRORS = (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException)
_THROUGH_ANYTHING = (TypeError, KeyError, IndexError, ValueError, AttributeError)  # a path may lead through any value

Step = str | int | None
"""The name of a property, an index, or None for each element."""


class Kind(enum.IntEnum):
    """The type a value is made; the numbers are those of `ingest.v1.Fix.Type`."""

    STRING = 1
    INTEGER = 2
    NUMBER = 3
    BOOLEAN = 4
    TIMESTAMP = 5


@dataclass(frozen=True, slots=True)
class Rename:
    """Call a property so."""

    name: str


@dataclass(frozen=True, slots=True)
class Convert:
    """Make a value this type."""

    kind: Kind


@dataclass(frozen=True, slots=True)
class Default:
    """Put this JSON text's value where there is none."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Drop:
    """Take a value out."""


Change = Rename | Convert | Default | Drop


@dataclass(frozen=True, slots=True)
class Fix:
    """One change of what is at a path; its last step names a property or an element."""

    steps: tuple[Step, ...]
    change: Change


@dataclass(frozen=True, slots=True)
class Repair:
    """What is done to a record: a JSON Patch first, then fixes; an empty `dataset` leaves it where it is."""

    patch: bytes = b""
    fixes: tuple[Fix, ...] = ()
    dataset: str = ""
    new_record_ids: bool = False


class MisfitError(Exception):
    """A repair does not fit a record, which stays as it was; says why, as a finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.detail)
        self.finding = finding


def require_patch(text: bytes) -> None:
    """Raise RepairInvalidError for a text that is no JSON Patch, or one of too much."""
    try:
        operations = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RepairInvalidError(f"The patch is not JSON ({error}).", metadata={"field": "patch"}) from error
    if not isinstance(operations, list) or len(operations) > MAX_OPERATIONS:
        raise RepairInvalidError(
            f"A JSON Patch is an array of at most {MAX_OPERATIONS} operations (RFC 6902).", metadata={"field": "patch"}
        )
    if validation.deeper_than(operations, MAX_DEPTH):
        raise RepairInvalidError(f"A patch nests at most {MAX_DEPTH} levels.", metadata={"field": "patch"})
    for number, operation in enumerate(operations):
        try:
            jsonpatch.JsonPatch([operation])
        except (*_PATCH_ERRORS, TypeError, AttributeError) as error:
            raise RepairInvalidError(
                f"Operation {number} of the patch is none of RFC 6902: see its `op` and `path`.",
                metadata={"field": "patch", "operation": str(number)},
            ) from error


def read_fix(path: str, change: Change) -> Fix:
    """Return a fix; raise RepairInvalidError when its path is none, or leads to where it cannot be made."""
    try:
        steps = steps_of(path)
    except ValueError as error:
        raise _bad_path(path, str(error)) from error
    if not steps:
        raise _bad_path(path, "it has to name a property or an element")
    if isinstance(change, Rename) and not isinstance(steps[-1], str):
        raise _bad_path(path, "only a property has a name to change")
    if isinstance(change, Default):
        try:
            value = orjson.loads(change.text)
        except orjson.JSONDecodeError as error:
            raise RepairInvalidError(f"A default is not JSON ({error}).", metadata={"path": path}) from error
        if validation.deeper_than(value, MAX_DEPTH):
            raise RepairInvalidError(f"A default nests at most {MAX_DEPTH} levels.", metadata={"path": path})
    return Fix(steps, change)


def repaired(record: bytes, repair: Repair) -> bytes:
    """Return a record's JSON as a repair makes it; raise MisfitError when it does not fit.

    A record that is no JSON, or nests too deep, counts as null: only a patch of the whole can make something of it.
    """
    value = _value(record)
    if repair.patch:
        for number, operation in enumerate(orjson.loads(repair.patch)):  # anew: what it adds belongs to one record
            value = _patched(value, operation, number)
    for fix in repair.fixes:
        _fix(value, fix)
    _require_bounds(value, "$")
    return orjson.dumps(value)


def _value(record: bytes) -> Any:
    try:
        value = orjson.loads(record)
    except orjson.JSONDecodeError:
        return None
    return None if validation.nests_too_deep(record, value) else value


def _patched(value: Any, operation: Mapping[str, Any], number: int) -> Any:
    if operation["op"] == "copy":
        _require_bounds(value, "$")  # each time: copies of copies double what there is
    try:
        return jsonpatch.JsonPatch([operation]).apply(value, in_place=True)
    except jsonpatch.JsonPatchTestFailed as error:
        raise _misfit("PATCH_TEST_FAILED", "$", f"The test of operation {number} of the patch fails.") from error
    except (*_PATCH_ERRORS, *_THROUGH_ANYTHING) as error:
        detail = f"Operation {number} of the patch does not fit: there is nothing of this kind at its path."
        raise _misfit("PATCH_MISFIT", "$", detail) from error


def _require_bounds(value: Any, path: str) -> None:
    if validation.deeper_than(value, MAX_DEPTH):
        raise MisfitError(validation.too_deep())
    if len(orjson.dumps(value)) > MAX_RECORD_BYTES:
        raise _misfit("TOO_LARGE", path, f"The repair makes it larger than a record's {MAX_RECORD_BYTES} bytes.")


def _fix(value: Any, fix: Fix) -> None:
    last, change = fix.steps[-1], fix.change
    room = MAX_RECORD_BYTES
    for path, parent in list(_reached(value, fix.steps[:-1])):
        for key in _keys(parent, last, adding=isinstance(change, Default)):
            room -= _size(change)
            if room < 0:
                raise _misfit("TOO_LARGE", "$", f"The repair makes it larger than a record's {MAX_RECORD_BYTES} bytes.")
            _change(parent, key, change, (*path, key))


def _size(change: Change) -> int:
    match change:
        case Rename(name):
            return len(name)
        case Default(text):
            return len(text)
        case _:
            return 0


def _change(parent: Any, key: Any, change: Change, path: tuple[str | int, ...]) -> None:
    match change:
        case Rename(name):
            if name not in parent:
                parent[name] = parent.pop(key)
        case Convert(kind):
            try:
                parent[key] = _CONVERSIONS[kind](parent[key])
            except (TypeError, ValueError, OverflowError, OSError) as error:
                article = "an" if kind is Kind.INTEGER else "a"
                detail = f"This value cannot be made {article} {kind.name}."
                raise _misfit("FIX_MISFIT", validation.json_path(path), detail) from error
        case Default(text):
            if (parent.get(key) if isinstance(parent, dict) else parent[key]) is None:
                parent[key] = orjson.loads(text)
        case Drop():
            del parent[key]


def _reached(value: Any, steps: Sequence[Step]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield every value that steps lead to, with its path."""
    reached: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    for step in steps:
        reached = [((*path, key), parent[key]) for path, parent in reached for key in _keys(parent, step, adding=False)]
    yield from reached


def _keys(parent: Any, step: Step, *, adding: bool) -> list[Any]:
    """Return what a step means in a value, the last element first: what is taken out there moves no other."""
    if isinstance(parent, dict) and isinstance(step, str):
        return [step] if adding or step in parent else []
    if isinstance(parent, list) and not isinstance(step, str):
        if step is None:
            return list(reversed(range(len(parent))))
        return [step] if step < len(parent) else []
    return []


def _bad_path(path: str, why: str) -> RepairInvalidError:
    return RepairInvalidError(
        f"This is no path of a fix: {why}. Write it as findings do, e.g. $.properties.products[*].price.",
        metadata={"path": path[:200]},
    )


def _misfit(reason: str, path: str, detail: str) -> MisfitError:
    return MisfitError(Finding(reason, path, detail))


def _null_stays(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else convert(value)


def _to_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (dict, list)):
        raise TypeError
    return orjson.dumps(value).decode()


def _to_integer(value: Any) -> int:
    whole = (
        _WHOLE.fullmatch(value.strip()) if isinstance(value, str) else isinstance(value, float) and value.is_integer()
    )
    if whole:
        value = int(value)
    if type(value) is not int or value not in _INT64:
        raise ValueError
    return value


def _to_number(value: Any) -> int | float:
    if isinstance(value, str):
        value = orjson.loads(value)  # its error is a ValueError; a text in quotes stays one
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError
    number: int | float = value
    return number


def _to_boolean(value: Any) -> bool:
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.strip().lower())
    if not isinstance(value, bool):
        raise TypeError
    return value


def _to_timestamp(value: Any) -> str:
    if isinstance(value, str):
        return value
    if type(value) not in (int, float):
        raise ValueError
    at = datetime.fromtimestamp(value / 1000 if abs(value) >= _MILLISECONDS else value, UTC)
    return at.isoformat(timespec="auto").removesuffix("+00:00") + "Z"


_CONVERSIONS: Mapping[Kind, Callable[[Any], Any]] = {
    Kind.STRING: _null_stays(_to_text),
    Kind.INTEGER: _null_stays(_to_integer),
    Kind.NUMBER: _null_stays(_to_number),
    Kind.BOOLEAN: _null_stays(_to_boolean),
    Kind.TIMESTAMP: _null_stays(_to_timestamp),
}
