"""What a check of contracts found, in the formats that pipelines read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from counterfoil_cli.contract_checks.checking import Aspect, Checked, Issue, Level, check, documents
from counterfoil_cli.contract_checks.reports import FORMATS, SARIF_SCHEMA

FINDING = Issue(Level.ERROR, Aspect.DOCUMENT, "DATASET_NAME", "A <name> is\x00 lower case.", "$.schema[0].name", line=7)
BROKEN = Issue(
    *(Level.ERROR, Aspect.CONSUMERS, "CONSUMER_BROKEN", "report (finance): is read, and not declared any more"),
    path="$.coupon",
    dataset="orders",
    consumer="report",
    witness={"total": 1, "note": "ü"},
)
SENDER = Issue(Level.WARNING, Aspect.SENDERS, "SENDER_BROKEN", "1 is less than 10", "$.total", "orders", witness={})
ANSWER = {
    "compiled": [{"dataset": "orders", "contract_id": "shop"}],
    "comparison": {"in_force_version": "1.0.0", "level": "MAJOR", "needed_version": "2.0.0", "version_suffices": True},
}


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Checked]:
    monkeypatch.chdir(tmp_path)
    return [
        Checked(tmp_path / "my contracts" / "shop.odcs.yaml", [FINDING, BROKEN, SENDER]),
        Checked(Path("fine.odcs.yaml"), [SENDER], ANSWER),
    ]


def test_text_tells_each_issue_with_its_line_and_record(checked: list[Checked]) -> None:
    text = FORMATS["text"](checked)
    assert "error DATASET_NAME at $.schema[0].name, line 7: A <name>" in text
    assert "error CONSUMER_BROKEN at orders $.coupon: report (finance)" in text
    assert 'for example {"total": 1, "note": "ü"}' in text
    assert "fine.odcs.yaml: can come into force; it governs orders" in text


def test_json_tells_which_files_can_come_into_force(checked: list[Checked]) -> None:
    found = json.loads(FORMATS["json"](checked))
    assert (found["compatible"], [each["compatible"] for each in found["files"]]) == (False, [False, True])
    assert found["files"][0]["issues"][1] == {
        "level": "error",
        "reason": "CONSUMER_BROKEN",
        "message": BROKEN.message,
        "path": "$.coupon",
        "dataset": "orders",
        "consumer": "report",
        "witness": {"total": 1, "note": "ü"},
    }
    assert found["files"][1]["comparison"] == ANSWER["comparison"]


def test_junit_counts_what_failed_and_keeps_warnings_as_output(checked: list[Checked]) -> None:
    """The shape is that of the schema that Jenkins and GitLab read (testsuites > testsuite > testcase > failure)."""
    root = ET.fromstring(FORMATS["junit"](checked))
    assert (root.tag, root.get("failures"), root.get("errors")) == ("testsuites", "2", "0")
    assert int(root.get("tests", "0")) == len(root.findall("./testsuite/testcase"))
    for suite in root:
        assert suite.tag == "testsuite"
        assert {"name", "tests", "failures", "errors", "skipped", "time"} == set(suite.attrib)
        assert int(suite.get("tests", "0")) == len(suite)
        assert int(suite.get("failures", "0")) == len(suite.findall("./testcase/failure"))
        for case in suite:
            assert {"name", "classname", "time"} == set(case.attrib)
            assert [each.tag for each in case] in ([], ["failure"], ["system-out"], ["failure", "system-out"])
    first = root[0]
    failures = {case.get("name"): case.find("failure") for case in first}
    told = failures["consumers"]
    assert told is not None
    assert told.get("type") == "CONSUMER_BROKEN"
    assert '"total": 1' in (told.text or "")
    about = failures["the document"]
    assert about is not None
    assert about.get("message") == "A <name> is lower case."  # without the control character that XML cannot hold
    assert [case.get("name") for case in root[1] if case.find("system-out") is not None] == ["those who send"]


def test_sarif_names_rule_file_line_and_record_of_each_result(checked: list[Checked]) -> None:
    log = json.loads(FORMATS["sarif"](checked))
    assert (log["$schema"], log["version"]) == (SARIF_SCHEMA, "2.1.0")
    [run] = log["runs"]
    driver = run["tool"]["driver"]
    rules = [each["id"] for each in driver["rules"]]
    assert rules == ["DATASET_NAME", "CONSUMER_BROKEN", "SENDER_BROKEN"]
    assert all(each["shortDescription"]["text"] for each in driver["rules"])
    assert len(run["results"]) == 4
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert result["message"]["text"]
        [location] = result["locations"]
        assert location["physicalLocation"]["region"]["startLine"] >= 1
    places = [each["locations"][0]["physicalLocation"] for each in run["results"]]
    assert places[0] == {"artifactLocation": {"uri": "my%20contracts/shop.odcs.yaml"}, "region": {"startLine": 7}}
    assert places[3]["artifactLocation"] == {"uri": "fine.odcs.yaml"}
    assert run["results"][1]["properties"]["witness"] == {"total": 1, "note": "ü"}
    prints = [each["partialFingerprints"]["counterfoilIssue/v1"] for each in run["results"][:3]]
    assert len(set(prints)) == 3


def test_folders_are_searched_for_documents_and_files_are_taken_as_they_are(tmp_path: Path) -> None:
    for name in ("b.odcs.yaml", "a/c.odcs.yml", "a/d.odcs.json", "a/notes.yaml", "other.txt"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
    found = documents([tmp_path, tmp_path / "other.txt", tmp_path / "b.odcs.yaml"])
    assert [each.relative_to(tmp_path).as_posix() for each in found] == [
        *("a/c.odcs.yml", "a/d.odcs.json", "b.odcs.yaml", "other.txt"),
    ]


class Api:
    """Answers a check with what a test wants."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer

    def check_contract(self, document: bytes) -> dict[str, Any]:
        assert document == b"kind: DataContract"
        return self.answer


@pytest.mark.parametrize(
    ("suffices", "level"), [pytest.param(True, Level.WARNING, id="major"), pytest.param(False, Level.ERROR, id="minor")]
)
def test_a_break_for_senders_fails_the_check_unless_the_version_announces_it(
    tmp_path: Path, suffices: Any, level: Level
) -> None:
    file = tmp_path / "shop.odcs.yaml"
    file.write_text("kind: DataContract")
    broken = {
        "verdict": "PROVEN_BREAKING",
        "breaks": [{"path": "$.total", "detail": "too low", "witness": {"total": 1}}],
    }
    compared = {"dataset": "orders", "contract_id": "shop", "version": "1.0.0"}
    answer = {
        **ANSWER,
        "comparison": {**ANSWER["comparison"], "version_suffices": suffices},  # type: ignore[dict-item]
        "comparisons": [{**compared, "backward": broken, "forward": {"verdict": "PROVEN_COMPATIBLE"}}],
    }
    found = check(Api(answer), file)  # type: ignore[arg-type]
    assert found.failed is not suffices
    assert [(each.reason, each.level) for each in found.issues if each.aspect is Aspect.SENDERS] == [
        ("SENDER_BROKEN", level)
    ]
