"""Attribution: six models that share one pass over the paths, side by side.

`first` and `last` give all credit to one touchpoint, `linear` the same to each, `time_decay` half as much per
half-life before the conversion, `position` 40 % each to first and last and 20 % to those between (all to a single one,
half each to two), `markov` by removal effects. Every model gives away exactly what was attributed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from counterfoil_models.markov import PathCounts, removal_effects
from counterfoil_models.paths import Floats, Ints, Paths

MODELS = ("first", "last", "linear", "time_decay", "position", "markov")
"""The models in the order in which their credits are shown."""

ENDS_SHARE = 0.4
"""What the position model gives to the first and to the last touchpoint of three or more."""

CAVEAT = (
    "Attribution says which touchpoints came before conversions, not which caused them: read it beside lift, "
    "which compares with those who were not treated."
)


@dataclass(frozen=True)
class Credit:
    """One model's credit per subject: conversions, and their value in millionths, which adds up exactly."""

    conversions: Floats
    values: Ints


class Attributor:
    """Takes in paths some at a time and ends with every model's credit; `half_life_us` is time decay's."""

    def __init__(self, subjects: int, *, half_life_us: float) -> None:
        self.counts = PathCounts(subjects)
        self.conversions = 0
        self.value = 0
        self._subjects = subjects
        self._weights: dict[str, Callable[[Paths], Floats]] = {
            "first": _first,
            "last": _last,
            "linear": _linear,
            "time_decay": lambda paths: _time_decay(paths, half_life_us),
            "position": _position,
        }
        self._conversions = {model: np.zeros(subjects) for model in self._weights}
        self._values = {model: np.zeros(subjects) for model in self._weights}

    def add(self, paths: Paths) -> None:
        """Take in paths, converting or not."""
        self.counts.add(paths)
        if not paths.conversions.any():
            return
        self.conversions += int(paths.conversions.sum())
        self.value += int(paths.values.sum())
        conversions, values = (np.repeat(of, paths.lengths) for of in (paths.conversions, paths.values))
        for model, weights_of in self._weights.items():
            weights = weights_of(paths)
            self._conversions[model] += self._sums(paths, weights * conversions)
            self._values[model] += self._sums(paths, weights * values)

    def credits(self) -> dict[str, Credit]:
        """Return each model's credit."""
        shares = removal_effects(self.counts)
        conversions = {**self._conversions, "markov": _shared(shares.conversions, self.conversions)}
        values = {**self._values, "markov": _shared(shares.values, self.value)}
        return {model: Credit(conversions[model], whole(values[model], self.value)) for model in MODELS}

    def _sums(self, paths: Paths, weights: Floats) -> Floats:
        sums: Floats = np.bincount(paths.codes, weights=weights, minlength=self._subjects).astype(np.float64)
        return sums


def whole(amounts: Floats, total: int) -> Ints:
    """Round amounts to whole numbers that add up to the total: the largest remainders are rounded up."""
    floors = np.floor(amounts)
    missing = total - int(floors.sum())
    rounded: Ints = floors.astype(np.int64)
    if 0 < missing <= len(amounts):
        rounded[np.argsort(floors - amounts, kind="stable")[:missing]] += 1
    elif missing and len(amounts):  # beyond what float64 can tell apart: the largest takes it
        rounded[np.argmax(np.abs(amounts))] += missing
    return rounded


def _shared(effects: Floats, total: int) -> Floats:
    of_all = effects.sum()
    return effects / of_all * total if of_all > 0 else np.zeros_like(effects)


def _first(paths: Paths) -> Floats:
    weights = np.zeros(len(paths.codes))
    weights[paths.starts[:-1]] = 1.0
    return weights


def _last(paths: Paths) -> Floats:
    weights = np.zeros(len(paths.codes))
    weights[paths.starts[1:] - 1] = 1.0
    return weights


def _linear(paths: Paths) -> Floats:
    return np.repeat(1.0 / paths.lengths, paths.lengths)


def _time_decay(paths: Paths, half_life_us: float) -> Floats:
    # Ages count from the last touchpoint, which changes no share and keeps the powers above zero.
    last = np.repeat(paths.ages[paths.starts[1:] - 1], paths.lengths)
    weights = np.exp2((last - paths.ages) / half_life_us)
    totals = np.add.reduceat(weights, paths.starts[:-1])
    shares: Floats = weights / np.repeat(totals, paths.lengths)
    return shares


def _position(paths: Paths) -> Floats:
    lengths = paths.lengths
    ends = np.select([lengths == 1, lengths == 2], [1.0, 0.5], ENDS_SHARE)
    between = (1 - 2 * ENDS_SHARE) / np.maximum(lengths - 2, 1)
    weights = np.repeat(between, lengths)
    weights[paths.starts[:-1]] = ends
    weights[paths.starts[1:] - 1] = ends
    return weights
