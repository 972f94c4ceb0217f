"""Who may call what, at both doors, for every method of the descriptor image: a new RPC is tested at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from counterfoil.common.v1.credentials_pb2 import Credential
from counterfoil_gateway import api as apis
from counterfoil_gateway.addresses import SAFE
from counterfoil_gateway.calls import kind_of
from counterfoil_gateway.console.sessions import COOKIE
from counterfoil_gateway.exports import EXPORT, ExportAudit
from counterfoil_gateway.imports import UPLOAD, UploadImport
from google.protobuf import descriptor_pb2

from tests.gateway.conftest import ADMIN, DENIED, EXPIRED, READER, SCOPES, UNKNOWN, WRITE, Doors

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
BY_HAND = {UPLOAD: UploadImport.binding, EXPORT: ExportAudit.binding}
SERVED = [(m, b) for m in API.methods for b in m.bindings] + [(PUBLIC[name], b) for name, b in BY_HAND.items()]
BINDINGS = [pytest.param(m, b, id=f"{b.verb} {b.path}") for m, b in SERVED]
WITHDRAWN = "cfk_" + "q" * 43
ELSEWHERE = {"x-workspace": "other", "x-counterfoil-workspace": "other", "workspace": "other"}


@dataclass(frozen=True)
class Visitor:
    """Somebody at the door, and how each request of theirs is refused."""

    headers: dict[str, str]
    status: int
    reason: str
    policy: str = ""
    """The policy that the refusal names; `{scope}` is the method's."""


def with_key(key: str) -> dict[str, str]:
    return {"x-api-key": key}


KEYS = {
    "nobody": Visitor({}, 401, "CREDENTIAL_MISSING"),
    "a stranger": Visitor(with_key(UNKNOWN), 401, "CREDENTIAL_INVALID"),
    "a malformed key": Visitor(with_key("let me in"), 401, "CREDENTIAL_INVALID"),
    "an expired key": Visitor(with_key(EXPIRED), 401, "CREDENTIAL_EXPIRED"),
    "a revoked key": Visitor(with_key(WITHDRAWN), 401, "CREDENTIAL_INVALID"),
    "a write key": Visitor(with_key(WRITE), 401, "CREDENTIAL_WRONG_KIND"),
    "a key without the scope": Visitor(with_key(READER), 403, "SCOPE_MISSING", "scope:{scope}"),
    "a key that a policy forbids": Visitor(with_key(DENIED), 403, "POLICY_DENIED", "closed-for-stocktaking"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def sessions(running: Doors) -> dict[str, str]:
    """Return the cookies of browsers by the name of whose key opened them; then withdraw one of the keys."""
    put, delete = running.backend.api_keys.put, running.backend.api_keys.delete
    put(WITHDRAWN, Credential(scopes=SCOPES, workspace="w", principal="ada"))
    opened = {"ada": ADMIN, "reader": READER, "denied": DENIED, "withdrawn": WITHDRAWN}
    cookies: dict[str, str] = {}
    for name, key in opened.items():
        async with httpx.AsyncClient(base_url=running.url, timeout=60) as browser:
            made = await browser.post("/console/sign-in-links", headers=with_key(key))
            await browser.get(made.json()["url"])
            cookies[name] = f"{COOKIE}={browser.cookies[COOKIE]}"
    delete(WITHDRAWN)
    while (await running.http.get("/v1/workspaces/mine", headers=with_key(WITHDRAWN))).status_code != 401:
        pass  # until the watch has brought it
    return cookies


def browsers(cookies: dict[str, str], verb: str, origin: str) -> dict[str, Visitor]:
    """Return those who come by a session and are refused."""
    foreign = {"origin": "https://evil.example"}
    same = {"origin": origin}
    found = {
        "a forged session": Visitor(same | {"cookie": f"{COOKIE}=AAAA"}, 401, "SESSION_INVALID"),
        "a revoked key's session": Visitor(same | {"cookie": cookies["withdrawn"]}, 401, "CREDENTIAL_INVALID"),
        "a session without the scope": Visitor(
            same | {"cookie": cookies["reader"]}, 403, "SCOPE_MISSING", "scope:{scope}"
        ),
        "a session that a policy forbids": Visitor(
            same | {"cookie": cookies["denied"]}, 403, "POLICY_DENIED", "closed-for-stocktaking"
        ),
    }
    if verb not in SAFE:
        found |= {
            "a session from another site": Visitor(foreign | {"cookie": cookies["ada"]}, 403, "ORIGIN_REFUSED"),
            "a session from nowhere": Visitor({"cookie": cookies["ada"]}, 403, "ORIGIN_REFUSED"),
        }
    return found


def url(binding: apis.Binding) -> str:
    path = "/" + "/".join("7" if s.startswith("{") else s for s in binding.segments)
    return f"{path}:{binding.action}" if binding.action else path


async def status_of(doors: Doors, binding: apis.Binding, headers: dict[str, str]) -> tuple[int, str]:
    """Ask with nothing in particular; return the status, and what was said when it is a refusal."""
    body = {"json": {}} if binding.body else {}
    async with doors.http.stream(binding.verb, url(binding), headers=headers, **body) as answer:
        if answer.is_success:
            return answer.status_code, ""  # it may go on for ever
        await answer.aread()
        return answer.status_code, answer.text


async def test_every_public_method_is_in_the_matrix():
    """A method without a REST form is one that streams, and open by gRPC alone on purpose."""
    by_rest = {m.name for m, _ in SERVED}
    assert {m.rpc for m in API.methods if m.name not in by_rest} == {"StreamQuery"}
    assert all(kind_of(PUBLIC[name]) != "unary_unary" for name in BY_HAND)
    assert len(PUBLIC) > 60


@pytest.mark.parametrize(("method", "binding"), BINDINGS)
async def test_rest_refuses_before_the_body_is_read(doors: Doors, sessions: dict[str, str], method: Any, binding: Any):
    visitors = KEYS | browsers(sessions, binding.verb, doors.url)
    for name, visitor in visitors.items():
        answer = await doors.http.request(binding.verb, url(binding), headers=visitor.headers, content=b"not even JSON")
        assert (answer.status_code, answer.json()["reason"]) == (visitor.status, visitor.reason), (name, answer.text)
        policy = answer.json()["metadata"].get("policy_id", "")
        assert policy == visitor.policy.format(scope=method.scope), name
        if visitor.status == 401:
            assert answer.headers["www-authenticate"].startswith("Bearer")
    assert doors.backend.requests == []


@pytest.mark.parametrize(("method", "binding"), BINDINGS)
async def test_rest_lets_the_right_ones_pass_into_their_own_workspace(
    doors: Doors, sessions: dict[str, str], method: Any, binding: Any
):
    origin = {} if binding.verb in SAFE else {"origin": doors.url}
    for headers in (with_key(ADMIN), {"authorization": f"Bearer {ADMIN}"}, {"cookie": sessions["ada"]} | origin):
        status, text = await status_of(doors, binding, headers | ELSEWHERE)
        assert status in (200, 204, 400, 404), text
    assert {caller.workspace for caller in doors.backend.callers} <= {"w"}
    assert {caller.service for caller in doors.backend.callers} <= {""}


async def refusal(doors: Doors, name: str, headers: dict[str, str]) -> tuple[grpc.StatusCode, str]:
    """Call a method with nothing in it; return the code and what the rich error says."""
    declared = EVERY[name]

    async def none() -> Any:
        yield b""

    kind = f"{'stream' if declared.client_streaming else 'unary'}_{'stream' if declared.server_streaming else 'unary'}"
    request = none() if declared.client_streaming else b""
    call = getattr(doors.rpc, kind)(name)(request, metadata=tuple(headers.items()), timeout=60)
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
async def test_grpc_refuses_with_the_same_reasons(doors: Doors, sessions: dict[str, str], name: str):
    cookie = Visitor({"cookie": sessions["ada"], "origin": doors.url}, 401, "CREDENTIAL_MISSING")
    for who, visitor in (KEYS | {"a session": cookie}).items():
        code, details = await refusal(doors, name, visitor.headers)
        assert code is (C.UNAUTHENTICATED if visitor.status == 401 else C.PERMISSION_DENIED), who
        assert visitor.reason in details
        assert visitor.policy.format(scope=PUBLIC[name].scope) in details
    assert doors.backend.requests == []


@pytest.mark.parametrize("name", PUBLIC)
async def test_grpc_lets_a_key_with_the_scope_pass_into_its_own_workspace(doors: Doors, name: str):
    code, _ = await refusal(doors, name, with_key(ADMIN) | ELSEWHERE)
    assert code not in (C.UNAUTHENTICATED, C.PERMISSION_DENIED, C.UNIMPLEMENTED)
    assert {caller.workspace for caller in doors.backend.callers} <= {"w"}


@pytest.mark.parametrize("name", sorted(EVERY.keys() - PUBLIC.keys()))
async def test_grpc_does_not_know_internal_methods(doors: Doors, name: str):
    for headers in ({}, with_key(ADMIN)):
        assert (await refusal(doors, name, headers))[0] is C.UNIMPLEMENTED
    assert doors.backend.requests == []
