"""Privacy requests: who asks to be erased, what every service did for it, and until when it is due."""

from __future__ import annotations

import calendar
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from counterfoil_governance import consents, legal_holds
from counterfoil_governance.entities import Consent, ConsentBasis, ConsentState, ErasureReport, PrivacyRequest
from counterfoil_governance.errors import ErasureIncompleteError, ErasureReporterError
from counterfoil_governance.recording import Recorder
from counterfoil_governance.store import Stores

SERVICES: Final = frozenset({"graph"})
"""Who has to report an erasure before it is complete. Graph finds the person, has ingest erase the records, and tells
of both: nobody else keeps personal data."""


def due_at(received: datetime) -> datetime:
    """Return the same day of the next month, or its last (GDPR, article 12(3); Regulation 1182/71, article 3)."""
    year, month = received.year + received.month // 12, received.month % 12 + 1
    day = min(received.day, calendar.monthrange(year, month)[1])
    return received.replace(year=year, month=month, day=day)


def is_reported(request: PrivacyRequest) -> bool:
    """Tell whether every service that holds personal data has reported."""
    return {report.service for report in request.reports} >= SERVICES


async def create(
    stores: Stores, request: PrivacyRequest, *, subjects: Sequence[bytes], recorder: Recorder
) -> PrivacyRequest:
    """Keep a request and have it carried out; withdraw the consents that its identifiers hold.

    `subjects` are the identifiers as the consent ledger knows them.
    """
    held_by = await legal_holds.on_person(stores, request.workspace, request.identifier_hashes, now=recorder.now)
    request = replace(request, held_by=held_by)
    await stores.privacy_requests.add(request)
    await stores.privacy_requests.publish(request, reported=False)
    withdrawn = await _withdraw(stores, request, subjects, recorder=recorder)
    await recorder.record(
        stores,
        "privacy_request.create",
        _resource(request),
        identifiers=len(request.identifier_hashes),
        consents_withdrawn=withdrawn,
    )
    return request


async def report(
    stores: Stores,
    privacy_request_id: str,
    *,
    service: str,
    erased: Mapping[str, int],
    remaining: int,
    recorder: Recorder,
) -> PrivacyRequest:
    """Keep what a service did for a request; a second report of it changes nothing.

    Raises PrivacyRequestNotFoundError, ErasureReporterError, ErasureIncompleteError.
    """
    request = await stores.privacy_requests.get(recorder.workspace, privacy_request_id)
    if service not in SERVICES:
        raise ErasureReporterError(
            f"{service} carries out no erasures; they are reported by {', '.join(sorted(SERVICES))}.",
            metadata={"service": service},
        )
    if remaining:
        raise ErasureIncompleteError(
            f"{service} still finds {remaining} things of the person. Erase them, search again, then report.",
            metadata={"service": service, "remaining": str(remaining)},
        )
    if service in {each.service for each in request.reports}:
        return request
    done = ErasureReport(service, dict(sorted(erased.items())), recorder.now)
    await stores.privacy_requests.add_report(request, done)
    reported = replace(request, reports=(*request.reports, done))
    if is_reported(reported):
        await stores.privacy_requests.publish(reported, reported=True)
        counts = {f"{each.service}.{kind}": count for each in reported.reports for kind, count in each.erased.items()}
        await recorder.record(stores, "privacy_request.complete", _resource(reported), erased=counts)
    return reported


async def report_held(
    stores: Stores, privacy_request_id: str, legal_hold_ids: Sequence[str], *, recorder: Recorder
) -> None:
    """Keep which legal holds a request waits for; raise PrivacyRequestNotFoundError."""
    request = await stores.privacy_requests.get(recorder.workspace, privacy_request_id)
    holds = tuple(sorted(set(legal_hold_ids)))
    if not is_reported(request) and set(request.held_by) != set(holds):
        await stores.privacy_requests.set_held(request, holds)
        await recorder.record(stores, "privacy_request.hold", _resource(request), legal_holds=list(holds))


async def held_by(stores: Stores, requests: Sequence[PrivacyRequest], *, now: datetime) -> dict[str, tuple[str, ...]]:
    """Return for each request of one workspace the active legal holds that it waits for."""
    if not any(request.held_by for request in requests):
        return {}
    active = {hold.legal_hold_id for hold in await legal_holds.active(stores, requests[0].workspace, now=now)}
    return {
        request.privacy_request_id: tuple(each for each in request.held_by if each in active) for request in requests
    }


async def keep_in_step(stores: Stores) -> int:
    """Bring the feed to what the table says, after rows were restored from elsewhere; return how many were not so."""
    misstated = [
        (request, is_reported(request))
        for request, told in await stores.privacy_requests.with_news()
        if told is not is_reported(request)
    ]
    for request, reported in misstated:
        await stores.privacy_requests.publish(request, reported=reported)
    return len(misstated)


async def _withdraw(stores: Stores, request: PrivacyRequest, subjects: Sequence[bytes], *, recorder: Recorder) -> int:
    """Withdraw each consent that the subjects hold: what they agreed to before allows no use of what comes later."""
    revision = await stores.consents.lock(request.workspace)
    known = await stores.consents.of_subjects(request.workspace, list(subjects), purpose="", revision=revision)
    held = [
        consent
        for consent in consents.latest(known).values()
        if consent.state is ConsentState.GRANTED and consent.basis is ConsentBasis.CONSENT
    ]
    withdrawals = [_withdrawal(consent, request, recorder=recorder) for consent in held]
    if withdrawals:
        await consents.record(stores, withdrawals, recorder=recorder)
    return len(withdrawals)


def _withdrawal(consent: Consent, request: PrivacyRequest, *, recorder: Recorder) -> Consent:
    # Never before what it withdraws: senders' clocks may be ahead of ours.
    at = max(request.created_at, consent.happened_at)
    withdrawn = replace(
        consent,
        consent_id=recorder.ids.new(),
        state=ConsentState.WITHDRAWN,
        happened_at=at,
        expires_at=None,
        evidence=_resource(request),
        recorded_at=request.created_at,
        recorded_by=recorder.principal,
        revision=0,
    )
    return consents.with_content(withdrawn, index=0, now=at)


def _resource(request: PrivacyRequest) -> str:
    return f"privacy-requests/{request.privacy_request_id}"
