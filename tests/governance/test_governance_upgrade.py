"""A database of the first release: nobody is locked out of what this release adds, and every workspace has policies."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from counterfoil.common.v1.credentials_pb2 import Credential
from counterfoil.governance.v1 import audit_pb2, credentials_pb2, keys_pb2, policies_pb2, principals_pb2
from counterfoil_chassis import migrate
from counterfoil_chassis.policy import bundle_sha256
from counterfoil_governance.policy_text import shipped_policies, shipped_schema
from counterfoil_governance.scopes import ALL_SCOPES, PLATFORM_ADMIN, WORKSPACE_SCOPES
from google.protobuf import any_pb2
from sqlalchemy import Connection, text

from tests.governance.calls import Governance, MovableClock, governance_in

OLD = frozenset(
    f"{service}.{right}"
    for service, rights in {
        "governance": ("read", "write"),
        "contracts": ("read", "write"),
        "ingest": ("read", "write", "admin", "append"),
        "models": ("read", "write"),
    }.items()
    for right in rights
)
NARROW = frozenset({"governance.read", "models.read"})
KEYS = {
    "bootstrap": ("default", OLD | {PLATFORM_ADMIN}),
    "deputy": ("default", OLD | {PLATFORM_ADMIN}),
    "acme": ("acme", OLD),
    "narrow": ("acme", NARROW),
    "revoked": ("acme", OLD),
}


def digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def write_old(connection: Connection) -> None:
    """Fill a database as the first release left it."""
    command.upgrade(_at(connection), "0001")

    def add(table: str, **values: Any) -> None:
        columns, places = ", ".join(values), ", ".join(f":{name}" for name in values)
        connection.execute(text(f"INSERT INTO {table} ({columns}) VALUES ({places})"), values)

    for workspace in ("default", "acme"):
        add("workspaces", workspace=workspace, display_name=workspace, timezone="UTC", created_at=1)
        add(
            "principals",
            workspace=workspace,
            principal_id="admin",
            display_name="Administrator",
            kind="human",
            created_at=1,
        )
    add("revision", topic="credentials", head=len(KEYS))
    for number, (name, (workspace, scopes)) in enumerate(KEYS.items(), start=1):
        add(
            "keys",
            workspace=workspace,
            key_id=name,
            principal_id="admin",
            display_name=name,
            scopes=" ".join(sorted(scopes)),
            secret_sha256=digest(name),
            last_four="",
            created_at=1,
            revoked_at=2 if name == "revoked" else None,
            bootstrap=name == "bootstrap",
        )
        packed = any_pb2.Any()
        packed.Pack(
            Credential(
                secret_sha256=digest(name),
                credential_id=name,
                workspace=workspace,
                principal="admin",
                scopes=sorted(scopes),
            )
        )
        add(
            "change",
            topic="credentials",
            key=digest(name).hex(),
            revision=number,
            deleted=name == "revoked",
            type_url=packed.type_url,
            resource=b"" if name == "revoked" else packed.value,
        )


def _at(connection: Connection) -> Any:
    config = migrate._config("counterfoil_governance")
    config.attributes["connection"] = connection
    return config


@pytest.fixture
def old(tmp_path: Path) -> Path:
    migrate._with_connection(f"sqlite+aiosqlite:///{tmp_path / 'governance.db'}", write_old)
    return tmp_path


async def scopes_of(governance: Governance, name: str) -> frozenset[str]:
    request = credentials_pb2.LookupCredentialRequest(secret_sha256=digest(name))
    found = await governance.credentials.LookupCredential(request, **governance.as_service("gateway"))
    assert list(found.roles) == []
    return frozenset(found.scopes)


async def test_keys_that_could_do_everything_still_can_and_others_gain_nothing(old: Path, clock: MovableClock) -> None:
    expected = {
        "bootstrap": ALL_SCOPES,
        "deputy": ALL_SCOPES,
        "acme": WORKSPACE_SCOPES,
        "narrow": NARROW,
    }
    async with governance_in(old, clock, bootstrap_key_sha256=digest("bootstrap").hex()) as governance:
        assert {name: await scopes_of(governance, name) for name in expected} == expected
        stream = governance.credentials.WatchCredentials(
            # A gateway that had seen the old keys is told of the new scopes, and of nothing else.
            credentials_pb2.WatchCredentialsRequest(after_revision=len(KEYS)),
            **governance.as_service("gateway"),
        )
        told = {}
        async for response in stream:
            if response.WhichOneof("change") == "heartbeat":
                break
            credential = Credential()
            response.put.resource.Unpack(credential)
            told[credential.credential_id] = frozenset(credential.scopes)
        assert told == {name: scopes for name, scopes in expected.items() if name != "narrow"}
        revoked = await governance.keys.GetKey(
            keys_pb2.GetKeyRequest(key_id="revoked"), **governance.as_principal(workspace="acme")
        )
        assert frozenset(revoked.scopes) == OLD


async def test_every_workspace_gets_the_shipped_policies_once(old: Path, clock: MovableClock) -> None:
    for _ in range(2):
        async with governance_in(old, clock, bootstrap_key_sha256="") as governance:
            for workspace in ("default", "acme"):
                listed = await governance.policies.ListPolicies(
                    policies_pb2.ListPoliciesRequest(), **governance.as_principal(workspace=workspace)
                )
                assert listed.policies
                bundles = await governance.policies.ListPolicyBundles(
                    policies_pb2.ListPolicyBundlesRequest(), **governance.as_principal(workspace=workspace)
                )
                assert [bundle.version for bundle in bundles.policy_bundles] == [1]
                lookup = policies_pb2.LookupPolicyBundleRequest(workspace=workspace)
                found = await governance.policies.LookupPolicyBundle(lookup, **governance.as_service("models"))
                assert (found.policies, found.workspace) == (shipped_policies(), workspace)


OLD_SCHEMA = shipped_schema().partition("  action merge")[0] + "}"
OWN = """
@id("call") @owner("us") permit (principal, action == Counterfoil::Action::"call", resource);
@id("act") @owner("us")
permit (principal, action, resource is Counterfoil::PersonSet) when { principal.scopes.contains(context.scope) };
"""
UNFIT_SCHEMA = OLD_SCHEMA.replace("entity PersonSet;", "entity PersonSet { colour: String };")
UNFIT = f"""{OWN}
@id("red") @owner("us")
forbid (principal, action, resource is Counterfoil::PersonSet) when {{ resource.colour == "red" }};
"""


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (("platform", "// an older text", OLD_SCHEMA), (2, "platform", shipped_policies(), shipped_schema())),
        (("platform", "// an older text", shipped_schema()), (2, "platform", shipped_policies(), shipped_schema())),
        (("platform", shipped_policies(), shipped_schema()), (1, "platform", shipped_policies(), shipped_schema())),
        (("ada", OWN, OLD_SCHEMA), (2, "ada", OWN, shipped_schema())),
        (("ada", OWN, shipped_schema()), (1, "ada", OWN, shipped_schema())),
        (("ada", UNFIT, UNFIT_SCHEMA), (1, "ada", UNFIT, UNFIT_SCHEMA)),
    ],
    ids=["shipped", "shipped, same schema", "as it is", "own", "own, as it is", "own, unfit"],
)
async def test_a_newer_release_replaces_its_own_policies_and_holds_others_to_its_schema(
    tmp_path: Path,
    clock: MovableClock,
    caplog: pytest.LogCaptureFixture,
    before: tuple[str, str, str],
    expected: tuple[int, str, str, str],
) -> None:
    key = digest("bootstrap").hex()
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=key):
        pass
    with closing(sqlite3.connect(tmp_path / "governance.db")) as database, database:
        written = (*before, bundle_sha256(*before[1:]))
        database.execute("UPDATE policy_bundles SET created_by = ?, policies = ?, schema = ?, sha256 = ?", written)
    for _ in range(2):
        async with governance_in(tmp_path, clock, bootstrap_key_sha256=key) as governance:
            lookup = policies_pb2.LookupPolicyBundleRequest(workspace="default")
            found = await governance.policies.LookupPolicyBundle(lookup, **governance.as_service("models"))
            assert (found.version, found.created_by, found.policies, found.schema) == expected
            assert found.sha256 == bundle_sha256(found.policies, found.schema)
    unfit = [record for record in caplog.records if "does not fit" in record.getMessage()]
    assert len(unfit) == (2 if before[2] == UNFIT_SCHEMA else 0)


async def test_a_bootstrap_key_keeps_every_scope_its_principals_roles_allow(
    tmp_path: Path, clock: MovableClock
) -> None:
    key = digest("bootstrap").hex()
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=key) as governance:
        await governance.hire("deputy", scopes=ALL_SCOPES)
        request = principals_pb2.SetPrincipalRolesRequest(principal_id="admin", roles=["viewer"])
        await governance.principals.SetPrincipalRoles(request, **governance.as_principal())
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=key) as governance:
        found = await governance.credentials.LookupCredential(
            credentials_pb2.LookupCredentialRequest(secret_sha256=digest("bootstrap")),
            **governance.as_service("gateway"),
        )
        assert list(found.roles) == ["viewer"]
        assert "governance.write" not in found.scopes
        request = principals_pb2.SetPrincipalRolesRequest(principal_id="admin", roles=["admin"])
        await governance.principals.SetPrincipalRoles(request, **governance.as_principal())
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=key) as governance:
        found = await governance.credentials.LookupCredential(
            credentials_pb2.LookupCredentialRequest(secret_sha256=digest("bootstrap")),
            **governance.as_service("gateway"),
        )
        assert frozenset(found.scopes) == WORKSPACE_SCOPES
        listed = await governance.audit.ListAuditEntries(
            audit_pb2.ListAuditEntriesRequest(page_size=1, newest_first=True), **governance.as_principal()
        )
        assert (listed.entries[0].action, listed.entries[0].principal) == ("key.widen", "service:governance")
        assert json.loads(listed.entries[0].details)["scopes"] == sorted(WORKSPACE_SCOPES)
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=digest("another").hex()) as governance:
        assert await scopes_of(governance, "another") == ALL_SCOPES
