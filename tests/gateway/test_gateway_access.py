"""Who may call what, at both doors, for every method of the descriptor image: a new RPC is tested at once."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from counterfoil_gateway import api as apis
from google.protobuf import descriptor_pb2

from tests.gateway.conftest import ADMIN, EXPIRED, READER, UNKNOWN, WRITE, Doors

pytestmark = pytest.mark.asyncio(loop_scope="session")
C = grpc.StatusCode
API = apis.load(apis.image())
PUBLIC = {m.name: m for m in API.methods}
FILES = descriptor_pb2.FileDescriptorSet.FromString(apis.image()).file
EVERY = {
    f"/{f.package}.{s.name}/{m.name}": m
    for f in FILES
    if f.package.startswith("counterfoil.")
    for s in f.service
    for m in s.method
}
BINDINGS = [pytest.param(m, b, id=f"{b.verb} {b.path}") for m in API.methods for b in m.bindings]
CALLERS = {
    "nobody": (None, 401, "CREDENTIAL_MISSING"),
    "a stranger": (UNKNOWN, 401, "CREDENTIAL_INVALID"),
    "a malformed key": ("let me in", 401, "CREDENTIAL_INVALID"),
    "an expired key": (EXPIRED, 401, "CREDENTIAL_EXPIRED"),
    "a write key": (WRITE, 401, "CREDENTIAL_WRONG_KIND"),
    "a key without the scope": (READER, 403, "SCOPE_MISSING"),
}


def url(binding: apis.Binding) -> str:
    path = "/" + "/".join("7" if s.startswith("{") else s for s in binding.segments)
    return f"{path}:{binding.action}" if binding.action else path


@pytest.mark.parametrize(("method", "binding"), BINDINGS)
async def test_rest_refuses_before_the_body_is_read(doors: Doors, method: Any, binding: Any):
    for caller, (key, status, reason) in CALLERS.items():
        headers = {"x-api-key": key} if key else {}
        answer = await doors.http.request(binding.verb, url(binding), headers=headers, content=b"not even JSON")
        assert (answer.status_code, answer.json()["reason"]) == (status, reason), (caller, answer.text)
        if status == 403:
            assert answer.json()["metadata"] == {"policy_id": f"scope:{method.scope}"}
        else:
            assert answer.headers["www-authenticate"].startswith("Bearer")
    assert doors.backend.requests == []


@pytest.mark.parametrize(("method", "binding"), BINDINGS)
async def test_rest_lets_a_key_with_the_scope_pass(doors: Doors, method: Any, binding: Any):
    body = {"json": {}} if binding.body else {}
    answer = await doors.http.request(binding.verb, url(binding), headers={"authorization": f"Bearer {ADMIN}"}, **body)
    assert answer.status_code in (200, 400, 404), answer.text


async def refusal(doors: Doors, name: str, key: str | None) -> tuple[grpc.StatusCode, str]:
    """Call a method with nothing in it; return the code and the reason."""
    declared = EVERY[name]

    async def none() -> Any:
        yield b""

    kind = f"{'stream' if declared.client_streaming else 'unary'}_{'stream' if declared.server_streaming else 'unary'}"
    metadata = (("x-api-key", key),) if key else ()
    call = getattr(doors.rpc, kind)(name)(none() if declared.client_streaming else b"", metadata=metadata, timeout=10)
    try:
        if declared.server_streaming:
            async for _ in call:
                break
            call.cancel()
        else:
            await call
    except grpc.aio.AioRpcError as error:
        found = str(dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b""))
        return error.code(), found
    return C.OK, ""


@pytest.mark.parametrize("name", PUBLIC)
async def test_grpc_refuses_with_the_same_reasons(doors: Doors, name: str):
    for caller, (key, status, reason) in CALLERS.items():
        code, details = await refusal(doors, name, key)
        assert code is (C.UNAUTHENTICATED if status == 401 else C.PERMISSION_DENIED), caller
        assert reason in details
    assert doors.backend.requests == []


@pytest.mark.parametrize("name", PUBLIC)
async def test_grpc_lets_a_key_with_the_scope_pass(doors: Doors, name: str):
    code, _ = await refusal(doors, name, ADMIN)
    assert code not in (C.UNAUTHENTICATED, C.PERMISSION_DENIED, C.UNIMPLEMENTED)


@pytest.mark.parametrize("name", sorted(EVERY.keys() - PUBLIC.keys()))
async def test_grpc_does_not_know_internal_methods(doors: Doors, name: str):
    for key in (None, ADMIN):
        assert (await refusal(doors, name, key))[0] is C.UNIMPLEMENTED
    assert doors.backend.requests == []


async def test_the_upload_route_is_guarded_alike(doors: Doors):
    for key, status, reason in CALLERS.values():
        headers = {"x-api-key": key} if key else {}
        answer = await doors.http.post("/v1/imports?dataset=d&format=csv", headers=headers, content=b"a\n")
        assert (answer.status_code, answer.json()["reason"]) == (status, reason)
