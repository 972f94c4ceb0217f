"""Exports: refused without consent or a second person, made with a receipt, made again by a replay."""

from __future__ import annotations

from typing import Any

from counterfoil.common.v1 import receipts_pb2
from counterfoil.governance.v1 import changes_pb2, principals_pb2
from counterfoil.governance.v1 import receipts_pb2 as ledger_pb2
from counterfoil.graph.v1 import persons_pb2
from counterfoil_graph.entities import Name
from counterfoil_graph.remote.governance import MOST_SUBJECTS, Governance

from tests.graph.test_graph_persons import event, merge
from tests.graph.world import Client, World, until

R = receipts_pb2.ReplayResult


async def shoppers(client: Client) -> list[str]:
    """Three people, two of whom consented to advertising; return their ids."""
    await client.append("events", *(event(n, user_id=f"u{n}", traits={"email": f"u{n}@example.com"}) for n in range(3)))
    await client.allowed("advertising", ("user_id", "u0"), ("email", "u1@example.com"))
    return [(await client.person("user_id", f"u{n}")).person_id for n in range(3)]


def export(person_ids: list[str], **fields: Any) -> persons_pb2.ExportPersonsRequest:
    asked = {"purpose": "advertising", "destination": "a file for the agency", "person_ids": person_ids}
    return persons_pb2.ExportPersonsRequest(**{**asked, **fields})


async def approved(world: World, change_id: str) -> None:
    """Have somebody else approve a change."""
    reviewer = world.client(principal="rita")
    request = principals_pb2.CreatePrincipalRequest(
        principal_id="rita", display_name="Rita", kind=principals_pb2.Principal.HUMAN
    )
    await reviewer(reviewer.principals.CreatePrincipal, request)
    change = await reviewer(reviewer.changes.GetChange, changes_pb2.GetChangeRequest(change_id=change_id))
    vote = changes_pb2.ApproveChangeRequest(change_id=change_id, payload_sha256=change.payload_sha256)
    await reviewer(reviewer.changes.ApproveChange, vote)


async def test_an_export_needs_consent_and_a_second_person(client: Client, world: World) -> None:
    everybody = await shoppers(client)
    refused = await client.refused(client.persons.ExportPersons, export(everybody))
    assert (refused.code.name, refused.reason) == ("PERMISSION_DENIED", "POLICY_DENIED")
    assert refused.metadata["policy_id"] == "export-needs-consent"
    asking = await client.refused(client.persons.ExportPersons, export(everybody, request_approval=True))
    assert asking.metadata["policy_id"] == "export-needs-consent"
    consenting = everybody[:2]
    refused = await client.refused(client.persons.ExportPersons, export(consenting))
    assert refused.metadata["policy_id"] == "export-needs-second-person"
    asked = await client(client.persons.ExportPersons, export(consenting, request_approval=True, reason="spring"))
    assert (asked.export_id, list(asked.persons), bool(asked.change_id)) == ("", [], True)
    with_change = export(consenting, change_id=asked.change_id, request_id="e1")
    refused = await client.refused(client.persons.ExportPersons, with_change)
    assert refused.reason == "CHANGE_NOT_APPROVED"
    await approved(world, asked.change_id)
    # what is approved is exactly this export and no other
    other = export(consenting[:1], change_id=asked.change_id)
    assert (await client.refused(client.persons.ExportPersons, other)).reason == "CHANGE_PAYLOAD_DIFFERS"
    made = await client(client.persons.ExportPersons, with_change)
    assert [each.person_id for each in made.persons] == consenting
    assert [(each.type, each.value) for each in made.persons[0].identifiers] == [
        ("email", "u0@example.com"),
        ("user_id", "u0"),
    ]
    assert all(each.consent_id for each in made.persons)
    assert await client(client.persons.ExportPersons, with_change) == made
    again = export(consenting, change_id=asked.change_id)
    assert (await client.refused(client.persons.ExportPersons, again)).reason == "CHANGE_APPLIED"
    await receipt_is_whole(client, made, asked.change_id)


async def receipt_is_whole(client: Client, made: persons_pb2.PersonExport, change_id: str) -> None:
    """Look at the receipt, see it arrive in the ledger, and replay it after everything has changed."""
    request = receipts_pb2.GetReceiptRequest(receipt_id=made.receipt_id)
    receipt = await client(client.receipts.GetReceipt, request)
    assert (receipt.producer, receipt.purpose, receipt.principal) == ("graph", "advertising", "admin")
    assert (list(receipt.changes), receipt.consent.basis) == ([change_id], "consent")
    (check,) = receipt.policy_checks
    assert (check.action, check.allowed, list(check.policy_ids)) == ("export", True, ["scope-permits-act"])
    assert receipt.policy_bundle.version == 1
    assert receipt.HasField("graph_as_of")
    assert (receipt.runtime.image_digest, len(receipt.runtime.lock_sha256)) == ("sha256:graph", 64)
    assert "u0" not in receipt.parameters
    assert "example.com" not in str(receipt)

    async def in_ledger() -> bool:
        listed = await client(client.ledger.ListReceipts, ledger_pb2.ListReceiptsRequest())
        return made.receipt_id in [each.receipt_id for each in listed.receipts]

    await until(in_ledger)
    replay = receipts_pb2.ReplayRequest(receipt_id=made.receipt_id)
    assert (await client(client.receipts.Replay, replay)).outcome == R.MATCH
    # new identifiers, a merge and a withdrawal change what is so now, not what the receipt cites
    await client.append("events", event(30, user_id="u0", anonymous_id="new"))
    await merge(client, *[each.person_id for each in made.persons])
    await client.allowed("advertising", ("user_id", "u0"), state="WITHDRAWN")
    replayed = await client(client.receipts.Replay, replay)
    assert (replayed.outcome, replayed.actual_sha256) == (R.MATCH, receipt.output_sha256)
    await client.rebuild()
    await client.caught_up(5)
    assert (await client(client.receipts.Replay, replay)).outcome == R.MATCH
    await client.mapped("mapping: events\ndatasets: {events: {identifiers: [{type: user_id, field: user_id}]}}")
    await client.caught_up(5)
    assert (await client(client.receipts.Replay, replay)).outcome == R.EXPIRED


async def test_receipts_and_persons_of_another_workspace_are_not_found(client: Client, world: World) -> None:
    everybody = await shoppers(client)
    other = world.client(workspace="zeta")
    assert (await other.refused(other.persons.ExportPersons, export(everybody))).reason == "PERSON_NOT_FOUND"
    for call, request in (
        (other.receipts.GetReceipt, receipts_pb2.GetReceiptRequest(receipt_id="graph.x")),
        (client.receipts.Replay, receipts_pb2.ReplayRequest(receipt_id="graph.x")),
    ):
        assert (await client.refused(call, request)).reason == "RECEIPT_NOT_FOUND"


async def test_a_person_with_more_identifiers_than_can_be_asked_for_has_no_consent(
    world: World, client: Client
) -> None:
    await client.allowed("advertising", ("user_id", "0"))
    ledger = Governance(world.channels[-1], world.signers["graph"])
    people = [[Name("user_id", str(n)) for n in range(count)] for count in (1, MOST_SUBJECTS + 1, MOST_SUBJECTS, 0)]
    answer = await ledger.check(client.workspace, "advertising", people, ledger_revision=0, at_us=None)
    assert [bool(each) for each in answer.consent_ids] == [True, False, True, False]
    assert answer.bases == {"consent"}
