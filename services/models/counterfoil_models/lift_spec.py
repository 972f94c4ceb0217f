"""What a lift measures, with its defaults filled in and its contradictions refused."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from counterfoil_chassis.errors import FieldViolation

from counterfoil_models.errors import SpecInvalidError

OUTCOME_ROLE = "outcome"
ASSIGNMENT_ROLE = "assignment"
LOOKUP_ROLE = "lookup"
COVARIATES_ROLE = "covariates"

DEFAULT_COVERAGE = 0.95
DEFAULT_PURPOSE = "measurement"

Document = dict[str, Any]


@dataclass(frozen=True)
class LiftOutcome:
    """What the units did: `value` is summed when `value_field` is named, `count` is always measured."""

    dataset: str
    unit_field: str
    time_field: str
    unit_type: str = ""
    value_field: str = ""
    currency: str = ""
    count_field: str = ""
    cost_fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class LiftAssignment:
    """Who was treated: a record per unit and assignment, with its time here or in the lookup dataset."""

    dataset: str
    unit_field: str
    filter_values: tuple[str, ...] = ()
    filter_field: str = ""
    time_field: str = ""
    lookup_dataset: str = ""
    lookup_key: str = ""
    leave_out_assigned_before: bool = False


@dataclass(frozen=True)
class LiftCovariates:
    """What else is known of the units."""

    dataset: str
    unit_field: str
    fields: tuple[str, ...]


@dataclass(frozen=True)
class LiftSpec:
    """What is measured, in which days; days are the workspace's and both ends count."""

    outcome: LiftOutcome
    assignment: LiftAssignment
    first_day: date
    last_day: date
    pre_first_day: date
    pre_last_day: date
    covariates: LiftCovariates | None = None
    coverage: float = 0.0
    name: str = ""

    @property
    def measures(self) -> tuple[str, ...]:
        """What is measured of each unit: `value` and `count`, or `count` alone."""
        return ("value", "count") if self.outcome.value_field else ("count",)

    def datasets(self) -> dict[str, str]:
        """Return the datasets that are read, by role."""
        found = {OUTCOME_ROLE: self.outcome.dataset, ASSIGNMENT_ROLE: self.assignment.dataset}
        if self.assignment.lookup_dataset:
            found[LOOKUP_ROLE] = self.assignment.lookup_dataset
        if self.covariates is not None:
            found[COVARIATES_ROLE] = self.covariates.dataset
        return found


def completed_lift_spec(spec: LiftSpec) -> LiftSpec:
    """Fill in the defaults (0 = not said); raise SpecInvalidError when fields contradict each other."""
    faults = [*_day_faults(spec), *_outcome_faults(spec.outcome), *_assignment_faults(spec.assignment)]
    if faults:
        raise spec_error(faults)
    return replace(spec, coverage=spec.coverage or DEFAULT_COVERAGE)


def spec_error(faults: Sequence[tuple[str, str, str]]) -> SpecInvalidError:
    """Make one error of (field below `spec`, reason, what is wrong)."""
    violations = [FieldViolation(f"spec.{field}", reason, text) for field, reason, text in faults]
    return SpecInvalidError(" ".join(text for _, _, text in faults), violations=violations)


def parse_day(text: str, field: str) -> date:
    """Read an ISO 8601 day; raise SpecInvalidError for one that no calendar has."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise spec_error([(field, "BAD_VALUE", f"{field} {text!r} is no day of the calendar.")]) from None


def _day_faults(spec: LiftSpec) -> list[tuple[str, str, str]]:
    faults = []
    if spec.last_day < spec.first_day:
        faults.append(("last_day", "BAD_VALUE", "The last day lies before the first day."))
    if spec.pre_last_day < spec.pre_first_day:
        faults.append(("pre_last_day", "BAD_VALUE", "The time before ends before it begins."))
    if spec.pre_last_day >= spec.first_day:
        faults.append(("pre_last_day", "BAD_VALUE", "The time before has to end before the first day."))
    return faults


def _outcome_faults(outcome: LiftOutcome) -> list[tuple[str, str, str]]:
    faults = []
    if outcome.cost_fields and not outcome.currency:
        faults.append(("outcome.currency", "REQUIRED", "Costs need a currency."))
    if outcome.currency and not (outcome.value_field or outcome.cost_fields):
        faults.append(("outcome.currency", "NOT_ALLOWED", "A currency needs a value field or cost fields."))
    if len(set(outcome.cost_fields)) < len(outcome.cost_fields):
        faults.append(("outcome.cost_fields", "BAD_VALUE", "A cost field is named twice."))
    return faults


def _assignment_faults(assignment: LiftAssignment) -> list[tuple[str, str, str]]:
    faults = []
    if bool(assignment.filter_values) != bool(assignment.filter_field):
        faults.append(("assignment.filter_field", "REQUIRED", "A filter needs its field and its values."))
    if bool(assignment.lookup_dataset) != bool(assignment.lookup_key):
        faults.append(("assignment.lookup_key", "REQUIRED", "A lookup needs its dataset and its key."))
    if assignment.lookup_dataset and not assignment.time_field:
        faults.append(("assignment.time_field", "REQUIRED", "A lookup needs the property of it that holds the time."))
    if assignment.leave_out_assigned_before and not assignment.time_field:
        text = "Units assigned before can only be left out when times are known: name the time field."
        faults.append(("assignment.time_field", "REQUIRED", text))
    return faults


def lift_spec_document(spec: LiftSpec) -> Document:
    """Return a spec as JSON: a receipt's parameters hold it."""
    covariates = spec.covariates
    return {
        "name": spec.name,
        "outcome": {**vars(spec.outcome), "cost_fields": list(spec.outcome.cost_fields)},
        "assignment": {**vars(spec.assignment), "filter_values": list(spec.assignment.filter_values)},
        "first_day": spec.first_day.isoformat(),
        "last_day": spec.last_day.isoformat(),
        "pre_first_day": spec.pre_first_day.isoformat(),
        "pre_last_day": spec.pre_last_day.isoformat(),
        "covariates": None if covariates is None else {**vars(covariates), "fields": list(covariates.fields)},
        "coverage": spec.coverage,
    }


def lift_spec_of(document: Document) -> LiftSpec:
    """Read a spec."""
    outcome, assignment, covariates = document["outcome"], document["assignment"], document["covariates"]
    return LiftSpec(
        name=document["name"],
        outcome=LiftOutcome(**{**outcome, "cost_fields": tuple(outcome["cost_fields"])}),
        assignment=LiftAssignment(**{**assignment, "filter_values": tuple(assignment["filter_values"])}),
        first_day=date.fromisoformat(document["first_day"]),
        last_day=date.fromisoformat(document["last_day"]),
        pre_first_day=date.fromisoformat(document["pre_first_day"]),
        pre_last_day=date.fromisoformat(document["pre_last_day"]),
        covariates=None
        if covariates is None
        else LiftCovariates(**{**covariates, "fields": tuple(covariates["fields"])}),
        coverage=float(document["coverage"]),
    )
