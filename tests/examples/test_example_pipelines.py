"""The example pipelines are YAML, and call the command line as it is."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from counterfoil_cli.commands.contract import check

PIPELINES = sorted((Path(__file__).parents[2] / "examples" / "ci").glob("*.yml"))


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts(each)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("file", PIPELINES, ids=lambda file: file.name)
def test_a_pipeline_checks_contracts_with_options_that_there_are(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    commands = [text for text in texts(yaml.safe_load(file.read_text())) if "contract check" in text]
    assert commands
    monkeypatch.chdir(tmp_path)
    (tmp_path / "contracts").mkdir()
    for command in commands:
        words = shlex.split(command.split("contract check", 1)[1].split(">", 1)[0])
        context = check.make_context("check", words)
        assert context.params["paths"] == (Path("contracts"),)
        assert context.params["report"] in ("sarif", "junit")
