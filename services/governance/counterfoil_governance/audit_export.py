"""The export of an audit log: a ZIP archive that a third party verifies with Python alone."""

from __future__ import annotations

import asyncio
import json
import logging
import zipfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from importlib.resources import files
from types import TracebackType
from typing import IO, Any, Final, Self, TypeVar

from counterfoil_chassis import audit_verify

from counterfoil_governance import audit_checkpoints
from counterfoil_governance.audit_checkpoints import CheckpointSigner, origin_of
from counterfoil_governance.entities import AuditEntry, KeptCheckpoint, TreeNode
from counterfoil_governance.errors import AuditBrokenError
from counterfoil_governance.store import Stores, Transactions

VERIFIER: Final = "verify.py"
README: Final = "README.txt"
_README_TEXT: Final = """\
Audit log {origin}
{underline}
Exported {exported_at}: {size} entries, {checkpoints} signed checkpoints.

To verify it, unpack it and run, with Python 3.8 or newer and nothing else:

    python verify.py

It hashes every entry again from its bytes, builds the tree anew, and compares both with every stored hash and every
signed checkpoint. Exit code 0 says that nothing was changed, removed, added or moved; exit code 1 names what was.

Two things an archive cannot say of itself; tell them to the verifier:
    --key KEY             the verifier key that you trust, got by another way than this archive
    --witness CHECKPOINT  a checkpoint (GET /v1/audit/checkpoint) that you kept when the log was shorter;
                          it tells a log that was written and signed anew from its true continuation

Take verify.py itself from a source you trust, too: it is part of Counterfoil's source code
(chassis/counterfoil_chassis/audit_verify.py), and `counterfoil audit verify` is the same code.

Files
    entries.jsonl      the entries, one on each line: the very bytes that were hashed (RFC 8785 JSON)
    leaves.jsonl       for each entry: its length, the stored leaf hash, what it is filed under
    nodes.jsonl        the stored hashes of complete subtrees (RFC 6962): level, place, hash
    checkpoints.jsonl  every signed checkpoint (C2SP tlog-checkpoint) with the key that checks it
    head.json          how many entries and checkpoints the log says it has
    key.txt            the verifier key in force (C2SP signed-note)
    verify.py          the verifier; verify.py --help says more
"""

_Row = TypeVar("_Row")
_log = logging.getLogger(__name__)


class Archive:
    """Writes the files of an export one after the other, in a `with` block; deflating is done beside the event loop."""

    def __init__(self, file: IO[bytes], *, at: datetime, compression: int = zipfile.ZIP_DEFLATED) -> None:
        self._zip = zipfile.ZipFile(file, "w", compression)
        self._time = at.timetuple()[:6]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()  # writes the directory of the archive

    def add(self, name: str, data: bytes) -> None:
        """Write a whole file."""
        self._zip.writestr(self._info(name), data)

    async def add_pages(self, name: str, pages: AsyncIterator[Sequence[_Row]], line: Callable[[_Row], bytes]) -> None:
        """Write a file with one line for each row."""
        with self._zip.open(self._info(name), "w", force_zip64=True) as file:
            async for rows in pages:
                await asyncio.to_thread(_write, file, map(line, rows))

    def _info(self, name: str) -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(name, self._time)
        info.compress_type = self._zip.compression
        info.external_attr = 0o644 << 16
        return info


def _write(file: IO[bytes], lines: Iterable[bytes]) -> None:
    for line in lines:
        file.write(line + b"\n")


async def export(
    transactions: Transactions,
    workspace: str,
    file: IO[bytes],
    *,
    signer: CheckpointSigner,
    now: datetime,
    compression: int = zipfile.ZIP_DEFLATED,
) -> None:
    """Write a workspace's log as an archive, under a checkpoint over all of it; one that is broken, as it is."""
    try:
        await audit_checkpoints.current(transactions, workspace, signer=signer, now=now)
    except AuditBrokenError as error:  # the verifier shall say how
        _log.error("audit log broken", extra={"workspace": workspace, "cause": error.message})
    with Archive(file, at=now, compression=compression) as archive:
        async with transactions.read() as stores:
            await write(stores, workspace, archive, signer=signer, at=now)


async def write(stores: Stores, workspace: str, archive: Archive, *, signer: CheckpointSigner, at: datetime) -> None:
    """Write a workspace's log, everything stored of it as it stands, into an archive."""
    head, origin = await stores.audit.head(workspace), origin_of(workspace)
    counts = {"size": head.size, "checkpoints": head.checkpoints}
    archive.add(audit_verify.HEAD, _json({"origin": origin, "workspace": workspace, **counts}) + b"\n")
    store = stores.audit
    await archive.add_pages(audit_verify.ENTRIES, store.stored_entries(workspace), lambda entry: entry.body)
    await archive.add_pages(audit_verify.LEAVES, store.stored_entries(workspace), _leaf)
    await archive.add_pages(audit_verify.NODES, store.stored_nodes(workspace), _node)
    await archive.add_pages(audit_verify.CHECKPOINTS, store.stored_checkpoints(workspace), _checkpoint)
    archive.add(audit_verify.KEY, signer.verifier_key(workspace).text.encode() + b"\n")
    archive.add(VERIFIER, verifier())
    archive.add(README, _readme(origin, exported_at=at, **counts))


def verifier() -> bytes:
    """Return the source of the verifier, which stands in every export."""
    return files("counterfoil_chassis").joinpath("audit_verify.py").read_bytes()


def _readme(origin: str, *, exported_at: datetime, size: int, checkpoints: int) -> bytes:
    text = _README_TEXT.format(
        origin=origin,
        underline="=" * len(f"Audit log {origin}"),
        exported_at=exported_at.isoformat(timespec="seconds"),
        size=size,
        checkpoints=checkpoints,
    )
    return text.encode()


def _leaf(entry: AuditEntry) -> bytes:
    return _json(
        {
            "index": entry.index,
            "bytes": len(entry.body),
            "leaf": entry.leaf.hex(),
            "entry_id": entry.entry_id,
            "principal": entry.principal,
            "resource": entry.resource,
        }
    )


def _node(node: TreeNode) -> bytes:
    return _json({"level": node.level, "index": node.index, "hash": node.hash.hex()})


def _checkpoint(kept: KeptCheckpoint) -> bytes:
    return _json(
        {
            "number": kept.number,
            "tree_size": kept.tree_size,
            "note": kept.note,
            "verifier_key": kept.verifier_key,
        }
    )


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
