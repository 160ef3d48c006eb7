"""Evaluation: replay a log in time order as the service would, and hold what was said against the truth.

Prequential: every score is of the past only. An account's score is the highest standing any sweep
gave it; it is *flagged* when the policy did anything
about it, and *stopped*, for money and time, at the first review or suspension.
Accounts that the truth does not name take part as background and are counted nowhere.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector import metrics
from detector.engine import Engine
from detector.ledger import OUTLAY, Account, Ledger, outlay
from detector.policy import Action
from features.event import AnyEvent
from features.feature import HOUR
from features.table import Text, Truth

Bools = NDArray[np.bool_]


@dataclass
class _Seen:
    """What the replay noted of one account."""

    score: float = -1.0
    flagged: Action = Action.allow
    stopped_ms: int | None = None
    at_stop: Account | None = None
    first_ms: int = 0


def evaluate(
    engine: Engine,
    batches: Iterable[Sequence[AnyEvent]],
    truth: Truth,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """The figures of DESIGN.md's `evaluate --json`, and what the report needs beside them.

    Raises:
        InvalidEvent: an identifier that cannot be read as one.
    """
    began = time.monotonic()
    seen: dict[str, _Seen] = {}
    first_alert: dict[str, tuple[int, int, int]] = {}  # ring -> time, accounts, events by then
    ring_of = {a: str(r) for a, r in zip(truth.row, truth.ring_id, strict=True) if r}
    members: dict[str, list[str]] = {}
    for account, ring in ring_of.items():
        members.setdefault(ring, []).append(account)
    events = 0
    # the engine's own is ahead: it has folded the whole batch before its first decision is read
    ledger = Ledger()

    def note(account: str, action: Action, t: int) -> None:
        entry = seen[account]
        entry.flagged = max(entry.flagged, action)
        if action >= Action.review and entry.stopped_ms is None:
            entry.stopped_ms = t
            entry.at_stop = replace(ledger[account])
            ring = ring_of.get(account)
            if ring is not None and ring not in first_alert:
                known = [ledger[m] for m in members[ring] if m in ledger]
                first_alert[ring] = t, len(known), sum(k.events for k in known)

    def swept(everyone: bool = False) -> None:
        found = engine.sweep(everyone)
        names = [engine.names[a] for a in found.account.tolist()]
        for name, standing, place in zip(
            names, found.standing.tolist(), found.place.tolist(), strict=True
        ):
            entry = seen[name]
            if engine.model is None:  # the cluster speaks for its members
                standing = float(found.cluster_score[place]) if place >= 0 else 0.0
            if standing == standing:  # else silent for too long to be looked at
                entry.score = max(entry.score, standing)
        for name, stands in engine.standing.items():
            if stands.action > Action.allow and not engine.policy.shadow:
                note(name, engine.budget.grant(stands.action, name, found.at), found.at)

    for batch in batches:
        for at in range(0, len(batch), 512):
            part = batch[at : at + 512]
            answered, refused = engine.ingest(part)
            if refused:
                raise refused[0][1]
            events += len(part)
            for event, decision in zip(answered.events, answered.decisions, strict=True):
                if decision is None:  # said before
                    continue
                t = event.occurred_at
                assert isinstance(t, int)  # decoded
                entry = seen.setdefault(event.account_id, _Seen(first_ms=t))
                entry.first_ms = min(entry.first_ms, t)
                ledger.record(event)
                action = Action[decision.action]
                if action > Action.allow:
                    note(event.account_id, action, t)
            progress(len(part))
            if engine.due():
                swept()
    if events:
        swept(everyone=True)
    return _figures(engine, truth, seen, members, first_alert, events, time.monotonic() - began)


def _figures(
    engine: Engine,
    truth: Truth,
    seen: Mapping[str, _Seen],
    members: Mapping[str, list[str]],
    first_alert: Mapping[str, tuple[int, int, int]],
    events: int,
    seconds: float,
) -> dict[str, Any]:
    accounts = [a for a in truth.row if a in seen]
    rows = np.array([truth.row[a] for a in accounts], np.int64)
    abusive, ring = truth.abusive[rows], truth.ring_id[rows]
    score = np.clip([seen[a].score for a in accounts], 0.0, 1.0)
    flagged = np.array([seen[a].flagged > Action.allow for a in accounts], np.bool_)

    found = engine.last_sweep
    cluster = np.full(len(accounts), -1)
    if found is not None:
        verdicts = [
            engine.verdict(int(n), float(s)) > Action.allow
            for n, s in zip(found.clusters.size, found.cluster_score, strict=True)
        ]
        place = {
            engine.names[a]: p
            for a, p in zip(found.account.tolist(), found.place.tolist(), strict=True)
        }
        cluster = np.array(
            [p if (p := place.get(a, -1)) >= 0 and verdicts[p] else -1 for a in accounts]
        )
    by_size, strangers = metrics.ring_recall(ring, cluster), metrics.bystanders(ring, cluster)
    told: dict[str, Any] = clean(
        {
            "account": {
                "n": len(accounts),
                "n_abusive": int(abusive.sum()),
                "auc": metrics.roc_auc(abusive, score),
                "pr_auc": metrics.average_precision(abusive, score),
                "recall_at_fpr": {
                    str(f): metrics.recall_at_fpr(abusive, score, f) for f in (0.001, 0.01)
                },
                "realised": {
                    k: v
                    for k, v in metrics.rates_at(abusive, flagged.astype(float), 0.5).items()
                    if k != "n_flagged"
                },
                "ece": metrics.expected_calibration_error(abusive, score),
                "brier": metrics.brier(abusive, score),
            },
            "cluster": {
                "n": strangers["clusters"],
                "pairwise": metrics.pairwise(ring, cluster),
                "b3": metrics.b_cubed(ring, cluster, abusive_only=True),
                "b3_all": metrics.b_cubed(ring, cluster, abusive_only=False),
                "ring_recall": by_size["all"]["recall"],
                "ring_recall_by_size": by_size,
                "bystanders": strangers["mean"],
                "bystanders_detail": strangers,
                "flagged": {
                    k: v
                    for k, v in metrics.rates_at(abusive, (cluster >= 0).astype(float), 0.5).items()
                    if k != "n_flagged"
                },
            },
            "time": _times(engine, seen, members, first_alert),
            "money": _money(
                engine, [a for a, bad in zip(accounts, abusive, strict=True) if bad], seen
            ),
            "cohorts": metrics.cohort_fpr(truth.cohort[rows], abusive, flagged),
            "typologies": _typologies(truth.typology[rows], truth.tier[rows], flagged, abusive),
            "flagged_accounts": [a for a, f in zip(accounts, flagged, strict=True) if f],
            "model": engine.model.version if engine.model else None,
            "events": events,
            "seconds": round(seconds, 2),
        }
    )
    return told


def _times(
    engine: Engine,
    seen: Mapping[str, _Seen],
    members: Mapping[str, list[str]],
    first_alert: Mapping[str, tuple[int, int, int]],
) -> dict[str, Any]:
    end = engine.window.watermark
    rings = [r for r in members if any(m in seen for m in members[r])]
    began = {r: min(seen[m].first_ms for m in members[r] if m in seen) for r in rings}
    told = metrics.time_to_detection(
        [r in first_alert for r in rings],
        [first_alert[r][1] if r in first_alert else 0 for r in rings],
        [first_alert[r][2] if r in first_alert else 0 for r in rings],
        [max(0, (first_alert[r][0] if r in first_alert else end) - began[r]) / HOUR for r in rings],
    )
    return {"rings": len(rings), **told}


def _money(engine: Engine, abusive: Sequence[str], seen: Mapping[str, _Seen]) -> dict[str, Any]:
    whole = [engine.ledger[a] for a in abusive]
    stopped = [seen[a].at_stop or engine.ledger[a] for a in abusive]
    told = metrics.money(
        cost_usd=[e.cost for e in stopped],
        paid_usd=[e.paid for e in stopped],
        charged_usd=[e.charged for e in stopped],
        # charges from before the stop that are taken back later are taken back all the same
        refunded_usd=[min(e.charged, w.refunded) for e, w in zip(stopped, whole, strict=True)],
        disputed_usd=[min(e.charged, w.disputed) for e, w in zip(stopped, whole, strict=True)],
        undefended_usd=[w.leaked for w in whole],
        outlay_usd=[outlay(w) for w in whole],
    )
    return {**told, "assumed_prices_usd": OUTLAY}


def _typologies(typology: Text, tier: Text, flagged: Bools, abusive: Bools) -> dict[str, Any]:
    told: dict[str, Any] = {}
    names = np.where(typology == "", "unknown", typology)
    for name in sorted(set(names[abusive].tolist())):
        mine = abusive & (names == name)
        told[name] = {
            "n": int(mine.sum()),
            "recall": float(flagged[mine].mean()),
            "by_tier": {
                t: float(flagged[mine & (tier == t)].mean())
                for t in sorted(set(tier[mine].tolist()))
                if t
            },
        }
    return told


def clean(value: Any) -> Any:
    """JSON has no NaN and no infinity: both become null (never known, never reached)."""
    if isinstance(value, Mapping):
        return {str(k): clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [clean(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
