"""How many records have come in since a champion was trained: counted from the log, exactly once."""

from __future__ import annotations

import asyncio
import logging

import pytest
from counterfoil.models.v1 import models_pb2
from counterfoil_chassis import telemetry
from counterfoil_chassis.database import StoreUnavailableError
from counterfoil_models import freshness
from counterfoil_models.entities import LogBlock
from counterfoil_models.errors import BlockUnreadableError
from counterfoil_models.freshness import SPAN_CONSUME, count_records
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.models.shop import demand, shop_sales

LINES = b"".join(
    b'{"o":%d,"h":0,"d":"%b","i":"x","r":{"d":"sales","i":",\\"d\\":\\"sales\\""}}\n' % (offset, dataset)
    for offset, dataset in enumerate([b"events", b"sales", b"unplanned", b"sales"], start=10)
)


def test_records_are_counted_by_the_dataset_of_their_line_alone():
    block = LogBlock(10, 14, LINES, ())
    assert count_records(block, from_offset=10) == {"events": 1, "sales": 2, "unplanned": 1}


def test_what_was_counted_before_is_left_out():
    block = LogBlock(10, 14, LINES, ())
    assert count_records(block, from_offset=12) == {"unplanned": 1, "sales": 1}
    assert count_records(block, from_offset=14) == {}


@pytest.mark.parametrize("lines", [b"{}\n", b'{"d":"sales"}\n', b'[1,"d":"sales"]\n'])
def test_lines_of_another_shape_are_refused(lines):
    with pytest.raises(BlockUnreadableError):
        count_records(LogBlock(0, 1, lines, ()), from_offset=0)


async def news(client, count: int) -> None:
    """Wait until the model has so many records of news."""
    request = models_pb2.GetModelRequest(model_id="demand")
    seen = None
    async with asyncio.timeout(60):
        while seen != count:
            await asyncio.sleep(0.02)
            seen = (await client(client.models.GetModel, request)).records_since_training


@pytest.fixture
def logged(shop):
    """The shop, with the log that its snapshots were made from: 630 sales and 3 products."""
    shop.ingest.append(*["sales"] * 630, *["products"] * 3, first=0)
    return shop


async def serve(client) -> None:
    version = await client.trained("demand")
    request = models_pb2.PromoteModelVersionRequest(model_id="demand", version=version.version)
    await client(client.models.PromoteModelVersion, request)


async def test_records_beyond_the_champions_snapshots_are_news_until_it_is_trained_again(logged, client):
    await client(client.models.CreateModel, demand())
    await news(client, 0)
    await serve(client)
    await news(client, 0)
    logged.ingest.append("sales", "events", "sales", "unplanned", first=633)
    await news(client, 2)
    logged.ingest.append("products", "events", first=637)
    await news(client, 3)
    listed = await client(client.models.ListModels, models_pb2.ListModelsRequest())
    assert [one.records_since_training for one in listed.models] == [3]
    logged.ingest.put("acme", "sales", shop_sales(71))  # 639 records, of which the log has shown 632
    await serve(client)
    await news(client, 1)  # the product
    logged.ingest.append(*["sales"] * 9, first=639)
    await news(client, 3)


async def test_a_database_that_is_away_for_a_moment_ends_no_counting(logged, monkeypatch):
    failures = iter([StoreUnavailableError("The database is unwell (database or disk is full).")])

    def fails_once(block, *, from_offset):
        for failure in failures:
            raise failure
        return count_records(block, from_offset=from_offset)

    async with logged.serving() as running, logged.client(running) as client:
        await client(client.models.CreateModel, demand())
        await serve(client)
        monkeypatch.setattr(freshness, "count_records", fails_once)
        logged.ingest.append("sales", first=633)
        await news(client, 1)
    assert list(failures) == []


async def test_nothing_is_counted_twice_or_missed_over_a_restart(logged):
    async with logged.serving() as running, logged.client(running) as client:
        await client(client.models.CreateModel, demand())
        await serve(client)
        logged.ingest.append("sales", "sales", first=633)
        await news(client, 2)
    logged.ingest.append("sales", first=635)
    async with logged.serving() as running, logged.client(running) as client:
        await news(client, 3)
        logged.ingest.append("sales", first=636)
        await news(client, 4)


async def test_counting_continues_the_traces_of_the_requests_that_brought_the_records(logged, client):
    exporter = InMemorySpanExporter()
    trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
    with telemetry.tracer().start_as_current_span("one"):
        one = telemetry.current_traceparent()
    with telemetry.tracer().start_as_current_span("other"):
        other = telemetry.current_traceparent()
    await client(client.models.CreateModel, demand())
    await serve(client)
    logged.ingest.append("sales", "sales", "events", first=633, traceparents=[one, other, ""])
    await news(client, 2)
    async with asyncio.timeout(60):  # they end a moment after what was counted can be read
        while len(spans := [each for each in exporter.get_finished_spans() if each.name == SPAN_CONSUME]) < 2:
            await asyncio.sleep(0.02)
    found = {(f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") for span in spans}
    assert found == {tuple(each.split("-")[1:3]) for each in (one, other)}
    assert {span.attributes["counterfoil.workspace"] for span in spans} == {"acme"}


@pytest.mark.parametrize(("change", "reason"), [("epoch", "LOG_EPOCH_UNKNOWN"), ("layout", "BLOCK_UNREADABLE")])
async def test_a_log_that_cannot_be_counted_stops_the_counting_and_nothing_else(logged, caplog, change, reason):
    async with logged.serving() as running, logged.client(running) as client:
        await client(client.models.CreateModel, demand())
        await serve(client)
        logged.ingest.append("sales", first=633)
        await news(client, 1)
    if change == "epoch":
        logged.ingest.log_epoch = "epoch-2"
    logged.ingest.append("sales", first=634, layout=1 if change == "epoch" else 2)
    with caplog.at_level(logging.ERROR):
        async with logged.serving() as running, logged.client(running) as client:
            async with asyncio.timeout(60):
                while not any(getattr(record, "reason", "") == reason for record in caplog.records):
                    await asyncio.sleep(0.02)
            await news(client, 1)
