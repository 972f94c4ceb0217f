"""Lives of the log: a restore begins a new one, and what the lives before it had up to the cut is still theirs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson


@dataclass(frozen=True, slots=True)
class Predecessor:
    """A life that ended when a backup of it was restored.

    Below `heads`, by (workspace, partition), this log holds the very records that it held; `erasure_revision` is the
    last one that both lives share.
    """

    epoch: str
    erasure_revision: int
    ended_at: int
    heads: Mapping[tuple[str, int], int]

    def head(self, workspace: str, partition: int) -> int:
        """Return the exclusive offset up to which its records are here."""
        return self.heads.get((workspace, partition), 0)


def to_text(lives: Iterable[Predecessor]) -> str:
    """Return lives as they are stored."""
    stored = [
        {
            "epoch": life.epoch,
            "erasure_revision": life.erasure_revision,
            "ended_at": life.ended_at,
            "heads": [[workspace, partition, head] for (workspace, partition), head in sorted(life.heads.items())],
        }
        for life in lives
    ]
    return orjson.dumps(stored).decode()


def from_text(stored: str) -> tuple[Predecessor, ...]:
    """Return stored lives, the oldest first."""
    return tuple(
        Predecessor(
            each["epoch"],
            each["erasure_revision"],
            each["ended_at"],
            {(workspace, partition): head for workspace, partition, head in each["heads"]},
        )
        for each in orjson.loads(stored)
    )
