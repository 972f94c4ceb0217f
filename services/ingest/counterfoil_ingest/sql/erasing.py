"""Erasure within one transaction of the log: tombstones for records, quarantined bytes gone, counters and revision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Final

import orjson

from counterfoil_ingest import blocks
from counterfoil_ingest.dedup import erased_name
from counterfoil_ingest.entities import Block, Erasure
from counterfoil_ingest.store import Statements

_BYTES: Final = 8 << 20  # of payloads rewritten in one transaction: appends wait for it
_BLOCKS: Final = 500  # small ones cost a statement each, whatever their size

_BLOCK_AT = (
    "SELECT first_offset, count, layout, payload, headers, datasets FROM log_block"
    " WHERE workspace = ?1 AND partition = ?2 AND first_offset <= ?3 ORDER BY first_offset DESC LIMIT 1"
)
_REWRITE = (
    "UPDATE log_block SET payload = ?4, datasets = ?5 WHERE workspace = ?1 AND partition = ?2 AND first_offset = ?3"
)
_FEWER = (
    "UPDATE dataset_count SET records = records - ?3, quarantined = quarantined - ?4"
    " WHERE workspace = ?1 AND dataset = ?2"
)
_FEWER_OF_SOURCE = "UPDATE source_count SET events = events - ?3 WHERE workspace = ?1 AND source_id = ?2"
_QUARANTINED_DATASETS = "SELECT DISTINCT dataset FROM quarantine WHERE workspace = ?1"
_NAMESAKES = (
    "DELETE FROM quarantine WHERE workspace = ?1 AND source_id = ?2 AND dataset = ?3 AND record_id = ?4"
    " RETURNING dataset, state"
)
_REPLAYED_AS = (  # replayed under its id in quarantine, which the record in the log has for its own
    "DELETE FROM quarantine WHERE workspace = ?1 AND source_id = ?2 AND dataset = ?3 AND quarantine_id = ?4"
    " AND (repaired_record_id = quarantine_id OR record_id = '') RETURNING dataset, state"
)
_ONE = "DELETE FROM quarantine WHERE workspace = ?1 AND quarantine_id = ?2 RETURNING dataset, state"
_OPEN, _REPLAYED = 1, 2  # only open ones are in their dataset's count; a replayed one is a record of the log
_REVISION = "UPDATE log_state SET value = ?1 WHERE name = 'erasure_revision'"
_KEEP = (
    "INSERT INTO log_erasure (workspace, dataset, partition, revision, first_offset, records)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
)
_SINCE = (
    "SELECT 1 FROM log_erasure WHERE workspace = ?1 AND dataset = ?2 AND partition = ?3 AND revision > ?4"
    " AND first_offset < ?5 LIMIT 1"
)


def since(workspace: str, dataset: str, revision: int, *, partition: int, below: int) -> tuple[str, Sequence[Any]]:
    """Return the query that has a row when an erasure after a revision changed a dataset below an offset."""
    return _SINCE, (workspace, dataset, partition, revision, below)


def erase(
    statements: Statements,
    workspace: str,
    partition: int,
    offsets: Sequence[int],
    *,
    quarantined: Sequence[str],
    held: Collection[str],
    revision: int,
    reverted: bool,
) -> Erasure:
    """See `store.LogWriter.erase`; `revision` is the one before.

    What is `reverted` leaves its name free and its namesakes in quarantine, which another import put there.
    """
    erased: Counter[str] = Counter()
    of_sources: Counter[str] = Counter()
    firsts: dict[str, int] = {}
    names: set[tuple[str, str]] = set()
    done = size = rewritten = 0
    while done < len(offsets) and size < _BYTES and rewritten < _BLOCKS:
        at = (workspace, partition, offsets[done])
        first_offset, count, layout, payload, headers, datasets = statements.execute(_BLOCK_AT, at)[0]
        block = Block(workspace, partition, first_offset, count, layout, payload, blocks.decode_headers(headers))
        wanted = frozenset(each for each in offsets[done : done + block.count] if each < block.next_offset)
        done += len(wanted)
        size += len(block.payload)
        rewritten += 1
        changed, gone = blocks.erase(block, wanted, lambda *name: erased_name(workspace, *name), reverted=reverted)
        if gone:
            of_dataset = Counter(dataset for _, _, dataset, _ in gone)
            left = Counter(orjson.loads(datasets)) - of_dataset
            place = (workspace, partition, block.first_offset)
            statements.execute(_REWRITE, (*place, changed.payload, orjson.dumps(left).decode()))
            for offset, source_id, dataset, record_id in gone:
                firsts.setdefault(dataset, offset)
                names.add((source_id, record_id))
            erased += of_dataset
            of_sources.update(source_id for _, source_id, _, _ in gone)
    deleted = _delete_quarantined(statements, workspace, () if reverted else names, quarantined, held=held)
    if not names and not deleted:
        return Erasure(done, 0, 0, revision)
    lost = Counter(dataset for dataset, state in deleted if state == _OPEN)
    for dataset in sorted({*erased, *lost}):
        statements.execute(_FEWER, (workspace, dataset, erased[dataset], lost[dataset]))
    for source_id, records in sorted(of_sources.items()):
        statements.execute(_FEWER_OF_SOURCE, (workspace, source_id, records))
    for dataset, records in sorted(erased.items()):
        statements.execute(_KEEP, (workspace, dataset, partition, revision + 1, firsts[dataset], records))
    statements.execute(_REVISION, (str(revision + 1),))
    return Erasure(done, erased.total(), sum(state != _REPLAYED for _, state in deleted), revision + 1)


def _delete_quarantined(
    statements: Statements,
    workspace: str,
    names: Collection[tuple[str, str]],
    quarantined: Sequence[str],
    *,
    held: Collection[str],
) -> list[tuple[str, int]]:
    """Delete what is in quarantine under the names of erased records, in whatever dataset that is not held, and by id.

    Return dataset and state of each.
    """
    deleted: list[tuple[Any, ...]] = []
    datasets = [row[0] for row in statements.execute(_QUARANTINED_DATASETS, (workspace,))] if names else []
    for dataset in datasets:
        if dataset not in held:
            for source_id, record_id in names:
                deleted += statements.execute(_NAMESAKES, (workspace, source_id, dataset, record_id))
                deleted += statements.execute(_REPLAYED_AS, (workspace, source_id, dataset, record_id))
    for quarantine_id in quarantined:
        deleted += statements.execute(_ONE, (workspace, quarantine_id))
    return [(dataset, state) for dataset, state in deleted]
