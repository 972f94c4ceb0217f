"""kill -9 of ingest in the middle of replays from quarantine: repeated, each record is once in the log and the lake.

A page of a replay is one transaction for each of its sources, so that a kill mostly falls between two of a page.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.system.installation import Installation, until
from tests.system.tenant import Tenant, ok

SOURCES = 5
EVENTS = 160
"""Of each source."""
ROWS = 200
"""Of an import."""
ALL = SOURCES * EVENTS + ROWS
PAGE = 50
KILLS = 2
LATER = (429, 503, 504)
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: orders
name: Orders
version: 1.0.0
status: active
schema:
  - name: orders
    logicalType: object
    properties:
      - {name: type, logicalType: string}
      - {name: event, logicalType: string}
      - {name: message_id, logicalType: string}
      - {name: user_id, logicalType: string}
      - {name: timestamp, logicalType: timestamp}
      - name: properties
        logicalType: object
        required: true
        properties:
          - {name: n, logicalType: integer, required: true}
"""


class Replay(threading.Thread):
    """Replays all that is open page by page; one that was not answered is asked again, under the id it had."""

    def __init__(self, shop: Tenant) -> None:
        super().__init__(daemon=True)
        self._shop = shop
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.offsets: list[int] = []
        """Of the records that an answer told of: a kill may swallow one."""

    def run(self) -> None:
        """Go on until there is no further page."""
        token, number = "", 0
        with self._shop.installation.http(self._shop.key) as http:
            while not self.wrong:
                asked = {"filter": {}, "page_size": PAGE, "page_token": token, "request_id": f"replay-{number}"}
                answer = self._ask(http, asked)
                if answer is None:
                    time.sleep(0.05)
                    continue
                self.offsets += [int(each["position"]["offset"]) for each in answer.get("verdicts", [])]
                token, number = answer.get("next_page_token", ""), number + 1
                if not token:
                    return

    def _ask(self, http: httpx.Client, asked: dict[str, Any]) -> dict[str, Any] | None:
        answer = http.post("/v1/quarantine:replay", json=asked, timeout=30)
        self.answers[f"{answer.status_code} {answer.json().get('reason', '')}"] += 1
        if answer.status_code == 200:
            return ok(answer)
        if answer.status_code not in LATER:
            self.wrong.append(answer.text)
        return None


@pytest.fixture(scope="module")
def import_ids() -> list[str]:
    """Return where the import notes its id."""
    return []


@pytest.fixture(scope="module")
def shop(make_tenant: Callable[[str], Tenant], import_ids: list[str]) -> Tenant:
    """Return a workspace whose quarantine holds repaired events of several sources, and rows of an import."""
    made = make_tenant("replayed")
    made.activate(CONTRACT)
    source = {"display_name": "Shop", "mappings": [{"type": "track", "event": "Order", "dataset": "orders"}]}
    keys = [ok(made.http.post("/v1/sources", json=source))["write_key"] for _ in range(SOURCES)]
    for start in range(0, EVENTS, 20):
        for place, key in enumerate(keys):
            numbers = [place * EVENTS + each for each in range(start, start + 20)]
            events = [
                {"type": "track", "event": "Order", "messageId": f"m{n}", "userId": "ada", "properties": {"n": str(n)}}
                for n in numbers
            ]
            assert made.send_events(key, events).status_code == 200
    rows = "".join(f'{{"event": "Order", "properties": {{"n": "{SOURCES * EVENTS + row}"}}}}\n' for row in range(ROWS))
    import_ids.append(made.upload("orders", rows.encode(), form="jsonl")["import_id"])
    repair = {"filter": {"dataset": "orders"}, "fixes": [{"path": "$.properties.n", "convert": "INTEGER"}]}
    repaired = _pages(made, "/v1/quarantine:repair", repair, "records")
    assert len(repaired) == ALL
    assert [each for each in repaired if not each["passes"]] == []
    return made


def test_a_replay_that_kills_interrupt_ends_with_every_record_once(
    installation: Installation, shop: Tenant, import_ids: list[str]
) -> None:
    assert _counts(shop) == (0, ALL)
    replay = Replay(shop)
    replay.start()
    for kill in range(KILLS):
        least = ALL * (kill + 1) // (KILLS + 2)
        done = until(lambda: _done(shop, least), seconds=60, what="the replay does not go on")  # noqa: B023
        installation.child("ingest").kill()
        assert done < ALL
    replay.join(120)
    assert not replay.is_alive()
    assert replay.wrong == []
    print(f"\n{replay.answers}; answers about {ALL - len(replay.offsets)} records were lost")
    assert _counts(shop) == (ALL, 0)
    numbers = "SELECT (properties ->> 'n')::INTEGER AS n, _offset FROM orders"
    assert shop.sql(
        f"SELECT count(*), count(DISTINCT n), min(n), max(n), count(DISTINCT _offset) FROM ({numbers})"
    ) == [[ALL, ALL, 0, ALL - 1, ALL]]
    assert len(set(replay.offsets)) == len(replay.offsets)
    kept = _pages(shop, "/v1/quarantine", {"dataset": "orders"}, "quarantined_records")
    assert {each["state"] for each in kept} == {"REPLAYED"}
    assert sorted(int(each["position"]["offset"]) for each in kept) == list(range(ALL))
    imported = ok(shop.http.get(f"/v1/imports/{import_ids[0]}"))
    assert [imported[f"rows_{each}"] for each in ("accepted", "duplicate", "quarantined")] == [ROWS, 0, 0]
    entries = until(lambda: _audited(shop), seconds=60, what="the audit log does not have every replay")
    assert sum(each["accepted"] for each in entries) == ALL
    assert sum(each["duplicates"] for each in entries) == 0


def _pages(shop: Tenant, path: str, asked: dict[str, Any], items: str) -> list[dict[str, Any]]:
    """Return the items of every page of a list, or of a call that answers in pages."""
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        page = asked | {"page_token": token}
        listed = shop.http.post(path, json=page) if ":" in path else shop.http.get(path, params=page)
        answer = ok(listed)
        found += answer.get(items, [])
        if not (token := answer.get("next_page_token", "")):
            return found


def _counts(shop: Tenant) -> tuple[int, int]:
    """Return how many records the log has, and how many lie open in quarantine."""
    of = shop.datasets()["orders"]
    return int(of.get("records", 0)), int(of.get("quarantined", 0))


def _done(shop: Tenant, least: int) -> int | None:
    """Return how many are replayed once they are so many; ingest may be away meanwhile."""
    answer = shop.http.get("/v1/datasets")
    if answer.status_code in LATER:
        return None
    records = {each["dataset"]: int(each.get("records", 0)) for each in ok(answer)["datasets"]}["orders"]
    return records if records >= least else None


def _audited(shop: Tenant) -> list[dict[str, Any]] | None:
    """Return the details of the audit entries about replays, once they tell of every record."""
    entries = _pages(shop, "/v1/audit/entries", {"page_size": 1000}, "entries")
    found = [each["details"] for each in entries if each["action"] == "quarantine.replay"]
    return found if sum(each["accepted"] for each in found) >= ALL else None
