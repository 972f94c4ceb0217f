"""From snapshots to series: the one way that training, forecasting and replay read their data."""

from collections.abc import Sequence
from dataclasses import dataclass

from counterfoil_chassis.worker import Worker

from counterfoil_models.entities import Contract, ForecastSpec, Input
from counterfoil_models.series import SeriesTable, cut, lookup_columns, series_columns
from counterfoil_models.store import SnapshotSource

SERIES_ROLE = "series"
LOOKUP_ROLE = "lookup"


@dataclass(frozen=True)
class Reading:
    """The series of snapshots, how many records each input held (in the order of the inputs), and their contracts."""

    table: SeriesTable
    rows: tuple[int, ...]
    contracts: tuple[Contract, ...]


async def take_inputs(source: SnapshotSource, spec: ForecastSpec) -> tuple[Input, ...]:
    """Take a snapshot of each dataset a model needs, on behalf of the running request's caller."""
    inputs = [Input(SERIES_ROLE, await source.take(spec.series.dataset))]
    if spec.series.lookup is not None:
        inputs.append(Input(LOOKUP_ROLE, await source.take(spec.series.lookup.dataset)))
    return tuple(inputs)


async def read_series(
    source: SnapshotSource,
    worker: Worker,
    *,
    spec: ForecastSpec,
    timezone: str,
    inputs: Sequence[Input],
    workspace: str,
) -> Reading:
    """Read the snapshots and cut their series; raises what `SnapshotSource.read` and `series.cut` raise."""
    columns = {SERIES_ROLE: series_columns(spec.series), LOOKUP_ROLE: lookup_columns(spec.series)}
    reads = {one.role: await source.read(one.snapshot, columns[one.role], workspace=workspace) for one in inputs}
    lookup = reads.get(LOOKUP_ROLE)
    table = await worker.run(
        cut, spec.series, timezone, reads[SERIES_ROLE].table, None if lookup is None else lookup.table
    )
    contracts = dict.fromkeys(contract for read in reads.values() for contract in read.contracts)
    return Reading(table, tuple(reads[one.role].rows for one in inputs), tuple(contracts))
