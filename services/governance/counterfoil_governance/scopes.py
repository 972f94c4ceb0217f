"""The scopes that keys can hold, the roles that bound them, and what each allows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from counterfoil_chassis.errors import FieldViolation

from counterfoil_governance.entities import Role
from counterfoil_governance.errors import RoleUnknownError, ScopeNotHeldError, ScopeOutsideRolesError, ScopeUnknownError

PLATFORM_ADMIN: Final = "platform.admin"
GOVERNANCE_READ: Final = "governance.read"
GOVERNANCE_WRITE: Final = "governance.write"
GOVERNANCE_APPROVE: Final = "governance.approve"
GOVERNANCE_CONSENT: Final = "governance.consent"

SCOPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        PLATFORM_ADMIN: "Create workspaces.",
        GOVERNANCE_READ: "Read the workspace, principals, keys, policies, changes, consents, receipts, the audit log.",
        GOVERNANCE_WRITE: "Change the workspace; create and disable principals, keys; give roles; submit policies.",
        GOVERNANCE_APPROVE: "Vote on changes.",
        GOVERNANCE_CONSENT: "Record consents and withdrawals.",
        "contracts.read": "Read and check contracts.",
        "contracts.write": "Submit and activate contracts.",
        "ingest.read": "Read records, snapshots, quarantine, imports and sources; run SQL on the lake.",
        "ingest.write": "Append records to any dataset; upload imports.",
        "ingest.admin": "Create and change sources and their write keys; repair and replay quarantine.",
        "ingest.append": "Send events by an event protocol; the scope of write keys.",
        "graph.read": "Read persons, journeys and the knowledge graph.",
        "graph.write": "Submit mappings; merge and split persons; rebuild the graph.",
        "graph.export": "Export sets of persons.",
        "models.read": "Read models, their versions, forecasts, attributions and lifts.",
        "models.write": "Train, promote and roll back models; make forecasts, attributions and lifts.",
    }
)
"""Every scope of the platform with what it allows, in the order people read them."""

ALL_SCOPES: Final[frozenset[str]] = frozenset(SCOPES)
"""What the first key of an installation holds."""

WORKSPACE_SCOPES: Final[frozenset[str]] = ALL_SCOPES - {PLATFORM_ADMIN}
"""What the first key of every further workspace holds."""

_READS: Final = frozenset({GOVERNANCE_READ, "contracts.read", "ingest.read", "graph.read", "models.read"})

ROLES: Final[Mapping[str, Role]] = MappingProxyType(
    {
        role.role: role
        for role in (
            Role("admin", "Runs the workspace: everything but creating other workspaces.", WORKSPACE_SCOPES),
            Role(
                "analyst",
                "Asks questions of the data: reads everything, makes outputs, exports persons under the policies.",
                _READS | {"models.write", "graph.export"},
            ),
            Role(
                "engineer",
                "Brings data in and keeps it right: contracts, sources, imports, quarantine, mappings.",
                _READS
                | {
                    "contracts.write",
                    "ingest.write",
                    "ingest.admin",
                    "ingest.append",
                    "graph.write",
                },
            ),
            Role(
                "reviewer",
                "Is the second person: reads everything and votes on changes.",
                _READS | {GOVERNANCE_APPROVE},
            ),
            Role("scientist", "Trains and promotes models under the policies.", _READS | {"models.write"}),
            Role(
                "steward",
                "Governs: principals, keys, policies, changes, consents, the audit log.",
                frozenset({GOVERNANCE_READ, GOVERNANCE_WRITE, GOVERNANCE_APPROVE, GOVERNANCE_CONSENT}),
            ),
            Role("viewer", "Reads everything and changes nothing.", _READS),
        )
    }
)
"""Every role by its name, in the order of the names."""


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


def bounded(scopes: Iterable[str], *, roles: Collection[str]) -> tuple[str, ...]:
    """Return, sorted, those of the scopes that the roles allow; all of them when there are no roles."""
    wanted = frozenset(scopes)
    return tuple(sorted(wanted & _allowed(roles) if roles else wanted))


def require_within(asked: Iterable[str], *, roles: Collection[str]) -> None:
    """Raise ScopeOutsideRolesError when a key was asked to hold what its principal's roles do not allow."""
    if outside := sorted(frozenset(asked) - frozenset(bounded(asked, roles=roles))):
        raise ScopeOutsideRolesError(
            f"The principal's roles do not allow {', '.join(outside)}. Ask for less, or give it another role first.",
            metadata={"scopes": ",".join(outside), "roles": ",".join(sorted(roles))},
        )


def given_roles(names: Iterable[str], *, known: Collection[str] = (), holder: frozenset[str]) -> tuple[str, ...]:
    """Return, sorted, the roles a principal gets; those it has already (`known`) anybody may leave it.

    Raises RoleUnknownError for a role that does not exist, ScopeNotHeldError when the giver lacks what one allows.
    """
    wanted = frozenset(names)
    if unknown := sorted(wanted - ROLES.keys()):
        raise RoleUnknownError(
            f"No such role: {', '.join(unknown)}. The roles are {', '.join(ROLES)}.",
            metadata={"unknown": ",".join(unknown), "roles": ",".join(ROLES)},
            violations=[FieldViolation("roles", "ROLE_UNKNOWN", f"there is no role {name}") for name in unknown],
        )
    if missing := sorted(_allowed(wanted - frozenset(known)) - holder):
        raise ScopeNotHeldError(
            f"A role cannot be given by someone who lacks what it allows: {', '.join(missing)}. Ask a holder of these.",
            metadata={"scopes": ",".join(missing)},
        )
    return tuple(sorted(wanted))


def _allowed(roles: Iterable[str]) -> frozenset[str]:
    # A role that a newer release gave and this one does not know allows nothing.
    return frozenset().union(*(ROLES[role].scopes for role in roles if role in ROLES))
