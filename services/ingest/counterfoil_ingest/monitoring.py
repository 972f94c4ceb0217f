"""Looks at what contracts promise of datasets, each in its time, and keeps what follows: incidents, held data."""

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
from counterfoil_chassis.health import HEALTH

from counterfoil_ingest.errors import MonitorFailingError, MonitorNotFoundError, NothingToResumeError
from counterfoil_ingest.measuring import Measurer
from counterfoil_ingest.metrics import DATASETS_HELD, MONITORS_FAILING
from counterfoil_ingest.monitors import (
    ITSELF,
    WITHDRAWN,
    End,
    Monitor,
    Promise,
    Result,
    State,
    Step,
    ended,
    judged,
    monitor_id_of,
)
from counterfoil_ingest.registry import Compiled, Contracts
from counterfoil_ingest.store import MonitorStore, MonitorTransactions

_LATE_ROUNDS: Final = 2
_logger = logging.getLogger(__name__)

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Watched:
    """One promise of a contract in force, with its monitor as it is."""

    compiled: Compiled
    promise: Promise
    monitor: Monitor
    next_at: datetime


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

    `settled` tells whether the contracts known are those in force: before, nobody can say that a promise is gone.
    """

    def __init__(
        self,
        transactions: MonitorTransactions,
        measurer: Measurer,
        *,
        contracts: Contracts,
        settled: Callable[[], bool],
        period: timedelta,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._transactions = transactions
        self._measurer = measurer
        self._contracts = contracts
        self._settled = settled
        self._period = period
        self._clock = clock
        self._ids = ids
        self._monitors: dict[Key, Monitor] = {}
        self._turns: defaultdict[str, _Turn] = defaultdict(_Turn)
        self._awake = asyncio.Event()

    async def restore(self) -> None:
        """Read the monitors as they were kept; before anything else."""
        async with self._transactions.read() as store:
            self._monitors = {each.key: each for each in await store.all()}

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
        await self._end_told(workspace)
        await self._forget_withdrawn(workspace)
        await self._round(workspace)

    def watched(self, workspace: str) -> list[Watched]:
        """Return the monitors of a workspace's contracts in force, by id."""
        found = [
            self._watched(compiled, promise)
            for compiled in self._in_force(workspace)
            for promise in compiled.promises.all
        ]
        return sorted(found, key=lambda each: each.monitor.monitor_id)

    def find(self, workspace: str, monitor_id: str) -> Watched:
        """Return one monitor; raise MonitorNotFoundError when no contract in force promises it."""
        dataset, _, name = monitor_id.partition(".")
        compiled = self._contracts.in_force(workspace, dataset)
        promise = compiled.promises.find(name) if compiled is not None else None
        if compiled is None or promise is None:
            raise MonitorNotFoundError(
                f"No contract in force has a monitor {monitor_id!r}. List the monitors for their ids.",
                metadata={"monitor_id": monitor_id},
            )
        return self._watched(compiled, promise)

    async def results(self, workspace: str, monitor_id: str) -> Sequence[Result]:
        """Return a monitor's last results, newest first."""
        async with self._transactions.read() as store:
            return await store.results(workspace, monitor_id)

    async def evaluate(self, workspace: str, monitor_id: str) -> Watched:
        """Evaluate one monitor now and return it; raise MonitorNotFoundError."""
        async with self._turns[workspace].lock:
            watched = self.find(workspace, monitor_id)
            await self._evaluate(watched.compiled, [watched.promise])
        return self.find(workspace, monitor_id)

    async def resume(
        self, workspace: str, monitor_id: str, *, reason: str, accept_breach: bool, principal: str
    ) -> Watched:
        """End a monitor's incident and release what it holds, after one more look.

        Raises MonitorNotFoundError, NothingToResumeError, MonitorFailingError while the promise is broken and that is
        not accepted.
        """
        async with self._turns[workspace].lock:
            watched = self.find(workspace, monitor_id)
            if not watched.monitor.incident_id:
                raise NothingToResumeError(
                    f"Monitor {monitor_id!r} has no open incident and holds nothing.",
                    metadata={"monitor_id": monitor_id},
                )
            self._measurer.forget(watched.compiled)
            await self._evaluate(watched.compiled, [watched.promise])
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
        turn = self._turns[incident.workspace]
        turn.ended.append(incident)
        turn.awake.set()
        self._awake.set()

    def _workspaces(self) -> set[str]:
        """Return the workspaces that something is promised to, was promised to, or that were told something."""
        promised = {each.workspace for each in self._contracts.all_in_force() if each.promises.all}
        return promised | {workspace for workspace, _ in self._monitors} | self._turns.keys()

    async def _follow(self, workspace: str) -> None:
        """Evaluate a workspace's monitors one after the other, for ever: its slow rules delay nobody else's."""
        turn = self._turns[workspace]
        while True:
            turn.awake.clear()
            await self.do_what_is_due(workspace)
            await wait(turn.awake, self._pause(workspace))

    def _in_force(self, workspace: str) -> list[Compiled]:
        return [each for each in self._contracts.all_in_force() if each.workspace == workspace]

    def _watched(self, compiled: Compiled, promise: Promise) -> Watched:
        monitor = self._monitor(compiled, promise)
        return Watched(compiled, promise, monitor, self._next(monitor, promise))

    def _monitor(self, compiled: Compiled, promise: Promise) -> Monitor:
        monitor_id = monitor_id_of(compiled.dataset, promise.name)
        known = self._monitors.get((compiled.workspace, monitor_id))
        about: Mapping[str, Any] = {
            "contract_id": compiled.contract_id,
            "contract_version": compiled.version,
            "owner": compiled.promises.owner,
            "promised": _promised(promise),
            "severity": promise.severity,
        }
        if known is not None:
            return replace(known, **about)
        return Monitor(
            workspace=compiled.workspace,
            monitor_id=monitor_id,
            dataset=compiled.dataset,
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
        for compiled in self._in_force(workspace):
            async with turn.lock:
                await self._meet(compiled)
                now = self._clock.now()
                due = [each for each in compiled.promises.all if self._watched(compiled, each).next_at <= now]
                if due and self._contracts.in_force(compiled.workspace, compiled.dataset) is compiled:
                    await self._evaluate(compiled, due)
        turn.took = self._clock.now() - began

    async def _meet(self, compiled: Compiled) -> None:
        """Keep the monitors that are new: how long they have been waited for counts from now."""
        new = [self._monitor(compiled, each) for each in compiled.promises.all]
        new = [each for each in new if each.key not in self._monitors]
        if new:
            async with self._transactions.begin() as store:
                await store.put(new)
            self._monitors |= {each.key: each for each in new}

    async def _evaluate(self, compiled: Compiled, promises: Sequence[Promise]) -> None:
        """Look at some promises of one dataset and keep all that follows in one transaction."""
        await self._meet(compiled)
        monitors = {each.name: self._monitor(compiled, each) for each in promises}
        found = await self._measurer.measure(compiled, promises, monitors, now=self._clock.now())
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
            self._log(step)

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
        """End the incidents of what no contract in force promises any more."""
        if not self._settled():
            return
        mine = [each for each in self._monitors.values() if each.workspace == workspace]
        for monitor in [each for each in mine if self._promise_of(each) is None]:
            async with self._turns[workspace].lock, self._transactions.begin() as store:
                if monitor.incident_id:
                    await self._keep(store, ended(monitor, WITHDRAWN))
                if monitor.concerns_outputs:
                    await store.release(monitor)
                await store.delete(monitor)
                store.after_commit(partial(self._forget, monitor))

    def _promise_of(self, monitor: Monitor) -> Promise | None:
        compiled = self._contracts.in_force(monitor.workspace, monitor.dataset)
        return compiled.promises.find(monitor.name) if compiled is not None else None

    def _pause(self, workspace: str) -> float:
        now = self._clock.now()
        nexts: Iterable[datetime] = (
            self._watched(compiled, promise).next_at
            for compiled in self._in_force(workspace)
            for promise in compiled.promises.all
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

    def _log(self, step: Step) -> None:
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
        level = logging.INFO if after.state in (State.PASSING, State.PENDING) else logging.WARNING
        _logger.log(level, "monitor changed", extra=dict(fields))


def _promised(promise: Promise) -> str:
    about = f" of {promise.about}" if promise.about else ""
    return promise.description or f"{promise.metric}{about} must be {promise.expectation}."
