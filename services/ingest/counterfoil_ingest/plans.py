"""What is watched of each dataset: what its contract promises, what every dataset has by itself, what people set."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from typing import Final

from counterfoil_ingest.entities import UNPLANNED
from counterfoil_ingest.monitors import (
    DELAY,
    DISTRIBUTION,
    FRESHNESS,
    LATENCY,
    NO_PROMISES,
    NULL_SHARE,
    RECONCILIATION,
    SCHEMA_DRIFT,
    VOLUME,
    Operator,
    Origin,
    Promise,
    Promises,
    Setting,
)
from counterfoil_ingest.registry import Column, ColumnType, Compiled, Contracts

EVERY: Final = 15
"""In periods: the past is by hours, and looked at four times in each."""

_TIMES: Final = frozenset({ColumnType.DATE, ColumnType.TIMESTAMPTZ})
_EVENT_TIME: Final = "timestamp"


@dataclass(frozen=True)
class _Kind:
    name: str
    operator: Operator
    unit: str
    usual: float | None
    told: str


_KINDS: Final[Mapping[str, _Kind]] = {
    FRESHNESS: _Kind("auto_freshness", Operator.AT_MOST, "seconds", None, "New events come as they usually do."),
    VOLUME: _Kind("auto_volume", Operator.BETWEEN, "deviations", 5.0, "As many records come as usual at this time."),
    NULL_SHARE: _Kind("auto_nulls", Operator.AT_MOST, "points", 10.0, "Properties are filled as they usually are."),
    DISTRIBUTION: _Kind("auto_values", Operator.AT_MOST, "index", 0.25, "Values are as they usually are."),
    SCHEMA_DRIFT: _Kind("auto_schema", Operator.AT_MOST, "properties", 0.0, "Records have the properties they had."),
    DELAY: _Kind("auto_delay", Operator.AT_MOST, "seconds", 300.0, "What is received can soon be read."),
    RECONCILIATION: _Kind("auto_totals", Operator.AT_MOST, "totals", 0.0, "Totals are those that others report."),
}
METRICS: Final = frozenset(_KINDS)
_OF_COLUMNS: Final = frozenset({NULL_SHARE, DISTRIBUTION})


@dataclass(frozen=True)
class Subject:
    """One dataset and all that is watched of it."""

    workspace: str
    dataset: str
    compiled: Compiled | None
    promises: Promises

    @property
    def contract_id(self) -> str:
        """Return the contract in force; "" = none."""
        return self.compiled.contract_id if self.compiled else ""

    @property
    def version(self) -> str:
        """Return its version; "" = none."""
        return self.compiled.version if self.compiled else ""

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the contract's columns."""
        return self.compiled.columns if self.compiled else ()

    def column(self, name: str) -> Column | None:
        """Return one column by its name."""
        return next((each for each in self.columns if each.name == name), None)

    @property
    def event_time(self) -> Column | None:
        """Return the column that tells when something happened; None = nothing does but when it was received.

        What the contract's latency names, else `timestamp`.
        """
        named = [each.column for each in self.promises.all if each.metric == LATENCY]
        found = (self.column(each) for each in (*named, _EVENT_TIME) if each)
        return next((each for each in found if each is not None and each.type in _TIMES), None)


class Plans:
    """What is watched of the datasets of every workspace; `see` and `put` tell it what contracts do not."""

    def __init__(self, contracts: Contracts) -> None:
        self._contracts = contracts
        self._seen: dict[str, frozenset[str]] = {}
        self._totals: frozenset[tuple[str, str]] = frozenset()
        self._settings: defaultdict[tuple[str, str], dict[str, Setting]] = defaultdict(dict)
        self._made: dict[tuple[str, str], tuple[Compiled | None, Subject]] = {}

    def see(self, workspace: str, datasets: Iterable[str]) -> None:
        """Know the datasets of a workspace that have records: they are watched by themselves."""
        seen = frozenset(datasets) - {UNPLANNED}
        if seen != self._seen.get(workspace):
            self._seen[workspace] = seen
            self._forget(workspace)

    def see_totals(self, places: Iterable[tuple[str, str]]) -> None:
        """Know of which (workspace, dataset) somebody reports totals."""
        totals = frozenset(places)
        changed, self._totals = self._totals ^ totals, totals
        for place in changed:
            self._made.pop(place, None)

    def put(self, setting: Setting) -> None:
        """Watch something as somebody has set it."""
        self._settings[setting.workspace, setting.dataset][setting.name] = setting
        self._made.pop((setting.workspace, setting.dataset), None)

    def drop(self, setting: Setting) -> None:
        """Watch it no more, or as the dataset has it by itself."""
        self._settings[setting.workspace, setting.dataset].pop(setting.name, None)
        self._made.pop((setting.workspace, setting.dataset), None)

    def workspaces(self) -> set[str]:
        """Return the workspaces with contracts that promise something, or where somebody has set something."""
        promised = {each.workspace for each in self._contracts.all_in_force() if each.promises.all}
        return promised | {workspace for (workspace, _), each in self._settings.items() if each} | self._seen.keys()

    def subjects(self, workspace: str) -> list[Subject]:
        """Return the datasets of a workspace, by name."""
        names = self._contracts.datasets(workspace) | self._seen.get(workspace, frozenset())
        names |= {dataset for of, dataset in (*self._settings, *self._totals) if of == workspace}
        return [self.subject(workspace, each) for each in sorted(names)]

    def subject(self, workspace: str, dataset: str) -> Subject:
        """Return one dataset, also one that nothing is watched of; the same object until something changes."""
        compiled = self._contracts.in_force(workspace, dataset)
        known = self._made.get((workspace, dataset))
        if known is None or known[0] is not compiled:
            known = compiled, self._make(workspace, dataset, compiled)
            self._made[workspace, dataset] = known
        return known[1]

    def knows(self, workspace: str, dataset: str) -> bool:
        """Tell whether there is a dataset, by its contract or by its records."""
        return dataset in self._seen.get(workspace, ()) or self._contracts.in_force(workspace, dataset) is not None

    def settings(self, workspace: str, dataset: str) -> list[Setting]:
        """Return how a dataset's monitors are set that are no contract's, also those that nobody looks at."""
        known = {**self._own(workspace, dataset), **self._settings.get((workspace, dataset), {})}
        return [known[name] for name in sorted(known)]

    def setting(self, workspace: str, dataset: str, name: str) -> Setting | None:
        """Return how one is set."""
        return next((each for each in self.settings(workspace, dataset) if each.name == name), None)

    def own(self, workspace: str, dataset: str, name: str) -> Setting | None:
        """Return what a dataset has by itself under this name, whatever somebody has set."""
        return self._own(workspace, dataset).get(name)

    def _own(self, workspace: str, dataset: str) -> dict[str, Setting]:
        wanted: set[str] = {RECONCILIATION} if (workspace, dataset) in self._totals else set()
        if dataset in self._seen.get(workspace, ()):
            wanted |= METRICS - {RECONCILIATION}
            if self._contracts.in_force(workspace, dataset) is None:
                wanted -= _OF_COLUMNS
        kinds = {metric: _KINDS[metric].name for metric in sorted(wanted)}
        return {
            name: Setting(workspace, dataset, name, metric, origin=Origin.DEFAULT) for metric, name in kinds.items()
        }

    def _make(self, workspace: str, dataset: str, compiled: Compiled | None) -> Subject:
        promised = compiled.promises if compiled else NO_PROMISES
        taken = {each.name for each in promised.all}
        others = [
            promise_of(each) for each in self.settings(workspace, dataset) if each.enabled and each.name not in taken
        ]
        return Subject(workspace, dataset, compiled, Promises(promised.owner, (*promised.all, *others)))

    def _forget(self, workspace: str) -> None:
        for place in [each for each in self._made if each[0] == workspace]:
            del self._made[place]


def promise_of(setting: Setting) -> Promise:
    """Return what a setting has watched."""
    kind = _KINDS[setting.metric]
    bound = kind.usual if setting.threshold is None else setting.threshold
    bounds = () if bound is None else (-bound, bound) if kind.operator is Operator.BETWEEN else (bound,)
    return Promise(
        name=setting.name,
        metric=setting.metric,
        operator=kind.operator,
        bounds=bounds,
        unit=kind.unit,
        description=setting.description or kind.told,
        severity=setting.severity,
        schedule=setting.schedule,
        data_breaker=setting.data_breaker,
        auto_resume=setting.auto_resume,
        about=setting.property,
        every=EVERY,
        owner=setting.owner,
        origin=setting.origin,
    )


def etag_of(setting: Setting) -> str:
    """Return what names the content of a setting."""
    return hashlib.sha256(repr(astuple(setting)).encode()).hexdigest()[:16]
