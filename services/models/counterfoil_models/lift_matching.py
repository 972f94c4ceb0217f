"""The matched estimate: every treated unit against the control units nearest to it in what was known before.

Nearest neighbours with replacement and bias correction; the effect on the treated (Abadie and Imbens 2006, 2011).
Units that are equally near all count, each with its share, so that nothing hangs on an order.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from counterfoil_models.lift_regression import RANK_TOLERANCE, Difference, Flags, Floats

VARIANCE_NEIGHBOURS = 2
"""How many units of the control a control unit's own variance is estimated from, at least; ties add to them."""

_TIE = 1e-9
_FIRST_NEIGHBOURS = 8

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Points:
    """The distinct places where control units stand, how many stand there, and the place of each control unit."""

    places: Floats
    units: Ints
    of_unit: Ints


@dataclass(frozen=True)
class Pairs:
    """Rows and the points near them, sorted by row; `units` counts whom a point holds for its row."""

    row: Ints
    point: Ints
    units: Ints


@dataclass(frozen=True)
class Matches:
    """Whom the treated are matched to: the pairs' shares, and of each control unit their sum and sum of squares."""

    points: Points
    pairs: Pairs
    share: Floats
    uses: Floats
    squared_uses: Floats


def match(places: Floats, treated: Flags) -> Matches:
    """Match each treated unit to the nearest control units; a row of `places` per unit, in units of distance."""
    found, of_unit, units = np.unique(places[~treated], axis=0, return_inverse=True, return_counts=True)
    points = Points(found, units.astype(np.int64), of_unit.reshape(-1).astype(np.int64))
    wanted, which = np.unique(places[treated], axis=0, return_inverse=True)
    distinct = _nearest(points, wanted, own=np.full(len(wanted), -1), need=1)
    pairs = _spread(distinct, which.reshape(-1), rows=len(wanted))
    total = np.bincount(pairs.row, weights=pairs.units)[pairs.row]
    size = len(points.units)
    uses = np.bincount(pairs.point, weights=1.0 / total, minlength=size).astype(np.float64)
    squared = np.bincount(pairs.point, weights=1.0 / total**2, minlength=size).astype(np.float64)
    return Matches(points, pairs, pairs.units / total, uses[points.of_unit], squared[points.of_unit])


def matched(outcome: Floats, treated: Flags, covariates: Floats, matches: Matches, *, coverage: float) -> Difference:
    """Compare each treated unit with the mean of its matches, corrected for what they still differ in.

    The correction is a regression of the matched control units, each counted as often as it is used, on
    `covariates` (Abadie and Imbens 2011). The variance is that of the effect on the treated, with each control unit's
    own variance from its nearest neighbours in the control (Abadie and Imbens 2006, section 4); a bootstrap would not
    be valid (Abadie and Imbens 2008).
    """
    control = outcome[~treated]
    slope = _slope(control, covariates[~treated], matches.uses)
    from scipy import stats  # noqa: PLC0415 - SciPy costs more than all else at start

    points, pairs = matches.points, matches.pairs
    rest = np.bincount(points.of_unit, weights=control - covariates[~treated] @ slope) / points.units
    borrowed = np.bincount(pairs.row, weights=matches.share * rest[pairs.point])
    gain = outcome[treated] - covariates[treated] @ slope - borrowed
    difference = float(gain.mean())
    reused = (matches.uses**2 - matches.squared_uses) @ _own_variances(control, matches)
    variance = float(np.sum((gain - difference) ** 2) + reused) / len(gain) ** 2
    half = float(stats.norm.ppf(0.5 + coverage / 2) * np.sqrt(max(variance, 0.0)))
    treated_mean = float(outcome[treated].mean())
    return Difference(
        treated_mean=treated_mean,
        control_mean=treated_mean - difference,
        lower=difference - half,
        upper=difference + half,
        treated_used=len(gain),
        control_used=int((matches.uses > 0).sum()),
    )


def matched_means(covariates: Floats, treated: Flags, matches: Matches) -> Floats:
    """Return the control's mean of each covariate, each unit counted as often as it is used."""
    means: Floats = matches.uses @ covariates[~treated] / matches.uses.sum()
    return means


def _slope(outcome: Floats, covariates: Floats, uses: Floats) -> Floats:
    """Return the slopes of a weighted regression; of what does not vary among the matched they are zero."""
    centre = uses @ covariates / uses.sum()
    scale = np.sqrt(uses @ (covariates - centre) ** 2 / uses.sum())
    scale = np.where(scale > RANK_TOLERANCE * (1.0 + np.abs(centre)), scale, np.inf)
    root = np.sqrt(uses)
    design = (covariates - centre) / scale * root[:, None]
    target = (outcome - uses @ outcome / uses.sum()) * root
    slope: Floats = np.linalg.lstsq(design, target, rcond=RANK_TOLERANCE)[0] / scale
    return slope


def _own_variances(outcome: Floats, matches: Matches) -> Floats:
    """Return the variance of each used control unit, from its distance to the mean of its nearest in the control."""
    variances = np.zeros(len(outcome))
    if len(outcome) < 2:
        return variances
    points = matches.points
    used = np.flatnonzero(matches.uses > 0)
    own, row = np.unique(points.of_unit[used], return_inverse=True)
    need = min(VARIANCE_NEIGHBOURS, len(outcome) - 1)
    pairs = _nearest(points, points.places[own], own=own, need=need)
    sums = np.bincount(points.of_unit, weights=outcome)
    # The unit's own point is among its pairs exactly when others stand there, too.
    home = np.bincount(pairs.row, weights=pairs.point == own[pairs.row], minlength=len(own)) > 0
    total = np.bincount(pairs.row, weights=sums[pairs.point])[row] - np.where(home[row], outcome[used], 0.0)
    count = np.bincount(pairs.row, weights=pairs.units)[row]
    variances[used] = count / (count + 1) * (outcome[used] - total / count) ** 2
    return variances


def _nearest(points: Points, wanted: Floats, *, own: Ints, need: int) -> Pairs:
    """Find for each wanted place the nearest points until they hold `need` units, and all that are as near as the last.

    `own` names the point that a row stands on itself and counts one unit less of; -1 = none.
    """
    from scipy.spatial import cKDTree  # noqa: PLC0415

    tree, size = cKDTree(points.places), len(points.units)
    open_rows, ask = np.arange(len(wanted)), min(_FIRST_NEIGHBOURS, size)
    found: list[tuple[Ints, Ints, Ints]] = []
    while len(open_rows):
        distance, near = tree.query(wanted[open_rows], k=np.arange(1, ask + 1))
        units = points.units[near] - (near == own[open_rows, None])
        enough = np.cumsum(units, axis=1) >= need
        last = np.where(enough.any(axis=1), enough.argmax(axis=1), ask - 1)
        limit = distance[np.arange(len(open_rows)), last]
        limit = limit + _TIE * (1.0 + limit)
        settled = (enough.any(axis=1) & (distance[:, -1] > limit)) | (ask == size)
        held = (distance <= limit[:, None]) & (units > 0) & settled[:, None]
        rows, columns = np.nonzero(held)
        found.append((open_rows[rows], near[rows, columns].astype(np.int64), units[rows, columns]))
        open_rows, ask = open_rows[~settled], min(4 * ask, size)
    row, point, units = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((point, row))
    return Pairs(row[order], point[order], units[order])


def _spread(pairs: Pairs, which: Ints, *, rows: int) -> Pairs:
    """Give the pairs of distinct places to each unit that stands there."""
    begins = np.searchsorted(pairs.row, np.arange(rows + 1))
    lengths = np.diff(begins)[which]
    row = np.repeat(np.arange(len(which)), lengths)
    within = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    taken = begins[which][row] + within
    return Pairs(row, pairs.point[taken], pairs.units[taken])
