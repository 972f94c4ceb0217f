"""Policy checks: closed whenever in doubt, in force at once, the last good bundle kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.governance.v1 import policies_pb2 as pb
from counterfoil.governance.v1.policies_pb2_grpc import PolicyServiceServicer, add_PolicyServiceServicer_to_server
from counterfoil_chassis import policy
from counterfoil_chassis.call import connect
from counterfoil_chassis.clock import to_timestamp
from counterfoil_chassis.database import Database
from counterfoil_chassis.errors import NotFoundError
from counterfoil_chassis.identity import Caller
from counterfoil_chassis.policy import (
    BundleUnreadableError,
    Policies,
    PolicyChecker,
    PolicyDeniedError,
    PolicyUnavailableError,
    Question,
    bundle_sha256,
)
from counterfoil_chassis.serve import Service, started
from counterfoil_chassis.watch import Feed, record_delete, record_put
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chassis.probe import HandClock, ProbeSettings, eventually, signer

SCHEMA = """
namespace Counterfoil {
  entity Role;
  entity Principal in [Role] { workspace: String, scopes: Set<String>, service?: Bool };
  entity PersonSet { region?: String };
  action export appliesTo { principal: Principal, resource: PersonSet, context: { scope: String, people: Long } };
}
"""
PERMIT = """
@id("scope-permits") @owner("platform")
permit (principal, action, resource) when { principal.scopes.contains(context.scope) };
"""
FORBID = """
@id("not-by-viewers") @owner("privacy")
forbid (principal in Counterfoil::Role::"viewer", action, resource);
"""
OVERFLOW = """
@id("overflows") @owner("privacy")
forbid (principal, action, resource) when { context.people * 9223372036854775807 > 0 };
"""
UNGUARDED = """
@id("unguarded") @owner("privacy")
forbid (principal, action, resource) when { resource.region == "EU" };
"""
ADA = Caller("acme", "ada", frozenset({"graph.export"}), "")
QUESTION = Question("export", "PersonSet", "buyers", context={"scope": "graph.export", "people": 7})
CLOCK = HandClock()


def judged(text: str, caller: Caller = ADA, question: Question = QUESTION) -> tuple[bool, tuple[str, ...]]:
    answer = Policies(version=1, policies=text, schema=SCHEMA).answer(caller, question, at=CLOCK.now())
    return answer.allowed, answer.policy_ids


def test_what_a_policy_permits_and_none_forbids_is_allowed() -> None:
    assert judged(PERMIT + FORBID) == (True, ("scope-permits",))


def test_what_no_policy_permits_is_denied_by_default() -> None:
    assert judged(PERMIT, replace(ADA, scopes=frozenset())) == (False, ("default-deny",))


def test_a_forbid_by_role_is_named() -> None:
    assert judged(PERMIT + FORBID, replace(ADA, roles=frozenset({"viewer", "analyst"}))) == (False, ("not-by-viewers",))


@pytest.mark.parametrize(("text", "name"), [(OVERFLOW, "overflows"), (UNGUARDED, "unguarded")])
def test_a_forbid_that_errs_denies_although_cedar_says_allow(text: str, name: str) -> None:
    assert judged(PERMIT + text) == (False, (name,))


def test_a_permit_that_errs_denies_although_another_permits() -> None:
    assert judged(PERMIT + OVERFLOW.replace("forbid", "permit")) == (False, ("overflows",))


def test_all_that_err_and_all_that_forbid_are_named() -> None:
    answered = judged(PERMIT + OVERFLOW + UNGUARDED + FORBID, replace(ADA, roles=frozenset({"viewer"})))
    assert (answered[0], sorted(answered[1])) == (False, ["not-by-viewers", "overflows", "unguarded"])


@pytest.mark.parametrize(
    "question",
    [
        replace(QUESTION, action="import"),
        replace(QUESTION, resource_type="Spaceship"),
        replace(QUESTION, attributes={"region": 7}),
        replace(QUESTION, attributes={"colour": "red"}),
        replace(QUESTION, context={"scope": "graph.export"}),
        replace(QUESTION, context={"scope": "graph.export", "people": "7"}),
        replace(QUESTION, context={"scope": "graph.export", "people": 7, "more": True}),
        replace(QUESTION, context={"scope": "graph.export", "people": 2**63}),
        replace(QUESTION, context={"scope": "graph.export", "people": 2**70}),
        replace(QUESTION, context={"scope": "graph.export", "people": 7.5}),
        replace(QUESTION, context={"scope": b"graph.export", "people": 7}),
    ],
    ids=str,
)
def test_a_question_outside_the_schema_is_denied_with_the_reason(question: Question) -> None:
    answer = Policies(version=1, policies=PERMIT, schema=SCHEMA).answer(ADA, question, at=CLOCK.now())
    assert (answer.allowed, answer.policy_ids) == (False, ("default-deny",))
    assert answer.errors


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_can_name_principal_and_resource(principal: str, resource: str) -> None:
    try:
        asked = replace(QUESTION, resource_id=resource), replace(ADA, principal=principal)
        answered = judged(PERMIT, asked[1], asked[0])
    except UnicodeEncodeError:
        return
    assert answered == (True, ("scope-permits",))


@pytest.mark.parametrize(
    "text",
    [
        "permit (",
        "permit (principal, action, resource);",
        PERMIT + PERMIT,
        '@id("t") permit (principal == ?principal, action, resource);',
        f'@id("d") permit (principal, action, resource) when {{ {"true && " * 400} true }};',
    ],
    ids=["syntax", "no-id", "same-id", "template", "deep"],
)
def test_a_bundle_that_cannot_be_asked_by_id_is_unreadable(text: str) -> None:
    with pytest.raises(BundleUnreadableError):
        Policies(version=1, policies=text, schema=SCHEMA)


def test_the_hash_tells_where_the_policies_end_and_the_schema_begins() -> None:
    assert bundle_sha256("ab", "c") != bundle_sha256("a", "bc")


def test_a_refusal_names_policy_action_resource_and_bundle() -> None:
    answer = Policies(version=3, policies=PERMIT, schema=SCHEMA).answer(
        replace(ADA, scopes=frozenset()), QUESTION, at=CLOCK.now()
    )
    with pytest.raises(PolicyDeniedError) as refusal:
        answer.require()
    assert refusal.value.metadata == {
        "policy_id": "default-deny",
        "policy_ids": "default-deny",
        "action": "export",
        "resource": "person_set:buyers",
        "bundle_version": "3",
    }
    assert refusal.value.reason == "POLICY_DENIED"


def test_receipts_get_the_check_and_the_bundle() -> None:
    answer = Policies(version=3, policies=PERMIT, schema=SCHEMA).answer(ADA, QUESTION, at=CLOCK.now())
    check, bundle = answer.message(), answer.bundle_message()
    assert (check.action, check.resource, check.allowed) == ("export", "person_set:buyers", True)
    assert (list(check.policy_ids), check.checked_at) == (["scope-permits"], to_timestamp(CLOCK.now()))
    assert (bundle.version, bundle.sha256) == (3, bundle_sha256(PERMIT, SCHEMA))


class Office(PolicyServiceServicer):
    """Governance's side: the bundles in force, followed or looked up."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._feed = Feed(database, "policy_bundles", timedelta(minutes=5))
        self.followed = True
        self.lookups = 0
        self.answers: dict[str, pb.PolicyBundle] = {}

    async def WatchPolicyBundles(self, request: Any, context: Any) -> AsyncIterator[WatchResponse]:
        if not self.followed:
            await asyncio.Event().wait()
        async for each in self._feed.stream(request.after_revision):
            yield each

    async def LookupPolicyBundle(self, request: Any, context: Any) -> pb.PolicyBundle:
        self.lookups += 1
        await asyncio.sleep(0)
        if request.workspace not in self.answers:
            raise NotFoundError("there is no such workspace")
        return self.answers[request.workspace]

    async def put(self, workspace: str, bundle: pb.PolicyBundle) -> None:
        async with self._database.begin() as connection:
            await record_put(connection, topic="policy_bundles", key=workspace, resource=bundle)
            self._feed.changed(connection)

    async def delete(self, workspace: str) -> None:
        async with self._database.begin() as connection:
            await record_delete(connection, topic="policy_bundles", key=workspace)
            self._feed.changed(connection)


def bundle(text: str, version: int = 1, schema: str = SCHEMA) -> pb.PolicyBundle:
    return pb.PolicyBundle(version=version, policies=text, schema=schema, sha256=bundle_sha256(text, schema))


@pytest.fixture
def office(database: Database) -> Office:
    return Office(database)


@asynccontextmanager
async def checking(office: Office, settings: ProbeSettings, data_dir: Path) -> AsyncIterator[PolicyChecker]:
    """Follow the office while the block runs."""

    async def build(*_: Any) -> Service:
        return Service(servicers=[(add_PolicyServiceServicer_to_server, office)])

    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(started("probe", settings, build))
        channel = await stack.enter_async_context(connect(running.address))
        checker = PolicyChecker(channel, signer(data_dir, "models"), CLOCK)
        task = asyncio.create_task(checker.run())
        try:
            if office.followed:
                async with asyncio.timeout(30):
                    await checker.current()
            yield checker
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_new_bundle_is_in_force_at_once(office: Office, settings: ProbeSettings, data_dir: Path) -> None:
    await office.put("acme", bundle(PERMIT))
    viewer = replace(ADA, roles=frozenset({"viewer"}))
    async with checking(office, settings, data_dir) as checker:
        first = await checker.require(viewer, QUESTION)
        assert (first.bundle_version, first.policy_ids) == (1, ("scope-permits",))
        await office.put("acme", bundle(PERMIT + FORBID, 2))

        async def forbidden() -> bool:
            return not (await checker.ask(viewer, QUESTION)).allowed

        await eventually(forbidden)
        with pytest.raises(PolicyDeniedError) as refusal:
            await checker.require(viewer, QUESTION)
        assert refusal.value.metadata["policy_id"] == "not-by-viewers"
        assert (await checker.require(ADA, QUESTION)).bundle_version == 2
        await office.put("acme", bundle(PERMIT, 3))

        async def reverted() -> bool:
            return (await checker.ask(viewer, QUESTION)).allowed

        await eventually(reverted)
        again = await checker.ask(viewer, QUESTION)
        assert (again.bundle_version, again.bundle_sha256) == (3, first.bundle_sha256)
    assert office.lookups == 0


async def test_each_answer_says_when_it_was_asked(office: Office, settings: ProbeSettings, data_dir: Path) -> None:
    await office.put("acme", bundle(PERMIT))
    async with checking(office, settings, data_dir) as checker:
        first = await checker.ask(ADA, QUESTION)
        CLOCK.forward(timedelta(seconds=1))
        second = await checker.ask(ADA, QUESTION)
        assert (second.checked_at, second) == (CLOCK.now(), replace(first, checked_at=CLOCK.now()))


async def test_a_workspace_not_seen_yet_is_looked_up_once_for_all_who_ask(
    office: Office, settings: ProbeSettings, data_dir: Path
) -> None:
    office.followed = False
    office.answers["acme"] = bundle(PERMIT)
    async with checking(office, settings, data_dir) as checker:
        answers = await asyncio.gather(*(checker.ask(ADA, QUESTION) for _ in range(20)))
        assert all(answer.allowed for answer in answers)
        assert office.lookups == 1
        office.answers["acme"] = bundle(PERMIT + FORBID, 2)
        CLOCK.forward(policy.LOOKED_UP_FOR)
        assert (await checker.ask(ADA, QUESTION)).bundle_version == 2
        del office.answers["acme"]
        CLOCK.forward(policy.LOOKED_UP_FOR)
        assert (await checker.ask(ADA, QUESTION)).bundle_version == 2  # the last good one
        assert office.lookups == 3


async def test_nothing_is_allowed_when_nobody_can_say(office: Office, settings: ProbeSettings, data_dir: Path) -> None:
    async with checking(office, settings, data_dir) as checker:
        with pytest.raises(PolicyUnavailableError) as failure:
            await checker.ask(ADA, QUESTION)
        assert failure.value.reason == "POLICY_UNAVAILABLE"
        await office.put("acme", bundle(PERMIT))

        async def known() -> bool:
            return "acme" in checker._bundles

        await eventually(known)
        assert (await checker.ask(ADA, QUESTION)).allowed
        await office.delete("acme")

        async def gone() -> bool:
            return "acme" not in checker._bundles

        await eventually(gone)
        with pytest.raises(PolicyUnavailableError):
            await checker.ask(ADA, QUESTION)


async def test_the_last_good_bundles_are_kept_while_governance_is_away(
    office: Office, settings: ProbeSettings, data_dir: Path
) -> None:
    await office.put("acme", bundle(PERMIT))
    async with AsyncExitStack() as stack:
        checker = await stack.enter_async_context(checking(office, settings, data_dir))
        await stack.aclose()
        assert (await checker.ask(ADA, QUESTION)).allowed


@pytest.mark.parametrize(
    "unreadable",
    [
        bundle("permit (", 2),
        bundle(PERMIT, 2, schema="namespace {"),
        pb.PolicyBundle(version=2, policies=PERMIT, schema=SCHEMA, sha256=bundle_sha256(PERMIT + FORBID, SCHEMA)),
    ],
    ids=["text", "schema", "hash"],
)
async def test_a_bundle_that_is_unreadable_here_allows_nothing_not_even_what_the_one_before_did(
    office: Office, settings: ProbeSettings, data_dir: Path, unreadable: pb.PolicyBundle
) -> None:
    await office.put("acme", bundle(PERMIT))
    await office.put("other", bundle(PERMIT))
    async with checking(office, settings, data_dir) as checker:
        assert (await checker.ask(ADA, QUESTION)).allowed
        await office.put("acme", unreadable)

        async def closed() -> bool:
            return checker._bundles["acme"] is None

        await eventually(closed)
        with pytest.raises(PolicyUnavailableError):
            await checker.ask(ADA, QUESTION)
        assert (await checker.ask(replace(ADA, workspace="other"), QUESTION)).allowed


async def test_answers_are_kept_for_a_bounded_number_of_questions(
    office: Office, settings: ProbeSettings, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "MOST_ANSWERS", 5)
    await office.put("acme", bundle(PERMIT))
    async with checking(office, settings, data_dir) as checker:
        for number in range(20):
            assert (await checker.ask(ADA, replace(QUESTION, resource_id=str(number)))).allowed
        assert len(checker._answers) == 5


callers = st.builds(
    Caller,
    st.sampled_from(["acme", "other"]),
    st.sampled_from(["ada", "bob"]),
    st.frozensets(st.sampled_from(["graph.export", "graph.read"])),
    st.sampled_from(["", "models"]),
    st.frozensets(st.sampled_from(["viewer", "analyst"])),
)
questions = st.builds(
    Question,
    st.sampled_from(["export", "import"]),
    st.just("PersonSet"),
    st.sampled_from(["buyers", "sellers"]),
    st.sampled_from([{}, {"region": "EU"}, {"region": "US"}]),
    st.builds(
        lambda scope, people: {"scope": scope, "people": people},
        st.sampled_from(["graph.export", "x"]),
        st.integers(0, 2),
    ),
)


@settings(max_examples=60, deadline=None)
@given(asked=st.lists(st.tuples(callers, questions), min_size=1, max_size=30))
async def test_a_kept_answer_is_the_answer(asked: list[tuple[Caller, Question]]) -> None:
    texts = {"acme": PERMIT + FORBID + UNGUARDED, "other": PERMIT + OVERFLOW}
    checker = PolicyChecker(connect("127.0.0.1:1"), None, CLOCK)  # type: ignore[arg-type]  # never called
    plain = {name: Policies(version=1, policies=text, schema=SCHEMA) for name, text in texts.items()}
    for name, text in texts.items():
        checker._keep(name, bundle(text))
        checker._trusted_until[name] = float("inf")
    for caller, question in [*asked, *asked]:
        assert await checker.ask(caller, question) == plain[caller.workspace].answer(caller, question, at=CLOCK.now())
