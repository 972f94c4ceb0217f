"""Run in the rival's own environment: tell known ids apart by RocksDB; the times of many batches per line of stdin.

A line is how many batches of 500 ids, and the number of the first new id.
"""

import json
import random
import sys
import time
from itertools import compress

import xxhash
from rocksdict import Options, Rdict, WriteBatch

BATCH, KNOWN_IN_BATCH, AT_ONCE = 500, 50, 100_000


def main() -> None:
    """Enter the known ids, then answer."""
    known = int(sys.argv[2])
    database = Rdict(sys.argv[1], Options(raw_mode=True))
    for start in range(0, known, AT_ONCE):
        enter(database, [key(number) for number in range(start, start + AT_ONCE)])
    for line in sys.stdin:
        batches, first = map(int, line.split())
        texts = [batch(first + number * BATCH, known) for number in range(batches)]
        began = time.process_time()
        for ids in texts:
            keys = [xxhash.xxh3_64_digest(each.encode(), 7) for each in ids]
            there = database[keys]
            if BATCH - there.count(None) != KNOWN_IN_BATCH:
                raise SystemExit("what is known was not told apart")
            enter(database, list(compress(keys, (each is None for each in there))))
        print(json.dumps({"us": (time.process_time() - began) / batches / BATCH * 1e6}), flush=True)
    database.close()


def enter(database: Rdict, keys: list[bytes]) -> None:
    """Enter keys, each with a place of eight bytes."""
    changes = WriteBatch(raw_mode=True)
    for each in keys:
        changes.put(each, each)
    database.write(changes)


def batch(first: int, known: int) -> list[str]:
    """Return a batch of ids, of which some are known."""
    ids = [text(number) for number in range(first, first + BATCH)]
    for place in range(0, BATCH, BATCH // KNOWN_IN_BATCH):
        ids[place] = text(random.randrange(known))
    return ids


def key(number: int) -> bytes:
    """Return what an id is known by."""
    return xxhash.xxh3_64_digest(text(number).encode(), 7)


def text(number: int) -> str:
    """Return an id."""
    return f"message-{number:012d}"


if __name__ == "__main__":
    main()
