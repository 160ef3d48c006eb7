"""Neighbourhood: an owner described by the company it keeps.

Columns for a learner, one row an owner, of things no single account shows: how common its entities
are, how surprising its links, how its cluster is built, who else is in the sets it is in, and how
many owners of the same outline appeared around the same time. Nothing here knows what a kind means.

Two owners have one *outline* when they have as many sightings of each kind. Scripted accounts come
as runs of one outline, close in time, even where they share no entity: `crowding` is how near the
next such owners are, over what the outline's commonness would lead us to expect.

On hop_sybil with rings held out most of the gain is the cluster's evidence and, over the sets an
owner is in, the mean score of the members' clusters (`sets_score_mean`), which reaches accounts
that pruning left alone. Outlines and nearness in time add .03 of PR-AUC and most of the
calibration. Tried without gain: the same for weak links; owners found in the same common sets.

An owner that shares nothing has a full row; one that was never sighted has zero counts and NaN.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detector.clusters import (
    Clusters,
    ClusterSettings,
    adjacency,
    cluster_features,
    cores,
    mix,
    triangles,
)
from detector.links import F64, I32, I64, U64, Links, Sets

HOUR = 3_600_000


def owner_features(
    sets: Sets,
    links: Links,
    clusters: Clusters,
    owners: U64 | None = None,
    kinds: Sequence[str] | None = None,
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Names and matrix [owners, columns]; NaN where a thing is undefined.

    Args:
        sets, links, clusters: of the same sightings.
        owners: whom to describe, in this order; by default those sighted (`sets.owners`).
        kinds: kinds with a column of their own, by default those sighted. A model is served the
            list it was trained on.
    """
    n = len(sets.owners)
    columns: dict[str, NDArray[np.generic]] = {}
    for kind in sets.kinds if kinds is None else kinds:
        known = kind in sets.kinds
        count = sets.of_kind[:, sets.kinds.index(kind)] if known else np.zeros(n, np.uint16)
        columns[f"entities_{kind}"] = count
    columns |= _entities(sets)
    columns |= {f"links_{what}": c for what, c in _links(links, ClusterSettings().least).items()}
    inside = clusters.of >= 0
    at = np.maximum(clusters.of, 0)
    names, values = cluster_features(clusters, links)
    for k, name in enumerate(names):
        columns[f"cluster_{name}"] = (
            np.where(inside, values[at, k], np.nan) if len(clusters) else np.full(n, np.nan)
        )
    score = np.where(inside, clusters.score[at], 0.0) if len(clusters) else np.zeros(n)
    columns["cluster_score"] = score
    columns |= _sets(sets, score)
    order = np.argsort(links.latest)
    ordered = links.latest[order]
    for name, span in (("hour", HOUR), ("day", 24 * HOUR)):
        after = np.searchsorted(ordered, ordered + span, "right")
        near = np.empty(n, np.int64)
        near[order] = after - np.searchsorted(ordered, ordered - span, "left")
        columns[f"near_{name}"] = near
    crowding = _crowding(_outline(sets), links.latest)
    columns |= {f"outline_{how}": column for how, column in crowding.items()}

    matrix = np.empty((n, len(columns)), np.float32)
    for k, column in enumerate(columns.values()):
        matrix[:, k] = column
    if owners is not None:
        row = links.index(owners)
        unseen = np.full(matrix.shape[1], np.nan, np.float32)
        unseen[[name.startswith(("entities", "links_")) for name in columns]] = 0.0
        matrix = np.vstack([matrix, unseen])[row]  # -1, never sighted, is the last row
    return tuple(columns), matrix


def _entities(sets: Sets) -> dict[str, F64]:
    """How many entities an owner has, how common they are, how many are its own alone or full."""
    size = sets.sizes
    mean, least, most = _gather(sets, np.log(sets.popularity), None, 1)
    own, _, _ = _gather(sets, (size == 1).astype(np.float64), None, 1)
    full, _, _ = _gather(sets, (size >= sets.cap).astype(np.float64), None, 1)
    count = np.bincount(sets.member, minlength=len(sets.owners)).astype(np.float64)
    return {
        "entities": count,
        "entities_own_share": own,
        "entities_full": full * count,
        "popularity_mean": mean,
        "popularity_least": least,
        "popularity_most": most,
    }


def _links(links: Links, least: float) -> dict[str, NDArray[np.generic]]:
    """An owner's links of `least` nats or more, and how it sits among them."""
    n = len(links.owners)
    kept = links.surprise >= least
    a, b = links.a[kept], links.b[kept]
    start, other = adjacency(n, a, b)
    total, top, beside, gap, shared, rarest = _ends(
        n,
        a,
        b,
        links.surprise[kept],
        np.log(np.maximum(links.gap[kept], np.float32(1e-7))),
        links.shared[kept],
        np.log(links.rarest[kept]),
        np.diff(start),
    )
    return {
        "count": np.diff(start),
        "sum": total,
        "top": top,
        "beside": beside,
        "gap": gap,
        "shared": shared,
        "rarest": rarest,
        "core": cores(start, other),
        "triangles": triangles(start, other),
    }


def _sets(sets: Sets, score: F64) -> dict[str, F64]:
    """What the sets an owner is in look like, over those with another member: mean, least, most.

    busyness, spread: mean and deviation of the members' log number of entities; apart: the owner's
    distance from that mean · times: deviation of the members' times · gap: to the nearest member
    in time; pace_gap: the same times the popularity · score: the members' mean cluster score.
    """
    count = np.bincount(sets.member, minlength=len(sets.owners))
    log_count = np.log(np.maximum(count, 1))[sets.member]
    size = np.maximum(sets.sizes, 1)

    def mean(rows: F64) -> F64:
        total = np.add.reduceat(rows, sets.start[:-1]) if len(rows) else np.zeros(0)
        return np.asarray(total / size, np.float64)

    def deviation(rows: F64, middle: F64) -> F64:
        return np.asarray(np.sqrt(np.maximum(mean(rows**2) - middle**2, 0.0)), np.float64)

    busy = mean(log_count)
    gap = _gaps(sets.start, sets.quantile)
    apart = np.abs(log_count - np.repeat(busy, sets.sizes))
    by_set: dict[str, tuple[F64 | None, F64 | None]] = {
        "busyness": (busy, None),
        "spread": (deviation(log_count, busy), None),
        "apart": (None, apart),
        "times": (np.log(deviation(sets.quantile, mean(sets.quantile)) + 1e-6), None),
        "gap": (None, np.log(gap + 1e-6)),
        "pace_gap": (None, np.log((gap + 1e-6) * np.repeat(sets.popularity, sets.sizes))),
        "score": (mean(score[sets.member]), None),
    }
    out: dict[str, F64] = {}
    for name, (of_set, of_row) in by_set.items():
        average, least, most = _gather(sets, of_set, of_row, 2)
        out |= {f"sets_{name}_mean": average, f"sets_{name}_least": least}
        out[f"sets_{name}_most"] = most
    return out


def _outline(sets: Sets) -> U64:
    """Owners with as many sightings of each kind have one number."""
    spread = np.arange(1, len(sets.kinds) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    out = np.zeros(len(sets.owners), np.uint64)
    for k in range(len(sets.kinds)):
        out += mix(sets.of_kind[:, k].astype(np.uint64) + spread[k])
    return out


def _crowding(signature: U64, times: I64) -> dict[str, NDArray[np.generic]]:
    """How many owners share the signature; log ranks to the first and third of them in time, on the
    nearer side; and the same over the ranks expected of a signature so common."""
    n = len(signature)
    rank = np.empty(n, np.int64)
    rank[np.argsort(times, kind="stable")] = np.arange(n)
    _, number, owners = np.unique(signature, return_inverse=True, return_counts=True)
    order = np.lexsort((rank, number))
    out: dict[str, NDArray[np.generic]] = {"owners": owners[number]}
    for k in (1, 3):
        near = np.empty(n)
        near[order] = _kth(number[order], rank[order], k, n)
        out[f"near_{k}"] = np.log(near)
        out[f"crowding_{k}"] = np.log(near * owners[number] / n)
    return out


def _gather(
    sets: Sets, of_set: F64 | None, of_row: F64 | None, least_size: int
) -> tuple[F64, F64, F64]:
    """Mean, least and most of a value of sets, or of their rows, over the sets an owner is in."""
    empty = np.zeros(0)
    return _fold(
        len(sets.owners),
        sets.start,
        sets.member,
        empty if of_set is None else of_set,
        empty if of_row is None else of_row,
        least_size,
    )


@njit(cache=True, nogil=True)
def _fold(
    n: int, start: I64, member: I32, of_set: F64, of_row: F64, least_size: int
) -> tuple[F64, F64, F64]:
    count, total = np.zeros(n), np.zeros(n)
    least, most = np.full(n, np.inf), np.full(n, -np.inf)
    for s in range(len(start) - 1):
        if start[s + 1] - start[s] < least_size:
            continue
        for i in range(start[s], start[s + 1]):
            value = of_row[i] if len(of_row) else of_set[s]
            m = member[i]
            count[m] += 1
            total[m] += value
            least[m] = min(least[m], value)
            most[m] = max(most[m], value)
    for m in range(n):
        if count[m] == 0:
            total[m], least[m], most[m] = np.nan, np.nan, np.nan
        else:
            total[m] /= count[m]
    return total, least, most


@njit(cache=True, nogil=True)
def _gaps(start: I64, quantile: F64) -> F64:
    """To the nearest other member of the set in time; 1 where there is none."""
    gap = np.ones(len(quantile))
    for s in range(len(start) - 1):
        for i in range(start[s] + 1, start[s + 1]):
            step = quantile[i] - quantile[i - 1]
            gap[i] = min(gap[i], step)
            gap[i - 1] = min(gap[i - 1], step)
    return gap


@njit(cache=True, nogil=True)
def _ends(
    n: int,
    a: I32,
    b: I32,
    nats: NDArray[np.float32],
    log_gap: NDArray[np.float32],
    shared: I32,
    log_rarest: NDArray[np.float32],
    degree: I64,
) -> tuple[F64, F64, F64, F64, F64, F64]:
    """Per owner, over its links: sum and top of nats, mean links of the other end, least log gap,
    mean shared, mean log rarest."""
    total, top, beside = np.zeros(n), np.zeros(n), np.zeros(n)
    gap, many, rarest = np.zeros(n), np.zeros(n), np.zeros(n)
    for k in range(len(a)):
        for i, j in ((a[k], b[k]), (b[k], a[k])):
            total[i] += nats[k]
            top[i] = max(top[i], nats[k])
            beside[i] += degree[j]
            gap[i] = min(gap[i], log_gap[k])
            many[i] += shared[k]
            rarest[i] += log_rarest[k]
    for i in range(n):
        if degree[i]:
            beside[i] /= degree[i]
            many[i] /= degree[i]
            rarest[i] /= degree[i]
    return total, top, beside, gap, many, rarest


@njit(cache=True, nogil=True)
def _kth(number: I64, rank: I64, k: int, far: int) -> F64:
    """Rows sorted by (number, rank): ranks to the k-th of the same number on the nearer side."""
    near = np.full(len(number), float(far))
    for i in range(k, len(number)):
        if number[i] == number[i - k]:
            away = float(rank[i] - rank[i - k])
            near[i] = min(near[i], away)
            near[i - k] = min(near[i - k], away)
    return near
