"""The oracle: features/plan.py's words taken literally.

It keeps all it was ever told in plain lists and answers every question by reading them from the
start: O(n²). Nothing is dropped, capped or brought up to date in place.
"""

from collections import defaultdict
from math import isnan, nan
from typing import Any

import numpy as np

from features import plan as p
from features.catalog import Catalog
from features.event import EVENT_TYPES
from features.feature import HOUR, SETS_CAP, Age, Differ, Feature, Last, Seen, Share, Sum
from features.kind import KINDS
from features.rows import (
    AMOUNTS,
    CHAIN_AFTER,
    CHAIN_LINK,
    CUSTOM,
    EMITTED,
    F64,
    I64,
    MINTED,
    NUMBERS,
    U64,
    Rows,
)
from features.window import CONFLICT, DUPLICATE, LATE_EVENT, NEW, Folded, Sightings

CARRIED = [k.name for k in KINDS if k.carried]


class Oracle:
    """See features/window.py for the contract."""

    def __init__(self, catalog: Catalog) -> None:
        self.plan, self.features = p.plan(catalog), catalog.features
        self.watermark = self.accepted = 0
        self.kind = {
            **dict(enumerate(k.name for k in KINDS)),
            **dict(enumerate(catalog.kinds, CUSTOM)),
        }
        self.ids: dict[int, tuple[int, int, int]] = {}  # event_id: (t, body, ordinal)
        self.accepted = 0
        self.events: dict[int, list[Any]] = defaultdict(
            list
        )  # account: (t, org, entities, numbers)
        self.talks: dict[Any, list[Any]] = defaultdict(
            list
        )  # account, conversation: (t, now, sent)
        self.claims: dict[int, list[Any]] = defaultdict(list)  # id: (t, owner, account)
        self.seen: dict[Any, list[Any]] = defaultdict(list)  # of, by, on, key: (t, member)
        self.sums: dict[Any, list[Any]] = defaultdict(list)  # of, by, key: (t, amount)

    def fold(self, rows: Rows) -> Folded:
        vectors, told = [], []
        for i in range(len(rows)):
            t, event_id, body = int(rows.t[i]), int(rows.event_id[i]), int(rows.body[i])
            if event_id in self.ids and self.ids[event_id][0] > self.now(t) - p.IDS_SPAN:
                _, first, ordinal = self.ids[event_id]
                told.append((DUPLICATE if first == body else CONFLICT, ordinal))
                vectors.append([nan] * len(self.features))
                continue
            self.ids[event_id] = t, body, self.accepted
            told.append((LATE_EVENT if t < self.watermark else NEW, self.accepted))
            self.accepted += 1
            self.watermark = max(t, self.watermark)
            vectors.append(self.observe(rows, i, t, int(rows.account[i])))
        columns = np.array(told, np.int64).reshape(-1, 2)
        return Folded(
            np.array(vectors).reshape(-1, len(self.features)),
            columns[:, 0].astype(np.int8),
            columns[:, 1],
        )

    def now(self, t: int) -> int:
        return max(t, self.watermark - p.LATE)

    def observe(self, rows: Rows, i: int, t: int, account: int) -> list[float]:
        entities = [
            (int(rows.kind[j]), int(rows.id[j])) for j in range(rows.start[i], rows.start[i + 1])
        ]
        fresh = {self.kind[kind]: name for kind, name in entities if kind in self.kind}
        self.events[account].append((t, int(rows.org[i]), dict(fresh), rows.number[i].tolist()))
        owner, now = self.owner(account), self.now(t)
        if "conversation" in fresh:
            talk = self.talks[account, fresh["conversation"]]
            talk.append((t, now, {k: fresh[k] for k in CARRIED if k in fresh}))
            fresh = carried(talk) | fresh

        partners: dict[int, tuple[int, int]] = {}  # another owner: its account, the conversation
        for kind, name in entities:
            if kind in (CHAIN_LINK, MINTED) and self.claims[name] and len(partners) < p.PARTNERS:
                then, other, far = max(self.claims[name])
                if then > now - p.CLAIM_SPAN and other != owner and far != account:
                    partners.setdefault(other, (far, fresh.get("conversation", name)))
        for other, (far, talk_name) in partners.items():
            for one, met in ((account, other), (far, owner)):
                self.seen["partner", "account", (), one].append((t, met))
                self.seen["continuation", "account", (), one].append((t, talk_name))
            link = p.pair(talk_name, owner, other)
            self.seen["account", p.CONTINUATION, (), link] += [(t, owner), (t, other)]
        for kind, name in entities:
            if kind in (CHAIN_AFTER, EMITTED):
                self.claims[name].append((t, owner, account))
            elif kind >= CUSTOM and kind not in self.kind:
                self.seen["account", kind, (), name].append((t, owner))

        key = fresh | {"account": account}
        member = fresh | {"account": owner, "hour": 1 + t // HOUR % 24}
        for of, by, on in {(f.of, f.by, f.on) for f in self.features if isinstance(f, Seen)}:
            if of in member and by in key and (not on or EVENT_TYPES[rows.type_[i]] in on):
                self.seen[of, by, on, key[by]].append((t, member[of]))
        for of, by in {(f.of, f.by) for f in self.features if isinstance(f, Sum)}:
            if by in key:
                self.sums[of, by, key[by]].append((t, int(rows.amount[i, AMOUNTS.index(of)])))
        return self.vector(account, self.profile(account) | fresh, t)

    def vector(self, account: int, value: dict[str, int], t: int) -> list[float]:
        value, catalog = value | {"account": account}, self.plan.catalog
        told = [self.number(f, account, value, t, self.now(t)) for f in self.features]
        number = dict(zip(catalog.names, told, strict=True))
        for name, f in zip(catalog.names, self.features, strict=True):
            if isinstance(f, Share) and number[f.whole] > 0:
                number[name] = number[f.part] / number[f.whole]
        return list(number.values())

    def number(self, f: Feature, account: int, value: dict[str, int], t: int, now: int) -> float:
        if isinstance(f, Seen) and f.by in value:
            return len(alive(self.seen[f.of, f.by, f.on, value[f.by]], now, f.over))
        if isinstance(f, Sum) and f.by in value:
            return total(self.sums[f.of, f.by, value[f.by]], now, f.over)
        if isinstance(f, Last):
            numbers = [number[NUMBERS.index(f.of)] for *_, number in self.events[account]]
            return float([nan, *(n for n in numbers if not isnan(n))][-1])
        if isinstance(f, Age):
            first: int = min(then for then, *_ in self.events[account])
            return max(0, t - first) / HOUR
        if isinstance(f, Differ) and f.a in value and f.b in value:
            return float(value[f.a] != value[f.b])
        return nan

    def owner(self, account: int) -> int:
        return int([account, *(org for _, org, *_ in self.events[account] if org)][-1])

    def profile(self, account: int) -> dict[str, int]:
        return {
            kind: name
            for _, _, entities, _ in self.events[account]
            for kind, name in entities.items()
        }

    def ask(self, accounts: U64, t: int) -> F64:
        known = [int(a) if self.events[int(a)] else 0 for a in accounts]
        unknown = [nan] * len(self.features)
        return np.array([self.vector(a, self.profile(a), t) if a else unknown for a in known])

    def accounts(self) -> tuple[U64, U64, I64, I64]:
        told = {a: [t for t, *_ in events] for a, events in self.events.items() if events}
        table = [(a, self.owner(a), min(ts), max(ts)) for a, ts in told.items()]
        account, owner, first, last = zip(*table, strict=True) if table else ((), (), (), ())
        return (
            np.array(account, np.uint64),
            np.array(owner, np.uint64),
            np.array(first),
            np.array(last),
        )

    def sightings(self) -> Sightings:
        number = {name: i for i, name in self.kind.items()}
        span: dict[Any, int] = {(p.CONTINUATION, ()): p.LINK_SPAN}
        for f in self.features:
            if isinstance(f, Seen) and f.of == "account":
                span[f.by, f.on] = max(f.over, span.get((f.by, f.on), 0))
        found = [
            (by if isinstance(by, int) else number[by], key, owner, last)
            for (of, by, on, key), sightings in self.seen.items()
            if of == "account"
            for last, owner in alive(
                sightings, self.watermark - p.LATE, span.get((by, on), p.CUSTOM_SPAN)
            )
        ]
        kind, entity, owner, last = zip(*found, strict=True) if found else ((), (), (), ())
        return Sightings(
            np.array(kind, np.int32),
            np.array(entity, np.uint64),
            np.array(owner, np.uint64),
            np.array(last, np.int64),
        )


def alive(sightings: list[tuple[int, int]], now: int, span: int) -> list[tuple[int, int]]:
    """Of (t, member) each member's latest, of these the SETS_CAP latest, of these those in span."""
    latest: dict[int, int] = {}
    for t, member in sightings:
        latest[member] = max(t, latest.get(member, t))
    edge = max([now, *latest.values()]) - span
    return [
        (t, member)
        for t, member in sorted((t, m) for m, t in latest.items())[-SETS_CAP:]
        if t > edge
    ]


def total(amounts: list[tuple[int, int]], now: int, span: int) -> int:
    """The sum of the BUCKETS event-time buckets that end with that of max(now, latest)."""
    width = span // p.BUCKETS
    end = max([now, *(t for t, amount in amounts if amount)]) // width
    return sum(amount for t, amount in amounts if end - p.BUCKETS < t // width <= end)


def carried(talk: list[tuple[int, int, dict[str, int]]]) -> dict[str, int]:
    """What a conversation sent last; one that was silent for CARRY_SPAN begins anew."""
    sent: dict[str, int] = {}
    latest = talk[0][0]
    for t, now, new in talk:
        if latest <= now - p.CARRY_SPAN:
            sent, latest = {}, t
        sent, latest = sent | new, max(t, latest)
    return sent
