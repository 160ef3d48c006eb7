"""What permutations keep, what they destroy, and what is left of clusters then."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.model import Model
from detector.null import acted_on, null, rewired, shuffled
from detector.policy import Action
from detector.sweep import rehomed
from features.feature import DAY
from features.window import Sightings
from tests.detector.handmade import Log, engine_of

ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(0, 9), st.integers(0, 3 * DAY)),
    max_size=60,
    unique_by=lambda row: row[:3],
)


def sightings_of(rows: list[tuple[int, int, int, int]]) -> Sightings:
    columns = np.array(rows, np.int64).reshape(-1, 4)
    return Sightings(
        columns[:, 0].astype(np.int32),
        columns[:, 1].astype(np.uint64),
        columns[:, 2].astype(np.uint64),
        columns[:, 3],
    )


def counted(*columns: np.ndarray) -> Counter[tuple[int, ...]]:
    return Counter(zip(*(c.tolist() for c in columns), strict=True))


@given(rows=ROWS, seed=st.integers(0, 99))
def test_shuffling_moves_times_within_a_kind_and_a_day(
    rows: list[tuple[int, int, int, int]], seed: int
) -> None:
    before = sightings_of(rows)
    after = shuffled(before, np.random.default_rng(seed))
    assert (after.owner == before.owner).all()
    assert (after.last // DAY == before.last // DAY).all()
    assert counted(after.kind, after.last) == counted(before.kind, before.last)


@given(rows=ROWS, seed=st.integers(0, 99))
def test_rewiring_keeps_every_degree(rows: list[tuple[int, int, int, int]], seed: int) -> None:
    before = sightings_of(rows)
    after = rewired(before, np.random.default_rng(seed))
    assert counted(after.kind, after.owner, after.last) == counted(
        before.kind, before.owner, before.last
    )
    assert (after.kind == before.kind).all()
    assert (after.entity == before.entity).all()


def test_permutations_permute() -> None:
    """Of a sparse kind nobody meets an entity twice, and hardly anybody the one he met."""
    rng = np.random.default_rng(1)
    rows = [(0, i // 5, i, int(rng.integers(0, DAY))) for i in range(500)]
    before = sightings_of(rows)
    after = rewired(before, rng)
    assert max(counted(after.entity, after.owner).values()) == 1
    assert (after.owner == before.owner).mean() < 0.05
    assert (shuffled(before, rng).last == before.last).mean() < 0.05


def test_a_dense_kind_is_rewired_without_repeats() -> None:
    """Everybody is on two of four entities."""
    rows = [(0, e, o, 0) for o in range(40) for e in (o % 4, (o + 1) % 4)]
    after = rewired(sightings_of(rows), np.random.default_rng(0))
    assert max(counted(after.entity, after.owner).values()) == 1


def rings(n: int, size: int, minutes: float) -> Log:
    """`n` rings on a card each, whose accounts come within `minutes` of each other, in a crowd with cards."""
    log = Log().crowd(400)
    rng = np.random.default_rng(2)
    for i in range(400):
        log.card(f"stranger{i}", float(rng.integers(0, 1440)), f"own{i}")
    for r in range(n):
        begin = float(rng.integers(0, 1300))
        for i in range(size):
            log.card(f"r{r}.{i}", begin + minutes * i / size, f"card{r}")
    return log


def test_rings_do_not_come_about_by_chance() -> None:
    engine = engine_of(clusters={"review": 0.2, "smallest": 6})
    engine.ingest(rings(10, 8, 5).events)
    found = engine.sweep(everyone=True)
    told = null(engine, found, np.random.default_rng(0))
    assert told["observed"] == 10
    # eight owners on one card are some surprise whoever they are, and whenever they came
    assert 0 <= told["rewired"] <= 4
    assert 0 <= told["shuffled"] <= 4


@pytest.mark.parametrize("modelled", [False, True])
def test_what_is_observed_is_what_the_sweep_found(made: Model, modelled: bool) -> None:
    engine = engine_of(made if modelled else None, clusters={"review": 0.2, "smallest": 3})
    log = rings(4, 8, 5)
    for i in range(3):  # of one organisation, and said so late
        log.card(f"seat{i}", 100 + i, "card0").request(f"seat{i}", 1400, org_id="firm")
    engine.ingest(log.events)
    found = engine.sweep(everyone=True)
    expected = sum(
        engine.verdict(int(n), float(s)) > Action.allow
        for n, s in zip(found.clusters.size, found.cluster_score, strict=True)
    )
    there = rehomed(engine.window.sightings(), found.account, found.owner)
    assert acted_on(engine, found, there) == expected > 0


def test_nothing_to_link_is_no_cluster() -> None:
    engine = engine_of()
    engine.ingest(Log().request("a", 0).events)
    told = null(engine, engine.sweep(everyone=True), np.random.default_rng(0))
    assert told == {"observed": 0, "shuffled": 0, "rewired": 0}
