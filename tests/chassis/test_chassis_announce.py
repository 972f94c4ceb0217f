"""What a service has another one know is said as it is now, until it is taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import pytest
from counterfoil_chassis.announce import Announcer
from counterfoil_chassis.errors import UnavailableError
from counterfoil_chassis.health import HEALTH
from counterfoil_chassis.jsonpath import json_path


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what other tests' servers in this process have checked."""
    monkeypatch.setattr(HEALTH, "_sources", {})
    monkeypatch.setattr(HEALTH, "_known", {})


class Listener:
    """Takes announcements, or does not; `heard` is what it took."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.refused: list[str] = []
        self.deaf: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self._news = asyncio.Condition()

    async def announce(self, workspace: str) -> None:
        await self.gate.wait()
        async with self._news:
            kept = self.refused if workspace in self.deaf else self.heard
            kept.append(workspace)
            self._news.notify_all()
        if workspace in self.deaf:
            raise UnavailableError("not now")

    async def hears(self, *, heard: int = 0, refused: int = 0) -> None:
        async with asyncio.timeout(60), self._news:
            await self._news.wait_for(lambda: len(self.heard) >= heard and len(self.refused) >= refused)


@asynccontextmanager
async def running(announcer: Announcer) -> AsyncIterator[None]:
    task = asyncio.create_task(announcer.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_changes_while_one_is_announced_become_one_announcement_more() -> None:
    listener = Listener()
    announcer = Announcer(listener.announce, name="parts")
    listener.gate.clear()
    async with running(announcer):
        announcer.changed("a")
        await asyncio.sleep(0)
        for _ in range(5):
            announcer.changed("a")
        announcer.changed("b")
        listener.gate.set()
        await listener.hears(heard=3)
    assert listener.heard == ["a", "a", "b"]  # the change came after the first was read


async def test_who_does_not_listen_is_told_again_and_keeps_nobody_else_waiting() -> None:
    listener = Listener()
    listener.deaf.add("bad")
    announcer = Announcer(listener.announce, name="parts")
    async with running(announcer):
        announcer.changed("bad")
        announcer.changed("good")
        await listener.hears(heard=1, refused=2)
        assert listener.heard == ["good"]
        listener.deaf.clear()
        await listener.hears(heard=2)
    assert listener.heard == ["good", "bad"]


async def test_a_workspace_that_is_gone_is_announced_no_more() -> None:
    listener = Listener()
    listener.deaf.add("gone")
    announcer = Announcer(listener.announce, name="parts")
    async with running(announcer):
        announcer.changed("gone")
        await listener.hears(refused=1)
        announcer.forget("gone")
        listener.deaf.clear()
        announcer.changed("other")
        await listener.hears(heard=1)
    assert listener.heard == ["other"]


async def test_health_tells_what_waits_and_why() -> None:
    listener = Listener()
    listener.deaf.add("a")
    announcer = Announcer(listener.announce, name="parts of health")
    async with running(announcer):
        announcer.changed("a")
        await listener.hears(refused=2)  # the first attempt has ended
        told = {each.name: each for each in await HEALTH.report(datetime.now(UTC))}["announce parts of health"]
        assert not told.ok
        assert "1 workspaces wait: not now" in told.detail
        listener.deaf.clear()
        await listener.hears(heard=1)
    names = {each.name for each in await HEALTH.report(datetime.now(UTC))}
    assert "announce parts of health" not in names


async def test_a_bug_ends_the_process() -> None:
    async def broken(_: str) -> None:
        raise ZeroDivisionError

    announcer = Announcer(broken, name="parts")
    announcer.changed("a")
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(announcer.run(), 60)


def test_a_path_names_plain_steps_and_quotes_the_others() -> None:
    assert json_path(["a", None, 0, "it's \\ odd", ""]) == "$.a[*][0]['it\\'s \\\\ odd']['']"
