"""Seeded randomness, cheap enough for the inner loop.

A lognormal draw costs 0.7 us in the standard library. The world makes several an event, so `Dice`
keeps a table of e^(0.8 z) for standard normal z and picks from it with 12 random bits. Every other
draw is the standard library's. One `Dice` is one stream of numbers: the same seed and the same
order of calls give the same world.
"""

import math
from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")

TABLE_BITS = 12
_TABLE_SIGMA = 0.8


class Dice(Random):
    """`random.Random` with the draws that this world needs."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.table = [math.exp(_TABLE_SIGMA * self.gauss()) for _ in range(1 << TABLE_BITS)]

    def spread(self, median: float) -> float:
        """A lognormal value with this median and a sigma of 0.8."""
        return median * self.table[self.getrandbits(TABLE_BITS)]

    def lognormal(self, median: float, sigma: float) -> float:
        """A lognormal value with this median and sigma."""
        return median * math.exp(sigma * self.gauss())

    def poisson(self, mean: float) -> int:
        """A count. Knuth's product method: `mean` is small everywhere in this world."""
        if mean <= 0:
            return 0
        if mean > 30:
            return max(0, round(self.gauss(mean, math.sqrt(mean))))
        floor, product, count = math.exp(-mean), self.random(), 0
        while product > floor:
            product *= self.random()
            count += 1
        return count

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.random() * len(items))]

    def zipf(self, items: Sequence[T]) -> T:
        """Popular items first: of n, the r-th comes with probability ln(1 + 1/r) / ln(n + 1)."""
        return items[int((len(items) + 1) ** self.random()) - 1]

    def weighted(self, table: Sequence[tuple[T, float]]) -> T:
        """One item of `(item, weight)` pairs."""
        total = 0.0
        for _, weight in table:
            total += weight
        mark = self.random() * total
        for item, weight in table:
            mark -= weight
            if mark < 0:
                return item
        return table[-1][0]

    def token(self, bits: int = 64) -> str:
        """An opaque id of this many bits, in hex."""
        return f"{self.getrandbits(bits):0{bits // 4}x}"
