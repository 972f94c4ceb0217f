"""Make records of the rows of a file by a mapping. A value that is not what it should be stays as it is.

So validation quarantines its row, with the row itself, and says why.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from functools import lru_cache, partial
from typing import Any, Final

import orjson

from counterfoil_ingest import validation
from counterfoil_ingest.entities import Finding
from counterfoil_ingest.files import Batches, FileUnreadableError, Rows
from counterfoil_ingest.import_mappings import ImportMapping, LeftOut, Pick, Rule, fits, pattern, plain

_MICROS: Final = 1_000_000
_INT64: Final = range(-(1 << 63), 1 << 63)
_MOST_ID: Final = 255
_MOST_DIGITS: Final = 40  # of a number as text; a longer one is none
_NOTHING: Final = frozenset({"", "-", "--", "—"})  # what exports write where there is no value
_CURRENCY: Final = re.compile(r"^[^\d.,+-]{0,4}\s?(?=[\d.,+-])|(?<=\d)\s?[^\d.,]{1,4}$")
_SPACES: Final = re.compile(r"[\s\u00a0\u202f']")
_WRITTEN: Final = re.compile(r"[+-]?([0-9]{1,3}(,[0-9]{3})+|[0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_SWAPPED: Final = str.maketrans(",.", ".,")
_DAYS: Final = (re.compile(r"(\d{4})-(\d{2})-(\d{2})(?!\d)"), re.compile(r"(\d{4})(\d{2})(\d{2})$"))
_AMERICAN: Final = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})$")
_plain: Final = lru_cache(4096)(plain)
_VALUES: Final = ("string_value", "int_value", "float_value", "double_value")

Read = Callable[["Row"], Any]


@dataclass(frozen=True, slots=True)
class Given:
    """What an import was told beyond its file; `snapshot_at` is when that was exported."""

    snapshot_at: datetime
    parameters: Mapping[str, str]

    @property
    def day(self) -> date:
        """The day of the export in the timezone of the report."""
        zone = self.parameters.get("report_timezone", "UTC")
        return self.snapshot_at.astimezone(zoneinfo.ZoneInfo(zone)).date()

    def parameter(self, name: str) -> str | None:
        """Return a parameter; None when it was not given."""
        if name == "snapshot_at":
            return self.snapshot_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
        return self.parameters.get(name)


class Row:
    """One row: its values by their plain names."""

    __slots__ = ("_values",)

    def __init__(self, value: Mapping[str, Any]) -> None:
        self._values = {_plain(name): each for name, each in value.items() if not _is_nothing(each)}

    def get(self, wanted: str) -> Any:
        """Return a value by its plain name, path or pattern; None when there is none."""
        name = self.name(wanted) if wanted.startswith("^") else wanted
        value = self._values.get(name) if name is not None else None
        if value is None and "." in wanted and not wanted.startswith("^"):
            head, _, tail = wanted.partition(".")
            inner = self._values.get(head)
            return Row(inner).get(tail) if isinstance(inner, Mapping) else None
        return value

    def all(self, wanted: str) -> Sequence[Any]:
        """Return the values of every column of a plain name or pattern."""
        return [value for name, value in self._values.items() if fits(wanted, name)]

    def name(self, wanted: str) -> str | None:
        """Return the first name of a pattern that has a value."""
        return next((name for name in self._values if fits(wanted, name)), None)


def map_rows(batches: Batches, mapping: ImportMapping, given: Given, *, skip: int) -> Batches:
    """Yield the records that a mapping makes of rows, after the first `skip`; raise FileUnreadableError."""
    record = _record(mapping, given)
    left_out = [partial(_matches, rule=each) for each in mapping.leave_out]
    number = 0
    for rows in batches:
        if rows.columns is not None and number == 0:
            _require(mapping, rows.columns)
        made = _Made(rows)
        for index, data in enumerate(rows.datas):
            value = None if index in rows.broken else orjson.loads(data)
            if not isinstance(value, dict):
                if number >= skip:
                    made.add_broken(data, rows.broken.get(index) or validation.not_an_object())
            else:
                row = Row(value)
                if any(each(row) for each in left_out):
                    continue
                if number >= skip:
                    made.add(data, record(row), mapping.record_id)
            number += 1
        if made.datas:
            yield made.rows(number)


class _Made:
    """The records of one batch."""

    def __init__(self, origin: Rows) -> None:
        self.datas: list[bytes] = []
        self._values: list[Any] = []
        self._origins: list[bytes] = []
        self._ids: list[str] = []
        self._broken: dict[int, Finding] = {}
        self._origin = origin

    def add(self, origin: bytes, value: dict[str, Any], record_id: str) -> None:
        name = str(value.get(record_id, "")) if record_id else ""
        if record_id and not 0 < len(name) <= _MOST_ID:
            detail = f"A row needs what names it, in at most {_MOST_ID} characters."
            self._broken[len(self.datas)], name = Finding("BAD_ID", f"$.{record_id}", detail), ""
        self._ids.append(name)
        self.datas.append(orjson.dumps(value))
        self._values.append(value)
        self._origins.append(origin)

    def add_broken(self, origin: bytes, fault: Finding) -> None:
        self._broken[len(self.datas)] = fault
        self._ids.append("")
        self.datas.append(origin)
        self._values.append(None)
        self._origins.append(origin)

    def rows(self, number: int) -> Rows:
        """Return them, the last of which has this number."""
        first = number - len(self.datas) + 1
        return Rows(first, self.datas, self._broken, values=self._values, ids=self._ids, origins=self._origins)


def _require(mapping: ImportMapping, columns: Mapping[str, Any]) -> None:
    """Raise FileUnreadableError when a file has no column for a field that needs one."""
    names = {plain(each) for each in columns}
    for field in mapping.required:
        wanted = list(mapping.fields[field].columns())
        if not any(fits(each.partition(".")[0] if each[0] != "^" else each, name) for each in wanted for name in names):
            raise FileUnreadableError(
                "COLUMN_MISSING",
                f"The mapping {mapping.title} finds no column for `{field}`; it looks for: {', '.join(wanted)}.",
            )


def _matches(row: Row, *, rule: LeftOut) -> bool:
    return any(pattern(rule.matches).search(str(value)) is not None for value in row.all(rule.column))


def _record(mapping: ImportMapping, given: Given) -> Callable[[Row], dict[str, Any]]:
    fields = [(name, _rule(rule, given)) for name, rule in mapping.fields.items()]
    return lambda row: {name: value for name, read in fields if (value := read(row)) is not None}


def _rule(rule: Rule, given: Given) -> Read:
    """Return what reads a field by a rule."""
    if rule.object is not None:
        return _object({name: _rule(each, given) for name, each in rule.object.items()})
    if rule.value is not None:
        return lambda _: rule.value
    found = _source(rule, given)
    write = _as_it_is if rule.first else _writer(rule, given)
    told = given.parameter(rule.parameter) if rule.parameter else None
    fallback = rule.otherwise if told is None else told

    def read(row: Row) -> Any:
        value = found(row)
        written = None if value is None else write(value)
        return fallback if written is None else written

    return read


def _object(members: Mapping[str, Read]) -> Read:
    def read(row: Row) -> Any:
        return {name: value for name, each in members.items() if (value := each(row)) is not None} or None

    return read


def _source(rule: Rule, given: Given) -> Read:
    if rule.first:
        rules = [_rule(each, given) for each in rule.first]
        return lambda row: next((value for each in rules if (value := each(row)) is not None), None)
    if rule.join:
        return partial(_joined, names=rule.join)
    if rule.from_name:
        return partial(_named, wanted=rule.from_name)
    names, pick = rule.from_, rule.pick
    where = {} if pick is None else {k: _given(v, given) for k, v in pick.where.items()}

    def read(row: Row) -> Any:
        for name in names:
            value = row.get(name)
            if value is not None:
                return value if pick is None else _picked(value, pick, where)
        return None

    return read


def _joined(row: Row, *, names: Sequence[str]) -> str | None:
    found = [row.get(name) for name in names]
    return None if None in found else ".".join(map(str, found))


def _named(row: Row, *, wanted: str) -> str | None:
    name = row.name(wanted)
    found = pattern(wanted).search(name) if name is not None else None
    return found[1].upper() if found is not None else None


def _given(text: str, given: Given) -> str | None:
    return given.parameter(text[1:]) if text.startswith("$") else text


def _picked(value: Any, pick: Pick, where: Mapping[str, str | None]) -> Any:
    if isinstance(value, str) and value.startswith("["):  # a list within CSV
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    if not isinstance(value, list):
        return value
    for each in value:
        if isinstance(each, dict) and all(each.get(name) == wanted for name, wanted in where.items()):
            return each.get(pick.take)
    return None


def _writer(rule: Rule, given: Given) -> Callable[[Any], Any]:
    """Return what writes a value as a rule says."""
    numbers = partial(_number, decimal=given.parameters.get("decimal", "."))
    writers: Mapping[str, Callable[[Any], Any]] = {
        "text": _text,
        "integer": lambda value: _integer(value, numbers),
        "number": lambda value: _float(value, numbers),
        "micros": lambda value: _micros(value, numbers),
        "date": _day,
        "date_us": _american_day,
        "timestamp": _timestamp,
        "timestamp_micros": _timestamp_micros,
        "params": _params,
        "json": _as_it_is,
    }
    write = writers[rule.as_]

    def read(value: Any) -> Any:
        if rule.remove or rule.after_last:
            value = _cut(str(value), rule)
        if rule.words and isinstance(value, str):
            return rule.words.get(value, rule.otherwise if rule.otherwise is not None else value)
        written = write(value)
        return _is_older(written, given.day, rule.older_than_days) if rule.older_than_days else written

    return read


def _as_it_is(value: Any) -> Any:
    return value


def _cut(text: str, rule: Rule) -> str:
    for sign in rule.remove:
        text = text.replace(sign, "")
    return text.rpartition(rule.after_last)[2] if rule.after_last else text


def _text(value: Any) -> Any:
    if isinstance(value, (bool, dict, list)):
        return value
    return value.strip() if isinstance(value, str) else str(value)


def _number(value: Any, *, decimal: str) -> Decimal | None:
    """Return a number exactly, from text also with thousands apart and the sign of a currency; None when it is none."""
    if isinstance(value, bool):
        return None
    text = repr(value) if isinstance(value, float) else str(value).strip()
    if len(text) > _MOST_DIGITS:
        return None
    if isinstance(value, str):
        text = _SPACES.sub("", _CURRENCY.sub("", text))
        if decimal == ",":
            text = text.translate(_SWAPPED)
        if _WRITTEN.fullmatch(text) is None:  # 1234,56 with a decimal point would else be a hundred times as much
            return None
        text = text.replace(",", "")
    try:
        found = Decimal(text)
    except InvalidOperation:
        return None
    return found if found.is_finite() and found.adjusted() < _MOST_DIGITS else None


def _integer(value: Any, numbers: Callable[[Any], Decimal | None]) -> Any:
    found = numbers(value)
    if found is None or found != found.to_integral_value() or int(found) not in _INT64:
        return value
    return int(found)


def _float(value: Any, numbers: Callable[[Any], Decimal | None]) -> Any:
    found = numbers(value)
    return value if found is None else float(found)


def _micros(value: Any, numbers: Callable[[Any], Decimal | None]) -> Any:
    """Return money in millionths of its currency: exactly, but for what is smaller than one."""
    found = numbers(value)
    if found is None:
        return value
    micros = int((found * _MICROS).to_integral_value(ROUND_HALF_EVEN))
    return micros if micros in _INT64 else value


def _day(value: Any) -> Any:
    found = next((match for each in _DAYS if (match := each.match(str(value)))), None)
    return value if found is None else _iso(found.groups(), value)


def _american_day(value: Any) -> Any:
    found = _AMERICAN.match(str(value))
    return _day(value) if found is None else _iso((found[3], found[1], found[2]), value)


def _iso(parts: Sequence[str], value: Any) -> Any:
    try:
        return date(*map(int, parts)).isoformat()
    except ValueError:
        return value


def _timestamp(value: Any) -> Any:
    return value.replace(" UTC", "Z") if isinstance(value, str) else value


def _timestamp_micros(value: Any) -> Any:
    try:
        return (
            (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(value))).isoformat().replace("+00:00", "Z")
        )
    except (ValueError, TypeError, OverflowError):
        return value


def _params(value: Any) -> Any:
    """Return a list of keys with values of a type each, as GA4 has them, as an object."""
    if not isinstance(value, list):
        return value
    found: dict[str, Any] = {}
    for each in value:
        if (
            not isinstance(each, dict)
            or not isinstance(each.get("key"), str)
            or not isinstance(each.get("value"), dict)
        ):
            return value
        typed = next(((kind, each["value"][kind]) for kind in _VALUES if each["value"].get(kind) is not None), None)
        if typed is not None:
            kind, one = typed
            found[each["key"]] = _integer(one, partial(_number, decimal=".")) if kind == "int_value" else one
    return found or None


def _is_older(day: Any, than: date, days: int) -> bool | None:
    try:
        return (than - date.fromisoformat(day)).days > days
    except (ValueError, TypeError):
        return None


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip() in _NOTHING)
