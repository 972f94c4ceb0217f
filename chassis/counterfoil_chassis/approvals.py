"""Deeds that wait for a second person: the service that owns them carries them out once their change is approved.

The change's state is governance's; that of what waits is the service's own. A report comes before the effect is
committed, so that an approval that has expired, or was for something else, never has one; a process that dies in
between finds its deed still waiting and reports the same again, which governance takes as often as it comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Generic, Protocol, TypeVar

import grpc
from counterfoil.governance.v1 import changes_pb2 as pb

from counterfoil_chassis.backoff import Backoff, wait
from counterfoil_chassis.changes import Changes
from counterfoil_chassis.clock import Clock, from_timestamp
from counterfoil_chassis.errors import AbortedError, Code, UnavailableError
from counterfoil_chassis.status import cause_of, failure_of

_ENDED: Final = {
    pb.Change.REJECTED: "was rejected",
    pb.Change.EXPIRED: "has expired",
    pb.Change.FAILED: "could not be carried out",
}
_FINAL: Final = (Code.FAILED_PRECONDITION, Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED)
_LONGEST_WAIT: Final = 60.0
_logger = logging.getLogger(__name__)

Key = tuple[str, str]
"""Workspace and id of a change."""


class Waiting(Protocol):
    """What waits for a change."""

    @property
    def workspace(self) -> str:
        """Return its workspace."""

    @property
    def change_id(self) -> str:
        """Return the change that it waits for."""


W = TypeVar("W", bound=Waiting)


class Deeds(Protocol[W]):
    """What a service does with changes of its kind."""

    async def waiting(self) -> Sequence[W]:
        """Return everything that waits, of every workspace."""

    async def adopt(self, change: pb.Change) -> None:
        """Have something wait for an approved change that it does not know of: its asking died before it was kept."""

    async def apply(self, waiting: W, change: pb.Change | None) -> None:
        """Report and do it, or withdraw it; without the change as it is known, the report's answer tells of it."""

    async def withdraw(self, waiting: W, reason: str) -> None:
        """Let it wait no longer."""


class Approvals(Generic[W]):
    """Follows the changes of one kind and settles what waits for them; run `run` in the background."""

    def __init__(self, changes: Changes, clock: Clock, deeds: Deeds[W], *, kind: str) -> None:
        self._changes = changes
        self._clock = clock
        self._deeds = deeds
        self._kind = kind
        self._watcher = changes.watch(self._take, self._forget)
        self._known: dict[Key, pb.Change] = {}
        self._unseen: set[Key] = set()
        self._refused: set[Key] = set()
        self._awake = asyncio.Event()

    def wake(self) -> None:
        """Settle at once: something waits since now, whose change may have been approved already."""
        self._awake.set()

    def refuse(self, change: pb.Change) -> None:
        """Have an approved change that belongs to nothing here be adopted by nothing, ever."""
        self._refused.add((change.workspace, change.change_id))

    async def run(self) -> None:
        """Follow the changes and carry them out for the process's life."""
        # Read before the watch begins: whatever of these it does not show has ended more than a day ago.
        waiting = {(one.workspace, one.change_id) for one in await self._deeds.waiting()}
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watcher.run())
            await self._watcher.current()
            self._unseen |= waiting - self._known.keys()
            group.create_task(self._carry_out())

    def _take(self, change: pb.Change) -> None:
        if change.kind == self._kind:
            self._known[change.workspace, change.change_id] = change
            self._unseen.discard((change.workspace, change.change_id))
            self._awake.set()

    def _forget(self, key: str) -> None:
        workspace, _, change_id = key.partition("/")
        self._refused.discard((workspace, change_id))
        if self._known.pop((workspace, change_id), None) is not None:
            self._unseen.add((workspace, change_id))
            self._awake.set()

    async def _carry_out(self) -> None:
        backoff = Backoff(first=0.2, longest=30.0)
        while True:
            self._awake.clear()
            try:
                pause = await self._settle()
            except (grpc.aio.AioRpcError, AbortedError, UnavailableError) as error:
                if backoff.attempt == 0:
                    cause = cause_of(error) if isinstance(error, grpc.aio.AioRpcError) else str(error)
                    fields = {"kind": self._kind, "cause": cause}
                    _logger.warning("an approved change cannot be carried out now; it is tried again", extra=fields)
                await backoff.pause()
            else:
                backoff.reset()
                await wait(self._awake, pause)

    async def _settle(self) -> float:
        """Do what the changes as they are known ask for; return after how many seconds the next one expires."""
        for key, change in list(self._known.items()):
            lives = from_timestamp(change.expires_at) > self._clock.now()
            if change.state == pb.Change.APPROVED and lives and key not in self._refused:
                await self._deeds.adopt(change)
        pauses = [await self._settle_one(each) for each in await self._deeds.waiting()]
        self._unseen.clear()
        return min([_LONGEST_WAIT, *pauses])

    async def _settle_one(self, waiting: W) -> float:
        key = (waiting.workspace, waiting.change_id)
        change = self._known.get(key)
        if change is None:
            if key in self._unseen:
                await self._deeds.apply(waiting, None)  # the answer tells what became of it
        elif change.state in _ENDED:
            await self._deeds.withdraw(waiting, _why(change))
        elif change.state in (pb.Change.APPROVED, pb.Change.APPLIED):
            await self._deeds.apply(waiting, change)
        else:
            left = (from_timestamp(change.expires_at) - self._clock.now()).total_seconds()
            if left > 0:
                return left
            await self._deeds.withdraw(waiting, f"Nobody approved change {change.change_id} in time.")
        return _LONGEST_WAIT

    async def report(
        self, workspace: str, change_id: str, sha256: str, *, applied: bool, detail: str
    ) -> pb.Change | str:
        """Report; return the change, or why governance refuses it for good."""
        try:
            return await self._changes.report(
                workspace=workspace, change_id=change_id, payload_sha256=sha256, applied=applied, detail=detail
            )
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
            if failure.code not in _FINAL:
                raise
            self._refused.add((workspace, change_id))
            _logger.warning("a change is refused", extra={"change": change_id, "reason": failure.reason})
            return f"{failure.reason}: {failure.detail}"


def approvers(change: pb.Change) -> list[str]:
    """Return who approved a change, by the votes that count."""
    return [vote.voter for vote in change.votes if vote.verdict == pb.Vote.APPROVE and vote.counts]


def _why(change: pb.Change) -> str:
    said = [vote.reason for vote in change.votes if vote.verdict == pb.Vote.REJECT]
    return " ".join([f"Change {change.change_id} {_ENDED[change.state]}.", *said, change.detail]).strip()
