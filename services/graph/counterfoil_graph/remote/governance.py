"""What the graph asks of governance: consents and the receipts ledger."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from counterfoil.governance.v1 import (
    consents_pb2,
    consents_pb2_grpc,
    receipts_pb2,
    receipts_pb2_grpc,
)
from counterfoil_chassis.call import outgoing
from counterfoil_chassis.clock import from_micros, from_timestamp, to_micros, to_timestamp
from counterfoil_chassis.identity import TokenSigner

from counterfoil_graph.entities import Name
from counterfoil_graph.store import ConsentAnswer

PEOPLE_AT_ONCE = 5_000
MOST_SUBJECTS = 200
"""Identifiers of one person that governance takes."""

_SECONDS = 30.0


class Governance:
    """Calls in the graph's own name; see `store.Consents`."""

    def __init__(self, channel: grpc.aio.Channel, signer: TokenSigner) -> None:
        self._consents = consents_pb2_grpc.ConsentServiceStub(channel)
        self._receipts = receipts_pb2_grpc.ReceiptServiceStub(channel)
        self._signer = signer

    async def check(
        self, workspace: str, purpose: str, people: Sequence[Sequence[Name]], *, ledger_revision: int, at_us: int | None
    ) -> ConsentAnswer:
        """Check people, named by their identifiers, against one state of the ledger; 0 and None = as it is now.

        The first answer fixes revision and moment for the rest. With nobody to check, the ledger is not asked. A person
        with more identifiers than governance takes has no consent: a withdrawal could stand under one left out.
        """
        askable = [place for place, names in enumerate(people) if 0 < len(names) <= MOST_SUBJECTS]
        consent_ids: list[str | None] = [None] * len(people)
        bases: set[str] = set()
        moment = None if at_us is None else to_timestamp(from_micros(at_us))
        for start in range(0, len(askable), PEOPLE_AT_ONCE):
            places = askable[start : start + PEOPLE_AT_ONCE]
            request = consents_pb2.CheckConsentsRequest(
                purpose=purpose,
                people=[_person(people[place]) for place in places],
                ledger_revision=ledger_revision,
                at=moment,
                workspace=workspace,
            )
            answer = await self._consents.CheckConsents(request, **outgoing(default=_SECONDS, signer=self._signer))
            ledger_revision, moment = answer.ledger_revision, answer.at
            for place, verdict in zip(places, answer.verdicts, strict=True):
                if verdict.allowed:
                    consent_ids[place] = verdict.consent_id
                    bases.add(consents_pb2.Consent.Basis.Name(verdict.basis).lower())
        return ConsentAnswer(
            consent_ids=tuple(consent_ids),
            bases=frozenset(bases),
            ledger_revision=ledger_revision,
            at_us=to_micros(from_timestamp(moment)) if moment is not None else 0,
        )

    async def put_receipts(self, receipts: Sequence[bytes]) -> None:
        """Put receipts into the ledger; the same ones again change nothing there."""
        request = receipts_pb2.PutReceiptsRequest(receipts=receipts)
        await self._receipts.PutReceipts(request, **outgoing(default=_SECONDS, signer=self._signer))


def _person(names: Sequence[Name]) -> consents_pb2.ConsentPerson:
    subjects = [consents_pb2.Subject(type=each.type, value=each.value) for each in names]
    return consents_pb2.ConsentPerson(subjects=subjects)
