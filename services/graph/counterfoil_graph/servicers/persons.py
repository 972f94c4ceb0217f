"""PersonService: who is behind the identifiers, why, and what to do when that is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import grpc
from counterfoil.graph.v1 import persons_pb2, persons_pb2_grpc
from counterfoil_chassis.identity import Caller
from counterfoil_chassis.policy import PolicyChecker, Question

from counterfoil_graph import persons, states
from counterfoil_graph.deciding import Asked, Decided, Decisions
from counterfoil_graph.entities import DecisionKind, Name
from counterfoil_graph.errors import PersonNotFoundError, SplitInvalidError
from counterfoil_graph.servicers.exports import Exports
from counterfoil_graph.servicers.messages import decision_message, explanation_message, person_message
from counterfoil_graph.servicers.services import GraphServices
from counterfoil_graph.values import normalise

Context = grpc.aio.ServicerContext[Any, Any]

SCOPE_WRITE = "graph.write"
PERSONS = "persons"
"""The person set that policies are asked about: the workspace's persons."""


class PersonServicer(persons_pb2_grpc.PersonServiceServicer):
    """See persons.proto."""

    def __init__(
        self, services: GraphServices, *, policies: PolicyChecker, decisions: Decisions, exports: Exports
    ) -> None:
        self._services = services
        self._stores = services.stores
        self._policies = policies
        self._decisions = decisions
        self._exports = exports

    async def GetPerson(self, request: persons_pb2.GetPersonRequest, context: Context) -> persons_pb2.Person:
        """Return one person; an id that was merged away answers the person it is part of now."""
        caller = await self._services.caller()
        get = partial(persons.get, text=request.person_id)
        return person_message(await self._stores.read_person(caller.workspace, get))

    async def ListPersons(
        self, request: persons_pb2.ListPersonsRequest, context: Context
    ) -> persons_pb2.ListPersonsResponse:
        """List persons in the order in which they were first seen."""
        place = {"method": "ListPersons", "workspace": (await self._services.caller()).workspace}
        page = self._services.pager.open(request, **place)
        async with self._stores.read() as transaction:
            reader = transaction.reader(place["workspace"])
            state = await states.present(reader)
            after = int(page.after[0]) if page.after else -1
            found = await reader.page(after=after, limit=page.limit + 1, min_identifiers=request.min_identifiers)
            kept = found[: page.limit]
            shown = await persons.describe(reader, kept, at=state.next_offset)
        more = len(found) > len(kept)
        return persons_pb2.ListPersonsResponse(
            persons=[person_message(each) for each in shown],
            next_page_token=self._services.pager.token(request, **place, after=[str(kept[-1])]) if more else "",
        )

    async def LookupPerson(self, request: persons_pb2.LookupPersonRequest, context: Context) -> persons_pb2.Person:
        """Find the person that an identifier belongs to."""
        caller = await self._services.caller()
        name = self._name(caller, request)
        async with self._stores.read() as transaction:
            reader = transaction.reader(caller.workspace)
            state = await states.present(reader)
            number = await persons.lookup(reader, name)
            (person,) = await persons.describe(reader, [number], at=state.next_offset)
        return person_message(person)

    async def ExplainPerson(
        self, request: persons_pb2.ExplainPersonRequest, context: Context
    ) -> persons_pb2.PersonExplanation:
        """Tell why these identifiers are one person."""
        caller = await self._services.caller()
        types = self._services.followers.in_force(caller.workspace).identifier_types
        async with self._stores.read() as transaction:
            reader = transaction.reader(caller.workspace)
            state = await states.present(reader)
            number = await persons.resolve(reader, request.person_id)
            found = await persons.explain(reader, number, types, at=state.next_offset)
        return explanation_message(found)

    async def MergePersons(
        self, request: persons_pb2.MergePersonsRequest, context: Context
    ) -> persons_pb2.IdentityDecision:
        """Say that several persons are one."""
        caller = await self._services.caller()
        asked = _asked(caller, DecisionKind.MERGE, request)
        if (known := await self._decisions.known(asked)) is not None:
            return _message(known)
        await self._require(caller, "merge", people=len(request.person_ids))
        async with self._stores.read() as transaction:
            reader = transaction.reader(caller.workspace)
            await states.present(reader)
            identifiers = await persons.merge_of(reader, request.person_ids)
        decided = await self._decisions.decide(
            asked, identifiers=identifiers, staying=(), reverses="", reason=request.reason
        )
        return _message(decided)

    async def SplitPerson(
        self, request: persons_pb2.SplitPersonRequest, context: Context
    ) -> persons_pb2.IdentityDecision:
        """Take a merge back, or say that some identifiers belong to somebody else."""
        caller = await self._services.caller()
        asked = _asked(caller, DecisionKind.SPLIT, request)
        if (known := await self._decisions.known(asked)) is not None:
            return _message(known)
        if bool(request.decision_id) is bool(request.identifiers):
            raise SplitInvalidError("Name the merge to take back, or else the identifiers that leave.")
        await self._require(caller, "split", people=1)
        leaving: Sequence[Name] = [self._name(caller, each) for each in request.identifiers]
        staying: Sequence[Name] = ()
        async with self._stores.read() as transaction:
            reader = transaction.reader(caller.workspace)
            await states.present(reader)
            number = await persons.resolve(reader, request.person_id)
            if request.decision_id:
                merge = await persons.merge_to_take_back(reader, number, request.decision_id)
                leaving = merge.identifiers
            else:
                staying = persons.parted((await reader.identifiers([number]))[number], leaving)
        decided = await self._decisions.decide(
            asked, identifiers=leaving, staying=staying, reverses=request.decision_id, reason=request.reason
        )
        return _message(decided)

    async def ExportPersons(
        self, request: persons_pb2.ExportPersonsRequest, context: Context
    ) -> persons_pb2.PersonExport:
        """Export persons with their identifiers for a purpose."""
        return await self._exports.export(request, await self._services.caller())

    async def _require(self, caller: Caller, action: str, *, people: int) -> None:
        asked = {"scope": SCOPE_WRITE, "people": people}
        await self._policies.require(caller, Question(action, "PersonSet", PERSONS, context=asked))

    def _name(self, caller: Caller, asked: Any) -> Name:
        """Return an identifier as the graph keeps it; raise PersonNotFoundError for a type that it does not know."""
        known = self._services.followers.in_force(caller.workspace).identifier_types.get(asked.type)
        if known is None:
            raise PersonNotFoundError(
                f"No mapping reads identifiers of type {asked.type!r}.", metadata={"type": asked.type}
            )
        return Name(asked.type, normalise(known.normalise, asked.value))


def _asked(caller: Caller, kind: DecisionKind, request: Any) -> Asked:
    return Asked(
        caller.workspace, caller.principal, kind, request.request_id, request.SerializeToString(deterministic=True)
    )


def _message(of: Decided) -> persons_pb2.IdentityDecision:
    return decision_message(of.decision, person_ids=list(of.person_ids))
