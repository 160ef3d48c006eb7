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

from detector import metrics, tables
from detector.engine import Engine
from detector.ledger import OUTLAY, Account, Ledger, outlay
from detector.policy import Action
from features.event import AnyEvent, Appeal
from features.feature import DAY, HOUR
from features.rows import F64
from features.table import Truth

Bools = NDArray[np.bool_]


@dataclass
class _Seen:
    """What the replay noted of one account."""

    score: float = -1.0
    flagged: Action = Action.allow
    stopped_ms: int | None = None
    at_stop: Account | None = None
    first_ms: int = 0
    appeals: int = 0


@dataclass(frozen=True)
class _Alert:
    """A ring's first correct alert: its known accounts as they stood then."""

    at_ms: int
    entries: dict[str, Account]

    @property
    def events(self) -> int:
        return sum(e.events for e in self.entries.values())


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
    first_alert: dict[str, _Alert] = {}  # by ring
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
                known = {m: replace(ledger[m]) for m in members[ring] if m in ledger}
                first_alert[ring] = _Alert(t, known)

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
            for event, decision in zip(answered.sealed.events, answered.decisions, strict=True):
                if decision is None:  # said before
                    continue
                t = event.occurred_at
                assert isinstance(t, int)  # decoded
                entry = seen.setdefault(event.account_id, _Seen(first_ms=t))
                entry.first_ms = min(entry.first_ms, t)
                entry.appeals += type(event) is Appeal and event.outcome == "filed"
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
    first_alert: Mapping[str, _Alert],
    events: int,
    seconds: float,
) -> dict[str, Any]:
    accounts = [a for a in truth.row if a in seen]
    rows = np.array([truth.row[a] for a in accounts], np.int64)
    abusive, ring = truth.abusive[rows], truth.ring_id[rows]
    score = np.clip([seen[a].score for a in accounts], 0.0, 1.0)
    flagged = np.array([seen[a].flagged > Action.allow for a in accounts], np.bool_)

    found = engine.last_sweep
    cluster, example = np.full(len(accounts), -1), None
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
        known = dict(zip(accounts, abusive.tolist(), strict=True))
        example = tables.ring_example(engine, found, verdicts, known)
    first, tier = [seen[a].first_ms for a in accounts], truth.tier[rows]
    days = (engine.window.watermark - min(first)) / DAY if first else 0.0
    group = np.where(ring != "", ring, truth.group_id[rows])
    whole = [engine.ledger[a] for a in accounts]
    stopped = [seen[a].at_stop or w for a, w in zip(accounts, whole, strict=True)]
    cohorts = metrics.cohort_fpr(truth.cohort[rows], abusive, flagged)
    appeals = sum(seen[a].appeals for a, bad in zip(accounts, abusive, strict=True) if not bad)
    by_size, strangers = metrics.ring_recall(ring, cluster), metrics.bystanders(ring, cluster)
    told: dict[str, Any] = clean(
        {
            "account": tables.accounts(abusive, score, flagged, group, days),
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
            "money": _money(stopped, whole, abusive),
            "cohorts": cohorts,
            "harm": tables.harm(cohorts, abusive, flagged, appeals),
            "tiers": tables.tiers(abusive, score, flagged, tier),
            "typologies": tables.typologies(
                abusive, score, flagged, truth.typology[rows], tier, _leaked(stopped, whole)
            ),
            "ring_example": example,
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
    first_alert: Mapping[str, _Alert],
) -> dict[str, Any]:
    end = engine.window.watermark
    rings = [r for r in members if any(m in seen for m in members[r])]
    began = {r: min(seen[m].first_ms for m in members[r] if m in seen) for r in rings}
    alerts = [first_alert.get(r) for r in rings]
    hit = [alert is not None for alert in alerts]
    hours = [
        max(0, (alert.at_ms if alert else end) - began[r]) / HOUR
        for r, alert in zip(rings, alerts, strict=True)
    ]
    told = metrics.time_to_detection(
        hit,
        [len(alert.entries) if alert else 0 for alert in alerts],
        [alert.events if alert else 0 for alert in alerts],
        hours,
    )
    # one that was never alerted leaked more than any number we could know
    lost = [
        float(_leaked(list(a.entries.values()), [engine.ledger[m] for m in a.entries]).sum())
        if a
        else math.inf
        for a in alerts
    ]
    moments, share = metrics.kaplan_meier(hours, hit)
    thin = np.unique(np.linspace(0, max(len(moments) - 1, 0), tables.POINTS).astype(int))
    thin = thin[: len(moments)]
    return {
        "rings": len(rings),
        **told,
        "leaked_usd_median": metrics.kaplan_meier_quantile(lost, hit, 0.5),
        "curve": {"hours": moments[thin].tolist(), "share_alerted": share[thin].tolist()},
    }


def _taken_back(stopped: Sequence[Account], whole: Sequence[Account]) -> tuple[F64, F64]:
    """Refunded and disputed of what was charged by the stop: later is soon enough."""
    both = list(zip(stopped, whole, strict=True))
    return (
        np.array([min(s.charged, w.refunded) for s, w in both], np.float64),
        np.array([min(s.charged, w.disputed) for s, w in both], np.float64),
    )


def _leaked(stopped: Sequence[Account], whole: Sequence[Account]) -> F64:
    """Dollars that each account had leaked when it was stopped."""
    return metrics.leaked(
        [e.cost for e in stopped],
        [e.paid for e in stopped],
        [e.charged for e in stopped],
        *_taken_back(stopped, whole),
    )


def _money(stopped: Sequence[Account], whole: Sequence[Account], abusive: Bools) -> dict[str, Any]:
    """What abuse took, and what was not earned from honest accounts after they were stopped."""
    refunded, disputed = (back[abusive] for back in _taken_back(stopped, whole))
    then = [e for e, bad in zip(stopped, abusive, strict=True) if bad]
    ever = [e for e, bad in zip(whole, abusive, strict=True) if bad]
    told = metrics.money(
        cost_usd=[e.cost for e in then],
        paid_usd=[e.paid for e in then],
        charged_usd=[e.charged for e in then],
        refunded_usd=refunded,
        disputed_usd=disputed,
        undefended_usd=[w.leaked for w in ever],
        outlay_usd=[outlay(w) for w in ever],
    )
    blocked = math.fsum(
        max(0.0, w.kept - s.kept)
        for s, w, bad in zip(stopped, whole, abusive, strict=True)
        if not bad
    )
    return {**told, "honest_blocked_usd": blocked, "assumed_prices_usd": OUTLAY}


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
