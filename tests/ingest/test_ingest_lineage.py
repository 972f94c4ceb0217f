"""A restored log continues the lives before it up to the backup, and refuses what it lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from counterfoil_ingest.lineage import Predecessor, from_text, to_text
from counterfoil_ingest.read_errors import EpochUnknownError, SnapshotEpochUnknownError, SnapshotErasedError
from counterfoil_ingest.reading import LogReader
from hypothesis import given
from hypothesis import strategies as st

from tests.ingest.read_rig import SALES, contract, read_side, sale


@given(
    st.lists(
        st.builds(
            Predecessor,
            epoch=st.text(),
            erasure_revision=st.integers(0, 9),
            ended_at=st.integers(0, 1 << 60),
            heads=st.dictionaries(st.tuples(st.text(), st.integers(0, 9)), st.integers(0, 1 << 60)),
        )
    )
)
def test_lives_are_stored_as_they_are(lives: list[Predecessor]) -> None:
    assert from_text(to_text(lives)) == tuple(lives)


async def test_a_snapshot_of_the_life_before_is_read_up_to_the_backup(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig) as side:
        await side.append(sale(1), sale(2))
        taken = await side.snapshots.create("acme", "sales")
        await side.append(sale(3))
        later = await side.snapshots.create("acme", "sales")
        rig.log.predecessors = {"older": Predecessor("older", 0, 1, {("acme", 0): 2})}

        reading = await side.snapshots.open("acme", replace(taken, log_epoch="older"), columns=[], within=5)
        assert sum(chunk.rows for chunk in reading.chunks) == 2
        for cited, error, said in (
            (replace(later, log_epoch="older"), SnapshotEpochUnknownError, "they are lost"),
            (replace(taken, log_epoch="oldest"), SnapshotEpochUnknownError, "another life"),
            (replace(taken, log_epoch="older", erasure_revision=1), SnapshotErasedError, "erasure"),
        ):
            with pytest.raises(error, match=said):
                await side.snapshots.open("acme", cited, columns=[], within=5)


async def test_a_reader_of_the_life_before_goes_on_up_to_the_backup(rig: Any) -> None:
    reader = LogReader(rig.log, contracts=rig.contracts)
    rig.log.predecessors = {"older": Predecessor("older", 0, 1, {("acme", 0): 2})}
    for epoch, offset in (("", 9), (rig.log.epoch, 0), ("older", 0), ("older", 2)):
        reader.check("acme", 0, log_epoch=epoch, from_offset=offset)
    for workspace, epoch, offset, said in (
        ("acme", "older", 3, "ends at offset 2"),
        ("zeta", "older", 1, "ends at offset 0"),
        ("acme", "oldest", 0, "does not continue"),
        ("acme", rig.log.epoch, 1, "ends at offset 0, before what the reader has read"),
    ):
        with pytest.raises(EpochUnknownError, match=said) as refused:
            reader.check(workspace, 0, log_epoch=epoch, from_offset=offset)
        assert refused.value.reason == "LOG_EPOCH_UNKNOWN"
        assert "read again from offset 0 with an empty log_epoch" in refused.value.message
    assert reader.predecessors("acme", 0) == {"older": 2}
    assert reader.predecessors("zeta", 0) == {"older": 0}
