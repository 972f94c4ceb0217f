"""What ingest tells lineage: imports that ended, and the lake when a dataset's shape changes, not at each commit."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from counterfoil_contracts.lineage.entities import RunState
from counterfoil_contracts.lineage.events import read_event
from counterfoil_ingest.import_jobs import Format, Import, State
from counterfoil_ingest.openlineage import LakeShape, import_event, lake_event
from counterfoil_ingest.registry import ColumnType

from tests.ingest.read_rig import SALES, contract, read_side, sale

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
IMPORT = Import(
    workspace="default",
    import_id="0197227a-0000-7000-8000-000000000001",
    dataset="sales",
    format=Format.CSV,
    file_name="sales\n2025.csv",
    file_bytes=10,
    file_sha256="ab" * 32,
    created_by="ada",
    traceparent="",
    created_at=1,
)


def test_an_import_is_told_when_it_ends_with_its_file_and_its_snapshot() -> None:
    ended = replace(IMPORT, state=State.SUCCEEDED, finished_at=2, snapshot_offset=7, log_epoch="e", rows_accepted=3)
    event = import_event(ended)
    assert event is not None
    told = read_event(orjson.dumps(event))
    assert (told.run_id, told.state) == (IMPORT.import_id, RunState.COMPLETED)
    assert [each.name.name for each in told.inputs] == ["sales2025.csv"]
    [written] = told.outputs
    assert written.facets["version"]["datasetVersion"] == "e/7/0"
    assert written.role_facets["outputStatistics"]["rowCount"] == 3


@pytest.mark.parametrize("state", [State.PENDING, State.RUNNING])
def test_an_import_that_has_not_ended_is_not_told(state: State) -> None:
    assert import_event(replace(IMPORT, state=state)) is None


def test_an_import_that_failed_writes_nothing() -> None:
    event = import_event(replace(IMPORT, state=State.FAILED, finished_at=2))
    assert event is not None
    told = read_event(orjson.dumps(event))
    assert (told.state, told.outputs) == (RunState.FAILED, ())


def test_a_shape_of_a_dataset_is_one_run_however_often_it_is_told() -> None:
    shape = LakeShape((("amount", "DOUBLE"),), frozenset({"shop", "import"}))
    first, again = (
        read_event(orjson.dumps(lake_event("default", "sales", shape, at=at))) for at in (NOON, NOON.replace(hour=13))
    )
    assert (first.run_id, first.state) == (again.run_id, RunState.RUNNING)
    assert [each.name.name for each in first.inputs] == ["sources/shop"]
    grown = LakeShape((*shape.columns, ("shop", "VARCHAR")), shape.sources)
    assert read_event(orjson.dumps(lake_event("default", "sales", grown, at=NOON))).run_id != first.run_id
    assert read_event(orjson.dumps(lake_event("other", "sales", shape, at=NOON))).run_id != first.run_id


async def test_the_lake_tells_a_dataset_when_its_shape_changes_and_not_at_each_commit(rig: Any) -> None:
    rig.contracts.put(contract("sales", SALES))
    async with read_side(rig, commit_seconds=3600) as side:
        for number in range(3):
            await side.append(sale(number))
            await side.lake.flush("acme", rig.log.head("acme"), within=30)
        assert [(workspace, dataset) for workspace, dataset, _ in side.shapes] == [("acme", "sales")]
        rig.contracts.put(contract("sales", SALES | {"new": ColumnType.DOUBLE}, version="2.0.0"))
        await side.append(sale(9, new=1.5))
        await side.lake.flush("acme", rig.log.head("acme"), within=30)
    [(_, _, first), (_, _, second)] = side.shapes
    assert {name for name, _ in second.columns} - {name for name, _ in first.columns} == {"new"}
    assert first.sources == {"api"}
