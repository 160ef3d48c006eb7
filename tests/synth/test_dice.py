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


def test_zipf_stays_within_when_a_random_number_is_next_to_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dice = Dice(7)
    monkeypatch.setattr(dice, "random", lambda: math.nextafter(1, 0))
    for n in range(1, 500):
        assert dice.zipf(range(n)) == n - 1
