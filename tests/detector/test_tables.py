"""Tables against scikit-learn and against counting by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve

from detector import metrics, tables
from detector.metrics import CohortRate

SCORES = st.lists(
    st.tuples(st.booleans(), st.integers(0, 8).map(lambda n: n / 8)), min_size=1, max_size=60
)


@given(rows=SCORES, points=st.integers(1, 30))
def test_a_curves_points_can_be_achieved(rows: list[tuple[bool, float]], points: int) -> None:
    y, score = (np.array(column) for column in zip(*rows, strict=True))
    found = metrics.precision_recall_curve(y, score, points)
    assert len(found["recall"]) <= points
    if not y.any():
        assert found == {"recall": [], "precision": []}
        return
    precision, recall, _ = precision_recall_curve(y, score)
    achievable = [(round(r, 9), round(p, 9)) for r, p in zip(recall, precision, strict=True)]
    for r, p in zip(found["recall"], found["precision"], strict=True):
        assert (round(r, 9), round(p, 9)) in achievable
    assert found["recall"] == sorted(found["recall"])
    assert found["recall"][-1] == 1.0


def test_a_curve_of_all_points_has_the_area() -> None:
    rng = np.random.default_rng(0)
    y = rng.random(300) < 0.3
    score = rng.random(300) + 0.3 * y
    found = metrics.precision_recall_curve(y, score, 300)
    area = np.sum(np.diff(found["recall"], prepend=0) * found["precision"])
    assert area == pytest.approx(average_precision_score(y, score))


@given(rows=SCORES)
def test_reliability_is_what_the_calibration_error_sums(rows: list[tuple[bool, float]]) -> None:
    y, score = (np.array(column) for column in zip(*rows, strict=True))
    order = np.random.default_rng(1).permutation(len(y))
    bins = metrics.reliability(metrics.tied_outcome(y, score), score)
    again = metrics.reliability(metrics.tied_outcome(y[order], score[order]), score[order])
    assert [b["share_abusive"] for b in bins] == pytest.approx([b["share_abusive"] for b in again])
    assert sum(b["n"] for b in bins) == len(y)
    assert max(b["n"] for b in bins) - min(b["n"] for b in bins) <= 1
    assert sum(b["n"] * b["share_abusive"] for b in bins) == pytest.approx(y.sum())
    error = sum(b["n"] * abs(b["share_abusive"] - b["mean_score"]) for b in bins) / len(y)
    assert error == pytest.approx(metrics.expected_calibration_error(y, score))


def test_the_top_is_the_highest_hundredth() -> None:
    score = np.arange(1000) / 1000
    y = np.arange(1000) >= 995
    told = tables.accounts(y, score, y, np.array([""] * 1000), 1.0)
    assert told["reliability_top"] == {
        "n": 10,
        "mean_score": pytest.approx(score[-10:].mean()),
        "share_abusive": 0.5,
    }
    assert told["recall_at_budget"] == pytest.approx(2 / 5)
    week = tables.accounts(y, score, y, np.array([""] * 1000), 7.0)
    assert week["recall_at_budget"] == 1.0, "fourteen reviews in a week"


def test_intervals_are_wider_where_accounts_stand_and_fall_together() -> None:
    rng = np.random.default_rng(3)
    ring = np.repeat(np.arange(20), 10)
    score = np.r_[np.repeat(rng.random(20), 10), rng.random(400) * 0.8]
    y = np.r_[np.ones(200, bool), np.zeros(400, bool)]
    alone = np.array([f"a{i}" for i in range(600)])
    together = np.array([f"r{r}" for r in ring] + [f"a{i}" for i in range(400)])
    one, two = (tables.intervals(y, score, g)["pr_auc"] for g in (alone, together))
    assert one["value"] == two["value"] == pytest.approx(average_precision_score(y, score))
    assert two["high"] - two["low"] > 1.5 * (one["high"] - one["low"])
    for found in (one, two):
        assert found["low"] < found["value"] < found["high"]


def cohorts_of(*counts: tuple[int, int]) -> tuple[dict[str, CohortRate], np.ndarray, np.ndarray]:
    names = [f"c{i}" for i, (_, n) in enumerate(counts) for _ in range(n)]
    flagged = np.array([k < hits for hits, n in counts for k in range(n)])
    abusive = np.zeros(len(names), bool)
    return metrics.cohort_fpr(names, abusive, flagged), abusive, flagged


@pytest.mark.parametrize(
    ("counts", "passed"),
    [
        ([(0, 200), (0, 100)], True),
        ([(0, 200), (0, 99)], None),  # one of 99 would be above the gate
        ([(1, 300), (1, 250)], True),
        ([(3, 200), (0, 800)], False),  # 1.5 %
        ([(1, 20), (0, 1000)], None),  # one of twenty says nothing …
        ([(6, 20), (0, 1000)], False),  # … six of twenty do
        ([(4, 500), (0, 9500)], False),  # .8 % is below 1 %, and twenty times the overall rate
    ],
)
def test_the_gate(counts: list[tuple[int, int]], passed: bool | None) -> None:
    cohorts, abusive, flagged = cohorts_of(*counts)
    told = tables.harm(cohorts, abusive, flagged, 3)
    assert told["gate_passed"] is passed
    assert told["appeals"] == 3
    assert told["overall_fpr"] == pytest.approx(
        sum(h for h, _ in counts) / sum(n for _, n in counts)
    )


def test_harm_is_compared_between_cohorts() -> None:
    told = tables.harm(*cohorts_of((6, 300), (2, 400), (0, 5)), 0)
    assert told["worst_cohort"] == "c0"
    assert told["ratio_between_cohorts"] == pytest.approx((6 / 300) / (2 / 400))
    assert told["ratio_to_overall"] == pytest.approx((6 / 300) / (8 / 705))


def test_a_tier_is_measured_against_all_honest_accounts() -> None:
    y = np.array([1, 1, 0, 0, 1], bool)
    score = np.array([0.9, 0.2, 0.3, 0.1, 0.95])
    tier = np.array(["T0", "T3", "", "", "T0"])
    told = tables.tiers(y, score, score > 0.5, tier)
    assert told["T0"]["pr_auc"] == 1.0
    assert told["T3"]["pr_auc"] == pytest.approx(1 / 2)
    assert (told["T0"]["recall"], told["T3"]["recall"]) == (1.0, 0.0)
