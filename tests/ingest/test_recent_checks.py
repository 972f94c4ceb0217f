"""Checks from end to end: contracts publishes them, ingest runs them on the records it has, contracts tells of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from counterfoil.contracts.v1 import checks_pb2 as pb
from counterfoil.contracts.v1 import contracts_pb2
from counterfoil.contracts.v1.checks_pb2_grpc import CheckServiceStub
from counterfoil.contracts.v1.contracts_pb2_grpc import ContractServiceStub
from counterfoil.ingest.v1 import quarantine_pb2, sources_pb2
from counterfoil_chassis.call import connect, outgoing
from counterfoil_ingest.recent import anywhere

from tests.ingest.ingest_service import IngestService, contracts_in, ingest_in

SCOPES = ("contracts.read", "contracts.write")
ORDERS: dict[str, Any] = {
    "apiVersion": "v3.2.0",
    "kind": "DataContract",
    "id": "shop",
    "version": "1.0.0",
    "status": "active",
    "schema": [
        {
            "name": "orders",
            "properties": [
                {"name": "message_id", "logicalType": "string", "required": True},
                {"name": "currency", "logicalType": "string"},
                {"name": "channel", "logicalType": "string", "classification": "internal"},
                {"name": "total", "logicalType": "number"},
                {"name": "email", "logicalType": "string"},
                {
                    "name": "lines",
                    "logicalType": "array",
                    "items": {
                        "logicalType": "object",
                        "properties": [
                            {"name": "sku", "logicalType": "string"},
                            {"name": "price", "logicalType": "number"},
                        ],
                    },
                },
            ],
        }
    ],
}


def orders(**changes: Any) -> str:
    """Return the contract as another version, with changed properties by name; None takes one out."""
    text = orjson.loads(orjson.dumps(ORDERS))
    text["version"] = "2.0.0"
    dataset = text["schema"][0]
    dataset["quality"] = changes.pop("quality", [])
    for name, change in changes.items():
        dataset["properties"] = [each for each in dataset["properties"] if each["name"] != name]
        if change is not None:
            dataset["properties"].append({"name": name, **change})
    return yaml.safe_dump(text)


class Both:
    """A running contracts and a running ingest that follows it."""

    def __init__(self, service: IngestService, channel: Any) -> None:
        self.service = service
        self._contracts: Any = ContractServiceStub(channel)
        self._checks: Any = CheckServiceStub(channel)

    def called(self, workspace: str = "acme") -> dict[str, Any]:
        return outgoing(default=60.0, token=self.service.token(workspace, scopes=SCOPES))

    async def activate(self, document: str) -> None:
        await self._contracts.SubmitContract(
            contracts_pb2.SubmitContractRequest(document=document, activate=True), **self.called()
        )

    async def send(self, *records: dict[str, Any], dataset: str = "orders") -> list[Any]:
        item = self.service.item(orjson.dumps(list(records)), protocol="records", dataset=dataset)
        (result,) = await self.service.append_many(item)
        assert result.code == 0, result
        return list(result.verdicts)

    async def check(self, workspace: str = "acme", **request: Any) -> pb.Check:
        """Ask for a check and wait until it is finished."""
        asked = await self._checks.CreateCheck(pb.CreateCheckRequest(**request), **self.called(workspace))
        for _ in range(1200):
            found: pb.Check = await self._checks.GetCheck(
                pb.GetCheckRequest(check_id=asked.check_id), **self.called(workspace)
            )
            if found.state != pb.Check.State.PENDING:
                return found
            await asyncio.sleep(0.05)
        raise AssertionError("the check was never run")

    async def trial(self, document: str, **request: Any) -> pb.DatasetTrial:
        found = await self.check(trial=pb.TrialRequest(document=document), **request)
        assert found.state == pb.Check.State.DONE, found
        return found.trials[0]

    async def draft(self, check_id: str) -> str:
        request = pb.DraftContractRequest(check_id=check_id, contract_id="drafted", owner="growth")
        drafted: pb.DraftContractResponse = await self._checks.DraftContract(request, **self.called())
        return drafted.document


@asynccontextmanager
async def both_in(folder: Path) -> AsyncIterator[Both]:
    async with contracts_in(folder) as address, ingest_in(folder, contracts_target=address) as service:
        channel = connect(address)
        try:
            yield Both(service, channel)
        finally:
            await channel.close()


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    async with both_in(tmp_path) as running:
        yield running


def order(number: int, **fields: Any) -> dict[str, Any]:
    lines = [{"sku": f"s{number % 7}", "price": number + 0.5}, {"sku": "s0", "price": 3}]
    usual = {"currency": ("EUR", "NOK")[number % 2], "channel": "web", "total": number + 0.5, "lines": lines}
    return {"message_id": f"m{number}", **usual, "email": f"person{number}@example.com", **fields}


async def test_a_trial_tells_how_many_recent_records_a_contract_would_have_refused_and_why(both: Both) -> None:
    await both.activate(yaml.safe_dump(ORDERS))
    await both.send(*(order(number) for number in range(40)))
    assert (await both.trial(orders())).failed == 0

    found = await both.trial(
        orders(
            total={"logicalType": "number", "logicalTypeOptions": {"maximum": 29}},
            lines={
                "logicalType": "array",
                "items": {"logicalType": "object", "properties": [{"name": "sku", "logicalType": "string"}]},
            },
        )
    )
    assert (found.dataset, found.tried, found.failed, found.from_offset, found.next_offset) == ("orders", 40, 40, 0, 40)
    faults = {(each.path, each.reason): (each.records, each.offset) for each in found.faults}
    assert faults == {
        ("$.lines[*].price", "CONTRACT_UNKNOWN_FIELD"): (40, 39),
        ("$.total", "CONTRACT_RANGE"): (11, 39),
    }
    assert [each.records for each in found.faults] == [40, 11]

    newest = await both.trial(orders(total={"logicalType": "integer"}), records=10)
    assert (newest.tried, newest.failed, newest.from_offset) == (10, 10, 30)


async def test_a_trial_holds_records_against_the_rules_as_well(both: Both) -> None:
    await both.activate(yaml.safe_dump(ORDERS))
    await both.send(*(order(number) for number in range(20)), order(20, total=None))
    rule = {"type": "custom", "engine": "cel", "implementation": "record.total >= 10.0", "name": "large"}
    found = await both.trial(orders(quality=[rule]))
    faults = {each.reason: each.records for each in found.faults}
    assert (found.failed, faults) == (11, {"CONTRACT_RULE": 10, "CONTRACT_RULE_ERROR": 1})


async def test_a_trial_of_a_dataset_without_records_has_tried_nothing(both: Both) -> None:
    found = await both.trial(orders())
    assert (found.tried, found.failed, found.from_offset, found.next_offset) == (0, 0, 0, 0)


async def test_no_answer_holds_a_value_of_a_personal_field(both: Both) -> None:
    await both.activate(yaml.safe_dump(ORDERS))
    await both.send(*(order(number, email="ada@example.com") for number in range(120)))
    profiled = (await both.check(profile=pb.ProfileSubject(dataset="orders"))).profiled
    fields = {each.path: each for each in profiled.fields}
    assert (profiled.records, profiled.from_offset, profiled.next_offset) == (120, 0, 120)
    assert [each.value for each in fields["$.currency"].values] == ["EUR", "NOK"]
    assert next(each.value for each in fields["$.lines[*].sku"].values) == "s0"
    assert (fields["$.email"].personal, list(fields["$.email"].values)) == ("email", [])
    assert (fields["$.channel"].personal, list(fields["$.channel"].values)) == ("internal", [])
    assert (fields["$.email"].format, fields["$.total"].minimum, fields["$.total"].maximum) == ("email", 0.5, 119.5)
    assert (fields["$.lines[*].price"].parents, fields["$.lines[*].price"].present) == (240, 240)
    assert b"ada@" not in profiled.SerializeToString()
    trial = await both.trial(orders(email={"logicalType": "string", "logicalTypeOptions": {"pattern": "^x"}}))
    assert trial.failed == 120
    assert b"ada@" not in trial.SerializeToString()


async def test_a_key_that_names_a_person_is_never_told(both: Both) -> None:
    await both.send(
        *({"message_id": f"m{number}", "by": {f"ada{number}@example.com": 1, "+4712345678": 2}} for number in range(9)),
        dataset="unplanned",
    )
    check = await both.check(profile=pb.ProfileSubject(dataset="unplanned"))
    assert [each.path for each in check.profiled.fields] == ["$.message_id", "$.by", "$.by[*]"]
    document = await both.draft(check.check_id)
    text = yaml.safe_load(document)
    message_id, by = text["schema"][0]["properties"]
    assert (message_id["name"], by["name"], "properties" in by) == ("message_id", "by", False)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("$.lines[12].price", "$.lines[*].price"),
        ("$.by['ada@example.com'].seen[0]", "$.by[*].seen[*]"),
        ("$.by['+47 123456 78']", "$.by[*]"),
        ("$.by.u4712345678", "$.by[*]"),
        ("$.utm_2026.a1", "$.utm_2026.a1"),
        ("$['odd name'].x", "$['odd name'].x"),
    ],
)
def test_a_place_is_told_without_what_may_name_a_person(path: str, told: str) -> None:
    assert anywhere(path) == told


async def test_a_contract_drafted_from_unplanned_records_takes_them(both: Both) -> None:
    records = [
        {"message_id": f"m{number}", "type": "track", "event": "Basket Seen", "properties": {"size": number % 4}}
        for number in range(150)
    ]
    others = [{"message_id": f"o{number}", "type": "track", "event": "Other", "odd": 1} for number in range(30)]
    await both.send(*records, *others, dataset="unplanned")
    check = await both.check(profile=pb.ProfileSubject(dataset="unplanned", event="Basket Seen"))
    assert check.profiled.records == 150
    assert "$.odd" not in {each.path for each in check.profiled.fields}
    document = await both.draft(check.check_id)
    assert yaml.safe_load(document)["schema"][0]["name"] == "basket_seen"
    await both.activate(document)
    for _ in range(1200):
        verdicts = await both.send(*records[:3], dataset="basket_seen")
        if verdicts[0].outcome != 3:
            break
        await asyncio.sleep(0.05)
    assert {each.outcome for each in verdicts} <= {1, 2}


async def test_another_workspaces_records_are_neither_tried_nor_described(both: Both) -> None:
    await both.activate(yaml.safe_dump(ORDERS))
    await both.send(order(1))
    check = await both.check("zeta", profile=pb.ProfileSubject(dataset="orders"))
    assert (check.state, check.profiled.records, len(check.profiled.fields)) == (pb.Check.State.DONE, 0, 0)
    trial = await both.check("zeta", trial=pb.TrialRequest(document=orders()))
    assert trial.trials[0].tried == 0


async def test_a_check_asked_for_while_ingest_is_away_is_run_when_it_comes(tmp_path: Path) -> None:
    async with both_in(tmp_path) as both:
        await both.activate(yaml.safe_dump(ORDERS))
        await both.send(order(1))
    async with contracts_in(tmp_path) as address:
        channel = connect(address)
        stub: Any = CheckServiceStub(channel)
        called = outgoing(default=60.0, token=both.service.token(scopes=SCOPES))
        asked = await stub.CreateCheck(pb.CreateCheckRequest(trial=pb.TrialRequest(document=orders())), **called)
        assert (await stub.GetCheck(pb.GetCheckRequest(check_id=asked.check_id), **called)).state == 1
        async with ingest_in(tmp_path, contracts_target=address):
            for _ in range(1200):
                found = await stub.GetCheck(pb.GetCheckRequest(check_id=asked.check_id), **called)
                if found.state != pb.Check.State.PENDING:
                    break
                await asyncio.sleep(0.05)
        await channel.close()
    assert found.trials[0].tried == 1


TRACKS = """
apiVersion: v3.2.0
kind: DataContract
id: tracks
version: 1.0.0
status: active
schema:
  - name: tracks
    customProperties: [{property: contentModel, value: open}]
    properties:
      - {name: message_id, logicalType: string, required: true}
      - {name: event, logicalType: string}
    quality:
      - type: custom
        engine: cel
        id: paid
        implementation: "record.event != 'Bought' || record.properties.total > 0.0"
"""


@pytest.mark.parametrize("size", [1, 7])
async def test_events_of_sdks_are_held_against_the_rules_one_by_one_and_in_batches(both: Both, size: int) -> None:
    await both.activate(TRACKS)
    made = await both.service.sources.CreateSource(
        sources_pb2.CreateSourceRequest(display_name="Shop", mappings=[sources_pb2.SourceMapping(dataset="tracks")]),
        **both.service.called(),
    )
    events = [
        {"type": "track", "event": event, "messageId": f"{event}-{total}", "properties": {"total": total}}
        for event in ("Bought", "Seen")
        for total in (5.5, 0, -1, "many", 2.5, 3.5, 4.5)
    ]
    accepted = quarantined = 0
    for start in range(0, len(events), size):
        body = orjson.dumps({"batch": events[start : start + size]})
        (result,) = await both.service.append_many(both.service.item(body, source_id=made.source.source_id))
        accepted, quarantined = accepted + result.accepted, quarantined + result.quarantined
    assert (accepted, quarantined) == (11, 3)
    listed = await both.service.quarantine.ListQuarantinedRecords(
        quarantine_pb2.ListQuarantinedRecordsRequest(), **both.service.called()
    )
    reasons = sorted(each.reason for record in listed.quarantined_records for each in record.findings)
    assert reasons == ["CONTRACT_RULE", "CONTRACT_RULE", "CONTRACT_RULE_ERROR"]
