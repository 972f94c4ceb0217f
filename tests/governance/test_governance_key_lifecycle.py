"""Whatever is done to keys and principals, the accepted keys are those of a model, and somebody can always govern."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import grpc
from counterfoil.common.v1.credentials_pb2 import Credential
from counterfoil.governance.v1 import credentials_pb2, keys_pb2, principals_pb2, workspaces_pb2
from counterfoil_chassis.status import failure_of
from counterfoil_governance.scopes import WORKSPACE_SCOPES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.governance.calls import Governance

PRINCIPALS = ("admin", "ada", "robot")
OPERATIONS = st.one_of(
    st.tuples(st.just("create"), st.sampled_from(PRINCIPALS), st.booleans()),
    st.tuples(st.just("revoke"), st.integers(0, 9), st.just(None)),
    st.tuples(st.just("disable"), st.sampled_from(PRINCIPALS), st.just(None)),
)
_numbers = itertools.count()


@dataclass
class ModelKey:
    principal: str
    governs: bool
    accepted: bool = True


@dataclass
class Model:
    """What the service should hold: keys by id in the order of creation, and who is disabled."""

    keys: dict[str, ModelKey]
    disabled: set[str] = field(default_factory=set)

    def governing(self) -> set[str]:
        return {key_id for key_id, key in self.keys.items() if key.accepted and key.governs}

    def expect_revoke(self, key_id: str) -> str:
        if self.keys[key_id].accepted and self.governing() == {key_id}:
            return "LAST_ADMIN_KEY"
        self.keys[key_id].accepted = False
        return ""

    def expect_disable(self, principal: str) -> str:
        held = {key_id for key_id, key in self.keys.items() if key.principal == principal}
        if principal not in self.disabled and self.governing() and self.governing() <= held:
            return "LAST_ADMIN_KEY"
        self.disabled.add(principal)
        for key_id in held:
            self.keys[key_id].accepted = False
        return ""


async def reason_of(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return failure_of(error).reason
    return ""


async def new_workspace(governance: Governance) -> tuple[dict[str, Any], Model]:
    """Make a workspace of its own for one example, with every principal."""
    name = f"w{next(_numbers)}x"
    await governance.workspaces.CreateWorkspace(
        workspaces_pb2.CreateWorkspaceRequest(workspace_id=name), **governance.as_principal()
    )
    caller = governance.as_principal(workspace=name, scopes=WORKSPACE_SCOPES)
    for principal in PRINCIPALS[1:]:
        await governance.principals.CreatePrincipal(
            principals_pb2.CreatePrincipalRequest(principal_id=principal, kind=principals_pb2.Principal.Kind.HUMAN),
            **caller,
        )
    first = (await governance.keys.ListKeys(keys_pb2.ListKeysRequest(), **caller)).keys[0]
    return caller, Model({first.key_id: ModelKey("admin", governs=True)})


async def step(governance: Governance, caller: dict[str, Any], model: Model, operation: tuple[str, Any, Any]) -> None:
    name, subject, governs = operation
    if name == "create":
        scopes = ["governance.write"] if governs else ["ingest.read"]
        request = keys_pb2.CreateKeyRequest(principal_id=subject, scopes=scopes)
        if subject in model.disabled:
            assert await reason_of(governance.keys.CreateKey(request, **caller)) == "PRINCIPAL_DISABLED"
            return
        created = await governance.keys.CreateKey(request, **caller)
        model.keys[created.key.key_id] = ModelKey(subject, governs)
    elif name == "revoke":
        key_id = list(model.keys)[subject % len(model.keys)]
        call = governance.keys.RevokeKey(keys_pb2.RevokeKeyRequest(key_id=key_id), **caller)
        assert await reason_of(call) == model.expect_revoke(key_id)
    else:
        request = principals_pb2.DisablePrincipalRequest(principal_id=subject)
        call = governance.principals.DisablePrincipal(request, **caller)
        assert await reason_of(call) == model.expect_disable(subject)


async def watched(governance: Governance, key_ids: set[str]) -> set[str]:
    """Return which of these keys a new watcher is told of."""
    seen = set()
    stream = governance.credentials.WatchCredentials(
        credentials_pb2.WatchCredentialsRequest(), **governance.as_service("gateway")
    )
    async for response in stream:
        if response.WhichOneof("change") == "heartbeat":
            break
        credential = Credential()
        response.put.resource.Unpack(credential)
        seen.add(credential.credential_id)
    return seen & key_ids


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(OPERATIONS, max_size=12))
async def test_accepted_keys_follow_the_model(governance: Governance, operations: list[tuple[str, Any, Any]]) -> None:
    caller, model = await new_workspace(governance)
    for operation in operations:
        await step(governance, caller, model, operation)
        assert model.governing(), "nobody can govern the workspace any more"
    accepted = {key_id for key_id, key in model.keys.items() if key.accepted}
    assert await watched(governance, set(model.keys)) == accepted
    listed = await governance.keys.ListKeys(keys_pb2.ListKeysRequest(), **caller)
    assert {key.key_id for key in listed.keys if not key.HasField("revoked_at")} == accepted
