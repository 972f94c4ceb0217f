"""Whether the gateway can do its work: the keys are known and every service answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import grpc
import orjson
from counterfoil_chassis.health import FAILING_KEY, READINESS, Read
from grpc_health.v1 import health_pb2

CHECK = "/grpc.health.v1.Health/Check"
PATIENCE = 1.0
OK = "ok"


class Follower(Protocol):
    """Follows something of another service for the process's life."""

    async def run(self) -> None:
        """Follow for ever."""

    async def current(self) -> None:
        """Wait until the present state has arrived once."""


class Readiness:
    """Asks the services' own health, and remembers whether the watchers have the present state."""

    def __init__(self, channels: Mapping[str, grpc.aio.Channel], watchers: Mapping[str, Follower]) -> None:
        """Take the channels by service and the watchers by what they follow."""
        self._watchers = watchers
        self._current: set[str] = set()
        self._draining = False
        self._checks: dict[str, Any] = {
            name: channel.unary_unary(
                CHECK,
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            for name, channel in channels.items()
        }

    def checks(self) -> Mapping[str, Read]:
        """Return the same as checks of this process's health."""
        return {f"service {name}": partial(self._problem, name) for name in self._checks} | {
            "start": lambda: ", ".join(f"{name} have not arrived" for name in self._watchers.keys() - self._current)
        }

    async def _problem(self, name: str) -> str:
        text = await self._check(name)
        return "" if text == OK else text

    def drain(self) -> None:
        """Say no from now on."""
        self._draining = True

    async def follow(self) -> None:
        """Wait until every watcher has the present state."""
        await asyncio.gather(*(self._follow(name, watcher) for name, watcher in self._watchers.items()))

    async def _follow(self, name: str, watcher: Follower) -> None:
        await watcher.current()
        self._current.add(name)

    async def report(self) -> tuple[bool, dict[str, str]]:
        """Return whether all is well, and what each thing says."""
        names = list(self._checks)
        answers = await asyncio.gather(*(self._check(name) for name in names))
        checks = dict(zip(names, answers, strict=True))
        checks |= {name: OK if name in self._current else "have not arrived" for name in self._watchers}
        if self._draining:
            checks["gateway"] = "draining"
        return all(text == OK for text in checks.values()), checks

    async def _check(self, name: str) -> str:
        call = self._checks[name](health_pb2.HealthCheckRequest(service=READINESS), timeout=PATIENCE)
        try:
            answer = await call
            trailers = await call.trailing_metadata()
        except grpc.aio.AioRpcError as error:
            return f"does not answer: {error.code().name}"
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            return OK
        failing = orjson.loads(next((value for key, value in trailers or () if key == FAILING_KEY), b"{}"))
        return "; ".join(f"{check}: {text}" for check, text in failing.items()) or "is not ready"
