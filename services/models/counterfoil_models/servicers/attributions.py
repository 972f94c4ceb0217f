"""AttributionService: who gets the credit for conversions, and receipts of it made again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import orjson
from counterfoil.common.v1 import receipts_pb2
from counterfoil.models.v1 import attributions_pb2, attributions_pb2_grpc
from counterfoil_chassis.canonical import canonical_json, sha256_hex
from counterfoil_chassis.clock import from_micros, to_micros, to_timestamp
from counterfoil_chassis.identity import Caller, current_caller
from counterfoil_chassis.policy import Answer, PolicyChecker
from counterfoil_chassis.runtime import Runtime
from counterfoil_chassis.worker import Worker

from counterfoil_models.attributing import Attributed, attribute, journeys_from
from counterfoil_models.attribution_spec import (
    AttributionSpec,
    completed,
    completed_purpose,
    period_of,
    spec_document,
    spec_of,
)
from counterfoil_models.costs import cost_columns
from counterfoil_models.documents import Document, gap_document, inputs_document
from counterfoil_models.entities import (
    ConsentState,
    Contract,
    Gap,
    GraphState,
    ImpactTier,
    Input,
    JourneyReading,
    Output,
    OutputKind,
)
from counterfoil_models.errors import GraphEmptyError
from counterfoil_models.holds import require_released
from counterfoil_models.lineage import JOURNEYS as JOURNEYS_DATASET
from counterfoil_models.servicers.attribution_messages import attribution_message, spec_of_message
from counterfoil_models.servicers.outputs import Outputs
from counterfoil_models.servicers.provenance import PRODUCER, Made, inputs_of_receipt, make_receipt
from counterfoil_models.servicers.questions import use_question
from counterfoil_models.servicers.replaying import Remade
from counterfoil_models.store import JourneyQuestion, JourneySource, OpenJourneys, SnapshotSource

Context = grpc.aio.ServicerContext[Any, Any]

COST_ROLE = "cost"
JOURNEYS = "journeys"
"""What the policies are asked about when nobody's journey comes from any dataset."""


@dataclass(frozen=True)
class AttributionServices:
    """What AttributionService and its replays need from elsewhere; `timezone` returns a workspace's."""

    outputs: Outputs
    journeys: JourneySource
    source: SnapshotSource
    policies: PolicyChecker
    worker: Worker
    timezone: Callable[[str], Awaitable[str]]


@dataclass(frozen=True)
class Asked:
    """What was asked, with every default filled in, and in whose days."""

    spec: AttributionSpec
    purpose: str
    timezone: str

    def document(self) -> Document:
        """Return it as JSON."""
        return {"spec": spec_document(self.spec), "purpose": self.purpose, "timezone": self.timezone}

    def journeys(
        self,
        workspace: str,
        *,
        state: GraphState | None = None,
        consent: ConsentState | None = None,
        wait_for_offset: int = 0,
    ) -> JourneyQuestion:
        """Return which journeys are needed, in a cited state or as they are now."""
        return JourneyQuestion(
            workspace=workspace,
            conversion_type=self.spec.conversion_type,
            since=from_micros(max(journeys_from(self.spec, self.timezone), 0)),
            until=from_micros(period_of(self.spec, self.timezone).end),
            purpose=self.purpose,
            state=state,
            consent=consent,
            wait_for_offset=wait_for_offset,
        )


@dataclass(frozen=True)
class Costs:
    """The tables of a spec's cost sources in its order, how many records each input held, and their contracts."""

    tables: Sequence[Any]
    rows: Sequence[int]
    contracts: Sequence[Contract]


@dataclass(frozen=True)
class Basis:
    """What an attribution rests on: data, persons, the policies' answers, and which promises of the data are broken.

    The question names the first two.
    """

    inputs: tuple[Input, ...]
    reading: JourneyReading
    answers: Sequence[Answer]
    question_sha256: str
    broken: tuple[Gap, ...]


class AttributionServicer(attributions_pb2_grpc.AttributionServiceServicer):
    """See attributions.proto."""

    def __init__(self, services: AttributionServices) -> None:
        self._services = services
        self._outputs = services.outputs

    async def CreateAttribution(
        self, request: attributions_pb2.CreateAttributionRequest, context: Context
    ) -> attributions_pb2.Attribution:
        """Attribute the conversions of a period."""
        caller = current_caller()
        spec, purpose = completed(spec_of_message(request.spec)), completed_purpose(request.purpose)
        asked = Asked(spec, purpose, await self._services.timezone(caller.workspace))
        datasets = dict.fromkeys(one.dataset for one in spec.costs)
        inputs = tuple([Input(COST_ROLE, await self._services.source.take(dataset)) for dataset in datasets])
        reached = max((offset for one in inputs for _, offset in one.snapshot.offsets), default=0)
        async with self._services.journeys.open(asked.journeys(caller.workspace, wait_for_offset=reached)) as journeys:
            basis = await self._basis(caller, asked, inputs, journeys.reading)
            known = await self._outputs.find(caller.workspace, basis.question_sha256)
            if known is not None:
                return attribution_message(known)
            costs = await read_costs(self._services, spec, inputs, workspace=caller.workspace)
            found = await attributed(self._services, asked, journeys, costs)
        return attribution_message(await self._keep(caller.workspace, asked, basis, costs=costs, found=found))

    async def GetAttribution(
        self, request: attributions_pb2.GetAttributionRequest, context: Context
    ) -> attributions_pb2.Attribution:
        """Return one attribution."""
        return attribution_message(await self._outputs.get(request.attribution_id))

    async def ListAttributions(
        self, request: attributions_pb2.ListAttributionsRequest, context: Context
    ) -> attributions_pb2.ListAttributionsResponse:
        """List the workspace's attributions, newest first, without their credits."""
        found, token = await self._outputs.page(request, method="ListAttributions")
        return attributions_pb2.ListAttributionsResponse(
            attributions=[attribution_message(one, credits_shown=False) for one in found], next_page_token=token
        )

    async def _basis(self, caller: Caller, asked: Asked, inputs: tuple[Input, ...], reading: JourneyReading) -> Basis:
        """Ask the policies for each dataset that is read; raise PolicyDeniedError for one that is refused."""
        if not reading.state.log_epoch:
            raise GraphEmptyError("The graph has read no records yet: send some that a mapping makes journeys of.")
        people = {"people": reading.persons, "without_consent": reading.persons_without_consent}
        questions = [use_question(one, purpose=asked.purpose, **people) for one in reading.datasets or (JOURNEYS,)]
        spent = dict.fromkeys(one.dataset for one in asked.spec.costs)
        broken = await require_released(
            self._outputs.stores, caller.workspace, {*reading.datasets, *spent}, days=asked.spec.days_read
        )
        questions += [use_question(dataset, purpose=asked.purpose) for dataset in spent]
        answers = [await self._services.policies.require(caller, question) for question in questions]
        return Basis(inputs, reading, answers, _question(asked, inputs, reading), broken)

    async def _keep(self, workspace: str, asked: Asked, basis: Basis, *, costs: Costs, found: Attributed) -> Output:
        """Keep the attribution with its receipt, or return the one that answered the question meanwhile."""
        output = Output(
            workspace=workspace,
            kind=OutputKind.ATTRIBUTION,
            output_id=self._outputs.ids.new(),
            receipt_id=f"{PRODUCER}.{self._outputs.ids.new()}",
            question_sha256=basis.question_sha256,
            document=found.document,
            meta={
                "spec": spec_document(asked.spec),
                "purpose": asked.purpose,
                "gaps": [gap_document(gap) for gap in found.gaps],
            },
            created_at=self._outputs.clock.now(),
        )
        made = Made(
            workspace=workspace,
            name=output.name,
            receipt_id=output.receipt_id,
            created_at=output.created_at,
            purpose=asked.purpose,
            impact_tier=ImpactTier.LOW,
            document=output.document,
            parameters=_parameters(asked, basis.reading),
            inputs=basis.inputs,
            rows=costs.rows,
            contracts=costs.contracts,
            gaps=(*found.gaps, *basis.broken),
        )
        receipt = _receipt(made, basis, runtime=self._outputs.runtime)
        reads: dict[str, Sequence[str]] = {JOURNEYS_DATASET: ()}
        for one in asked.spec.costs:
            reads[one.dataset] = [*reads.get(one.dataset, ()), *cost_columns(one, asked.spec.subject)]
        return await self._outputs.keep(output, receipt=receipt, reads=reads)


class AttributionReplayer:
    """See `replaying.Replayer`."""

    def __init__(self, services: AttributionServices) -> None:
        self._services = services

    async def remake(self, receipt: receipts_pb2.Receipt) -> Remade:
        """Attribute again from the cited states of graph and consents, and the cited snapshots of cost."""
        parameters = orjson.loads(receipt.parameters)
        asked = Asked(spec_of(parameters["spec"]), parameters["purpose"], parameters["timezone"])
        consent = parameters["consent"]
        question = asked.journeys(
            receipt.workspace,
            state=GraphState(**parameters["graph"]),
            consent=ConsentState(consent["ledger_revision"], from_micros(consent["at_us"])),
        )
        inputs = inputs_of_receipt(receipt)
        costs = await read_costs(self._services, asked.spec, inputs, workspace=receipt.workspace)
        async with self._services.journeys.open(question) as journeys:
            found = await attributed(self._services, asked, journeys, costs)
        return Remade(found.document, costs.rows)


async def read_costs(
    services: AttributionServices, spec: AttributionSpec, inputs: Sequence[Input], *, workspace: str
) -> Costs:
    """Read the cost snapshots, each dataset once; raises what `SnapshotSource.read` raises."""
    columns: dict[str, list[str]] = {}
    for one in spec.costs:
        columns.setdefault(one.dataset, []).extend(cost_columns(one, spec.subject))
    reads = {
        one.snapshot.dataset: await services.source.read(
            one.snapshot, list(dict.fromkeys(columns[one.snapshot.dataset])), workspace=workspace
        )
        for one in inputs
    }
    contracts = dict.fromkeys(contract for read in reads.values() for contract in read.contracts)
    return Costs(
        tables=[reads[one.dataset].table for one in spec.costs],
        rows=[reads[one.snapshot.dataset].rows for one in inputs],
        contracts=tuple(contracts),
    )


async def attributed(services: AttributionServices, asked: Asked, journeys: OpenJourneys, costs: Costs) -> Attributed:
    """Read the journeys' rows and attribute."""
    rows = await journeys.rows()
    return await services.worker.run(
        attribute, asked.spec, rows, costs.tables, reading=journeys.reading, timezone=asked.timezone
    )


def _receipt(made: Made, basis: Basis, *, runtime: Runtime) -> receipts_pb2.Receipt:
    receipt, reading = make_receipt(made, runtime=runtime), basis.reading
    if reading.known_at is not None:
        receipt.graph_as_of.CopyFrom(to_timestamp(reading.known_at))
    receipt.policy_checks.extend(answer.message() for answer in basis.answers)
    receipt.policy_bundle.CopyFrom(basis.answers[0].bundle_message())
    consent = receipts_pb2.ConsentBasis(
        purpose=made.purpose, basis=reading.bases, ledger_revision=reading.consent.ledger_revision
    )
    receipt.consent.CopyFrom(consent)
    return receipt


def _question(asked: Asked, inputs: Sequence[Input], reading: JourneyReading) -> str:
    """Name what is asked of which data and of whom; a consent that expires changes how many are left out."""
    whom = {
        "ledger_revision": reading.consent.ledger_revision,
        "persons": reading.persons,
        "without_consent": reading.persons_without_consent,
    }
    document = {**asked.document(), "inputs": inputs_document(inputs), "graph": vars(reading.state), "whom": whom}
    return sha256_hex(canonical_json(document))


def _parameters(asked: Asked, reading: JourneyReading) -> str:
    consent = {"ledger_revision": reading.consent.ledger_revision, "at_us": to_micros(reading.consent.judged_at)}
    return canonical_json({**asked.document(), "graph": vars(reading.state), "consent": consent}).decode()
