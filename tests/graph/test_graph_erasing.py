"""Erasure of a person, end to end over real services: nothing of them is left, everybody else is as they were."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from counterfoil.common.v1 import receipts_pb2
from counterfoil.governance.v1 import consents_pb2, legal_holds_pb2, privacy_requests_pb2, privacy_requests_pb2_grpc
from counterfoil.graph.v1 import persons_pb2
from counterfoil.ingest.v1 import erasures_pb2, erasures_pb2_grpc, records_pb2, records_pb2_grpc
from counterfoil_chassis.call import connect, outgoing
from counterfoil_graph.entities import FOREVER
from counterfoil_graph.errors import ErasureIncompleteError
from counterfoil_graph.remote.erasures import ErasureOffices
from counterfoil_graph.sql.tables import DERIVED
from prometheus_client import REGISTRY

from tests.byte_scan import holding
from tests.graph.test_graph_exports import R, approved, export, shoppers
from tests.graph.test_graph_persons import event, merge, partition
from tests.graph.world import Client, Peers, World, until

MAPPING = """
mapping: store
identifier_types:
  card: {rank: 40, max_per_person: 2, normalise: trim, shared_above: 2}
datasets:
  orders:
    time: at
    identifiers:
      - {type: email, field: email}
      - {type: card, field: card}
    nodes: [{type: product, key: product, name: product_name, attributes: [colour]}]
    edges:
      - {type: bought, from: person, to: {type: product, key: product}}
      - {type: sold_in, from: {type: product, key: product}, to: {type: shop, key: shop}}
    conversions: [{type: order, key: order, value: amount, currency: {const: EUR}}]
"""
ERASURE = privacy_requests_pb2.PrivacyRequest.ERASURE
ADA = "ada.lovelace@example.com"


def order(number: int, email: str, **more: Any) -> dict[str, Any]:
    made = {
        "message_id": f"o{number}",
        "order": f"o{number}",
        "at": f"2026-03-{1 + number % 28:02}T10:00:00Z",
        "email": email,
        "product": f"p{number % 3}",
        "product_name": f"Product {number % 3}",
        "colour": "red",
        "shop": f"s{number % 2}",
        "amount": number,
    }
    return made | more


def state(folder: Path, *, history: bool = True) -> dict[str, list[Any]]:
    """Return every row that a rebuild makes again; without `history`, as they hold now."""
    rows: dict[str, list[Any]] = {}
    with closing(sqlite3.connect(folder / "graph.db")) as database:
        for table in DERIVED:
            columns = [each.name for each in table.columns if history or each.name not in ("tx_from", "tx_to")]
            listed = ", ".join(f'"{each}"' for each in columns)
            now = f" WHERE tx_to = {FOREVER}" if not history and "tx_to" in table.columns else ""
            rows[table.name] = sorted(
                database.execute(f'SELECT {listed} FROM "{table.name}"{now}').fetchall(), key=repr
            )
    return rows


async def rebuilt(client: Client) -> None:
    await client.rebuild()

    async def done() -> bool:
        return not (await client.graph()).rebuilding

    await until(done)


async def caught_up(client: Client, folder: Path) -> None:
    """Wait until the graph has read the log to its end."""

    async def done() -> bool:
        graph = await client.graph()
        with closing(sqlite3.connect(folder / "ingest.db")) as database:
            (head,) = database.execute("SELECT max(first_offset + count) FROM log_block").fetchone()
        return not graph.rebuilding and graph.state.next_offset == head

    await until(done)


def erased(request: privacy_requests_pb2.PrivacyRequest) -> dict[str, int]:
    (report,) = request.reports
    assert (report.service, report.remaining) == ("graph", 0)
    return dict(report.erased)


async def test_nothing_of_the_person_is_left_and_the_graph_is_what_a_rebuild_makes(
    client: Client, world: World
) -> None:
    await client.mapped(MAPPING)
    await client.append("orders", *(order(n, f"u{n % 4}@example.com", card=f"c{n % 4}") for n in range(12)))
    await client.append(
        "orders", order(20, ADA.upper(), card="4929-1815-1852", colour="green"), order(21, "u1@example.com", card="c1")
    )
    await client.append("events", event(22, user_id="countess-of-lovelace", traits={"email": ADA}))
    await client.append("events", event(23, user_id="countess-of-lovelace", context={"campaign": {"name": "spring"}}))
    ada = await client.person("email", ADA)
    everybody = {n: await client.person("email", f"u{n}@example.com") for n in range(4)}
    assert holding(world.folder, ADA, "countess-of-lovelace", "4929-1815-1852")
    done = await client.erased(("email", ADA))
    assert erased(done) == {"persons": 1, "identifiers": 3, "records": 3, "quarantined_records": 0}
    assert holding(world.folder, ADA, "countess-of-lovelace", "4929-1815-1852") == []
    gone = await client.refused(client.persons.GetPerson, persons_pb2.GetPersonRequest(person_id=ada.person_id))
    assert (gone.code.name, gone.reason) == ("NOT_FOUND", "PERSON_ERASED")
    assert {n: await client.person("email", f"u{n}@example.com") for n in range(4)} == everybody
    exact = state(world.folder)
    with closing(sqlite3.connect(world.folder / "graph.db")) as database:
        assert database.execute("SELECT rebuild_until FROM graph").fetchone() == (0,)  # it was not read again
    await rebuilt(client)
    assert state(world.folder) == exact
    await client.append("orders", order(24, ADA))
    assert (await client.person("email", ADA)).person_id != ada.person_id


@pytest.mark.parametrize("seed", range(2))
async def test_whoever_is_erased_the_graph_is_what_a_rebuild_makes(client: Client, world: World, seed: int) -> None:
    """Cards are lent, products are described by whom it happens to be, some records cannot be read."""
    dice = random.Random(seed)
    await client.mapped(MAPPING)
    names = [f"person-{n}@example.com" for n in range(6)]
    number = 0
    for _ in range(12):
        some = []
        for _ in range(dice.randint(1, 5)):
            number += 1
            who = dice.randrange(6)
            card = f"card-{who}" if dice.random() < 0.8 else f"card-{dice.randrange(6)}"
            more: dict[str, Any] = {"card": card, "colour": dice.choice(["red", "blue"])}
            if dice.random() < 0.2:
                more["amount"] = "no number"
            some.append(order(number, names[who], **more))
        await client.append("orders", *some)
    for name in dice.sample(names, 3):
        await client.erased(("email", name))
        await caught_up(client, world.folder)
        assert holding(world.folder, name) == []
        now = state(world.folder, history=False)
        await rebuilt(client)
        assert state(world.folder, history=False) == now


@pytest.mark.both_engines("governance", "contracts", "ingest", "graph")
async def test_everybody_else_is_as_they_were_in_log_and_graph_on_every_engine(client: Client) -> None:
    await client.mapped(MAPPING)
    await client.append("orders", *(order(n, f"u{n % 3}@example.com", card=f"c{n % 3}") for n in range(9)))
    await client.append("orders", order(20, ADA, card="4929"), order(21, "u1@example.com", card="c1"))
    before = await partition(client)
    ada = await client.person("email", ADA)
    assert erased(await client.erased(("email", ADA))) == {
        "persons": 1,
        "identifiers": 2,
        "records": 1,
        "quarantined_records": 0,
    }
    del before[ada.person_id]
    assert await partition(client) == before
    listed = await client(client.records.ListRecords, records_pb2.ListRecordsRequest(dataset="orders", page_size=50))
    assert [each.position.offset for each in listed.records] == [*range(9), 10]
    datasets = await client(client.records.ListDatasets, records_pb2.ListDatasetsRequest())
    assert {each.dataset: each.records for each in datasets.datasets}["orders"] == 10
    again = await client(
        client.records.AppendRecords,
        records_pb2.AppendRecordsRequest(dataset="orders", records=orjson.dumps([order(20, ADA, card="4929")])),
    )
    assert [each.outcome for each in again.verdicts] == [2]  # a duplicate of what was erased
    assert erased(await client.erased(("email", ADA)))["persons"] == 0
    await rebuilt(client)
    assert await partition(client) == before


async def test_a_record_of_somebody_else_that_names_the_person_goes_too(client: Client, world: World) -> None:
    await client.append("events", event(1, user_id="ada", traits={"email": ADA}))
    await client.append("events", event(2, user_id="bob", properties={"referred_by": f"mail of {ADA}, friend"}))
    await client.append("events", event(3, user_id="bob"), event(4, user_id="eve", properties={"note": f"x{ADA}"}))
    assert erased(await client.erased(("email", ADA)))["records"] == 2
    await caught_up(client, world.folder)
    bob = await client.person("user_id", "bob")
    assert bob.identifiers[0].records == 1


async def test_merges_and_splits_go_with_the_person_they_are_about(client: Client, world: World) -> None:
    await client.append("events", *(event(n, user_id=f"u{n}") for n in range(4)))
    numbers = [(await client.person("user_id", f"u{n}")).person_id for n in range(4)]
    await merge(client, numbers[0], numbers[1])
    assert erased(await client.erased(("user_id", "u1"))) == {
        "persons": 1,
        "identifiers": 2,
        "records": 3,
        "quarantined_records": 0,
    }
    await caught_up(client, world.folder)
    now = state(world.folder, history=False)
    assert now["decision"] == []
    await rebuilt(client)
    assert state(world.folder, history=False) == now


async def test_who_comes_back_is_somebody_new_and_stays(peers: Peers) -> None:
    async with peers.graph() as world:
        await world.client().append("events", event(1, user_id="ada", traits={"email": ADA}))
    # While the graph is away the person asks to be erased, and then comes back.
    ingest, _, governance = peers.addresses
    scopes = frozenset({"governance.write", "ingest.write"})
    token = peers.signers["gateway"].mint(workspace="default", principal="admin", scopes=scopes)
    async with connect(governance) as office, connect(ingest) as door:
        who = consents_pb2.Subject(type="email", value=ADA)
        asked = privacy_requests_pb2.CreatePrivacyRequestRequest(kind=ERASURE, identifiers=[who])
        requests = privacy_requests_pb2_grpc.PrivacyRequestServiceStub(office)
        made = await requests.CreatePrivacyRequest(asked, **outgoing(default=60.0, token=token))
        again = orjson.dumps([event(2, user_id="ada", context={"campaign": {"name": "spring"}})])
        append = records_pb2.AppendRecordsRequest(dataset="events", records=again)
        await records_pb2_grpc.RecordServiceStub(door).AppendRecords(append, **outgoing(default=60.0, token=token))
    async with peers.graph() as world:  # it is ready only once what was due is done
        client = world.client()
        wanted = privacy_requests_pb2.GetPrivacyRequestRequest(privacy_request_id=made.privacy_request_id)
        done = await client(client.privacy.GetPrivacyRequest, wanted)
        assert done.state == privacy_requests_pb2.PrivacyRequest.COMPLETED
        assert erased(done)["records"] == 1
        await caught_up(client, world.folder)
        person = await client.person("user_id", "ada")
        assert [(each.identifier.type, each.records) for each in person.identifiers] == [("user_id", 1)]
        assert holding(world.folder, ADA) == []


async def test_an_export_forgets_the_person_and_its_replay_says_so(client: Client, world: World) -> None:
    everybody = (await shoppers(client))[:2]
    asked = await client(client.persons.ExportPersons, export(everybody, request_approval=True, reason="spring"))
    await approved(world, asked.change_id)
    made = await client(client.persons.ExportPersons, export(everybody, change_id=asked.change_id, request_id="e1"))
    replay = receipts_pb2.ReplayRequest(receipt_id=made.receipt_id)
    assert (await client(client.receipts.Replay, replay)).outcome == R.MATCH
    await client.erased(("email", "u1@example.com"))
    answer = await client(client.receipts.Replay, replay)
    assert (answer.outcome, answer.field) == (R.INPUT_ERASED, "")
    assert holding(world.folder, "u1@example.com") == []
    with closing(sqlite3.connect(world.folder / "graph.db")) as database:
        (persons,) = database.execute("SELECT persons FROM export").fetchone()
    assert len(orjson.loads(persons)) == 1


async def test_an_identifier_that_many_share_names_nobody(client: Client, world: World) -> None:
    await client.mapped(MAPPING)
    await client.append("orders", *(order(n, f"u{n}@example.com", card="the family's") for n in range(4)))
    assert erased(await client.erased(("card", "the family's")))["records"] == 0
    assert erased(await client.erased(("email", "u0@example.com"))) == {
        "persons": 1,
        "identifiers": 1,
        "records": 1,
        "quarantined_records": 0,
    }
    await caught_up(client, world.folder)
    now = state(world.folder, history=False)
    await rebuilt(client)
    assert state(world.folder, history=False) == now
    assert (await client.person("card", "the family's")).identifiers[0].records == 3


async def test_nobody_is_known_by_what_was_asked_for(client: Client) -> None:
    await client.append("events", event(1, user_id="ada"))
    assert set(erased(await client.erased(("email", "nobody@example.com"))).values()) == {0}
    assert (await client.person("user_id", "ada")).identifiers[0].records == 1


async def test_an_erasure_that_fails_is_tried_again_and_holds_up_nobody(
    client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.append("events", event(1, user_id="ada", traits={"email": ADA}), event(2, user_id="bob"))
    failing = {"erase": 1, "report": 1}
    ages = []

    def once(name: str) -> None:
        real = getattr(ErasureOffices, name)

        async def call(self: ErasureOffices, *args: Any, **named: Any) -> Any:
            answer = await real(self, *args, **named)
            ages.append(REGISTRY.get_sample_value("counterfoil_graph_erasure_age_seconds"))
            if failing[name]:
                failing[name] -= 1
                raise ErasureIncompleteError(f"{name} was carried out, and its answer was lost")
            return answer

        monkeypatch.setattr(ErasureOffices, name, call)

    once("erase")
    once("report")
    assert erased(await client.erased(("email", ADA)))["records"] == 1

    async def both_failed() -> bool:  # the answer to the report comes to the graph when everybody can read it
        return failing == {"erase": 0, "report": 0}

    await until(both_failed)
    assert all(ages), "the one that waits has an age"
    await client.append("events", event(3, user_id="bob"))
    await caught_up(client, world.folder)
    now = state(world.folder, history=False)
    await rebuilt(client)
    assert state(world.folder, history=False) == now
    assert holding(world.folder, ADA) == []

    async def nobody_waits() -> bool:
        return REGISTRY.get_sample_value("counterfoil_graph_erasure_age_seconds") == 0

    await until(nobody_waits)


async def test_only_the_graph_erases(client: Client, world: World) -> None:
    await client.append("events", event(1, user_id="ada"))
    stub = erasures_pb2_grpc.ErasureServiceStub(world.channels[1])
    wanted = erasures_pb2.EraseRecordsRequest(workspace="default", privacy_request_id="x", offsets=[0])
    for called in (client.called(), outgoing(default=60.0, signer=world.signers["models"])):
        assert (await client.refused(stub.EraseRecords, wanted, **called)).reason == "SERVICE_NOT_ALLOWED"
    answer = await stub.EraseRecords(wanted, **outgoing(default=60.0, signer=world.signers["graph"]))
    assert (answer.erased, answer.erasure_revision, answer.remaining) == (1, 1, 0)


async def held(client: Client, *, dataset: str = "", person: tuple[str, str] | None = None) -> str:
    """Place a legal hold; return its id."""
    wanted = legal_holds_pb2.CreateLegalHoldRequest(
        dataset=dataset,
        identifiers=[consents_pb2.Subject(type=person[0], value=person[1])] if person else [],
        reason="case 17",
    )
    return (await client(client.holds.CreateLegalHold, wanted)).legal_hold_id


async def release(client: Client, legal_hold_id: str) -> None:
    wanted = legal_holds_pb2.ReleaseLegalHoldRequest(legal_hold_id=legal_hold_id, reason="closed")
    await client(client.holds.ReleaseLegalHold, wanted)


async def asked_for(client: Client, *identifiers: tuple[str, str]) -> str:
    subjects = [consents_pb2.Subject(type=kind, value=value) for kind, value in identifiers]
    asked = privacy_requests_pb2.CreatePrivacyRequestRequest(kind=ERASURE, identifiers=subjects)
    return (await client(client.privacy.CreatePrivacyRequest, asked)).privacy_request_id


async def waits_for(client: Client, privacy_request_id: str, *legal_hold_ids: str) -> None:
    """Wait until a privacy request says that it waits for these legal holds."""
    wanted = privacy_requests_pb2.GetPrivacyRequestRequest(privacy_request_id=privacy_request_id)

    async def said() -> bool:
        found = await client(client.privacy.GetPrivacyRequest, wanted)
        held = found.state == privacy_requests_pb2.PrivacyRequest.HELD
        return held and set(found.legal_hold_ids) == set(legal_hold_ids)

    await until(said)


async def test_a_held_person_is_erased_when_the_hold_is_over_and_nobody_else_waits(client: Client) -> None:
    """The hold names the person by another identifier than the request does: only the graph knows that it is her."""
    await client.append("events", event(1, user_id="ada-of-lovelace", traits={"email": ADA}), event(2, user_id="bob"))
    ada = await client.person("email", ADA)
    hold = await held(client, person=("user_id", "ada-of-lovelace"))
    request = await asked_for(client, ("email", ADA))
    await waits_for(client, request, hold)
    assert (await client.person("email", ADA)).person_id == ada.person_id
    assert erased(await client.erased(("user_id", "bob")))["records"] == 1
    await release(client, hold)
    assert erased(await client.completed(request))["records"] == 1


async def test_a_person_with_records_in_a_held_dataset_is_erased_when_the_hold_is_over(client: Client) -> None:
    await client.append("events", event(1, user_id="ada", traits={"email": ADA}))
    hold = await held(client, dataset="events")
    request = await asked_for(client, ("email", ADA))
    await waits_for(client, request, hold)
    assert (await client.person("email", ADA)).identifiers[0].records == 1
    await release(client, hold)
    assert erased(await client.completed(request)) == {
        "persons": 1,
        "identifiers": 2,
        "records": 1,
        "quarantined_records": 0,
    }


async def test_ingest_is_told_every_identifier_of_a_held_person(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.append("events", event(1, user_id="ada", traits={"email": ADA}), event(2, user_id="bob"))
    await client.person("email", ADA)
    told: list[tuple[list[str], list[str]]] = []
    real = ErasureOffices.hold_persons

    async def hold_persons(
        self: ErasureOffices, workspace: str, legal_hold_ids: list[str], identifiers: list[str]
    ) -> None:
        await real(self, workspace, legal_hold_ids, identifiers)
        told.append((legal_hold_ids, identifiers))

    monkeypatch.setattr(ErasureOffices, "hold_persons", hold_persons)
    hold = await held(client, person=("email", ADA.upper()))

    async def said() -> bool:
        return bool(told)

    await until(said)
    assert told[0] == ([hold], ["ada", ADA])
