"""Which documents are checked, and what the answers mean for whoever wants to change a contract."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from counterfoil_cli.client import ApiProblem, Client, Json

SUFFIXES = (".odcs.yaml", ".odcs.yml", ".odcs.json")
COMPATIBLE = "PROVEN_COMPATIBLE"
TRIAL_SECONDS = 60.0
_POLL_SECONDS = 0.25
_REFUSED = (400, 409, 413, 422)
"""Answers that are about the document; any other failure is about the call, and ends the command."""


class Level(Enum):
    """How much an issue matters: errors keep a document from coming into force as it is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Aspect(Enum):
    """What is looked at of a document, in the order that it is told."""

    DOCUMENT = "the document"
    VERSION = "the version number"
    CONSUMERS = "consumers"
    SENDERS = "those who send"
    READERS = "those who read all of it"
    RECORDS = "recent records"


RULES = {
    "VERSION_TOO_LOW": "The version's number is lower than what it changes asks for.",
    "DATASET_TAKEN": "Another contract governs a dataset.",
    "CONSUMER_BROKEN": "A registered consumer reads what changes; a second person has to approve that.",
    "CONSUMER_UNPROVEN": "That a registered consumer goes on as before could not be proven.",
    "SENDER_BROKEN": "Records that are accepted today would be refused.",
    "SENDER_UNPROVEN": "That the records of today are still accepted could not be proven.",
    "READER_BROKEN": "Records would come that today's version refuses; it matters to those who read what changes.",
    "READER_UNPROVEN": "That no records come that today's version refuses could not be proven.",
    "RECENT_RECORDS_FAIL": "Records that came in lately would be refused.",
    "RECENT_RECORDS_UNTRIED": "The recent records were not tried.",
}
"""What each reason means that is not a finding of the document itself."""


@dataclass(frozen=True)
class Issue:
    """One thing that was found; `witness` is a record (JSON) that shows it, `line` 0 where no line is to blame."""

    level: Level
    aspect: Aspect
    reason: str
    message: str
    path: str = ""
    dataset: str = ""
    consumer: str = ""
    line: int = 0
    witness: Any = None


@dataclass(frozen=True)
class Checked:
    """What checking one document gave; `answer` is the API's, empty when it refused the document."""

    file: Path
    issues: Sequence[Issue] = ()
    answer: Json = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Tell whether the document cannot come into force as it is."""
        return any(each.level is Level.ERROR for each in self.issues)


def documents(paths: Sequence[Path]) -> list[Path]:
    """Return the files, and of each folder those below it that are called `*.odcs.yaml`, `.yml` or `.json`."""
    found: dict[Path, None] = {}
    for path in paths:
        inside = [each for each in path.rglob("*") if each.name.endswith(SUFFIXES)] if path.is_dir() else [path]
        found.update(dict.fromkeys(sorted(inside)))
    return list(found)


def check(client: Client, file: Path, *, records: int = 0) -> Checked:
    """Check one document, and with `records` try it on so many recent ones; raise ApiError when that fails."""
    document = file.read_bytes()
    try:
        answer = client.check_contract(document)
    except ApiProblem as problem:
        if problem.status not in _REFUSED:
            raise
        return Checked(file, [Issue(Level.ERROR, Aspect.DOCUMENT, problem.reason, problem.detail)])
    issues = [*_findings(answer), *_version(answer), *_consumers(answer), *_comparisons(answer)]
    if records and not answer.get("findings"):
        issues += _trial(client, document, records)
    return Checked(file, issues, answer)


def _findings(answer: Json) -> Iterator[Issue]:
    for found in answer.get("findings", []):
        yield Issue(
            Level.ERROR,
            Aspect.DOCUMENT,
            found.get("reason", "CONTRACT_INVALID"),
            found.get("detail", ""),
            path=found.get("path", ""),
            line=found.get("line", 0),
        )


def _version(answer: Json) -> Iterator[Issue]:
    whole = answer.get("comparison", {})
    if whole.get("needed_version") and not whole.get("version_suffices"):
        message = (
            f"Compared with {whole['in_force_version']}, which is in force, this is a {whole['level'].lower()} change. "
            f"Call it {whole['needed_version']} or higher."
        )
        yield Issue(Level.ERROR, Aspect.VERSION, "VERSION_TOO_LOW", message, path="$.version")
    own = {each.get("contract_id") for each in answer.get("compiled", [])}
    for each in answer.get("comparisons", []):
        if each["contract_id"] not in own:
            message = f"Contract {each['contract_id']} governs the dataset. Submit a version of that contract."
            yield Issue(Level.ERROR, Aspect.VERSION, "DATASET_TAKEN", message, dataset=each["dataset"])


def _consumers(answer: Json) -> Iterator[Issue]:
    for consumer in answer.get("comparison", {}).get("consumers", []):
        reason = "CONSUMER_UNPROVEN" if consumer["verdict"] == "UNPROVEN" else "CONSUMER_BROKEN"
        who = consumer["name"] + (f" ({consumer['owner']})" if consumer.get("owner") else "")
        breaks = consumer.get("breaks") or [{"detail": "nothing proves that it goes on as before"}]
        for found in breaks:
            yield Issue(
                Level.ERROR,
                Aspect.CONSUMERS,
                reason,
                f"{who}: {found.get('detail', '')}",
                path=found.get("path", ""),
                dataset=consumer["dataset"],
                consumer=consumer["name"],
                witness=found.get("witness"),
            )


def _comparisons(answer: Json) -> Iterator[Issue]:
    """Yield what is not proven compatible; a major version says of itself that senders have to change."""
    announced = answer.get("comparison", {}).get("version_suffices", False)
    for each in answer.get("comparisons", []):
        level = Level.WARNING if announced else Level.ERROR
        yield from _schema(each, "backward", Aspect.SENDERS, level=level)
        yield from _schema(each, "forward", Aspect.READERS, level=Level.NOTE)


def _schema(comparison: Json, way: str, aspect: Aspect, *, level: Level) -> Iterator[Issue]:
    found, who = comparison[way], "SENDER" if aspect is Aspect.SENDERS else "READER"
    for each in found.get("breaks", []):
        yield Issue(
            level,
            aspect,
            f"{who}_BROKEN",
            each.get("detail", ""),
            path=each.get("path", ""),
            dataset=comparison["dataset"],
            witness=each.get("witness"),
        )
    if found["verdict"] == "UNPROVEN":
        message = "Neither a proof nor a counterexample was found; taken for breaking."
        yield Issue(level, aspect, f"{who}_UNPROVEN", message, dataset=comparison["dataset"])


def _trial(client: Client, document: bytes, records: int) -> Iterator[Issue]:
    """Yield how the document would do on recent records; the verdict does not depend on it."""
    try:
        check = client.post("/v1/checks", {"trial": {"document": document.decode()}, "records": records})
    except ApiProblem as problem:
        yield Issue(Level.WARNING, Aspect.RECORDS, "RECENT_RECORDS_UNTRIED", problem.detail)
        return
    end = time.monotonic() + TRIAL_SECONDS
    while check.get("state") == "PENDING" and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
        check = client.get(f"/v1/checks/{check['check_id']}")
    if check.get("state") != "DONE":
        detail = check.get("error_detail") or "They were not tried in time; look at the check later."
        yield Issue(Level.WARNING, Aspect.RECORDS, "RECENT_RECORDS_UNTRIED", detail)
    for trial in check.get("trials", []):
        if trial.get("failed"):
            message = f"{trial['failed']:,} of the last {trial.get('tried', 0):,} records would be refused"
            faults = ", ".join(
                f"{each.get('path', '$')} {each.get('reason', '')} ({each.get('records', 0):,})"
                for each in trial.get("faults", [])[:5]
            )
            text = f"{message}: {faults}" if faults else message
            yield Issue(Level.WARNING, Aspect.RECORDS, "RECENT_RECORDS_FAIL", text, dataset=trial["dataset"])


def shown(witness: Any) -> str:
    """Return a record as text; nothing when there is none."""
    return "" if witness is None else json.dumps(witness, ensure_ascii=False)
