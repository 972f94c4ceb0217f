"""What the rules, the log and the servicers share. Times here are microseconds UTC, as they are stored.

What exists once per record is a frozen `msgspec.Struct`: it is made ten times faster than a frozen dataclass, and the
garbage collector need not look at it.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, overload

import msgspec

UNPLANNED = "unplanned"
"""The dataset of events that no mapping of their source names. It has no contract and takes any JSON object."""

MAX_RECORD_BYTES = 1 << 20
"""A larger record is quarantined as TOO_LARGE."""

MAX_DEPTH = 64
"""A record nested deeper is quarantined as TOO_DEEP."""


class Outcome(enum.IntEnum):
    """What became of one record; the numbers are those of `common.v1.Verdict.Outcome`."""

    ACCEPTED = 1
    DUPLICATE = 2
    QUARANTINED = 3
    RETRY = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of a record. `detail` never holds the record's own values."""

    reason: str
    path: str
    detail: str


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of one request that brought records. `contract_versions` is dataset -> version."""

    source_id: str
    received_at: int
    traceparent: str
    contract_versions: Mapping[str, str]


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """One record before its verdict.

    `data` is its JSON text in one line (or the bytes as they arrived, when they are no JSON), `value` the same parsed.
    A protocol that could not make a record of it says so in `findings`; it then goes to quarantine. `origin` is what
    was sent, parsed, where the protocol made another record of it: quarantine keeps that, not the mapped record.
    """

    record_id: str
    dataset: str
    data: bytes
    value: Any
    findings: tuple[Finding, ...] = ()
    origin: Any = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one request brings for one workspace and source."""

    workspace: str
    source_id: str
    received_at: int
    traceparent: str
    candidates: Sequence[Candidate]


@dataclass(frozen=True, slots=True)
class Columns:
    """Records of one dataset as columns, none larger or nested deeper than allowed.

    `records` are what msgspec writes as the records' JSON, `size` bytes at most. `texts` and `objects` hold the same by
    property, in the same order: texts with None for a record that has none, JSON objects as text without those.
    """

    dataset: str
    ids: Sequence[str]
    records: Sequence[msgspec.Struct]
    size: int
    texts: Mapping[str, Sequence[str | None]]
    objects: Mapping[str, Sequence[msgspec.Raw]]


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What became of one record. `offset` is -1 where there is no position in the log."""

    outcome: Outcome
    record_id: str
    dataset: str
    partition: int = 0
    offset: int = -1
    quarantine_id: str = ""
    findings: tuple[Finding, ...] = ()


class Verdicts(Sequence[Verdict]):
    """What became of a batch's records, in their order, and how many of each outcome there are.

    Of a batch that is all new no verdict is made before it is asked for: event protocols need the counts only.
    """

    def __init__(self, verdicts: Sequence[Verdict]) -> None:
        self._made: Sequence[Verdict] | None = verdicts
        self._counts: Mapping[Outcome, int] = Counter(each.outcome for each in verdicts)
        self._columns: tuple[Sequence[str], Sequence[str], int, int] = ((), (), 0, 0)

    @classmethod
    def all_accepted(cls, ids: Sequence[str], datasets: Sequence[str], partition: int, first: int) -> Verdicts:
        """Return those of records that were all accepted, at consecutive offsets from `first` on."""
        made = cls(())
        made._made = None
        made._counts = {Outcome.ACCEPTED: len(ids)}
        made._columns = (ids, datasets, partition, first)
        return made

    def number(self, outcome: Outcome) -> int:
        """Return how many records have an outcome."""
        return self._counts.get(outcome, 0)

    def first_offset(self) -> int:
        """Return the offset of the first accepted record; -1 when there is none."""
        if self._made is None:
            return self._columns[3]
        return next((each.offset for each in self._made if each.outcome is Outcome.ACCEPTED), -1)

    def __len__(self) -> int:
        return sum(self._counts.values())

    @overload
    def __getitem__(self, index: int) -> Verdict: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Verdict]: ...
    def __getitem__(self, index: int | slice) -> Verdict | Sequence[Verdict]:
        return self._all()[index]

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self._all())

    def _all(self) -> Sequence[Verdict]:
        if self._made is None:
            ids, datasets, partition, first = self._columns
            places = enumerate(zip(ids, datasets, strict=True), first)
            self._made = [Verdict(Outcome.ACCEPTED, id_, name, partition, offset) for offset, (id_, name) in places]
        return self._made


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive records of one workspace as they lie in the log; `blocks.decode` opens it."""

    workspace: str
    partition: int
    first_offset: int
    count: int
    layout: int
    payload: bytes
    headers: tuple[Header, ...]

    @property
    def next_offset(self) -> int:
        """The offset after its last record."""
        return self.first_offset + self.count


class Erased(NamedTuple):
    """What is left of the name of an erased record: two hashes of it, so that nothing brings the record back.

    `hash` is the one that the dedup table knows it by, `check` another: the two together are no other record's.
    """

    hash: int
    check: int


class Reverted(NamedTuple):
    """What is left of a record that was taken back: it may come again, so that no name is ever the one it had."""

    hash: int


RecordName = tuple[str, str, str] | Erased | Reverted
"""Source id, dataset and record id of a record; of an erased one, hashes of them."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """What one transaction of the log has erased: how many of the offsets it was given are `done`, in their order."""

    done: int
    records: int
    quarantined: int
    revision: int


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record of the log. `data` is its JSON text in one line."""

    offset: int
    dataset: str
    record_id: str
    data: bytes
    header: Header

    @property
    def contract_version(self) -> str:
        """The contract version it was validated under; empty when its dataset had no contract."""
        return self.header.contract_versions.get(self.dataset, "")


@dataclass(frozen=True, slots=True)
class DatasetCounts:
    """How much there is of one dataset, and the offset after its last record.

    `last_received_at` and `next_offset` are 0 when the log has none of it.
    """

    dataset: str
    records: int
    quarantined: int
    last_received_at: int
    next_offset: int


class QuarantineState(enum.IntEnum):
    """What became of a quarantined record; the numbers are those of `ingest.v1.QuarantinedRecord.State`."""

    OPEN = 1
    REPLAYED = 2
    DISCARDED = 3


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One quarantined record. Times are 0 and the offset is -1 where there is none.

    `raw` is what arrived, `record` the JSON that was held against the contract, empty when that is `raw` itself, and
    `repaired` the JSON that a repair has made of it; all are empty in lists.
    """

    quarantine_id: str
    workspace: str
    dataset: str
    source_id: str
    record_id: str
    findings: tuple[Finding, ...]
    contract_id: str
    contract_version: str
    received_at: int
    traceparent: str
    raw: bytes = b""
    record: bytes = b""
    repaired: bytes = b""
    repaired_dataset: str = ""
    repaired_record_id: str = ""
    repaired_at: int = 0
    repaired_by: str = ""
    state: QuarantineState = QuarantineState.OPEN
    closed_at: int = 0
    closed_by: str = ""
    discard_reason: str = ""
    replayed_offset: int = -1
    import_id: str = ""

    @property
    def replay_dataset(self) -> str:
        """The dataset that it is replayed to."""
        return self.repaired_dataset or self.dataset

    @property
    def replay_record_id(self) -> str:
        """The id that it is replayed under: its own, so that the log knows it again."""
        return self.repaired_record_id or self.record_id or self.quarantine_id


@dataclass(frozen=True, slots=True)
class QuarantineFilter:
    """Which quarantined records are meant; what is empty takes any. `reason` and `path` are of the first finding."""

    dataset: str = ""
    reason: str = ""
    path: str = ""
    contract_version: str = ""
    source_id: str = ""
    import_id: str = ""
    state: QuarantineState | None = None
    any_reason: str = ""
    """A reason among all of its findings."""


@dataclass(frozen=True, slots=True)
class QuarantineGroup:
    """How many records of a dataset begin with the same finding."""

    dataset: str
    reason: str
    path: str
    contract_version: str
    records: int
    first_received_at: int
    last_received_at: int
    example_id: str


@dataclass(frozen=True, slots=True)
class KeptContract:
    """One contract version as the contracts service sent it: a serialised `contracts.v1.CompiledContract`."""

    workspace: str
    dataset: str
    version: str
    in_force: bool
    message: bytes


@dataclass(frozen=True, slots=True)
class SourceMapping:
    """Which events go to a dataset; an empty `type` or `event` fits any."""

    type: str
    event: str
    dataset: str


@dataclass(frozen=True, slots=True)
class Arrived:
    """What came of a source: how many records the log holds, when its first and its newest arrived, kept or not."""

    events: int
    first_at: int
    last_at: int


@dataclass(frozen=True, slots=True)
class Source:
    """Where events come from; `arrived` is None while nothing has."""

    workspace: str
    source_id: str
    display_name: str
    protocol: str
    write_key_last_four: str
    created_at: int
    mappings: tuple[SourceMapping, ...] = field(default=())
    arrived: Arrived | None = None


@dataclass(frozen=True, slots=True)
class WriteKey:
    """One accepted write key of a source; `valid_until` is 0 when it has no end."""

    secret_sha256: bytes
    workspace: str
    source_id: str
    valid_until: int
