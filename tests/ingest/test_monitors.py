"""What follows from a look at a promise: incidents, held datasets, and how they end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from counterfoil_ingest.monitors import (
    ERRORS_BEFORE_INCIDENT,
    ITSELF,
    End,
    Monitor,
    Operator,
    Outcome,
    Promise,
    State,
    Step,
    availability,
    ended,
    judged,
    with_uptime,
    worded,
)
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
PASS, FAIL, ERROR = Outcome(1.0), Outcome(9.0), Outcome(None, "The lake is behind.")


def promise(**changed: Any) -> Promise:
    values = {"name": "latency", "metric": "latency", "operator": Operator.AT_MOST, "bounds": (5.0,), "unit": "rows"}
    return Promise(**{**values, **changed})


BREAKING, RESUMING = promise(data_breaker=True), promise(data_breaker=True, auto_resume=True)


def fresh() -> Monitor:
    return Monitor("acme", "ads.latency", "ads", "latency", "ads", "1.0.0", "Web", "At most 5.", "error", since=NOW)


class Looks:
    """A monitor that is looked at once a minute."""

    def __init__(self, of: Promise) -> None:
        self.promise = of
        self.monitor = fresh()
        self.now = NOW
        self.steps: list[Step] = []
        self._ids = count(1)

    def look(self, *outcomes: Outcome) -> Monitor:
        for outcome in outcomes:
            self.now += timedelta(minutes=1)
            self._take(judged(self.monitor, outcome, self.promise, now=self.now, new_id=lambda: f"i{next(self._ids)}"))
        return self.monitor

    def end(self, by: str = "ada", *, accepted: bool = False) -> Monitor:
        self._take(ended(self.monitor, End(by, "Mended.", accepted)))
        return self.monitor

    def _take(self, step: Step) -> None:
        self.steps.append(step)
        self.monitor = step.after


def test_a_breach_opens_one_incident_and_holds_only_where_the_contract_says_so() -> None:
    for each, held in ((promise(), False), (BREAKING, True)):
        looks = Looks(each)
        first = looks.look(PASS, FAIL)
        assert (first.state, first.incident_id, first.held) == (State.FAILING, "i1", held)
        assert first.failing_since == first.opened_at == NOW + timedelta(minutes=2)
        again = looks.look(FAIL, FAIL)
        assert (again.incident_id, again.failing_since) == ("i1", first.failing_since)
        assert [step.is_news for step in looks.steps] == [False, True, False, False]


def test_a_repair_ends_an_incident_that_holds_nothing() -> None:
    looks = Looks(promise())
    looks.look(FAIL, PASS)
    assert looks.steps[-1].ended == End(ITSELF, "The promise is kept again.")
    assert (looks.monitor.incident_id, looks.monitor.state) == ("", State.PASSING)


def test_held_data_waits_for_a_person_after_the_repair() -> None:
    looks = Looks(BREAKING)
    mended = looks.look(FAIL, PASS)
    assert (mended.state, mended.held, mended.incident_id) == (State.PASSING, True, "i1")
    assert mended.recovered_at == looks.now
    assert looks.look(PASS).recovered_at == mended.recovered_at
    assert looks.look(FAIL).recovered_at is None, "it broke again"
    assert looks.look(PASS).recovered_at == looks.now
    over = looks.end()
    assert (over.held, over.incident_id, over.accepted) == (False, "", False)
    assert [step.is_news for step in looks.steps] == [True, True, False, True, True, True]


def test_held_data_is_resumed_by_the_monitor_where_the_contract_says_so() -> None:
    looks = Looks(RESUMING)
    mended = looks.look(FAIL, PASS)
    assert (mended.held, mended.incident_id) == (False, "")
    assert looks.steps[-1].ended is not None
    assert looks.steps[-1].ended.by == ITSELF


def test_an_accepted_breach_opens_no_incident_until_the_promise_was_kept_once() -> None:
    looks = Looks(BREAKING)
    looks.look(FAIL)
    looks.end(accepted=True)
    assert (looks.look(FAIL, FAIL).incident_id, looks.monitor.held) == ("", False)
    assert looks.look(PASS, FAIL).incident_id == "i2"


def test_a_breach_that_somebody_ended_by_mistake_opens_the_next_incident() -> None:
    looks = Looks(BREAKING)
    looks.look(FAIL, PASS)
    looks.monitor = looks.look(FAIL)
    looks.end(accepted=False)
    assert (looks.look(FAIL).incident_id, looks.monitor.held) == ("i2", True)


def test_what_cannot_be_evaluated_is_no_pass_and_becomes_an_incident_when_it_lasts() -> None:
    looks = Looks(BREAKING)
    states = [looks.look(ERROR) for _ in range(ERRORS_BEFORE_INCIDENT)]
    assert [each.state for each in states] == [State.ERROR] * ERRORS_BEFORE_INCIDENT
    assert [bool(each.incident_id) for each in states] == [False] * (ERRORS_BEFORE_INCIDENT - 1) + [True]
    assert states[-1].held
    assert "could not be evaluated" in states[-1].detail


def test_an_error_after_a_repair_takes_the_repair_back() -> None:
    looks = Looks(BREAKING)
    assert looks.look(FAIL, PASS, ERROR).recovered_at is None
    assert looks.monitor.held


def test_a_moments_trouble_is_no_incident() -> None:
    looks = Looks(BREAKING)
    assert looks.look(ERROR, ERROR, PASS, ERROR, ERROR, PASS).incident_id == ""


@given(
    outcomes=st.lists(st.sampled_from([PASS, FAIL, ERROR, "resume", "accept"]), max_size=30),
    breaker=st.booleans(),
    auto=st.booleans(),
)
def test_whatever_happens_data_is_held_by_an_open_incident_and_released_by_its_end(
    outcomes: list[Any], breaker: bool, auto: bool
) -> None:
    looks = Looks(promise(data_breaker=breaker, auto_resume=auto))
    for outcome in outcomes:
        if isinstance(outcome, Outcome):
            looks.look(outcome)
        elif looks.monitor.incident_id:
            looks.end(accepted=outcome == "accept")
    for step in looks.steps:
        before, after = step.before, step.after
        assert bool(after.incident_id) or not after.held
        assert (after.recovered_at is None) or (after.state is State.PASSING and bool(after.incident_id))
        if before.incident_id and not after.incident_id:
            assert step.ended is not None
            assert step.ended.by != ITSELF or after.state is State.PASSING
        if before.held and not after.held and step.ended is not None and step.ended.by == ITSELF:
            assert auto, "only the contract leaves that to the monitor"
        if after.held:
            assert breaker


@pytest.mark.parametrize(
    ("operator", "bounds", "kept", "broken", "words"),
    [
        (Operator.EQUAL, (5.0,), [5], [4, 6], "5 rows"),
        (Operator.NOT_EQUAL, (5.0,), [4, 6], [5], "not 5 rows"),
        (Operator.GREATER, (5.0,), [5.1], [5, 4], "more than 5 rows"),
        (Operator.AT_LEAST, (5.0,), [5], [4.9], "at least 5 rows"),
        (Operator.LESS, (5.0,), [4.9], [5], "less than 5 rows"),
        (Operator.AT_MOST, (5.0,), [5], [5.1], "at most 5 rows"),
        (Operator.BETWEEN, (5.0, 7.0), [5, 6, 7], [4.9, 7.1], "between 5 rows and 7 rows"),
        (Operator.NOT_BETWEEN, (5.0, 7.0), [4.9, 7.1], [5, 6, 7], "not between 5 rows and 7 rows"),
    ],
)
def test_every_operator_means_what_it_says(
    operator: Operator, bounds: tuple[float, ...], kept: list[float], broken: list[float], words: str
) -> None:
    asked = promise(operator=operator, bounds=bounds)
    assert all(asked.is_kept_by(each) for each in kept)
    assert not any(asked.is_kept_by(each) for each in broken)
    assert asked.expectation == words


@pytest.mark.parametrize(
    ("number", "unit", "words"),
    [
        (90.0, "seconds", "1.5 min"),
        (129_600.0, "seconds", "1.5 d"),
        (0.0, "seconds", "0 s"),
        (12.5, "percent", "12.5 percent"),
        (1_234_567.0, "rows", "1234567 rows"),
        (0.25, "value", "0.25"),
    ],
)
def test_numbers_are_written_as_people_read_them(number: float, unit: str, words: str) -> None:
    assert worded(number, unit) == words


def test_a_schedule_goes_before_the_period() -> None:
    period = timedelta(minutes=1)
    assert promise().next_after(NOW, period=period) == NOW + period
    assert promise(schedule="0 20 * * *").next_after(NOW, period=period) == NOW.replace(hour=20)


def test_availability_is_the_share_of_time_that_looks_found_it_up() -> None:
    window, minute = timedelta(days=30), timedelta(minutes=1)

    def look(monitor: Monitor, at: datetime, *, up: bool) -> tuple[Monitor, float]:
        counted = with_uptime(monitor, up=up, now=at, expected=minute, window=window)
        share = availability(counted, up=up, now=at, window=window)
        return judged(counted, Outcome(share), promise(), now=at, new_id=lambda: "i").after, share

    monitor, share = look(fresh(), NOW, up=True)
    assert share == 100.0
    for number in range(1, 10):
        monitor, share = look(monitor, NOW + number * minute, up=number != 5)
    assert share == pytest.approx(100 * 8 / 9)
    monitor, share = look(monitor, NOW + timedelta(minutes=69), up=True)  # nobody looked for an hour: two minutes count
    assert share == pytest.approx(100 * 10 / 69)
    later = NOW + timedelta(days=200)
    monitor, share = look(monitor, later, up=True)
    assert list(monitor.uptime) == [int(later.timestamp() // 86_400)]
    assert 0 < share < 1
