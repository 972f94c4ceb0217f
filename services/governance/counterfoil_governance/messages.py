"""What governance keeps, as the messages that callers and watchers get."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from counterfoil.governance.v1 import (
    changes_pb2,
    consents_pb2,
    incidents_pb2,
    legal_holds_pb2,
    policies_pb2,
    privacy_requests_pb2,
    retention_policies_pb2,
)
from counterfoil_chassis.clock import to_timestamp

from counterfoil_governance.entities import (
    BundleState,
    Change,
    ChangeState,
    Consent,
    ConsentBasis,
    ConsentState,
    Incident,
    IncidentState,
    LegalHold,
    Policy,
    PolicyBundle,
    PolicyEffect,
    PrivacyRequest,
    RetentionPolicy,
    Standing,
    Verdict,
)

_BUNDLE_STATES: Final = {
    BundleState.PROPOSED: policies_pb2.PolicyBundle.State.PROPOSED,
    BundleState.ACTIVE: policies_pb2.PolicyBundle.State.ACTIVE,
    BundleState.RETIRED: policies_pb2.PolicyBundle.State.RETIRED,
    BundleState.REJECTED: policies_pb2.PolicyBundle.State.REJECTED,
}
_EFFECTS: Final = {
    PolicyEffect.PERMIT: policies_pb2.Policy.Effect.PERMIT,
    PolicyEffect.FORBID: policies_pb2.Policy.Effect.FORBID,
}
CHANGE_STATES: Final = {
    ChangeState.PENDING: changes_pb2.Change.State.PENDING,
    ChangeState.APPROVED: changes_pb2.Change.State.APPROVED,
    ChangeState.REJECTED: changes_pb2.Change.State.REJECTED,
    ChangeState.EXPIRED: changes_pb2.Change.State.EXPIRED,
    ChangeState.APPLIED: changes_pb2.Change.State.APPLIED,
    ChangeState.FAILED: changes_pb2.Change.State.FAILED,
}
_VERDICTS: Final = {
    Verdict.APPROVE: changes_pb2.Vote.Verdict.APPROVE,
    Verdict.REJECT: changes_pb2.Vote.Verdict.REJECT,
}
CONSENT_STATES: Final = {
    ConsentState.GRANTED: consents_pb2.Consent.State.GRANTED,
    ConsentState.WITHDRAWN: consents_pb2.Consent.State.WITHDRAWN,
}
CONSENT_BASES: Final = {
    ConsentBasis.CONSENT: consents_pb2.Consent.Basis.CONSENT,
    ConsentBasis.CONTRACT: consents_pb2.Consent.Basis.CONTRACT,
    ConsentBasis.LEGAL_OBLIGATION: consents_pb2.Consent.Basis.LEGAL_OBLIGATION,
    ConsentBasis.LEGITIMATE_INTEREST: consents_pb2.Consent.Basis.LEGITIMATE_INTEREST,
}


def bundle_message(
    bundle: PolicyBundle, *, for_service: bool = False, with_text: bool = True
) -> policies_pb2.PolicyBundle:
    """Return a policy bundle; its workspace is for services only."""
    return policies_pb2.PolicyBundle(
        version=bundle.version,
        state=_BUNDLE_STATES[bundle.state],
        sha256=bundle.sha256,
        policies=bundle.policies if with_text else "",
        schema=bundle.schema if with_text else "",
        created_by=bundle.created_by,
        created_at=to_timestamp(bundle.created_at),
        reason=bundle.reason,
        change_id=bundle.change_id,
        activated_at=None if bundle.activated_at is None else to_timestamp(bundle.activated_at),
        workspace=bundle.workspace if for_service else "",
    )


def policy_message(policy: Policy) -> policies_pb2.Policy:
    """Return one policy of a bundle."""
    return policies_pb2.Policy(
        policy_id=policy.policy_id,
        owner=policy.owner,
        effect=_EFFECTS[policy.effect],
        description=policy.description,
        text=policy.text,
    )


def change_message(change: Change, standing: Standing, *, for_service: bool = False) -> changes_pb2.Change:
    """Return a change as it stands, each vote with whether it counts; its workspace is for services only."""
    votes = [
        changes_pb2.Vote(
            voter=vote.voter,
            verdict=_VERDICTS[vote.verdict],
            reason=vote.reason,
            payload_sha256=vote.payload_sha256,
            voted_at=to_timestamp(vote.voted_at),
            counts=counts,
        )
        for vote, counts in zip(change.votes, standing.counting, strict=True)
    ]
    applied = change.outcome is ChangeState.APPLIED and change.settled_at is not None
    return changes_pb2.Change(
        change_id=change.change_id,
        kind=change.kind,
        resource=change.resource,
        payload=change.payload,
        payload_sha256=change.payload_sha256,
        requester=change.requester,
        reason=change.reason,
        policy_id=change.policy_id,
        quorum=change.quorum,
        state=CHANGE_STATES[standing.state],
        votes=votes,
        created_at=to_timestamp(change.created_at),
        expires_at=to_timestamp(standing.expires_at),
        applied_at=to_timestamp(change.settled_at) if applied and change.settled_at else None,
        detail=change.detail,
        workspace=change.workspace if for_service else "",
    )


def consent_message(consent: Consent, *, holds: bool) -> consents_pb2.Consent:
    """Return one record of the ledger."""
    return consents_pb2.Consent(
        consent_id=consent.consent_id,
        purpose=consent.purpose,
        state=CONSENT_STATES[consent.state],
        basis=CONSENT_BASES[consent.basis],
        happened_at=to_timestamp(consent.happened_at),
        expires_at=None if consent.expires_at is None else to_timestamp(consent.expires_at),
        evidence=consent.evidence,
        recorded_at=to_timestamp(consent.recorded_at),
        recorded_by=consent.recorded_by,
        revision=consent.revision,
        holds=holds,
    )


def privacy_request_message(
    request: PrivacyRequest, *, completed: bool, held_by: Sequence[str]
) -> privacy_requests_pb2.PrivacyRequest:
    """Return a privacy request with what each service did for it, and the active holds that it waits for."""
    states, kinds = privacy_requests_pb2.PrivacyRequest.State, privacy_requests_pb2.PrivacyRequest.Kind
    reports = [
        privacy_requests_pb2.ErasureReport(
            service=report.service, erased=report.erased, completed_at=to_timestamp(report.completed_at)
        )
        for report in request.reports
    ]
    return privacy_requests_pb2.PrivacyRequest(
        privacy_request_id=request.privacy_request_id,
        kind=kinds.ERASURE,
        state=states.COMPLETED if completed else states.HELD if held_by else states.PENDING,
        identifier_types=request.identifier_types,
        reference=request.reference,
        created_by=request.created_by,
        created_at=to_timestamp(request.created_at),
        due_at=to_timestamp(request.due_at),
        completed_at=to_timestamp(max(each.completed_at for each in request.reports)) if completed else None,
        reports=reports,
        legal_hold_ids=() if completed else held_by,
    )


def legal_hold_message(hold: LegalHold, *, now: datetime) -> legal_holds_pb2.LegalHold:
    """Return a legal hold with how far it is."""
    states = legal_holds_pb2.LegalHold.State
    ended = states.EXPIRED if hold.released_at is None else states.RELEASED
    return legal_holds_pb2.LegalHold(
        legal_hold_id=hold.legal_hold_id,
        state=states.ACTIVE if hold.is_active(now) else ended,
        dataset=hold.dataset,
        identifier_types=hold.identifier_types,
        reason=hold.reason,
        owner=hold.owner,
        expires_at=None if hold.expires_at is None else to_timestamp(hold.expires_at),
        created_by=hold.created_by,
        created_at=to_timestamp(hold.created_at),
        released_by=hold.released_by,
        released_at=None if hold.released_at is None else to_timestamp(hold.released_at),
        release_reason=hold.release_reason,
    )


def retention_policy_message(
    policy: RetentionPolicy, *, for_service: bool = False
) -> retention_policies_pb2.RetentionPolicy:
    """Return a retention policy as its workspace sees it with what was done for it, or as services do, without."""
    message = retention_policies_pb2.RetentionPolicy(
        dataset=policy.dataset,
        days=policy.days,
        purpose=policy.purpose,
        owner=policy.owner,
        set_by=policy.set_by,
        set_at=to_timestamp(policy.set_at),
        etag=policy.etag,
        workspace=policy.workspace if for_service else "",
    )
    if policy.report is not None and not for_service:
        message.report.CopyFrom(
            retention_policies_pb2.RetentionReport(
                received_before=to_timestamp(policy.report.received_before),
                records=policy.report.records,
                quarantined=policy.report.quarantined,
                held=policy.report.held,
                completed_at=to_timestamp(policy.report.completed_at),
                waiting_for=policy.report.waiting_for,
            )
        )
    return message


INCIDENT_STATES: Final = {
    IncidentState.OPEN: incidents_pb2.Incident.State.OPEN,
    IncidentState.ACKNOWLEDGED: incidents_pb2.Incident.State.ACKNOWLEDGED,
    IncidentState.RESOLVED: incidents_pb2.Incident.State.RESOLVED,
}


def incident_message(incident: Incident, *, for_service: bool = False) -> incidents_pb2.Incident:
    """Return an incident as its workspace sees it, or as services do."""
    times = {
        name: to_timestamp(moment)
        for name in ("opened_at", "recovered_at", "acknowledged_at", "resolved_at")
        if (moment := getattr(incident, name)) is not None
    }
    return incidents_pb2.Incident(
        incident_id=incident.incident_id,
        state=INCIDENT_STATES[incident.state],
        producer=incident.producer,
        resource=incident.resource,
        dataset=incident.dataset,
        contract_id=incident.contract_id,
        contract_version=incident.contract_version,
        owner=incident.owner,
        severity=incident.severity,
        summary=incident.summary,
        detail=incident.detail,
        holds_data=incident.holds_data,
        acknowledged_by=incident.acknowledged_by,
        note=incident.note,
        resolved_by=incident.resolved_by,
        reason=incident.reason,
        breach_accepted=incident.breach_accepted,
        workspace=incident.workspace if for_service else "",
        **times,
    )
