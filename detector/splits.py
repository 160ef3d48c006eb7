"""Splits: the same rows and the same learner, with other accounts held out. All are printed.

    S0  random accounts. An operator is on both sides: S0 - S2 is what knowing him would be worth.
    S1  later accounts, by what was known at the cut: accounts first seen a label delay before it or
        earlier, as they looked up to then. Scored are accounts first seen after it.
    S2  held-out operators: the headline, and what a model is calibrated on (detector/train.py).
    S3  one typology left out of what is learned; its accounts are told from honest ones, operators
        held out as in S2.

Every account is scored by the highest of its rows, from trees that saw nothing of its side, and
calibrated as a model would be: on all held-out rows of S0, S2 and S3, and, since nothing later may
have a say, on the operators held out before the cut in S1.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from detector.train import (
    FOLDS,
    PARAMETERS,
    Lesson,
    Rows,
    TrainingProblem,
    calibrate,
    deal,
    figures,
    held_out,
    per_account,
    sides_of,
)
from features.feature import DAY
from features.rows import F64, I64

LABEL_DELAY = 7 * DAY  # between what an account does and somebody saying what it is
LEAST = 5  # abusive accounts, and honest ones, below which a split has no figures

Bools = NDArray[np.bool_]


def splits(
    lesson: Lesson, first_ms: Mapping[str, int], typology: Mapping[str, str]
) -> dict[str, Any]:
    """Figures of S0, S1 and S2, and of S3 by typology; None where accounts are too few.

    Args:
        first_ms: when each account was first seen.
        typology: of the abusive accounts, where it is known.

    Raises:
        TrainingProblem: too few groups to hold operators out.
    """
    y, group = lesson.y, lesson.group
    fold = deal(y, group)  # asserts that no group is on two sides
    shuffled = StratifiedKFold(FOLDS, shuffle=True, random_state=PARAMETERS["seed"])
    random = np.empty(len(y), np.int64)
    for k, (_, test) in enumerate(shuffled.split(np.zeros((len(y), 1)), y)):
        random[test] = k
    kinds = np.array([typology.get(a, "") for a in lesson.accounts])
    kinds[y == 0] = ""
    first = np.array([first_ms[a] for a in lesson.accounts], np.int64)
    return {
        "S0": figures(y, crossed(lesson, random)),
        "S1": _temporal(lesson, first),
        "S2": figures(y, crossed(lesson, fold)),
        "S3": {
            str(name): _novel(lesson, fold, kinds == name)
            for name in sorted(set(kinds.tolist()) - {""})
        },
    }


def crossed(lesson: Lesson, fold: I64, unlearned: Bools | None = None, y: F64 | None = None) -> F64:
    """Calibrated score of each account by trees that saw nothing of its fold; NaN without a row.

    Args:
        fold: by account.
        unlearned: accounts that nothing is learned from; they are scored all the same.
        y: what is learned and calibrated on, where that is not the truth (poisoned labels).
    """
    table, label = lesson.table, lesson.y if y is None else y
    sides = sides_of(fold[table.account])
    known = np.ones(len(table.x), np.bool_)
    if unlearned is not None:
        known = ~unlearned[table.account]
        sides = [(learned & known, scored) for learned, scored in sides]
    label, weight = label[table.account], table.weight
    margin, _ = held_out(table.x, label, weight, sides, lesson.columns)
    knots, levels = calibrate(margin[known], label[known], weight[known])
    return per_account(np.interp(margin, knots, levels), table.account, len(lesson.y))


def _novel(lesson: Lesson, fold: I64, novel: Bools) -> dict[str, Any] | None:
    """The typology's accounts against all honest ones, by trees that learned from neither it nor the fold."""
    y = lesson.y
    others = (y == 1) & ~novel
    if novel.sum() < LEAST or any(not others[fold != k].any() for k in np.unique(fold)):
        return None
    score = crossed(lesson, fold, novel)
    told = novel | (y == 0)
    return figures(y[told], score[told])


def _temporal(lesson: Lesson, first: I64) -> dict[str, Any] | None:
    """The first half of the log's time against accounts that came after it.

    `cut_ms` and `label_delay_h` say what was used: the delay is half of the time before the cut at
    most, so that a short log leaves something to learn from.
    """
    y, table = lesson.y, lesson.table
    begin = int(first.min())
    cut = begin + (int(lesson.at.max()) - begin) // 2
    delay = min(LABEL_DELAY, (cut - begin) // 2)
    early, late = first <= cut - delay, first > cut
    if min((y[early] == 1).sum(), (y[early] == 0).sum()) < 2 * FOLDS:
        return None
    if min((y[late] == 1).sum(), (y[late] == 0).sum()) < LEAST:
        return None
    learned: Rows = early[table.account] & (lesson.at <= cut)
    scored: Rows = late[table.account]
    try:
        fold = np.full(len(y), -1, np.int64)
        fold[early] = deal(y[early], lesson.group[early])
    except TrainingProblem:
        return None
    row_fold = fold[table.account]
    label = y[table.account]
    x = table.x[learned | scored]
    kept = np.flatnonzero(learned | scored)
    weight = np.ones(len(kept))
    rows = learned[kept]
    weight[rows] = 1.0 / np.bincount(table.account[kept[rows]])[table.account[kept[rows]]]
    weight *= rows.sum() / weight[rows].sum()
    sides = [(rows & (row_fold[kept] != k), rows & (row_fold[kept] == k)) for k in range(FOLDS)]
    if any(len(np.unique(label[kept[side]])) < 2 for side, _ in sides):
        return None
    margin, _ = held_out(x, label[kept], weight, [*sides, (rows, ~rows)], lesson.columns)
    knots, levels = calibrate(margin[rows], label[kept[rows]], weight[rows])
    score = np.interp(margin[~rows], knots, levels)
    account = per_account(score, table.account[kept[~rows]], len(y))
    return {
        **figures(y[late], account[late]),
        "cut_ms": cut,
        "label_delay_h": delay / (DAY / 24),
    }
