"""LiftService: how much more the treated did than they would have done, and receipts of it made again."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import orjson
from counterfoil.common.v1 import receipts_pb2
from counterfoil.models.v1 import lifts_pb2, lifts_pb2_grpc
from counterfoil_chassis.canonical import canonical_json, sha256_hex
from counterfoil_chassis.clock import from_micros, to_micros
from counterfoil_chassis.errors import FieldViolation
from counterfoil_chassis.identity import Caller, current_caller, require_scope
from counterfoil_chassis.policy import Answer, PolicyChecker
from counterfoil_chassis.worker import Worker

from counterfoil_models.documents import gap_of, inputs_document
from counterfoil_models.entities import ConsentState, Contract, Gap, ImpactTier, Input, Output, OutputKind
from counterfoil_models.errors import SpecInvalidError
from counterfoil_models.holds import require_released
from counterfoil_models.lift_spec import (
    DEFAULT_PURPOSE,
    LOOKUP_ROLE,
    Document,
    LiftSpec,
    completed_lift_spec,
    lift_spec_document,
    lift_spec_of,
)
from counterfoil_models.lift_units import UnitTable, lift_columns, unit_table
from counterfoil_models.lifts import make_lift
from counterfoil_models.servicers.lift_messages import lift_message, lift_spec_of_message
from counterfoil_models.servicers.outputs import Outputs
from counterfoil_models.servicers.provenance import PRODUCER, Made, cite_policies, inputs_of_receipt, make_receipt
from counterfoil_models.servicers.questions import use_question
from counterfoil_models.servicers.replaying import Remade
from counterfoil_models.store import ConsentsFound, ConsentSource, SnapshotSource

Context = grpc.aio.ServicerContext[Any, Any]

_PURPOSE = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True)
class LiftServices:
    """What LiftService and its replays need from elsewhere; `timezone` returns a workspace's."""

    outputs: Outputs
    source: SnapshotSource
    consents: ConsentSource
    policies: PolicyChecker
    worker: Worker
    timezone: Callable[[str], Awaitable[str]]


@dataclass(frozen=True)
class Asked:
    """What was asked, with every default filled in, and of whose days."""

    spec: LiftSpec
    purpose: str
    timezone: str

    def document(self) -> Document:
        """Return it as JSON."""
        return {"spec": lift_spec_document(self.spec), "purpose": self.purpose, "timezone": self.timezone}


@dataclass(frozen=True)
class Reading:
    """The units of snapshots, how many records each input held (in the order of the inputs), and their contracts."""

    table: UnitTable
    rows: Sequence[int]
    contracts: Sequence[Contract]


class LiftServicer(lifts_pb2_grpc.LiftServiceServicer):
    """See lifts.proto."""

    def __init__(self, services: LiftServices) -> None:
        self._services = services
        self._outputs = services.outputs

    async def CreateLift(self, request: lifts_pb2.CreateLiftRequest, context: Context) -> lifts_pb2.Lift:
        """Measure the lift of an assignment."""
        caller = current_caller()
        require_scope(caller, "ingest.read")
        spec = completed_lift_spec(lift_spec_of_message(request.spec))
        asked = Asked(spec, _purpose(request.purpose), await self._services.timezone(caller.workspace))
        datasets = spec.datasets()
        broken = await require_released(self._outputs.stores, caller.workspace, datasets.values())
        inputs = tuple([Input(role, await self._services.source.take(name)) for role, name in datasets.items()])
        reading = await read_units(self._services, asked, inputs, workspace=caller.workspace)
        consents = await check_consents(self._services, asked, reading.table, workspace=caller.workspace)
        answers = await self._allowed(caller, asked, consents)
        question = _question(asked, inputs, consents)
        known = await self._outputs.find(caller.workspace, question)
        if known is not None:
            return lift_message(known)
        document = await measure(self._services, asked, reading.table, consents)
        output = Output(
            workspace=caller.workspace,
            kind=OutputKind.LIFT,
            output_id=self._outputs.ids.new(),
            receipt_id=f"{PRODUCER}.{self._outputs.ids.new()}",
            question_sha256=question,
            document=document,
            meta={},
            created_at=self._outputs.clock.now(),
        )
        receipt = self._receipt(
            output, asked, inputs=inputs, reading=reading, consents=consents, answers=answers, broken=broken
        )
        columns = lift_columns(spec)
        reads = {dataset: list(filter(None, columns[role])) for role, dataset in datasets.items()}
        return lift_message(await self._outputs.keep(output, receipt=receipt, reads=reads))

    async def GetLift(self, request: lifts_pb2.GetLiftRequest, context: Context) -> lifts_pb2.Lift:
        """Return one lift."""
        return lift_message(await self._outputs.get(request.lift_id))

    async def ListLifts(self, request: lifts_pb2.ListLiftsRequest, context: Context) -> lifts_pb2.ListLiftsResponse:
        """List the workspace's lifts, newest first, without their tables."""
        found, token = await self._outputs.page(request, method="ListLifts")
        return lifts_pb2.ListLiftsResponse(
            lifts=[lift_message(one, tables=False) for one in found], next_page_token=token
        )

    async def _allowed(self, caller: Caller, asked: Asked, consents: ConsentsFound | None) -> list[Answer]:
        """Ask the policies for each dataset that is read; raise PolicyDeniedError for one that is refused."""
        people = sum(consents.allowed) if consents else 0
        without = len(consents.allowed) - people if consents else 0
        answers = []
        for role, dataset in asked.spec.datasets().items():
            counts = {} if role == LOOKUP_ROLE else {"people": people, "without_consent": without}
            asking = use_question(dataset, purpose=asked.purpose, **counts)
            answers.append(await self._services.policies.require(caller, asking))
        return answers

    def _receipt(
        self,
        output: Output,
        asked: Asked,
        *,
        inputs: tuple[Input, ...],
        reading: Reading,
        consents: ConsentsFound | None,
        answers: Sequence[Answer],
        broken: tuple[Gap, ...],
    ) -> receipts_pb2.Receipt:
        made = Made(
            workspace=output.workspace,
            name=output.name,
            receipt_id=output.receipt_id,
            created_at=output.created_at,
            purpose=asked.purpose,
            impact_tier=ImpactTier.LOW,
            document=output.document,
            parameters=canonical_json({**asked.document(), "consent": _consent_document(consents)}).decode(),
            inputs=inputs,
            rows=reading.rows,
            contracts=reading.contracts,
            gaps=(*(gap_of(one) for one in output.document["gaps"]), *broken),
        )
        receipt = make_receipt(made, runtime=self._outputs.runtime)
        cite_policies(receipt, answers)
        if consents is not None:
            receipt.consent.CopyFrom(
                receipts_pb2.ConsentBasis(
                    purpose=asked.purpose,
                    basis=",".join(consents.bases),
                    ledger_revision=consents.state.ledger_revision,
                )
            )
        return receipt


class LiftReplayer:
    """See `replaying.Replayer`."""

    def __init__(self, services: LiftServices) -> None:
        self._services = services

    async def remake(self, receipt: receipts_pb2.Receipt) -> Remade:
        """Measure again from the cited snapshots, with the consents of the cited state of the ledger."""
        parameters = orjson.loads(receipt.parameters)
        asked = Asked(lift_spec_of(parameters["spec"]), parameters["purpose"], parameters["timezone"])
        inputs = inputs_of_receipt(receipt)
        reading = await read_units(self._services, asked, inputs, workspace=receipt.workspace)
        state = _consent_of(parameters["consent"])
        consents = await check_consents(self._services, asked, reading.table, workspace=receipt.workspace, state=state)
        return Remade(await measure(self._services, asked, reading.table, consents), reading.rows)


async def read_units(services: LiftServices, asked: Asked, inputs: Sequence[Input], *, workspace: str) -> Reading:
    """Read the snapshots and make their units; raises what `SnapshotSource.read` and `unit_table` raise."""
    columns = lift_columns(asked.spec)
    reads = {
        one.role: await services.source.read(one.snapshot, columns[one.role], workspace=workspace) for one in inputs
    }
    tables: Mapping[str, Any] = {role: read.table for role, read in reads.items()}
    table = await services.worker.run(unit_table, asked.spec, asked.timezone, tables)
    contracts = dict.fromkeys(contract for read in reads.values() for contract in read.contracts)
    return Reading(table, [reads[one.role].rows for one in inputs], tuple(contracts))


async def check_consents(
    services: LiftServices, asked: Asked, table: UnitTable, *, workspace: str, state: ConsentState | None = None
) -> ConsentsFound | None:
    """Ask the ledger about every unit; None when units are no people."""
    unit_type = asked.spec.outcome.unit_type
    if not unit_type:
        return None
    return await services.consents.check(
        workspace, table.names, unit_type=unit_type, purpose=asked.purpose, state=state
    )


async def measure(services: LiftServices, asked: Asked, table: UnitTable, consents: ConsentsFound | None) -> Document:
    """Measure with the units that may be used; raises GroupTooSmallError."""
    allowed = None if consents is None else np.asarray(consents.allowed, dtype=np.bool_)
    return await services.worker.run(make_lift, asked.spec, table, purpose=asked.purpose, allowed=allowed)


def _purpose(purpose: str) -> str:
    if purpose and not _PURPOSE.fullmatch(purpose):
        text = "A purpose has lower-case letters, digits and underscores, and begins with a letter."
        raise SpecInvalidError(text, violations=[FieldViolation("purpose", "BAD_VALUE", text)])
    return purpose or DEFAULT_PURPOSE


def _question(asked: Asked, inputs: tuple[Input, ...], consents: ConsentsFound | None) -> str:
    """Name what is asked of which data and of whom: other consents make it another question, other records do not."""
    whom = None if consents is None else sha256_hex(bytes(consents.allowed))
    return sha256_hex(canonical_json({**asked.document(), "inputs": inputs_document(inputs), "allowed": whom}))


def _consent_document(consents: ConsentsFound | None) -> Document | None:
    if consents is None:
        return None
    return {"ledger_revision": consents.state.ledger_revision, "at_us": to_micros(consents.state.judged_at)}


def _consent_of(document: Document | None) -> ConsentState | None:
    return None if document is None else ConsentState(document["ledger_revision"], from_micros(document["at_us"]))
