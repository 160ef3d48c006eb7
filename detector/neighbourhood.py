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
    FEATURES,
    Clusters,
    ClusterSettings,
    adjacency,
    cores,
    mix,
    triangles,
)
from detector.links import F64, I32, I64, U64, Links, Sets
from detector.order import argsort, group, unique

HOUR, DAY = 3_600_000, 86_400_000


def owner_features(
    sets: Sets,
    links: Links,
    clusters: Clusters,
    structure: F64,
    owners: U64 | None = None,
    kinds: Sequence[str] | None = None,
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Names and matrix [owners, columns]; NaN where a thing is undefined.

    Args:
        sets, links, clusters: of the same sightings.
        structure: `cluster_features` of these clusters.
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
    for k, name in enumerate(FEATURES):
        columns[f"cluster_{name}"] = (
            np.where(inside, structure[at, k], np.nan) if len(clusters) else np.full(n, np.nan)
        )
    score = np.where(inside, clusters.score[at], 0.0) if len(clusters) else np.zeros(n)
    columns["cluster_score"] = score
    columns |= _sets(sets, score)
    by_time = argsort(links.latest)
    # of those near in a longer span: how large the population is, or the log so far, must not matter
    hour, day, week = (_near(links.latest, by_time, span) for span in (HOUR, DAY, 7 * DAY))
    columns |= {"near_hour": hour / day, "near_day": day / week}
    crowding = _crowding(_outline(sets), by_time)
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
    alone, full = (size == 1).astype(np.float64), (size >= sets.cap).astype(np.float64)
    told = _gather(sets, [np.log(sets.popularity), alone, full], 1)
    (mean, least, most), own_share, full_share = told[0], told[1, 0], told[2, 0]
    count = np.bincount(sets.member, minlength=len(sets.owners)).astype(np.float64)
    return {
        "entities": count,
        "entities_own_share": own_share,
        "entities_full": full_share * count,
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
    by_set: dict[str, F64] = {
        "busyness": busy,
        "spread": deviation(log_count, busy),
        "apart": apart,
        "times": np.log(deviation(sets.quantile, mean(sets.quantile)) + 1e-6),
        "gap": np.log(gap + 1e-6),
        "pace_gap": np.log((gap + 1e-6) * np.repeat(sets.popularity, sets.sizes)),
        "score": mean(score[sets.member]),
    }
    told = _gather(sets, list(by_set.values()), 2)
    return {
        f"sets_{name}_{how}": column
        for name, columns in zip(by_set, told, strict=True)
        for how, column in zip(("mean", "least", "most"), columns, strict=True)
    }


def _outline(sets: Sets) -> U64:
    """Owners with as many sightings of each kind have one number."""
    spread = np.arange(1, len(sets.kinds) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    out = np.zeros(len(sets.owners), np.uint64)
    for k in range(len(sets.kinds)):
        out += mix(sets.of_kind[:, k].astype(np.uint64) + spread[k])
    return out


def _crowding(signature: U64, by_time: I64) -> dict[str, NDArray[np.generic]]:
    """Log ranks to the first and third owner of the same signature in time, on the nearer side; and the
    same over the ranks expected of a signature so common."""
    n = len(signature)
    rank = np.empty(n, np.int64)
    rank[by_time] = np.arange(n)
    found, number, owners = unique(signature)
    order = by_time[group(number[by_time], len(found))[1]]
    out: dict[str, NDArray[np.generic]] = {}
    for k in (1, 3):
        near = np.empty(n)
        near[order] = _kth(number[order], rank[order], k, n)
        out[f"near_{k}"] = np.log(near)
        out[f"crowding_{k}"] = np.log(near * owners[number] / n)
    return out


def _gather(sets: Sets, values: Sequence[F64], least_size: int) -> F64:
    """[values, 3, owners]: mean, least and most of each value over the sets an owner is in.

    A value is of each set or of each of their rows; sets of fewer than `least_size` do not count.
    """
    told = _fold(len(sets.owners), sets.start, sets.member, tuple(values), least_size)
    return np.ascontiguousarray(np.moveaxis(told, 0, 2))


@njit(cache=True, nogil=True)
def _fold(n: int, start: I64, member: I32, values: tuple[F64, ...], least_size: int) -> F64:
    """[owners, values, 3]: an owner's numbers lie together, so that a row costs one miss of the cache."""
    columns, n_sets = len(values), len(start) - 1
    count, told = np.zeros(n, np.int64), np.empty((n, columns, 3))
    for m in range(n):
        for k in range(columns):
            told[m, k, 0], told[m, k, 1], told[m, k, 2] = 0.0, np.inf, -np.inf
    for s in range(len(start) - 1):
        if start[s + 1] - start[s] < least_size:
            continue
        for i in range(start[s], start[s + 1]):
            m = member[i]
            count[m] += 1
            for k in range(columns):
                value = values[k][s if len(values[k]) == n_sets else i]
                told[m, k, 0] += value
                told[m, k, 1] = min(told[m, k, 1], value)
                told[m, k, 2] = max(told[m, k, 2], value)
    for m in range(n):
        for k in range(columns):
            if count[m] == 0:
                told[m, k, 0], told[m, k, 1], told[m, k, 2] = np.nan, np.nan, np.nan
            else:
                told[m, k, 0] /= count[m]
    return told


@njit(cache=True, nogil=True)
def _near(times: I64, by_time: I64, span: int) -> I64:
    """How many times lie within `span` of each, itself included."""
    near, lo, hi = np.empty(len(times), np.int64), 0, 0
    for i in by_time:
        while times[by_time[lo]] < times[i] - span:
            lo += 1
        while hi < len(by_time) and times[by_time[hi]] <= times[i] + span:
            hi += 1
        near[i] = hi - lo
    return near


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
