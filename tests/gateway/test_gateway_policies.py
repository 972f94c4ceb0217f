"""Policies at the door: asked after the scope, for every method, and closed when nobody can say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from counterfoil.common.v1.credentials_pb2 import Credential
from counterfoil.governance.v1 import workspaces_pb2, workspaces_pb2_grpc
from counterfoil_chassis.status import failure_of
from counterfoil_governance.policy_text import shipped_policies

from tests.gateway.conftest import ADMIN, READER, SCOPES, WRITE, Doors

pytestmark = pytest.mark.asyncio(loop_scope="session")
STRANGE = "cfk_" + "z" * 43
NO_WRITES = """
@id("analysts-do-not-write") @owner("legal") @description("Analysts read.")
forbid (principal in Counterfoil::Role::"analyst", action == Counterfoil::Action::"call", resource)
when { resource.writes };
@id("no-queries") @owner("legal") @description("No SQL for now.")
forbid (principal, action == Counterfoil::Action::"call",
  resource == Counterfoil::Method::"counterfoil.ingest.v1.QueryService/RunQuery");
"""
BROKEN = """
@id("broken-sum") @owner("legal") @description("Fails for everyone.")
forbid (principal, action == Counterfoil::Action::"call", resource)
when { 9223372036854775807 + 1 > 0 };
"""


@pytest_asyncio.fixture(loop_scope="session")
async def policies(doors: Doors) -> AsyncIterator[Any]:
    yield doors.backend.policies
    doors.backend.policies.activate(shipped_policies())
    await until(doors, 200)


async def until(doors: Doors, status: int, *, key: str = ADMIN, path: str = "/v1/workspaces/mine") -> httpx.Response:
    """Ask until the watch has brought what makes this the answer."""
    while (answer := await doors.http.get(path, headers={"x-api-key": key})).status_code != status:
        pass
    return answer


async def test_a_forbidden_method_names_the_policy_at_both_doors(doors: Doors, policies: Any):
    analyst = Credential(scopes=SCOPES, roles=["analyst"], workspace="w", principal="ben")
    doors.backend.api_keys.put(STRANGE, analyst)
    policies.activate(shipped_policies() + NO_WRITES)
    key = {"x-api-key": STRANGE}
    body = {"json": {"display_name": "Store"}}
    while (answer := await doors.http.patch("/v1/workspaces/shop", headers=key, **body)).status_code != 403:
        pass
    told = answer.json()
    assert (told["reason"], told["metadata"]["policy_id"]) == ("POLICY_DENIED", "analysts-do-not-write")
    assert told["metadata"]["resource"] == "method:counterfoil.governance.v1.WorkspaceService/UpdateWorkspace"
    assert told["metadata"]["bundle_version"] == str(policies.bundle.version)
    assert (await doors.http.get("/v1/workspaces/mine", headers=key)).status_code == 200, "reading is allowed"
    stub: Any = workspaces_pb2_grpc.WorkspaceServiceStub(doors.rpc)
    change = workspaces_pb2.UpdateWorkspaceRequest(workspace={"workspace_id": "shop"})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.UpdateWorkspace(change, metadata=(("x-api-key", STRANGE),))
    failure = failure_of(caught.value)
    assert (caught.value.code(), failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "POLICY_DENIED")
    assert failure.metadata["policy_id"] == "analysts-do-not-write"
    admin = {"x-api-key": ADMIN}
    assert (await doors.http.patch("/v1/workspaces/shop", headers=admin, **body)).status_code == 200
    refused = await doors.http.post("/v1/sql", headers=admin, json={"sql": "SELECT 1"})
    assert (refused.status_code, refused.json()["metadata"]["policy_id"]) == (403, "no-queries")


async def test_the_scope_is_asked_first(doors: Doors, policies: Any):
    policies.activate(BROKEN + shipped_policies())
    await until(doors, 403)
    answer = await doors.http.get("/v1/workspaces/mine", headers={"x-api-key": READER})
    assert (answer.status_code, answer.json()["reason"]) == (403, "SCOPE_MISSING")


async def test_a_policy_that_fails_refuses_and_is_named(doors: Doors, policies: Any):
    policies.activate(BROKEN + shipped_policies())
    told = (await until(doors, 403)).json()
    assert (told["reason"], told["metadata"]["policy_id"]) == ("POLICY_DENIED", "broken-sum")


async def test_what_no_policy_permits_is_refused(doors: Doors, policies: Any):
    policies.activate(NO_WRITES)
    assert (await until(doors, 403)).json()["metadata"]["policy_id"] == "default-deny"


async def test_a_workspace_whose_policies_nobody_knows_is_closed(doors: Doors):
    doors.backend.api_keys.put(STRANGE, Credential(scopes=SCOPES, workspace="new", principal="eve"))
    answer = await until(doors, 503, key=STRANGE)
    assert (answer.json()["reason"], answer.headers["retry-after"]) == ("POLICY_UNAVAILABLE", "1")
    assert doors.backend.policies.lookups > 0, "governance is asked for a workspace not seen yet"


async def test_collection_asks_no_policy(doors: Doors, policies: Any):
    policies.activate(BROKEN)
    await until(doors, 403)
    answer = await doors.http.post("/v1/track", json={"event": "E", "writeKey": WRITE})
    assert answer.status_code == 200, "an SDK drops what is refused"
