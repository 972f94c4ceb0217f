"""Dates, times and timestamps: JSON Schema formats, and the zoneless forms that databases and files write."""

from __future__ import annotations

import functools
import re
import zoneinfo
from collections.abc import Mapping
from typing import Any, Final

from counterfoil_contracts.odcs.bounds import CLOCK, DAY, bound_patterns, refuse_bounds
from counterfoil_contracts.odcs.findings import Findings, Path

_YEAR: Final = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP_YEAR: Final = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DAY: Final = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    f"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_CLOCK: Final = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"

ZONELESS_TIMESTAMP: Final = f"^{_DAY}[T ]{_CLOCK}$"
"""A day that exists, `T` or a blank, a time of day, no zone (ISO 8601; the blank is how SQL and CSV write it)."""
ZONELESS_TIME: Final = f"^{_CLOCK}$"
"""A time of day without an offset."""

# Patterns of the JDK's DateTimeFormatter, which ODCS uses, for exactly the forms that are read.
_DATE_FORMATS: Final = re.compile(r"yyyy-MM-dd|ISO_(LOCAL_)?DATE")
_TIME_FORMATS: Final = re.compile(r"HH:mm:ss(\.S{1,9})?|ISO_(LOCAL_)?TIME")
_ZONELESS_FORMATS: Final = re.compile(r"yyyy-MM-dd('T'| )HH:mm:ss(\.S{1,9})?|ISO_LOCAL_DATE_TIME")
_ZONED_FORMATS: Final = re.compile(r"yyyy-MM-dd'T'HH:mm:ss(\.S{1,9})?(XXX|xxx|'Z')|ISO_(OFFSET_DATE_TIME|INSTANT)")


def date_schema(options: Mapping[str, Any], path: Path, found: Findings) -> dict[str, Any]:
    """Return the schema of a day, `2026-11-23`."""
    _check_format(options, _DATE_FORMATS, "yyyy-MM-dd", path, found)
    schema: dict[str, Any] = {"type": "string", "format": "date"}
    if patterns := bound_patterns(options, DAY, path, found):
        schema["allOf"] = patterns
    return schema


def time_schema(options: Mapping[str, Any], path: Path, found: Findings) -> dict[str, Any]:
    """Return the schema of a time of day: with an offset, without, or (when `timezone` is not given) either."""
    _check_format(options, _TIME_FORMATS, "HH:mm:ss", path, found)
    _check_zone(options, path, found)
    timezone = options.get("timezone")
    if timezone is not False:
        refuse_bounds(options, path, found, "Times are compared only without an offset: say timezone: false.")
        zoned = {"format": "time"}
        return {"type": "string", **(zoned if timezone else {"anyOf": [zoned, {"pattern": ZONELESS_TIME}]})}
    schema: dict[str, Any] = {"type": "string", "pattern": ZONELESS_TIME}
    if patterns := bound_patterns(options, CLOCK, path, found):
        schema["allOf"] = patterns
    return schema


def timestamp_schema(options: Mapping[str, Any], path: Path, found: Findings) -> dict[str, Any]:
    """Return the schema of a moment: RFC 3339, and with `defaultTimezone` also without a zone."""
    _check_zone(options, path, found)
    _check_timestamp_format(options, path, found)
    refuse_bounds(options, path, found, "Moments with offsets are not compared per record. Leave the bound out.")
    if "defaultTimezone" in options:
        return {"type": "string", "anyOf": [{"format": "date-time"}, {"pattern": ZONELESS_TIMESTAMP}]}
    return {"type": "string", "format": "date-time"}


def _check_timestamp_format(options: Mapping[str, Any], path: Path, found: Findings) -> None:
    has_zone_to_take = "defaultTimezone" in options
    if options.get("timezone") is False and not has_zone_to_take:
        found.add("TIMEZONE_NEEDED", path, "A timestamp without a zone needs defaultTimezone, such as UTC.")
    if _ZONELESS_FORMATS.fullmatch(options.get("format", "")):
        if not has_zone_to_take:
            found.add("TIMEZONE_NEEDED", (*path, "format"), "The format has no zone: say defaultTimezone, such as UTC.")
    else:
        _check_format(options, _ZONED_FORMATS, "yyyy-MM-dd'T'HH:mm:ssXXX", path, found)


@functools.cache
def _timezones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _check_zone(options: Mapping[str, Any], path: Path, found: Findings) -> None:
    if "defaultTimezone" in options and options["defaultTimezone"] not in _timezones():
        found.add("TIMEZONE_UNKNOWN", (*path, "defaultTimezone"), "Say an IANA timezone, such as UTC.")


def _check_format(
    options: Mapping[str, Any], known: re.Pattern[str], example: str, path: Path, found: Findings
) -> None:
    if "format" in options and not known.fullmatch(options["format"]):
        found.add(
            "FORMAT_UNSUPPORTED", (*path, "format"), f"Records carry ISO 8601. Leave the format out or say {example}."
        )
