"""What people ask of the last sweep and of the window: clusters, their members, an account's links.

Each function reads an engine whose lock the caller holds.
"""

from typing import Any

import numpy as np

from detector.case import Case, case_of
from detector.clusters import families_of
from detector.engine import Engine
from features.rows import Names

MEMBERS_SHOWN = 50
LINKS_SHOWN = 100


def case(engine: Engine, cluster_id: str) -> Case | None:
    """The case of a cluster of the last sweep, opened or not."""
    found, place = engine.last_sweep, _place(engine, cluster_id)
    return None if found is None or place is None else case_of(engine, found, place)


def clusters(engine: Engine) -> list[dict[str, Any]]:
    """The clusters of the last sweep, worst first, without their evidence."""
    found = engine.last_sweep
    if found is None:
        return []
    size = found.clusters.size
    names_in: dict[int, list[str]] = {}
    for account, place in zip(found.account.tolist(), found.place.tolist(), strict=True):
        if place >= 0:
            names_in.setdefault(place, []).append(engine.names[account])
    told = []
    for c in np.argsort(-found.cluster_score, kind="stable").tolist():
        inside, score = names_in.get(c, []), float(found.cluster_score[c])
        entries = [engine.ledger[a] for a in inside]
        told.append(
            {
                "cluster_id": engine.cluster_ids[c],
                "score": score,
                "proposed_action": engine.verdict(int(size[c]), score).name,
                "size": int(size[c]),
                "kinds": list(families_of(found.links.names, int(found.clusters.families[c]))),
                "cost_usd": sum(e.cost for e in entries),
                "paid_usd": sum(e.kept for e in entries),
                "members": inside[:MEMBERS_SHOWN],
            }
        )
    return told


def members(engine: Engine, cluster_id: str) -> list[str] | None:
    """Accounts of a cluster of the last sweep; None when there is no such cluster."""
    found, place = engine.last_sweep, _place(engine, cluster_id)
    if found is None or place is None:
        return None
    return [engine.names[a] for a in found.account[found.place == place].tolist()]


def links(engine: Engine, account_id: str) -> list[dict[str, Any]]:
    """The owners that an account is linked to at the last sweep, strongest first, and by what."""
    found = engine.last_sweep
    if found is None or not len(rows := np.flatnonzero(found.account == number(account_id))):
        return []
    there = found.links
    me = int(there.index(found.owner[rows[:1]])[0])
    near = np.flatnonzero(((there.a == me) | (there.b == me)) & (me >= 0))
    told = []
    for k in sorted(near, key=lambda k: -float(there.surprise[k]))[:LINKS_SHOWN]:
        other = int(there.owners[there.b[k] if there.a[k] == me else there.a[k]])
        told.append(
            {
                "owner": engine.names.get(other, f"{other:016x}"),
                "surprise_nats": round(float(there.surprise[k]), 3),
                "shared": int(there.shared[k]),
                "kinds": list(families_of(there.names, int(there.families[k]))),
            }
        )
    return told


def vector(engine: Engine, account_id: str) -> list[float]:
    """An account's vector as of the last event folded."""
    me = np.array([number(account_id)], np.uint64)
    return list(map(float, engine.window.ask(me, engine.window.watermark)[0]))


def number(account_id: str) -> int:
    """What an account is called in the fold."""
    return Names().name(account_id)


def _place(engine: Engine, cluster_id: str) -> int | None:
    return engine.cluster_ids.index(cluster_id) if cluster_id in engine.cluster_ids else None
