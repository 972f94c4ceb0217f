"""Retention policies: for how long the records of a dataset are kept, and what ingest did for it."""

from __future__ import annotations

from dataclasses import replace

from counterfoil_chassis.errors import EtagMismatchError

from counterfoil_governance.entities import RetentionPolicy, RetentionReport
from counterfoil_governance.errors import RetentionIncompleteError, RetentionPolicyNotFoundError
from counterfoil_governance.recording import Recorder
from counterfoil_governance.store import Stores


async def get(stores: Stores, workspace: str, dataset: str) -> RetentionPolicy:
    """Return the policy of a dataset; raise RetentionPolicyNotFoundError when there is none in this workspace."""
    found = await stores.retention_policies.find(workspace, dataset)
    if found is None:
        raise RetentionPolicyNotFoundError(
            f"The dataset {dataset!r} has no retention policy: its records are kept for ever. Set one.",
            metadata={"dataset": dataset},
        )
    return found


async def set_policy(stores: Stores, wanted: RetentionPolicy, *, etag: str, recorder: Recorder) -> RetentionPolicy:
    """Set the policy of a dataset, instead of another only when that has the etag (if one is given).

    What counts the records erased under it begins anew. Raises EtagMismatchError.
    """
    current = await stores.retention_policies.find(wanted.workspace, wanted.dataset)
    _require_etag(current, etag)
    await stores.retention_policies.put(wanted)
    await recorder.record(
        stores,
        "retention_policy.set",
        _resource(wanted),
        days=wanted.days,
        days_before=None if current is None else current.days,
        purpose=wanted.purpose,
        owner=wanted.owner,
    )
    return wanted


async def delete(stores: Stores, dataset: str, *, etag: str, recorder: Recorder) -> None:
    """Delete the policy of a dataset; raise RetentionPolicyNotFoundError, EtagMismatchError."""
    current = await get(stores, recorder.workspace, dataset)
    _require_etag(current, etag)
    await stores.retention_policies.delete(current)
    await recorder.record(stores, "retention_policy.delete", _resource(current), days=current.days)


async def report(
    stores: Stores, dataset: str, done: RetentionReport, *, remaining: int, recorder: Recorder
) -> RetentionPolicy:
    """Add what was done for a policy to what it says; what erased something is written down.

    Raises RetentionIncompleteError, RetentionPolicyNotFoundError.
    """
    policy = await get(stores, recorder.workspace, dataset)
    if remaining and not done.waiting_for:
        raise RetentionIncompleteError(
            f"{remaining} expired records are still there. Erase them, search again, then report.",
            metadata={"dataset": dataset, "remaining": str(remaining)},
        )
    before = policy.report
    total = replace(
        done,
        records=done.records + (before.records if before else 0),
        quarantined=done.quarantined + (before.quarantined if before else 0),
    )
    reported = replace(policy, report=total)
    await stores.retention_policies.put(reported)
    if done.records or done.quarantined:
        await recorder.record(
            stores,
            "retention_policy.erase",
            _resource(policy),
            received_before=done.received_before.isoformat(),
            records=done.records,
            quarantined=done.quarantined,
            held=done.held,
        )
    return reported


def _require_etag(current: RetentionPolicy | None, etag: str) -> None:
    present = "" if current is None else current.etag
    if etag and etag != present:
        raise EtagMismatchError(
            "The policy changed since you read it. Get it again and send its present etag.", metadata={"etag": present}
        )


def _resource(policy: RetentionPolicy) -> str:
    return f"retention-policies/{policy.dataset}"
