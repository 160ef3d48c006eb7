"""A world that has been played to its end, as the tests look at it."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import rankdata

from synth.world import TruthRow, World, simulate


@dataclass
class Played:
    """A world that has been played: its lines, its events (first delivery of each), its truth."""

    world: World
    lines: list[bytes]
    events: list[dict[str, Any]]
    truth: dict[str, TruthRow]
    of_account: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))


def play(scenario: str = "market", **options: Any) -> Played:
    world = simulate(scenario, **options)
    lines = list(world.lines())
    events: dict[str, dict[str, Any]] = {}
    for line in lines:
        event = json.loads(line)
        events.setdefault(event["event_id"], event)
    truth = {row.account_id: row for row in world.truth()}
    played = Played(world, lines, list(events.values()), truth)
    for event in played.events:
        played.of_account[event["account_id"]].append(event)
    return played


def together(worlds: Sequence[Played]) -> Played:
    """Several worlds as one; `world` is the first."""
    first, *more = worlds
    for other in more:
        first.lines += other.lines
        first.events += other.events
        first.truth |= other.truth
        first.of_account |= other.of_account
    return first


def auc(positive: list[float], negative: list[float], weight: list[float] | None = None) -> float:
    """Probability that a positive ranks above a negative, ties half; `weight` is the positives'."""
    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)]
    below = ranks - rankdata(positive)  # negatives below, ties half
    return float(np.average(below, weights=weight) / len(negative))
