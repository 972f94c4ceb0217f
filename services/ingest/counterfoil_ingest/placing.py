"""Gives judged records their places in the log, many requests per commit; runs in the log writer's thread.

Most batches are all new. Such a batch is placed in passes over its columns that run in C, with no object per record;
record by record goes only what holds a duplicate, a record for quarantine, or one whose contract is not known.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, compress, repeat
from typing import Any, cast

import msgspec
import numpy as np
import orjson
from counterfoil_chassis.clock import Ids

from counterfoil_ingest import blocks, reused_ids
from counterfoil_ingest.dedup import Dedup, Hashes, Marks, Offsets, erased_name, hashes_of, seed_of
from counterfoil_ingest.entities import (
    Block,
    Erased,
    Finding,
    Header,
    Outcome,
    Quarantined,
    Reverted,
    Verdict,
    Verdicts,
)
from counterfoil_ingest.store import LogTransaction, LogWriter

PARTITION = 0
"""The one partition that version 1 writes."""

Quarantine = Callable[[Quarantined], str]
"""Keeps a record in quarantine; returns the id that it has there."""

_BLOCK_RECORDS = 5_000
_BLOCK_BYTES = 2 << 20  # of lines; with what is written at once on top, a block fits into a gRPC message of 8 MiB
_WHOLE_BYTES = 1 << 20  # a batch of more is written in parts; no single record is larger


@dataclass(frozen=True, slots=True)
class Judged:
    """One batch on its way to the log, as columns; their indexes are those of its records.

    `datas` are the records' JSON, as text in one line or as structs that msgspec writes so. `refused` holds what goes
    to quarantine; of a dataset in `unknown` nobody can say now what its contract is. `size` is the records' in bytes,
    or an upper bound of it. `replayed` are the ids in quarantine of records that come from there, which is where one
    goes again, as it lies there, whose id another record has. `apart` are the headers of records that each came by
    itself, `header` then the first of them. `origins` are what was sent, parsed, of which the records were made; None
    where that is the record itself.
    """

    workspace: str
    header: Header
    ids: Sequence[str]
    datasets: Sequence[str]
    datas: Sequence[bytes] | Sequence[msgspec.Struct]
    refused: Mapping[int, Quarantined]
    unknown: frozenset[str]
    size: int = -1
    replayed: Sequence[str] = ()
    apart: Sequence[Header] = ()
    origins: Sequence[Any] = ()

    def header_of(self, index: int) -> Header:
        """Return the header of the request that brought a record."""
        return self.apart[index] if self.apart else self.header

    def bytes(self) -> int:
        """Return `size`, which those who give texts may leave out."""
        return self.size if self.size >= 0 else sum(map(len, cast("Sequence[bytes]", self.datas)))


class Group:
    """What one commit writes."""

    def __init__(self, log: LogWriter, table: Dedup, ids: Ids) -> None:
        self._log = log
        self._ids = ids
        self._table = table
        self._blocks: dict[str, _BlockWriter] = {}
        self._runs: dict[tuple[str, str], list[_Run]] = {}
        self._hashes: list[Hashes] = []
        self._offsets: list[Offsets] = []
        self.heads: dict[tuple[str, int], int] = {}
        self.placed = 0
        """How many records the log takes."""

    def place(self, batches: Sequence[Judged], transaction: LogTransaction) -> list[Verdicts]:
        """Give each record its place: the log, quarantine, or none."""
        hashes = _hashes(batches)
        doubtful = self._doubtful(hashes)
        verdicts, start = [], 0
        for batch in batches:
            stop = start + len(batch.ids)
            verdicts.append(self._place(batch, hashes[start:stop], doubtful[start:stop], transaction))
            start = stop
        for block in self._blocks.values():
            block.write()
        return verdicts

    def enter(self) -> None:
        """Enter what was placed in the table, once that is in the log for good and there is room."""
        if self.placed:
            hashes, offsets = np.concatenate(self._hashes), np.concatenate(self._offsets)
            self._table.enter(hashes, offsets, watermark=self._log.last_sequence())

    def look_up(self, batch: Judged) -> list[Verdict]:
        """Return what would become of records; nothing is written."""
        hashes, head = _hashes([batch]), self._log.head(batch.workspace, PARTITION)
        return self._one_by_one(head, batch, hashes, self._doubtful(hashes), lambda each: each.quarantine_id)

    def _doubtful(self, hashes: Hashes) -> Marks:
        """Mark what may have a namesake, in the log or among these: ids that share a hash with another."""
        doubtful = self._table.contains(hashes)
        if len(set(hashes.tolist())) < len(hashes):
            _, places, counts = np.unique(hashes, return_inverse=True, return_counts=True)
            doubtful |= counts[places] > 1
        return doubtful

    def _place(self, batch: Judged, hashes: Hashes, doubtful: Marks, transaction: LogTransaction) -> Verdicts:
        writer = self._writer(batch.workspace, transaction)
        if not batch.refused and not batch.unknown and not doubtful.any():
            first = self._append(writer, batch, hashes, transaction)
            return Verdicts.all_accepted(batch.ids, batch.datasets, PARTITION, first)
        found = self._one_by_one(writer.next_offset, batch, hashes, doubtful, transaction.add_quarantined)
        accepted = [each.outcome is Outcome.ACCEPTED for each in found]
        kept = Judged(
            workspace=batch.workspace,
            header=batch.header,
            ids=list(compress(batch.ids, accepted)),
            datasets=list(compress(batch.datasets, accepted)),
            datas=list(compress(cast("Sequence[bytes]", batch.datas), accepted)),
            refused={},
            unknown=frozenset(),
            size=batch.size,
            apart=list(compress(batch.apart, accepted)),
        )
        if kept.ids:
            self._append(writer, kept, hashes[accepted], transaction)
        return Verdicts(found)

    def _one_by_one(
        self,
        first: int,
        batch: Judged,
        hashes: Hashes,
        doubtful: Marks,
        quarantine: Quarantine,
    ) -> list[Verdict]:
        """Return the verdicts of a batch; those accepted are still to be appended, in their order from `first` on."""
        verdicts: list[Verdict] = []
        own: dict[tuple[str, str], _Older] = {}
        for index, (record_id, dataset) in enumerate(zip(batch.ids, batch.datasets, strict=True)):
            older = own.get((dataset, record_id))
            if older is None and doubtful[index]:
                older = self._older(batch, dataset, record_id, int(hashes[index]))
            refused = batch.refused.get(index)
            names = older.differing(batch, index) if older is not None else []
            if older is not None and not names:
                verdict = Verdict(Outcome.DUPLICATE, record_id, dataset, PARTITION, older.offset)
            elif older is not None:
                verdict = self._reused(batch, index, reused_ids.finding(names, older.offset), quarantine)
            elif refused is not None:
                verdict = _quarantined(refused, quarantine)
            elif dataset in batch.unknown:
                verdict = Verdict(Outcome.RETRY, record_id, dataset)
            else:
                offset = first + len(own)
                own[dataset, record_id] = _Older(offset, batch.header_of(index), batch.datas[index])
                verdict = Verdict(Outcome.ACCEPTED, record_id, dataset, PARTITION, offset)
            verdicts.append(verdict)
        return verdicts

    def _reused(self, batch: Judged, index: int, finding: Finding, quarantine: Quarantine) -> Verdict:
        """Return the verdict of a record whose id another has: it is kept in quarantine, where a replayed one is."""
        record_id, dataset, header = batch.ids[index], batch.datasets[index], batch.header_of(index)
        if batch.replayed:
            lies_at = batch.replayed[index]
            return Verdict(Outcome.QUARANTINED, record_id, dataset, quarantine_id=lies_at, findings=(finding,))
        refused = batch.refused.get(index)
        if refused is not None:
            return _quarantined(replace(refused, findings=(*refused.findings, finding)), quarantine)
        data = _text(batch.datas[index])
        origin = batch.origins[index] if batch.origins else None
        reused = Quarantined(
            quarantine_id=self._ids.new(),
            workspace=batch.workspace,
            dataset=dataset,
            source_id=header.source_id,
            record_id=record_id,
            findings=(finding,),
            contract_id="",
            contract_version="",
            received_at=header.received_at,
            traceparent=header.traceparent,
            raw=data if origin is None else orjson.dumps(origin),
            record=b"" if origin is None else data,
        )
        return _quarantined(reused, quarantine)

    def _append(self, writer: _BlockWriter, batch: Judged, hashes: Hashes, transaction: LogTransaction) -> int:
        """Append every record of a batch; return the offset of the first."""
        first = writer.next_offset
        writer.append(batch)
        source_id, times = batch.header.source_id, [each.received_at for each in batch.apart or (batch.header,)]
        transaction.add_arrived(batch.workspace, source_id, records=len(batch.ids), received_at=min(times))
        if batch.apart:
            transaction.add_arrived(batch.workspace, source_id, records=0, received_at=max(times))
        self._runs.setdefault((batch.workspace, source_id), []).append(_Run(first, batch))
        self._hashes.append(hashes)
        self._offsets.append(np.arange(first, writer.next_offset, dtype=np.uint64))
        self.placed += len(hashes)
        self.heads[batch.workspace, PARTITION] = writer.next_offset
        return first

    def _writer(self, workspace: str, transaction: LogTransaction) -> _BlockWriter:
        writer = self._blocks.get(workspace)
        if writer is None:
            head = self._log.head(workspace, PARTITION)
            writer = self._blocks[workspace] = _BlockWriter(workspace, head, transaction)
        return writer

    def _older(self, batch: Judged, dataset: str, record_id: str, hash_: int) -> _Older | None:
        """Return the record with this very id; another id may share its hash."""
        source_id = batch.header.source_id
        for run in self._runs.get((batch.workspace, source_id), ()):
            placed = run.find(dataset, record_id)
            if placed is not None:
                return placed
        for offset in self._table.matches(hash_):
            if offset >= self._log.head(batch.workspace, PARTITION):
                continue  # of another workspace, whose log is longer
            name = self._log.identify(batch.workspace, PARTITION, offset)
            if isinstance(name, Reverted):
                continue  # it was taken back, so that it may come again
            if isinstance(name, Erased):
                if name == erased_name(batch.workspace, source_id, dataset, record_id):
                    return _Older(offset, batch.header, None)
            elif name == (source_id, dataset, record_id):
                data, header = self._log.recall(batch.workspace, PARTITION, offset)
                return _Older(offset, header, data)
        return None


@dataclass(frozen=True, slots=True)
class _Older:
    """The record that has an id; of an erased one there is no `data`."""

    offset: int
    header: Header
    data: bytes | msgspec.Struct | None

    def differing(self, batch: Judged, index: int) -> list[str]:
        """Return in what a record under the same id differs; of an erased one nobody can say, and it stays erased."""
        if self.data is None:
            return []
        at, older_at = batch.header_of(index).received_at, self.header.received_at
        return reused_ids.differing(
            _text(batch.datas[index]), _text(self.data), received_at=at, older_received_at=older_at
        )


class _Run:
    """Records of one batch that this commit has placed, one after the other."""

    def __init__(self, first: int, batch: Judged) -> None:
        self._first = first
        self._batch = batch
        self._indexes: dict[tuple[str, str], int] = {}

    def find(self, dataset: str, record_id: str) -> _Older | None:
        """Return a record; the index is made when somebody asks, which is seldom."""
        batch = self._batch
        if not self._indexes:
            self._indexes = {key: index for index, key in enumerate(zip(batch.datasets, batch.ids, strict=True))}
        index = self._indexes.get((dataset, record_id))
        if index is None:
            return None
        return _Older(self._first + index, batch.header_of(index), batch.datas[index])


class _BlockWriter:
    """Fills blocks of one workspace and writes each when it is full."""

    def __init__(self, workspace: str, first_offset: int, transaction: LogTransaction) -> None:
        self.next_offset = first_offset
        self._workspace = workspace
        self._transaction = transaction
        self._size = 0
        self._empty()

    def append(self, batch: Judged) -> None:
        """Append every record of a batch."""
        start, count = 0, len(batch.ids)
        is_large, datas = batch.bytes() > _WHOLE_BYTES, batch.datas
        if is_large:
            datas = blocks.texts(datas)
        while start < count:
            stop = min(start + _BLOCK_RECORDS - self._count, count)
            if is_large:
                sizes = list(accumulate(map(len, cast("Sequence[bytes]", datas[start:stop])), initial=self._size))
                stop = start + max(1, bisect_left(sizes, _BLOCK_BYTES, hi=stop - start))
            datasets = batch.datasets[start:stop]
            headers: Sequence[Header] = batch.apart[start:stop] or (batch.header,)
            places = itertools.count(len(self._headers)) if batch.apart else repeat(len(self._headers))
            text = blocks.lines(self.next_offset, places, datasets, batch.ids[start:stop], datas[start:stop])
            self._headers += headers
            self._texts.append(text)
            self._size += len(text)
            self._note(datasets)
            self._count += stop - start
            self.next_offset += stop - start
            start = stop
            if self._count >= _BLOCK_RECORDS or self._size >= _BLOCK_BYTES:
                self.write()

    def _note(self, datasets: Sequence[str]) -> None:
        """Note of which datasets the next records are: of one, mostly."""
        first = self.next_offset
        if datasets.count(datasets[0]) == len(datasets):
            counts = {datasets[0]: len(datasets)}
            self._last[datasets[0]] = first + len(datasets) - 1
        else:
            counts = Counter(datasets)
            self._last.update(zip(datasets, range(first, first + len(datasets)), strict=True))
        for dataset, count in counts.items():
            self._datasets[dataset] = self._datasets.get(dataset, 0) + count

    def write(self) -> None:
        """Write the block if it holds anything, and begin another."""
        if not self._texts:
            return
        block = Block(
            workspace=self._workspace,
            partition=PARTITION,
            first_offset=self.next_offset - self._count,
            count=self._count,
            layout=blocks.LAYOUT,
            payload=blocks.encode(self._texts),
            headers=tuple(self._headers),
        )
        self._transaction.add_block(block, datasets=self._datasets, last_offsets=self._last)
        self._empty()

    def _empty(self) -> None:
        self._texts: list[bytes] = []
        self._count = 0
        self._size = 0
        self._headers: list[Header] = []
        self._datasets: dict[str, int] = {}
        self._last: dict[str, int] = {}


def _quarantined(record: Quarantined, quarantine: Quarantine) -> Verdict:
    """Keep a record in quarantine; return its verdict."""
    kept = quarantine(record)
    return Verdict(Outcome.QUARANTINED, record.record_id, record.dataset, quarantine_id=kept, findings=record.findings)


def _text(data: bytes | msgspec.Struct) -> bytes:
    return data if isinstance(data, bytes) else msgspec.json.encode(data)


def _hashes(batches: Sequence[Judged]) -> Hashes:
    """Return the hashes of all records, one batch after the other."""
    seeds = chain.from_iterable(map(_seeds, batches))
    return hashes_of(seeds, blocks.id_texts(list(chain.from_iterable(batch.ids for batch in batches))))


def _seeds(batch: Judged) -> Iterable[int]:
    """Return the seed of each record's hash; a batch is of one dataset, mostly."""
    workspace, source_id, datasets = batch.workspace, batch.header.source_id, batch.datasets
    if datasets and datasets.count(datasets[0]) == len(datasets):
        return repeat(seed_of(workspace, source_id, datasets[0]), len(datasets))
    return [seed_of(workspace, source_id, dataset) for dataset in datasets]
