"""Training: replay a log through the same fold that serves, and learn from it, operator by operator.

Three heads are fitted (detector/model.py). What makes the figures honest is the split: accounts are
grouped by operator (ring) *and* by every strong entity they share, groups are dealt to five folds,
and every score used for calibration, thresholds and the report is of a fold the trees had not seen
(split S2 of EVALUATION.md). The report is of the sampled rows, calibration and thresholds are of the
log served again (detector/rehearse.py). The model that is kept is then fitted on all groups.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import StratifiedGroupKFold

from detector import metrics
from detector.clusters import components
from detector.engine import Engine
from detector.links import RELIABILITY, Sets
from detector.model import TARGET_FPRS, Head, Model
from detector.rehearse import NEVER, Held, promised, rehearse
from detector.sweep import CLUSTER_COLUMNS, Sweep, cluster_vectors, look
from detector.trees import flatten
from features.event import AnyEvent
from features.kind import NS
from features.rows import F64, I64
from features.seal import Sealed
from features.window import CONFLICT, DUPLICATE

FOLDS = 5
TAIL = 4.0  # log-odds beyond the outermost scores of a fit at which its calibration is half-way to 0 or 1 [A]
SWEEPS = 24  # looks at the links during the replay, evenly spaced in events; the last is at its end
STRONG = 2.0  # nats of reliability from which a kind ties accounts into one group …
STRONG_OWNERS = 20  # … where no more than so many owners share the entity
LEAST_CLUSTERS = 15  # of either sort; with fewer the cluster head is left out

PARAMETERS: Mapping[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.08,
    "num_leaves": 31,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,  # folds run side by side instead: OpenMP's spinning is ruinous on a shared machine
    "verbosity": -1,
    "seed": 7,
}
ROUNDS = 120


class TrainingProblem(ValueError):
    """The labels do not allow a model to be trained, and why."""


@dataclass
class History:
    """What a replay leaves to learn from: sampled event vectors and every sweep.

    `account[i]` names the account of `vectors[i]`; an account's 1st, 2nd, 4th, 8th … event is kept.
    """

    account: list[str] = field(default_factory=list)
    vectors: list[F64] = field(default_factory=list)
    sweeps: list[Sweep] = field(default_factory=list)
    count: dict[str, int] = field(default_factory=dict)
    first_ms: int = 0
    last_ms: int = 0


def replay(
    engine: Engine,
    batches: Iterable[Sequence[AnyEvent]],
    total: int,
    progress: Callable[[int], None] | None = None,
    note: Callable[[Sealed], None] = lambda _: None,
    beside: Callable[[Sweep], None] = lambda _: None,
) -> History:
    """Fold a log of `total` events, sampling vectors and sweeping on the way.

    Args:
        note: sees each part sealed.
        beside: sees each sweep while the window is as it found it.

    Raises:
        InvalidEvent: an identifier that cannot be read as one.
    """
    history = History()
    done = looked = 0
    marks = [round(total * (i + 1) / SWEEPS) for i in range(SWEEPS)]
    for batch in batches:
        at = 0
        while at < len(batch):
            take = min(len(batch) - at, max(1, (marks[0] if marks else total) - done))
            sealed, refused = engine.sealer.seal(batch[at : at + take])
            if refused:
                raise refused[0][1]
            folded = engine.restore(sealed)
            _sample(history, sealed.events, folded.vectors, folded.status)
            note(sealed)
            at += take
            done += take
            if progress:
                progress(take)
            if marks and done >= marks[0]:
                marks.pop(0)
                history.sweeps.append(look(engine.window, engine.kinds, None))
                beside(history.sweeps[-1])
                looked = done
    if done > looked:
        history.sweeps.append(look(engine.window, engine.kinds, None))
        beside(history.sweeps[-1])
    history.last_ms = engine.window.watermark
    return history


def _sample(
    history: History, events: Sequence[AnyEvent], vectors: F64, status: NDArray[np.int8]
) -> None:
    for i, event in enumerate(events):
        if status[i] in (DUPLICATE, CONFLICT):
            continue
        n = history.count.get(event.account_id, 0) + 1
        history.count[event.account_id] = n
        if n & (n - 1) == 0:
            history.account.append(event.account_id)
            history.vectors.append(vectors[i].copy())
        if not history.first_ms:
            assert isinstance(event.occurred_at, int)
            history.first_ms = event.occurred_at


def groups_of(
    accounts: Sequence[str], rings: Mapping[str, str], owner: Mapping[str, int], sets: Sets
) -> I64:
    """Group of each account: the union of its ring and of the strong entities it shares."""
    nodes = {int(o): i for i, o in enumerate(sets.owners)}
    extra = len(nodes)
    ring_node: dict[str, int] = {}
    edges_a: list[I64] = []
    edges_b: list[I64] = []
    strong = np.array(
        [name == NS or RELIABILITY.get(name, 0.0) >= STRONG for name in sets.names], np.bool_
    )
    sizes = sets.sizes
    tying = np.flatnonzero(strong[sets.family] & (sizes >= 2) & (sizes <= STRONG_OWNERS))
    for s in tying:
        members = sets.member[sets.start[s] : sets.start[s + 1]].astype(np.int64)
        edges_a.append(np.repeat(members[0], len(members) - 1))
        edges_b.append(members[1:])
    node = np.empty(len(accounts), np.int64)
    for i, account in enumerate(accounts):
        own = owner.get(account, -1 - i)  # one never swept stands for itself
        if own not in nodes:
            nodes[own], extra = extra, extra + 1
        node[i] = nodes[own]
    for i, account in enumerate(accounts):
        ring = rings.get(account)
        if ring:
            if ring not in ring_node:
                ring_node[ring], extra = extra, extra + 1
            edges_a.append(np.array([node[i]]))
            edges_b.append(np.array([ring_node[ring]]))
    a = np.concatenate(edges_a) if edges_a else np.zeros(0, np.int64)
    b = np.concatenate(edges_b) if edges_b else np.zeros(0, np.int64)
    found: I64 = np.asarray(components(extra, a.astype(np.int32), b.astype(np.int32)), np.int64)[
        node
    ]
    return found


@dataclass(frozen=True)
class Table:
    """Rows to learn from: vectors [n, d], the account's index into `accounts` of each."""

    x: F64
    account: I64

    @property
    def weight(self) -> F64:
        """Each account weighs the same, however many rows it has; 1 a row in the mean."""
        weight = 1.0 / np.bincount(self.account)[self.account]
        return np.asarray(weight * (len(weight) / weight.sum()), np.float64)


@dataclass(frozen=True)
class Lesson:
    """What the standing head learns from: the labelled accounts' rows at every sweep.

    `y`, `group` are by account, in the order of `accounts`; `at` [rows] is the time of the row's sweep
    (epoch ms), `owners` the account index of each labelled row, sweep by sweep.
    """

    accounts: list[str]
    y: F64
    group: I64
    columns: tuple[str, ...]
    table: Table
    at: I64
    owners: list[I64]


def lesson(
    history: History, engine: Engine, labels: Mapping[str, bool], rings: Mapping[str, str]
) -> Lesson:
    """Put labels and groups to what a replay left; arguments as of `fit`.

    Raises:
        TrainingProblem: too few accounts of either label.
    """
    accounts = [a for a in history.count if a in labels]
    y = np.array([labels[a] for a in accounts], np.float64)
    _enough(y)
    last = history.sweeps[-1]
    owner = {engine.names[int(a)]: int(o) for a, o in zip(last.account, last.owner, strict=True)}
    index = {a: i for i, a in enumerate(accounts)}
    parts, owners = [], []
    for sweep in history.sweeps:
        place = np.array([index.get(engine.names[int(a)], -1) for a in sweep.account], np.int64)
        parts.append(sweep.vectors[place >= 0])
        owners.append(place[place >= 0])
    return Lesson(
        accounts,
        y,
        groups_of(accounts, rings, owner, last.sets),
        last.columns,
        Table(np.vstack(parts), np.concatenate(owners)),
        np.repeat([sweep.at for sweep in history.sweeps], [len(o) for o in owners]),
        owners,
    )


def fit(
    history: History,
    engine: Engine,
    labels: Mapping[str, bool],
    rings: Mapping[str, str],
    version: str,
    again: Iterable[Sequence[AnyEvent]],
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int], None] | None = None,
) -> Model:
    """Fit, calibrate, rehearse and report; see the module's docstring.

    Args:
        again: the batches of the log that `history` came from.
        labels: account -> abusive; accounts without a label are folded but not learned from.
        rings: account -> operator, where it is known.

    Raises:
        TrainingProblem: too few accounts or groups of either label.
    """
    told = lesson(history, engine, labels, rings)
    accounts, y, group, table = told.accounts, told.y, told.group, told.table
    fold = deal(y, group)
    index = {a: i for i, a in enumerate(accounts)}

    say("learning from events")
    keep = [i for i, a in enumerate(history.account) if a in index]
    events = Table(
        np.array([history.vectors[i] for i in keep]).reshape(len(keep), -1),
        np.array([index[history.account[i]] for i in keep], np.int64),
    )
    catalog = engine.catalog
    event, _ = _head("event", catalog.names, events, y, fold)

    say("learning from sweeps")
    standing, margin = _head("standing", told.columns, table, y, fold)

    say("learning from clusters")
    cluster = _cluster_head(history, engine, index, y, fold, margin, told.owners)
    report = figures(y, per_account(standing.head.calibrate(margin), table.account, len(y)))
    about = {
        "trained_on": {
            "accounts": len(accounts),
            "abusive": int(y.sum()),
            "groups": len(np.unique(group)),
            "first_ms": history.first_ms,
            "last_ms": history.last_ms,
            "event_rows": len(events.x),
            "standing_rows": len(table.x),
        },
        "held_out_operators": report,
    }

    say("serving the log again, for calibration and thresholds")
    highest = rehearse(
        Engine(engine.policy, engine.secret, catalog=catalog), again, index, fold, event, standing, cluster,
        progress,
    )  # fmt: skip
    margins = promised(highest.of(y == 0), group[y == 0], TARGET_FPRS)
    about["rehearsed"] = {
        "honest": int((y == 0).sum()),
        "passed": margins.passed,
        "at_most": margins.at_most,
    }
    heads = {
        "event": _settled(event.head, highest.event, y, margins.event),
        "standing": _settled(standing.head, highest.standing, y, margins.standing),
    }
    if cluster is not None:
        heads["cluster"] = cluster.head
    scale = heads["standing"]
    members = {s: float(np.interp(m, scale.knots, scale.levels)) for s, m in margins.member.items()}
    return Model(version, catalog, heads, about, members)


def _enough(y: F64) -> None:
    abusive, honest = int(y.sum()), int((1 - y).sum())
    if abusive < 2 * FOLDS or honest < 2 * FOLDS:
        raise TrainingProblem(
            f"at least {2 * FOLDS} accounts of either label are needed to hold operators out; "
            f"the log has {abusive} labelled abusive and {honest} labelled honest"
        )


def deal(y: F64, group: I64) -> I64:
    """Fold of each account; no group is on two sides (asserted), labels spread evenly.

    Raises:
        TrainingProblem: the accounts of either label form fewer groups than there are folds.
    """
    for label, word in ((1, "abusive"), (0, "honest")):
        groups = len(np.unique(group[y == label]))
        if groups < FOLDS:
            raise TrainingProblem(
                f"the {word} accounts form {groups} independent groups (operators, or accounts that share a strong "
                f"entity); {FOLDS} are needed to hold operators out"
            )
    fold = np.full(len(y), -1, np.int64)
    split = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=7)
    for k, (_, test) in enumerate(split.split(np.zeros((len(y), 1)), y, group)):
        fold[test] = k
    order = np.argsort(group, kind="stable")
    same = group[order][1:] == group[order][:-1]
    assert (fold[order][1:] == fold[order][:-1])[same].all()
    return fold


def _booster(x: F64, y: F64, weight: F64, names: Sequence[str]) -> lightgbm.Booster:
    data = lightgbm.Dataset(x, y, weight=weight, feature_name=list(names), params={"verbosity": -1})
    return lightgbm.train(dict(PARAMETERS), data, ROUNDS)


Rows = NDArray[np.bool_]


def held_out(
    x: F64, y: F64, weight: F64, sides: Sequence[tuple[Rows, Rows]], names: Sequence[str]
) -> tuple[F64, list[lightgbm.Booster]]:
    """One booster for each (rows to learn from, rows to score); and the margins they give, NaN where none does."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        fitted = list(threads.map(lambda s: _booster(x[s[0]], y[s[0]], weight[s[0]], names), sides))
    margin = np.full(len(x), np.nan)
    for (_, scored), booster in zip(sides, fitted, strict=True):
        if scored.any():
            margin[scored] = np.asarray(booster.predict(x[scored], raw_score=True, num_threads=1))
    return margin, fitted


def sides_of(fold: I64) -> list[tuple[Rows, Rows]]:
    """Each fold scored by what is learned from the others."""
    return [(fold != k, fold == k) for k in np.unique(fold)]


def _cross_fit(
    x: F64, y: F64, weight: F64, fold: I64, names: Sequence[str]
) -> tuple[F64, list[lightgbm.Booster]]:
    """Margins of every row by trees that did not see its fold; those boosters, and one fitted on all."""
    everything = np.ones(len(x), np.bool_)
    return held_out(x, y, weight, [*sides_of(fold), (everything, ~everything)], names)


def _head(name: str, columns: Sequence[str], table: Table, y: F64, fold: I64) -> tuple[Held, F64]:
    """Fit one head; also the margin of every row by trees that did not see its group."""
    weight, label, row_fold = table.weight, y[table.account], fold[table.account]
    crossed = _cross_fit(table.x, label, weight, row_fold, columns)
    return _held(name, columns, *crossed, label, weight)


def _held(
    name: str, columns: Sequence[str], margin: F64, fitted: list[lightgbm.Booster], label: F64, weight: F64
) -> tuple[Held, F64]:  # fmt: skip
    """A head calibrated on its rows, without thresholds, beside the trees of its folds; and the margin."""
    *sides, whole = fitted
    knots, levels = calibrate(margin, label, weight)
    head = Head(
        name=name,
        columns=tuple(columns),
        text=whole.model_to_string(),
        knots=tuple(knots.tolist()),
        levels=tuple(levels.tolist()),
        thresholds={},
    )
    return Held(head, [flatten(side) for side in sides]), margin


def _settled(head: Head, highest: F64, y: F64, margins: Mapping[str, float]) -> Head:
    """The head calibrated anew, on the highest margin of each account, and these thresholds with it.

    A score is then how many accounts that ever came so high are abusive, which is what a threshold
    asks; on single rows it would say too little of the honest, who are looked at again and again.
    """
    known = highest > NEVER
    knots, levels = calibrate(highest[known], y[known], np.ones(int(known.sum())))
    head = replace(head, knots=tuple(knots.tolist()), levels=tuple(levels.tolist()))
    return replace(
        head, thresholds={s: float(np.interp(m, knots, levels)) for s, m in margins.items()}
    )


def calibrate(margin: F64, y: F64, weight: F64) -> tuple[F64, F64]:
    """Centred isotonic regression: the knots and levels of a strictly increasing calibration.

    Each block of the isotonic fit becomes one point, at its weighted centre, and the points are
    joined by lines (Oron & Flournoy 2017), so that ranking within a block survives.
    """
    fitted = IsotonicRegression(y_min=1e-5, y_max=1 - 1e-5).fit(margin, y, sample_weight=weight)
    level = fitted.predict(margin)
    _, block = np.unique(level, return_inverse=True)
    mass = np.bincount(block, weight)
    knots = np.bincount(block, weight * margin) / mass
    levels = np.bincount(block, weight * level) / mass
    # from the centres of the outermost blocks outwards, so that scores there stay apart, also scores
    # that are yet to come: a threshold may be the highest there was
    knots = np.r_[margin.min() - TAIL, knots, margin.max() + TAIL]
    levels = np.r_[levels[0] * 0.5, levels, 1 - (1 - levels[-1]) * 0.5]
    return knots, levels


def per_account(score: F64, account: I64, n: int) -> F64:
    """The greatest score of each account's rows; NaN without a row."""
    out = np.full(n, -np.inf)
    np.maximum.at(out, account, score)
    return np.where(np.isinf(out), np.nan, out)


def _cluster_head(
    history: History,
    engine: Engine,
    index: Mapping[str, int],
    y: F64,
    fold: I64,
    margins: F64,
    owners: list[I64],
) -> Held | None:
    """The cluster head, from the clusters of every sweep; members' standing is always held out."""
    xs, labels, folds = [], [], []
    at = 0
    for sweep, rows in zip(history.sweeps, owners, strict=True):
        margin = np.full(len(sweep.account), np.nan)
        place = np.array([index.get(engine.names[int(a)], -1) for a in sweep.account], np.int64)
        margin[place >= 0] = margins[at : at + len(rows)]
        at += len(rows)
        vectors = cluster_vectors(sweep.structure, np.where(place >= 0, sweep.place, -1), margin)
        for c in range(len(sweep.clusters)):
            members = place[(sweep.place == c) & (place >= 0)]
            if len(members) >= 2:
                xs.append(vectors[c])
                labels.append(y[members].mean() >= 0.5)
                folds.append(np.bincount(fold[members]).argmax())
    label = np.array(labels, np.float64)
    if label.sum() < LEAST_CLUSTERS or (1 - label).sum() < LEAST_CLUSTERS:
        return None
    row_fold = np.array(folds, np.int64)
    if any(len(np.unique(label[row_fold != k])) < 2 for k in range(FOLDS)):
        return None
    columns = CLUSTER_COLUMNS
    x = np.array(xs)
    weight = np.ones(len(x))
    return _held(
        "cluster", columns, *_cross_fit(x, label, weight, row_fold, columns), label, weight
    )[0]


def figures(y: F64, score: F64) -> dict[str, Any]:
    """Figures on held-out operators; the account's score is its highest at any sweep."""
    known = ~np.isnan(score)
    y, score = y[known].astype(np.int64), score[known]
    return {
        **metrics.ranking(y, score),
        "ece": metrics.expected_calibration_error(y, score),
        "brier": metrics.brier(y, score),
    }
