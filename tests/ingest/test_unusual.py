"""What is told to be unusual of a dataset's past: planted faults are, seasonal data without one is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import NormalDist

import numpy as np
import pytest
from counterfoil_ingest import unusual
from counterfoil_ingest.histories import (
    HOURS_PER_SLOT,
    HOURS_PER_WEEK,
    SLOTS_PER_WEEK,
    Filling,
    History,
    Hour,
    added,
)
from counterfoil_ingest.monitors import Outcome
from hypothesis import given
from hypothesis import strategies as st

BEGIN = 480_000 // HOURS_PER_WEEK * HOURS_PER_WEEK
USUAL = 5.0
"""The threshold of the volume monitors that every dataset has."""

Random = np.random.Generator


def at(hour: int) -> datetime:
    """Return a moment in an hour."""
    return datetime.fromtimestamp(hour * 3600 + 60, UTC)


def busy(hour: int) -> float:
    """Return how busy an hour of the week is: nights and weekends are quiet."""
    day = 0.6 if hour // 24 % 7 >= 5 else 1.0
    return day * (0.15 + (math.sin((hour % 24 - 6) / 24 * 2 * math.pi) + 1) / 2)


@dataclass(frozen=True)
class Shop:
    """What sends records: so many in a busy hour, more or less by chance, growing by week."""

    level: float
    chance: float
    growth: float = 0.0

    def counts(self, random: Random, weeks: int) -> dict[int, Hour]:
        """Return weeks of hours."""
        made = {}
        for number in range(weeks * HOURS_PER_WEEK):
            expected = self.level * busy(number) * (1 + self.growth) ** (number / HOURS_PER_WEEK)
            by_chance = math.exp(random.normal(0, self.chance) - self.chance**2 / 2)
            made[BEGIN + number] = Hour(BEGIN + number, int(random.poisson(expected * by_chance)))
        return made


def volume(hours: Mapping[int, Hour], end: int, **changed: int) -> Outcome:
    """Return what is told at an hour of the hours before it; `last` = what came in the last of them instead."""
    known = {hour: each for hour, each in hours.items() if end - 9 * HOURS_PER_WEEK <= hour < end}
    if "last" in changed:
        known[end - 1] = replace(known[end - 1], records=changed["last"])
    return unusual.volume(History(known, {}), now=at(end))


SHOPS = (Shop(300, 0.0), Shop(300, 0.1, growth=0.05), Shop(20_000, 0.1), Shop(20_000, 0.25, growth=0.03))


@pytest.mark.figures
@pytest.mark.parametrize("shop", SHOPS, ids=str)
def test_a_seasonal_volume_is_usual_and_an_outage_is_not(shop: Shop) -> None:
    hours = shop.counts(np.random.default_rng(7), weeks=8)
    looked = range(BEGIN + 5 * HOURS_PER_WEEK, BEGIN + 8 * HOURS_PER_WEEK, 5)
    found = [abs(volume(hours, end).measured or 0.0) for end in looked]
    alarms = sum(each > USUAL for each in found)
    missed = sum(abs(volume(hours, end, last=0).measured or 0.0) <= USUAL for end in looked)
    print(f"{shop}: {alarms} false alarms and {missed} missed outages in {len(looked)} hours")
    assert alarms <= len(looked) // 100, f"{alarms} of {len(looked)} hours, up to {max(found):.1f} deviations"
    assert missed <= len(looked) // 20, f"{missed} of {len(looked)} outages"


def test_a_volume_that_doubles_or_halves_is_unusual_where_chance_is_small() -> None:
    hours = Shop(20_000, 0.03).counts(np.random.default_rng(8), weeks=6)
    for end in range(BEGIN + 5 * HOURS_PER_WEEK, BEGIN + 6 * HOURS_PER_WEEK, 11):
        records = hours[end - 1].records
        assert (volume(hours, end, last=2 * records).measured or 0) > USUAL
        assert (volume(hours, end, last=records // 2).measured or 0) < -USUAL


def test_a_small_dataset_is_looked_at_by_days() -> None:
    hours = Shop(12, 0.0).counts(np.random.default_rng(9), weeks=6)
    end = BEGIN + 5 * HOURS_PER_WEEK + 24
    assert "on the last day" in volume(hours, end).detail
    silent = {hour: each for hour, each in hours.items() if not end - 24 <= hour < end}
    assert abs(volume(hours, end).measured or 99) <= USUAL
    assert (unusual.volume(History(silent, {}), now=at(end)).measured or 0) < -USUAL


def test_less_than_three_weeks_teach_and_say_until_when() -> None:
    hours = Shop(300, 0.0).counts(np.random.default_rng(1), weeks=4)
    early = volume(hours, BEGIN + 2 * HOURS_PER_WEEK)
    assert early.learning
    assert early.measured is None
    until = datetime.fromtimestamp((BEGIN + 3 * HOURS_PER_WEEK + 24) * 3600, UTC)
    assert f"until {until:%Y-%m-%d}" in early.detail
    assert not volume(hours, BEGIN + 3 * HOURS_PER_WEEK + 24).learning
    assert unusual.volume(History({}, {}), now=at(BEGIN)).learning


def events(hours: range, *, ago: int = 0) -> History:
    """Return hours that each had a record, `ago` hours old when it came."""
    return History({each: Hour(each, 1, (each - ago) * 3_600_000_000) for each in hours}, {})


def test_freshness_allows_the_longest_silence_of_four_weeks_and_half_as_much() -> None:
    """Ten hours by day, fourteen silent ones by night: silence lasts 15 hours from the last record on."""
    known = {hour: each for hour, each in events(range(BEGIN, BEGIN + 14 * 24)).hours.items() if hour % 24 < 10}
    last = max(known)
    found = unusual.staleness(History(known, {}), now=at(last + 15), bounded=False)
    assert found.bound == 1.5 * 15 * 3600 + 3600
    assert found.measured is not None
    assert found.measured < found.bound
    late = unusual.staleness(History(known, {}), now=at(last + 25), bounded=False)
    assert late.bound is not None
    assert (late.measured or 0) > late.bound


def test_freshness_is_that_of_events_and_learns_for_a_week() -> None:
    week = events(range(BEGIN, BEGIN + 200), ago=5)
    assert unusual.staleness(week, now=at(BEGIN + 200), bounded=True).measured == 6 * 3600 + 60
    assert unusual.staleness(events(range(BEGIN, BEGIN + 100)), now=at(BEGIN + 100), bounded=False).learning
    assert not unusual.staleness(events(range(BEGIN, BEGIN + 100)), now=at(BEGIN + 100), bounded=True).learning
    assert unusual.staleness(History({BEGIN: Hour(BEGIN, 3)}, {}), now=at(BEGIN + 1), bounded=True).learning


# One draw of a slot: how many records, how often a property is filled, which buckets.
Draw = Callable[[Random, int], Mapping[str, int]]


def past(draws: Mapping[str, Draw], *, weeks: int = 5, per_hour: int = 150, seed: int = 3) -> History:
    """Return weeks of slots with properties drawn anew in each."""
    random = np.random.default_rng(seed)
    hours: dict[int, Hour] = {}
    fillings: dict[int, dict[str, Filling]] = {}
    for slot in range(BEGIN // HOURS_PER_SLOT, BEGIN // HOURS_PER_SLOT + weeks * SLOTS_PER_WEEK):
        records = 0
        for hour in range(slot * HOURS_PER_SLOT, (slot + 1) * HOURS_PER_SLOT):
            hours[hour] = Hour(hour, int(random.poisson(per_hour * busy(hour))) + 1)
            records += hours[hour].records
        drawn = {name: draw(random, records) for name, draw in draws.items()}
        fillings[slot] = {name: Filling(slot, name, sum(each.values()), each) for name, each in drawn.items()}
    return History(hours, fillings)


def amounts(scale: float = 1.0, *, filled: float = 0.8) -> Draw:
    """Draw prices in buckets of two per doubling."""

    def draw(random: Random, records: int) -> Mapping[str, int]:
        normal = NormalDist(math.log2(30 * scale) * 2, 3)
        number = int(random.binomial(records, filled))
        edges = range(-30, 60)
        shares = [normal.cdf(each + 1) - normal.cdf(each) for each in edges]
        counts = random.multinomial(number, np.array(shares) / sum(shares))
        return {str(each): int(count) for each, count in zip(edges, counts, strict=True) if count}

    return draw


def visitors(each: int = 25) -> Draw:
    """Draw the hashes of visitors' ids, who come with many records each: no slot is like another."""

    def draw(random: Random, records: int) -> Mapping[str, int]:
        total: Mapping[str, int] = {}
        for _ in range(max(1, records // each)):
            total = added(total, {str(random.integers(32)): each})
        return total

    return draw


def typed(share: float, kind: str = "string") -> Draw:
    """Draw how often an undeclared property is there, with one JSON type."""

    def draw(random: Random, records: int) -> Mapping[str, int]:
        number = int(random.binomial(records, share))
        return {kind: number} if number else {}

    return draw


def changed(history: History, draws: Mapping[str, Draw], *, slots: int = 1) -> History:
    """Return a past whose last slots were drawn otherwise."""
    random = np.random.default_rng(11)
    last = sorted(history.fillings)[-slots:]
    fillings = {slot: dict(each) for slot, each in history.fillings.items()}
    for slot in last:
        for name, draw in draws.items():
            found = draw(random, history.records([slot]))
            fillings[slot][name] = Filling(slot, name, sum(found.values()), found)
    return History(history.hours, fillings)


def now_of(history: History) -> datetime:
    """Return the moment after a past."""
    return at((max(history.fillings) + 1) * HOURS_PER_SLOT)


CLEAN = {"amount": amounts(), "visitor": visitors(), "_extra.coupon": typed(0.3), "_extra.rare": typed(0.001)}


def test_a_clean_past_is_usual_in_all_that_is_compared() -> None:
    history = past(CLEAN, weeks=6)
    looked = sorted(history.fillings)[-SLOTS_PER_WEEK:]
    for slot in looked:
        known = History(
            {hour: each for hour, each in history.hours.items() if hour // HOURS_PER_SLOT <= slot},
            {each: some for each, some in history.fillings.items() if each <= slot},
        )
        moment = at((slot + 1) * HOURS_PER_SLOT)
        columns = ["amount", "visitor"]
        assert (unusual.distribution(known, columns, now=moment).measured or 0) < 0.1
        assert (unusual.null_share(known, columns, now=moment).measured or 0) < 5
        assert unusual.drift(known, now=moment).measured == 0


def test_prices_in_cents_are_another_distribution() -> None:
    found = unusual.distribution(
        changed(past(CLEAN), {"amount": amounts(100)}), ["visitor", "amount"], now=now_of(past(CLEAN))
    )
    assert (found.measured or 0) > 0.25
    assert found.detail.startswith("Of amount ")


def test_a_property_that_is_filled_half_as_often_is_told_in_points() -> None:
    history = changed(past(CLEAN), {"amount": amounts(filled=0.4)}, slots=4)
    found = unusual.null_share(history, ["amount"], now=now_of(history))
    assert 30 < (found.measured or 0) < 45
    more = changed(past(CLEAN), {"amount": amounts(filled=1.0)})
    assert unusual.null_share(more, ["amount"], now=now_of(more)).measured == 0, "to be filled more often harms nobody"


def test_properties_that_are_new_gone_or_of_another_type_are_named() -> None:
    faults = {"_extra.voucher": typed(0.3), "_extra.coupon": typed(0.0), "amount": amounts(filled=0.0)}
    history = changed(past(CLEAN), faults)
    found = unusual.drift(history, now=now_of(history))
    assert found.measured == 3
    assert found.detail == "_extra.coupon is gone, _extra.voucher is new, amount is gone."
    other = changed(past(CLEAN), {"_extra.coupon": typed(0.3, "number")})
    assert unusual.drift(other, now=now_of(other)).detail == "_extra.coupon is number now."


def test_few_records_are_compared_over_a_longer_time() -> None:
    history = past({"amount": amounts()}, per_hour=6)
    assert unusual.distribution(history, ["amount"], now=now_of(history)).measured == 0
    faulty = changed(history, {"amount": amounts(100)}, slots=SLOTS_PER_WEEK)
    assert "in 168 h" in unusual.distribution(faulty, ["amount"], now=now_of(faulty)).detail


def test_what_has_no_past_is_learnt() -> None:
    young = past({"amount": amounts()}, weeks=2)
    assert unusual.distribution(young, ["amount"], now=now_of(young)).learning
    assert unusual.null_share(young, ["amount"], now=now_of(young)).learning
    assert unusual.drift(History({}, {}), now=at(BEGIN)).learning
    assert unusual.distribution(past({"amount": amounts()}), [], now=now_of(past({}))).learning


COUNTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 1_000_000), min_size=1)


@given(COUNTS, COUNTS)
def test_an_index_is_never_negative_alike_both_ways_and_nothing_between_the_same(
    left: dict[str, int], right: dict[str, int]
) -> None:
    assert unusual.stability(left, right) >= 0
    assert math.isclose(unusual.stability(left, right), unusual.stability(right, left), abs_tol=1e-12)
    assert unusual.stability(left, left) == 0
