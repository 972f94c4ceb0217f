"""Between the doors and the store: a bounded queue, and one writer that commits whatever has come meanwhile."""

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from counterfoil_cli.traces.otlp import MalformedExportError, rows
from counterfoil_cli.traces.spans import SpanRow
from counterfoil_cli.traces.store import SpanStore

MAX_WAITING_BYTES = 32 * 1024 * 1024
MAX_BATCH_BYTES = 8 * 1024 * 1024
PRUNE_SECONDS = 60.0
PRUNE_SPANS = 20_000

Decode = Callable[[bytes], ExportTraceServiceRequest]
_log = logging.getLogger(__name__)


class OverloadedError(Exception):
    """Nothing was kept: too much waits, or the store cannot be written; the sender may try again."""


@dataclass(frozen=True)
class _Waiting:
    payload: bytes
    decode: Decode
    answer: asyncio.Future[int]


class Intake:
    """Takes export requests and answers each once its spans are committed; `run` must be running."""

    def __init__(self, store: SpanStore) -> None:
        self._store = store
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._come = asyncio.Event()
        self._spans_since_pruned = PRUNE_SPANS  # an old file is pruned before its first spans
        self._pruned_at = 0.0

    async def put(self, payload: bytes, decode: Decode) -> int:
        """Keep a request's spans and return how many were left out; raise MalformedExportError, OverloadedError."""
        if self._bytes + len(payload) > MAX_WAITING_BYTES:
            raise OverloadedError("the trace sink has too much to write")
        waiting = _Waiting(payload, decode, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._bytes += len(payload)
        self._come.set()
        return await waiting.answer

    async def run(self) -> None:
        """Write what comes, one transaction at a time, until cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "spans") as writer:
            while True:
                await self._come.wait()
                self._come.clear()
                while batch := self._next_batch():
                    outcomes = await loop.run_in_executor(writer, self._write, batch)
                    for waiting, outcome in zip(batch, outcomes, strict=True):
                        self._bytes -= len(waiting.payload)
                        _settle(waiting.answer, outcome)

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and (not batch or size + len(self._waiting[0].payload) <= MAX_BATCH_BYTES):
            batch.append(self._waiting.popleft())
            size += len(batch[-1].payload)
        return batch

    def _write(self, batch: list[_Waiting]) -> list[int | Exception]:
        """Decode and insert a batch; one malformed request costs its neighbours nothing."""
        outcomes: list[int | Exception] = []
        spans: list[SpanRow] = []
        for waiting in batch:
            try:
                made, rejected = rows(waiting.decode(waiting.payload))
            except MalformedExportError as error:
                outcomes.append(error)
            else:
                spans += made
                outcomes.append(rejected)
        try:
            if spans:
                self._store.put(spans)
            self._prune(len(spans))
        except sqlite3.Error as error:
            _log.warning("spans_not_written", extra={"error": str(error), "spans": len(spans)})
            full = OverloadedError(f"the trace sink cannot write: {error}")
            return [outcome if isinstance(outcome, Exception) else full for outcome in outcomes]
        return outcomes

    def _prune(self, spans: int) -> None:
        self._spans_since_pruned += spans
        now = time.monotonic()
        if self._spans_since_pruned >= PRUNE_SPANS or now - self._pruned_at > PRUNE_SECONDS:
            self._spans_since_pruned, self._pruned_at = 0, now
            self._store.prune()


def _settle(answer: asyncio.Future[int], outcome: int | Exception) -> None:
    if answer.done():  # its sender went away
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
