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

from counterfoil_ingest.import_jobs import file_of
from counterfoil_ingest.read_errors import DiskFullError, FileTooLargeError

MAX_FILE_BYTES = 10 << 30
_WRITE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What was kept."""

    size: int
    sha256: str


class Spool:
    """Files of imports below one folder; at most `max_bytes` each, while its disk keeps a reserve for the log."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_FILE_BYTES) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        folder.mkdir(parents=True, exist_ok=True)

    async def receive(self, import_id: str, chunks: AsyncIterator[bytes]) -> Uploaded:
        """Keep a file; raise FileTooLargeError or DiskFullError. What broke off leaves nothing behind."""
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
        waiting = bytearray()
        async for chunk in chunks:
            size += len(chunk)
            if size > self._max_bytes:
                raise FileTooLargeError(
                    f"A file may have at most {self._max_bytes} bytes. Split it and upload the parts.",
                    metadata={"max_bytes": str(self._max_bytes)},
                )
            waiting += chunk
            if len(waiting) >= _WRITE_BYTES:
                self._require_space()
                await asyncio.to_thread(_write_and_hash, file, digest, bytes(waiting))
                waiting.clear()
        await asyncio.to_thread(_write_and_hash, file, digest, bytes(waiting))
        return Uploaded(size, digest.hexdigest())


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
