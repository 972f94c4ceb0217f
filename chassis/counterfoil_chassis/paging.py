"""Page tokens: the place to go on from, signed, good only for the question they were made for (AIP-158)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from counterfoil.common.v1.paging_pb2 import PageCursor
from google.protobuf.message import Message

from counterfoil_chassis.errors import InvalidArgumentError
from counterfoil_chassis.secrecy import derive_key

DEFAULT_LIMIT = 50
MAX_LIMIT = 1000
_SIGNATURE_BYTES = 16


class PageTokenInvalidError(InvalidArgumentError):
    """The page token was not made here, or for another question; start again without one."""

    reason = "PAGE_TOKEN_INVALID"


@dataclass(frozen=True)
class Page:
    """What to fetch: at most `limit` items, after the item whose sort key is `after` (None = from the start)."""

    limit: int
    after: tuple[str, ...] | None


class Pager:
    """Opens and makes page tokens of one service; every copy of the service with the same secret accepts them."""

    def __init__(self, secret: bytes) -> None:
        self._key = derive_key(secret, "page token")

    def open(self, request: Message, *, method: str, workspace: str) -> Page:
        """Read `page_size` (0 = 50, at most 1,000) and `page_token`; raise PageTokenInvalidError for a foreign one."""
        asked: Any = request
        limit = min(asked.page_size, MAX_LIMIT) if asked.page_size > 0 else DEFAULT_LIMIT
        if not asked.page_token:
            return Page(limit=limit, after=None)
        cursor = self._read(asked.page_token)
        if (cursor.method, cursor.workspace, cursor.question_sha256) != (method, workspace, _question(request)):
            raise PageTokenInvalidError("the page token belongs to another question; start again without it")
        return Page(limit=limit, after=tuple(cursor.after))

    def token(self, request: Message, *, method: str, workspace: str, after: Sequence[str]) -> str:
        """Return the token that goes on after the item with this sort key: the last one kept of `limit + 1` fetched."""
        cursor = PageCursor(method=method, workspace=workspace, question_sha256=_question(request), after=after)
        body = cursor.SerializeToString(deterministic=True)
        return base64.urlsafe_b64encode(self._sign(body) + body).rstrip(b"=").decode()

    def _read(self, token: str) -> PageCursor:
        try:
            raw = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise PageTokenInvalidError("the page token is damaged; start again without it") from None
        signature, body = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(body)):
            raise PageTokenInvalidError("the page token was not made here; start again without it")
        return PageCursor.FromString(body)

    def _sign(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")[:_SIGNATURE_BYTES]


def _question(request: Message) -> bytes:
    question = type(request)()
    question.CopyFrom(request)
    for name in ("page_size", "page_token"):
        question.ClearField(name)
    return hashlib.sha256(question.SerializeToString(deterministic=True)).digest()
