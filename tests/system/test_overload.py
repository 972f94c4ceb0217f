"""Ten times as many requests as the gateway takes: memory stays flat, the rest is refused at once, nothing is lost."""

import asyncio
import itertools
import time
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import orjson
import psutil
import pytest

from tests.system.installation import Installation, own_memory
from tests.system.tenant import ok

TAKEN_AT_ONCE = 16
SENDERS = 10 * TAKEN_AT_ONCE
READERS = SENDERS // 8
BATCH = 40
IMPATIENCE = 0.1
"""Seconds after which who was refused comes again; `Retry-After` says 1."""
WARM_UP = 2.0
SECONDS = 5.0
SETTINGS = {
    "COUNTERFOIL_GATEWAY_MAX_RUNNING": str(TAKEN_AT_ONCE),
    "COUNTERFOIL_GATEWAY_MAX_BODY_BYTES": str(4 << 20),
    "COUNTERFOIL_INGEST_MAX_RUNNING": str(TAKEN_AT_ONCE),
    "COUNTERFOIL_GATEWAY_REQUESTS_PER_SECOND": "0",
}
GROWTH = 64 << 20
"""Bytes that a process may grow by while it is flooded, once warm: what the lake holds of the admitted until its next
commit, and the allocator's slack; not the requests, of which there are gigabytes."""
P99 = 3.0


@dataclass
class Flood:
    """What the senders met."""

    acknowledged: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    """Answers that nobody should see."""
    until: float = 0.0

    def note(self, status: int, headers: dict[str, str], body: bytes, *, seconds: float) -> None:
        """Note one answer."""
        if status == 200:
            self.answers["200"] += 1
            self.latencies.append(seconds)
            return
        reason = orjson.loads(body)["reason"]
        self.answers[f"{status} {reason}"] += 1
        if status not in (429, 503) or "retry-after" not in headers:
            self.strange.append(f"{status} {headers} {body!r}")


class Connection:
    """One kept-alive HTTP/1.1 connection; httpx would take the processor's time that is to be left to the servers."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(self, head: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        """Send a request and return the answer's status, header fields and body."""
        self._writer.write(f"{head}\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await self._writer.drain()
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(first.split()[1]), fields, await self._reader.readexactly(int(fields["content-length"]))


async def send_events(installation: Installation, key: str, name: str, flood: Flood) -> None:
    """Send one batch after the other, no matter what is answered."""
    basic = b64encode(f"{key}:".encode()).decode()
    head = f"POST /v1/batch HTTP/1.1\r\nAuthorization: Basic {basic}\r\nContent-Type: application/json"
    async with Connection(8080 + installation.offset) as connection:
        for number in itertools.count():
            if time.monotonic() > flood.until:
                return
            ids = [f"{name}-{number}-{place}" for place in range(BATCH)]
            batch = [{"type": "track", "event": "Flood", "userId": "u" * 100, "messageId": each} for each in ids]
            begun = time.monotonic()
            status, headers, answer = await connection.ask(head, orjson.dumps({"batch": batch}))
            flood.note(status, headers, answer, seconds=time.monotonic() - begun)
            if status == 200:
                flood.acknowledged += ids
            else:
                await asyncio.sleep(IMPATIENCE)


async def read(installation: Installation, flood: Flood) -> None:
    """Ask for the same list again and again."""
    head = f"GET /v1/sources HTTP/1.1\r\nX-Api-Key: {installation.admin_key}"
    async with Connection(8080 + installation.offset) as connection:
        while time.monotonic() < flood.until:
            begun = time.monotonic()
            status, headers, answer = await connection.ask(head)
            flood.note(status, headers, answer, seconds=time.monotonic() - begun)
            if status != 200:
                await asyncio.sleep(IMPATIENCE)


async def probe(installation: Installation, statuses: Counter[int], until: float) -> None:
    """Ask whether the gateway lives, as an orchestrator does."""
    async with Connection(8080 + installation.offset) as connection:
        while time.monotonic() < until:
            status, _, _ = await connection.ask("GET /healthz HTTP/1.1")
            statuses[status] += 1
            await asyncio.sleep(0.2)


async def weigh(processes: dict[str, psutil.Process], sizes: dict[str, list[int]], until: float) -> None:
    """Look what memory the processes hold, once they are warm."""
    await asyncio.sleep(WARM_UP)
    while time.monotonic() < until:
        for name, process in processes.items():
            sizes[name].append(own_memory(process))
        await asyncio.sleep(0.2)


@pytest.mark.alone
@pytest.mark.figures
def test_ten_times_the_load_is_shed_and_what_is_acknowledged_is_kept_once(tmp_path: Path) -> None:
    with Installation.running(tmp_path / "data", settings=SETTINGS) as installation:
        with installation.http(installation.admin_key) as client:
            key = ok(client.post("/v1/sources", json={"display_name": "Flood"}))["write_key"]
        processes = {name: installation.child(name) for name in ("gateway", "ingest")}
        sizes: dict[str, list[int]] = {name: [] for name in processes}
        probes: Counter[int] = Counter()
        flood, reads = Flood(), Flood()

        async def all_at_once() -> None:
            flood.until = reads.until = time.monotonic() + WARM_UP + SECONDS
            await asyncio.gather(
                *(send_events(installation, key, str(number), flood) for number in range(SENDERS)),
                *(read(installation, reads) for _ in range(READERS)),
                probe(installation, probes, flood.until),
                weigh(processes, sizes, flood.until),
            )

        asyncio.run(all_at_once())
        with installation.http(installation.admin_key) as client:
            body = {"sql": "SELECT count(*), count(DISTINCT message_id) FROM events WHERE event = 'Flood'"}
            [[kept, distinct]] = ok(client.post("/v1/sql", json=body, timeout=60))["rows"]
        grown = {name: max(found) - found[0] for name, found in sizes.items()}
        for name, found in (("events", flood), ("reads", reads)):
            times = f"p50 {percentile(found, 50):.3f} s, p99 {percentile(found, 99):.3f} s"
            print(f"{name}: {dict(found.answers)}, {times}")
        for name, found in sizes.items():
            print(f"{name}: {found[0] >> 20} MiB at first, at most {max(found) >> 20} MiB")
        assert flood.strange == reads.strange == []
        assert kept == distinct == len(flood.acknowledged), "an acknowledged event is lost or doubled"
        assert min(flood.answers["200"], reads.answers["200"]) > TAKEN_AT_ONCE, "the flood kept everybody out"
        assert flood.answers["503 OVERLOADED"] > flood.answers["200"], "this was no overload"
        assert max(percentile(flood, 99), percentile(reads, 99)) < P99
        assert all(each < GROWTH for each in grown.values()), grown
        assert set(probes) == {200}


def percentile(flood: Flood, which: int) -> float:
    """Return a percentile of the seconds that admitted requests took; nobody was admitted = for ever."""
    found = sorted(flood.latencies)
    return found[min(len(found) - 1, len(found) * which // 100)] if found else float("inf")
