"""The keys that are accepted, by SHA-256: followed from the service that owns them, the last good state kept."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeAlias

import grpc
from counterfoil.common.v1.credentials_pb2 import Credential
from counterfoil_chassis.call import enter_deadline
from counterfoil_chassis.clock import Clock
from counterfoil_chassis.identity import MAX_LIFETIME, Caller, TokenSigner
from counterfoil_chassis.status import failure_of

from counterfoil_gateway.addresses import network_of
from counterfoil_gateway.limits import Limiter
from counterfoil_gateway.problems import C, Problem

UNKNOWN_FOR = 1.0
"""Seconds that a refused key stays refused without asking again."""
LOOKED_UP_FOR = 5.0
"""Seconds that a key which only a lookup has shown is trusted; what the watch brought stays until it takes it."""
MOST_REFUSED = 10_000
LONGEST_KEY = 200
Lookup: TypeAlias = Callable[[bytes], Awaitable[Credential]]
"""SHA-256 of a key to its credential; raises AioRpcError, NOT_FOUND for an unknown key."""


@dataclass(frozen=True)
class SignedIn:
    """On whose behalf a request is made, with the token that says so to the services."""

    digest: bytes
    """SHA-256 of the key."""
    caller: Caller
    token: str
    allowed: dict[str, object] = field(default_factory=dict, compare=False, repr=False)
    """Methods that policies allow it, each with the bundle that said so."""

    @property
    def workspace(self) -> str:
        """Return the workspace of the key."""
        return self.caller.workspace

    @property
    def principal(self) -> str:
        """Return on whose behalf the key speaks."""
        return self.caller.principal

    @property
    def scopes(self) -> frozenset[str]:
        """Return what the key may do."""
        return self.caller.scopes


@dataclass
class _Accepted:
    """One key's credential and its newest token. Times are seconds since 1970."""

    credential: Credential
    expires: float
    until: float
    signed_in: SignedIn | None = None
    renew_at: float = 0.0


class Keyring:
    """The accepted keys of one kind."""

    def __init__(self, prefix: str, lookup: Lookup, *, signer: TokenSigner, clock: Clock, attempts: Limiter) -> None:
        """Take the prefix that tells this kind of key from others, e.g. `cfk_`, and what bounds the guessing of it."""
        self.prefix = prefix
        self._lookup = lookup
        self._signer = signer
        self._clock = clock
        self._attempts = attempts
        self._accepted: dict[bytes, _Accepted] = {}
        self._refused: dict[bytes, float] = {}
        self._asking: dict[bytes, asyncio.Task[_Accepted | None]] = {}
        self._deleted_while_asking: set[bytes] = set()

    def put(self, credential: Credential) -> None:
        """Accept a key from now on, as the watch says."""
        digest = credential.secret_sha256
        self._accepted[digest] = _accepted(credential, until=math.inf)
        self._refused.pop(digest, None)

    def delete(self, digest: bytes) -> None:
        """Refuse a key from now on, as the watch says."""
        self._accepted.pop(digest, None)
        if digest in self._asking:
            self._deleted_while_asking.add(digest)

    async def sign_in(self, secret: str, *, address: str) -> SignedIn:
        """Return who holds this key; raise Problem when it is not accepted, or nobody can say.

        `address` is where it came from: one that presents too many keys which are none is not listened to for a while.
        """
        could_be = secret.startswith(self.prefix) and len(secret) <= LONGEST_KEY
        return await self._holder(
            hashlib.sha256(secret.encode("utf-8", "replace")).digest(), address, could_be=could_be
        )

    async def sign_in_again(self, digest: bytes, *, address: str) -> SignedIn:
        """Return who holds the key with this digest, which signed in before; raise Problem as `sign_in` does."""
        return await self._holder(digest, address, could_be=True)

    async def _holder(self, digest: bytes, address: str, *, could_be: bool) -> SignedIn:
        now = self._clock.now().timestamp()
        entry = self._accepted.get(digest)
        if entry is None or entry.until <= now:
            caller = network_of(address)
            self._attempts.require(caller)
            found = await self._ask(digest, now) if could_be else None
            if found is None:
                self._attempts.take(caller)
                raise _invalid()
            entry = found
        if entry.expires <= now:
            raise unauthenticated("this key has expired; create another", "CREDENTIAL_EXPIRED")
        if entry.signed_in is None or entry.renew_at <= now:
            self._mint(entry, now)
        assert entry.signed_in is not None  # noqa: S101 - minted above
        return entry.signed_in

    def _mint(self, entry: _Accepted, now: float) -> None:
        """Sign a token, and use it for half its life only, so that it never expires on the way."""
        credential = entry.credential
        left = max(1.0, entry.expires - now)
        lifetime = min(MAX_LIFETIME.total_seconds(), math.ceil(left) if left < math.inf else left)
        token = self._signer.mint(
            workspace=credential.workspace,
            principal=credential.principal,
            scopes=credential.scopes,
            roles=credential.roles,
            lifetime=timedelta(seconds=lifetime),
        )
        caller = Caller(
            workspace=credential.workspace,
            principal=credential.principal,
            scopes=frozenset(credential.scopes),
            service="",
            roles=frozenset(credential.roles),
        )
        entry.signed_in = SignedIn(credential.secret_sha256, caller, token)
        entry.renew_at = now + lifetime / 2

    async def _ask(self, digest: bytes, now: float) -> _Accepted | None:
        """Look an unknown key up, once for all who present it at the moment; None when it is none, or raise Problem."""
        if self._refused.get(digest, 0.0) > now:
            return None
        task = self._asking.get(digest)
        if task is None:
            task = asyncio.ensure_future(self._look_up(digest))
            self._asking[digest] = task
            task.add_done_callback(lambda _: self._asking.pop(digest, None))
        return await asyncio.shield(task)

    async def _look_up(self, digest: bytes) -> _Accepted | None:
        self._deleted_while_asking.discard(digest)
        enter_deadline(None)  # it is for all who present the key, whose time may differ
        try:
            credential = await self._lookup(digest)
        except grpc.aio.AioRpcError as error:
            if error.code() is not C.NOT_FOUND:
                text = "keys cannot be checked at the moment; try again"
                metadata = failure_of(error).metadata
                raise Problem(C.UNAVAILABLE, text, "CREDENTIALS_UNAVAILABLE", metadata=metadata) from error
            credential = None
        now = self._clock.now().timestamp()
        if digest in self._accepted and self._accepted[digest].until == math.inf:
            return self._accepted[digest]  # the watch was faster
        if credential is None or digest in self._deleted_while_asking:
            self._deleted_while_asking.discard(digest)
            self._accepted.pop(digest, None)
            self._refuse(digest, now)
            return None
        entry = _accepted(credential, until=now + LOOKED_UP_FOR)
        self._accepted[digest] = entry
        return entry

    def _refuse(self, digest: bytes, now: float) -> None:
        if len(self._refused) >= MOST_REFUSED:
            self._refused.pop(next(iter(self._refused)))
        self._refused[digest] = now + UNKNOWN_FOR


def _accepted(credential: Credential, *, until: float) -> _Accepted:
    at = credential.expires_at
    expires = at.seconds + at.nanos / 1e9 if credential.HasField("expires_at") else math.inf
    return _Accepted(credential, expires, until)


def _invalid() -> Problem:
    return unauthenticated("this key is not accepted: it is unknown here, or was revoked", "CREDENTIAL_INVALID")


def unauthenticated(detail: str, reason: str) -> Problem:
    """Return a 401 that says how to sign in."""
    return Problem(C.UNAUTHENTICATED, detail, reason, headers={"www-authenticate": 'Bearer realm="counterfoil"'})
