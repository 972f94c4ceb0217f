"""One gateway for the whole session, real at both doors, over real gRPC servers that stand for the services."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import httpx
import pytest
import pytest_asyncio
from counterfoil.common.v1.credentials_pb2 import Credential
from counterfoil_chassis import telemetry
from counterfoil_chassis.clock import SystemClock, to_timestamp
from counterfoil_chassis.identity import (
    TokenSigner,
    TokenVerifier,
    derive_secret,
    load_private_key,
    load_trusted_keys,
    write_key_pair,
)
from counterfoil_gateway import api as apis
from counterfoil_gateway.doors import serving
from counterfoil_gateway.gateway import Identity
from counterfoil_gateway.settings import Settings

from tests.gateway import backends

ADMIN = "cfk_" + "a" * 43
READER = "cfk_" + "r" * 43
EXPIRED = "cfk_" + "e" * 43
REVOKED = "cfk_" + "v" * 43
DENIED = "cfk_" + "d" * 43
UNKNOWN = "cfk_" + "u" * 43
WRITE = "cfw_" + "w" * 43
SCOPES = sorted({method.scope for method in apis.load(apis.image()).methods} | {"ingest.append"})


@dataclass
class Doors:
    """A running gateway and what is behind it."""

    http: httpx.AsyncClient
    rpc: grpc.aio.Channel
    backend: backends.Backend
    imports: backends.Imports
    url: str
    address: str
    """Of the services behind."""
    signer: TokenSigner
    grpc_address: str


@pytest.fixture(scope="session")
def api() -> apis.Api:
    return apis.load(apis.image())


@pytest.fixture(scope="session")
def keys_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gateway")
    write_key_pair(folder / "keys" / "gateway.pem", folder / "keys" / "trusted", "gateway")
    return folder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running(keys_dir: Path) -> AsyncIterator[Doors]:
    async for doors in gateway_and_backend(keys_dir):
        yield doors


async def gateway_and_backend(keys_dir: Path, **others: float | str) -> AsyncIterator[Doors]:
    """Serve both until the caller goes on; without limits, but for what other settings say."""
    apis.load(apis.image())  # imports every proto
    telemetry.configure("gateway", "")
    clock = SystemClock()
    verifier = TokenVerifier(load_trusted_keys(keys_dir / "keys" / "trusted"), clock)
    backend = backends.Backend(verifier)
    _fill(backend)
    server, address, imports = await backends.serve(backend)
    targets = {f"{name}_target": address for name in ("ingest", "contracts", "graph", "models", "governance")}
    fixed = {"data_dir": keys_dir, "listen": "127.0.0.1:0", "grpc_listen": "127.0.0.1:0", "drain_seconds": 1}
    unlimited = {"requests_per_second": 0, "failed_sign_ins_per_second": 0}
    settings = Settings(**fixed | targets | unlimited | others)
    key = load_private_key(keys_dir / "keys" / "gateway.pem")
    signer = TokenSigner("gateway", key, clock)
    async with serving(settings, Identity(signer, derive_secret(key), clock)) as gateway:
        url = f"http://{gateway.rest}"
        async with httpx.AsyncClient(base_url=url, timeout=60) as http, grpc.aio.insecure_channel(gateway.grpc) as rpc:
            yield Doors(http, rpc, backend, imports, url, address, signer, gateway.grpc)
    await server.stop(0)


def _fill(backend: backends.Backend) -> None:
    backend.reset()
    past = to_timestamp(datetime.now(UTC) - timedelta(seconds=1))
    known = {"workspace": "w", "principal": "ada"}
    backend.api_keys.put(ADMIN, Credential(scopes=SCOPES, credential_id="1", **known))
    backend.api_keys.put(READER, Credential(scopes=["nothing.read"], credential_id="2", **known))
    backend.api_keys.put(EXPIRED, Credential(scopes=SCOPES, credential_id="3", expires_at=past, **known))
    backend.api_keys.put(DENIED, Credential(scopes=SCOPES, credential_id="4", workspace="closed", principal="ada"))
    backend.write_keys.put(
        WRITE, Credential(scopes=["ingest.append"], credential_id="s1", workspace="w", principal="source:s1")
    )


@pytest.fixture
def doors(running: Doors) -> Doors:
    running.backend.reset()
    return running


@pytest.fixture
def admin() -> dict[str, str]:
    return {"x-api-key": ADMIN}
