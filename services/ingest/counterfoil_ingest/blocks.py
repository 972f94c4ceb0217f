"""The codec of the log's blocks, layout 1: zstd of JSON lines, as documented on `Block` in `records.proto`."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import msgspec
import orjson
import zstandard

from counterfoil_ingest.entities import Block, Header, LogRecord
from counterfoil_ingest.errors import BlockUnreadableError

LAYOUT = 1

_LEVEL = 1  # at level 1 a block is as small as at 3 within 5 % and costs half the time


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line of a payload: offset, header index, dataset, record id, record."""

    o: int
    h: int
    d: str
    i: str
    r: msgspec.Raw


class Name(msgspec.Struct, frozen=True, gc=False):
    """One line without its record: enough to tell which record lies where."""

    o: int
    h: int
    d: str
    i: str


class _Codecs(threading.local):
    """zstd objects of one thread: a shared one fails with "Src size is incorrect"."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()
        self.lines = msgspec.json.Decoder(Line)
        self.names = msgspec.json.Decoder(Name)


_codecs = _Codecs()


def id_texts(ids: Sequence[str]) -> list[bytes]:
    """Return record ids as JSON writes them between its quotes."""
    # One call for all: a quote within an id is written with a backslash, so that this never cuts one in two.
    return orjson.dumps(ids)[2:-2].split(b'","') if ids else []


def lines(
    offset: int, header: int, datasets: Sequence[str], id_texts: Sequence[bytes], datas: Sequence[bytes]
) -> list[bytes]:
    r"""Return the lines of consecutive records of one request, from `offset` on; `header` is its index in the block.

    Each of `datas` is JSON text without a raw newline, which JSON has only between tokens.
    """
    between = {dataset: b',"h":%d,"d":"%b","i":"' % (header, dataset.encode()) for dataset in set(datasets)}
    columns = zip(range(offset, offset + len(datasets)), datasets, id_texts, datas, strict=True)
    return [b'{"o":%d%b%b","r":%b}\n' % (at, between[dataset], text, data) for at, dataset, text, data in columns]


def encode(lines: Iterable[bytes]) -> bytes:
    """Return the payload of a block made of `line`s."""
    return _codecs.compressor.compress(b"".join(lines))


def decode(block: Block) -> list[LogRecord]:
    """Return the records of a block; raise BlockUnreadableError when it is damaged or of a layout not known here."""
    try:
        found = _codecs.lines.decode_lines(_text(block))
    except (msgspec.MsgspecError, zstandard.ZstdError) as error:
        raise _unreadable(block, str(error)) from error
    headers = block.headers
    return [LogRecord(each.o, each.d, each.i, bytes(each.r), headers[each.h]) for each in found]


def names(block: Block) -> list[tuple[str, str, str]]:
    """Return (source id, dataset, record id) of each record of a block, in order: what a duplicate is told by."""
    try:
        found = _codecs.names.decode_lines(_text(block))
    except (msgspec.MsgspecError, zstandard.ZstdError) as error:
        raise _unreadable(block, str(error)) from error
    headers = block.headers
    return [(headers[each.h].source_id, each.d, each.i) for each in found]


def encode_headers(headers: Sequence[Header]) -> bytes:
    """Return headers as they are stored beside a payload."""
    return orjson.dumps([[h.source_id, h.received_at, h.traceparent, dict(h.contract_versions)] for h in headers])


def decode_headers(stored: bytes) -> tuple[Header, ...]:
    """Return stored headers."""
    return tuple(Header(*each) for each in orjson.loads(stored))


def _text(block: Block) -> bytes:
    if block.layout != LAYOUT:
        raise _unreadable(block, f"layout {block.layout} is not known to this release")
    return _codecs.decompressor.decompress(block.payload)


def _unreadable(block: Block, why: str) -> BlockUnreadableError:
    return BlockUnreadableError(
        f"A block of the log cannot be read ({why}). Restore it from a backup; records around it are not affected.",
        metadata={"partition": str(block.partition), "first_offset": str(block.first_offset)},
    )
