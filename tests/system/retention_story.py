"""A dataset is held and released, and its records are kept for a while only."""

from counterfoil.governance.v1 import legal_holds_pb2, retention_policies_pb2

from tests.system.installation import until
from tests.system.story import Step, World
from tests.system.tenant import ok

DATASET, FORGOTTEN = "archive", "attic"


def _hold(world: World) -> str:
    return str(world.answers["LegalHoldService/CreateLegalHold"]["legal_hold_id"])


def _await_report(world: World) -> None:
    """Wait until ingest has told what it did."""

    def reported() -> bool | None:
        found = ok(world.tenant.http.get(f"/v1/retention-policies/{DATASET}"))
        return True if "report" in found else None

    until(reported, seconds=60, what="nobody carries out the policy")


def _set_another(world: World) -> None:
    body = {"dataset": FORGOTTEN, "days": 3, "purpose": "nothing any more"}
    ok(world.tenant.http.post("/v1/retention-policies", json=body))


RETENTION_STORY: dict[str, Step] = {
    "LegalHoldService/CreateLegalHold": Step(
        lambda w: legal_holds_pb2.CreateLegalHoldRequest(dataset=DATASET, reason="case 17", owner="legal")
    ),
    "LegalHoldService/GetLegalHold": Step(lambda w: legal_holds_pb2.GetLegalHoldRequest(legal_hold_id=_hold(w))),
    "LegalHoldService/ReleaseLegalHold": Step(
        lambda w: legal_holds_pb2.ReleaseLegalHoldRequest(legal_hold_id=_hold(w), reason="the case is closed")
    ),
    "LegalHoldService/ListLegalHolds": Step(lambda w: legal_holds_pb2.ListLegalHoldsRequest()),
    "RetentionPolicyService/SetRetentionPolicy": Step(
        lambda w: retention_policies_pb2.SetRetentionPolicyRequest(
            dataset=DATASET, days=30, purpose="accounts", owner="finance"
        )
    ),
    "RetentionPolicyService/GetRetentionPolicy": Step(
        lambda w: retention_policies_pb2.GetRetentionPolicyRequest(dataset=DATASET), before=_await_report
    ),
    "RetentionPolicyService/DeleteRetentionPolicy": Step(
        lambda w: retention_policies_pb2.DeleteRetentionPolicyRequest(dataset=FORGOTTEN), before=_set_another
    ),
    "RetentionPolicyService/ListRetentionPolicies": Step(
        lambda w: retention_policies_pb2.ListRetentionPoliciesRequest()
    ),
}
"""`Service/Method` to its question, in order."""
