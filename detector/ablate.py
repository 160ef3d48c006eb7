"""Ablation: what each family of signals is worth, and what wrong labels cost. Always on held-out operators.

A family is knocked out as if the provider had never seen it: its columns go, and links and clusters
are made without its entities. `neighbourhood` is all that is made of entities at once; it and its
parts lose columns only. Everything is learned afresh each time, from a few of the replay's sweeps, the
same for all: figures here compare with each other, not with a model's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from detector import train
from detector.engine import Engine
from detector.splits import crossed
from detector.sweep import Sweep, linkable, silenced
from detector.train import PARAMETERS, Lesson, Table, deal, figures
from features.catalog import Catalog
from features.rows import F64, I64

KEPT = 6  # of a whole replay's sweeps, evenly spaced, the last among them; links are made anew for each family
POISON = (0.01, 0.05, 0.10)  # shares of the labels turned round

# What the neighbourhood tells, by how its columns begin.
AROUND: Mapping[str, tuple[str, ...]] = {
    "popularity": ("entities", "popularity_"),
    "links_and_clusters": ("links_", "cluster_", "sets_"),
    "crowding": ("near_", "outline_"),
}


def families(columns: Sequence[str], catalog: Catalog) -> dict[str, list[int]]:
    """Places of the columns that go with each family; a column may go with two."""
    of = {f.name: f.family for f in catalog.features}
    of |= {f"entities_{kind}": family for kind, family in linkable(catalog).items()}
    found: dict[str, list[int]] = {}
    for at, column in enumerate(columns):
        mine = [of[column]] if column in of else []
        if at >= len(catalog.features):
            mine.append("neighbourhood")
            if column not in of:
                mine += [name for name, begins in AROUND.items() if column.startswith(begins)]
        for family in mine:
            found.setdefault(family, []).append(at)
    return found


class Silence:
    """What a replay's sweeps would have shown without the entities of one family, for each that has any.

    `see` is for `replay`'s `beside`; of the sweeps that it is shown, KEPT are in `sweeps`, and
    `without` has the vectors of each, in the same order, by family.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kinds: dict[str, set[str]] = {}
        for kind, family in linkable(engine.catalog).items():
            self._kinds.setdefault(family, set()).add(kind)
        self._due = set(np.linspace(train.SWEEPS - 1, 0, KEPT).round().tolist())
        self._shown = 0
        self.sweeps: list[Sweep] = []
        self.without: dict[str, list[F64]] = {family: [] for family in self._kinds}

    def see(self, sweep: Sweep) -> None:
        # one more than SWEEPS is shown of a log that is longer than was said, and is its last
        if self._shown in self._due or self._shown == train.SWEEPS:
            self.sweeps.append(sweep)
            window, kinds = self._engine.window, self._engine.kinds
            for family, mute in self._kinds.items():
                self.without[family].append(silenced(window, kinds, sweep, mute))
        self._shown += 1


def ablate(
    lesson: Lesson, catalog: Catalog, silent: Mapping[str, Table] | None = None
) -> dict[str, Any]:
    """`whole`, `without` each family, and `poisoned` by the share of labels turned round.

    Args:
        silent: the rows of `lesson` as they are without a family's entities; by default, and for a
            family that is not there, only columns are dropped.

    Raises:
        TrainingProblem: too few groups to hold operators out.
    """
    fold = deal(lesson.y, lesson.group)
    without = {}
    for family, columns in families(lesson.columns, catalog).items():
        kept = np.setdiff1d(np.arange(len(lesson.columns)), columns)
        table = (silent or {}).get(family, lesson.table)
        less = replace(
            lesson,
            columns=tuple(lesson.columns[k] for k in kept),
            table=Table(table.x[:, kept], table.account),
        )
        without[family] = figures(lesson.y, crossed(less, fold))
    return {
        "whole": figures(lesson.y, crossed(lesson, fold)),
        "without": without,
        "poisoned": poisoned(lesson, fold),
    }


def poisoned(lesson: Lesson, fold: I64) -> dict[str, Any]:
    """Learned and calibrated on labels of which a share is wrong, judged by the truth."""
    told = {}
    for share in POISON:
        wrong = turned(lesson.y, share)
        learnable = all(len(np.unique(wrong[fold != k])) == 2 for k in np.unique(fold))
        score = crossed(lesson, fold, y=wrong) if learnable else None
        told[str(share)] = None if score is None else figures(lesson.y, score)
    return told


def turned(y: F64, share: float) -> F64:
    """Labels of which a share, drawn at random, is turned round; a larger share turns the same ones and more."""
    order = np.random.default_rng(PARAMETERS["seed"]).permutation(len(y))
    wrong = y.copy()
    chosen = order[: round(share * len(y))]
    wrong[chosen] = 1 - wrong[chosen]
    return wrong
