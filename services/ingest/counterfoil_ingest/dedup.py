"""Which records the log holds already: a memory-mapped hash table, rebuilt from the log when it cannot be trusted.

A slot is a 64-bit hash of (workspace, source, dataset, record id) and the record's offset. Eight slots make a row, with
their hashes first: numpy reads the rows of many ids at once, a cache line each. Upper bits of the hash choose the row;
when that is full, it is the next. Two ids may share a hash, so a hit only says where to look: the caller reads the
record at that offset and compares the ids. A record is thus never taken for another one.

The file is a cache. Its head names the log it belongs to and the last block it covers (the watermark): blocks after it
are entered when it is opened. A file that is missing, damaged, of another log, or that was open when the *machine*
stopped (its pages may be lost in part) is made anew. A killed process loses no page of a shared mapping.

So that ids are not kept for ever, `Dedup` has two such tables: one that is filled, and what it was before. When the
first has been filled for as long as ids are kept, it takes the place of the other, which is forgotten.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from counterfoil_ingest import blocks
from counterfoil_ingest.entities import Erased, RecordName, Reverted
from counterfoil_ingest.store import LogWriter

Hashes = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.uint64]
Marks = npt.NDArray[np.bool_]

_logger = logging.getLogger(__name__)

_HEAD_BYTES = 4096
_HEAD = struct.Struct("<8sQQQQ36s36s?")  # magic, capacity, entries, watermark, since, log epoch, boot id, closed
_MAGIC = b"cfdedup3"
_ROW = 8  # slots; with their offsets a row has twice as many numbers
_SLOT_BYTES = 16
_ROWS_AT_ONCE = 512  # when a table grows: what a processor keeps at hand
_HALF = np.uint64(32)
_FULL = 0.6  # beyond this load, many rows are full
_CHECK = 0x9E3779B97F4A7C15  # any constant: it makes the second hash of a name another function than the first
_FEW = 32  # below so many ids a plain loop beats numpy's fixed cost per call: whole batches, and what is left of them


class UntrustedTableError(Exception):
    """The file cannot be used; make a new one from the log."""


@lru_cache(4096)
def seed_of(workspace: str, source_id: str, dataset: str) -> int:
    """Return what tells the same id in different places apart; the parts' lengths are in it, so no two are alike."""
    parts = (workspace.encode(), source_id.encode(), dataset.encode())
    return xxhash.xxh3_64_intdigest(b"".join(b"%d:%b" % (len(part), part) for part in parts))


def hashes_of(seeds: Iterable[int], id_texts: Sequence[bytes]) -> Hashes:
    """Return the 64-bit hash (XXH3) of each record id, as `blocks.id_texts` writes it, under its place's seed.

    It is never 0, which marks an empty slot.
    """
    digests = bytearray().join(map(xxhash.xxh3_64_digest, id_texts, seeds))
    found: Hashes = np.maximum(np.ndarray(len(id_texts), ">u8", digests), np.uint64(1))
    return found


def erased_name(workspace: str, source_id: str, dataset: str, record_id: str) -> Erased:
    """Return what stays of the name of an erased record: its hash in the table, and one under another seed."""
    seed = seed_of(workspace, source_id, dataset)
    (text,) = blocks.id_texts([record_id])
    return Erased(int(hashes_of([seed], [text])[0]), xxhash.xxh3_64_intdigest(text, seed ^ _CHECK))


class DedupTable:
    """The table of one log. One thread writes and reads it; nothing locks."""

    def __init__(self, path: Path, *, epoch: str, capacity: int, boot_id: str) -> None:
        """Map the file at `path`, which must hold `capacity` slots; use `open_table` or `new_table`."""
        self.path = path
        self._epoch = epoch
        self._boot_id = boot_id
        self._capacity = capacity
        self._rows = capacity // _ROW
        self._entries = 0
        self._watermark = 0
        self.since = 0
        """The time, microseconds UTC, from which on records are entered; 0 before there was one."""
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _HEAD_BYTES + _SLOT_BYTES * capacity)
        self._numbers: Hashes = np.frombuffer(self._map, np.uint64, 2 * capacity, _HEAD_BYTES)
        self._table = self._numbers.reshape(self._rows, 2 * _ROW)
        self._view = memoryview(self._map)[_HEAD_BYTES:].cast("Q")

    @property
    def watermark(self) -> int:
        """The sequence of the last block that is entered."""
        return self._watermark

    @property
    def entries(self) -> int:
        """How many records are entered."""
        return self._entries

    def matches(self, hash_: int) -> Iterator[int]:
        """Yield the offset of every record entered under a hash; usually none or one."""
        for slot, there in self._probed(hash_):
            if there == hash_:
                yield self._view[slot + _ROW]

    def contains(self, hashes: Hashes) -> Marks:
        """Tell for each hash whether anything is entered under it."""
        if len(hashes) < _FEW:
            return np.array(list(map(self._contains_one, hashes.tolist())), np.bool_)
        found = np.zeros(len(hashes), np.bool_)
        rows, pending = self._rows_of(hashes), np.arange(len(hashes))
        while len(pending) >= _FEW:
            there = self._table.take(rows, 0)[:, :_ROW]
            hit = _in_any(there == hashes[pending, None])
            found[pending[hit]] = True
            going_on = np.flatnonzero((there[:, -1] != 0) & ~hit)
            pending, rows = pending[going_on], (rows[going_on] + 1) % self._rows
        found[pending] = list(map(self._contains_one, hashes[pending].tolist()))
        return found

    def reserve(self, more: int) -> None:
        """Make room for more records; raise OSError when the disk has none, and `enter` will then not fail for it."""
        if self._entries + more > _FULL * self._capacity:
            self._grow(self._entries + more)

    def enter(self, hashes: Hashes, offsets: Offsets, *, watermark: int) -> None:
        """Enter records that are in the log for good; entering one again changes nothing."""
        self.reserve(len(hashes))
        self._enter(hashes, offsets)
        self._watermark = watermark
        self._write_head(closed=False)

    def successor(self, path: Path, *, since: int) -> DedupTable:
        """Return an empty table for what follows, with room for as much; raise OSError when the disk has none."""
        made = new_table(path, epoch=self._epoch, entries=self._entries, boot_id=self._boot_id)
        made.restore(entries=0, watermark=self._watermark, since=since)
        return made

    def drop(self) -> None:
        """Forget everything; its file may have been replaced already."""
        self._unmap()

    def close(self) -> None:
        """Write everything to disk and mark the file as whole."""
        self._map.flush()
        self._write_head(closed=True)
        self._map.flush()
        self._unmap()

    def _rows_of(self, hashes: Hashes) -> npt.NDArray[np.int64]:
        """Return in which row to look first."""
        return ((hashes >> _HALF) * np.uint64(self._rows) >> _HALF).view(np.int64)

    def _probed(self, hash_: int) -> Iterator[tuple[int, int]]:
        """Yield the slots that may hold a hash, each with the hash that it holds: 0 in the last."""
        view, row = self._view, (hash_ >> 32) * self._rows >> 32
        while True:
            first = 2 * _ROW * row
            for slot in range(first, first + _ROW):
                there = view[slot]
                yield slot, there
                if not there:
                    return
            row = (row + 1) % self._rows

    def _contains_one(self, hash_: int) -> bool:
        view, row = self._view, (hash_ >> 32) * self._rows >> 32
        while True:  # as `_probed` does, at half its cost: this is done for every single id
            first = 2 * _ROW * row
            for slot in range(first, first + _ROW):
                there = view[slot]
                if there == hash_:
                    return True
                if not there:
                    return False
            row = (row + 1) % self._rows

    def _enter(self, hashes: Hashes, offsets: Offsets) -> None:
        if len(hashes) >= _FEW:
            hashes, offsets = self._enter_most(hashes, offsets)
        for hash_, offset in zip(hashes.tolist(), offsets.tolist(), strict=True):
            self._enter_one(hash_, offset)

    def _enter_most(self, hashes: Hashes, offsets: Offsets) -> tuple[Hashes, Offsets]:
        """Enter all but a few records; return those."""
        rows = self._rows_of(hashes)
        while len(hashes) >= _FEW:
            there = self._table.take(rows, 0)
            same = there[:, :_ROW] == hashes[:, None]
            if same.any():
                same &= there[:, _ROW:] == offsets[:, None]
            entered = _in_any(same)
            used = np.bitwise_count((there != 0).view(np.uint64)[:, 0])  # eight bools in one number
            full = used == _ROW
            fresh = np.flatnonzero(~(entered | full))
            # Several may want one free slot: the last written gets it, the others look on. Offsets go before hashes:
            # a kill in between leaves the slots empty.
            slots = 2 * _ROW * rows[fresh] + used[fresh]
            self._numbers[slots + _ROW] = offsets[fresh]
            self._numbers[slots] = hashes[fresh]
            got = (self._numbers[slots] == hashes[fresh]) & (self._numbers[slots + _ROW] == offsets[fresh])
            self._entries += int(np.count_nonzero(got))
            entered[fresh] = got
            left = np.flatnonzero(~entered)
            hashes, offsets, rows = hashes[left], offsets[left], (rows[left] + full[left]) % self._rows
        return hashes, offsets

    def _enter_one(self, hash_: int, offset: int) -> None:
        for slot, there in self._probed(hash_):
            if there == hash_ and self._view[slot + _ROW] == offset:
                return
        self._view[slot + _ROW] = offset  # before the hash: a kill in between leaves the slot empty
        self._view[slot] = hash_
        self._entries += 1

    def _grow(self, entries: int) -> None:
        larger = self.path.with_suffix(".growing")
        capacity = max(2 * self._capacity, capacity_for(entries))
        create(larger, capacity=capacity)
        grown = DedupTable(larger, epoch=self._epoch, capacity=capacity, boot_id=self._boot_id)
        for start in range(0, self._rows, _ROWS_AT_ONCE):  # rows in their order lead to rows in their order
            grown._enter(*self._used(slice(start, start + _ROWS_AT_ONCE)))
        grown.restore(entries=grown._entries, watermark=self._watermark, since=self.since)
        self._unmap()
        grown.path = larger.replace(self.path)
        self.__dict__ = grown.__dict__
        _logger.info("dedup table grown", extra={"entries": self._entries, "capacity": self._capacity})

    def _used(self, rows: slice) -> tuple[Hashes, Offsets]:
        """Return copies of what is entered in some rows."""
        hashes, offsets = self._table[rows, :_ROW].ravel(), self._table[rows, _ROW:].ravel()
        used = hashes != 0
        return hashes[used], offsets[used]

    def _write_head(self, *, closed: bool) -> None:
        log = (self._epoch.encode(), self._boot_id.encode())
        head = _HEAD.pack(_MAGIC, self._capacity, self._entries, self._watermark, self.since, *log, closed)
        self._map[: _HEAD.size + 4] = head + struct.pack("<I", zlib.crc32(head))

    def restore(self, *, entries: int, watermark: int, since: int = 0) -> None:
        """Take over what the file's head says."""
        self._entries = entries
        self._watermark = watermark
        self.since = since
        self._write_head(closed=False)

    def _unmap(self) -> None:
        self._view.release()
        del self._numbers, self._table  # arrays hold the mapping open
        self._map.close()


def _in_any(marks: Marks) -> Marks:
    """Tell for each row whether one of its eight marks is set: in one comparison, and not in a reduction of bools."""
    found: Marks = marks.view(np.uint64).ravel() != 0
    return found


def capacity_for(entries: int) -> int:
    """Return the number of slots for so many records: whole rows, at least 65,536 slots, at most 60 % full."""
    return max(1 << 16, _ROW * (int(entries / _FULL) // _ROW + 1))


def create(path: Path, *, capacity: int) -> None:
    """Make an empty file for so many slots; raise OSError when the disk has no room."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        size = _HEAD_BYTES + _SLOT_BYTES * capacity
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):
            # A write through the mapping to a page the disk has no room for would kill the process (SIGBUS).
            os.posix_fallocate(file.fileno(), 0, size)


def new_table(path: Path, *, epoch: str, entries: int, boot_id: str) -> DedupTable:
    """Replace the file by an empty table with room for so many records."""
    capacity = capacity_for(entries)
    path.unlink(missing_ok=True)
    create(path, capacity=capacity)
    return DedupTable(path, epoch=epoch, capacity=capacity, boot_id=boot_id)


def open_table(path: Path, *, epoch: str, boot_id: str) -> DedupTable:
    """Open the file of a log's life; raise UntrustedTableError when it has to be made anew."""
    try:
        with path.open("rb") as file:
            stored = file.read(_HEAD.size + 4)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UntrustedTableError(str(error)) from error
    if len(stored) < _HEAD.size + 4 or zlib.crc32(stored[:-4]) != struct.unpack("<I", stored[-4:])[0]:
        raise UntrustedTableError("its head is damaged")
    fields: Any = _HEAD.unpack(stored[:-4])
    magic, capacity, entries, watermark, since, of_epoch, of_boot, closed = fields
    if magic != _MAGIC or size != _HEAD_BYTES + _SLOT_BYTES * capacity or of_epoch.rstrip(b"\0") != epoch.encode():
        raise UntrustedTableError("it is of another log or another size")
    if not closed and (not boot_id or of_boot.rstrip(b"\0") != boot_id.encode()):
        raise UntrustedTableError("the machine stopped while it was open")
    table = DedupTable(path, epoch=epoch, capacity=capacity, boot_id=boot_id)
    table.restore(entries=entries, watermark=watermark, since=since)
    return table


class Dedup:
    """What a log knows of its records' ids: the table that is filled, and the one before it where there is one.

    An id is kept for `keep` microseconds at least and twice that at most; 0 = for ever. One thread uses it.
    """

    def __init__(self, current: DedupTable, older: DedupTable | None, *, keep: int) -> None:
        self._current = current
        self._older = older
        self._keep = keep

    @property
    def watermark(self) -> int:
        """The sequence of the last block that is entered."""
        return self._current.watermark

    @property
    def entries(self) -> int:
        """How many records are entered."""
        return self._current.entries + (self._older.entries if self._older else 0)

    def matches(self, hash_: int) -> Iterator[int]:
        """Yield the offset of every record entered under a hash; usually none or one."""
        yield from self._current.matches(hash_)
        if self._older is not None:
            yield from self._older.matches(hash_)

    def contains(self, hashes: Hashes) -> Marks:
        """Tell for each hash whether anything is entered under it."""
        found = self._current.contains(hashes)
        return found if self._older is None else found | self._older.contains(hashes)

    def reserve(self, more: int, *, at: int) -> None:
        """Make room for more records, which arrive at a time; raise OSError when the disk has none."""
        if not self._current.since:
            self._current.since = at
        if self._keep and at - self._current.since >= self._keep:
            self._begin_another(at)
        self._current.reserve(more)

    def enter(self, hashes: Hashes, offsets: Offsets, *, watermark: int) -> None:
        """Enter records that are in the log for good, for which there is room."""
        self._current.enter(hashes, offsets, watermark=watermark)

    def close(self) -> None:
        """Write everything to disk and mark the files as whole."""
        self._current.close()
        if self._older is not None:
            self._older.close()

    def _begin_another(self, at: int) -> None:
        full, path = self._current, self._current.path
        fresh = full.successor(path.with_suffix(".growing"), since=at)
        older = _older_path(path)
        full.path = path.replace(older)
        fresh.path = fresh.path.replace(path)
        forgotten, self._older, self._current = self._older, full, fresh
        if forgotten is not None:
            forgotten.drop()
        _logger.info("dedup table begun", extra={"kept": full.entries, "since": full.since})


def load_table(path: Path, log: LogWriter, *, boot_id: str, keep: timedelta = timedelta(0)) -> Dedup:
    """Open the log's tables, or make one anew, with every record of the log entered that is to be known.

    An id is kept for `keep` at least, and for ever without one.
    """
    micros = keep // timedelta(microseconds=1)
    try:
        tables = _open_tables(path, log, boot_id=boot_id)
    except UntrustedTableError as error:
        _logger.info("dedup table is made anew", extra={"why": str(error), "records": log.records()})
        _older_path(path).unlink(missing_ok=True)
        newest = log.newest_at()
        start, records = log.before(newest - micros) if micros else (0, log.records())
        table = new_table(path, epoch=log.epoch, entries=records, boot_id=boot_id)
        table.restore(entries=0, watermark=start, since=newest)
        tables = (table, None)
    current, _ = tables
    for sequence, block in log.blocks_after(current.watermark):
        hashes = _hashes(block.workspace, blocks.names(block))
        current.enter(hashes, np.arange(block.first_offset, block.next_offset, dtype=np.uint64), watermark=sequence)
    return Dedup(*tables, keep=micros)


def _open_tables(path: Path, log: LogWriter, *, boot_id: str) -> tuple[DedupTable, DedupTable | None]:
    older = _older_path(path)
    before = open_table(older, epoch=log.epoch, boot_id=boot_id) if older.exists() else None
    try:
        current = open_table(path, epoch=log.epoch, boot_id=boot_id)
        if current.watermark > log.last_sequence():
            current.close()
            raise UntrustedTableError("it is ahead of the log")
    except UntrustedTableError:
        if before is not None:
            before.close()
        raise
    return current, before


def _older_path(path: Path) -> Path:
    return path.with_name(path.name + ".older")


def _hashes(workspace: str, names: Sequence[RecordName]) -> Hashes:
    found = np.array([each.hash if isinstance(each, (Erased, Reverted)) else 0 for each in names], np.uint64)
    live = [each for each in names if not isinstance(each, (Erased, Reverted))]
    seeds = [seed_of(workspace, source_id, dataset) for source_id, dataset, _ in live]
    found[found == 0] = hashes_of(seeds, blocks.id_texts([each[2] for each in live]))
    return found


def boot_id() -> str:
    """Return what changes when the machine restarts; empty where the system does not tell (not Linux)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
