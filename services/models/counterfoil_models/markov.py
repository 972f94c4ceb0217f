"""Attribution by removal effects in an absorbing Markov chain of order 1, exact and incremental.

A path walks from the start through its subjects to `conversion` or `null`. The removal effect of a subject is the share
of conversions that are lost when every visit to it ends in null (Anderl et al. 2016). With the transitions P between
subjects, N = (I - P)^-1, starts s and conversion chances r, the visits are v = sN and the chances from each subject
h = Nr, so that every effect is v_c h_c / (N_cc (s h)): v_c / N_cc is the chance to ever come by. One inverse, no
simulation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from counterfoil_models.paths import Floats, Ints, Paths

DENSE_SUBJECTS = 64
"""Up to here one dense inverse is fastest; above, a sparse factorisation, which also leaves the other cores alone."""

_COLUMNS = 128


class PathCounts:
    """What a chain needs to know of paths: plain sums, so that paths can be added and taken back in any order.

    `starts` by first subject, `steps` from subject to subject, `conversions`, `nulls` and `values` by last subject.
    """

    def __init__(self, subjects: int) -> None:
        self.starts: Ints = np.zeros(subjects, dtype=np.int64)
        self.steps: Ints = np.zeros((subjects, subjects), dtype=np.int64)
        self.conversions: Ints = np.zeros(subjects, dtype=np.int64)
        self.nulls: Ints = np.zeros(subjects, dtype=np.int64)
        self.values: Ints = np.zeros(subjects, dtype=np.int64)

    def add(self, paths: Paths) -> None:
        """Count paths."""
        self._count(paths, sign=1)

    def subtract(self, paths: Paths) -> None:
        """Take back paths that were counted: an erasure, a merge undone, a late touchpoint that makes another path."""
        self._count(paths, sign=-1)

    def merge(self, other: PathCounts) -> None:
        """Add what was counted elsewhere over the same subjects, e.g. on another day."""
        for mine, theirs in zip(self._arrays(), other._arrays(), strict=True):
            np.add(mine, theirs, out=mine)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PathCounts):
            return NotImplemented
        return all(np.array_equal(mine, theirs) for mine, theirs in zip(self._arrays(), other._arrays(), strict=True))

    __hash__ = None  # type: ignore[assignment]  # it changes

    def _arrays(self) -> tuple[Ints, ...]:
        return self.starts, self.steps, self.conversions, self.nulls, self.values

    def _count(self, paths: Paths, *, sign: int) -> None:
        if not len(paths):
            return
        subjects = len(self.starts)
        ends = paths.starts[1:] - 1
        times = paths.conversions + paths.nulls
        first, last = paths.codes[paths.starts[:-1]], paths.codes[ends]
        weights = np.repeat(times, paths.lengths)
        weights[ends] = 0  # from the last subject of a path there is no step to the next path's first
        pairs = paths.codes[:-1] * subjects + paths.codes[1:]
        steps = _sums(pairs, weights[:-1], subjects * subjects)
        self.starts += sign * _sums(first, times, subjects)
        self.steps += sign * steps.reshape(subjects, subjects)
        self.conversions += sign * _sums(last, paths.conversions, subjects)
        self.nulls += sign * _sums(last, paths.nulls, subjects)
        np.add.at(self.values, last, sign * paths.values)


def _sums(codes: Ints, weights: Ints, size: int) -> Ints:
    # float64 holds these counts exactly, up to 2^53
    sums: Ints = np.bincount(codes, weights=weights, minlength=size).astype(np.int64)
    return sums


@dataclass(frozen=True)
class RemovalEffects:
    """The share of conversions, and of their value, that is lost without each subject."""

    conversions: Floats
    values: Floats


@dataclass(frozen=True)
class Chain:
    """The chances of a chain: from subject to subject, to begin with each, to convert from each, and value by visit."""

    steps: Floats
    starts: Floats
    converts: Floats
    values: Floats


def chain_of(counts: PathCounts) -> Chain:
    """Turn counts into chances; a subject without paths leads nowhere."""
    totals = counts.steps.sum(axis=1) + counts.conversions + counts.nulls
    safe = np.where(totals > 0, totals, 1).astype(np.float64)
    begun = max(int(counts.starts.sum()), 1)
    return Chain(counts.steps / safe[:, None], counts.starts / begun, counts.conversions / safe, counts.values / safe)


def removal_effects(counts: PathCounts) -> RemovalEffects:
    """Return every subject's removal effect; zeros when nothing converts.

    The effect on value replaces the chance to convert by the value of it; where all value together is not above zero
    it is the effect on conversions.
    """
    chain = chain_of(counts)
    if not counts.conversions.any():
        return RemovalEffects(np.zeros_like(chain.starts), np.zeros_like(chain.starts))
    dense = len(chain.starts) <= DENSE_SUBJECTS
    visits, chances, worth, returns = _dense(chain) if dense else _sparse(chain)
    ever = visits / returns
    conversions = ever * chances / (chain.starts @ chances)
    total = chain.starts @ worth
    return RemovalEffects(conversions, ever * worth / total if total > 0 else conversions)


def _dense(chain: Chain) -> tuple[Floats, Floats, Floats, Floats]:
    inverse = np.linalg.inv(np.eye(len(chain.starts)) - chain.steps)
    return chain.starts @ inverse, inverse @ chain.converts, inverse @ chain.values, np.diagonal(inverse)


def _sparse(chain: Chain) -> tuple[Floats, Floats, Floats, Floats]:
    from scipy.sparse import csc_matrix, identity  # noqa: PLC0415 - SciPy costs more than all else at start
    from scipy.sparse.linalg import splu  # noqa: PLC0415

    subjects = len(chain.starts)
    factors = splu(csc_matrix(identity(subjects) - csc_matrix(chain.steps)))
    returns = np.empty(subjects)
    for begin in range(0, subjects, _COLUMNS):  # the inverse's diagonal, some columns at a time
        own = np.arange(begin, min(begin + _COLUMNS, subjects))
        units = np.zeros((subjects, len(own)))
        units[own, np.arange(len(own))] = 1.0
        returns[own] = factors.solve(units)[own, np.arange(len(own))]
    visits = factors.solve(chain.starts, trans="T")
    return visits, factors.solve(chain.converts), factors.solve(chain.values), returns
