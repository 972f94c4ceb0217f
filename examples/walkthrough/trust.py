"""A second person, what policies refuse and approvals allow, and the audit log's proof."""

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from counterfoil_chassis.audit_verify import Report, verify
from counterfoil_cli.client import ApiProblem, Client

from walkthrough.errors import DemoError

REVIEWER = "reviewer"

_POLL_SECONDS = 0.1
_PATIENCE_SECONDS = 30.0
_REFUSED = "POLICY_DENIED"

Json = dict[str, Any]


@dataclass(frozen=True)
class Approval:
    """How a second person came into it."""

    refused_by: str
    """The policy that refused it without one."""
    change_id: str
    requester: str
    approver: str


@contextmanager
def second_person(api: Client) -> Iterator[Client]:
    """Sign in as a reviewer with a key of its own, which is revoked at the end."""
    try:
        api.post(
            "/v1/principals",
            {"principal_id": REVIEWER, "display_name": "Reviewer", "kind": "HUMAN", "roles": [REVIEWER]},
        )
    except ApiProblem as problem:
        if problem.status != HTTPStatus.CONFLICT:
            raise
    [role] = [role for role in api.get("/v1/roles")["roles"] if role["role"] == REVIEWER]
    made = api.post(
        "/v1/keys", {"principal_id": REVIEWER, "display_name": "The demo's review", "scopes": role["scopes"]}
    )
    try:
        with Client(api.url, made["api_key"]) as reviewer:
            yield reviewer
    finally:
        api.post(f"/v1/keys/{made['key']['key_id']}:revoke")


def refusal(attempt: Callable[[], Json]) -> str:
    """Try something that policy must refuse; return the policy's id. Raises DemoError when nothing refuses it."""
    try:
        attempt()
    except ApiProblem as problem:
        if problem.reason == _REFUSED:
            return problem.metadata["policy_id"]
        raise
    raise DemoError("A policy should have refused this, and did not.")


def approve(reviewer: Client, change_id: str, *, reason: str) -> Json:
    """Approve exactly what the change says, as the second person."""
    change = reviewer.get(f"/v1/changes/{change_id}")
    return reviewer.post(
        f"/v1/changes/{change_id}:approve", {"payload_sha256": change["payload_sha256"], "reason": reason}
    )


def wait_until(ask: Callable[[], Json | None], *, what: str) -> Json:
    """Ask again until there is an answer; raise DemoError when there is none in half a minute."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if (found := ask()) is not None:
            return found
        time.sleep(_POLL_SECONDS)
    raise DemoError(f"{what} did not happen within {_PATIENCE_SECONDS:.0f} s.")


def change_of(api: Client, *, kind: str, resource: str = "") -> Json | None:
    """Return the newest change of a kind that was carried out, or None."""
    for change in api.pages("/v1/changes", "changes", state="APPLIED"):
        if change["kind"] == kind and resource in ("", change["resource"]):
            return change
    return None


def approval_of(change: Json) -> Approval:
    """Read from a change who asked, who approved, and which policy made them."""
    approvers = [vote["voter"] for vote in change["votes"] if vote["verdict"] == "APPROVE"]
    return Approval(change["policy_id"], change["change_id"], change["requester"], ", ".join(approvers))


def verify_audit(api: Client) -> Report:
    """Export the audit log and verify the export, as `counterfoil audit verify` does, under its own key."""
    key = api.get("/v1/audit/checkpoint")["verifier_key"]
    archive = api.send("GET", "/v1/audit:export", timeout=60).content
    return verify(io.BytesIO(archive), keys=[key])
