"""What was found, and what to do about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

SERVICES = ("gateway", "models", "graph", "ingest", "contracts", "governance")


class Outcome(StrEnum):
    """How something is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `remedy` says what to do where it is not well."""

    name: str
    outcome: Outcome
    told: str
    remedy: str = ""


def ok(name: str, told: str) -> Finding:
    """Return that something is well."""
    return Finding(name, Outcome.OK, told)


def warn(name: str, told: str, remedy: str) -> Finding:
    """Return that something works, and will not for long or not as it should."""
    return Finding(name, Outcome.WARN, told, remedy)


def fail(name: str, told: str, remedy: str) -> Finding:
    """Return that something does not work."""
    return Finding(name, Outcome.FAIL, told, remedy)


@dataclass(frozen=True)
class Patient:
    """The installation that is looked at: its folder, and every setting as its processes see it."""

    data: Path
    user: Mapping[str, str]
    """The environment of whoever asks."""
    variables: Mapping[str, str]
    """The same with what `counterfoil up` would add."""
    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What each process that runs said at `/healthz`."""
