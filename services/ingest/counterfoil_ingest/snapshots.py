"""Snapshots: name an exact state of a dataset, and read one back from the lake in the order of the log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from counterfoil_ingest.arrow import DAY, SYSTEM_SCHEMA, Chunk, chunks, schema_of
from counterfoil_ingest.entities import UNPLANNED
from counterfoil_ingest.lake import Lake, lake_columns
from counterfoil_ingest.lake_tables import LakeFile, LakeTable
from counterfoil_ingest.read_errors import (
    ColumnUnknownError,
    DatasetNotFoundError,
    SnapshotAheadError,
    SnapshotEpochUnknownError,
    SnapshotErasedError,
)
from counterfoil_ingest.registry import Compiled, Contracts
from counterfoil_ingest.store import Log

_PARTITIONS = (0,)
_ORDER = ("_partition", "_offset")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An exact state of one dataset: its records below the exclusive `offsets`, by partition."""

    dataset: str
    offsets: Mapping[int, int]
    log_epoch: str
    erasure_revision: int


@dataclass(frozen=True, slots=True)
class ContractUsed:
    """A contract version that rows were validated under; id and hash are "" when this process never saw it."""

    contract_id: str
    version: str
    compiled_sha256: str


@dataclass(frozen=True, slots=True)
class Reading:
    """A snapshot opened for reading: draw `chunks` in a thread, it blocks."""

    contracts: Sequence[ContractUsed]
    chunks: Iterator[Chunk]


class Snapshots:
    """Makes and reads snapshots."""

    def __init__(self, log: Log, lake: Lake, contracts: Contracts) -> None:
        self._log = log
        self._lake = lake
        self._contracts = contracts

    async def create(self, workspace: str, dataset: str) -> Snapshot:
        """Return a dataset's state now; raise DatasetNotFoundError when neither a contract nor a record names it."""
        if await self._contracts.find(workspace, dataset) is None and not await self._has_records(workspace, dataset):
            raise DatasetNotFoundError(
                f"There is no dataset `{dataset}`. List the datasets, or activate a contract for it.",
                metadata={"dataset": dataset},
            )
        return await asyncio.to_thread(self.at_head, workspace, dataset)

    def at_head(self, workspace: str, dataset: str) -> Snapshot:
        """Return a dataset's state now, whether or not there is such a dataset; for a thread that may wait."""
        offset = self._log.next_offset(workspace, dataset)  # not the log's head, which records of other datasets move
        return Snapshot(dataset, {0: offset}, self._log.epoch, self._log.erasure_revision)

    def check(self, workspace: str, snapshot: Snapshot) -> None:
        """Raise SnapshotEpochUnknownError, SnapshotErasedError or SnapshotAheadError when it cannot be read.

        For a thread that may wait.
        """
        shared = self._shared_revision(workspace, snapshot)
        if snapshot.erasure_revision > shared or self._is_erased(workspace, snapshot):
            raise SnapshotErasedError(
                "An erasure has changed records since this snapshot was taken. Take a new snapshot.",
                metadata={"erasure_revision": str(self._log.erasure_revision)},
            )
        ahead = [
            p for p, offset in snapshot.offsets.items() if p not in _PARTITIONS or offset > self._log.head(workspace, p)
        ]
        if ahead:
            raise SnapshotAheadError("The snapshot names offsets that the log does not have. Take a new snapshot.")

    def _is_erased(self, workspace: str, snapshot: Snapshot) -> bool:
        """Tell whether an erasure since has changed what the snapshot names; most change other datasets."""
        revision = snapshot.erasure_revision
        return revision != self._log.erasure_revision and any(
            self._log.erased_since(workspace, snapshot.dataset, revision, partition=partition, below=offset)
            for partition, offset in snapshot.offsets.items()
        )

    def _shared_revision(self, workspace: str, snapshot: Snapshot) -> int:
        """Return the last erasure revision that the snapshot's life of the log shares with this one."""
        if snapshot.log_epoch == self._log.epoch:
            return self._log.erasure_revision
        life = self._log.predecessors.get(snapshot.log_epoch)
        if life is None:
            raise SnapshotEpochUnknownError(
                "The snapshot belongs to another life of the log, which was restored since. Take a new snapshot.",
                metadata={"log_epoch": self._log.epoch},
            )
        if any(offset > life.head(workspace, partition) for partition, offset in snapshot.offsets.items()):
            raise SnapshotEpochUnknownError(
                "The snapshot names records that came in after the backup which the log was restored from; they are "
                "lost. Take a new snapshot.",
                metadata={"log_epoch": self._log.epoch},
            )
        return life.erasure_revision

    async def open(self, workspace: str, snapshot: Snapshot, *, columns: Sequence[str], within: float) -> Reading:
        """Bring the lake to a snapshot (at most `within` seconds) and open it; raises also ColumnUnknownError.

        No `columns` means those of the contract.
        """
        await asyncio.to_thread(self.check, workspace, snapshot)
        compiled = await self._contracts.find(workspace, snapshot.dataset)
        if compiled is None and not await self._has_records(workspace, snapshot.dataset):
            raise DatasetNotFoundError(f"There is no dataset `{snapshot.dataset}`. List the datasets to find it.")
        await self._lake.flush(workspace, max(snapshot.offsets.values(), default=0), within=within)
        table = await self._lake.table(workspace, snapshot.dataset)
        known = known_schema(compiled, table)
        schema = _chosen(known, columns or [column.name for column in lake_columns(compiled)] or ["_extra"])
        if table is None:
            return Reading((), chunks((), schema))
        versions = _versions(table.files, snapshot.offsets)
        used = [self.contract_used(workspace, snapshot.dataset, version) for version in sorted(versions)]
        return Reading(used, chunks(_tables(table.files, snapshot.offsets, schema), schema))

    def contract_used(self, workspace: str, dataset: str, version: str) -> ContractUsed:
        """Return what is known of a contract version that records were validated under."""
        compiled = self._contracts.version(workspace, dataset, version)
        if compiled is not None:
            return ContractUsed(compiled.contract_id, version, compiled.compiled_sha256)
        current = self._contracts.in_force(workspace, dataset)
        return ContractUsed(current.contract_id if current else "", version, "")

    async def _has_records(self, workspace: str, dataset: str) -> bool:
        if dataset == UNPLANNED:
            return True
        return any(each.dataset == dataset for each in await asyncio.to_thread(self._log.counts, workspace))


def known_schema(compiled: Compiled | None, table: LakeTable | None) -> pa.Schema:
    """Return every column that can be asked for: the contract's, those the table has beyond it, then the lake's own."""
    fields = {field.name: field for field in schema_of(lake_columns(compiled)) if field.name not in SYSTEM_SCHEMA.names}
    for field in table.schema if table else ():
        if field.name not in SYSTEM_SCHEMA.names:
            fields[field.name] = field  # the table's type: a column keeps its first one
    return pa.schema([*fields.values(), *SYSTEM_SCHEMA])


def _chosen(known: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    unknown = [name for name in columns if name not in known.names]
    if unknown:
        raise ColumnUnknownError(
            f"There is no column `{unknown[0]}`. The columns are: {', '.join(known.names)}.",
            metadata={"column": unknown[0]},
        )
    return pa.schema([known.field(name) for name in dict.fromkeys(columns)])


def _versions(files: Iterable[LakeFile], offsets: Mapping[int, int]) -> set[str]:
    """Return the contract versions among the rows of a snapshot; a file's statistics often tell without reading it."""
    found: set[str] = set()
    for partition, limit in offsets.items():
        for file in _of(files, partition, limit):
            if file.contract_version is not None and file.last_offset < limit:
                found.add(file.contract_version)
                continue
            rows = _read(file, ["_contract_version"], partition=partition, limit=limit)
            found.update(version for version in pc.unique(rows.column(0)).to_pylist() if version)
    return found


def _tables(files: Sequence[LakeFile], offsets: Mapping[int, int], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of a snapshot in the order of the log, reading files together only where their offsets overlap."""
    for partition, limit in sorted(offsets.items()):
        for group in _overlapping(_of(files, partition, limit)):
            parts = [_read(file, schema.names, partition=partition, limit=limit, types=schema) for file in group]
            rows = pa.concat_tables(parts)
            offset = rows.column("_offset")
            order = offset.to_numpy()
            if len(order) > 1 and not (np.diff(order) > 0).all():
                rows = rows.take(pc.sort_indices(offset))
            yield rows.select(schema.names)


def _of(files: Iterable[LakeFile], partition: int, limit: int) -> list[LakeFile]:
    """Return the files that may hold rows of a partition below an offset."""
    return [
        file for file in files if file.first_partition <= partition <= file.last_partition and file.first_offset < limit
    ]


def _overlapping(files: Iterable[LakeFile]) -> Iterator[list[LakeFile]]:
    group: list[LakeFile] = []
    end = -1
    for file in sorted(files, key=lambda file: (file.first_offset, file.path)):
        if group and file.first_offset > end:
            yield group
            group = []
        group.append(file)
        end = max(end, file.last_offset)
    if group:
        yield group


def _read(
    file: LakeFile, names: Sequence[str], *, partition: int, limit: int, types: pa.Schema | None = None
) -> pa.Table:
    """Read some columns, and those that tell the order, of a file's rows; a column it lacks is null."""
    try:
        parquet = pq.ParquetFile(file.path)
    except FileNotFoundError as error:
        raise SnapshotErasedError(
            "An erasure has changed records while they were read. Take a new snapshot."
        ) from error
    present = set(parquet.schema_arrow.names)
    rows = parquet.read([name for name in dict.fromkeys((*names, *_ORDER)) if name in present])
    for field in types or ():
        if field.name == DAY:
            rows = rows.append_column(field, pa.repeat(pa.scalar(file.day, pa.date32()), len(rows)))
        elif field.name not in present:
            rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    if types is not None:
        order = [SYSTEM_SCHEMA.field(name) for name in _ORDER if name not in types.names]
        target = pa.schema([*types, *order])
        rows = rows.select(target.names).cast(target)
    if file.last_offset >= limit or file.first_partition != file.last_partition:
        rows = rows.filter((pc.field("_partition") == partition) & (pc.field("_offset") < limit))
    return rows
