"""Retries of a call that creates something: the first answer again, never a second effect (AIP-155)."""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import Message
from sqlalchemy import ColumnElement, and_, delete, insert, select
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
        asked: Any = request
        request_id: str = asked.request_id
        if not request_id:
            return await make()
        place = and_(_table.c.workspace == workspace, _table.c.method == method, _table.c.request_id == request_id)
        bound = f"{workspace}\0{method}\0{request_id}".encode()
        mac = hmac.digest(self._mac_key, request.SerializeToString(deterministic=True), "sha256")
        await self._forget_old(connection)
        kept = await self._kept(connection, place, mac=mac)
        if kept is not None:
            return answer.FromString(self._seal.decrypt(kept[:_NONCE_BYTES], kept[_NONCE_BYTES:], bound))
        made = await make()
        nonce = os.urandom(_NONCE_BYTES)
        values = {
            "workspace": workspace,
            "method": method,
            "request_id": request_id,
            "request_mac": mac,
            "sealed_answer": nonce + self._seal.encrypt(nonce, made.SerializeToString(), bound),
            "created_us": to_micros(self._clock.now()),
        }
        await connection.execute(insert(_table).values(values))
        return made

    async def _kept(self, connection: AsyncConnection, place: ColumnElement[bool], *, mac: bytes) -> bytes | None:
        row = (await connection.execute(select(_table.c.request_mac, _table.c.sealed_answer).where(place))).first()
        if row is None:
            return None
        if not hmac.compare_digest(row.request_mac, mac):
            raise RequestIdReusedError("this request id was used for another request; take a fresh one")
        return bytes(row.sealed_answer)

    async def _forget_old(self, connection: AsyncConnection) -> None:
        oldest = to_micros(self._clock.now() - KEPT)
        await connection.execute(delete(_table).where(_table.c.created_us < oldest))
