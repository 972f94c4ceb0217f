"""Checks as the protos say them."""

from __future__ import annotations

from typing import Final

from counterfoil.contracts.v1 import checks_pb2 as pb
from counterfoil_chassis.clock import to_timestamp

from counterfoil_contracts.check_entities import (
    Check,
    CheckState,
    DatasetProfile,
    FieldProfile,
    ProfileSubject,
    TrialSubject,
    Wanted,
)
from counterfoil_contracts.entities import GovernedDataset
from counterfoil_contracts.servicers.translation import to_compiled

_STATES: Final = {
    CheckState.PENDING: pb.Check.State.PENDING,
    CheckState.DONE: pb.Check.State.DONE,
    CheckState.FAILED: pb.Check.State.FAILED,
}


def to_check(check: Check) -> pb.Check:
    """Return a check as callers see it."""
    subject = check.subject
    found = pb.ReportCheckRequest.FromString(check.result)
    return pb.Check(
        check_id=check.check_id,
        state=_STATES[check.state],
        trial=_trial(subject) if isinstance(subject, TrialSubject) else None,
        profile=_profile(subject) if isinstance(subject, ProfileSubject) else None,
        records=check.records,
        created_by=check.created_by,
        created_at=to_timestamp(check.created_at),
        finished_at=None if check.finished_at is None else to_timestamp(check.finished_at),
        trials=found.trials,
        profiled=found.profiled if found.HasField("profiled") else None,
        error_reason=found.error_reason,
        error_detail=found.error_detail,
    )


def to_pending(wanted: Wanted) -> pb.PendingCheck:
    """Return a check that waits as ingest sees it."""
    check, subject = wanted.check, wanted.check.subject
    answer = pb.PendingCheck(workspace=check.workspace, check_id=check.check_id, records=check.records)
    if isinstance(subject, ProfileSubject):
        answer.profile.CopyFrom(_profile(subject))
    else:
        answer.compiled.extend(
            to_compiled(GovernedDataset(check.workspace, subject.contract_id, subject.version, each))
            for each in wanted.compiled
        )
    return answer


def to_profile(message: pb.DatasetProfile) -> DatasetProfile:
    """Return what ingest has told of a dataset's recent records."""
    return DatasetProfile(message.dataset, message.records, tuple(_field(each) for each in message.fields))


def _field(message: pb.FieldProfile) -> FieldProfile:
    return FieldProfile(
        path=message.path,
        parents=message.parents,
        present=message.present,
        nulls=message.nulls,
        types=tuple((each.value, each.count) for each in message.types),
        format=message.format,
        values=tuple((each.value, each.count) for each in message.values),
        distinct=message.distinct,
        minimum=message.minimum,
        maximum=message.maximum,
        personal=message.personal,
    )


def _trial(subject: TrialSubject) -> pb.TrialSubject:
    return pb.TrialSubject(
        contract_id=subject.contract_id, version=subject.version, document_sha256=subject.document_sha256
    )


def _profile(subject: ProfileSubject) -> pb.ProfileSubject:
    return pb.ProfileSubject(dataset=subject.dataset, type=subject.type, event=subject.event)
