"""What every connector must do; a connector's test inherits it and says how its source is told, changed and broken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from counterfoil_connectors.connector import Connector


class Run:
    """One run of a connector, read to its end."""

    def __init__(self, connector: Connector, given: Mapping[str, str], state: str = "") -> None:
        self.text = b"".join(connector.messages(given, state=state, emitted_at=7))
        self.messages = [orjson.loads(line) for line in self.text.splitlines()]
        self.records = [each["record"] for each in self.messages if each["type"] == "RECORD"]
        self.ids = [(each["stream"], each.get("record_id", "")) for each in self.records]
        self.errors = [each["trace"]["error"]["message"] for each in self.messages if each["type"] == "TRACE"]
        self._before = state

    @property
    def state(self) -> str:
        """What the next run is given: the newest state of each stream, as imports keep them."""
        told = [
            *orjson.loads(self._before or "[]"),
            *(each["state"] for each in self.messages if each["type"] == "STATE"),
        ]
        return orjson.dumps([*{each["stream"]["stream_descriptor"]["name"]: each for each in told}.values()]).decode()


class ConnectorConformance:
    """Inherit it as `Test...`, with `connector`, `given` and the three below."""

    connector: Connector

    @pytest.fixture
    def source(self) -> Any:
        """Return a source to read."""
        raise NotImplementedError

    def given(self, source: Any) -> dict[str, str]:
        """Return the parameters of a run."""
        raise NotImplementedError

    def change(self, source: Any) -> int:
        """Change some records that are there, add one; return how many that makes."""
        raise NotImplementedError

    def refuse(self, source: Any) -> dict[str, str]:
        """Return the parameters of a run that the source refuses, such as a wrong password."""
        raise NotImplementedError

    def test_its_parameters_say_what_they_are(self, source: Any) -> None:
        assert all(each.description.endswith(".") for each in self.connector.parameters)
        settled = self.connector.settled(self.given(source))
        assert settled.keys() == {each.name for each in self.connector.parameters}
        with pytest.raises(ValueError, match="no parameter `nonsense`"):
            self.connector.settled({**self.given(source), "nonsense": "1"})
        for each in self.connector.parameters:
            if each.default is None:
                with pytest.raises(ValueError, match=f"`{each.name}` is missing"):
                    self.connector.settled({**self.given(source), each.name: ""})

    def test_a_run_is_records_with_names_and_states_after_them(self, source: Any) -> None:
        run = Run(self.connector, self.given(source))
        assert run.errors == []
        assert len(run.ids) == len(set(run.ids)) > 0
        assert all(
            0 < len(record_id) <= 255 and record["emitted_at"] == 7
            for record, (_, record_id) in zip(run.records, run.ids, strict=True)
        )
        told = {each["stream"]["stream_descriptor"]["name"] for each in orjson.loads(run.state)}
        assert told == {stream for stream, _ in run.ids}
        assert run.text == Run(self.connector, self.given(source)).text

    def test_the_next_run_brings_what_changed_and_nothing_unknown_besides(self, source: Any) -> None:
        first = Run(self.connector, self.given(source))
        again = Run(self.connector, self.given(source), first.state)
        assert set(again.ids) <= set(first.ids)
        changed = self.change(source)
        second = Run(self.connector, self.given(source), first.state)
        assert len(set(second.ids) - set(first.ids)) == changed > 0
        assert set(Run(self.connector, self.given(source), second.state).ids) <= set(second.ids) | set(first.ids)
        assert set(second.ids) | set(first.ids) >= set(Run(self.connector, self.given(source)).ids)

    def test_what_is_refused_is_told_last_and_without_a_secret(self, source: Any, capfd: Any, caplog: Any) -> None:
        caplog.set_level("DEBUG")
        given = self.refuse(source)
        run = Run(self.connector, given)
        assert len(run.errors) == 1
        assert run.messages[-1]["type"] == "TRACE"
        told = run.text.decode() + caplog.text + "".join(capfd.readouterr())
        for each in self.connector.parameters:
            assert not each.secret or given[each.name] not in told
