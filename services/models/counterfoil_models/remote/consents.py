"""The consent ledger, from governance: whether units may be used for a purpose."""

from collections.abc import Sequence

import grpc
from counterfoil.governance.v1 import consents_pb2, consents_pb2_grpc
from counterfoil_chassis.call import outgoing
from counterfoil_chassis.clock import from_timestamp, to_timestamp
from counterfoil_chassis.identity import TokenSigner

from counterfoil_models.entities import ConsentState
from counterfoil_models.errors import NoUnitsError
from counterfoil_models.store import ConsentsFound

MOST_PEOPLE = 10_000
"""How many governance judges in one call."""

_MOST_CHARACTERS = 500
_SECONDS = 30.0


class LedgerConsents:
    """See `store.ConsentSource`."""

    def __init__(self, channel: grpc.aio.Channel, signer: TokenSigner) -> None:
        self._consents = consents_pb2_grpc.ConsentServiceStub(channel)
        self._signer = signer

    async def check(
        self, workspace: str, units: Sequence[str], *, unit_type: str, purpose: str, state: ConsentState | None = None
    ) -> ConsentsFound:
        """Tell for each unit whether the purpose is allowed, as the ledger is now or as it was in a cited state.

        Every batch reads the state that the first one found, so that a withdrawal in between falls into none or all.
        A unit whose name is blank or longer than 500 characters cannot have a record, and is not allowed;
        raise NoUnitsError when there is no other.
        """
        askable = [place for place, unit in enumerate(units) if unit.strip() and len(unit) <= _MOST_CHARACTERS]
        allowed, bases = [False] * len(units), set[str]()
        for first in range(0, len(askable), MOST_PEOPLE):
            places = askable[first : first + MOST_PEOPLE]
            request = consents_pb2.CheckConsentsRequest(
                purpose=purpose,
                people=[_person(unit_type, units[place]) for place in places],
                ledger_revision=state.ledger_revision if state else 0,
                at=to_timestamp(state.judged_at) if state else None,
                workspace=workspace,
            )
            found = await self._consents.CheckConsents(request, **outgoing(default=_SECONDS, signer=self._signer))
            state = state or ConsentState(found.ledger_revision, from_timestamp(found.at))
            for place, verdict in zip(places, found.verdicts, strict=True):
                allowed[place] = verdict.allowed
                if verdict.allowed:
                    bases.add(consents_pb2.Consent.Basis.Name(verdict.basis).lower())
        if state is None:
            raise NoUnitsError("No unit has a name that a consent could be recorded for.")
        return ConsentsFound(tuple(allowed), tuple(sorted(bases)), state)


def _person(unit_type: str, unit: str) -> consents_pb2.ConsentPerson:
    return consents_pb2.ConsentPerson(subjects=[consents_pb2.Subject(type=unit_type, value=unit)])
