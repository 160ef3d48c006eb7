"""Names of clusters, from sweep to sweep."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detector.clusters import Clusters, cluster
from detector.lineage import Lineage
from detector.links import Links

N = 24
OWNERS = np.arange(N, dtype=np.uint64) * np.uint64(7919) + np.uint64(11)
Groups = list[set[int]]


def clusters_of(groups: Groups) -> Clusters:
    """Clusters with exactly these members (two or more in each, disjoint), each a chain of links."""
    chains = [(a, b) for g in groups for a, b in zip(sorted(g)[:-1], sorted(g)[1:], strict=True)]
    edges = sorted(chains)
    a, b = (np.array([e[k] for e in edges], np.int32) for k in (0, 1))
    m = len(edges)
    links = Links(
        owners=OWNERS,
        a=a,
        b=b,
        surprise=np.full(m, 9, np.float32),
        shared=np.ones(m, np.int32),
        rarest=np.full(m, 2, np.float32),
        gap=np.full(m, 0.01, np.float32),
        families=np.ones(m, np.uint64),
        names=("card",),
        first=np.zeros(N, np.int64),
        latest=np.zeros(N, np.int64),
    )
    return cluster(links)


def follow(lineage: Lineage, groups: Groups) -> dict[frozenset[int], str]:
    """Sweep once: the name of each group."""
    clusters = clusters_of(groups)
    names = lineage.follow(OWNERS, clusters)
    told = [frozenset(clusters.members(c).tolist()) for c in range(len(clusters))]
    assert sorted(map(sorted, told)) == sorted(map(sorted, groups))
    assert len(set(names)) == len(names) == len(groups), "a name is one cluster's"
    return dict(zip(told, names, strict=True))


@st.composite
def partitions(draw: st.DrawFn) -> Groups:
    """Any disjoint groups of two or more, most owners in some group."""
    of = draw(st.lists(st.integers(0, 6), min_size=N, max_size=N))
    groups: dict[int, set[int]] = {}
    for owner, group in enumerate(of):
        if group:  # 0: in no cluster
            groups.setdefault(group, set()).add(owner)
    return [g for g in groups.values() if len(g) > 1]


def span(first: int, last: int) -> set[int]:
    return set(range(first, last))


def test_growth_and_loss_keep_the_name() -> None:
    lineage = Lineage()
    (born,) = follow(lineage, [span(0, 5)]).values()
    assert born.startswith("c")
    assert len(born) == 17
    for members in (span(0, 9), span(3, 12), span(8, 20), span(18, 24)):
        (name,) = follow(lineage, [members]).values()
        assert name == born, "members were replaced a few at a time, none of the first is left"


def test_a_merge_keeps_the_larger_name() -> None:
    lineage = Lineage()
    before = follow(lineage, [span(0, 5), span(5, 8)])
    (name,) = follow(lineage, [span(0, 8)]).values()
    assert name == before[frozenset(span(0, 5))]


def test_what_was_merged_away_does_not_come_back() -> None:
    lineage = Lineage()
    before = follow(lineage, [span(0, 5), span(5, 9)])
    follow(lineage, [span(0, 9)])
    after = follow(lineage, [span(0, 5), span(5, 8)])
    assert after[frozenset(span(5, 8))] not in before.values()


def test_a_split_leaves_the_name_with_the_larger_part() -> None:
    lineage = Lineage()
    (name,) = follow(lineage, [span(0, 8)]).values()
    after = follow(lineage, [span(0, 3), span(3, 8)])
    assert after[frozenset(span(3, 8))] == name
    assert after[frozenset(span(0, 3))] != name


def test_a_name_is_remembered_while_its_cluster_is_silent() -> None:
    lineage = Lineage()
    (name,) = follow(lineage, [span(0, 5)]).values()
    follow(lineage, [])
    follow(lineage, [span(10, 13)])
    assert follow(lineage, [span(0, 5), span(10, 13)])[frozenset(span(0, 5))] == name


def test_the_same_members_under_a_living_name_are_born_apart() -> None:
    """What is born once more may not take the name that its earlier members carry on."""
    lineage = Lineage()
    (name,) = follow(lineage, [{0, 1}]).values()
    (grown,) = follow(lineage, [{0, 1, 2, 3, 4}]).values()
    assert grown == name
    after = follow(lineage, [{0, 1}, {2, 3, 4}])  # the heir is the larger part
    assert after[frozenset({2, 3, 4})] == name
    assert after[frozenset({0, 1})] == name + "x"


@given(first=partitions(), second=partitions())
def test_names_are_unique_and_unchanged_members_keep_theirs(first: Groups, second: Groups) -> None:
    lineage = Lineage()
    before = follow(lineage, first)
    assert follow(lineage, first) == before
    after = follow(lineage, second)
    for members in set(before) & set(after):
        assert after[members] == before[members]


@given(sweeps=st.lists(partitions(), min_size=1, max_size=5))
def test_a_name_goes_to_the_heir_with_most_of_its_members(sweeps: list[Groups]) -> None:
    lineage = Lineage()
    for groups in sweeps:
        past = dict(lineage.past)
        names = follow(lineage, groups)
        holders: dict[str, set[int]] = {}
        for owner, name in past.items():
            holders.setdefault(name, set()).add(int(np.flatnonzero(owner == OWNERS)[0]))
        for members, name in names.items():
            came = {n: len(h & members) for n, h in holders.items() if h & members}
            if name in came:
                # nobody with more of the name's members has another name that it holds less of
                for others, theirs in names.items():
                    more = len(holders[name] & others)
                    assert more <= came[name] or len(holders.get(theirs, set()) & others) >= more
            else:
                # born: every name its members carried went to somebody with at least as many
                assert all(
                    any(n == other and len(holders[n] & m) >= k for m, other in names.items())
                    for n, k in came.items()
                )


@given(sweeps=st.lists(partitions(), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_lineage_is_a_function_of_the_sweeps(sweeps: list[Groups], seed: int) -> None:
    one, two = Lineage(), Lineage()
    rng = np.random.default_rng(seed)
    for groups in sweeps:
        shuffled = [groups[i] for i in rng.permutation(len(groups))]
        assert follow(one, groups) == follow(two, shuffled)
    kept = Lineage()
    kept.past.update(one.past)
    assert follow(kept, sweeps[0]) == follow(one, sweeps[0]), "nothing but `past` is state"
