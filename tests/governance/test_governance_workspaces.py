"""Workspaces: what each caller sees and may change."""

from __future__ import annotations

import pytest
from counterfoil.governance.v1 import keys_pb2
from counterfoil.governance.v1 import workspaces_pb2 as pb
from counterfoil_governance.scopes import ALL_SCOPES, WORKSPACE_SCOPES
from google.protobuf.field_mask_pb2 import FieldMask

from tests.governance.calls import Governance, refused


async def test_an_empty_installation_has_workspace_default_in_utc(governance: Governance) -> None:
    listed = await governance.workspaces.ListWorkspaces(pb.ListWorkspacesRequest(), **governance.as_principal())
    assert [(one.workspace_id, one.timezone) for one in listed.workspaces] == [("default", "UTC")]
    assert listed.next_page_token == ""


async def test_a_new_workspace_comes_with_a_key_that_cannot_create_workspaces(governance: Governance) -> None:
    request = pb.CreateWorkspaceRequest(workspace_id="acme", timezone="America/New_York")
    created = await governance.workspaces.CreateWorkspace(request, **governance.as_principal())
    assert (created.workspace.display_name, created.workspace.timezone) == ("acme", "America/New_York")
    assert created.api_key.startswith("cfk_")
    assert len(created.api_key) == 4 + 43
    listed = await governance.keys.ListKeys(keys_pb2.ListKeysRequest(), **governance.as_principal(workspace="acme"))
    assert [(key.principal_id, frozenset(key.scopes)) for key in listed.keys] == [("admin", WORKSPACE_SCOPES)]
    assert listed.keys[0].last_four == created.api_key[-4:]
    assert ALL_SCOPES - {"platform.admin"} == WORKSPACE_SCOPES


async def test_creating_a_workspace_needs_platform_admin(governance: Governance) -> None:
    caller = governance.as_principal(scopes=WORKSPACE_SCOPES)
    with refused("SCOPE_MISSING"):
        await governance.workspaces.CreateWorkspace(pb.CreateWorkspaceRequest(workspace_id="acme"), **caller)


async def test_a_workspace_id_is_taken_once(governance: Governance) -> None:
    with refused("WORKSPACE_EXISTS"):
        await governance.workspaces.CreateWorkspace(
            pb.CreateWorkspaceRequest(workspace_id="default"), **governance.as_principal()
        )


async def test_the_same_request_id_returns_the_first_key_again(governance: Governance) -> None:
    request = pb.CreateWorkspaceRequest(workspace_id="acme", request_id="once")
    first = await governance.workspaces.CreateWorkspace(request, **governance.as_principal())
    assert await governance.workspaces.CreateWorkspace(request, **governance.as_principal()) == first


@pytest.mark.parametrize("timezone", ["Mars/Olympus", "America", "../etc/passwd", "/etc/localtime", "utc+1"])
async def test_refuses_what_is_no_iana_timezone(governance: Governance, timezone: str) -> None:
    request = pb.CreateWorkspaceRequest(workspace_id="acme", timezone=timezone)
    with refused("TIMEZONE_UNKNOWN") as refusal:
        await governance.workspaces.CreateWorkspace(request, **governance.as_principal())
    assert refusal.failure is not None
    assert [violation.field for violation in refusal.failure.violations] == ["timezone"]


async def test_another_workspace_is_not_found_and_not_listed(governance: Governance) -> None:
    await governance.workspaces.CreateWorkspace(
        pb.CreateWorkspaceRequest(workspace_id="acme"), **governance.as_principal()
    )
    for unseen in ("acme", "none"):
        with refused("WORKSPACE_NOT_FOUND"):
            await governance.workspaces.GetWorkspace(
                pb.GetWorkspaceRequest(workspace_id=unseen), **governance.as_principal()
            )
    listed = await governance.workspaces.ListWorkspaces(pb.ListWorkspacesRequest(), **governance.as_principal())
    assert [one.workspace_id for one in listed.workspaces] == ["default"]


async def test_a_service_reads_any_workspace(governance: Governance) -> None:
    await governance.workspaces.CreateWorkspace(
        pb.CreateWorkspaceRequest(workspace_id="acme", timezone="Europe/Paris"), **governance.as_principal()
    )
    request = pb.GetWorkspaceRequest(workspace_id="acme")
    found = await governance.workspaces.GetWorkspace(request, **governance.as_service("models"))
    assert found.timezone == "Europe/Paris"
    with refused("WORKSPACE_NOT_FOUND"):
        await governance.workspaces.GetWorkspace(
            pb.GetWorkspaceRequest(workspace_id="none"), **governance.as_service("models")
        )


async def test_an_update_changes_what_the_mask_names_and_the_etag_with_it(governance: Governance) -> None:
    caller = governance.as_principal()
    before = await governance.workspaces.GetWorkspace(pb.GetWorkspaceRequest(workspace_id="default"), **caller)
    request = pb.UpdateWorkspaceRequest(
        workspace=pb.Workspace(workspace_id="default", display_name="ignored", timezone="Asia/Tokyo"),
        update_mask=FieldMask(paths=["timezone"]),
        etag=before.etag,
    )
    after = await governance.workspaces.UpdateWorkspace(request, **caller)
    assert (after.display_name, after.timezone) == (before.display_name, "Asia/Tokyo")
    assert after.etag != before.etag
    with refused("ETAG_MISMATCH"):
        await governance.workspaces.UpdateWorkspace(request, **caller)


async def test_an_update_without_a_mask_changes_what_is_sent(governance: Governance) -> None:
    request = pb.UpdateWorkspaceRequest(workspace=pb.Workspace(workspace_id="default", display_name="Grocer"))
    after = await governance.workspaces.UpdateWorkspace(request, **governance.as_principal())
    assert (after.display_name, after.timezone) == ("Grocer", "UTC")


async def test_an_emptied_name_becomes_the_id(governance: Governance) -> None:
    request = pb.UpdateWorkspaceRequest(
        workspace=pb.Workspace(workspace_id="default"), update_mask=FieldMask(paths=["display_name", "timezone"])
    )
    after = await governance.workspaces.UpdateWorkspace(request, **governance.as_principal())
    assert (after.display_name, after.timezone) == ("default", "UTC")


@pytest.mark.parametrize("path", ["workspace_id", "created_at", "etag", "*", "nonsense"])
async def test_a_mask_names_only_what_can_change(governance: Governance, path: str) -> None:
    request = pb.UpdateWorkspaceRequest(
        workspace=pb.Workspace(workspace_id="default"), update_mask=FieldMask(paths=[path])
    )
    with refused("UPDATE_MASK_INVALID"):
        await governance.workspaces.UpdateWorkspace(request, **governance.as_principal())


async def test_nobody_updates_another_workspace(governance: Governance) -> None:
    request = pb.UpdateWorkspaceRequest(workspace=pb.Workspace(workspace_id="other", display_name="mine"))
    with refused("WORKSPACE_NOT_FOUND"):
        await governance.workspaces.UpdateWorkspace(request, **governance.as_principal())


async def test_quotas_are_set_by_the_platform_watched_and_taken_back(governance: Governance) -> None:
    platform = governance.as_principal()
    quotas = pb.Quotas(requests_per_second=5, records_per_day=1_000)
    changed = await governance.workspaces.SetQuotas(
        pb.SetQuotasRequest(workspace_id="default", quotas=quotas), **platform
    )
    assert changed.quotas == quotas
    read = await governance.workspaces.GetWorkspace(pb.GetWorkspaceRequest(workspace_id="default"), **platform)
    assert (read.quotas, read.etag) == (quotas, changed.etag)

    stream = governance.workspaces.WatchWorkspaces(pb.WatchWorkspacesRequest(), **governance.as_service("ingest"))
    state = [await stream.read(), await stream.read()]
    watched = pb.Workspace()
    assert state[0].put.resource.Unpack(watched)
    assert watched == changed

    stale = pb.SetQuotasRequest(workspace_id="default", quotas=pb.Quotas(), etag="old")
    with refused("ETAG_MISMATCH"):
        await governance.workspaces.SetQuotas(stale, **platform)
    without = pb.SetQuotasRequest(workspace_id="default", quotas=pb.Quotas(), etag=changed.etag)
    assert not (await governance.workspaces.SetQuotas(without, **platform)).HasField("quotas")
    assert (await stream.read()).delete.key == "default"
    stream.cancel()


async def test_a_workspace_cannot_set_its_own_quotas(governance: Governance) -> None:
    request = pb.SetQuotasRequest(workspace_id="default", quotas=pb.Quotas(records_per_day=1))
    with refused("SCOPE_MISSING"):
        await governance.workspaces.SetQuotas(request, **governance.as_principal(scopes=WORKSPACE_SCOPES))
    with refused("WORKSPACE_NOT_FOUND"):
        missing = pb.SetQuotasRequest(workspace_id="nobody", quotas=pb.Quotas())
        await governance.workspaces.SetQuotas(missing, **governance.as_principal())
