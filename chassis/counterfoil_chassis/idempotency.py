"""Retries of a call that creates something: the first answer again, never a second effect (AIP-155)."""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import Message
from sqlalchemy import and_, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_chassis.clock import Clock, to_micros
from counterfoil_chassis.errors import AbortedError
from counterfoil_chassis.secrecy import derive_key
from counterfoil_chassis.tables import TABLES

KEPT = timedelta(hours=24)
_NONCE_BYTES = 12
_table = TABLES.idempotency

M = TypeVar("M", bound=Message)


class RequestIdReusedError(AbortedError):
    """The request id was used for another request within a day; take a fresh one."""

    reason = "REQUEST_ID_REUSED"


class Idempotency:
    """Keeps answers for 24 hours in the caller's own transaction, sealed by AES-GCM: an answer can hold a key."""

    def __init__(self, secret: bytes, clock: Clock) -> None:
        self._seal = AESGCM(derive_key(secret, "idempotency seal"))
        self._mac_key = derive_key(secret, "idempotency mac")
        self._clock = clock

    async def once(
        self,
        connection: AsyncConnection,
        request: Message,
        *,
        method: str,
        workspace: str,
        answer: type[M],
        make: Callable[[], Awaitable[M]],
    ) -> M:
        """Return the kept answer to `request.request_id`, else make it and keep it; an empty id just makes it.

        Raise RequestIdReusedError when the id came with another request.
        """
        kept = await self.kept(connection, request, method=method, workspace=workspace, answer=answer)
        if kept is not None:
            return kept
        made = await make()
        await self._keep(connection, request, made, method=method, workspace=workspace)
        return made

    async def kept(
        self, connection: AsyncConnection, request: Message, *, method: str, workspace: str, answer: type[M]
    ) -> M | None:
        """Return the kept answer to `request.request_id`, when there is one.

        Ask so before what is done in a transaction of another kind, and give its answer to `once` after that. Should
        the process end in between, it is done again, and has to find itself done. Raise RequestIdReusedError.
        """
        request_id = _request_id(request)
        if not request_id:
            return None
        place = and_(_table.c.workspace == workspace, _table.c.method == method, _table.c.request_id == request_id)
        row = (await connection.execute(select(_table).where(place, _table.c.created_us >= self._oldest()))).first()
        if row is None:
            return None
        if not hmac.compare_digest(row.request_mac, self._mac(request)):
            raise RequestIdReusedError("this request id was used for another request; take a fresh one")
        sealed = bytes(row.sealed_answer)
        bound = _bound(workspace, method, request_id)
        return answer.FromString(self._seal.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound))

    async def _keep(
        self, connection: AsyncConnection, request: Message, answer: Message, *, method: str, workspace: str
    ) -> None:
        """Keep an answer to `request.request_id`, and forget those that are too old."""
        request_id = _request_id(request)
        if not request_id:
            return
        await connection.execute(delete(_table).where(_table.c.created_us < self._oldest()))
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._seal.encrypt(nonce, answer.SerializeToString(), _bound(workspace, method, request_id))
        values = {
            "workspace": workspace,
            "method": method,
            "request_id": request_id,
            "request_mac": self._mac(request),
            "sealed_answer": nonce + sealed,
            "created_us": to_micros(self._clock.now()),
        }
        await connection.execute(insert(_table).values(values))

    def _mac(self, request: Message) -> bytes:
        return hmac.digest(self._mac_key, request.SerializeToString(deterministic=True), "sha256")

    def _oldest(self) -> int:
        return to_micros(self._clock.now() - KEPT)


def _request_id(request: Message) -> str:
    asked: Any = request
    request_id: str = asked.request_id
    return request_id


def _bound(workspace: str, method: str, request_id: str) -> bytes:
    """Return what an answer is sealed for."""
    return f"{workspace}\0{method}\0{request_id}".encode()
