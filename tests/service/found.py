"""Evaluations and matrices as they may be: with everything measured, and with as little as a foreign log gives."""

import copy
from typing import Any

from service.cells import Cell, World
from service.matrix import TIERS, TYPOLOGIES

MINIMAL: dict[str, Any] = {
    "account": {
        "n": 3, "n_abusive": 0, "auc": None, "pr_auc": None, "recall_at_fpr": {"0.001": None, "0.01": None},
        "realised": {"fpr": 0.0, "recall": None, "precision": None}, "ece": None, "brier": None,
    },
    "cluster": {
        "n": 0, "pairwise": {"precision": None, "recall": None, "f1": None}, "b3": {"f1": None},
        "ring_recall": None, "bystanders": None,
    },
    "time": {
        "rings": 0, "rings_undetected": 0, "median_accounts": None, "median_events": None,
        "median_hours": None, "p90_hours": None,
    },
    "money": {"leaked_usd": None, "leaked_share": None, "break_even_share": None},
    "cohorts": {}, "typologies": {}, "model": None, "events": 3, "seconds": 0.1,
}  # fmt: skip


def full(pr_auc: float = 0.7, **more: Any) -> dict[str, Any]:
    """Everything of the contract; figures follow `pr_auc` so that worlds can differ."""
    found = copy.deepcopy(MINIMAL)
    rates = {"0.01": pr_auc * 0.9, "0.001": pr_auc * 0.5}
    spans = {
        "pr_auc": pr_auc, "recall_at_fpr_0.01": rates["0.01"], "recall_at_fpr_0.001": rates["0.001"]
    }  # fmt: skip
    found["account"] = {
        "n": 21_200, "n_abusive": 1_060, "auc": 0.97, "pr_auc": pr_auc, "recall_at_fpr": rates,
        "realised": {"fpr": 0.008, "recall": 0.7, "precision": 0.8}, "ece": 0.01, "brier": 0.02,
        "precision_at_base_rate": {"0.001": 0.08, "0.01": 0.47, "0.05": 0.82}, "recall_at_budget": 0.61,
        "intervals": {k: {"value": v, "low": v - 0.05, "high": v + 0.05} for k, v in spans.items()},
        "curve": {"recall": [0.0, 0.5, 1.0], "precision": [1.0, 0.9, 0.05]},
        "reliability": [{"n": 1413, "mean_score": i / 15, "share_abusive": i / 16} for i in range(15)],
        "reliability_top": {"n": 212, "mean_score": 0.98, "share_abusive": 0.95},
    }  # fmt: skip
    found["cluster"] |= {
        "n": 40, "ring_recall": 0.8, "bystanders": 0.4, "flagged": {"precision": 0.9, "recall": 0.6, "fpr": 0.001},
        "ring_recall_by_size": {"all": {"n": 50, "found": 40, "recall": 0.8}, "2–5": {"n": 9, "found": 3}},
    }  # fmt: skip
    found["time"] = {
        "rings": 50, "rings_undetected": 4, "median_accounts": 3.0, "median_events": 20.0,
        "median_hours": 5.5, "p90_hours": None, "leaked_usd_median": 120.0,
        "curve": {"hours": [0.0, 5.5, 72.0], "share_alerted": [0.0, 0.5, 0.92]},
    }  # fmt: skip
    found["money"] = {
        "leaked_usd": 5000.0, "leaked_share": 0.25, "break_even_share": 0.4, "honest_blocked_usd": 12.5,
        "assumed_prices_usd": {"face": 15.0},
    }  # fmt: skip
    found["cohorts"] = {
        "family": {"n": 1000, "fpr": 0.03, "low": 0.021, "high": 0.043},
        "carrier_nat": {"n": 2000, "fpr": 0.0, "low": 0.0, "high": 0.002},
    }
    found["typologies"] = {
        t: {"n": 150, "recall": 0.7, "by_tier": {"T1": 0.7}, "recall_at_fpr": rates, "leaked_usd": 9.0}
        for t in TYPOLOGIES
    }  # fmt: skip
    part = {
        "n": 900,
        "n_abusive": 80,
        "auc": 0.9,
        "pr_auc": pr_auc,
        "recall_at_fpr": rates,
        "ece": 0.02,
    }
    found |= {
        "tiers": {t: part | {"recall": 0.5} for t in TIERS},
        "harm": {
            "overall_fpr": 0.008, "worst_cohort": "family", "worst_fpr": 0.03,
            "ratio_between_cohorts": 4.0, "appeals": 7, "gate_passed": False,
        },
        "null": {"observed": 40, "shuffled": 1, "rewired": 4},
        "splits": {"S0": part | {"pr_auc": 0.85}, "S1": part, "S2": part, "S3": {"carded": part}},
        "peers": {"threshold rules": part | {"pr_auc": 0.3}, "LightGBM on aggregates": part | {"pr_auc": 0.75}},
        "ring_example": {
            "cluster_id": "c<1>", "members": [{"account": f"a{i}", "abusive": i < 4} for i in range(5)],
            "links": [{"a": f"a{i}", "b": f"a{i + 1}", "nats": 3.0 + i, "kinds": ["device", "card"]} for i in range(4)],
            "evidence": ["5 accounts on one device", {"text": "4 accounts on one card"}],
        },
        "model": "train", "events": 1_000_000, "seconds": 81.0,
    }  # fmt: skip
    return found | more


def kept(cell: Cell, result: dict[str, Any]) -> dict[str, Any]:
    """A finished cell as it is read back."""
    import msgspec

    told = {"identity": "x", "spec": msgspec.to_builtins(cell), "seconds": 12.0, "result": result}
    again: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(told))
    return again


def matrix_results(cells: list[Cell]) -> dict[str, dict[str, Any]]:
    """A result for each cell of a matrix; the higher the tier, the worse we do."""

    def books(share: float | None, cost: float | None) -> dict[str, Any]:
        return {"break_even_share": share, "cost_per_survivor_usd": cost}

    told = {}
    for i, cell in enumerate(cells):
        world: World = cell.worlds[0]
        rank = TIERS.index(world.tier) if world.tier in TIERS else 1
        found = full(0.9 - 0.28 * rank)
        acted = {
            "defended": books([1.7, 0.9, 0.3, None][rank], None if i % 7 == 0 else 10.0 + i),
            "undefended": books(0.1, 5.0),
        }
        result: dict[str, Any] = {
            "train": {"held_out_operators": found["account"], "splits": found["splits"]},
            "judge": {"found": found},
            "sweep": {"found": found, "loop": acted},
            "closed": acted,
            "poison": {"found": found},
            "respond": {"chosen": [["face_uses", 1]], "tried": [], "attacked": found, "retrained": found},
        }[cell.kind]  # fmt: skip
        told[cell.name] = kept(cell, result)
    return told
