"""What we measure, each number defined where it is computed.

Pure functions over arrays; nothing here reads a file, a clock or a global random state. A quantity
that has no value (the recall of no abusive account, the price of a dollar never sold) is NaN, and
one that lies beyond what was observed is infinite: neither is ever rounded to a pleasant 0 or 1.

Two conventions hold throughout. An account is flagged when `score > threshold`, strictly, so that a
threshold can be an observed score and the accounts tied with it are treated alike. And in a label
array "in no ring" (or cluster, cohort, group) is -1 in an integer array and None, "" or NaN in any
other.

Accounts are counted here, not events; a cluster is our guess, a ring the truth.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

CALIBRATION_BINS = 15
PRINTED_FPRS = (0.001, 0.01)
BASE_RATES = (0.001, 0.01, 0.05)
RING_SIZES: tuple[tuple[str, int, float], ...] = (
    ("2-5", 2, 5),
    ("6-20", 6, 20),
    ("21-100", 21, 100),
    (">100", 101, math.inf),
)
RING_FOUND_JACCARD = 0.5
CONFIDENCE = 0.95
BOOTSTRAP_ROUNDS = 1000


class Rates(TypedDict):
    """What a threshold did. `n_flagged` accounts had `score > threshold`."""

    fpr: float
    recall: float
    precision: float
    n_flagged: int


class Agreement(TypedDict):
    """Precision, recall and their harmonic mean."""

    precision: float
    recall: float
    f1: float


class Found(TypedDict):
    """Rings of a size, and how many of them a cluster matches."""

    n: int
    found: int
    recall: float


class Bystanders(TypedDict):
    """Honest accounts in clusters. `mean` and `most` are per cluster."""

    clusters: int
    total: int
    mean: float
    most: int
    clusters_without_ring: int


class CohortRate(TypedDict):
    """False-positive rate of an honest cohort of `n` accounts, with its Wilson interval."""

    n: int
    fpr: float
    low: float
    high: float


class Bin(TypedDict):
    """`n` accounts of like score: the mean of what was promised, and the share that was abusive."""

    n: int
    mean_score: float
    share_abusive: float


class Interval(TypedDict):
    """A statistic and its percentile bootstrap interval; `rounds` is how many had a value."""

    value: float
    low: float
    high: float
    rounds: int


class Detection(TypedDict):
    """How long rings went undetected; infinite where fewer rings than that were ever detected."""

    median_accounts: float
    median_events: float
    median_hours: float
    p90_hours: float
    rings_undetected: int


class Money(TypedDict):
    """What abuse took, as shares of what it would have taken and of the official price."""

    leaked_usd: float
    leaked_share: float
    break_even_share: float


# --- scores


def average_precision(y: ArrayLike, score: ArrayLike) -> float:
    """Area under the precision-recall curve, as the step sum Σ (R_k − R_{k−1}) P_k.

    One step per distinct score, so that the order of tied accounts does not matter. No line is
    drawn between the points: that would be optimistic (Davis & Goadrich, ICML 2006). NaN without an
    abusive account. Same definition as scikit-learn's.
    """
    _, caught, wrong = _operating_points(y, score)
    positives = caught[-1] if len(caught) else 0
    if positives == 0:
        return math.nan
    precision = caught[1:] / (caught[1:] + wrong[1:])
    return float(np.sum(np.diff(caught) / positives * precision))


def roc_auc(y: ArrayLike, score: ArrayLike) -> float:
    """Chance that an abusive account scores above an honest one, a tie counting half.

    Mann-Whitney U over the number of pairs (Hanley & McNeil 1982). NaN without either kind.
    """
    _, caught, wrong = _operating_points(y, score)
    pairs = int(caught[-1]) * int(wrong[-1])
    if pairs == 0:
        return math.nan
    # Trapezoids under (FPR, TPR): a tie is a diagonal step, which halves its rectangle.
    return float(np.sum(np.diff(wrong) * (caught[1:] + caught[:-1])) / (2 * pairs))


def threshold_at_fpr(y: ArrayLike, score: ArrayLike, fpr: float) -> float:
    """The lowest threshold whose false-positive rate is at most `fpr`.

    Flagged means `score > threshold`. The answer is an observed score, the highest that cannot be
    flagged without exceeding `fpr`, or -inf when all accounts can be flagged. Tied accounts are
    flagged together or not at all, so that the realised rate may fall short of `fpr`, never exceed
    it. Choose it on validation data, freeze it, and print `rates_at` of the test beside it.

    Raises ValueError without an honest account, or for an `fpr` outside 0 to 1.
    """
    thresholds, _, wrong = _operating_points(y, score)
    if wrong[-1] == 0:
        raise ValueError("no honest account: a false-positive rate has no meaning")
    return float(thresholds[_last_allowed(wrong, fpr)])


def recall_at_fpr(y: ArrayLike, score: ArrayLike, fpr: float) -> float:
    """The largest recall of any threshold whose false-positive rate is at most `fpr`, exactly.

    The recall at `threshold_at_fpr`; nothing is interpolated between two achievable points. NaN
    without an abusive or without an honest account. Raises ValueError for an `fpr` outside 0 to 1.
    """
    _, caught, wrong = _operating_points(y, score)
    allowed = _last_allowed(wrong, fpr)
    if caught[-1] == 0 or wrong[-1] == 0:
        return math.nan
    return float(caught[allowed] / caught[-1])


def recall_at_budget(y: ArrayLike, score: ArrayLike, budget: int) -> float:
    """Share of the abusive accounts among the `budget` highest scores.

    Where the budget ends within a tie, the expected share over all orders of the tied accounts.
    NaN without an abusive account. Raises ValueError for a negative budget.
    """
    if budget < 0:
        raise ValueError(f"budget is {budget}; it must not be negative")
    _, caught, wrong = _operating_points(y, score)
    if caught[-1] == 0:
        return math.nan
    # np.interp draws the line from one distinct score to the next, which is that expectation.
    return float(np.interp(budget, caught + wrong, caught) / caught[-1])


def ranking(y: ArrayLike, score: ArrayLike) -> dict[str, Any]:
    """How well scores of any scale put the abusive before the honest: what every table of ours prints."""
    return {
        "n": len(np.asarray(y)),
        "n_abusive": int(np.count_nonzero(y)),
        "auc": roc_auc(y, score),
        "pr_auc": average_precision(y, score),
        "recall_at_fpr": {str(f): recall_at_fpr(y, score, f) for f in PRINTED_FPRS},
    }


def precision_recall_curve(y: ArrayLike, score: ArrayLike, points: int) -> dict[str, list[float]]:
    """`recall` rising and the `precision` there, at `points` achievable operating points at most.

    Of each of so many evenly spaced recalls, the highest threshold that reaches it. Empty without
    an abusive account.
    """
    _, caught, wrong = _operating_points(y, score)
    if caught[-1] == 0:
        return {"recall": [], "precision": []}
    aim = np.linspace(0, caught[-1], points + 1)[1:]
    at = np.unique(np.searchsorted(caught, aim - 1e-9))
    return {
        "recall": (caught[at] / caught[-1]).tolist(),
        "precision": (caught[at] / (caught[at] + wrong[at])).tolist(),
    }


def rates_at(y: ArrayLike, score: ArrayLike, threshold: float) -> Rates:
    """What flagging `score > threshold` does: the realised rates, NaN where nothing is divided."""
    truth, scores = _checked(y, score)
    flagged = scores > threshold
    caught = int(np.count_nonzero(flagged & truth))
    n_flagged = int(np.count_nonzero(flagged))
    positives = int(np.count_nonzero(truth))
    return {
        "fpr": _share(n_flagged - caught, len(truth) - positives),
        "recall": _share(caught, positives),
        "precision": _share(caught, n_flagged),
        "n_flagged": n_flagged,
    }


def precision_at_base_rates(
    recall: float, fpr: float, base_rates: Sequence[float] = BASE_RATES
) -> dict[float, float]:
    """Precision that a recall and a false-positive rate mean where π of the accounts are abusive.

    Bayes: π·recall / (π·recall + (1 − π)·fpr). NaN where nothing at all would be flagged.
    """
    return {rate: _share(rate * recall, rate * recall + (1 - rate) * fpr) for rate in base_rates}


# --- calibration


def brier(y: ArrayLike, probability: ArrayLike) -> float:
    """Mean of (probability − outcome)² (Brier 1950). NaN for no accounts."""
    truth, p = _checked(y, probability, probabilities=True)
    return float(np.mean((p - truth) ** 2)) if len(p) else math.nan


def expected_calibration_error(
    y: ArrayLike, probability: ArrayLike, bins: int = CALIBRATION_BINS
) -> float:
    """Σ (n_b / n) |mean outcome − mean probability| over `bins` bins of equal mass.

    Equal mass and not equal width, since nearly all accounts score near 0 (Nguyen & O'Connor, EMNLP
    2015; Roelofs et al., AISTATS 2022, on the bias). Bin sizes differ by one at most. Isotonic
    calibration ties thousands of accounts at one value, and a tie may straddle bins: each tied
    account then counts with the tie's mean outcome, so that the order of the rows has no say. NaN
    for no accounts.
    """
    truth, p = _checked(y, probability, probabilities=True)
    if bins < 1:
        raise ValueError(f"bins is {bins}; at least one is needed")
    if len(p) == 0:
        return math.nan
    rows = reliability(tied_outcome(truth, p), p, bins)
    return sum(r["n"] * abs(r["share_abusive"] - r["mean_score"]) for r in rows) / len(p)


def tied_outcome(y: ArrayLike, score: ArrayLike) -> Floats:
    """Of each account the share of abusive ones among those of its very score."""
    truth, scores = _checked(y, score)
    _, tie, size = np.unique(scores, return_inverse=True, return_counts=True)
    return np.asarray(
        (np.bincount(tie, weights=truth, minlength=len(size)) / size)[tie], np.float64
    )


def reliability(
    outcome: ArrayLike, probability: ArrayLike, bins: int = CALIBRATION_BINS
) -> list[Bin]:
    """What was promised and what came, in `bins` bins of equal mass from the lowest probability up.

    `outcome` is 0 or 1, or a share where accounts are tied (`tied_outcome`): then the order of the
    rows has no say. Fewer accounts than bins give fewer bins.
    """
    came, p = np.asarray(outcome, np.float64), np.asarray(probability, np.float64)
    order = np.argsort(p, kind="stable")
    return [
        {
            "n": len(part),
            "mean_score": float(p[part].mean()),
            "share_abusive": float(came[part].mean()),
        }
        for part in np.array_split(order, bins)
        if len(part)
    ]


# --- clusters


def pairwise(ring: ArrayLike, cluster: ArrayLike) -> Agreement:
    """Agreement over pairs of accounts: both in one ring against both in one cluster.

    Precision is the share of same-cluster pairs that are same-ring, honest members included, so
    that a bystander costs as many pairs as the cluster has members. Recall is the share of
    same-ring pairs that are same-cluster, unclustered members included. Counted from the
    contingency table. NaN where there is no such pair; F1 is 2·both / (same cluster + same ring),
    hence 0 and not NaN when one side only is empty.
    """
    table = _Contingency(ring, cluster)
    both = _pairs(table.shared)
    clustered = _pairs(table.cluster_sizes)
    truth = _pairs(table.ring_sizes)
    return {
        "precision": _share(both, clustered),
        "recall": _share(both, truth),
        "f1": _share(2 * both, clustered + truth),
    }


def b_cubed(ring: ArrayLike, cluster: ArrayLike, *, abusive_only: bool) -> Agreement:
    """B³: each account's own precision and recall, averaged over accounts (Bagga & Baldwin 1998).

    Of an account with cluster C and ring R: |C ∩ R| / |C| and |C ∩ R| / |R|. An unclustered account
    is a cluster of its own, an honest one a ring of its own (Amigó et al. 2009). Averaged over
    the abusive accounts, or over all; over all, mostly over honest accounts that were rightly left
    alone. F1 is the harmonic mean of the two averages. NaN when there is no account to average.
    """
    table = _Contingency(ring, cluster)
    cluster_size = _sizes_per_account(table.cluster)
    ring_size = _sizes_per_account(table.ring)
    shared = np.ones(len(table.ring), dtype=np.int64)
    shared[table.in_both] = table.shared[table.cell]
    chosen = table.ring >= 0 if abusive_only else np.ones(len(table.ring), dtype=np.bool_)
    if not chosen.any():
        return {"precision": math.nan, "recall": math.nan, "f1": math.nan}
    precision = float(np.mean(shared[chosen] / cluster_size[chosen]))
    recall = float(np.mean(shared[chosen] / ring_size[chosen]))
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
    }


def ring_recall(ring: ArrayLike, cluster: ArrayLike) -> dict[str, Found]:
    """Share of rings found, in all (key "all") and by the ring's size (keys as in RING_SIZES).

    A ring is found when some cluster has |C ∩ R| / |C ∪ R| ≥ 1/2. Rings of one account are left
    out: there is nothing to link. NaN where there is no ring of that size.
    """
    table = _Contingency(ring, cluster)
    union = table.ring_sizes[table.cell_ring] + table.cluster_sizes[table.cell_cluster]
    matches = table.shared >= RING_FOUND_JACCARD * (union - table.shared)
    found = np.zeros(len(table.ring_sizes), dtype=np.bool_)
    found[table.cell_ring[matches]] = True
    recall: dict[str, Found] = {}
    for name, smallest, largest in (("all", 2, math.inf), *RING_SIZES):
        sized = (table.ring_sizes >= smallest) & (table.ring_sizes <= largest)
        n, hits = int(np.count_nonzero(sized)), int(np.count_nonzero(found[sized]))
        recall[name] = {"n": n, "found": hits, "recall": _share(hits, n)}
    return recall


def bystanders(ring: ArrayLike, cluster: ArrayLike) -> Bystanders:
    """Honest accounts that sit in clusters, per cluster.

    A cluster without any ring member is all bystanders, and is counted in `clusters_without_ring`
    as well. `mean` is NaN without a cluster.
    """
    table = _Contingency(ring, cluster)
    honest = np.bincount(
        table.cluster[(table.cluster >= 0) & (table.ring < 0)], minlength=len(table.cluster_sizes)
    )
    clusters = len(table.cluster_sizes)
    return {
        "clusters": clusters,
        "total": int(honest.sum()),
        "mean": _share(int(honest.sum()), clusters),
        "most": int(honest.max(initial=0)),
        "clusters_without_ring": int(np.count_nonzero(honest == table.cluster_sizes)),
    }


# --- intervals


def wilson(hits: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927).

    Unlike the normal approximation it is sound at 0 hits and for small n, which need not be whole (an
    effective sample size). (0, 1) for n = 0. Raises ValueError unless 0 ≤ hits ≤ n.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} hits of {n}: hits must be from 0 to n")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = hits / n, z * z / n
    centre = share + spread / 2
    half = math.sqrt(spread * (share * (1 - share) + spread / 4))
    # At the ends the bound is exactly 0 or 1; the subtraction would leave 1e-17.
    low = 0.0 if hits == 0 else (centre - half) / (1 + spread)
    high = 1.0 if hits == n else (centre + half) / (1 + spread)
    return low, high


def cohort_fpr(
    cohort: ArrayLike, y: ArrayLike, flagged: ArrayLike, confidence: float = CONFIDENCE
) -> dict[str, CohortRate]:
    """False-positive rate of each honest cohort, by name, with its Wilson interval.

    `y` is truthy for abusive accounts, which are left out; so are accounts of no cohort. Shapes are
    all (accounts,). Raises ValueError when they differ.
    """
    names, codes = _coded(cohort)
    truth, flags = np.asarray(y).astype(np.bool_), np.asarray(flagged).astype(np.bool_)
    _same_length("cohort", codes, "y", truth, "flagged", flags)
    honest = (codes >= 0) & ~truth
    n = np.bincount(codes[honest], minlength=len(names))
    hits = np.bincount(codes[honest & flags], minlength=len(names))
    table: dict[str, CohortRate] = {}
    for name, size, wrong in zip(names, n.tolist(), hits.tolist(), strict=True):
        if size:
            low, high = wilson(wrong, size, confidence)
            table[str(name)] = {"n": size, "fpr": wrong / size, "low": low, "high": high}
    return table


def bootstrap(
    statistic: Callable[[Indices], float],
    groups: ArrayLike,
    rng: np.random.Generator,
    rounds: int = BOOTSTRAP_ROUNDS,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Percentile bootstrap of a statistic, groups and not rows being resampled.

    Accounts of one ring, or of one honest organisation, stand and fall together, and resampling
    them singly gives intervals that are too narrow (Davison & Hinkley 1997). `groups` names
    the group of each row, shape (rows,); a row of no group is one by itself. `statistic` is given
    row indices, in which a row appears as often as its group was drawn. Rounds in which it has no
    value (NaN) are left out and show in `rounds`; with none left the bounds are NaN.

    Raises ValueError without rows or without rounds.
    """
    _, codes = _coded(groups)
    if len(codes) == 0 or rounds < 1:
        raise ValueError("a bootstrap needs at least one row and one round")
    alone = codes < 0
    codes[alone] = codes.max(initial=-1) + 1 + np.arange(np.count_nonzero(alone))
    rows = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    starts = np.cumsum(sizes) - sizes
    drawn = np.empty(rounds)
    for number in range(rounds):
        picked = rng.integers(0, len(sizes), len(sizes))
        lengths = sizes[picked]
        # Position within its run, plus where the run starts: all runs laid end to end.
        offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        drawn[number] = statistic(rows[np.repeat(starts[picked], lengths) + offsets])
    drawn = drawn[~np.isnan(drawn)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail]) if len(drawn) else (math.nan, math.nan)
    return {
        "value": float(statistic(np.arange(len(codes)))),
        "low": float(low),
        "high": float(high),
        "rounds": len(drawn),
    }


# --- time


def time_to_detection(
    detected: ArrayLike, accounts: ArrayLike, events: ArrayLike, hours: ArrayLike
) -> Detection:
    """From a ring's first event to its first correct alert, at whatever FPR the alerts were raised.

    One row a ring. For a detected ring: how many accounts, events and hours it had by then. For an
    undetected one `hours` is from its first event to the *end of the log*, not to its own last
    event, and `accounts` and `events` are not read.

    Undetected rings are right-censored, and how is what the numbers hang on. A ring that burnt its
    accounts and left was never going to be caught; to censor it when it left, as Kaplan-Meier by
    habit would, takes it out of the count and flatters us. So it stays at risk to the end of the
    log, which is what the estimator for competing risks does (Fine & Gray 1999): hours are
    Kaplan-Meier quantiles with that censoring. Accounts and events have no such horizon, and an
    undetected ring counts as beyond every number. A quantile q is the least value by which a share
    q of the rings is detected (no mean of two), and infinite if that share never is. All NaN, and 0
    undetected, without a ring. Raises ValueError when shapes differ or a value read is negative or
    NaN.
    """
    hit = np.asarray(detected).astype(np.bool_)
    columns = [np.array(column, dtype=np.float64) for column in (accounts, events, hours)]
    for name, column in zip(("accounts", "events", "hours"), columns, strict=True):
        _same_length("detected", hit, name, column)
        read = column if name == "hours" else column[hit]
        if not (read >= 0).all():
            raise ValueError(f"{name} of a ring is negative or NaN")
    for column in columns[:2]:
        column[~hit] = math.inf
    return {
        "median_accounts": kaplan_meier_quantile(columns[0], hit, 0.5),
        "median_events": kaplan_meier_quantile(columns[1], hit, 0.5),
        "median_hours": kaplan_meier_quantile(columns[2], hit, 0.5),
        "p90_hours": kaplan_meier_quantile(columns[2], hit, 0.9),
        "rings_undetected": int(np.count_nonzero(~hit)),
    }


def kaplan_meier_quantile(time: ArrayLike, happened: ArrayLike, q: float) -> float:
    """The least t with 1 − S(t) ≥ q, S being the product-limit estimate (Kaplan & Meier 1958).

    `time` is when it happened, or (`happened` false) until when it was known not to have; at equal
    times what happened comes first. Infinite when the estimate never gets there, NaN for no rows.
    """
    moments, share = kaplan_meier(time, happened)
    if len(np.asarray(time)) == 0:
        return math.nan
    # The product of fractions such as 9/10 · 8/9 · … lands a rounding error beside the 1/2.
    reached = np.flatnonzero(share >= q - 1e-12)
    return float(moments[reached[0]]) if len(reached) else math.inf


def kaplan_meier(time: ArrayLike, happened: ArrayLike) -> tuple[Floats, Floats]:
    """The moments at which something happened, and 1 − S(t) from each on; arguments as above."""
    times, hit = np.asarray(time, dtype=np.float64), np.asarray(happened).astype(np.bool_)
    _same_length("time", times, "happened", hit)
    moments, events = np.unique(times[hit], return_counts=True)
    at_risk = len(times) - np.searchsorted(np.sort(times), moments, side="left")
    return moments, np.asarray(1 - np.cumprod(1 - events / at_risk), np.float64)


# --- money


def leaked(
    cost_usd: ArrayLike,
    paid_usd: ArrayLike,
    charged_usd: ArrayLike,
    refunded_usd: ArrayLike,
    disputed_usd: ArrayLike,
) -> Floats:
    """Dollars leaked: cost − paid − (charged − refunded − disputed), element by element.

    The contract's definition: list price of what was served, less what was billed for those very
    calls, less what was charged beside them (plans, top-ups) and not taken back. All amounts are
    positive. Grants and gift credit are no charge: what they pay for leaks. Negative for an account
    that paid for more than it used, and left so: the sum over accounts is the provider's.
    """
    cost, paid, charged, refunded, disputed = (
        _amounts(name, values)
        for name, values in (
            ("cost_usd", cost_usd),
            ("paid_usd", paid_usd),
            ("charged_usd", charged_usd),
            ("refunded_usd", refunded_usd),
            ("disputed_usd", disputed_usd),
        )
    )
    return cost - paid - (charged - refunded - disputed)


def money(
    *,
    cost_usd: ArrayLike,
    paid_usd: ArrayLike,
    charged_usd: ArrayLike,
    refunded_usd: ArrayLike,
    disputed_usd: ArrayLike,
    undefended_usd: ArrayLike,
    outlay_usd: ArrayLike,
) -> Money:
    """What the abusive accounts took before they were stopped. One row an account (or a ring).

    `cost`, `paid` and `charged` count up to the account's stop. `refunded` and `disputed` count
    whenever they come, as long as they take back a charge from before it: a carded account's
    disputes arrive weeks after its suspension. `undefended_usd` is `leaked` of the same rows had
    nobody been stopped, `outlay_usd` what the operator spent beside the provider by the cost table
    (accounts, cards, numbers, faces, egress).

    `leaked_usd`: Σ leaked. `leaked_share`: of Σ undefended; 0 is stopped before the first cent, 1
    is no detector at all; NaN where nothing would have leaked. `break_even_share`: the operator's
    cost of a resold list-price dollar, (Σ outlay + what the provider kept: Σ paid + charged −
    refunded − disputed) / Σ cost. Above 1 a reseller loses at the official price; the street sells
    at .10 to .15. Infinite if there was outlay and nothing was served, NaN if there was neither.
    """
    amounts = (cost_usd, paid_usd, charged_usd, refunded_usd, disputed_usd)
    lost = leaked(*amounts)
    undefended = _amounts("undefended_usd", undefended_usd, signed=True)
    outlay = _amounts("outlay_usd", outlay_usd)
    _same_length("cost_usd", lost, "undefended_usd", undefended, "outlay_usd", outlay)
    leaked_usd, undefended_total = math.fsum(lost), math.fsum(undefended)
    served = math.fsum(_amounts("cost_usd", cost_usd))
    # leaked = cost − kept, hence kept = cost − leaked.
    spent = math.fsum(outlay) + served - leaked_usd
    return {
        "leaked_usd": leaked_usd,
        "leaked_share": _share(leaked_usd, undefended_total) if undefended_total > 0 else math.nan,
        "break_even_share": math.inf if served == 0 < spent else _share(spent, served),
    }


# --- beneath


class _Contingency:
    """Who is in which ring and in which cluster, counted once.

    Codes are 0… or -1 for none. A cell is a (ring, cluster) pair that some account is in.
    """

    def __init__(self, ring: ArrayLike, cluster: ArrayLike) -> None:
        rings, self.ring = _coded(ring)
        clusters, self.cluster = _coded(cluster)
        _same_length("ring", self.ring, "cluster", self.cluster)
        self.ring_sizes = np.bincount(self.ring[self.ring >= 0], minlength=len(rings))
        self.cluster_sizes = np.bincount(self.cluster[self.cluster >= 0], minlength=len(clusters))
        self.in_both = (self.ring >= 0) & (self.cluster >= 0)
        keys = self.ring[self.in_both] * max(len(clusters), 1) + self.cluster[self.in_both]
        cells, self.cell, self.shared = np.unique(keys, return_inverse=True, return_counts=True)
        self.cell_ring, self.cell_cluster = np.divmod(cells, max(len(clusters), 1))


def _coded(labels: ArrayLike) -> tuple[list[Any], Indices]:
    """Distinct labels, sorted where they can be, and for each row its index there, -1 for none."""
    array = np.asarray(labels)
    if array.ndim != 1:
        raise ValueError(f"labels have {array.ndim} dimensions; one is expected")
    if array.dtype.kind in "iu":
        names, codes = np.unique(array, return_inverse=True)
        none = int(np.count_nonzero(names < 0)) if array.dtype.kind == "i" else 0
        return names[none:].tolist(), np.maximum(codes.astype(np.intp) - none, -1)
    known: dict[Any, int] = {}
    codes = np.fromiter(
        (
            -1
            if label is None or label == "" or (isinstance(label, float) and math.isnan(label))
            else known.setdefault(label, len(known))
            for label in array.tolist()
        ),
        dtype=np.intp,
        count=len(array),
    )
    return list(known), codes


def _operating_points(
    y: ArrayLike, score: ArrayLike
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Thresholds from the highest down, and the abusive and honest accounts above each.

    Shapes (distinct scores + 1,): the first flags nobody, the last (-inf) everybody.
    """
    truth, scores = _checked(y, score)
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    last_of_tie = np.flatnonzero(np.diff(falling, append=-math.inf))
    caught = np.cumsum(truth[order])[last_of_tie]
    flagged = last_of_tie + 1
    thresholds = np.append(falling[last_of_tie], -math.inf)
    return (
        thresholds,
        np.concatenate([[0], caught]).astype(np.int64),
        np.concatenate([[0], flagged - caught]).astype(np.int64),
    )


def _last_allowed(wrong: NDArray[np.int64], fpr: float) -> int:
    """Index of the last operating point within `fpr`.

    Compared as a quotient: 29/100 and the literal .29 are the same double, 29 and .29·100 are not.
    """
    if not 0 <= fpr <= 1:
        raise ValueError(f"fpr is {fpr}; it must be from 0 to 1")
    return int(np.flatnonzero(wrong / max(int(wrong[-1]), 1) <= fpr)[-1])


def _checked(
    y: ArrayLike, score: ArrayLike, *, probabilities: bool = False
) -> tuple[NDArray[np.bool_], Floats]:
    truth = np.asarray(y)
    scores = np.asarray(score, dtype=np.float64)
    _same_length("y", truth, "score", scores)
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("y holds something that is neither 0 nor 1")
    if not np.isfinite(scores).all():
        raise ValueError("score holds NaN or infinity")
    if probabilities and not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("probability lies outside 0 to 1")
    return truth.astype(np.bool_), scores


def _amounts(name: str, values: ArrayLike, *, signed: bool = False) -> Floats:
    amounts = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if not np.isfinite(amounts).all():
        raise ValueError(f"{name} holds NaN or infinity")
    if not signed and (amounts < 0).any():
        raise ValueError(f"{name} holds a negative amount")
    return amounts


def _same_length(*named: object) -> None:
    """Names and arrays, alternating. Raises ValueError unless all are one-dimensional and equal."""
    names, arrays = named[::2], [np.asarray(array) for array in named[1::2]]
    shapes = [array.shape for array in arrays]
    if any(shape != shapes[0] or len(shape) != 1 for shape in shapes):
        said = ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True))
        raise ValueError(f"one value an account is expected in each: {said}")


def _sizes_per_account(codes: Indices) -> NDArray[np.int64]:
    """For each account the size of its group, 1 where it has none."""
    sizes = np.ones(len(codes), dtype=np.int64)
    grouped = codes >= 0
    sizes[grouped] = np.bincount(codes[grouped])[codes[grouped]]
    return sizes


def _pairs(sizes: NDArray[np.integer[Any]]) -> int:
    wide = sizes.astype(np.int64)
    return int((wide * (wide - 1) // 2).sum())


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
