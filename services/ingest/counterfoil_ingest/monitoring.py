"""Looks at what is watched of datasets, each in its time, and keeps what follows: incidents, held data."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from counterfoil_chassis.backoff import wait
from counterfoil_chassis.clock import Clock, Ids
from counterfoil_chassis.database import lasting
from counterfoil_chassis.errors import EtagMismatchError
from counterfoil_chassis.health import HEALTH
from cronsim import CronSim, CronSimError

from counterfoil_ingest.errors import (
    MonitorExistsError,
    MonitorFailingError,
    MonitorInvalidError,
    MonitorNotFoundError,
    MonitorOfContractError,
    NothingToResumeError,
    TooManyMonitorsError,
)
from counterfoil_ingest.measuring import Measurer
from counterfoil_ingest.metrics import DATASETS_HELD, MONITORS_FAILING
from counterfoil_ingest.monitors import (
    DISTRIBUTION,
    FRESHNESS,
    ITSELF,
    NULL_SHARE,
    RECONCILIATION,
    UNWATCHED,
    WITHDRAWN,
    End,
    Monitor,
    Origin,
    Promise,
    Result,
    Setting,
    State,
    Step,
    ended,
    judged,
    monitor_id_of,
)
from counterfoil_ingest.plans import METRICS, Plans, Subject, etag_of, promise_of
from counterfoil_ingest.read_errors import DatasetNotFoundError
from counterfoil_ingest.registry import ColumnType
from counterfoil_ingest.store import Log, MonitorStore, MonitorTransactions

MOST_SETTINGS: Final = 50
"""So many monitors of a dataset people can add."""

_LATE_ROUNDS: Final = 2
_ABOUT: Final = {
    FRESHNESS: frozenset({ColumnType.DATE, ColumnType.TIMESTAMPTZ}),
    NULL_SHARE: frozenset(ColumnType),
    DISTRIBUTION: frozenset(ColumnType) - {ColumnType.JSON},
}
"""Which types the property may have that a monitor is about; others are about none."""
_AS_IT_SHOULD_BE: Final = frozenset({State.PENDING, State.LEARNING, State.PASSING})
AT_ONCE: Final = 2
"""Of how many workspaces monitors are evaluated at once, one query each, so that a slow one delays few."""
_logger = logging.getLogger(__name__)

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Watched:
    """One thing that is watched of a dataset, with its monitor as it is; `setting` None = the contract promises it."""

    subject: Subject
    promise: Promise
    monitor: Monitor
    next_at: datetime
    setting: Setting | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """An incident that governance says is over, or that it holds for open."""

    workspace: str
    monitor_id: str
    incident_id: str
    end: End | None


@dataclass
class _Turn:
    """What one workspace waits for and is told; the lock lets one thing be done to its monitors at a time."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    awake: asyncio.Event = field(default_factory=asyncio.Event)
    ended: list[Ended] = field(default_factory=list)
    took: timedelta = timedelta(0)


class Monitoring:
    """The monitors of every workspace: evaluated in their time by `run`, or when somebody asks.

    `settled` tells whether the contracts known are those in force: before, nobody can say that a promise is gone. Of
    `at_once` workspaces a dataset is evaluated at once when its time has come. The others wait here and not with a
    query, which would run out of time: after a long stop, or when many are new, everything is due.
    """

    def __init__(
        self,
        transactions: MonitorTransactions,
        measurer: Measurer,
        *,
        plans: Plans,
        log: Log,
        settled: Callable[[], bool],
        period: timedelta,
        clock: Clock,
        ids: Ids,
        at_once: int = AT_ONCE,
    ) -> None:
        self._transactions = transactions
        self._measurer = measurer
        self._plans = plans
        self._log = log
        self._settled = settled
        self._period = period
        self._clock = clock
        self._ids = ids
        self._places = asyncio.Semaphore(at_once)
        self._monitors: dict[Key, Monitor] = {}
        self._turns: defaultdict[str, _Turn] = defaultdict(_Turn)
        self._awake = asyncio.Event()

    async def restore(self) -> None:
        """Read the monitors as they were kept; before anything else."""
        async with self._transactions.read() as store:
            self._monitors = {each.key: each for each in await store.all()}
            for setting in await store.settings():
                self._plans.put(setting)

    async def run(self) -> None:
        """Evaluate every monitor in its time, for ever."""
        with (
            HEALTH.checking("monitors", self._problem),
            MONITORS_FAILING.reading(read=self._failing),
            DATASETS_HELD.reading(read=self._held),
        ):
            async with asyncio.TaskGroup() as group:
                followed: set[str] = set()
                while True:
                    self._awake.clear()
                    for workspace in self._workspaces() - followed:
                        followed.add(workspace)
                        group.create_task(lasting(partial(self._follow, workspace)))
                    await wait(self._awake, self._period.total_seconds())

    async def do_what_is_due(self, workspace: str) -> None:
        """Release what was resumed elsewhere, forget what is promised no more, evaluate whatever is due."""
        counts = await asyncio.to_thread(self._log.counts, workspace)
        self._plans.see(workspace, [each.dataset for each in counts if each.records])
        await self._end_told(workspace)
        await self._forget_withdrawn(workspace)
        await self._round(workspace)

    def watched(self, workspace: str) -> list[Watched]:
        """Return the monitors of a workspace's datasets, by id, also those that somebody has switched off."""
        found = [each for subject in self._plans.subjects(workspace) for each in self._all(subject)]
        return sorted(found, key=lambda each: each.monitor.monitor_id)

    def find(self, workspace: str, monitor_id: str) -> Watched:
        """Return one monitor; raise MonitorNotFoundError when there is none."""
        dataset, _, name = monitor_id.partition(".")
        found = self._all(self._plans.subject(workspace, dataset))
        watched = next((each for each in found if each.promise.name == name), None)
        if watched is None:
            raise MonitorNotFoundError(
                f"There is no monitor {monitor_id!r}. List the monitors for their ids.",
                metadata={"monitor_id": monitor_id},
            )
        return watched

    async def create(self, store: MonitorStore, setting: Setting, *, principal: str) -> Watched:
        """Watch something more of a dataset, once the transaction commits.

        Raises DatasetNotFoundError, MonitorInvalidError, MonitorExistsError, TooManyMonitorsError.
        """
        self._check(setting)
        subject = self._plans.subject(setting.workspace, setting.dataset)
        known = self._plans.settings(setting.workspace, setting.dataset)
        names = {each.name for each in known} | {each.name for each in subject.promises.all}
        if setting.name in names:
            monitor_id = monitor_id_of(setting.dataset, setting.name)
            raise MonitorExistsError(
                f"There is a monitor {monitor_id!r} already. Update it, or take another name.",
                metadata={"monitor_id": monitor_id},
            )
        if len(known) >= MOST_SETTINGS:
            raise TooManyMonitorsError(
                f"A dataset has at most {MOST_SETTINGS} monitors beside its contract's. Delete some.",
                metadata={"dataset": setting.dataset},
            )
        await self._set(store, setting, action="monitor.create", principal=principal)
        promise = promise_of(setting)
        monitor = self._monitor(subject, promise)
        return Watched(subject, promise, monitor, self._next(monitor, promise), setting)

    async def update(self, workspace: str, monitor_id: str, *, etag: str, principal: str, **changed: Any) -> Watched:
        """Set a monitor otherwise; raise also MonitorNotFoundError, MonitorOfContractError, EtagMismatchError."""
        async with self._turns[workspace].lock:
            setting = replace(self._setting(workspace, monitor_id, etag=etag), **changed)
            self._check(setting)
            async with self._transactions.begin() as store:
                await self._set(store, setting, action="monitor.update", principal=principal)
        return self.find(workspace, monitor_id)

    async def delete(self, workspace: str, monitor_id: str, *, etag: str, principal: str) -> None:
        """Watch something no more, or as the dataset has it by itself; raises as `update`."""
        async with self._turns[workspace].lock:
            setting = self._setting(workspace, monitor_id, etag=etag)
            if setting.origin is Origin.DEFAULT:
                raise MonitorInvalidError(
                    f"Every dataset has what monitor {monitor_id!r} watches. Update it, and do not enable it.",
                    metadata={"monitor_id": monitor_id},
                )
            async with self._transactions.begin() as store:
                await store.delete_setting(setting)
                await store.record(
                    workspace,
                    principal=principal,
                    action="monitor.delete",
                    dataset=setting.dataset,
                    details={"monitor_id": monitor_id},
                )
                store.after_commit(partial(self._plans.drop, setting))
                store.after_commit(partial(self._wake, workspace))

    async def results(self, workspace: str, monitor_id: str) -> Sequence[Result]:
        """Return a monitor's last results, newest first."""
        async with self._transactions.read() as store:
            return await store.results(workspace, monitor_id)

    async def evaluate(self, workspace: str, monitor_id: str) -> Watched:
        """Evaluate one monitor now and return it; raise MonitorNotFoundError."""
        async with self._turns[workspace].lock:
            watched = self._enabled(workspace, monitor_id)
            await self._evaluate(watched.subject, [watched.promise])
        return self.find(workspace, monitor_id)

    async def evaluate_totals(self, workspace: str, dataset: str) -> None:
        """Evaluate what watches a dataset's reported totals now."""
        async with self._turns[workspace].lock:
            subject = self._plans.subject(workspace, dataset)
            promises = [each for each in subject.promises.all if each.metric == RECONCILIATION]
            if promises:
                await self._evaluate(subject, promises)
        self._wake(workspace)

    async def resume(
        self, workspace: str, monitor_id: str, *, reason: str, accept_breach: bool, principal: str
    ) -> Watched:
        """End a monitor's incident and release what it holds, after one more look.

        Raises MonitorNotFoundError, NothingToResumeError, MonitorFailingError while the promise is broken and that is
        not accepted.
        """
        async with self._turns[workspace].lock:
            watched = self._enabled(workspace, monitor_id)
            if not watched.monitor.incident_id:
                raise NothingToResumeError(
                    f"Monitor {monitor_id!r} has no open incident and holds nothing.",
                    metadata={"monitor_id": monitor_id},
                )
            self._measurer.forget(watched.subject)
            await self._evaluate(watched.subject, [watched.promise])
            monitor = self._monitors[workspace, monitor_id]
            failing = monitor.state is not State.PASSING
            if failing and not accept_breach:
                raise MonitorFailingError(
                    f"The promise is still broken: {monitor.detail} Mend the data, or say accept_breach.",
                    metadata={"monitor_id": monitor_id, "incident_id": monitor.incident_id},
                )
            if monitor.incident_id:  # else the look found it repaired, and the contract resumes by itself
                step = ended(monitor, End(principal, reason, accepted=failing))
                async with self._transactions.begin() as store:
                    await self._keep(store, step)
        return self.find(workspace, monitor_id)

    def told(self, incident: Ended) -> None:
        """Take over that an incident is over, or is held for open by governance; done in the background."""
        self._turns[incident.workspace].ended.append(incident)
        self._wake(incident.workspace)

    def _workspaces(self) -> set[str]:
        """Return the workspaces that have records, where something is watched or was, or that were told something."""
        watched = self._plans.workspaces() | set(self._log.workspaces())
        return watched | {workspace for workspace, _ in self._monitors} | self._turns.keys()

    def _wake(self, workspace: str) -> None:
        self._turns[workspace].awake.set()
        self._awake.set()

    def _check(self, setting: Setting) -> None:
        """Raise what a setting is refused for: DatasetNotFoundError, MonitorInvalidError."""
        if not self._plans.knows(setting.workspace, setting.dataset):
            raise DatasetNotFoundError(
                f"There is no dataset `{setting.dataset}` that can be watched. List the datasets.",
                metadata={"dataset": setting.dataset},
            )
        if setting.schedule:
            try:
                next(CronSim(setting.schedule, self._clock.now()))
            except (CronSimError, StopIteration) as error:
                raise MonitorInvalidError(
                    "The schedule is none. Write five fields of cron, e.g. `0 6 * * *`.", metadata={"field": "schedule"}
                ) from error
        if not setting.property:
            return
        types = _ABOUT.get(setting.metric, frozenset())
        subject = self._plans.subject(setting.workspace, setting.dataset)
        names = [each.name for each in subject.columns if each.type in types]
        if setting.property not in names:
            can = f"can be about: {', '.join(names) or 'none'}" if types else "is about no property; leave it empty"
            raise MonitorInvalidError(f"A monitor of {setting.metric} {can}.", metadata={"field": "property"})

    def _setting(self, workspace: str, monitor_id: str, *, etag: str) -> Setting:
        """Return how a monitor is set; raise MonitorNotFoundError, MonitorOfContractError, EtagMismatchError."""
        setting = self.find(workspace, monitor_id).setting
        if setting is None:
            raise MonitorOfContractError(
                f"The contract promises what monitor {monitor_id!r} watches. Activate another version of it.",
                metadata={"monitor_id": monitor_id},
            )
        if etag and etag != etag_of(setting):
            raise EtagMismatchError(
                "The monitor has changed since it was read. Read it again.", metadata={"monitor_id": monitor_id}
            )
        return setting

    def _enabled(self, workspace: str, monitor_id: str) -> Watched:
        watched = self.find(workspace, monitor_id)
        if watched.setting is not None and not watched.setting.enabled:
            raise MonitorInvalidError(
                f"Monitor {monitor_id!r} is switched off. Enable it first.", metadata={"monitor_id": monitor_id}
            )
        return watched

    async def _set(self, store: MonitorStore, setting: Setting, *, action: str, principal: str) -> None:
        setting = replace(setting, origin=Origin.CONFIGURED)
        await store.put_setting(setting)
        await store.record(
            setting.workspace,
            principal=principal,
            action=action,
            dataset=setting.dataset,
            details={
                "monitor_id": monitor_id_of(setting.dataset, setting.name),
                "metric": setting.metric,
                "threshold": setting.threshold,
                "data_breaker": setting.data_breaker,
                "enabled": setting.enabled,
            },
        )
        store.after_commit(partial(self._plans.put, setting))
        store.after_commit(partial(self._wake, setting.workspace))

    def _all(self, subject: Subject) -> list[Watched]:
        """Return everything that is watched of a dataset, and what somebody has switched off."""
        settings = {each.name: each for each in self._plans.settings(subject.workspace, subject.dataset)}
        promised = {each.name: each for each in subject.promises.all}
        off = {name: promise_of(each) for name, each in settings.items() if name not in promised}
        found = []
        for name, promise in (promised | off).items():
            monitor = self._monitor(subject, promise)
            setting = None if promise.origin is Origin.CONTRACT else settings[name]
            found.append(Watched(subject, promise, monitor, self._next(monitor, promise), setting))
        return found

    async def _follow(self, workspace: str) -> None:
        """Evaluate a workspace's monitors one after the other, for ever: its slow rules delay nobody else's."""
        turn = self._turns[workspace]
        while True:
            turn.awake.clear()
            await self.do_what_is_due(workspace)
            await wait(turn.awake, self._pause(workspace))

    def _monitor(self, subject: Subject, promise: Promise) -> Monitor:
        monitor_id = monitor_id_of(subject.dataset, promise.name)
        known = self._monitors.get((subject.workspace, monitor_id))
        about: Mapping[str, Any] = {
            "contract_id": subject.contract_id,
            "contract_version": subject.version,
            "owner": promise.owner or subject.promises.owner,
            "promised": _promised(promise),
            "severity": promise.severity,
            "metric": promise.metric,
        }
        if known is not None:
            return replace(known, **about)
        return Monitor(
            workspace=subject.workspace,
            monitor_id=monitor_id,
            dataset=subject.dataset,
            name=promise.name,
            since=self._clock.now(),
            **about,
        )

    def _next(self, monitor: Monitor, promise: Promise) -> datetime:
        if monitor.evaluated_at is not None:
            return promise.next_after(monitor.evaluated_at, period=self._period)
        return promise.next_after(monitor.since, period=self._period) if promise.schedule else monitor.since

    async def _round(self, workspace: str) -> None:
        turn = self._turns[workspace]
        began = self._clock.now()
        for subject in self._plans.subjects(workspace):
            async with turn.lock:
                await self._meet(subject)
            if not self._due(subject):
                continue
            async with self._places, turn.lock:
                due = self._due(subject)
                if due and self._plans.subject(workspace, subject.dataset) is subject:
                    await self._evaluate(subject, due)
        turn.took = self._clock.now() - began

    def _due(self, subject: Subject) -> list[Promise]:
        now = self._clock.now()
        return [each for each in subject.promises.all if self._next(self._monitor(subject, each), each) <= now]

    async def _meet(self, subject: Subject) -> None:
        """Keep the monitors that are new: how long they have been waited for counts from now."""
        new = [self._monitor(subject, each) for each in subject.promises.all]
        new = [each for each in new if each.key not in self._monitors]
        if new:
            async with self._transactions.begin() as store:
                await store.put(new)
            self._monitors |= {each.key: each for each in new}

    async def _evaluate(self, subject: Subject, promises: Sequence[Promise]) -> None:
        """Look at some promises of one dataset and keep all that follows in one transaction."""
        await self._meet(subject)
        monitors = {each.name: self._monitor(subject, each) for each in promises}
        found = await self._measurer.measure(subject, promises, monitors, now=self._clock.now())
        now = self._clock.now()
        steps = [judged(*found[each.name], each, now=now, new_id=self._ids.new) for each in promises]
        async with self._transactions.begin() as store:  # short: what brings records waits for it
            await self._keep(store, *steps)
            await store.add_results([each.after for each in steps])

    async def _keep(self, store: MonitorStore, *steps: Step) -> None:
        """Keep monitors, tell the watchers what is held and governance what became of incidents."""
        await store.put([each.after for each in steps])
        for step in steps:
            await self._tell(store, step)
            store.after_commit(partial(self._put, step.after))
            self._report(step)

    async def _tell(self, store: MonitorStore, step: Step) -> None:
        before, after = step.before, step.after
        if step.is_news:
            await store.report(step, now=self._clock.now())
        if step.moves_outputs:
            await (store.hold(after) if after.concerns_outputs else store.release(after))
        if after.held is not before.held:
            end = step.ended or WITHDRAWN
            action, by = ("dataset.hold", ITSELF) if after.held else ("dataset.resume", end.by)
            incident_id = after.incident_id or before.incident_id
            details: Mapping[str, Any] = {"monitor_id": after.monitor_id, "incident_id": incident_id}
            if not after.held:
                details = {**details, "reason": end.reason, "breach_accepted": end.accepted}
            await store.record(after.workspace, principal=by, action=action, dataset=after.dataset, details=details)

    def _put(self, monitor: Monitor) -> None:
        self._monitors[monitor.key] = monitor

    def _forget(self, monitor: Monitor) -> None:
        self._monitors.pop(monitor.key, None)

    async def _end_told(self, workspace: str) -> None:
        """Release what people resumed by ending the incident; an incident that is none of ours is over."""
        turn = self._turns[workspace]
        while turn.ended:
            told = turn.ended[0]
            async with turn.lock:
                monitor = self._monitors.get((told.workspace, told.monitor_id))
                if monitor is None or monitor.incident_id != told.incident_id:
                    async with self._transactions.begin() as store:
                        await store.disown(told.workspace, told.incident_id, now=self._clock.now())
                elif told.end is not None:
                    async with self._transactions.begin() as store:
                        await self._keep(store, ended(monitor, told.end))
            turn.ended.pop(0)

    async def _forget_withdrawn(self, workspace: str) -> None:
        """End the incidents of what nobody watches any more."""
        if not self._settled():
            return
        mine = [each for each in self._monitors.values() if each.workspace == workspace]
        for monitor in [each for each in mine if self._promise_of(each) is None]:
            async with self._turns[workspace].lock, self._transactions.begin() as store:
                if monitor.incident_id:
                    await self._keep(store, ended(monitor, UNWATCHED if monitor.metric in METRICS else WITHDRAWN))
                if monitor.concerns_outputs:
                    await store.release(monitor)
                await store.delete(monitor)
                store.after_commit(partial(self._forget, monitor))

    def _promise_of(self, monitor: Monitor) -> Promise | None:
        return self._plans.subject(monitor.workspace, monitor.dataset).promises.find(monitor.name)

    def _pause(self, workspace: str) -> float:
        now = self._clock.now()
        nexts: Iterable[datetime] = (
            self._next(self._monitor(subject, promise), promise)
            for subject in self._plans.subjects(workspace)
            for promise in subject.promises.all
        )
        soonest = min(nexts, default=now + self._period)
        return min(max(0.0, (soonest - now).total_seconds()), self._period.total_seconds())

    def _failing(self) -> int:
        return sum(each.state in (State.FAILING, State.ERROR) for each in self._monitors.values())

    def _held(self) -> int:
        return len({(each.workspace, each.dataset) for each in self._monitors.values() if each.held})

    def _problem(self) -> str:
        workspace, turn = max(self._turns.items(), key=lambda each: each[1].took, default=("", _Turn()))
        if turn.took <= _LATE_ROUNDS * self._period:
            return ""
        took, period = turn.took.total_seconds(), self._period.total_seconds()
        return (
            f"a round of the monitors of workspace {workspace} takes {took:.0f} s, the period is {period:.0f} s: "
            "give its rules schedules or windows"
        )

    def _report(self, step: Step) -> None:
        if step.after.state is step.before.state and not step.is_news:
            return
        after = step.after
        fields: Mapping[str, object] = {
            "workspace": after.workspace,
            "monitor": after.monitor_id,
            "state": after.state.name,
            "held": after.held,
            "incident": after.incident_id or step.before.incident_id,
        }
        level = logging.INFO if after.state in _AS_IT_SHOULD_BE else logging.WARNING
        _logger.log(level, "monitor changed", extra=dict(fields))


def _promised(promise: Promise) -> str:
    about = f" of {promise.about}" if promise.about else ""
    return promise.description or f"{promise.metric}{about} must be {promise.expectation}."
