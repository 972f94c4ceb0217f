"""Files into datasets: every format, equal rows kept, the same file twice adds nothing."""

import io

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.system.tenant import DAY_SALES, Tenant, problem

ROWS = [
    {"sold_at": "2025-01-01T10:00:00", "shop": "north", "amount": 5.25, "note": None},
    {"sold_at": "2025-01-01T10:00:00", "shop": "north", "amount": 5.25, "note": None},
    {"sold_at": "2025-01-02T10:00:00", "shop": "south", "amount": 7.5, "note": 'a, "quoted"\nline'},
]
BROKEN = {"sold_at": "2025-01-02T10:00:00", "shop": "south", "amount": -1.0, "note": None}


def _csv(rows: list[dict[str, object]]) -> bytes:
    import csv

    text = io.StringIO()
    writer = csv.DictWriter(text, list(ROWS[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _jsonl(rows: list[dict[str, object]]) -> bytes:
    return b"\n".join(orjson.dumps(row) for row in rows) + b"\n"


def _parquet(rows: list[dict[str, object]]) -> bytes:
    from datetime import datetime

    typed = [row | {"sold_at": datetime.fromisoformat(str(row["sold_at"]))} for row in rows]
    schema = pa.schema(
        [("sold_at", pa.timestamp("ns")), ("shop", pa.string()), ("amount", pa.float64()), ("note", pa.string())]
    )
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(typed, schema), out)
    return out.getvalue()


@pytest.fixture
def shop(make_tenant) -> Tenant:
    """A workspace of the test's own, with a contract for `sales`."""
    made = make_tenant("files")
    made.activate(DAY_SALES.format(version="1.0.0"))
    return made


@pytest.mark.parametrize(("form", "write"), [("csv", _csv), ("jsonl", _jsonl), ("parquet", _parquet)])
def test_imports_every_row_once_and_equal_rows_too(shop: Tenant, form: str, write):
    content = write([*ROWS, BROKEN])
    first = shop.upload("sales", content, form=form, name=f"sales.{form}")
    assert first["state"] == "SUCCEEDED", first
    counts = ("rows_total", "rows_read", "rows_accepted", "rows_duplicate", "rows_quarantined")
    assert [first[name] for name in counts] == [4, 4, 3, 0, 1]
    assert first["file_bytes"] == len(content)
    assert first["snapshot"]["dataset"] == "sales"
    again = shop.upload("sales", content, form=form, name="renamed")
    assert again["state"] == "SUCCEEDED", again
    assert [again[name] for name in counts[:4]] == [4, 4, 0, 3]
    assert shop.datasets()["sales"]["records"] == 3
    assert shop.sql(
        "SELECT shop, count(*), sum(amount::DECIMAL(18,2)), max(note) FROM sales GROUP BY 1 ORDER BY 1"
    ) == [
        ["north", 2, "10.50", None],
        ["south", 1, "7.50", 'a, "quoted"\nline'],
    ]
    assert shop.sql("SELECT min(sold_at) FROM sales") == [["2025-01-01T10:00:00Z"]]


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("parquet", b"PAR1 this is not a parquet file PAR1"),
        ("csv", b"\xff\xfe\x00\x01"),
        ("csv", b""),
    ],
)
def test_a_file_that_cannot_be_read_fails_with_a_reason(shop: Tenant, form: str, content: bytes):
    answer = shop.http.post("/v1/imports", params={"dataset": "sales", "format": form}, content=content)
    if answer.status_code != 200:  # a file refused at the door needs no import
        problem(answer, status=400)
        return
    found = shop.upload("sales", content, form=form)
    assert found["state"] == "FAILED"
    assert found["error"]["reason"]
    assert found["error"]["detail"]


def test_uploads_that_say_too_little_are_problems(shop: Tenant):
    for params in ({"dataset": "sales"}, {"format": "csv"}, {"dataset": "sales", "format": "xls"}):
        problem(shop.http.post("/v1/imports", params=params, content=b"a\n1\n"), status=400)
    nowhere = {"dataset": "nowhere", "format": "csv"}
    problem(shop.http.post("/v1/imports", params=nowhere, content=b"a\n1\n"), status=400, reason="NO_CONTRACT")


def test_jsonl_lines_that_are_broken_are_quarantined_alone(shop: Tenant):
    content = _jsonl(ROWS[:1]) + b"{broken\n" + _jsonl(ROWS[2:])
    found = shop.upload("sales", content, form="jsonl")
    assert found["state"] == "SUCCEEDED", found
    assert (found["rows_accepted"], found["rows_quarantined"]) == (2, 1)
