"""AppendService: the gateway's coalesced requests, each item under its own token, trace and deadline."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import grpc
from counterfoil.common.v1.verdict_pb2 import Finding as FindingMessage
from counterfoil.common.v1.verdict_pb2 import Verdict as VerdictMessage
from counterfoil.ingest.v1 import append_pb2 as pb
from counterfoil.ingest.v1.append_pb2_grpc import AppendServiceServicer
from counterfoil_chassis.calls import TakesLongError
from counterfoil_chassis.clock import Clock, Ids, to_micros
from counterfoil_chassis.errors import CounterfoilError, DeadlineExceededError, InternalError
from counterfoil_chassis.identity import Caller, TokenVerifier, require_scope
from counterfoil_chassis.spans import HotSpan
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from opentelemetry.trace import SpanKind

from counterfoil_ingest import sources
from counterfoil_ingest.append import Appender
from counterfoil_ingest.entities import Batch, Outcome, SourceMapping, Verdict, Verdicts
from counterfoil_ingest.errors import BadDatasetError, ContractsUnavailableError, UnknownProtocolError
from counterfoil_ingest.placing import Judged
from counterfoil_ingest.protocols import API_SOURCE, Protocol, Request
from counterfoil_ingest.protocols.body import inflate
from counterfoil_ingest.quotas import Quotas
from counterfoil_ingest.store import SourceTransactions

Context = grpc.aio.ServicerContext[Message, Message]

RECORDS = "records"
"""The protocol whose items need `ingest.write` and have a verdict for each record to read."""

SPAN = "ingest.append"

PATIENCE_SECONDS = 0.25
"""How long the others of a call wait for an item that is not with the log yet."""

_ROUNDING_SECONDS = 0.1  # by which a call's deadline may be later than it was set: gRPC sends three digits of it

_DATASET = re.compile(r"[a-z][a-z0-9_]{0,62}")
_logger = logging.getLogger(__name__)


class AppendServicer(AppendServiceServicer):
    """Appends what several callers sent; only the gateway may call it."""

    def __init__(
        self,
        appender: Appender,
        mappings: SourceMappings,
        *,
        quotas: Quotas,
        protocols: Mapping[str, Protocol],
        verifier: TokenVerifier,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._appender = appender
        self._mappings = mappings
        self._quotas = quotas
        self._protocols = protocols
        self._verifier = verifier
        self._clock = clock
        self._ids = ids

    async def AppendMany(self, request: pb.AppendManyRequest, context: Context) -> pb.AppendManyResponse:
        """Append each item by itself; they share the log's commits, and none waits long for another.

        Most items are one event that needs nothing looked up. They are judged together, since a task and the context of
        a span cost more than such an event does, and are with the log at once.
        """
        items, left = request.items, _seconds_left(context)
        if len(items) == 1:
            return pb.AppendManyResponse(results=[await self._result(items[0], left, _Step())])
        singles = self._singles(items, left)
        judged = {number for each in singles for number in each.numbers}
        steps = {number: _Step() for number in range(len(items)) if number not in judged}
        tasks = {n: asyncio.ensure_future(self._result(items[n], left, step)) for n, step in steps.items()}
        try:
            results = await self._appended(singles) if singles else {}
            if tasks:
                await _patiently(tasks, steps, held_up=bool(singles))
        finally:
            for task in tasks.values():
                task.cancel()
        results.update((n, task.result() if task.done() else _takes_long()) for n, task in tasks.items())
        return pb.AppendManyResponse(results=[results[number] for number in range(len(items))])

    def _singles(self, items: Sequence[pb.AppendItem], left: float) -> list[_Singles]:
        """Return items that are one usual event each and may be with the log at once; those alike stand together."""
        alike: dict[tuple[str, str, str], list[int]] = {}
        for number, item in enumerate(items):
            if item.route != "batch" and not _has_own_deadline(item, left):
                alike.setdefault((item.token, item.protocol, item.route), []).append(number)
        found: list[_Singles] = []
        for numbers in alike.values():
            try:
                found += self._judged_singles(numbers, [items[number] for number in numbers])
            except CounterfoilError:  # each is judged by itself then, and told what there is to tell
                continue
            except Exception:
                _logger.exception("single events could not be judged together")
        return found

    def _judged_singles(self, numbers: Sequence[int], items: Sequence[pb.AppendItem]) -> Sequence[_Singles]:
        """Hold items of one token and route against their contract, as far as nothing has to be looked up."""
        protocol = self._protocols.get(items[0].protocol)
        if protocol is None or protocol.singles is None:
            return []
        caller = self._verifier.verify(items[0].token)
        _require(caller, items[0].protocol)
        source_id = sources.source_of(caller.principal)
        mappings = self._mappings.known(caller.workspace, source_id)
        if mappings is None or not self._quotas.has_room(caller.workspace):
            return []
        asked = Request(items[0].route, "", "", 0, mappings, self._ids.new)
        times = [self._received_at(item) for item in items]
        found = protocol.singles([inflate(item.body) for item in items], asked, times)
        if found is None:
            return []
        places, columns = found
        taken = [items[place] for place in places]
        spans = [HotSpan(SPAN, traceparent=item.traceparent, kind=SpanKind.INTERNAL) for item in taken]
        arrived = [
            (times[place], span.traceparent or item.traceparent)
            for place, item, span in zip(places, taken, spans, strict=True)
        ]
        judged = self._appender.judge_singles(
            columns, workspace=caller.workspace, source_id=source_id or API_SOURCE, arrived=arrived
        )
        return [_Singles([numbers[place] for place in places], judged, spans)] if judged is not None else []

    async def _appended(self, singles: Sequence[_Singles]) -> dict[int, pb.AppendResult]:
        spans = [span for each in singles for span in each.spans]
        numbers = [number for each in singles for number in each.numbers]
        try:
            verdicts = await self._appender.append_all([each.judged for each in singles])
        except Exception as error:  # noqa: BLE001  (each is told, as it would be alone)
            for span in spans:
                span.record_exception(error)
            return dict.fromkeys(numbers, _refused(error))
        finally:
            for span in spans:
                span.end()
        counted = [result for each in verdicts for result in _counted_one_by_one(each)]
        return dict(zip(numbers, counted, strict=True))

    async def _result(self, item: pb.AppendItem, left: float, step: _Step) -> pb.AppendResult:
        try:
            with HotSpan(SPAN, traceparent=item.traceparent, kind=SpanKind.INTERNAL) as span:
                if _has_own_deadline(item, left):
                    async with asyncio.timeout(_seconds(item.timeout)):
                        verdicts = await self._append(item, span.traceparent, step)
                else:
                    verdicts = await self._append(item, span.traceparent, step)
        except Exception as error:  # noqa: BLE001  (an item fails alone: its neighbours have their verdicts)
            return _refused(error)
        result = _counted(verdicts)
        if item.protocol == RECORDS:
            for verdict in verdicts:
                fill(result.verdicts.add(), verdict)
        return result

    async def _append(self, item: pb.AppendItem, traceparent: str, step: _Step) -> Verdicts:
        caller = self._verifier.verify(item.token)
        _require(caller, item.protocol)
        await self._quotas.require(caller.workspace)
        protocol = self._protocols.get(item.protocol)
        if protocol is None:
            raise UnknownProtocolError(f"No event protocol {item.protocol!r} is installed.")
        if item.protocol == RECORDS and not _DATASET.fullmatch(item.dataset):
            raise BadDatasetError("A dataset's name is [a-z][a-z0-9_]{0,62}; name one that has a contract.")
        source_id = sources.source_of(caller.principal)
        request = Request(
            route=item.route,
            dataset=item.dataset,
            request_id=item.request_id,
            received_at=self._received_at(item),
            mappings=await self._mappings.of(caller.workspace, source_id),
            new_id=_numbered(item.request_id) if item.request_id else self._ids.new,
        )
        judged = await self._judge(
            inflate(item.body),
            request,
            protocol,
            workspace=caller.workspace,
            source_id=source_id or API_SOURCE,
            traceparent=traceparent or item.traceparent,
        )
        step.is_with_the_log = True
        verdicts = await self._appender.append_judged(judged)
        if item.protocol != RECORDS and verdicts.number(Outcome.RETRY):
            # Event SDKs read the status only; what was kept meanwhile is told apart by its ids when they send again.
            raise ContractsUnavailableError(
                "A contract could not be looked up; send the batch again.", retry_after=timedelta(seconds=2)
            )
        return verdicts

    def _received_at(self, item: pb.AppendItem) -> int:
        at = item.received_at
        known = item.HasField("received_at")
        return at.seconds * 1_000_000 + at.nanos // 1000 if known else to_micros(self._clock.now())

    async def _judge(
        self, text: bytes, request: Request, protocol: Protocol, *, workspace: str, source_id: str, traceparent: str
    ) -> Judged:
        """Hold a body's records against their contracts: as columns where that can be, else one by one."""
        received_at = request.received_at
        columns = protocol.columns(text, request) if protocol.columns else None
        if columns is not None:
            judged = await self._appender.judge_columns(
                columns, workspace=workspace, source_id=source_id, received_at=received_at, traceparent=traceparent
            )
            if judged is not None:
                return judged
        candidates = protocol.parse(text, request)
        return await self._appender.judge(Batch(workspace, source_id, received_at, traceparent, candidates))


class _Step:
    """How far an item is."""

    __slots__ = ("is_with_the_log",)

    def __init__(self) -> None:
        self.is_with_the_log = False


@dataclass(frozen=True, slots=True)
class _Singles:
    """Items of one event each that were judged together, by their places in the call."""

    numbers: Sequence[int]
    judged: Judged
    spans: Sequence[HotSpan]


class SourceMappings:
    """Where the events of each source go; a source's mappings never change, so they are read once."""

    def __init__(self, transactions: SourceTransactions) -> None:
        self._transactions = transactions
        self._known: dict[tuple[str, str], tuple[SourceMapping, ...]] = {}

    async def of(self, workspace: str, source_id: str) -> tuple[SourceMapping, ...]:
        """Return a source's mappings, those of a new source for no source; raise SourceNotFoundError."""
        known = self.known(workspace, source_id)
        if known is None:
            async with self._transactions.read() as store:
                known = (await store.get(workspace, source_id)).mappings
            self._known[workspace, source_id] = known
        return known

    def known(self, workspace: str, source_id: str) -> tuple[SourceMapping, ...] | None:
        """Return the same when nothing has to be read for it, else None."""
        return self._known.get((workspace, source_id)) if source_id else sources.DEFAULT_MAPPINGS


def fill(message: VerdictMessage, verdict: Verdict) -> None:
    """Write a verdict into a message; setting fields is twice as fast as making messages of them."""
    message.outcome = verdict.outcome  # type: ignore[assignment]  # the same numbers, a test says
    message.record_id = verdict.record_id
    message.dataset = verdict.dataset
    if verdict.offset >= 0:
        message.position.partition = verdict.partition
        message.position.offset = verdict.offset
    elif verdict.quarantine_id:
        message.quarantine_id = verdict.quarantine_id
        message.findings.extend(FindingMessage(reason=f.reason, path=f.path, detail=f.detail) for f in verdict.findings)


def _numbered(request_id: str) -> Callable[[], str]:
    """Return what names the records that have no id, alike when the same item comes again."""
    numbers = itertools.count()
    return lambda: f"{request_id}#{next(numbers)}"


def _require(caller: Caller, protocol: str) -> None:
    if protocol == RECORDS or "ingest.write" in caller.scopes:
        require_scope(caller, "ingest.write")
    else:
        require_scope(caller, "ingest.append")


async def _patiently(
    tasks: Mapping[int, asyncio.Task[pb.AppendResult]], steps: Mapping[int, _Step], *, held_up: bool
) -> None:
    """Wait for items, but not for one that holds others up; `held_up` tells whether there are more than these."""
    done, _ = await asyncio.wait(tasks.values(), timeout=PATIENCE_SECONDS)
    if not held_up and not done and not any(step.is_with_the_log for step in steps.values()):
        await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait(tasks.values(), timeout=PATIENCE_SECONDS)
    # Those that the log has are as fast as it is; what is not there yet waits for something of its own.
    if logged := [tasks[number] for number, step in steps.items() if step.is_with_the_log]:
        await asyncio.wait(logged)


def _has_own_deadline(item: pb.AppendItem, left: float) -> bool:
    """Tell whether an item ends before its call, which has so many seconds left."""
    return item.HasField("timeout") and _seconds(item.timeout) < left - _ROUNDING_SECONDS


def _seconds(duration: Duration) -> float:
    return float(duration.seconds + duration.nanos / 1e9)


def _counted(verdicts: Verdicts) -> pb.AppendResult:
    return pb.AppendResult(
        accepted=verdicts.number(Outcome.ACCEPTED),
        duplicates=verdicts.number(Outcome.DUPLICATE),
        quarantined=verdicts.number(Outcome.QUARANTINED),
    )


def _counted_one_by_one(verdicts: Verdicts) -> Sequence[pb.AppendResult]:
    """Return the result of each record that is an item by itself."""
    if verdicts.number(Outcome.ACCEPTED) == len(verdicts):
        return [pb.AppendResult(accepted=1)] * len(verdicts)
    return [_counted(Verdicts([each])) for each in verdicts]


def _seconds_left(context: Context) -> float:
    left: float | None = context.time_remaining()  # the stubs forget that a call may have no deadline
    return math.inf if left is None else left


def _takes_long() -> pb.AppendResult:
    text = "This takes longer than those that it came with can wait. Send it alone: nothing is kept twice."
    return _failed(TakesLongError(text))


def _refused(error: Exception) -> pb.AppendResult:
    if isinstance(error, CounterfoilError):
        return _failed(error)
    if isinstance(error, TimeoutError):
        text = "The log took too long; send it again with the same ids: nothing is kept twice."
        return _failed(DeadlineExceededError(text))
    _logger.error("append item failed unexpectedly", exc_info=error)
    return _failed(InternalError("This failed on our side; report the trace id."))


def _failed(error: CounterfoilError) -> pb.AppendResult:
    retry_after = None
    if error.retry_after is not None:
        retry_after = Duration()
        retry_after.FromTimedelta(error.retry_after)
    return pb.AppendResult(code=int(error.code), reason=error.reason, detail=error.message, retry_after=retry_after)
