"""The life of contract versions: draft, proposed, active, deprecated, retired, and active again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from counterfoil_chassis.errors import FieldViolation

from counterfoil_contracts.effects import Compared, reads_version
from counterfoil_contracts.entities import (
    Break,
    CheckedDocument,
    ContractVersion,
    GovernedDataset,
    VersionState,
)
from counterfoil_contracts.errors import (
    ConsumersBrokenError,
    ConsumersReadError,
    ContractInvalidError,
    DatasetTakenError,
    NoContractError,
    ReasonRequiredError,
    SunsetAheadError,
    VersionExistsError,
    VersionNotFoundError,
    VersionStateError,
    VersionTooLowError,
)
from counterfoil_contracts.evolution import ChangelogAction, ChangelogEntry, Situation, VersionComparison
from counterfoil_contracts.store import Stores

MOST_BROKEN: Final = 200
MOST_FIELDS: Final = 500
_MOST_NAMED: Final = 20


@dataclass(frozen=True)
class Judged:
    """A version with all that it was judged by, and the verdict."""

    situation: Situation
    compared: Compared


@dataclass(frozen=True)
class Approval:
    """The change by which others approved an activation, and who they are."""

    change_id: str
    approvers: tuple[str, ...]


def draft(
    document: str,
    checked: CheckedDocument,
    *,
    workspace: str,
    created_by: str,
    now: datetime,
    unfinished: bool = False,
) -> ContractVersion:
    """Return the draft that a checked document makes; raise ContractInvalidError with every finding as a violation.

    An `unfinished` one may have findings if it is storable: it compiles to nothing, and cannot come into force.
    """
    if checked.findings and not (unfinished and checked.storable):
        count = len(checked.findings)
        faults = "one fault" if count == 1 else f"{count} faults"
        raise ContractInvalidError(
            f"The document has {faults}; nothing was kept. Mend what the violations name and submit it again.",
            violations=[FieldViolation(found.path, found.reason, found.told) for found in checked.findings],
        )
    return ContractVersion(
        workspace=workspace,
        contract_id=checked.contract_id,
        version=checked.version,
        display_name=checked.display_name,
        state=VersionState.DRAFT,
        document=document,
        document_sha256=hashlib.sha256(document.encode()).hexdigest(),
        compiled=() if checked.findings else checked.compiled,
        created_by=created_by,
        created_at=now,
    )


async def submit(stores: Stores, version: ContractVersion) -> ContractVersion:
    """Keep a draft, or return the version that the same document made before.

    Raises VersionExistsError for another document under the same version.
    """
    known = await known_or(stores, version)
    if known is version:
        await add_version(stores, version, shipped=False)
    return known


async def add_version(stores: Stores, version: ContractVersion, *, shipped: bool) -> None:
    """Keep a new version, and say so in the changelog."""
    await stores.contracts.add_version(version, shipped=shipped)
    entry = _entry(version, ChangelogAction.SUBMITTED, principal=version.created_by, at=version.created_at)
    await stores.changelog.add(entry)


async def known_or(stores: Stores, version: ContractVersion) -> ContractVersion:
    """Return the version that the same document made before, or else this one.

    Raises VersionExistsError for another document under the same version.
    """
    known = await stores.contracts.find_version(version.workspace, version.contract_id, version.version)
    if known is not None and known.document_sha256 != version.document_sha256:
        raise VersionExistsError(
            f"Contract {version.contract_id!r} has another document as version {version.version}. Raise the version.",
            metadata={"contract_id": version.contract_id, "version": version.version},
        )
    return known or version


async def as_submitted(stores: Stores, version: ContractVersion) -> ContractVersion:
    """Return the version that the same document made before, or else this one, whatever its number."""
    known = await stores.contracts.find_version(version.workspace, version.contract_id, version.version)
    return known if known is not None and known.document_sha256 == version.document_sha256 else version


async def situation_beside(stores: Stores, version: ContractVersion, other: str) -> Situation:
    """Return all that a version is judged by if another of its contract were in force; raise VersionNotFoundError."""
    beside = await get_version(stores, workspace=version.workspace, contract_id=version.contract_id, version=other)
    return Situation(
        version=version,
        in_force=beside,
        governed=tuple(
            GovernedDataset(beside.workspace, beside.contract_id, beside.version, compiled)
            for compiled in beside.compiled
            if compiled.dataset in version.datasets
        ),
        consumers=tuple(await stores.consumers.readers(version.workspace, beside.datasets)),
    )


async def situation_of(stores: Stores, version: ContractVersion) -> Situation:
    """Return all that a version is judged by, as it is now."""
    in_force = await stores.contracts.version_in_force(version.workspace, version.contract_id)
    governed = [await stores.governed.find(version.workspace, dataset) for dataset in version.datasets]
    return Situation(
        version=version,
        in_force=in_force,
        governed=tuple(each for each in governed if each is not None),
        consumers=()
        if in_force is None
        else tuple(await stores.consumers.readers(version.workspace, in_force.datasets)),
    )


async def get_version(stores: Stores, *, workspace: str, contract_id: str, version: str) -> ContractVersion:
    """Return one version with document and schemas; raise ContractNotFoundError or VersionNotFoundError."""
    found = await stores.contracts.find_version(workspace, contract_id, version)
    if found is None:
        await stores.contracts.get(workspace, contract_id)
        raise VersionNotFoundError(
            f"Contract {contract_id!r} has no version {version!r}. List its versions.",
            metadata={"contract_id": contract_id, "version": version},
        )
    return found


async def activate(
    stores: Stores, judged: Judged, *, reason: str, principal: str, now: datetime, approved: Approval | None = None
) -> ContractVersion:
    """Put a version in force and take the one before it out of force; one in force already stays as it is.

    Raises ReasonRequiredError when it was in force before and no reason is given, DatasetTakenError when another
    contract governs one of its datasets, VersionStateError when it is retired, VersionTooLowError, and without an
    approval ConsumersBrokenError.
    """
    version, whole = judged.situation.version, judged.compared.whole
    if version.state is VersionState.ACTIVE:
        return version
    require_activable(judged, reason=reason)
    await require_free(stores, version)
    if whole.needs_approval and approved is None:
        raise _broken(version, whole)
    previous = judged.situation.in_force
    if previous is not None and previous.version != version.version:
        ended = VersionState.DEPRECATED
        await stores.contracts.save_state(replace(previous, state=ended, in_force=False))
        for dataset in set(previous.datasets) - set(version.datasets):
            await stores.governed.delete(version.workspace, dataset)
    active = replace(
        version,
        state=VersionState.ACTIVE,
        in_force=True,
        activated_at=now,
        reason=reason,
        sunset_at=None,
        change_id="",
    )
    await stores.contracts.save_state(active)
    for compiled in version.compiled:
        await stores.governed.put(version, compiled)
    action = ChangelogAction.ACTIVATED if version.activated_at is None else ChangelogAction.REVERTED
    entry = _entry(active, action, principal=principal, at=now, reason=reason)
    await stores.changelog.add(
        replace(
            entry,
            previous_version="" if previous is None else previous.version,
            change_id="" if approved is None else approved.change_id,
            level=whole.level,
            fields=whole.fields[:MOST_FIELDS],
            consumers=tuple(each.consumer.name for each in whole.broken[:MOST_BROKEN]),
        )
    )
    details = {
        "previous_version": "" if previous is None else previous.version,
        "document_sha256": version.document_sha256,
        "datasets": list(version.datasets),
        "consumers_broken": len(whole.broken),
    }
    if approved is not None:
        details |= {"change_id": approved.change_id, "approved_by": list(approved.approvers)}
    await _audit(stores, active, "contract.activate", principal=principal, details=details)
    return active


def require_activable(judged: Judged, *, reason: str) -> None:
    """Raise why a version cannot come into force.

    That is ContractInvalidError, VersionStateError, ReasonRequiredError or VersionTooLowError.
    """
    version, whole = judged.situation.version, judged.compared.whole
    named = {"contract_id": version.contract_id, "version": version.version}
    if not version.compiled:
        raise ContractInvalidError(
            f"Version {version.version} is unfinished. Check its document, and submit it mended as another version.",
            metadata=named,
        )
    if version.state is VersionState.RETIRED:
        raise VersionStateError(
            f"Version {version.version} is retired. Submit its document again under a higher version.", metadata=named
        )
    if version.activated_at is not None and not reason.strip():
        raise ReasonRequiredError(
            f"Version {version.version} was in force before. Activating it again reverts the contract: give a reason.",
            metadata=named,
        )
    if not whole.version_suffices and whole.level is not None:
        raise VersionTooLowError(
            f"Compared with {whole.in_force_version}, which is in force, {version.version} is a {whole.level.value} "
            f"change. Call it {whole.needed_version} or higher.",
            metadata={
                **named,
                "in_force_version": whole.in_force_version,
                "needed_version": whole.needed_version,
                "level": whole.level.value,
            },
        )


def _broken(version: ContractVersion, whole: VersionComparison) -> ConsumersBrokenError:
    names = sorted({each.consumer.name for each in whole.broken})
    return ConsumersBrokenError(
        f"Version {version.version} breaks, or might break, {_listed(names)}. Have its consumers changed first, or "
        "propose it, so that a second person can approve that.",
        metadata={
            "contract_id": version.contract_id,
            "version": version.version,
            "consumers": ", ".join(names[:_MOST_NAMED]),
            "consumer_count": str(len(names)),
        },
        violations=[
            FieldViolation(found.path, each.verdict.value.upper(), f"{each.consumer.name}: {found.detail}")
            for each in whole.broken[:_MOST_NAMED]
            for found in (each.breaks or (Break("$", "", "nothing proves that it goes on as before", b""),))[:5]
        ],
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


async def wait_for(
    stores: Stores, judged: Judged, *, change_id: str, reason: str, principal: str, now: datetime
) -> ContractVersion:
    """Have a version wait for the approval of a change; one that waits for it already stays as it is."""
    version = judged.situation.version
    if version.state is VersionState.PROPOSED and version.change_id == change_id:
        return version
    waiting = replace(version, state=VersionState.PROPOSED, change_id=change_id, reason=reason)
    await stores.contracts.save_state(waiting)
    entry = _entry(waiting, ChangelogAction.PROPOSED, principal=principal, at=now, reason=reason)
    whole = judged.compared.whole
    await stores.changelog.add(
        replace(
            entry,
            change_id=change_id,
            previous_version=whole.in_force_version,
            level=whole.level,
            fields=whole.fields[:MOST_FIELDS],
            consumers=tuple(each.consumer.name for each in whole.broken[:MOST_BROKEN]),
        )
    )
    details = {"change_id": change_id, "document_sha256": version.document_sha256}
    await _audit(stores, waiting, "contract.propose", principal=principal, details=details)
    return waiting


async def withdraw(stores: Stores, version: ContractVersion, *, reason: str, principal: str, now: datetime) -> None:
    """Let a version that waited for approval be again what it was before."""
    before = VersionState.DRAFT if version.activated_at is None else VersionState.DEPRECATED
    withdrawn = replace(version, state=before, change_id="", reason=reason)
    await stores.contracts.save_state(withdrawn)
    entry = _entry(withdrawn, ChangelogAction.WITHDRAWN, principal=principal, at=now, reason=reason)
    await stores.changelog.add(replace(entry, change_id=version.change_id))
    details = {"change_id": version.change_id}
    await _audit(stores, withdrawn, "contract.withdraw", principal=principal, details=details)


async def deprecate(
    stores: Stores, version: ContractVersion, *, sunset_at: datetime, reason: str, principal: str, now: datetime
) -> ContractVersion:
    """Announce a version's end, or another time for it; one in force stays so. Raises VersionStateError."""
    if version.state not in (VersionState.ACTIVE, VersionState.DEPRECATED):
        raise VersionStateError(
            f"Version {version.version} is {version.state.value}; only one that is or was in force is deprecated.",
            metadata={"version": version.version, "state": version.state.value},
        )
    ending = replace(version, state=VersionState.DEPRECATED, sunset_at=sunset_at, reason=reason)
    await stores.contracts.save_state(ending)
    entry = _entry(ending, ChangelogAction.DEPRECATED, principal=principal, at=now, reason=reason)
    await stores.changelog.add(replace(entry, sunset_at=sunset_at))
    details = {"sunset_at": sunset_at.isoformat()}
    await _audit(stores, ending, "contract.deprecate", principal=principal, details=details)
    return ending


async def retire(
    stores: Stores, version: ContractVersion, *, reason: str, principal: str, now: datetime
) -> ContractVersion:
    """End a version for good: a draft, or a deprecated one that nobody reads; its datasets are free if it is in force.

    Raises VersionStateError, SunsetAheadError, ConsumersReadError. One that is retired stays as it is.
    """
    if version.state is VersionState.RETIRED:
        return version
    if version.state not in (VersionState.DRAFT, VersionState.DEPRECATED):
        todo = "Deprecate it first." if version.state is VersionState.ACTIVE else "Have its change rejected first."
        raise VersionStateError(
            f"Version {version.version} is {version.state.value}. {todo}",
            metadata={"version": version.version, "state": version.state.value},
        )
    if version.in_force and version.sunset_at is not None and version.sunset_at > now:
        raise SunsetAheadError(
            f"Version {version.version} is in force, and was announced to end at {version.sunset_at.isoformat()}. "
            "Wait, or deprecate it again with another time.",
            metadata={"version": version.version, "sunset_at": version.sunset_at.isoformat()},
        )
    await _require_unread(stores, version)
    retired = replace(version, state=VersionState.RETIRED, in_force=False, reason=reason)
    await stores.contracts.save_state(retired)
    if version.in_force:
        for dataset in version.datasets:
            await stores.governed.delete(version.workspace, dataset)
    entry = _entry(retired, ChangelogAction.RETIRED, principal=principal, at=now, reason=reason)
    await stores.changelog.add(replace(entry, previous_version=version.version if version.in_force else ""))
    await _audit(stores, retired, "contract.retire", principal=principal, details={"in_force": version.in_force})
    return retired


async def _require_unread(stores: Stores, version: ContractVersion) -> None:
    """Raise ConsumersReadError when somebody reads a version: the one in force, or what their range has instead."""
    if version.activated_at is None:
        return
    in_force = await stores.contracts.version_in_force(version.workspace, version.contract_id)
    reading = [
        each
        for each in await stores.consumers.readers(version.workspace, version.datasets)
        if reads_version(each, version.version)
        and (
            version.in_force or (each.version_range and (in_force is None or not reads_version(each, in_force.version)))
        )
    ]
    if reading:
        names = sorted({each.name for each in reading})
        raise ConsumersReadError(
            f"{_listed(names)} {'reads' if len(names) == 1 else 'read'} version {version.version}. "
            "Have them read another, or remove them.",
            metadata={
                "version": version.version,
                "consumers": ", ".join(names[:_MOST_NAMED]),
                "consumer_count": str(len(names)),
            },
            violations=[
                FieldViolation(each.dataset, "CONSUMER_READS", f"{each.name}, of {each.owner or each.service}")
                for each in reading[:_MOST_NAMED]
            ],
        )


def _entry(
    version: ContractVersion, action: ChangelogAction, *, principal: str, at: datetime, reason: str = ""
) -> ChangelogEntry:
    return ChangelogEntry(
        workspace=version.workspace,
        contract_id=version.contract_id,
        version=version.version,
        action=action,
        principal=principal,
        at=at,
        reason=reason,
    )


async def _audit(
    stores: Stores, version: ContractVersion, action: str, *, principal: str, details: Mapping[str, Any]
) -> None:
    await stores.audit.record(
        workspace=version.workspace,
        principal=principal,
        action=action,
        resource=f"contracts/{version.contract_id}/versions/{version.version}",
        details=details,
    )


async def require_free(stores: Stores, version: ContractVersion) -> None:
    """Raise DatasetTakenError when another contract governs one of a version's datasets."""
    for dataset in version.datasets:
        governed = await stores.governed.find(version.workspace, dataset)
        if governed is not None and governed.contract_id != version.contract_id:
            raise DatasetTakenError(
                f"Contract {governed.contract_id!r} governs dataset {dataset!r}. Submit a version of that contract, "
                "or name the dataset otherwise.",
                metadata={"dataset": dataset, "contract_id": governed.contract_id},
            )


async def governing(stores: Stores, *, workspace: str, dataset: str) -> GovernedDataset:
    """Return what governs a dataset; raise NoContractError when nothing does."""
    governed = await stores.governed.find(workspace, dataset)
    if governed is None:
        raise NoContractError(
            f"No active contract governs dataset {dataset!r}. Submit one and activate it.",
            metadata={"dataset": dataset},
        )
    return governed
