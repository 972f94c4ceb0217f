"""The gateway, put together by hand: channels, keys, calls, both doors."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from counterfoil.common.v1.credentials_pb2 import Credential
from counterfoil.governance.v1 import credentials_pb2, credentials_pb2_grpc
from counterfoil.ingest.v1 import sources_pb2, sources_pb2_grpc
from counterfoil_chassis.call import following, outgoing
from counterfoil_chassis.clock import Clock
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.watch import Watcher
from google.protobuf import any_pb2

from counterfoil_gateway import api as apis
from counterfoil_gateway import app as apps
from counterfoil_gateway import receipts
from counterfoil_gateway.access import API_KEY, WRITE_KEY, Access
from counterfoil_gateway.addresses import PublicAddress
from counterfoil_gateway.append import Appender
from counterfoil_gateway.asgi import App
from counterfoil_gateway.calls import Calls
from counterfoil_gateway.console.links import Links
from counterfoil_gateway.console.routes import Console
from counterfoil_gateway.console.sessions import Sessions
from counterfoil_gateway.credentials import Keyring
from counterfoil_gateway.document import Document
from counterfoil_gateway.events import EventDoor, load_routes
from counterfoil_gateway.imports import UploadImport
from counterfoil_gateway.proxy import Proxy
from counterfoil_gateway.readiness import Readiness
from counterfoil_gateway.serve import Rest
from counterfoil_gateway.settings import Settings

NAME = "gateway"
LOOKUP_TIMEOUT = 2.0


@dataclass(frozen=True)
class Identity:
    """Who the gateway is: what it signs with, and 32 bytes that only it can know."""

    signer: TokenSigner
    secret: bytes
    clock: Clock


@dataclass
class Gateway:
    """All that serves, before it is bound to an address."""

    app: App
    proxy: Proxy
    readiness: Readiness
    watchers: Mapping[str, Watcher]


def compose(
    settings: Settings,
    channels: Mapping[str, grpc.aio.Channel],
    untraced: grpc.aio.Channel,
    *,
    identity: Identity,
) -> Gateway:
    """Put the gateway together over one channel per service, and an untraced one to ingest; starts nothing."""
    signer, clock = identity.signer, identity.clock
    api = apis.load(apis.image())
    calls = Calls(api, channels, receipts.composed(channels))
    keys, follow_keys = _api_keys(channels["governance"], signer, clock)
    write_keys, follow_write_keys = _write_keys(channels["ingest"], signer, clock)
    address = PublicAddress(settings.public_url)
    sessions = Sessions(identity.secret, clock, secrets.token_bytes)
    access = Access(keys, sessions, address=address)
    console = Console(access, sessions, Links(clock, secrets.token_bytes), address=address)
    routes = load_routes()
    events = EventDoor(routes, write_keys, Appender(untraced, signer=signer, clock=clock))
    watchers = {"api_keys": follow_keys, "write_keys": follow_write_keys}
    readiness = Readiness(channels, watchers)
    upload = UploadImport(api, untraced)
    rest = Rest(api, calls, access.rest, extra=[upload])
    document = Document(api).text(routes)
    app = apps.build(rest, events, console, readiness=readiness, document=document)
    return Gateway(app, Proxy(api, calls, access.rpc), readiness, watchers)


def _api_keys(channel: grpc.aio.Channel, signer: TokenSigner, clock: Clock) -> tuple[Keyring, Watcher]:
    stub: Any = credentials_pb2_grpc.CredentialServiceStub(channel)

    async def look_up(digest: bytes) -> Credential:
        request = credentials_pb2.LookupCredentialRequest(secret_sha256=digest)
        found: Credential = await stub.LookupCredential(request, **outgoing(default=LOOKUP_TIMEOUT, signer=signer))
        return found

    def watch(after: int) -> Any:
        request = credentials_pb2.WatchCredentialsRequest(after_revision=after)
        return stub.WatchCredentials(request, **following(signer=signer))

    return _followed(Keyring(API_KEY, look_up, signer=signer, clock=clock), watch)


def _write_keys(channel: grpc.aio.Channel, signer: TokenSigner, clock: Clock) -> tuple[Keyring, Watcher]:
    stub: Any = sources_pb2_grpc.SourceServiceStub(channel)

    async def look_up(digest: bytes) -> Credential:
        request = sources_pb2.LookupCredentialRequest(secret_sha256=digest)
        found: Credential = await stub.LookupCredential(request, **outgoing(default=LOOKUP_TIMEOUT, signer=signer))
        return found

    def watch(after: int) -> Any:
        request = sources_pb2.WatchCredentialsRequest(after_revision=after)
        return stub.WatchCredentials(request, **following(signer=signer))

    return _followed(Keyring(WRITE_KEY, look_up, signer=signer, clock=clock), watch)


def _followed(keyring: Keyring, watch: Callable[[int], Any]) -> tuple[Keyring, Watcher]:
    def put(_key: str, resource: any_pb2.Any) -> None:
        credential = Credential()
        resource.Unpack(credential)
        keyring.put(credential)

    def delete(key: str) -> None:
        keyring.delete(bytes.fromhex(key))

    return keyring, Watcher(watch, put, delete)
