"""The naive and the adjusted estimate: differences of means, as they are and by regression on the time before.

Both are the effect on the treated: `difference` times the number of treated is what would be missing without them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

RANK_TOLERANCE = 1e-10
"""Singular values below this share of the largest one are taken for zero: their columns are collinear."""


@dataclass(frozen=True)
class Difference:
    """The mean of the treated against the control's as a method compares it, with its interval."""

    treated_mean: float
    control_mean: float
    lower: float
    upper: float
    treated_used: int
    control_used: int

    @property
    def difference(self) -> float:
        """The effect per treated unit."""
        return self.treated_mean - self.control_mean


@dataclass(frozen=True)
class _Intercept:
    """A regression's prediction where every covariate is zero, its HC2 variance and its degrees of freedom."""

    value: float
    variance: float
    degrees: float


def naive(outcome: Floats, treated: Flags, *, coverage: float) -> Difference:
    """Compare the means as they are; Welch (1947) interval. Each group needs two units.

    Without any variance the interval is the point.
    """
    none = np.empty((len(outcome), 0))
    return _compared(outcome, treated, none, coverage=coverage)


def adjusted(outcome: Floats, treated: Flags, covariates: Floats, *, coverage: float) -> Difference:
    """Compare the treated with what a regression of the control predicts for units like them (Lin 2013).

    `covariates` has a row per unit: what units did before and what else is known of them. It is the fully interacted
    regression, with covariates centred at the mean of the *treated*, so that the coefficient of the treatment is the
    effect on the treated and not on everybody; that is the same as one regression per group, which is how it is done.
    Errors are HC2 (MacKinnon and White 1985); the interval's degrees of freedom are those of Bell and McCaffrey
    (2002; Imbens and Kolesar 2016), which fall when few control units carry the prediction, and make it a Welch
    interval when there is no covariate. Collinear columns are solved by least norm. Measures enter as they are:
    spending given earlier spending is close to linear (it is exactly so for Poisson purchases at gamma rates), and
    logarithms would compare percentages where money is asked for.
    """
    return _compared(outcome, treated, covariates - covariates[treated].mean(axis=0), coverage=coverage)


def _compared(outcome: Floats, treated: Flags, centred: Floats, *, coverage: float) -> Difference:
    treatment = _intercept(outcome[treated], centred[treated])
    control = _intercept(outcome[~treated], centred[~treated])
    half = _half_width(treatment, control, coverage=coverage)
    difference = treatment.value - control.value
    return Difference(
        treated_mean=treatment.value,
        control_mean=control.value,
        lower=difference - half,
        upper=difference + half,
        treated_used=int(treated.sum()),
        control_used=int((~treated).sum()),
    )


def _intercept(outcome: Floats, covariates: Floats) -> _Intercept:
    scale = np.sqrt(np.mean(covariates**2, axis=0))
    design = np.column_stack([np.ones(len(outcome)), covariates / np.where(scale > 0, scale, 1.0)])
    left, singular, right = np.linalg.svd(design, full_matrices=False)
    kept = singular > RANK_TOLERANCE * singular[0]
    left, singular, right = left[:, kept], singular[kept], right[kept]
    # The intercept is `weights @ outcome`; what a unit's own outcome adds to its prediction is its leverage.
    weights = left @ (right[:, 0] / singular)
    leverage = np.einsum("ij,ij->i", left, left)
    residual = outcome - left @ (left.T @ outcome)
    free = np.maximum(1.0 - leverage, 0.0)
    share = np.where(free > RANK_TOLERANCE, weights**2 / np.where(free > RANK_TOLERANCE, free, 1.0), 0.0)
    variance = float(np.sum(share * residual**2))
    if variance <= (RANK_TOLERANCE * max(1.0, float(np.abs(outcome).max()))) ** 2:
        variance = 0.0  # a constant outcome leaves rounding errors, not a variance
    inner = left.T @ (share[:, None] * left)
    spread = float(np.sum(share**2 * (1.0 - 2.0 * leverage)) + np.sum(inner**2))
    trace = float(np.sum(share * free))
    degrees = trace**2 / spread if spread > 0 else float(len(outcome) - len(singular))
    return _Intercept(float(weights @ outcome), variance, max(degrees, 1.0))


def _half_width(treatment: _Intercept, control: _Intercept, *, coverage: float) -> float:
    from scipy import stats  # noqa: PLC0415 - SciPy costs more than all else at start

    variance = treatment.variance + control.variance
    if variance == 0:
        return 0.0
    parts = treatment.variance**2 / treatment.degrees + control.variance**2 / control.degrees
    return float(stats.t.ppf(0.5 + coverage / 2, variance**2 / parts) * np.sqrt(variance))
