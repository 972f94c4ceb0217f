"""Exports of persons: what is handed out, the question that is approved, the document that the receipt hashes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from counterfoil_chassis.canonical import canonical_json, sha256_hex

from counterfoil_graph.entities import Name, State, person_id


@dataclass(frozen=True, slots=True)
class ExportedPerson:
    """One person as it leaves the platform, with the consent that allows it."""

    number: int
    identifiers: tuple[Name, ...]
    consent_id: str


@dataclass(frozen=True, slots=True)
class ExportAsked:
    """What is to be exported, with persons by their numbers, ascending."""

    purpose: str
    destination: str
    identifier_types: tuple[str, ...]
    persons: tuple[int, ...]

    def payload(self) -> dict[str, Any]:
        """Return what a second person approves: nothing personal, but exactly this export and no other."""
        return {
            "purpose": self.purpose,
            "destination": self.destination,
            "identifier_types": list(self.identifier_types),
            "persons": len(self.persons),
            "persons_sha256": sha256_hex("\n".join(person_id(each) for each in self.persons).encode()),
        }


@dataclass(frozen=True, slots=True)
class Basis:
    """On which state of the graph and of the consent ledger an export rests."""

    state: State
    ledger_revision: int
    consent_us: int


def parameters(asked: ExportAsked, basis: Basis) -> str:
    """Return the receipt's parameters: with the export's persons, enough to make the export again."""
    state = basis.state
    cited = {
        "log_epoch": state.log_epoch,
        "next_offset": state.next_offset,
        "mappings_sha256": state.mappings_sha256,
        "known_us": state.known_us or 0,
    }
    consent = {"ledger_revision": basis.ledger_revision, "consent_us": basis.consent_us}
    return canonical_json({**asked.payload(), "graph": cited, "consent": consent}).decode()


def parameters_of(text: str, persons: Sequence[int]) -> tuple[ExportAsked, Basis]:
    """Read a receipt's parameters."""
    found = orjson.loads(text)
    asked = ExportAsked(
        found["purpose"], found["destination"], tuple(found["identifier_types"]), tuple(sorted(persons))
    )
    graph, consent = found["graph"], found["consent"]
    state = State(graph["log_epoch"], graph["next_offset"], graph["mappings_sha256"], graph["known_us"] or None)
    return asked, Basis(state, consent["ledger_revision"], consent["consent_us"])


def chosen(identifiers: Sequence[Name], types: Sequence[str]) -> tuple[Name, ...]:
    """Return the identifiers that are exported, by type and value."""
    return tuple(sorted(name for name in identifiers if not types or name.type in types))


def document(persons: Sequence[ExportedPerson]) -> dict[str, Any]:
    """Return what the receipt hashes."""
    return {
        "persons": [
            {
                "person_id": person_id(each.number),
                "identifiers": [name._asdict() for name in each.identifiers],
                "consent_id": each.consent_id,
            }
            for each in persons
        ]
    }
