"""The bootstrap setting: what a start with it does to an installation."""

from __future__ import annotations

import hashlib
import logging
from datetime import timedelta
from pathlib import Path

import pytest
from counterfoil.common.v1.credentials_pb2 import Credential
from counterfoil.governance.v1 import credentials_pb2, keys_pb2, principals_pb2
from counterfoil_governance.scopes import ALL_SCOPES

from tests.governance.calls import Governance, MovableClock, governance_in, refused


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


async def look_up(governance: Governance, key: str) -> Credential:
    request = credentials_pb2.LookupCredentialRequest(secret_sha256=bytes.fromhex(sha256(key)))
    return await governance.credentials.LookupCredential(request, **governance.as_service("gateway"))


async def test_without_the_setting_an_empty_installation_says_what_to_set(
    tmp_path: Path, clock: MovableClock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with governance_in(tmp_path, clock, bootstrap_key_sha256="") as governance:
            with refused("CREDENTIAL_NOT_FOUND"):
                await look_up(governance, "any")
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("counterfoil_governance")]
    assert len(lines) == 1
    assert "COUNTERFOIL_GOVERNANCE_BOOTSTRAP_KEY_SHA256" in lines[0]


async def test_a_restart_with_another_key_replaces_the_first(tmp_path: Path, clock: MovableClock) -> None:
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=sha256("first")) as governance:
        assert frozenset((await look_up(governance, "first")).scopes) == ALL_SCOPES
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=sha256("second")) as governance:
        assert frozenset((await look_up(governance, "second")).scopes) == ALL_SCOPES
        with refused("CREDENTIAL_NOT_FOUND"):
            await look_up(governance, "first")
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=sha256("first")) as governance:
        await look_up(governance, "first")
        with refused("CREDENTIAL_NOT_FOUND"):
            await look_up(governance, "second")


async def test_a_restart_replaces_the_key_in_force_though_the_clock_was_set_back(
    tmp_path: Path, clock: MovableClock
) -> None:
    for name in ("first", "second", "third", "first"):
        clock.move(timedelta(hours=-1))
        async with governance_in(tmp_path, clock, bootstrap_key_sha256=sha256(name)) as governance:
            await look_up(governance, name)
            for other in {"first", "second", "third"} - {name}:
                with refused("CREDENTIAL_NOT_FOUND"):
                    await look_up(governance, other)


async def test_a_restart_without_a_change_changes_nothing(tmp_path: Path, clock: MovableClock) -> None:
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=sha256("first")) as governance:
        before = await governance.keys.ListKeys(keys_pb2.ListKeysRequest(), **governance.as_principal())
    for setting in (sha256("first"), ""):
        async with governance_in(tmp_path, clock, bootstrap_key_sha256=setting) as governance:
            after = await governance.keys.ListKeys(keys_pb2.ListKeysRequest(), **governance.as_principal())
            assert after == before


async def test_a_bootstrap_key_revoked_by_hand_stays_revoked(tmp_path: Path, clock: MovableClock) -> None:
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=sha256("first")) as governance:
        caller = governance.as_principal()
        await governance.keys.CreateKey(keys_pb2.CreateKeyRequest(principal_id="admin"), **caller)
        first = (await governance.keys.ListKeys(keys_pb2.ListKeysRequest(), **caller)).keys[0]
        await governance.keys.RevokeKey(keys_pb2.RevokeKeyRequest(key_id=first.key_id), **caller)
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=sha256("first")) as governance:
        with refused("CREDENTIAL_NOT_FOUND"):
            await look_up(governance, "first")


async def test_a_changed_setting_lets_a_disabled_admin_in_again(tmp_path: Path, clock: MovableClock) -> None:
    kind = principals_pb2.Principal.Kind.HUMAN
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=sha256("first")) as governance:
        caller = governance.as_principal()
        await governance.principals.CreatePrincipal(
            principals_pb2.CreatePrincipalRequest(principal_id="deputy", kind=kind), **caller
        )
        await governance.keys.CreateKey(keys_pb2.CreateKeyRequest(principal_id="deputy"), **caller)
        await governance.principals.DisablePrincipal(
            principals_pb2.DisablePrincipalRequest(principal_id="admin"), **caller
        )
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=sha256("second")) as governance:
        assert (await look_up(governance, "second")).principal == "admin"
        with refused("CREDENTIAL_NOT_FOUND"):
            await look_up(governance, "first")
        admin = await governance.principals.GetPrincipal(
            principals_pb2.GetPrincipalRequest(principal_id="admin"), **governance.as_principal()
        )
        assert admin.state == principals_pb2.Principal.State.ACTIVE
