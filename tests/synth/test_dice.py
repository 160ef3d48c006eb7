"""Draws, held to their distributions."""

import math

import pytest

from synth.dice import Dice

DRAWS = 40_000


@pytest.mark.parametrize("n", [1, 2, 4, 160])
def test_zipf_draws_every_item_and_the_first_most(n: int) -> None:
    dice = Dice(7)
    counts = [0] * n
    for _ in range(DRAWS):
        counts[dice.zipf(range(n))] += 1
    for rank, count in enumerate(counts, 1):
        share = math.log1p(1 / rank) / math.log(n + 1)
        assert abs(count - DRAWS * share) < 5 * math.sqrt(DRAWS * share) + 1
