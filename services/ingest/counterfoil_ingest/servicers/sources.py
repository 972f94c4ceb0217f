"""SourceService: translate, open the transaction, delegate, translate back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from datetime import timedelta
from typing import Any

import grpc
from counterfoil.common.v1.credentials_pb2 import Credential
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.ingest.v1 import sources_pb2 as pb
from counterfoil.ingest.v1.sources_pb2_grpc import SourceServiceServicer
from counterfoil_chassis.audit import AuditTrail
from counterfoil_chassis.clock import Clock, Ids, from_micros, to_micros, to_timestamp
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.identity import current_caller
from counterfoil_chassis.key_secrets import RANDOM_BYTES, Secret, make_secret
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.watch import Feed
from google.protobuf.message import Message

from counterfoil_ingest import sources
from counterfoil_ingest.entities import Source, SourceMapping, WriteKey
from counterfoil_ingest.errors import UnknownProtocolError
from counterfoil_ingest.store import SourceStore, SourceTransactions

Context = grpc.aio.ServicerContext[Message, Message]


class SourceServicer(SourceServiceServicer):
    """Serves the sources of the caller's workspace; a write key is in the answer that makes it, nowhere else."""

    def __init__(
        self,
        transactions: SourceTransactions,
        *,
        feed: Feed,
        to_credential: Callable[[WriteKey], Credential],
        protocols: Collection[str],
        idempotency: Idempotency,
        trail: AuditTrail,
        pager: Pager,
        clock: Clock,
        ids: Ids,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._transactions = transactions
        self._feed = feed
        self._to_credential = to_credential
        self._protocols = protocols
        self._idempotency = idempotency
        self._trail = trail
        self._pager = pager
        self._clock = clock
        self._ids = ids
        self._random_bytes = random_bytes

    async def CreateSource(self, request: pb.CreateSourceRequest, context: Context) -> pb.CreateSourceResponse:
        """Create a source."""
        workspace = current_caller().workspace
        if request.protocol and request.protocol not in self._protocols:
            raise UnknownProtocolError(
                f"No event protocol {request.protocol!r} is installed. There are: {', '.join(sorted(self._protocols))}."
            )
        async with self._transactions.begin() as store:
            return await self._idempotency.once(
                store.connection,
                request,
                method="CreateSource",
                workspace=workspace,
                answer=pb.CreateSourceResponse,
                make=lambda: self._create(store, request, workspace=workspace),
            )

    async def GetSource(self, request: pb.GetSourceRequest, context: Context) -> pb.Source:
        """Return one source."""
        async with self._transactions.read() as store:
            return to_proto(await store.get(current_caller().workspace, request.source_id))

    async def ListSources(self, request: pb.ListSourcesRequest, context: Context) -> pb.ListSourcesResponse:
        """List the workspace's sources, oldest first."""
        workspace = current_caller().workspace
        page = self._pager.open(request, method="ListSources", workspace=workspace)
        async with self._transactions.read() as store:
            found = await store.list(workspace, after=page.after[0] if page.after else "", limit=page.limit + 1)
        answer = pb.ListSourcesResponse(sources=[to_proto(each) for each in found[: page.limit]])
        if len(found) > page.limit:
            answer.next_page_token = self._pager.token(
                request, method="ListSources", workspace=workspace, after=[answer.sources[-1].source_id]
            )
        return answer

    async def RotateKey(self, request: pb.RotateKeyRequest, context: Context) -> pb.RotateKeyResponse:
        """Give a source a new write key."""
        asked = request.HasField("keep_previous_for")
        overlap = request.keep_previous_for.ToTimedelta() if asked else sources.DEFAULT_OVERLAP
        secret = self._secret()
        async with self._transactions.begin() as store:
            source = await sources.rotate_key(
                store,
                workspace=current_caller().workspace,
                source_id=request.source_id,
                secret=secret,
                now=to_micros(self._clock.now()),
                overlap=overlap,
            )
            kept_for = overlap // timedelta(seconds=1)
            await self._record(store, "source.rotate_key", source, {"previous_key_kept_for_seconds": kept_for})
        return pb.RotateKeyResponse(source=to_proto(source), write_key=secret.text)

    async def WatchCredentials(
        self, request: pb.WatchCredentialsRequest, context: Context
    ) -> AsyncIterator[WatchResponse]:
        """Stream the accepted write keys and their changes."""
        async for response in self._feed.stream(request.after_revision):
            yield response

    async def LookupCredential(self, request: pb.LookupCredentialRequest, context: Context) -> Credential:
        """Return one accepted write key by its hash."""
        async with self._transactions.read() as store:
            key = await sources.accepted_key(store, request.secret_sha256, now=to_micros(self._clock.now()))
        return self._to_credential(key)

    async def _create(
        self, store: SourceStore, request: pb.CreateSourceRequest, *, workspace: str
    ) -> pb.CreateSourceResponse:
        secret = self._secret()
        source = Source(
            workspace=workspace,
            source_id=self._ids.new(),
            display_name=request.display_name,
            protocol=request.protocol or sources.DEFAULT_PROTOCOL,
            write_key_last_four="",
            created_at=to_micros(self._clock.now()),
            mappings=tuple(SourceMapping(each.type, each.event, each.dataset) for each in request.mappings),
        )
        kept = await sources.create_source(store, source, secret)
        await self._record(store, "source.create", kept, {"protocol": kept.protocol, "mappings": len(kept.mappings)})
        return pb.CreateSourceResponse(source=to_proto(kept), write_key=secret.text)

    async def _record(self, store: SourceStore, action: str, source: Source, details: Mapping[str, Any]) -> None:
        await self._trail.record(
            store.connection,
            workspace=source.workspace,
            principal=current_caller().principal,
            action=action,
            resource=f"sources/{source.source_id}",
            details=details,
        )

    def _secret(self) -> Secret:
        return make_secret(sources.PREFIX, self._random_bytes(RANDOM_BYTES))


def to_proto(source: Source) -> pb.Source:
    """Return a source as callers see it."""
    arrived = source.arrived
    return pb.Source(
        source_id=source.source_id,
        display_name=source.display_name,
        protocol=source.protocol,
        mappings=[pb.SourceMapping(type=m.type, event=m.event, dataset=m.dataset) for m in source.mappings],
        write_key_last_four=source.write_key_last_four,
        created_at=to_timestamp(from_micros(source.created_at)),
        first_event_at=None if arrived is None else to_timestamp(from_micros(arrived.first_at)),
        last_event_at=None if arrived is None else to_timestamp(from_micros(arrived.last_at)),
        events=0 if arrived is None else arrived.events,
    )
