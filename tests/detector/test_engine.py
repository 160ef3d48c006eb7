"""The straight line: what was answered does not depend on what comes, nor on who folded it."""

import json
from collections import Counter
from dataclasses import replace
from itertools import count
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.decision import Decision
from detector.engine import Engine
from detector.model import Model, ModelProblem
from detector.policy import Action
from features.feature import HOUR, MINUTE
from features.memory import MemoryWindow
from features.window import CONFLICT, DUPLICATE, NEW
from tests.detector.handmade import SECRET, START, Fields, Log, engine_of, events_of, small_logs

# Sweeps as often as can be, so that the links speak in small logs too.
EAGER: dict[str, Any] = {
    "sweep": {"every_s": 1, "after_share": 0.0},
    "clusters": {"review": 0.001, "suspend": 0.3, "smallest": 2},
    "budget": {"suspend": 2, "challenge": 2},
}


def replay(
    fields: list[Fields], model: Model | None, parts: int = 4
) -> tuple[Engine, list[Decision | None], list[Any]]:
    """Everything that was answered, sweeping whenever it is due; scores and vectors beside it."""
    engine = engine_of(model, **EAGER)
    decisions: list[Decision | None] = []
    numbers: list[Any] = []
    for at in range(0, len(fields), parts):
        if engine.due():
            engine.sweep()
        answered, refused = engine.ingest(events_of(fields[at : at + parts]))
        assert not refused
        decisions += answered.decisions
        numbers += zip(answered.score.tolist(), answered.vectors.tolist(), strict=True)
    return engine, decisions, numbers


def same(a: list[Any], b: list[Any]) -> None:
    """Equal, NaN included."""
    assert json.dumps(a) == json.dumps(b)


@settings(max_examples=30)
@given(
    past=small_logs(min_size=5, max_size=20),
    one=small_logs(max_size=12),
    other=small_logs(max_size=12),
    parts=st.integers(3, 9),
)
def test_the_future_does_not_change_the_past(
    made: Model, past: list[Fields], one: list[Fields], other: list[Fields], parts: int
) -> None:
    """Prequential: whatever follows, and in whatever order, the past was answered as it was."""
    n = len(past)
    _, alone, alone_numbers = replay(past, made, parts)
    for future in (one + other, (one + other)[::-1]):
        _, decisions, numbers = replay(past + future, made, parts)
        assert decisions[:n] == alone
        same(numbers[:n], alone_numbers)


@settings(max_examples=25)
@given(fields=small_logs(min_size=1), parts=st.integers(1, 9))
def test_the_same_log_is_answered_the_same(made: Model, fields: list[Fields], parts: int) -> None:
    one, decisions, numbers = replay(fields, made, parts)
    two, again, numbers_again = replay(fields, made, parts)
    assert decisions == again
    same(numbers, numbers_again)
    assert one.standing == two.standing
    assert one.cluster_ids == two.cluster_ids
    assert one.ledger == two.ledger


@settings(max_examples=25)
@given(fields=small_logs(min_size=1), parts=st.integers(1, 9))
def test_vectors_do_not_depend_on_the_batches(
    made: Model, fields: list[Fields], parts: int
) -> None:
    whole, _ = engine_of(made).ingest(events_of(fields))
    _, _, numbers = replay(fields, made, parts)
    same(numbers, list(zip(whole.score.tolist(), whole.vectors.tolist(), strict=True)))


@settings(max_examples=25)
@given(first=small_logs(min_size=1), then=small_logs())
def test_restoring_folds_as_answering_does(
    made: Model, first: list[Fields], then: list[Fields]
) -> None:
    answering, restoring = engine_of(made), engine_of(made)
    answering.ingest(events_of(first))
    restoring.restore(restoring.sealer.seal(events_of(first))[0])
    a, _ = answering.ingest(events_of(then))
    b, _ = restoring.ingest(events_of(then))
    assert np.array_equal(a.vectors, b.vectors, equal_nan=True)
    assert np.array_equal(a.score, b.score, equal_nan=True)
    assert (a.ordinal == b.ordinal).all()
    assert answering.ledger == restoring.ledger
    assert answering.news == restoring.news
    kept, again = answering.window.save(), restoring.window.save()  # type: ignore[attr-defined]
    for name, array in kept.items():
        assert np.array_equal(array, again[name], equal_nan=array.dtype.kind == "f"), name


@settings(max_examples=25)
@given(first=small_logs(min_size=1), then=small_logs(min_size=1))
def test_a_saved_engine_goes_on_where_it_was(
    made: Model, first: list[Fields], then: list[Fields]
) -> None:
    engine, _, _ = replay(first, made)
    engine.sweep()
    kept = json.loads(json.dumps(engine.save()))
    arrays = {k: v.copy() for k, v in engine.window.save().items()}  # type: ignore[attr-defined]
    again = engine_of(made, **EAGER)
    again.load(kept)
    again.window.load(arrays)  # type: ignore[attr-defined]
    assert again.save() == engine.save()
    assert again.ledger == engine.ledger
    for e in (engine, again):
        e.ingest(events_of(then))
        e.sweep()
    assert {a: replace(x, reasons=[]) for a, x in again.standing.items()} == {
        a: replace(x, reasons=[]) for a, x in engine.standing.items()
    }, "all but reasons, which a running engine does not tell anew"
    assert again.cluster_ids == engine.cluster_ids
    assert again.save() == engine.save()


# --- one event


def test_scores_become_actions_at_the_thresholds(made: Model) -> None:
    """The n-th account on a card is scored n tenths; .25, .45 and .65 are the made thresholds."""
    log = Log()
    for i in range(9):
        log.card(f"a{i}", i, "card")
    answered, _ = engine_of(made).ingest(log.events)
    assert answered.score == pytest.approx([n / 10 for n in range(1, 10)])
    told = [d for d in answered.decisions if d]
    assert [d.action for d in told] == [
        *["allow"] * 2, *["challenge"] * 2, *["review"] * 2, *["suspend"] * 3,
    ]  # fmt: skip
    assert [d.risk_level for d in told[1::2]] == ["low", "medium", "high", "critical"]
    assert [bool(d.reasons) for d in told] == [d.action != "allow" for d in told]
    assert told[4].reasons[0].text == "5 accounts paid with one card"
    assert {(d.model_version, d.policy_version, d.cluster_id) for d in told} == {
        ("made", "1", None)
    }


def test_a_threshold_is_passed_and_not_met(made: Model) -> None:
    log = Log()
    for i in range(4):
        log.card(f"a{i}", i, "card")
    _, two, three, _ = engine_of(made).ingest(log.events)[0].score.tolist()
    head = replace(made.event, thresholds={"0.001": three, "0.003": three, "0.01": two})
    model = replace(made, heads=made.heads | {"event": head})
    answered, _ = engine_of(model).ingest(log.events)
    assert [d.action for d in answered.decisions if d] == [
        "allow", "allow", "challenge", "suspend",
    ]  # fmt: skip


def test_an_action_that_the_policy_leaves_out_is_never_taken(made: Model) -> None:
    log = Log()
    for i in range(9):
        log.card(f"a{i}", i, "card")
    answered, _ = engine_of(made, accounts={"suspend": None}).ingest(log.events)
    assert {d.action for d in answered.decisions if d} == {"allow", "challenge", "review"}


def test_a_policy_stricter_than_the_model_knows_is_refused(made: Model) -> None:
    with pytest.raises(ModelProblem, match=r"no threshold for a share of 0.0001"):
        engine_of(made, accounts={"suspend": 0.0001})


def test_twice_the_daily_budget_is_fired(made: Model) -> None:
    engine = engine_of(made, budget={"suspend": 5})
    log = Log()
    for i in range(16):
        log.card(f"a{i}", i, "card")
    for i in range(16):  # once more: nobody counts twice
        log.card(f"a{i}", 100 + i, "card")
    answered, _ = engine.ingest(log.events)
    suspended = {e.account_id for e, d in zip(answered.sealed.events, answered.decisions, strict=True)
                 if d and d.action == "suspend"}  # fmt: skip
    assert len(suspended) == 5
    told = Counter(d.action for d in answered.decisions[16:] if d)
    assert told == {"suspend": 5, "review": 11}, "what is beyond the budget is for a person"


def test_shadow_decides_and_answers_allow(made: Model) -> None:
    log = Log()
    for i in range(9):
        log.card(f"a{i}", i, "card")
    loud, _ = engine_of(made).ingest(log.events)
    quiet, _ = engine_of(made, shadow=True).ingest(log.events)
    assert {d.action for d in quiet.decisions if d} == {"allow"}
    for d, q in zip(loud.decisions, quiet.decisions, strict=True):
        assert d is not None
        assert q is not None
        assert msgspec.structs.replace(d, action="allow") == q, "risk, score and reasons are kept"
    assert quiet.decisions[-1] is not None
    assert quiet.decisions[-1].risk_level == "critical"


def test_duplicates_are_not_answered_twice(made: Model) -> None:
    log = Log().card("a", 0, "card", event_id="one", amount_usd=1.0)
    again = Log().card("a", 0, "card", event_id="one", amount_usd=1.0)
    other = Log().card("b", 0, "card", event_id="one", amount_usd=1.0)
    engine = engine_of(made)
    answered, _ = engine.ingest([*log.events, *again.events, *other.events])
    assert answered.status.tolist() == [NEW, DUPLICATE, CONFLICT]
    assert [d is None for d in answered.decisions] == [False, True, True]
    assert np.isnan(answered.score).tolist() == [False, True, True]
    assert engine.ledger["a"].events == 1
    assert "b" not in engine.ledger
    assert engine.news == 1


def test_an_identifier_that_is_none_costs_only_its_event(made: Model) -> None:
    log = Log().card("a", 0, "card")
    log.add("account_signup", "b", 1, email="no address").card("c", 2, "card")
    answered, refused = engine_of(made).ingest(log.events)
    assert [e.account_id for e in answered.sealed.events] == ["a", "c"]
    assert [(i, problem.field) for i, problem in refused] == [(1, "email")]


def test_nothing_is_kept_that_was_not_hashed(made: Model) -> None:
    log = Log().card("a", 0, "4111-secret", device_id="device-secret", ip="192.0.2.77")
    engine = engine_of(made)
    answered, _ = engine.ingest(log.events)
    engine.sweep()
    kept = json.dumps([engine.save(), [b.decode() for b in answered.sealed.bodies]])
    for word in ("secret", "192.0.2.77"):
        assert word not in kept


# --- reasons last


def test_reasons_are_explained_again_after_an_hour_or_when_things_get_worse(made: Model) -> None:
    log = Log()
    for i in range(3):
        log.card(f"a{i}", i, "card")
    log.card("a2", 30, "card").card("x", 31, "card")
    log.card("a2", 40, "card")  # four now, and still a challenge within the hour: as told before
    log.card("y", 41, "card").card("a2", 50, "card")  # five: a review
    log.card("a2", 50 + 61, "card")
    engine = engine_of(made)
    answered, _ = engine.ingest(log.events)
    texts = [
        d.reasons[0].text
        for e, d in zip(answered.sealed.events, answered.decisions, strict=True)
        if e.account_id == "a2" and d
    ]
    said = "{} accounts paid with one card".format
    assert texts == [said(3), said(3), said(3), said(5), said(5)]


# --- sweeps


def ring(cards: int = 6, **fields: Any) -> Log:
    """A ring on one card and device among strangers; the device makes its members' standing."""
    log = Log().crowd(40)
    for i in range(cards):
        log.card(f"r{i}", 300 + i, "card", device_id="device", **fields)
    return log


def suspending(model: Model, level: float = 0.5, **changed: Any) -> Engine:
    """An engine whose policy suspends clusters from `level` on."""
    return engine_of(model, clusters={"review": 0.2, "suspend": level}, **changed)


_later = count()


def later(engine: Engine, *accounts: str) -> list[Decision]:
    """Answers to a request of each of these accounts, made after everything else."""
    log = Log(f"later{next(_later)}.")
    for account in accounts:
        log.request(account, 1441)
    answered, _ = engine.ingest(log.events)
    return [d for d in answered.decisions if d]


def test_a_clusters_verdict_reaches_its_members_and_nobody_else(made: Model) -> None:
    engine = suspending(made)
    engine.ingest(ring().events)
    before = later(engine, "r0", "stranger1")
    assert [d.cluster_id for d in before] == [None, None]
    engine.sweep()
    members = later(engine, *(f"r{i}" for i in range(6)))
    assert {d.action for d in members} == {"suspend"}
    assert {d.cluster_id for d in members} == set(engine.cluster_ids)
    assert members[0].reasons[0].code == "cluster"
    assert members[0].reasons[0].text == (
        "one of 6 accounts of different owners that share card, device"
    )
    assert members[0].reasons[0].evidence == engine.cluster_ids
    (stranger,) = later(engine, "stranger1")
    assert (stranger.action, stranger.cluster_id) == ("allow", None)


def test_a_member_who_looks_honest_himself_is_left_alone(made: Model) -> None:
    """The sixth is linked by the card alone: his own standing is that of a stranger."""
    engine = suspending(made)
    log = ring(5)
    log.card("guest", 305, "card", device_id="his own")
    engine.ingest(log.events)
    engine.sweep()
    guest, member = engine.standing["guest"], engine.standing["r0"]
    assert guest.cluster_id == member.cluster_id is not None
    assert (guest.action, member.action) == (Action.allow, Action.suspend)
    assert guest.reasons == []


@settings(max_examples=40)
@given(
    fields=small_logs(min_size=5),
    review=st.floats(0.001, 0.2),
    suspend=st.floats(0.1, 0.9),
    smallest=st.integers(2, 6),
)
def test_standing_is_what_the_policy_makes_of_score_and_cluster(
    made: Model, fields: list[Fields], review: float, suspend: float, smallest: int
) -> None:
    rules = {"review": review, "suspend": suspend, "smallest": smallest}
    engine = engine_of(made, clusters=rules)
    engine.ingest(events_of(fields))
    found = engine.sweep(everyone=True)
    assert len(engine.standing) == len(found.account)
    for i, account in enumerate(found.account):
        standing = engine.standing[engine.names[int(account)]]
        score, place = float(found.standing[i]), int(found.place[i])
        steps = (Action.allow, Action.challenge, Action.review, Action.suspend)
        expected = steps[sum(score > level for level in (0.25, 0.45, 0.65))]
        if place >= 0:
            whole, size = float(found.cluster_score[place]), int(found.clusters.size[place])
            if size >= smallest and whole >= review:
                # the cluster says how far it may go, the member's own standing whether
                most = Action.suspend if whole >= suspend else Action.review
                as_member = min(most, steps[sum(score > level for level in (0.15, 0.25, 0.45))])
                expected = max(expected, as_member)
                if as_member > Action.allow:
                    assert standing.reasons[0].code == "cluster"
        assert standing.action is expected
        assert standing.cluster_id == (engine.cluster_ids[place] if place >= 0 else None)
        assert standing.score == score
        assert (standing.action > Action.allow) <= bool(standing.reasons)


def test_without_a_model_the_cluster_alone_decides() -> None:
    engine = engine_of(None, clusters={"review": 0.1, "suspend": 0.2})
    answered, _ = engine.ingest(ring().events)
    assert np.isnan(answered.score).all()
    assert {d.action for d in answered.decisions if d} == {"allow"}
    assert {d.score for d in answered.decisions if d} == {None}
    found = engine.sweep()
    assert 0.2 < found.cluster_score[0] < 0.3
    (member,) = later(engine, "r0")
    assert (member.action, member.score, member.model_version) == ("suspend", None, None)


@pytest.mark.parametrize(
    ("size", "score", "action"),
    [
        (3, 0.19, Action.allow),
        (3, 0.2, Action.review),
        (3, 0.49, Action.review),
        (3, 0.5, Action.suspend),
        (2, 0.99, Action.allow),
    ],
)
def test_verdicts(size: int, score: float, action: Action, made: Model) -> None:
    assert suspending(made).verdict(size, score) is action


def test_a_verdict_is_gone_when_the_next_sweep_does_not_repeat_it(made: Model) -> None:
    engine = suspending(made)
    engine.ingest(ring().events)
    engine.sweep()
    assert later(engine, "r0")[0].action == "suspend"
    log = Log("much later")
    for i in range(6):
        log.request(f"r{i}", 200 * 24 * 60)  # long after every sighting died
    engine.ingest(log.events)
    engine.sweep()
    assert later(engine, "r0")[0].action == "allow"


def test_reasons_of_a_cluster_end_with_it(made: Model) -> None:
    """A standing of one's own is explained by itself once the cluster is no more."""
    engine = suspending(made)
    engine.ingest(ring().events)
    found = engine.sweep()
    assert {r.code for r in engine.standing["r0"].reasons} == {"cluster"}
    nowhere = replace(found, place=np.full_like(found.place, -1))
    engine.adopt(nowhere)
    alone = engine.standing["r0"]
    assert (alone.action, alone.cluster_id) == (Action.review, None)
    assert [r.text for r in alone.reasons] == ["6 accounts on one device"]
    silent = replace(nowhere, row=np.full_like(found.row, -1), vectors=found.vectors[:0])
    engine.adopt(silent)
    assert engine.standing["r0"] == alone, "what was told is kept through silence"
    engine.adopt(found)
    engine.adopt(silent)
    assert engine.standing["r0"].reasons == [], "and nobody else's vector is told instead"


def test_standing_outlives_silence(made: Model) -> None:
    engine = suspending(made)
    engine.ingest(ring().events)
    engine.sweep()
    before = dict(engine.standing)
    log = Log("later").crowd(40, 1500, 1500 + 14 * 24 * 60 + 1)
    engine.ingest([e for e in log.events if e.account_id == "stranger39"])
    found = engine.sweep()
    assert np.isnan(found.standing).sum() == 45, "all but the one who came"
    for name, standing in before.items():
        if name != "stranger39":
            assert engine.standing[name].score == standing.score


def test_verdicts_are_kept_within_the_budget(made: Model) -> None:
    engine = suspending(made, budget={"suspend": 2})
    engine.ingest(ring().events)
    engine.sweep()
    told = later(engine, *(f"r{i}" for i in range(6)), *(f"r{i}" for i in range(6)))
    assert len(told) == 6 * 2
    assert Counter(d.action for d in told) == {"suspend": 4, "review": 8}


def test_a_cluster_keeps_its_id_while_it_grows(made: Model) -> None:
    engine = suspending(made)
    engine.ingest(ring().events)
    engine.sweep()
    (born,) = engine.cluster_ids
    log = Log("more")
    for i in range(6, 9):
        log.card(f"r{i}", 300 + i, "card", device_id="device")
    engine.ingest(log.events)
    engine.sweep()
    assert engine.cluster_ids == [born]
    assert {s.cluster_id for n, s in engine.standing.items() if n[0] == "r"} == {born}


# --- when a sweep is due


def test_a_sweep_is_due_after_time_and_news(made: Model) -> None:
    engine = engine_of(made, sweep={"every_s": 3600, "after_share": 0.1})
    assert not engine.due(), "nothing has happened"
    engine.ingest(ring().events)
    assert engine.due()
    engine.sweep()
    assert not engine.due()
    size = len(engine.last_sweep.sets.member) if engine.last_sweep else 0
    least = int(np.ceil(size * 0.1))
    for minute, due in ((1440 + 59, False), (1440 + 60, True)):
        log = Log(f"at{minute}.")
        for i in range(least):
            log.request(f"stranger{i}", minute)
        engine.ingest(log.events)
        assert engine.due() is due
    engine.sweep()
    log = Log("one").request("stranger0", 1440 + 600)
    engine.ingest(log.events)
    assert not engine.due(), "an hour with hardly any news"


def test_the_clock_is_the_events_own(made: Model) -> None:
    engine = Engine(engine_of().policy, SECRET, made, window=MemoryWindow(made.catalog))
    engine.ingest(Log().request("a", 77).events)
    assert engine.sweep().at == START + 77 * MINUTE
    assert engine_of(sweep={"every_s": 3600}).policy.sweep_ms == HOUR
