"""A snapshot names an exact state, and reads back the same whatever came after it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from counterfoil_ingest.arrow import CHUNK_BYTES, CHUNK_ROWS, chunks
from counterfoil_ingest.read_errors import (
    ColumnUnknownError,
    DatasetNotFoundError,
    SnapshotAheadError,
    SnapshotEpochUnknownError,
    SnapshotErasedError,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ingest.read_rig import SALES, arrow_of, contract, read_side, record, sale


async def test_reads_the_same_rows_in_the_same_order_after_later_records_and_compaction(
    rig: Any, monkeypatch: Any
) -> None:
    rig.contracts.put(contract("sales", SALES))
    rig.contracts.put(contract("other", SALES))
    async with read_side(rig) as side:
        day = 86_400_000_000
        for n in range(6):
            await side.append(*(sale(10 * n + k) for k in range(10)), received_at=1_700_000_000_000_000 + n % 2 * day)
            await side.append(record("other", f"o{n}", {"sale_id": n}))
            await side.flush()
        snapshot = await side.snapshots.create("acme", "sales")

        async def read() -> pa.Table:
            reading = await side.snapshots.open("acme", snapshot, columns=["sale_id", "_offset"], within=5)
            return arrow_of(list(reading.chunks))

        first = await read()
        assert first["sale_id"].to_pylist() == list(range(60))
        monkeypatch.setattr("counterfoil_ingest.delta._SMALL_FILES", 2)
        await side.append(*(sale(n) for n in range(60, 75)), received_at=1_600_000_000_000_000)
        await side.flush()
        assert (await read()).equals(first)
        assert len(await side.rows("sales", ["sale_id"])) == 75


async def test_changes_with_its_own_dataset_only(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    rig.contracts.put(contract("other", SALES))
    async with read_side(rig) as side:
        empty = await side.snapshots.create("acme", "sales")
        assert empty.offsets == {0: 0}
        await side.append(sale(1), record("other", "o1", {"sale_id": 1}))
        snapshot = await side.snapshots.create("acme", "sales")
        assert snapshot.offsets == {0: 1}
        await side.append(sale(1), record("other", "o2", {"sale_id": 2}), record("sales", "bad", {"sale_id": "x"}))
        assert await side.snapshots.create("acme", "sales") == snapshot
        await side.append(sale(2), record("other", "o3", {"sale_id": 3}))
        later = await side.snapshots.create("acme", "sales")
        assert later.offsets == {0: 4}
        for taken, rows in ((empty, 0), (snapshot, 1), (later, 2)):
            reading = await side.snapshots.open("acme", taken, columns=["sale_id"], within=5)
            assert sum(chunk.rows for chunk in reading.chunks) == rows


async def test_returns_one_empty_stream_for_an_empty_dataset(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        snapshot = await side.snapshots.create("acme", "sales")
        reading = await side.snapshots.open("acme", snapshot, columns=[], within=5)
        found = list(reading.chunks)
    assert [chunk.rows for chunk in found] == [0]
    assert arrow_of(found).schema.names == list(SALES)
    assert list(reading.contracts) == []


async def test_refuses_what_it_cannot_read_exactly(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        await side.append(sale(1))
        snapshot = await side.snapshots.create("acme", "sales")
        for changed, error in (
            (replace(snapshot, log_epoch="other"), SnapshotEpochUnknownError),
            (replace(snapshot, erasure_revision=7), SnapshotErasedError),
            (replace(snapshot, offsets={0: 99}), SnapshotAheadError),
            (replace(snapshot, offsets={1: 0}), SnapshotAheadError),
            (replace(snapshot, dataset="nothing"), DatasetNotFoundError),
        ):
            with pytest.raises(error):
                await side.snapshots.open("acme", changed, columns=[], within=5)
        with pytest.raises(ColumnUnknownError, match="sale_id, shop, amount"):
            await side.snapshots.open("acme", snapshot, columns=["sale_id", "nope"], within=5)
        with pytest.raises(DatasetNotFoundError):
            await side.snapshots.create("acme", "nothing")
        with pytest.raises(DatasetNotFoundError):
            await side.snapshots.create("zeta", "sales")


async def test_reads_columns_of_a_contract_that_no_row_has_yet(rig: Any) -> None:
    rig.contracts.put(contract("sales", {"sale_id": SALES["sale_id"]}))
    async with read_side(rig) as side:
        await side.append(record("sales", "a", {"sale_id": 1}))
        await side.flush()
        rig.contracts.put(contract("sales", SALES, version="1.1.0"))
        assert await side.rows("sales", ["amount", "sale_id"]) == [{"amount": None, "sale_id": 1}]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 70_000), st.integers(0, 60)), max_size=5))
def test_chunks_keep_every_row_in_order_within_their_limits(tables: list[tuple[int, int]]) -> None:
    schema = pa.schema([("n", pa.int64()), ("text", pa.string())])
    made, start = [], 0
    for rows, width in tables:
        numbers = pa.array(np.arange(start, start + rows))
        made.append(pa.table([numbers, pa.repeat(pa.scalar("x" * width), rows)], schema=schema))
        start += rows
    found = list(chunks(iter(made), schema))
    assert all(chunk.rows <= CHUNK_ROWS for chunk in found)
    assert all(len(zstandard.decompress(chunk.data)) <= CHUNK_BYTES for chunk in found)
    assert arrow_of(found)["n"].to_pylist() == list(range(start))
    assert (len(found) == 1) if start == 0 else all(chunk.rows for chunk in found)


def test_chunks_of_uneven_rows_stay_within_their_limit() -> None:
    sizes = [10] * 1000 + [600_000] * 6 + [3_000_000]
    table = pa.table({"text": pa.array(["x" * size for size in sizes])})
    found = list(chunks([table], table.schema))
    assert [len(text) for text in arrow_of(found)["text"].to_pylist()] == sizes
    assert all(len(zstandard.decompress(chunk.data)) <= CHUNK_BYTES or chunk.rows == 1 for chunk in found)
