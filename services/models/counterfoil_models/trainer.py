"""Training in the background: one version at a time, in the trace of the request that asked for it."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import grpc
from counterfoil_chassis.clock import Clock
from counterfoil_chassis.errors import CounterfoilError
from counterfoil_chassis.status import failure_of
from counterfoil_chassis.telemetry import continued
from counterfoil_chassis.worker import Worker

from counterfoil_models.entities import Change, ForecastSpec, Input
from counterfoil_models.lineage import training_event
from counterfoil_models.models import fail, fields_read, finish
from counterfoil_models.reading import read_series
from counterfoil_models.store import EarlierArtifacts, Ending, SnapshotSource, Stores
from counterfoil_models.training import Training, train_version, verdict

SPAN_TRAIN = "train model version"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One version to train, from what, and the trace it belongs to."""

    workspace: str
    model_id: str
    version: int
    spec: ForecastSpec
    timezone: str
    inputs: tuple[Input, ...]
    traceparent: str


@dataclass(frozen=True)
class Made:
    """What a training made, how many records each of its inputs held, and the artifact's bytes, empty = none."""

    training: Training
    input_rows: tuple[int, ...]
    artifact: bytes = b""


class Trainer:
    """Trains what is submitted, in order. What a stopped process leaves undone is ended at its next start."""

    def __init__(
        self,
        *,
        stores: Stores,
        source: SnapshotSource,
        worker: Worker,
        clock: Clock,
        libraries: Mapping[str, str],
        tell: Callable[..., Awaitable[None]],
    ) -> None:
        """Take also `tell`, which writes what lineage is told in the transaction that ends a training."""
        self._stores = stores
        self._source = source
        self._worker = worker
        self._clock = clock
        self._libraries = libraries
        self._tell = tell
        self._jobs: asyncio.Queue[Job] = asyncio.Queue()

    def submit(self, job: Job) -> None:
        """Take a job; its version is in the store already."""
        self._jobs.put_nowait(job)

    async def run(self) -> None:
        """Train for the process's life."""
        while True:
            job = await self._jobs.get()
            with continued(SPAN_TRAIN, job.traceparent):
                await self._train(job)

    async def end_interrupted(self) -> None:
        """Fail the versions whose training died with an earlier process."""
        detail = "The process stopped while this version was trained; train a new one."
        async with self._stores.begin() as transaction:
            for version in await transaction.models.unfinished():
                place = (version.workspace, version.model_id)
                now = self._clock.now()
                ending = Ending(now, error_reason="TRAINING_INTERRUPTED", error_detail=detail)
                await transaction.models.end_training(*place, version.version, ending)
                changes = fail(version.version, reason=f"TRAINING_INTERRUPTED: {detail}")
                await transaction.models.append(*place, changes, now=now)

    async def bring_in(self, earlier: EarlierArtifacts) -> None:
        """Put artifacts that an earlier release kept in files into the database; the files stay where they are."""
        async with self._stores.read() as transaction:
            known = await transaction.artifacts.known()
        for data in await asyncio.to_thread(list, earlier.beside(known)):
            async with self._stores.begin() as transaction:
                await transaction.artifacts.put(data)

    async def _train(self, job: Job) -> None:
        try:
            made = await self._make(job)
        except CounterfoilError as error:
            await self._fail(job, error.reason, error.message)
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
            await self._fail(job, failure.reason, failure.detail or "A service this needs gave no reason; try again.")
        except Exception:
            _logger.exception("training failed", extra={"model": job.model_id, "version": job.version})
            await self._fail(
                job, "TRAINING_FAILED", "Training failed on our side; the version's trace leads to the log."
            )
        else:
            await self._finish(job, made)

    async def _make(self, job: Job) -> Made:
        reading = await read_series(
            self._source,
            self._worker,
            spec=job.spec,
            timezone=job.timezone,
            inputs=job.inputs,
            workspace=job.workspace,
        )
        training = await self._worker.run(
            train_version,
            job.spec,
            reading.table,
            timezone=job.timezone,
            inputs=job.inputs,
            libraries=self._libraries,
        )
        return Made(training, reading.rows, b"" if training.artifact is None else training.artifact.encode())

    async def _finish(self, job: Job, made: Made) -> None:
        accepted, reason = verdict(made.training)
        ending = Ending(
            self._clock.now(),
            artifact_sha256=hashlib.sha256(made.artifact).hexdigest() if made.artifact else "",
            artifact_bytes=len(made.artifact),
            backtests=made.training.backtests,
            skipped=made.training.skipped,
            input_rows=made.input_rows,
        )
        changes = finish(job.version, accepted=accepted, reason=reason, trained=bool(made.artifact))
        await self._end(job, ending, changes, artifact=made.artifact)
        _logger.info("trained", extra={"model": job.model_id, "version": job.version, "accepted": accepted})

    async def _fail(self, job: Job, reason: str, detail: str) -> None:
        ending = Ending(self._clock.now(), error_reason=reason, error_detail=detail)
        await self._end(job, ending, fail(job.version, reason=f"{reason}: {detail}"))

    async def _end(self, job: Job, ending: Ending, changes: Sequence[Change], *, artifact: bytes = b"") -> None:
        async with self._stores.begin() as transaction:
            if artifact:
                await transaction.artifacts.put(artifact)
            await transaction.models.end_training(job.workspace, job.model_id, job.version, ending)
            await transaction.models.append(job.workspace, job.model_id, changes, now=ending.finished_at)
            told = training_event(
                workspace=job.workspace,
                model_id=job.model_id,
                version=job.version,
                inputs=job.inputs,
                reads=fields_read(job.spec),
                ended_at=ending.finished_at,
                made=bool(artifact),
            )
            await self._tell(transaction.connection, workspace=job.workspace, event=told)
