"""Worlds that are played once for all tests: a market, and some with many rings for statistics."""

import pytest

from tests.synth.played import Played, play, together


@pytest.fixture(scope="session")
def market() -> Played:
    """What `shoal demo` would show, smaller."""
    return play(seed=11, accounts=600, days=3.5, abusive_share=0.08, tier="T1")


@pytest.fixture(scope="session")
def crowded() -> Played:
    """Far more rings than in life, for the statistics of single fields."""
    return play(seed=5, accounts=2200, days=4, abusive_share=0.4, tier="T1")


@pytest.fixture(scope="session", params=["T1", "T3"])
def populous(request: pytest.FixtureRequest) -> Played:
    """Enough rings of every typology that no single one decides what its typology looks like.

    In a market three or four stations hold most station accounts; the added worlds bring more.
    """
    options = {"days": 2, "abusive_share": 0.5, "tier": request.param}
    stations = (play("transfer_station", seed=n, accounts=700, **options) for n in range(1, 4))
    return together([play(seed=5, accounts=7000, **options), *stations])
