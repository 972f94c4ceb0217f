"""The audit archive as a file."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from counterfoil_chassis.errors import ResourceExhaustedError, UnavailableError

from tests.gateway.conftest import READER, Doors

pytestmark = pytest.mark.asyncio(loop_scope="session")
URL = "/v1/audit:export"


async def test_the_archive_is_a_file_to_keep(doors: Doors, admin: dict):
    doors.backend.archive += [b"PK\x03\x04", b"x" * (1 << 20), b"end"]
    answer = await doors.http.get(URL, headers=admin)
    assert (answer.status_code, answer.content) == (200, b"PK\x03\x04" + b"x" * (1 << 20) + b"end")
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == 'attachment; filename="counterfoil-audit.zip"'
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_refusal_keeps_its_status(doors: Doors, admin: dict):
    doors.backend.archive.append(UnavailableError("governance is about to stop"))
    answer = await doors.http.get(URL, headers=admin)
    assert (answer.status_code, answer.json()["detail"]) == (503, "governance is about to stop")
    answer = await doors.http.get(URL, headers={"x-api-key": READER})
    assert (answer.status_code, answer.json()["metadata"]) == (403, {"policy_id": "scope:governance.read"})


async def test_an_export_that_fails_on_the_way_is_no_whole_archive(doors: Doors, admin: dict):
    doors.backend.archive += [b"PK\x03\x04", ResourceExhaustedError("too much")]
    with pytest.raises(httpx.RemoteProtocolError):
        await doors.http.get(URL, headers=admin)


async def test_a_reader_who_leaves_is_not_exported_to(doors: Doors, admin: dict):
    doors.backend.archive += [b"x" * (1 << 20)] * 500
    async with doors.http.stream("GET", URL, headers=admin) as answer:
        async for _ in answer.aiter_bytes():
            break
    await asyncio.wait_for(doors.backend.asked.wait(), 60)


async def test_other_verbs_are_not_served(doors: Doors, admin: dict):
    answer = await doors.http.post(URL, headers=admin)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
