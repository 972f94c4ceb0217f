"""Entities as messages and back."""

from __future__ import annotations

from typing import Any

from counterfoil.graph.v1 import graphs_pb2, journeys_pb2, mappings_pb2, nodes_pb2, persons_pb2
from counterfoil_chassis.clock import from_micros, from_timestamp, to_micros, to_timestamp
from google.protobuf.timestamp_pb2 import Timestamp

from counterfoil_graph.entities import (
    ALWAYS,
    Decision,
    DecisionKind,
    Edge,
    EventKind,
    JourneyEvent,
    MappingVersion,
    Name,
    Node,
    Person,
    State,
    event_id,
    person_id,
    position_text,
)
from counterfoil_graph.mapping import Finding
from counterfoil_graph.persons import Explanation, Piece

_KINDS = {
    EventKind.TOUCHPOINT: journeys_pb2.JourneyEvent.TOUCHPOINT,
    EventKind.CONVERSION: journeys_pb2.JourneyEvent.CONVERSION,
}
_DECISIONS = {
    DecisionKind.MERGE: persons_pb2.IdentityDecision.MERGE,
    DecisionKind.SPLIT: persons_pb2.IdentityDecision.SPLIT,
}


def micros(request: Any, field: str) -> int | None:
    """Return a request's time, None when it is absent."""
    return to_micros(from_timestamp(getattr(request, field))) if request.HasField(field) else None


def timestamp(us: int | None) -> Timestamp | None:
    """Return a time as a message, None when there is none."""
    return None if us is None or us == ALWAYS else to_timestamp(from_micros(us))


def journey_event_message(of: JourneyEvent) -> journeys_pb2.JourneyEvent:
    """Write a touchpoint or conversion."""
    return journeys_pb2.JourneyEvent(
        event_id=event_id(of.place),
        kind=_KINDS[of.kind],
        type=of.type,
        happened_at=timestamp(of.time_us),
        channel=of.channel,
        campaign=of.campaign,
        campaign_ends_at=timestamp(of.campaign_end_us),
        value_micros=of.value_micros,
        currency=of.currency,
        dataset=of.dataset,
        position=position_text(of.place // 256),
        identifier_type=of.identifier_type,
        records=of.records,
    )


def state_message(of: State) -> graphs_pb2.GraphState:
    """Write a state."""
    return graphs_pb2.GraphState(
        log_epoch=of.log_epoch,
        next_offset=of.next_offset,
        mappings_sha256=of.mappings_sha256,
        known_at=timestamp(of.known_us),
    )


def mapping_message(of: MappingVersion) -> mappings_pb2.Mapping:
    """Write a mapping in force."""
    return mappings_pb2.Mapping(
        mapping_id=of.mapping_id,
        version=of.version,
        document=of.document,
        sha256=of.sha256,
        datasets=of.datasets,
        created_by=of.created_by,
        created_at=to_timestamp(of.created_at),
    )


def finding_message(of: Finding) -> mappings_pb2.MappingFinding:
    """Write a fault of a mapping."""
    return mappings_pb2.MappingFinding(reason=of.reason, path=of.path, detail=of.detail)


def node_message(of: Node, *, known_from_us: int | None) -> nodes_pb2.Node:
    """Write a node; one that no record describes has its id alone."""
    return nodes_pb2.Node(
        node_id=f"{of.type}.{of.key}",
        type=of.type,
        key=of.key,
        name=of.name,
        attributes=of.attributes.encode(),
        valid_from=timestamp(of.valid_from_us),
        valid_to=timestamp(of.valid_to_us),
        known_from=timestamp(known_from_us),
        position="" if of.offset is None else position_text(of.offset),
    )


def edge_message(of: Edge, *, known_from_us: int | None) -> nodes_pb2.Edge:
    """Write an edge between nodes."""
    return nodes_pb2.Edge(
        type=of.type,
        from_node_id=of.from_id,
        to_node_id=of.to_id,
        valid_from=timestamp(of.valid_from_us),
        valid_to=timestamp(of.valid_to_us),
        known_from=timestamp(known_from_us),
        records=of.records,
        position=position_text(of.offset),
    )


def identifier_message(of: Name) -> persons_pb2.Identifier:
    """Write an identifier."""
    return persons_pb2.Identifier(type=of.type, value=of.value)


def person_message(of: Person) -> persons_pb2.Person:
    """Write a person; ids that were merged into it are those of its other identifiers that were persons themselves."""
    identifiers = [
        persons_pb2.PersonIdentifier(
            identifier=identifier_message(each.name),
            first_seen_at=timestamp(each.first_us),
            last_seen_at=timestamp(each.last_us),
            records=each.records,
            shared=each.shared,
        )
        for each in of.identifiers
    ]
    return persons_pb2.Person(
        person_id=person_id(of.number),
        identifiers=identifiers,
        merged_person_ids=[person_id(each) for each in of.merged],
        first_seen_at=timestamp(min((each.first_us for each in of.identifiers), default=None)),
        last_seen_at=timestamp(max((each.last_us for each in of.identifiers), default=None)),
        touchpoints=of.touchpoints,
        conversions=of.conversions,
    )


def decision_message(of: Decision, *, person_ids: list[str]) -> persons_pb2.IdentityDecision:
    """Write a merge or split."""
    return persons_pb2.IdentityDecision(
        decision_id=of.decision_id,
        kind=_DECISIONS[of.kind],
        identifiers=[identifier_message(each) for each in of.identifiers],
        reverses=of.reverses,
        person_ids=person_ids,
        decided_by=of.decided_by,
        decided_at=timestamp(of.decided_us),
        reason=of.reason,
        reversed_by=of.reversed_by,
    )


def explanation_message(of: Explanation) -> persons_pb2.PersonExplanation:
    """Write why some identifiers are one person."""
    return persons_pb2.PersonExplanation(
        person=person_message(of.person),
        evidence=[_evidence_message(each) for each in of.evidence],
        decisions=[decision_message(each, person_ids=[]) for each in of.decisions],
        truncated=of.truncated,
    )


def _evidence_message(of: Piece) -> persons_pb2.Evidence:
    return persons_pb2.Evidence(
        left=identifier_message(of.left),
        right=identifier_message(of.right),
        rule=of.rule,
        happened_at=timestamp(of.happened_us),
        dataset=of.dataset,
        record_id=of.record_id,
        position=position_text(of.offset),
        records=of.records,
        accepted=not of.refused,
        refused_because=of.refused,
    )
