"""Principals and API keys: made, granted, watched, revoked."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import timedelta
from pathlib import Path

import pytest
from counterfoil.common.v1.credentials_pb2 import Credential
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.governance.v1 import credentials_pb2, principals_pb2
from counterfoil.governance.v1 import keys_pb2 as pb
from counterfoil_chassis.clock import to_timestamp
from counterfoil_governance.scopes import ALL_SCOPES, SCOPES

from tests.governance.calls import ADMIN_KEY, Governance, refused

PROGRAM = principals_pb2.Principal.Kind.PROGRAM


async def add_principal(governance: Governance, principal_id: str) -> principals_pb2.Principal:
    request = principals_pb2.CreatePrincipalRequest(principal_id=principal_id, kind=PROGRAM)
    return await governance.principals.CreatePrincipal(request, **governance.as_principal())


async def add_key(governance: Governance, principal_id: str = "admin", *scopes: str) -> pb.CreateKeyResponse:
    request = pb.CreateKeyRequest(principal_id=principal_id, scopes=scopes)
    return await governance.keys.CreateKey(request, **governance.as_principal())


async def look_up(governance: Governance, key: str) -> Credential:
    request = credentials_pb2.LookupCredentialRequest(secret_sha256=hashlib.sha256(key.encode()).digest())
    return await governance.credentials.LookupCredential(request, **governance.as_service("gateway"))


async def accepted(governance: Governance) -> dict[str, Credential]:
    """Return the state that a new watcher gets, by key."""
    state: dict[str, Credential] = {}
    async for response in governance.credentials.WatchCredentials(
        credentials_pb2.WatchCredentialsRequest(), **governance.as_service("gateway")
    ):
        if response.WhichOneof("change") == "heartbeat":
            return state
        credential = Credential()
        response.put.resource.Unpack(credential)
        state[response.put.key] = credential
    raise AssertionError("the stream ended")


async def test_the_bootstrap_key_is_accepted_with_every_scope(governance: Governance) -> None:
    credential = await look_up(governance, ADMIN_KEY)
    assert (credential.workspace, credential.principal) == ("default", "admin")
    assert frozenset(credential.scopes) == ALL_SCOPES


async def test_a_key_is_shown_once_and_kept_as_its_digest(governance: Governance, tmp_path: Path) -> None:
    created = await add_key(governance, "admin", "ingest.read")
    credential = await look_up(governance, created.api_key)
    assert credential.credential_id == created.key.key_id
    assert list(credential.scopes) == ["ingest.read"]
    shown = await governance.keys.GetKey(pb.GetKeyRequest(key_id=created.key.key_id), **governance.as_principal())
    assert shown == created.key
    stored = (tmp_path / "governance.db-wal").read_bytes()
    assert created.key.key_id.encode() in stored
    assert created.api_key.encode() not in stored


async def test_a_key_without_scopes_gets_those_of_its_creator(governance: Governance) -> None:
    held = frozenset({"governance.write", "models.read"})
    created = await governance.keys.CreateKey(
        pb.CreateKeyRequest(principal_id="admin"), **governance.as_principal(scopes=held)
    )
    assert frozenset(created.key.scopes) == held


async def test_an_unknown_scope_is_refused_with_the_list_of_scopes(governance: Governance) -> None:
    with refused("SCOPE_UNKNOWN") as refusal:
        await add_key(governance, "admin", "ingest.everything")
    assert refusal.failure is not None
    assert refusal.failure.metadata["scopes"].split(",") == list(SCOPES)


async def test_nobody_hands_out_a_scope_they_lack(governance: Governance) -> None:
    caller = governance.as_principal(scopes=frozenset({"governance.write"}))
    with refused("SCOPE_NOT_HELD") as refusal:
        await governance.keys.CreateKey(pb.CreateKeyRequest(principal_id="admin", scopes=["platform.admin"]), **caller)
    assert refusal.failure is not None
    assert refusal.failure.metadata == {"scopes": "platform.admin"}


async def test_a_key_ends_when_it_was_said_to(governance: Governance) -> None:
    ends = governance.clock.now() + timedelta(minutes=1)
    request = pb.CreateKeyRequest(principal_id="admin", expires_at=to_timestamp(ends))
    created = await governance.keys.CreateKey(request, **governance.as_principal())
    assert (await look_up(governance, created.api_key)).expires_at == to_timestamp(ends)
    governance.clock.move(timedelta(minutes=1))
    with refused("CREDENTIAL_NOT_FOUND"):
        await look_up(governance, created.api_key)


async def test_a_key_cannot_end_before_it_begins(governance: Governance) -> None:
    request = pb.CreateKeyRequest(principal_id="admin", expires_at=to_timestamp(governance.clock.now()))
    with refused("EXPIRY_PAST"):
        await governance.keys.CreateKey(request, **governance.as_principal())


async def test_a_revoked_key_is_refused_and_revoking_it_again_changes_nothing(governance: Governance) -> None:
    created = await add_key(governance)
    request = pb.RevokeKeyRequest(key_id=created.key.key_id)
    first = await governance.keys.RevokeKey(request, **governance.as_principal())
    governance.clock.move(timedelta(seconds=1))
    assert await governance.keys.RevokeKey(request, **governance.as_principal()) == first
    with refused("CREDENTIAL_NOT_FOUND"):
        await look_up(governance, created.api_key)
    assert hashlib.sha256(created.api_key.encode()).hexdigest() not in await accepted(governance)


async def test_watchers_learn_of_keys_as_they_come_and_go(governance: Governance) -> None:
    stream = governance.credentials.WatchCredentials(
        credentials_pb2.WatchCredentialsRequest(), **governance.as_service("gateway")
    )
    changes = aiter(stream)

    async def next_change() -> WatchResponse:
        while True:
            response = await asyncio.wait_for(anext(changes), 60)
            if response.WhichOneof("change") != "heartbeat":
                return response

    assert (await next_change()).put.key == hashlib.sha256(ADMIN_KEY.encode()).hexdigest()
    created = await add_key(governance)
    digest = hashlib.sha256(created.api_key.encode()).hexdigest()
    assert (await next_change()).put.key == digest
    await governance.keys.RevokeKey(pb.RevokeKeyRequest(key_id=created.key.key_id), **governance.as_principal())
    assert (await next_change()).delete.key == digest
    stream.cancel()


async def test_only_the_gateway_sees_credentials(governance: Governance) -> None:
    request = credentials_pb2.LookupCredentialRequest(secret_sha256=bytes(32))
    for caller in (governance.as_principal(), governance.as_service("models")):
        with refused_any():
            await governance.credentials.LookupCredential(request, **caller)


def refused_any() -> pytest.RaisesExc[Exception]:
    return pytest.raises(Exception, match="PERMISSION_DENIED")


async def test_disabling_a_principal_revokes_its_keys_at_once(governance: Governance) -> None:
    await add_principal(governance, "robot")
    created = [await add_key(governance, "robot") for _ in range(2)]
    request = principals_pb2.DisablePrincipalRequest(principal_id="robot")
    disabled = await governance.principals.DisablePrincipal(request, **governance.as_principal())
    assert disabled.state == principals_pb2.Principal.State.DISABLED
    assert await governance.principals.DisablePrincipal(request, **governance.as_principal()) == disabled
    for key in created:
        with refused("CREDENTIAL_NOT_FOUND"):
            await look_up(governance, key.api_key)
    assert len(await accepted(governance)) == 1
    with refused("PRINCIPAL_DISABLED"):
        await add_key(governance, "robot")


async def test_the_last_key_that_governs_cannot_be_lost(governance: Governance) -> None:
    only = (await governance.keys.ListKeys(pb.ListKeysRequest(), **governance.as_principal())).keys[0]
    await add_key(governance, "admin", "ingest.read")
    with refused("LAST_ADMIN_KEY"):
        await governance.keys.RevokeKey(pb.RevokeKeyRequest(key_id=only.key_id), **governance.as_principal())
    with refused("LAST_ADMIN_KEY"):
        await governance.principals.DisablePrincipal(
            principals_pb2.DisablePrincipalRequest(principal_id="admin"), **governance.as_principal()
        )
    await add_principal(governance, "deputy")
    await add_key(governance, "deputy", "governance.write")
    revoked = await governance.keys.RevokeKey(pb.RevokeKeyRequest(key_id=only.key_id), **governance.as_principal())
    assert revoked.HasField("revoked_at")


async def test_an_expired_key_does_not_count_as_one_that_governs(governance: Governance) -> None:
    only = (await governance.keys.ListKeys(pb.ListKeysRequest(), **governance.as_principal())).keys[0]
    ends = governance.clock.now() + timedelta(minutes=1)
    request = pb.CreateKeyRequest(principal_id="admin", expires_at=to_timestamp(ends))
    await governance.keys.CreateKey(request, **governance.as_principal())
    governance.clock.move(timedelta(hours=1))
    with refused("LAST_ADMIN_KEY"):
        await governance.keys.RevokeKey(pb.RevokeKeyRequest(key_id=only.key_id), **governance.as_principal())


async def test_keys_and_principals_of_another_workspace_are_not_found(governance: Governance) -> None:
    created = await add_key(governance)
    stranger = governance.as_principal(workspace="elsewhere")
    with refused("KEY_NOT_FOUND"):
        await governance.keys.GetKey(pb.GetKeyRequest(key_id=created.key.key_id), **stranger)
    with refused("KEY_NOT_FOUND"):
        await governance.keys.RevokeKey(pb.RevokeKeyRequest(key_id=created.key.key_id), **stranger)
    with refused("PRINCIPAL_NOT_FOUND"):
        await governance.principals.GetPrincipal(principals_pb2.GetPrincipalRequest(principal_id="admin"), **stranger)
    with refused("PRINCIPAL_NOT_FOUND"):
        await governance.principals.DisablePrincipal(
            principals_pb2.DisablePrincipalRequest(principal_id="admin"), **stranger
        )
    assert not (await governance.keys.ListKeys(pb.ListKeysRequest(), **stranger)).keys


async def test_pages_hold_every_key_and_principal_once_in_order(governance: Governance) -> None:
    ids = [f"robot-{number}" for number in range(5)]
    for principal_id in ids:
        await add_principal(governance, principal_id)
        await add_key(governance, principal_id)
    keys, principals = [], []
    key_page = pb.ListKeysRequest(page_size=2)
    while True:
        answer = await governance.keys.ListKeys(key_page, **governance.as_principal())
        keys += [key.key_id for key in answer.keys]
        key_page.page_token = answer.next_page_token
        if not answer.next_page_token:
            break
    page = principals_pb2.ListPrincipalsRequest(page_size=2)
    while True:
        listed = await governance.principals.ListPrincipals(page, **governance.as_principal())
        principals += [principal.principal_id for principal in listed.principals]
        page.page_token = listed.next_page_token
        if not listed.next_page_token:
            break
    assert principals == ["admin", *ids]
    assert len(keys) == 6
    assert keys == sorted(set(keys))
    of_one = await governance.keys.ListKeys(pb.ListKeysRequest(principal_id=ids[0]), **governance.as_principal())
    assert [key.principal_id for key in of_one.keys] == [ids[0]]


async def test_a_principal_id_is_never_used_again(governance: Governance) -> None:
    await add_principal(governance, "robot")
    await governance.principals.DisablePrincipal(
        principals_pb2.DisablePrincipalRequest(principal_id="robot"), **governance.as_principal()
    )
    with refused("PRINCIPAL_EXISTS"):
        await add_principal(governance, "robot")


def test_every_scope_that_a_method_asks_for_is_known() -> None:
    """The protos and the list of scopes cannot drift apart."""
    import counterfoil
    from counterfoil.common.v1 import options_pb2
    from google.protobuf import descriptor_pb2

    image = descriptor_pb2.FileDescriptorSet.FromString(Path(counterfoil.__file__).with_name("api.binpb").read_bytes())
    asked = {
        method.options.Extensions[options_pb2.scope]
        for file in image.file
        for service in file.service
        for method in service.method
    }
    assert asked - {""} <= ALL_SCOPES, json.dumps(sorted(asked))
