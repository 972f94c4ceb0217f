"""Erasure of persons: found by hashes, their records erased in the log, the graph made as if these had never been.

A record is erased when it holds an identifier of the person. The graph forgets in one transaction, while its consumer
stands still: exactly, where the records tell of nobody else; otherwise it reads the erased log again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import grpc
import orjson
import zstandard
from counterfoil_chassis.backoff import Backoff
from counterfoil_chassis.errors import CounterfoilError
from counterfoil_chassis.health import HEALTH
from counterfoil_chassis.status import RemoteFailure, cause_of, failure_of

from counterfoil_graph.entities import Edge, Erasure, ErasureWork, Member, Name, Node
from counterfoil_graph.errors import BlockUnreadableError, ErasureHeldError, ErasureIncompleteError
from counterfoil_graph.extraction import Extractor
from counterfoil_graph.facts import NodeFact
from counterfoil_graph.following import MOST_BYTES, TRUSTED_SOURCE, Followers
from counterfoil_graph.holding import Holding, meant
from counterfoil_graph.mapping import InForce
from counterfoil_graph.metrics import ERASURE_AGE, ERASURES_WAITING
from counterfoil_graph.searching import Search, Searcher, Told, telling, told_by
from counterfoil_graph.store import ErasureOffices, ErasureStore, Log, LogBlock, MappingStore, NodeKey, Stores

_AT_ONCE: Final = 10_000  # offsets of one call to ingest
_READ_SECONDS: Final = 60.0  # an erasure whose graph is further behind is tried again after the others
_OVERWRITES: Final = 60
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ErasureMeans:
    """What erasing needs; `forget` has the database overwrite what was deleted, False = not all of it yet."""

    stores: Stores
    followers: Followers
    log: Log
    offices: ErasureOffices
    holding: Holding
    forget: Callable[[], Awaitable[bool]]


@dataclass(slots=True)
class _Due:
    """An erasure that waits, and why it could not be carried out the last time: `held` by a law, it is not late."""

    erasure: Erasure
    backoff: Backoff
    cause: str = ""
    held: bool = False


@dataclass(frozen=True, slots=True)
class _Known:
    """The identifiers of those who are to be erased. One that many share is nobody's, and stays."""

    own: frozenset[Member]
    persons: int
    shared: int

    @property
    def names(self) -> frozenset[Name]:
        return frozenset(each.name for each in self.own)

    @property
    def places(self) -> list[int]:
        return sorted(each.place for each in self.own)


Key = tuple[str, str]
"""Workspace and privacy request."""


class Erasing:
    """Carries out erasures, one after the other; one that fails is tried again and holds up nobody."""

    def __init__(self, means: ErasureMeans) -> None:
        self._means = means
        self._due: dict[Key, _Due] = {}
        self._turns: asyncio.Queue[Key] = asyncio.Queue()
        self._first: set[Key] | None = None  # what was due at the start; None = not known yet
        self._caught_up = asyncio.Event()
        self._watcher = means.offices.watcher(self._on_due, self._on_done)

    async def run(self) -> None:
        """Carry out erasures for the process's life."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watcher.run())
            await self._watcher.current()
            self._first = set(self._due)
            self._settle()
            with HEALTH.checking("erasures", self._problem), ERASURE_AGE.reading(read=self._age):
                while True:
                    key = await self._turns.get()
                    if (due := self._due.get(key)) is not None:
                        await self._try(due, group)

    async def ready(self) -> None:
        """Wait until the erasures that were due at the start are carried out: until then old data may be back."""
        await self._caught_up.wait()

    def _on_due(self, erasure: Erasure) -> None:
        key = (erasure.workspace, erasure.privacy_request_id)
        if key not in self._due:
            self._due[key] = _Due(erasure, Backoff(first=0.5, longest=60.0))
            self._turns.put_nowait(key)
        ERASURES_WAITING.set(len(self._due))

    def _on_done(self, workspace: str, privacy_request_id: str) -> None:
        self._due.pop((workspace, privacy_request_id), None)
        ERASURES_WAITING.set(len(self._due))
        self._settle()

    def _settle(self) -> None:
        if self._first is not None and self._first.isdisjoint(self._due):
            self._caught_up.set()

    def _age(self) -> float:
        asked = min((due.erasure.asked_us for due in self._due.values() if not due.held), default=None)
        return 0.0 if asked is None else max(0.0, time.time() - asked / 1e6)

    def _problem(self) -> str:
        failing = [due for due in self._due.values() if due.cause]
        if not failing:
            return ""
        return f"{len(failing)} cannot be carried out and are tried again, the first because: {failing[0].cause}"

    async def _try(self, due: _Due, group: asyncio.TaskGroup) -> None:
        erasure = due.erasure
        fields = {"workspace": erasure.workspace, "privacy_request_id": erasure.privacy_request_id}
        try:
            await self._carry_out(erasure)
        except ErasureHeldError as held:
            due.cause, due.held = "", True
            await self._tell_held(erasure, held)
            group.create_task(self._again(due))
            return
        except (grpc.aio.AioRpcError, CounterfoilError) as error:
            failure = failure_of(error) if isinstance(error, grpc.aio.AioRpcError) else error
            due.held = False
            due.cause = failure.detail if isinstance(failure, RemoteFailure) else failure.message
            _logger.warning("an erasure failed and is tried again", extra={**fields, "cause": due.cause})
            group.create_task(self._again(due))
            return
        _logger.info("an erasure is carried out", extra=fields)
        self._on_done(erasure.workspace, erasure.privacy_request_id)

    async def _tell_held(self, erasure: Erasure, held: ErasureHeldError) -> None:
        """Tell governance what an erasure waits for; nobody else has to wait for it."""
        workspace, request = erasure.workspace, erasure.privacy_request_id
        fields = {"workspace": workspace, "privacy_request_id": request, "legal_holds": held.legal_hold_ids}
        _logger.info("an erasure waits for legal holds", extra=fields)
        try:
            await self._means.offices.report_held(workspace, request, held.legal_hold_ids)
        except grpc.aio.AioRpcError as error:
            _logger.warning("governance is not told what an erasure waits for", extra={"cause": cause_of(error)})
        if self._first is not None:
            self._first.discard((workspace, request))
            self._settle()

    async def _again(self, due: _Due) -> None:
        await due.backoff.pause()
        self._turns.put_nowait((due.erasure.workspace, due.erasure.privacy_request_id))

    async def _carry_out(self, erasure: Erasure) -> None:
        workspace, request = erasure.workspace, erasure.privacy_request_id
        async with self._means.stores.read() as transaction:
            work = await transaction.erasures(workspace).work(request)
        if work is None or work.erased is None:
            work = await self._erase(erasure, work or ErasureWork((), None))
        await self._overwrite()
        await self._means.offices.report(workspace, request, work.erased or {})
        async with self._means.stores.begin() as transaction:
            await transaction.erasures(workspace).end_work(request)

    async def _erase(self, erasure: Erasure, work: ErasureWork) -> ErasureWork:
        """Erase the persons' records, have the graph forget them; return what is gone."""
        workspace, request = erasure.workspace, erasure.privacy_request_id
        followers = self._means.followers
        await followers.wait(workspace, seconds=_READ_SECONDS)
        in_force, known = followers.in_force(workspace), await self._known(erasure)
        while True:
            if held := await self._means.holding.on(workspace, known.names, erasure.identifier_hashes):
                raise ErasureHeldError(held)
            search = await self._search(erasure, in_force, known, tell=True)
            await followers.wait(workspace, search.next_offset, seconds=_READ_SECONDS)
            before, known = known, await self._known(erasure)
            if known == before:  # whatever was searched is in the graph now, and named nobody else
                break
        offsets = sorted({*work.offsets, *search.offsets})
        if offsets or known.own:
            async with self._means.stores.begin() as transaction:
                await transaction.erasures(workspace).keep_work(request, ErasureWork(tuple(offsets), None))
        records, quarantined = await self._erase_records(erasure, offsets, identifiers=telling(known.names))
        done = ErasureWork(
            (),
            {
                "persons": known.persons,
                "identifiers": len(known.own),
                "records": max(records, len(offsets)),  # an attempt before this one may have erased them
                "quarantined_records": quarantined,
            },
        )
        lost = not search.offsets.keys() >= set(work.offsets)
        await followers.change(
            workspace,
            lambda: self._forget(erasure, in_force, known, search=search, offsets=offsets, exact=not lost, done=done),
        )
        async with self._means.stores.read() as transaction:
            remaining = await transaction.erasures(workspace).remaining(known.places)
        if remaining:
            raise ErasureIncompleteError(f"The graph still has {remaining} rows of the person.")
        return done

    async def _known(self, erasure: Erasure) -> _Known:
        """Return whom the hashes mean, with all identifiers."""
        workspace, found, after = erasure.workspace, list[Member](), -1
        async with self._means.stores.read() as transaction:
            store = transaction.erasures(workspace)
            while page := await store.identifiers(after=after):
                found += await asyncio.to_thread(meant, page, key=erasure.hash_key, hashes=erasure.identifier_hashes)
                after = page[-1].place
            of_them = await store.persons_identifiers([each.place for each in found if not each.shared])
            persons = await transaction.reader(workspace).persons([each.place for each in of_them])
        own = frozenset(each for each in of_them if not each.shared)
        return _Known(own, len(set(persons.values())), sum(each.shared for each in found))

    async def _search(self, erasure: Erasure, in_force: InForce, known: _Known, *, tell: bool) -> Search:
        """Look through the whole log for records of the persons; with `tell`, keep what those say that are meant."""
        search = Search()
        if not known.own:
            return search
        searcher = Searcher(in_force, known.names)
        extractor = Extractor(in_force, trusted_source=TRUSTED_SOURCE) if tell else None
        async with aclosing(self._means.log.scan(erasure.workspace)) as blocks:
            async for block in blocks:
                await asyncio.to_thread(_look, block, search, searcher, extractor, asked_us=erasure.asked_us)
        return search

    async def _erase_records(
        self, erasure: Erasure, offsets: Sequence[int], *, identifiers: Sequence[str]
    ) -> tuple[int, int]:
        records = quarantined = 0
        if not offsets and not identifiers:
            return 0, 0
        for start in range(0, len(offsets) or 1, _AT_ONCE):
            some = offsets[start : start + _AT_ONCE]
            answer = await self._means.offices.erase(
                erasure.workspace, erasure.privacy_request_id, some, identifiers=identifiers if start == 0 else ()
            )
            if answer.remaining:
                raise ErasureIncompleteError(f"The log still has {answer.remaining} records of the person.")
            records, quarantined = records + answer.records, quarantined + answer.quarantined
        return records, quarantined

    async def _forget(
        self,
        erasure: Erasure,
        in_force: InForce,
        known: _Known,
        *,
        search: Search,
        offsets: Sequence[int],
        exact: bool,
        done: ErasureWork,
    ) -> None:
        """Have the graph forget, while its consumer stands still; the log is searched once more for that."""
        workspace, request = erasure.workspace, erasure.privacy_request_id
        left = await self._search(erasure, in_force, known, tell=False)
        if any(received <= erasure.asked_us for received in left.offsets.values()):
            raise ErasureIncompleteError("Records of the person came in while it was erased.")
        async with self._means.stores.read() as transaction:
            cursor = (await transaction.reader(workspace).state()).next_offset
            exact = exact and not left.offsets and self._means.followers.in_force(workspace) == in_force
            exact = exact and await _is_alone(transaction.erasures(workspace), known, search)
            changed = await _changed_nodes(transaction.erasures(workspace), search) if exact else frozenset()
            begun = await _begun(transaction.mappings(workspace), search) if exact else frozenset()
        nodes = await self._nodes(erasure, in_force, changed, until=cursor)
        firsts = await self._firsts(erasure, begun, until=cursor)
        async with self._means.stores.begin() as transaction:
            store, mappings = transaction.erasures(workspace), transaction.mappings(workspace)
            if exact:
                await _forget_exactly(store, known, search, request=request)
                await store.retell_nodes(nodes)
                await store.set_first_offsets(firsts)
            elif known.own or search.offsets:
                await mappings.apply(await mappings.applied() or "", rebuild=True)
                await store.keep_erased(known.places, privacy_request_id=request)
            if offsets:
                await store.count_erasure(min(offsets))
            await store.keep_work(request, done)
        _logger.info(
            "the graph has forgotten", extra={"workspace": workspace, "privacy_request_id": request, "exact": exact}
        )

    async def _nodes(
        self, erasure: Erasure, in_force: InForce, keys: Collection[NodeKey], *, until: int
    ) -> dict[NodeKey, list[Node]]:
        """Return what the log says of nodes now: each description that differs from the one before."""
        told: dict[NodeKey, list[Node]] = {key: [] for key in keys}
        if not keys:
            return told
        extractor = Extractor(in_force, trusted_source=TRUSTED_SOURCE)
        async with aclosing(self._means.log.scan(erasure.workspace)) as blocks:
            async for block in blocks:
                if block.next_offset > until:
                    break
                await asyncio.to_thread(_tell_nodes, block, extractor, told)
        return told

    async def _firsts(self, erasure: Erasure, datasets: Collection[str], *, until: int) -> dict[str, int | None]:
        """Return where datasets begin now, None = nowhere."""
        firsts: dict[str, int | None] = dict.fromkeys(datasets)
        if not datasets:
            return firsts
        async with aclosing(self._means.log.scan(erasure.workspace)) as blocks:
            async for block in blocks:
                if block.next_offset > until or None not in firsts.values():
                    break
                await asyncio.to_thread(_find_firsts, block, firsts)
        return firsts

    async def _overwrite(self) -> None:
        pauses = Backoff(first=0.02, longest=1.0)
        for _ in range(_OVERWRITES):
            if await self._means.forget():
                return
            await pauses.pause()
        raise ErasureIncompleteError("Somebody reads an older state of the graph all the time, which keeps it on disk.")


def _look(block: LogBlock, search: Search, searcher: Searcher, extractor: Extractor | None, *, asked_us: int) -> None:
    payload, received_us = _unpacked(block), [each.received_us for each in block.headers]
    found = searcher.find(payload, received_us=received_us)
    search.next_offset = block.next_offset
    if extractor is None:
        search.offsets |= {offset: received for offset, (_, received) in found.items()}
        return
    theirs = {offset: line for offset, line in found.items() if line[1] <= asked_us}  # what came later is not meant
    if theirs:
        search.offsets |= {offset: received for offset, (_, received) in theirs.items()}
        sources, numbers = [each.source_id for each in block.headers], [number for number, _ in theirs.values()]
        search.told.append(
            told_by(
                extractor, payload, numbers, received_us=received_us, sources=sources, next_offset=block.next_offset
            )
        )


def _tell_nodes(block: LogBlock, extractor: Extractor, told: Mapping[NodeKey, list[Node]]) -> None:
    facts = extractor.read(
        _unpacked(block),
        received_us=[each.received_us for each in block.headers],
        sources=[each.source_id for each in block.headers],
        from_offset=0,
    )
    for key in facts.nodes.keys() & told.keys():
        fact, chain = facts.nodes[key], told[key]
        node = Node(*key[:2], fact.name, fact.attributes, key[2], fact.valid_to_us, block.next_offset, fact.offset)
        if not chain or _said(chain[-1]) != _said(node):
            chain.append(node)


def _said(of: Node | NodeFact) -> tuple[str, str, int | None]:
    return of.name, of.attributes, of.valid_to_us


def _unpacked(block: LogBlock) -> bytes:
    try:
        return zstandard.ZstdDecompressor().decompress(block.payload, max_output_size=MOST_BYTES)
    except zstandard.ZstdError as error:
        raise BlockUnreadableError(
            f"A block of the log before {block.next_offset} cannot be read ({error}). Restore it from a backup.",
            metadata={"next_offset": str(block.next_offset)},
        ) from error


async def _is_alone(store: ErasureStore, known: _Known, search: Search) -> bool:
    """Tell whether the records tell of nobody else, so that all they brought goes with the persons."""
    names = known.names
    if not all(told.facts.identifiers.keys() <= names for told in search.told):
        return False
    decisions = {each.decision_id for told in search.told for each in told.facts.decisions}
    return not await store.has_decisions_beside(known.places, decisions)


async def _changed_nodes(store: ErasureStore, search: Search) -> frozenset[NodeKey]:
    """Return the nodes whose descriptions are others without the records."""
    changed: set[NodeKey] = set()
    for told in search.told:
        for key in told.facts.nodes:
            before, after = told.before.nodes[key], told.after.nodes.get(key)
            if before == after:
                continue
            if (after is not None and _said(before) != _said(after)) or await store.describes(key, told.next_offset):
                changed.add(key)
    return frozenset(changed)


async def _begun(mappings: MappingStore, search: Search) -> frozenset[str]:
    """Return the datasets whose first record is among those found."""
    seen = await mappings.datasets_seen()
    return frozenset(dataset for dataset, first in seen.items() if first in search.offsets)


def _find_firsts(block: LogBlock, firsts: dict[str, int | None]) -> None:
    for text in _unpacked(block).split(b"\n"):
        if text:
            line = orjson.loads(text)
            if line["r"] is not None and firsts.get(line["d"], 0) is None:
                firsts[line["d"]] = line["o"]


async def _forget_exactly(store: ErasureStore, known: _Known, search: Search, *, request: str) -> None:
    await store.forget_persons(known.places, privacy_request_id=request)
    await store.forget_decisions({each.decision_id for told in search.told for each in told.facts.decisions})
    for told in search.told:
        await store.retell_edges(told.next_offset, _edges(told))
        await store.count_unread(told.facts.unread)


def _edges(told: Told) -> list[Edge]:
    """Return the edges between things that the records told of, as the block tells of them without these."""
    found = []
    for (type_, source, target, since), fact in told.facts.edges.items():
        if isinstance(source, str) and isinstance(target, str):  # a person's go with the person
            left = told.after.edges.get((type_, source, target, since))
            records, said = (0, fact) if left is None else (left.records, left)
            edge = Edge(type_, source, target, since, said.valid_to_us, told.next_offset, records, said.offset)
            found.append(edge)
    return found
