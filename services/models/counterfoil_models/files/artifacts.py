"""Artifacts in a folder, each file named by its hash, as releases before 0.2 kept them; only read."""

import hashlib
import logging
from collections.abc import Collection, Iterator
from pathlib import Path

from counterfoil_models.errors import ArtifactCorruptError

_logger = logging.getLogger(__name__)


class ArtifactFiles:
    """See `store.EarlierArtifacts`: `<folder>/<sha256>.json`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, sha256: str) -> bytes:
        """Return the bytes; raise ArtifactCorruptError when they are gone or do not have this hash."""
        try:
            data = (self._folder / f"{sha256}.json").read_bytes()
        except FileNotFoundError:
            raise ArtifactCorruptError(sha256, actual="") from None
        actual = hashlib.sha256(data).hexdigest()
        if actual != sha256:
            raise ArtifactCorruptError(sha256, actual=actual)
        return data

    def beside(self, known: Collection[str]) -> Iterator[bytes]:
        """Yield those that are whole and not among the known, and tell of files that are not what their name says."""
        for file in sorted(self._folder.glob("[!.]*.json")):
            if file.stem in known:
                continue
            try:
                yield self.get(file.stem)
            except ArtifactCorruptError as error:
                _logger.warning("a file is left where it is", extra={"file": file.name, "cause": error.message})
