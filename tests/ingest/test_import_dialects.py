"""CSV as it comes: whatever separates, quotes and encodes its values is found out, by the names of the contract."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from counterfoil_ingest.csv_dialect import detect
from counterfoil_ingest.files import CsvDialect, FileUnreadableError
from counterfoil_ingest.import_jobs import Format, State

from tests.ingest.read_rig import SALES, contract, read_side

TEXT = "sale_id{0}shop{0}amount\n1{0}Café, Zürich{0}1.5\n2{0}x{0}2\n"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"]
)
@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
async def test_reads_a_file_in_any_encoding_and_with_any_separator(rig: Any, encoding: str, delimiter: str) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        done = await side.import_file("sales", TEXT.format(delimiter).encode(encoding), Format.CSV)
        rows = await side.rows("sales", ["sale_id", "shop", "amount"])
    assert (done.state, done.error_detail, done.csv_delimiter) == (State.SUCCEEDED, "", delimiter)
    assert rows == [{"sale_id": 1, "shop": "Café, Zürich", "amount": 1.5}, {"sale_id": 2, "shop": "x", "amount": 2.0}]


@pytest.mark.parametrize(
    ("text", "encoding", "found"),
    [
        (
            "sale_id;shop\n1;Распродажа зимней коллекции в магазине\n2;Осенние скидки для наших покупателей\n",
            "cp1251",
            "cp1251",
        ),
        ("sale_id;shop\n1;東京都千代田区\n2;大阪府の天気\n", "shift_jis", "shift_jis"),
        ("sale_id;shop\n1;plain\n", "ascii", "utf-8"),
    ],
)
def test_tells_a_code_page_by_what_it_reads_like(tmp_path: Path, text: str, encoding: str, found: str) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(text.encode(encoding))
    assert detect(file, SALES.__contains__, anywhere=False).encoding == found


def test_takes_an_encoding_and_a_separator_that_are_given(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes("sale_id,shop;amount\n".encode("cp500"))
    given = detect(file, lambda name: name == "sale_id,shop", anywhere=False, encoding="CP500", delimiter=";")
    assert given == CsvDialect("cp500", ";", '"', 1)
    with pytest.raises(FileUnreadableError) as failure:
        detect(file, SALES.__contains__, anywhere=False, encoding="klingon")
    assert failure.value.reason == "ENCODING_UNKNOWN"
    with pytest.raises(FileUnreadableError):
        detect(file, SALES.__contains__, anywhere=False, encoding="zip")  # a codec, but of no text


async def test_single_quotes_and_broken_rows_keep_their_places(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    data = b"sale_id;shop\n1;'a;b'\n2;'c'\n3\n4;'d\ne'\n"
    async with read_side(rig) as side:
        done = await side.import_file("sales", data, Format.CSV)
        rows = await side.rows("sales", ["shop", "_record_id"])
    assert (done.csv_quote, done.rows_accepted, done.rows_quarantined) == ("'", 3, 1)
    assert [(row["shop"], row["_record_id"].rpartition("#")[2]) for row in rows] == [
        ("a;b", "1"),
        ("c", "2"),
        ("d\ne", "4"),
    ]


@pytest.mark.parametrize("text", ["x" * 3_000_000, "\0" * 5000, '"' * 200_000, ";" * 2_000_000, "\n" * 300_000])
async def test_what_is_no_csv_at_all_fails_with_a_reason(rig: Any, text: str) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        done = await side.import_file("sales", text.encode(), Format.CSV)
    assert (done.state, done.error_reason) == (State.FAILED, "HEADER_UNKNOWN")
    assert "such as" in done.error_detail


async def test_an_apostrophe_is_no_quote(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        done = await side.import_file("sales", b"sale_id;shop\n1;O'Neill\n2;'s Hertogenbosch\n", Format.CSV)
        assert [row["shop"] for row in await side.rows("sales", ["shop"])] == ["O'Neill", "'s Hertogenbosch"]
    assert done.csv_quote == '"'


async def test_a_file_without_a_header_is_refused_and_none_of_its_values_told(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        done = await side.import_file("sales", b"1,ada@example.com,1.5\n", Format.CSV)
    assert (done.state, done.error_reason) == (State.FAILED, "HEADER_UNKNOWN")
    assert "such as" in done.error_detail
    assert "ada" not in done.error_detail


async def test_a_late_byte_that_is_not_utf8_changes_the_encoding_of_the_whole_file(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    data = b"sale_id,shop\n" + b"".join(b"%d,x\n" % n for n in range(400_000)) + b"400000,caf\xe9\n"
    async with read_side(rig) as side:
        done = await side.import_file("sales", data, Format.CSV)
    assert (done.csv_encoding, done.rows_accepted) == ("cp1252", 400_001)


async def test_reads_numbers_as_people_write_them_by_the_sign_before_decimals(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    text = "sale_id;shop;amount\n1;Köln;1.234,56\n2;Größe;-0,5\n1.003;x;12\n4;x;1.5\n5;x;12,34,5\n6;x;\n"
    async with read_side(rig) as side:
        refused = await side.import_file("sales", text.encode("cp1252"), Format.CSV)
        assert refused.rows_accepted == 2
        await side.revert(refused.import_id)
        done = await side.import_file("sales", text.encode("cp1252"), Format.CSV, parameters='["decimal=,"]')
        rows = await side.rows("sales", ["sale_id", "amount"])
    assert (done.rows_accepted, done.rows_quarantined) == (4, 2)
    assert [tuple(row.values()) for row in rows] == [(1, 1234.56), (2, -0.5), (1003, 12.0), (6, None)]


async def test_names_of_a_header_are_known_with_blanks_around_them(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES, required=["sale_id"]))
    async with read_side(rig) as side:
        done = await side.import_file("sales", b"sale_id , shop\n1, x\n", Format.CSV)
        rows = await side.rows("sales", ["sale_id", "shop"])
        twice = await side.import_file("sales", b"sale_id, sale_id\n1, 2\n", Format.CSV)
    assert (done.rows_accepted, rows) == (1, [{"sale_id": 1, "shop": " x"}])
    assert twice.error_reason == "COLUMN_REPEATED"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
@pytest.mark.parametrize(
    ("last", "accepted"),
    [
        (b'3,"a quote\n4,that nobody closes\n', 2),
        (b'3,"a quote', 2),
        (b'3,"a ""quote""\n', 2),
        (b'3,"a quote\n4,that is closed"\n', 3),
        (b'3,"a ""quote"""', 3),
        (b'3,5" wide\n', 3),
        (b'3,""\n', 3),
    ],
)
async def test_a_row_whose_quote_is_never_closed_takes_nothing_in_silently(
    rig: Any, last: bytes, accepted: int, encoding: str
) -> None:
    rig.contracts.put(contract("sales", SALES))
    data = (b"sale_id,shop\n1,caf\xe9\n2,x\n" + last).decode("latin-1").encode(encoding)
    async with read_side(rig) as side:
        done = await side.import_file("sales", data, Format.CSV)
        kept = [await side.kept(each) for each in await side.imports.quarantined(done)]
    assert (done.state, done.rows_accepted, done.rows_quarantined) == (State.SUCCEEDED, accepted, 3 - accepted)
    assert [each.findings[0].reason for each in kept] == ["CSV_QUOTE_OPEN"] * (3 - accepted)


@pytest.mark.parametrize(
    ("start", "kind", "told"),
    [
        (b"PK\x03\x04", Format.CSV, "Excel"),
        (b"PK\x03\x04", Format.JSONL, "Excel"),
        (b"\r\n<!DOCTYPE html><title>Sign in</title>", Format.CSV, "web page"),
        (b"PAR1\x15\x04", Format.JSONL, "Parquet"),
        (b"\x28\xb5\x2f\xfd", Format.CSV, "gzip"),
        ('{"sale_id": 1}\n'.encode("utf-16"), Format.JSONL, "UTF-8"),
        ('{"type": "RECORD"}\n'.encode("utf-16-le"), Format.AIRBYTE, "UTF-8"),
        (b'\xef\xbb\xbf\n[\n{"sale_id": 1}\n]', Format.JSONL, "jq"),
        (gzip.compress(gzip.compress(b"sale_id\n")), Format.CSV, "twice"),
    ],
)
async def test_says_what_a_file_is_that_is_no_text(rig: Any, start: bytes, kind: Format, told: str) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        done = await side.import_file("sales", start if told == "twice" else start + bytes(100), kind)
    assert (done.error_reason, done.rows_quarantined) == ("FILE_UNREADABLE", 0)
    assert told in done.error_detail
