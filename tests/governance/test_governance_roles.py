"""Roles: they bound what keys can do, at once, and travel to whoever checks policies."""

from __future__ import annotations

import hashlib

import pytest
from counterfoil.common.v1.credentials_pb2 import Credential
from counterfoil.governance.v1 import credentials_pb2, keys_pb2
from counterfoil.governance.v1 import principals_pb2 as pb
from counterfoil_governance.scopes import ALL_SCOPES, ROLES, SCOPES, WORKSPACE_SCOPES

from tests.governance.calls import ADMIN_KEY, Governance, refused

HUMAN = pb.Principal.Kind.HUMAN


async def look_up(governance: Governance, api_key: str) -> Credential:
    request = credentials_pb2.LookupCredentialRequest(secret_sha256=hashlib.sha256(api_key.encode()).digest())
    return await governance.credentials.LookupCredential(request, **governance.as_service("gateway"))


async def watched(governance: Governance) -> dict[str, Credential]:
    """Return what a new watcher is told, by key id."""
    seen = {}
    stream = governance.credentials.WatchCredentials(
        credentials_pb2.WatchCredentialsRequest(), **governance.as_service("gateway")
    )
    async for response in stream:
        if response.WhichOneof("change") == "heartbeat":
            break
        credential = Credential()
        response.put.resource.Unpack(credential)
        seen[credential.credential_id] = credential
    return seen


async def create_key(governance: Governance, principal: str, *scopes: str) -> keys_pb2.CreateKeyResponse:
    request = keys_pb2.CreateKeyRequest(principal_id=principal, scopes=scopes)
    return await governance.keys.CreateKey(request, **governance.as_principal())


async def set_roles(governance: Governance, principal: str, *roles: str) -> pb.Principal:
    request = pb.SetPrincipalRolesRequest(principal_id=principal, roles=roles)
    return await governance.principals.SetPrincipalRoles(request, **governance.as_principal())


async def create(governance: Governance, principal: str, *roles: str) -> pb.Principal:
    request = pb.CreatePrincipalRequest(principal_id=principal, kind=HUMAN, roles=roles)
    return await governance.principals.CreatePrincipal(request, **governance.as_principal())


async def test_lists_every_role_with_its_scopes_page_by_page(governance: Governance) -> None:
    seen, request = [], pb.ListRolesRequest(page_size=3)
    while True:
        page = await governance.principals.ListRoles(request, **governance.as_principal())
        seen += page.roles
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert [role.role for role in seen] == sorted(ROLES) == list(ROLES)
    admin = next(role for role in seen if role.role == "admin")
    assert admin.scopes == [scope for scope in SCOPES if scope in WORKSPACE_SCOPES]
    assert all(role.description for role in seen)


async def test_a_key_of_no_named_scopes_gets_what_the_roles_allow_of_its_creators(governance: Governance) -> None:
    await create(governance, "ada", "reviewer")
    created = await create_key(governance, "ada")
    assert frozenset(created.key.scopes) == ROLES["reviewer"].scopes
    credential = await look_up(governance, created.api_key)
    assert (frozenset(credential.scopes), list(credential.roles)) == (ROLES["reviewer"].scopes, ["reviewer"])


async def test_a_key_cannot_be_asked_to_hold_more_than_the_roles_allow(governance: Governance) -> None:
    await create(governance, "ada", "viewer", "reviewer")
    with refused("SCOPE_OUTSIDE_ROLES") as refusal:
        await create_key(governance, "ada", "ingest.read", "ingest.write")
    assert refusal.failure is not None
    assert refusal.failure.metadata == {"scopes": "ingest.write", "roles": "reviewer,viewer"}


async def test_other_roles_narrow_the_keys_at_once_and_for_good(governance: Governance) -> None:
    await create(governance, "ada")
    created = await create_key(governance, "ada", "models.write", "models.read", "governance.read")
    assert (await set_roles(governance, "ada", "viewer")).roles == ["viewer"]
    credential = await look_up(governance, created.api_key)
    assert (list(credential.scopes), list(credential.roles)) == (["governance.read", "models.read"], ["viewer"])
    assert (await watched(governance))[created.key.key_id] == credential
    assert (await set_roles(governance, "ada")).roles == []
    credential = await look_up(governance, created.api_key)
    assert (list(credential.scopes), list(credential.roles)) == (["governance.read", "models.read"], [])
    shown = await governance.keys.GetKey(keys_pb2.GetKeyRequest(key_id=created.key.key_id), **governance.as_principal())
    assert list(shown.scopes) == ["governance.read", "models.read"]


async def test_other_keys_are_left_alone(governance: Governance) -> None:
    await create(governance, "ada")
    await create(governance, "bob")
    other = await create_key(governance, "bob", "models.write")
    await set_roles(governance, "ada", "viewer")
    assert list((await look_up(governance, other.api_key)).scopes) == ["models.write"]


async def test_roles_cannot_take_the_last_governing_key(governance: Governance) -> None:
    with refused("LAST_ADMIN_KEY"):
        await set_roles(governance, "admin", "viewer")
    assert frozenset((await look_up(governance, ADMIN_KEY)).scopes) == ALL_SCOPES
    await set_roles(governance, "admin", "steward")
    assert frozenset((await look_up(governance, ADMIN_KEY)).scopes) == ROLES["steward"].scopes


@pytest.mark.parametrize("call", [create, set_roles])
async def test_an_unknown_role_is_refused_with_the_known_ones(governance: Governance, call: object) -> None:
    await create(governance, "ada")
    name = "ada" if call is set_roles else "bob"
    with refused("ROLE_UNKNOWN") as refusal:
        await call(governance, name, "viewer", "emperor")  # type: ignore[operator]
    assert refusal.failure is not None
    assert refusal.failure.metadata == {"unknown": "emperor", "roles": ",".join(ROLES)}


async def test_nobody_gives_a_role_that_allows_more_than_they_hold(governance: Governance) -> None:
    await create(governance, "ada", "analyst")
    steward = governance.as_principal(principal="stu", scopes=ROLES["steward"].scopes)
    for roles in (["analyst", "admin"], ["engineer"]):
        with refused("SCOPE_NOT_HELD"):
            await governance.principals.SetPrincipalRoles(
                pb.SetPrincipalRolesRequest(principal_id="ada", roles=roles), **steward
            )
    kept = await governance.principals.SetPrincipalRoles(
        pb.SetPrincipalRolesRequest(principal_id="ada", roles=["analyst", "steward"]), **steward
    )
    assert list(kept.roles) == ["analyst", "steward"]


async def test_the_same_roles_again_change_nothing_and_tell_nobody(governance: Governance) -> None:
    await create(governance, "ada", "viewer")
    await create_key(governance, "ada")
    before = await watched(governance)
    await set_roles(governance, "ada", "viewer")
    assert await watched(governance) == before
