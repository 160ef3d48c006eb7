"""Tables of an evaluation: what the accounts' scores, flags and stops amount to, seen each way.

Pure functions of arrays, one row an account, except for the ring that is shown as an example. What
a truth does not say (a tier, a typology, a cohort) makes a table shorter, never wrong.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector import metrics
from detector.case import case_of
from detector.clusters import families_of
from detector.engine import Engine
from detector.sweep import Sweep
from features.rows import F64
from features.table import Text

Bools = NDArray[np.bool_]

ROUNDS = 400  # of the bootstrap: three statistics of 20,000 accounts in some seconds
SEED = 7  # of its draws: the same log gives the same intervals
POINTS = 200  # of a curve, at most
TOP = 0.01  # the share of accounts whose calibration is shown by itself
DAILY_BUDGET = 20 / 10_000  # accounts reviewed a day, per account (EVALUATION.md)
COHORT_GATE = 0.01  # no cohort's false-positive rate above this …
COHORT_RATIO = 5.0  # … nor above so many times the overall one
SHOWN = 40  # members of a ring that can still be drawn
SHOWN_LINKS = 200


def accounts(
    abusive: Bools, score: F64, flagged: Bools, group: Text, days: float
) -> dict[str, Any]:
    """How well scores rank and are calibrated, and what the flags did.

    Args:
        score: 0..1, of each account.
        group: the resampling unit of each account.
        days: the span of the log; the review budget is a daily one.
    """
    rates = metrics.rates_at(abusive, flagged.astype(float), 0.5)
    realised = {k: v for k, v in rates.items() if k != "n_flagged"}
    budget = math.ceil(DAILY_BUDGET * len(score) * max(days, 1.0))
    precision = metrics.precision_at_base_rates(rates["recall"], rates["fpr"])
    return {
        **metrics.ranking(abusive, score),
        "realised": realised,
        "ece": metrics.expected_calibration_error(abusive, score),
        "brier": metrics.brier(abusive, score),
        "precision_at_base_rate": {str(rate): p for rate, p in precision.items()},
        "recall_at_budget": metrics.recall_at_budget(abusive, score, budget),
        "intervals": intervals(abusive, score, group),
        "curve": metrics.precision_recall_curve(abusive, score, POINTS),
        "reliability": metrics.reliability(metrics.tied_outcome(abusive, score), score),
        "reliability_top": next(
            iter(metrics.reliability(*_highest(abusive, score, math.ceil(TOP * len(score))), 1)),
            None,
        ),
    }


def _highest(abusive: Bools, score: F64, n: int) -> tuple[F64, F64]:
    """Outcome and score of the `n` highest scores; tied accounts count with their tie's mean outcome."""
    outcome = metrics.tied_outcome(abusive, score)
    top = np.argsort(-score, kind="stable")[:n]
    return outcome[top], score[top]


def intervals(abusive: Bools, score: F64, group: Text) -> dict[str, metrics.Interval]:
    """Bootstrap over rings and honest groups."""
    if len(score) == 0:
        return {}
    rng = np.random.default_rng(SEED)

    def of(statistic: Any) -> metrics.Interval:
        return metrics.bootstrap(
            lambda rows: statistic(abusive[rows], score[rows]), group, rng, ROUNDS
        )

    return {
        "pr_auc": of(metrics.average_precision),
        **{
            f"recall_at_fpr_{fpr}": of(lambda y, s, fpr=fpr: metrics.recall_at_fpr(y, s, fpr))
            for fpr in metrics.PRINTED_FPRS
        },
    }


def among_honest(abusive: Bools, score: F64, mine: Bools) -> dict[str, Any]:
    """Ranking of some abusive accounts against all honest ones."""
    told = mine | ~abusive
    return metrics.ranking(abusive[told], score[told])


def tiers(abusive: Bools, score: F64, flagged: Bools, tier: Text) -> dict[str, Any]:
    """Each tier's abusive accounts against all honest ones."""
    found: dict[str, Any] = {}
    for name in sorted(set(tier[abusive].tolist()) - {""}):
        mine = abusive & (tier == name)
        rank = among_honest(abusive, score, mine)
        found[name] = {
            "n": int(mine.sum()),
            "pr_auc": rank["pr_auc"],
            "recall": float(flagged[mine].mean()),
            "recall_at_fpr": rank["recall_at_fpr"],
        }
    return found


def typologies(
    abusive: Bools, score: F64, flagged: Bools, typology: Text, tier: Text, leaked_usd: F64
) -> dict[str, Any]:
    """Each kind of abuse against all honest accounts; `leaked_usd` of each account until its stop."""
    found: dict[str, Any] = {}
    names = np.where(typology == "", "unknown", typology)
    for name in sorted(set(names[abusive].tolist())):
        mine = abusive & (names == name)
        found[name] = {
            "n": int(mine.sum()),
            "recall": float(flagged[mine].mean()),
            "by_tier": {
                t: float(flagged[mine & (tier == t)].mean())
                for t in sorted(set(tier[mine].tolist()))
                if t
            },
            "recall_at_fpr": among_honest(abusive, score, mine)["recall_at_fpr"],
            "leaked_usd": math.fsum(leaked_usd[mine]),
        }
    return found


def harm(
    cohorts: Mapping[str, metrics.CohortRate], abusive: Bools, flagged: Bools, appeals: int
) -> dict[str, Any]:
    """Who is hurt by mistake, and whether the gate is passed; None: too few accounts to tell.

    One account hurt proves nothing. A cohort fails when its rate is above the gate's though one
    alone would not be, or when several are hurt and its whole interval lies above. It passes only if
    it is so large that one would not fail it.
    `ratio_between_cohorts` is of the worst to the best one of those; infinite (null) if the best hurts nobody.
    """
    honest = ~abusive
    overall = float(flagged[honest].mean()) if honest.any() else math.nan
    limit = min(COHORT_GATE, COHORT_RATIO * overall) if overall > 0 else COHORT_GATE
    large = {name: c for name, c in cohorts.items() if c["n"] * limit >= 1}
    failed = any(c["fpr"] > limit for c in large.values()) or any(
        c["low"] > limit and round(c["fpr"] * c["n"]) > 1 for c in cohorts.values()
    )
    worst = max(cohorts, key=lambda name: cohorts[name]["fpr"], default=None)
    worst_fpr = cohorts[worst]["fpr"] if worst is not None else math.nan
    rates = [c["fpr"] for c in large.values()]
    between = math.nan
    if len(rates) > 1 and max(rates) > 0:
        between = max(rates) / min(rates) if min(rates) > 0 else math.inf
    return {
        "overall_fpr": overall,
        "worst_cohort": worst if worst_fpr > 0 else None,
        "worst_fpr": worst_fpr,
        "ratio_between_cohorts": between,
        "ratio_to_overall": worst_fpr / overall if overall > 0 else math.nan,
        "appeals": appeals,
        "gate": limit,
        "gate_passed": False if failed else (True if cohorts and large == cohorts else None),
    }


def ring_example(
    engine: Engine, found: Sweep, verdicts: Sequence[bool], abusive: Mapping[str, bool]
) -> dict[str, Any] | None:
    """A cluster that was acted on, as it was seen: members, links and evidence. None without one.

    The largest that can be drawn of those that are mostly abusive by the truth.
    """
    best, size = -1, 0
    for place in np.flatnonzero(verdicts).tolist():
        names = [engine.names[int(a)] for a in found.account[found.place == place]]
        bad = sum(abusive.get(name, False) for name in names)
        if size < len(names) <= SHOWN and 2 * bad > len(names):
            best, size = place, len(names)
    if best < 0:
        return None
    rows = np.flatnonzero(found.place == best)
    names = [engine.names[int(a)] for a in found.account[rows]]
    speaks: dict[int, str] = {}  # an owner's links are drawn at its first account
    for owner, name in zip(found.owner[rows].tolist(), names, strict=True):
        speaks.setdefault(owner, name)
    links, inside = found.links, found.clusters.links(best)
    inside = inside[np.argsort(-links.surprise[inside], kind="stable")][:SHOWN_LINKS]
    return {
        "cluster_id": engine.cluster_ids[best],
        "members": [{"account": name, "abusive": abusive.get(name)} for name in names],
        "links": [
            {
                "a": speaks[int(links.owners[links.a[k]])],
                "b": speaks[int(links.owners[links.b[k]])],
                "nats": round(float(links.surprise[k]), 3),
                "kinds": list(families_of(links.names, int(links.families[k]))),
            }
            for k in inside.tolist()
        ],
        "evidence": [
            {"kind": e.kind, "text": e.text} for e in case_of(engine, found, best).evidence
        ],
    }
