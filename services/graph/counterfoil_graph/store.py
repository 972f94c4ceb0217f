"""What the rules need from storage and from other services."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from counterfoil_chassis.watch import Watcher

from counterfoil_graph.entities import (
    Counts,
    Decision,
    Edge,
    Erasure,
    ErasureWork,
    EventKind,
    Export,
    Hold,
    IdentifierSeen,
    Link,
    MappingVersion,
    Member,
    Name,
    Node,
    State,
)

T = TypeVar("T")

CONSUMER = "graph"
"""The name of the log consumer, under which its place is kept."""

RECEIPTS_TOPIC = "receipts"
"""The outbox topic of receipts on their way to the ledger."""


class Partners(NamedTuple):
    """How many partners of an identifier count, and whether it is shared."""

    place: int
    partners: int
    shared: bool


class EventRow(NamedTuple):
    """What one block brought of a touchpoint or conversion; `place_of` is whose it is."""

    place_of: int
    kind: EventKind
    type: str
    key: str
    place: int
    time_us: int | None
    channel: str
    campaign: str
    value_micros: int
    currency: str
    dataset: str
    records: int


class EventKey(NamedTuple):
    """Which touchpoint or conversion, and whose."""

    place_of: int
    kind: EventKind
    type: str
    key: str


class GraphWriter(Protocol):
    """One workspace's graph in the transaction of one block; what it writes is known from state `tx` on."""

    async def places(self, names: Collection[Name]) -> dict[Name, int]:
        """Return the places of the identifiers that are known."""

    async def add_identifiers(self, found: Sequence[IdentifierSeen]) -> None:
        """Add identifiers, each a person of its own."""

    async def see_identifiers(self, found: Sequence[IdentifierSeen]) -> None:
        """Add what a block tells of known identifiers: earliest and latest time, records."""

    async def members(self, places: Collection[int]) -> dict[int, Member]:
        """Return identifiers by place."""

    async def partners(self, places: Collection[int]) -> dict[int, Partners]:
        """Return how many partners identifiers have."""

    async def set_partners(self, found: Sequence[Partners]) -> None:
        """Keep how many partners identifiers have."""

    async def links(self, pairs: Collection[tuple[int, int]]) -> dict[tuple[int, int], Link]:
        """Return the evidence there is of pairs of places."""

    async def put_links(self, links: Sequence[Link]) -> None:
        """Keep evidence: `records` add up, the rest replaces what is there."""

    async def links_of(self, places: Collection[int]) -> list[Link]:
        """Return the evidence that concerns any of some identifiers."""

    async def decisions_of(self, places: Collection[int]) -> list[tuple[Decision, tuple[int, ...]]]:
        """Return the decisions about any of some identifiers, each with the places of those it is about."""

    async def add_decision(self, decision: Decision, places: Sequence[int]) -> None:
        """Keep a decision, and on the merge it takes back that it did; one that is there is kept as it is."""

    async def persons(self, places: Collection[int]) -> dict[int, int]:
        """Return the persons that identifiers belong to now."""

    async def assign(self, persons: Mapping[int, int]) -> None:
        """Give identifiers to persons from this state on."""

    async def add_persons(self, persons: Mapping[int, int]) -> None:
        """Give identifiers that are new to persons from this state on."""

    async def put_nodes(self, nodes: Sequence[Node]) -> None:
        """Keep nodes as they are described now; a description that says the same changes nothing."""

    async def put_edges(self, edges: Sequence[Edge]) -> None:
        """Keep what a block tells of edges."""

    async def put_events(self, events: Sequence[EventRow]) -> None:
        """Keep what a block tells of touchpoints and conversions."""

    async def add_unread(self, unread: Mapping[tuple[str, str], int]) -> None:
        """Count records that could not be read, by dataset and reason."""

    async def add_datasets(self, first_offsets: Mapping[str, int]) -> None:
        """Note datasets that the log has shown."""

    async def known_us(self) -> int:
        """Return when the newest record was received that is known so far, 0 when none is."""

    async def has_decisions(self) -> bool:
        """Tell whether anybody ever decided anything."""

    async def end_block(self, known_us: int) -> None:
        """Note that there is a state here, whose newest record was received then."""


class PersonReader(Protocol):
    """What a workspace's graph says of single persons, in one read transaction."""

    async def state(self) -> State:
        """Return the state as it is now."""

    async def rebuild_until(self) -> int:
        """Return the offset up to which the graph was read before it was last rebuilt, 0 = it never was."""

    async def persons(self, places: Collection[int], *, at: int | None = None) -> dict[int, int]:
        """Return the persons of identifiers, in a state (None = now)."""

    async def identifiers(self, persons: Collection[int], *, at: int | None = None) -> dict[int, list[IdentifierSeen]]:
        """Return the identifiers of persons, in a state (None = now)."""

    async def is_erased(self, number: int) -> bool:
        """Tell whether a person of this number was erased."""

    async def were_persons(self, places: Collection[int]) -> set[int]:
        """Return those identifiers that were the first of a person once and are not now."""

    async def event_keys(self, places: Collection[int], *, at: int) -> list[EventKey]:
        """Return what was told of the journeys of some identifiers, in a state; one event may be told repeatedly."""


class GraphReader(PersonReader, Protocol):
    """One workspace's graph in one read transaction."""

    async def known_us(self, next_offset: int) -> int | None:
        """Return when the newest record of a state was received, None when there is no such state."""

    async def known_times(self, offsets: Collection[int]) -> dict[int, int]:
        """Return when the newest records of some states were received."""

    async def offset_known_at(self, known_us: int) -> int:
        """Return the exclusive offset of the newest state that was known at a time, 0 when nothing was."""

    async def former_until(self, mappings_sha256: str) -> int | None:
        """Return up to which offset states of former mappings are what they were, None = they are not."""

    async def counts(self) -> Counts:
        """Count what there is."""

    async def place_of(self, name: Name) -> int | None:
        """Return an identifier's place."""

    async def page(self, *, after: int, limit: int, min_identifiers: int) -> list[int]:
        """Return persons in the order in which they were first seen."""

    async def is_erased_since(self, erasures: int, *, below: int) -> bool:
        """Tell whether an erasure after so many has changed what states say of the records below an offset."""

    async def members(self, places: Collection[int]) -> dict[int, Member]:
        """Return identifiers by place."""

    async def links_of(self, places: Collection[int]) -> list[Link]:
        """Return the evidence that concerns any of some identifiers."""

    async def decision(self, decision_id: str) -> Decision | None:
        """Return one decision."""

    async def decisions_of(self, places: Collection[int]) -> list[tuple[Decision, tuple[int, ...]]]:
        """Return the decisions about any of some identifiers."""

    async def events(self, places: Collection[int], *, at: int) -> list[EventRow]:
        """Return what was told of the journeys of some identifiers, in a state."""

    async def persons_with_events(self, *, at: int, campaigns: Collection[str], since: int, until: int) -> list[int]:
        """Return, in order, the persons of a state to whom something happened in a time, or who met a campaign."""

    async def campaigns(self, *, at: int) -> dict[str, Node]:
        """Return the campaigns of a state by key."""

    async def node(self, type_: str, key: str, *, at: int, valid_us: int | None) -> Node | None:
        """Return a node in a state, valid at a time (None = its newest description)."""

    async def nodes(self, keys: Collection[tuple[str, str]], *, at: int) -> dict[tuple[str, str], Node]:
        """Return the newest descriptions of nodes in a state."""

    async def node_page(self, type_: str, *, after: str, limit: int, at: int, valid_us: int | None) -> list[Node]:
        """Return the nodes of a type by key."""

    async def edges(self, ends: Collection[str], *, outgoing: bool, type_: str, at: int) -> list[Edge]:
        """Return the edges that begin (or end) at any of some ends, rows of one key added up."""


class MappingStore(Protocol):
    """Mappings of one workspace in the open transaction."""

    async def in_force(self) -> list[MappingVersion]:
        """Return the newest version of each mapping, by id."""

    async def add(self, version: MappingVersion) -> None:
        """Keep a version."""

    async def datasets_seen(self) -> dict[str, int]:
        """Return the datasets that the log has shown, each with the offset of its first record."""

    async def applied(self) -> str | None:
        """Return the hash of the mappings that the graph was made with, None when there is no graph."""

    async def apply(self, mappings_sha256: str, *, rebuild: bool) -> None:
        """Say which mappings are in force; with `rebuild`, forget everything that was derived."""

    async def end_rebuild(self) -> None:
        """Say that a rebuild has reached the head of the log, wherever that is now."""


class ExportStore(Protocol):
    """Exports and their receipts in the open transaction."""

    async def add(self, export: Export, *, receipt: bytes) -> None:
        """Keep an export with its receipt's bytes."""

    async def receipt(self, workspace: str, receipt_id: str) -> tuple[bytes, Export]:
        """Return a receipt with its export; raise ReceiptNotFoundError."""

    async def has_change(self, workspace: str, change_id: str) -> bool:
        """Tell whether an export has used a change."""


NodeKey = tuple[str, str, int]
"""Type, key, and since when the description is valid."""


class ErasureStore(Protocol):
    """Erasures of one workspace in the open transaction."""

    async def work(self, privacy_request_id: str) -> ErasureWork | None:
        """Return how far an erasure is, None = nothing was done yet."""

    async def keep_work(self, privacy_request_id: str, work: ErasureWork) -> None:
        """Keep how far an erasure is."""

    async def end_work(self, privacy_request_id: str) -> None:
        """Forget an erasure that is reported."""

    async def identifiers(self, *, after: int) -> Sequence[Member]:
        """Return the next identifiers by place, none at the end."""

    async def persons_identifiers(self, places: Collection[int]) -> Sequence[Member]:
        """Return the identifiers of everybody to whom any of some identifiers belongs now."""

    async def describes(self, key: NodeKey, next_offset: int) -> bool:
        """Tell whether a node's description changed with a block."""

    async def forget_persons(self, places: Sequence[int], *, privacy_request_id: str) -> None:
        """Delete everything about some identifiers, and keep their numbers so that nobody gets them again."""

    async def count_erasure(self, first_offset: int) -> None:
        """Note that an erasure has changed all states from an offset on."""

    async def keep_erased(self, places: Sequence[int], *, privacy_request_id: str) -> None:
        """Note the numbers of erased persons, take them out of exports, and drop kept answers that may show them."""

    async def forget_decisions(self, decision_ids: Collection[str]) -> None:
        """Delete decisions."""

    async def has_decisions_beside(self, places: Collection[int], decision_ids: Collection[str]) -> bool:
        """Tell whether decisions about some identifiers are more than these, or these concern others."""

    async def retell_edges(self, next_offset: int, edges: Sequence[Edge]) -> None:
        """Replace what a block says of edges between things; an edge without records it does not speak of."""

    async def count_unread(self, fewer: Mapping[tuple[str, str], int]) -> None:
        """Count fewer records that could not be read, by dataset and reason."""

    async def set_first_offsets(self, firsts: Mapping[str, int | None]) -> None:
        """Say where datasets begin now; None = no record of it is left."""

    async def retell_nodes(self, told: Mapping[NodeKey, Sequence[Node]]) -> None:
        """Replace the descriptions of nodes; they are in the order of the blocks they came with."""

    async def remaining(self, places: Collection[int]) -> int:
        """Count the rows that still speak of some identifiers."""


class Transaction(Protocol):
    """The stores of one transaction, and its connection for the chassis tables."""

    connection: Any
    exports: ExportStore

    def reader(self, workspace: str) -> GraphReader:
        """Return one workspace's graph to read."""

    def mappings(self, workspace: str) -> MappingStore:
        """Return one workspace's mappings."""

    def erasures(self, workspace: str) -> ErasureStore:
        """Return one workspace's erasures."""

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Have a callback run once a write transaction has committed."""


class Stores(Protocol):
    """Opens transactions."""

    def begin(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a write transaction: commits at exit, rolls back on error."""

    def read(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a read transaction."""

    async def read_person(self, workspace: str, work: Callable[[PersonReader], Awaitable[T]]) -> T:
        """Return what work makes of what it reads in one state; it may wait for nothing but the reader."""

    async def workspaces(self) -> list[str]:
        """Return the workspaces that have a graph."""


@dataclass(frozen=True, slots=True)
class LogHeader:
    """What is known of one request that brought records of a block."""

    source_id: str
    received_us: int
    traceparent: str


@dataclass(frozen=True, slots=True)
class LogBlock:
    """Consecutive records of the log; `payload` is JSON lines, compressed by zstd."""

    next_offset: int
    payload: bytes
    headers: tuple[LogHeader, ...]


class LogMessage(NamedTuple):
    """A block or a heartbeat (None); the first message tells the lives of the log before `log_epoch`.

    Up to their exclusive offsets, the records of `predecessors` are those of this one.
    """

    log_epoch: str
    next_offset: int
    block: LogBlock | None
    predecessors: Mapping[str, int]


class Log(Protocol):
    """The log of ingest."""

    def follow(self, workspace: str, *, from_offset: int, log_epoch: str) -> AsyncIterator[LogMessage]:
        """Yield blocks and heartbeats for ever."""

    def scan(self, workspace: str) -> AsyncGenerator[LogBlock, None]:
        """Yield every block up to the head of the log as it is when it is reached."""

    async def append(self, workspace: str, dataset: str, records: Iterable[bytes]) -> list[int]:
        """Append records as this service; return their offsets. Raises DecisionNotKeptError for one not taken."""


@dataclass(frozen=True, slots=True)
class LogErased:
    """What ingest has erased, and what its own search still finds."""

    records: int
    quarantined: int
    remaining: int


class ErasureOffices(Protocol):
    """Governance, which tells of erasures and is told of their end, and ingest, which erases records."""

    def watcher(self, on_due: Callable[[Erasure], None], on_done: Callable[[str, str], None]) -> Watcher:
        """Return what tells of each erasure that is due, and of each (workspace, request) that is reported."""

    def hold_watcher(self, on_put: Callable[[str, Hold], None], on_delete: Callable[[str], None]) -> Watcher:
        """Return what tells of each legal hold on persons, and of the key of each that is released."""

    async def holds(self) -> Sequence[Hold]:
        """Return the legal holds on persons that nobody has released, of every workspace, as they are now."""

    async def hold_persons(self, workspace: str, legal_hold_ids: Sequence[str], identifiers: Sequence[str]) -> None:
        """Tell ingest whom all the legal holds on persons of a workspace name."""

    async def report_held(self, workspace: str, privacy_request_id: str, legal_hold_ids: Sequence[str]) -> None:
        """Tell that an erasure waits for legal holds."""

    async def erase(
        self, workspace: str, privacy_request_id: str, offsets: Sequence[int], *, identifiers: Sequence[str]
    ) -> LogErased:
        """Have records erased wherever ingest keeps them, and quarantined ones that hold an identifier.

        Raises ErasureHeldError when a legal hold keeps one of their datasets.
        """

    async def report(self, workspace: str, privacy_request_id: str, erased: Mapping[str, int]) -> None:
        """Tell that an erasure is carried out and that nothing is left."""


@dataclass(frozen=True, slots=True)
class ConsentAnswer:
    """Whether each person may be used for a purpose: the consent that allows it, None = not; and the bases found."""

    consent_ids: tuple[str | None, ...]
    bases: frozenset[str]
    ledger_revision: int
    at_us: int


class Consents(Protocol):
    """The consent ledger of governance."""

    async def check(
        self, workspace: str, purpose: str, people: Sequence[Sequence[Name]], *, ledger_revision: int, at_us: int | None
    ) -> ConsentAnswer:
        """Check people, named by their identifiers, against one state of the ledger; 0 and None = as it is now."""
