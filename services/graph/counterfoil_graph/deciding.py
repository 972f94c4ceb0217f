"""Merges and splits: kept as records of the log, done by the consumer that reads them, answered when they are done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from counterfoil_chassis.call import budget
from counterfoil_chassis.canonical import sha256_hex
from counterfoil_chassis.clock import Clock, Ids

from counterfoil_graph.entities import DECISIONS, Decision, DecisionKind, Name, person_id
from counterfoil_graph.errors import RequestIdReusedError
from counterfoil_graph.following import Followers
from counterfoil_graph.store import Log, Stores

_WAIT_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What a principal asks for; `request` are the request's bytes, by which a retry is told from another request."""

    workspace: str
    principal: str
    kind: DecisionKind
    request_id: str
    request: bytes

    def decision_id(self, ids: Ids) -> str:
        """Return the decision's id: with a request id always the same one, so that a retry decides nothing anew."""
        if not self.request_id:
            return ids.new()
        text = f"{self.workspace}\0{self.principal}\0{self.kind.value}\0{self.request_id}"
        return f"{self.kind.value}-{sha256_hex(text.encode())[:32]}"

    @property
    def sha256(self) -> str:
        """Return the hash of the request."""
        return sha256_hex(self.request)


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision that is done, and the persons that its identifiers belong to now."""

    decision: Decision
    person_ids: tuple[str, ...]


class Decisions:
    """Keeps decisions and waits until the graph has carried them out."""

    def __init__(self, stores: Stores, followers: Followers, log: Log, *, clock: Clock, ids: Ids) -> None:
        self._stores = stores
        self._followers = followers
        self._log = log
        self._clock = clock
        self._ids = ids

    async def known(self, asked: Asked) -> Decided | None:
        """Return what the same request has decided before; raise RequestIdReusedError when it was another request."""
        if not asked.request_id:
            return None
        found = await self._found(asked.workspace, asked.decision_id(self._ids))
        if found is not None and found.decision.request_sha256 != asked.sha256:
            raise RequestIdReusedError("this request id was used for another request; take a fresh one")
        return found

    async def decide(
        self, asked: Asked, *, identifiers: Sequence[Name], staying: Sequence[Name], reverses: str, reason: str
    ) -> Decided:
        """Keep a decision as a record and wait until it is done.

        Raises DecisionNotKeptError, and GraphBehindError when the graph does not come to it in time: it will.
        """
        decision_id = asked.decision_id(self._ids)
        record = {
            "message_id": decision_id,
            "kind": asked.kind.value,
            "identifiers": [each._asdict() for each in identifiers],
            "staying": [each._asdict() for each in staying],
            "reverses": reverses,
            "decided_by": asked.principal,
            "decided_at": self._clock.now().isoformat(),
            "reason": reason,
            "request_sha256": asked.sha256,
        }
        (offset,) = await self._log.append(asked.workspace, DECISIONS, [orjson.dumps(record)])
        await self._followers.wait(asked.workspace, offset + 1, seconds=budget(_WAIT_SECONDS))
        found = await self._found(asked.workspace, decision_id)
        if found is None or found.decision.request_sha256 != asked.sha256:
            raise RequestIdReusedError("this request id was used for another request; take a fresh one")
        return found

    async def _found(self, workspace: str, decision_id: str) -> Decided | None:
        async with self._stores.read() as transaction:
            reader = transaction.reader(workspace)
            decision = await reader.decision(decision_id)
            if decision is None:
                return None
            places = [await reader.place_of(name) for name in (*decision.identifiers, *decision.staying)]
            persons = await reader.persons([place for place in places if place is not None])
        return Decided(decision, tuple(person_id(each) for each in sorted(set(persons.values()))))
