"""The gateway, put together by hand: channels, keys, calls, both doors."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from counterfoil.common.v1.credentials_pb2 import Credential
from counterfoil.governance.v1 import credentials_pb2, credentials_pb2_grpc, workspaces_pb2, workspaces_pb2_grpc
from counterfoil.ingest.v1 import sources_pb2, sources_pb2_grpc
from counterfoil_chassis.call import following, outgoing
from counterfoil_chassis.clock import Clock
from counterfoil_chassis.guarded import GuardedChannel
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.policy import PolicyChecker
from counterfoil_chassis.shedding import Load
from counterfoil_chassis.watch import Watcher
from google.protobuf import any_pb2

from counterfoil_gateway import api as apis
from counterfoil_gateway import app as apps
from counterfoil_gateway import lineage, receipts
from counterfoil_gateway.access import API_KEY, WRITE_KEY, Access
from counterfoil_gateway.addresses import PublicAddress
from counterfoil_gateway.admission import Admission
from counterfoil_gateway.append import Appender
from counterfoil_gateway.asgi import App
from counterfoil_gateway.calls import Calls
from counterfoil_gateway.console.links import Links
from counterfoil_gateway.console.routes import Console
from counterfoil_gateway.console.sessions import Sessions
from counterfoil_gateway.credentials import Keyring
from counterfoil_gateway.document import Document
from counterfoil_gateway.events import EventDoor, load_routes
from counterfoil_gateway.exports import ExportAudit
from counterfoil_gateway.imports import UploadImport
from counterfoil_gateway.limits import Limiter, Rate
from counterfoil_gateway.permission import Permission
from counterfoil_gateway.proxy import Proxy
from counterfoil_gateway.query_results import QueryResults
from counterfoil_gateway.quotas import Bound, Quotas
from counterfoil_gateway.readiness import Follower, Readiness
from counterfoil_gateway.reads import ReadDoor
from counterfoil_gateway.reflection import Reflection
from counterfoil_gateway.schema_registry import SchemaById, SchemaRegistry
from counterfoil_gateway.serve import Endpoint, Rest
from counterfoil_gateway.settings import Settings
from counterfoil_gateway.streams import Following

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
    watchers: Mapping[str, Follower]
    following: Following
    admission: Admission
    reflection: Reflection | None


def compose(
    settings: Settings,
    channels: Mapping[str, grpc.aio.Channel],
    untraced: Mapping[str, GuardedChannel],
    *,
    identity: Identity,
) -> Gateway:
    """Put the gateway together over two channels per service, of which one is untraced; starts nothing."""
    signer, clock = identity.signer, identity.clock
    api = apis.load(apis.image())
    calls = Calls(api, channels, receipts.composed(channels))
    requests, event_requests, attempts = _bounds(settings)
    keys, follow_keys = _api_keys(channels["governance"], identity, attempts=attempts)
    write_keys, follow_write_keys = _write_keys(channels["ingest"], identity, attempts=attempts)
    policies = PolicyChecker(channels["governance"], signer, clock)
    address = PublicAddress(settings.public_url)
    sessions = Sessions(identity.secret, clock, secrets.token_bytes)
    access = Access(keys, sessions, address=address, permission=Permission(api, policies), requests=requests)
    console = Console(access, sessions, Links(clock, secrets.token_bytes), address=address)
    routes = load_routes()
    appender = Appender(untraced["ingest"], signer=signer, clock=clock)
    events = EventDoor(routes, write_keys, appender, requests=event_requests)
    quotas = Quotas(requests=requests, events=event_requests)
    watchers: dict[str, Follower] = {
        "api_keys": follow_keys,
        "write_keys": follow_write_keys,
        "policies": policies,
        "quotas": _follow_quotas(channels["governance"], identity.signer, quotas),
    }
    readiness = Readiness(channels, watchers)
    following = Following()
    by_hand: list[Endpoint] = [
        UploadImport(api, untraced["ingest"]),
        ExportAudit(api, calls),
        QueryResults(api, calls),
        *lineage.endpoints(api, calls),
    ]
    rest = Rest(api, calls, access.rest, following=following, extra=by_hand)
    document = Document(api).text(routes)
    reads = ReadDoor(rest.transcoded, calls, access.rest, untraced, signer=signer, foreign=[SchemaById(api)])
    registry = SchemaRegistry(api, calls, access.rest)
    app = apps.build(rest, registry, reads, events, console, readiness=readiness, document=document)
    admission = _admission(settings)
    proxy = Proxy(api, calls, access.rpc, following=following, admission=admission)
    return Gateway(
        app=admission.guard(app),
        proxy=proxy,
        readiness=readiness,
        watchers=watchers,
        following=following,
        admission=admission,
        reflection=_reflection(settings, access),
    )


def _admission(settings: Settings) -> Admission:
    load = Load(most=settings.max_running, delay=settings.max_delay_seconds)
    return Admission(load, most_bytes=settings.max_body_bytes, most_streams=settings.max_streams)


def _bounds(settings: Settings) -> tuple[Bound, Bound, Limiter]:
    """Return what bounds requests, event requests, and sign-ins that fail."""
    return (
        Bound("requests", Rate(settings.requests_per_second, settings.requests_burst), time.monotonic),
        Bound(
            "event requests", Rate(settings.event_requests_per_second, settings.event_requests_burst), time.monotonic
        ),
        Limiter(
            "failed sign-ins",
            Rate(settings.failed_sign_ins_per_second, settings.failed_sign_ins_burst),
            time.monotonic,
        ),
    )


def _follow_quotas(channel: grpc.aio.Channel, signer: TokenSigner, quotas: Quotas) -> Watcher:
    stub: Any = workspaces_pb2_grpc.WorkspaceServiceStub(channel)

    def watch(after: int) -> Any:
        request = workspaces_pb2.WatchWorkspacesRequest(after_revision=after)
        return stub.WatchWorkspaces(request, **following(signer=signer))

    return Watcher(watch, quotas.put, quotas.delete, name="governance quotas")


def _reflection(settings: Settings, access: Access) -> Reflection | None:
    if settings.reflection == "off":
        return None
    return Reflection(apis.image(), None if settings.reflection == "everybody" else access.by_metadata)


def _api_keys(channel: grpc.aio.Channel, identity: Identity, *, attempts: Limiter) -> tuple[Keyring, Watcher]:
    signer = identity.signer
    stub: Any = credentials_pb2_grpc.CredentialServiceStub(channel)

    async def look_up(digest: bytes) -> Credential:
        request = credentials_pb2.LookupCredentialRequest(secret_sha256=digest)
        found: Credential = await stub.LookupCredential(request, **outgoing(default=LOOKUP_TIMEOUT, signer=signer))
        return found

    def watch(after: int) -> Any:
        request = credentials_pb2.WatchCredentialsRequest(after_revision=after)
        return stub.WatchCredentials(request, **following(signer=signer))

    keyring = Keyring(API_KEY, look_up, signer=signer, clock=identity.clock, attempts=attempts)
    return _followed(keyring, watch, name="governance API keys")


def _write_keys(channel: grpc.aio.Channel, identity: Identity, *, attempts: Limiter) -> tuple[Keyring, Watcher]:
    signer = identity.signer
    stub: Any = sources_pb2_grpc.SourceServiceStub(channel)

    async def look_up(digest: bytes) -> Credential:
        request = sources_pb2.LookupCredentialRequest(secret_sha256=digest)
        found: Credential = await stub.LookupCredential(request, **outgoing(default=LOOKUP_TIMEOUT, signer=signer))
        return found

    def watch(after: int) -> Any:
        request = sources_pb2.WatchCredentialsRequest(after_revision=after)
        return stub.WatchCredentials(request, **following(signer=signer))

    keyring = Keyring(WRITE_KEY, look_up, signer=signer, clock=identity.clock, attempts=attempts)
    return _followed(keyring, watch, name="ingest write keys")


def _followed(keyring: Keyring, watch: Callable[[int], Any], *, name: str) -> tuple[Keyring, Watcher]:
    def put(_key: str, resource: any_pb2.Any) -> None:
        credential = Credential()
        resource.Unpack(credential)
        keyring.put(credential)

    def delete(key: str) -> None:
        keyring.delete(bytes.fromhex(key))

    return keyring, Watcher(watch, put, delete, name=name)
