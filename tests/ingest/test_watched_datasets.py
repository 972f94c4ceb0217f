"""What every dataset has watched by itself, and what people set: counted from the lake, told, held, changed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from counterfoil_chassis.clock import to_micros
from counterfoil_chassis.errors import CounterfoilError, EtagMismatchError
from counterfoil_ingest.counting import Counting
from counterfoil_ingest.errors import (
    MonitorExistsError,
    MonitorInvalidError,
    MonitorNotFoundError,
    MonitorOfContractError,
    TooManyMonitorsError,
)
from counterfoil_ingest.histories import HOURS_PER_SLOT, Counted, History, Hour, Place
from counterfoil_ingest.monitoring import AT_ONCE, MOST_SETTINGS, Watched
from counterfoil_ingest.monitors import DELAY, DISTRIBUTION, FRESHNESS, NULL_SHARE, VOLUME, Origin, Setting, State
from counterfoil_ingest.plans import etag_of
from counterfoil_ingest.query_processes import QueryProcesses
from counterfoil_ingest.read_errors import DatasetNotFoundError
from counterfoil_ingest.sql.histories import SqlHistoryTransactions

from tests.ingest.read_rig import SALES, contract
from tests.ingest.test_monitoring import BEGIN, Watch, rule, watch

__all__ = ["watch"]
NOW_HOUR = int(BEGIN.timestamp() // 3600)


async def history(watch: Watch) -> History:
    """Return the past of `sales` with all counted."""
    counting = Counting(SqlHistoryTransactions(watch.database), watch.side.queries, log=watch.side.log)
    found = await counting.history(watch.plans.subject("acme", "sales"), now=watch.clock.now())
    assert found is not None
    return found


async def set_(watch: Watch, name: str, metric: str, **changes: Any) -> Watched:
    """Have something watched of `sales`."""
    setting = Setting("acme", changes.pop("dataset", "sales"), name, metric, **changes)
    async with watch.transactions.begin() as store:
        return await watch.monitoring.create(store, setting, principal="ada")


@pytest.mark.both_engines("ingest")
async def test_records_are_counted_once_by_hour_and_by_what_fills_their_properties(watch: Watch) -> None:
    await watch.sell({"amount": 4.0, "coupon": "x"}, {"shop": None, "amount": -4.0}, {"paid": None, "amount": 0})
    await watch.sell({"amount": 5.0, "coupon": 7, "ada@example.com": 1}, first=3, ago=3600)
    for _ in range(2):
        found = await history(watch)
        assert {hour: each.records for hour, each in found.hours.items()} == {NOW_HOUR: 3, NOW_HOUR - 1: 1}
    await watch.sell({"amount": 4.5}, first=4)
    found = await history(watch)
    assert found.hours[NOW_HOUR].records == 4
    slots = sorted({NOW_HOUR // HOURS_PER_SLOT, (NOW_HOUR - 1) // HOURS_PER_SLOT})
    assert found.records(slots) == 5
    amounts = found.filled(slots, "amount")
    assert amounts.filled == 5
    assert sorted(amounts.buckets.values()) == [1, 1, 3], "4 and 4.5 and 5 are of one magnitude, -4 and 0 of others"
    assert found.filled(slots, "shop").filled == 4
    assert found.filled(slots, "paid").buckets == {"true": 3, "false": 1} or found.filled(slots, "paid").filled == 4
    assert found.filled(slots, "_extra.coupon").buckets == {"string": 1, "number": 1}
    assert found.names(slots) >= {"sold_at", "day", "_extra.coupon"}
    assert not any("@" in name for name in found.names(slots)), "what does not look like a name is not kept"


async def test_nothing_of_a_record_stays_in_what_is_counted(watch: Watch) -> None:
    await watch.sell({"shop": "Ada Lovelace", "note": "ada@example.com"})
    told = repr(await history(watch))
    assert "Ada" not in told
    assert "ada@" not in told


async def test_a_long_past_is_counted_step_by_step_and_names_that_senders_invent_are_bounded(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counterfoil_ingest.counting._STEP", 2)
    monkeypatch.setattr("counterfoil_ingest.counting._SECONDS", -1.0)
    monkeypatch.setattr("counterfoil_ingest.sql.histories.MOST_PROPERTIES", 8)
    await watch.sell(*({f"invented{number}": 1} for number in range(5)))
    found = await watch.look_at_all()
    assert found["auto_volume"].monitor.detail == "The dataset's past is still being counted."
    monkeypatch.setattr("counterfoil_ingest.counting._SECONDS", 20.0)
    whole = await history(watch)
    assert whole.hours[NOW_HOUR].records == 5
    assert len(whole.names([NOW_HOUR // HOURS_PER_SLOT])) == 8


async def test_another_life_of_the_log_is_counted_anew(watch: Watch) -> None:
    await watch.sell({}, {})
    await history(watch)
    transactions = SqlHistoryTransactions(watch.database)
    async with transactions.begin() as store:
        counted = Counted([Hour(NOW_HOUR, 40)])
        await store.add("acme", "sales", counted, until=Place("an earlier life", 99))
    assert (await history(watch)).hours[NOW_HOUR].records == 2


async def test_a_dataset_with_records_is_watched_by_itself_and_learns(watch: Watch) -> None:
    assert await watch.look_at_all() == {}
    await watch.sell({})
    found = await watch.look_at_all()
    assert {name: each.monitor.state for name, each in found.items()} == {
        "auto_delay": State.PASSING,
        "auto_freshness": State.LEARNING,
        "auto_nulls": State.LEARNING,
        "auto_schema": State.LEARNING,
        "auto_values": State.LEARNING,
        "auto_volume": State.LEARNING,
    }
    assert {each.promise.origin for each in found.values()} == {Origin.DEFAULT}
    assert await watch.look_at_all(workspace="zeta") == {}
    assert await watch.holds() == {}
    assert await watch.told() == []


async def test_when_everything_is_due_at_once_workspaces_take_turns_and_no_query_waits(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, opened, most = watch.side.queries, watch.side.queries.opened, 0

    @asynccontextmanager
    async def counted(*arguments: Any, **options: Any) -> AsyncIterator[Any]:
        nonlocal most
        most = max(most, queries.running + 1)
        async with opened(*arguments, **options) as result:
            yield result

    monkeypatch.setattr(queries, "opened", counted)
    workspaces = [f"workspace_{number}" for number in range(AT_ONCE + 2)]
    for workspace in workspaces:
        watch.side.contracts.put(contract("sales", SALES, workspace=workspace))
        await watch.sell({}, workspace=workspace)
    await asyncio.gather(*map(watch.monitoring.do_what_is_due, workspaces))
    assert most == AT_ONCE
    for workspace in workspaces:
        states = {each.monitor.state for each in watch.monitoring.watched(workspace)}
        assert states == {State.LEARNING, State.PASSING}


async def test_the_processes_of_monitors_leave_the_processors_to_others_first() -> None:
    here = os.getpriority(os.PRIO_PROCESS, 0)
    for niceness, seen in ((0, here), (5, min(19, here + 5))):
        processes = QueryProcesses(memory="64MB", idle=1, niceness=niceness)
        async with processes.lent() as process:
            assert os.getpriority(os.PRIO_PROCESS, process.pid) == seen
        await processes.close()


async def weeks(watch: Watch, *, last: int) -> None:
    """Give `sales` four weeks of 1,000 records an hour, and `last` in the hour before now."""
    now = int(watch.clock.now().timestamp() // 3600)
    hours = [Hour(each, 1000, to_micros(watch.clock.now())) for each in range(now - 4 * 168, now - 1)]
    async with SqlHistoryTransactions(watch.database).begin() as store:
        place = Place(watch.side.log.epoch, watch.side.log.next_offset("acme", "sales"))
        await store.forget("acme", "sales")
        await store.add("acme", "sales", Counted([*hours, Hour(now - 1, last)]), until=place)


async def test_an_outage_opens_an_incident_that_outputs_tell_of_and_ends_with_it(watch: Watch) -> None:
    await watch.sell({})
    await history(watch)
    await weeks(watch, last=3)
    found = (await watch.look_at_all())["auto_volume"].monitor
    assert found.state is State.FAILING
    assert found.measured is not None
    assert found.measured < -5
    (told,) = await watch.told()
    assert (told.incident_id, told.resource) == (found.incident_id, "monitors/sales.auto_volume")
    assert "3 records in the last hour, 1000 are usual." in told.detail
    (hold,) = (await watch.holds()).values()
    assert (hold.metric, hold.held) == ("volume", False)
    await weeks(watch, last=997)
    passing = (await watch.look_at_all(after=901))["auto_volume"].monitor
    assert (passing.state, passing.incident_id) == (State.PASSING, "")
    assert await watch.holds() == {}


async def test_what_somebody_sets_holds_the_dataset_and_is_released_when_it_is_deleted(watch: Watch) -> None:
    watch.settled = True
    await watch.sell({})
    await watch.look_at_all()
    watch.waited = 30.0
    made = await set_(watch, "soon", DELAY, threshold=20.0, data_breaker=True, owner="Platform", severity="error")
    assert (made.monitor.monitor_id, made.promise.expectation) == ("sales.soon", "at most 20 s")
    found = (await watch.look_at_all())["soon"].monitor
    assert (found.state, found.held, found.owner) == (State.FAILING, True, "Platform")
    assert (await watch.holds())["acme/sales.soon"].held
    await watch.monitoring.delete("acme", "sales.soon", etag="", principal="ada")
    assert "soon" not in await watch.look_at_all()
    assert await watch.holds() == {}
    assert (await watch.told())[-1].reason == "Nobody has this watched any more."
    actions = [each.split()[1] for each in await watch.audited()]
    assert actions == ["monitor.create", "dataset.hold", "monitor.delete", "dataset.resume"]


async def test_a_delay_is_told_but_makes_no_output_less_complete(watch: Watch) -> None:
    await watch.sell({})
    watch.waited = 900.0
    found = (await watch.look_at_all())["auto_delay"].monitor
    assert (found.state, found.detail) == (State.FAILING, "15 min, and it must be at most 5 min.")
    assert len(await watch.told()) == 1
    assert await watch.holds() == {}


@pytest.mark.both_engines("ingest")
async def test_what_a_dataset_has_by_itself_can_be_set_otherwise_switched_off_and_be_as_it_was(watch: Watch) -> None:
    watch.settled = True
    await watch.sell({})
    watch.waited = 30.0
    assert (await watch.look_at_all())["auto_delay"].monitor.state is State.PASSING
    stricter = await watch.monitoring.update("acme", "sales.auto_delay", etag="", principal="ada", threshold=10.0)
    assert (stricter.promise.origin, stricter.promise.expectation) == (Origin.CONFIGURED, "at most 10 s")
    assert (await watch.look_at_all(after=901))["auto_delay"].monitor.state is State.FAILING
    await watch.monitoring.update("acme", "sales.auto_delay", etag="", principal="ada", enabled=False)
    off = (await watch.look_at_all())["auto_delay"]
    assert (off.setting and off.setting.enabled, off.monitor.incident_id) == (False, "")
    with pytest.raises(MonitorInvalidError, match="switched off"):
        await watch.monitoring.evaluate("acme", "sales.auto_delay")
    watch.open()
    await watch.monitoring.restore()
    assert (await watch.look_at_all())["auto_delay"].setting == off.setting, "it outlives a restart"
    await watch.monitoring.delete("acme", "sales.auto_delay", etag="", principal="ada")
    assert (await watch.look_at_all())["auto_delay"].promise.expectation == "at most 5 min"


async def test_settings_that_cannot_be_are_refused(watch: Watch) -> None:
    await watch.sell({})
    watch.promise(rule(name="rows", measure="count(*)"))
    await watch.look_at_all()
    await set_(watch, "fresh", FRESHNESS, property="sold_at", threshold=60.0)

    async def refused(kind: type[CounterfoilError], work: Callable[[], Any], told: str) -> None:
        with pytest.raises(kind, match=told):
            await work()

    await refused(MonitorExistsError, lambda: set_(watch, "fresh", VOLUME), "sales.fresh")
    await refused(MonitorExistsError, lambda: set_(watch, "rows", VOLUME), "sales.rows")
    await refused(MonitorInvalidError, lambda: set_(watch, "a", FRESHNESS, property="amount"), "day, sold_at")
    await refused(MonitorInvalidError, lambda: set_(watch, "a", VOLUME, property="amount"), "about no property")
    await refused(MonitorInvalidError, lambda: set_(watch, "a", NULL_SHARE, property="nobody"), "sale_id, shop")
    await refused(MonitorInvalidError, lambda: set_(watch, "a", DISTRIBUTION, schedule="61 * * * *"), "cron")
    await refused(DatasetNotFoundError, lambda: set_(watch, "a", VOLUME, dataset="nowhere"), "nowhere")
    change: Callable[[str, str], Any] = lambda monitor_id, etag: watch.monitoring.update(  # noqa: E731
        "acme", monitor_id, etag=etag, principal="ada", threshold=1.0
    )
    await refused(MonitorOfContractError, lambda: change("sales.rows", ""), "another version")
    await refused(MonitorNotFoundError, lambda: change("sales.gone", ""), "sales.gone")
    await refused(EtagMismatchError, lambda: change("sales.fresh", "old"), "Read it again")
    setting = watch.monitoring.find("acme", "sales.fresh").setting
    assert setting is not None
    await change("sales.fresh", etag_of(setting))
    by_itself = lambda: watch.monitoring.delete("acme", "sales.auto_volume", etag="", principal="ada")  # noqa: E731
    await refused(MonitorInvalidError, by_itself, "do not enable it")
    for number in range(MOST_SETTINGS - len(watch.plans.settings("acme", "sales"))):
        watch.plans.put(Setting("acme", "sales", f"more{number}", VOLUME))
    await refused(TooManyMonitorsError, lambda: set_(watch, "last", VOLUME), str(MOST_SETTINGS))


async def test_the_age_of_events_is_theirs_not_that_of_their_receipt(watch: Watch) -> None:
    sold = watch.clock.now() - timedelta(hours=7)
    await watch.sell({"sold_at": sold.isoformat()}, {"sold_at": (sold + timedelta(days=30)).isoformat()})
    await watch.look_at_all()
    await set_(watch, "fresh", FRESHNESS, property="sold_at", threshold=3600.0)
    found = (await watch.look_at_all())["fresh"].monitor
    assert (found.state, found.measured) == (State.FAILING, 7 * 3600 + 120)
