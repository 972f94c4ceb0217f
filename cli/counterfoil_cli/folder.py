"""The data folder of a local start: made, checked, locked, and given its keys."""

import fcntl
import hashlib
import os
import re
import secrets
import sqlite3
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from counterfoil_chassis.errors import StartError
from counterfoil_chassis.identity import write_key_pair

API_KEY = re.compile(r"cfk_[A-Za-z0-9_-]{43}")
_REVISION = re.compile(r"^revision\b[^=\n]*=\s*[\"']([^\"']+)[\"']", re.MULTILINE)


RESTORING = "RESTORING"
"""A file that a data folder has while it is being restored."""


@dataclass(frozen=True)
class DataFolder:
    """A data folder that this process holds the lock of, for as long as it or a child lives."""

    path: Path
    lock: int  # the descriptor that holds it; children inherit it, so orphans still keep a second start away

    @property
    def admin_key_file(self) -> Path:
        """The file with the admin's API key."""
        return self.path / "admin.key"

    def log(self, name: str) -> Path:
        """Return where a process's output goes."""
        return self.path / "logs" / f"{name}.log"


def open_folder(path: Path) -> DataFolder:
    """Make the folder where it is missing, and lock it; raise StartError when it cannot be used or is in use."""
    path = path.absolute()
    try:
        for folder in (path, path / "keys", path / "keys" / "trusted", path / "logs"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except FileExistsError as error:
        raise StartError(f"{error.filename} is a file where a folder should be; move it or choose --data.") from error
    except OSError as error:
        raise StartError(_unusable(path, error)) from error
    if (path / RESTORING).exists():
        raise StartError(f"{path} is being restored, or that was broken off: delete it and restore the backup again.")
    return DataFolder(path, hold(path / "lock"))


def admin_key(folder: DataFolder) -> str:
    """Return the admin's API key, made at the first start; raise StartError when the file holds none."""
    try:
        return api_key(folder.admin_key_file)
    except OSError as error:
        raise StartError(_unusable(folder.admin_key_file, error)) from error


def api_key(file: Path) -> str:
    """Return the API key in a file, made where there is no file; raise StartError when it holds none, or OSError."""
    key = kept(file, lambda: f"cfk_{secrets.token_urlsafe(32)}\n").strip()
    if not API_KEY.fullmatch(key):
        raise StartError(f"{file} holds no API key; put the key back, or move the whole folder away and start anew.")
    return key


def kept(file: Path, make: Callable[[], str], *, mode: int = 0o600) -> str:
    """Return the text of a secret's file, made where there is no file; raise OSError when it cannot be used."""
    if not file.exists():
        write_secret(file, make(), mode=mode)
    return file.read_text(encoding="ascii", errors="replace")


def sha256_hex(key: str) -> str:
    """Return what is stored of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def write_keys(folder: DataFolder, names: tuple[str, ...], *, environment: Mapping[str, str]) -> None:
    """Give every service its Ed25519 pair where it has none; raise StartError when a key is unreadable."""
    trusted = Path(environment["COUNTERFOIL_TRUSTED_KEYS_DIR"])
    for name in names:
        own = environment.get(f"COUNTERFOIL_{name.upper()}_PRIVATE_KEY_FILE")
        private = Path(own) if own else folder.path / "keys" / f"{name}.pem"
        try:
            write_key_pair(private, trusted, name)
        except OSError as error:
            raise StartError(_unusable(private, error)) from error


def check_database(file: Path, *, migrations: Path) -> None:
    """Raise StartError when a SQLite file is none, or was written by a release with newer migrations than ours."""
    if not file.exists() or file.stat().st_size == 0 or not migrations.is_dir():
        return
    known = {found for path in migrations.glob("*.py") for found in _REVISION.findall(path.read_text(encoding="utf-8"))}
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as connection:
            versioned = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
            found = connection.execute("SELECT version_num FROM alembic_version").fetchall() if versioned else []
    except sqlite3.Error as error:
        raise StartError(f"{file} cannot be read as a database: {error}; restore it or choose --data.") from error
    newer = sorted({row[0] for row in found} - known)
    if newer and known:
        raise StartError(
            f"{file} was written by a newer Counterfoil (revision {', '.join(newer)}); install that release, "
            "or choose another folder with --data."
        )


def hold(file: Path) -> int:
    """Take the lock of a folder and return the descriptor that holds it; raise StartError when another start has it."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(_unusable(file, error)) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        who = f" (process {holder})" if holder.isdigit() else ""
        raise StartError(
            f"{file.parent} is in use by another start{who}; stop that one, or choose another folder with --data "
            "and other ports with --port-offset."
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def write_secret(file: Path, text: str, *, mode: int = 0o600) -> None:
    """Write a file that only its owner reads (or whom `mode` adds), whole or not at all."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="ascii") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    draft.rename(file)


def _unusable(path: Path, error: OSError) -> str:
    return f"{error.filename or path} cannot be used: {error.strerror or error}; choose another folder with --data."
