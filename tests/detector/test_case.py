"""A case, counted by hand."""

from typing import Any

import pytest
from hypothesis import given, settings

from detector.case import EVIDENCE, MEMBERS, NOUNS, Case, case_of
from detector.engine import Engine
from detector.model import Model
from features.feature import MINUTE
from tests.detector.handmade import START, Fields, Log, engine_of, events_of, small_logs


def opened(log: Log, model: Model | None = None, **changed: Any) -> tuple[Engine, list[Case]]:
    """The cases of a log, largest evidence first."""
    engine = engine_of(model, **changed)
    engine.ingest(log.events)
    found = engine.sweep()
    return engine, [case_of(engine, found, c) for c in range(len(found.clusters))]


def ring() -> Log:
    """r0..r4 on one card and device, r0 and r1 also on one face; everybody pays and consumes."""
    log = Log().crowd(60)
    for i in range(5):
        log.card(f"r{i}", 300 + i, "card", device_id="device")
        log.request(f"r{i}", 310 + i, cost_usd=10.0, paid_usd=1.0)
        log.add("payment", f"r{i}", 320 + i, kind="charge", amount_usd=5.0)
    for i in range(2):
        log.add("kyc_checked", f"r{i}", 330 + i, result="passed", face_id="face")
    log.add("payment", "r4", 400, kind="refund", amount_usd=5.0)
    log.add("payment", "r3", 401, kind="dispute", amount_usd=5.0)
    log.request("stranger0", 402, cost_usd=1000.0)
    return log


def test_evidence_is_counted_right() -> None:
    _, (case,) = opened(ring())
    told = {e.kind: e for e in case.evidence}
    assert set(told) == {"card", "device", "face"}
    everybody = {f"r{i}" for i in range(5)}
    assert set(told["card"].accounts) == set(told["device"].accounts) == everybody
    assert set(told["face"].accounts) == {"r0", "r1"}
    assert len(told["face"].accounts) == 2
    assert told["card"].last_ms == START + 304 * MINUTE
    assert told["face"].last_ms == START + 331 * MINUTE
    assert case.evidence[-1].kind == "face", "what binds most members is read first"


def test_texts_are_sentences_with_the_entity_as_it_is_stored() -> None:
    engine, (case,) = opened(ring())
    told = {e.kind: e for e in case.evidence}
    card = engine.secret.token("card", "card")
    assert told["card"].entity == card[:18] + "…"
    assert told["card"].text == f"5 of 5 members on one payment card ({card[:18]}…)"
    assert told["face"].text.startswith("2 of 5 members on one face (h:")


def test_money_is_the_members_own() -> None:
    _, (case,) = opened(ring())
    assert case.cost_usd == 50.0
    assert case.paid_usd == 5 * 1.0 + 5 * 5.0 - 5.0 - 5.0


def test_members_and_times() -> None:
    engine, (case,) = opened(ring())
    assert case.cluster_id == engine.cluster_ids[0]
    assert case.members == [f"r{i}" for i in range(5)]
    assert case.size == 5
    assert case.kinds == ["card", "device", "face"]
    # sightings keep the latest time of each member: those on the card came once
    assert case.first_ms == START + 300 * MINUTE
    assert case.last_ms == START + 331 * MINUTE


def test_the_timeline_counts_members_as_they_came() -> None:
    log = Log().crowd(80)
    for i in range(11):
        log.card(f"r{i}", 300 + 7 * i, "card", device_id="device")
    _, (case,) = opened(log)
    assert [(m.at_ms, m.text) for m in case.timeline] == [
        (START + (300 + 7 * (n - 1)) * MINUTE, f"{n} of 11 members seen") for n in (1, 2, 4, 8, 11)
    ]


def test_accounts_of_one_organisation_are_one_member() -> None:
    log = Log().crowd(60)
    for i in range(4):
        log.card(f"r{i}", 300 + i, "card", device_id="device")
    for i in range(3):
        log.card(f"staff{i}", 310 + i, "card", device_id="device", org_id="firm")
    _, (case,) = opened(log)
    assert case.size == 5
    assert len(case.members) == 7
    card = next(e for e in case.evidence if e.kind == "card")
    assert card.text.startswith("5 of 5 members")
    assert sorted(card.accounts) == sorted(case.members)


@pytest.mark.parametrize(("level", "action"), [(0.6, "review"), (0.4, "suspend")])
def test_the_proposed_action_is_the_policys(made: Model, level: float, action: str) -> None:
    rules = {"review": 0.3, "suspend": level}
    _, (case,) = opened(ring(), made, clusters=rules)
    assert (case.score, case.proposed_action) == (0.5, action)


def test_bystanders_are_members_who_look_honest_themselves(made: Model) -> None:
    log = ring()
    log.card("guest", 306, "card", device_id="his own")  # one account on his device: .1, below .15
    _, (case,) = opened(log, made)
    assert case.bystanders == ["guest"]
    assert "guest" in case.members


def test_identifiers_of_the_providers_own_are_named_as_such() -> None:
    log = Log().crowd(60)
    for i in range(6):
        log.request(f"r{i}", 300 + i, entities={"wallet": "w"}, device_id="device")
    _, (case,) = opened(log)
    shared = next(e for e in case.evidence if e.kind == "entities")
    assert shared.text.startswith("6 of 6 members on one identifier of the provider's own (h:")


def test_every_kind_has_a_noun() -> None:
    assert NOUNS["card"] == "payment card"
    assert NOUNS["country"] == "country", "the first kind of a family names it"
    assert all(noun and "_" not in noun for noun in NOUNS.values())


def test_lists_are_bounded_and_counts_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    import detector.case

    monkeypatch.setattr(detector.case, "MEMBERS", 3)
    monkeypatch.setattr(detector.case, "EVIDENCE", 2)
    _, (case,) = opened(ring())
    assert (len(case.members), len(case.evidence), case.size) == (3, 2, 5)
    assert case.cost_usd == 50.0
    assert case.timeline[-1].text == "5 of 5 members seen"
    assert EVIDENCE < MEMBERS


@settings(max_examples=30)
@given(fields=small_logs(min_size=8))
def test_laws_of_every_case(made: Model, fields: list[Fields]) -> None:
    engine = engine_of(made, clusters={"review": 0.0, "suspend": 0.5, "smallest": 2})
    engine.ingest(events_of(fields))
    found = engine.sweep(everyone=True)
    for place in range(len(found.clusters)):
        case = case_of(engine, found, place)
        assert case == case_of(engine, found, place)
        assert len(case.members) == len(set(case.members)) >= case.size >= 2
        assert set(case.bystanders) <= set(case.members)
        assert case.cost_usd == pytest.approx(sum(engine.ledger[a].cost for a in case.members))
        assert case.paid_usd == pytest.approx(sum(engine.ledger[a].kept for a in case.members))
        times = [m.at_ms for m in case.timeline]
        counts = [int(m.text.split()[0]) for m in case.timeline]
        assert times == sorted(times)
        assert counts == sorted(set(counts))
        assert (counts[0], counts[-1]) == (1, case.size)
        assert case.first_ms == times[0] <= times[-1] <= case.last_ms
        owner = {
            engine.names[int(a)]: int(o) for a, o in zip(found.account, found.owner, strict=True)
        }
        order = []
        for evidence in case.evidence:
            n = int(evidence.text.split()[0])
            order.append(-n)
            assert 2 <= n <= case.size
            assert set(evidence.accounts) <= set(case.members)
            assert len({owner[a] for a in evidence.accounts}) == n
            assert case.first_ms <= evidence.last_ms <= case.last_ms
        assert case.evidence
        assert order == sorted(order)
