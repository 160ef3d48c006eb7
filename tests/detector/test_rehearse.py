"""The rehearsal is the service, and what is promised by it holds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.metrics import wilson
from detector.model import Model
from detector.rehearse import (
    CONFIDENCE,
    MEMBERS,
    NEVER,
    Held,
    Highest,
    majority,
    promised,
    rehearse,
    share_upper_bound,
)
from features.rows import F64, I64
from tests.detector.handmade import Fields, engine_of, events_of, small_logs

EAGER = {"sweep": {"every_s": 1, "after_share": 0.0}, "clusters": {"review": 0.3, "smallest": 2}}


@settings(max_examples=30)
@given(fields=small_logs(min_size=3), parts=st.integers(1, 40))
def test_with_the_models_own_trees_it_finds_what_serving_finds(
    made: Model, fields: list[Fields], parts: int
) -> None:
    batches = [events_of(fields[at : at + parts]) for at in range(0, len(fields), parts)]
    accounts = sorted({f["account_id"] for f in fields})
    index = {a: i for i, a in enumerate(accounts[1:])}  # the first has no label
    fold = np.arange(len(index)) % 2
    held = {name: Held(head, [head.trees, head.trees]) for name, head in made.heads.items()}
    found = rehearse(
        engine_of(None, **EAGER), batches, index, fold,
        held["event"], held["standing"], held["cluster"],
    )  # fmt: skip
    engine = engine_of(made, **EAGER)
    event, standing = dict.fromkeys(accounts, NEVER), dict.fromkeys(accounts, NEVER)

    def looked(everyone: bool = False) -> None:
        sweep = engine.sweep(everyone)
        for a, margin in zip(sweep.account.tolist(), sweep.margin.tolist(), strict=True):
            if margin == margin:
                name = engine.names[a]
                standing[name] = max(standing[name], margin)

    for batch in batches:
        answered, _ = engine.ingest(batch)
        for e, score in zip(answered.sealed.events, answered.score.tolist(), strict=True):
            if score == score:
                event[e.account_id] = max(event[e.account_id], score)
        if engine.due():
            looked()
    looked(everyone=True)
    for account, i in index.items():
        known = found.event[i] > NEVER
        assert known == (event[account] > NEVER)
        if known:
            assert made.event.calibrate(found.event[i]) == pytest.approx(event[account])
        assert found.standing[i] == pytest.approx(standing[account])
        assert found.member[i] <= found.standing[i]


def test_a_member_is_who_was_in_a_cluster_to_act_on(made: Model) -> None:
    fields = [
        {"type": "payment", "event_id": f"p{i}", "account_id": f"a{i}", "occurred_at": 10**12 + i,
         "kind": "card_added", "instrument_id": "card", "device_id": "d"}
        for i in range(6)
    ] + [
        {"type": "login", "event_id": f"l{i}", "account_id": f"b{i}", "occurred_at": 10**12 + 99 * i,
         "method": "password", "result": "succeeded", "device_id": f"own{i}"}
        for i in range(40)
    ]  # fmt: skip
    index = {f["account_id"]: i for i, f in enumerate(fields)}
    held = {name: Held(head, [head.trees]) for name, head in made.heads.items()}
    for least, members in ((0.55, 6), (0.65, 0)):  # the head scores the size: six, a tenth each
        engine = engine_of(None, clusters={"review": least})
        found = rehearse(
            engine, [events_of(fields)], index, np.zeros(len(index), np.int64),
            held["event"], held["standing"], held["cluster"],
        )  # fmt: skip
        assert (found.member > NEVER).sum() == members
        assert found.member[:members] == pytest.approx(6)


scores = st.lists(
    st.tuples(*[st.one_of(st.just(NEVER), st.integers(0, 6).map(float), st.floats(0, 6))] * 3),
    min_size=1, max_size=60,
)  # fmt: skip


@given(
    rows=scores,
    share=st.sampled_from([0.01, 0.05, 0.1, 0.3, 1.0]),
    groups=st.integers(1, 60),
)
def test_a_promise_covers_all_looks_together(
    rows: list[tuple[float, ...]], share: float, groups: int
) -> None:
    event, standing, member = np.array(rows).T
    honest = Highest(event, standing, np.minimum(standing, member))
    group = np.arange(len(rows)) % groups
    told, name = promised(honest, group, (share,)), str(share)
    levels = told.event[name], told.standing[name], told.member[name]
    hurt = (event > levels[0]) | (standing > levels[1]) | (honest.member > levels[2])
    assert told.passed[name] == hurt.sum()
    assert told.at_most[name] == share_upper_bound(hurt, group)
    assert hurt.mean() <= told.at_most[name]
    assert told.at_most[name] <= share or not hurt.any()
    if share == 1.0:
        assert hurt.all()
    assert levels[2] <= levels[1]


def test_as_many_are_hurt_as_is_allowed_and_no_fewer() -> None:
    n = 1000
    rng = np.random.default_rng(1)
    event, standing = rng.random(n), rng.random(n)
    honest = Highest(event, standing, np.where(rng.random(n) < 0.2, standing, NEVER))
    alone = np.arange(n)
    for share in (0.01, 0.1):
        told, name = promised(honest, alone, (share,)), str(share)
        a, b, c = told.event[name], told.standing[name], told.member[name]
        hurt = (event > a) | (standing > b) | (honest.member > c)
        more = hurt.copy()
        more[np.flatnonzero(~hurt)[:4]] = True
        assert share_upper_bound(hurt, alone) <= share < share_upper_bound(more, alone), (
            "or one more of each"
        )
        assert (event > a).sum() == (standing > b).sum()
        assert (standing > c).sum() == MEMBERS * (standing > b).sum()


@pytest.mark.parametrize(
    ("groups", "largest", "share"), [(400, 40, 0.05), (1000, 1, 0.003), (3000, 1, 0.003)]
)
def test_a_promise_holds_for_groups_that_were_not_seen(
    groups: int, largest: int, share: float
) -> None:
    """Groups who are high or low together, drawn anew from a population that is known."""
    rng = np.random.default_rng(5)
    name, draws = str(share), 200

    def draw(groups: int) -> tuple[F64, I64]:
        group = np.repeat(
            np.arange(groups), rng.integers(1, largest + 1, groups) ** 2 // largest + 1
        )
        return rng.standard_normal(groups)[group] + rng.standard_normal(len(group)), group

    population, _ = draw(200_000)
    kept = naive = 0
    for _ in range(draws):
        score, group = draw(groups)
        silent = np.full(len(score), NEVER)
        told = promised(Highest(silent, score, silent), group, (share,)).standing[name]
        kept += (population > told).mean() <= share
        naive += (population > np.quantile(score, 1 - share)).mean() <= share
    chance = 3 * np.sqrt(draws * CONFIDENCE * (1 - CONFIDENCE))
    assert kept >= draws * CONFIDENCE - chance
    assert naive < 0.7 * draws, "a share as it was seen is passed every other time"


def test_of_people_who_are_hurt_together_less_can_be_said() -> None:
    n = 1000
    hurt = np.arange(n) < 40
    alone, together = np.arange(n), np.arange(n) // 20
    assert share_upper_bound(hurt, alone) == pytest.approx(wilson(40, n, 0.9)[1], abs=1e-4)
    assert share_upper_bound(hurt, together) > wilson(40, n, 0.9)[1] + 0.02
    backwards = share_upper_bound(hurt, alone[::-1])
    assert backwards == pytest.approx(share_upper_bound(hurt, alone))
    assert share_upper_bound(hurt & False, together) == wilson(0, n, 0.9)[1]
    assert share_upper_bound(hurt | True, together) == 1


def test_majority() -> None:
    place, fold = np.array([0, 0, 0, 2, -1, 2]), np.array([1, 1, 2, 3, 0, 3])
    assert majority(place, fold, 4).tolist() == [1, 0, 3, 0]
