"""Persons: found, explained, merged and split; a rebuild finds them again."""

from __future__ import annotations

from typing import Any

from counterfoil.governance.v1 import audit_pb2, audit_pb2_grpc
from counterfoil.graph.v1 import persons_pb2

from tests.graph.world import Client, World, until

Identifier = persons_pb2.Identifier


def event(number: int, **fields: Any) -> dict[str, Any]:
    """Return an event as the shipped mapping reads it."""
    return {"message_id": f"m{number}", "type": "page", "timestamp": f"2026-01-01T00:00:{number:02}Z", **fields}


async def merge(client: Client, *persons: Any, **fields: Any) -> persons_pb2.IdentityDecision:
    ids = [each if isinstance(each, str) else each.person_id for each in persons]
    request = persons_pb2.MergePersonsRequest(person_ids=ids, reason="the same customer", **fields)
    return await client(client.persons.MergePersons, request)


async def partition(client: Client) -> dict[str, set[tuple[str, str]]]:
    """Return every person with its identifiers."""
    listed = await client(client.persons.ListPersons, persons_pb2.ListPersonsRequest(page_size=1000))
    return {
        person.person_id: {(each.identifier.type, each.identifier.value) for each in person.identifiers}
        for person in listed.persons
    }


async def test_identifiers_seen_together_are_one_person(client: Client) -> None:
    await client.append(
        "events",
        event(5, anonymous_id="d1", user_id="u1"),
        event(2, anonymous_id="d1"),
        event(9, user_id="u1", traits={"email": " Ada@Example.COM "}),
        event(3, anonymous_id="d9"),
    )
    person = await client.person("email", "ADA@example.com ")
    assert [(each.identifier.type, each.identifier.value, each.records) for each in person.identifiers] == [
        ("anonymous_id", "d1", 2),
        ("email", "ada@example.com", 1),
        ("user_id", "u1", 2),
    ]
    assert (person.first_seen_at.ToJsonString(), person.last_seen_at.ToJsonString()) == (
        "2026-01-01T00:00:02Z",
        "2026-01-01T00:00:09Z",
    )
    assert person == await client(client.persons.GetPerson, persons_pb2.GetPersonRequest(person_id=person.person_id))
    several = await client(client.persons.ListPersons, persons_pb2.ListPersonsRequest(min_identifiers=2))
    assert list(several.persons) == [person]
    first = await client(client.persons.ListPersons, persons_pb2.ListPersonsRequest(page_size=1))
    rest = await client(
        client.persons.ListPersons,
        persons_pb2.ListPersonsRequest(page_size=1, page_token=first.next_page_token),
    )
    assert (list(first.persons), rest.next_page_token) == ([person], "")
    assert rest.persons[0].identifiers[0].identifier.value == "d9"


async def test_persons_of_another_workspace_are_not_found(client: Client, world: World) -> None:
    await client.append("events", event(1, user_id="u1"))
    person = await client.person("user_id", "u1")
    other = world.client(workspace="zeta")
    request = persons_pb2.GetPersonRequest(person_id=person.person_id)
    assert (await other.refused(other.persons.GetPerson, request)).reason == "PERSON_NOT_FOUND"
    explained = persons_pb2.ExplainPersonRequest(person_id=person.person_id)
    assert (await other.refused(other.persons.ExplainPerson, explained)).reason == "PERSON_NOT_FOUND"
    looked_up = persons_pb2.LookupPersonRequest(type="user_id", value="u1")
    assert (await other.refused(other.persons.LookupPerson, looked_up)).reason == "PERSON_NOT_FOUND"
    for nonsense in ("per_", "per_00" + "g" * 16, "per_00" + "f" * 16, "u1"):
        refused = await client.refused(client.persons.GetPerson, persons_pb2.GetPersonRequest(person_id=nonsense))
        assert refused.reason == "PERSON_NOT_FOUND"


async def test_an_explanation_shows_what_holds_and_what_was_refused_and_why(client: Client) -> None:
    await client.append(
        "events",
        event(1, user_id="u1", anonymous_id="d1"),
        event(2, user_id="u2", anonymous_id="d1"),
        event(2, user_id="u2", anonymous_id="d1", message_id="again"),
    )
    person = await client.person("user_id", "u1")
    found = await client(client.persons.ExplainPerson, persons_pb2.ExplainPersonRequest(person_id=person.person_id))
    assert [
        (each.right.value, each.left.value, each.records, each.accepted, each.refused_because, each.rule)
        for each in found.evidence
    ] == [("d1", "u1", 1, True, "", "same_record"), ("u2", "d1", 2, False, "LIMIT_USER_ID", "same_record")]
    assert (found.evidence[0].record_id, found.evidence[0].dataset, found.evidence[0].position) == (
        "m1",
        "events",
        "0:0",
    )


async def test_a_shared_address_joins_nobody(client: Client) -> None:
    await client.append("events", *(event(n, user_id=f"u{n}", traits={"email": "desk@example.com"}) for n in range(11)))
    desk = await client.person("email", "desk@example.com")
    assert [(each.identifier.type, each.shared) for each in desk.identifiers] == [("email", True)]
    assert (await client.graph()).persons == 12
    found = await client(client.persons.ExplainPerson, persons_pb2.ExplainPersonRequest(person_id=desk.person_id))
    assert {each.refused_because for each in found.evidence} == {"SHARED_IDENTIFIER"}
    assert len(found.evidence) == 11


async def test_merging_and_splitting_back_restores_everything(client: Client) -> None:
    await client.append("events", *(event(n, user_id=f"u{n}", anonymous_id=f"d{n}") for n in range(3)))
    before = await partition(client)
    persons = [await client.person("user_id", f"u{n}") for n in range(3)]
    first = await merge(client, persons[0], persons[1], request_id="r1")
    assert (list(first.person_ids), first.decided_by) == ([persons[0].person_id], "admin")
    assert await merge(client, persons[0], persons[1], request_id="r1") == first
    second = await merge(client, persons[1].person_id, persons[2])
    refused = await client.refused(
        client.persons.MergePersons,
        persons_pb2.MergePersonsRequest(person_ids=[persons[2].person_id, persons[0].person_id], reason="a circle"),
    )
    assert (refused.code.name, refused.reason) == ("FAILED_PRECONDITION", "PERSONS_ALREADY_ONE")
    # the ids that were merged away answer the person they are part of
    retired = persons_pb2.GetPersonRequest(person_id=persons[2].person_id)
    one = await client(client.persons.GetPerson, retired)
    assert one.person_id == persons[0].person_id
    assert list(one.merged_person_ids) == [persons[1].person_id, persons[2].person_id]
    assert len(one.identifiers) == 6
    explained = persons_pb2.ExplainPersonRequest(person_id=one.person_id)
    found = await client(client.persons.ExplainPerson, explained)
    assert [each.rule for each in found.evidence if each.accepted] == ["merge"] * 2 + ["same_record"] * 3
    for decision in (first, second):
        request = persons_pb2.SplitPersonRequest(
            person_id=persons[1].person_id, decision_id=decision.decision_id, reason="a mistake"
        )
        back = await client(client.persons.SplitPerson, request)
        assert back.reverses == decision.decision_id
        again = await client.refused(client.persons.SplitPerson, request)
        assert again.reason in ("DECISION_REVERSED", "DECISION_NOT_FOUND")
    assert await partition(client) == before
    explained = persons_pb2.ExplainPersonRequest(person_id=persons[1].person_id)
    found = await client(client.persons.ExplainPerson, explained)
    assert [bool(each.reversed_by) for each in found.decisions] == [True, True, False, False]
    assert [(each.rule, each.refused_because) for each in found.evidence] == [
        ("merge", "SPLIT"),
        ("merge", "SPLIT"),
        ("same_record", ""),
    ]


async def test_identifiers_that_leave_stay_away_when_they_are_seen_together_again(client: Client) -> None:
    await client.append("events", event(1, user_id="u1", anonymous_id="d1"), event(2, user_id="u1", anonymous_id="d2"))
    person = await client.person("user_id", "u1")

    async def split(*identifiers: Identifier, **fields: Any) -> Any:
        request = persons_pb2.SplitPersonRequest(
            person_id=person.person_id, identifiers=identifiers, reason="a library's computer", **fields
        )
        return await client(client.persons.SplitPerson, request)

    decided = await split(Identifier(type="anonymous_id", value="d1"))
    # the person's number is the place of its first identifier: u1 came before d1 in the first record
    assert len(decided.person_ids) == 2
    await client.append("events", event(3, user_id="u1", anonymous_id="d1"))
    assert [set(each) for each in (await partition(client)).values()] == [
        {("user_id", "u1"), ("anonymous_id", "d2")},
        {("anonymous_id", "d1")},
    ]
    for identifiers, fields in (((), {}), ((Identifier(type="user_id", value="u1"),), {"decision_id": "x"})):
        request = persons_pb2.SplitPersonRequest(
            person_id=person.person_id, identifiers=identifiers, reason="nonsense", **fields
        )
        assert (await client.refused(client.persons.SplitPerson, request)).reason == "SPLIT_INVALID"
    everything = [each.identifier for each in (await client.person("user_id", "u1")).identifiers]
    request = persons_pb2.SplitPersonRequest(person_id=person.person_id, identifiers=everything, reason="all")
    assert (await client.refused(client.persons.SplitPerson, request)).reason == "SPLIT_INVALID"


async def test_a_merge_of_unknown_persons_and_a_reused_request_are_refused(client: Client) -> None:
    await client.append("events", event(1, user_id="u1"), event(2, user_id="u2"), event(3, user_id="u3"))
    persons = [(await client.person("user_id", f"u{n}")).person_id for n in (1, 2, 3)]
    unknown = persons_pb2.MergePersonsRequest(person_ids=[persons[0], "per_00" + "f" * 16], reason="x")
    assert (await client.refused(client.persons.MergePersons, unknown)).reason == "PERSON_NOT_FOUND"
    await merge(client, *persons[:2], request_id="r1")
    other = persons_pb2.MergePersonsRequest(person_ids=persons[1:], reason="x", request_id="r1")
    assert (await client.refused(client.persons.MergePersons, other)).reason == "REQUEST_ID_REUSED"


async def test_what_others_write_to_the_dataset_of_decisions_changes_nobody(client: Client) -> None:
    await client.append("events", event(1, user_id="u1"), event(2, user_id="u2"))
    identifiers = [{"type": "user_id", "value": "u1"}, {"type": "user_id", "value": "u2"}]
    forged = {
        "message_id": "forged",
        "kind": "merge",
        "identifiers": identifiers,
        "decided_by": "ada",
        "decided_at": "2026-01-01T00:00:00Z",
        "reason": "x",
        "request_sha256": "0",
    }
    await client.append("identity_decisions", forged)
    graph = await client.graph()
    assert graph.persons == 2
    assert [(each.dataset, each.reason, each.records) for each in graph.unread] == [
        ("identity_decisions", "DECISION_UNTRUSTED", 1)
    ]


async def test_a_rebuild_finds_the_same_persons_and_journeys(client: Client) -> None:
    campaign = {"campaign": {"name": "spring", "medium": "email"}}
    await client.append(
        "events",
        *(event(n, user_id=f"u{n % 3}", anonymous_id=f"d{n % 7}", context=campaign) for n in range(9)),
        event(20, type="track", event="Order Completed", user_id="u1", properties={"order_id": "o1", "total": 9.5}),
    )
    persons = [(await client.person("user_id", f"u{n}")).person_id for n in range(3)]
    await merge(client, *persons[:2])
    await client.allowed("measurement", *(("user_id", f"u{n}") for n in range(3)))
    before = (await partition(client), (await client.read())[1], (await client.graph()).SerializeToString())
    rebuilt = await client.rebuild()
    assert rebuilt.rebuilding or rebuilt.SerializeToString() == before[2]
    state = await client.graph()
    await client.caught_up(11)
    state = await client.graph()
    assert (await partition(client), (await client.read())[1], state.SerializeToString()) == before
    assert len(before[1]) == 10


async def test_decisions_and_rebuilds_are_audited_once(client: Client, world: World) -> None:
    await client.append("events", event(1, user_id="u1"), event(2, user_id="u2"))
    await merge(client, *[(await client.person("user_id", f"u{n}")) for n in (1, 2)])
    await client.rebuild("a test")
    await client.caught_up(3)
    stub: Any = audit_pb2_grpc.AuditServiceStub(world.channels[3])

    async def entries() -> list[str]:
        listed = await client(stub.ListAuditEntries, audit_pb2.ListAuditEntriesRequest(page_size=1000))
        return [each.action for each in listed.entries if each.action.startswith(("persons.", "graph."))]

    async def told() -> bool:
        return "graph.rebuild" in await entries()

    await until(told)
    assert sorted(await entries()) == ["graph.rebuild", "persons.merge"]


async def test_reading_needs_its_scope(client: Client) -> None:
    called = client.called(frozenset({"ingest.read"}))
    request = persons_pb2.ListPersonsRequest()
    assert (await client.refused(client.persons.ListPersons, request, **called)).reason == "SCOPE_MISSING"
    merged = persons_pb2.MergePersonsRequest(person_ids=["a", "b"], reason="x")
    called = client.called(frozenset({"graph.read"}))
    assert (await client.refused(client.persons.MergePersons, merged, **called)).reason == "SCOPE_MISSING"
