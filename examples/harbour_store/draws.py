"""Random draws that are the same for a seed on every Python and machine."""

import math
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, TypeVar

_NOWHERE_NEAR: Final = 1e-12
T = TypeVar("T")


class Draws:
    """One stream of draws, named by seed and topic, so that one topic never shifts another.

    Only `random.Random.random` is used, whose sequence for a seed Python promises in every version.
    """

    def __init__(self, seed: int, topic: str) -> None:
        self._uniform = random.Random(f"{seed}:{topic}").random  # noqa: S311 - nothing here is secret

    def uniform(self) -> float:
        """Draw from [0, 1)."""
        return self._uniform()

    def chance(self, probability: float) -> bool:
        """Say yes with this probability."""
        return self._uniform() < probability

    def below(self, count: int) -> int:
        """Draw a whole number from 0 to `count` - 1."""
        return min(int(self._uniform() * count), count - 1)

    def pick(self, values: Sequence[T]) -> T:
        """Draw one of some values."""
        return values[self.below(len(values))]

    def exponential(self, mean: float) -> float:
        """Draw a waiting time."""
        return -mean * math.log(1.0 - self._uniform() + _NOWHERE_NEAR)

    def gamma(self, shape: int, *, mean: float) -> float:
        """Draw from a gamma distribution of whole shape: as many waiting times, one after the other."""
        return sum(self.exponential(mean / shape) for _ in range(shape))

    def poisson(self, mean: float) -> int:
        """Draw a number of events by counting waiting times (Knuth, The Art of Computer Programming, 3.4.1)."""
        limit, product, count = math.exp(-mean), self._uniform(), 0
        while product > limit:
            product *= self._uniform()
            count += 1
        return count

    def moment(self, begin: datetime, end: datetime) -> datetime:
        """Draw a whole second from `begin` on and before `end`."""
        return begin + timedelta(seconds=self.below(int((end - begin).total_seconds())))
