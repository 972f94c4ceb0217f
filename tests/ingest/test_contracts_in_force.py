"""Contracts as ingest follows them: a real contracts service beside a real ingest."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
from counterfoil.common.v1.verdict_pb2 import Verdict
from counterfoil.contracts.v1 import contracts_pb2
from counterfoil.contracts.v1.contracts_pb2_grpc import ContractServiceStub
from counterfoil.ingest.v1 import quarantine_pb2
from counterfoil_chassis.call import connect, outgoing

from tests.ingest.ingest_service import IngestService, contracts_in, ingest_in

ADS = """
apiVersion: v3.0.2
kind: DataContract
id: ads
name: Ads
version: {version}
status: active
schema:
  - name: ads
    properties:
      - name: message_id
        logicalType: string
        required: true
      - name: clicks
        logicalType: integer
        required: {required}
"""


async def submit(service: IngestService, address: str, *, version: str, required: bool = False) -> None:
    channel = connect(address)
    stub: Any = ContractServiceStub(channel)
    document = ADS.format(version=version, required=str(required).lower())
    token = service.token(scopes=("contracts.read", "contracts.write"))
    await stub.SubmitContract(
        contracts_pb2.SubmitContractRequest(document=document, activate=True), **outgoing(default=60.0, token=token)
    )
    await channel.close()


async def sent(service: IngestService, *records: dict[str, Any], dataset: str = "ads") -> list[Verdict]:
    item = service.item(orjson.dumps(list(records)), protocol="records", dataset=dataset)
    (result,) = await service.append_many(item)
    assert result.code == 0, result
    return list(result.verdicts)


async def until(service: IngestService, outcome: Verdict.Outcome.ValueType) -> None:
    """Send new records until one has this outcome: nothing else tells that the watch has brought a contract."""
    for number in range(1200):
        (verdict,) = await sent(service, {"message_id": f"{outcome}-{number}"})
        if verdict.outcome == outcome:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the contract never came into force")


async def test_every_workspace_has_the_shipped_events_at_once(tmp_path: Path) -> None:
    async with contracts_in(tmp_path) as address, ingest_in(tmp_path, contracts_target=address) as service:
        body = orjson.dumps({"batch": [{"type": "track", "event": "Seen", "messageId": "m1"}, {"type": "nonsense"}]})
        for workspace in ("acme", "zeta"):
            (result,) = await service.append_many(service.item(body, workspace=workspace))
            assert (result.accepted, result.quarantined, len(result.verdicts)) == (1, 1, 0)
        listed = await service.quarantine.ListQuarantinedRecords(
            quarantine_pb2.ListQuarantinedRecordsRequest(), **service.called()
        )
        assert listed.quarantined_records[0].contract_id == "events"
        assert listed.quarantined_records[0].contract_version == "1.0.0"


async def test_a_contract_is_in_force_as_soon_as_it_is_activated(tmp_path: Path) -> None:
    async with contracts_in(tmp_path) as address, ingest_in(tmp_path, contracts_target=address) as service:
        (without,) = await sent(service, {"message_id": "a"})
        assert without.findings[0].reason == "NO_CONTRACT"
        await submit(service, address, version="1.0.0")
        await until(service, Verdict.ACCEPTED)
        await submit(service, address, version="2.0.0", required=True)
        await until(service, Verdict.QUARANTINED)
        (good,) = await sent(service, {"message_id": "c", "clicks": 3})
        assert good.outcome == Verdict.ACCEPTED


async def test_a_restart_knows_its_contracts_while_the_contracts_service_is_away(tmp_path: Path) -> None:
    async with contracts_in(tmp_path) as address, ingest_in(tmp_path, contracts_target=address) as service:
        await submit(service, address, version="1.0.0")
        await until(service, Verdict.ACCEPTED)
    async with ingest_in(tmp_path) as alone:
        good, bad = await sent(alone, {"message_id": "c"}, {"message_id": "d", "clicks": "many"})
        assert good.outcome == Verdict.ACCEPTED
        assert [each.reason for each in bad.findings] == ["CONTRACT_TYPE"]
        (unknown,) = await sent(alone, {"message_id": "c"}, dataset="another")
        assert unknown.outcome == Verdict.RETRY
