"""Bodies as they arrive: inflated within bounds, and taken apart where one bad record would spoil the whole."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np
import orjson
from isal import isal_zlib

from counterfoil_ingest import validation
from counterfoil_ingest.entities import MAX_DEPTH, Candidate, Finding
from counterfoil_ingest.errors import BadGzipError, BadJsonError, BodyTooLargeError, TooManyRecordsError

MAX_BODY_BYTES = 20 << 20
"""Of one request, decompressed."""

MAX_ID = 255
"""Characters; a longer id is stored as its hash."""

_GZIP = b"\x1f\x8b"
_GZIP_BITS = 31  # zlib's sign for a gzip header and trailer
_BOM = b"\xef\xbb\xbf"
_BROKEN: type[Exception] = isal_zlib.IsalError  # type: ignore[assignment]  # its stub declares an instance
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{},:]|[^\s"\[\]{},:]++', re.DOTALL)
_APART = b"\x1b"  # between objects: within JSON it is always escaped, and it is what brackets are folded to
# As arrays these cost half of what numbers do, to which a type is given again and again.
_FOLD, _BRACE, _FOLDED_BRACKET, _FOLDED_E, _ZERO, _TEN = (
    np.array(each, np.uint8) for each in (0b10011111, ord("{"), 0x1B, 0x05, ord("0"), 10)
)
_STRIDE = 32  # bytes between those looked at for long rows of digits
_LONG_ROW = b"\x01" * 8
_IN_NUMBER = b"0123456789.-"
_BEFORE_NUMBER = b":,[ \t\r\n"
_OPENING, _CLOSING = b"[{", b"]}"


def inflate(body: bytes) -> bytes:
    """Return a body as text, gunzipped when its first bytes are gzip's; its declared encoding is not looked at.

    Raises BodyTooLargeError beyond `MAX_BODY_BYTES`, without having inflated more, and BadGzipError.
    """
    if body[:2] != _GZIP:
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
        return body.removeprefix(_BOM)
    parts: list[bytes] = []
    room = MAX_BODY_BYTES + 1
    try:
        while body:  # gzip members may follow one another (RFC 1952 section 2.2)
            member = isal_zlib.decompressobj(_GZIP_BITS)
            parts.append(member.decompress(body, room))
            room -= len(parts[-1])
            if room <= 0:
                raise _too_large()
            if not member.eof:
                raise BadGzipError("The body ends in the middle of its gzip data; send it again.")
            body = member.unused_data
    except _BROKEN as error:
        raise BadGzipError(f"The body begins as gzip and is none: {error}.") from error
    return b"".join(parts).removeprefix(_BOM)


def elements(array: bytes) -> list[bytes] | None:
    """Cut the text of a JSON array into its elements, whatever they hold; None when the brackets do not match."""
    found: list[bytes] = []
    depth = 0
    start = 0
    for token, begin, end in _tokens(array):
        if depth == 0 and (begin != 0 or token != b"["):
            return None
        if token in _OPENING:
            depth += 1
            start = end if depth == 1 else start
        elif token in _CLOSING:
            depth -= 1
            if depth == 0:
                last = array[start:begin].strip()
                return [*found, last] if last or found else []
        elif token == b"," and depth == 1:
            found.append(array[start:begin].strip())
            start = end
    return None


def member(obj: bytes, key: bytes) -> tuple[int, int] | None:
    """Return where the value of a JSON object's key lies, when it is an array; None when there is none."""
    depth = 0
    start = -1
    before: list[bytes] = [b"", b""]
    for token, begin, end in _tokens(obj):
        if token in _OPENING:
            if depth == 1 and token == b"[" and before == [b'"%b"' % key, b":"]:
                start = begin
            depth += 1
        elif token in _CLOSING:
            depth -= 1
            if depth == 1 and start >= 0:
                return start, end
        before = [before[1], token]
    return None


def is_utf8(text: bytes) -> bool:
    """Tell whether a text is UTF-8."""
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def read_alike(objects: Iterable[msgspec.Raw]) -> bytes | None:
    """Return the text of JSON objects, joined, when readers agree on them; None when that is not sure.

    The objects must be JSON as msgspec skips it. It takes any depth, and a number that no double can hold (1e309);
    others refuse both. A number that large has an exponent of two digits, or three hundred digits in a row; an object
    that nests too deep has that many brackets.
    """
    text = _APART.join((b"", *objects, b""))
    codes = np.frombuffer(text, np.uint8)
    folded = codes & _FOLD  # one pass instead of four: { and [ become what stands between objects, as ; does
    (places,) = (folded == _FOLDED_BRACKET).nonzero()
    (bounds,) = (codes[places] == _FOLDED_BRACKET).nonzero()  # what is so without being folded stands between them
    if (codes[places[bounds[:-1]] + 1] != _BRACE).nonzero()[0].size:
        return None
    if max((bounds[1:] - bounds[:-1]).tolist(), default=0) > MAX_DEPTH and not _are_flat(text):
        return None
    digits = (codes - _ZERO) < _TEN  # of unsigned bytes: what is smaller wraps around
    if _LONG_ROW in digits[::_STRIDE].tobytes():
        return None
    (exponents,) = ((folded[1:-2] == _FOLDED_E) & digits[:-3] & digits[3:]).nonzero()
    return None if any(_is_exponent(text, at + 1) for at in exponents.tolist()) else text


def parse_each(texts: list[bytes]) -> list[Any]:
    """Parse each text by itself; one that is not JSON becomes an `Unreadable`."""
    return [_parse_one(text) for text in texts]


class Unreadable:
    """A record's text that is not JSON, with the finding that says so."""

    def __init__(self, text: bytes, finding: Finding) -> None:
        self.text = text
        self.finding = finding

    def candidate(self, record_id: str, dataset: str) -> Candidate:
        """Return it on its way to quarantine, with its bytes."""
        return Candidate(record_id, dataset, self.text, None, (self.finding,))


def id_of(given: str) -> str:
    """Return a sender's id as it is stored: one of more than 255 characters as its SHA-256."""
    return given if len(given) <= MAX_ID else "sha256:" + hashlib.sha256(given.encode()).hexdigest()


def not_json(error: Exception) -> BadJsonError:
    """Return the refusal of a body that is not JSON as a whole."""
    return BadJsonError(f"The body is not JSON ({error}). Send RFC 8259 JSON in UTF-8.")


def too_many(limit: int) -> TooManyRecordsError:
    """Return the refusal of a body with too many records."""
    return TooManyRecordsError(f"One request takes at most {limit} records; send the rest in another.")


def _parse_one(text: bytes) -> Any:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        try:
            text.decode()
        except UnicodeDecodeError:
            return Unreadable(text, validation.not_utf8())
        return Unreadable(text, validation.too_deep() if "depth" in str(error) else validation.not_json())
    # What is read here may be deeper than can be written again: orjson reads 1024 levels and writes 254.
    return Unreadable(text, validation.too_deep()) if validation.nests_too_deep(text, value) else value


def _tokens(text: bytes) -> Iterator[tuple[bytes, int, int]]:
    for match in _TOKEN.finditer(text):
        yield match.group(), match.start(), match.end()


def _is_exponent(text: bytes, at: int) -> bool:
    """Tell whether an `e` after a digit belongs to a number of JSON, and can make it large."""
    start = at - 1
    while text[start] in _IN_NUMBER:
        start -= 1
    return text[start] in _BEFORE_NUMBER and text[at + 1] != ord("-")


def _are_flat(text: bytes) -> bool:
    """Tell whether it is sure that no object nests too deep: that none has as many brackets."""
    return all(each.count(b"{") + each.count(b"[") < MAX_DEPTH for each in text.split(_APART))


def _too_large() -> BodyTooLargeError:
    return BodyTooLargeError(f"A body is at most {MAX_BODY_BYTES >> 20} MiB once decompressed; send it in parts.")
