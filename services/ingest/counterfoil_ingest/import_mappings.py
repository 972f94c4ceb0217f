"""Mappings of files: how a row of a vendor's export becomes a record, declared in YAML without code.

A mapping names where each field of a record comes from. Names are compared as words in small letters, so that
`Campaign ID`, `campaign_id` and `campaignId` are one name.
"""

from __future__ import annotations

import io
import re
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import yaml

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WORD_END: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NO_WORD: Final = re.compile(r"[^a-z0-9]+")

As = Literal[
    "text", "integer", "number", "micros", "date", "date_us", "timestamp", "timestamp_micros", "params", "json"
]


class Pick(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Takes a member of that object in a list whose members are as said; `$name` stands for a parameter."""

    where: Mapping[str, str]
    take: str


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from", "as_": "as"}):
    """Where a field comes from: the first of these that gives something, then `as_` what it is written."""

    value: str | int | bool | None = None
    """Always this."""
    from_: Sequence[str] = ()
    """The first of these columns with a value; `a.b` is member b of a, `^...$` a pattern of names."""
    from_name: str = ""
    """The first group of a pattern of column names, in capitals."""
    join: Sequence[str] = ()
    """These columns, with dots between them; nothing when one of them is missing."""
    first: Sequence[Rule] = ()
    """The first of these rules that gives something."""
    object: Mapping[str, Rule] | None = None
    """An object with these members."""
    parameter: str = ""
    """A parameter of the import, where no column gives it."""
    otherwise: str | int | bool | None = None
    """This, where nothing else gives it."""
    pick: Pick | None = None
    words: Mapping[str, str | int | bool] = {}
    """What stands for what."""
    remove: str = ""
    """Signs taken out of a text."""
    after_last: str = ""
    """Only what comes after the last of this sign, as in `urn:li:sponsoredCampaign:1`."""
    older_than_days: int = 0
    """Whether a day lies so far before the day of `snapshot_at` that the vendor does not change it any more."""
    as_: As = "text"

    def columns(self) -> Iterator[str]:
        """Yield every column that is named, also within."""
        yield from self.from_
        yield from self.join
        if self.from_name:
            yield self.from_name
        for each in (*self.first, *(self.object or {}).values()):
            yield from each.columns()


class Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a mapping asks for beyond a file."""

    description: str
    required: bool = False
    kind: Literal["text", "currency", "timezone"] = "text"


class LeftOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows that are no records, as the totals below a table: those with a column whose value is of a pattern."""

    column: str
    matches: str


class ImportMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One mapping file."""

    mapping: str
    version: str
    description: str
    dataset: str
    formats: Sequence[Literal["csv", "jsonl", "parquet", "airbyte"]]
    fields: Mapping[str, Rule]
    parameters: Mapping[str, Parameter] = {}
    required: Sequence[str] = ()
    """Fields of which a file must have a column."""
    leave_out: Sequence[LeftOut] = ()
    record_id: str = ""
    """The field whose value names a record, so that it is taken once, whichever file it comes in; "" = file and row."""
    document: str = ""

    @property
    def title(self) -> str:
        """Name and version, as an import shows them."""
        return f"{self.mapping}@{self.version}"

    @property
    def names(self) -> Sequence[str]:
        """The columns that are read, but for patterns, the required ones first."""
        rules = [*map(self.fields.__getitem__, self.required), *self.fields.values()]
        return list(dict.fromkeys(name for rule in rules for name in rule.columns() if not name.startswith("^")))

    def parameters_of_files(self) -> Mapping[str, Parameter]:
        """Return every parameter that an import by it may be given."""
        return {**self.parameters, **BUILT_IN, **(READING if "csv" in self.formats else {})}

    def knows(self, column: str) -> bool:
        """Tell whether a column of this name is read."""
        name = plain(column)
        return bool(name) and any(fits(each, name) for each in _names(self))


_DECIMAL: Final = Parameter("The sign before decimals in the file's numbers, `.` or `,`; else `.`.")

BUILT_IN: Final[Mapping[str, Parameter]] = {
    "snapshot_at": Parameter("When the file was exported, RFC 3339; else when it was uploaded."),
    "decimal": _DECIMAL,
}
"""What every mapping takes."""

READING: Final[Mapping[str, Parameter]] = {
    "decimal": _DECIMAL,
    "encoding": Parameter("The encoding of a CSV file; else it is found out."),
    "delimiter": Parameter("What separates the values of a CSV file; else it is found out."),
}
"""What every CSV file takes."""


def plain(name: str) -> str:
    """Return a column's name as words in small letters."""
    return _NO_WORD.sub("_", _WORD_END.sub("_", name).lower()).strip("_")


@cache
def pattern(text: str) -> re.Pattern[str]:
    """Return a mapping's own pattern, compiled."""
    return re.compile(text)


def fits(wanted: str, name: str) -> bool:
    """Tell whether a plain name is the one wanted, or of the pattern wanted."""
    return pattern(wanted).search(name) is not None if wanted.startswith("^") else wanted == name


def _names(mapping: ImportMapping) -> frozenset[str]:
    return frozenset(
        each if each.startswith("^") else each.partition(".")[0]
        for rule in mapping.fields.values()
        for each in rule.columns()
    )


def read_mapping(text: str) -> ImportMapping:
    """Return the mapping of a YAML text; raise ValueError when it says something that no mapping does."""
    try:
        found = msgspec.convert(yaml.load(text, _LOADER), ImportMapping)  # noqa: S506 - a safe one
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ValueError(f"this is no mapping of files: {error}") from error
    asked = {rule.parameter for rule in _rules(found.fields.values()) if rule.parameter}
    unknown = asked - found.parameters.keys() - BUILT_IN.keys()
    missing = {*found.required, *filter(None, [found.record_id])} - found.fields.keys()
    if unknown or missing:
        raise ValueError(f"the mapping {found.mapping} does not declare {', '.join(sorted(unknown | missing))}")
    return msgspec.structs.replace(found, document=text)


def _rules(rules: Any) -> Iterator[Rule]:
    for each in rules:
        yield each
        yield from _rules((*each.first, *(each.object or {}).values()))


def load_mappings(folder: Path | None) -> Mapping[str, ImportMapping]:
    """Return the mappings that are shipped and those in a folder, by name; one's own wins. Raises ValueError."""
    shipped = [each for each in (files("counterfoil_ingest") / "shipped").iterdir() if each.name.endswith(".yaml")]
    own = sorted(folder.glob("*.yaml")) if folder is not None else []
    found: dict[str, ImportMapping] = {}
    for each in (*shipped, *own):
        mapping = read_mapping(each.read_text("utf-8"))
        found[mapping.mapping] = mapping
    return dict(sorted(found.items()))


def faults_of(mapping: ImportMapping | None, kind: str, given: Mapping[str, str]) -> str:
    """Return what is wrong with what an import was given beyond its file; "" = nothing."""
    known = dict(READING) if kind == "csv" else {}
    if mapping is not None:
        if kind not in mapping.formats:
            return f"The mapping `{mapping.mapping}` reads {', '.join(mapping.formats)}, not {kind}."
        known |= {**BUILT_IN, **mapping.parameters}
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        return f"There is no parameter `{unknown[0]}` here; there are: {', '.join(sorted(known)) or 'none'}."
    for name, parameter in known.items():
        if parameter.required and not given.get(name):
            return f"The mapping needs the parameter `{name}`: {parameter.description}"
        if name in given and not _is_valid(name, parameter, given[name]):
            return f"The parameter `{name}` is not what it should be: {parameter.description}"
    return ""


def _is_valid(name: str, parameter: Parameter, value: str) -> bool:
    if name == "snapshot_at":
        return _is_moment(value)
    if name == "delimiter":
        return len(value) == 1 and value.isascii() and not value.isalnum() and value not in "\"'\r\n"
    if name == "encoding":
        return is_encoding(value)
    if parameter.kind == "timezone":
        return value in zoneinfo.available_timezones()
    wanted = {"decimal": r"[.,]", "currency": r"[A-Z]{3}"}
    return re.fullmatch(wanted.get(name, wanted.get(parameter.kind, ".+")), value) is not None


def is_encoding(name: str) -> bool:
    """Tell whether text can be in an encoding of this name: there are codecs of Python that are of no text."""
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=name)
    except (LookupError, ValueError):
        return False
    return True


def _is_moment(value: str) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False
