"""The spool of uploaded files: bytes are hashed on their way to disk and named only once they are durable."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO

from counterfoil_chassis.health import has_reserve
from isal import igzip_lib

from counterfoil_ingest.errors import BadGzipError
from counterfoil_ingest.import_jobs import file_of
from counterfoil_ingest.read_errors import DiskFullError, FileTooLargeError

MAX_FILE_BYTES = 10 << 30
_WRITE_BYTES = 4 << 20
_GZIP = b"\x1f\x8b"
_BROKEN: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # its stub declares an instance


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What was kept; of an archive, what was in it."""

    size: int
    sha256: str


class Spool:
    """Files of imports below one folder; at most `max_bytes` each, while its disk keeps a reserve for the log."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_FILE_BYTES) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        folder.mkdir(parents=True, exist_ok=True)

    async def receive(self, import_id: str, chunks: AsyncIterator[bytes]) -> Uploaded:
        """Keep a file, gunzipped when its first bytes are gzip's, so that it is the same file either way.

        Raises FileTooLargeError, DiskFullError or BadGzipError. What broke off leaves nothing behind.
        """
        part = self.folder / f"{import_id}.part"
        self._require_space()
        try:
            with part.open("xb") as file:
                uploaded = await self._write(file, chunks)
                await asyncio.to_thread(os.fsync, file.fileno())
            await asyncio.to_thread(_rename, part, file_of(self.folder, import_id))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _full() from error
            raise
        finally:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()
        return uploaded

    def _require_space(self) -> None:
        """Raise DiskFullError when a file would take what is left to the log, which may lie on the same disk."""
        if not has_reserve(self.folder):
            raise _full()

    async def _write(self, file: IO[bytes], chunks: AsyncIterator[bytes]) -> Uploaded:
        digest = hashlib.sha256()
        size = 0
        async for data in _unpacked(_gathered(chunks)):
            size += len(data)
            if size > self._max_bytes:
                raise FileTooLargeError(
                    f"A file may have at most {self._max_bytes} bytes, unpacked. Split it and upload the parts.",
                    metadata={"max_bytes": str(self._max_bytes)},
                )
            self._require_space()
            await asyncio.to_thread(_write_and_hash, file, digest, data)
        return Uploaded(size, digest.hexdigest())


async def _gathered(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield chunks together, as much as is written at once."""
    waiting = bytearray()
    async for chunk in chunks:
        waiting += chunk
        if len(waiting) >= _WRITE_BYTES:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


async def _unpacked(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield blocks as they are, or what is in them when the first begins as gzip; no more than is written at once."""
    archive: _Archive | None = None
    first = True
    async for block in blocks:
        if first and block.startswith(_GZIP):
            archive = _Archive()
        first = False
        if archive is None:
            yield block
            continue
        archive.add(block)
        while data := await asyncio.to_thread(archive.read):
            yield data
    if archive is not None and not archive.whole:
        raise BadGzipError("The file ends in the middle of its gzip data. Upload it whole.")


class _Archive:
    """Gzip members, one after the other (RFC 1952 section 2.2), inflated step by step: a small one may hold a lot."""

    def __init__(self) -> None:
        self._member = _member()
        self._rest = b""

    @property
    def whole(self) -> bool:
        """Whether what was added ends where a member does."""
        return self._member.eof

    def add(self, data: bytes) -> None:
        """Take more of the archive; all that was there must have been read."""
        self._rest = data

    def read(self) -> bytes:
        """Return the next bytes of what is in there; b"" once more must be added. Raises BadGzipError."""
        try:
            while self._rest or not (self._member.eof or self._member.needs_input):
                if self._member.eof:
                    self._member = _member()
                data = self._member.decompress(self._rest, _WRITE_BYTES)
                self._rest = self._member.unused_data
                if data:
                    return data
        except _BROKEN as error:
            detail = f"The file begins as gzip, but cannot be unpacked ({error}). Pack it anew and upload it."
            raise BadGzipError(detail) from error
        return b""


def _member() -> igzip_lib.IgzipDecompressor:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


def _full() -> DiskFullError:
    return DiskFullError(
        "The data folder's disk has no more than its reserve. Make room, then upload the file again.",
        retry_after=timedelta(minutes=1),
    )


def _write_and_hash(file: IO[bytes], digest: hashlib._Hash, data: bytes) -> None:
    file.write(data)
    file.flush()
    digest.update(data)


def _rename(part: Path, whole: Path) -> None:
    part.replace(whole)
    folder = os.open(whole.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
