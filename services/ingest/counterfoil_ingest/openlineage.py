"""What ingest's jobs read and write, as lineage is told it: imports, and the lake as it follows the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from counterfoil_chassis.canonical import canonical_json
from counterfoil_chassis.clock import from_micros
from counterfoil_chassis.lineage import LineageDataset, facet, run_event, run_id_of

from counterfoil_ingest.import_jobs import SOURCE_ID, Import, State

SERVICE: Final = "ingest"
_LONGEST_NAME: Final = 200
_ENDS: Final = {State.SUCCEEDED: "COMPLETE", State.FAILED: "FAIL"}


@dataclass(frozen=True)
class LakeShape:
    """What is worth telling of a dataset in the lake: its columns (name, type) and the sources of its records."""

    columns: tuple[tuple[str, str], ...] = ()
    sources: frozenset[str] = field(default_factory=frozenset)


def lake_event(workspace: str, dataset: str, shape: LakeShape, *, at: datetime) -> dict[str, Any]:
    """Return the event that the lake has a dataset in this shape: a run goes on until another shape, without end.

    The same shape is the same run, so that it can be told again after a restart.
    """
    sources = sorted(shape.sources - {SOURCE_ID})  # an import is told as a job of its own
    shaped = canonical_json({"columns": shape.columns, "sources": sources}).decode()
    return run_event(
        SERVICE,
        f"lake/{dataset}",
        run_id=run_id_of(SERVICE, workspace, dataset, shaped),
        state="RUNNING",
        at=at,
        inputs=[LineageDataset(f"sources/{source}", type="SOURCE") for source in sources],
        outputs=[LineageDataset(dataset, fields=shape.columns)],
        processing="STREAMING",
    )


def import_event(ended: Import) -> dict[str, Any] | None:
    """Return the event that an import ended, None for one that has not, or whose datasets its file names."""
    state = _ENDS.get(ended.state)
    if state is None or not ended.dataset or not ended.finished_at:
        return None
    file = "".join(each for each in ended.file_name if each.isprintable())[:_LONGEST_NAME] or ended.file_sha256
    read = facet(SERVICE, "InputStatisticsInputDatasetFacet", rowCount=ended.rows_read, size=ended.file_bytes)
    written = facet(SERVICE, "OutputStatisticsOutputDatasetFacet", rowCount=ended.rows_accepted)
    return run_event(
        SERVICE,
        f"import/{ended.dataset}",
        run_id=ended.import_id,
        state=state,
        at=from_micros(ended.finished_at),
        inputs=[
            LineageDataset(
                file,
                namespace="file",
                type="FILE",
                version=ended.file_sha256,
                role_facets={"inputStatistics": read},
            )
        ],
        outputs=_written(ended, {"outputStatistics": written}),
    )


def _written(ended: Import, facets: dict[str, Any]) -> Sequence[LineageDataset]:
    if ended.state is not State.SUCCEEDED:
        return ()
    version = f"{ended.log_epoch}/{ended.snapshot_offset}/{ended.erasure_revision}"
    return [LineageDataset(ended.dataset, version=version, role_facets=facets)]
