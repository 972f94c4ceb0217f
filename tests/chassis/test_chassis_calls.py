"""Real calls over real servers: identity, permission, field rules, deadlines, errors, retries, traces."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from counterfoil.common.v1.receipts_pb2 import GetReceiptRequest, Receipt
from counterfoil.common.v1.receipts_pb2_grpc import ReceiptProducerServiceStub
from counterfoil.ingest.v1.imports_pb2 import Import, ImportHeader, UploadImportRequest
from counterfoil.ingest.v1.imports_pb2_grpc import ImportServiceStub
from counterfoil.ingest.v1.records_pb2 import ReadRecordsRequest, ReadRecordsResponse
from counterfoil.ingest.v1.records_pb2_grpc import RecordServiceStub
from counterfoil_chassis import telemetry
from counterfoil_chassis.call import budget, enter_deadline, following, outgoing
from counterfoil_chassis.errors import Code, DeadlineExceededError, NotFoundError, UnavailableError
from counterfoil_chassis.identity import Caller, current_caller, current_token
from counterfoil_chassis.serve import started
from counterfoil_chassis.status import failure_of
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.chassis.probe import (
    Probe,
    ProbeSettings,
    answer,
    bearer,
    failed,
    open_stub,
    principal_token,
    receipt_of,
    signer,
)


async def serve(stack: AsyncExitStack, settings: ProbeSettings, probe: Probe, stub: Any = None) -> Any:
    running = await stack.enter_async_context(started("probe", settings, probe.build))
    return await open_stub(stack, running, *([stub] if stub else []))


async def test_the_handler_knows_its_caller_and_token(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path
) -> None:
    seen: list[Any] = []

    async def get(request: GetReceiptRequest, _context: Any) -> Receipt:
        seen.append((current_caller(), current_token()))
        return Receipt()

    stub = await serve(stack, settings, Probe(get=get))
    token = principal_token(data_dir)
    await stub.GetReceipt(receipt_of(), **bearer(token))
    assert seen == [(Caller("acme", "ada", frozenset({"governance.read"}), ""), token)]
    with pytest.raises(LookupError):
        current_caller()


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "TOKEN_MISSING"),
        ((("authorization", "Basic YTpi"),), "TOKEN_MISSING"),
        ((("authorization", "Bearer "),), "TOKEN_INVALID"),
        ((("authorization", "Bearer a.b.c"),), "TOKEN_INVALID"),
    ],
)
async def test_a_call_without_a_valid_token_is_unauthenticated(
    stack: AsyncExitStack, settings: ProbeSettings, metadata: Any, reason: str
) -> None:
    stub = await serve(stack, settings, Probe(get=answer))
    failure = failure_of(await failed(stub.GetReceipt(receipt_of(), metadata=metadata, timeout=30)))
    assert (failure.code, failure.reason) == (Code.UNAUTHENTICATED, reason)


async def test_a_principal_needs_the_scope_of_the_method(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path
) -> None:
    stub = await serve(stack, settings, Probe(get=answer))
    token = principal_token(data_dir, "ingest.read")
    failure = failure_of(await failed(stub.GetReceipt(receipt_of(), **bearer(token))))
    assert (failure.code, failure.reason) == (Code.PERMISSION_DENIED, "SCOPE_MISSING")
    assert failure.metadata == {"policy_id": "scope:governance.read"}


async def test_only_a_listed_service_may_call_for_itself(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path
) -> None:
    async def follow(_request: Any, _context: Any) -> AsyncIterator[ReadRecordsResponse]:
        yield ReadRecordsResponse(log_epoch=current_caller().service)

    stub = await serve(stack, settings, Probe(get=answer, follow=follow), RecordServiceStub)
    found = [
        each async for each in stub.ReadRecords(ReadRecordsRequest(), **following(signer=signer(data_dir, "models")))
    ]
    assert [each.log_epoch for each in found] == ["models"]
    refused = stub.ReadRecords(ReadRecordsRequest(), **following(signer=signer(data_dir, "gateway")))
    failure = failure_of(await failed(refused.read()))
    assert (failure.code, failure.reason) == (Code.PERMISSION_DENIED, "SERVICE_NOT_ALLOWED")


async def test_a_broken_field_rule_names_every_field(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path
) -> None:
    stub = await serve(stack, settings, Probe(get=answer))
    failure = failure_of(await failed(stub.GetReceipt(GetReceiptRequest(), **bearer(principal_token(data_dir)))))
    assert (failure.code, failure.reason) == (Code.INVALID_ARGUMENT, "BAD_FIELD")
    assert [(each.field, each.reason) for each in failure.violations] == [("receipt_id", "STRING_MIN_LEN")]


async def test_every_message_of_a_request_stream_is_checked(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path
) -> None:
    async def upload(requests: Any, _context: Any) -> Import:
        return Import(rows_read=len([each async for each in requests]))

    stub = await serve(stack, settings, Probe(upload=upload), ImportServiceStub)
    token = principal_token(data_dir, "ingest.write")
    good = UploadImportRequest(header=ImportHeader(dataset="events", format=Import.Format.CSV))
    bad = UploadImportRequest(header=ImportHeader(dataset="No Such", format=Import.Format.CSV))
    assert (await stub.UploadImport(iter([good, good]), **bearer(token))).rows_read == 2
    failure = failure_of(await failed(stub.UploadImport(iter([good, bad]), **bearer(token))))
    assert failure.reason == "BAD_FIELD"
    assert [each.field for each in failure.violations] == ["header.dataset"]


async def test_a_raised_error_arrives_with_its_details(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path
) -> None:
    async def get(_request: Any, _context: Any) -> Receipt:
        raise UnavailableError("later, please: é", metadata={"lag": "9"}, retry_after=timedelta(seconds=2))

    stub = await serve(stack, settings, Probe(get=get))
    failure = failure_of(await failed(stub.GetReceipt(receipt_of(), **bearer(principal_token(data_dir)))))
    assert (failure.code, failure.reason, failure.detail) == (Code.UNAVAILABLE, "UNAVAILABLE", "later, please: é")
    assert (failure.metadata, failure.retry_after) == ({"lag": "9"}, timedelta(seconds=2))


async def test_an_unexpected_exception_is_internal_without_its_text_and_logged_with_it(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def get(_request: Any, _context: Any) -> Receipt:
        raise ValueError("the secret is 42")

    stub = await serve(stack, settings, Probe(get=get))
    with caplog.at_level(logging.ERROR, "counterfoil_chassis"):
        error = await failed(stub.GetReceipt(receipt_of(), **bearer(principal_token(data_dir))))
    failure = failure_of(error)
    assert (failure.code, failure.reason) == (Code.INTERNAL, "INTERNAL")
    assert "42" not in failure.detail
    assert len(failure.metadata["trace_id"]) == 32
    assert "the secret is 42" in caplog.text


async def test_a_call_goes_on_with_what_is_left_of_the_callers_time_less_a_margin(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path
) -> None:
    left: dict[str, float] = {}

    async def at_the_back(request: GetReceiptRequest, context: Any) -> Receipt:
        left[request.receipt_id] = context.time_remaining()
        return Receipt(workspace=current_caller().workspace)

    back = await serve(stack, settings, Probe(get=at_the_back))

    async def at_the_front(request: GetReceiptRequest, context: Any) -> Receipt:
        left["front"] = context.time_remaining()
        default = 5.0 if request.receipt_id == "short" else 30.0
        return await back.GetReceipt(request, **outgoing(default=default))

    running = await stack.enter_async_context(started("probe", settings, Probe(get=at_the_front).build))
    front = await open_stub(stack, running)
    answered = await front.GetReceipt(receipt_of("long"), **bearer(principal_token(data_dir), timeout=9.0))
    assert answered.workspace == "acme"
    assert 5.0 < left["long"] <= left["front"] - 0.03  # gRPC rounds less than 10 s to hundredths, more to tenths
    await front.GetReceipt(receipt_of("short"), **bearer(principal_token(data_dir), timeout=20.0))
    assert 0.0 < left["short"] <= 5.01
    stranger = ReceiptProducerServiceStub(await stack.enter_async_context(grpc.aio.insecure_channel(running.address)))
    await stranger.GetReceipt(receipt_of("none"), **bearer(principal_token(data_dir), timeout=None))
    assert 20.0 < left["none"] <= 30.1


async def test_nothing_is_called_when_no_time_is_left() -> None:
    enter_deadline(0.04)
    with pytest.raises(DeadlineExceededError):
        budget(5.0)
    enter_deadline(None)
    assert budget(5.0) == 5.0


async def test_a_handler_ends_at_the_callers_deadline(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path
) -> None:
    cancelled = asyncio.Event()

    async def get(request: Any, _context: Any) -> Receipt:
        if request.receipt_id == "first":
            return Receipt()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return Receipt()

    stub = await serve(stack, settings, Probe(get=get))
    await stub.GetReceipt(receipt_of("first"), **bearer(principal_token(data_dir)))  # the next one has a connection
    error = await failed(stub.GetReceipt(receipt_of(), **bearer(principal_token(data_dir), timeout=0.6)))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(30):
        await cancelled.wait()


async def test_a_callees_refusal_is_passed_on_but_its_bug_and_our_credentials_are_ours(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path
) -> None:
    class PersonNotFoundError(NotFoundError):
        reason = "PERSON_NOT_FOUND"

    async def at_the_back(request: GetReceiptRequest, _context: Any) -> Receipt:
        if request.receipt_id == "bug":
            raise ZeroDivisionError
        raise PersonNotFoundError("nobody has this id", metadata={"id": "7"})

    back = await serve(stack, settings, Probe(get=at_the_back))

    async def at_the_front(request: GetReceiptRequest, _context: Any) -> Receipt:
        token = "not a token" if request.receipt_id == "token" else None
        return await back.GetReceipt(request, **outgoing(default=20, token=token))

    front = await serve(stack, settings, Probe(get=at_the_front))
    found = {}
    for name in ("missing", "bug", "token"):
        failure = failure_of(await failed(front.GetReceipt(receipt_of(name), **bearer(principal_token(data_dir)))))
        found[name] = (failure.code, failure.reason)
        if name == "missing":
            assert failure.metadata == {"id": "7"}
    assert found == {
        "missing": (Code.NOT_FOUND, "PERSON_NOT_FOUND"),
        "bug": (Code.INTERNAL, "INTERNAL"),
        "token": (Code.INTERNAL, "INTERNAL"),
    }


async def test_unavailable_is_tried_again_and_other_failures_are_not(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path
) -> None:
    tries: list[str] = []

    async def get(request: GetReceiptRequest, _context: Any) -> Receipt:
        tries.append(request.receipt_id)
        if request.receipt_id == "missing":
            raise NotFoundError("no")
        if len(tries) < 3:
            raise UnavailableError("not yet")
        return Receipt(receipt_id="here")

    stub = await serve(stack, settings, Probe(get=get))
    token = principal_token(data_dir)
    assert (await stub.GetReceipt(receipt_of("busy"), **bearer(token))).receipt_id == "here"
    await failed(stub.GetReceipt(receipt_of("missing"), **bearer(token)))
    assert tries == ["busy", "busy", "busy", "missing"]


async def test_messages_of_eight_mebibytes_pass_and_larger_ones_do_not(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path
) -> None:
    async def get(request: GetReceiptRequest, _context: Any) -> Receipt:
        return Receipt(parameters="x" * int(request.receipt_id))

    stub = await serve(stack, settings, Probe(get=get))
    token = principal_token(data_dir)
    most = 8 * 1024 * 1024 - 16
    assert len((await stub.GetReceipt(receipt_of(str(most)), **bearer(token))).parameters) == most
    error = await failed(stub.GetReceipt(receipt_of(str(most + 100)), **bearer(token)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_one_trace_spans_a_real_hop_and_a_stored_traceparent(
    stack: AsyncExitStack, settings: ProbeSettings, data_dir: Path
) -> None:
    ids: dict[str, str] = {}

    async def at_the_back(_request: Any, _context: Any) -> Receipt:
        ids["back"], ids["stored"] = telemetry.current_trace_id(), telemetry.current_traceparent()
        return Receipt()

    back = await serve(stack, settings, Probe(get=at_the_back))

    async def at_the_front(request: Any, _context: Any) -> Receipt:
        ids["front"] = telemetry.current_trace_id()
        return await back.GetReceipt(request, **outgoing(default=20))

    front = await serve(stack, settings, Probe(get=at_the_front))
    exporter = InMemorySpanExporter()
    trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
    with telemetry.tracer().start_as_current_span("the user"):
        ids["user"] = telemetry.current_trace_id()
        await front.GetReceipt(receipt_of(), **bearer(principal_token(data_dir)))
    with telemetry.continued(telemetry.SPAN_LOG_CONSUME, ids["stored"]):
        ids["consumer"] = telemetry.current_trace_id()
    assert len({ids[name] for name in ("user", "front", "back", "consumer")}) == 1
    spans = {span.context.span_id: span for span in exporter.get_finished_spans()}
    kinds = sorted(span.kind.name for span in spans.values())
    assert kinds == ["CLIENT", "CLIENT", "INTERNAL", "INTERNAL", "SERVER", "SERVER"]
    roots = [span.name for span in spans.values() if span.parent is None or span.parent.span_id not in spans]
    assert roots == ["the user"]
    attributes = next(span.attributes for span in spans.values() if span.kind.name == "SERVER")
    assert attributes[telemetry.ATTRIBUTE_WORKSPACE] == "acme"
    assert telemetry.current_trace_id() == ""
    assert telemetry.current_traceparent() == ""
