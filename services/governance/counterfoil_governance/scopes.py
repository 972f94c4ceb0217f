"""The scopes that keys can hold, and what each allows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from counterfoil_governance.errors import ScopeNotHeldError, ScopeUnknownError

PLATFORM_ADMIN: Final = "platform.admin"
GOVERNANCE_WRITE: Final = "governance.write"

SCOPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        PLATFORM_ADMIN: "Create workspaces.",
        "governance.read": "Read the workspace, its principals, keys and receipts.",
        GOVERNANCE_WRITE: "Change the workspace; create and disable principals; create and revoke keys.",
        "contracts.read": "Read and check contracts.",
        "contracts.write": "Submit and activate contracts.",
        "ingest.read": "Read records, snapshots, quarantine, imports and sources; run SQL on the lake.",
        "ingest.write": "Append records to any dataset; upload imports.",
        "ingest.admin": "Create and change sources and their write keys; repair and replay quarantine.",
        "ingest.append": "Send events by an event protocol; the scope of write keys.",
        "models.read": "Read models, their versions and forecasts.",
        "models.write": "Train, promote and roll back models; make forecasts.",
    }
)
"""Every scope of the platform with what it allows, in the order people read them."""

ALL_SCOPES: Final[frozenset[str]] = frozenset(SCOPES)
"""What the first key of an installation holds."""

WORKSPACE_SCOPES: Final[frozenset[str]] = ALL_SCOPES - {PLATFORM_ADMIN}
"""What the first key of every further workspace holds."""


def granted(asked: Iterable[str], *, holder: frozenset[str]) -> tuple[str, ...]:
    """Return, sorted, the scopes a new key gets: those asked for, or all its creator holds when none is.

    Raises ScopeUnknownError for a scope that does not exist, ScopeNotHeldError for one its creator lacks.
    """
    wanted = frozenset(asked) or holder & ALL_SCOPES
    if unknown := sorted(wanted - ALL_SCOPES):
        raise ScopeUnknownError(
            f"No such scope: {', '.join(unknown)}. The scopes are {', '.join(SCOPES)}.",
            metadata={"unknown": ",".join(unknown), "scopes": ",".join(SCOPES)},
        )
    if missing := sorted(wanted - holder):
        raise ScopeNotHeldError(
            f"A key cannot be given what its creator lacks: {', '.join(missing)}. Ask a holder of these scopes.",
            metadata={"scopes": ",".join(missing)},
        )
    return tuple(sorted(wanted))
