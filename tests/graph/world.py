"""A graph over real ingest, contracts and governance services in one loop, and clients of them."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import orjson
import pyarrow as pa
import pytest
import zstandard
from counterfoil.common.v1 import receipts_pb2_grpc
from counterfoil.common.v1.verdict_pb2 import Verdict
from counterfoil.contracts.v1 import consumers_pb2_grpc, contracts_pb2, contracts_pb2_grpc
from counterfoil.governance.v1 import (
    changes_pb2_grpc,
    consents_pb2,
    consents_pb2_grpc,
    legal_holds_pb2_grpc,
    principals_pb2_grpc,
    privacy_requests_pb2,
    privacy_requests_pb2_grpc,
)
from counterfoil.governance.v1 import (
    receipts_pb2_grpc as ledger_pb2_grpc,
)
from counterfoil.graph.v1 import (
    graphs_pb2,
    graphs_pb2_grpc,
    journeys_pb2,
    journeys_pb2_grpc,
    mappings_pb2,
    mappings_pb2_grpc,
    nodes_pb2_grpc,
    persons_pb2,
    persons_pb2_grpc,
)
from counterfoil.ingest.v1 import records_pb2, records_pb2_grpc
from counterfoil_chassis.call import connect, outgoing
from counterfoil_chassis.clock import SystemClock, to_timestamp
from counterfoil_chassis.identity import TokenSigner, load_private_key, write_key_pair
from counterfoil_chassis.serve import started
from counterfoil_chassis.status import RemoteFailure, failure_of
from counterfoil_contracts.__main__ import build as build_contracts
from counterfoil_contracts.settings import Settings as ContractsSettings
from counterfoil_governance.__main__ import build as build_governance
from counterfoil_governance.settings import Settings as GovernanceSettings
from counterfoil_graph.__main__ import build
from counterfoil_graph.settings import Settings
from counterfoil_ingest.__main__ import build as build_ingest
from counterfoil_ingest.settings import Settings as IngestSettings

SCOPES = frozenset(
    {
        *("graph.read", "graph.write", "graph.export", "ingest.read", "ingest.write", "contracts.write"),
        "contracts.read",
        *("governance.read", "governance.write", "governance.consent", "governance.approve"),
    }
)
SERVICES = ("gateway", "ingest", "contracts", "governance", "graph", "models")
EPOCH = datetime(2017, 1, 1, tzinfo=UTC)

OPEN = """
apiVersion: v3.1.0
kind: DataContract
id: {name}
name: {name}
version: 1.0.0
status: active
schema:
  - name: {name}
    logicalType: object
    customProperties:
      - property: contentModel
        value: open
    properties:
      - name: message_id
        logicalType: string
"""

SHOP = """
mapping: shop
datasets:
  sales:
    time: sold_at
    identifiers: [{type: household_id, field: household}]
    conversions: [{type: basket, key: basket, value: amount, currency: USD}]
  campaigns:
    nodes: [{type: campaign, key: campaign, name: name, valid_from: start, valid_to: end, attributes: [kind]}]
  members:
    identifiers: [{type: household_id, field: household}]
    edges: [{type: assigned_to, from: person, to: {type: campaign, key: campaign}}]
    touchpoints: [{type: assigned, channel: {const: mail}, campaign: campaign, time: {campaign: start}}]
"""


def day(number: float) -> datetime:
    """Return a time, days after the start of 2017."""
    return EPOCH + timedelta(days=number)


BEFORE, AFTER = day(-3650), day(36500)


class Client:
    """Stubs of every service as one principal."""

    def __init__(self, world: World, *, workspace: str = "default", principal: str = "admin") -> None:
        self.workspace, self.principal = workspace, principal
        self._world = world
        graph, ingest, contracts, governance = world.channels
        self.persons: Any = persons_pb2_grpc.PersonServiceStub(graph)
        self.nodes: Any = nodes_pb2_grpc.NodeServiceStub(graph)
        self.graphs: Any = graphs_pb2_grpc.GraphServiceStub(graph)
        self.journeys: Any = journeys_pb2_grpc.JourneyServiceStub(graph)
        self.mappings: Any = mappings_pb2_grpc.MappingServiceStub(graph)
        self.receipts: Any = receipts_pb2_grpc.ReceiptProducerServiceStub(graph)
        self.records: Any = records_pb2_grpc.RecordServiceStub(ingest)
        self.contracts: Any = contracts_pb2_grpc.ContractServiceStub(contracts)
        self.consumers: Any = consumers_pb2_grpc.ConsumerServiceStub(contracts)
        self.consents: Any = consents_pb2_grpc.ConsentServiceStub(governance)
        self.changes: Any = changes_pb2_grpc.ChangeServiceStub(governance)
        self.principals: Any = principals_pb2_grpc.PrincipalServiceStub(governance)
        self.holds: Any = legal_holds_pb2_grpc.LegalHoldServiceStub(governance)
        self.privacy: Any = privacy_requests_pb2_grpc.PrivacyRequestServiceStub(governance)
        self.ledger: Any = ledger_pb2_grpc.ReceiptServiceStub(governance)

    def called(self, scopes: Iterable[str] = SCOPES) -> dict[str, Any]:
        """Return what this principal's call carries."""
        signer = self._world.signers["gateway"]
        return outgoing(
            default=60.0, token=signer.mint(workspace=self.workspace, principal=self.principal, scopes=scopes)
        )

    async def __call__(self, method: Any, request: Any, **called: Any) -> Any:
        return await method(request, **(called or self.called()))

    async def refused(self, method: Any, request: Any, **called: Any) -> RemoteFailure:
        """Call what must fail."""
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await self(method, request, **called)
        return failure_of(failure.value)

    async def append(self, dataset: str, *records: dict[str, Any]) -> int:
        """Append records, and wait until the graph holds them; return the offset of the last."""
        request = records_pb2.AppendRecordsRequest(dataset=dataset, records=orjson.dumps(records))
        answer = await self(self.records.AppendRecords, request)
        while all(verdict.outcome == Verdict.RETRY for verdict in answer.verdicts):  # the contract is not known yet
            await asyncio.sleep(0.05)
            answer = await self(self.records.AppendRecords, request)
        offsets = [verdict.position.offset for verdict in answer.verdicts]
        assert all(verdict.outcome == Verdict.ACCEPTED for verdict in answer.verdicts), answer
        await self.caught_up(offsets[-1] + 1)
        return offsets[-1]

    async def caught_up(self, offset: int) -> None:
        """Wait until the graph holds everything below an offset."""
        await self.read(since=BEFORE, until=BEFORE, wait_for_offset=offset)

    async def mapped(self, document: str) -> mappings_pb2.Mapping:
        """Put a mapping in force, with an open contract for each of its datasets that has none."""
        for dataset in _datasets(document):
            if dataset != "events":
                text = OPEN.format(name=dataset)
                await self(
                    self.contracts.SubmitContract, contracts_pb2.SubmitContractRequest(document=text, activate=True)
                )
        return await self(self.mappings.CreateMapping, mappings_pb2.CreateMappingRequest(document=document))

    async def allowed(self, purpose: str, *identifiers: tuple[str, str], state: str = "GRANTED") -> int:
        """Record consents of some identifiers; return the ledger's revision."""
        consents = [
            consents_pb2.NewConsent(
                subject=consents_pb2.Subject(type=kind, value=value),
                purpose=purpose,
                state=consents_pb2.Consent.State.Value(state),
                basis=consents_pb2.Consent.CONSENT,
                happened_at=to_timestamp(SystemClock().now()),
            )
            for kind, value in identifiers
        ]
        request = consents_pb2.RecordConsentsRequest(consents=consents)
        return int((await self(self.consents.RecordConsents, request)).ledger_revision)

    async def read(
        self, *, since: datetime = BEFORE, until: datetime = AFTER, purpose: str = "measurement", **fields: Any
    ) -> tuple[journeys_pb2.JourneyReading, list[dict[str, Any]]]:
        """Read everybody's journeys as the models service does."""
        request = journeys_pb2.ReadJourneysRequest(
            **{"workspace": self.workspace, "until": to_timestamp(until), "purpose": purpose, **fields}
        )
        request.since.CopyFrom(to_timestamp(since))
        called = outgoing(default=60.0, signer=self._world.signers["models"])
        reading, rows = None, []
        async for message in self.journeys.ReadJourneys(request, **called):
            if message.HasField("reading"):
                assert reading is None
                reading = message.reading
            if message.arrow_ipc_zstd:
                plain = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(message.arrow_ipc_zstd)).read()
                table = pa.ipc.open_stream(plain).read_all()
                assert table.num_rows == message.rows <= 65_536
                assert len(plain) <= 2 << 20
                rows += table.to_pylist()
        assert reading is not None
        return reading, rows

    async def person(self, kind: str, value: str) -> persons_pb2.Person:
        """Find the person of an identifier."""
        return await self(self.persons.LookupPerson, persons_pb2.LookupPersonRequest(type=kind, value=value))

    async def erased(self, *identifiers: tuple[str, str]) -> privacy_requests_pb2.PrivacyRequest:
        """Ask for the erasure of a person, and wait until it is carried out."""
        asked = privacy_requests_pb2.CreatePrivacyRequestRequest(
            kind=privacy_requests_pb2.PrivacyRequest.ERASURE,
            identifiers=[consents_pb2.Subject(type=kind, value=value) for kind, value in identifiers],
        )
        made = await self(self.privacy.CreatePrivacyRequest, asked)
        return await self.completed(made.privacy_request_id)

    async def completed(self, privacy_request_id: str) -> privacy_requests_pb2.PrivacyRequest:
        """Wait until a privacy request is carried out."""
        wanted = privacy_requests_pb2.GetPrivacyRequestRequest(privacy_request_id=privacy_request_id)
        found = privacy_requests_pb2.PrivacyRequest()

        async def done() -> bool:
            found.CopyFrom(await self(self.privacy.GetPrivacyRequest, wanted))
            return found.state == privacy_requests_pb2.PrivacyRequest.COMPLETED

        await until(done)
        return found

    async def rebuild(self, reason: str = "a test") -> graphs_pb2.Graph:
        """Have the log read again."""
        return await self(self.graphs.RebuildGraph, graphs_pb2.RebuildGraphRequest(reason=reason))

    async def graph(self) -> graphs_pb2.Graph:
        """Return how far the graph is."""
        return await self(self.graphs.GetGraph, graphs_pb2.GetGraphRequest())


def _datasets(document: str) -> list[str]:
    from counterfoil_graph.mapping import mapping_datasets, read_mapping

    mapping, findings = read_mapping(document)
    assert mapping is not None, findings
    return list(mapping_datasets(mapping))


@dataclass
class World:
    """The services that run, with channels to the graph, ingest, contracts and governance."""

    folder: Path
    signers: dict[str, TokenSigner]
    channels: list[grpc.aio.Channel]
    settings: Settings

    def client(self, *, workspace: str = "default", principal: str = "admin") -> Client:
        """Return a client."""
        return Client(self, workspace=workspace, principal=principal)


@dataclass
class Peers:
    """Every service that the graph needs, and the graph's settings to reach them."""

    folder: Path
    signers: dict[str, TokenSigner]
    addresses: tuple[str, ...]
    settings: Settings

    @asynccontextmanager
    async def graph(self) -> AsyncIterator[World]:
        """Run the graph beside them."""
        async with (
            started("graph", self.settings, build, migrations="counterfoil_graph") as running,
            AsyncExitStack() as stack,
        ):
            addresses = (running.address, *self.addresses)
            channels = [await stack.enter_async_context(connect(address)) for address in addresses]
            yield World(self.folder, self.signers, channels, self.settings)


@asynccontextmanager
async def peers_in(folder: Path) -> AsyncIterator[Peers]:
    """Run ingest, contracts and governance."""
    for name in SERVICES:
        write_key_pair(folder / "keys" / f"{name}.pem", folder / "keys" / "trusted", name)
    signers = {
        name: TokenSigner(name, load_private_key(folder / "keys" / f"{name}.pem"), SystemClock()) for name in SERVICES
    }
    common = {"data_dir": folder, "listen": "127.0.0.1:0", "drain_seconds": 0.1, "otlp_endpoint": ""}
    office = GovernanceSettings(**common, bootstrap_key_sha256=hashlib.sha256(b"bootstrap").hexdigest())
    async with (
        started("governance", office, build_governance, migrations="counterfoil_governance") as governance,
        started(
            "contracts",
            ContractsSettings(**common, governance_target=governance.address),
            build_contracts,
            migrations="counterfoil_contracts",
        ) as contracts,
        started(
            "ingest",
            IngestSettings(**common, contracts_target=contracts.address, governance_target=governance.address),
            build_ingest,
            migrations="counterfoil_ingest",
        ) as ingest,
    ):
        targets = {
            "ingest_target": ingest.address,
            "contracts_target": contracts.address,
            "governance_target": governance.address,
        }
        settings = Settings(**common, **targets, image_digest="sha256:graph")
        yield Peers(folder, signers, (ingest.address, contracts.address, governance.address), settings)


async def until(reached: Any) -> None:
    """Wait until an awaited condition holds, asking again: for what has no event to wait for."""
    async with asyncio.timeout(60):
        while not await reached():
            await asyncio.sleep(0.02)
