"""A case: a cluster as a person works it. Members, evidence, timeline, money, a proposed action."""

import msgspec
import numpy as np

from detector.clusters import families_of
from detector.engine import Engine
from detector.links import shared_sets
from detector.sweep import Sweep
from features.kind import KINDS, NS
from features.rows import I64

EVIDENCE = 20  # shared entities listed
MEMBERS = 1000  # members listed; the count is always whole
NOUNS = {k.family: k.noun for k in reversed(KINDS)} | {
    NS: "identifier of the provider's own",
    "continuation": "continued conversation",
}


class Evidence(msgspec.Struct):
    """An entity that members share: `accounts` were seen on it, last at `last_ms`."""

    kind: str
    entity: str
    text: str
    accounts: list[str]
    last_ms: int


class Moment(msgspec.Struct):
    """One line of the timeline."""

    at_ms: int
    text: str


class Case(msgspec.Struct):
    """See the module's docstring. Money in US dollars, times in epoch ms."""

    cluster_id: str
    score: float
    proposed_action: str
    size: int
    kinds: list[str]
    first_ms: int
    last_ms: int
    members: list[str]
    cost_usd: float
    paid_usd: float
    evidence: list[Evidence]
    timeline: list[Moment]
    bystanders: list[str]  # members whose own standing is low: who would be hurt


def case_of(engine: Engine, found: Sweep, place: int) -> Case:
    """The case of cluster `place` of a sweep that the engine has adopted."""
    clusters = found.clusters
    members = clusters.members(place)
    rows = np.flatnonzero(found.place == place)
    accounts = [engine.names[int(a)] for a in found.account[rows]]
    score = float(found.cluster_score[place])
    action = engine.verdict(len(members), score)
    by_owner: dict[int, list[str]] = {}
    for row in rows:
        by_owner.setdefault(int(found.owner[row]), []).append(engine.names[int(found.account[row])])
    evidence = _evidence(found, members.astype(np.int64), by_owner)
    entries = [engine.ledger[a] for a in accounts if a in engine.ledger]
    lowest = engine.member_level
    bystanders = []
    if lowest is not None:  # the last word on each, also on those who have been silent since
        known = ((a, engine.standing[a].score) for a in accounts if a in engine.standing)
        bystanders = [a for a, level in known if level is not None and level < lowest]
    first = np.sort(found.links.first[members])
    timeline = [
        Moment(int(t), f"{n} of {len(members)} members seen")
        for n, t in enumerate(first, 1)
        if n & (n - 1) == 0 or n == len(first)
    ]
    return Case(
        cluster_id=engine.cluster_ids[place],
        score=round(score, 6),
        proposed_action=action.name,
        size=len(members),
        kinds=list(families_of(found.links.names, int(clusters.families[place]))),
        first_ms=int(clusters.first[place]),
        last_ms=int(clusters.latest[place]),
        members=accounts[:MEMBERS],
        cost_usd=round(sum(e.cost for e in entries), 2),
        paid_usd=round(sum(e.kept for e in entries), 2),
        evidence=evidence,
        timeline=timeline,
        bystanders=bystanders[:MEMBERS],
    )


def _evidence(found: Sweep, members: I64, by_owner: dict[int, list[str]]) -> list[Evidence]:
    sets = found.sets
    places, counts = shared_sets(sets, members)
    told = []
    for s, count in zip(places[:EVIDENCE].tolist(), counts[:EVIDENCE].tolist(), strict=True):
        row = slice(sets.start[s], sets.start[s + 1])
        inside = np.isin(sets.member[row], members)
        owners = sets.owners[sets.member[row][inside]].tolist()
        kind = sets.names[sets.family[s]]
        entity = f"h:{int(sets.entity[s]):016x}…"
        told.append(
            Evidence(
                kind,
                entity,
                f"{count} of {len(members)} members on one {NOUNS.get(kind, kind)} ({entity})",
                [a for o in owners for a in by_owner.get(int(o), [])],
                int(sets.last[row][inside].max()),
            )
        )
    return told
