"""Links against a quadratic reading of their definition, and the properties they are chosen for."""

from collections import defaultdict
from dataclasses import replace
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.links import RELIABILITY, Links, LinkSettings, gather, link, shared_sets
from features.window import Sightings

KINDS = ("card", "funded_by", "ip", "paid_to")
HOUR = 3_600_000
Row = tuple[int, int, int, int]  # kind, entity, owner, last

rows_of = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 9), st.integers(0, 40)),
    max_size=60,
)


def sightings(rows: list[Row]) -> Sightings:
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
    return Sightings(
        np.array(columns[0], np.int32),
        np.array(columns[1], np.uint64),
        np.array(columns[2], np.uint64),
        np.array(columns[3], np.int64),
    )


def links_of(rows: list[Row], n: int = 1000, **constants: float) -> Links:
    chosen = LinkSettings(**{"floor": -1e9, **constants})  # type: ignore[arg-type]
    return link(gather(sightings(rows), KINDS.__getitem__, n, chosen.cap), n, chosen)


def nats(links: Links) -> dict[tuple[int, int], float]:
    a, b = links.owners[links.a], links.owners[links.b]
    return {(int(i), int(j)): float(s) for i, j, s in zip(a, b, links.surprise, strict=True)}


def oracle(rows: list[Row], n: int) -> dict[tuple[int, int], float]:
    """The formula at the head of links.py, pair by pair, for sets that are never full."""
    family = ("card", "entities", "ip", "entities")
    sets: dict[tuple[str, int], dict[int, int]] = defaultdict(dict)
    for kind, entity, owner, last in rows:
        members = sets[family[kind], entity]
        members[owner] = max(members.get(owner, -1), last)
    times, count = defaultdict(list), defaultdict(lambda: defaultdict(int))
    for (f, _), members in sets.items():
        for owner, last in members.items():
            times[f].append(last)
            count[f][owner] += 1

    def quantile(f: str, t: int) -> float:
        below, at_most = sum(x < t for x in times[f]), sum(x <= t for x in times[f])
        return (below + at_most) / 2 / len(times[f])

    def busy(f: str, owner: int) -> float:
        mean = sum(count[f].values()) / len(count[f])
        return log((count[f][owner] + 4) / (mean + 4))

    said, gap = defaultdict(list), defaultdict(lambda: 1.0)
    for (f, _), members in sets.items():
        for i in members:
            for j in members:
                if i < j:
                    rare = log(n / len(members)) + RELIABILITY.get(f, 0.0)
                    said[i, j].append(rare - 2 * (busy(f, i) + busy(f, j)))
                    away = abs(quantile(f, members[i]) - quantile(f, members[j]))
                    gap[i, j] = min(gap[i, j], away)
    out = {}
    for pair, each in said.items():
        best = max(each)
        rest = sum(max(x, 0.0) for x in each) - max(best, 0.0)
        out[pair] = best + 0.3 * rest - log(2 * max(gap[pair], 0.5 / n)) - log(n)
    return out


@given(rows_of)
@settings(deadline=None)
def test_every_pair_is_worth_what_the_definition_says(rows: list[Row]) -> None:
    expected = oracle(rows, 1000)
    found = nats(links_of(rows, nearest=64))
    assert found.keys() == expected.keys()
    for pair, value in expected.items():
        assert found[pair] == pytest.approx(value, abs=1e-3)


@given(rows_of, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_neither_order_nor_redelivery_changes_anything(rows: list[Row], random: object) -> None:
    again = rows + rows[: len(rows) // 2]
    random.shuffle(again)  # type: ignore[attr-defined]
    one, two = links_of(rows), links_of(again)
    for column in ("owners", "a", "b", "surprise", "shared", "rarest", "gap", "families", "first"):
        assert np.array_equal(getattr(one, column), getattr(two, column))


def background(n: int = 200) -> list[Row]:
    """An owner an hour, each on an entity of its own: a clock to measure by."""
    return [(k, 10**6 + o, 10**6 + o, o * HOUR) for o in range(n) for k in range(4)]


def two(kind: int, entity: int, apart: int, others: int = 0) -> list[Row]:
    rows = [(kind, entity, 1, 50 * HOUR), (kind, entity, 2, 50 * HOUR + apart)]
    step = 190 // max(others, 1)
    return rows + [(kind, entity, 10 + o, o * step * HOUR) for o in range(others)]


def worth(rows: list[Row]) -> float:
    return nats(links_of(background() + rows, nearest=64))[1, 2]


def test_popularity_and_distance_in_time_both_cost() -> None:
    common = [worth(two(1, 7, HOUR, others=others)) for others in (0, 10, 40)]
    apart = [worth(two(1, 7, hours * HOUR)) for hours in (0, 5, 100)]
    assert common == sorted(set(common), reverse=True)
    assert apart == sorted(set(apart), reverse=True)


def test_no_popularity_stops_an_entity_from_counting() -> None:
    """The hub is full, its pace even; two who meet it in one minute still stand out a little."""
    hub = [(1, 7, 100 + o, o * HOUR) for o in range(200)]
    rows = background() + hub + two(1, 7, 1)
    links = links_of(rows)
    pairs = nats(links)
    usual = np.median([s for (i, j), s in pairs.items() if 100 <= i < 10**6 and j < 10**6])
    sets = gather(sightings(rows), KINDS.__getitem__, 1000)
    assert sets.sizes.max() == 64
    # an even pace means that the hub holds a known share of everybody: more than its 64 members
    assert sets.popularity[sets.sizes == 64][0] > 100
    late = links_of([*rows, (1, 7, 3, 199 * HOUR), (1, 7, 4, 199 * HOUR)])
    assert nats(late)[3, 4] > usual + 1


def test_a_card_says_more_than_an_address() -> None:
    assert worth(two(0, 7, HOUR)) > worth(two(1, 7, HOUR)) > worth(two(2, 7, HOUR))


def test_independent_coincidences_add_up() -> None:
    one = worth(two(1, 7, HOUR))
    assert worth(two(1, 7, HOUR) + two(1, 8, HOUR)) > one + 0.5
    found = links_of(background() + two(1, 7, HOUR) + two(0, 8, HOUR))
    at = [k for k in range(len(found)) if found.owners[found.b[k]] == 2]
    assert found.shared[at].tolist() == [2]
    assert found.families[at].tolist() == [0b11]  # names are sorted: card, entities, ip


def test_custom_kinds_share_one_name_space_and_built_in_kinds_do_not() -> None:
    assert (1, 2) in nats(links_of([(1, 7, 1, 0), (3, 7, 2, 0)]))  # funded by 7, paid to 7
    assert nats(links_of([(0, 7, 1, 0), (2, 7, 2, 0)])) == {}  # a card is not an address


def test_busy_owners_meet_more_by_chance() -> None:
    errands = [(1, 500 + 10 * owner + e, owner, e * HOUR) for e in range(9) for owner in (1, 2)]
    assert worth(two(1, 7, HOUR) + errands) < worth(two(1, 7, HOUR)) - 1


def test_large_sets_link_neighbours_in_time() -> None:
    crowd = [(1, 7, o, o * HOUR) for o in range(50)]
    links = links_of(crowd, nearest=4)
    assert len(links) == 4 * 50 - (1 + 2 + 3 + 4)
    assert (links.b - links.a).max() == 4


def test_evidence_holds_what_the_links_were_made_of() -> None:
    rows = background() + two(1, 7, HOUR) + two(0, 8, HOUR) + [(2, 9, 1, 0), (2, 9, 3, 0)]
    sets = gather(sightings(rows), KINDS.__getitem__, 1000)
    members = np.flatnonzero(np.isin(sets.owners, [1, 2, 3]))
    found, count = shared_sets(sets, members)
    what = [(sets.names[sets.family[s]], int(sets.entity[s])) for s in found]
    assert dict(zip(what, count.tolist(), strict=True)) == {
        ("entities", 7): 2,
        ("card", 8): 2,
        ("ip", 9): 2,
    }


def test_more_families_than_bits_are_refused() -> None:
    sets = gather(sightings([(0, 1, 1, 0)]), KINDS.__getitem__, 10)
    with pytest.raises(ValueError, match="at most 64 families"):
        link(replace(sets, names=tuple(map(str, range(65)))), 10)


def test_nothing_gives_nothing() -> None:
    links = links_of([])
    assert len(links) == 0
    assert links.index(np.array([5], np.uint64)).tolist() == [-1]
