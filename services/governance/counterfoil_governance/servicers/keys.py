"""KeyService: translate, open the transaction, delegate, translate back."""

from __future__ import annotations

from collections.abc import Callable

import grpc
from counterfoil.governance.v1 import keys_pb2 as pb
from counterfoil.governance.v1.keys_pb2_grpc import KeyServiceServicer
from counterfoil_chassis.clock import Clock, Ids, from_timestamp, to_timestamp
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.key_secrets import RANDOM_BYTES, make_secret
from counterfoil_chassis.paging import Pager
from google.protobuf.message import Message

from counterfoil_governance import keys, scopes
from counterfoil_governance.entities import Key
from counterfoil_governance.recording import Recorder
from counterfoil_governance.store import Stores, Transactions

Context = grpc.aio.ServicerContext[Message, Message]
RandomBytes = Callable[[int], bytes]


class KeyServicer(KeyServiceServicer):
    """Serves the API keys of the caller's workspace; a key itself is in the answer that creates it, nowhere else."""

    def __init__(
        self,
        transactions: Transactions,
        *,
        idempotency: Idempotency,
        pager: Pager,
        clock: Clock,
        ids: Ids,
        random_bytes: RandomBytes,
    ) -> None:
        self._transactions = transactions
        self._idempotency = idempotency
        self._pager = pager
        self._clock = clock
        self._ids = ids
        self._random_bytes = random_bytes

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Context) -> pb.CreateKeyResponse:
        """Create an API key for a principal."""
        caller = current_caller()
        granted = scopes.granted(request.scopes, holder=caller.scopes)
        async with self._transactions.begin() as stores:
            return await self._idempotency.once(
                stores.connection,
                request,
                method="CreateKey",
                workspace=caller.workspace,
                answer=pb.CreateKeyResponse,
                make=lambda: self._create(stores, request, workspace=caller.workspace, granted=granted),
            )

    async def GetKey(self, request: pb.GetKeyRequest, context: Context) -> pb.Key:
        """Return what is known of one key."""
        async with self._transactions.read() as stores:
            return to_proto(await stores.keys.get(current_caller().workspace, request.key_id))

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        """List the workspace's keys, newest last."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListKeys", workspace=workspace)
        after = page.after[0] if page.after else ""
        async with self._transactions.read() as stores:
            found = await stores.keys.list(
                workspace, principal_id=request.principal_id, after=after, limit=page.limit + 1
            )
        answer = pb.ListKeysResponse(keys=[to_proto(key) for key in found[: page.limit]])
        if len(found) > page.limit:
            answer.next_page_token = self._pager.token(
                request, method="ListKeys", workspace=workspace, after=[answer.keys[-1].key_id]
            )
        return answer

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Context) -> pb.Key:
        """Refuse a key from now on."""
        async with self._transactions.begin() as stores:
            return to_proto(await keys.revoke_key(stores, key_id=request.key_id, recorder=self._recorder()))

    async def _create(
        self, stores: Stores, request: pb.CreateKeyRequest, *, workspace: str, granted: tuple[str, ...]
    ) -> pb.CreateKeyResponse:
        secret = make_secret(keys.PREFIX, self._random_bytes(RANDOM_BYTES))
        key = Key(
            workspace=workspace,
            key_id=self._ids.new(),
            principal_id=request.principal_id,
            display_name=request.display_name,
            scopes=granted,
            secret_sha256=secret.sha256,
            last_four=secret.last_four,
            created_at=self._clock.now(),
            expires_at=from_timestamp(request.expires_at) if request.HasField("expires_at") else None,
        )
        created = await keys.create_key(stores, key, asked=request.scopes, recorder=self._recorder())
        return pb.CreateKeyResponse(key=to_proto(created), api_key=secret.text)

    def _recorder(self) -> Recorder:
        caller = current_caller()
        return Recorder(caller.workspace, caller.principal, self._ids, self._clock)


def to_proto(key: Key) -> pb.Key:
    """Return the key as callers see it: without the key."""
    return pb.Key(
        key_id=key.key_id,
        principal_id=key.principal_id,
        display_name=key.display_name,
        scopes=key.scopes,
        last_four=key.last_four,
        created_at=to_timestamp(key.created_at),
        expires_at=None if key.expires_at is None else to_timestamp(key.expires_at),
        revoked_at=None if key.revoked_at is None else to_timestamp(key.revoked_at),
    )
