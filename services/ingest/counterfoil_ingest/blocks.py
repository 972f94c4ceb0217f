"""The codec of the log's blocks, layout 1: zstd of JSON lines, as documented on `Block` in `records.proto`.

The number of the layout stands beside the payload, in the block's row and in the message, not within it: whoever does
not know it need not look inside, and `zstd -d` reads a payload.

An erased record leaves a tombstone: a line with its offset and header, an empty dataset and id, and `null` for itself.
That of a reverted one says so: releases that do not know it take it for erased.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import msgspec
import orjson
import zstandard

from counterfoil_ingest.entities import Block, Erased, Header, LogRecord, RecordName, Reverted
from counterfoil_ingest.errors import BlockUnreadableError

LAYOUT = 1

_LEVEL = 1  # at level 1 a block is as small as at 3 within 5 % and costs half the time


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line of a payload: offset, header index, dataset, record id, record; `x` makes it a tombstone."""

    o: int
    h: int
    d: str
    i: str
    r: msgspec.Raw
    x: Erased | None = None


class _NewLine(msgspec.Struct, gc=False):
    """The same, to be written."""

    o: int
    h: int
    d: str
    i: str
    r: Any


class Name(msgspec.Struct, frozen=True, gc=False):
    """One line without its record: enough to tell which record lies where; `v` = it was reverted."""

    o: int
    h: int
    d: str
    i: str
    x: Erased | None = None
    v: bool = False


class _Codecs(threading.local):
    """zstd objects of one thread: a shared one fails with "Src size is incorrect"."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()
        self.encoder = msgspec.json.Encoder()
        self.lines = msgspec.json.Decoder(Line)
        self.names = msgspec.json.Decoder(Name)


_codecs = _Codecs()


def id_texts(ids: Sequence[str]) -> list[bytes]:
    """Return record ids as JSON writes them between its quotes."""
    # One call for all: a quote within an id is written with a backslash, so that this never cuts one in two.
    return orjson.dumps(ids)[2:-2].split(b'","') if ids else []


def lines(
    offset: int,
    headers: Iterable[int],
    datasets: Sequence[str],
    ids: Sequence[str],
    records: Sequence[bytes] | Sequence[msgspec.Struct],
) -> bytes:
    """Return the lines of consecutive records, from `offset` on; `headers` are the indexes of theirs in the block.

    `records`, one at least, are JSON texts without a raw newline, which JSON has only between tokens, or structs that
    msgspec writes so.
    """
    values: Iterable[Any] = records
    if isinstance(records[0], bytes):
        values = map(msgspec.Raw, cast("Sequence[bytes]", records))
    places = range(offset, offset + len(records))
    return _codecs.encoder.encode_lines(list(map(_NewLine, places, headers, datasets, ids, values)))


def texts(records: Sequence[bytes] | Sequence[msgspec.Struct]) -> Sequence[bytes]:
    """Return records as texts, whichever they are."""
    if isinstance(records[0], bytes):
        return cast("Sequence[bytes]", records)
    return list(map(_codecs.encoder.encode, records))


def encode(lines: Iterable[bytes]) -> bytes:
    """Return the payload of a block made of `lines`."""
    return _codecs.compressor.compress(b"".join(lines))


def decode(block: Block) -> list[LogRecord]:
    """Return the records of a block that are not erased.

    Raises BlockUnreadableError when it is damaged or of a layout not known here.
    """
    headers = block.headers
    return [LogRecord(each.o, each.d, each.i, bytes(each.r), headers[each.h]) for each in decode_lines(block)]


def decode_lines(block: Block) -> list[Line]:
    """Return the lines of a block that are not erased, as `decode` does the records."""
    try:
        found = _codecs.lines.decode_lines(_text(block))
    except (msgspec.MsgspecError, zstandard.ZstdError) as error:
        raise _unreadable(block, str(error)) from error
    return [each for each in found if each.x is None]


def open_block(block: Block) -> tuple[bytes, str]:
    """Return the lines of a block as text, and the dataset of the first of them; raises as `decode` does."""
    try:
        text = _text(block)
        return text, _codecs.names.decode(text[: text.index(b"\n")]).d
    except (msgspec.MsgspecError, zstandard.ZstdError, ValueError) as error:
        raise _unreadable(block, str(error)) from error


def line_texts(block: Block) -> list[bytes]:
    """Return the lines of a block, one for each of its records; `line` reads one."""
    try:
        return _text(block).rstrip(b"\n").split(b"\n")
    except zstandard.ZstdError as error:
        raise _unreadable(block, str(error)) from error


def line(text: bytes) -> Line:
    """Return what one of `line_texts` says."""
    return _codecs.lines.decode(text)


def names(block: Block) -> list[RecordName]:
    """Return what each record of a block is named, in order: what a duplicate is told by."""
    headers = block.headers
    return [
        (headers[each.h].source_id, each.d, each.i) if each.x is None else (Reverted(each.x.hash) if each.v else each.x)
        for each in _names(block)
    ]


def erase(
    block: Block, offsets: Collection[int], erased_name: Callable[[str, str, str], Erased], *, reverted: bool = False
) -> tuple[Block, list[tuple[int, str, str, str]]]:
    """Return the block with tombstones at some offsets; and where which records lay, by source id, dataset and id.

    `erased_name` gives what stays of a name, which a `reverted` record leaves free. Of a record that is erased already
    nothing is said.
    """
    lines, gone, mark = _text(block).split(b"\n"), [], b',"v":true' if reverted else b""
    for index, each in enumerate(_names(block)):
        if each.o in offsets and each.x is None:
            name = (block.headers[each.h].source_id, each.d, each.i)
            left = (each.o, each.h, *erased_name(*name), mark)
            lines[index] = b'{"o":%d,"h":%d,"d":"","i":"","r":null,"x":[%d,%d]%b}' % left
            gone.append((each.o, *name))
    return replace(block, payload=_codecs.compressor.compress(b"\n".join(lines))) if gone else block, gone


def encode_headers(headers: Sequence[Header]) -> bytes:
    """Return headers as they are stored beside a payload."""
    return orjson.dumps([[h.source_id, h.received_at, h.traceparent, dict(h.contract_versions)] for h in headers])


def decode_headers(stored: bytes) -> tuple[Header, ...]:
    """Return stored headers."""
    return tuple(Header(*each) for each in orjson.loads(stored))


def _names(block: Block) -> list[Name]:
    try:
        return _codecs.names.decode_lines(_text(block))
    except (msgspec.MsgspecError, zstandard.ZstdError) as error:
        raise _unreadable(block, str(error)) from error


def _text(block: Block) -> bytes:
    if block.layout != LAYOUT:
        raise BlockUnreadableError(
            f"A block of the log has layout {block.layout}, which this release does not know: it reads {LAYOUT}. "
            "A newer release wrote it: start that one again, or a later one. Nothing is damaged.",
            metadata={
                "partition": str(block.partition),
                "first_offset": str(block.first_offset),
                "layout": str(block.layout),
            },
        )
    return _codecs.decompressor.decompress(block.payload)


def _unreadable(block: Block, why: str) -> BlockUnreadableError:
    return BlockUnreadableError(
        f"A block of the log cannot be read ({why}). Restore it from a backup; records around it are not affected.",
        metadata={"partition": str(block.partition), "first_offset": str(block.first_offset)},
    )
