"""Quarantined records on their way back: repaired, held against the contracts of now, replayed into the log.

A replayed record keeps its source and its id, so that the log knows one that it has already. It is appended in the
transaction that closes it in quarantine: neither is ever done without the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import compress
from typing import Final, cast

import msgspec
import orjson

from counterfoil_ingest import repairs
from counterfoil_ingest.append import Appender
from counterfoil_ingest.entities import (
    Batch,
    Candidate,
    Finding,
    Outcome,
    Quarantined,
    QuarantineState,
    Verdict,
    Verdicts,
)
from counterfoil_ingest.errors import ContractsUnavailableError
from counterfoil_ingest.metrics import QUARANTINED, QUARANTINED_MOST
from counterfoil_ingest.placing import PARTITION, Judged
from counterfoil_ingest.protocols.body import Unreadable, parse_each
from counterfoil_ingest.repairs import MisfitError, Repair
from counterfoil_ingest.store import QuarantineStore, Statements

_COUNTED_EVERY_SECONDS: Final = 15.0
_JUDGED_ANEW = ("CONTRACT_", "NO_CONTRACT", "MESSAGE_ID_REUSED")
"""Findings of a record as it stands. Others tell what was lost when it was read; only a repair answers them."""

Tell = Callable[[Statements, Sequence[Verdict]], None]
"""Work of the transaction that closes records in quarantine, told what became of them."""


@dataclass(frozen=True, slots=True)
class Deed:
    """Who does it, when (microseconds UTC), and in which trace."""

    by: str
    at: int
    traceparent: str


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair makes of a record. When it does not fit, the record is as before."""

    record: Quarantined
    fits: bool
    findings: tuple[Finding, ...]


class Repairing:
    """Repairs and replays quarantined records, those of one workspace at a time."""

    def __init__(self, quarantine: QuarantineStore, appender: Appender) -> None:
        self._quarantine = quarantine
        self._appender = appender
        self._open = (0, 0)

    async def count(self) -> None:
        """Have metrics tell for ever how many records lie open."""
        with QUARANTINED.reading(read=lambda: self._open[0]), QUARANTINED_MOST.reading(read=lambda: self._open[1]):
            while True:
                self._open = await self._quarantine.count_open()
                await asyncio.sleep(_COUNTED_EVERY_SECONDS)

    async def repair(self, records: Sequence[Quarantined], repair: Repair, deed: Deed) -> Sequence[Repaired]:
        """Return records as a repair makes them, with what still keeps each out of the log; nothing is kept.

        Raises ContractsUnavailableError when that cannot be said now.
        """
        made = await asyncio.to_thread(lambda: [_made(record, repair, deed) for record in records])
        fitting = [each for each in made if isinstance(each, Quarantined)]
        judged = await self._judge(fitting, deed)
        if judged.unknown:
            raise ContractsUnavailableError(
                "The contracts service cannot be asked what these records have to keep. Send it again.",
                retry_after=timedelta(seconds=1),
            )
        found = [judged.refused[index].findings if index in judged.refused else () for index in range(len(fitting))]
        told = dict(zip((each.quarantine_id for each in fitting), found, strict=True))
        return [
            Repaired(each, fits=True, findings=told[each.quarantine_id])
            if isinstance(each, Quarantined)
            else Repaired(record, fits=False, findings=(each,))
            for record, each in zip(records, made, strict=True)
        ]

    async def try_replay(self, records: Sequence[Quarantined], deed: Deed) -> Sequence[Verdict]:
        """Return what would become of records; those that would be accepted have no offset yet."""
        return await self._replay(records, deed, self._tried)

    async def replay(self, records: Sequence[Quarantined], deed: Deed, *, tell: Tell) -> Sequence[Verdict]:
        """Append the records that pass, each under its source and id, and close them in the same transaction.

        There is one transaction for each source; a retry after a failure between them finds the earlier ones replayed.
        Raises QuarantineChangedError, and what `Appender.append` raises.
        """

        async def appended(some: Sequence[Quarantined], judged: Judged) -> Sequence[Verdict]:
            def effect(statements: Statements, verdicts: Verdicts) -> None:
                done = [each.outcome in (Outcome.ACCEPTED, Outcome.DUPLICATE) for each in verdicts]
                closed, told = list(compress(some, done)), list(compress(verdicts, done))
                self._quarantine.close(statements, closed, told, by=deed.by, at=deed.at)
                tell(statements, told)

            return await self._appender.append_judged(judged, effect=effect)

        return await self._replay(records, deed, appended)

    async def _tried(self, some: Sequence[Quarantined], judged: Judged) -> Sequence[Verdict]:
        found = await self._appender.look_up(judged)
        return [
            msgspec.structs.replace(each, offset=-1) if each.outcome is Outcome.ACCEPTED else each for each in found
        ]

    async def _replay(
        self,
        records: Sequence[Quarantined],
        deed: Deed,
        append: Callable[[Sequence[Quarantined], Judged], Awaitable[Sequence[Verdict]]],
    ) -> Sequence[Verdict]:
        verdicts: dict[str, Verdict] = {}
        by_source: dict[str, list[Quarantined]] = {}
        for record in records:
            if record.state is QuarantineState.REPLAYED:
                verdicts[record.quarantine_id] = _verdict(record, Outcome.DUPLICATE, offset=record.replayed_offset)
            else:
                by_source.setdefault(record.source_id, []).append(record)
        for some in by_source.values():
            judged = await self._judge(some, deed)
            passing: list[int] = []
            for index, record in enumerate(some):
                if index in judged.refused:
                    findings = judged.refused[index].findings
                    verdicts[record.quarantine_id] = _verdict(record, Outcome.QUARANTINED, findings=findings)
                elif judged.datasets[index] in judged.unknown:
                    verdicts[record.quarantine_id] = _verdict(record, Outcome.RETRY)
                else:
                    passing.append(index)
            if passing:
                kept = [some[index] for index in passing]
                for record, verdict in zip(kept, await append(kept, _only(judged, passing, kept)), strict=True):
                    verdicts[record.quarantine_id] = _verdict(
                        record, verdict.outcome, offset=verdict.offset, findings=verdict.findings
                    )
        return [verdicts[record.quarantine_id] for record in records]

    async def _judge(self, records: Sequence[Quarantined], deed: Deed) -> Judged:
        """Hold records, whose source is one where that matters, against the contracts in force."""
        candidates = await asyncio.to_thread(lambda: [_candidate(record) for record in records])
        workspace, source_id = (records[0].workspace, records[0].source_id) if records else ("", "")
        return await self._appender.judge(Batch(workspace, source_id, deed.at, deed.traceparent, candidates))


def _made(record: Quarantined, repair: Repair, deed: Deed) -> Quarantined | Finding:
    """Return a record as a repair makes it, or why that cannot be."""
    if record.state is QuarantineState.REPLAYED:
        return Finding("REPLAYED", "$", "It is in the log already: append another record instead.")
    try:
        made = repairs.repaired(record.record or record.raw, repair) if repair.patch or repair.fixes else b""
    except MisfitError as misfit:
        return misfit.finding
    return replace(
        record,
        repaired=made,
        repaired_dataset=repair.dataset if repair.dataset != record.dataset else "",
        repaired_record_id=record.quarantine_id if repair.new_record_ids else "",
        repaired_at=max(deed.at, record.repaired_at + 1),  # it tells one repair from the next
        repaired_by=deed.by,
    )


def _candidate(record: Quarantined) -> Candidate:
    """Return a record as what is judged, with the findings that no contract can take back."""
    dataset, record_id = record.replay_dataset, record.replay_record_id
    (value,) = parse_each([record.repaired or record.record or record.raw])
    if isinstance(value, Unreadable):
        return value.candidate(record_id, dataset)
    lost = () if record.repaired else tuple(f for f in record.findings if not f.reason.startswith(_JUDGED_ANEW))
    if not lost and not dataset:
        lost = (Finding("NO_DATASET", "$", "Nothing says which dataset it belongs to: repair it with a `dataset`."),)
    return Candidate(record_id, dataset, orjson.dumps(value), value, lost)


def _only(judged: Judged, indexes: Sequence[int], records: Sequence[Quarantined]) -> Judged:
    """Return some of the judged records, none of which is refused."""
    return Judged(
        workspace=judged.workspace,
        header=judged.header,
        ids=[judged.ids[index] for index in indexes],
        datasets=[judged.datasets[index] for index in indexes],
        datas=[cast("Sequence[bytes]", judged.datas)[index] for index in indexes],
        refused={},
        unknown=frozenset(),
        replayed=[record.quarantine_id for record in records],
    )


def _verdict(record: Quarantined, outcome: Outcome, *, offset: int = -1, findings: tuple[Finding, ...] = ()) -> Verdict:
    return Verdict(
        outcome, record.replay_record_id, record.replay_dataset, PARTITION, offset, record.quarantine_id, findings
    )
