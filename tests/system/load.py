"""A workspace under load from many sides, each of which notes what was acknowledged; and whether all of it is there.

Every sender repeats what was not acknowledged, as a client does that wants its data kept: the same ids, the same
`Idempotency-Key`. Whatever the processes go through meanwhile, what was acknowledged must be there once.
"""

import itertools
import threading
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field

import httpx

from tests.system.installation import Installation, until
from tests.system.tenant import DAY_SALES, SALES_MODEL, Tenant, ok, sales_csv

BATCH = 50
ROWS = 200
MODEL = "load-sales"
LATER = (429, 503, 504)
"""Statuses that tell a client to come back."""


class Sender(ABC, threading.Thread):
    """Sends one thing after the other until stopped, each until it is acknowledged."""

    pause = 0.05
    """Seconds after each: what is under load has to go on, not to give all that it can."""

    def __init__(self, name: str, installation: Installation) -> None:
        super().__init__(name=name, daemon=True)
        self.installation = installation
        self.tries = 0
        self.acknowledged = 0
        self.answers: Counter[str] = Counter()
        """By status and reason."""
        self.refused: list[str] = []
        """Answers that no client should see, whatever happens to a process."""
        self.silent = 0
        """Tries without an answer: the gateway itself was gone."""
        self._stopped = threading.Event()

    def run(self) -> None:
        """Send until stopped; what is under way is repeated until it is acknowledged."""
        with self.installation.http() as client:
            for number in itertools.count():
                if self._stopped.is_set():
                    return
                while not self._try(client, number):
                    self._stopped.wait(0.05)
                self.acknowledged += 1
                self._stopped.wait(self.pause)

    def _try(self, client: httpx.Client, number: int) -> bool:
        self.tries += 1
        try:
            answer = self.send(client, number)
        except httpx.TransportError:
            self.silent += 1
            return False
        if answer.status_code == 200:
            self.answers["200"] += 1
            return self.accept(answer, number)
        self._note(answer)
        return False

    def _note(self, answer: httpx.Response) -> None:
        told = answer.json() if answer.headers.get("content-type", "").startswith("application/problem+json") else {}
        reason = told.get("reason", "")
        self.answers[f"{answer.status_code} {reason}"] += 1
        if answer.status_code not in LATER or not reason or not told.get("detail"):
            self.refused.append(
                f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:300]}"
            )

    def stop(self) -> None:
        """End after what is under way is acknowledged."""
        self._stopped.set()
        self.join(90)
        assert not self.is_alive(), f"{self.name} never got its acknowledgement: {self.answers}"

    @abstractmethod
    def send(self, client: httpx.Client, number: int) -> httpx.Response:
        """Send the thing with this number, anew or again."""

    def accept(self, answer: httpx.Response, number: int) -> bool:
        """Return whether a success acknowledges all of it."""
        return True


class Events(Sender):
    """Batches of events, each of a person of its own who is met by two identifiers."""

    def __init__(self, name: str, installation: Installation, write_key: str) -> None:
        super().__init__(name, installation)
        self.write_key = write_key

    def send(self, client: httpx.Client, number: int) -> httpx.Response:
        who = {"userId": f"{self.name}-{number}", "anonymousId": f"cookie-{self.name}-{number}"}
        batch = [
            {"type": "track", "event": "Load", "messageId": f"{self.name}-{number}-{place}", **who}
            for place in range(BATCH)
        ]
        return client.post("/v1/batch", json={"batch": batch}, auth=(self.write_key, ""), timeout=10)


class Records(Sender):
    """Batches of records by the data route, with a verdict for each."""

    def __init__(self, name: str, installation: Installation, key: str) -> None:
        super().__init__(name, installation)
        self.key = key

    def send(self, client: httpx.Client, number: int) -> httpx.Response:
        records = [
            {
                "message_id": f"{self.name}-{number}-{place}",
                "sold_at": "2024-06-01T12:00:00Z",
                "shop": "load",
                "amount": place,
                "note": self.name,
            }
            for place in range(BATCH)
        ]
        return client.post("/v1/datasets/sales/records", json=records, headers={"X-Api-Key": self.key}, timeout=10)

    def accept(self, answer: httpx.Response, number: int) -> bool:
        outcomes = Counter(verdict["outcome"] for verdict in answer.json()["verdicts"])
        return outcomes["ACCEPTED"] + outcomes["DUPLICATE"] == BATCH


class Imports(Sender):
    """Files, each waited for until it is imported; one whose upload broke off is sent again."""

    pause = 0.5

    def __init__(self, name: str, installation: Installation, key: str) -> None:
        super().__init__(name, installation)
        self.key = key
        self.imports: dict[int, str] = {}

    def send(self, client: httpx.Client, number: int) -> httpx.Response:
        headers = {"X-Api-Key": self.key}
        if number in self.imports:
            return client.get(f"/v1/imports/{self.imports[number]}", headers=headers, timeout=10)
        rows = "".join(f"2024-06-02T12:00:00,load,{row},{self.name}-{number}\n" for row in range(ROWS))
        return client.post(
            "/v1/imports",
            params={"dataset": "sales", "format": "csv", "file_name": f"{self.name}-{number}.csv"},
            content=f"sold_at,shop,amount,note\n{rows}".encode(),
            headers=headers | {"content-type": "application/octet-stream"},
            timeout=30,
        )

    def accept(self, answer: httpx.Response, number: int) -> bool:
        found = answer.json()
        self.imports[number] = found["import_id"]
        assert found["state"] != "FAILED", found
        return found["state"] == "SUCCEEDED"


class Forecasts(Sender):
    """Forecasts, whose receipts have to reach governance."""

    pause = 0.5

    def __init__(self, name: str, installation: Installation, key: str) -> None:
        super().__init__(name, installation)
        self.key = key
        self.receipts: dict[str, str] = {}

    def send(self, client: httpx.Client, number: int) -> httpx.Response:
        headers = {"X-Api-Key": self.key, "Idempotency-Key": f"{self.name}-{number}"}
        return client.post("/v1/forecasts", json={"model_id": MODEL}, headers=headers, timeout=30)

    def accept(self, answer: httpx.Response, number: int) -> bool:
        found = answer.json()  # the forecast before, when no record has come in since: it is the same question
        return self.receipts.setdefault(found["forecast_id"], found["receipt_id"]) == found["receipt_id"]


class Consents(Sender):
    """Consents, each of a person of its own."""

    pause = 0.1

    def __init__(self, name: str, installation: Installation, key: str) -> None:
        super().__init__(name, installation)
        self.key = key

    def send(self, client: httpx.Client, number: int) -> httpx.Response:
        consent = {
            "subject": {"type": "user_id", "value": f"{self.name}-{number}"},
            "purpose": "advertising",
            "state": "GRANTED",
            "basis": "CONSENT",
            "happened_at": "2024-06-01T12:00:00Z",
        }
        headers = {"X-Api-Key": self.key, "Idempotency-Key": f"{self.name}-{number}"}
        return client.post("/v1/consents", json={"consents": [consent]}, headers=headers, timeout=10)


class Reads(Sender):
    """Reads that need one service each."""

    pause = 0.02
    PATHS = ("/v1/workspaces", "/v1/contracts", "/v1/sources", "/v1/graph", "/v1/models")

    def __init__(self, name: str, installation: Installation, key: str) -> None:
        super().__init__(name, installation)
        self.key = key

    def send(self, client: httpx.Client, number: int) -> httpx.Response:
        path = self.PATHS[number % len(self.PATHS)]
        return client.get(path, headers={"X-Api-Key": self.key}, timeout=10)


@dataclass
class Load:
    """All of it in one workspace."""

    tenant: Tenant
    senders: list[Sender] = field(default_factory=list)

    @classmethod
    def begin(cls, tenant: Tenant) -> "Load":
        """Prepare the workspace and start every sender."""
        installation, key = tenant.installation, tenant.key
        tenant.activate(DAY_SALES.format(version="1.0.0"))
        _, write_key = tenant.source("Load")
        done = tenant.upload("sales", sales_csv(120), form="csv", name="sales.csv")
        assert done["state"] == "SUCCEEDED", done
        ok(
            tenant.http.post(
                "/v1/models",
                json={"model_id": MODEL, "purpose": "stocking", "impact_tier": "IMPACT_TIER_LOW", **SALES_MODEL},
            )
        )
        tenant.train(MODEL)
        load = cls(
            tenant,
            [
                Events("ada", installation, write_key),
                Events("grace", installation, write_key),
                Records("edsger", installation, key),
                Imports("barbara", installation, key),
                Forecasts("tony", installation, key),
                Consents("karen", installation, key),
                Reads("donald", installation, key),
            ],
        )
        for sender in load.senders:
            sender.start()
        return load

    def of(self, kind: type[Sender]) -> list[Sender]:
        """Return the senders of one kind."""
        return [sender for sender in self.senders if isinstance(sender, kind)]

    def acknowledged(self, kind: type[Sender]) -> int:
        """Return how many things of one kind were acknowledged."""
        return sum(sender.acknowledged for sender in self.of(kind))

    def wait_for_progress(self, *, seconds: float) -> None:
        """Wait until every sender has had another acknowledgement."""
        marks = {sender.name: sender.acknowledged for sender in self.senders}
        until(
            lambda: True if all(sender.acknowledged > marks[sender.name] for sender in self.senders) else None,
            seconds=seconds,
            what=f"not everyone goes on: {[s.name for s in self.senders if s.acknowledged <= marks[s.name]]}",
        )

    def stop(self) -> None:
        """Stop every sender."""
        for sender in self.senders:
            sender.stop()

    def answers(self) -> dict[str, int]:
        """Return how often each answer came."""
        return dict(sum((sender.answers for sender in self.senders), Counter()))

    def refused(self) -> list[str]:
        """Return what no client should have seen."""
        return [each for sender in self.senders for each in sender.refused]

    def check(self) -> None:
        """Assert that what was acknowledged is there, once, everywhere."""
        tenant = self.tenant
        events, people = self.acknowledged(Events) * BATCH, self.acknowledged(Events)
        [[kept, distinct]] = tenant.sql("SELECT count(*), count(DISTINCT message_id) FROM events WHERE event = 'Load'")
        assert (kept, distinct) == (events, events)
        [[kept, distinct]] = tenant.sql("SELECT count(*), count(DISTINCT message_id) FROM sales WHERE note = 'edsger'")
        assert (kept, distinct) == (self.acknowledged(Records) * BATCH,) * 2
        files = (
            "SELECT note, count(*) AS rows, count(DISTINCT amount) AS amounts FROM sales"
            " WHERE note LIKE 'barbara-%' GROUP BY 1"
        )
        [found] = tenant.sql(f"SELECT count(*), min(rows), max(rows), min(amounts) FROM ({files})")
        assert found == [self.acknowledged(Imports), ROWS, ROWS, ROWS]
        self._check_people(people)
        self._check_receipts()
        self._check_consents()
        assert ok(tenant.http.post("/v1/audit:verify", json={}))["ok"] is True

    def _check_people(self, people: int) -> None:
        offset = ok(self.tenant.http.post("/v1/snapshots", json={"dataset": "events"}))["offsets"][0]["offset"]

        def at() -> int:
            return int(ok(self.tenant.http.get("/v1/graph"))["state"]["next_offset"])

        while (before := at()) < offset:  # on a busy machine it takes its time, but goes on
            until(lambda: True if at() > before else None, seconds=60, what=f"the graph stays at {before} of {offset}")
        graph = ok(self.tenant.http.get("/v1/graph"))
        assert (graph["persons"], graph["identifiers"]) == (people, 2 * people)

    def _check_receipts(self) -> None:
        for sender in self.senders:
            if isinstance(sender, Forecasts):
                assert sender.receipts
                for receipt_id in sender.receipts.values():
                    ok(self.tenant.http.get(f"/v1/receipts/{receipt_id}"))

    def _check_consents(self) -> None:
        for sender in self.of(Consents):
            for number in range(sender.acknowledged):
                subject = {"subject_type": "user_id", "subject_value": f"{sender.name}-{number}"}
                assert len(ok(self.tenant.http.get("/v1/consents", params=subject))["consents"]) == 1
