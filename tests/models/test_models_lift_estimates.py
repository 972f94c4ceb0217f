"""The three estimates against independent computations, and in worlds whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from counterfoil_models.lift_matching import match, matched
from counterfoil_models.lift_regression import adjusted, naive
from hypothesis import assume, given, settings
from hypothesis import strategies as st

WORLDS = 120
TRUTH = 3.0


def small_world(seed: int, *, units: int = 70) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcome, treatment and covariates with many ties."""
    random = np.random.default_rng(seed)
    known = np.column_stack(
        [np.round(random.gamma(1, 2, units)), random.integers(0, 3, units), random.integers(0, 2, units)]
    ).astype(float)
    treated = random.random(units) < 0.3 + 0.4 * (known[:, 0] > 2)
    return known[:, 0] * 2 + random.normal(0, 1, units) + treated, treated, known


@pytest.mark.parametrize("seed", range(5))
def test_naive_is_welch(seed):
    from scipy import stats  # it takes half a second, which every worker would spend to find the tests

    outcome, treated, _ = small_world(seed)
    found = naive(outcome, treated, coverage=0.9)
    expected = stats.ttest_ind(outcome[treated], outcome[~treated], equal_var=False).confidence_interval(0.9)
    assert (found.lower, found.upper) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_adjusted_without_covariates_is_naive():
    outcome, treated, known = small_world(1)
    assert adjusted(outcome, treated, known[:, :0], coverage=0.95) == naive(outcome, treated, coverage=0.95)


@pytest.mark.parametrize("seed", range(5))
def test_adjusted_is_the_interacted_regression_with_hc2_errors(seed):
    outcome, treated, known = small_world(seed)
    found = adjusted(outcome, treated, known, coverage=0.95)
    centred = known - known[treated].mean(axis=0)
    design = np.column_stack([np.ones(len(outcome)), treated, centred, centred * treated[:, None]])
    slopes = np.linalg.lstsq(design, outcome, rcond=None)[0]
    inverse = np.linalg.inv(design.T @ design)
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    residual = outcome - design @ slopes
    error = np.sqrt(np.sum((design @ inverse[:, 1] * residual) ** 2 / (1 - leverage)))
    assert found.difference == pytest.approx(slopes[1], rel=1e-9)
    times = (found.upper - found.lower) / 2 / error
    assert 1.96 < times < 2.8  # a t quantile of few degrees of freedom


def test_collinear_and_constant_covariates_change_nothing():
    outcome, treated, known = small_world(2)
    more = np.column_stack([known, known[:, 0] + 2 * known[:, 1], np.ones(len(outcome))])
    one, other = (adjusted(outcome, treated, each, coverage=0.95) for each in (known, more))
    assert (one.difference, one.lower, one.upper) == pytest.approx((other.difference, other.lower, other.upper))


def direct_match(outcome, treated, places, covariates, *, neighbours=2):
    """Abadie and Imbens unit by unit: difference and standard error."""
    control = np.flatnonzero(~treated)
    uses, squared = np.zeros(len(outcome)), np.zeros(len(outcome))
    sets = {}
    for unit in np.flatnonzero(treated):
        distance = np.sqrt(((places[control] - places[unit]) ** 2).sum(axis=1))
        sets[unit] = control[distance <= distance.min() + 1e-9 * (1 + distance.min())]
        uses[sets[unit]] += 1 / len(sets[unit])
        squared[sets[unit]] += 1 / len(sets[unit]) ** 2
    root = np.sqrt(uses[control])
    design = np.column_stack([np.ones(len(control)), covariates[control]])
    slopes = np.linalg.lstsq(design * root[:, None], outcome[control] * root, rcond=1e-10)[0]
    predicted = np.column_stack([np.ones(len(outcome)), covariates]) @ slopes
    gains = np.array(
        [
            outcome[unit] - np.mean([outcome[other] + predicted[unit] - predicted[other] for other in others])
            for unit, others in sets.items()
        ]
    )
    variance = ((gains - gains.mean()) ** 2).sum()
    for unit in control[uses[control] > 0]:
        others = control[control != unit]
        distance = np.sqrt(((places[others] - places[unit]) ** 2).sum(axis=1))
        limit = np.sort(distance)[min(neighbours, len(others)) - 1]
        near = others[distance <= limit + 1e-9 * (1 + limit)]
        own = len(near) / (len(near) + 1) * (outcome[unit] - outcome[near].mean()) ** 2
        variance += (uses[unit] ** 2 - squared[unit]) * own
    return gains.mean(), np.sqrt(variance) / len(gains)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(30, 60))
def test_matched_is_abadie_and_imbens_computed_unit_by_unit(seed, units):
    from scipy import stats

    outcome, treated, known = small_world(seed, units=units)
    matches = match(known, treated)
    used = known[~treated][matches.uses > 0]
    assume(np.linalg.matrix_rank(np.column_stack([np.ones(len(used)), used])) == 4)
    found = matched(outcome, treated, known, matches, coverage=0.95)
    difference, error = direct_match(outcome, treated, known, known)
    half = stats.norm.ppf(0.975) * error
    assert (found.difference, found.lower, found.upper) == pytest.approx(
        (difference, difference - half, difference + half), rel=1e-6, abs=1e-9
    )


def test_matching_does_not_hang_on_the_order_of_units():
    outcome, treated, known = small_world(3)
    order = np.random.default_rng(0).permutation(len(outcome))
    one = matched(outcome, treated, known, match(known, treated), coverage=0.95)
    places = known[order]
    other = matched(outcome[order], treated[order], places, match(places, treated[order]), coverage=0.95)
    assert (one.difference, one.lower, one.upper) == pytest.approx((other.difference, other.lower, other.upper))
    assert one.control_used == other.control_used


def test_units_that_stand_all_at_one_place_are_matched_to_everybody():
    outcome, treated, known = small_world(4)
    found = matched(outcome, treated, known[:, :0], match(np.zeros((len(outcome), 1)), treated), coverage=0.95)
    assert found.difference == pytest.approx(naive(outcome, treated, coverage=0.95).difference)
    assert found.control_used == (~treated).sum()


def test_many_distinct_neighbours_at_the_same_distance_are_all_used():
    corners = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
    places = np.vstack([np.zeros((2, 3)), corners, 3 * corners, 5 * corners])
    treated = np.arange(len(places)) < 2
    matches = match(places, treated)
    assert matches.uses[:8] == pytest.approx(np.full(8, 0.25))
    assert not matches.uses[8:].any()


def test_a_constant_outcome_has_a_point_for_an_interval():
    treated = np.arange(12) < 5
    for found in (
        naive(np.ones(12), treated, coverage=0.95),
        adjusted(np.ones(12), treated, np.random.default_rng(0).random((12, 2)), coverage=0.95),
    ):
        assert found.upper - found.lower == 0
        assert found.difference == pytest.approx(0, abs=1e-12)


def confounded_world(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Those who did more before are treated more often, and the treatment adds TRUTH on average, more for some."""
    random = np.random.default_rng(seed)
    before = random.gamma(2.0, 5.0, 400)
    young = random.random(400) < 0.3
    chance = 1 / (1 + np.exp(-(before - 10) / 6 - young))
    treated = random.random(400) < chance
    effect = TRUTH + 0.5 * (young - young[treated].mean())
    outcome = 2 * before + 4 * young + random.gamma(1.0, 1 + before / 5) + effect * treated
    return outcome, treated, np.column_stack([before, young.astype(float)])


def test_adjusted_and_matched_intervals_hold_the_truth_and_naive_ones_do_not():
    held = {"naive": 0, "adjusted": 0, "matched": 0}
    for seed in range(WORLDS):
        outcome, treated, known = confounded_world(seed)
        scale = known.std(axis=0)
        found = {
            "naive": naive(outcome, treated, coverage=0.95),
            "adjusted": adjusted(outcome, treated, known, coverage=0.95),
            "matched": matched(outcome, treated, known, match(known / scale, treated), coverage=0.95),
        }
        for method, one in found.items():
            held[method] += one.lower <= TRUTH <= one.upper
    assert held["naive"] < 0.1 * WORLDS
    assert held["adjusted"] >= 0.9 * WORLDS
    assert held["matched"] >= 0.88 * WORLDS
