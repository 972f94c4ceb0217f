"""Privacy requests: kept without the person's identifiers, watched by who carries them out, complete when reported."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from counterfoil.governance.v1 import audit_pb2, consents_pb2
from counterfoil.governance.v1 import privacy_requests_pb2 as pb
from counterfoil_chassis.clock import from_timestamp, to_timestamp
from counterfoil_governance.privacy import due_at
from hypothesis import given
from hypothesis import strategies as st

from tests.governance.calls import ADMIN_KEY, Governance, MovableClock, governance_in, refused

Kind, State = pb.PrivacyRequest.Kind, pb.PrivacyRequest.State
EMAIL, HOUSEHOLD = "Ada.Lovelace@example.com ", "H-1815-1852"


def asked(*identifiers: tuple[str, str], **more: str) -> pb.CreatePrivacyRequestRequest:
    subjects = [consents_pb2.Subject(type=type_, value=value) for type_, value in identifiers]
    return pb.CreatePrivacyRequestRequest(kind=Kind.ERASURE, identifiers=subjects, **more)


async def create(
    governance: Governance, *identifiers: tuple[str, str], workspace: str = "default", **more: str
) -> pb.PrivacyRequest:
    wanted = asked(*(identifiers or (("email", EMAIL), ("household_id", HOUSEHOLD))), **more)
    return await governance.privacy_requests.CreatePrivacyRequest(
        wanted, **governance.as_principal(workspace=workspace)
    )


async def get(governance: Governance, privacy_request_id: str) -> pb.PrivacyRequest:
    wanted = pb.GetPrivacyRequestRequest(privacy_request_id=privacy_request_id)
    return await governance.privacy_requests.GetPrivacyRequest(wanted, **governance.as_principal())


async def report(
    governance: Governance,
    privacy_request_id: str,
    *,
    workspace: str = "default",
    service: str = "",
    remaining: int = 0,
    **erased: int,
) -> None:
    done = pb.ErasureReport(service=service, erased=erased, remaining=remaining)
    wanted = pb.ReportErasureRequest(workspace=workspace, privacy_request_id=privacy_request_id, report=done)
    await governance.privacy_requests.ReportErasure(wanted, **governance.as_service("graph"))


async def watched(governance: Governance) -> dict[str, pb.Erasure]:
    """Return what a new watcher is told, by key."""
    seen = {}
    stream = governance.privacy_requests.WatchErasures(pb.WatchErasuresRequest(), **governance.as_service("graph"))
    async for response in stream:
        if response.WhichOneof("change") == "heartbeat":
            break
        erasure = pb.Erasure()
        response.put.resource.Unpack(erasure)
        seen[response.put.key] = erasure
    stream.cancel()
    return seen


def holding(folder: Path, value: str | bytes) -> list[Path]:
    """Return the files that hold a value, in whatever case."""
    wanted = value.lower().encode() if isinstance(value, str) else value.lower()
    return [file for file in folder.rglob("*") if file.is_file() and wanted in file.read_bytes().lower()]


async def deeds(governance: Governance) -> list[tuple[str, dict[str, object]]]:
    wanted = audit_pb2.ListAuditEntriesRequest(page_size=1000)
    answer = await governance.audit.ListAuditEntries(wanted, **governance.as_principal())
    return [(entry.action, json.loads(entry.details)) for entry in answer.entries]


async def test_a_request_says_what_was_asked_and_until_when_but_not_who(governance: Governance) -> None:
    made = await create(governance, reference="T-1")
    assert (made.kind, made.state) == (Kind.ERASURE, State.PENDING)
    assert list(made.identifier_types) == ["email", "household_id"]
    assert (made.reference, made.created_by) == ("T-1", "admin")
    assert from_timestamp(made.created_at) == governance.clock.now()
    assert from_timestamp(made.due_at) == datetime(2026, 12, 23, 12, tzinfo=UTC)
    assert not made.HasField("completed_at")
    assert await get(governance, made.privacy_request_id) == made


@pytest.mark.parametrize(
    ("received", "due"), [("2028-01-31", "2028-02-29"), ("2026-12-15", "2027-01-15"), ("2026-01-31", "2026-02-28")]
)
def test_a_month_ends_on_the_same_day_or_the_last(received: str, due: str) -> None:
    assert due_at(datetime.fromisoformat(received)) == datetime.fromisoformat(due)


@given(st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2200, 1, 1)))  # noqa: DTZ001
def test_a_month_is_never_longer_than_the_law_s(received: datetime) -> None:
    assert timedelta(days=28) <= due_at(received) - received <= timedelta(days=31)


async def test_no_file_of_governance_holds_the_identifiers(governance: Governance, tmp_path: Path) -> None:
    made = await create(governance, request_id="once")
    await create(governance, request_id="once")
    await report(governance, made.privacy_request_id, records=1)
    assert holding(tmp_path, made.privacy_request_id)
    assert not holding(tmp_path, EMAIL.strip())
    assert not holding(tmp_path, HOUSEHOLD)


async def test_a_watcher_finds_the_person_by_hashes_with_a_key_of_the_workspace(
    governance: Governance, tmp_path: Path
) -> None:
    made = await create(governance)
    (key, erasure), *_ = (await watched(governance)).items()
    assert key == f"default/{made.privacy_request_id}"
    assert (erasure.workspace, erasure.privacy_request_id) == ("default", made.privacy_request_id)
    assert erasure.created_at == made.created_at
    assert not erasure.reported
    wanted = {
        hmac.digest(erasure.hash_key, f"email\0{EMAIL.strip().lower()}".encode(), "sha256"),
        hmac.digest(erasure.hash_key, f"household_id\0{HOUSEHOLD}".encode(), "sha256"),
    }
    assert set(erasure.identifier_hashes) == wanted
    assert not holding(tmp_path, erasure.hash_key)  # whoever gets the rows cannot try names on them


@pytest.mark.both_engines("governance")
async def test_it_is_complete_once_every_service_has_reported_and_found_nothing(governance: Governance) -> None:
    made = await create(governance)
    with refused("ERASURE_INCOMPLETE") as refusal:
        await report(governance, made.privacy_request_id, remaining=3, records=2)
    assert refusal.failure is not None
    assert refusal.failure.metadata["remaining"] == "3"
    assert (await get(governance, made.privacy_request_id)).state == State.PENDING
    governance.clock.move(timedelta(seconds=7))
    await report(governance, made.privacy_request_id, service="graph", records=2, identifiers=4)
    done = await get(governance, made.privacy_request_id)
    assert done.state == State.COMPLETED
    assert from_timestamp(done.completed_at) == governance.clock.now()
    (told,) = done.reports
    assert (told.service, dict(told.erased), told.remaining) == ("graph", {"records": 2, "identifiers": 4}, 0)
    assert (await watched(governance))[f"default/{made.privacy_request_id}"].reported


@pytest.mark.both_engines("governance")
async def test_the_same_report_again_changes_nothing(governance: Governance) -> None:
    made = await create(governance)
    await report(governance, made.privacy_request_id, records=2)
    done = await get(governance, made.privacy_request_id)
    governance.clock.move(timedelta(hours=1))
    await report(governance, made.privacy_request_id, records=0)
    assert await get(governance, made.privacy_request_id) == done
    assert [action for action, _ in await deeds(governance)].count("privacy_request.complete") == 1


async def test_the_audit_log_gets_counts_only(governance: Governance) -> None:
    made = await create(governance, reference="T-1")
    await report(governance, made.privacy_request_id, records=2)
    entries = dict(await deeds(governance))
    assert entries["privacy_request.create"] == {"identifiers": 2, "consents_withdrawn": 0}
    assert entries["privacy_request.complete"] == {"erased": {"graph.records": 2}}


async def test_nobody_reports_for_another_or_of_another_workspace(governance: Governance) -> None:
    made = await create(governance)
    with refused("ERASURE_REPORTER"):
        await report(governance, made.privacy_request_id, service="ingest")
    with refused("PRIVACY_REQUEST_NOT_FOUND"):
        await report(governance, made.privacy_request_id, workspace="acme")
    wanted = pb.ReportErasureRequest(privacy_request_id=made.privacy_request_id, report=pb.ErasureReport())
    with refused("SERVICE_NOT_ALLOWED"):
        await governance.privacy_requests.ReportErasure(wanted, **governance.as_principal())
    with refused("SERVICE_NOT_ALLOWED"):
        await governance.privacy_requests.ReportErasure(wanted, **governance.as_service("models"))
    assert (await get(governance, made.privacy_request_id)).state == State.PENDING


async def test_a_request_of_another_workspace_does_not_exist(governance: Governance) -> None:
    other = await create(governance, workspace="acme")
    with refused("PRIVACY_REQUEST_NOT_FOUND"):
        await get(governance, other.privacy_request_id)


async def test_a_retry_returns_the_first_answer_and_withdraws_once(governance: Governance) -> None:
    first = await create(governance, request_id="once")
    assert await create(governance, request_id="once") == first
    assert len(await watched(governance)) == 1
    with refused("REQUEST_ID_REUSED"):
        await create(governance, ("email", "bob@example.com"), request_id="once")


@pytest.mark.both_engines("governance")
async def test_requests_are_listed_newest_first_in_pages(governance: Governance) -> None:
    made = [(await create(governance)).privacy_request_id for _ in range(5)]
    seen, token = [], ""
    while True:
        wanted = pb.ListPrivacyRequestsRequest(page_size=2, page_token=token)
        answer = await governance.privacy_requests.ListPrivacyRequests(wanted, **governance.as_principal())
        seen += [each.privacy_request_id for each in answer.privacy_requests]
        token = answer.next_page_token
        if not token:
            break
    assert seen == made[::-1]


@pytest.mark.both_engines("governance")
async def test_consent_given_before_the_request_allows_nothing_after_it(governance: Governance) -> None:
    granted, basis = consents_pb2.Consent.State.GRANTED, consents_pb2.Consent.Basis
    who = consents_pb2.Subject(type="email", value=EMAIL)

    async def record(purpose: str, on: consents_pb2.Consent.Basis.ValueType) -> None:
        told = consents_pb2.NewConsent(
            subject=who,
            purpose=purpose,
            state=granted,
            basis=on,
            happened_at=to_timestamp(governance.clock.now()),
            evidence="form 7",
        )
        request = consents_pb2.RecordConsentsRequest(consents=[told])
        await governance.consents.RecordConsents(request, **governance.as_principal())

    async def allowed(purpose: str) -> str:
        person = consents_pb2.ConsentPerson(subjects=[who])
        request = consents_pb2.CheckConsentsRequest(purpose=purpose, people=[person])
        answer = await governance.consents.CheckConsents(request, **governance.as_principal())
        return answer.verdicts[0].reason

    await record("advertising", basis.CONSENT)
    await record("invoicing", basis.LEGAL_OBLIGATION)
    await create(governance)
    assert (await allowed("advertising"), await allowed("invoicing")) == ("WITHDRAWN", "GRANTED")
    governance.clock.move(timedelta(minutes=1))
    await record("advertising", basis.CONSENT)
    assert await allowed("advertising") == "GRANTED"  # who comes back decides anew
    assert dict(await deeds(governance))["privacy_request.create"]["consents_withdrawn"] == 1


async def test_rows_restored_from_elsewhere_are_told_to_watchers_as_not_reported(
    tmp_path: Path, clock: MovableClock
) -> None:
    digest = hashlib.sha256(ADMIN_KEY.encode()).hexdigest()
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=digest) as running:
        made = await create(running)
        await report(running, made.privacy_request_id, records=2)
    with closing(sqlite3.connect(tmp_path / "governance.db")) as database, database:
        database.execute("DELETE FROM privacy_reports")
        database.execute("DELETE FROM change WHERE topic = 'erasures'")
    async with governance_in(tmp_path, clock, bootstrap_key_sha256=digest) as restored:
        assert (await get(restored, made.privacy_request_id)).state == State.PENDING
        told = (await watched(restored))[f"default/{made.privacy_request_id}"]
        assert not told.reported
        await report(restored, made.privacy_request_id, records=1)
        assert (await get(restored, made.privacy_request_id)).state == State.COMPLETED


async def test_a_watcher_hears_of_a_new_request_at_once(governance: Governance) -> None:
    stream = governance.privacy_requests.WatchErasures(pb.WatchErasuresRequest(), **governance.as_service("graph"))
    assert (await stream.read()).HasField("heartbeat")  # type: ignore[union-attr]
    made = await create(governance)
    async with asyncio.timeout(60):
        told = await stream.read()
    assert told.put.key == f"default/{made.privacy_request_id}"  # type: ignore[union-attr]
    stream.cancel()
