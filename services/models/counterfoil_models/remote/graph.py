"""Journeys from graph, as Arrow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import grpc
import pyarrow as pa
from counterfoil.graph.v1 import journeys_pb2, journeys_pb2_grpc
from counterfoil_chassis.call import outgoing
from counterfoil_chassis.clock import from_timestamp, to_timestamp
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.status import failure_of

from counterfoil_models.entities import ConsentState, GraphState, JourneyReading
from counterfoil_models.errors import GraphErasedError, GraphRebuiltError
from counterfoil_models.remote.arrow import table_of
from counterfoil_models.store import JourneyQuestion, OpenJourneys

_SECONDS = 600.0
_GONE = frozenset({GraphRebuiltError.reason, "LOG_EPOCH_UNKNOWN"})
_TYPES: dict[str, pa.DataType] = {
    "person_id": pa.string(),
    "event_id": pa.string(),
    "conversion": pa.bool_(),
    "type": pa.string(),
    "time_us": pa.int64(),
    "channel": pa.string(),
    "campaign": pa.string(),
    "campaign_end_us": pa.int64(),
    "value_micros": pa.int64(),
    "currency": pa.string(),
}
_COLUMNS = pa.schema(_TYPES)


class GraphJourneys:
    """See `store.JourneySource`."""

    def __init__(self, channel: grpc.aio.Channel, signer: TokenSigner) -> None:
        self._journeys = journeys_pb2_grpc.JourneyServiceStub(channel)
        self._signer = signer

    @asynccontextmanager
    async def open(self, question: JourneyQuestion) -> AsyncIterator[OpenJourneys]:
        """Begin to read as this service itself; raise GraphRebuiltError or GraphErasedError when the state is gone."""
        call = self._journeys.ReadJourneys(_request(question), **outgoing(default=_SECONDS, signer=self._signer))
        responses = aiter(call)
        try:
            first = await anext(responses)
            yield _Open(first, responses)
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
            if failure.reason == GraphErasedError.reason:
                raise GraphErasedError(failure.detail, metadata=failure.metadata) from error
            if failure.reason not in _GONE:
                raise
            raise GraphRebuiltError(failure.detail, metadata=failure.metadata) from error
        finally:
            call.cancel()


class _Open:
    """See `store.OpenJourneys`."""

    def __init__(self, first: journeys_pb2.ReadJourneysResponse, responses: Any) -> None:
        self.reading = _reading(first.reading)
        self._first = first
        self._responses = responses

    async def rows(self) -> Any:
        """Read all rows."""
        tables = [table_of(self._first.arrow_ipc_zstd)] if self._first.arrow_ipc_zstd else []
        tables += [table_of(each.arrow_ipc_zstd) async for each in self._responses if each.arrow_ipc_zstd]
        return pa.concat_tables(tables) if tables else _COLUMNS.empty_table()


def _request(question: JourneyQuestion) -> journeys_pb2.ReadJourneysRequest:
    request = journeys_pb2.ReadJourneysRequest(
        workspace=question.workspace,
        conversion_type=question.conversion_type,
        until=to_timestamp(question.until),
        purpose=question.purpose,
        wait_for_offset=question.wait_for_offset,
    )
    request.since.CopyFrom(to_timestamp(question.since))
    if question.state is not None:
        request.log_epoch = question.state.log_epoch
        request.next_offset = question.state.next_offset
        request.mappings_sha256 = question.state.mappings_sha256
        request.erasures = question.state.erasures
    if question.consent is not None:
        request.ledger_revision = question.consent.ledger_revision
        request.consent_at.CopyFrom(to_timestamp(question.consent.judged_at))
    return request


def _reading(message: journeys_pb2.JourneyReading) -> JourneyReading:
    known_at: datetime | None = from_timestamp(message.known_at) if message.HasField("known_at") else None
    return JourneyReading(
        state=GraphState(message.log_epoch, message.next_offset, message.mappings_sha256, message.erasures),
        consent=ConsentState(message.ledger_revision, from_timestamp(message.consent_at)),
        known_at=known_at,
        persons=message.persons,
        persons_without_consent=message.persons_without_consent,
        bases=message.bases,
        datasets=tuple(message.datasets),
    )
