"""The consent ledger: default deny, the latest word holds, nothing is forgotten, every check can be made again."""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from counterfoil.governance.v1 import audit_pb2
from counterfoil.governance.v1 import consents_pb2 as pb
from counterfoil_chassis.clock import to_timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.governance.calls import Governance, refused

pytestmark = pytest.mark.both_engines("governance")

State, Basis = pb.Consent.State, pb.Consent.Basis
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
_numbers = itertools.count()


def subject(value: str = "ada@example.com", type: str = "email") -> pb.Subject:  # noqa: A002
    return pb.Subject(type=type, value=value)


def said(
    state: int = State.GRANTED,
    *,
    who: pb.Subject | None = None,
    purpose: str = "advertising",
    hours_ago: float = 24,
    basis: int = Basis.CONSENT,
    expires_in: float | None = None,
    evidence: str = "form 7",
) -> pb.NewConsent:
    return pb.NewConsent(
        subject=who or subject(),
        purpose=purpose,
        state=state,  # type: ignore[arg-type]
        basis=basis,  # type: ignore[arg-type]
        happened_at=to_timestamp(NOW - timedelta(hours=hours_ago)),
        expires_at=None if expires_in is None else to_timestamp(NOW + timedelta(hours=expires_in)),
        evidence=evidence,
    )


async def record(governance: Governance, *consents: pb.NewConsent, **whose: Any) -> pb.RecordConsentsResponse:
    request = pb.RecordConsentsRequest(consents=consents)
    return await governance.consents.RecordConsents(request, **governance.as_principal(**whose))


async def check(
    governance: Governance,
    *people: list[pb.Subject],
    purpose: str = "advertising",
    workspace: str = "default",
    **more: Any,
) -> list[tuple[bool, str]]:
    request = pb.CheckConsentsRequest(
        purpose=purpose, people=[pb.ConsentPerson(subjects=person) for person in people], **more
    )
    answer = await governance.consents.CheckConsents(request, **governance.as_principal(workspace=workspace))
    return [(verdict.allowed, verdict.reason) for verdict in answer.verdicts]


async def test_without_a_record_nothing_is_allowed(governance: Governance) -> None:
    assert await check(governance, [subject()]) == [(False, "NO_RECORD")]
    await record(governance, said(purpose="measurement"))
    assert await check(governance, [subject()], [subject("bob@example.com")]) == [(False, "NO_RECORD")] * 2


async def test_a_grant_allows_its_purpose_on_its_basis(governance: Governance) -> None:
    await record(governance, said(basis=Basis.LEGITIMATE_INTEREST))
    request = pb.CheckConsentsRequest(purpose="advertising", people=[pb.ConsentPerson(subjects=[subject()])])
    answer = await governance.consents.CheckConsents(request, **governance.as_principal())
    [verdict] = answer.verdicts
    listed = await governance.consents.ListConsents(
        pb.ListConsentsRequest(subject_type="email", subject_value="ada@example.com"), **governance.as_principal()
    )
    [kept] = listed.consents
    assert (verdict.allowed, verdict.reason, verdict.consent_id, verdict.basis) == (
        True,
        "GRANTED",
        kept.consent_id,
        Basis.LEGITIMATE_INTEREST,
    )
    assert (kept.holds, kept.revision, kept.recorded_by, kept.evidence) == (True, 2, "admin", "form 7")
    assert (answer.ledger_revision, answer.at) == (2, to_timestamp(NOW))
    assert kept.recorded_at == to_timestamp(NOW)


async def test_the_later_word_holds_however_late_it_came(governance: Governance) -> None:
    first = await record(governance, said(State.WITHDRAWN, hours_ago=2))
    assert (first.recorded, first.superseded, first.ledger_revision) == (1, 0, 2)
    late = await record(governance, said(State.GRANTED, hours_ago=3))
    assert (late.recorded, late.superseded, late.ledger_revision) == (1, 1, 3)
    assert await check(governance, [subject()]) == [(False, "WITHDRAWN")]
    again = await record(governance, said(State.GRANTED, hours_ago=1))
    assert (again.recorded, again.superseded) == (1, 0)
    assert await check(governance, [subject()]) == [(True, "GRANTED")]
    listed = await governance.consents.ListConsents(
        pb.ListConsentsRequest(subject_type="email", subject_value="ada@example.com"), **governance.as_principal()
    )
    assert [(one.revision, one.holds) for one in listed.consents] == [(4, True), (3, False), (2, False)]


async def test_at_the_same_moment_the_withdrawal_holds_then_what_ends_first(governance: Governance) -> None:
    words = [
        {"state": State.GRANTED, "evidence": "none"},
        {"state": State.GRANTED, "expires_in": -1},
        {"state": State.GRANTED, "expires_in": 1},
    ]
    for order in itertools.permutations(words):
        who = subject(f"{next(_numbers)}@example.com")
        await record(governance, *(said(who=who, **word) for word in order))  # type: ignore[arg-type]
        assert await check(governance, [who]) == [(False, "EXPIRED")]
        await record(governance, said(State.WITHDRAWN, who=who))
        assert await check(governance, [who]) == [(False, "WITHDRAWN")]


async def test_the_latest_word_of_any_of_a_persons_identifiers_holds(governance: Governance) -> None:
    phone = subject("+49123", "phone")
    await record(governance, said(), said(State.WITHDRAWN, who=phone, hours_ago=1))
    assert await check(governance, [subject()], [phone], [subject(), phone], [phone, subject()]) == [
        (True, "GRANTED"),
        (False, "WITHDRAWN"),
        (False, "WITHDRAWN"),
        (False, "WITHDRAWN"),
    ]


async def test_a_grant_ends_when_it_says(governance: Governance) -> None:
    await record(governance, said(expires_in=1), said(hours_ago=48))
    assert await check(governance, [subject()]) == [(True, "GRANTED")]
    ends = to_timestamp(NOW + timedelta(hours=1))
    assert await check(governance, [subject()], at=ends) == [(False, "EXPIRED")]
    governance.clock.move(timedelta(hours=1))
    assert await check(governance, [subject()]) == [(False, "EXPIRED")]
    assert await check(governance, [subject()], at=to_timestamp(NOW)) == [(True, "GRANTED")]


async def test_a_check_can_be_made_again_as_of_a_revision(governance: Governance) -> None:
    first = await record(governance, said())
    await record(governance, said(State.WITHDRAWN, hours_ago=1))
    assert await check(governance, [subject()]) == [(False, "WITHDRAWN")]
    assert await check(governance, [subject()], ledger_revision=first.ledger_revision) == [(True, "GRANTED")]
    with refused("LEDGER_REVISION_UNKNOWN"):
        await check(governance, [subject()], ledger_revision=4)


async def test_a_check_of_an_empty_ledger_can_be_made_again(governance: Governance) -> None:
    request = pb.CheckConsentsRequest(purpose="advertising", people=[pb.ConsentPerson(subjects=[subject()])])
    empty = await governance.consents.CheckConsents(request, **governance.as_principal())
    assert empty.ledger_revision == 1
    await record(governance, said())
    request.ledger_revision = empty.ledger_revision
    request.at.CopyFrom(empty.at)
    assert await governance.consents.CheckConsents(request, **governance.as_principal()) == empty


async def test_the_very_same_again_adds_nothing(governance: Governance) -> None:
    one, other = said(), said(evidence="form 8")
    assert (await record(governance, one, one)).recorded == 1
    assert await record(governance, one) == pb.RecordConsentsResponse(recorded=0, superseded=0, ledger_revision=2)
    assert (await record(governance, one, other)).recorded == 1
    assert (await check(governance, [subject()])) == [(True, "GRANTED")]


async def test_the_same_request_id_answers_the_same(governance: Governance) -> None:
    request = pb.RecordConsentsRequest(consents=[said()], request_id="once")
    first = await governance.consents.RecordConsents(request, **governance.as_principal())
    assert first.recorded == 1
    assert await governance.consents.RecordConsents(request, **governance.as_principal()) == first


@pytest.mark.parametrize(
    ("consent", "field"),
    [
        (said(hours_ago=-0.1), "consents[1].happened_at"),
        (said(hours_ago=1, expires_in=-1), "consents[1].expires_at"),
        (said(hours_ago=1, expires_in=-2), "consents[1].expires_at"),
    ],
)
async def test_impossible_times_cost_the_whole_call(governance: Governance, consent: pb.NewConsent, field: str) -> None:
    with refused("CONSENT_PERIOD") as refusal:
        await record(governance, said(), consent)
    assert refusal.failure is not None
    assert [violation.field for violation in refusal.failure.violations] == [field]
    assert await check(governance, [subject()]) == [(False, "NO_RECORD")]


async def test_a_senders_clock_may_be_a_little_ahead(governance: Governance) -> None:
    assert (await record(governance, said(State.WITHDRAWN, hours_ago=-1 / 12))).recorded == 1
    assert await check(governance, [subject()]) == [(False, "WITHDRAWN")]


async def test_emails_count_in_lower_case_and_without_space_around_them(governance: Governance) -> None:
    await record(governance, said(who=subject(" Ada@Example.com\n")), said(who=subject(" K7 ", "crm_id")))
    assert await check(
        governance,
        [subject("ADA@EXAMPLE.COM ")],
        [subject("K7", "crm_id")],
        [subject("k7", "crm_id")],
        [subject("K7", "card_id")],
    ) == [(True, "GRANTED"), (True, "GRANTED"), (False, "NO_RECORD"), (False, "NO_RECORD")]


async def test_a_workspace_sees_its_own_ledger_only(governance: Governance) -> None:
    await record(governance, said())
    assert await check(governance, [subject()], workspace="acme") == [(False, "NO_RECORD")]
    request = pb.CheckConsentsRequest(
        purpose="advertising", people=[pb.ConsentPerson(subjects=[subject()])], workspace="default"
    )
    mine = await governance.consents.CheckConsents(request, **governance.as_principal(workspace="acme"))
    assert [verdict.reason for verdict in mine.verdicts] == ["NO_RECORD"]
    for service in ("models", "graph"):
        its = await governance.consents.CheckConsents(request, **governance.as_service(service))
        assert [verdict.reason for verdict in its.verdicts] == ["GRANTED"]
    with pytest.raises(Exception, match="PERMISSION_DENIED"):
        await governance.consents.CheckConsents(request, **governance.as_service("ingest"))
    request.workspace = ""
    with refused("BAD_FIELD"):
        await governance.consents.CheckConsents(request, **governance.as_service("models"))


async def test_recording_takes_its_scope(governance: Governance) -> None:
    with refused("SCOPE_MISSING"):
        await record(governance, said(), scopes=frozenset({"governance.write", "governance.read"}))


async def test_lists_newest_first_page_by_page(governance: Governance) -> None:
    await record(governance, *(said(hours_ago=hours) for hours in range(10, 3, -1)), said(purpose="measurement"))
    request = pb.ListConsentsRequest(page_size=3, subject_type="email", subject_value="ada@example.com")
    request.purpose = "advertising"
    seen = []
    while True:
        page = await governance.consents.ListConsents(request, **governance.as_principal())
        seen += page.consents
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert [(one.revision, one.holds) for one in seen] == [(8, True), *((place, False) for place in range(7, 1, -1))]


@pytest.mark.sqlite
async def test_neither_ledger_nor_audit_log_holds_an_identifier(governance: Governance, tmp_path: Path) -> None:
    await record(governance, said(who=subject("very-personal@example.com")), said(State.WITHDRAWN, hours_ago=1))
    listed = await governance.audit.ListAuditEntries(
        audit_pb2.ListAuditEntriesRequest(page_size=100), **governance.as_principal()
    )
    [entry] = [entry for entry in listed.entries if entry.action == "consents.record"]
    assert json.loads(entry.details) == {"recorded": 2, "withdrawn": 1, "superseded": 0, "ledger_revision": 3}
    for name in ("governance.db", "governance.db-wal"):
        assert b"very-personal" not in (tmp_path / name).read_bytes()


@pytest.mark.sqlite
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE consents SET state = 'granted'",
        "DELETE FROM consents",
        "INSERT OR REPLACE INTO consents SELECT * FROM consents",
    ],
)
async def test_the_database_itself_refuses_any_change(governance: Governance, tmp_path: Path, statement: str) -> None:
    await record(governance, said())
    with (
        closing(sqlite3.connect(tmp_path / "governance.db")) as database,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        database.execute(statement)


WORDS = st.lists(
    st.tuples(
        st.sampled_from([State.GRANTED, State.WITHDRAWN]),
        st.sampled_from(["a", "b"]),
        st.integers(1, 4),
        st.sampled_from([None, -0.5, 2]),
    ),
    min_size=1,
    max_size=6,
)


def expected(words: list[tuple[int, str, int, float | None]], identifiers: str) -> str:
    """Return the answer for a person, by the rules."""
    mine = [word for word in words if word[1] in identifiers]
    if not mine:
        return "NO_RECORD"
    latest = min(hours for _, _, hours, _ in mine)
    last = [(state, ends) for state, _, hours, ends in mine if hours == latest]
    if any(state == State.WITHDRAWN for state, _ in last):
        return "WITHDRAWN"
    return "EXPIRED" if any(ends is not None and ends < 0 for _, ends in last) else "GRANTED"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=WORDS, data=st.data())
async def test_the_order_and_the_grouping_of_arrival_never_matter(
    governance: Governance, words: list[tuple[int, str, int, float | None]], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(words))
    cut = data.draw(st.integers(0, len(words)))
    answers = []
    for order, cuts in ((words, [len(words)]), (shuffled, [cut, len(words)])):
        example = next(_numbers)
        begin, revisions = 0, []
        people = {name: subject(f"{name}{example}", "card_id") for name in "abc"}
        for end in cuts:
            part = [
                said(state, who=people[name], hours_ago=hours, expires_in=ends)
                for state, name, hours, ends in order[begin:end]
            ]
            if part:
                revisions.append((end, (await record(governance, *part)).ledger_revision))
            begin = end
        asked = [[people[name] for name in group] for group in ("a", "b", "ab", "c")]
        for end, revision in revisions:
            as_of = await check(governance, *asked, ledger_revision=revision)
            for group, (allowed, reason) in zip(("a", "b", "ab", "c"), as_of, strict=True):
                assert (allowed, reason) == (reason == "GRANTED", expected(order[:end], group))
        answers.append(await check(governance, *asked))
    assert answers[0] == answers[1]


async def test_ten_thousand_people_are_checked_in_one_call(governance: Governance) -> None:
    size = 5_000
    for begin in (0, size):
        words = [said(who=subject(f"h{begin + place}", "household_id")) for place in range(size)]
        assert (await record(governance, *words)).recorded == size
    people = [
        [subject(f"h{place}", "household_id"), subject(f"d{place}", "device_id")] for place in range(5_000, 15_000)
    ]
    began = time.perf_counter()
    verdicts = await check(governance, *people)
    seconds = time.perf_counter() - began
    assert verdicts == [(True, "GRANTED")] * 5_000 + [(False, "NO_RECORD")] * 5_000
    assert seconds < 10, "a check of 10,000 people takes a few hundred milliseconds on an idle machine"
    print(f"10,000 people, 20,000 identifiers: {seconds:.3f} s")
