"""What the rules need from storage and from other services."""

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from counterfoil_chassis.watch import Watcher

from counterfoil_models.entities import (
    Change,
    ConsentState,
    Contract,
    Forecast,
    GraphState,
    Hold,
    JourneyReading,
    LogBlock,
    Model,
    ModelEvent,
    ModelVersion,
    Output,
    OutputKind,
    SeriesBacktest,
    SkippedSeries,
    Snapshot,
)

RECEIPTS_TOPIC = "receipts"
"""The outbox topic of receipts on their way to the ledger."""


@dataclass(frozen=True)
class Ending:
    """How a training ended; an empty `error_reason` = nothing went wrong."""

    finished_at: datetime
    artifact_sha256: str = ""
    artifact_bytes: int = 0
    backtests: tuple[SeriesBacktest, ...] = ()
    skipped: tuple[SkippedSeries, ...] = ()
    input_rows: tuple[int, ...] = ()
    error_reason: str = ""
    error_detail: str = ""


@dataclass(frozen=True)
class KeptReceipt:
    """A receipt's bytes as they were first kept, and the output it stands behind as it is stored now."""

    payload: bytes
    output_json: str


@dataclass(frozen=True)
class SnapshotRead:
    """A snapshot's records as an Arrow table, how many there were, and their contracts."""

    table: Any
    rows: int
    contracts: tuple[Contract, ...]


class ModelStore(Protocol):
    """Models, versions and events of one transaction; the caller opens and commits it."""

    async def add(self, model: Model) -> None:
        """Add a model; raise ModelExistsError when its id is taken."""

    async def get(self, workspace: str, model_id: str) -> Model:
        """Return one model with its champion; raise ModelNotFoundError."""

    async def page(self, workspace: str, *, limit: int, after: str) -> list[Model]:
        """Return models by id, from the one after `after` on."""

    async def add_version(self, version: ModelVersion) -> None:
        """Add a version; its events give it a state."""

    async def next_version(self, workspace: str, model_id: str) -> int:
        """Return the number the next version gets."""

    async def get_version(self, workspace: str, model_id: str, version: int) -> ModelVersion:
        """Return one version; raise ModelVersionNotFoundError."""

    async def page_versions(self, workspace: str, model_id: str, *, limit: int, before: int) -> list[ModelVersion]:
        """Return versions, newest first, below `before` (0 = from the newest)."""

    async def end_training(self, workspace: str, model_id: str, version: int, ending: Ending) -> None:
        """Keep how a training ended."""

    async def running(self, workspace: str, model_id: str) -> int:
        """Return the version that is being trained, 0 = none."""

    async def unfinished(self) -> list[ModelVersion]:
        """Return the versions of every workspace whose training has not ended."""

    async def pending(self) -> list[ModelVersion]:
        """Return the versions of every workspace that wait for an approval."""

    async def set_change(self, workspace: str, model_id: str, version: int, change_id: str) -> None:
        """Keep which change a version's promotion waits for or was approved by, "" = none."""

    async def append(self, workspace: str, model_id: str, changes: Sequence[Change], *, now: datetime) -> None:
        """Append events; they are never changed or deleted."""

    async def events(
        self, workspace: str, model_id: str, *, after: int = 0, limit: int | None = None
    ) -> list[ModelEvent]:
        """Return events, oldest first, after a sequence."""


class ForecastStore(Protocol):
    """Forecasts of one transaction; the caller opens and commits it."""

    async def find(self, workspace: str, question_sha256: str) -> Forecast | None:
        """Return the forecast that answered this question before."""

    async def get(self, workspace: str, forecast_id: str) -> Forecast:
        """Return one forecast; raise ForecastNotFoundError."""

    async def page(self, workspace: str, *, model_id: str, limit: int, before: str) -> list[Forecast]:
        """Return forecasts, newest first, with ids below `before` ("" = from the newest), of a model ("" = of all)."""

    async def add(self, forecast: Forecast, *, receipt: bytes) -> bool:
        """Keep a forecast with its receipt's bytes; False = its question was answered, maybe by another process."""


class OutputStore(Protocol):
    """Attributions and lifts of one transaction; the caller opens and commits it."""

    async def find(self, workspace: str, kind: OutputKind, question_sha256: str) -> Output | None:
        """Return the output that answered this question before."""

    async def get(self, workspace: str, kind: OutputKind, output_id: str) -> Output:
        """Return one output; raise AttributionNotFoundError or LiftNotFoundError."""

    async def page(self, workspace: str, kind: OutputKind, *, limit: int, before: str) -> list[Output]:
        """Return outputs of a kind, newest first, with ids below `before` ("" = from the newest)."""

    async def add(self, output: Output, *, receipt: bytes) -> bool:
        """Keep an output with its receipt's bytes; False = its question was answered, maybe by another process."""


class ReceiptStore(Protocol):
    """The receipts of every output, of one transaction."""

    async def get(self, workspace: str, receipt_id: str) -> KeptReceipt:
        """Return a receipt; raise ReceiptNotFoundError."""


class RecordsSeenStore(Protocol):
    """How many records each dataset has received, of one transaction."""

    async def add(self, workspace: str, partition: int, counts: Mapping[str, int]) -> None:
        """Count records of datasets."""

    async def total(self, workspace: str, dataset: str) -> int:
        """Return how many records a dataset has received."""


class ArtifactStore(Protocol):
    """Artifacts by the SHA-256 of their bytes, of one transaction."""

    async def put(self, data: bytes) -> str:
        """Keep bytes and return their hash; the same bytes again change nothing."""

    async def get(self, sha256: str) -> bytes:
        """Return the bytes.

        Raises ArtifactCorruptError when they are gone or do not have this hash, ArtifactAbsentError when they may be
        where only the process that trains finds them.
        """

    async def known(self) -> Collection[str]:
        """Return the hashes of those in the database."""


class EarlierArtifacts(Protocol):
    """Artifacts that an earlier release kept in files; blocking."""

    def get(self, sha256: str) -> bytes:
        """Return the bytes; raise ArtifactCorruptError when they are gone or do not have this hash."""

    def beside(self, known: Collection[str]) -> Iterator[bytes]:
        """Yield those that are whole and not among the known."""


class HoldStore(Protocol):
    """Which datasets are held or break their contracts, as ingest said last."""

    async def all(self) -> Sequence[Hold]:
        """Return every workspace's holds."""

    async def of(self, workspace: str, datasets: Collection[str]) -> Sequence[Hold]:
        """Return what is known of some datasets, the oldest first."""

    async def put(self, hold: Hold) -> None:
        """Keep a hold as it now is."""

    async def delete(self, workspace: str, monitor_id: str) -> None:
        """Forget what a monitor held."""


class Transaction(Protocol):
    """The stores of one transaction, and its connection for the chassis tables."""

    connection: Any
    artifacts: ArtifactStore
    models: ModelStore
    forecasts: ForecastStore
    outputs: OutputStore
    receipts: ReceiptStore
    holds: HoldStore


class Stores(Protocol):
    """Opens transactions."""

    def begin(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a write transaction: commits at exit, rolls back on error."""

    def read(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a read transaction."""


@dataclass(frozen=True)
class ConsentsFound:
    """Whether each unit may be used, in the order they were asked for, on which legal bases, by which state."""

    allowed: tuple[bool, ...]
    bases: tuple[str, ...]
    state: ConsentState


class ConsentSource(Protocol):
    """The consent ledger, from governance."""

    async def check(
        self, workspace: str, units: Sequence[str], *, unit_type: str, purpose: str, state: ConsentState | None = None
    ) -> ConsentsFound:
        """Tell for each unit whether the purpose is allowed, as the ledger is now or as it was in a cited state."""


@dataclass(frozen=True)
class JourneyQuestion:
    """Whose journeys to read, from when until when (exclusive); without states, as graph and consents are now."""

    workspace: str
    conversion_type: str
    since: datetime
    until: datetime
    purpose: str
    state: GraphState | None = None
    consent: ConsentState | None = None
    wait_for_offset: int = 0


class OpenJourneys(Protocol):
    """Journeys that are being read: what they are comes first, their rows when they are asked for."""

    reading: JourneyReading

    async def rows(self) -> Any:
        """Read all rows as an Arrow table with the columns of `ReadJourneysResponse`; once."""


class JourneySource(Protocol):
    """Everybody's journeys, from graph."""

    def open(self, question: JourneyQuestion) -> AbstractAsyncContextManager[OpenJourneys]:
        """Begin to read as this service itself; raise GraphRebuiltError when the state is no longer kept."""


class SnapshotSource(Protocol):
    """Snapshots of datasets, from ingest."""

    async def take(self, dataset: str) -> Snapshot:
        """Take a snapshot on behalf of the running request's caller."""

    async def read(self, snapshot: Snapshot, columns: Sequence[str], *, workspace: str) -> SnapshotRead:
        """Read columns of a snapshot as this service itself.

        Raises SnapshotErasedError or SnapshotExpiredError when its records are no longer those that were cited.
        """


class HoldSource(Protocol):
    """Which datasets are held, from ingest."""

    def watch(self, on_hold: Callable[[Hold], None], on_release: Callable[[tuple[str, str]], None]) -> Watcher:
        """Return a watcher of every workspace's holds; a release comes with the workspace and the monitor's id."""


class Log(Protocol):
    """The log of ingest."""

    def follow(
        self, workspace: str, partition: int, *, from_offset: int, log_epoch: str
    ) -> AsyncIterator[tuple[str, int, LogBlock | None]]:
        """Yield (epoch, next offset, block or heartbeat) for ever; raise BlockUnreadableError."""
