"""The console's files: pages, scripts and styles that lie in this package, and plotly's JavaScript from its own."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

INDEX = "index.html"
PLOTLY = "vendor/plotly.min.js"
DOTTED = ("trust/receipts/", "sources/contracts/")
"""Where pages are whose ids may have dots, as names of files do."""
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
"""What is served, by suffix; a file of any other kind is not."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")  # none begins with a dot


@dataclass(frozen=True)
class File:
    """One file; `version` changes with its content."""

    content: bytes
    media_type: str
    version: str


class Files:
    """Finds files by their path below `/console/`; reads each when it is first asked for, and again when it changed."""

    def __init__(self, folder: Path | None = None) -> None:
        """Take the folder of the pages, by default the one in this package."""
        self._folder = folder or Path(__file__).parent / "static"
        self._kept: dict[str, tuple[tuple[int, int], File]] = {}
        self.plotly_version = importlib.metadata.version("plotly")

    def find(self, name: str) -> File | None:
        """Return a file, None when there is none; a path without a dot is a page of the console, thus its index.

        So is every path in a folder of `DOTTED`.
        """
        if name.startswith(DOTTED) or "." not in name.rpartition("/")[2]:
            name = INDEX
        path = self._path(name)
        if path is None or not path.is_file():
            return None
        stat = path.stat()
        state = (stat.st_mtime_ns, stat.st_size)
        kept = self._kept.get(name)
        if kept is None or kept[0] != state:
            kept = (state, self._read(name, path))
            self._kept[name] = kept
        return kept[1]

    def _path(self, name: str) -> Path | None:
        if name == PLOTLY:
            return _plotly()
        if _NAME.fullmatch(name) is None or Path(name).suffix not in TYPES:
            return None
        return self._folder / name

    def _read(self, name: str, path: Path) -> File:
        content = path.read_bytes()
        media_type = TYPES[path.suffix]
        if name == PLOTLY:
            return File(content, media_type, self.plotly_version)
        if path.suffix == ".html":  # so that a browser asks for 5 MB once per release of plotly, and never again
            content = content.replace(f'{PLOTLY}"'.encode(), f'{PLOTLY}?v={self.plotly_version}"'.encode())
        return File(content, media_type, hashlib.sha256(content).hexdigest()[:32])


def _plotly() -> Path | None:
    spec = importlib.util.find_spec("plotly")  # finds it without importing it, which takes a second and 40 MiB
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "package_data" / "plotly.min.js"
