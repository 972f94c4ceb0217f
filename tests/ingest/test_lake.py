"""The lake holds exactly the records of the log, whatever stops it, changes under it or is deleted."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from counterfoil_ingest import arrow, delta
from counterfoil_ingest.arrow import LakeColumn, LakeRecords, read_lines
from counterfoil_ingest.blocks import Line
from counterfoil_ingest.delta import WorkspaceTables
from counterfoil_ingest.entities import UNPLANNED, Header
from counterfoil_ingest.lake_places import FolderPlace
from counterfoil_ingest.read_errors import LakeBehindError, LakeUnavailableError
from counterfoil_ingest.registry import ColumnType
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from tests.ingest.read_rig import SALES, arrow_of, contract, read_side, record, sale

COLUMNS = [LakeColumn(name, kind, "America/New_York") for name, kind in SALES.items()]


def to_table(*values: dict[str, Any] | bytes, columns: Sequence[LakeColumn] = COLUMNS) -> pa.Table:
    header = Header("api", 1_700_000_000_000_000, "", {"sales": "1.0.0"})
    texts = [value if isinstance(value, bytes) else orjson.dumps(value) for value in values]
    records = LakeRecords("sales", tuple(columns))
    records.add([Line(n, 0, "sales", f"r{n}", msgspec.Raw(text)) for n, text in enumerate(texts)], [header])
    return records.table(())


async def test_writes_each_record_with_where_it_came_from(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        await side.append(record(UNPLANNED, "u1", {"x": [1]}), sale(1), sale(2, shop=None, more="?"))
        system = ["_partition", "_offset", "_received_at", "_contract_version", "_record_id", "_source_id"]
        rows = await side.rows("sales", ["sale_id", "shop", "_extra", *system, "_received_day"])
        unplanned = await side.rows(UNPLANNED, ["_extra", "_offset", "_contract_version"])
    assert rows[1] == {
        "sale_id": 2,
        "shop": None,
        "_extra": '{"more":"?"}',
        "_partition": 0,
        "_offset": 2,
        "_received_at": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
        "_contract_version": "1.0.0",
        "_record_id": "s2",
        "_source_id": "api",
        "_received_day": date(2023, 11, 14),
    }
    assert unplanned == [{"_extra": '{"x":[1]}', "_offset": 0, "_contract_version": None}]


async def test_commits_by_itself_after_an_interval_and_after_enough_rows(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    today = time.time_ns() // 1_000  # the files of a day that is over are made one
    async with read_side(rig, commit_seconds=0.05) as side:
        await side.append(sale(1), received_at=today)
        await _until((rig.folder / "lake/acme/sales").exists)
    async with read_side(rig, commit_seconds=3600, commit_rows=50) as side:
        await side.append(*(sale(n) for n in range(2, 110)), received_at=today)
        await _until(lambda: len(list((rig.folder / "lake/acme/sales").glob("*/*.parquet"))) == 2)


async def test_neither_repeats_nor_skips_after_a_crash_between_two_tables(
    open_log: Callable[..., Any], monkeypatch: Any
) -> None:
    advance, append = WorkspaceTables.advance, WorkspaceTables.append
    for crash_at in range(5):
        rig = await open_log()
        for dataset in ("sales", "other"):
            rig.contracts.put(contract(dataset, SALES))
        step = 0

        def dying(work: Any, at: int = crash_at) -> Any:
            def wrapped(*args: Any, **kwargs: Any) -> None:
                nonlocal step
                step += 1
                if step == at + 1:
                    raise OSError("killed")
                work(*args, **kwargs)

            return wrapped

        monkeypatch.setattr(WorkspaceTables, "append", dying(append))
        monkeypatch.setattr(WorkspaceTables, "advance", dying(advance))
        base = 100 * crash_at
        async with read_side(rig) as side:
            await side.append(*(sale(base + n) for n in range(10)))
            await side.append(*(record("other", f"o{base + n}", {"sale_id": n}) for n in range(10)))
            with contextlib.suppress(LakeBehindError):  # killed at a step of its work, or not at all
                await side.lake.flush("acme", rig.log.head("acme"), within=0.7)
        monkeypatch.setattr(WorkspaceTables, "append", append)
        monkeypatch.setattr(WorkspaceTables, "advance", advance)
        rig = await open_log()
        for dataset in ("sales", "other"):
            rig.contracts.put(contract(dataset, SALES))
        async with read_side(rig) as side:
            for dataset in ("sales", "other"):
                rows = await side.rows(dataset, ["_record_id", "_offset"])
                assert len(rows) == len({row["_record_id"] for row in rows}) == 10 * (crash_at + 1)


async def test_is_written_again_when_its_folder_is_deleted(open_log: Callable[..., Any]) -> None:
    rig = await open_log()
    rig.contracts.put(contract("sales", SALES))
    rig.contracts.put(contract("other", SALES))
    async with read_side(rig) as side:
        await side.append(*(sale(n) for n in range(20)), record("other", "o", {"sale_id": 1}))
        before = await side.rows("sales", [*SALES, "_offset", "_record_id"])
        shutil.rmtree(rig.folder / "lake")
        assert await side.rows("sales", [*SALES, "_offset", "_record_id"]) == before
    shutil.rmtree(rig.folder / "lake/acme/sales")
    rig = await open_log()
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        assert await side.rows("sales", [*SALES, "_offset", "_record_id"]) == before
        assert len(await side.rows("other", ["_offset"])) == 1


async def test_is_written_again_for_another_life_of_the_log(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        await side.append(*(sale(n) for n in range(5)))
        await side.flush()
    rig.log.epoch = "another"
    async with read_side(rig) as side:
        assert len(await side.rows("sales", ["_offset"])) == 5


async def test_takes_new_columns_and_keeps_the_type_a_column_had_first(rig: Any) -> None:
    rig.contracts.put(contract("sales", {"n": ColumnType.BIGINT, "gone": ColumnType.VARCHAR}))
    async with read_side(rig) as side:
        await side.append(record("sales", "a", {"n": 1, "gone": "x"}))
        await side.flush()
        rig.contracts.put(contract("sales", {"n": ColumnType.VARCHAR, "new": ColumnType.DOUBLE}, version="2.0.0"))
        await side.append(record("sales", "b", {"n": "2", "new": 0.5}), record("sales", "c", {"n": "two", "gone": "y"}))
        await side.flush()
        rows = await side.rows("sales", ["n", "new", "gone", "_extra", "_contract_version"])
        reading = await side.snapshots.open("acme", side.snapshots.at_head("acme", "sales"), columns=["n"], within=5)
    assert rows == [
        {"n": 1, "new": None, "gone": "x", "_extra": None, "_contract_version": "1.0.0"},
        {"n": 2, "new": 0.5, "gone": None, "_extra": None, "_contract_version": "2.0.0"},
        {"n": None, "new": None, "gone": None, "_extra": '{"gone":"y","n":"two"}', "_contract_version": "2.0.0"},
    ]
    assert [(used.contract_id, used.version) for used in reading.contracts] == [
        ("sales-contract", "1.0.0"),
        ("sales-contract", "2.0.0"),
    ]


async def test_leaves_properties_that_cannot_be_columns_to_extra(rig: Any) -> None:
    names = {
        "_offset": "VARCHAR",
        "a b": "VARCHAR",
        "x.y": "VARCHAR",
        "Größe": "VARCHAR",
        "ok": "VARCHAR",
        "OK": "VARCHAR",
    }
    rig.contracts.put(contract("odd", dict.fromkeys(names, ColumnType.VARCHAR)))
    async with read_side(rig) as side:
        await side.append(record("odd", "a", dict.fromkeys(names, "v")))
        (row,) = await side.rows("odd", ["Größe", "ok", "_extra", "_offset"])
        result = await side.queries.run("acme", 'SELECT "Größe", ok FROM odd', b"", max_rows=1, within=5)
    assert (row["Größe"], row["ok"], row["_offset"]) == ("v", "v", 0)
    assert orjson.loads(row["_extra"]) == {"_offset": "v", "a b": "v", "x.y": "v", "OK": "v"}
    assert result.rows == b'[["v","v"]]'


async def test_undeclared_properties_are_read_with_the_columns_once_they_have_been_seen(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.contracts.put(contract("sales", SALES))
    one_by_one, sizes = arrow._read_objects, []

    def counted(texts: Sequence[Any], columns: Sequence[LakeColumn]) -> pa.Table:
        sizes.append(len(texts))
        return one_by_one(texts, columns)

    monkeypatch.setattr(arrow, "_read_objects", counted)
    async with read_side(rig) as side:
        for first in (0, 10, 20):
            values = [
                _flat(n) | ({"sent_at": "now"} if n % 2 else {"colour": {"a": n}}) for n in range(first, first + 10)
            ]
            await side.append(*(record("sales", f"s{first}-{n}", value) for n, value in enumerate(values)))
            await side.flush()
        rows = await side.rows("sales", ["sale_id", "_extra"])
    assert sizes == [10]
    assert [orjson.loads(row["_extra"]) for row in rows] == [
        {"sent_at": "now"} if n % 2 else {"colour": {"a": n}} for n in range(30)
    ]


async def test_makes_one_file_of_many_small_ones_and_keeps_their_rows(rig: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("counterfoil_ingest.delta._SMALL_FILES", 4)
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        for n in range(9):
            await side.append(sale(n))
            await side.flush()
        table = await side.lake.table("acme", "sales")
        rows = await side.rows("sales", ["sale_id"])
    assert table is not None
    assert len(table.files) < 5
    assert [row["sale_id"] for row in rows] == list(range(9))


@pytest.mark.parametrize("event_time", ["sold_at", None])
def test_no_file_gets_more_rows_than_can_be_erased_from_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, event_time: str | None
) -> None:
    monkeypatch.setattr(delta, "_FILE_ROWS", 2_000)
    monkeypatch.setattr(delta, "_SMALL_FILES", 4)
    tables = WorkspaceTables(FolderPlace(tmp_path), life="a/0")
    total = 0
    for number in range(30):  # of some the rows are alike, of others they are not, so that their bytes differ
        rows = 100 + number * 37 % 800
        note = (lambda n: "x") if number % 3 else (lambda n: f"{n * 7919 % 10_007:x}" * 9)
        new = to_table(*({"sale_id": total + n, "shop": note(n)} for n in range(rows)))
        total += rows
        tables.append("sales", new, COLUMNS, until=total)
        tables.compact()
    before = tables.view("sales")
    rounds = 0
    while tables.settle(lambda _: event_time, before=date(2023, 11, 15)):
        rounds += 1
    after = tables.view("sales")
    assert before is not None
    assert after is not None
    assert rounds < 5
    assert sum(each.rows for each in after.files) == total
    assert max(each.rows for view in (before, after) for each in view.files) <= 2_000
    assert total // 2_000 < len(after.files) <= total // 500


async def test_a_table_of_an_older_release_takes_our_properties_and_keeps_its_rows(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    ours = dict(delta._CONFIGURATION)
    statistics = ours.pop("delta.dataSkippingStatsColumns")
    async with read_side(rig) as side:
        with pytest.MonkeyPatch.context() as older:
            older.setattr(delta, "_CONFIGURATION", ours)
            await side.append(sale(1))
            await side.flush()
        assert "min.amount" in _statistics_of(rig)
    async with read_side(rig) as side:
        await side.append(sale(2))
        rows = await side.rows("sales", ["sale_id", "_contract_version"])
        table = DeltaTable(str(rig.folder / "lake/acme/sales"))
        version = table.version()
    assert rows == [{"sale_id": n, "_contract_version": "1.0.0"} for n in (1, 2)]
    assert table.metadata().configuration == ours | {"delta.dataSkippingStatsColumns": statistics}
    shutil.rmtree(rig.folder / "lake")
    async with read_side(rig) as side:
        assert len(await side.rows("sales", ["_offset"])) == 2
        assert "min.amount" not in _statistics_of(rig)
        assert {f"min.{name}" for name in statistics.split(",")} <= _statistics_of(rig)
        await side.flush()
    assert DeltaTable(str(rig.folder / "lake/acme/sales")).version() < version  # it is not told again


def _statistics_of(rig: Any) -> set[str]:
    return set(pa.table(DeltaTable(str(rig.folder / "lake/acme/sales")).get_add_actions(flatten=True)).column_names)


async def test_a_day_that_is_over_becomes_one_file_in_the_order_of_its_events(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        for n in (3, 1, 2):
            await side.append(sale(n))
            await side.flush()
        before = await side.lake.table("acme", "sales")
        snapshot = side.snapshots.at_head("acme", "sales")
        reading = await side.snapshots.open("acme", snapshot, columns=["sale_id"], within=20)
        tables = WorkspaceTables(FolderPlace(rig.folder / "lake" / "acme"), life=f"{rig.log.epoch}/0")
        assert not tables.settle(lambda _: "sold_at", before=date(2023, 11, 14))  # the day is not over
        assert tables.settle(lambda _: "sold_at", before=date(2023, 11, 15))
        assert not tables.settle(lambda _: "sold_at", before=date(2023, 11, 15))
        tables.vacuum()
        after = tables.view("sales")
        assert before is not None
        assert after is not None
        assert (len(before.files), len(after.files)) == (3, 1)
        assert pq.ParquetFile(after.files[0].path).read(["sale_id"]).column(0).to_pylist() == [1, 2, 3]
        assert arrow_of(list(reading.chunks)).column(0).to_pylist() == [
            3,
            1,
            2,
        ]  # of files that were replaced meanwhile
        tables.append("sales", to_table({"sale_id": 4}), COLUMNS, until=4)
        assert len(tables.view("sales").files) == 2  # type: ignore[union-attr]


async def test_the_lake_puts_days_that_are_over_in_order_at_its_start(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        for n in range(3):
            await side.append(sale(n))
            await side.flush()
    async with read_side(rig) as side:
        await side.flush()

        async def settled() -> bool:
            table = await side.lake.table("acme", "sales")
            return table is not None and len(table.files) == 1

        async with asyncio.timeout(30):
            while not await settled():
                await asyncio.sleep(0.05)
        assert [row["sale_id"] for row in await side.rows("sales", ["sale_id"])] == [0, 1, 2]


async def test_tells_how_long_records_wait_for_it(rig: Any, monkeypatch: Any) -> None:
    def waiting() -> float:
        return REGISTRY.get_sample_value("counterfoil_ingest_lake_behind_seconds") or 0.0

    def fails(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig, commit_seconds=0.05) as side:
        await side.append(sale(1))
        await _until(lambda: waiting() == 0 and (rig.folder / "lake/acme/sales").exists())
        with monkeypatch.context() as full:
            full.setattr(WorkspaceTables, "append", fails)
            await side.append(sale(2))
            await _until(lambda: waiting() > 0.5)
        await _until(lambda: waiting() == 0)


async def test_says_so_when_it_cannot_catch_up_in_time(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig, run=False) as side:
        await side.append(sale(1))
        with pytest.raises(LakeBehindError):
            await side.flush_within(0.05)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2017-03-01T12:00:00", "2017-03-01T17:00:00"),
        ("2017-03-01 12:00", "2017-03-01T17:00:00"),
        ("2017-03-01T12:00:00Z", "2017-03-01T12:00:00"),
        ("2017-03-01t12:00:00.5z", "2017-03-01T12:00:00.500000"),
        ("2017-03-01T12:00:00.123456789+01:00", "2017-03-01T11:00:00.123456"),
        ("2017-11-05T01:30:00", "2017-11-05T05:30:00"),  # twice on that night: the first time
        ("2017-03-12T02:30:00", "2017-03-12T07:30:00"),  # never on that night
        ("2017-13-01T12:00:00", None),
        ("yesterday", None),
        (17, None),
    ],
)
@pytest.mark.parametrize("neighbour", ["2017-01-01T00:00:00", "2017-01-01T00:00:00Z", None, 5])
def test_reads_timestamps_alike_whatever_stands_beside_them(value: Any, expected: str | None, neighbour: Any) -> None:
    table = to_table({"sold_at": value}, {"sold_at": neighbour})
    found = table["sold_at"][0].as_py()
    assert (found and found.replace(tzinfo=None).isoformat()) == expected
    assert table["_extra"][0].as_py() == (None if expected else orjson.dumps({"sold_at": value}).decode())


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.sampled_from(["1", "-2.5", "2017-03-01", "true"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys([*SALES, "more"], _json)), min_size=1, max_size=5))
def test_no_record_fails_and_no_value_is_lost(values: list[dict[str, Any]]) -> None:
    table = to_table(*values)
    for value, row in zip(values, table.to_pylist(), strict=True):
        extra = orjson.loads(row["_extra"] or "{}")
        for name, held in value.items():
            if held is None:
                continue
            assert (name in extra) != (row.get(name) is not None)
            if name in extra:
                assert extra[name] == held


_spellings = {
    "sale_id": [
        "1",
        "-0",
        "1.0",
        "1e3",
        "1.5",
        "9223372036854775807",
        "9223372036854775808",
        "1E-2",
        '"7"',
        "true",
    ],
    "shop": ['"a"', '""', '"\\u00e9 \\n"', "null", "5", '{"a":1}'],
    "amount": ["0.1", "1", "-0.0", "1e-7", "123456789012345678", "9007199254740993", "1E5", "5e-324", '"0.5"', "false"],
    "paid": ["true", "false", "null", '"true"', "1"],
    "day": ['"2017-03-01"', '"2017-02-30"', '"2017-03-01 "', '"0001-01-01"', "20170301", "null"],
    "sold_at": [
        '"2017-03-01T12:00:00"',
        '"2017-03-01T12:00:00Z"',
        '"2017-03-12T02:30:00"',
        '"2017-03-01T12:00:00.1234567+01:00"',
    ],
    "more": ["1", "null"],
    "tags": ['{"b":1,"a":[1.0,1e2]}', "[]", "null", '"text"', "17", '{"k":"null"}'],
}
_spelled = st.fixed_dictionaries({}, optional={name: st.sampled_from(texts) for name, texts in _spellings.items()}).map(
    lambda found: b"{%b}" % b",".join(f'"{name}":{text}'.encode() for name, text in found.items())
)


@given(st.lists(_spelled, min_size=1, max_size=4))
def test_reads_every_spelling_in_one_step_as_it_does_one_by_one(texts: list[bytes]) -> None:
    columns = [*COLUMNS, LakeColumn("tags", ColumnType.JSON)]
    together = to_table(*texts, columns=columns)
    text = b"".join(b'{"o":%d,"h":0,"d":"sales","i":"r%d","r":%b}\n' % (n, n, each) for n, each in enumerate(texts))
    for extras in ((), ("more",), ("else", "more")):
        if (lines := read_lines(text, tuple(columns), extras)) is not None:
            whole = LakeRecords("sales", tuple(columns))
            whole.add(lines, [Header("api", 1_700_000_000_000_000, "", {"sales": "1.0.0"})], typed=True)
            assert whole.table(()).equals(together)
    # The record beside it has an undeclared property, so that both are read one by one.
    alone = [to_table(text, b'{"odd":1}', columns=columns).slice(0, 1) for text in texts]
    names = [column.name for column in columns]
    assert together.select([*names, "_extra"]).equals(pa.concat_tables(alone).select([*names, "_extra"]))


def _flat(number: int) -> dict[str, Any]:
    return orjson.loads(sale(number).data)


def test_reads_plain_records_the_same_way_in_one_step_and_one_by_one() -> None:
    plain = [_flat(n) for n in range(50)]
    fast = to_table(*plain)
    slow = to_table(*plain, {"more": 1}).slice(0, 50)
    assert fast.equals(slow)
    assert fast.schema.field("sold_at").type == pa.timestamp("us", "UTC")


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.02)


async def test_says_that_the_lake_cannot_be_read_and_not_where_it_lies(rig: Any) -> None:
    (rig.folder / "lake").mkdir()
    (rig.folder / "lake/acme").write_bytes(b"where a folder should be")
    async with read_side(rig, run=False) as side:
        with pytest.raises(LakeUnavailableError) as told:
            await side.lake.table("acme", "visits")
        assert str(rig.folder) not in told.value.message
        with pytest.raises(LakeUnavailableError):
            await side.lake.rows_before("acme", "visits", date(2026, 11, 20))
