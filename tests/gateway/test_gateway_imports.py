"""Uploads: a body of any size, streamed to ingest without being held."""

from __future__ import annotations

import asyncio
import gzip
import hashlib

import httpx
import pytest
from counterfoil_gateway import imports

from tests.gateway.conftest import Doors

pytestmark = pytest.mark.asyncio(loop_scope="session")
URL = "/v1/imports?dataset=sales&format=csv&file_name=sales.csv"


async def test_a_body_of_any_size_goes_through_in_chunks(doors: Doors, admin: dict):
    digest = hashlib.sha256()

    async def pieces():
        for n in range(700):
            piece = bytes([n % 251]) * 70_001
            digest.update(piece)
            yield piece

    doors.imports.largest = 0
    answer = await doors.http.post(URL, content=pieces(), headers=admin)
    assert answer.status_code == 200, answer.text
    kept = answer.json()
    assert (kept["file_bytes"], kept["file_sha256"]) == (700 * 70_001, digest.hexdigest())
    assert (kept["dataset"], kept["format"], kept["file_name"]) == ("sales", "CSV", "sales.csv")
    assert doors.imports.largest == 1 << 20


async def test_an_empty_file_is_sent_too(doors: Doors, admin: dict):
    answer = await doors.http.post("/v1/imports?dataset=sales&format=PARQUET", content=b"", headers=admin)
    assert (answer.status_code, answer.json()["file_bytes"]) == (200, 0)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("dataset=sales", "format"),
        ("dataset=sales&format=xml", "format"),
        ("dataset=Sales&format=csv", "dataset"),
        ("dataset=sales&format=csv&extra=1", "extra"),
        ("dataset=sales&dataset=sales&format=csv", "dataset"),
    ],
)
async def test_what_the_file_is_must_be_said(doors: Doors, admin: dict, query: str, field: str):
    answer = await doors.http.post(f"/v1/imports?{query}", content=b"a\n", headers=admin)
    assert (answer.status_code, answer.json()["reason"]) == (400, "BAD_FIELD")
    assert field in {e["field"] for e in answer.json()["errors"]}


async def test_a_body_that_says_it_is_gzip_goes_on_as_it_is_since_ingest_unpacks_it(doors: Doors, admin: dict):
    packed = gzip.compress(b"sale_id\n1\n")
    answer = await doors.http.post(URL, content=packed, headers=admin | {"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["file_sha256"]) == (200, hashlib.sha256(packed).hexdigest())
    answer = await doors.http.post(URL, content=packed, headers=admin | {"content-encoding": "br"})
    assert (answer.status_code, answer.json()["reason"]) == (415, "UNSUPPORTED_ENCODING")


async def test_a_refusal_arrives_while_the_body_is_still_sent(doors: Doors, admin: dict):
    async def pieces():
        for _ in range(64):
            yield b"x" * (1 << 20)

    answer = await doors.http.post("/v1/imports?dataset=nowhere&format=csv", content=pieces(), headers=admin)
    assert (answer.status_code, answer.json()["detail"]) == (404, "no contract governs nowhere")


async def test_a_broken_off_upload_is_no_import(doors: Doors, admin: dict):
    doors.imports.kept.clear()

    async def pieces():
        yield b"x" * (3 << 20)
        await doors.backend.asked.wait()
        raise ConnectionError("the cable was cut")

    async with httpx.AsyncClient(base_url=doors.url, timeout=60) as client:
        with pytest.raises(ConnectionError):
            await client.post(URL, content=pieces(), headers=admin)
    await asyncio.wait_for(doors.backend.refused.wait(), 60)
    assert doors.imports.kept == []


async def test_an_upload_of_which_nothing_more_comes_is_no_import(
    doors: Doors, admin: dict, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(imports, "PATIENCE", 0.2)
    doors.imports.kept.clear()
    go = asyncio.Event()

    async def pieces():
        yield b"x" * (3 << 20)
        await go.wait()

    async with httpx.AsyncClient(base_url=doors.url, timeout=60) as client:
        uploading = asyncio.create_task(client.post(URL, content=pieces(), headers=admin))
        await asyncio.wait_for(doors.backend.refused.wait(), 60)
        go.set()
        await asyncio.gather(uploading, return_exceptions=True)
    assert doors.imports.kept == []


async def test_the_list_of_imports_is_served_beside_it(doors: Doors, admin: dict):
    assert (await doors.http.get("/v1/imports", headers=admin)).json() == {"imports": [], "next_page_token": ""}
    refused = await doors.http.delete("/v1/imports", headers=admin)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, POST")
