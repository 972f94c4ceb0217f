"""The two groups of a lift: who is in them, what is known of both from before, and how alike they are."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from counterfoil_models.entities import Gap
from counterfoil_models.errors import GroupTooSmallError
from counterfoil_models.lift_matching import Matches, matched_means
from counterfoil_models.lift_regression import Flags, Floats
from counterfoil_models.lift_spec import LiftSpec
from counterfoil_models.lift_units import Known, UnitTable, day_number
from counterfoil_models.series import NO_DAY

MAX_CATEGORIES = 30
"""Categories of one covariate, the most frequent ones; the rest are one."""

MIN_CATEGORY_UNITS = 5
"""Categories of fewer units are one, too, since a balance must not tell of single people; one with fewer units, or all
but fewer, in either group is matched on but not adjusted for."""

UNITS_PER_COVARIATE = 5
"""A regression takes at most one covariate per this many units of the smaller group, the earlier measures first."""

SMALL_GROUP = 30
"""Intervals of groups below this size lean on normal means; they are told."""

OVERLAP = 0.99
"""Treated units beyond this share of the control, either way, have few alike."""

POOR_OVERLAP = 0.1
"""Share of such units among the treated from which it is told."""

ABSENT = "(absent)"
OTHER = "(other)"


@dataclass(frozen=True)
class Covariate:
    """One thing known of every kept unit from before: a number, or 1 for those of a category."""

    name: str
    values: Floats
    category: bool


@dataclass(frozen=True)
class Groups:
    """The kept units: who is treated, what they did, and what is known of them from before."""

    kept: Flags
    treated: Flags
    covariates: tuple[Covariate, ...]
    gaps: tuple[Gap, ...]

    @property
    def matrix(self) -> Floats:
        """Every covariate, a column each."""
        return np.column_stack([one.values for one in self.covariates])

    @property
    def left_out(self) -> int:
        """How many units are in neither group."""
        return int((~self.kept).sum())


@dataclass(frozen=True)
class Balance:
    """How alike the groups are in one thing, as they are and matched; differences are in standard deviations."""

    covariate: str
    treated_mean: float
    control_mean: float
    difference_before: float
    matched_mean: float
    difference_matched: float


def groups_of(spec: LiftSpec, table: UnitTable, *, allowed: Flags | None) -> Groups:
    """Part the units into treated and control; `allowed` tells who may be used, None = all may.

    Left out, counted once each by the first reason: without consent, assigned before the time before had ended (when
    the spec says so), assigned after the period. A unit whose time of assignment is not known is treated.

    Raises GroupTooSmallError when a group has fewer than two units.
    """
    kept, gaps = np.ones(len(table.names), dtype=np.bool_), list[Gap]()
    if allowed is not None:
        _leave_out(kept, ~allowed, gaps, "NO_CONSENT", "units have no consent for this purpose and are left out")
    timed = table.first_assigned != NO_DAY
    if spec.assignment.leave_out_assigned_before:
        early = timed & (table.first_assigned <= day_number(spec.pre_last_day))
        _leave_out(kept, early, gaps, "ASSIGNED_BEFORE", "units were assigned before the time before had ended")
    late = timed & (table.first_assigned > day_number(spec.last_day))
    _leave_out(kept, late, gaps, "ASSIGNED_AFTER", "units were assigned only after the period and are left out")
    treated = table.assigned[kept]
    sizes = {"treated": int(treated.sum()), "control": int((~treated).sum())}
    for group, size in sizes.items():
        if size < 2:
            raise GroupTooSmallError(
                f"The {group} group has {size} units of {len(treated)}; a comparison needs two in each group. "
                "See the filter, the days and the consents.",
                metadata={group: str(size), "left_out": str(int((~kept).sum()))},
            )
    small = min(sizes.values())
    if small < SMALL_GROUP:
        gaps.append(Gap("SMALL_GROUP", f"A group has {small} units only: its interval is rough.", small))
    covariates = [Covariate(f"{name} before", values[kept], category=False) for name, values in table.before.items()]
    for known in table.known:
        covariates += _covariates(known, kept)
    return Groups(kept, treated, tuple(covariates), tuple(gaps + _overlap_gaps(covariates, treated)))


def adjustable(groups: Groups) -> tuple[list[Covariate], list[Gap]]:
    """Choose what the regressions take, and tell what they leave out.

    A covariate has to vary in both groups, a category with at least five units on either side; at most one covariate
    is taken per five units of the smaller group.
    """
    treated = groups.treated
    room = min(int(treated.sum()), int((~treated).sum())) // UNITS_PER_COVARIATE
    taken = [one for one in groups.covariates if _varies(one, treated) and _varies(one, ~treated)]
    taken = taken[:room]
    names = {one.name for one in taken}
    dropped = [one for one in groups.covariates if one.name not in names and np.ptp(one.values) > 0]
    if not dropped:
        return taken, []
    concerned = np.zeros(len(treated), dtype=np.bool_)
    for one in dropped:
        concerned |= (one.values > 0) if one.category else True
    shown = ", ".join(one.name for one in dropped[:5]) + (", …" if len(dropped) > 5 else "")
    detail = f"{len(dropped)} covariates vary too little or are too many to adjust for; they are matched on: {shown}."
    return taken, [Gap("NOT_ADJUSTED_FOR", detail, int(concerned.sum()))]


def places_of(groups: Groups) -> Floats:
    """Return where units stand for matching: measures in standard deviations; another category is as far as one."""
    columns = [np.zeros(len(groups.treated))]
    for one in groups.covariates:
        scale = math.sqrt(2.0) if one.category else _deviation(one.values, groups.treated)
        if scale > 0:
            columns.append(one.values / scale)
    return np.column_stack(columns)


def balance_of(groups: Groups, matches: Matches) -> list[Balance]:
    """Compare the groups in every covariate (standardised mean differences, Austin 2009)."""
    treated = groups.treated
    matched = matched_means(groups.matrix, treated, matches)
    table = []
    for one, mean in zip(groups.covariates, matched.tolist(), strict=True):
        scale = _deviation(one.values, treated) or float(one.values.std()) or 1.0
        of_treated, of_control = float(one.values[treated].mean()), float(one.values[~treated].mean())
        table.append(
            Balance(
                one.name, of_treated, of_control, (of_treated - of_control) / scale, mean, (of_treated - mean) / scale
            )
        )
    return table


def _leave_out(kept: Flags, whom: Flags, gaps: list[Gap], reason: str, what: str) -> None:
    count = int((kept & whom).sum())
    kept &= ~whom
    if count:
        gaps.append(Gap(reason, f"{count} {what}.", count))


def _overlap_gaps(covariates: Sequence[Covariate], treated: Flags) -> list[Gap]:
    """Tell how many treated units lie beyond nearly all of the control in what they did before."""
    first = covariates[0]
    if not np.ptp(first.values):
        return [Gap("NOTHING_BEFORE", "No unit differs from another in the time before: it adjusts for nothing.", 0)]
    low, high = np.quantile(first.values[~treated], (1 - OVERLAP, OVERLAP)).tolist()
    beyond = int(((first.values[treated] > high) | (first.values[treated] < low)).sum())
    if beyond <= POOR_OVERLAP * treated.sum():
        return []
    detail = f"{beyond} treated units lie beyond {OVERLAP:.0%} of the control in {first.name}: they have few alike."
    return [Gap("POOR_OVERLAP", detail, beyond)]


def _covariates(known: Known, kept: Flags) -> list[Covariate]:
    if known.numbers is not None:
        return _number(known.field, known.numbers[kept])
    texts = [ABSENT if text is None else text for text, keep in zip(known.texts, kept, strict=True) if keep]
    ranked = sorted(Counter(texts).items(), key=lambda pair: (-pair[1], pair[0]))
    shown = [text for text, units in ranked if units >= MIN_CATEGORY_UNITS and text != ABSENT][:MAX_CATEGORIES]
    if ABSENT in texts:
        shown.insert(0, ABSENT)
    if len(shown) < len(ranked):
        frequent = set(shown)
        texts = [text if text in frequent else OTHER for text in texts]
        shown = list(dict.fromkeys([*shown, OTHER]))
    column = np.asarray(texts, dtype=object)
    return [Covariate(f"{known.field}={text}", (column == text).astype(np.float64), category=True) for text in shown]


def _number(field: str, numbers: Floats) -> list[Covariate]:
    absent = np.isnan(numbers)
    mean = float(numbers[~absent].mean()) if not absent.all() else 0.0
    found = [Covariate(field, np.where(absent, mean, numbers), category=False)]
    if absent.any():
        found.append(Covariate(f"{field}={ABSENT}", absent.astype(np.float64), category=True))
    return found


def _varies(one: Covariate, group: Flags) -> bool:
    values = one.values[group]
    if one.category:
        return bool(MIN_CATEGORY_UNITS <= values.sum() <= len(values) - MIN_CATEGORY_UNITS)
    return bool(np.ptp(values) > 0)


def _deviation(values: Floats, treated: Flags) -> float:
    return math.sqrt((float(values[treated].var(ddof=1)) + float(values[~treated].var(ddof=1))) / 2)
