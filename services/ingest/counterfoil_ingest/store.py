"""What the rules need from storage. The log is read and written by threads that wait; everything else is awaited."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

from counterfoil_chassis.texts import WholeTexts
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_ingest.entities import (
    Block,
    DatasetCounts,
    Erasure,
    Header,
    KeptContract,
    Quarantined,
    QuarantineFilter,
    QuarantineGroup,
    QuarantineState,
    RecordName,
    Source,
    Verdict,
    Verdicts,
    WriteKey,
)
from counterfoil_ingest.histories import Counted, History, Place
from counterfoil_ingest.lineage import Predecessor
from counterfoil_ingest.monitors import Monitor, Result, Setting, Step
from counterfoil_ingest.totals import Reconciliation, State


class Log(Protocol):
    """The records of every workspace, in blocks.

    What reads storage is called from threads that may wait: `head`, `workspaces` and `wait` are for the event loop.
    """

    epoch: str
    """The life of the log that its offsets belong to."""

    erasure_revision: int
    """How many erasures have been carried out."""

    predecessors: Mapping[str, Predecessor]
    """The lives that this one continues after restores, by epoch."""

    def head(self, workspace: str, partition: int = 0) -> int:
        """Return the offset that the next record gets: 0 when there is none yet."""
        ...

    def read(self, workspace: str, partition: int, from_offset: int, *, max_bytes: int = 4 << 20) -> list[Block]:
        """Return the next blocks from the one that holds `from_offset` on; the first may begin before it.

        At least one block when there is one, and no more than `max_bytes` of payloads after it.
        """
        ...

    def at_hand(self, workspace: str, partition: int, from_offset: int) -> list[Block]:
        """Return what `read` does when that has to be read from nowhere, else nothing; for the event loop, too."""
        ...

    async def wait(self, workspace: str, partition: int, after_offset: int, *, timeout: float) -> int:  # noqa: ASYNC109  (running out of time is an answer here)
        """Return the head as soon as it is past `after_offset`, or after `timeout` seconds as it then is."""
        ...

    def workspaces(self) -> list[str]:
        """Return the workspaces that have records in the log."""
        ...

    def next_offset(self, workspace: str, dataset: str) -> int:
        """Return the offset after a dataset's last record, 0 when it has none; partition 0, the only one there is."""
        ...

    def counts(self, workspace: str) -> list[DatasetCounts]:
        """Return how much there is of each dataset that ever got a record, by name."""
        ...

    def stored_bytes(self, workspace: str) -> int:
        """Return how many bytes a workspace's blocks and quarantined records fill, compressed as they are."""
        ...

    def erased_since(self, workspace: str, dataset: str, revision: int, *, partition: int, below: int) -> bool:
        """Tell whether an erasure after a revision has changed a dataset's records below an offset."""
        ...


class Statements(Protocol):
    """SQL that both engines understand, within one transaction of the log; its places are numbered, `?1`, `?2`."""

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Execute one statement; return its rows."""
        ...

    def execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Execute a statement for each row."""
        ...


Effect = Callable[[Statements, Verdicts], None]
"""Work that commits with the records it belongs to, told their verdicts."""


class LogTransaction(Protocol):
    """One transaction of the log's writer."""

    statements: Statements
    """For effects."""

    def add_block(self, block: Block, *, datasets: Mapping[str, int], last_offsets: Mapping[str, int]) -> int:
        """Append a block that begins at its partition's head; return its sequence.

        By dataset, `datasets` counts its records and `last_offsets` tells where the last one lies.
        """
        ...

    def add_quarantined(self, record: Quarantined) -> str:
        """Keep a record in quarantine; return its id, which is the older one when the same bytes are there already."""
        ...

    def add_arrived(self, workspace: str, source_id: str, *, records: int, received_at: int) -> None:
        """Count records of a source that the log takes, 0 of one that went to quarantine."""
        ...


class LogWriter(Log, Protocol):
    """The log as its one writer sees it; these are called from one thread."""

    def transaction(self) -> AbstractContextManager[LogTransaction]:
        """Begin a transaction that is durable when it ends without an exception; raise LogUnavailableError."""
        ...

    def identify(self, workspace: str, partition: int, offset: int) -> RecordName:
        """Return what the record at an offset is named."""
        ...

    def recall(self, workspace: str, partition: int, offset: int) -> tuple[bytes, Header]:
        """Return the JSON of the record at an offset, and what is known of the request that brought it."""
        ...

    def erase(
        self,
        workspace: str,
        partition: int,
        offsets: Sequence[int],
        *,
        quarantined: Sequence[str],
        held: Collection[str] = (),
        reverting: Callable[[Statements, Erasure], None] | None = None,
    ) -> Erasure:
        """Replace records by tombstones in one transaction, as many as fit into one; `offsets` ascend.

        With them go their quarantined namesakes in datasets that are not `held`, and the `quarantined` records by id.
        The erasure revision rises when anything was erased. When `reverting`, which is called in the transaction, they
        may come again, and no namesakes go. Raises LogUnavailableError.
        """
        ...

    def forget(self) -> bool:
        """Overwrite on disk what was erased; False = somebody still reads an older state, and it has to be repeated."""
        ...

    def blocks_after(self, sequence: int) -> Iterator[tuple[int, Block]]:
        """Yield (sequence, block) of every block after a sequence, in the order of their commits."""
        ...

    def records(self) -> int:
        """Return how many records the log holds in all."""
        ...

    def newest_at(self) -> int:
        """Return when the newest block's last request arrived, microseconds UTC; 0 when there is none."""
        ...

    def before(self, time: int) -> tuple[int, int]:
        """Return the sequence of the last block whose requests arrived before a time, and how many records follow."""
        ...

    def last_sequence(self) -> int:
        """Return the sequence of the newest block; 0 when there is none."""
        ...

    def announce(self, heads: Mapping[tuple[str, int], int]) -> None:
        """Make committed heads known and wake who waits for them; called in the event loop."""
        ...


class ContractStore(Protocol):
    """The compiled contracts seen, so that a restart knows them while the contracts service is away."""

    async def all(self) -> Sequence[KeptContract]:
        """Return all that is kept."""
        ...

    async def put(self, kept: KeptContract) -> None:
        """Keep a version, in force instead of any other of its dataset."""
        ...

    async def retire(self, workspace: str, dataset: str) -> None:
        """Keep a dataset's versions, none of them in force."""
        ...


class SourceTransactions(Protocol):
    """Opens transactions on sources."""

    def begin(self) -> AbstractAsyncContextManager[SourceStore]:
        """Open one that writes; it commits at exit and rolls back on an error."""
        ...

    def read(self) -> AbstractAsyncContextManager[SourceStore]:
        """Open one that reads."""
        ...


class SourceStore(Protocol):
    """Sources and write keys of one transaction; the caller opens and commits it."""

    connection: AsyncConnection
    """For what else commits with it."""

    async def add(self, source: Source) -> None:
        """Keep a new source."""
        ...

    async def get(self, workspace: str, source_id: str) -> Source:
        """Return one source; raise SourceNotFoundError when absent or in another workspace."""
        ...

    async def list(self, workspace: str, *, after: str, limit: int) -> Sequence[Source]:
        """Return the sources after an id, by id."""
        ...

    async def add_key(self, key: WriteKey, *, last_four: str) -> None:
        """Accept a new write key and show its end on its source."""
        ...

    async def keys(self, workspace: str, source_id: str) -> Sequence[WriteKey]:
        """Return every key of a source."""
        ...

    async def find_key(self, secret_sha256: bytes) -> WriteKey | None:
        """Return the key with this hash, whatever its end."""
        ...

    async def end_key(self, key: WriteKey, *, valid_until: int) -> None:
        """Let a key end at a time."""
        ...

    async def drop_key(self, key: WriteKey) -> None:
        """Accept a key no longer."""
        ...


class MonitorTransactions(Protocol):
    """Opens transactions on monitors."""

    def begin(self) -> AbstractAsyncContextManager[MonitorStore]:
        """Open one that writes; it commits at exit and rolls back on an error."""
        ...

    def read(self) -> AbstractAsyncContextManager[MonitorStore]:
        """Open one that reads."""
        ...


class MonitorStore(Protocol):
    """Monitors of one transaction, what they hold, and what governance and the audit log are told of them."""

    connection: AsyncConnection
    """For what else commits with it."""

    async def settings(self) -> Sequence[Setting]:
        """Return what people have set to be watched, of every workspace."""
        ...

    async def put_setting(self, setting: Setting) -> None:
        """Keep how something is watched."""
        ...

    async def delete_setting(self, setting: Setting) -> None:
        """Forget how something is watched."""
        ...

    async def all(self) -> Sequence[Monitor]:
        """Return every monitor of every workspace."""
        ...

    async def put(self, monitors: Sequence[Monitor]) -> None:
        """Keep monitors as they now are."""
        ...

    async def delete(self, monitor: Monitor) -> None:
        """Forget a monitor and its results."""
        ...

    async def add_results(self, monitors: Sequence[Monitor]) -> None:
        """Keep what was just found of monitors of one workspace, and of each monitor's results the newest only."""
        ...

    async def results(self, workspace: str, monitor_id: str) -> Sequence[Result]:
        """Return a monitor's results, newest first."""
        ...

    async def hold(self, monitor: Monitor) -> None:
        """Let the watchers know that a promise of a dataset is broken, whether it is held, and may be resumed."""
        ...

    async def release(self, monitor: Monitor) -> None:
        """Let the watchers know that a monitor neither holds its dataset nor finds its promise broken."""
        ...

    async def report(self, step: Step, *, now: datetime) -> None:
        """Tell governance what became of a monitor's incident, once the transaction commits."""
        ...

    async def disown(self, workspace: str, incident_id: str, *, now: datetime) -> None:
        """Tell governance that an incident is none of any monitor here, once the transaction commits."""
        ...

    async def record(
        self, workspace: str, *, principal: str, action: str, dataset: str, details: Mapping[str, Any]
    ) -> None:
        """Write an audit entry of what was done to a dataset."""
        ...

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Do this once the transaction has committed."""
        ...


class QuarantineStore(Protocol):
    """Quarantined records; every read is a transaction of its own, and `close` is part of one of the log's."""

    def begin(self) -> AbstractAsyncContextManager[QuarantineChanges]:
        """Open a transaction that writes; it commits at exit and rolls back on an error."""
        ...

    async def holding(self, workspace: str, texts: WholeTexts) -> Sequence[str]:
        """Return the ids of those that hold any of some texts."""
        ...

    async def count_open(self) -> tuple[int, int]:
        """Return how many are open, of all workspaces, and of the dataset that has most of them."""
        ...

    async def get(self, workspace: str, quarantine_id: str) -> Quarantined:
        """Return one with its bytes; raise QuarantinedRecordNotFoundError when absent or in another workspace."""
        ...

    async def list(self, workspace: str, wanted: QuarantineFilter, *, before: str, limit: int) -> Sequence[Quarantined]:
        """Return the newest before an id, without their bytes."""
        ...

    async def groups(
        self, workspace: str, *, dataset: str, state: QuarantineState, after: Sequence[str], limit: int
    ) -> Sequence[QuarantineGroup]:
        """Return the groups after one (dataset, reason, path, version), in this order; an empty dataset takes any."""
        ...

    async def some(
        self, workspace: str, wanted: QuarantineFilter | Sequence[str], *, after: str, limit: int
    ) -> tuple[Sequence[Quarantined], bool]:
        """Return the oldest after an id that ids or a filter name, with their bytes; and whether there are more.

        Fewer than `limit` when their bytes are many. Raises QuarantinedRecordNotFoundError for an id that is absent.
        """
        ...

    def close(
        self, statements: Statements, records: Sequence[Quarantined], verdicts: Sequence[Verdict], *, by: str, at: int
    ) -> None:
        """Note that records are in the log: accepted now, or duplicates of what was there.

        With that go the counters of their datasets and imports, and where their imports' records lie. Raises
        QuarantineChangedError when one of them is not as it was read.
        """
        ...


class QuarantineChanges(Protocol):
    """Quarantined records of one transaction; the caller opens and commits it."""

    connection: AsyncConnection
    """For what else commits with it."""

    async def repair(self, records: Sequence[Quarantined]) -> None:
        """Keep the repairs of records as these have them; raise QuarantineChangedError when one is replayed or gone."""
        ...

    async def discard(
        self,
        workspace: str,
        wanted: QuarantineFilter | Sequence[str],
        *,
        after: str,
        limit: int,
        reason: str,
        by: str,
        at: int,
    ) -> tuple[int, str]:
        """Set the oldest after an id aside that ids or a filter name.

        Return how many of them are discarded now, whenever it was done, and the last id where there are more. What is
        replayed stays so.
        """
        ...


class HistoryTransactions(Protocol):
    """Opens transactions on the past of datasets."""

    def begin(self) -> AbstractAsyncContextManager[HistoryStore]:
        """Open one that writes; it commits at exit and rolls back on an error."""
        ...

    def read(self) -> AbstractAsyncContextManager[HistoryStore]:
        """Open one that reads."""
        ...


class HistoryStore(Protocol):
    """The past of datasets in one transaction."""

    async def place(self, workspace: str, dataset: str) -> Place:
        """Return up to where a dataset's records are counted."""
        ...

    async def add(self, workspace: str, dataset: str, counted: Counted, *, until: Place) -> None:
        """Add counts, and note up to where records are counted."""
        ...

    async def history(self, workspace: str, dataset: str) -> History:
        """Return a dataset's past as far as it is kept."""
        ...

    async def forget(self, workspace: str, dataset: str) -> None:
        """Forget a dataset's past."""
        ...

    async def forget_before(self, workspace: str, dataset: str, *, hour: int, slot: int) -> None:
        """Forget what is older than an hour, of fillings than a slot."""
        ...


class ReconciliationTransactions(Protocol):
    """Opens transactions on reported totals."""

    def begin(self) -> AbstractAsyncContextManager[ReconciliationStore]:
        """Open one that writes; it commits at exit and rolls back on an error."""
        ...

    def read(self) -> AbstractAsyncContextManager[ReconciliationStore]:
        """Open one that reads."""
        ...


class ReconciliationStore(Protocol):
    """Reported totals of one transaction."""

    async def put(self, reconciliations: Sequence[Reconciliation]) -> None:
        """Keep totals as they now compare; one with the same id is replaced."""
        ...

    async def get(self, workspace: str, ids: Sequence[str]) -> Sequence[Reconciliation]:
        """Return those of some ids that there are, by id."""
        ...

    async def open(self, workspace: str, dataset: str, *, since: str) -> Sequence[Reconciliation]:
        """Return a dataset's totals of the days since one, and older ones that do not match."""
        ...

    async def number(self, workspace: str, dataset: str) -> int:
        """Return how many totals of a dataset are kept."""
        ...

    async def list(
        self, workspace: str, *, dataset: str, state: State | None, after: tuple[str, str], limit: int
    ) -> Sequence[Reconciliation]:
        """Return totals, the newest day first, after a (day, id); ("", "") = from the first."""
        ...

    async def delete(self, workspace: str, reconciliation_id: str) -> Reconciliation:
        """Forget one and return it; raise ReconciliationNotFoundError when absent or in another workspace."""
        ...

    async def forget_before(self, workspace: str, dataset: str, *, day: str) -> None:
        """Forget the totals of older days."""
        ...

    async def places(self) -> Sequence[tuple[str, str]]:
        """Return each (workspace, dataset) that has totals."""
        ...

    async def quarantined(self, workspace: str, dataset: str, source_id: str, *, since: int, until: int) -> int:
        """Return how many records were quarantined in a time, microseconds; source "" = of any."""
        ...

    async def record(
        self, workspace: str, *, principal: str, action: str, dataset: str, details: Mapping[str, Any]
    ) -> None:
        """Write an audit entry of what was done to a dataset's totals."""
        ...
