"""Connections: imports of one source follow each other; data and the state it is continued from cannot part."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from counterfoil_ingest.import_jobs import Connection, Format, Import, State
from counterfoil_ingest.read_errors import ConnectionNotFoundError

from tests.ingest.read_rig import contract, read_side
from tests.ingest.test_import_airbyte import ID, line, state


def named(record_id: Any, stream: str = "users", **data: Any) -> bytes:
    return line("RECORD", record={"stream": stream, "data": data, "emitted_at": 1, "record_id": record_id})


async def sync(side: Any, *lines: bytes, **changes: Any) -> Import:
    """Import what a source wrote through the connection `crm`."""
    return await side.import_file("", b"".join(lines), Format.AIRBYTE, connection="crm", **changes)


async def at(side: Any, workspace: str = "acme") -> dict[str, Any]:
    """Return the cursor of each stream of the connection `crm`."""
    found: Connection = await side.imports.connection(workspace, "crm")
    told = orjson.loads(found.source_state or "[]")
    return {each["stream"]["stream_descriptor"]["name"]: each["stream"]["stream_state"]["at"] for each in told}


async def test_a_state_stays_until_a_newer_one_of_its_stream_is_told(rig: Any) -> None:
    rig.contracts.put(contract("users", ID))
    rig.contracts.put(contract("deals", ID))
    async with read_side(rig) as side:
        with pytest.raises(ConnectionNotFoundError):
            await side.imports.connection("acme", "crm")
        await sync(side, named("1", id=1), state("users", at=1), state("deals", at=7))
        await sync(side, named("2", id=2), state("users", at=2))
        assert await at(side) == {"users": 2, "deals": 7}
        nothing_new = await sync(side, b'{"type":"LOG","log":{"level":"INFO","message":"nothing"}}\n')
        assert (nothing_new.state, nothing_new.rows_total) == (State.SUCCEEDED, 0)
        assert await at(side) == {"users": 2, "deals": 7}
        with pytest.raises(ConnectionNotFoundError):
            await side.imports.connection("other", "crm")
        listed = await side.imports.list("acme", before="", limit=9, connection="crm")
        assert listed[0].import_id == nothing_new.import_id
        assert await side.imports.list("acme", before="", limit=9, connection="other") == []


async def test_a_record_is_kept_once_over_all_imports_of_a_connection(rig: Any) -> None:
    rig.contracts.put(contract("users", ID))
    async with read_side(rig) as side:
        first = await sync(side, named("7@1", id=7), named("8@1", id=8))
        second = await sync(side, named("8@1", id=8), named("7@2", id=7), named("7@2", id=7))
        elsewhere = await side.import_file("", named("7@1", id=7), Format.AIRBYTE, connection="erp")
        unnamed = await side.import_file("", named("7@1", id=7), Format.AIRBYTE)
        assert (first.rows_accepted, second.rows_accepted, second.rows_duplicate) == (2, 1, 2)
        assert (elsewhere.rows_accepted, unnamed.rows_accepted) == (1, 1)
        ids = [row["_record_id"] for row in await side.rows("users", ["_record_id"])]
    assert ids == ["crm#7@1", "crm#8@1", "crm#7@2", "erp#7@1", f"{unnamed.file_sha256}#1"]


@pytest.mark.parametrize("record_id", ["", "x" * 256, 7, ["7"], {}, True])
async def test_a_record_whose_name_is_none_is_quarantined_alone(rig: Any, record_id: Any) -> None:
    rig.contracts.put(contract("users", ID))
    async with read_side(rig) as side:
        done = await sync(side, named(record_id, id=7), named("8", id=8))
        assert (done.state, done.rows_accepted, done.rows_quarantined) == (State.SUCCEEDED, 1, 1)
        (quarantine_id,) = await side.imports.quarantined(done)
        assert [each.reason for each in (await side.kept(quarantine_id)).findings] == ["BAD_ID"]


async def test_a_run_that_broke_off_is_continued_from_what_it_told(rig: Any) -> None:
    rig.contracts.put(contract("users", ID))
    failed = {"type": "ERROR", "emitted_at": 1.0, "error": {"message": "429"}}
    async with read_side(rig) as side:
        done = await sync(side, named("1", id=1), state("users", at=1), named("2", id=2), line("TRACE", trace=failed))
        assert (done.state, done.rows_accepted) == (State.FAILED, 2)
        assert await at(side) == {"users": 1}
        unread = await sync(side, b'{"type": "STATE", "state": \n')
        assert unread.state is State.FAILED
        assert await at(side) == {"users": 1}


async def test_what_a_reverted_import_brought_is_asked_for_again(rig: Any) -> None:
    rig.contracts.put(contract("users", ID))
    async with read_side(rig) as side:
        first = await sync(side, named("1", id=1), state("users", at=1))
        second = await sync(side, named("2", id=2), state("users", at=2))
        await sync(side, named("3", id=3), state("users", at=3))
        assert await at(side) == {"users": 3}
        await side.revert(second.import_id)
        assert await at(side) == {"users": 1}  # else what came with the second would never come again
        again = await sync(side, named("2", id=2), named("3", id=3), state("users", at=3), created_at=3)
        assert (again.rows_accepted, again.rows_duplicate) == (1, 1)
        assert await at(side) == {"users": 3}
        assert sorted(row["id"] for row in await side.rows("users", ["id"])) == [1, 2, 3]
        for each in (again, first):
            await side.revert(each.import_id)
        assert await at(side) == {}
