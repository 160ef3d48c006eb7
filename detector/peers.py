"""Peers: what one would otherwise use, given the same log, the same truth and the same folds.

    rule: accounts per device (card, IP)   how many owners use the account's busiest one
    rule: any of them                      the largest of the three
    isolation forest                       per-account aggregates, no labels
    LightGBM, accounts alone               the same aggregates, operators held out
    components                             owners tied by any shared entity of few owners

Aggregates are what an account shows by itself, over the whole log: no value of theirs depends on
another account. That is what a table with one row an account can know, and what it cannot.
An organisation is one owner, for peers as for us. An event delivered twice counts twice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.ensemble import IsolationForest

from detector import metrics
from detector.clusters import components
from detector.train import PARAMETERS, held_out, sides_of
from features.event import (
    CLASS_OF,
    EVENT_CLASSES,
    EVENT_TYPES,
    TYPE_INDEX,
    AnyEvent,
    Payment,
    Request,
)
from features.feature import HOUR
from features.kind import KIND
from features.rows import F64, I64

FEW = 20  # owners: an entity of more ties nobody
RULES = ("device", "card", "ip")
TIES = (
    *RULES,
    "ip_subnet",
    "email",
    "phone",
    "document",
    "face",
    "billing_address",
    "credential",
)
UNTRUSTED = ("hosting", "vpn", "tor")  # network types
# Entities whose number per account is a column, and which therefore need not tie anybody.
OWN = ("device", "ip", "ip_block", "country", "ja4", "card", "model", "session")
SUMS = (
    "cost_usd", "paid_usd", "charged_usd", "taken_back_usd", "granted_usd", "declines", "cards",
    "input_tokens", "output_tokens", "cache_read_tokens", "max_tokens", "refused", "limited", "untrusted",
    "side_calls", "night",
)  # fmt: skip
COLUMNS = (
    *(f"{t}_events" for t in EVENT_TYPES),
    *SUMS,
    *(f"own_{k}" for k in OWN),
    "hours_active", "hours_of_day", "span_h", "form_ms", "otp_latency_ms", "liveness",
)  # fmt: skip
_SUM = {name: i for i, name in enumerate(SUMS)}


def _carried(kinds: Sequence[str]) -> dict[type, list[tuple[str, Any]]]:
    """For each event type, those of these kinds that it can carry, and what reads them."""
    return {
        cls: [
            (k, attrgetter(KIND[k].field)) for k in kinds if KIND[k].field in cls.__struct_fields__
        ]
        for cls in CLASS_OF.values()
    }


_READ = _carried(tuple(dict.fromkeys((*TIES, *OWN))))


@dataclass(slots=True)
class _Account:
    """What one account showed."""

    types: list[int] = field(default_factory=lambda: [0] * len(EVENT_CLASSES))
    sums: list[float] = field(default_factory=lambda: [0.0] * len(SUMS))
    own: dict[str, set[str]] = field(default_factory=lambda: {k: set() for k in OWN})
    hours: set[int] = field(default_factory=set)
    first_ms: int = 0
    last_ms: int = 0
    last: dict[str, float] = field(default_factory=dict)
    org: str | None = None


@dataclass
class Aggregates:
    """One pass over sealed events: a row an account, and who was on which entity, in any order."""

    accounts: dict[str, _Account] = field(default_factory=dict)
    seen: dict[str, dict[str, set[str]]] = field(default_factory=lambda: {k: {} for k in TIES})

    def add(self, events: Iterable[AnyEvent]) -> None:
        for event in events:
            name = event.account_id
            account = self.accounts.get(name)
            t = event.occurred_at
            assert isinstance(t, int)  # decoded
            if account is None:
                account = self.accounts[name] = _Account(first_ms=t, last_ms=t)
            account.first_ms, account.last_ms = min(account.first_ms, t), max(account.last_ms, t)
            account.types[TYPE_INDEX[type(event)]] += 1
            hour = t // HOUR
            account.hours.add(hour)
            if event.org_id is not None:
                account.org = event.org_id
            sums = account.sums
            sums[_SUM["untrusted"]] += event.network_type in UNTRUSTED
            sums[_SUM["night"]] += hour % 24 < 6
            for kind, read in _READ[type(event)]:
                value = read(event)
                if value is None:
                    continue
                if kind in account.own:
                    account.own[kind].add(value)
                if kind in self.seen:
                    self.seen[kind].setdefault(value, set()).add(name)
            if type(event) is Request:
                _request(sums, event)
            elif type(event) is Payment:
                _payment(sums, event)
            else:
                for column in ("form_ms", "otp_latency_ms", "liveness"):
                    number = getattr(event, column, None)
                    if number is not None:
                        account.last[column] = max(account.last.get(column, 0.0), float(number))

    def table(self, accounts: Sequence[str]) -> F64:
        """Matrix [accounts, COLUMNS]; -1 where the account never showed a number."""
        out = np.empty((len(accounts), len(COLUMNS)))
        for i, name in enumerate(accounts):
            a = self.accounts[name]
            out[i] = (
                *a.types,
                *a.sums,
                *(len(a.own[k]) for k in OWN),
                len(a.hours),
                len({h % 24 for h in a.hours}),
                (a.last_ms - a.first_ms) / HOUR,
                *(a.last.get(c, -1.0) for c in ("form_ms", "otp_latency_ms", "liveness")),
            )
        return out

    def owner(self, account: str) -> str:
        org = self.accounts[account].org
        return account if org is None else f"org:{org}"

    def busiest(self, kind: str, accounts: Sequence[str]) -> F64:
        """How many owners use the entity of this kind that most owners share with the account."""
        most: dict[str, int] = {}
        for users in self.seen[kind].values():
            if len(users) == 1:
                n = 1
            else:
                n = len({self.owner(u) for u in users})
            for user in users:
                most[user] = max(most.get(user, 0), n)
        return np.array([most.get(a, 0) for a in accounts], np.float64)

    def components(self, accounts: Sequence[str]) -> tuple[I64, F64]:
        """Component of each account, and how many owners it holds; entities of up to FEW owners tie."""
        number: dict[str, int] = {}
        of = np.array(
            [number.setdefault(self.owner(a), len(number)) for a in self.accounts], np.int64
        )
        place = dict(zip(self.accounts, of.tolist(), strict=True))
        a: list[int] = []
        b: list[int] = []
        for by_value in self.seen.values():
            for users in by_value.values():
                if len(users) < 2:
                    continue
                owners = sorted({place[u] for u in users})
                if 2 <= len(owners) <= FEW:
                    a.extend(owners[:1] * (len(owners) - 1))
                    b.extend(owners[1:])
        root = components(len(number), np.array(a, np.int32), np.array(b, np.int32))
        size = np.bincount(root, minlength=len(number))
        mine = np.array([root[place[name]] for name in accounts], np.int64)
        return mine, size[mine].astype(np.float64)


def _request(sums: list[float], event: Request) -> None:
    sums[_SUM["cost_usd"]] += event.cost_usd or 0.0
    sums[_SUM["paid_usd"]] += event.paid_usd or 0.0
    sums[_SUM["input_tokens"]] += event.input_tokens or 0
    sums[_SUM["output_tokens"]] += event.output_tokens or 0
    sums[_SUM["cache_read_tokens"]] += event.cache_read_tokens or 0
    sums[_SUM["max_tokens"]] += event.max_tokens or 0
    sums[_SUM["refused"]] += event.status >= 400
    sums[_SUM["limited"]] += event.status == 429
    sums[_SUM["side_calls"]] += event.kind not in (None, "main")


def _payment(sums: list[float], event: Payment) -> None:
    amount = event.amount_usd or 0.0
    if event.kind == "charge":
        sums[_SUM["charged_usd"]] += amount
    elif event.kind in ("refund", "dispute"):
        sums[_SUM["taken_back_usd"]] += amount
    elif event.kind in ("credit_grant", "gift_card"):
        sums[_SUM["granted_usd"]] += amount
    elif event.kind in ("card_declined", "charge_failed"):
        sums[_SUM["declines"]] += 1
    elif event.kind == "card_added":
        sums[_SUM["cards"]] += 1


def peers(
    seen: Aggregates, accounts: Sequence[str], y: F64, ring: ArrayLike, fold: I64
) -> dict[str, dict[str, Any]]:
    """Figures of each peer on these accounts.

    Args:
        y, ring, fold: by account: abusive or not, its ring ("" for none), the side it is held out on.
    """
    told: dict[str, dict[str, Any]] = {}
    busiest = {kind: seen.busiest(kind, accounts) for kind in RULES}
    for kind, count in busiest.items():
        told[f"rule: accounts per {KIND[kind].noun}"] = metrics.ranking(y, count)
    told["rule: any of them"] = metrics.ranking(y, np.max(list(busiest.values()), axis=0))
    x = seen.table(accounts)
    forest = IsolationForest(n_estimators=200, random_state=PARAMETERS["seed"]).fit(np.log1p(x + 1))
    told["isolation forest"] = metrics.ranking(y, -forest.score_samples(np.log1p(x + 1)))
    margin, _ = held_out(x, y, np.ones(len(y)), sides_of(fold), COLUMNS)
    told["LightGBM, accounts alone"] = metrics.ranking(y, margin)
    component, size = seen.components(accounts)
    told["components"] = {
        **metrics.ranking(y, size),
        "pairwise": metrics.pairwise(ring, np.where(size >= 2, component, -1)),
    }
    return told
