"""CredentialService: the accepted API keys, for the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

import grpc
from counterfoil.common.v1.credentials_pb2 import Credential
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.governance.v1 import credentials_pb2 as pb
from counterfoil.governance.v1.credentials_pb2_grpc import CredentialServiceServicer
from counterfoil_chassis.clock import Clock
from counterfoil_chassis.watch import Feed
from google.protobuf.message import Message

from counterfoil_governance import keys
from counterfoil_governance.entities import Key
from counterfoil_governance.store import Transactions

Context = grpc.aio.ServicerContext[Message, Message]


class CredentialServicer(CredentialServiceServicer):
    """Streams and looks up credentials of every workspace; only the gateway may call it."""

    def __init__(
        self,
        transactions: Transactions,
        *,
        feed: Feed,
        clock: Clock,
        to_credential: Callable[[Key, Sequence[str]], Credential],
    ) -> None:
        self._transactions = transactions
        self._feed = feed
        self._clock = clock
        self._to_credential = to_credential

    async def WatchCredentials(
        self, request: pb.WatchCredentialsRequest, context: Context
    ) -> AsyncIterator[WatchResponse]:
        """Stream the accepted API keys and their changes."""
        async for response in self._feed.stream(request.after_revision):
            yield response

    async def LookupCredential(self, request: pb.LookupCredentialRequest, context: Context) -> Credential:
        """Return one accepted API key by its hash."""
        async with self._transactions.read() as stores:
            key, principal = await keys.accepted_key(stores, request.secret_sha256, now=self._clock.now())
        return self._to_credential(key, principal.roles)
