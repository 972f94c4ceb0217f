"""Artifacts in SQL."""

import asyncio
import hashlib
from collections.abc import Collection

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from counterfoil_models.errors import ArtifactAbsentError, ArtifactCorruptError
from counterfoil_models.sql.tables import ARTIFACT
from counterfoil_models.store import EarlierArtifacts


class SqlArtifactStore:
    """See `store.ArtifactStore`; `files` are those of an earlier release, None = out of this process's reach."""

    def __init__(self, connection: AsyncConnection, files: EarlierArtifacts | None) -> None:
        self._connection = connection
        self._files = files

    async def put(self, data: bytes) -> str:
        """Keep bytes and return their hash; the same bytes again change nothing."""
        sha256 = hashlib.sha256(data).hexdigest()
        if await self._find(sha256) is None:
            await self._connection.execute(insert(ARTIFACT).values(sha256=sha256, bytes=data))
        return sha256

    async def get(self, sha256: str) -> bytes:
        """Return the bytes; raise ArtifactCorruptError or ArtifactAbsentError."""
        data = await self._find(sha256)
        if data is None:
            if self._files is None:
                raise ArtifactAbsentError(sha256)
            return await asyncio.to_thread(self._files.get, sha256)
        actual = hashlib.sha256(data).hexdigest()
        if actual != sha256:
            raise ArtifactCorruptError(sha256, actual=actual)
        return data

    async def known(self) -> Collection[str]:
        """Return the hashes of those in the database."""
        return frozenset(await self._connection.scalars(select(ARTIFACT.c.sha256)))

    async def _find(self, sha256: str) -> bytes | None:
        found = await self._connection.scalar(select(ARTIFACT.c.bytes).where(ARTIFACT.c.sha256 == sha256))
        return None if found is None else bytes(found)
