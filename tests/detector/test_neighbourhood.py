"""An owner's columns: their laws, and small cases worked by hand."""

from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.clusters import cluster, cluster_features
from detector.links import gather, link
from detector.neighbourhood import owner_features
from features.window import Sightings

KINDS = ("card", "funded_by", "ip", "paid_to")
HOUR = 3_600_000
N = 100
Row = tuple[int, int, int, int]  # kind, entity, owner, last

rows_of = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 9), st.integers(0, 40)),
    min_size=1,
    max_size=60,
    unique_by=lambda row: row[:3],
)


def described(
    rows: list[Row], owners: list[int] | None = None, kinds: list[str] | None = None
) -> tuple[tuple[str, ...], np.ndarray]:
    columns = list(zip(*rows, strict=True))
    sets = gather(
        Sightings(
            np.array(columns[0], np.int32),
            np.array(columns[1], np.uint64),
            np.array(columns[2], np.uint64),
            np.array(columns[3], np.int64) * HOUR,
        ),
        KINDS.__getitem__,
        N,
    )
    links = link(sets, N)
    wanted = None if owners is None else np.array(owners, np.uint64)
    clusters = cluster(links)
    structure = cluster_features(clusters, links)[1]
    return owner_features(sets, links, clusters, structure, wanted, kinds)


def row_of(rows: list[Row], owner: int) -> dict[str, float]:
    names, values = described(rows, [owner])
    return dict(zip(names, values[0].tolist(), strict=True))


@given(rows_of, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_columns_are_named_once_and_do_not_depend_on_order(rows: list[Row], random: object) -> None:
    names, values = described(rows)
    assert len(set(names)) == len(names) == values.shape[1]
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert np.array_equal(values, described(shuffled)[1], equal_nan=True)


@given(rows_of)
@settings(deadline=None, max_examples=50)
def test_owners_are_described_in_the_order_asked(rows: list[Row]) -> None:
    known = sorted({owner for _, _, owner, _ in rows})
    _, values = described(rows)
    assert np.array_equal(described(rows, known[::-1])[1], values[::-1], equal_nan=True)


def test_an_owner_that_shares_nothing_has_a_full_row() -> None:
    row = row_of([(1, 1, 1, 0), (1, 2, 1, 5), (1, 9, 2, 5), (1, 9, 3, 6)], 1)
    assert row["entities"] == 2
    assert row["entities_funded_by"] == 2
    assert row["entities_own_share"] == 1
    assert row["links_count"] == row["links_sum"] == row["cluster_score"] == 0
    assert np.isnan(row["cluster_size"])
    assert np.isnan(row["sets_score_mean"])
    defined = [name for name in row if not name.startswith(("cluster_", "sets_"))]
    assert all(np.isfinite(row[name]) for name in defined)


def test_an_owner_never_sighted_has_counts_of_zero_and_no_more() -> None:
    row = row_of([(1, 1, 1, 0)], 77)
    assert row["entities"] == row["links_count"] == 0
    assert np.isnan(row["popularity_mean"])
    assert np.isnan(row["outline_crowding_1"])


def test_kinds_keep_their_columns_whatever_was_sighted() -> None:
    names, values = described([(1, 1, 1, 0)], kinds=["card", "funded_by"])
    assert names[:2] == ("entities_card", "entities_funded_by")
    assert values[0, :2].tolist() == [0, 1]


def test_a_ring_stands_out_from_a_passer_by_on_the_same_entity() -> None:
    clock = [(1, 1000 + o, 1000 + o, o) for o in range(80)]
    ring = [(0, entity, owner, 40) for entity in (1, 2) for owner in range(8)]
    rows = [*clock, *ring, (0, 1, 50, 3)]
    member, passer = row_of(rows, 3), row_of(rows, 50)
    assert member["cluster_size"] == 8
    assert member["links_core"] == 7
    assert member["links_triangles"] == 21
    assert member["links_beside"] == 7
    assert passer["links_count"] == 0
    # it is in their set, and the set remembers what the others are
    assert passer["sets_score_mean"] == pytest.approx(member["cluster_score"] * 8 / 9, rel=1e-5)
    assert passer["sets_gap_least"] > member["sets_gap_least"]


def test_an_outline_crowds_where_its_owners_come_together() -> None:
    # three owners seen twice as funded and once as paid, side by side; everybody else once
    crowd = [(0, o, o, o) for o in range(50)]
    script = [(k, 100 * o + e, o, o) for o in (60, 61, 62) for e, k in enumerate((1, 1, 3))]
    row = row_of(crowd + script, 61)
    assert row["outline_near_1"] == pytest.approx(0)
    assert row["outline_crowding_1"] == pytest.approx(log(3 / 53), rel=1e-5)
    assert row["outline_near_3"] == pytest.approx(log(53), rel=1e-5)  # there is no third
