"""Who may pass: the key of a request, the caller it belongs to, and the scope the method asks for."""

from __future__ import annotations

from collections.abc import Mapping

from counterfoil_chassis.telemetry import ATTRIBUTE_PRINCIPAL, ATTRIBUTE_WORKSPACE
from opentelemetry import trace

from counterfoil_gateway.calls import Metadata
from counterfoil_gateway.credentials import Keyring, SignedIn, unauthenticated
from counterfoil_gateway.problems import C, Problem

API_KEY = "cfk_"
WRITE_KEY = "cfw_"
SEND_A_KEY = "send an API key, as `X-Api-Key: cfk_...` or `Authorization: Bearer cfk_...`"


class Access:
    """Signs callers in by API key, for both doors."""

    def __init__(self, keys: Keyring) -> None:
        self._keys = keys

    async def rest(self, headers: Mapping[bytes, bytes], scope: str) -> Metadata:
        """Return the metadata for the call onwards; raise Problem 401 or 403."""
        key = headers.get(b"x-api-key", b"").decode("latin-1")
        return await self._pass(key, headers.get(b"authorization", b"").decode("latin-1"), scope)

    async def rpc(self, metadata: Mapping[str, str | bytes], scope: str) -> Metadata:
        """Return the metadata for the call onwards; raise Problem."""
        return await self._pass(_text(metadata.get("x-api-key", "")), _text(metadata.get("authorization", "")), scope)

    async def _pass(self, key: str, authorization: str, scope: str) -> Metadata:
        secret = key or _bearer(authorization)
        if secret.startswith(WRITE_KEY):
            text = "this is a write key: it is for event routes only. " + SEND_A_KEY
            raise unauthenticated(text, "CREDENTIAL_WRONG_KIND")
        signed_in = await self._keys.sign_in(secret)
        describe(signed_in)
        if scope not in signed_in.scopes:
            text = f"this needs the scope {scope}; ask an administrator for a key that has it"
            raise Problem(C.PERMISSION_DENIED, text, "SCOPE_MISSING", metadata={"policy_id": f"scope:{scope}"})
        return (("authorization", f"Bearer {signed_in.token}"),)


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
