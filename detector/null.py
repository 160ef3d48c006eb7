"""The permutation null: how many clusters chance alone would raise from the same sightings.

    shuffled  the times of a kind's sightings change places within each day: who was on what stays,
              that they came together within the day does not
    rewired   the entities of a kind's sightings change places: every entity keeps its number of
              owners, every owner its number of entities and his times; who met whom does not stay

Clusters are counted where the policy acts on them. The members' own standing is left as it was, so
that what is asked is whether the *links* alone could have come about by chance.
"""

from dataclasses import replace

import numpy as np

from detector.clusters import cluster, cluster_features
from detector.engine import Engine
from detector.links import gather, link
from detector.policy import Action
from detector.sweep import Sweep, cluster_vectors, rehomed
from features.feature import DAY
from features.rows import I64
from features.window import Sightings, kind_name

DRAWS = 5  # permutations of each sort; the mean is told
REPAIRS = 20  # rounds in which an owner who met an entity twice changes places again


def null(engine: Engine, found: Sweep, rng: np.random.Generator) -> dict[str, float]:
    """Clusters acted on: `observed`, and the mean when `shuffled` and `rewired`.

    Args:
        found: a sweep of all the engine's window holds now.
    """
    there = rehomed(engine.window.sightings(), found.account, found.owner)
    return {
        "observed": acted_on(engine, found, there),
        "shuffled": _mean([acted_on(engine, found, shuffled(there, rng)) for _ in range(DRAWS)]),
        "rewired": _mean([acted_on(engine, found, rewired(there, rng)) for _ in range(DRAWS)]),
    }


def _mean(counts: list[int]) -> float:
    return sum(counts) / len(counts)


def acted_on(engine: Engine, found: Sweep, sightings: Sightings) -> int:
    """How many clusters of these sightings the policy would act on, all else being as it was found."""
    n_owners = len(np.unique(found.owner))
    sets = gather(sightings, lambda k: kind_name(engine.kinds, k), n_owners)
    links = link(sets, n_owners)
    clusters = cluster(links)
    if len(clusters) == 0:
        return 0
    score = clusters.score
    head = engine.model.heads.get("cluster") if engine.model else None
    if head is not None:
        index = links.index(found.owner)
        place = np.where(index >= 0, clusters.of[index], -1).astype(np.int64)
        structure = cluster_features(clusters, links)[1]
        score = head.score(cluster_vectors(structure, place, found.margin))
    return sum(
        engine.verdict(int(n), float(s)) > Action.allow
        for n, s in zip(clusters.size, score, strict=True)
    )


def shuffled(sightings: Sightings, rng: np.random.Generator) -> Sightings:
    """Times permuted among the sightings of one kind and one day."""
    last = sightings.last[_permuted(sightings.kind.astype(np.int64), sightings.last // DAY, rng)]
    return replace(sightings, last=last)


def rewired(sightings: Sightings, rng: np.random.Generator) -> Sightings:
    """Owners, each with his time, permuted among the sightings of one kind.

    Nobody meets an entity twice, unless there is no way round it: such a pair changes places with a
    random one of its kind until it fits, REPAIRS times at most.
    """
    kind = sightings.kind.astype(np.int64)
    moved = _permuted(kind, np.zeros_like(kind), rng)
    owner, last = sightings.owner[moved], sightings.last[moved]
    by_kind = np.argsort(kind, kind="stable")
    start = np.searchsorted(kind[by_kind], kind, "left")
    size = np.searchsorted(kind[by_kind], kind, "right") - start
    for _ in range(REPAIRS):
        order = np.lexsort((owner, sightings.entity, kind))
        k, e, o = kind[order], sightings.entity[order], owner[order]
        twice = order[1:][(k[1:] == k[:-1]) & (e[1:] == e[:-1]) & (o[1:] == o[:-1])]
        if len(twice) == 0:
            break
        other = by_kind[start[twice] + rng.integers(0, size[twice])]
        # one swap a row, or an owner would be copied: the first to ask for a place has it
        _, first = np.unique(other, return_index=True)
        first = first[~np.isin(other[first], twice)]
        here, there = twice[first], other[first]
        owner[here], owner[there] = owner[there], owner[here]
        last[here], last[there] = last[there], last[here]
    return replace(sightings, owner=owner, last=last)


def _permuted(kind: I64, day: I64, rng: np.random.Generator) -> I64:
    """A permutation of the rows that moves each within its kind and day."""
    source = np.lexsort((rng.random(len(kind)), day, kind))
    target = np.lexsort((day, kind))
    out = np.empty(len(kind), np.int64)
    out[target] = source
    return out
