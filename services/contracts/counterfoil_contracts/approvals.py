"""Activations that need a second person: asked for as a change, and done by this service once somebody approved it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from counterfoil.governance.v1 import changes_pb2
from counterfoil_chassis import approvals
from counterfoil_chassis.canonical import canonical_json, sha256_hex
from counterfoil_chassis.changes import Changes, payload_sha256
from counterfoil_chassis.clock import Clock
from counterfoil_chassis.errors import FailedPreconditionError, InvalidArgumentError
from counterfoil_chassis.telemetry import tracer

from counterfoil_contracts import contracts
from counterfoil_contracts.contracts import Approval, Judged
from counterfoil_contracts.entities import ContractVersion, VersionState
from counterfoil_contracts.judging import Find, judge, judged
from counterfoil_contracts.store import Stores, Transactions

KIND: Final = "contract.activate"
POLICY: Final = "contract-breaks-consumers"
"""Not a policy of the workspace but a rule of the platform, which its policies cannot lift."""
SPAN_APPLY: Final = "apply approved activation"
SERVICE_ACTOR: Final = "service:contracts"

_RESOURCE: Final = re.compile(r"contracts/([^/]+)/versions/([^/]+)")
_REASON_CHARACTERS: Final = 1_000
_NAMED_IN_PAYLOAD: Final = 50
_logger = logging.getLogger(__name__)


class Approvals:
    """Asks for changes on callers' behalf and carries out those that were approved."""

    def __init__(self, transactions: Transactions, changes: Changes, clock: Clock) -> None:
        self._transactions = transactions
        self._changes = changes
        self._clock = clock
        self._approvals = approvals.Approvals(changes, clock, self, kind=KIND)

    async def propose(self, find: Find, *, principal: str, reason: str) -> tuple[ContractVersion, Judged]:
        """Activate a version at once if it breaks nobody; else have it wait for approval. Asking again asks the same.

        Raises what `contracts.activate` raises.
        """
        async with judged(self._transactions, find) as (stores, found):
            contracts.require_activable(found, reason=reason)
            await contracts.require_free(stores, found.situation.version)
            if not found.compared.whole.needs_approval:
                now = self._clock.now()
                return await contracts.activate(stores, found, reason=reason, principal=principal, now=now), found
        version = found.situation.version
        payload = payload_of(found)
        change = await self._changes.create(
            workspace=version.workspace,
            kind=KIND,
            resource=f"contracts/{version.contract_id}/versions/{version.version}",
            payload=payload,
            requester=principal,
            reason=reason,
            policy_id=POLICY,
            request_id=await self._request_id(version, payload, principal=principal, reason=reason),
        )
        async with judged(self._transactions, find) as (stores, found):
            # what changed meanwhile is found when the approved change is carried out
            if found.situation.version.state is VersionState.ACTIVE:
                return found.situation.version, found
            contracts.require_activable(found, reason=reason)
            waiting = await contracts.wait_for(
                stores, found, change_id=change.change_id, reason=reason, principal=principal, now=self._clock.now()
            )
        self._approvals.wake()
        return waiting, found

    async def _request_id(
        self, version: ContractVersion, payload: Mapping[str, Any], *, principal: str, reason: str
    ) -> str:
        """Name an asking by how often the version was withdrawn: a retry asks for the same change, a later one not."""
        place = (version.workspace, version.contract_id)
        async with self._transactions.read() as stores:
            withdrawn = await stores.changelog.withdrawn(*place, version.version)
        return sha256_hex(canonical_json([*place, version.version, withdrawn, principal, reason, dict(payload)]))

    async def run(self) -> None:
        """Follow the changes and carry them out for the process's life."""
        await self._approvals.run()

    async def waiting(self) -> Sequence[ContractVersion]:
        """Return the versions that wait."""
        async with self._transactions.read() as stores:
            return await stores.contracts.proposed()

    async def adopt(self, change: changes_pb2.Change) -> None:
        """Have a version wait for a change that it does not know of, or refuse the change."""
        place = _RESOURCE.fullmatch(change.resource)
        if place is None:
            self._approvals.refuse(change)
            return
        async with self._transactions.read() as stores:
            target = await stores.contracts.find_version(change.workspace, place[1], place[2])
        if target is not None and target.change_id == change.change_id:
            return
        if target is not None and target.state in (VersionState.DRAFT, VersionState.DEPRECATED):
            async with judged(self._transactions, _finder(target)) as (stores, found):
                if payload_sha256(payload_of(found)) == change.payload_sha256:
                    await contracts.wait_for(
                        stores,
                        found,
                        change_id=change.change_id,
                        reason=change.reason,
                        principal=change.requester,
                        now=self._clock.now(),
                    )
                    return
        detail = "This change is not the one that its version waits for."
        at = (change.workspace, change.change_id, change.payload_sha256)
        await self._approvals.report(*at, applied=False, detail=detail)
        self._approvals.refuse(change)

    async def apply(self, version: ContractVersion, change: changes_pb2.Change | None) -> None:
        """Report and activate; what governance has as applied is done whatever has changed since."""
        applied = change is not None and change.state == changes_pb2.Change.APPLIED
        with tracer().start_as_current_span(SPAN_APPLY):
            found = await judge(self._transactions, _finder(version))
            sha256 = change.payload_sha256 if change is not None and applied else payload_sha256(payload_of(found))
            if change is not None and sha256 != change.payload_sha256:
                detail = "The version in force, or whom this breaks, is not what it was when this was proposed."
                await self._fail(version, change.payload_sha256, detail)
                return
            if fault := await self._fault(found):
                # one that was reported and not done before the process died cannot be taken back
                await (self.withdraw(version, fault) if applied else self._fail(version, sha256, fault))
                return
            detail = f"Version {version.version} of {version.contract_id} is in force."
            reported = await self._approvals.report(
                version.workspace, version.change_id, sha256, applied=True, detail=detail
            )
            if isinstance(reported, str):
                await self.withdraw(version, f"Change {version.change_id} cannot be carried out: {reported}")
                return
            await self._activate(version, reported)

    async def _fault(self, found: Judged) -> str:
        """Return why a version cannot come into force although it is approved."""
        version = found.situation.version
        try:
            contracts.require_activable(found, reason=version.reason)
            async with self._transactions.read() as stores:
                await contracts.require_free(stores, version)
        except (FailedPreconditionError, InvalidArgumentError) as error:
            return error.message
        return ""

    async def _fail(self, version: ContractVersion, sha256: str, detail: str) -> None:
        await self._approvals.report(version.workspace, version.change_id, sha256, applied=False, detail=detail)
        await self.withdraw(version, detail)

    async def _activate(self, version: ContractVersion, change: changes_pb2.Change) -> None:
        async with judged(self._transactions, _finder(version)) as (stores, found):
            if not _waits(found.situation.version, version):
                return
            await contracts.activate(
                stores,
                found,
                reason=change.reason,
                principal=change.requester,
                now=self._clock.now(),
                approved=Approval(change.change_id, tuple(approvals.approvers(change))),
            )
        fields = {"contract": version.contract_id, "version": version.version, "change": change.change_id}
        _logger.info("activated", extra=fields)

    async def withdraw(self, version: ContractVersion, reason: str) -> None:
        """Let a version be again what it was before, if it still waits for that change."""
        async with self._transactions.begin() as stores:
            current = await _finder(version)(stores)
            if _waits(current, version):
                said = reason[:_REASON_CHARACTERS]
                now = self._clock.now()
                await contracts.withdraw(stores, current, reason=said, principal=SERVICE_ACTOR, now=now)


def _finder(version: ContractVersion) -> Find:
    async def find(stores: Stores) -> ContractVersion:
        return await contracts.get_version(
            stores, workspace=version.workspace, contract_id=version.contract_id, version=version.version
        )

    return find


def _waits(current: ContractVersion, version: ContractVersion) -> bool:
    return current.state is VersionState.PROPOSED and current.change_id == version.change_id


def payload_of(found: Judged) -> Mapping[str, Any]:
    """Return what exactly is approved: this document in place of that version, although it breaks these consumers."""
    version, whole = found.situation.version, found.compared.whole
    broken = sorted((each.consumer.dataset, each.consumer.name, each.consumer.consumer_id) for each in whole.broken)
    return {
        "contract_id": version.contract_id,
        "version": version.version,
        "document_sha256": version.document_sha256,
        "in_force_version": whole.in_force_version,
        "level": "" if whole.level is None else whole.level.value,
        "consumers": [f"{name} ({dataset})" for dataset, name, _ in broken[:_NAMED_IN_PAYLOAD]],
        "consumer_count": len(broken),
        "consumers_sha256": sha256_hex(canonical_json([list(each) for each in broken])),
    }
