"""Clusters: owners held together by surprising links.

Three steps, each linear in the number of links:

1. **Prune.** A link below `least` nats is what chance produces somewhere: at 2.5 nats, an owner
   meets .08 such strangers. Nearly every giant component dissolves here.
2. **Components** of what is left, by union-find over the links in falling order, so that the links
   that join two parts are at once the strongest tree that spans each cluster.
3. **Open** what is still larger than `large`. The same pass again, but a link that would join two
   groups must pay for their size. Among |A| owners some link of w nats to a stranger is expected by
   chance as soon as |A| > exp(w); so a bridge counts above `least + bridge * log(min(|A|, |B|))`.
   Raising the threshold until the giant falls apart loses its loose rings along with it: on a giant
   of 5,477 accounts of hop_sybil, recall .11 to .16 against .49 to .56, at the same precision.

Label propagation and cores were not needed: a chain of transfers has neither triangles nor cores.

The *evidence* of a cluster is the surprise of its spanning tree, no link of which may speak for
more than `loud` nats: n - 1 coincidences, not the n * n / 2 pairs that follow from them. It orders
clusters before any label exists, and `score` is its bounded form.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detector.links import F32, F64, I32, I64, U64, Links
from detector.order import group

DAY = 86_400_000.0


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Constants of the steps above, chosen on one half of the rings of hop_sybil."""

    least: float = 2.5  # nats
    large: int = 1000  # members
    bridge: float = 1.5
    loud: float = 6.0  # nats
    half: float = 54.0  # nats of evidence that score .5: ten owners held as tightly as counts
    smallest: int = 2  # members


@dataclass(frozen=True, slots=True)
class Clusters:
    """Clusters in falling order of evidence; c's members are `member[start[c]:start[c + 1]]`.

    `member` and `of` speak in indices into `Links.owners`, `link` in indices into the links.
    """

    id: U64  # [clusters] a function of the members alone
    start: I64
    member: I32
    of: I32  # [owners] the owner's cluster, -1 for none
    link_start: I64
    link: I64  # internal links of `least` nats or more
    tree: NDArray[np.bool_]  # [len(link)] the link is in the spanning tree
    evidence: F64  # nats
    surprise: F64  # nats, all internal links
    score: F64  # 0..1
    first: I64  # earliest and latest sighting of a member, epoch ms
    latest: I64
    families: U64  # bits into `Links.names`

    def __len__(self) -> int:
        return len(self.id)

    @property
    def size(self) -> I64:
        return np.diff(self.start)

    @property
    def density(self) -> F64:
        """Share of the pairs of members that are linked."""
        n = self.size
        return np.asarray(np.diff(self.link_start) / (n * (n - 1) / 2.0), np.float64)

    def members(self, c: int) -> I32:
        """Indices into `Links.owners`, rising."""
        return self.member[self.start[c] : self.start[c + 1]]

    def links(self, c: int) -> I64:
        """Indices into the links."""
        return self.link[self.link_start[c] : self.link_start[c + 1]]


def families_of(names: tuple[str, ...], bits: int) -> tuple[str, ...]:
    """The families behind `Links.families` or `Clusters.families`: the kinds of evidence."""
    return tuple(name for f, name in enumerate(names) if bits >> f & 1)


def components(n: int, a: I32, b: I32) -> I32:
    """Connected components of an undirected graph: for each node the smallest node it reaches."""
    nats = np.zeros(len(a), np.float32)
    root, _ = _join(n, a, b, nats, np.arange(len(a)), 0.0, 0.0)
    return root


def cluster(links: Links, settings: ClusterSettings | None = None) -> Clusters:
    """Prune, join, open. The same links give the same clusters, order and ids."""
    settings = settings or ClusterSettings()
    n = len(links.owners)
    strong = np.flatnonzero(links.surprise >= settings.least).astype(np.int64)
    a, b, nats = links.a[strong], links.b[strong], links.surprise[strong]
    root, tree = _join(n, a, b, nats, _falling(nats), settings.least, 0.0)
    size = np.bincount(root, minlength=n)
    if n and size.max() > settings.large:
        giant = size[root] > settings.large
        inside = np.flatnonzero(giant[a])
        order = _falling(nats[inside])
        opened, joins = _join(
            n, a[inside], b[inside], nats[inside], order, settings.least, settings.bridge
        )
        root = np.where(giant, opened, root)
        tree[inside] = joins
        size = np.bincount(root, minlength=n)

    # number the clusters, first by their smallest member, then by evidence
    roots = np.flatnonzero(size >= max(2, settings.smallest))
    count = len(roots)
    number = np.full(n, -1, np.int32)
    number[roots] = np.arange(count)
    of = number[root]
    internal = np.flatnonzero((of[a] == of[b]) & (of[a] >= 0))
    at, nats, tree, strong = of[a[internal]], nats[internal], tree[internal], strong[internal]
    evidence = _total(at, np.minimum(nats, settings.loud) * tree, count)
    member = np.flatnonzero(of >= 0)
    names = np.zeros(count, np.uint64)
    np.add.at(names, of[member], mix(links.owners[member]))
    names = mix(names + size[roots].astype(np.uint64))
    ordered = np.lexsort((names, -evidence))
    rank = np.empty(count + 1, np.int32)
    rank[ordered], rank[-1] = np.arange(count), -1

    of, at = rank[of], rank[at]
    start, by_member = group(of[member], count)
    link_start, by_link = group(at, count)
    first, latest = np.full(count, np.iinfo(np.int64).max), np.full(count, np.iinfo(np.int64).min)
    np.minimum.at(first, of[member], links.first[member])
    np.maximum.at(latest, of[member], links.latest[member])
    families = np.zeros(count, np.uint64)
    np.bitwise_or.at(families, at, links.families[strong])
    evidence = evidence[ordered]
    return Clusters(
        id=names[ordered],
        start=start,
        member=member[by_member].astype(np.int32),
        of=of,
        link_start=link_start,
        link=strong[by_link],
        tree=tree[by_link],
        evidence=evidence,
        surprise=_total(at, nats, count),
        score=evidence**2 / (evidence**2 + settings.half**2),
        first=first,
        latest=latest,
        families=families,
    )


FEATURES: tuple[str, ...] = (
    "size",
    "evidence",
    "evidence_per_member",
    "surprise_mean",
    "surprise_top",
    "surprise_weakest_join",
    "links_per_member",
    "density",
    "hub_share",
    "leaf_share",
    "transitivity",
    "core",
    "shared_mean",
    "several_share",
    "families",
    "rarest_log_mean",
    "gap_log_mean",
    "gap_log_worst_join",
    "span_days",
    "member_span_days",
    "outside_per_member",
)


def cluster_features(clusters: Clusters, links: Links) -> tuple[tuple[str, ...], F64]:
    """Structure of each cluster, [clusters, len(FEATURES)], finite; rows in the clusters' order.

    evidence, surprise: nats · hub_share: most links of one member over the others there are ·
    leaf_share: members with one link · core: largest k such that some members have k links among
    themselves · several_share: links that rest on two entities or more · rarest, gap: logs of
    `Links.rarest` and `Links.gap` · worst_join: over the spanning tree · member_span_days: median
    of a member's own first to latest · outside: links that lead out, too weak to join.
    """
    count = len(clusters)
    size = clusters.size.astype(np.float64)
    at = np.repeat(np.arange(count), np.diff(clusters.link_start))
    nats = links.surprise[clusters.link].astype(np.float64)
    a, b = links.a[clusters.link], links.b[clusters.link]
    n = len(links.owners)

    def mean(values: NDArray[np.generic]) -> F64:
        total = np.bincount(at, weights=values, minlength=count)
        return np.asarray(total / np.maximum(1, np.diff(clusters.link_start)), np.float64)

    def extreme(values: F64, over: NDArray[np.bool_] | slice, most: bool, start: float) -> F64:
        out = np.full(count, start)
        (np.maximum if most else np.minimum).at(out, at[over], values[over])
        return out

    degree = np.bincount(a, minlength=n) + np.bincount(b, minlength=n)
    start, other = adjacency(n, a, b)
    of = clusters.of[clusters.member]
    member_degree = degree[clusters.member]
    top_degree, top_core = np.zeros(count), np.zeros(count)
    np.maximum.at(top_degree, of, member_degree)
    np.maximum.at(top_core, of, cores(start, other)[clusters.member])
    closed = np.bincount(of, weights=triangles(start, other)[clusters.member], minlength=count)
    open_ = np.bincount(of, weights=member_degree * (member_degree - 1) / 2.0, minlength=count)
    gap = np.log(np.maximum(links.gap[clusters.link].astype(np.float64), 1e-9))
    own_span = (links.latest - links.first)[clusters.member] / DAY
    middle = clusters.start[:-1] + np.diff(clusters.start) // 2
    leads_out = clusters.of[links.a] != clusters.of[links.b]
    outside = np.zeros(count)
    for end in (links.a, links.b):
        inside = clusters.of[end[leads_out]]
        outside += np.bincount(inside[inside >= 0], minlength=count)
    bits = np.arange(64, dtype=np.uint64)
    kinds = (clusters.families[:, None] >> bits & np.uint64(1)).sum(axis=1)
    columns = (
        size,
        clusters.evidence,
        clusters.evidence / size,
        mean(nats),
        extreme(nats, slice(None), True, 0.0),
        np.minimum(extreme(nats, clusters.tree, False, np.inf), 1e3),
        np.diff(clusters.link_start) / size,
        clusters.density,
        top_degree / np.maximum(1.0, size - 1),
        np.bincount(of, weights=member_degree == 1, minlength=count) / size,
        closed / np.maximum(1.0, open_),
        top_core,
        mean(links.shared[clusters.link]),
        mean(links.shared[clusters.link] > 1),
        kinds,
        mean(np.log(links.rarest[clusters.link])),
        mean(gap),
        np.maximum(extreme(gap, clusters.tree, True, -np.inf), -1e3),
        (clusters.latest - clusters.first) / DAY,
        own_span[np.lexsort((own_span, of))][middle] if count else np.zeros(0),
        outside / size,
    )
    return FEATURES, np.stack([np.asarray(c, np.float64) for c in columns], axis=1)


def adjacency(n: int, a: I32, b: I32) -> tuple[I64, I32]:
    """Undirected graph: neighbours of i are `other[start[i]:start[i + 1]]`, rising."""
    start = np.concatenate(
        [[0], np.cumsum(np.bincount(a, minlength=n) + np.bincount(b, minlength=n))]
    )
    return start.astype(np.int64), _neighbours(start.astype(np.int64), a, b)


@njit(cache=True, nogil=True)
def _neighbours(start: I64, a: I32, b: I32) -> I32:
    at, other = start[:-1].copy(), np.empty(2 * len(a), np.int32)
    for k in range(len(a)):
        other[at[a[k]]], other[at[b[k]]] = b[k], a[k]
        at[a[k]] += 1
        at[b[k]] += 1
    for i in range(len(start) - 1):
        other[start[i] : start[i + 1]].sort()
    return other


@njit(cache=True, nogil=True)
def triangles(start: I64, other: I32) -> I64:
    """Triangles through each node, of a graph from `adjacency`."""
    n = len(start) - 1
    found = np.zeros(n, np.int64)
    for i in range(n):
        for e in range(start[i], start[i + 1]):
            j = other[e]
            if j <= i:
                continue
            p, q = start[i], start[j]
            while p < start[i + 1] and q < start[j + 1]:
                if other[p] < other[q]:
                    p += 1
                elif other[p] > other[q]:
                    q += 1
                else:
                    if other[p] > j:
                        found[i] += 1
                        found[j] += 1
                        found[other[p]] += 1
                    p += 1
                    q += 1
    return found


@njit(cache=True, nogil=True)
def cores(start: I64, other: I32) -> I64:
    """Core number of each node: the largest k at which it survives removal of all with fewer links.

    Batagelj and Zaversnik's bucket peeling, O(links).
    """
    n = len(start) - 1
    core = np.diff(start)
    if n == 0:
        return core
    begin = np.zeros(core.max() + 2, np.int64)
    for i in range(n):
        begin[core[i] + 1] += 1
    begin = np.cumsum(begin)
    place, queue, at = np.empty(n, np.int64), np.empty(n, np.int64), begin.copy()
    for i in range(n):
        place[i] = at[core[i]]
        queue[place[i]] = i
        at[core[i]] += 1
    for k in range(n):
        i = queue[k]
        for e in range(start[i], start[i + 1]):
            j = other[e]
            if core[j] <= core[i]:
                continue
            # swap j with the first of its bucket, then move the bucket's edge past it
            head = begin[core[j]]
            first = queue[head]
            queue[place[j]], queue[head] = first, j
            place[first], place[j] = place[j], head
            begin[core[j]] += 1
            core[j] -= 1
    return core


@njit(cache=True, nogil=True)
def _find(parent: I32, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def _join(
    n: int, a: I32, b: I32, nats: F32, order: I64, least: float, bridge: float
) -> tuple[I32, NDArray[np.bool_]]:
    """Union-find in the given order; a join must pay `least + bridge * log(smaller side)`.

    Returns each node's smallest companion and which links joined two parts.
    """
    parent = np.arange(n).astype(np.int32)
    size = np.ones(n, np.int32)
    tree = np.zeros(len(a), np.bool_)
    for k in order:
        i, j = _find(parent, a[k]), _find(parent, b[k])
        if i == j:
            continue
        # the first pass, without a price, never looks at the nats
        if bridge > 0 and nats[k] < least + bridge * np.log(min(size[i], size[j])):
            continue
        if size[i] < size[j]:
            i, j = j, i
        parent[j] = i
        size[i] += size[j]
        tree[k] = True
    smallest = np.full(n, -1, np.int32)
    root = np.empty(n, np.int32)
    for i in range(n):
        r = _find(parent, i)
        if smallest[r] < 0:
            smallest[r] = i
        root[i] = smallest[r]
    return root, tree


def _total(number: I32, values: NDArray[np.generic], count: int) -> F64:
    return np.asarray(np.bincount(number, weights=values, minlength=count), np.float64)


def _falling(nats: F32) -> I64:
    """The order of falling surprise to a 64th of a nat, ties as they come: the links' own order."""
    steps = (nats * 64).astype(np.int64)
    return group(steps.max(initial=0) - steps, int(steps.max(initial=0)) + 1)[1]


def mix(x: U64) -> U64:
    """Finaliser of splitmix64 (public domain)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)), np.uint64)
