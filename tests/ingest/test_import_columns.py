"""Rows of files: columns give the same bytes and the same verdicts as one row after the other."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from counterfoil_ingest import json_columns, validation
from counterfoil_ingest.column_checks import ColumnChecks, narrower
from counterfoil_ingest.csv_values import csv_column
from counterfoil_ingest.entities import Candidate
from counterfoil_ingest.files import FileUnreadableError, Rows, read_csv, read_jsonl, read_parquet
from counterfoil_ingest.json_columns import JsonColumn
from counterfoil_ingest.judging import Judge, Target
from counterfoil_ingest.parquet_values import parquet_column
from counterfoil_ingest.registry import ColumnType, Compiled, validator_of
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ingest.read_rig import SALES, contract

TARGET = Target("acme", "sales", "import", "", "f")
TEXTS = [
    *(
        "",
        "a",
        "abc",
        "Größe",
        "a b",
        "o-1",
        "o-12",
        "x.y",
        'say "no"',
        "back\\slash",
        "line\nbreak",
        "\x00\x1f\x7f",
        "𝄞",
    ),
    *("2024-02-29", "2023-02-29", "1900-02-29", "0000-01-01", "2024-02-29 ", "2024-2-29", "20240229", "9999-12-31"),
    *("2024-02-29T23:59:59Z", "2024-02-29T23:59:60Z", "2024-02-29t23:59:59z", "2024-02-29T24:00:00Z"),
    *(
        "2024-02-29T23:59:59",
        "2024-02-29 23:59:59.5",
        "2024-02-29T23:59:59.123456789+23:59",
        "2024-02-29T23:59:59+24:00",
    ),
    *("a@b.de", "a.b@c-d.example", "a@b", "a b@c.de", "@b.de", "a..b@c.de", "a@-b.de", '"a"@b.de', "a@b.de\n"),
    *("12345678-1234-1234-1234-123456789abc", "12345678123412341234123456789abc", "10.0.0.1", "true", "1", "-0", "1e3"),
]
_texts = st.sampled_from(TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
_integers = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 12) | st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1])
_floats = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.0, -0.0, 1.0, 2.5, 2.0**53, 2.0**63, 1e300]
)
_numbers = st.integers(-3, 12) | _integers | _floats
_PATTERNS = [
    "^a",
    "b$",
    "^o-[0-9]{1,2}$",
    r"^\d+$",
    r"\w",
    "^.+$",
    "^[^a]*$",
    "(?i)A",
    r"\s",
    "^(?=a)",
    "a|b",
    r"\.",
    "^$",
    r"^\p{L}+$",
]
_keywords = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["string", "integer", "number", "boolean", ["string", "null"], ["integer", "string"]]),
        "minimum": _numbers,
        "maximum": _numbers,
        "exclusiveMinimum": _numbers,
        "exclusiveMaximum": _numbers,
        "multipleOf": st.integers(1, 4) | st.sampled_from([0.5, 0.1]),
        "minLength": st.integers(0, 4),
        "maxLength": st.integers(0, 12),
        "pattern": st.sampled_from(_PATTERNS),
        "format": st.sampled_from(["date", "date-time", "email", "uuid", "ipv4", "time"]),
        "enum": st.lists(_texts | _numbers | st.booleans() | st.none(), min_size=1, max_size=4),
        "x-classification": st.just("public"),
        "not": st.just({"const": 1}),
    },
)
_schemas = st.one_of(
    st.just({"type": "string"}),
    _keywords,
    st.builds(lambda *parts: {"anyOf": list(parts)}, _keywords, _keywords),
    st.builds(lambda first, rest: {**first, "allOf": [rest]}, _keywords, _keywords),
)
_values = {pa.string(): _texts, pa.int64(): _integers, pa.float64(): _floats, pa.bool_(): st.booleans()}
_columns = st.sampled_from(list(_values)).flatmap(
    lambda kind: st.lists(st.none() | _values[kind], min_size=3, max_size=3).map(lambda found: pa.array(found, kind))
)
_contracts = st.fixed_dictionaries(
    {"type": st.just("object"), "properties": st.dictionaries(st.sampled_from("abc"), _schemas, max_size=3)},
    optional={
        "required": st.lists(st.sampled_from("abc"), max_size=1),
        "additionalProperties": st.booleans(),
        "patternProperties": st.just({"^x_": True}),
    },
)


def _lines(columns: dict[str, JsonColumn]) -> list[bytes]:
    return json_columns.lines(columns, len(next(iter(columns.values())).texts))


def _compiled(schema: dict[str, Any]) -> Compiled:
    text = orjson.dumps(schema)
    return Compiled("acme", "sales", "c", "1.0.0", "", validator_of(text), (), text)


@settings(deadline=None)
@given(_contracts, st.dictionaries(st.sampled_from("abcd"), _columns, min_size=1, max_size=3))
def test_columns_and_rows_get_the_same_verdicts_and_findings(schema: dict[str, Any], arrays: dict[str, Any]) -> None:
    compiled = _compiled(schema)
    columns = {name: parquet_column(array, None) for name, array in arrays.items()}
    lines = _lines(columns)
    proven = ColumnChecks(compiled.json_schema).proven(columns, len(lines))
    valid = [compiled.validator.is_valid(orjson.loads(line)) for line in lines]
    assert [not each or right for each, right in zip(proven.tolist(), valid, strict=True)] == [True] * len(lines)
    judged = Judge(TARGET, new_id=lambda: "q").judge(
        Rows(7, lines, {}, columns), {TARGET.dataset: compiled}, received_at=1
    )
    by_row = {
        index: found
        for index, line in enumerate(lines)
        if (found := validation.findings_of(Candidate("", "sales", line, orjson.loads(line)), compiled))
    }
    assert {index: each.findings for index, each in judged.refused.items()} == by_row
    assert list(judged.ids) == [f"f#{number}" for number in (7, 8, 9)]


def _proves(schema: dict[str, Any], array: pa.Array[Any]) -> list[bool]:
    text = orjson.dumps({"type": "object", "properties": {"a": schema}, "additionalProperties": False})
    found: list[bool] = ColumnChecks(text).proven({"a": parquet_column(array, None)}, len(array)).tolist()
    return found


@pytest.mark.parametrize(
    ("schema", "values", "expected"),
    [
        (
            {"type": ["integer", "null"], "minimum": 1, "maximum": 2**63 - 1},
            [0, 1, None, 2**63 - 1],
            [False, True, True, True],
        ),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 2.5}, [0.0, 0.5, 2.5, 2.75], [False, True, True, False]),
        ({"type": "integer", "enum": [1, 2], "multipleOf": 2}, [1, 2, 3, 4], [False, True, False, False]),
        (
            {"type": "string", "enum": ["open", "paid"], "x-classification": "public"},
            ["open", "x", None],
            [True, False, True],
        ),
        ({"type": "string", "minLength": 1, "maxLength": 3}, ["", "Grö", "Größe"], [False, True, False]),
        ({"type": "string", "pattern": r"^o-\d{2}$"}, ["o-12", "o-1", "o-12\n"], [True, False, False]),
        ({"type": "string", "format": "date"}, ["2024-02-29", "2023-02-29"], [True, False]),
        (
            {"type": "string", "format": "date-time"},
            ["2024-02-29T10:00:00.5+01:00", "2024-02-29T10:00:00"],
            [True, False],
        ),
        ({"type": "string", "format": "email"}, ["ada.lovelace@mail.example.com", "ada@"], [True, False]),
        (
            {"type": "string", "anyOf": [{"format": "date-time"}, {"pattern": "^[0-9]{4}$"}]},
            ["2024", "24"],
            [True, False],
        ),
        ({"type": "boolean"}, [True, None], [True, True]),
        ({}, [1, 2], [True, True]),
    ],
)
def test_what_contracts_usually_say_is_seen_in_columns(
    schema: dict[str, Any], values: list[Any], expected: list[bool]
) -> None:
    assert _proves(schema, pa.array(values)) == expected


@pytest.mark.parametrize(
    "pattern", [r"(?=a)b", r"(a)\1", r"\bword", r"\p{L}", "[^é]", "(?i)a", "a{2", "a**", "[a--b]", "[a&&b]", "é"]
)
def test_an_expression_that_engines_may_read_differently_is_left_to_the_validator(pattern: str) -> None:
    assert narrower(pattern) is None


def _expected(value: Any, wanted: ColumnType | None) -> Any:
    """Return a value of a Parquet file as JSON, told one by one."""
    for kind, tell in ((float, _float), (datetime, _moment), (Decimal, _decimal)):
        if isinstance(value, kind):
            return tell(value, wanted)
    return value.isoformat() if isinstance(value, date) else value


def _float(value: float, wanted: ColumnType | None) -> Any:
    if not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    whole = wanted is ColumnType.BIGINT and value.is_integer() and abs(value) < 2**63
    return int(value) if whole else value


def _moment(value: datetime, wanted: ColumnType | None) -> str:
    if wanted is ColumnType.DATE and value.tzinfo is None and value.time() == time.min:
        return value.date().isoformat()
    text = value.replace(tzinfo=None).isoformat()
    return text + "Z" if value.tzinfo else text


def _decimal(value: Decimal, wanted: ColumnType | None) -> Any:
    if wanted is ColumnType.VARCHAR:
        return str(value)
    if value == int(value) and wanted is not ColumnType.DOUBLE and abs(value) < 2**63:
        return int(value)
    return float(value) if len(value.as_tuple().digits) <= 15 else str(value)


_moments = st.datetimes() | st.dates(date(1, 1, 1)).map(lambda day: datetime.combine(day, time.min))
_parquet = st.sampled_from(
    [
        (pa.int8(), st.integers(-128, 127)),
        (pa.int64(), _integers),
        (pa.uint64(), st.integers(0, 2**64 - 1)),
        (pa.float64(), st.floats()),
        (pa.float32(), st.floats(width=32)),
        (pa.string(), _texts),
        (pa.large_string(), _texts),
        (pa.dictionary(pa.int32(), pa.string()), _texts),
        (pa.bool_(), st.booleans()),
        (pa.date32(), st.dates(date(1, 1, 1))),
        (pa.timestamp("us"), _moments),
        (pa.timestamp("ms"), _moments.map(lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000))),
        (pa.timestamp("us", "Asia/Tokyo"), _moments.map(lambda at: at.replace(tzinfo=UTC))),
        (pa.decimal128(12, 2), st.decimals(Decimal("-1e9"), Decimal("1e9"), places=2)),
        (pa.decimal128(38, 9), st.decimals(Decimal("-1e20"), Decimal("1e20"), places=9)),
        (pa.list_(pa.int64()), st.lists(st.integers(-5, 5), max_size=3)),
    ]
).flatmap(lambda kind: st.tuples(st.just(kind[0]), st.lists(st.none() | kind[1], min_size=1, max_size=5)))


@settings(deadline=None)
@given(st.lists(_parquet, min_size=1, max_size=3), st.sampled_from([None, *ColumnType]))
def test_parquet_rows_are_written_as_one_value_after_the_other(found: list[Any], wanted: ColumnType | None) -> None:
    count = min(len(values) for _, values in found)
    arrays = {f'p"{n}': pa.array(values[:count], kind) for n, (kind, values) in enumerate(found)}
    rows = [
        {name: got for name, array in arrays.items() if (got := _expected(_plain(array[index]), wanted)) is not None}
        for index in range(count)
    ]
    assert _lines({name: parquet_column(each, wanted) for name, each in arrays.items()}) == [
        orjson.dumps(row) for row in rows
    ]


def _plain(scalar: pa.Scalar[Any]) -> Any:
    value = scalar.as_py()
    return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo else value


def _number(text: str) -> float | None:
    try:
        return float(text) if set(text) <= set("+-.0123456789eE") and math.isfinite(float(text)) else None
    except ValueError:
        return None


def _integer(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII) else None


def _json(text: str) -> Any:
    try:
        return orjson.loads(text) if text[:1] in ("{", "[") else None
    except orjson.JSONDecodeError:
        return None


_CSV = {
    ColumnType.BIGINT: _integer,
    ColumnType.DOUBLE: _number,
    ColumnType.BOOLEAN: lambda text: {"true": True, "false": False}.get(text.lower()),
    ColumnType.JSON: _json,
}


def _expected_csv(text: str | None, wanted: ColumnType) -> Any:
    converted = None if text is None or wanted not in _CSV else _CSV[wanted](text.strip())
    return text if converted is None else converted


@settings(deadline=None)
@given(
    st.lists(
        st.none()
        | _texts
        | _numbers.map(str)
        | st.from_regex(r"\A ?[+-]{0,2}[0-9]{0,20}\.?[0-9]{0,2}(e[0-9]{1,3})? ?\Z")
        | st.sampled_from(["TRUE", " false", "1e999", "+5", "007", '{"a": 1.0}', '{"a"', " [1]"]),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([each for each in ColumnType if each is not ColumnType.TIMESTAMPTZ]),
)
def test_csv_fields_are_written_as_one_after_the_other(texts: list[str | None], wanted: ColumnType) -> None:
    expected = [_expected_csv(text, wanted) for text in texts]
    lines = _lines({"a": csv_column(pa.array(texts, pa.string()), wanted)})
    assert lines == [orjson.dumps({} if value is None else {"a": value}) for value in expected]


def test_a_time_of_an_odd_year_does_not_change_its_neighbours() -> None:
    at = pa.array([-(10**17), 0, 2 * 10**18 // 10], pa.int64()).cast(pa.timestamp("us"))
    texts = [orjson.loads(text) for text in parquet_column(at, ColumnType.TIMESTAMPTZ).texts.to_pylist()]
    assert texts[1] == "1970-01-01T00:00:00"
    assert not any(text.startswith(("19", "20")) for text in (texts[0], texts[2]))


def test_a_text_that_is_not_utf8_is_refused_whatever_the_format(tmp_path: Path) -> None:
    binary = pa.array([b"caf\xe9"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 1, binary.buffers())
    pq.write_table(pa.table({"shop": text}), tmp_path / "a.parquet")
    with pytest.raises(FileUnreadableError) as failure:
        list(read_parquet(tmp_path / "a.parquet", {}, skip=0))
    assert failure.value.reason == "BAD_ENCODING"


def test_a_small_file_of_long_texts_is_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 1500, pa.int32()), pa.array(["x" * 2_000_000]))
    pq.write_table(pa.table({"shop": long, "sale_id": range(1500)}), tmp_path / "a.parquet", store_schema=False)
    assert (tmp_path / "a.parquet").stat().st_size < 200_000
    batches = read_parquet(tmp_path / "a.parquet", SALES, skip=0)
    first = next(batches)
    assert 1 <= len(first.datas) < 20
    assert (next(batches).first, first.first) == (len(first.datas) + 1, 1)


def test_a_file_of_thousands_of_columns_is_read_in_small_batches(tmp_path: Path) -> None:
    wide = pa.table({f"c{n}": pa.array(range(1000)) for n in range(3000)})
    pq.write_table(wide, tmp_path / "a.parquet", use_dictionary=False, compression="none")
    batches = read_parquet(tmp_path / "a.parquet", {}, skip=0)
    first = next(batches)
    assert len(first.datas) < 500
    assert orjson.loads(first.datas[3]) == {f"c{n}": 3 for n in range(3000)}


@pytest.mark.parametrize("skip", [0, 1, 3, 4, 5, 8, 9])
def test_rows_keep_their_numbers_wherever_reading_begins(tmp_path: Path, monkeypatch: Any, skip: int) -> None:
    monkeypatch.setattr("counterfoil_ingest.files.BATCH_ROWS", 3)
    path = tmp_path / "a.csv"
    path.write_bytes(b"sale_id,shop\n0\n1\n2,x\n3,x\n4\n5,x\n6,x\n7\n8\n")
    found = {}
    for rows in read_csv(path, SALES, skip=skip):
        assert len(rows.datas) <= 3
        for index, data in enumerate(rows.datas):
            number = rows.first + index
            found[number] = data.decode() if index in rows.broken else orjson.loads(data)["sale_id"]
    everything = {1: "0", 2: "1", 3: 2, 4: 3, 5: "4", 6: 5, 7: 6, 8: "7", 9: "8"}
    assert found == {number: row for number, row in everything.items() if number > skip}


def test_a_row_without_what_is_required_is_refused_and_told_by_its_number() -> None:
    compiled = contract("sales", SALES, required=["sale_id"])
    columns = {"sale_id": csv_column(pa.array(["1", None, "x"]), ColumnType.BIGINT)}
    judged = Judge(TARGET, new_id=lambda: "q").judge(
        Rows(1, _lines(columns), {}, columns), {TARGET.dataset: compiled}, received_at=1
    )
    assert {index: (each.record_id, each.findings[0].reason) for index, each in judged.refused.items()} == {
        1: ("f#2", "CONTRACT_REQUIRED"),
        2: ("f#3", "CONTRACT_TYPE"),
    }


def test_nothing_is_accepted_once_the_contract_is_gone() -> None:
    columns = {"a": csv_column(pa.array(["1"]), None)}
    judged = Judge(TARGET, new_id=lambda: "q").judge(
        Rows(1, _lines(columns), {}, columns), {TARGET.dataset: None}, received_at=1
    )
    assert judged.refused[0].findings[0].reason == "NO_CONTRACT"


def test_fractions_of_a_second_are_kept_where_there_are_any() -> None:
    whole = datetime.combine(date(2024, 1, 1), time(12))
    texts = parquet_column(pa.array([whole, whole + timedelta(microseconds=1)]), ColumnType.TIMESTAMPTZ).texts
    assert texts.to_pylist() == ['"2024-01-01T12:00:00"', '"2024-01-01T12:00:00.000001"']


def test_lines_are_told_apart_wherever_the_file_is_cut(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("counterfoil_ingest.files._BATCH_BYTES", 7)
    monkeypatch.setattr("counterfoil_ingest.files.MAX_RECORD_BYTES", 40)
    path = tmp_path / "a.jsonl"
    long = b'{"n":"%b"}' % (b"x" * 90)
    deep = b'{"n":' + b"[" * 70 + b"]" * 70 + b"}"
    lines = [
        b"\xef\xbb\xbf" + b'{"n": 1}',
        b" ",
        b'{"n":2.0,"n":3}\r',
        long,
        b'{"n"',
        b'{"a":1},{"a":2}',
        b"\xff",
        b'{"n":4}',
    ]
    path.write_bytes(b"\n".join(lines))
    found = [
        (rows.first + index, rows.broken[index].reason if index in rows.broken else data)
        for rows in read_jsonl(path, {}, skip=0)
        for index, data in enumerate(rows.datas)
    ]
    assert found == [
        *((1, b'{"n":1}'), (2, b'{"n":3}'), (3, "TOO_LARGE"), (4, "BAD_JSON"), (5, "BAD_JSON"), (6, "BAD_JSON")),
        (7, b'{"n":4}'),
    ]
    monkeypatch.undo()
    path.write_bytes(deep)
    (rows,) = read_jsonl(path, {}, skip=0)
    assert rows.broken[0].reason == "TOO_DEEP"


def test_a_row_that_is_too_long_or_nests_too_deep_is_refused_alone() -> None:
    deep: Any = 1
    for _ in range(70):
        deep = [deep]
    shops = parquet_column(pa.array(["a", "b" * 2_000_000, "c"]), None)
    columns = {"shop": shops, "tags": json_columns.parsed([[1], None, deep])}
    compiled = contract("sales", {"shop": ColumnType.VARCHAR, "tags": ColumnType.JSON})
    judged = Judge(TARGET, new_id=lambda: "q").judge(
        Rows(1, _lines(columns), {}, columns), {TARGET.dataset: compiled}, received_at=1
    )
    assert {index: each.findings[0].reason for index, each in judged.refused.items()} == {1: "TOO_LARGE", 2: "TOO_DEEP"}


_SALES = {
    "sale_id": st.integers(-(2**63), 2**64 - 1) | st.sampled_from([1.0, None]),
    "shop": _texts | st.none(),
    "amount": _floats | st.integers(0, 3) | st.none(),
    "paid": st.booleans() | st.none(),
    "day": st.sampled_from(["2017-03-01", "2017-02-30"]),
}
_sales = st.lists(st.fixed_dictionaries({}, optional=_SALES), min_size=1, max_size=8)
_ODD = [
    b"{",
    b'{"sale_id":1,"sale_id":2}',
    b"[]",
    b'{"shop":"\\u00e9"}',
    b'{"sale_id":1e0}',
    b'{"sale_id": -0}',
    b'{"other":1}',
]


@settings(deadline=None)
@given(
    _sales,
    st.sampled_from(["compact", "spaced"]),
    st.lists(st.tuples(st.integers(0, 8), st.sampled_from(_ODD)), max_size=2),
)
def test_lines_read_as_columns_are_those_read_one_by_one(
    tmp_path_factory: Any, rows: list[dict[str, Any]], style: str, odd: list[tuple[int, bytes]]
) -> None:
    lines = [orjson.dumps(row) if style == "compact" else json.dumps(row).encode() for row in rows]
    for at, line in odd:
        lines.insert(at, line)
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    compiled = contract("sales", SALES, required=["sale_id"])
    found = []
    for types in (SALES, {}):  # without types there are no columns
        (read,) = read_jsonl(path, types, skip=0)
        judged = Judge(TARGET, new_id=lambda: "q").judge(read, {TARGET.dataset: compiled}, received_at=1)
        found.append((list(read.datas), {index: each.findings for index, each in judged.refused.items()}))
    assert found[0] == found[1]


@pytest.mark.parametrize("write", [orjson.dumps, lambda row: json.dumps(row).encode()])
def test_usual_lines_are_read_as_columns(tmp_path: Path, write: Any) -> None:
    rows = [{"sale_id": n, "shop": f"s{n}", "amount": n / 4, "paid": n % 2 == 0, "day": None} for n in range(20)]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(map(write, rows)) + b"\n")
    (read,) = read_jsonl(tmp_path / "a.jsonl", SALES, skip=0)
    assert read.columns is not None
    assert not read.apart
    assert [orjson.loads(each) for each in read.datas] == rows
