"""Exports of persons and their receipts: asked of the policies, approved, made, and made again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from counterfoil.common.v1 import receipts_pb2, receipts_pb2_grpc
from counterfoil.graph.v1 import persons_pb2
from counterfoil_chassis import outbox
from counterfoil_chassis.canonical import output_sha256
from counterfoil_chassis.changes import Changes, payload_sha256
from counterfoil_chassis.clock import from_micros, to_timestamp
from counterfoil_chassis.identity import Caller, current_caller
from counterfoil_chassis.policy import Answer, PolicyChecker, Question
from counterfoil_chassis.runtime import Runtime, runtime_message
from counterfoil_chassis.telemetry import current_trace_id

from counterfoil_graph import persons, states
from counterfoil_graph.entities import Export, Name, person_id
from counterfoil_graph.errors import ApprovalNotNeededError, ChangeUsedError, GraphRebuiltError
from counterfoil_graph.exporting import Basis, ExportAsked, ExportedPerson, chosen, document, parameters, parameters_of
from counterfoil_graph.servicers.messages import identifier_message
from counterfoil_graph.servicers.services import GraphServices
from counterfoil_graph.store import RECEIPTS_TOPIC, ConsentAnswer, Consents, GraphReader, Transaction

Context = grpc.aio.ServicerContext[Any, Any]
Result = receipts_pb2.ReplayResult

PRODUCER = "graph"
CHANGE_KIND = "persons.export"
SCOPE = "graph.export"


@dataclass(frozen=True)
class ExportServices:
    """What exports need beside the graph; `receipts_added` wakes the relay of receipts."""

    policies: PolicyChecker
    consents: Consents
    changes: Changes
    runtime: Runtime
    receipts_added: Callable[[], None]


@dataclass(frozen=True)
class Prepared:
    """An export before it is made: who, on what basis, how many may not."""

    asked: ExportAsked
    basis: Basis
    answer: ConsentAnswer
    persons: tuple[ExportedPerson, ...]
    without_consent: int


class _NotMadeYetError(Exception):
    """No answer is kept for a request id."""


class Exports:
    """Makes exports."""

    def __init__(self, services: GraphServices, means: ExportServices) -> None:
        self._services = services
        self._means = means

    async def export(self, request: persons_pb2.ExportPersonsRequest, caller: Caller) -> persons_pb2.PersonExport:
        """Export persons, or ask for the approval of exactly this export.

        Raises PolicyDeniedError with the policy's id, and what governance says of a change that cannot be used.
        """
        if (kept := await self._kept(request, caller)) is not None:
            return kept
        prepared = await self._prepare(request, caller)
        if request.request_approval:
            return await self._ask_for_approval(request, caller, prepared)
        answer = await self._means.policies.require(caller, _question(prepared, approved=bool(request.change_id)))

        async def make() -> persons_pb2.PersonExport:
            return await self._make(transaction, request, caller, prepared, answer)

        async with self._services.stores.begin() as transaction:
            return await self._once(transaction, request, caller, make)

    async def _kept(self, request: persons_pb2.ExportPersonsRequest, caller: Caller) -> persons_pb2.PersonExport | None:
        """Return the answer that the same request got before: consents and policies may have changed since."""
        if not request.request_id:
            return None

        async def make() -> persons_pb2.PersonExport:
            raise _NotMadeYetError

        try:
            async with self._services.stores.begin() as transaction:
                return await self._once(transaction, request, caller, make)
        except _NotMadeYetError:
            return None

    async def _once(
        self,
        transaction: Transaction,
        request: persons_pb2.ExportPersonsRequest,
        caller: Caller,
        make: Callable[[], Awaitable[persons_pb2.PersonExport]],
    ) -> persons_pb2.PersonExport:
        return await self._services.idempotency.once(
            transaction.connection,
            request,
            method="ExportPersons",
            workspace=caller.workspace,
            answer=persons_pb2.PersonExport,
            make=make,
        )

    async def _prepare(self, request: persons_pb2.ExportPersonsRequest, caller: Caller) -> Prepared:
        async with self._services.stores.read() as transaction:
            reader = transaction.reader(caller.workspace)
            state = await states.present(reader)
            numbers = {await persons.resolve(reader, each) for each in request.person_ids}
            asked = ExportAsked(
                request.purpose,
                request.destination,
                tuple(sorted(request.identifier_types)),
                tuple(sorted(numbers)),
            )
            names = await names_of(reader, asked.persons, at=state.next_offset)
        answer = await self._means.consents.check(
            caller.workspace, request.purpose, names, ledger_revision=0, at_us=None
        )
        basis = Basis(state, answer.ledger_revision, answer.at_us)
        return Prepared(asked, basis, answer, exported(asked, names, answer), answer.consent_ids.count(None))

    async def _ask_for_approval(
        self, request: persons_pb2.ExportPersonsRequest, caller: Caller, prepared: Prepared
    ) -> persons_pb2.PersonExport:
        await self._means.policies.require(caller, _question(prepared, approved=True))
        answer = await self._means.policies.ask(caller, _question(prepared, approved=False))
        if answer.allowed:
            raise ApprovalNotNeededError("No policy asks for a second person here; export without an approval.")
        change = await self._means.changes.create(
            workspace=caller.workspace,
            kind=CHANGE_KIND,
            resource=f"persons:export/{request.purpose}",
            payload=prepared.asked.payload(),
            requester=caller.principal,
            reason=request.reason or f"Export {len(prepared.asked.persons)} persons for {request.purpose}.",
            policy_id=answer.policy_ids[0],
            request_id=request.request_id or self._services.ids.new(),
        )
        return persons_pb2.PersonExport(change_id=change.change_id, purpose=request.purpose)

    async def _make(
        self,
        transaction: Transaction,
        request: persons_pb2.ExportPersonsRequest,
        caller: Caller,
        prepared: Prepared,
        answer: Answer,
    ) -> persons_pb2.PersonExport:
        asked, now = prepared.asked, self._services.clock.now()
        export = Export(
            workspace=caller.workspace,
            export_id=self._services.ids.new(),
            receipt_id=f"{PRODUCER}.{self._services.ids.new()}",
            change_id=request.change_id,
            person_numbers=asked.persons,
            created_at=now,
        )
        if request.change_id:
            await self._use_change(transaction, caller, request.change_id, asked)
        receipt = self._receipt(export, caller, prepared, answer).SerializeToString(deterministic=True)
        await transaction.exports.add(export, receipt=receipt)
        await outbox.enqueue(transaction.connection, topic=RECEIPTS_TOPIC, payload=receipt, now=now)
        transaction.after_commit(self._means.receipts_added)
        details = {**asked.payload(), "receipt_id": export.receipt_id, "change_id": request.change_id}
        await self._services.tell(transaction, caller, "persons.export", f"exports/{export.export_id}", details)
        return _message(export, prepared)

    async def _use_change(self, transaction: Transaction, caller: Caller, change_id: str, asked: ExportAsked) -> None:
        """Say that the change is used now, before the export commits; one change is for one export."""
        if await transaction.exports.has_change(caller.workspace, change_id):
            raise ChangeUsedError("The change was used for an export already.", metadata={"change_id": change_id})
        await self._means.changes.report(
            workspace=caller.workspace,
            change_id=change_id,
            payload_sha256=payload_sha256(asked.payload()),
            applied=True,
            detail=f"{len(asked.persons)} persons exported.",
        )

    def _receipt(self, export: Export, caller: Caller, prepared: Prepared, answer: Answer) -> receipts_pb2.Receipt:
        known_us = prepared.basis.state.known_us
        return receipts_pb2.Receipt(
            receipt_id=export.receipt_id,
            trace_id=current_trace_id(),
            producer=PRODUCER,
            purpose=prepared.asked.purpose,
            impact_tier=receipts_pb2.IMPACT_TIER_HIGH,
            created_at=to_timestamp(export.created_at),
            workspace=export.workspace,
            principal=caller.principal,
            output=f"exports/{export.export_id}",
            graph_as_of=None if known_us is None else to_timestamp(from_micros(known_us)),
            runtime=runtime_message(self._means.runtime),
            policy_bundle=answer.bundle_message(),
            policy_checks=[answer.message()],
            changes=[export.change_id] if export.change_id else [],
            consent=receipts_pb2.ConsentBasis(
                purpose=prepared.asked.purpose,
                basis=",".join(sorted(prepared.answer.bases)),
                ledger_revision=prepared.basis.ledger_revision,
            ),
            completeness=receipts_pb2.Completeness(complete=True),
            parameters=parameters(prepared.asked, prepared.basis),
            output_sha256=output_sha256(document(prepared.persons)),
        )


class ReceiptProducerServicer(receipts_pb2_grpc.ReceiptProducerServiceServicer):
    """See receipts.proto: the receipts of exports, and exports made again."""

    def __init__(self, services: GraphServices, means: ExportServices) -> None:
        self._services = services
        self._means = means

    async def GetReceipt(self, request: receipts_pb2.GetReceiptRequest, context: Context) -> receipts_pb2.Receipt:
        """Return a receipt this service made."""
        receipt, _ = await self._found(request.receipt_id)
        return receipt

    async def Replay(self, request: receipts_pb2.ReplayRequest, context: Context) -> receipts_pb2.ReplayResult:
        """Make an export again from the cited states of graph and ledger, and compare."""
        receipt, export = await self._found(request.receipt_id)
        outcome, actual, detail = await self._replayed(receipt, export)
        differs = outcome not in (Result.MATCH, Result.EXPIRED, Result.INPUT_ERASED)
        return Result(
            receipt_id=receipt.receipt_id,
            outcome=outcome,
            field="persons" if differs else "",
            expected_sha256=receipt.output_sha256,
            actual_sha256=actual,
            detail=detail,
            runtime=runtime_message(self._means.runtime),
            replayed_at=to_timestamp(self._services.clock.now()),
        )

    async def _found(self, receipt_id: str) -> tuple[receipts_pb2.Receipt, Export]:
        async with self._services.stores.read() as transaction:
            payload, export = await transaction.exports.receipt(current_caller().workspace, receipt_id)
        return receipts_pb2.Receipt.FromString(payload), export

    async def _replayed(
        self, receipt: receipts_pb2.Receipt, export: Export
    ) -> tuple[Result.Outcome.ValueType, str, str]:
        if export.erased:
            return Result.INPUT_ERASED, "", f"Persons of this export have been erased since: {export.erased}."
        asked, basis = parameters_of(receipt.parameters, export.person_numbers)
        state = basis.state
        async with self._services.stores.read() as transaction:
            reader = transaction.reader(export.workspace)
            try:
                await states.cited(
                    reader,
                    log_epoch=state.log_epoch,
                    next_offset=state.next_offset,
                    mappings_sha256=state.mappings_sha256,
                    predecessors=partial(self._services.followers.predecessors, export.workspace),
                )
            except GraphRebuiltError as error:
                return Result.EXPIRED, "", error.message
            names = await names_of(reader, asked.persons, at=state.next_offset)
        answer = await self._means.consents.check(
            export.workspace, asked.purpose, names, ledger_revision=basis.ledger_revision, at_us=basis.consent_us
        )
        actual = output_sha256(document(exported(asked, names, answer)))
        if actual == receipt.output_sha256:
            detail = f"{len(asked.persons)} persons of the cited state, with their consents, are the same again."
            return Result.MATCH, actual, detail
        if runtime_message(self._means.runtime) != receipt.runtime:
            return Result.RUNTIME_CHANGED, actual, "Made again, the persons differ. Other code runs now."
        return Result.MISMATCH, actual, "Made again, the persons or their identifiers differ."


async def names_of(reader: GraphReader, numbers: Sequence[int], *, at: int) -> list[list[Name]]:
    """Return the identifiers of persons in a state, in the order of the persons."""
    found = await reader.identifiers(numbers, at=at)
    return [[each.name for each in found[number]] for number in numbers]


def exported(asked: ExportAsked, names: Sequence[Sequence[Name]], answer: ConsentAnswer) -> tuple[ExportedPerson, ...]:
    """Return the persons that may leave, as they leave."""
    found = zip(asked.persons, names, answer.consent_ids, strict=True)
    return tuple(
        ExportedPerson(number, chosen(own, asked.identifier_types), consent_id)
        for number, own, consent_id in found
        if consent_id is not None
    )


def _question(prepared: Prepared, *, approved: bool) -> Question:
    context = {
        "scope": SCOPE,
        "purpose": prepared.asked.purpose,
        "destination": prepared.asked.destination,
        "people": len(prepared.persons),
        "without_consent": prepared.without_consent,
        "approved": approved,
    }
    return Question("export", "PersonSet", "persons", context=context)


def _message(export: Export, prepared: Prepared) -> persons_pb2.PersonExport:
    return persons_pb2.PersonExport(
        export_id=export.export_id,
        receipt_id=export.receipt_id,
        change_id=export.change_id,
        purpose=prepared.asked.purpose,
        persons=[
            persons_pb2.ExportedPerson(
                person_id=person_id(each.number),
                identifiers=[identifier_message(name) for name in each.identifiers],
                consent_id=each.consent_id,
            )
            for each in prepared.persons
        ],
        created_at=to_timestamp(export.created_at),
    )
