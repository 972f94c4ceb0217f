"""What `observability/slo.yaml` may hold, and its reading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from tools.slo.dashboards import Dashboard

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "observability"


class Part(BaseModel):
    """Refuses what it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Example(Part):
    """The labels of the series of a unit test."""

    labels: str
    good: str = ""
    bad: str = ""


class Objective(Part):
    """A share of requests, or of time, that must be good."""

    name: str = Field(pattern="^[a-z-]+$")
    title: str
    owner: str
    target: float = Field(gt=100 * (1 - 1 / 14.4), lt=100)  # or the fastest burn could never be reached
    runbook: str
    requests: str = ""
    select: str = ""
    failed: str = ""
    slower_than: str = ""
    gauge: str = ""
    above: float = 0
    example: Example

    @property
    def budget(self) -> float:
        """Return the share that may be bad."""
        return round(1 - self.target / 100, 6)

    @property
    def total(self) -> str:
        """Return the expression of how much there was, per second."""
        if self.gauge:
            return "vector(1)"
        if self.failed:
            return f'sum(rate({self.requests}_total{{job="counterfoil",{self.select}}}[5m]))'
        return f'sum(rate({self.requests}_duration_seconds_count{{job="counterfoil",{self.select}}}[5m]))'

    @property
    def bad(self) -> str:
        """Return the expression of how much of it was bad; a series that never was counts as none."""
        if self.gauge:
            return f"max({self.gauge}) > bool {self.above:g} or vector(1)"
        if self.failed:
            failed = f'{self.requests}_total{{job="counterfoil",{self.select},{self.failed}}}'
            return f"sum(rate({failed}[5m])) or 0 * {self.total}"
        fast = f'{self.requests}_duration_seconds_bucket{{job="counterfoil",{self.select},le="{self.slower_than}"}}'
        return f"{self.total} - sum(rate({fast}[5m]))"

    def alert(self, severity: str) -> str:
        """Return the name of one of its two alerts."""
        name = "".join(word.capitalize() for word in self.name.split("-"))
        return f"{name}Burns{'Fast' if severity == 'page' else 'Slowly'}"


class Alert(Part):
    """A condition under which somebody is told."""

    name: str
    each: Literal["services", "memory_limits"] | None = None
    summary: str
    owner: str
    severity: Literal["page", "ticket"]
    runbook: str
    expr: str
    for_: str = Field(alias="for")
    labels: dict[str, str]
    fires: dict[str, str]
    silent: dict[str, str]


class Definition(Part):
    """The whole of slo.yaml."""

    runbooks: str
    window: str
    macros: dict[str, str]
    owners: dict[str, str]
    services: list[str]
    memory_limits: dict[str, int]
    objectives: list[Objective]
    alerts: list[Alert]
    left_out: dict[str, str]
    dashboards: list[Dashboard]

    def conditions(self) -> Iterator[Alert]:
        """Yield every alert on a condition, one per service where it is for each."""
        for alert in self.alerts:
            values: Mapping[str, int] = (
                dict.fromkeys(self.services, 0) if alert.each == "services" else self.memory_limits
            )
            for service, value in values.items() if alert.each else [("", 0)]:
                text = alert.model_dump_json(by_alias=True).replace("$each", service).replace("$value", str(value))
                name = alert.name + "".join(word.capitalize() for word in service.split("-"))
                yield Alert.model_validate_json(text).model_copy(update={"name": name})


def load() -> Definition:
    """Read slo.yaml; raise ValueError where it promises what it cannot keep."""
    text = (FOLDER / "slo.yaml").read_text()
    macros = yaml.safe_load(text)["macros"]
    for name, value in macros.items():
        text = text.replace(f"${name}", value)
    found = Definition.model_validate(yaml.safe_load(text) | {"macros": macros})
    told: list[Objective | Alert] = [*found.objectives, *found.alerts]
    for each in told:
        if each.owner not in found.owners:
            raise ValueError(f"{each.name}: the owner {each.owner} is none of {', '.join(found.owners)}")
        if not (ROOT / "docs" / "runbooks" / f"{each.runbook}.md").is_file():
            raise ValueError(f"{each.name}: docs/runbooks/{each.runbook}.md does not exist")
    return found
