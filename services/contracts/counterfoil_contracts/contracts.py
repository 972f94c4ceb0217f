"""The life of contract versions: draft, active, deprecated, and active again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import orjson
from counterfoil_chassis.errors import FieldViolation

from counterfoil_contracts.compatibility.comparing import compare
from counterfoil_contracts.entities import (
    CheckedDocument,
    ContractVersion,
    DatasetComparison,
    GovernedDataset,
    VersionState,
)
from counterfoil_contracts.errors import (
    ContractInvalidError,
    DatasetTakenError,
    NoContractError,
    ReasonRequiredError,
    VersionExistsError,
    VersionNotFoundError,
)
from counterfoil_contracts.store import Stores


def draft(
    document: str, checked: CheckedDocument, *, workspace: str, created_by: str, now: datetime
) -> ContractVersion:
    """Return the draft that a checked document makes; raise ContractInvalidError with every finding as a violation."""
    if checked.findings:
        count = len(checked.findings)
        faults = "one fault" if count == 1 else f"{count} faults"
        raise ContractInvalidError(
            f"The document has {faults}; nothing was kept. Mend what the violations name and submit it again.",
            violations=[FieldViolation(found.path, found.reason, found.detail) for found in checked.findings],
        )
    return ContractVersion(
        workspace=workspace,
        contract_id=checked.contract_id,
        version=checked.version,
        display_name=checked.display_name,
        state=VersionState.DRAFT,
        document=document,
        document_sha256=hashlib.sha256(document.encode()).hexdigest(),
        compiled=checked.compiled,
        created_by=created_by,
        created_at=now,
    )


async def submit(
    stores: Stores, version: ContractVersion, *, activate_now: bool, principal: str, now: datetime
) -> ContractVersion:
    """Keep a draft, or take the version that the same document made before; activate it at once if asked.

    Raises VersionExistsError for another document under the same version, and what `activate` raises.
    """
    known = await stores.contracts.find_version(version.workspace, version.contract_id, version.version)
    if known is None:
        await stores.contracts.add_version(version, shipped=False)
    elif known.document_sha256 != version.document_sha256:
        raise VersionExistsError(
            f"Contract {version.contract_id!r} has another document as version {version.version}. Raise the version.",
            metadata={"contract_id": version.contract_id, "version": version.version},
        )
    kept = known or version
    return await activate(stores, kept, reason="", principal=principal, now=now) if activate_now else kept


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
    stores: Stores, version: ContractVersion, *, reason: str, principal: str, now: datetime
) -> ContractVersion:
    """Put a version in force and take the one before it out of force; one in force already stays as it is.

    Raises ReasonRequiredError when it was in force before and no reason is given, DatasetTakenError when another
    contract governs one of its datasets.
    """
    if version.state is VersionState.ACTIVE:
        return version
    if version.state is VersionState.DEPRECATED and not reason.strip():
        raise ReasonRequiredError(
            f"Version {version.version} was in force before. Activating it again reverts the contract: give a reason.",
            metadata={"contract_id": version.contract_id, "version": version.version},
        )
    await _require_free(stores, version)
    previous = await stores.contracts.active_version(version.workspace, version.contract_id)
    if previous is not None:
        await stores.contracts.deprecate(previous)
        for dataset in set(previous.datasets) - set(version.datasets):
            await stores.governed.delete(version.workspace, dataset)
    await stores.contracts.activate(version, reason=reason, at=now)
    for compiled in version.compiled:
        await stores.governed.put(version, compiled)
    await stores.audit.record(
        workspace=version.workspace,
        principal=principal,
        action="contract.activate",
        resource=f"contracts/{version.contract_id}/versions/{version.version}",
        details={
            "previous_version": "" if previous is None else previous.version,
            "document_sha256": version.document_sha256,
            "datasets": list(version.datasets),
        },
    )
    return replace(version, state=VersionState.ACTIVE, activated_at=now, reason=reason)


async def _require_free(stores: Stores, version: ContractVersion) -> None:
    for dataset in version.datasets:
        governed = await stores.governed.find(version.workspace, dataset)
        if governed is not None and governed.contract_id != version.contract_id:
            raise DatasetTakenError(
                f"Contract {governed.contract_id!r} governs dataset {dataset!r}. Submit a version of that contract, "
                "or name the dataset otherwise.",
                metadata={"dataset": dataset, "contract_id": governed.contract_id},
            )


async def in_force(stores: Stores, checked: CheckedDocument, *, workspace: str) -> list[GovernedDataset]:
    """Return what governs today those datasets of a document that are governed."""
    found = [await stores.governed.find(workspace, compiled.dataset) for compiled in checked.compiled]
    return [governed for governed in found if governed is not None]


def compare_with(governed: Sequence[GovernedDataset], checked: CheckedDocument) -> list[DatasetComparison]:
    """Compare a document's datasets with what governs them, both ways; it may take a second: run it in a thread."""
    compiled = {each.dataset: orjson.loads(each.json_schema) for each in checked.compiled}
    comparisons = []
    for each in governed:
        old, new = orjson.loads(each.compiled.json_schema), compiled[each.compiled.dataset]
        comparisons.append(DatasetComparison(each, backward=compare(old, new), forward=compare(new, old)))
    return comparisons


async def governing(stores: Stores, *, workspace: str, dataset: str) -> GovernedDataset:
    """Return what governs a dataset; raise NoContractError when nothing does."""
    governed = await stores.governed.find(workspace, dataset)
    if governed is None:
        raise NoContractError(
            f"No active contract governs dataset {dataset!r}. Submit one and activate it.",
            metadata={"dataset": dataset},
        )
    return governed
