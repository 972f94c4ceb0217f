"""What is an OpenLineage event, and what of it is refused with which reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from counterfoil_contracts.lineage.entities import RunState
from counterfoil_contracts.lineage.events import EventRefusedError, read_event, schema_fields

from tests.contracts.lineage_world import dataset, event, facet, made_of

EXAMPLES = Path(__file__).parent / "openlineage-examples"
OF_INPUTS = ("BaseSubsetDatasetFacet", "DataQualityAssertionsDatasetFacet")
"""Facets of inputs whose folder's name does not say so."""
KEYS = {"RunFacet": "run", "JobFacet": "job", "InputDatasetFacet": "input", "OutputDatasetFacet": "output"}


def examples() -> list[Path]:
    return sorted(EXAMPLES.rglob("*.json"))


def with_facets(folder: str, facets: dict[str, Any]) -> dict[str, Any]:
    """Return an event that carries the facets where the specification's folder says they belong."""
    place = next((place for suffix, place in KEYS.items() if folder.endswith(suffix)), "dataset")
    if folder in OF_INPUTS:
        place = "input"
    if folder == "LineageFacet" and "entries" in facets["lineage"]:
        place = "job"
    told = event("load", inputs=[dataset("orders")], outputs=[dataset("revenue")])
    target = {
        "run": told["run"],
        "job": told["job"],
        "dataset": told["outputs"][0],
        "input": told["inputs"][0],
        "output": told["outputs"][0],
    }[place]
    target[{"input": "inputFacets", "output": "outputFacets"}.get(place, "facets")] = facets
    return told


def reason_of(told: Any) -> tuple[str, str]:
    with pytest.raises(EventRefusedError) as refused:
        read_event(told if isinstance(told, bytes) else orjson.dumps(told))
    return refused.value.reason, refused.value.path


def test_the_specifications_47_examples_are_all_here() -> None:
    assert len(examples()) == 47


@pytest.mark.parametrize("path", examples(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_example_of_the_specification_is_taken(path: Path) -> None:
    content = json.loads(path.read_text("utf-8"))
    if path.parent == EXAMPLES:
        assert read_event(orjson.dumps(content)).state is RunState.COMPLETED
    else:
        read_event(orjson.dumps(with_facets(path.parent.name, content)))


@pytest.mark.parametrize("path", examples(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_facet_of_an_example_is_really_held_against_its_schema(path: Path) -> None:
    content = json.loads(path.read_text("utf-8"))
    if path.parent == EXAMPLES:
        content["job"]["facets"]["sql"]["query"] = 1
        assert reason_of(content)[0] == "FACET_INVALID"
        return
    [(name, told)] = content.items()
    for key in [key for key in told if not key.startswith("_")][:1]:
        wrong = {name: {**told, key: 1 if isinstance(told[key], str) else "none"}}
        reason, where = reason_of(with_facets(path.parent.name, wrong))
        assert (reason, where.rpartition(".")[2]) == ("FACET_INVALID", key)
    del told["_producer"]
    reason, where = reason_of(with_facets(path.parent.name, content))
    assert (reason, where.rpartition(".")[2]) == ("FACET_INVALID", name)


def test_the_same_event_has_the_same_id_however_it_is_written() -> None:
    told = event("load", inputs=[dataset("orders")])
    other = json.dumps(dict(reversed(told.items())), indent=2).encode()
    assert read_event(orjson.dumps(told)).event_id == read_event(other).event_id


def test_nested_fields_are_named_by_dots_with_their_tags() -> None:
    inner = {"name": "city", "type": "text", "description": "Where to"}
    fields = [{"name": "id", "type": "bigint"}, {"name": "address", "type": "struct", "fields": [inner]}]
    tags = [{"key": "pii", "value": "true", "field": "address.city"}, {"key": "gold", "value": "true"}]
    found = schema_fields({"schema": facet("S", fields=fields), "tags": facet("T", tags=tags)})
    assert [(each.name, each.tags) for each in found] == [("id", ()), ("address", ()), ("address.city", ("pii",))]


def test_links_keep_how_a_field_is_made() -> None:
    origin = {
        "namespace": "n",
        "name": "t",
        "field": "email",
        "transformations": [
            {"type": "DIRECT", "subtype": "TRANSFORMATION", "masking": True},
            {"type": "INDIRECT", "subtype": "JOIN"},
        ],
    }
    told = facet("C", fields={"hash": {"inputFields": [origin]}}, dataset=[{**origin, "transformations": []}])
    [output] = read_event(orjson.dumps(event("load", outputs=[dataset("out", columnLineage=told)]))).outputs
    assert output.columns is not None
    kinds = [(link.target_field, link.direct, link.subtype, link.masking) for link in output.columns]
    assert kinds == [("hash", True, "TRANSFORMATION", True), ("hash", False, "JOIN", False), ("", False, "", False)]


def test_a_job_or_a_dataset_may_speak_for_itself() -> None:
    assert read_event(orjson.dumps(event("load", state=None))).state is RunState.DECLARED
    told = event("load", state=None)
    del told["job"], told["inputs"], told["outputs"]
    alone = read_event(orjson.dumps({**told, "dataset": dataset("orders", columnLineage=made_of(a=[("raw", "b")]))}))
    assert (alone.job, [each.name.name for each in alone.outputs]) == (None, ["orders"])


@pytest.mark.parametrize(
    ("told", "reason", "path"),
    [
        (b"\xff", "EVENT_INVALID", "$"),
        (b"3", "EVENT_INVALID", "$"),
        (b"{}", "EVENT_INVALID", "$"),
        ({**event("x"), "eventTime": "noon"}, "EVENT_INVALID", "$.eventTime"),
        ({**event("x"), "eventTime": "1969-12-31T23:59:59Z"}, "EVENT_INVALID", "$.eventTime"),
        ({**event("x"), "run": {"runId": "1"}}, "EVENT_INVALID", "$.run.runId"),
        ({**event("x"), "eventType": "DONE"}, "EVENT_INVALID", "$.eventType"),
        (event(""), "NAME_INVALID", "$.job.name"),
        (event("a\nb"), "NAME_INVALID", "$.job.name"),
        (event("ä" * 600), "NAME_INVALID", "$.job.name"),
        (event("x", outputs=[dataset("t", fields=["a" * 2000])]), "NAME_INVALID", "$.outputs[0].facets"),
        (event("x", inputs=[dataset(f"t{n}") for n in range(1001)]), "EVENT_TOO_LARGE", "$"),
        (
            event("x", outputs=[dataset("t", columnLineage=made_of(a=[("t", f"f{n}") for n in range(10_001)]))]),
            "EVENT_TOO_LARGE",
            "$.outputs",
        ),
        (
            event("x", outputs=[dataset("t", fields=[f"f{n}" for n in range(10_001)])]),
            "EVENT_TOO_LARGE",
            "$.outputs[0].facets.schema",
        ),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "EVENT_TOO_LARGE", "$"),
    ],
)
def test_what_is_refused_says_why_and_where(told: Any, reason: str, path: str) -> None:
    assert reason_of(told) == (reason, path)


def test_a_refusal_does_not_repeat_the_value() -> None:
    told = event("x", outputs=[dataset("t", schema=facet("SchemaDatasetFacet", fields="ada@example.com"))])
    with pytest.raises(EventRefusedError) as refused:
        read_event(orjson.dumps(told))
    assert "ada" not in refused.value.detail
