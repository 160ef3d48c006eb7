"""Training: nothing of an operator is on two sides, and what is reported is of operators not seen."""

from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import detector.train
from detector import metrics
from detector.engine import Engine
from detector.links import Sets, gather
from detector.model import TARGET_FPRS, Model
from detector.rehearse import Highest, rehearse
from detector.sweep import CLUSTER_COLUMNS
from detector.train import (
    FOLDS,
    STRONG_OWNERS,
    History,
    TrainingProblem,
    deal,
    fit,
    groups_of,
    replay,
)
from features.event import AnyEvent
from features.window import Sightings
from tests.detector.handmade import (
    Fields,
    Log,
    accepted,
    engine_of,
    events_of,
    small_logs,
    standing_columns,
)

# Kinds by how much sharing one says: the first three tie accounts together.
KINDS = ("card", "device", "wallet", "ip", "promo", "home")
TYING = {"card", "device", "wallet"}


def sets_of(sightings: Sequence[tuple[int, int, int]], owners: int) -> Sets:
    """(kind, entity, owner) as sets."""
    kind, entity, owner = (np.array([s[k] for s in sightings], np.int64) for k in range(3))
    told = Sightings(
        kind.astype(np.int32),
        (entity + 1).astype(np.uint64) * np.uint64(2654435761),
        owner.astype(np.uint64) + np.uint64(100),
        np.arange(len(sightings), dtype=np.int64),
    )
    return gather(told, lambda k: KINDS[k], owners)


@settings(max_examples=150)
@given(
    sightings=st.lists(
        st.tuples(st.integers(0, len(KINDS) - 1), st.integers(0, 8), st.integers(0, 17)),
        max_size=40,
    ),
    owner_of=st.lists(st.integers(-1, 19), min_size=25, max_size=25),
    ring_of=st.lists(st.integers(-6, 3), min_size=25, max_size=25),
)
def test_groups_are_components_of_owners_rings_and_strong_entities(
    sightings: list[tuple[int, int, int]], owner_of: list[int], ring_of: list[int]
) -> None:
    accounts = [f"a{i}" for i in range(25)]
    owner = {a: o + 100 for a, o in zip(accounts, owner_of, strict=True) if o >= 0}  # -1: not swept
    rings = {a: f"ring{r}" for a, r in zip(accounts, ring_of, strict=True) if r >= 0}
    graph: nx.Graph[object] = nx.Graph()
    for i, account in enumerate(accounts):
        graph.add_edge(account, ("owner", owner.get(account, -i)))
        if account in rings:
            graph.add_edge(account, ("ring", rings[account]))
    for kind, entity, who in sightings:
        if KINDS[kind] in TYING:
            graph.add_edge(("owner", who + 100), ("on", KINDS[kind], entity))
    expected = [frozenset(nx.node_connected_component(graph, a)) for a in accounts]
    told = groups_of(accounts, rings, owner, sets_of(sightings, 20))
    for i in range(25):
        for j in range(25):
            assert (told[i] == told[j]) == (expected[i] == expected[j]), (i, j)


@pytest.mark.parametrize(("n", "tied"), [(STRONG_OWNERS, True), (STRONG_OWNERS + 1, False)])
def test_an_entity_of_a_crowd_ties_nobody(n: int, tied: bool) -> None:
    """One device of a whole class is no operator."""
    sets = sets_of([(1, 0, i) for i in range(n)], n)
    accounts = [f"a{i}" for i in range(n)]
    told = groups_of(accounts, {}, {a: i + 100 for i, a in enumerate(accounts)}, sets)
    assert len(set(told)) == (1 if tied else n)


def test_without_sightings_rings_and_organisations_still_hold() -> None:
    told = groups_of(list("abcd"), {"a": "r", "c": "r"}, {"b": 5, "d": 5}, sets_of([], 4))
    assert told[0] == told[2] != told[1] == told[3]


# --- the deal


@settings(max_examples=100)
@given(data=st.data(), groups=st.integers(12, 40), accounts=st.integers(40, 200))
def test_no_group_is_on_two_sides_and_labels_on_all(
    data: st.DataObject, groups: int, accounts: int
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    group = np.r_[np.arange(groups), rng.integers(0, groups, accounts)].astype(np.int64)
    abusive = rng.random(groups) < 0.5
    abusive[:6], abusive[6:12] = True, False
    y = abusive[group].astype(float)
    fold = deal(y, group)
    assert len(fold) == len(group)
    assert set(fold) == set(range(FOLDS))
    for g in range(groups):
        assert len(set(fold[group == g])) == 1
    for k in range(FOLDS):
        assert len(set(y[fold != k])) == 2, "there is something to learn from on every side"
    assert (fold == deal(y, group)).all()


@pytest.mark.parametrize(
    ("abusive", "honest", "said"),
    [
        (4, 20, "the abusive accounts form 4 independent groups"),
        (20, 4, "the honest accounts form 4 independent groups"),
    ],
)
def test_too_few_groups_cannot_be_dealt(abusive: int, honest: int, said: str) -> None:
    y = np.repeat([1.0, 0.0], 30)
    group = np.r_[np.arange(30) % abusive, 100 + np.arange(30) % honest].astype(np.int64)
    with pytest.raises(TrainingProblem, match=said):
        deal(y, group)


# --- the replay


@settings(max_examples=20)
@given(fields=small_logs(min_size=1), parts=st.integers(1, 40))
def test_a_replay_samples_every_account_and_ends_with_a_sweep(
    fields: list[Fields], parts: int
) -> None:
    engine = engine_of()
    batches = [events_of(fields[at : at + parts]) for at in range(0, len(fields), parts)]
    history = replay(engine, batches, len(fields))
    assert set(history.account) == set(history.count) == {f["account_id"] for f in accepted(fields)}
    assert sum(history.count.values()) == len(accepted(fields))
    for account, n in history.count.items():
        assert history.account.count(account) == n.bit_length(), "its 1st, 2nd, 4th, 8th … event"
    assert history.sweeps[-1].at == engine.window.watermark == history.last_ms
    assert len(history.sweeps[-1].account) == len(history.count)
    # the vectors are those that would have been served
    served, _ = engine_of().ingest(events_of(fields))
    vectors = {v.tobytes() for v in served.vectors}
    assert {v.tobytes() for v in history.vectors} <= vectors
    for one, next_ in zip(history.sweeps, history.sweeps[1:], strict=False):
        assert one.at <= next_.at


@pytest.mark.parametrize("said", [0, 20, 500])
def test_a_replay_ends_with_a_sweep_however_long_the_log_was_said_to_be(said: int) -> None:
    engine = engine_of()
    history = replay(engine, [Log().crowd(40).events], said)
    assert history.sweeps[-1].at == engine.window.watermark
    assert len(history.sweeps[-1].account) == 40


def test_sweeps_are_spread_over_the_log_whatever_the_batches() -> None:
    log = Log().crowd(200)
    told = []
    for parts in (1, 7, 200):
        history = replay(
            engine_of(),
            [log.events[at : at + parts] for at in range(0, 200, parts)],
            200,
        )
        told.append([len(s.account) for s in history.sweeps])
    assert told[0] == told[1] == told[2]
    assert told[0] == [round(200 * (i + 1) / 24) for i in range(24)]


# --- the fit


def operators(n: int, memorise: bool, seed: int = 3) -> tuple[Log, dict[str, bool]]:
    """`n` operators of four accounts on one device each, half of them abusive.

    An operator's accounts fill in the form in nearly the same time. Either bots are quick, which can be
    learned; or every operator has a pace of its own that says nothing: it can only be memorised.
    """
    rng = np.random.default_rng(seed)
    abusive = rng.permutation(n) < n // 2
    pace = rng.permutation(n) * 1000 if memorise else np.where(abusive, 2000, 30_000)
    log, labels = Log(), {}
    for o in range(n):
        for i in range(4):
            name, minute = f"o{o}.{i}", float(rng.integers(0, 1400))
            form = int(pace[o] + rng.integers(0, 100) * (1 if memorise else 200))
            log.add("account_signup", name, minute, form_ms=form, device_id=f"device{o}")
            log.request(name, minute + 5)
            labels[name] = bool(abusive[o])
    return log, labels


@pytest.fixture(autouse=True)
def _few_sweeps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "spread" not in request.node.name:
        monkeypatch.setattr(detector.train, "SWEEPS", 3)
    monkeypatch.setattr(detector.train, "ROUNDS", 30)


def trained(
    log: Log, labels: dict[str, bool], rings: dict[str, str] | None = None
) -> tuple[Model, History, Engine]:
    engine = engine_of()
    events: list[AnyEvent] = log.events
    batches = [events[at : at + 97] for at in range(0, len(events), 97)]
    history = replay(engine, batches, len(events))
    return fit(history, engine, labels, rings or {}, "v1", batches), history, engine


def standing_of(model: Model, history: History, engine: Engine) -> dict[str, float]:
    """What the kept model says of every account at the end of its own training log."""
    last = history.sweeps[-1]
    score = model.standing.score(last.vectors)
    return {engine.names[int(a)]: float(s) for a, s in zip(last.account, score, strict=True)}


def test_what_can_only_be_memorised_is_not_reported_as_learned() -> None:
    log, labels = operators(60, memorise=True)
    model, history, engine = trained(log, labels)
    y = np.array(list(labels.values()))
    seen = standing_of(model, history, engine)
    assert metrics.roc_auc(y, [seen[a] for a in labels]) > 0.95, "the trees know them by heart …"
    held_out = model.about["held_out_operators"]
    assert 0.25 < held_out["auc"] < 0.75, "… and no figure is of an operator they have seen"
    for head in (model.event, model.standing):
        unsure = head.calibrate(np.array([-1.0, 0.0, 1.0]))  # by heart these would be 0, .5 and 1
        assert ((unsure > 0.2) & (unsure < 0.8)).all(), "nor is the calibration"
    assert model.about["trained_on"]["groups"] == 60


def test_what_can_be_learned_is() -> None:
    log, labels = operators(60, memorise=False)
    model, history, engine = trained(log, labels)
    held_out = model.about["held_out_operators"]
    assert held_out["auc"] > 0.95
    assert (held_out["n"], held_out["n_abusive"]) == (240, 120)
    assert held_out["brier"] < 0.1
    about = model.about["trained_on"]
    assert (about["accounts"], about["abusive"], about["groups"]) == (240, 120, 60)
    assert about["first_ms"] == log.events[0].occurred_at
    assert about["last_ms"] == log.events[-1].occurred_at
    seen = standing_of(model, history, engine)
    assert np.mean([seen[a] for a in labels if labels[a]]) > 0.8


def test_scores_and_thresholds_are_of_the_rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account counts with its highest margin of all, from trees that did not see its operator."""
    kept: list[tuple[Highest, Mapping[str, int]]] = []

    def spied(*arguments: Any) -> Highest:
        kept.append((rehearse(*arguments), arguments[2]))
        return kept[0][0]

    monkeypatch.setattr(detector.train, "rehearse", spied)
    log, labels = operators(60, memorise=True)
    model, history, _ = trained(log, labels)
    highest, index = kept[0]
    y = np.array([labels[a] for a in index])
    by_heart = model.event.trees.margin(np.array(history.vectors))
    assert metrics.roc_auc([labels[a] for a in history.account], by_heart) > 0.9
    for head, margin in ((model.event, highest.event), (model.standing, highest.standing)):
        assert 0.25 < metrics.roc_auc(y, margin) < 0.75
        assert head.calibrate(margin).mean() == pytest.approx(y.mean(), abs=0.05)
    event = model.event.calibrate(highest.event[~y])
    standing = model.standing.calibrate(highest.standing[~y])
    for share in TARGET_FPRS:
        by_event = event > model.event.threshold(share)
        by_standing = standing > model.standing.threshold(share)
        assert (by_event | by_standing).mean() <= share
        assert model.member_threshold(share) <= model.standing.threshold(share)


def test_a_larger_share_has_lower_thresholds() -> None:
    log, labels = operators(60, memorise=True, seed=8)
    model, _, _ = trained(log, labels)
    for head in (model.event, model.standing):
        assert set(head.thresholds) == {str(f) for f in TARGET_FPRS}
        levels = [head.threshold(f) for f in TARGET_FPRS]
        assert levels == sorted(levels, reverse=True)
        assert all(head.levels[0] <= t <= head.levels[-1] for t in levels)


def test_the_same_log_gives_the_same_model() -> None:
    log, labels = operators(24, memorise=False)
    one, two = (trained(log, labels)[0] for _ in range(2))
    assert one == two


def test_columns_do_not_depend_on_what_was_seen() -> None:
    log, labels = operators(24, memorise=False)
    bare = Log()
    for i, name in enumerate(labels):
        bare.request(name, i, ip=f"192.0.2.{i}")
    one, two = trained(log, labels)[0], trained(bare, labels)[0]
    assert set(two.heads) == {"event", "standing"}, "no clusters, no head for them"
    for model in (one, two):
        assert model.event.columns == model.catalog.names
        assert model.standing.columns == standing_columns(model.catalog)
        assert model.event.booster.num_feature() == len(model.event.columns)
        for head in model.heads.values():
            assert list(head.columns) == head.booster.feature_name()


def test_labels_decide_who_is_learned_from() -> None:
    """Accounts without a label are folded, as background, and nothing more."""
    log, labels = operators(30, memorise=False)
    some = {a: bad for i, (a, bad) in enumerate(labels.items()) if i % 3}
    model, _, _ = trained(log, some | {"nobody": True})
    assert model.about["trained_on"]["accounts"] == len(some)
    assert model.about["held_out_operators"]["n"] == len(some)


def test_known_rings_make_groups_larger() -> None:
    log, labels = operators(40, memorise=False)
    of = {a: int(a[1:].split(".")[0]) for a in labels}
    firm = sorted({o for a, o in of.items() if labels[a]})
    rings = {a: f"r{firm.index(o) // 2}" for a, o in of.items() if labels[a]}
    model, _, _ = trained(log, labels, rings)
    assert model.about["trained_on"]["groups"] == 20 + 10


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({}, "the log has 0 labelled abusive and 0 labelled honest"),
        ({f"o{o}.0": o < 9 for o in range(30)}, "9 labelled abusive and 21 labelled honest"),
        ({f"o{o}.0": o >= 9 for o in range(30)}, "21 labelled abusive and 9 labelled honest"),
        (
            {f"o{o}.{i}": o < 3 for o in range(30) for i in range(4)},
            "the abusive accounts form 3 independent groups",
        ),
    ],
)
def test_too_few_labels_say_how_few(labels: dict[str, bool], said: str) -> None:
    log, _ = operators(30, memorise=False)
    with pytest.raises(TrainingProblem, match=said):
        trained(log, labels)


def test_clusters_are_learned_where_there_are_enough() -> None:
    """Rings of eight on one card against households of two on one device."""
    log, labels = Log(), {}
    rng = np.random.default_rng(0)
    for ring in range(20):
        start = float(rng.integers(0, 1400))
        for i in range(8):
            log.card(f"ring{ring}.{i}", start + i / 10, f"card{ring}", device_id=f"rd{ring}")
            labels[f"ring{ring}.{i}"] = True
    for home in range(60):
        start = float(rng.integers(0, 1400))
        for i in range(2):
            log.card(f"home{home}.{i}", start + i * 3, f"hc{home}", device_id=f"hd{home}")
            labels[f"home{home}.{i}"] = False
    model = trained(log, labels)[0]
    head = model.heads["cluster"]
    assert head.columns == CLUSTER_COLUMNS
    again = engine_of(model)
    again.ingest(log.events)
    found = again.sweep()
    large = found.clusters.size >= 6
    assert large.any()
    assert (~large).any()
    assert found.cluster_score[large].min() > found.cluster_score[~large].max()
