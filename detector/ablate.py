"""Ablation: what each family of signals is worth, and what wrong labels cost. Always on held-out operators.

A family is knocked out by its columns: the catalogue's family, and how many of its entities an owner
has. What links and clusters made of those entities stays, as it would for a provider who lost the
column; `neighbourhood` knocks out all of that at once. Everything is learned afresh each time, from
a few of the replay's sweeps, the same for all: figures here compare with each other, not with a
model's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from detector.splits import crossed
from detector.train import PARAMETERS, Lesson, Table, deal, figures
from features.catalog import Catalog
from features.feature import Seen
from features.rows import F64, I64

SWEEPS = 6  # of a replay's, evenly spaced, the last among them
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
    owned = {f.by: f.family for f in catalog.features if isinstance(f, Seen) and f.of == "account"}
    for kind, family in (*owned.items(), ("continuation", "conversation")):
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


def ablate(lesson: Lesson, catalog: Catalog) -> dict[str, Any]:
    """`whole`, `without` each family, and `poisoned` by the share of labels turned round.

    Raises:
        TrainingProblem: too few groups to hold operators out.
    """
    lesson = thinned(lesson)
    fold = deal(lesson.y, lesson.group)
    without = {}
    for family, columns in families(lesson.columns, catalog).items():
        kept = np.setdiff1d(np.arange(len(lesson.columns)), columns)
        less = replace(
            lesson,
            columns=tuple(lesson.columns[k] for k in kept),
            table=Table(lesson.table.x[:, kept], lesson.table.account),
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


def thinned(lesson: Lesson) -> Lesson:
    """The rows of SWEEPS of the sweeps. Every account that was ever seen is in the last one."""
    times = np.unique(lesson.at)
    kept = times[np.unique(np.linspace(len(times) - 1, 0, SWEEPS).round().astype(int))]
    rows = np.isin(lesson.at, kept)
    return replace(
        lesson,
        table=Table(lesson.table.x[rows], lesson.table.account[rows]),
        at=lesson.at[rows],
    )
