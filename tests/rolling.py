"""Load by the clients that people use, with the retries these come with, while gateways are replaced one by one.

Whatever a client gave up is a failure; what it had to repeat is counted; what was acknowledged must be in the log once.
"""

import itertools
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import httpx
from counterfoil_client import Counterfoil
from segment.analytics import Client
from segment.analytics import consumer as segment_consumer

from tests.system.installation import until

BATCH = 20
LONGEST = 60.0
"""Seconds within which a client has to get its work done, retries and all."""


class Sender(ABC, threading.Thread):
    """Sends one thing after the other until stopped, by a client that repeats what was not answered."""

    pause = 0.01

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.requests: Counter[str] = Counter()
        """What came of each request, those included that the client made by itself: the status, or what went wrong."""
        self.acknowledged = 0
        """Things that the client reported as done."""
        self.failures: list[str] = []
        """Things that the client gave up, and what it said."""
        self._stopped = threading.Event()

    def run(self) -> None:
        """Send until stopped."""
        for number in itertools.count():
            if self._stopped.wait(self.pause):
                break
            self.send(number)
        self.finish()

    def stop(self) -> None:
        """End when what is under way has its answer."""
        self._stopped.set()
        self.join(LONGEST)
        assert not self.is_alive(), f"{self.name} is not done: {self.requests}"

    @abstractmethod
    def send(self, number: int) -> None:
        """Send the thing with this number."""

    @abstractmethod
    def finish(self) -> None:
        """Wait for the last answers."""


class Events(Sender):
    """Segment's own client. It acknowledges by saying nothing: what it gives up comes to `on_error`."""

    def __init__(self, name: str, url: str, write_key: str) -> None:
        super().__init__(name)
        self._client = Client(
            write_key, host=url, upload_size=BATCH, upload_interval=0.05, max_queue_size=100_000, on_error=self._gave_up
        )

    def send(self, number: int) -> None:
        self._client.track(user_id=self.name, event="Rolled", message_id=f"{self.name}-{number}")
        self.acknowledged += 1

    def finish(self) -> None:
        self._client.flush()
        self._client.shutdown()

    def _gave_up(self, error: Exception, batch: list[Any]) -> None:
        self.failures.append(f"{len(batch)} events: {error!r}")
        self.acknowledged -= len(batch)


class OurClient(Sender):
    """Our own client, whose connections are watched."""

    def __init__(self, name: str, url: str, key: str) -> None:
        super().__init__(name)
        self.client = Counterfoil(url, api_key=key)
        self.client._http.event_hooks["response"] = [self._answered]
        self.client._http.event_hooks["request"] = [self._asked]

    def send(self, number: int) -> None:
        try:
            self.call(number)
        except (httpx.TransportError, Exception) as error:  # noqa: BLE001  (whatever it is, the caller got no answer)
            self.failures.append(f"{number}: {error!r}")
        else:
            self.acknowledged += 1

    def finish(self) -> None:
        self.client.close()
        asked, answered = self.requests.pop("asked"), sum(self.requests.values())
        if asked > answered:
            self.requests["no answer"] = asked - answered

    @abstractmethod
    def call(self, number: int) -> None:
        """Make the call; raise what the client raises."""

    def _asked(self, request: httpx.Request) -> None:
        self.requests["asked"] += 1

    def _answered(self, answer: httpx.Response) -> None:
        self.requests[str(answer.status_code)] += 1


class Records(OurClient):
    """Batches of records, with a verdict for each."""

    pause = 0.05

    def call(self, number: int) -> None:
        what = {"type": "track", "event": "Rolled", "user_id": self.name, "timestamp": "2026-01-01T12:00:00Z"}
        records = [what | {"message_id": f"{self.name}-{number}-{place}"} for place in range(BATCH)]
        verdicts = self.client.records.append_records("events", body=records)["verdicts"]
        assert {verdict["outcome"] for verdict in verdicts} <= {"ACCEPTED", "DUPLICATE"}, verdicts


class Queries(OurClient):
    """SQL, which takes long and which no client repeats: it has no idempotency key."""

    pause = 0.2

    def call(self, number: int) -> None:
        assert self.client.queries.run_query(sql="SELECT count(*) FROM events")["rows"]


class Reads(OurClient):
    """Lists, page by page."""

    pause = 0.05

    def call(self, number: int) -> None:
        assert list(self.client.sources.list_sources(page_size=1))


@dataclass
class Load:
    """All of it against one URL."""

    senders: list[Sender] = field(default_factory=list)

    def wait_for_progress(self) -> None:
        """Wait until every sender has done more than until now."""
        assert not self.failures, self.failures
        marks = {sender.name: sender.acknowledged for sender in self.senders}

        def behind() -> list[Sender]:
            return [sender for sender in self.senders if sender.acknowledged <= marks[sender.name] + 1]

        try:
            until(lambda: None if behind() else True, seconds=LONGEST, what="not everyone gets on")
        except AssertionError as error:
            raise AssertionError(
                f"{error}: {[(each.name, each.requests, each.failures) for each in behind()]}"
            ) from None

    @property
    def failures(self) -> list[str]:
        """What any client gave up."""
        return [f"{sender.name}: {each}" for sender in self.senders for each in sender.failures]

    @property
    def requests(self) -> Counter[str]:
        """What came of all requests."""
        return sum((sender.requests for sender in self.senders), Counter())

    def check(self, key: str, url: str) -> None:
        """Assert that no client gave up, and that every event that was acknowledged is in the log once."""
        assert not self.failures, self.failures
        events = sum(each.acknowledged for each in self.senders if isinstance(each, Events))
        events += sum(each.acknowledged * BATCH for each in self.senders if isinstance(each, Records))
        with Counterfoil(url, api_key=key, timeout=60) as client:
            sql = "SELECT count(*), count(DISTINCT message_id) FROM events WHERE event = 'Rolled'"
            assert client.queries.run_query(sql=sql)["rows"] == [[events, events]]

    def report(self) -> str:
        """Return one line: how many requests, and how many of them had to be repeated."""
        again = {answer: count for answer, count in self.requests.items() if answer != "200"}
        return f"{self.requests.total()} requests, {sum(again.values())} of them repeated by the client: {again}"


@contextmanager
def load(url: str, *, key: str, write_key: str) -> Iterator[Load]:
    """Have everyone work while the block runs; what is under way at its end is finished."""
    senders: list[Sender] = [
        Events("ada", url, write_key),
        Events("grace", url, write_key),
        Records("edsger", url, key),
        Queries("barbara", url, key),
        Reads("donald", url, key),
    ]
    with patch.object(segment_consumer, "post", _counting(senders[0].requests)):
        for sender in senders:
            sender.start()
        try:
            yield Load(senders)
        finally:
            for sender in senders:
                sender.stop()


def _counting(requests: Counter[str]) -> Any:
    """Return what Segment's client posts with, which notes what comes of it."""
    post = segment_consumer.post

    def counted(*arguments: Any, **named: Any) -> Any:
        try:
            answer = post(*arguments, **named)
        except Exception as error:
            requests[str(getattr(error, "status", "no answer"))] += 1
            raise
        requests[str(answer.status_code)] += 1
        return answer

    return counted
