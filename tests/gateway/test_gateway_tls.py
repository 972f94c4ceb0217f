"""The public doors under TLS, and behind a proxy that ends it."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from pathlib import Path

import grpc
import httpx
import pytest
from counterfoil.ingest.v1.sources_pb2 import ListSourcesRequest
from counterfoil.ingest.v1.sources_pb2_grpc import SourceServiceStub

from tests.certificates import Authority
from tests.gateway.conftest import ADMIN, Doors, gateway_and_backend

pytestmark = pytest.mark.asyncio(loop_scope="session")


def context(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.file)


async def sign_in(client: httpx.AsyncClient, **headers: str) -> tuple[str, str]:
    """Return the link that a key gets, and the cookie that opening it sets."""
    made = await client.post("/console/sign-in-links", headers={"x-api-key": ADMIN, **headers})
    url = httpx.URL(made.raise_for_status().json()["url"])
    opened = await client.get(url.raw_path.decode(), headers=headers)
    return str(url), opened.headers["set-cookie"]


async def test_both_doors_serve_by_their_certificate_and_sessions_are_for_tls_alone(
    keys_dir: Path, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("door", ["localhost", "127.0.0.1"])
    async for doors in gateway_and_backend(keys_dir, door_cert_file=files.certificate, door_key_file=files.key):
        url = doors.url.replace("http:", "https:")
        async with httpx.AsyncClient(base_url=url, verify=context(authority), trust_env=False, timeout=60) as client:
            assert (await client.get("/v1/sources", headers={"x-api-key": ADMIN})).status_code == 200
            link, cookie = await sign_in(client)
        assert link.startswith("https://")
        assert "; Secure" in cookie
        credentials = grpc.ssl_channel_credentials(authority.file.read_bytes())
        async with grpc.aio.secure_channel(doors.grpc_address, credentials) as channel:
            call = SourceServiceStub(channel).ListSources(
                ListSourcesRequest(), metadata=(("x-api-key", ADMIN),), timeout=60
            )
            await call
        stranger = Authority(tmp_path, "stranger")
        async with httpx.AsyncClient(base_url=url, verify=context(stranger), trust_env=False, timeout=60) as client:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get("/healthz")
        async with httpx.AsyncClient(base_url=doors.url, trust_env=False, timeout=60) as client:
            with pytest.raises(httpx.TransportError):  # plain HTTP
                await client.get("/healthz")


async def test_a_changed_certificate_counts_at_both_doors_without_a_restart(
    keys_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counterfoil_gateway.doors._RENEW_SECONDS", 0.02)
    (tmp_path / "later").mkdir()
    now, later = Authority(tmp_path, "now"), Authority(tmp_path / "later", "later")
    files, changed = (each.issue("door", ["localhost", "127.0.0.1"]) for each in (now, later))

    async def served(url: str, authority: Authority) -> bool:
        async with httpx.AsyncClient(base_url=url, verify=context(authority), trust_env=False, timeout=60) as client:
            try:
                return (await client.get("/healthz")).status_code == 200
            except httpx.ConnectError:
                return False

    async for doors in gateway_and_backend(keys_dir, door_cert_file=files.certificate, door_key_file=files.key):
        url = doors.url.replace("http:", "https:")
        assert await served(url, now)
        shutil.copy(changed.key, files.key)
        shutil.copy(changed.certificate, files.certificate)
        async with asyncio.timeout(60):
            while not await served(url, later):
                await asyncio.sleep(0.02)
        credentials = grpc.ssl_channel_credentials(later.file.read_bytes())
        async with grpc.aio.secure_channel(doors.grpc_address, credentials) as channel:
            metadata = (("x-api-key", ADMIN),)
            await SourceServiceStub(channel).ListSources(ListSourcesRequest(), metadata=metadata, timeout=60)


FORWARDED = {"x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.7"}


async def test_a_proxy_that_is_not_trusted_cannot_say_that_it_ended_tls(doors: Doors) -> None:
    async with httpx.AsyncClient(base_url=doors.url, trust_env=False, timeout=60) as client:
        link, cookie = await sign_in(client, **FORWARDED)
    assert link.startswith("http://")
    assert "; Secure" not in cookie


async def test_a_trusted_proxy_says_how_people_came(keys_dir: Path) -> None:
    async for doors in gateway_and_backend(keys_dir, trusted_proxies="127.0.0.0/8"):
        async with httpx.AsyncClient(base_url=doors.url, trust_env=False, timeout=60) as client:
            link, cookie = await sign_in(client, **FORWARDED)
            plain, _ = await sign_in(client)
    assert link.startswith("https://")
    assert "; Secure" in cookie
    assert plain.startswith("http://")
