"""Splits: what is held out stays out, and each split measures what it is printed for."""

from collections.abc import Sequence
from dataclasses import replace

import lightgbm
import numpy as np
import pytest

import detector.train
from detector import metrics
from detector.splits import LABEL_DELAY, crossed, splits
from detector.train import Lesson, Rows, Table, deal
from features.feature import DAY, HOUR
from features.rows import F64

KINDS = ("carded", "sms_farm")


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector.train, "ROUNDS", 20)


def lesson_of(
    x: F64, y: F64, group: F64, first: Sequence[int] | None = None, days: float = 20
) -> tuple[Lesson, dict[str, int]]:
    """Each account has a row at the middle and one at the end of `days`, as far as it was there by then."""
    n = len(y)
    names = [f"a{i}" for i in range(n)]
    first = list(first) if first is not None else [0] * n
    at = [round(days * DAY / 2) - 1, round(days * DAY)]
    rows = [(i, t) for t in at for i in range(n) if first[i] <= t]
    account = np.array([i for i, _ in rows], np.int64)
    told = Lesson(
        accounts=names,
        y=y.astype(np.float64),
        group=group.astype(np.int64),
        columns=tuple(f"c{k}" for k in range(x.shape[1])),
        table=Table(x[account], account),
        at=np.array([t for _, t in rows], np.int64),
        owners=[],
    )
    return told, dict(zip(names, first, strict=True))


def paces(n: int, memorise: bool) -> tuple[Lesson, dict[str, int], F64]:
    """`n` operators of sixteen accounts with a column each: of the label, or only of the operator."""
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(n), 16)
    y = (np.arange(n) % 2)[group]
    pace = rng.permutation(n)[group] if memorise else y
    x = np.column_stack([pace + rng.uniform(0, 0.3, len(y)), rng.uniform(size=len(y))])
    first = (rng.uniform(0, 20, len(y)) * DAY).astype(int)
    told, when = lesson_of(x, y, group, first.tolist())
    return told, when, y


def test_a_random_split_knows_operators_and_a_split_by_operator_does_not() -> None:
    told, first, _ = paces(40, memorise=True)
    found = splits(told, first, {})
    assert found["S0"]["auc"] > 0.9
    assert 0.2 < found["S2"]["auc"] < 0.7
    assert found["S3"] == {}
    assert found["S2"]["n"] == 640
    assert found["S2"]["n_abusive"] == 320


def test_what_can_be_learned_is_learned_in_every_split() -> None:
    told, first, y = paces(40, memorise=False)
    kinds = {f"a{i}": KINDS[i // 16 // 2 % 2] for i in range(len(y)) if y[i]}
    found = splits(told, first, kinds)
    for part in (found["S0"], found["S1"], found["S2"], *found["S3"].values()):
        assert part["auc"] > 0.99
        assert part["recall_at_fpr"]["0.01"] > 0.9
        assert part["ece"] < 0.1
    assert set(found["S3"]) == set(KINDS)
    assert sum(part["n_abusive"] for part in found["S3"].values()) == y.sum()
    assert {part["n"] - part["n_abusive"] for part in found["S3"].values()} == {int((y == 0).sum())}


def test_a_typology_left_out_is_not_learned() -> None:
    """Each kind has a column of its own that the other says nothing of."""
    rng = np.random.default_rng(1)
    y = np.arange(300) % 3 > 0
    kind = np.arange(300) % 3  # 0 honest
    x = np.column_stack([kind == 1, kind == 2]).astype(float) + rng.uniform(0, 0.1, (300, 2))
    told, first = lesson_of(x, y, np.arange(300))
    names = {f"a{i}": KINDS[kind[i] - 1] for i in range(300) if y[i]}
    found = splits(told, first, names)
    assert found["S2"]["auc"] > 0.99
    for part in found["S3"].values():
        assert part["auc"] < 0.8
        assert part["n_abusive"] == 100


def test_scores_before_the_cut_say_nothing_of_what_comes_later() -> None:
    """Shuffle the future: the trees of S1 see the same rows, whatever later rows and labels hold."""
    told, first, _ = paces(40, memorise=False)
    when = np.array([first[a] for a in told.accounts])
    cut = int(when.min() + (told.at.max() - when.min()) // 2)
    early = when <= cut - min(LABEL_DELAY, (cut - when.min()) // 2)
    rng = np.random.default_rng(9)
    future = told.at > cut
    x = told.table.x.copy()
    x[future & early[told.table.account]] = rng.uniform(size=x.shape)[
        future & early[told.table.account]
    ]
    y = told.y.copy()
    between = ~early & (when <= cut)  # not labelled yet when the cut came
    y[between] = rng.permutation(y[between])
    other = replace(told, y=y, table=Table(x, told.table.account))
    assert splits(other, first, {})["S1"] == splits(told, first, {})["S1"]
    assert splits(told, first, {})["S1"]["label_delay_h"] * HOUR == pytest.approx(
        (cut - when.min()) // 2
    )


def test_a_long_log_has_the_whole_delay() -> None:
    rng = np.random.default_rng(2)
    y = np.arange(400) % 2
    x = (y + rng.uniform(0, 0.5, 400))[:, None]
    first = (rng.uniform(0, 60, 400) * DAY).astype(int)
    told, when = lesson_of(x, y, np.arange(400), first.tolist(), days=60)
    assert splits(told, when, {})["S1"]["label_delay_h"] == 7 * 24


def test_nothing_of_an_operator_is_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    told, first, _ = paces(30, memorise=True)
    seen: list[list[tuple[Rows, Rows]]] = []
    true = detector.train.held_out

    def spied(
        x: F64, y: F64, weight: F64, sides: Sequence[tuple[Rows, Rows]], names: Sequence[str]
    ) -> tuple[F64, list[lightgbm.Booster]]:
        seen.append(list(sides))
        return true(x, y, weight, sides, names)

    monkeypatch.setattr("detector.splits.held_out", spied)
    crossed(told, deal(told.y, told.group))
    group = told.group[told.table.account]
    (sides,) = seen
    for learned, scored in sides:
        assert not set(group[learned]) & set(group[scored])
    assert np.sum([scored for _, scored in sides], axis=0).tolist() == [1] * len(group)
    assert first


def test_the_operators_split_is_what_a_model_reports() -> None:
    """The same rows, folds and trees as the standing head's: one account's highest row counts."""
    told, _, y = paces(40, memorise=False)
    score = crossed(told, deal(told.y, told.group))
    _, margin = detector.train._head(
        "standing", told.columns, told.table, told.y, deal(told.y, told.group)
    )
    highest = np.full(len(y), -np.inf)
    np.maximum.at(highest, told.table.account, margin)
    assert metrics.roc_auc(y, score) == pytest.approx(metrics.roc_auc(y, highest))


def test_few_accounts_have_no_figures_rather_than_bad_ones() -> None:
    y = np.r_[np.ones(12), np.zeros(60)]
    told, first = lesson_of(np.random.default_rng(0).uniform(size=(72, 2)), y, np.arange(72))
    found = splits(told, first, {"a0": "carded"})
    assert found["S1"] is None, "nobody came after the cut"
    assert found["S3"] == {"carded": None}
