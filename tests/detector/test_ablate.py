"""Knock-outs and poisoned labels on tables whose answer is known."""

import numpy as np
import pytest

import detector.train
from detector.ablate import KEPT, POISON, Silence, ablate, families, turned
from detector.sweep import linkable, look, silenced
from detector.train import SWEEPS, Lesson, Table, replay
from features.catalog import Catalog
from tests.detector.handmade import Log, engine_of, standing_columns


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector.train, "ROUNDS", 15)


def lesson(telling: str) -> Lesson:
    """400 accounts of which one column tells all, and the others nothing."""
    columns = standing_columns(Catalog())
    rng = np.random.default_rng(0)
    y = (np.arange(400) % 4 == 0).astype(float)
    x = rng.uniform(size=(400, len(columns)))
    x[:, columns.index(telling)] += y
    return Lesson(
        [f"a{i}" for i in range(400)],
        y,
        np.arange(400),
        columns,
        Table(x, np.arange(400)),
        np.zeros(400, np.int64),
        [],
    )


@pytest.mark.parametrize(
    ("column", "hurt"),
    [
        ("last_liveness", {"kyc"}),
        ("entities_face", {"kyc", "neighbourhood"}),
        ("entities_continuation", {"conversation", "neighbourhood"}),
        ("sets_score_mean", {"links_and_clusters", "neighbourhood"}),
        ("outline_crowding_1", {"crowding", "neighbourhood"}),
        ("entities", {"popularity", "neighbourhood"}),
    ],
)
def test_only_the_family_that_tells_is_missed(column: str, hurt: set[str]) -> None:
    told = ablate(lesson(column), Catalog())
    assert told["whole"]["recall_at_fpr"]["0.01"] > 0.9
    for family, row in told["without"].items():
        if family in hurt:
            assert row["recall_at_fpr"]["0.01"] < 0.2, family
        else:
            assert row["recall_at_fpr"]["0.01"] > 0.9, family


def test_a_family_with_entities_is_judged_on_the_rows_without_them() -> None:
    told = lesson("entities_device")
    blind = told.table.x.copy()
    blind[:, told.columns.index("entities_device")] = 0
    silent = {"kyc": Table(blind, told.table.account)}
    without = ablate(told, Catalog(), silent)["without"]
    assert without["kyc"]["recall_at_fpr"]["0.01"] < 0.2, "what a face would have told is gone"
    assert without["payment"]["recall_at_fpr"]["0.01"] > 0.9


@pytest.mark.parametrize("too_few", [0, 10], ids=["as said", "a longer log than was said"])
def test_six_sweeps_are_kept_without_each_family_and_the_last_is_one(too_few: int) -> None:
    log = Log()
    for i in range(120):
        log.add("account_signup", f"a{i}", i, device_id=f"d{i // 2}")
    engine = engine_of()
    silence = Silence(engine)
    history = replay(engine, [log.events], 120 - too_few, beside=silence.see)
    last = look(engine.window, engine.kinds, None)
    assert len(silence.sweeps) == KEPT + bool(too_few)
    assert silence.sweeps[0] is history.sweeps[0]
    assert silence.sweeps[KEPT - 1] is history.sweeps[SWEEPS - 1]
    assert silence.sweeps[-1] is history.sweeps[-1]
    assert silence.sweeps[-1].at == last.at
    assert set(silence.without) == set(linkable(engine.catalog).values())
    for family, vectors in silence.without.items():
        mute = [kind for kind, of in linkable(engine.catalog).items() if of == family]
        expected = silenced(engine.window, engine.kinds, last, mute)
        np.testing.assert_array_equal(vectors[-1], expected)
        assert [len(v) for v in vectors] == [len(s.vectors) for s in silence.sweeps]
    crowd = history.sweeps[-1].columns.index("entities_device")
    assert silence.sweeps[-1].vectors[:, crowd].max() > 0
    assert silence.without["infrastructure"][-1][:, crowd].max() <= 0


def test_every_column_goes_with_a_family() -> None:
    columns = standing_columns(Catalog())
    found = families(columns, Catalog())
    assert {at for places in found.values() for at in places} == set(range(len(columns)))
    assert {f.family for f in Catalog().features} < set(found)
    assert set(found["neighbourhood"]) == set(range(len(Catalog().features), len(columns)))


def test_poisoned_labels_are_judged_by_the_truth() -> None:
    told = ablate(lesson("last_liveness"), Catalog())["poisoned"]
    assert list(told) == [str(share) for share in POISON]
    for row in told.values():
        assert row["n_abusive"] == 100
        assert row["auc"] > 0.9
    assert told["0.01"]["brier"] < told["0.1"]["brier"]


def test_a_share_of_the_labels_is_turned() -> None:
    y = (np.arange(1000) % 7 == 0).astype(float)
    few, more = turned(y, 0.01) != y, turned(y, 0.1) != y
    assert (few.sum(), more.sum()) == (10, 100)
    assert more[few].all()
