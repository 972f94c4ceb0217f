"""What a service's jobs read and wrote, told to lineage as OpenLineage events: written with the deed, delivered after.

Deterministic events can be told again: the same event changes nothing, and neither does another event of a run that
says the same.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import grpc
from counterfoil.contracts.v1 import lineage_pb2 as pb
from counterfoil.contracts.v1.lineage_pb2_grpc import LineageServiceStub
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_chassis.call import outgoing
from counterfoil_chassis.canonical import canonical_json
from counterfoil_chassis.clock import Clock
from counterfoil_chassis.database import Database
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.outbox import OutboxRelay, enqueue
from counterfoil_chassis.status import DOMAIN

if TYPE_CHECKING:
    from counterfoil.contracts.v1.lineage_pb2_grpc import LineageServiceAsyncStub

TOPIC: Final = "lineage"
NAMESPACE: Final = "counterfoil"
"""The namespace of the platform's own datasets and jobs."""

_SPEC: Final = "https://openlineage.io/spec/2-0-2/OpenLineage.json"
_FACETS: Final = "https://openlineage.io/spec/facets"
_RUNS: Final = uuid.UUID("0b6a7c0e-8f0d-5a3b-9a56-51d2c9f8f0aa")
_SECONDS: Final = 20.0
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LineageDataset:
    """A dataset that a job reads or writes.

    `fields` are (name, type); `made_of` says for a field ("" = the whole) which (dataset, field) of our namespace it is
    made of; `type` is such as MODEL; `version` what the producer calls the state that was read or written.
    """

    name: str
    namespace: str = NAMESPACE
    type: str = ""
    version: str = ""
    fields: Sequence[tuple[str, str]] = ()
    made_of: Mapping[str, Sequence[tuple[str, str]]] | None = None
    facets: Mapping[str, Any] = field(default_factory=dict)
    role_facets: Mapping[str, Any] = field(default_factory=dict)


def run_id_of(*parts: str) -> str:
    """Return the same run id for the same texts, such as service, workspace and what was done."""
    return str(uuid.uuid5(_RUNS, canonical_json(list(parts)).decode()))


def facet(service: str, kind: str, **values: Any) -> dict[str, Any]:
    """Return a facet of ours with what every facet has."""
    return {"_producer": f"https://{DOMAIN}/{service}", "_schemaURL": f"{_FACETS}/1-0-0/{kind}.json", **values}


def run_event(
    service: str,
    job: str,
    *,
    run_id: str,
    state: str,
    at: datetime,
    inputs: Iterable[LineageDataset] = (),
    outputs: Iterable[LineageDataset] = (),
    run_facets: Mapping[str, Any] | None = None,
    processing: str = "BATCH",
) -> dict[str, Any]:
    """Return the event that a run of a job is in a state: RUNNING, COMPLETE or FAIL."""
    run = {"runId": run_id, "facets": dict(run_facets or {})}
    told = job_event(service, job, at=at, inputs=inputs, outputs=outputs, processing=processing)
    return {"eventType": state, "run": run, **told}


def job_event(
    service: str,
    job: str,
    *,
    at: datetime,
    inputs: Iterable[LineageDataset] = (),
    outputs: Iterable[LineageDataset] = (),
    processing: str = "BATCH",
) -> dict[str, Any]:
    """Return the event that says what a job reads and writes, without a run."""
    kind = facet(service, "JobTypeJobFacet", processingType=processing, integration="COUNTERFOIL", jobType="JOB")
    return {
        "eventTime": at.isoformat(),
        "producer": f"https://{DOMAIN}/{service}",
        "schemaURL": _SPEC,
        "job": {"namespace": NAMESPACE, "name": job, "facets": {"jobType": kind}},
        "inputs": [_dataset(service, each, "inputFacets") for each in inputs],
        "outputs": [_dataset(service, each, "outputFacets") for each in outputs],
    }


class LineageTrail:
    """Records what a service's jobs did and delivers it at once after the commit; run `run` in the background."""

    def __init__(self, database: Database, channel: grpc.aio.Channel, signer: TokenSigner, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._relay = _relay(database, channel, signer, clock)

    async def record(self, connection: AsyncConnection, *, workspace: str, event: Mapping[str, Any]) -> None:
        """Write an event in the open transaction, to be delivered once it commits."""
        await record(connection, workspace=workspace, event=event, now=self._clock.now())
        self._database.after_commit(connection, self._relay.wake)

    async def tell(self, *, workspace: str, event: Mapping[str, Any]) -> None:
        """Write an event in a transaction of its own."""
        async with self._database.begin() as connection:
            await self.record(connection, workspace=workspace, event=event)

    def wake(self) -> None:
        """Say that there is something to deliver."""
        self._relay.wake()

    async def run(self) -> None:
        """Deliver for ever."""
        await self._relay.run()


async def record(connection: AsyncConnection, *, workspace: str, event: Mapping[str, Any], now: datetime) -> None:
    """Write an event in the open transaction; the process that runs a LineageTrail on the database delivers it."""
    told = pb.LineageEvent(workspace=workspace, event=canonical_json(dict(event)))
    await enqueue(connection, topic=TOPIC, payload=told.SerializeToString(), now=now)


async def emit(stub: LineageServiceAsyncStub, events: Sequence[pb.LineageEvent], signer: TokenSigner) -> None:
    """Have events kept; one that is refused is a bug of its producer: it is logged, and holds up none after it."""
    answer = await stub.EmitLineage(pb.EmitLineageRequest(events=events), **outgoing(default=_SECONDS, signer=signer))
    for result in answer.results:
        if result.reason:
            fields = {"reason": result.reason, "place": result.path, "detail": result.detail}
            _logger.error("an event for lineage is refused", extra=fields)


def _relay(database: Database, channel: grpc.aio.Channel, signer: TokenSigner, clock: Clock) -> OutboxRelay:
    stub = LineageServiceStub(channel)

    async def deliver(payloads: Sequence[bytes]) -> None:
        await emit(stub, [pb.LineageEvent.FromString(each) for each in payloads], signer)

    return OutboxRelay(database, TOPIC, deliver, clock)


def _dataset(service: str, told: LineageDataset, role: str) -> dict[str, Any]:
    facets = dict(told.facets)
    if told.type:
        facets["datasetType"] = facet(service, "DatasetTypeDatasetFacet", datasetType=told.type)
    if told.version:
        facets["version"] = facet(service, "DatasetVersionDatasetFacet", datasetVersion=told.version)
    if told.fields:
        fields = [{"name": name, "type": kind} for name, kind in told.fields]
        facets["schema"] = facet(service, "SchemaDatasetFacet", fields=fields)
    if told.made_of is not None:
        facets["columnLineage"] = facet(
            service,
            "ColumnLineageDatasetFacet",
            fields={
                name: {"inputFields": [_input(*origin) for origin in origins]}
                for name, origins in told.made_of.items()
                if name
            },
            dataset=[_input(*origin) for origin in told.made_of.get("", ())],
        )
    return {"namespace": told.namespace, "name": told.name, "facets": facets, role: dict(told.role_facets)}


def _input(dataset: str, name: str) -> dict[str, str]:
    return {"namespace": NAMESPACE, "name": dataset, "field": name}
