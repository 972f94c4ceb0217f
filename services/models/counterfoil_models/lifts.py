"""A lift: every measure by every method, always together, with how alike the groups were and what it cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from counterfoil_chassis.canonical import rounded

from counterfoil_models.entities import Gap
from counterfoil_models.lift_groups import (
    UNITS_PER_COVARIATE,
    Balance,
    Groups,
    adjustable,
    balance_of,
    groups_of,
    places_of,
)
from counterfoil_models.lift_matching import match, matched
from counterfoil_models.lift_regression import Difference, Flags, Floats, adjusted, naive
from counterfoil_models.lift_spec import Document, LiftSpec, lift_spec_document
from counterfoil_models.lift_units import UnitTable

METHODS = ("naive", "adjusted", "matched")

ALIKE = 0.25
"""Standardised difference before above which groups are not alike (Imbens and Rubin 2015, chapter 14)."""

_NOTHING = 1e-12


@dataclass(frozen=True)
class Estimate:
    """One measure by one method."""

    measure: str
    method: str
    found: Difference


@dataclass(frozen=True)
class Costs:
    """What the treatment cost over the treated in the period, in millionths, by field."""

    parts: Mapping[str, int]

    @property
    def total(self) -> int | None:
        """The sum; None when no field holds a cost."""
        return sum(self.parts.values()) if self.parts else None


def make_lift(spec: LiftSpec, table: UnitTable, *, purpose: str, allowed: Flags | None) -> Document:
    """Measure a lift; the document is what a receipt's hash is of. Numbers have 9 significant digits.

    Raises GroupTooSmallError when a group has fewer than two units.
    """
    groups = groups_of(spec, table, allowed=allowed)
    estimates, balance, unadjusted = _estimates(spec, table, groups)
    costs = _costs(table, groups)
    gaps = (*table.gaps, *groups.gaps, *unadjusted)
    document: Document = rounded(
        {
            "spec": lift_spec_document(spec),
            "purpose": purpose,
            "treated": int(groups.treated.sum()),
            "control": int((~groups.treated).sum()),
            "left_out": groups.left_out,
            "estimates": [_estimate_document(one) for one in estimates],
            "balance": [vars(one) for one in balance],
            "cost": _cost_document(costs, estimates, spec.outcome.currency),
            "gaps": [vars(gap) for gap in gaps],
            "caveat": _caveat(spec, balance, gaps),
        }
    )
    return document


def _estimates(spec: LiftSpec, table: UnitTable, groups: Groups) -> tuple[list[Estimate], list[Balance], Sequence[Gap]]:
    taken, unadjusted = adjustable(groups)
    columns = np.column_stack([np.empty((len(groups.treated), 0)), *(one.values for one in taken)])
    matches = match(places_of(groups), groups.treated)
    few = columns[:, : int((matches.uses > 0).sum()) // UNITS_PER_COVARIATE]  # the correction sees the matched only
    estimates = []
    for measure in spec.measures:
        outcome, coverage = table.period[measure][groups.kept], spec.coverage
        found = {
            "naive": naive(outcome, groups.treated, coverage=coverage),
            "adjusted": adjusted(outcome, groups.treated, columns, coverage=coverage),
            "matched": matched(outcome, groups.treated, few, matches, coverage=coverage),
        }
        estimates += [Estimate(measure, method, found[method]) for method in METHODS]
    return estimates, balance_of(groups, matches), unadjusted


def _costs(table: UnitTable, groups: Groups) -> Costs:
    def total(values: Floats) -> int:
        return round(math.fsum(values[groups.kept][groups.treated].tolist()) * 1_000_000)

    return Costs({field: total(values) for field, values in table.costs.items()})


def _estimate_document(estimate: Estimate) -> Document:
    found = estimate.found
    # Equal means differ by what rounding leaves; told with 9 digits that would look like an effect.
    floor = _NOTHING * max(abs(found.treated_mean), abs(found.control_mean))
    difference, lower, upper = (
        0.0 if abs(end) <= floor else end for end in (found.difference, found.lower, found.upper)
    )
    control = found.control_mean
    return {
        "measure": estimate.measure,
        "method": estimate.method,
        "treated_mean": found.treated_mean,
        "control_mean": control,
        "difference": difference,
        "lower": lower,
        "upper": upper,
        "ratio": found.treated_mean / control if control > floor else None,
        "incremental": difference * found.treated_used,
        "incremental_lower": lower * found.treated_used,
        "incremental_upper": upper * found.treated_used,
        "treated_used": found.treated_used,
        "control_used": found.control_used,
    }


def _cost_document(costs: Costs, estimates: Sequence[Estimate], currency: str) -> Document:
    total = costs.total
    per = [one for one in estimates if one.measure == "count"] if total is not None else []
    return {
        "cost_micros": total,
        "currency": currency,
        "parts": [{"field": field, "cost_micros": micros} for field, micros in costs.parts.items()],
        "per_incremental": [_per_incremental(_estimate_document(one), total or 0) for one in per],
    }


def _per_incremental(estimate: Document, total: int) -> Document:
    def per(incremental: Any) -> int | None:
        return round(total / incremental) if incremental > 0 else None

    return {
        "method": estimate["method"],
        "cost_micros": per(estimate["incremental"]),
        "lower_micros": per(estimate["incremental_upper"]),
        "upper_micros": per(estimate["incremental_lower"]),
    }


def _caveat(spec: LiftSpec, balance: Sequence[Balance], gaps: Sequence[Gap]) -> str:
    first = balance[0]
    sentences = []
    if abs(first.difference_before) > ALIKE:
        times = f", {first.treated_mean / first.control_mean:.3g} times as much" if first.control_mean > 0 else ""
        sentences.append(
            f"The groups were not alike before: per unit, {first.covariate} is {first.treated_mean:.6g} among the "
            f"treated and {first.control_mean:.6g} in the control{times}. The naive difference holds that selection."
        )
    else:
        sentences.append(f"The groups were alike in {first.covariate}.")
    if any(gap.reason == "POOR_OVERLAP" for gap in gaps):
        sentences.append("Many treated units have hardly a like in the control, so that every estimate extrapolates.")
    if not spec.assignment.time_field:
        sentences.append("When units were assigned is not known: the time before may not be before.")
    sentences.append("What neither the time before nor the covariates show can bias every estimate.")
    return " ".join(sentences)
