"""What somebody sees who looks at one account at a time: counts, means and shares of its events, and
how many different values of each field there are.

No value is compared across accounts. What the provider itself has done (`enforcement`, `appeal`, calls
of a suspended account) is left out, as the contract asks of every score.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass

import lightgbm
import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedGroupKFold

from tests.synth.played import Played

HOUR = 3_600_000
BASE_RATE = 0.05
_IDENTIFIERS = ("_id", "_refs")
_SKIPPED = {
    "event_id", "occurred_at", "observed_at", "account_id", "org_id", "ip", "asn", "email", "phone",
    "chain", "chain_root", "chain_after", "face_sketch", "document_sketch", "template_sketch",
    "tools_sketch", "owners", "mrz", "type", "minted_refs", "emitted_refs",
}  # fmt: skip
_NEVER_TWICE = {"event_id", "occurred_at", "observed_at", "account_id", "type"}
_COMMON = 25  # accounts that must show a value before its share is a column
_FOLDS = 4


def aggregates(played: Played) -> tuple[list[str], list[str], npt.NDArray[np.float64]]:
    """Accounts, names of columns, and one row of numbers an account; unknown means are NaN."""
    rows: dict[str, dict[str, float]] = {}
    holders: Counter[str] = Counter()
    for account, events in played.of_account.items():
        sums: dict[str, float] = defaultdict(float)
        seen: Counter[str] = Counter()
        values: dict[str, set[object]] = defaultdict(set)
        of_type: Counter[str] = Counter()
        for event in events:
            kind = event["type"]
            if kind in ("enforcement", "appeal") or event.get("error") == "account_suspended":
                continue
            of_type[kind] += 1
            seen[f"{kind} at hour {event['occurred_at'] // HOUR % 24}"] += 1
            for name, value in event.items():
                field = f"{kind}.{name}"
                seen[f"{field} is there"] += 1
                if isinstance(value, str | int) and name not in _NEVER_TWICE:
                    values[name].add(value)
                if name in _SKIPPED:
                    continue
                if isinstance(value, str):
                    if not name.endswith(_IDENTIFIERS):
                        seen[f"{field} = {value}"] += 1
                elif isinstance(value, int | float):
                    sums[field] += value
        row: dict[str, float] = {f"count {kind}": n for kind, n in of_type.items()}
        row["count"] = sum(of_type.values())
        for name, different in values.items():
            row[f"different {name}"] = len(different)
        for field, total in sums.items():
            row[f"mean {field}"] = total / seen[f"{field} is there"]
            row[f"sum {field}"] = total
        for name, n in seen.items():
            kind = name.split(" ")[0].split(".")[0]
            row[f"share {name}"] = n / of_type[kind]
        rows[account] = row
        holders.update(row.keys())
    names = [name for name, n in sorted(holders.items()) if n >= _COMMON]
    index = {name: i for i, name in enumerate(names)}
    matrix = np.zeros((len(rows), len(names)))
    for i, name in enumerate(names):
        if name.startswith("mean "):
            matrix[:, i] = np.nan
    for r, row in enumerate(rows.values()):
        for name, value in row.items():
            if name in index:
                matrix[r, index[name]] = value
    return list(rows), names, matrix


@dataclass
class Naive:
    """What a model of single accounts finds at a base rate of 5 %, with no ring on both sides."""

    pr_auc: float
    of_typology: dict[str, float]  # PR-AUC of each against the honest, at the same base rate
    leaned_on: list[tuple[str, float]]  # columns by share of gain, the heaviest first


def naive(played: Played, seed: int = 0) -> Naive:
    """LightGBM on the aggregates, out of fold."""
    accounts, names, x = aggregates(played)
    truth = [played.truth[a] for a in accounts]
    y = np.array([bool(row.ring_id) for row in truth])
    groups = np.array([row.group_id for row in truth])
    scores = np.zeros(len(y))
    gains = np.zeros(len(names))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(x, y, groups):
        model = lightgbm.LGBMClassifier(
            n_estimators=150, learning_rate=0.05, num_leaves=15, min_child_samples=15,
            feature_fraction=0.5, verbose=-1, n_jobs=1, random_state=seed, deterministic=True,
            importance_type="gain",
        )  # fmt: skip
        model.fit(x[train], y[train])
        scores[test] = model.predict_proba(x[test])[:, 1]
        gains += model.feature_importances_
    order = np.argsort(-gains)
    heavy = [(names[i], round(float(gains[i] / gains.sum()), 3)) for i in order[:25]]
    kinds = np.array([row.typology for row in truth])
    parts = {
        kind: _at_base_rate(y[keep], scores[keep])
        for kind in sorted(set(kinds) - {""})
        if (keep := (kinds == kind) | ~y).any()
    }
    return Naive(_at_base_rate(y, scores), parts, heavy)


def _at_base_rate(y: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> float:
    """PR-AUC where honest accounts weigh as they do if one account in twenty is abusive."""
    weights = np.where(y, 1.0, y.sum() * (1 - BASE_RATE) / BASE_RATE / (~y).sum())
    return float(average_precision_score(y, scores, sample_weight=weights))
