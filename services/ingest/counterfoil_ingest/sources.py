"""Sources and their write keys: a key is shown once and kept as its SHA-256."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from counterfoil_chassis.key_secrets import Secret

from counterfoil_ingest.entities import Source, SourceMapping, WriteKey
from counterfoil_ingest.errors import WriteKeyNotFoundError
from counterfoil_ingest.store import SourceStore

PREFIX: Final = "cfw_"
SCOPE: Final = "ingest.append"
"""All that a write key may do."""

DEFAULT_PROTOCOL: Final = "segment"
DEFAULT_MAPPINGS: Final = (SourceMapping("", "", "events"),)
DEFAULT_OVERLAP: Final = timedelta(hours=24)

_PRINCIPAL = "source:"


def principal_of(source_id: str) -> str:
    """Return the principal that a source's write keys speak for."""
    return _PRINCIPAL + source_id


def source_of(principal: str) -> str:
    """Return the source that a principal stands for, "" when it is none."""
    return principal.removeprefix(_PRINCIPAL) if principal.startswith(_PRINCIPAL) else ""


async def create_source(store: SourceStore, source: Source, secret: Secret) -> Source:
    """Keep a new source with its first write key, which is accepted once the transaction commits."""
    kept = replace(source, write_key_last_four=secret.last_four, mappings=source.mappings or DEFAULT_MAPPINGS)
    await store.add(kept)
    await store.add_key(WriteKey(secret.sha256, source.workspace, source.source_id, 0), last_four=secret.last_four)
    return kept


async def rotate_key(
    store: SourceStore, *, workspace: str, source_id: str, secret: Secret, now: int, overlap: timedelta
) -> Source:
    """Give a source a new write key; older ones end after the overlap, at the earlier time when they end already.

    `now` is microseconds UTC. Keys that have ended are forgotten. Raises SourceNotFoundError.
    """
    source = await store.get(workspace, source_id)
    end = now + overlap // timedelta(microseconds=1)
    for key in await store.keys(workspace, source_id):
        valid_until = min(key.valid_until or end, end)
        if valid_until <= now:
            await store.drop_key(key)
        elif valid_until != key.valid_until:
            await store.end_key(key, valid_until=valid_until)
    await store.add_key(WriteKey(secret.sha256, workspace, source_id, 0), last_four=secret.last_four)
    return replace(source, write_key_last_four=secret.last_four)


async def accepted_key(store: SourceStore, secret_sha256: bytes, *, now: int) -> WriteKey:
    """Return the write key with this hash when it is accepted now; raise WriteKeyNotFoundError otherwise."""
    key = await store.find_key(secret_sha256)
    if key is None or (key.valid_until and key.valid_until <= now):
        raise WriteKeyNotFoundError("No write key with this hash is accepted. Take the source's present key.")
    return key
