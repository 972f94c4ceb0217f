"""The console's files: pages, scripts and styles that lie in this package, and plotly's JavaScript from its own.

The index names scripts, styles and icons by addresses that change with any of them, and scripts import each other
beside themselves: a browser keeps what it has for good, and never mixes the modules of two releases.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass, replace
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
_RELEASE = re.compile(r"v-([0-9a-f]{32})/")
_RELEASED = re.compile(rb'(?<="/console/)(?=(?:css|icons|js)/)')
_SCRIPT = b'    <script type="module"'
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")  # none begins with a dot


@dataclass(frozen=True)
class File:
    """One file; `version` changes with its content."""

    content: bytes
    media_type: str
    version: str
    fixed: bool = False
    """The address it was asked by never names another content."""


class Files:
    """Finds files by their path below `/console/`; reads each when it is first asked for, and again when it changed."""

    def __init__(self, folder: Path | None = None) -> None:
        """Take the folder of the pages, by default the one in this package."""
        self._folder = folder or Path(__file__).parent / "static"
        self._kept: dict[str, tuple[tuple[int, int], File]] = {}
        self._released: tuple[str, dict[str, str]] = ("", {})
        """The release that the index named last, and the version of each of its files."""
        self.plotly_version = importlib.metadata.version("plotly")

    def find(self, name: str, *, version: str = "") -> File | None:
        """Return a file, None when there is none; a path without a dot is a page of the console, thus its index.

        So is every path in a folder of `DOTTED`. An address may begin with a release, or ask for a version: what it
        finds is the file as it is now, fixed where that is what it names.
        """
        release = _RELEASE.match(name)
        if release is not None:
            name = name[release.end() :]
        if name.startswith(DOTTED) or "." not in name.rpartition("/")[2]:
            name = INDEX
        found = self._current(name)
        if found is None or name == INDEX:
            return found and self._index(found)
        current, versions = self._released
        named = release is not None and release[1] == current and versions.get(name) == found.version
        return replace(found, fixed=True) if named or version == found.version else found

    def _current(self, name: str) -> File | None:
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

    def _index(self, written: File) -> File:
        """Return the index with the addresses of this release; all its scripts are asked for at once."""
        names = sorted(path.relative_to(self._folder).as_posix() for path in self._folder.rglob("*.*"))
        files = {name: file.version for name in names if name != INDEX and (file := self._current(name)) is not None}
        release = _digest("".join(f"{name} {version}\n" for name, version in files.items()).encode())
        self._released = (release, files)
        ahead = (f'    <link rel="modulepreload" href="/console/{name}">\n' for name in files if name.endswith(".js"))
        content = written.content.replace(_SCRIPT, "".join(ahead).encode() + _SCRIPT)
        content = _RELEASED.sub(f"v-{release}/".encode(), content)
        return File(content, written.media_type, _digest(content))

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
        return File(content, media_type, _digest(content))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _plotly() -> Path | None:
    spec = importlib.util.find_spec("plotly")  # finds it without importing it, which takes a second and 40 MiB
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "package_data" / "plotly.min.js"
