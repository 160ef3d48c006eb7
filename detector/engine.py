"""The straight line: event -> features -> score -> decision, and the sweep beside it.

One engine serves, replays, trains and recovers: there is no second path from events to vectors.
`ingest` takes events as they came, seals them (identifiers become keyed hashes) and answers each;
`restore` folds what a log kept, without deciding again. The clock is the events' own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.clusters import families_of
from detector.decision import RISK, Decision, Reason, explain
from detector.ledger import Account, Ledger
from detector.lineage import Lineage
from detector.model import Model
from detector.policy import Action, Budget, Policy
from detector.sweep import Sweep, look
from features.catalog import Catalog
from features.event import AnyEvent, InvalidEvent
from features.feature import HOUR
from features.identity import Secret
from features.memory import MemoryWindow
from features.rows import F64, I64, Kinds, Names
from features.seal import Sealed, Sealer
from features.window import CONFLICT, DUPLICATE, LATE_EVENT, NEW, Folded, Window

# Asking the enumeration itself for a member or a name takes half a microsecond, at every event.
ACTIONS = tuple(Action)
NAME = {action: action.name for action in Action}
REASONS_AGE = HOUR  # an account's reasons are explained again after this, or when things get worse


@dataclass(slots=True)
class Standing:
    """What the last sweep said of an account."""

    score: float | None
    cluster_id: str | None
    action: Action
    reasons: list[Reason]


@dataclass(frozen=True, slots=True)
class Answered:
    """The events of one call that could be sealed, folded and decided; arrays are by event.

    `status` and `ordinal` as in features/window.py; `score` is the event head's (NaN: no model or a duplicate).
    """

    sealed: Sealed
    vectors: F64
    status: NDArray[np.int8]
    ordinal: I64
    score: F64
    decisions: list[Decision | None]  # None for duplicates: the first answer stands


class Engine:
    """See the module's docstring.

    Args:
        model: None answers from clusters alone.
        catalog: needed only without a model, which brings its own.
        secret: the key of the identifiers' hashes.
        window: the memory window unless given.
        kinds: numbers of custom kinds; a shared window brings numbers that its workers agree on.
    """

    def __init__(
        self,
        policy: Policy,
        secret: Secret,
        model: Model | None = None,
        catalog: Catalog | None = None,
        window: Window | None = None,
        kinds: Kinds | None = None,
    ) -> None:
        self.catalog = model.catalog if model else catalog or Catalog()
        self.policy, self.secret, self.model = policy, secret, model
        self.window: Window = window or MemoryWindow(self.catalog)
        self.kinds, self.names = kinds or Kinds(self.catalog.kinds), Names()
        self.sealer = Sealer(secret, self.kinds, self.names)
        self.ledger, self.budget = Ledger(), Budget(policy)
        self.standing: dict[str, Standing] = {}
        self.last_sweep: Sweep | None = None
        self.lineage, self.cluster_ids = Lineage(), list[str]()
        self._explained: dict[str, tuple[Action, int, list[Reason]]] = {}
        self._levels = self._resolve()
        self.news = 0

    def _resolve(self) -> list[tuple[Action, float, float, float]]:
        """(action, event score, standing, standing of a cluster's member) from the most severe down."""
        if self.model is None:
            return []
        event, standing, member = (
            self.model.event.threshold,
            self.model.standing.threshold,
            self.model.member_threshold,
        )
        return [
            (a, event(share), standing(share), member(share)) for a, share in self.policy.granted
        ]

    @property
    def member_level(self) -> float | None:
        """The standing below which a member of a cluster is only near it; None where all are judged alike."""
        return self._levels[-1][3] if self._levels else None

    # --- events

    def ingest(self, events: Sequence[AnyEvent]) -> tuple[Answered, list[tuple[int, InvalidEvent]]]:
        """Seal, fold, score and decide; also the events that could not be sealed, by index."""
        sealed, refused = self.sealer.seal(events)
        return self.answer(sealed), refused

    def answer(self, sealed: Sealed) -> Answered:
        """Fold and decide sealed events."""
        return self.decide(sealed, self.restore(sealed))

    def decide(self, sealed: Sealed, folded: Folded) -> Answered:
        """Answer sealed events that are folded."""
        events = sealed.events
        vectors, status = folded.vectors, folded.status
        score = np.full(len(events), np.nan)
        fresh = (status != DUPLICATE) & (status != CONFLICT)
        if self.model is not None and fresh.any():
            score[fresh] = self.model.event.score(vectors[fresh])
        proposed = _proposed(score, [(action, level) for action, level, _, _ in self._levels])
        decisions: list[Decision | None] = [None] * len(events)
        known = self.standing
        rules = self.model.version if self.model else None, self.policy.version
        for i, (event, wish, s, new) in enumerate(
            zip(events, proposed.tolist(), score.tolist(), fresh.tolist(), strict=True)
        ):
            if not new:
                continue
            standing = known.get(event.account_id)
            best, cluster = s, None
            if standing is not None:
                cluster = standing.cluster_id
                if standing.score is not None and not standing.score <= s:  # or s is NaN
                    best = standing.score
            # in six digits, which `round` takes four times as long for
            told = int(best * 1e6 + 0.5) / 1e6 if best == best else None
            if wish or (standing is not None and standing.action):
                granted, reasons = self._act(event, ACTIONS[wish], vectors[i], s, standing)
                action = NAME[Action.allow if self.policy.shadow else granted]
                decisions[i] = Decision(action, told, RISK[granted], reasons, cluster, *rules)
            else:  # nearly all
                decisions[i] = Decision("allow", told, "low", [], cluster, *rules)
        return Answered(sealed, vectors, status, folded.ordinal, score, decisions)

    def restore(self, sealed: Sealed) -> Folded:
        """Fold sealed events without deciding: recovery, training, and the first half of `answer`."""
        folded = self.window.fold(sealed.rows)
        self.book(sealed, folded)
        return folded

    def book(self, sealed: Sealed, folded: Folded) -> None:
        """Enter what is new of sealed events into the ledger."""
        for event, status in zip(sealed.events, folded.status.tolist(), strict=True):
            if status in (NEW, LATE_EVENT):
                self.ledger.record(event)
                self.news += 1

    def _act(
        self, event: AnyEvent, action: Action, vector: F64, score: float, standing: Standing | None
    ) -> tuple[Action, list[Reason]]:
        """What is granted, and why, on an event whose own score calls for `action` or whose account does."""
        account, t = event.account_id, event.occurred_at
        assert isinstance(t, int)  # decoded
        if standing is not None:
            action = max(action, standing.action)
        granted = self.budget.grant(action, account, t)
        return granted, self._reasons(account, granted, t, vector, score, standing)

    def _reasons(
        self,
        account: str,
        action: Action,
        t: int,
        vector: F64,
        score: float,
        standing: Standing | None,
    ) -> list[Reason]:
        known = self._explained.get(account)
        if known is not None and known[0] >= action and abs(t - known[1]) < REASONS_AGE:
            return known[2]
        reasons = list(standing.reasons) if standing else []
        if self.model is not None and (
            not reasons or score > (standing.score or 0.0 if standing else 0.0)
        ):
            first = explain(self.model.event, vector, self.catalog)
            told = {reason.code for reason in first}  # both heads may give one reason
            reasons = first + [reason for reason in reasons if reason.code not in told]
        self._explained[account] = (action, t, reasons)
        return reasons

    # --- sweeps

    def due(self) -> bool:
        """Whether enough has happened since the last sweep to look again."""
        if self.news == 0:
            return False
        last = self.last_sweep
        if last is None:
            return True
        size = len(last.sets.member)
        return (
            self.window.watermark - last.at >= self.policy.sweep_ms
            and self.news >= self.policy.sweep.after_share * size
        )

    def verdict(self, size: int, score: float) -> Action:
        """What the policy makes of a cluster."""
        policy = self.policy.clusters
        if size < policy.smallest or score < policy.review:
            return Action.allow
        return Action.suspend if score >= policy.suspend else Action.review

    def sweep(self, everyone: bool = False) -> Sweep:
        """Look at the links now; from here on its verdicts are part of every decision."""
        active = None if everyone else self.policy.sweep.active_h * HOUR
        found = look(self.window, self.kinds, self.model, active)
        self.adopt(found)
        return found

    def adopt(self, found: Sweep, seen: int | None = None) -> None:
        """Make a sweep's verdicts the accounts' standing; `seen` is the news there was when it began."""
        self.news -= self.news if seen is None else seen
        self.last_sweep = found
        clusters = found.clusters
        self.cluster_ids = self.lineage.follow(found.sets.owners, clusters)
        sizes = clusters.size
        standing: dict[str, Standing] = {}
        names = [self.names[a] for a in found.account.tolist()]
        # not scored this time: silent for long, or there is no model
        scores = found.standing.copy()
        for i in np.flatnonzero(np.isnan(scores)).tolist():
            stood = self.standing.get(names[i])
            if stood is not None and stood.score is not None:
                scores[i] = stood.score
        verdicts = [
            self.verdict(n, score)
            for n, score in zip(sizes.tolist(), found.cluster_score.tolist(), strict=True)
        ]
        proposed = _proposed(scores, [(action, level) for action, _, level, _ in self._levels])
        beside = _proposed(scores, [(action, level) for action, _, _, level in self._levels])
        told = zip(
            names, scores.tolist(), proposed.tolist(), beside.tolist(), found.place.tolist(), strict=True
        )  # fmt: skip
        for i, (name, score, wish, member_wish, place) in enumerate(told):
            known_score, action = None if score != score else score, ACTIONS[wish]
            if place < 0 and action == Action.allow:  # nearly everyone
                if known_score is not None:
                    standing[name] = Standing(known_score, None, action, [])
                continue
            before = self.standing.get(name)
            cluster_id = None
            reasons: list[Reason] = []
            if place >= 0:
                cluster_id = self.cluster_ids[place]
                verdict = verdicts[place]
                if verdict > Action.allow:
                    # the cluster is the unit of decision, but who does not look the part himself is
                    # only near it: a crowd is not a ring
                    as_member = min(verdict, ACTIONS[member_wish]) if self._levels else verdict
                    if as_member > Action.allow:
                        action = max(action, as_member)
                        reasons = [cluster_reason(found, place, cluster_id)]
            if action > Action.allow and self.model is not None and not reasons:
                row = int(found.row[i])
                known = [r for r in before.reasons if r.code != "cluster"] if before else []
                if before is not None and known and (before.action >= action or row < 0):
                    reasons = known
                elif row >= 0:
                    reasons = explain(self.model.standing, found.vectors[row], self.catalog)
            standing[name] = Standing(known_score, cluster_id, action, reasons)
        self.standing = standing

    # --- what a snapshot keeps beside the window's arrays

    def save(self) -> dict[str, Any]:
        """Names, kinds and money, as JSON can carry them."""
        return {
            "kinds": self.kinds.names,
            "names": [[str(n), w] for n, w in self.names.items()],
            "ledger": {a: list(astuple(e)) for a, e in self.ledger.items()},
            "lineage": [[str(o), c] for o, c in self.lineage.past.items()],
        }

    def load(self, kept: Mapping[str, Any]) -> None:
        """What `save` gave, into a new engine."""
        for kind in kept["kinds"]:
            self.kinds.number(kind)
        self.names.update((int(n), w) for n, w in kept["names"])
        for account, entry in kept["ledger"].items():
            self.ledger[account] = Account(*entry)
        self.lineage.past.update((int(o), c) for o, c in kept["lineage"])


def cluster_reason(found: Sweep, place: int, cluster_id: str) -> Reason:
    """Why a cluster speaks for its members, in one sentence."""
    clusters = found.clusters
    kinds = families_of(found.links.names, int(clusters.families[place]))
    return Reason(
        "cluster",
        round(float(found.cluster_score[place]), 4),
        f"one of {int(clusters.size[place])} accounts of different owners that share {', '.join(kinds[:4])}",
        [cluster_id],
    )


def _proposed(score: F64, levels: Sequence[tuple[Action, float]]) -> NDArray[np.int8]:
    """The most severe action whose level each score passes; `levels` from the most severe down."""
    proposed = np.zeros(len(score), np.int8)
    for action, level in reversed(levels):
        proposed[score > level] = action
    return proposed
