"""Graph's journeys as the tests of models need them: every state of log and ledger can be read again."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import zstandard
from counterfoil.graph.v1 import journeys_pb2, journeys_pb2_grpc
from counterfoil_chassis.clock import from_timestamp, to_timestamp
from counterfoil_chassis.errors import FailedPreconditionError
from counterfoil_chassis.identity import current_caller

from tests.models.journey_rows import Event, at, table


class EpochUnknownError(FailedPreconditionError):
    reason = "LOG_EPOCH_UNKNOWN"


class RebuiltError(FailedPreconditionError):
    reason = "GRAPH_REBUILT"


@dataclass
class JourneyRoom(journeys_pb2_grpc.JourneyServiceServicer):
    """One workspace's events, a record each, and who has consented since which revision of the ledger."""

    events: list[Event] = field(default_factory=list)
    consents: list[frozenset[str]] = field(default_factory=list)
    log_epoch: str = "epoch-1"
    mappings_sha256: str = "a" * 64
    rows_at_once: int = 3
    requests: list[journeys_pb2.ReadJourneysRequest] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Rows pass once it is set; what was read is told before."""

    def put(self, events: Sequence[Event]) -> None:
        for one in events:
            self.events.append(replace(one, event_id=f"{len(self.events):06d}"))

    def consent(self, persons: str) -> None:
        """From the next revision on just these persons, a letter each, have consented."""
        self.consents.append(frozenset(persons))

    async def ReadJourneys(
        self, request: journeys_pb2.ReadJourneysRequest, context: Any
    ) -> AsyncIterator[journeys_pb2.ReadJourneysResponse]:
        assert current_caller().service == "models"
        self.requests.append(request)
        if request.log_epoch and request.log_epoch != self.log_epoch:
            raise EpochUnknownError("The log was restored.")
        if request.log_epoch and request.mappings_sha256 != self.mappings_sha256:
            raise RebuiltError("Other mappings are in force.")
        known = self.events[: request.next_offset] if request.log_epoch else self.events
        revision = request.ledger_revision or len(self.consents)
        allowed = self.consents[revision - 1] if revision else frozenset()
        persons = {one.person for one in known}
        begin, end = (from_timestamp(each) for each in (request.since, request.until))
        wanted = [one for one in known if begin <= at(one.day) < end and one.person in allowed]
        wanted = [one for one in wanted if not one.converts or one.type == request.conversion_type]
        reading = journeys_pb2.JourneyReading(
            log_epoch=self.log_epoch if known else "",
            next_offset=len(known),
            mappings_sha256=self.mappings_sha256,
            known_at=to_timestamp(at(max(one.day for one in known))) if known else None,
            persons=len(persons & allowed),
            persons_without_consent=len(persons - allowed),
            ledger_revision=revision,
            consent_at=request.consent_at if request.HasField("consent_at") else to_timestamp(at(100)),
            bases="consent",
            datasets=["events"] if wanted else [],
        )
        yield journeys_pb2.ReadJourneysResponse(reading=reading)
        await self.gate.wait()
        rows = table(wanted)
        for begun in range(0, rows.num_rows, self.rows_at_once):
            part = rows.slice(begun, self.rows_at_once)
            sink = io.BytesIO()
            with pa.ipc.new_stream(sink, part.schema) as stream:
                stream.write_table(part)
            packed = zstandard.ZstdCompressor().compress(sink.getvalue())
            yield journeys_pb2.ReadJourneysResponse(arrow_ipc_zstd=packed, rows=part.num_rows)
