"""What was found, as text for people, JSON for programs, JUnit for test reports and SARIF for code scanning."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

from counterfoil_cli.contract_checks.checking import RULES, Aspect, Checked, Issue, Level, shown

Report = Callable[[Sequence[Checked]], str]

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_NAME = "counterfoil contract check"
_NO_XML = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_json(checked: Sequence[Checked]) -> str:
    """Return each file with its verdict, its issues, and what the API answered."""
    found = {
        "compatible": not any(each.failed for each in checked),
        "files": [
            {
                "file": each.file.as_posix(),
                "compatible": not each.failed,
                "issues": [_issue(issue) for issue in each.issues],
                "comparison": each.answer.get("comparison"),
                "comparisons": each.answer.get("comparisons", []),
            }
            for each in checked
        ],
    }
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _issue(issue: Issue) -> dict[str, Any]:
    told = {
        "level": issue.level.value,
        "reason": issue.reason,
        "message": issue.message,
        "path": issue.path,
        "dataset": issue.dataset,
        "consumer": issue.consumer,
        "line": issue.line or None,
        "witness": issue.witness,
    }
    return {key: value for key, value in told.items() if value not in ("", None)}


def as_junit(checked: Sequence[Checked]) -> str:
    """Return one suite per file with one case per aspect; what does not fail the check is the case's output."""
    root = ET.Element("testsuites", name=_NAME)
    for each in checked:
        aspects = [aspect for aspect in Aspect if aspect is not Aspect.RECORDS or _of(each, aspect)]
        failing = [aspect for aspect in aspects if any(one.level is Level.ERROR for one in _of(each, aspect))]
        suite = ET.SubElement(root, "testsuite", name=_xml(each.file.as_posix()))
        suite.attrib |= {"tests": str(len(aspects)), "failures": str(len(failing)), "errors": "0", "skipped": "0"}
        suite.set("time", "0")
        for aspect in aspects:
            case = ET.SubElement(suite, "testcase", name=aspect.value, classname=_xml(each.file.as_posix()))
            case.set("time", "0")
            told = _of(each, aspect)
            errors = [one for one in told if one.level is Level.ERROR]
            if errors:
                reasons = ", ".join(dict.fromkeys(one.reason for one in errors))
                failure = ET.SubElement(case, "failure", type=_xml(reasons), message=_xml(errors[0].message))
                failure.text = _xml("\n".join(map(_line, errors)))
            if others := [one for one in told if one.level is not Level.ERROR]:
                ET.SubElement(case, "system-out").text = _xml("\n".join(map(_line, others)))
    for key in ("tests", "failures", "errors"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _of(checked: Checked, aspect: Aspect) -> list[Issue]:
    return [each for each in checked.issues if each.aspect is aspect]


def _xml(text: str) -> str:
    """Leave out what XML 1.0 cannot hold (section 2.2)."""
    return _NO_XML.sub("", text)


def as_sarif(checked: Sequence[Checked]) -> str:
    """Return a SARIF 2.1.0 log with one run; paths are relative to the folder that the command runs in."""
    reasons = list(dict.fromkeys(issue.reason for each in checked for issue in each.issues))
    rules: list[dict[str, Any]] = []
    for reason in reasons:
        name = "".join(part.capitalize() for part in reason.split("_"))
        text = RULES.get(reason, "The document breaks a rule of contracts.")
        rules.append({"id": reason, "name": name, "shortDescription": {"text": text}})
    results = [_result(each.file, issue, reasons) for each in checked for issue in each.issues]
    driver = {"name": _NAME, "version": version("counterfoil-cli"), "rules": rules}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False) + "\n"


def _result(file: Path, issue: Issue, reasons: Sequence[str]) -> dict[str, Any]:
    place = {"artifactLocation": {"uri": _uri(file)}, "region": {"startLine": issue.line or 1}}
    told = {"path": issue.path, "dataset": issue.dataset, "consumer": issue.consumer, "witness": issue.witness}
    properties = {key: value for key, value in told.items() if value not in ("", None)}
    result = {
        "ruleId": issue.reason,
        "ruleIndex": reasons.index(issue.reason),
        "level": issue.level.value,
        "message": {"text": _line(issue)},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"counterfoilIssue/v1": f"{issue.reason}|{issue.dataset}|{issue.path}|{issue.consumer}"},
    }
    return result | ({"properties": properties} if properties else {})


def _uri(file: Path) -> str:
    absolute = file.resolve()
    here = Path.cwd().resolve()
    if absolute.is_relative_to(here):
        return quote(absolute.relative_to(here).as_posix())
    return absolute.as_uri()


def _line(issue: Issue) -> str:
    """Return an issue in one line, with the record that shows it."""
    place = " ".join(part for part in (issue.dataset, issue.path) if part)
    example = f" For example: {shown(issue.witness)}" if issue.witness is not None else ""
    return f"{issue.reason}{f' {place}' if place else ''}: {issue.message}{example}"


def as_text(checked: Sequence[Checked]) -> str:
    """Return a paragraph per file: whether it can come into force, and every issue with the record that shows it."""
    return "\n".join(line for each in checked for line in _paragraph(each))


def _paragraph(checked: Checked) -> Iterator[str]:
    answer = checked.answer
    if checked.failed:
        yield f"{checked.file}: not as it is"
    else:
        datasets = ", ".join(each["dataset"] for each in answer.get("compiled", [])) or "no dataset"
        yield f"{checked.file}: can come into force; it governs {datasets}"
    yield from (f"  {line}" for line in _verdict(answer))
    for aspect in Aspect:
        issues = _of(checked, aspect)
        if issues:
            yield f"  {aspect.value}:"
        for each in issues:
            yield from (f"    {line}" for line in _told(each))
    yield ""


def _verdict(answer: dict[str, Any]) -> Iterator[str]:
    whole = answer.get("comparison", {})
    if whole.get("needed_version"):
        yield f"compared with {whole['in_force_version']}, in force: a {whole['level'].lower()} change"
    ways = [each[way]["verdict"] for each in answer.get("comparisons", []) for way in ("backward", "forward")]
    if ways and all(each == "PROVEN_COMPATIBLE" for each in ways):
        yield "proven compatible, for those who send and for those who read"


def _told(issue: Issue) -> Iterable[str]:
    place = " ".join(part for part in (issue.dataset, issue.path) if part)
    line = f", line {issue.line}" if issue.line else ""
    yield f"{issue.level.value} {issue.reason}{f' at {place}' if place else ''}{line}: {issue.message}"
    if issue.witness is not None:
        yield f"  for example {shown(issue.witness)}"


FORMATS: dict[str, Report] = {"text": as_text, "json": as_json, "junit": as_junit, "sarif": as_sarif}
"""Every format by the name that `--format` takes."""
