"""What a process depends on, and whether each of it is well: the checks behind readiness and `/healthz`.

Whatever can fail by itself (a database, a feed that is watched, a consumer of the log) adds a check while it runs. A
check that is *needed* decides readiness; any other is told, and the process goes on with its last good state.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import shutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from counterfoil_chassis.clock import Clock
from counterfoil_chassis.metrics import HEALTH_CHECKS

Read: TypeAlias = Callable[[], str | Awaitable[str]]
"""Returns what is wrong and what to do about it, in one sentence, or "" when all is well."""

STARTUP = "startup"
"""It answers: it serves, or waits for what it needs."""
READINESS = "readiness"
"""It takes calls."""
LIVENESS = "liveness"
"""Its event loop runs, whatever may be away; the answer is always yes, and a loop that hangs gives none."""
FAILING_KEY = "counterfoil-failing-bin"
"""Trailing metadata of the gRPC health service's answer: the failing checks as JSON, name to sentence."""
_EVERY_SECONDS = 5.0
_PATIENCE_SECONDS = 3.0
_RESERVE_BYTES = 1 << 30
_RESERVE_SHARE = 0.05
_MOST_TOLD = 20
_SENTENCE = 200
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Check:
    """What one check says: since when it has been so, and while it fails, what to do."""

    name: str
    ok: bool
    needed: bool
    since: datetime
    detail: str


class Health:
    """The checks of one process; of checks with the same name, the one that fails speaks."""

    def __init__(self) -> None:
        self._sources: dict[object, tuple[str, Read, bool]] = {}
        self._known: dict[str, Check] = {}
        self.told: dict[str, bool] = {LIVENESS: True}
        """What the process says of itself by each name, to whoever asks by gRPC or HTTP."""

    @contextmanager
    def checking(self, name: str, read: Read, *, needed: bool = False) -> Iterator[None]:
        """Have something checked while the block runs."""
        forget = self.add(name, read, needed=needed)
        try:
            yield
        finally:
            forget()

    def add(self, name: str, read: Read, *, needed: bool = False, key: object = None) -> Callable[[], None]:
        """Have something checked until what is returned is called; `name` is one of few, and names the dependency.

        With a `key` it takes the place of what was added under the same one.
        """
        key = object() if key is None else key
        source = (name, read, needed)
        self._sources[key] = source

        def forget() -> None:
            if self._sources.get(key) is source:
                del self._sources[key]
            if all(each != name for each, _, _ in self._sources.values()) and name in self._known:
                del self._known[name]
                HEALTH_CHECKS.remove(name)

        return forget

    async def report(self, now: datetime) -> Sequence[Check]:
        """Read every check, within three seconds each, and note what has changed."""
        sources = list(self._sources.values())
        texts = await asyncio.gather(*(_text_of(read) for _, read, _ in sources))
        found: dict[str, Check] = {}
        for (name, _, needed), text in zip(sources, texts, strict=True):
            if name not in found or (text and found[name].ok):
                found[name] = Check(name, not text, needed, now, text)
        present = {name for name, _, _ in self._sources.values()}  # some may have gone meanwhile
        starting = "start" in found and not found["start"].ok
        known = {name: self._note(check, starting=starting) for name, check in found.items() if name in present}
        self._known = known
        return self.checks

    @property
    def checks(self) -> Sequence[Check]:
        """Return what the last report found, those that fail first."""
        return sorted(self._known.values(), key=lambda check: (check.ok, not check.needed, check.name))

    @property
    def ready(self) -> bool:
        """Return whether the last report found every needed check passed."""
        return all(check.ok for check in self._known.values() if check.needed)

    def failing(self) -> bytes:
        """Return what fails as `FAILING_KEY` carries it; empty when nothing does."""
        failing = {check.name: check.detail[:_SENTENCE] for check in self.checks[:_MOST_TOLD] if not check.ok}
        return orjson.dumps(failing) if failing else b""

    async def follow(self, clock: Clock, changed: Callable[[], Awaitable[None]] | None = None) -> None:
        """Report for ever, every five seconds, and say each time that readiness may have changed."""
        while True:
            await self.report(clock.now())
            if changed is not None:
                await changed()
            await asyncio.sleep(_EVERY_SECONDS)

    def _note(self, check: Check, *, starting: bool) -> Check:
        before = self._known.get(check.name)
        HEALTH_CHECKS.labels(check.name).set(check.ok)
        if before is not None and before.ok == check.ok:
            return Check(check.name, check.ok, check.needed, before.since, check.detail)
        if not check.ok:
            level = logging.INFO if starting else logging.WARNING  # others are still starting, too
            _logger.log(level, "a check fails", extra={"check": check.name, "detail": check.detail})
        elif before is not None:
            _logger.info("a check passes again", extra={"check": check.name})
        return check


HEALTH = Health()
"""This process's checks, as `prometheus_client.REGISTRY` holds its metrics."""


async def _text_of(read: Read) -> str:
    try:
        found = read()
        if not inspect.isawaitable(found):
            return str(found)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await found
    except TimeoutError:
        return f"there was no answer within {_PATIENCE_SECONDS:g} s; look at its load and at the network to it"
    except OSError as error:
        return f"it cannot be looked at: {error.strerror or error}"


def disk_space(folder: Path) -> Read:
    """Return the check that a folder's file system keeps a reserve: a gigabyte, or 5 % of a small one."""

    def read() -> str:
        if has_reserve(folder):
            return ""
        free = shutil.disk_usage(folder).free
        return f"only {free >> 20} MiB are free on the disk of the data folder; make room or give it more"

    return read


def has_reserve(folder: Path) -> bool:
    """Say whether a gigabyte is free where a folder is, or 5 % of a small disk."""
    space = shutil.disk_usage(folder)
    return space.free >= min(_RESERVE_BYTES, int(space.total * _RESERVE_SHARE))


def document(service: str, version: str, checks: Sequence[Check], *, ready: bool) -> dict[str, Any]:
    """Return what `/healthz` answers: `ok`, `degraded` (something fails that can be done without) or `failing`."""
    well = all(check.ok for check in checks)
    return {
        "service": service,
        "version": version,
        "status": "failing" if not ready else "ok" if well else "degraded",
        "checks": [
            {
                "name": check.name,
                "ok": check.ok,
                "needed": check.needed,
                "since": check.since.isoformat(timespec="seconds"),
                **({"detail": check.detail} if check.detail else {}),
            }
            for check in checks
        ],
    }
