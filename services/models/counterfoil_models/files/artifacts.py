"""Artifacts in a folder, each file named by its hash."""

import hashlib
import os
import secrets
from pathlib import Path

from counterfoil_models.errors import ArtifactCorruptError


class FileArtifactStore:
    """See `store.ArtifactStore`: `<folder>/<sha256>.json`, mode 0600, written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, data: bytes) -> str:
        """Keep bytes durably and return their hash; the same bytes again change nothing."""
        sha256 = hashlib.sha256(data).hexdigest()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._folder / f".{sha256}.{secrets.token_hex(4)}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            draft.replace(self._path(sha256))
        finally:
            draft.unlink(missing_ok=True)
        self._sync_folder()
        return sha256

    def get(self, sha256: str) -> bytes:
        """Return the bytes; raise ArtifactCorruptError when they are gone or do not have this hash."""
        try:
            data = self._path(sha256).read_bytes()
        except FileNotFoundError:
            raise _corrupt(sha256, actual="") from None
        actual = hashlib.sha256(data).hexdigest()
        if actual != sha256:
            raise _corrupt(sha256, actual=actual)
        return data

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.json"

    def _sync_folder(self) -> None:
        # A rename is durable only once its folder is.
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _corrupt(sha256: str, *, actual: str) -> ArtifactCorruptError:
    found = f"its bytes have the hash {actual}" if actual else "the file is gone"
    return ArtifactCorruptError(
        f"The artifact {sha256} is not as it was kept: {found}. Restore it from a backup, or train a new version.",
        metadata={"artifact_sha256": sha256, "actual_sha256": actual},
    )
