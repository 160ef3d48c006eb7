"""Ablation: what each family of signals is worth, and what wrong labels cost. Always on held-out operators.

A family is knocked out as if the provider never saw any of it: its columns, and its entities, from
which links and clusters are then made without. `neighbourhood` knocks out all that is made of
entities at once, and its parts by their columns. Everything is learned afresh each time, from a few
of the replay's sweeps, the same for all: figures here compare with each other, not with a model's
own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from detector import train
from detector.engine import Engine
from detector.splits import crossed
from detector.sweep import Sweep, silenced
from detector.train import PARAMETERS, History, Lesson, Table, deal, figures
from features.catalog import Catalog
from features.feature import Seen
from features.rows import F64, I64

SWEEPS = 6  # of a replay's, evenly spaced, the last among them: a link is made anew for each family
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
    for kind, family in kinds_of(catalog):
        of[f"entities_{kind}"] = family
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


def kinds_of(catalog: Catalog) -> list[tuple[str, str]]:
    """Each kind by which owners are linked, and the family of signals that it goes with."""
    owned = {f.by: f.family for f in catalog.features if isinstance(f, Seen) and f.of == "account"}
    return [*owned.items(), ("continuation", "conversation")]


class Silence:
    """What a replay's sweeps would have shown without the entities of one family, for each that has any.

    `see` is for `replay`'s `beside`; SWEEPS of the sweeps that it is shown are kept.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._mute: dict[str, set[str]] = {}
        for kind, family in kinds_of(engine.catalog):
            self._mute.setdefault(family, set()).add(kind)
        self._due = np.unique(np.linspace(train.SWEEPS - 1, 0, SWEEPS).round()).tolist()
        self._shown = 0
        self.sweeps: list[Sweep] = []
        self._less: dict[str, list[F64]] = {family: [] for family in self._mute}

    def see(self, sweep: Sweep) -> None:
        if self._shown in self._due or self._shown >= train.SWEEPS:
            self.sweeps.append(sweep)
            for family, kinds in self._mute.items():
                window = self._engine.window
                self._less[family].append(silenced(window, self._engine.kinds, sweep, kinds))
        self._shown += 1

    def history(self, whole: History, family: str | None = None) -> History:
        """The kept sweeps of a replay, as they were or without a family."""
        less = self._less.get(family or "")
        sweeps = (
            self.sweeps
            if less is None
            else [
                replace(sweep, vectors=vectors)
                for sweep, vectors in zip(self.sweeps, less, strict=True)
            ]
        )
        return replace(whole, sweeps=sweeps)


def ablate(
    lesson: Lesson, catalog: Catalog, silent: Callable[[str], Lesson] | None = None
) -> dict[str, Any]:
    """`whole`, `without` each family, and `poisoned` by the share of labels turned round.

    Args:
        silent: the lesson without the entities of a family; by default only columns are dropped.

    Raises:
        TrainingProblem: too few groups to hold operators out.
    """
    fold = deal(lesson.y, lesson.group)
    without = {}
    for family, columns in families(lesson.columns, catalog).items():
        kept = np.setdiff1d(np.arange(len(lesson.columns)), columns)
        less = silent(family) if silent else lesson
        less = replace(
            less,
            columns=tuple(lesson.columns[k] for k in kept),
            table=Table(less.table.x[:, kept], less.table.account),
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
