"""The table that tells duplicates apart, against RocksDB and against a set of Python: ten million ids are known.

All get texts, of which one in ten is known, in batches of 500, hash them alike (XXH3, 64 bits) and enter what is new.
"""

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import repeat
from pathlib import Path

import numpy as np
import xxhash
from counterfoil_ingest import blocks
from counterfoil_ingest.dedup import DedupTable, Hashes, hashes_of, new_table

from tests.bench.measuring import Options, Report, Row, Target, in_rounds
from tests.bench.rivals import Rival

KNOWN, BATCH, KNOWN_IN_BATCH = 10_000_000, 500, 50
AT_ONCE = 100_000
BATCHES = 400
"""In each round of each."""
ROCKSDB = ("rocksdict==0.3.29", "xxhash==4.1.0")
Enter = Callable[[Sequence[str], int], int]
"""Enter what is new of ids, from an offset on; return how many were known."""


def measure(options: Options) -> Report:
    """Make the known ids known to each, then send batches to each in turn."""
    known = KNOWN // 20 if options.quick else KNOWN
    with tempfile.TemporaryDirectory(prefix="counterfoil-bench-") as scratch:
        table = new_table(Path(scratch) / "dedup.table", epoch="0" * 36, entries=known, boot_id="")
        began = time.perf_counter()
        for start in range(0, known, AT_ONCE):
            offsets = np.arange(start, start + AT_ONCE, dtype=np.uint64)
            table.enter(_hashes(_known(start, AT_ONCE)), offsets, watermark=1)
        filled = time.perf_counter() - began
        numbers = set[int]()
        for start in range(0, known, AT_ONCE):
            numbers.update(_numbers(_known(start, AT_ONCE)))
        with Rival("dedup_rival.py", ROCKSDB, str(Path(scratch) / "rocks"), str(known)) as rival:
            fresh = iter(range(known, 1 << 62, BATCH * BATCHES))
            cells: dict[str, Callable[[], float]] = {
                "table": lambda: _time(lambda ids, offset: _enter(table, ids, offset), next(fresh), known),
                "set": lambda: _time(lambda ids, _: _add(numbers, ids), next(fresh), known),
                "rocksdb": lambda: float(rival.run(f"{BATCHES} {next(fresh)}")["us"]),
            }
            rounds = in_rounds(cells, options)
        table.close()
    how = (
        f"{options.rounds} rounds of {BATCHES * BATCH:,} ids for each, {KNOWN_IN_BATCH} of {BATCH} in a batch known, "
        f"{known:,} known before; {ROCKSDB[0]} in an environment of its own, without syncing; processor time."
    )
    return Report("Duplicates", how, _rows(rounds, filled, known))


def _rows(rounds: list[dict[str, float]], filled: float, known: int) -> list[Row]:
    def faster(other: str) -> list[float]:
        return [found[other] / found["table"] for found in rounds]

    return [
        Row("ids/s, in those of RocksDB", faster("rocksdb"), "x", Target("T8", 15, at_least=True)),
        Row("ids/s, in those of a set of int", faster("set"), "x", Target("T8", 5, at_least=True)),
        Row("the table", [found["table"] for found in rounds], " us/id"),
        Row("RocksDB", [found["rocksdb"] for found in rounds], " us/id"),
        Row("a set of int", [found["set"] for found in rounds], " us/id"),
        Row(f"entering {known:,} ids at first", [filled], " s"),
    ]


def _time(enter: Enter, first: int, known: int) -> float:
    """Return microseconds of processor time per id."""
    batches = [_batch(first + number * BATCH, known) for number in range(BATCHES)]
    began = time.process_time()
    found = [enter(ids, first + number * BATCH) for number, ids in enumerate(batches)]
    seconds = time.process_time() - began
    if found != [KNOWN_IN_BATCH] * BATCHES:
        raise SystemExit("what is known was not told apart")
    return seconds / BATCHES / BATCH * 1e6


def _enter(table: DedupTable, ids: Sequence[str], offset: int) -> int:
    hashes = _hashes(ids)
    new = hashes[~table.contains(hashes)]
    table.enter(new, np.arange(offset, offset + len(new), dtype=np.uint64), watermark=1)
    return len(hashes) - len(new)


def _add(numbers: set[int], ids: Sequence[str]) -> int:
    new = [each for each in _numbers(ids) if each not in numbers]
    numbers.update(new)
    return len(ids) - len(new)


def _hashes(ids: Sequence[str]) -> Hashes:
    return hashes_of(repeat(7), blocks.id_texts(ids))


def _numbers(ids: Sequence[str]) -> list[int]:
    """Return the same hashes as a set takes them, in the fastest way that Python has."""
    return list(map(xxhash.xxh3_64_intdigest, blocks.id_texts(ids), repeat(7)))


def _batch(first: int, known: int) -> list[str]:
    """Return a batch of ids, of which some are known."""
    ids = _known(first, BATCH)
    for place in range(0, BATCH, BATCH // KNOWN_IN_BATCH):
        ids[place] = f"message-{random.randrange(known):012d}"
    return ids


def _known(first: int, count: int) -> list[str]:
    return [f"message-{number:012d}" for number in range(first, first + count)]
