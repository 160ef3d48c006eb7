import math
from collections import Counter
from fractions import Fraction
from itertools import combinations
from itertools import pairwise as neighbours
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    roc_auc_score,
)

from detector.metrics import (
    average_precision,
    b_cubed,
    bootstrap,
    brier,
    bystanders,
    cohort_fpr,
    expected_calibration_error,
    kaplan_meier,
    kaplan_meier_quantile,
    leaked,
    money,
    pairwise,
    precision_at_base_rates,
    rates_at,
    recall_at_budget,
    recall_at_fpr,
    ring_recall,
    roc_auc,
    threshold_at_fpr,
    time_to_detection,
    wilson,
)

# Few distinct scores, so that ties are the rule; some of them differ in the last bit only.
tied_scores = st.sampled_from([0.0, 0.1, 0.1 + 2**-56, 0.3, 0.5, 0.5000000000000001, 0.9, 1.0])
scored = st.lists(st.tuples(st.booleans(), tied_scores), min_size=1, max_size=40)
targets = st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.25, 1 / 3, 0.5, 0.9, 1.0])

labels = st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), min_size=1, max_size=30).map(
    lambda rows: (np.array([r for r, _ in rows]), np.array([c for _, c in rows]))
)


def split(rows: list[tuple[bool, float]]) -> tuple[NDArray[Any], NDArray[Any]]:
    return np.array([y for y, _ in rows]), np.array([s for _, s in rows])


def same(left: float, right: float) -> bool:
    return left == pytest.approx(right, nan_ok=True, abs=1e-12)


# --- scores


@given(scored)
def test_curve_areas_agree_with_sklearn(rows: list[tuple[bool, float]]) -> None:
    y, score = split(rows)
    if not y.any():
        assert math.isnan(average_precision(y, score))
        assert math.isnan(roc_auc(y, score))
        return
    assert same(average_precision(y, score), average_precision_score(y, score))
    if y.all():
        assert math.isnan(roc_auc(y, score))
    else:
        assert same(roc_auc(y, score), roc_auc_score(y, score))


@given(scored, targets)
def test_recall_at_fpr_is_the_best_of_all_thresholds(
    rows: list[tuple[bool, float]], target: float
) -> None:
    y, score = split(rows)
    assume(y.any() and not y.all())
    best = max(
        np.mean(score[y] > threshold)
        for threshold in [-math.inf, *score]
        if np.mean(score[~y] > threshold) <= target
    )
    assert recall_at_fpr(y, score, target) == best
    threshold = threshold_at_fpr(y, score, target)
    realised = rates_at(y, score, threshold)
    assert realised["recall"] == best
    assert realised["fpr"] <= target
    # The lowest such threshold: any lower observed score, or -inf, breaks the target.
    lower = [other for other in [-math.inf, *score] if other < threshold]
    assert all(np.mean(score[~y] > other) > target for other in lower)


@given(scored, targets, st.randoms())
def test_order_of_rows_has_no_say(
    rows: list[tuple[bool, float]], target: float, random: Any
) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    for metric in (
        average_precision,
        roc_auc,
        brier,
        expected_calibration_error,
        lambda y, s: recall_at_fpr(y, s, target),
        lambda y, s: recall_at_budget(y, s, 3),
    ):
        assert same(metric(*split(rows)), metric(*split(shuffled)))


def test_tie_at_the_threshold_is_flagged_whole_or_not_at_all() -> None:
    y = [0] * 8 + [1, 1, 0, 1]
    score = [0.1] * 8 + [0.9, 0.5, 0.5, 0.5]
    assert recall_at_fpr(y, score, 0.0) == 1 / 3
    assert threshold_at_fpr(y, score, 0.0) == 0.5
    assert recall_at_fpr(y, score, 1 / 9) == 1.0
    assert threshold_at_fpr(y, score, 1 / 9) == 0.1
    assert rates_at(y, score, 0.5) == {
        "fpr": 0.0,
        "recall": 1 / 3,
        "precision": 1.0,
        "n_flagged": 1,
    }


def test_target_met_exactly_is_allowed() -> None:
    """29 of 100 is a rate of .29 although .29 * 100 < 29 in floating point."""
    assert 0.29 * 100 < 29
    y = [0] * 100 + [1]
    score = [float(rank) for rank in range(100)] + [70.5]
    assert recall_at_fpr(y, score, 0.29) == 1.0
    assert rates_at(y, score, threshold_at_fpr(y, score, 0.29))["fpr"] == 0.29


def test_scores_without_one_kind() -> None:
    assert math.isnan(recall_at_fpr([0, 0], [0.1, 0.2], 0.5))
    assert math.isnan(recall_at_fpr([1, 1], [0.1, 0.2], 0.5))
    assert threshold_at_fpr([0, 0], [0.1, 0.2], 1.0) == -math.inf
    with pytest.raises(ValueError, match="no honest account"):
        threshold_at_fpr([1], [0.5], 0.5)
    nothing = rates_at([], [], 0.5)
    assert nothing["n_flagged"] == 0
    assert all(math.isnan(nothing[rate]) for rate in ("fpr", "recall", "precision"))
    assert math.isnan(average_precision([], []))
    assert math.isnan(brier([], []))
    assert math.isnan(expected_calibration_error([], []))


@given(scored, st.integers(0, 45))
def test_recall_at_budget_is_the_mean_over_orders_of_ties(
    rows: list[tuple[bool, float]], budget: int
) -> None:
    y, score = split(rows)
    assume(y.any())
    expected, left = 0.0, budget
    for value in sorted(set(score.tolist()), reverse=True):
        tied = y[score == value]
        taken = min(left, len(tied))
        expected += taken * tied.mean()
        left -= taken
    assert same(recall_at_budget(y, score, budget), expected / y.sum())


@pytest.mark.parametrize(
    ("y", "score", "said"),
    [
        ([0, 2], [0.1, 0.2], "neither 0 nor 1"),
        ([0, 1], [0.1, math.nan], "NaN or infinity"),
        ([0, 1], [0.1, math.inf], "NaN or infinity"),
        ([0, 1], [0.1], r"y \(2,\), score \(1,\)"),
        ([[0, 1]], [[0.1, 0.2]], "one value an account"),
    ],
)
def test_bad_scores_are_refused(y: Any, score: Any, said: str) -> None:
    for metric in (average_precision, roc_auc, brier, expected_calibration_error):
        with pytest.raises(ValueError, match=said):
            metric(y, score)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"fpr is 1\.5"):
        recall_at_fpr([0, 1], [0.1, 0.2], 1.5)
    with pytest.raises(ValueError, match="budget is -1"):
        recall_at_budget([0, 1], [0.1, 0.2], -1)
    with pytest.raises(ValueError, match="outside 0 to 1"):
        brier([0, 1], [0.1, 1.2])
    with pytest.raises(ValueError, match="bins is 0"):
        expected_calibration_error([0, 1], [0.1, 0.2], bins=0)


def test_precision_at_base_rates() -> None:
    precision = precision_at_base_rates(0.8, 0.001)
    assert list(precision) == [0.001, 0.01, 0.05]
    # Of 100,000 accounts 100 are abusive: 80 are caught, and 99.9 of the 99,900 others.
    assert same(precision[0.001], 80 / (80 + 99.9))
    assert precision_at_base_rates(0.5, 0.0)[0.001] == 1.0
    assert math.isnan(precision_at_base_rates(0.0, 0.0)[0.01])


@given(scored, tied_scores)
def test_bayes_agrees_with_the_realised_precision(
    rows: list[tuple[bool, float]], threshold: float
) -> None:
    y, score = split(rows)
    assume(y.any() and not y.all())
    realised = rates_at(y, score, threshold)
    rate = float(np.mean(y))
    meant = precision_at_base_rates(realised["recall"], realised["fpr"], [rate])[rate]
    assert same(meant, realised["precision"])


# --- calibration


@given(scored)
def test_brier_agrees_with_sklearn(rows: list[tuple[bool, float]]) -> None:
    y, p = split(rows)
    assume(y.any() and not y.all())
    assert same(brier(y, p), brier_score_loss(y, p))


def test_ece_of_distinct_probabilities_is_the_textbook_sum() -> None:
    rng = np.random.default_rng(1)
    p = rng.permutation(np.linspace(0.001, 0.999, 1000))
    y = rng.random(1000) < p**2
    order = np.argsort(p)
    expected = 0.0
    for part in np.array_split(order, 15):
        expected += len(part) / 1000 * abs(y[part].mean() - p[part].mean())
    assert same(expected_calibration_error(y, p), expected)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 20))
def test_ece_of_one_probability_is_its_gap(outcomes: list[bool], bins: int) -> None:
    p = np.full(len(outcomes), 0.3)
    gap = abs(float(np.mean(outcomes)) - 0.3)
    assert same(expected_calibration_error(outcomes, p, bins), gap)


def test_ece_tells_calibrated_from_not() -> None:
    rng = np.random.default_rng(2)
    p = rng.random(50_000)
    y = rng.random(50_000) < p
    assert expected_calibration_error(y, p) < 0.01
    assert same(expected_calibration_error(np.zeros(50_000), p), p.mean())


# --- clusters


def none_as(code: int, none: object) -> object:
    return none if code < 0 else f"name {code}"


@given(labels)
def test_pairwise_agrees_with_all_pairs(pair: tuple[NDArray[Any], NDArray[Any]]) -> None:
    ring, cluster = pair
    both = truth = guess = 0
    for i, j in combinations(range(len(ring)), 2):
        in_ring = ring[i] == ring[j] >= 0
        in_cluster = cluster[i] == cluster[j] >= 0
        truth += in_ring
        guess += in_cluster
        both += in_ring and in_cluster
    found = pairwise(ring, cluster)
    assert same(found["precision"], both / guess if guess else math.nan)
    assert same(found["recall"], both / truth if truth else math.nan)
    if both:
        p, r = found["precision"], found["recall"]
        assert same(found["f1"], 2 * p * r / (p + r))
    else:
        assert same(found["f1"], 0.0 if guess or truth else math.nan)


@given(labels, st.booleans())
def test_b_cubed_agrees_with_its_definition(
    pair: tuple[NDArray[Any], NDArray[Any]], abusive_only: bool
) -> None:
    ring, cluster = pair
    n = len(ring)
    rings = [{j for j in range(n) if j == i or ring[j] == ring[i] >= 0} for i in range(n)]
    clusters = [{j for j in range(n) if j == i or cluster[j] == cluster[i] >= 0} for i in range(n)]
    chosen = [i for i in range(n) if ring[i] >= 0 or not abusive_only]
    found = b_cubed(ring, cluster, abusive_only=abusive_only)
    if not chosen:
        assert all(math.isnan(value) for value in found.values())  # type: ignore[arg-type]
        return
    p = np.mean([len(rings[i] & clusters[i]) / len(clusters[i]) for i in chosen])
    r = np.mean([len(rings[i] & clusters[i]) / len(rings[i]) for i in chosen])
    assert same(found["precision"], float(p))
    assert same(found["recall"], float(r))
    assert same(found["f1"], float(2 * p * r / (p + r)))


@given(labels)
def test_ring_recall_and_bystanders_agree_with_sets(
    pair: tuple[NDArray[Any], NDArray[Any]],
) -> None:
    ring, cluster = pair
    rings = [set(np.flatnonzero(ring == r)) for r in set(ring[ring >= 0].tolist())]
    clusters = [set(np.flatnonzero(cluster == c)) for c in set(cluster[cluster >= 0].tolist())]
    recall = ring_recall(ring, cluster)
    for name, low, high in (("all", 2, 10**9), ("2-5", 2, 5), ("6-20", 6, 20), ("21-100", 21, 100)):
        sized = [r for r in rings if low <= len(r) <= high]
        found = sum(any(2 * len(r & c) >= len(r | c) for c in clusters) for r in sized)
        assert recall[name]["n"] == len(sized)
        assert recall[name]["found"] == found
        assert same(recall[name]["recall"], found / len(sized) if sized else math.nan)
    assert recall[">100"]["n"] == 0
    honest = [sum(bool(ring[i] < 0) for i in c) for c in clusters]
    seen = bystanders(ring, cluster)
    assert seen["clusters"] == len(clusters)
    assert seen["total"] == sum(honest)
    assert seen["most"] == max(honest, default=0)
    assert same(seen["mean"], float(np.mean(honest)) if honest else math.nan)
    assert seen["clusters_without_ring"] == sum(
        count == len(c) for count, c in zip(honest, clusters, strict=True)
    )


@given(labels, st.sampled_from([None, "", math.nan]))
def test_names_and_numbers_say_the_same(
    pair: tuple[NDArray[Any], NDArray[Any]], none: object
) -> None:
    def named(codes: NDArray[Any]) -> NDArray[Any]:
        array = np.empty(len(codes), dtype=object)
        array[:] = [none_as(code, none) for code in codes]
        return array

    ring, cluster = pair
    for metric in (pairwise, ring_recall, bystanders):
        assert str(metric(ring, cluster)) == str(metric(named(ring), named(cluster)))
        assert str(metric(ring, cluster)) == str(metric(ring * 7, cluster.astype(np.int16)))


def test_ring_sizes_fall_into_their_bins() -> None:
    sizes = [1, 2, 5, 6, 20, 21, 100, 101, 500]
    ring = np.repeat(np.arange(len(sizes)), sizes)
    recall = ring_recall(ring, ring)
    assert {name: found["n"] for name, found in recall.items()} == {
        "all": 8,
        "2-5": 2,
        "6-20": 2,
        "21-100": 2,
        ">100": 2,
    }
    assert all(found["recall"] == 1.0 for found in recall.values())


def test_half_is_enough_and_less_is_not() -> None:
    ring = np.array([0, 0, 0, 0, -1])
    assert ring_recall(ring, np.array([0, 0, -1, -1, -1]))["all"]["found"] == 1
    assert ring_recall(ring, np.array([0, 0, -1, -1, 0]))["all"]["found"] == 0


def test_a_million_accounts_in_one_cluster() -> None:
    """Half a trillion pairs: nothing overflows, and nothing is listed."""
    n = 1_000_000
    found = pairwise(np.arange(n) % 2, np.zeros(n, dtype=np.int64))
    assert found["recall"] == 1.0
    assert same(found["precision"], (n / 2 - 1) / (n - 1))


def test_labels_of_different_length_are_refused() -> None:
    for metric in (pairwise, ring_recall, bystanders):
        with pytest.raises(ValueError, match=r"ring \(2,\), cluster \(1,\)"):
            metric([0, 1], [0])
    with pytest.raises(ValueError, match="2 dimensions"):
        pairwise([[0]], [[0]])


# --- intervals


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_newcombes_table(hits: int, n: int, low: float, high: float) -> None:
    assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0.5, 0.999))
def test_wilson_laws(hits: int, more: int, confidence: float) -> None:
    n = hits + more
    low, high = wilson(hits, n, confidence)
    if n == 0:
        assert (low, high) == (0.0, 1.0)
        return
    assert 0 <= low <= hits / n <= high <= 1
    assert (low == 0) == (hits == 0)
    assert (high == 1) == (more == 0)
    mirrored = wilson(more, n, confidence)
    assert same(mirrored[0], 1 - high)
    assert same(mirrored[1], 1 - low)


def test_wilson_refuses_more_hits_than_trials() -> None:
    with pytest.raises(ValueError, match="3 hits of 2"):
        wilson(3, 2)


def test_cohorts_count_the_honest_only() -> None:
    cohort = ["nat", "nat", "nat", "lab", "nat", "", None]
    y = [0, 0, 0, 0, 1, 1, 0]
    flagged = [1, 0, 0, 0, 1, 1, 1]
    low, high = wilson(1, 3)
    assert cohort_fpr(np.array(cohort, dtype=object), y, flagged) == {
        "nat": {"n": 3, "fpr": 1 / 3, "low": low, "high": high},
        "lab": {"n": 1, "fpr": 0.0, "low": 0.0, "high": wilson(0, 1)[1]},
    }
    with pytest.raises(ValueError, match=r"flagged \(1,\)"):
        cohort_fpr(["nat"] * 2, [0, 0], [1])


@given(
    st.lists(st.integers(-1, 5), min_size=1, max_size=25), st.integers(0, 2**32), st.integers(1, 9)
)
def test_bootstrap_draws_whole_groups(groups: list[int], seed: int, rounds: int) -> None:
    drawn: list[NDArray[np.intp]] = []

    def statistic(rows: NDArray[np.intp]) -> float:
        drawn.append(rows)
        return float(len(rows))

    interval = bootstrap(statistic, groups, np.random.default_rng(seed), rounds)
    assert interval["value"] == len(groups)
    assert interval["rounds"] == rounds
    assert interval["low"] <= interval["high"]
    sizes = Counter(group for group in groups if group >= 0)
    n_groups = len(sizes) + groups.count(-1)
    for rows in drawn[:-1]:
        times = Counter(rows.tolist())
        picks = 0.0
        for row, count in times.items():
            group = groups[row]
            if group >= 0:
                assert all(times[r] == count for r, g in enumerate(groups) if g == group)
                picks += count / sizes[group]
            else:
                picks += count
        assert picks == pytest.approx(n_groups)
    assert drawn[-1].tolist() == list(range(len(groups)))


def test_bootstrap_is_its_rngs_and_nothing_elses() -> None:
    values = np.random.default_rng(3).normal(size=400)

    def run(seed: int) -> Any:
        groups = np.repeat(np.arange(40), 10)
        return bootstrap(lambda r: float(values[r].mean()), groups, np.random.default_rng(seed))

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_bootstrap_over_groups_is_wider_where_groups_agree() -> None:
    """40 groups of 25 equal rows are 40 observations: the width says so, within a third."""
    per_group = np.random.default_rng(4).normal(size=40)
    values = np.repeat(per_group, 25)
    groups = np.repeat(np.arange(40), 25)

    def width(groups: NDArray[Any]) -> float:
        interval = bootstrap(
            lambda r: float(values[r].mean()), groups, np.random.default_rng(5), 2000
        )
        return interval["high"] - interval["low"]

    expected = 2 * 1.96 * per_group.std() / math.sqrt(40)
    assert width(groups) == pytest.approx(expected, rel=0.15)
    assert width(np.arange(1000)) < width(groups) / 3


def test_bootstrap_leaves_out_rounds_without_a_value() -> None:
    rng = np.random.default_rng(6)
    interval = bootstrap(lambda r: 1.0 if 0 in r else math.nan, [0, 1], rng, 400)
    assert 250 < interval["rounds"] < 350  # 3 in 4
    assert (interval["low"], interval["high"]) == (1.0, 1.0)
    never = bootstrap(lambda r: math.nan, [0, 1], rng, 5)
    assert never["rounds"] == 0
    assert math.isnan(never["low"])
    with pytest.raises(ValueError, match="at least one row"):
        bootstrap(lambda r: 0.0, [], rng)


# --- time


def product_limit(times: list[float], hit: list[bool], q: float) -> float:
    """Kaplan-Meier from its definition, in fractions."""
    survival = Fraction(1)
    for moment in sorted({t for t, h in zip(times, hit, strict=True) if h}):
        at_risk = sum(t >= moment for t in times)
        events = sum(t == moment and h for t, h in zip(times, hit, strict=True))
        survival *= 1 - Fraction(events, at_risk)
        if 1 - survival >= Fraction(q):
            return moment
    return math.inf


@given(
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=40),
    st.sampled_from([0.25, 0.5, 0.75]),
)
def test_kaplan_meier_agrees_with_fractions(rows: list[tuple[int, bool]], q: float) -> None:
    times, hit = [float(t) for t, _ in rows], [h for _, h in rows]
    assert kaplan_meier_quantile(times, hit, q) == product_limit(times, hit, q)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=30))
def test_quantiles_rise_and_censoring_never_hastens(rows: list[tuple[int, bool]]) -> None:
    times, hit = [float(t) for t, _ in rows], [h for _, h in rows]
    ladder = [kaplan_meier_quantile(times, hit, q) for q in (0.1, 0.5, 0.9, 1.0)]
    assert all(low <= high for low, high in neighbours(ladder))
    # Watching an undetected ring for longer can only move the quantiles out.
    longer = [t if h else t + 5 for t, h in zip(times, hit, strict=True)]
    assert kaplan_meier_quantile(longer, hit, 0.5) >= ladder[1]


def test_detection_of_all_rings() -> None:
    found = time_to_detection([1, 1, 1, 1], [3, 9, 4, 7], [30, 90, 40, 70], [1, 10, 2, 5])
    assert found == {
        "median_accounts": 4,
        "median_events": 40,
        "median_hours": 2,
        "p90_hours": 10,
        "rings_undetected": 0,
    }


def test_rings_that_burnt_out_are_not_forgotten() -> None:
    """Half were never detected and had left by the first hour; the log ran 1,000 hours."""
    detected = [True] * 5 + [False] * 5
    found = time_to_detection(detected, [4] * 10, [40] * 10, [2.0] * 5 + [1000.0] * 5)
    assert found["rings_undetected"] == 5
    assert found["median_hours"] == 2.0
    assert found["p90_hours"] == math.inf
    assert found["median_accounts"] == 4
    more = time_to_detection(detected[1:], [4] * 9, [40] * 9, [2.0] * 4 + [1000.0] * 5)
    assert more["median_accounts"] == more["median_events"] == more["median_hours"] == math.inf


def test_ring_that_began_as_the_log_ended_says_little() -> None:
    """Censored after one hour, before any was detected: it leaves the count, as it should."""
    found = time_to_detection([1, 1, 0], [2, 3, 1], [2, 3, 1], [5.0, 6.0, 1.0])
    assert found["median_hours"] == 5.0
    assert found["p90_hours"] == 6.0
    assert found["median_accounts"] == 3


def test_no_rings_and_bad_rings() -> None:
    nothing = time_to_detection([], [], [], [])
    assert nothing["rings_undetected"] == 0
    assert math.isnan(nothing["median_hours"])
    assert time_to_detection([0], [math.nan], [-1], [3.0])["rings_undetected"] == 1
    with pytest.raises(ValueError, match="hours of a ring is negative or NaN"):
        time_to_detection([0], [1], [1], [math.nan])
    with pytest.raises(ValueError, match="events of a ring is negative or NaN"):
        time_to_detection([1], [1], [-1], [1])
    with pytest.raises(ValueError, match=r"hours \(2,\)"):
        time_to_detection([1], [1], [1], [1, 2])


# --- money


def test_leaked_is_the_contracts_sum() -> None:
    # A pay-as-you-go account, a 200 dollar plan used for 2,000, a carded plan disputed later, and
    # one that paid for more than it used.
    lost = leaked(
        cost_usd=[10, 2000, 500, 5],
        paid_usd=[10, 0, 0, 0],
        charged_usd=[0, 200, 200, 20],
        refunded_usd=[0, 0, 0, 5],
        disputed_usd=[0, 0, 200, 0],
    )
    assert lost.tolist() == [0, 1800, 500, -10]


def test_money_of_a_carded_ring() -> None:
    found = money(
        cost_usd=[300.0, 100.0],
        paid_usd=[0.0, 0.0],
        charged_usd=[20.0, 20.0],
        refunded_usd=[0.0, 0.0],
        disputed_usd=[20.0, 0.0],
        undefended_usd=[3000.0, 800.0],
        outlay_usd=[5.0, 5.0],
    )
    # Served 400, kept 20 of the charges; the operator spent 10 and those 20.
    assert found["leaked_usd"] == 380.0
    assert found["leaked_share"] == 0.1
    assert found["break_even_share"] == pytest.approx(30 / 400)


def test_honest_price_breaks_even_at_one() -> None:
    found = money(
        cost_usd=[50.0],
        paid_usd=[50.0],
        charged_usd=[0.0],
        refunded_usd=[0.0],
        disputed_usd=[0.0],
        undefended_usd=[0.0],
        outlay_usd=[0.0],
    )
    assert found["leaked_usd"] == 0.0
    assert math.isnan(found["leaked_share"])
    assert found["break_even_share"] == 1.0


def test_money_stopped_before_the_first_call() -> None:
    amounts = ("cost_usd", "paid_usd", "charged_usd", "refunded_usd", "disputed_usd")
    nothing = {amount: [0.0] for amount in amounts}
    found = money(**nothing, undefended_usd=[70.0], outlay_usd=[4.0])
    assert found == {"leaked_usd": 0.0, "leaked_share": 0.0, "break_even_share": math.inf}
    idle = money(**nothing, undefended_usd=[70.0], outlay_usd=[0.0])
    assert math.isnan(idle["break_even_share"])


def test_bad_amounts_are_refused() -> None:
    with pytest.raises(ValueError, match="refunded_usd holds a negative amount"):
        leaked([1.0], [1.0], [1.0], [-1.0], [0.0])
    with pytest.raises(ValueError, match="paid_usd holds NaN"):
        leaked([1.0], [math.nan], [1.0], [1.0], [0.0])


def test_the_share_detected_is_the_complement_of_survival() -> None:
    """By hand: of four, one happens at 1; one is lost sight of at 2; one of the two left happens at 3."""
    moments, share = kaplan_meier([1, 2, 3, 4], [True, False, True, False])
    assert moments.tolist() == [1, 3]
    assert share == pytest.approx([1 / 4, 1 - 3 / 4 * 1 / 2])
    none, nothing = kaplan_meier([], [])
    assert len(none) == len(nothing) == 0
