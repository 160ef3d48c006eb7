"""The rehearsal: the log served once more, each account judged by trees that have not met its operator.

Thresholds are promises about honest accounts, and an account is not judged once: by every event of
its, by every sweep, and by every cluster it is in. What it comes to is its highest score of all
those, at the pace of service, and that is what is measured here; a sample of looks promises less
than it seems to.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector import metrics
from detector.engine import Engine
from detector.model import Head
from detector.policy import Action
from detector.sweep import Sweep, cluster_vectors
from detector.trees import Trees
from features.event import AnyEvent
from features.rows import F64, I64
from features.window import CONFLICT, DUPLICATE

# A member of a cluster that the policy would act on is held to the score that so many times as many
# honest accounts pass: a crowd around a ring is not the ring, a member half convicted by his own is [A].
MEMBERS = 3
CONFIDENCE = (
    0.95  # with which a threshold keeps its promise on accounts like those rehearsed on [A]
)
NEVER = -1e9  # below every margin
PART = 512  # events between two looks at the clock


@dataclass(frozen=True)
class Held:
    """A head, and for each fold the trees that have not seen it."""

    head: Head
    trees: Sequence[Trees]

    def margin(self, x: F64, fold: I64) -> F64:
        """Raw scores [n] of rows [n, columns], each by the trees of its fold."""
        out = np.full(len(x), np.nan)
        for k, trees in enumerate(self.trees):
            mine = fold == k
            if mine.any():
                out[mine] = trees.margin(x[mine])
        return out


@dataclass(frozen=True)
class Highest:
    """The highest margin of each account [n], NEVER where it had none: by its events, by its sweeps, and
    by those sweeps that found it in a cluster to act on."""

    event: F64
    standing: F64
    member: F64

    def of(self, some: NDArray[np.bool_]) -> "Highest":
        return Highest(self.event[some], self.standing[some], self.member[some])


def rehearse(
    engine: Engine,
    batches: Iterable[Sequence[AnyEvent]],
    index: Mapping[str, int],
    fold: I64,
    event: Held,
    standing: Held,
    cluster: Held | None,
    progress: Callable[[int], None] | None = None,
) -> Highest:
    """Serve a log with a new engine without a model; accounts that are not in `index` are background.

    Args:
        index: place of each account in `fold`, which holds the fold it is judged in.

    Raises:
        InvalidEvent: an identifier that cannot be read as one.
    """
    found = Highest(*(np.full(len(fold), NEVER) for _ in range(3)))
    for batch in batches:
        for at in range(0, len(batch), PART):
            sealed, refused = engine.sealer.seal(batch[at : at + PART])
            if refused:
                raise refused[0][1]
            folded = engine.restore(sealed)
            who = np.array([index.get(e.account_id, -1) for e in sealed.events], np.int64)
            new = (who >= 0) & (folded.status != DUPLICATE) & (folded.status != CONFLICT)
            rows = who[new]
            np.maximum.at(found.event, rows, event.margin(folded.vectors[new], fold[rows]))
            if progress:
                progress(len(sealed.events))
            if engine.due():
                _look(engine, engine.sweep(), index, fold, standing, cluster, found)
    _look(engine, engine.sweep(everyone=True), index, fold, standing, cluster, found)
    return found


def _look(
    engine: Engine,
    sweep: Sweep,
    index: Mapping[str, int],
    fold: I64,
    standing: Held,
    cluster: Held | None,
    found: Highest,
) -> None:
    """One sweep, as if the held-out trees had served it."""
    who = np.array([index.get(engine.names[int(a)], -1) for a in sweep.account], np.int64)
    known = (who >= 0) & (sweep.row >= 0)
    margin = np.full(len(who), np.nan)
    margin[known] = standing.margin(sweep.vectors[sweep.row[known]], fold[who[known]])
    np.maximum.at(found.standing, who[known], margin[known])
    if not len(sweep.clusters):
        return
    of = sweep.cluster_score
    place = np.where(who >= 0, sweep.place, -1)
    if cluster is not None:
        side = majority(place[known], fold[who[known]], len(sweep.clusters))
        of = cluster.head.calibrate(
            cluster.margin(cluster_vectors(sweep.structure, place, margin), side)
        )
    acted = np.array(
        [engine.verdict(int(n), float(s)) > Action.allow for n, s in zip(sweep.clusters.size, of, strict=True)]
    )  # fmt: skip
    members = known & (place >= 0)
    members[members] = acted[place[members]]
    np.maximum.at(found.member, who[members], margin[members])


def majority(place: I64, fold: I64, clusters: int) -> I64:
    """The fold of most known members of each cluster; 0 of a cluster without any."""
    count = np.zeros((clusters, int(fold.max(initial=0)) + 1), np.int64)
    inside = place >= 0
    np.add.at(count, (place[inside], fold[inside]), 1)
    return np.asarray(count.argmax(1), np.int64)


@dataclass(frozen=True)
class Promised:
    """For each share of the honest that may be hurt: the margins by event, by standing and as a member, how
    many of the honest pass in the rehearsal, and the share of others that will at most (`share_upper_bound`)."""

    event: dict[str, float]
    standing: dict[str, float]
    member: dict[str, float]
    passed: dict[str, int]
    at_most: dict[str, float]


def promised(honest: Highest, group: I64, shares: Sequence[float]) -> Promised:
    """The margins that at most each share of honest accounts passes *by any of the three*, as far as these
    show (`share_upper_bound`): the lowest that as many pass by event as by standing, and MEMBERS times as
    many by the standing that a member is held to.

    `group` [n] is the group of each account: people who share something are hurt together. Where they
    are too few for a share, none of them passes, and more than that may all the same.
    """
    n = len(honest.event)
    zeros = np.zeros(n)

    def at(k: int) -> tuple[float, float, float]:
        return (
            metrics.threshold_at_fpr(zeros, honest.event, k / n),
            metrics.threshold_at_fpr(zeros, honest.standing, k / n),
            metrics.threshold_at_fpr(zeros, honest.standing, min(1.0, MEMBERS * k / n)),
        )

    def hurt(k: int) -> NDArray[np.bool_]:
        event, standing, member = at(k)
        return (honest.event > event) | (honest.standing > standing) | (honest.member > member)

    told = Promised({}, {}, {}, {}, {})
    for share in shares:
        low, high = 0, int(share * n)
        while low < high:  # the bound grows with k, but for a rare step; what is found keeps it
            middle = (low + high + 1) // 2
            kept = share_upper_bound(hurt(middle), group) <= share
            low, high = (middle, high) if kept else (low, middle - 1)
        name = str(share)
        told.event[name], told.standing[name], told.member[name] = at(low)
        passed = hurt(low)
        told.passed[name], told.at_most[name] = int(passed.sum()), share_upper_bound(passed, group)
    return told


def share_upper_bound(passed: NDArray[np.bool_], group: I64) -> float:
    """Upper confidence bound of the share that passes among accounts like these [n], whose groups are the draws.

    Wilson's bound (1927) for as many independent accounts as these are worth: n over the design effect,
    which is the linearised variance of the ratio estimator (Cochran, *Sampling Techniques*, 3rd ed.,
    1977, ch. 6) over that of n independent draws, and at least 1 (Korn and Graubard 1998). Where none
    passes it is some 2.7/n.
    """
    size = np.bincount(group)
    hits = np.bincount(group, passed)[size > 0]
    size = size[size > 0]
    n, groups = int(size.sum()), len(size)
    share = float(hits.sum()) / n
    rest = float(((hits - share * size) ** 2).sum()) * groups / max(groups - 1, 1)
    independent = n * share * (1 - share)
    worth = n / max(1.0, rest / independent) if independent > 0 else n
    return metrics.wilson(share * worth, worth, 2 * CONFIDENCE - 1)[1]
