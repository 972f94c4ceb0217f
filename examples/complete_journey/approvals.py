"""What one person alone may not do here: promote a model that steers spend, and let persons leave the platform."""

from typing import Any, Final

from counterfoil_cli.client import Client
from walkthrough.errors import DemoError
from walkthrough.trust import Approval, approval_of, approve, change_of, refusal, wait_until

from complete_journey.steps import MODEL

PURPOSE: Final = "advertising"
DESTINATION: Final = "the grocer's printer of letters (a demonstration: nothing is sent)"
EVIDENCE: Final = "Entered by the demo to show what consent does; no household was asked."
HOUSEHOLDS: Final = ("1", "7", "8")

_EXPORT: Final = "persons.export"
_EXPORTS: Final = "/v1/persons:export"


def promote(api: Client, reviewer: Client, version: dict[str, Any]) -> tuple[dict[str, Any], Approval]:
    """Try to promote a version alone, ask a second person, and wait until it serves."""
    path = f"/v1/models/{MODEL}/versions/{version['version']}"
    reason = "The first version that passed its backtest."
    refused_by = refusal(lambda: api.post(f"{path}:promote", {"reason": reason}))
    change_id = api.post(f"{path}:promote", {"reason": reason, "request_approval": True})["change_id"]
    approve(reviewer, change_id, reason="The backtest beats repeating last week.")

    def serving() -> dict[str, Any] | None:
        found = api.get(path)
        return found if found["state"] == "CHAMPION" else None

    champion = wait_until(serving, what=f"The promotion of version {version['version']}")
    made = approval_of(api.get(f"/v1/changes/{change_id}"))
    return champion, Approval(refused_by, change_id, made.requester, made.approver)


def promotion_of(api: Client, champion: dict[str, Any]) -> Approval:
    """Return how an earlier run's champion was approved; raise DemoError for one that nobody approved."""
    change_id = champion.get("change_id", "")
    if not change_id:
        raise DemoError(f"Version {champion['version']} of {MODEL} serves without anybody's approval.")
    return approval_of(api.get(f"/v1/changes/{change_id}"))


def export_of_before(api: Client) -> Approval | None:
    """Return how an earlier run's export was approved, or None."""
    change = change_of(api, kind=_EXPORT)
    return approval_of(change) if change else None


def export(api: Client, reviewer: Client) -> tuple[str, Approval, dict[str, Any]]:
    """Export a few households for advertising: without consent, alone, and then as it is allowed.

    Returns the policy that asks for consent, how the approval came about, and the export.
    """
    body = {
        "purpose": PURPOSE,
        "destination": DESTINATION,
        "person_ids": sorted(_person(api, household) for household in HOUSEHOLDS),
        "identifier_types": ["household_id"],
        "reason": "To show what an export needs.",
    }
    without_consent = refusal(lambda: api.post(_EXPORTS, body))
    api.post("/v1/consents", {"consents": [_consent(household) for household in HOUSEHOLDS]})
    alone = refusal(lambda: api.post(_EXPORTS, body))
    change_id = api.post(_EXPORTS, {**body, "request_approval": True})["change_id"]
    approve(reviewer, change_id, reason="Each has a record of consent; it goes nowhere.")
    exported = api.post(_EXPORTS, {**body, "change_id": change_id})
    made = approval_of(api.get(f"/v1/changes/{change_id}"))
    if len(exported["persons"]) != len(HOUSEHOLDS):
        raise DemoError(f"{len(exported['persons'])} of {len(HOUSEHOLDS)} persons were exported.")
    return without_consent, Approval(alone, change_id, made.requester, made.approver), exported


def _person(api: Client, household: str) -> str:
    return str(api.post("/v1/persons:lookup", {"type": "household_id", "value": household})["person_id"])


def _consent(household: str) -> dict[str, Any]:
    return {
        "subject": {"type": "household_id", "value": household},
        "purpose": PURPOSE,
        "state": "GRANTED",
        "basis": "CONSENT",
        "happened_at": "2017-12-31T12:00:00Z",
        "evidence": EVIDENCE,
    }
