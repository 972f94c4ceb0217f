"""Who may pass: the key or the session of a request, whose it is, how much it asks, its scope, then the policies."""

from __future__ import annotations

from collections.abc import Mapping

from counterfoil_chassis.telemetry import ATTRIBUTE_PRINCIPAL, ATTRIBUTE_WORKSPACE
from opentelemetry import trace

from counterfoil_gateway.addresses import PublicAddress, client_of, peer_of
from counterfoil_gateway.api import Method
from counterfoil_gateway.asgi import Scope
from counterfoil_gateway.calls import Metadata
from counterfoil_gateway.console.sessions import SIGN_IN_AGAIN, Session, Sessions
from counterfoil_gateway.credentials import Keyring, SignedIn, unauthenticated
from counterfoil_gateway.permission import Permission
from counterfoil_gateway.problems import C, Problem
from counterfoil_gateway.quotas import Bound

API_KEY = "cfk_"
WRITE_KEY = "cfw_"
SEND_A_KEY = "send an API key, as `X-Api-Key: cfk_...` or `Authorization: Bearer cfk_...`"


class Access:
    """Signs callers in by API key, for both doors, and by the console's sessions, for the REST door alone."""

    def __init__(
        self,
        keys: Keyring,
        sessions: Sessions,
        *,
        address: PublicAddress,
        permission: Permission,
        requests: Bound,
    ) -> None:
        self._keys = keys
        self._sessions = sessions
        self._address = address
        self._permission = permission
        self._requests = requests

    async def rest(self, scope: Scope, headers: Mapping[bytes, bytes], method: Method) -> Metadata:
        """Return the metadata for the call onwards; raise Problem 401, 403 or 429. A key goes before a session."""
        if b"cookie" in headers and b"x-api-key" not in headers and b"authorization" not in headers:
            session = self._sessions.of(headers)
            if session is not None:
                self._address.require_same_origin(scope, headers)
                return await self._admit(await self._again(scope, session), method)
        return await self._admit(await self.by_key(scope, headers), method)

    async def rpc(self, metadata: Mapping[str, str | bytes], method: Method, peer: str) -> Metadata:
        """Return the metadata for the call onwards; raise Problem."""
        return await self._admit(await self.by_metadata(metadata, peer), method)

    async def by_metadata(self, metadata: Mapping[str, str | bytes], peer: str) -> SignedIn:
        """Return who holds a call's API key; raise Problem 401 or 429."""
        key, authorization = metadata.get("x-api-key", ""), metadata.get("authorization", "")
        return await self._by_key(_text(key), _text(authorization), peer_of(peer))

    async def by_key(self, scope: Scope, headers: Mapping[bytes, bytes]) -> SignedIn:
        """Return who holds a request's API key; raise Problem 401 or 429."""
        key, authorization = headers.get(b"x-api-key", b""), headers.get(b"authorization", b"")
        return await self._by_key(_text(key), _text(authorization), client_of(scope))

    async def by_session(self, scope: Scope, headers: Mapping[bytes, bytes]) -> tuple[Session, SignedIn]:
        """Return a request's session and who is signed in by it; raise Problem 401 or 429."""
        session = self._sessions.of(headers)
        if session is None:
            raise unauthenticated(f"nobody is signed in; {SIGN_IN_AGAIN}", "SESSION_MISSING")
        return session, await self._again(scope, session)

    async def _again(self, scope: Scope, session: Session) -> SignedIn:
        holder = await self._keys.sign_in_again(session.digest, address=client_of(scope))
        self._requests.take(holder)  # the same bucket as its key's
        return holder

    async def _by_key(self, key: str, authorization: str, address: str) -> SignedIn:
        secret = key or _bearer(authorization)
        if secret.startswith(WRITE_KEY):
            text = "this is a write key: it is for event routes only. " + SEND_A_KEY
            raise unauthenticated(text, "CREDENTIAL_WRONG_KIND")
        holder = await self._keys.sign_in(secret, address=address)
        self._requests.take(holder)
        return holder

    async def _admit(self, holder: SignedIn, method: Method) -> Metadata:
        describe(holder)
        if method.scope not in holder.scopes:
            text = f"this needs the scope {method.scope}; ask an administrator for a key that has it"
            raise Problem(C.PERMISSION_DENIED, text, "SCOPE_MISSING", metadata={"policy_id": f"scope:{method.scope}"})
        await self._permission.require(holder, method)
        return (("authorization", f"Bearer {holder.token}"),)


def describe(signed_in: SignedIn) -> None:
    """Put the caller on the current span."""
    span = trace.get_current_span()
    span.set_attribute(ATTRIBUTE_WORKSPACE, signed_in.workspace)
    span.set_attribute(ATTRIBUTE_PRINCIPAL, signed_in.principal)


def _bearer(authorization: str) -> str:
    scheme, _, secret = authorization.partition(" ")
    if not authorization:
        raise unauthenticated(SEND_A_KEY, "CREDENTIAL_MISSING")
    if scheme.lower() != "bearer" or not secret.strip():
        raise unauthenticated(SEND_A_KEY, "CREDENTIAL_INVALID")
    return secret.strip()


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
