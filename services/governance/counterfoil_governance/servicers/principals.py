"""PrincipalService: translate, open the transaction, delegate, translate back."""

from __future__ import annotations

from typing import Final

import grpc
from counterfoil.governance.v1 import principals_pb2 as pb
from counterfoil.governance.v1.principals_pb2_grpc import PrincipalServiceServicer
from counterfoil_chassis.clock import Clock, Ids, to_timestamp
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.paging import Pager
from google.protobuf.message import Message

from counterfoil_governance import principals, scopes
from counterfoil_governance.entities import Principal, PrincipalKind, Role
from counterfoil_governance.recording import Recorder
from counterfoil_governance.store import Stores, Transactions

Context = grpc.aio.ServicerContext[Message, Message]

_KINDS: Final = {
    pb.Principal.Kind.HUMAN: PrincipalKind.HUMAN,
    pb.Principal.Kind.PROGRAM: PrincipalKind.PROGRAM,
}
_KINDS_IN_PROTO: Final = {kind: number for number, kind in _KINDS.items()}


class PrincipalServicer(PrincipalServiceServicer):
    """Serves the principals of the caller's workspace."""

    def __init__(
        self, transactions: Transactions, *, idempotency: Idempotency, pager: Pager, clock: Clock, ids: Ids
    ) -> None:
        self._transactions = transactions
        self._idempotency = idempotency
        self._pager = pager
        self._clock = clock
        self._ids = ids

    async def CreatePrincipal(self, request: pb.CreatePrincipalRequest, context: Context) -> pb.Principal:
        """Create a principal."""
        workspace = current_caller().workspace

        async with self._transactions.begin() as stores:
            return await self._idempotency.once(
                stores.connection,
                request,
                method="CreatePrincipal",
                workspace=workspace,
                answer=pb.Principal,
                make=lambda: self._create(stores, request, workspace=workspace),
            )

    async def GetPrincipal(self, request: pb.GetPrincipalRequest, context: Context) -> pb.Principal:
        """Return one principal."""
        async with self._transactions.read() as stores:
            return to_proto(await stores.principals.get(current_caller().workspace, request.principal_id))

    async def ListPrincipals(self, request: pb.ListPrincipalsRequest, context: Context) -> pb.ListPrincipalsResponse:
        """List the workspace's principals by id."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListPrincipals", workspace=workspace)
        after = page.after[0] if page.after else ""
        async with self._transactions.read() as stores:
            found = await stores.principals.list(workspace, after=after, limit=page.limit + 1)
        answer = pb.ListPrincipalsResponse(principals=[to_proto(principal) for principal in found[: page.limit]])
        if len(found) > page.limit:
            answer.next_page_token = self._pager.token(
                request, method="ListPrincipals", workspace=workspace, after=[answer.principals[-1].principal_id]
            )
        return answer

    async def DisablePrincipal(self, request: pb.DisablePrincipalRequest, context: Context) -> pb.Principal:
        """Disable a principal with its keys."""
        async with self._transactions.begin() as stores:
            return to_proto(
                await principals.disable_principal(stores, principal_id=request.principal_id, recorder=self._recorder())
            )

    async def SetPrincipalRoles(self, request: pb.SetPrincipalRolesRequest, context: Context) -> pb.Principal:
        """Give a principal other roles and narrow its keys to them."""
        async with self._transactions.begin() as stores:
            return to_proto(
                await principals.set_principal_roles(
                    stores,
                    principal_id=request.principal_id,
                    roles=request.roles,
                    holder=current_caller().scopes,
                    recorder=self._recorder(),
                )
            )

    async def ListRoles(self, request: pb.ListRolesRequest, context: Context) -> pb.ListRolesResponse:
        """List the roles by name."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListRoles", workspace=workspace)
        after = page.after[0] if page.after else ""
        found = [role for name, role in scopes.ROLES.items() if name > after]
        answer = pb.ListRolesResponse(roles=[role_to_proto(role) for role in found[: page.limit]])
        if len(found) > page.limit:
            answer.next_page_token = self._pager.token(
                request, method="ListRoles", workspace=workspace, after=[answer.roles[-1].role]
            )
        return answer

    async def _create(self, stores: Stores, request: pb.CreatePrincipalRequest, *, workspace: str) -> pb.Principal:
        principal = Principal(
            workspace=workspace,
            principal_id=request.principal_id,
            display_name=request.display_name,
            kind=_KINDS[request.kind],
            created_at=self._clock.now(),
            roles=scopes.given_roles(request.roles, holder=current_caller().scopes),
        )
        return to_proto(await principals.create_principal(stores, principal, recorder=self._recorder()))

    def _recorder(self) -> Recorder:
        caller = current_caller()
        return Recorder(caller.workspace, caller.principal, self._ids, self._clock)


def to_proto(principal: Principal) -> pb.Principal:
    """Return the principal as callers see it."""
    disabled = principal.disabled_at is not None
    return pb.Principal(
        principal_id=principal.principal_id,
        display_name=principal.display_name,
        kind=_KINDS_IN_PROTO[principal.kind],
        state=pb.Principal.State.DISABLED if disabled else pb.Principal.State.ACTIVE,
        created_at=to_timestamp(principal.created_at),
        roles=principal.roles,
    )


def role_to_proto(role: Role) -> pb.Role:
    """Return the role as callers see it, its scopes in the order people read them."""
    return pb.Role(
        role=role.role,
        description=role.description,
        scopes=[scope for scope in scopes.SCOPES if scope in role.scopes],
    )
