"""ForecastService: what the champion says of the days to come."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from counterfoil.common.v1 import receipts_pb2
from counterfoil.models.v1 import forecasts_pb2, forecasts_pb2_grpc
from counterfoil_chassis import lineage
from counterfoil_chassis.canonical import canonical_json, sha256_hex
from counterfoil_chassis.clock import Clock, Ids
from counterfoil_chassis.identity import Caller, current_caller, require_scope
from counterfoil_chassis.outbox import enqueue
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.policy import Answer, PolicyChecker
from counterfoil_chassis.runtime import Runtime
from counterfoil_chassis.worker import Worker

from counterfoil_models.artifact import Artifact, decode
from counterfoil_models.documents import inputs_document, output_document
from counterfoil_models.entities import Forecast, Gap, Input, Model, ModelVersion
from counterfoil_models.errors import NoChampionError
from counterfoil_models.holds import require_released
from counterfoil_models.lineage import Reads, output_event
from counterfoil_models.models import fields_read
from counterfoil_models.reading import Reading, read_series, take_inputs
from counterfoil_models.servicers.messages import forecast_message
from counterfoil_models.servicers.provenance import PRODUCER, Asked, asked_of, forecast_receipt, inputs_of_receipt
from counterfoil_models.servicers.questions import forecast_question, use_question
from counterfoil_models.servicers.replaying import Remade
from counterfoil_models.serving import chosen_horizon, chosen_series, make_output, serving_gaps
from counterfoil_models.store import RECEIPTS_TOPIC, SnapshotSource, Stores

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class ForecastServices:
    """What ForecastService and replay need from elsewhere; `receipts_added` wakes their relay and lineage's."""

    stores: Stores
    source: SnapshotSource
    worker: Worker
    runtime: Runtime
    pager: Pager
    clock: Clock
    ids: Ids
    receipts_added: Callable[[], None]
    policies: PolicyChecker


class ForecastServicer(forecasts_pb2_grpc.ForecastServiceServicer):
    """See forecasts.proto."""

    def __init__(self, services: ForecastServices) -> None:
        self._services = services
        self._stores = services.stores

    async def CreateForecast(
        self, request: forecasts_pb2.CreateForecastRequest, context: Context
    ) -> forecasts_pb2.Forecast:
        """Forecast with the champion on the data as it is now."""
        caller = current_caller()
        require_scope(caller, "ingest.read")
        model, champion = await self._champion(caller.workspace, request.model_id)
        answers = await self._allowed(caller, model)
        broken = await require_released(self._stores, caller.workspace, model.spec.datasets())
        artifact = await _artifact(self._stores, champion.artifact_sha256)
        asked = Asked(
            model.model_id,
            chosen_horizon(artifact, request.horizon_days),
            chosen_series(artifact, request.series),
            artifact.timezone,
        )
        inputs = await take_inputs(self._services.source, artifact.spec)
        question = _question(asked, champion, inputs)
        async with self._stores.read() as transaction:
            known = await transaction.forecasts.find(caller.workspace, question)
        if known is not None:
            return forecast_message(known)
        forecast, reading = await self._make(
            artifact, champion, asked=asked, inputs=inputs, question=question, broken=broken
        )
        receipt = forecast_receipt(
            forecast,
            model=model,
            champion=champion,
            asked=asked,
            rows=reading.rows,
            contracts=reading.contracts,
            runtime=self._services.runtime,
            answers=answers,
        )
        return forecast_message(await self._keep(forecast, receipt, reads=fields_read(artifact.spec)))

    async def GetForecast(self, request: forecasts_pb2.GetForecastRequest, context: Context) -> forecasts_pb2.Forecast:
        """Return one forecast."""
        async with self._stores.read() as transaction:
            return forecast_message(await transaction.forecasts.get(current_caller().workspace, request.forecast_id))

    async def ListForecasts(
        self, request: forecasts_pb2.ListForecastsRequest, context: Context
    ) -> forecasts_pb2.ListForecastsResponse:
        """List the workspace's forecasts, newest first, without their points."""
        pager = self._services.pager
        place = {"method": "ListForecasts", "workspace": current_caller().workspace}
        page = pager.open(request, **place)
        async with self._stores.read() as transaction:
            found = await transaction.forecasts.page(
                place["workspace"],
                model_id=request.model_id,
                limit=page.limit + 1,
                before=page.after[0] if page.after else "",
            )
        kept = found[: page.limit]
        token = pager.token(request, **place, after=[kept[-1].forecast_id]) if len(found) > len(kept) else ""
        return forecasts_pb2.ListForecastsResponse(
            forecasts=[forecast_message(one, points=False) for one in kept], next_page_token=token
        )

    async def _champion(self, workspace: str, model_id: str) -> tuple[Model, ModelVersion]:
        async with self._stores.read() as transaction:
            model = await transaction.models.get(workspace, model_id)
            if not model.champion_version:
                raise NoChampionError(
                    f"No version of {model_id} serves: train one and promote it.", metadata={"model_id": model_id}
                )
            return model, await transaction.models.get_version(workspace, model_id, model.champion_version)

    async def _make(
        self,
        artifact: Artifact,
        champion: ModelVersion,
        *,
        asked: Asked,
        inputs: tuple[Input, ...],
        question: str,
        broken: tuple[Gap, ...],
    ) -> tuple[Forecast, Reading]:
        reading = await read_series(
            self._services.source,
            self._services.worker,
            spec=artifact.spec,
            timezone=artifact.timezone,
            inputs=inputs,
            workspace=champion.workspace,
        )
        output = await self._services.worker.run(
            make_output,
            artifact,
            reading.table,
            model_id=asked.model_id,
            version=champion.version,
            horizon=asked.horizon_days,
            names=asked.series,
        )
        forecast = Forecast(
            workspace=champion.workspace,
            forecast_id=self._services.ids.new(),
            receipt_id=f"{PRODUCER}.{self._services.ids.new()}",
            question_sha256=question,
            output=output,
            inputs=inputs,
            gaps=(*serving_gaps(artifact, reading.table), *broken),
            created_at=self._services.clock.now(),
        )
        return forecast, reading

    async def _allowed(self, caller: Caller, model: Model) -> list[Answer]:
        """Ask the policies for the model and each dataset; raise PolicyDeniedError for what is refused."""
        asking = [forecast_question(model)]
        asking += [use_question(dataset, purpose=model.purpose) for dataset in model.spec.datasets()]
        return [await self._services.policies.require(caller, question) for question in asking]

    async def _keep(self, forecast: Forecast, receipt: receipts_pb2.Receipt, *, reads: Reads) -> Forecast:
        """Keep forecast, receipt and outbox rows together; the same question answered meanwhile wins."""
        payload = receipt.SerializeToString(deterministic=True)
        async with self._stores.begin() as transaction:
            if not await transaction.forecasts.add(forecast, receipt=payload):
                known = await transaction.forecasts.find(forecast.workspace, forecast.question_sha256)
                assert known is not None  # noqa: S101 - outputs are never deleted
                return known
            await enqueue(transaction.connection, topic=RECEIPTS_TOPIC, payload=payload, now=forecast.created_at)
            told = output_event(receipt, reads=reads)
            await lineage.record(
                transaction.connection, workspace=forecast.workspace, event=told, now=forecast.created_at
            )
        self._services.receipts_added()
        return forecast


class ForecastReplayer:
    """See `replaying.Replayer`."""

    def __init__(self, services: ForecastServices) -> None:
        self._services = services

    async def remake(self, receipt: receipts_pb2.Receipt) -> Remade:
        """Forecast again by the cited artifact from the cited snapshots."""
        artifact = await _artifact(self._services.stores, receipt.model.artifact_sha256)
        asked = asked_of(receipt.parameters)
        reading = await read_series(
            self._services.source,
            self._services.worker,
            spec=artifact.spec,
            timezone=asked.timezone,
            inputs=inputs_of_receipt(receipt),
            workspace=receipt.workspace,
        )
        output = await self._services.worker.run(
            make_output,
            artifact,
            reading.table,
            model_id=asked.model_id,
            version=receipt.model.version,
            horizon=asked.horizon_days,
            names=asked.series,
        )
        return Remade(output_document(output), reading.rows)


async def _artifact(stores: Stores, sha256: str) -> Artifact:
    async with stores.read() as transaction:
        return decode(await transaction.artifacts.get(sha256))


def _question(asked: Asked, champion: ModelVersion, inputs: tuple[Input, ...]) -> str:
    document = {**vars(asked), "series": list(asked.series), "version": champion.version}
    return sha256_hex(canonical_json({**document, "inputs": inputs_document(inputs)}))
