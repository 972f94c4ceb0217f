"""Values of a record's fields: found by path, normalised, and refused by a reason where they cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from zoneinfo import ZoneInfo

from counterfoil_graph.facts import Line, Record, UnreadError
from counterfoil_graph.mapping import Condition, Value

LONGEST_KEY: Final = 500
_LONGEST_CHANNEL: Final = 200
_MOST_MICROS: Final = 10**15  # a thousand million units: sums of nine thousand such records still fit 64 bits
_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US: Final = -62_135_596_800_000_000  # the year 1
_LAST_US: Final = 253_402_300_799_999_999  # the year 9999


def getter(path: Sequence[str]) -> Callable[[Record], Any]:
    """Return the function that follows a path; None where it leads nowhere."""
    if len(path) == 1:
        name = path[0]
        return lambda record: record.get(name)

    def get(record: Record) -> Any:
        value: Any = record
        for step in path:
            if not isinstance(value, dict):
                return None
            value = value.get(step)
        return value

    return get


def condition(when: Condition | None) -> Callable[[Record], bool]:
    """Return the function that tells whether a record meets a condition; without one, each does."""
    if when is None:
        return lambda record: True
    get, values, exists = getter(when.path), when.values, when.exists
    if values is None:
        return lambda record: (get(record) is not None) is exists

    def holds(record: Record) -> bool:
        value = get(record)
        # 1 == True, and a list has no hash
        return isinstance(value, str | int) and any(value == each and type(value) is type(each) for each in values)

    return holds


def text_of(value: Any, reason: str) -> str:
    """Return a scalar as text, whole floats as integers; raise UnreadError with the reason for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnreadError(reason)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        return str(int(value))
    return str(value)


def normaliser(name: str) -> Callable[[str], str]:
    """Return the function that makes identifiers of a type alike."""
    return _NORMALISERS[name]


def normalise(name: str, value: str) -> str:
    """Return an identifier's value as the graph keeps it."""
    return normaliser(name)(value)


def _as_it_is(text: str) -> str:
    return text


def _trim(text: str) -> str:
    return text.strip()


def _email(text: str) -> str:
    return text.strip().lower()


def _phone(text: str) -> str:
    digits = "".join(each for each in text if each in "0123456789")
    return f"+{digits}" if digits and text.strip().startswith("+") else digits


_NORMALISERS: Final[Mapping[str, Callable[[str], str]]] = {
    "none": _as_it_is,
    "trim": _trim,
    "email": _email,
    "phone": _phone,
}


def optional_key(value: Value | None) -> Callable[[Record], str]:
    """Return the function that finds a key; "" = there is none."""
    if value is None:
        return lambda record: ""
    if not value.path:
        const = value.const
        return lambda record: const
    get = getter(value.path)

    def read(record: Record) -> str:
        found = get(record)
        if found is None:
            return ""
        if type(found) is int:
            return str(found)
        text = text_of(found, "KEY_INVALID").strip()
        if len(text) > LONGEST_KEY or "\0" in text:
            raise UnreadError("KEY_INVALID")
        return text

    return read


def short_text(value: Value, *, most: int = _LONGEST_CHANNEL) -> Callable[[Record], str]:
    """Return the function that finds a text, cut to a length; nothing there = an empty one."""
    if not value.path:
        const = value.const
        return lambda record: const
    get = getter(value.path)

    def read(record: Record) -> str:
        found = get(record)
        return "" if found is None else text_of(found, "TEXT_INVALID").strip().replace("\0", "")[:most]

    return read


def required_time(value: Value | None, timezone: str) -> Callable[[Line], int] | None:
    """Return the function that finds a time that has to be there; None when none is named."""
    if value is None:
        return None
    find = optional_time(value, timezone)

    def read(line: Line) -> int:
        found = find(line)
        if found is None:
            raise UnreadError("TIME_MISSING")
        return found

    return read


def optional_time(value: Value | None, timezone: str) -> Callable[[Line], int | None]:
    """Return the function that finds a time, or None where there is none; without a zone it is in `timezone`."""
    if value is None:
        return lambda line: None
    if not value.path:
        fixed = value.const
        return lambda line: _cached_moment(fixed, line.times, timezone)
    get = getter(value.path)

    def read(line: Line) -> int | None:
        found = get(line.record)
        return None if found is None else _cached_moment(found, line.times, timezone)

    return read


def _cached_moment(value: Any, times: dict[tuple[str, str], int], timezone: str) -> int:
    if not isinstance(value, str):
        raise UnreadError("TIME_INVALID")
    known = times.get((value, timezone))
    if known is None:
        try:
            known = times[value, timezone] = moment(value, timezone)
        except (TypeError, ValueError, OverflowError):
            raise UnreadError("TIME_INVALID") from None
    return known


def moment(value: Any, timezone: str) -> int:
    """Return microseconds since 1970 of RFC 3339 or the forms of ISO 8601 that the lake takes.

    Without a zone it is in `timezone`, an IANA name; of an hour that the clocks repeat, the first.
    """
    if not isinstance(value, str) or len(value) < len("2017-01-01"):
        raise TypeError("no timestamp")
    moment = datetime.fromisoformat(value.upper())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(timezone))
    micros = (moment - _EPOCH) // _MICROSECOND
    if not _FIRST_US <= micros <= _LAST_US:
        raise ValueError("beyond the years 1 to 9999 in UTC")
    return micros


def money(value: Value | None) -> Callable[[Record], int]:
    """Return the function that finds a value in millionths; nothing there = 0."""
    if value is None:
        return lambda record: 0
    if not value.path:
        const = value.const
        return lambda record: _micros(const)
    get = getter(value.path)

    def read(record: Record) -> int:
        found = get(record)
        return 0 if found is None else _micros(found)

    return read


def _micros(value: Any) -> int:
    if isinstance(value, bool):
        raise UnreadError("VALUE_INVALID")
    if isinstance(value, float):
        micros = round(value * 1e6) if abs(value) < _MOST_MICROS else _MOST_MICROS + 1
    elif isinstance(value, int):
        micros = value * 1_000_000
    else:
        try:
            number = Decimal(value) if isinstance(value, str) and len(value) <= 40 else Decimal("NaN")
            if not number.is_finite() or abs(number) > _MOST_MICROS:
                raise UnreadError("VALUE_INVALID")
            micros = round(number * 1_000_000)
        except InvalidOperation:
            raise UnreadError("VALUE_INVALID") from None
    if abs(micros) > _MOST_MICROS:
        raise UnreadError("VALUE_INVALID")
    return micros


def currency(value: Value | None) -> Callable[[Record], str]:
    """Return the function that finds an ISO 4217 code; nothing there = an empty one."""
    if value is None:
        return lambda record: ""
    if not value.path:
        const = value.const
        return lambda record: const
    get = getter(value.path)

    def read(record: Record) -> str:
        found = get(record)
        if found is None:
            return ""
        if not isinstance(found, str) or len(found) != 3 or not found.isascii() or not found.isalpha():
            raise UnreadError("CURRENCY_INVALID")
        return found.upper()

    return read
