"""JourneyService: one person's journey in pages, everybody's as a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import grpc
from counterfoil.graph.v1 import journeys_pb2, journeys_pb2_grpc
from counterfoil_chassis.call import budget
from counterfoil_chassis.clock import from_micros, from_timestamp, to_micros, to_timestamp

from counterfoil_graph import journeys, mappings, states
from counterfoil_graph.entities import ALWAYS, FOREVER, IdentifierSeen, JourneyEvent, Name, Node, State
from counterfoil_graph.journeys import Wanted
from counterfoil_graph.persons import resolve
from counterfoil_graph.servicers.messages import journey_event_message, micros
from counterfoil_graph.servicers.services import GraphServices
from counterfoil_graph.store import ConsentAnswer, Consents, GraphReader

Context = grpc.aio.ServicerContext[Any, Any]

PERSONS_AT_ONCE = 2_000
_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Reading:
    """What a stream of journeys reads: a state, its campaigns, and who may be read."""

    state: State
    campaigns: Mapping[str, Node]
    persons: Sequence[int]
    left_out: int
    consents: ConsentAnswer
    datasets: Sequence[str]


class JourneyServicer(journeys_pb2_grpc.JourneyServiceServicer):
    """See journeys.proto."""

    def __init__(self, services: GraphServices, consents: Consents) -> None:
        self._services = services
        self._consents = consents
        self._stores = services.stores

    async def ListJourneyEvents(
        self, request: journeys_pb2.ListJourneyEventsRequest, context: Context
    ) -> journeys_pb2.ListJourneyEventsResponse:
        """List a person's touchpoints and conversions, oldest first."""
        place = {"method": "ListJourneyEvents", "workspace": (await self._services.caller()).workspace}
        page = self._services.pager.open(request, **place)
        after = tuple(int(each) for each in page.after or ())
        async with self._stores.read() as transaction:
            reader = transaction.reader(place["workspace"])
            at = after[0] if after else await states.known_at(reader, micros(request, "known_at"))
            await states.present(reader)
            events = await self._journey(reader, request.person_id, at=at)
        wanted = Wanted(_since(request), _until(request))
        timed = request.HasField("since") or request.HasField("until")
        chosen = [each for each in events if _is_wanted(each, wanted, timed=timed) and _order(each) > after[1:]]
        kept = chosen[: page.limit]
        more = len(chosen) > len(kept)
        # a page goes on in the state of the first one, so that none is shown twice or missed
        marks = [str(at), *(str(each) for each in _order(kept[-1]))] if more else []
        return journeys_pb2.ListJourneyEventsResponse(
            events=[journey_event_message(each) for each in kept],
            next_page_token=self._services.pager.token(request, **place, after=marks) if more else "",
        )

    async def ReadJourneys(
        self, request: journeys_pb2.ReadJourneysRequest, context: Context
    ) -> AsyncIterator[journeys_pb2.ReadJourneysResponse]:
        """Stream the journeys of everybody whose data may be used for the purpose, as Arrow."""
        offset = max(request.wait_for_offset, request.next_offset)
        await self._services.followers.wait(request.workspace, offset, seconds=budget(_WAIT_SECONDS))
        wanted = Wanted(_since(request), _until(request), request.conversion_type)
        reading = await self._open(request, wanted)
        first = journeys_pb2.ReadJourneysResponse(reading=_reading_message(reading))
        for start in range(0, max(1, len(reading.persons)), PERSONS_AT_ONCE):
            for chunk in await self._chunks(request.workspace, reading, wanted, start=start):
                first.arrow_ipc_zstd, first.rows = chunk.data, chunk.rows
                yield first
                first = journeys_pb2.ReadJourneysResponse()
        if first.HasField("reading"):
            yield first

    async def _open(self, request: journeys_pb2.ReadJourneysRequest, wanted: Wanted) -> Reading:
        """Find the state, the persons to whom something happened, and who of them may be read."""
        async with self._stores.read() as transaction:
            reader = transaction.reader(request.workspace)
            state = await states.cited(
                reader,
                log_epoch=request.log_epoch,
                next_offset=request.next_offset,
                mappings_sha256=request.mappings_sha256,
                predecessors=partial(self._services.followers.predecessors, request.workspace),
                erasures=request.erasures,
            )
            at = state.next_offset
            campaigns = await reader.campaigns(at=at)
            persons = await reader.persons_with_events(
                at=at,
                campaigns=journeys.started_within(campaigns, wanted),
                since=wanted.since_us,
                until=wanted.until_us,
            )
            names: list[list[Name]] = []
            for start in range(0, len(persons), PERSONS_AT_ONCE):
                found = await reader.identifiers(persons[start : start + PERSONS_AT_ONCE], at=at)
                names += [[one.name for one in each] for each in found.values()]
            datasets = await mappings.journey_datasets(transaction.mappings(request.workspace), at=at)
        answer = await self._consents.check(
            request.workspace,
            request.purpose,
            names,
            ledger_revision=request.ledger_revision,
            at_us=micros(request, "consent_at"),
        )
        if not persons:
            asked = micros(request, "consent_at")
            moment = to_micros(self._services.clock.now()) if asked is None else asked
            answer = replace(answer, ledger_revision=request.ledger_revision, at_us=moment)
        allowed = [person for person, consent in zip(persons, answer.consent_ids, strict=True) if consent is not None]
        return Reading(state, campaigns, allowed, len(persons) - len(allowed), answer, datasets)

    async def _chunks(self, workspace: str, reading: Reading, wanted: Wanted, *, start: int) -> list[journeys.Chunk]:
        at, some = reading.state.next_offset, reading.persons[start : start + PERSONS_AT_ONCE]
        async with self._stores.read() as transaction:
            reader = transaction.reader(workspace)
            await states.cited(  # a rebuild in the middle of a stream must not go unnoticed
                reader,
                log_epoch=reading.state.log_epoch,
                next_offset=at,
                mappings_sha256=reading.state.mappings_sha256,
                predecessors=partial(self._services.followers.predecessors, workspace),
                erasures=reading.state.erasures,
            )
            found = await reader.identifiers(some, at=at)
            places = {person: [one.place for one in each] for person, each in found.items()}
            rows = await reader.events([place for each in places.values() for place in each], at=at)
        return await self._services.worker.run(journeys.encode, places, rows, reading.campaigns, wanted)

    async def _journey(self, reader: GraphReader, person_id: str, *, at: int) -> list[JourneyEvent]:
        person = await resolve(reader, person_id, at=at)
        identifiers: Sequence[IdentifierSeen] = (await reader.identifiers([person], at=at))[person]
        rows = await reader.events([each.place for each in identifiers], at=at)
        types = {each.place: each.name.type for each in identifiers}
        return journeys.assemble(rows, await reader.campaigns(at=at), types)


def _since(request: Any) -> int:
    return to_micros(from_timestamp(request.since)) if request.HasField("since") else ALWAYS


def _until(request: Any) -> int:
    return to_micros(from_timestamp(request.until)) if request.HasField("until") else FOREVER


def _is_wanted(event: JourneyEvent, wanted: Wanted, *, timed: bool) -> bool:
    if event.time_us is None:
        return not timed
    return wanted.since_us <= event.time_us < wanted.until_us


def _order(event: JourneyEvent) -> tuple[int, int]:
    return (ALWAYS if event.time_us is None else event.time_us), event.place


def _reading_message(reading: Reading) -> journeys_pb2.JourneyReading:
    state, consents = reading.state, reading.consents
    message = journeys_pb2.JourneyReading(
        log_epoch=state.log_epoch,
        next_offset=state.next_offset,
        mappings_sha256=state.mappings_sha256,
        persons=len(reading.persons),
        persons_without_consent=reading.left_out,
        ledger_revision=consents.ledger_revision,
        consent_at=to_timestamp(from_micros(consents.at_us)),
        bases=",".join(sorted(consents.bases)),
        datasets=reading.datasets,
        erasures=state.erasures,
    )
    if state.known_us is not None:
        message.known_at.CopyFrom(to_timestamp(from_micros(state.known_us)))
    return message
