"""What a backup says of itself: written last, so that a folder without it is no backup."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson
from counterfoil_chassis.errors import StartError

FORMAT = 1
NAME = "manifest.json"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Kept:
    """One file of a backup."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A backup: when and of what release, each service's revision, rows and what it says of itself, and all files."""

    taken_at: str
    release: str
    held_seconds: float
    keys: bool
    services: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, Kept]

    @property
    def log(self) -> Mapping[str, Any]:
        """What ingest says of the log: its life, the lives before it, the erasure revision, and the heads."""
        found: Mapping[str, Any] = self.services["ingest"]["described"]
        return found

    @property
    def workspaces(self) -> list[str]:
        """The workspaces there were."""
        found: list[str] = self.services["governance"]["described"]["workspaces"]
        return found

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(each.size for each in self.files.values())

    def write(self, folder: Path) -> None:
        """Make the folder a backup, durably and at once."""
        said = {
            "format": FORMAT,
            "taken_at": self.taken_at,
            "release": self.release,
            "held_seconds": round(self.held_seconds, 6),
            "keys": self.keys,
            "services": self.services,
            "files": {name: {"bytes": each.size, "sha256": each.sha256} for name, each in sorted(self.files.items())},
        }
        draft = folder / f".{NAME}"
        with draft.open("wb") as file:
            file.write(orjson.dumps(said, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
            file.flush()
            os.fsync(file.fileno())
        sync_folder(folder)
        draft.rename(folder / NAME)
        sync_folder(folder)


def read(folder: Path) -> Manifest:
    """Return what a backup says of itself; raise StartError for a folder that is none."""
    file = folder / NAME
    try:
        said = orjson.loads(file.read_bytes())
        if said["format"] != FORMAT:
            raise StartError(
                f"{file} has format {said['format']}, this release reads {FORMAT}: use the release that made it "
                f"({said['release']})."
            )
        return Manifest(
            taken_at=said["taken_at"],
            release=said["release"],
            held_seconds=said["held_seconds"],
            keys=said["keys"],
            services=said["services"],
            files={name: Kept(each["bytes"], each["sha256"]) for name, each in said["files"].items()},
        )
    except FileNotFoundError:
        raise StartError(f"{folder} is no backup, or one that was broken off: it has no {NAME}.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StartError(f"{file} cannot be read: {error}; use another backup.") from error


def verify(folder: Path, manifest: Manifest, *, on_bytes: Callable[[int], None]) -> None:
    """Read every file again; raise StartError that names those that are gone or are not as they were written."""
    wrong = []
    for name, kept in manifest.files.items():
        try:
            with (folder / name).open("rb") as file:
                found = hashed(file, on_bytes=on_bytes)
        except OSError as error:
            wrong.append(f"{name} ({error.strerror})")
        else:
            if found != kept:
                wrong.append(f"{name} (has other bytes)")
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise StartError(f"{folder} is damaged: {', '.join(wrong[:5])}{more}; use another backup.")


def hashed(file: IO[bytes], *, on_bytes: Callable[[int], None], to: IO[bytes] | None = None) -> Kept:
    """Return the size and hash of what is left of a file, and copy it on the way."""
    digest = hashlib.sha256()
    size = 0
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        if to is not None:
            to.write(chunk)
        size += len(chunk)
        on_bytes(len(chunk))
    return Kept(size, digest.hexdigest())


def copy(file: IO[bytes], to: Path, *, on_bytes: Callable[[int], None], mode: int = 0o600) -> Kept:
    """Copy a file durably; return its size and hash."""
    to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as target:
        kept = hashed(file, on_bytes=on_bytes, to=target)
        target.flush()
        os.fsync(descriptor)
    return kept


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, by name, without those that are still being written."""
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.name.startswith(".") and file.suffix != ".part":
            yield file


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
