"""Promises measured on a real log and lake, and what is kept, told and held of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from counterfoil.governance.v1 import incidents_pb2
from counterfoil.ingest.v1 import monitors_pb2
from counterfoil_chassis.audit import AuditTrail
from counterfoil_chassis.call import connect
from counterfoil_chassis.clock import SystemIds, to_micros
from counterfoil_chassis.database import Database
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.outbox import OutboxRelay
from counterfoil_chassis.tables import TABLES
from counterfoil_chassis.watch import Feed
from counterfoil_ingest.counting import Counting
from counterfoil_ingest.errors import MonitorFailingError, MonitorNotFoundError, NothingToResumeError
from counterfoil_ingest.measuring import Measurer
from counterfoil_ingest.monitoring import Ended, Monitoring, Watched
from counterfoil_ingest.monitors import (
    AVAILABILITY,
    ERROR_RATE,
    FREQUENCY,
    LATENCY,
    MOST_RESULTS,
    RETENTION,
    SQL,
    End,
    Operator,
    Promise,
    Promises,
    State,
)
from counterfoil_ingest.plans import Plans
from counterfoil_ingest.reconciling import Reconciling
from counterfoil_ingest.servicers.monitors import disowned_message, hold_message, report_message
from counterfoil_ingest.sql.histories import SqlHistoryTransactions
from counterfoil_ingest.sql.monitors import INCIDENTS, TOPIC, SqlMonitorTransactions
from counterfoil_ingest.sql.quarantine import SqlQuarantine
from counterfoil_ingest.sql.reconciliations import SqlReconciliationTransactions
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select

from tests.ingest.conftest import LogRig
from tests.ingest.read_rig import SALES, ReadSide, contract, read_side, record, sale

BEGIN = datetime(2026, 11, 26, 12, tzinfo=UTC)
PERIOD = timedelta(minutes=1)


class MovableClock:
    def __init__(self) -> None:
        self.moment = BEGIN

    def now(self) -> datetime:
        return self.moment

    def move(self, **by: float) -> None:
        self.moment += timedelta(**by)


@dataclass
class Watch:
    """The monitors of `sales`, and what they tell."""

    side: ReadSide
    clock: MovableClock
    database: Database
    transactions: SqlMonitorTransactions
    totals: SqlReconciliationTransactions
    settled: bool = False
    waited: float = 0.0

    def open(self) -> None:
        """Begin as a process does; once more is a restart."""
        log = self.side.log
        self.plans = Plans(self.side.contracts)
        self.reconciling = Reconciling(self.totals, self.side.queries, log=log, plans=self.plans)
        self.measurer = Measurer(
            self.side.queries,
            log=log,
            quarantine=SqlQuarantine(self.database),
            period=PERIOD,
            counting=Counting(SqlHistoryTransactions(self.database), self.side.queries, log=log),
            reconciling=self.reconciling,
            waiting=lambda _workspace: self.waited,
        )
        self.monitoring = Monitoring(
            self.transactions,
            self.measurer,
            plans=self.plans,
            log=log,
            settled=lambda: self.settled,
            period=PERIOD,
            clock=self.clock,
            ids=SystemIds(self.clock),
        )

    def promise(self, *promises: Promise, workspace: str = "acme", version: str = "1.0.0") -> None:
        compiled = contract("sales", SALES, workspace=workspace, version=version)
        self.side.contracts.put(replace(compiled, promises=Promises("Paid media", promises)))

    async def sell(self, *sales: dict[str, Any], workspace: str = "acme", first: int = 0, ago: float = 0) -> None:
        at = to_micros(self.clock.now() - timedelta(seconds=ago))
        made = [sale(first + number, **changes) for number, changes in enumerate(sales)]
        await self.side.append(*made, workspace=workspace, received_at=at)

    async def look(self, *, after: float = 60, workspace: str = "acme") -> dict[str, Watched]:
        """Let time pass, do what is due, and return what the contract promises by name."""
        found = await self.look_at_all(after=after, workspace=workspace)
        return {name: each for name, each in found.items() if each.setting is None}

    async def look_at_all(self, *, after: float = 60, workspace: str = "acme") -> dict[str, Watched]:
        """Let time pass, do what is due, and return all monitors by name."""
        self.clock.move(seconds=after)
        for each in ("acme", "zeta"):
            await self.monitoring.do_what_is_due(each)
        return {each.promise.name: each for each in self.monitoring.watched(workspace)}

    async def measured(self, **promise: Any) -> float | None:
        """Return what one promise measures now."""
        self.promise(rule(**promise))
        (watched,) = (await self.look()).values()
        return watched.monitor.measured

    async def holds(self) -> dict[str, monitors_pb2.Hold]:
        changes = TABLES.change.c
        query = select(changes.key, changes.resource).where(changes.topic == TOPIC, changes.deleted.is_(False))
        async with self.database.read() as connection:
            rows = await connection.execute(query)
            return {row.key: monitors_pb2.Hold.FromString(row.resource) for row in rows}

    async def told(self) -> list[incidents_pb2.Incident]:
        """Return what waits to be told to governance, in order."""
        box = TABLES.outbox.c
        async with self.database.read() as connection:
            query = select(box.payload).where(box.topic == INCIDENTS).order_by(box.sequence)
            payloads = (await connection.execute(query)).scalars()
            return [incidents_pb2.ReportIncidentRequest.FromString(each).incident for each in payloads]

    async def audited(self) -> list[str]:
        from counterfoil.governance.v1.audit_pb2 import NewAuditEntry

        box = TABLES.outbox.c
        async with self.database.read() as connection:
            query = select(box.payload).where(box.topic == "audit").order_by(box.sequence)
            entries = [NewAuditEntry.FromString(each) for each in (await connection.execute(query)).scalars()]
        return [f"{each.principal} {each.action} {each.resource}" for each in entries]


def rule(**changed: Any) -> Promise:
    values = {"name": "rule", "metric": "rowCount", "operator": Operator.AT_LEAST, "bounds": (0.0,), "unit": "rows"}
    return Promise(**{**values, **changed})


BREAKER = rule(measure="count(*)", bounds=(3.0,), data_breaker=True)
"""Three sales at least."""


@pytest.fixture
async def watch(rig: LogRig) -> AsyncIterator[Watch]:
    clock = MovableClock()
    signer = TokenSigner("ingest", Ed25519PrivateKey.generate(), clock)
    async with read_side(rig) as side, connect("127.0.0.1:9") as nobody:
        database = Database(rig.url, lease=rig.lease)

        async def deliver(_payloads: Any) -> None:
            raise AssertionError("the relay does not run here")

        trail = AuditTrail(database, nobody, signer, ids=SystemIds(clock), clock=clock)
        transactions = SqlMonitorTransactions(
            database,
            Feed(database, TOPIC),
            relay=OutboxRelay(database, INCIDENTS, deliver, clock),
            trail=trail,
            to_hold=hold_message,
            to_report=report_message,
            to_disowned=disowned_message,
        )
        for workspace in ("acme", "zeta"):
            side.contracts.drop(workspace, "events")
            side.contracts.put(contract("sales", SALES, workspace=workspace))
        watch = Watch(side, clock, database, transactions, SqlReconciliationTransactions(database, trail=trail))
        watch.open()
        yield watch
        await database.close()


async def test_library_metrics_are_counted_on_the_lakes_rows(watch: Watch) -> None:
    await watch.sell({"shop": None}, {}, {"amount": 9}, {"shop": "shop 1"})
    watch.promise(
        rule(name="nulls", measure='count(*) FILTER (WHERE "shop" IS NULL)', unit="percent"),
        rule(name="rows", measure="count(*)"),
        rule(name="repeated", measure='count("shop") - count(DISTINCT "shop")'),
        rule(name="spent", metric=SQL, query='SELECT sum("amount") FROM sales', unit="value"),
    )
    found = {name: each.monitor.measured for name, each in (await watch.look()).items()}
    assert found == {"nulls": 25.0, "rows": 4.0, "repeated": 1.0, "spent": 10.5}


async def test_a_rule_that_fails_to_run_does_not_harm_its_neighbours_and_is_no_pass(watch: Watch) -> None:
    await watch.sell({})
    watch.promise(
        rule(name="good", measure="count(*)"),
        rule(name="bad", measure='count("no such column")'),
        rule(name="gone", metric=SQL, query="SELECT count(*) FROM nowhere"),
        rule(name="text", metric=SQL, query="SELECT 'many'"),
        rule(name="none", metric=SQL, query="SELECT max(amount) FROM sales WHERE amount > 99"),
        rule(name="empty", metric=SQL, query="SELECT 1 WHERE false"),
    )
    states = {name: each.monitor.state for name, each in (await watch.look()).items()}
    assert states == dict.fromkeys(("bad", "gone", "text", "none", "empty"), State.ERROR) | {"good": State.PASSING}
    for _ in range(2):
        found = await watch.look()
    assert not found["good"].monitor.incident_id
    assert all(found[name].monitor.incident_id for name in ("bad", "gone", "text", "none", "empty"))


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM read_csv('/etc/passwd')",
        "SELECT count(*) FROM '/etc/passwd'",
        "SELECT length(getenv('PATH'))",
        "COPY (SELECT 1) TO '/tmp/stolen'",
        "SELECT 1; SELECT 2",
    ],
)
async def test_an_sql_rule_sees_datasets_and_nothing_else(watch: Watch, query: str) -> None:
    await watch.sell({})
    watch.promise(rule(metric=SQL, query=query))
    found = (await watch.look())["rule"].monitor
    assert (found.state, found.measured) == (State.ERROR, None)


async def test_an_sql_rule_reads_its_own_workspace_alone(watch: Watch) -> None:
    await watch.sell({}, {}, workspace="zeta")
    await watch.sell({})
    assert await watch.measured(metric=SQL, query="SELECT count(*) FROM sales", unit="value") == 1.0


async def test_only_what_came_in_within_the_window_counts(watch: Watch) -> None:
    await watch.sell({}, {}, ago=7_200)
    await watch.sell({}, first=10, ago=60)
    assert await watch.measured(measure="count(*)", window=3_600.0) == 1.0
    assert await watch.measured(measure="count(*)") == 3.0


async def test_latency_is_the_age_of_the_newest_record_by_its_own_time(watch: Watch) -> None:
    await watch.sell(
        {"sold_at": "2026-11-26T11:00:00Z"},
        {"sold_at": "2026-11-26T09:00:00Z"},
        {"sold_at": "2036-01-01T00:00:00Z"},  # would hide that nothing comes
    )
    asked = {"metric": LATENCY, "column": "sold_at", "unit": "seconds"}
    assert await watch.measured(**asked) == 3_660.0


async def test_a_days_records_are_as_old_as_the_days_end(watch: Watch) -> None:
    await watch.sell({"day": "2026-11-25"}, {"day": "2026-11-20"})
    asked = {"metric": LATENCY, "column": "day", "unit": "seconds"}
    assert await watch.measured(**asked) == 12 * 3_600.0 + 60


async def test_frequency_is_the_time_since_the_last_record_or_since_it_is_waited_for(watch: Watch) -> None:
    watch.promise(rule(metric=FREQUENCY, operator=Operator.AT_MOST, bounds=(300.0,), unit="seconds"))
    assert (await watch.look())["rule"].monitor.measured == 0.0
    waiting = (await watch.look(after=301))["rule"].monitor
    assert (waiting.measured, waiting.state) == (301.0, State.FAILING)
    assert "There is no record yet." in waiting.detail
    await watch.sell({})
    arrived = (await watch.look())["rule"].monitor
    assert (arrived.measured, arrived.state, arrived.incident_id) == (60.0, State.PASSING, "")


async def test_retention_is_the_age_of_the_oldest_record(watch: Watch) -> None:
    asked = {"metric": RETENTION, "unit": "seconds", "operator": Operator.AT_MOST}
    assert await watch.measured(**asked) == 0.0
    await watch.sell({"day": "2020-01-01"}, ago=1_000)
    assert await watch.measured(**asked) == 1_000.0 + 60
    oldest = await watch.measured(**asked, column="day")
    assert oldest == (watch.clock.now() - datetime(2020, 1, 2, tzinfo=UTC)).total_seconds()


async def test_the_error_rate_is_the_share_of_records_in_quarantine(watch: Watch) -> None:
    watch.side.contracts.put(contract("sales", SALES, required=["shop"]))
    await watch.sell({}, {}, {}, {"shop": None})
    await watch.sell({"shop": None}, first=20, ago=90_000)
    assert await watch.measured(metric=ERROR_RATE, unit="percent", operator=Operator.AT_MOST, bounds=(30.0,)) == 25.0


async def test_availability_counts_the_time_in_which_the_dataset_could_be_read(watch: Watch) -> None:
    await watch.sell({})
    watch.promise(rule(metric=AVAILABILITY, bounds=(99.0,), unit="percent"))
    for _ in range(3):
        found = (await watch.look())["rule"].monitor
    assert found.measured == 100.0
    found = (await watch.look(after=3_600))["rule"].monitor  # nobody looked
    assert found.state is State.FAILING
    assert found.measured == pytest.approx(100 * 240 / 3_720)


async def test_a_breach_is_told_with_its_owner_and_holds_the_dataset(watch: Watch) -> None:
    await watch.sell({})
    watch.promise(replace(BREAKER, description="A shop sells.", severity="error"))
    found = (await watch.look())["rule"].monitor
    (told,) = await watch.told()
    assert (told.workspace, told.resource, told.dataset) == ("acme", "monitors/sales.rule", "sales")
    assert (told.owner, told.severity, told.summary) == ("Paid media", "error", "A shop sells.")
    assert (told.incident_id, told.holds_data, told.contract_version) == (found.incident_id, True, "1.0.0")
    assert told.detail == "1 row, and it must be at least 3 rows."
    (hold,) = (await watch.holds()).values()
    assert (hold.workspace, hold.dataset, hold.monitor_id) == ("acme", "sales", "sales.rule")
    assert (hold.incident_id, hold.held) == (found.incident_id, True)
    assert not hold.HasField("recovered_at")
    await watch.look()
    assert len(await watch.told()) == 1, "nothing new, nothing told"
    assert await watch.audited() == ["service:ingest dataset.hold datasets/sales"]


async def test_a_repair_makes_it_ready_and_a_person_resumes(watch: Watch) -> None:
    watch.promise(BREAKER)
    await watch.look()
    with pytest.raises(MonitorFailingError):
        await watch.monitoring.resume("acme", "sales.rule", reason="?", accept_breach=False, principal="ada")
    await watch.sell({}, {}, {})
    assert (await watch.look())["rule"].monitor.held
    (hold,) = (await watch.holds()).values()
    assert hold.HasField("recovered_at")
    resumed = await watch.monitoring.resume(
        "acme", "sales.rule", reason="Loaded again.", accept_breach=False, principal="ada"
    )
    assert (resumed.monitor.held, resumed.monitor.incident_id) == (False, "")
    assert await watch.holds() == {}
    opened, mended, over = await watch.told()
    assert opened.incident_id == mended.incident_id == over.incident_id
    assert mended.HasField("recovered_at")
    assert (over.resolved_by, over.reason, over.breach_accepted) == ("ada", "Loaded again.", False)
    assert await watch.audited() == [
        "service:ingest dataset.hold datasets/sales",
        "ada dataset.resume datasets/sales",
    ]
    with pytest.raises(NothingToResumeError):
        await watch.monitoring.resume("acme", "sales.rule", reason="?", accept_breach=True, principal="ada")


async def test_a_person_accepts_the_breach_and_is_not_bothered_again(watch: Watch) -> None:
    watch.promise(BREAKER)
    await watch.look()
    await watch.monitoring.resume("acme", "sales.rule", reason="No sales today.", accept_breach=True, principal="ada")
    assert (await watch.told())[-1].breach_accepted
    again = (await watch.look())["rule"].monitor
    assert (again.state, again.incident_id) == (State.FAILING, "")
    (told,) = (await watch.holds()).values()
    assert (told.held, told.incident_id) == (False, ""), "outputs have to say so"
    await watch.sell({}, {}, {})
    await watch.look()
    assert await watch.holds() == {}


async def test_outputs_learn_of_a_broken_promise_that_holds_nothing(watch: Watch) -> None:
    watch.promise(replace(BREAKER, data_breaker=False))
    found = (await watch.look())["rule"].monitor
    (told,) = (await watch.holds()).values()
    assert (told.held, told.incident_id) == (False, found.incident_id)
    assert await watch.audited() == []
    await watch.sell({}, {}, {})
    await watch.look()
    assert await watch.holds() == {}


async def test_the_monitor_resumes_by_itself_where_the_contract_says_so(watch: Watch) -> None:
    watch.promise(replace(BREAKER, auto_resume=True))
    await watch.look()
    await watch.sell({}, {}, {})
    assert not (await watch.look())["rule"].monitor.held
    assert await watch.holds() == {}
    assert (await watch.told())[-1].resolved_by == "service:ingest"
    assert (await watch.audited())[-1] == "service:ingest dataset.resume datasets/sales"


async def test_ending_the_incident_at_governance_releases_the_dataset(watch: Watch) -> None:
    watch.promise(BREAKER)
    incident_id = (await watch.look())["rule"].monitor.incident_id
    watch.monitoring.told(Ended("acme", "sales.rule", incident_id, None))
    assert (await watch.look())["rule"].monitor.held, "it is only told that it is open"
    watch.monitoring.told(Ended("acme", "sales.rule", incident_id, End("grace", "We live with it.", accepted=True)))
    assert not (await watch.look())["rule"].monitor.held
    over = (await watch.told())[-1]
    assert (over.incident_id, over.resolved_by) == (incident_id, "grace")
    assert [each.held for each in (await watch.holds()).values()] == [False]


async def test_an_incident_that_no_monitor_knows_is_told_to_be_over(watch: Watch) -> None:
    watch.promise(BREAKER)
    known = (await watch.look())["rule"].monitor
    watch.monitoring.told(Ended("acme", "sales.rule", "lost-in-a-restore", None))
    watch.monitoring.told(Ended("acme", "sales.unheard-of", "another", None))
    await watch.look()
    assert [(each.incident_id, each.HasField("resolved_at")) for each in (await watch.told())[1:]] == [
        ("lost-in-a-restore", True),
        ("another", True),
    ]
    assert (await watch.look())["rule"].monitor.incident_id == known.incident_id


async def test_what_the_contract_no_longer_promises_is_released_and_forgotten(watch: Watch) -> None:
    watch.promise(BREAKER)
    await watch.look()
    watch.promise(version="2.0.0")
    assert await watch.look() == {}
    assert len(await watch.holds()) == 1, "nobody knows yet which contracts are in force"
    watch.settled = True
    await watch.look()
    assert await watch.holds() == {}
    assert (await watch.told())[-1].reason == "The contract in force no longer promises this."
    with pytest.raises(MonitorNotFoundError):
        watch.monitoring.find("acme", "sales.rule")
    watch.promise(BREAKER, version="3.0.0")
    again = (await watch.look())["rule"].monitor
    assert again.since == again.evaluated_at, "it begins anew"


async def test_an_incident_outlives_a_restart(watch: Watch) -> None:
    watch.promise(BREAKER)
    before = (await watch.look())["rule"].monitor
    watch.open()
    await watch.monitoring.restore()
    assert watch.monitoring.find("acme", "sales.rule").monitor == before
    after = (await watch.look())["rule"].monitor
    assert (after.incident_id, after.since) == (before.incident_id, before.since)
    assert len(await watch.told()) == 1


async def test_a_schedule_is_followed_and_a_look_can_be_asked_for(watch: Watch) -> None:
    watch.promise(replace(BREAKER, schedule="0 20 * * *"))
    waiting = (await watch.look())["rule"]
    assert (waiting.monitor.state, waiting.next_at) == (State.PENDING, BEGIN.replace(hour=20))
    asked = await watch.monitoring.evaluate("acme", "sales.rule")
    assert asked.monitor.state is State.FAILING
    await watch.sell({}, {}, {})
    assert (await watch.look())["rule"].monitor.state is State.FAILING, "it is not time"
    assert (await watch.look(after=9 * 3_600))["rule"].monitor.state is State.PASSING


async def test_workspaces_are_apart(watch: Watch) -> None:
    watch.promise(BREAKER)
    watch.promise(BREAKER, workspace="zeta")
    await watch.sell({}, {}, {}, workspace="zeta")
    await watch.look()
    assert watch.monitoring.find("acme", "sales.rule").monitor.held
    assert not watch.monitoring.find("zeta", "sales.rule").monitor.held
    assert list(await watch.holds()) == ["acme/sales.rule"]


async def test_a_workspace_whose_rules_take_for_ever_delays_no_other(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.promise(BREAKER)
    watch.promise(BREAKER, workspace="zeta")
    run, stuck = watch.side.queries.run, asyncio.Event()

    async def slow(workspace: str, *arguments: Any, **more: Any) -> Any:
        if workspace == "acme":
            stuck.set()
            await asyncio.Event().wait()
        return await run(workspace, *arguments, **more)

    monkeypatch.setattr(watch.side.queries, "run", slow)
    running = asyncio.create_task(watch.monitoring.run())
    async with asyncio.timeout(30):
        await stuck.wait()
        while not watch.monitoring.find("zeta", "sales.rule").monitor.held:
            await asyncio.sleep(0.01)
    assert watch.monitoring.find("acme", "sales.rule").monitor.state is State.PENDING
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_the_same_rows_are_not_counted_again(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    await watch.sell({})
    watch.promise(rule(measure="count(*)"))
    asked: list[str] = []
    run = watch.side.queries.run

    async def counted(workspace: str, sql: str, *arguments: Any, **more: Any) -> Any:
        if "AS m0" in sql:
            asked.append(sql)
        return await run(workspace, sql, *arguments, **more)

    monkeypatch.setattr(watch.side.queries, "run", counted)
    for _ in range(3):
        assert (await watch.look())["rule"].monitor.measured == 1.0
    assert len(asked) == 1
    await watch.sell({}, first=5)
    assert (await watch.look())["rule"].monitor.measured == 2.0
    watch.promise(rule(measure="count(*) * 10"))
    assert (await watch.look())["rule"].monitor.measured == 20.0
    assert len(asked) == 3


async def test_the_last_results_are_kept(watch: Watch) -> None:
    watch.promise(rule(measure="count(*)"))
    for _ in range(MOST_RESULTS + 5):
        await watch.look()
    results = await watch.monitoring.results("acme", "sales.rule")
    assert len(results) == MOST_RESULTS
    assert results[0].evaluated_at == watch.clock.now()
    assert [each.evaluated_at for each in results] == sorted((each.evaluated_at for each in results), reverse=True)


async def test_undeclared_properties_of_records_are_not_in_what_is_told(watch: Watch) -> None:
    await watch.side.append(record("sales", "s1", {"shop": "ada@example.com"}))
    watch.promise(rule(metric=SQL, query="SELECT error(max(shop)) FROM sales", data_breaker=True))
    for _ in range(3):
        await watch.look()
    told = orjson.dumps([str(each) for each in await watch.told()]).decode()
    assert "ada@example.com" not in told
