"""What a change of fields reaches: field by field where jobs say what they read, all of it where they do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from counterfoil_contracts.lineage.entities import AsOf, KnownEdge, Name, Node, NodeKind, Run, Version
from counterfoil_contracts.lineage.store import MOST_FOUND, LineageStores
from counterfoil_contracts.lineage.walking import MOST_NODES, touches

MOST_ROUNDS = 100
MOST_VERSIONS = 20


@dataclass
class Reached:
    """A node that a change reaches: through which of its fields ("" = all of it), how far away, by which job."""

    key: str
    distance: int
    through: str
    assumed: bool
    fields: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Impact:
    """What a change reaches, nearest first; `versions` are those of each model that is reached."""

    reached: Sequence[Reached]
    nodes: Mapping[str, Node]
    versions: Mapping[str, Sequence[Version]]
    receipts: Sequence[Run]
    receipts_total: int
    truncated: bool


async def impact(stores: LineageStores, changed: Iterable[tuple[Name, str]], *, as_of: AsOf, receipts: int) -> Impact:
    """Return what a change of these fields ("" = the dataset as a whole) reaches."""
    frontier: dict[str, set[str]] = {}
    for name, column in changed:
        frontier.setdefault(name.dataset, set()).add(column)
    spread = _Spread(stores, as_of, starts={key: set(columns) for key, columns in frontier.items()})
    while frontier and spread.distance < MOST_ROUNDS:
        frontier = await spread.step(frontier)
    reached = sorted(spread.reached.values(), key=lambda each: (each.distance, each.key))
    nodes = await stores.nodes.get([each.key for each in reached] + [each.through for each in reached])
    reached = [each for each in reached if each.key in nodes]
    versions = {
        each.key: (await stores.versions.list(each.key, version="", skip=0, limit=MOST_VERSIONS))[0]
        for each in reached
        if nodes[each.key].type == "MODEL"
    }
    jobs = [each.key for each in reached if nodes[each.key].kind is NodeKind.JOB]
    found, total = await stores.runs.receipts(jobs, until=as_of.at, limit=receipts)
    truncated = spread.truncated or bool(frontier)
    return Impact(reached, nodes, versions, found, total, truncated)


class _Spread:
    """Goes from field to field, one job further at each step."""

    def __init__(self, stores: LineageStores, as_of: AsOf, *, starts: Mapping[str, set[str]]) -> None:
        self._stores = stores
        self._as_of = as_of
        self._starts = starts
        self._ahead: dict[str, set[str]] = {}
        self.distance = 0
        self.reached: dict[str, Reached] = {}
        self.truncated = False

    async def step(self, frontier: Mapping[str, set[str]]) -> dict[str, set[str]]:
        """Go one job further; return the fields that were reached now, by dataset."""
        self.distance += 1
        self._ahead = {}
        for each in self._whole(await self._stores.edges.from_sources(list(frontier), columns=True, as_of=self._as_of)):
            edge = each.edge
            if any(touches(column, edge.source_field) for column in frontier[edge.source]):
                self._reach(edge.target, edge.target_field, edge.job, assumed=False)
        for job, targets in (await self._unsaid(frontier)).items():
            for target in targets:
                self._reach(target, "", job, assumed=True)
            self._add(job, "", job, assumed=True)
        return self._ahead

    async def _unsaid(self, frontier: Mapping[str, set[str]]) -> dict[str, set[str]]:
        """Return the jobs that read the frontier without saying which fields, with the outputs they say nothing of."""
        edges, as_of = self._stores.edges, self._as_of
        readers = self._whole(await edges.from_sources(list(frontier), columns=False, as_of=as_of))
        jobs = {each.edge.target for each in readers}
        written = self._whole(await edges.from_sources(list(jobs), columns=False, as_of=as_of))
        outputs: dict[str, set[str]] = {job: set() for job in jobs}
        for each in written:
            outputs[each.edge.source].add(each.edge.target)
        every = {target for targets in outputs.values() for target in targets}
        told = {
            (each.edge.job, each.edge.target)
            for each in self._whole(await edges.into_targets(list(every), columns=True, as_of=as_of))
        }
        unsaid = {job: {each for each in targets if (job, each) not in told} for job, targets in outputs.items()}
        return {job: targets for job, targets in unsaid.items() if targets or not outputs[job]}

    def _whole(self, found: Sequence[KnownEdge]) -> Sequence[KnownEdge]:
        """Return what was found, and note when there is more."""
        self.truncated = self.truncated or len(found) >= MOST_FOUND
        return found

    def _reach(self, target: str, column: str, job: str, *, assumed: bool) -> None:
        if job != target:  # it was not the dataset that said it of itself
            self._add(job, "", job, assumed=assumed)
        if column not in self._starts.get(target, ()) and self._add(target, column, job, assumed=assumed):
            self._ahead.setdefault(target, set()).add(column)

    def _add(self, key: str, column: str, through: str, *, assumed: bool) -> bool:
        """Note that a node is reached; say whether that, or the field, is new."""
        known = self.reached.get(key)
        if known is None:
            if len(self.reached) >= MOST_NODES:
                self.truncated = True
                return False
            known = self.reached[key] = Reached(key, self.distance, through, assumed)
        known.assumed = known.assumed and assumed
        if column in known.fields or "" in known.fields:
            return False
        known.fields.add(column)
        return True
