"""The accepted API keys as a feed that the gateway watches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from counterfoil.common.v1.credentials_pb2 import Credential
from counterfoil_chassis.clock import to_timestamp
from counterfoil_chassis.watch import Feed, record_delete, record_put
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_governance.entities import Key

TOPIC: Final = "credentials"


class SqlCredentialFeed:
    """Records changes of credentials in the open transaction, keyed by the hex SHA-256 of the key."""

    def __init__(self, connection: AsyncConnection, feed: Feed) -> None:
        self._connection = connection
        self._feed = feed

    async def put(self, key: Key, *, roles: Sequence[str]) -> None:
        """Say that a key is accepted, for a principal with these roles."""
        resource = to_credential(key, roles)
        await record_put(self._connection, topic=TOPIC, key=key.secret_sha256.hex(), resource=resource)
        self._feed.changed(self._connection)

    async def delete(self, secret_sha256: bytes) -> None:
        """Say that the key with this digest is refused from now on."""
        await record_delete(self._connection, topic=TOPIC, key=secret_sha256.hex())
        self._feed.changed(self._connection)


def to_credential(key: Key, roles: Sequence[str]) -> Credential:
    """Return what a gateway needs to recognise the key of a principal with these roles."""
    return Credential(
        secret_sha256=key.secret_sha256,
        credential_id=key.key_id,
        workspace=key.workspace,
        principal=key.principal_id,
        scopes=key.scopes,
        expires_at=None if key.expires_at is None else to_timestamp(key.expires_at),
        roles=roles,
    )
