"""Where the lake lies: in folders, or in S3-compatible storage with local copies of what is read. All of it blocks."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol, Self
from urllib.parse import urlsplit

import orjson
import pyarrow.fs as pafs

_LOG: Final = "_delta_log"
_PARTS: Final = ("*/*.parquet#*", f"{_LOG}/*.new")  # as deltalake and we call a file that is not whole yet
_OPTIONS: Final = {
    "AWS_ACCESS_KEY_ID": "access_key",
    "AWS_SECRET_ACCESS_KEY": "secret_key",
    "AWS_SESSION_TOKEN": "session_token",
    "AWS_REGION": "region",
    "AWS_ENDPOINT_URL": "endpoint_override",
}
"""What a file of options may hold, and how the file system of Arrow calls it."""


Address = tuple[str, Mapping[str, str], str]
"""A URL of storage, "" = there is none; what opens it; and the folder of the tables, or of the copies of files."""


class LakePlace(Protocol):
    """A place with one folder per table."""

    options: dict[str, str] | None
    """What opens a table there."""

    address: Address
    """What `place_at` makes the same place of, in another process."""

    def below(self, name: str) -> Self:
        """Return the place of a workspace."""
        ...

    def uri(self, dataset: str) -> str:
        """Return what a table is opened by."""
        ...

    def datasets(self) -> list[str]:
        """Return the names of the tables there are."""
        ...

    def drop(self, dataset: str) -> None:
        """Delete a table."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return a file beside the tables, None = there is none."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write one, all of it or nothing."""
        ...

    def has(self, name: str) -> bool:
        """Tell whether it is still there, as far as that can be told at once."""
        ...

    def path(self, dataset: str, file: str) -> Path:
        """Return where a table's file is read from, once it was fetched."""
        ...

    def fetch(self, dataset: str, file: str) -> Path:
        """Have a table's file where it is read from."""
        ...

    def store(self, dataset: str, file: str) -> None:
        """Have a table's file, which was written where it is read from, in the place itself."""
        ...

    def forget(self, dataset: str, *, but: Collection[str], older_than: float) -> None:
        """Delete what is left of a table's files that no reader needs, but for what was written in the last seconds.

        Those are the copies of all files but some, or parts of files that were being written when a process died.
        """
        ...

    def log_entries(self, dataset: str) -> list[str]:
        """Return the names of the files of a table's log."""
        ...

    def delete_log_entry(self, dataset: str, name: str) -> None:
        """Delete one of them."""
        ...


class FolderPlace:
    """Folders below one; see `LakePlace`."""

    options: dict[str, str] | None = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.address: Address = "", {}, str(folder)

    def below(self, name: str) -> Self:
        """Return the place of a workspace."""
        return type(self)(self._folder / name)

    def uri(self, dataset: str) -> str:
        """Return what a table is opened by."""
        return str(self._folder / dataset)

    def datasets(self) -> list[str]:
        """Return the names of the tables there are."""
        return sorted(path.parent.name for path in self._folder.glob(f"*/{_LOG}"))

    def drop(self, dataset: str) -> None:
        """Delete a table."""
        shutil.rmtree(self._folder / dataset)

    def read(self, name: str) -> bytes | None:
        """Return a file beside the tables, None = there is none."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write one, all of it or nothing."""
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = self._folder / f"{name}.new"
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._folder / name)

    def has(self, name: str) -> bool:
        """Tell whether it is still there."""
        return (self._folder / name).exists()

    def path(self, dataset: str, file: str) -> Path:
        """Return where a table's file lies."""
        return self._folder / dataset / file

    def fetch(self, dataset: str, file: str) -> Path:
        """Return where a table's file lies."""
        return self.path(dataset, file)

    def store(self, dataset: str, file: str) -> None:
        """Do nothing: it is there."""

    def forget(self, dataset: str, *, but: Collection[str], older_than: float) -> None:
        """Delete the parts of files that were being written when a process died."""
        since = time.time() - older_than
        for path in [each for parts in _PARTS for each in (self._folder / dataset).glob(parts)]:
            if path.stat().st_mtime <= since:
                path.unlink()

    def log_entries(self, dataset: str) -> list[str]:
        """Return the names of the files of a table's log."""
        return [path.name for path in (self._folder / dataset / _LOG).iterdir()]

    def delete_log_entry(self, dataset: str, name: str) -> None:
        """Delete one of them."""
        (self._folder / dataset / _LOG / name).unlink()


class BucketPlace:
    """Objects below a prefix of a bucket, copied to a folder when they are read; see `LakePlace`.

    The files of a table never change, so that a copy is right as long as the table has the file.
    """

    def __init__(
        self, url: str, options: Mapping[str, str], copies: Path, files: pafs.FileSystem | None = None
    ) -> None:
        """Take `url` as s3://bucket/prefix, and `files` when the storage is opened already."""
        parts = urlsplit(url)
        self._url = url.rstrip("/")
        self._prefix = f"{parts.netloc}{parts.path}".rstrip("/")
        self._copies = copies
        self.address: Address = url, {name: options[name] for name in _OPTIONS if name in options}, str(copies)
        plain = {"AWS_ALLOW_HTTP": "true"} if options.get("AWS_ENDPOINT_URL", "").startswith("http://") else {}
        self.options: dict[str, str] | None = {**options, **plain}
        self._files = files or _opened({"scheme": "http"} if plain else {}, options)

    def below(self, name: str) -> Self:
        """Return the place of a workspace."""
        return type(self)(f"{self._url}/{name}", self.options or {}, self._copies / name, self._files)

    def uri(self, dataset: str) -> str:
        """Return what a table is opened by."""
        return f"{self._url}/{dataset}"

    def datasets(self) -> list[str]:
        """Return the names of the tables there are."""
        names = [each.base_name for each in self._listed(self._prefix) if each.type == pafs.FileType.Directory]
        return sorted(name for name in names if self._listed(f"{self._prefix}/{name}/{_LOG}"))

    def drop(self, dataset: str) -> None:
        """Delete a table and the copies of its files."""
        self._files.delete_dir(f"{self._prefix}/{dataset}")
        shutil.rmtree(self._copies / dataset, ignore_errors=True)

    def read(self, name: str) -> bytes | None:
        """Return an object beside the tables, None = there is none."""
        try:
            with self._files.open_input_file(f"{self._prefix}/{name}") as file:
                data: bytes = file.read()
        except FileNotFoundError:
            return None
        return data

    def write(self, name: str, data: bytes) -> None:
        """Write one, all of it or nothing."""
        with self._files.open_output_stream(f"{self._prefix}/{name}") as file:
            file.write(data)

    def has(self, name: str) -> bool:
        """Take it to be there: it is not asked for at every read."""
        return True

    def path(self, dataset: str, file: str) -> Path:
        """Return where the copy of a table's file is."""
        return self._copies / dataset / file

    def fetch(self, dataset: str, file: str) -> Path:
        """Have a copy of a table's file."""
        path = self.path(dataset, file)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(".new")
            with self._files.open_input_stream(f"{self._prefix}/{dataset}/{file}") as source, fresh.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            fresh.replace(path)
        return path

    def store(self, dataset: str, file: str) -> None:
        """Write an object from its copy."""
        with (
            self.path(dataset, file).open("rb") as source,
            self._files.open_output_stream(f"{self._prefix}/{dataset}/{file}") as sink,
        ):
            shutil.copyfileobj(source, sink, 1 << 20)

    def forget(self, dataset: str, *, but: Collection[str], older_than: float) -> None:
        """Delete the copies of a table's files but for some, and those made in the last seconds."""
        root, since = self._copies / dataset, time.time() - older_than
        for path in root.rglob("*"):
            name = str(PurePosixPath(path.relative_to(root)))
            if path.is_file() and name not in but and path.stat().st_mtime <= since:
                path.unlink()

    def log_entries(self, dataset: str) -> list[str]:
        """Return the names of the objects of a table's log."""
        return [each.base_name for each in self._listed(f"{self._prefix}/{dataset}/{_LOG}")]

    def delete_log_entry(self, dataset: str, name: str) -> None:
        """Delete one of them."""
        self._files.delete_file(f"{self._prefix}/{dataset}/{_LOG}/{name}")

    def _listed(self, prefix: str) -> list[Any]:
        found: list[Any] = self._files.get_file_info(pafs.FileSelector(prefix, allow_not_found=True))
        return found


def _opened(how: Mapping[str, Any], options: Mapping[str, str]) -> pafs.FileSystem:
    known: dict[str, Any] = {_OPTIONS[name]: value for name, value in options.items()}
    return pafs.S3FileSystem(**known, **how)


def lake_place(url: str, options_file: Path | None, *, folder: Path) -> LakePlace:
    """Return the place that settings name; without a `url` it is the folder. Raises ValueError when they are wrong."""
    if not url:
        return FolderPlace(folder)
    options: Any = orjson.loads(options_file.read_bytes()) if options_file else {}
    if not isinstance(options, dict) or not options.keys() <= _OPTIONS.keys():
        raise ValueError(f"{options_file} is a JSON object with any of {', '.join(_OPTIONS)}.")
    return place_at(url, options, str(folder))


def place_at(url: str, options: Mapping[str, str], folder: str) -> LakePlace:
    """Return the place that has an address."""
    return BucketPlace(url, options, Path(folder)) if url else FolderPlace(Path(folder))
