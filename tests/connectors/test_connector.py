"""How a run is written, whatever the connector: values that JSON does not know, names that are long, states."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import orjson
from counterfoil_connectors.connector import STATE_EVERY, Connector, Record, SourceError, Stream, name_of
from counterfoil_ingest.files import json_row

from tests.connectors.conformance import Run


def reading(*records: Record | Exception) -> Connector:
    """Return a connector of one stream, which yields these."""

    def read(_cursor: Any) -> Iterator[Record]:
        for each in records:
            if isinstance(each, Exception):
                raise each
            yield each

    return Connector((), lambda _given: [Stream("rows", read)])


def test_a_record_that_is_no_text_costs_its_neighbours_nothing() -> None:
    odd, fine = {"a": "half \ud83d"}, {"a": "whole 🚢", "b": Decimal("0.10"), "c": Decimal("NaN"), "d": b"\xff"}
    first, second = reading(Record(odd, "1"), Record(fine, "2")).messages({}, state="", emitted_at=7)
    assert b'"data":{"a":"whole \xf0\x9f\x9a\xa2","b":0.10,"c":"NaN","d":"/w=="}' in second
    assert json_row(first)[2] is not None


def test_the_same_version_with_other_content_is_another_record() -> None:
    run = Run(reading(Record({"a": 1}, "7"), Record({"a": 2}, "7"), Record({"a": 1}, "7")), {})
    assert run.ids[0] == run.ids[2] != run.ids[1]


def test_names_fit_whatever_they_are_made_of() -> None:
    long = name_of("x" * 1000, 1)
    assert long != name_of("x" * 1000, 2)
    assert name_of("a", 1) == '["a",1]'
    assert len(Run(reading(Record({}, name_of("y" * 220, 12345))), {}).ids[0][1]) <= 255


def test_states_follow_the_records_they_stand_for() -> None:
    records = [Record({"n": n}, str(n), n) for n in range(2 * STATE_EVERY + 1)]
    run = Run(reading(*records, SourceError("gone")), {})
    kinds = [each["type"] for each in run.messages]
    assert [index for index, kind in enumerate(kinds) if kind == "STATE"] == [STATE_EVERY, 2 * STATE_EVERY + 1]
    assert kinds[-1] == "TRACE"
    [state] = orjson.loads(run.state)
    assert state["stream"]["stream_state"] == {"cursor": 2 * STATE_EVERY - 1}
