"""The sweep: sightings to links to clusters, and what each account looks like among its neighbours.

It runs off the request path. An account is looked at twice: the `event` head scores the vector of an
event as it arrives; the sweep scores the account's *standing*, its vector as of now beside what its
neighbourhood shows, which no single event can. Without a model a cluster's surprise speaks alone.
"""

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from detector.clusters import FEATURES, Clusters, cluster, cluster_features
from detector.links import Links, Sets, gather, link
from detector.model import Model, ModelProblem
from detector.neighbourhood import owner_features
from features.catalog import Catalog
from features.feature import Seen
from features.rows import F64, I64, U64, Kinds
from features.window import Sightings, Window, kind_name

ASK = 4096  # accounts asked for at a time, so that ingest never waits long for a sweep
STANDING_COLUMNS = ("standing_mean", "standing_median", "standing_least", "standing_greatest")
CLUSTER_COLUMNS = (*FEATURES, *STANDING_COLUMNS)


@dataclass(frozen=True)
class Sweep:
    """What one look at the links found, at event time `at` (epoch ms).

    `account`, `owner` [n]; `place` [n] index of the account's cluster, -1 for none; `margin`, `standing` [n]
    raw and calibrated, NaN where not scored; `row` [n] the account's row in `vectors` [scored, columns]
    (features and neighbourhood), -1 where it was silent for too long; `structure` [clusters, FEATURES];
    `cluster_score` [clusters].
    """

    at: int
    sets: Sets
    links: Links
    clusters: Clusters
    structure: F64
    account: U64
    owner: U64
    place: I64
    columns: tuple[str, ...]
    row: I64
    vectors: F64
    margin: F64
    standing: F64
    cluster_score: F64


def look(
    window: Window,
    kinds: Kinds,
    model: Model | None,
    active_ms: int | None = None,
    lock: AbstractContextManager[Any] | None = None,
) -> Sweep:
    """Link, cluster and score what the window holds.

    Args:
        active_ms: accounts silent for longer are left out of scoring (not of links); None: all.
        lock: held while the window is read, and free while links and clusters are computed.
    """
    lock = lock or nullcontext()
    with lock:
        at = window.watermark
        account, owner, _, last = window.accounts()
        sightings = window.sightings()
    sightings = rehomed(sightings, account, owner)
    n_owners = len(np.unique(owner))
    sets, links, clusters, structure = _linked(sightings, kinds, n_owners)
    index = links.index(owner)
    place = np.where(index >= 0, clusters.of[index], -1) if len(clusters.of) else index
    asked = (
        np.flatnonzero(last > at - active_ms) if active_ms is not None else np.arange(len(account))
    )
    row = np.full(len(account), -1, np.int64)
    row[asked] = np.arange(len(asked))
    catalog = window.plan.catalog
    names, around = owner_features(
        sets, links, clusters, structure, owner[asked], tuple(linkable(catalog))
    )
    columns = (*catalog.names, *names)
    if model is not None and model.standing.columns != columns:
        raise ModelProblem(
            f"model {model.version!r} was trained on other neighbourhood columns; run `shoal train`"
        )
    width = len(catalog.features)
    vectors = np.empty((len(asked), width + around.shape[1]))
    vectors[:, width:] = around
    for first in range(0, len(asked), ASK):
        with lock:
            part = account[asked[first : first + ASK]]
            vectors[first : first + ASK, :width] = window.ask(part, at)
    margin = np.full(len(account), np.nan)
    standing, score = margin, clusters.score
    if model is not None and len(asked):
        margin[asked] = model.standing.trees.margin(vectors)
        standing = model.standing.calibrate(margin)
        head = model.heads.get("cluster")
        if head is not None and len(clusters):
            score = head.score(cluster_vectors(structure, place, margin))
    return Sweep(
        at=at,
        sets=sets,
        links=links,
        clusters=clusters,
        structure=structure,
        account=account,
        owner=owner,
        place=place.astype(np.int64),
        columns=columns,
        row=row,
        vectors=vectors,
        margin=margin,
        standing=standing,
        cluster_score=score,
    )


def silenced(window: Window, kinds: Kinds, sweep: Sweep, mute: Collection[str]) -> F64:
    """`sweep.vectors` as if entities of the kinds in `mute` had never been sighted; features stay.

    `sweep` is the look that was just taken at this window, whose accounts were all scored.
    """
    catalog = window.plan.catalog
    sightings = rehomed(window.sightings(), sweep.account, sweep.owner)
    numbers = np.unique(sightings.kind)
    heard = [k for k in numbers.tolist() if kind_name(kinds, k) not in mute]
    kept = np.isin(sightings.kind, heard)
    sightings = Sightings(
        sightings.kind[kept], sightings.entity[kept], sightings.owner[kept], sightings.last[kept]
    )
    found = _linked(sightings, kinds, len(np.unique(sweep.owner)))
    vectors = sweep.vectors.copy()
    kinds_told = tuple(linkable(catalog))
    vectors[:, len(catalog.features) :] = owner_features(*found, sweep.owner, kinds_told)[1]
    return vectors


def _linked(sightings: Sightings, kinds: Kinds, n_owners: int) -> tuple[Sets, Links, Clusters, F64]:
    sets = gather(sightings, lambda k: kind_name(kinds, k), n_owners)
    links = link(sets, n_owners)
    clusters = cluster(links)
    return sets, links, clusters, cluster_features(clusters, links)[1]


def rehomed(sightings: Sightings, account: U64, owner: U64) -> Sightings:
    """Sightings of an account from before it joined an organisation are the organisation's.

    Otherwise the two would be different owners that share all they have.
    """
    moved = np.flatnonzero(owner != account)
    if len(moved) == 0:
        return sightings
    moved = moved[np.argsort(account[moved])]
    at = np.minimum(np.searchsorted(account[moved], sightings.owner), len(moved) - 1)
    mine = account[moved[at]] == sightings.owner
    return replace(sightings, owner=np.where(mine, owner[moved[at]], sightings.owner))


def linkable(catalog: Catalog) -> dict[str, str]:
    """The kinds by which owners can be linked, as far as the catalogue knows them, and each one's family."""
    seen = [f for f in catalog.features if isinstance(f, Seen) and f.of == "account"]
    owned = {f.by: f.family for f in seen}
    return {kind: owned[kind] for kind in sorted(owned)} | {"continuation": "conversation"}


def cluster_vectors(structure: F64, place: I64, margin: F64) -> F64:
    """What the cluster head sees: structure, and the members' standing (mean, median, least, greatest), raw."""
    out = np.full((len(structure), len(STANDING_COLUMNS)), np.nan)
    known = (place >= 0) & ~np.isnan(margin)
    order = np.argsort(place[known], kind="stable")
    places, scores = place[known][order], margin[known][order]
    start = np.searchsorted(places, np.arange(len(structure) + 1))
    for c in range(len(structure)):
        members = scores[start[c] : start[c + 1]]
        if len(members):
            out[c] = members.mean(), np.median(members), members.min(), members.max()
    return np.hstack([structure, out])
