"""Sources and write keys over gRPC, as the gateway uses them."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import grpc
import pytest
from counterfoil.common.v1.credentials_pb2 import Credential
from counterfoil.ingest.v1 import sources_pb2 as pb
from counterfoil_chassis.call import following
from counterfoil_chassis.status import failure_of

from tests.ingest.ingest_service import READ, IngestService


async def refused(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return failure_of(caught.value).reason


async def create(ingest: IngestService, name: str = "Shop", workspace: str = "acme", **fields: Any) -> Any:
    request = pb.CreateSourceRequest(display_name=name, **fields)
    return await ingest.sources.CreateSource(request, **ingest.called(workspace))


def lookup(key: str) -> pb.LookupCredentialRequest:
    return pb.LookupCredentialRequest(secret_sha256=hashlib.sha256(key.encode()).digest())


async def test_a_new_source_maps_everything_to_events_and_its_key_is_accepted(ingest: IngestService) -> None:
    made = await create(ingest)
    assert made.write_key.startswith("cfw_")
    assert len(made.write_key) == 47
    assert made.source.write_key_last_four == made.write_key[-4:]
    assert [(m.type, m.event, m.dataset) for m in made.source.mappings] == [("", "", "events")]
    assert made.source.protocol == "segment"
    credential = await ingest.sources.LookupCredential(lookup(made.write_key), **ingest.as_gateway())
    assert credential.workspace == "acme"
    assert credential.principal == f"source:{made.source.source_id}"
    assert list(credential.scopes) == ["ingest.append"]
    assert not credential.HasField("expires_at")
    got = await ingest.sources.GetSource(pb.GetSourceRequest(source_id=made.source.source_id), **ingest.called())
    assert got == made.source


async def test_the_key_is_nowhere_in_the_database(ingest: IngestService) -> None:
    made = await create(ingest, request_id="r1")
    stored = b"".join(path.read_bytes() for path in ingest.folder.glob("ingest.db*"))
    assert made.write_key.encode() not in stored


async def test_a_retried_creation_answers_with_the_first_key(ingest: IngestService) -> None:
    first, again = await create(ingest, request_id="r1"), await create(ingest, request_id="r1")
    assert first == again
    with pytest.raises(grpc.aio.AioRpcError, match="another request"):
        await create(ingest, "Other", request_id="r1")


async def test_another_workspace_sees_no_source(ingest: IngestService) -> None:
    made = await create(ingest)
    request = pb.GetSourceRequest(source_id=made.source.source_id)
    assert await refused(ingest.sources.GetSource(request, **ingest.called("zeta"))) == "SOURCE_NOT_FOUND"
    rotate = pb.RotateKeyRequest(source_id=made.source.source_id)
    assert await refused(ingest.sources.RotateKey(rotate, **ingest.called("zeta"))) == "SOURCE_NOT_FOUND"
    listed = await ingest.sources.ListSources(pb.ListSourcesRequest(), **ingest.called("zeta"))
    assert not listed.sources


async def test_sources_are_listed_page_by_page(ingest: IngestService) -> None:
    made = [(await create(ingest, f"S{n}")).source.source_id for n in range(5)]
    found, token = [], ""
    while True:
        request = pb.ListSourcesRequest(page_size=2, page_token=token)
        page = await ingest.sources.ListSources(request, **ingest.called())
        found += [each.source_id for each in page.sources]
        token = page.next_page_token
        if not token:
            break
    assert found == made


async def test_scopes_and_services_are_asked_for(ingest: IngestService) -> None:
    request = pb.CreateSourceRequest(display_name="x")
    assert await refused(ingest.sources.CreateSource(request, **ingest.called(scopes=(READ,)))) == "SCOPE_MISSING"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ingest.sources.LookupCredential(lookup("x"), **ingest.called())
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_an_unknown_protocol_is_refused(ingest: IngestService) -> None:
    for name in ("nonsense", "records"):
        request = pb.CreateSourceRequest(display_name="x", protocol=name)
        assert await refused(ingest.sources.CreateSource(request, **ingest.called())) == "PROTOCOL_UNKNOWN"


async def rotate(ingest: IngestService, source_id: str, keep_seconds: int | None) -> Any:
    request = pb.RotateKeyRequest(source_id=source_id)
    if keep_seconds is not None:
        request.keep_previous_for.SetInParent()
        request.keep_previous_for.seconds = keep_seconds
    return await ingest.sources.RotateKey(request, **ingest.called())


async def test_the_old_key_works_on_for_a_day_or_as_long_as_is_said(ingest: IngestService) -> None:
    first = await create(ingest)
    second = await rotate(ingest, first.source.source_id, None)
    assert second.write_key != first.write_key
    assert second.source.write_key_last_four == second.write_key[-4:]
    old = await ingest.sources.LookupCredential(lookup(first.write_key), **ingest.as_gateway())
    assert old.HasField("expires_at")
    day = old.expires_at.seconds
    await rotate(ingest, first.source.source_id, 60)
    old = await ingest.sources.LookupCredential(lookup(first.write_key), **ingest.as_gateway())
    assert old.expires_at.seconds < day - 80_000
    await rotate(ingest, first.source.source_id, 2_000_000)
    assert (await ingest.sources.LookupCredential(lookup(first.write_key), **ingest.as_gateway())) == old


async def test_zero_seconds_end_every_older_key_at_once(ingest: IngestService) -> None:
    first = await create(ingest)
    second = await rotate(ingest, first.source.source_id, None)
    third = await rotate(ingest, first.source.source_id, 0)
    for key in (first.write_key, second.write_key, "cfw_never"):
        call = ingest.sources.LookupCredential(lookup(key), **ingest.as_gateway())
        assert await refused(call) == "WRITE_KEY_NOT_FOUND"
    await ingest.sources.LookupCredential(lookup(third.write_key), **ingest.as_gateway())


async def test_watchers_see_keys_come_change_and_go(ingest: IngestService) -> None:
    first = await create(ingest)
    stream = ingest.sources.WatchCredentials(pb.WatchCredentialsRequest(), **following(signer=ingest.gateway))
    changes: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def follow() -> None:
        async for response in stream:
            if response.HasField("put"):
                credential = Credential()
                response.put.resource.Unpack(credential)
                assert response.put.key == credential.secret_sha256.hex()
                await changes.put(("ends" if credential.HasField("expires_at") else "put", response.put.key))
            elif response.HasField("delete"):
                await changes.put(("delete", response.delete.key))

    following_task = asyncio.create_task(follow())
    names = {hashlib.sha256(first.write_key.encode()).hexdigest(): "first"}

    async def next_change() -> tuple[str, str]:
        kind, key = await asyncio.wait_for(changes.get(), 60)
        return kind, names.get(key, "new")

    assert await next_change() == ("put", "first")
    await rotate(ingest, first.source.source_id, 60)
    assert {await next_change(), await next_change()} == {("ends", "first"), ("put", "new")}
    await rotate(ingest, first.source.source_id, 0)
    assert {await next_change(), await next_change(), await next_change()} == {
        ("delete", "first"),
        ("delete", "new"),
        ("put", "new"),
    }
    following_task.cancel()
    stream.cancel()
