"""A person read in the loop itself is the one read in a transaction of its own, whatever became of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from counterfoil.graph.v1 import persons_pb2
from counterfoil_chassis import inline
from counterfoil_chassis.database import Database
from counterfoil_chassis.errors import CounterfoilError
from counterfoil_graph import persons
from counterfoil_graph.entities import Person
from counterfoil_graph.sql.inline import InlinePersonReader
from counterfoil_graph.sql.reading import SqlGraphReader
from counterfoil_graph.sql.stores import SqlStores
from counterfoil_graph.store import PersonReader

from tests.graph.world import SHOP, Client


@pytest.fixture
async def database(client: Client, tmp_path: Path) -> AsyncIterator[Database]:
    """Return the database of the graph that runs."""
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'graph.db'}")
    yield database
    await database.close()


def event(number: int, **fields: Any) -> dict[str, Any]:
    return {"message_id": f"m{number}", "type": "page", "timestamp": "2026-01-01T00:00:00Z", **fields}


async def answer(reader: PersonReader, text: str) -> Person | str:
    try:
        return await persons.get(reader, text)
    except CounterfoilError as error:
        return f"{error.reason} {error}"


async def both(database: Database, text: str, *, workspace: str = "default") -> Person | str:
    """Return the one answer."""
    with database.read_inline() as read:
        at_once = await answer(InlinePersonReader(read, workspace), text)
    async with database.read() as connection:
        assert at_once == await answer(SqlGraphReader(connection, workspace), text)
    return at_once


async def test_a_person_is_the_same_whoever_reads_it(client: Client, database: Database) -> None:
    await client.mapped(SHOP)
    people = [event(n, user_id=f"u{n % 7}", anonymous_id=f"d{n}") for n in range(30)]
    await client.append("events", *people, event(31, user_id="u1", traits={"email": "a@example.com"}))
    sales = [{"household": n % 3, "basket": n // 2, "amount": 5, "sold_at": "2017-02-10T10:00:00Z"} for n in range(20)]
    await client.append("sales", *sales)
    known = await client(client.persons.ListPersons, persons_pb2.ListPersonsRequest(page_size=1000))
    ids = [person.person_id for person in known.persons]
    merge = persons_pb2.MergePersonsRequest(person_ids=ids[:2], reason="the same customer")
    merged = await client(client.persons.MergePersons, merge)
    await client.caught_up(32 + len(sales))
    await client.erased(("user_id", "u5"))
    found = {text: await both(database, text) for text in ids}
    one = found[ids[0]]
    assert isinstance(one, Person)
    assert (one, len(one.merged)) == (found[ids[1]], 1), merged
    assert any(isinstance(person, Person) and person.conversions for person in found.values())
    assert sum(isinstance(person, str) and person.startswith("PERSON_ERASED") for person in found.values()) == 1
    for nobody in ("per_", f"per_00{1 << 40:016x}"):
        assert str(await both(database, nobody)).startswith("PERSON_NOT_FOUND")
    assert str(await both(database, ids[2], workspace="zeta")).startswith("PERSON_NOT_FOUND")


async def test_a_person_with_more_than_the_loop_can_wait_for_is_read_beside_it(
    client: Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.append("events", *(event(n, user_id="u1", anonymous_id=f"d{n}") for n in range(4)))
    person = await client.person("user_id", "u1")
    readers: list[PersonReader] = []

    async def get(reader: PersonReader) -> Person:
        readers.append(reader)
        return await persons.get(reader, person.person_id)

    stores = SqlStores(database)
    few = await stores.read_person("default", get)
    monkeypatch.setattr(inline, "MOST_ROWS", len(person.identifiers) - 1)
    assert few == await stores.read_person("default", get)
    assert [type(reader) for reader in readers] == [InlinePersonReader, InlinePersonReader, SqlGraphReader]


async def test_the_rebuilding_graph_is_refused_alike(client: Client, database: Database) -> None:
    await client.append("events", event(1, user_id="u1"))
    person = await client.person("user_id", "u1")
    async with database.begin() as connection:
        await connection.exec_driver_sql("UPDATE graph SET rebuild_until = 1000")
    assert str(await both(database, person.person_id)).startswith("GRAPH_REBUILDING")
    with pytest.raises(CounterfoilError, match="reads the log again"):
        await SqlStores(database).read_person("default", partial(persons.get, text=person.person_id))
