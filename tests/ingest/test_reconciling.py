"""Totals that others report, held against the records that are here."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from counterfoil_ingest.errors import ReconciliationNotFoundError, TooManyTotalsError, TotalInvalidError
from counterfoil_ingest.monitors import State as MonitorState
from counterfoil_ingest.registry import Column, ColumnType
from counterfoil_ingest.totals import Reconciliation, State, Total
from hypothesis import given
from hypothesis import strategies as st

from tests.ingest.read_rig import contract, record
from tests.ingest.test_monitoring import BEGIN, Watch, watch

__all__ = ["watch"]
TODAY = BEGIN.date().isoformat()


async def report(watch: Watch, *totals: Total, dataset: str = "sales") -> list[Reconciliation]:
    """Report totals and return how they compare, in their order."""
    subject = watch.plans.subject("acme", dataset)
    await watch.reconciling.report(subject, totals, now=watch.clock.now(), principal="ada")
    await watch.monitoring.evaluate_totals("acme", dataset)
    async with watch.totals.read() as store:
        found = {each.reconciliation_id: each for each in await store.get("acme", [each.identity for each in totals])}
    return [found[each.identity] for each in totals]


def counted(number: float, **changes: Any) -> Total:
    return Total("sales", changes.pop("day", TODAY), number, **changes)


async def test_totals_compare_with_counts_and_sums_of_their_day_source_and_properties(watch: Watch) -> None:
    await watch.sell({"shop": "north"}, {"shop": "north", "amount": 2.5}, {"shop": "south"})
    await watch.sell({"day": TODAY}, ago=86_400, first=3)
    await watch.sell({}, workspace="zeta", first=9)
    north = (("shop", "north"),)
    found = await report(
        watch,
        counted(3),
        counted(1, day=(BEGIN.date() - timedelta(days=1)).isoformat()),
        counted(3, source_id="api"),
        counted(3, source_id="another"),
        counted(3.0, sum_of="amount", match=north),
        counted(2.0, match=north),
        counted(1, match=(("shop", "east"),)),
        counted(1, day_property="day"),
    )
    assert [each.received for each in found] == [3, 1, 3, 0, 3.0, 2, 0, 1]
    assert [each.state for each in found[:3]] == [State.MATCHED] * 3
    assert found[3].state is State.GAP
    assert found[3].detail == "3 reported, 0 here (-100 %)."
    assert [each.state for each in found[4:7]] == [State.MATCHED, State.MATCHED, State.GAP]


async def test_a_gap_opens_an_incident_with_its_days_and_ends_when_the_records_come(watch: Watch) -> None:
    await watch.sell({}, {})
    (found,) = await report(watch, counted(3, reported_by="web server"))
    assert found.state is State.GAP
    monitor = watch.monitoring.find("acme", "sales.auto_totals").monitor
    assert (monitor.state, monitor.measured, monitor.days) == (MonitorState.FAILING, 1.0, (TODAY,))
    (incident,) = await watch.told()
    assert f"1 of 1 reported differs, on {TODAY}." in incident.detail
    (hold,) = (await watch.holds()).values()
    assert (hold.metric, list(hold.days), hold.held) == ("reconciliation", [TODAY], False)
    watch.open()
    await watch.monitoring.restore()
    await watch.reconciling.restore()
    await watch.sell({}, first=2)
    passing = (await watch.look_at_all(after=901))["auto_totals"].monitor
    assert (passing.state, passing.days, passing.incident_id) == (MonitorState.PASSING, (), "")
    assert await watch.holds() == {}


@pytest.mark.both_engines("ingest")
async def test_a_total_reported_again_replaces_the_first_and_one_withdrawn_is_gone(watch: Watch) -> None:
    await watch.sell({}, {})
    await report(watch, counted(5))
    (again,) = await report(watch, counted(2))
    assert again.state is State.MATCHED
    async with watch.totals.read() as store:
        assert await store.number("acme", "sales") == 1
    await report(watch, counted(9, reported_by="somebody"))
    async with watch.totals.read() as store:
        gaps = await store.list("acme", dataset="", state=State.GAP, after=("", ""), limit=10)
    with pytest.raises(ReconciliationNotFoundError):
        await watch.reconciling.withdraw("zeta", gaps[0].reconciliation_id, principal="eve")
    await watch.reconciling.withdraw("acme", gaps[0].reconciliation_id, principal="ada")
    await watch.monitoring.evaluate_totals("acme", "sales")
    assert watch.monitoring.find("acme", "sales.auto_totals").monitor.state is MonitorState.PASSING
    assert "ada totals.withdraw datasets/sales" in await watch.audited()


async def test_a_difference_waits_until_it_is_to_be_judged(watch: Watch) -> None:
    await watch.sell({})
    later = watch.clock.now() + timedelta(hours=1)
    (found,) = await report(watch, counted(2, judge_after=later))
    assert found.state is State.WAITING
    assert watch.monitoring.find("acme", "sales.auto_totals").monitor.state is MonitorState.PASSING
    judged = (await watch.look_at_all(after=3700))["auto_totals"].monitor
    assert judged.state is MonitorState.FAILING


async def test_of_what_platforms_restate_the_newest_version_counts(watch: Watch) -> None:
    texts = (
        "platform", "account_id", "campaign_id", "ad_group_id", "ad_id", "network", "device", "conversion_action",
        "attribution_window",
    )  # fmt: skip
    types = dict.fromkeys(texts, ColumnType.VARCHAR) | {
        "date_day": ColumnType.DATE,
        "spend_micros": ColumnType.BIGINT,
        "snapshot_at": ColumnType.TIMESTAMPTZ,
    }
    watch.side.contracts.put(contract("ad_spend", types, timezone="UTC"))
    rows = [("a", 100, "01"), ("a", 120, "03"), ("a", 110, "02"), ("b", 7, "01")]
    for number, (ad, spend, hour) in enumerate(rows):
        row = {"platform": "meta_ads", "account_id": "1", "ad_id": ad, "date_day": TODAY, "spend_micros": spend}
        row["snapshot_at"] = f"{TODAY}T{hour}:00:00Z"
        await watch.side.append(record("ad_spend", f"r{number}", row))
    await watch.look_at_all()
    account = (("account_id", "1"), ("platform", "meta_ads"))
    total = Total("ad_spend", TODAY, 127, day_property="date_day", match=account, sum_of="spend_micros")
    found = await report(
        watch, total, replace(total, reported=130, tolerance_percent=3, reported_by="x"), dataset="ad_spend"
    )
    assert [(each.received, each.state) for each in found] == [(127.0, State.MATCHED), (127.0, State.MATCHED)]


async def test_totals_that_cannot_be_compared_are_refused(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = watch.side.contracts.in_force("acme", "sales")
    assert compiled is not None
    email = Column("email", ColumnType.VARCHAR, False, "", "restricted")
    watch.side.contracts.put(replace(compiled, columns=(*compiled.columns, email)))
    for total, told in (
        (counted(1, day="2026-02-30"), "no day"),
        (counted(1, day="2020-01-01"), "last 400 days"),
        (counted(1, day="2027-01-01"), "last 400 days"),
        (counted(1, day_property="amount"), "holds no days"),
        (counted(1, sum_of="shop"), "holds no numbers"),
        (counted(1, match=(("nobody", "1"),)), "sale_id, shop"),
        (counted(1, match=(("email", "ada@example.com"),)), "classifies 'email' as restricted"),
    ):
        with pytest.raises(TotalInvalidError, match=told):
            await report(watch, total)
    monkeypatch.setattr("counterfoil_ingest.reconciling.MOST_TOTALS", 1)
    await report(watch, counted(0))
    with pytest.raises(TooManyTotalsError):
        await report(watch, counted(0, reported_by="another"))
    await report(watch, counted(1))


@given(st.floats(-1e15, 1e15), st.floats(0, 100), st.floats(-2, 2))
def test_a_total_agrees_within_its_tolerance_only(reported: float, percent: float, off: float) -> None:
    total = counted(reported, tolerance_percent=percent)
    assert total.agrees_with(reported)
    allowed = abs(reported) * percent / 100
    if abs(off) < 0.999:
        assert total.agrees_with(reported + off * allowed)
    if abs(off) > 1.001 and allowed > abs(reported) * 1e-6:
        assert not total.agrees_with(reported + off * allowed)
