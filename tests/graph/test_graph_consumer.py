"""The consumer: blocks to facts, the SQL engine held to the rules, traces continued, a restored log."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import defaultdict
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from counterfoil_chassis import migrate
from counterfoil_chassis.clock import from_micros
from counterfoil_chassis.database import Database
from counterfoil_chassis.health import HEALTH
from counterfoil_graph.absorbing import Absorber
from counterfoil_graph.entities import EventKind, Name
from counterfoil_graph.extraction import Extractor
from counterfoil_graph.facts import Facts
from counterfoil_graph.following import SPAN_CONSUME, digest
from counterfoil_graph.mapping import combine, read_mapping
from counterfoil_graph.sql.stores import SqlStores, writer
from counterfoil_graph.sql.tables import METADATA
from counterfoil_graph.store import LogBlock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import create_engine, inspect

from tests.graph import test_graph_identity as identity
from tests.graph.world import Client, Peers, until

pytestmark = pytest.mark.both_engines("governance", "contracts", "ingest", "graph")

AT = "2026-01-01T00:00:00Z"
EVENTS = """
mapping: web
datasets:
  events:
    when: {field: type, in: [track, page]}
    time: timestamp
    identifiers:
      - {type: email, field: traits.email, when: {field: traits.verified, equals: true}}
      - {type: user_id, field: user_id}
      - {type: phone, field: traits.phone}
    touchpoints:
      - {type: click, channel: context.medium, campaign: context.campaign, key: click_id,
         when: {field: context.campaign, exists: true}}
    conversions:
      - {type: order, key: order, value: total, currency: currency, when: {field: type, equals: track}}
    edges:
      - {type: looked_at, from: person, to: {type: product, key: product}, valid_from: timestamp}
"""


def read(mapping: str, *records: dict[str, Any], dataset: str = "events") -> Facts:
    """Return what one block with some records says."""
    parsed, findings = read_mapping(mapping)
    assert parsed is not None, findings
    extractor = Extractor(combine([(parsed, "0")]), trusted_source="graph")
    lines = [orjson.dumps({"o": n, "h": 0, "d": dataset, "i": f"r{n}", "r": each}) for n, each in enumerate(records)]
    return extractor.read(b"\n".join(lines) + b"\n", received_us=[7], sources=["api"], from_offset=0)


def micros(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6)


def test_a_record_gives_identifiers_by_strength_and_what_the_mapping_names() -> None:
    record = {
        "type": "track",
        "timestamp": "2026-03-01T12:00:00.123456789Z",
        "user_id": 7.0,
        "traits": {"email": " A@B.example", "verified": True, "phone": "+49 (0) 30-1234"},
        "context": {"campaign": "spring", "medium": "social"},
        "order": "o1",
        "total": "19.999",
        "currency": "eur",
        "product": 12,
    }
    facts = read(EVENTS, record, {**record, "total": 1}, {"type": "identify"}, {"type": 1})
    at = micros("2026-03-01T12:00:00.123456")
    user, mail, phone = Name("user_id", "7"), Name("email", "a@b.example"), Name("phone", "+490301234")
    assert {name: (fact.place, fact.records) for name, fact in facts.identifiers.items()} == {
        user: (0, 2),
        mail: (1, 2),
        phone: (2, 2),
    }
    assert {pair: fact.records for pair, fact in facts.links.items()} == {
        (mail, user): 2,
        (phone, user): 2,
        (mail, phone): 2,
    }
    order = facts.events[user, EventKind.CONVERSION, "order", "o1"]
    assert (order.value_micros, order.currency, order.records, order.time_us) == (20_999_000, "EUR", 2, at)
    clicks = [key for key in facts.events if key[1] is EventKind.TOUCHPOINT]
    assert [key[3] for key in clicks] == ["@0", "@256"]  # without a key each record is one
    assert [(key, fact.records) for key, fact in facts.edges.items()] == [(("looked_at", user, "product.12", at), 2)]
    assert (facts.unread, facts.datasets, facts.known_us) == ({}, {"events": 0}, 7)


def test_conditions_tell_one_from_true() -> None:
    record = {"type": "page", "timestamp": AT, "traits": {"email": "a@b", "verified": 1}}
    assert read(EVENTS, record).unread == {("events", "IDENTIFIER_MISSING"): 1}


def test_two_mappings_of_one_dataset_speak_of_one_person() -> None:
    first, _ = read_mapping("mapping: a\ndatasets: {events: {identifiers: [{type: user_id, field: u}]}}")
    second, _ = read_mapping("mapping: b\ndatasets: {events: {identifiers: [{type: household_id, field: h}]}}")
    assert first is not None
    assert second is not None
    extractor = Extractor(combine([(second, "1"), (first, "0")]), trusted_source="graph")
    line = orjson.dumps({"o": 3, "h": 0, "d": "events", "i": "r", "r": {"u": "u1", "h": 5}})
    facts = extractor.read(line, received_us=[7], sources=["api"], from_offset=0)
    assert {name: fact.place for name, fact in facts.identifiers.items()} == {
        Name("user_id", "u1"): 3 * 256,
        Name("household_id", "5"): 3 * 256 + 1,
    }
    assert len(facts.links) == 1


def test_what_was_taken_in_before_is_left_out() -> None:
    lines = b"\n".join(orjson.dumps({"o": n, "h": 0, "d": "sales", "i": "r", "r": {"u": f"u{n}"}}) for n in range(3))
    mapping, _ = read_mapping("mapping: a\ndatasets: {sales: {identifiers: [{type: user_id, field: u}]}}")
    assert mapping is not None
    extractor = Extractor(combine([(mapping, "0")]), trusted_source="graph")
    facts = extractor.read(lines, received_us=[7], sources=["api"], from_offset=2)
    assert list(facts.identifiers) == [Name("user_id", "u2")]


@pytest.mark.parametrize("payload", [b"nonsense", b"\x28\xb5\x2f\xfd\x04\x00\x01\x00\x00"])
def test_a_damaged_block_is_told_and_not_skipped(payload: bytes) -> None:
    mapping, _ = read_mapping("mapping: a\ndatasets: {sales: {identifiers: [{type: user_id, field: u}]}}")
    assert mapping is not None
    extractor = Extractor(combine([(mapping, "0")]), trusted_source="graph")
    with pytest.raises(Exception, match="cannot be read"):
        digest(extractor, LogBlock(5, payload, ()), from_offset=0)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=identity.logs(), block=st.integers(1, 9))
async def test_the_sql_engine_comes_to_the_same_persons_in_every_state(
    lines: list[dict[str, Any]], block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('graph')}/graph.db"
    await asyncio.to_thread(migrate.upgrade, url, "counterfoil_graph")
    database = Database(url)
    mapping, _ = read_mapping(identity.MAPPING)
    assert mapping is not None
    absorber = Absorber(combine([(mapping, "0")]).identifier_types, identity.inline)
    states: list[tuple[int, set[frozenset[Name]]]] = []
    try:
        for start in range(0, len(lines), block):
            some = [{"o": start + n, "h": 0, **line} for n, line in enumerate(lines[start : start + block])]
            facts = identity.extractor().read(
                b"\n".join(map(orjson.dumps, some)), received_us=[1], sources=["graph"], from_offset=0
            )
            tx = start + len(some)
            async with database.begin() as connection:
                await absorber.absorb(writer(connection, "acme", tx), facts)
            if start % 2:
                absorber.forget()  # nothing depends on what it remembers
            states.append((tx, (await identity.graph_of(lines[:tx], block=block)).groups()))
        async with SqlStores(database).read() as transaction:
            reader = transaction.reader("acme")
            persons = await reader.page(after=-1, limit=1000, min_identifiers=0)
            assert len(persons) == len(states[-1][1])
            for tx, groups in states:
                members = await reader.members(range(256 * len(lines)))
                found: dict[int, set[Name]] = defaultdict(set)
                for place, person in (await reader.persons(members.keys(), at=tx)).items():
                    found[person].add(members[place].name)
                assert {frozenset(each) for each in found.values()} == groups
            assert await transaction.reader("zeta").page(after=-1, limit=9, min_identifiers=0) == []
    finally:
        await database.close()


def test_the_migration_makes_the_tables_as_they_are_declared(tmp_path: Path) -> None:
    migrate.upgrade(f"sqlite+aiosqlite:///{tmp_path}/graph.db", "counterfoil_graph")
    engine = create_engine(f"sqlite:///{tmp_path}/graph.db")
    made = inspect(engine)
    for table in METADATA.sorted_tables:
        columns = {each["name"]: (str(each["type"]), each["nullable"]) for each in made.get_columns(table.name)}
        assert columns == {each.name: (each.type.compile(engine.dialect), each.nullable) for each in table.columns}, (
            table.name
        )
        assert made.get_pk_constraint(table.name)["constrained_columns"] == [each.name for each in table.primary_key]
        declared = {(each.name, tuple(each.columns.keys())) for each in table.indexes}
        assert {(each["name"], tuple(each["column_names"])) for each in made.get_indexes(table.name)} == declared
    engine.dispose()


async def ended(exporter: InMemorySpanExporter) -> Any:
    """Return the consumer's one span, which ends a moment after what it did can be read."""

    def found() -> list[Any]:
        return [each for each in exporter.get_finished_spans() if each.name == SPAN_CONSUME]

    async def is_there() -> bool:
        return bool(found())

    await until(is_there)
    [span] = found()
    return span


async def test_a_requests_trace_goes_on_in_the_graph_and_a_rebuild_links_to_it(client: Client) -> None:
    exporter = InMemorySpanExporter()
    provider: Any = trace.get_tracer_provider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with trace.get_tracer("test").start_as_current_span("a request") as request:
        await client.append("events", {"message_id": "m", "type": "page", "user_id": "u", "timestamp": AT})
        trace_id = request.get_span_context().trace_id
    span = await ended(exporter)
    assert span.context is not None
    assert span.context.trace_id == trace_id
    exporter.clear()
    await client.rebuild()
    await client.caught_up(1)
    again = await ended(exporter)
    assert again.context is not None
    assert again.context.trace_id != trace_id
    assert [link.context.trace_id for link in again.links] == [trace_id]
    exporter.shutdown()


async def test_a_restart_goes_on_where_it_was(peers: Peers) -> None:
    async with peers.graph() as world:
        client = world.client()
        await client.append("events", {"message_id": "m1", "type": "page", "user_id": "u1", "timestamp": AT})
    async with peers.graph() as world:
        client = world.client()
        await client.append("events", {"message_id": "m2", "type": "page", "user_id": "u2", "timestamp": AT})
        graph = await client.graph()
        assert (graph.persons, graph.state.next_offset) == (2, 2)
        assert graph.state.known_at.ToDatetime(tzinfo=UTC) > from_micros(0)


@pytest.mark.sqlite
async def test_after_a_restored_log_the_graph_stands_until_it_is_rebuilt(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counterfoil_ingest.reading.HEARTBEAT_SECONDS", 0.1)
    async with peers.graph() as world:
        client = world.client()
        for number in range(3):
            event = {"message_id": f"m{number}", "type": "page", "user_id": f"u{number}", "timestamp": AT}
            await client.append("events", event)
    with closing(sqlite3.connect(peers.folder / "graph.db")) as database, database:
        # as if the log had gone further in another life
        database.execute("UPDATE cursor SET log_epoch = 'another', next_offset = 9")
        database.execute("INSERT INTO block VALUES ('default', 9, 9)")
    async with peers.graph() as world:
        client = world.client()
        assert (await client.graph()).persons == 3

        async def told() -> bool:
            said = [check.detail for check in await HEALTH.report(datetime.now(UTC))]
            return any("LOG_EPOCH_UNKNOWN" in each and "POST /v1/graph:rebuild" in each for each in said)

        await until(told)
        await client.rebuild()

        async def rebuilt() -> bool:
            return not (await client.graph()).rebuilding

        await until(rebuilt)
        graph = await client.graph()
        assert (graph.persons, graph.state.next_offset) == (3, 3)
        assert graph.state.log_epoch != "another"
