"""Records between JSON and Arrow: rows of the log to columns of the lake, and columns to chunks on the wire."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from operator import attrgetter
from types import NoneType
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import zstandard

from counterfoil_ingest.entities import Header
from counterfoil_ingest.registry import ColumnType

EXTRA = "_extra"
"""The column of the properties that no contract column holds, as JSON text."""

DAY = "_received_day"
"""The lake's partition column: the day, UTC, a record was received."""

RECORD_ID = "_record_id"
"""The column of the records' ids."""

_SYSTEM_FIELDS: list[pa.Field[Any]] = [
    pa.field(EXTRA, pa.string()),
    pa.field("_partition", pa.int32()),
    pa.field("_offset", pa.int64()),
    pa.field("_received_at", pa.timestamp("us", "UTC")),
    pa.field("_contract_version", pa.string()),
    pa.field(RECORD_ID, pa.string()),
    pa.field("_source_id", pa.string()),
    pa.field(DAY, pa.date32()),
]

SYSTEM_SCHEMA = pa.schema(_SYSTEM_FIELDS)
"""The columns every table of the lake has after those of its contract."""

ARROW_TYPES: Mapping[ColumnType, pa.DataType] = {
    ColumnType.VARCHAR: pa.string(),
    ColumnType.BIGINT: pa.int64(),
    ColumnType.DOUBLE: pa.float64(),
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.DATE: pa.date32(),
    ColumnType.TIMESTAMPTZ: pa.timestamp("us", "UTC"),
    ColumnType.JSON: pa.string(),
}

PARTITION = 0
"""The one partition that the lake has yet."""

CHUNK_ROWS = 65_536
CHUNK_BYTES = 2 << 20

# The interpreter's lock is held while a slice is read: a few milliseconds, so that the event loop is not kept waiting.
_SLICE = 2_000
_MOST_EXTRAS, _LONGEST_EXTRA = 32, 100  # of the undeclared properties that are read with the columns
_encoder = msgspec.json.Encoder()
_shallow = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_NULL = msgspec.Raw(b"null")
_INT64 = range(-(1 << 63), 1 << 63)
_INTEGER = re.compile(r"[+-]?\d{1,19}\Z", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\Z", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d\Z", re.ASCII)
_ZONED = r"(?:[Zz]|[+-]\d\d:?\d\d)$"

_FIELDS: Mapping[ColumnType, tuple[Any, Any]] = {
    ColumnType.VARCHAR: (str | None, None),
    ColumnType.BIGINT: (int | None, None),
    ColumnType.DOUBLE: (float | None, None),
    ColumnType.BOOLEAN: (bool | None, None),
    ColumnType.DATE: (str | None, None),
    ColumnType.TIMESTAMPTZ: (str | None, None),
    ColumnType.JSON: (msgspec.Raw | msgspec.UnsetType, msgspec.UNSET),
}
"""What a value must be to be read as it is, and what stands for none."""

_LOSSLESS: Mapping[ColumnType, frozenset[type]] = {
    ColumnType.VARCHAR: frozenset({str}),
    ColumnType.BIGINT: frozenset({int}),
    ColumnType.DOUBLE: frozenset({int, float}),
    ColumnType.BOOLEAN: frozenset({bool}),
}


@dataclass(frozen=True, slots=True)
class LakeColumn:
    """One column of a lake table; `timezone` is that of zoneless timestamps, "" when there is none."""

    name: str
    type: ColumnType
    timezone: str = ""

    @property
    def field(self) -> pa.Field[Any]:
        """The column's Arrow field."""
        return pa.field(self.name, ARROW_TYPES[self.type])


@dataclass(frozen=True, slots=True)
class Chunk:
    """One complete Arrow IPC stream, zstd-compressed as a whole."""

    data: bytes
    rows: int


def schema_of(columns: Sequence[LakeColumn]) -> pa.Schema:
    """Return the schema of a lake table with these contract columns."""
    return pa.schema([*(column.field for column in columns), *SYSTEM_SCHEMA])


class LakeRecords:
    """Records of one dataset in the order of the log, on their way to its table.

    Once its columns are known, lines become Arrow arrays as they come, while the processor's cache still holds them.
    """

    def __init__(self, dataset: str, columns: tuple[LakeColumn, ...] | None) -> None:
        self.dataset = dataset
        self.columns = columns
        self.sources: set[str] = set()
        self._tables: list[pa.Table] = []
        self._kind: type | None = None
        self._empty()

    def add(self, lines: Sequence[Any], headers: Sequence[Header], *, typed: bool = False) -> None:
        """Add lines of a block with these headers: with records as text or, `typed`, as `read_lines` makes them."""
        kind = type(lines[0].r) if typed else None
        if kind is not self._kind:
            self._convert()
        self._kind = kind
        first = len(self._headers)
        self._headers += headers
        brought = headers if len(headers) == 1 else [headers[at] for at in {line.h for line in lines}]
        self.sources.update(header.source_id for header in brought)
        self._header_of += [first + line.h for line in lines]
        self._lines += lines
        if len(self._lines) >= _SLICE:
            self._convert()

    def under_contract(self) -> bool:
        """Tell whether any of those not converted yet was validated under a contract."""
        return any(self.dataset in header.contract_versions for header in self._headers)

    def table(self, columns: tuple[LakeColumn, ...]) -> pa.Table:
        """Return records as rows of the lake, in their order; `columns` are for who did not know them before.

        A value that its column cannot hold becomes null and is kept in `_extra`, as are undeclared properties: none
        fails.
        """
        self.columns = self.columns or columns
        self._convert()
        return pa.concat_tables(self._tables)

    def _convert(self) -> None:
        columns, lines = self.columns, self._lines
        if columns is None or not lines:
            return
        for start in range(0, len(lines), _SLICE):
            stop = start + _SLICE
            body = self._body([line.r for line in lines[start:stop]], columns)
            for name, values in self._system(lines[start:stop], np.array(self._header_of[start:stop])).items():
                body = body.append_column(SYSTEM_SCHEMA.field(name), values)
            self._tables.append(body)
        self._empty()

    def _empty(self) -> None:
        self._lines: list[Any] = []
        self._headers: list[Header] = []
        self._header_of: list[int] = []

    def _body(self, records: list[Any], columns: Sequence[LakeColumn]) -> pa.Table:
        if self._kind is None:
            return _read(records, columns)
        table = _typed_table(records, columns)
        if table is None:  # what a struct is written as says the same as what it was read from
            return _read_objects([msgspec.Raw(msgspec.json.encode(each)) for each in records], columns)
        return table

    def _system(self, lines: Sequence[Any], header_of: Any) -> Mapping[str, Any]:
        """Return what the lake says of each record, by column of `SYSTEM_SCHEMA`, but for `_extra`."""
        received_at = np.array([each.received_at for each in self._headers], np.int64)[header_of]
        received = pa.array(received_at).cast(pa.timestamp("us", "UTC"))
        versions = [each.contract_versions.get(self.dataset) or None for each in self._headers]
        return {
            "_partition": pa.repeat(pa.scalar(PARTITION, pa.int32()), len(lines)),
            "_offset": pa.array([line.o for line in lines], pa.int64()),
            "_received_at": received,
            "_contract_version": pa.array(versions, pa.string()).take(header_of),
            RECORD_ID: pa.array([line.i for line in lines], pa.string()),
            "_source_id": pa.array([each.source_id for each in self._headers], pa.string()).take(header_of),
            DAY: received.cast(pa.date32()),
        }


def read_lines(text: bytes, columns: tuple[LakeColumn, ...], extras: tuple[str, ...] = ()) -> list[Any] | None:
    """Read a block's lines with their records as structs of columns, and of further properties by name.

    Returns None when a record has another property, or a value of another kind than its column.
    """
    try:
        return _line_decoder(columns, extras).decode_lines(text)
    except msgspec.DecodeError:
        return None


def extras_of(texts: Sequence[msgspec.Raw], columns: Sequence[LakeColumn]) -> frozenset[str]:
    """Return the names of the properties of records that no column holds; none when they are many."""
    found = frozenset().union(*_shallow.decode(b"[" + b",".join(texts) + b"]")) - {each.name for each in columns}
    return found if len(found) <= _MOST_EXTRAS and all(len(each) <= _LONGEST_EXTRA for each in found) else frozenset()


def _read(texts: Sequence[msgspec.Raw], columns: Sequence[LakeColumn]) -> pa.Table:
    table = _read_typed(texts, columns)
    return _read_objects(texts, columns) if table is None else table


def _read_typed(texts: Sequence[msgspec.Raw], columns: Sequence[LakeColumn]) -> pa.Table | None:
    """Read records that all fit their columns without making an object of any property; None = some do not."""
    try:
        rows = _row_decoder(tuple(columns)).decode_lines(b"\n".join(texts))
    except msgspec.DecodeError:
        return None
    return _typed_table(rows, columns)


def _typed_table(rows: list[Any], columns: Sequence[LakeColumn]) -> pa.Table | None:
    try:
        arrays = [
            _typed_array(list(map(attrgetter(f"c{index}"), rows)), column) for index, column in enumerate(columns)
        ]
        extra = _typed_extra(rows, type(rows[0]).__struct_encode_fields__[len(columns) :])
    except (pa.ArrowException, OverflowError, UnicodeError):
        return None
    fields = [*(column.field for column in columns), SYSTEM_SCHEMA.field(EXTRA)]
    return pa.table([*arrays, extra], schema=pa.schema(fields))


def _typed_extra(rows: list[Any], names: tuple[str, ...]) -> Any:
    """Return what of each record no column holds, as JSON text."""
    values = [list(map(attrgetter(f"x{index}"), rows)) for index in range(len(names))]
    if not values:
        return pa.nulls(len(rows), pa.string())
    texts = _encoder.encode_lines(list(map(_extra(names), *values)))[:-1].split(b"\n")
    return pa.array([None if each == b"{}" else each for each in texts], pa.binary()).cast(pa.string())


_Names = tuple[str, ...]
_JSON = (msgspec.Raw | msgspec.UnsetType, msgspec.UNSET)


def _row(columns: tuple[LakeColumn, ...], extras: _Names = ()) -> Any:
    names = {f"c{index}": column.name for index, column in enumerate(columns)}
    fields: list[tuple[str, Any, Any]] = [
        (field, *_FIELDS[column.type]) for field, column in zip(names, columns, strict=True)
    ]
    further = {f"x{index}": name for index, name in enumerate(extras)}
    fields += [(field, *_JSON) for field in further]
    return msgspec.defstruct("Row", fields, rename=names | further, forbid_unknown_fields=True, gc=False)


@lru_cache(maxsize=256)
def _extra(names: _Names) -> Any:
    further = {f"x{index}": name for index, name in enumerate(names)}
    return msgspec.defstruct("Extra", [(field, *_JSON) for field in further], rename=further, gc=False)


@lru_cache(maxsize=256)
def _row_decoder(columns: tuple[LakeColumn, ...]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(_row(columns))


@lru_cache(maxsize=256)
def _line_decoder(columns: tuple[LakeColumn, ...], extras: _Names) -> msgspec.json.Decoder[Any]:
    record = _row(columns, extras)  # a tombstone's is null
    fields = [("o", int), ("h", int), ("d", str), ("i", str), ("r", record)]
    return msgspec.json.Decoder(msgspec.defstruct("Line", fields, gc=False))


def _typed_array(values: list[Any], column: LakeColumn) -> Any:
    if column.type is ColumnType.JSON:
        return _json_array(values)
    if column.type in (ColumnType.DATE, ColumnType.TIMESTAMPTZ):
        return _cast_times(pa.array(values, pa.string()), column)
    return pa.array(values, ARROW_TYPES[column.type])


def _json_array(texts: list[Any]) -> Any:
    """Return JSON texts as they are; `null` is null, as is what is unset."""
    unset = texts.count(msgspec.UNSET)
    if unset == len(texts):
        return pa.nulls(len(texts), pa.string())
    plain = [None if each is msgspec.UNSET else bytes(each) for each in texts] if unset else list(map(bytes, texts))
    array: Any = pa.array(plain, pa.binary()).cast(pa.string())
    null = pc.equal(array, pa.scalar("null"))
    return pc.if_else(null, None, array) if pc.any(null).as_py() else array


def _cast_times(values: Any, column: LakeColumn) -> Any:
    """Convert ISO 8601 text in one step; raise pa.ArrowInvalid when the values are not all alike."""
    if column.type is ColumnType.DATE:
        return values.cast(pa.date32())
    zoned = pc.all(pc.match_substring_regex(values, _ZONED)).as_py()
    if zoned in (None, True):
        return values.cast(pa.timestamp("us", "UTC"))
    if not column.timezone:
        raise pa.ArrowInvalid("a zoneless timestamp without a default timezone")
    local = values.cast(pa.timestamp("us"))
    moments = pc.assume_timezone(local, column.timezone, ambiguous="earliest", nonexistent="raise")
    return moments.cast(pa.timestamp("us", "UTC"))


def _read_objects(texts: Sequence[msgspec.Raw], columns: Sequence[LakeColumn]) -> pa.Table:
    # Only one level is taken apart: a JSON column keeps its text, and the others are read a whole column at a time.
    rows = _shallow.decode(b"[" + b",".join(texts) + b"]")
    spare: dict[int, dict[str, Any]] = {}
    arrays = [_read_column([row.get(column.name, _NULL) for row in rows], column, spare) for column in columns]
    declared = {column.name for column in columns}
    for index, row in enumerate(rows):
        if not row.keys() <= declared:
            undeclared = {name: orjson.Fragment(bytes(value)) for name, value in row.items() if name not in declared}
            spare[index] = undeclared | spare.get(index, {})
    extra = [orjson.dumps(spare[index]).decode() if index in spare else None for index in range(len(rows))]
    fields = [*(column.field for column in columns), SYSTEM_SCHEMA.field(EXTRA)]
    return pa.table([*arrays, pa.array(extra, pa.string())], schema=pa.schema(fields))


def _read_column(texts: list[msgspec.Raw], column: LakeColumn, spare: dict[int, dict[str, Any]]) -> Any:
    if column.type is ColumnType.JSON:
        return _json_array(texts)
    return _to_array(orjson.loads(b"[" + b",".join(texts) + b"]"), column, spare)


def _to_array(values: list[Any], column: LakeColumn, spare: dict[int, dict[str, Any]]) -> Any:
    """Convert one column; what it cannot hold goes to `spare` under the row's index."""
    target = ARROW_TYPES[column.type]
    kinds = set(map(type, values)) - {NoneType}
    try:  # pa.array alone would cut 1.5 to 1 and take True for 1.0: hence the look at the types
        if kinds <= _LOSSLESS.get(column.type, frozenset()):
            return pa.array(values, target)
        if kinds <= {str} and column.type in (ColumnType.DATE, ColumnType.TIMESTAMPTZ):
            return _cast_times(pa.array(values, pa.string()), column)
    except (pa.ArrowException, OverflowError):
        pass  # one by one, to tell those that fit from those that do not
    convert = _converter(column)
    converted: list[Any] = []
    for index, value in enumerate(values):
        try:
            converted.append(None if value is None else convert(value))
        except (TypeError, ValueError, OverflowError):
            converted.append(None)
            spare.setdefault(index, {})[column.name] = value
    return pa.array(converted, target)


def _converter(column: LakeColumn) -> Callable[[Any], Any]:
    if column.type is ColumnType.TIMESTAMPTZ:
        zone = ZoneInfo(column.timezone) if column.timezone else None
        return lambda value: _to_moment(value, zone)
    return _CONVERTERS[column.type]


def _to_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        raise TypeError("an object or array is no text")
    return orjson.dumps(value).decode()


def _to_integer(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, str) and not _INTEGER.match(value)):
        raise TypeError("no integer")
    number = int(value)
    if number not in _INT64 or (isinstance(value, float) and number != value):
        raise ValueError("no 64-bit integer")
    return number


def _to_float(value: Any) -> float:
    if isinstance(value, bool) or (isinstance(value, str) and not _NUMBER.match(value)):
        raise TypeError("no number")
    return float(value)


def _to_boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise TypeError("neither true nor false")


def _to_date(value: Any) -> date:
    if not _DAY.match(value):
        raise ValueError("no day")
    return date.fromisoformat(value)


def _to_moment(value: Any, zone: ZoneInfo | None) -> datetime:
    if not isinstance(value, str) or len(value) < len("2017-01-01"):
        raise TypeError("no timestamp")
    moment = datetime.fromisoformat(value.upper())
    if moment.tzinfo is None:
        if zone is None:
            raise ValueError("a zoneless timestamp without a default timezone")
        moment = moment.replace(tzinfo=zone)
    return moment.astimezone(UTC)


_CONVERTERS: Mapping[ColumnType, Callable[[Any], Any]] = {
    ColumnType.VARCHAR: _to_text,
    ColumnType.BIGINT: _to_integer,
    ColumnType.DOUBLE: _to_float,
    ColumnType.BOOLEAN: _to_boolean,
    ColumnType.DATE: _to_date,
    ColumnType.JSON: lambda value: orjson.dumps(value).decode(),
}


def chunks(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[Chunk]:
    """Cut tables of one schema into chunks of at most CHUNK_ROWS rows and CHUNK_BYTES, in order.

    No rows at all make one empty chunk. A single row larger than CHUNK_BYTES makes a chunk of its own.
    """
    waiting: list[pa.Table] = []
    rows = 0
    empty = True
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        if rows >= CHUNK_ROWS:
            joined = pa.concat_tables(waiting)
            whole = rows - rows % CHUNK_ROWS
            for start in range(0, whole, CHUNK_ROWS):
                yield from _cut(joined.slice(start, CHUNK_ROWS))
            waiting, rows, empty = [joined.slice(whole)], rows - whole, False
    if rows or empty:
        yield from _cut(pa.concat_tables(waiting) if waiting else schema.empty_table())


def _cut(table: pa.Table) -> Iterator[Chunk]:
    pieces = max(1, -(-table.nbytes // (CHUNK_BYTES * 9 // 10)))
    step = max(1, -(-table.num_rows // pieces))
    for start in range(0, max(1, table.num_rows), step):
        piece = table.slice(start, step)
        stream = _serialise(piece)
        if len(stream) > CHUNK_BYTES and piece.num_rows > 1:  # rows of uneven size
            half = piece.num_rows // 2
            yield from _cut(piece.slice(0, half))
            yield from _cut(piece.slice(half))
        else:
            yield Chunk(zstandard.ZstdCompressor(level=1).compress(stream), piece.num_rows)


def _serialise(table: pa.Table) -> memoryview:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in table.combine_chunks().to_batches():
            writer.write_batch(batch)
    return memoryview(sink.getvalue())
