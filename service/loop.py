"""The closed loop: the detector acts in a made-up world, and the world answers back.

The world hands over what it observed, a quarter of an hour at a time; an engine ingests it as the
service would, and what it newly decides is fed back: accounts are lost, operators replace them,
honest people appeal. What an operator's dollar then costs him is read from his own books. The same
world without a detector stands beside it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from detector import metrics
from detector.engine import Engine
from detector.ledger import Ledger
from detector.policy import Action
from features.event import AnyEvent, decode

CHUNK = 512  # events between two looks at whether a sweep is due, as in evaluation
Decide = Callable[[bytes], Iterable[tuple[str, str]]]


class Book(Protocol):
    """One ring's own books, as the world keeps them (synth/books.py); US dollars."""

    @property
    def ring_id(self) -> str: ...
    @property
    def typology(self) -> str: ...
    @property
    def tier(self) -> str: ...
    @property
    def accounts(self) -> int: ...
    @property
    def lost(self) -> int: ...
    @property
    def spent_usd(self) -> Mapping[str, float]: ...  # by good: numbers, cards, faces, egress …
    @property
    def paid_usd(self) -> float: ...  # to the provider, net of refunds and disputes
    @property
    def served_usd(self) -> float: ...  # list price of the tokens it was served


class Known(Protocol):
    """What the truth says of one account (synth/world.py)."""

    @property
    def account_id(self) -> str: ...
    @property
    def ring_id(self) -> str: ...
    @property
    def typology(self) -> str: ...
    @property
    def cohort(self) -> str: ...


class Playable(Protocol):
    """A world that can be acted in (synth/world.py)."""

    def play(self, decide: Decide, every_ms: int = ...) -> None: ...
    def truth(self) -> Sequence[Known]: ...
    def books(self) -> Sequence[Book]: ...


@dataclass
class Outcome:
    """What came of a world that was played: the books, who was acted on, what everybody paid."""

    books: Sequence[Book]
    truth: Sequence[Known]
    ledger: Ledger
    actions: Mapping[str, Action] = field(default_factory=dict)  # the most severe of each account
    events: int = 0


class Decider:
    """Decides about what a world observed; calls itself on each hand-over.

    Args:
        engine: None looks on and does nothing.
    """

    def __init__(self, engine: Engine | None) -> None:
        self.engine = engine
        self.ledger = Ledger()
        self.actions: dict[str, Action] = {}
        self.events = 0
        self._seen: set[str] = set()  # event ids, where no engine tells duplicates

    def __call__(self, lines: bytes) -> list[tuple[str, str]]:
        """The (account, action) pairs newly decided; an account again only when its action rises."""
        events = [decode(line) for line in lines.splitlines() if line.strip()]
        self.events += len(events)
        risen: dict[str, Action] = {}
        for at in range(0, len(events), CHUNK):
            self._look(events[at : at + CHUNK], risen)
        return [(account, action.name) for account, action in risen.items()]

    def _look(self, part: list[AnyEvent], risen: dict[str, Action]) -> None:
        engine = self.engine
        if engine is None:
            for event in part:
                if event.event_id not in self._seen:
                    self._seen.add(event.event_id)
                    self.ledger.record(event)
            return
        answered, _ = engine.ingest(part)
        for event, decision in zip(answered.sealed.events, answered.decisions, strict=True):
            if decision is not None:  # else a duplicate: said before
                self.ledger.record(event)
                self._note(event.account_id, Action[decision.action], risen)
        if engine.due():
            found = engine.sweep()
            if not engine.policy.shadow:
                for name, stands in engine.standing.items():
                    if stands.action > Action.allow:
                        granted = engine.budget.grant(stands.action, name, found.at)
                        self._note(name, granted, risen)

    def _note(self, account: str, action: Action, risen: dict[str, Action]) -> None:
        if action > self.actions.get(account, Action.allow):
            self.actions[account] = risen[account] = action


def closed_loop(world: Playable, engine: Engine | None) -> Outcome:
    """Play a world to its end with an engine acting in it; None: undefended."""
    decider = Decider(engine)
    world.play(decider)
    return Outcome(world.books(), world.truth(), decider.ledger, decider.actions, decider.events)


def break_even(spent_usd: float, paid_usd: float, served_usd: float) -> float | None:
    """What a resold dollar costs its operator, as a share of the official price.

    Below 1 reselling at the official price pays; None where nothing was served, so nothing resold.
    """
    return (spent_usd + paid_usd) / served_usd if served_usd > 0 else None


def sums(books: Iterable[Book]) -> dict[str, Any]:
    """Several rings' books as one. A ring survives while it has an account that it has not lost."""
    kept = list(books)
    spent: dict[str, float] = {}
    for book in kept:
        for good, usd in book.spent_usd.items():
            spent[good] = spent.get(good, 0.0) + usd
    paid, served = sum(b.paid_usd for b in kept), sum(b.served_usd for b in kept)
    accounts, lost = sum(b.accounts for b in kept), sum(b.lost for b in kept)
    total = sum(spent.values())
    return {
        "rings": len(kept),
        "rings_alive": sum(b.lost < b.accounts for b in kept),
        "accounts": accounts,
        "lost": lost,
        "spent_usd": total,
        "spent_by_good_usd": spent,
        "paid_usd": paid,
        "served_usd": served,
        "break_even_share": break_even(total, paid, served),
        "cost_per_survivor_usd": (total + paid) / (accounts - lost) if accounts > lost else None,
    }


def told(defended: Outcome, undefended: Outcome) -> dict[str, Any]:
    """Both outcomes side by side, as JSON can carry them: by ring, by typology and tier, and in all."""
    cells: dict[str, dict[str, Any]] = {}
    for typology, tier in sorted(
        {(b.typology, b.tier) for o in (defended, undefended) for b in o.books}
    ):
        cells.setdefault(typology, {})[tier] = {
            word: sums(b for b in o.books if (b.typology, b.tier) == (typology, tier))
            for word, o in (("defended", defended), ("undefended", undefended))
        }
    return {
        "defended": sums(defended.books),
        "undefended": sums(undefended.books),
        "cells": cells,
        "rings": [
            {"ring_id": b.ring_id, "typology": b.typology, "tier": b.tier, **sums([b])}
            for b in defended.books
        ],
        "harm": harm(defended, undefended),
        "actions": {
            action.name: sum(a == action for a in defended.actions.values())
            for action in Action
            if action > Action.allow
        },
        "events": {"defended": defended.events, "undefended": undefended.events},
    }


def harm(defended: Outcome, undefended: Outcome) -> dict[str, Any]:
    """Honest accounts that anything was done about, by cohort, and the revenue that it cost.

    The revenue is what these accounts paid in the undefended world of the same seed, less what they
    paid here: an estimate, since two worlds drift apart once one of them is acted in.
    """
    honest = [r for r in defended.truth if not (r.ring_id or r.typology)]
    hurt = [r.account_id in defended.actions for r in honest]
    blocked = 0.0
    for row, acted_on in zip(honest, hurt, strict=True):
        there = undefended.ledger.get(row.account_id)
        if acted_on and there is not None:
            here = defended.ledger.get(row.account_id)
            blocked += max(0.0, there.kept - (here.kept if here is not None else 0.0))
    return {
        "n": len(honest),
        "hurt": sum(hurt),
        "overall_fpr": sum(hurt) / len(honest) if honest else None,
        "suspended": sum(
            defended.actions.get(r.account_id, Action.allow) == Action.suspend for r in honest
        ),
        "honest_blocked_usd": blocked,
        "cohorts": metrics.cohort_fpr([r.cohort for r in honest], [False] * len(honest), hurt),
    }
