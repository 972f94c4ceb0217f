"""The process in which schemas are judged: it answers, it is ended when it takes too long, and nobody else notices."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from counterfoil_chassis.apart import NotStartedError
from counterfoil_contracts.apart import AT_ONCE, Apart
from counterfoil_contracts.schema_entities import Policy
from counterfoil_contracts.schema_errors import SchemasBusyError

ONE_OF = [{"oneOf": [{"required": [f"{letter}{number}"]} for letter in "abc"]} for number in range(14)]
"""A proof of anything about it takes minutes."""
TEXT, WHOLE = {"type": "string"}, {"type": "integer"}


@pytest.fixture
async def apart() -> AsyncIterator[Apart]:
    made = Apart(seconds=2.0)
    yield made
    await made.close()
    assert children() == []


def children() -> list[psutil.Process]:
    """Return the processes that judge."""
    return [each for each in psutil.Process().children() if "counterfoil_contracts.apart" in each.cmdline()]


async def test_it_says_what_breaks_with_a_record(apart: Apart):
    assert await apart.breaks(WHOLE, {"type": "number"}, Policy.EXACT) == []
    [found] = await apart.breaks({"type": "number"}, WHOLE, Policy.EXACT)
    assert (found.path, found.rule) == ("$", "type")
    assert found.witness
    [found] = await apart.breaks({"type": "number"}, WHOLE, Policy.CONFLUENT_STRICT)
    assert (found.path, found.rule) == ("#/type", "TYPE_NARROWED")
    assert len(children()) == 1


async def test_what_takes_too_long_is_unproven_and_the_next_is_answered(apart: Apart):
    begun = time.monotonic()
    hard = {"allOf": ONE_OF}
    [found] = await apart.breaks(hard, {**hard, "required": ["z"]}, Policy.EXACT)
    assert found.rule == "UNPROVEN"
    assert time.monotonic() - begun < 60
    assert await apart.breaks(TEXT, TEXT, Policy.EXACT) == []


async def test_it_survives_what_ends_the_process(apart: Apart):
    """References that lead on for long are followed by recursion until there is no stack left."""
    chain: dict[str, Any] = {f"d{number}": {"$ref": f"#/$defs/d{number + 1}"} for number in range(30_000)}
    document = {"$defs": {**chain, "d30000": TEXT}, "$ref": "#/$defs/d0"}
    for policy in Policy:
        [found] = await apart.breaks(document, WHOLE, policy)
        assert found.rule in ("UNPROVEN", "TYPE_CHANGED")
    assert await apart.fault_of(TEXT) == ""


async def test_a_caller_who_leaves_ends_the_work(apart: Apart):
    hard = {"allOf": ONE_OF}
    waiting = asyncio.create_task(apart.breaks(hard, {**hard, "required": ["z"]}, Policy.EXACT))
    while not children():
        await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert children() == []


async def test_one_that_is_killed_while_it_judges_has_proven_nothing(apart: Apart):
    assert await apart.fault_of(TEXT) == ""
    hard = {"allOf": ONE_OF}
    [child] = children()
    used = sum(child.cpu_times()[:2])
    waiting = asyncio.create_task(apart.breaks(hard, {**hard, "required": ["z"]}, Policy.EXACT))
    while sum(child.cpu_times()[:2]) < used + 0.05:  # it judges
        await asyncio.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    [found] = await waiting
    assert found.rule == "UNPROVEN"
    assert await apart.fault_of(TEXT) == ""


async def test_more_questions_than_can_be_answered_in_time_are_refused_at_once(
    apart: Apart, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("counterfoil_contracts.apart.MOST_WAITING", 1)
    hard = {"allOf": ONE_OF}
    waiting = [
        asyncio.create_task(apart.breaks(hard, {**hard, "required": [f"z{number}"]}, Policy.EXACT))
        for number in range(AT_ONCE + 1)
    ]
    await asyncio.sleep(0)
    with pytest.raises(SchemasBusyError) as refused:
        await apart.fault_of(TEXT)
    assert refused.value.retry_after is not None
    assert {each.rule for [each] in await asyncio.gather(*waiting)} == {"UNPROVEN"}
    assert await apart.fault_of(TEXT) == ""


async def test_that_it_cannot_start_is_no_verdict(apart: Apart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken = tmp_path / "jsonschema_rs.py"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for text in ("import a_library_that_nobody_has", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"):
        broken.write_text(text)
        with pytest.raises(NotStartedError):
            await apart.fault_of(TEXT)
        with pytest.raises(NotStartedError):
            await apart.breaks(TEXT, WHOLE, Policy.EXACT)
    broken.unlink()
    assert await apart.fault_of(TEXT) == ""


async def test_hostile_patterns_and_references_are_faults_in_bounded_time(apart: Apart):
    begun = time.monotonic()
    slow = {"allOf": [{"pattern": f"^((a{{1,{number}}}){{1,100}}){{1,9}}$"} for number in range(2, 400)] * 10}
    await apart.fault_of(slow)
    assert "Retrieval is disabled" in await apart.fault_of({"$ref": "https://example.com/other.json"})
    assert await apart.fault_of({"$ref": "#/nowhere"})
    assert "strin" in await apart.fault_of({"properties": {"a": {"type": "strin"}}})
    assert "['properties']['a']['type']" in await apart.fault_of({"properties": {"a": {"type": "strin"}}})
    assert time.monotonic() - begun < 60
