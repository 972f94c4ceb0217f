"""HubSpot's contacts and deals, from a server in the shapes that its documentation shows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from counterfoil_connectors.hubspot import HUBSPOT
from dlt.common.runtime import anon_tracker

from tests.connectors.conformance import ConnectorConformance, Run
from tests.connectors.hubspot_server import FIXTURES, TOKEN, WINDOW, HubSpot, hubspot


class TestHubSpot(ConnectorConformance):
    connector = HUBSPOT

    @pytest.fixture
    def source(self) -> Iterator[HubSpot]:
        with hubspot() as portal:
            yield portal

    def given(self, source: HubSpot) -> dict[str, str]:
        return {"api_url": source.url, "token": TOKEN}

    def change(self, source: HubSpot) -> int:
        source.change("contacts", 1, "2026-02-03T00:00:00.001Z", lifecyclestage="customer")
        source.change("deals", 0, "2026-02-03T00:00:00Z", amount="1300")
        source.objects["contacts"].append({**source.objects["contacts"][1], "id": "60"})
        return 3

    def refuse(self, source: HubSpot) -> dict[str, str]:
        return {"api_url": source.url, "token": "pat-eu1-of-somebody-else"}

    def test_records_are_the_objects_as_hubspot_shows_them(self, source: HubSpot) -> None:
        run = Run(HUBSPOT, self.given(source))
        for kind in ("contacts", "deals"):
            sent = {each["id"]: each for each in orjson.loads((FIXTURES / f"{kind}.json").read_bytes())}
            got = {each["data"]["id"]: each["data"] for each in run.records if each["stream"] == f"hubspot_{kind}"}
            assert got == sent
        assert anon_tracker._ANON_TRACKER_ENDPOINT is None  # dlt tells nobody

    def test_it_waits_as_long_as_it_is_told_to(self, source: HubSpot, monkeypatch: pytest.MonkeyPatch) -> None:
        waited: list[float] = []
        monkeypatch.setattr("tenacity.nap.time.sleep", waited.append)
        source.refusals += [(429, {"retry-after": "11"}), (429, {"retry-after": "7"}), (502, {})]
        run = Run(HUBSPOT, self.given(source))
        assert (run.errors, len(run.records)) == ([], 4)
        assert waited[:2] == [11, 7]
        assert len(waited) == 3

    def test_a_run_that_broke_off_is_continued_where_its_state_is(
        self, source: HubSpot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tenacity.nap.time.sleep", lambda _seconds: None)
        whole = Run(HUBSPOT, self.given(source))
        asked = len(source.asked)
        for served in range(1, asked // 2):
            broken = _broken_after(served, source, self.given(source))
            assert len(broken.errors) == 1
            rest = Run(HUBSPOT, self.given(source), broken.state)
            assert set(broken.ids) | set(rest.ids) == set(whole.ids)

    def test_pages_beyond_the_window_of_a_search(self, source: HubSpot) -> None:
        model, began = source.objects["contacts"][0], datetime(2026, 3, 1, tzinfo=UTC)
        source.objects["contacts"] = [
            {
                **model,
                "id": str(n),
                "properties": {"lastmodifieddate": (began + timedelta(minutes=n // 7)).isoformat()},
            }
            for n in range(WINDOW + 300)
        ]
        run = Run(HUBSPOT, self.given(source))
        assert run.errors == []
        assert {each["data"]["id"] for each in run.records if each["stream"] == "hubspot_contacts"} == set(
            map(str, range(WINDOW + 300))
        )
        for each in source.objects["contacts"]:
            each["properties"] = model["properties"]
        assert "changed at once" in Run(HUBSPOT, self.given(source)).errors[0]

    @pytest.mark.parametrize(
        "answer",
        [
            {},
            {"results": [1]},
            {"results": [{"id": "1"}]},
            {"results": [{"id": "1", "properties": {"lastmodifieddate": "soon"}}]},
        ],
    )
    def test_an_answer_that_is_none_ends_the_run_and_nothing_else(
        self, source: HubSpot, monkeypatch: pytest.MonkeyPatch, answer: Any
    ) -> None:
        monkeypatch.setattr(source, "answer", lambda *_: (200, answer))
        run = Run(HUBSPOT, self.given(source))
        assert run.records == []
        assert len(run.errors) == (answer != {})

    def test_the_token_never_travels_in_the_clear(self) -> None:
        run = Run(HUBSPOT, {"api_url": "http://api.hubapi.com", "token": TOKEN})
        assert "https" in run.errors[0]


def _broken_after(served: int, source: HubSpot, given: dict[str, str]) -> Run:
    """Return a run whose source answers so many calls and then no more."""
    answer, calls = source.answer, iter(range(1000))
    source.answer = lambda *asked: answer(*asked) if next(calls) < served else (500, {})  # type: ignore[method-assign]
    try:
        return Run(HUBSPOT, given)
    finally:
        source.answer = answer  # type: ignore[method-assign]
