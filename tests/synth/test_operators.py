"""Operators: their traits, their goods, what they pay, and what they do when they are hit."""

from collections import defaultdict
from dataclasses import fields
from types import ModuleType
from typing import Any, get_type_hints

import numpy as np
import pytest

from synth import calls as c
from synth import harvesters, machines
from synth.books import settle
from synth.cast import cast
from synth.clients import Template
from synth.conversation import Conversation
from synth.dice import Dice
from synth.operators import Operator, Tenure
from synth.people import DAY, HOUR
from synth.prices import CALLS_A_CALL, TABLE, USD
from synth.stage import Stage
from synth.traits import PARAMETERS, RELAYS, TIER_NAMES, Traits, harder, traits, with_knobs
from synth.world import START, simulate
from tests.synth.played import play

SOURCES = {"S", "I", "M", "A", "S/A", "S/I"}


def staged(scenario: str, *, accounts: int = 120, days: float = 4, share: float = 0.5,
           tier: str = "T1", seed: int = 3, **knobs: float) -> Stage:  # fmt: skip
    stage = Stage(seed, START, START + int(days * DAY), accounts)
    cast(stage, scenario, accounts, share, tier, knobs)
    return stage


def run(stage: Stage, days: float) -> None:
    now = stage.start
    end = stage.start + int(days * DAY)
    while now < end:
        now = min(now + HOUR, end)
        stage.pass_time(now)
        for _ in stage.exchange.drain(now):
            pass


def test_every_trait_stands_in_a_table_with_its_source() -> None:
    tabled = {p.name for p in PARAMETERS}
    relays = {name for relay in RELAYS for name in relay.values}
    assert tabled | relays | {"tier", "relay"} == {field.name for field in fields(Traits)}
    assert {p.source for p in PARAMETERS} <= SOURCES
    assert {price.source for price in TABLE} <= SOURCES
    assert all(price.reason and price.usd > 0 for price in TABLE)


@pytest.mark.parametrize("tier", TIER_NAMES)
def test_traits_are_of_their_types(tier: str) -> None:
    hints, dice = get_type_hints(Traits), Dice(1)
    for _ in range(40):
        drawn = traits(tier, dice)
        for name, kind in hints.items():
            value = getattr(drawn, name)
            if kind in (int, float, bool, str):
                assert isinstance(value, kind), name
            else:
                assert value[0] <= value[1], name
        assert drawn.tier == tier


def test_effort_rises_with_the_tier() -> None:
    dice = Dice(1)
    uses = ("phone_uses", "card_uses", "face_uses", "device_uses", "egress_uses", "domain_uses")
    for name in uses:
        means = [
            float(np.mean([sum(getattr(traits(tier, dice), name)) for _ in range(60)]))
            for tier in TIER_NAMES
        ]
        assert means == sorted(means, reverse=True), (name, means)
    top = traits("T3", dice)
    assert top.pinned
    assert top.sanitised
    assert harder(top, dice) is top
    assert harder(traits("T0", dice), dice).tier == "T1"


def test_knobs() -> None:
    now = traits("T1", Dice(1))
    changed = with_knobs(now, {"face_uses": 1, "pinned": 1, "life_days": 3, "polls": 0.5})
    assert changed.face_uses == (1, 1)
    assert changed.pinned is True
    assert changed.life_days == 3.0
    with pytest.raises(ValueError, match="'face_uses'"):
        with_knobs(now, {"face_use": 1})
    with pytest.raises(ValueError, match="'framing'"):
        simulate("market", knobs={"framng": 0.1})
    with pytest.raises(ValueError, match="within 0-1"):
        simulate("market", knobs={"hub": 2})


def test_a_knob_reaches_the_goods() -> None:
    """A device each costs more and leaves nothing in common."""
    cheap, dear = (
        staged("credit_farm", device_uses=uses, reserve=0, seed=4) for uses in (8.0, 1.0)
    )
    for stage in (cheap, dear):
        run(stage, 4)
    bought = [sum(book.spent_usd["device"] for book in s.books) for s in (cheap, dear)]
    assert bought[1] > 2 * bought[0]


def test_books_balance() -> None:
    stage = staged("market", accounts=400)
    run(stage, 4)
    settle(stage.books, stage.roster)
    rings = {a.truth.ring_id for a in stage.roster if a.events} - {""}
    assert {book.ring_id for book in stage.books if book.accounts} == rings
    for book in stage.books:
        mine = [a for a in stage.roster if a.truth.ring_id == book.ring_id and a.events]
        assert book.accounts == len(mine)
        served = sum(a.spent_usd for a in mine)
        assert book.served_usd == pytest.approx(CALLS_A_CALL * served)
        assert set(book.spent_usd) <= set(USD)
        assert not mine or sum(book.spent_usd.values()) > 0
    of: dict[str, set[str]] = defaultdict(set)
    for book in stage.books:
        of[book.typology] |= set(book.spent_usd)
    assert "identity" in of["kyc_mule"]
    assert "stolen_card" in of["carded"]
    assert of["sms_farm"] & {"sms_mobile", "sms_voip"}


def keepers(stage: Stage) -> list[Tenure]:
    return [a.keeper for a in stage.roster if isinstance(a.keeper, Tenure)]


def test_a_lost_account_is_replaced_from_the_reserve() -> None:
    stage = staged("transfer_station", reserve=0.4, life_days=1e6, adapts_at=1)
    run(stage, 2.5)
    operator = max((k.operator for k in keepers(stage)), key=lambda o: len(o.reserve))
    held = len(operator.reserve)
    assert held > 0
    victim = next(k for k in keepers(stage) if k.operator is operator and k.seat)
    victim.suspended(stage.agenda.now)
    victim.suspended(stage.agenda.now)  # told twice, lost once
    assert operator.supply.book.lost == 1
    assert len(operator.reserve) == held - 1
    assert victim.seat is not None
    assert victim.seat.gone
    before = sum(k.operator is operator for k in keepers(stage))
    run_on(stage, 1.2)
    assert sum(k.operator is operator for k in keepers(stage)) > before


def run_on(stage: Stage, days: float) -> None:
    until = min(stage.end, stage.agenda.now + int(days * DAY))
    stage.pass_time(until)
    for _ in stage.exchange.drain(until):
        pass


def test_a_wave_of_losses_changes_an_operators_ways() -> None:
    stage = staged("transfer_station", tier="T1", life_days=1e6)
    run(stage, 2)
    many = max({k.operator for k in keepers(stage)}, key=lambda o: len(o.pool.seats))  # type: ignore[union-attr]
    mine = [k for k in keepers(stage) if k.operator is many]
    for keeper in mine[: len(mine) // 2 + 1]:
        keeper.suspended(stage.agenda.now)
    assert many.supply.traits.tier == "T2"
    assert many.supply.book.spent_usd["retooling"] == USD["retooling"]
    assert many.pool is not None
    assert many.pool.traits is many.supply.traits
    assert many.supply.truth.tier == "T1"


def test_a_challenge_is_met_with_a_face_if_that_pays() -> None:
    stage = staged("transfer_station", life_days=30, buys_ready=0, synthetic_faces=0)
    run(stage, 3)
    rich = max(keepers(stage), key=lambda k: k.account.spent_usd)
    poor = next(k for k in keepers(stage) if k.account.spent_usd < 0.05)
    rich.challenged(stage.agenda.now)
    lost = rich.operator.supply.book.lost
    poor.challenged(stage.agenda.now)
    assert not (rich.seat and rich.seat.gone)
    assert poor.operator.supply.book.lost == lost + 1 or poor.operator is not rich.operator


def test_a_throttled_seat_rests() -> None:
    stage = staged("transfer_station")
    run(stage, 2)
    keeper = next(k for k in keepers(stage) if k.seat and not k.seat.gone)
    keeper.throttled(stage.agenda.now)
    assert keeper.seat is not None
    assert stage.exchange.t.seat[keeper.seat.n, c.T_COOLS] > stage.agenda.now


def test_who_is_in_the_red_leaves() -> None:
    stage = staged("transfer_station", days=6, quits_after_days=1)
    run(stage, 1.5)
    operators: set[Operator] = {k.operator for k in keepers(stage)}
    for operator in operators:
        operator.supply.book.buy("retooling", 1_000)
    run_on(stage, 3)
    assert all(o.closed and not o.pool.seats for o in operators if o.pool)


def test_hub_hides_under_what_is_popular() -> None:
    stage = staged("transfer_station", accounts=300, share=0.2, hub=1.0)
    run(stage, 3)
    carriers = {e.ip for doors in stage.plan.carriers.values() for e in doors}
    seats = [k.seat for k in keepers(stage) if k.seat]
    on_carrier = [any(f'"ip":"{ip}"' in seat.net for ip in carriers) for seat in seats]
    assert np.mean(on_carrier) > 0.5


def test_framing_touches_the_honest() -> None:
    """Victims' devices and addresses turn up on ring accounts, and not without the knob."""
    shared = []
    for share in (0.0, 0.2):
        stage = staged("credit_farm", accounts=300, share=0.2, framing=share)
        lines = []
        now = stage.start
        while now < stage.end:
            now = min(now + HOUR, stage.end)
            stage.pass_time(now)
            lines += [block for block, _ in stage.exchange.drain(now)]
        text = b"".join(lines).decode().splitlines()
        ring = {a.id for a in stage.roster if a.truth.ring_id}
        holders: dict[str, set[bool]] = defaultdict(set)
        for line in text:
            if '"device_id":"' in line:
                device = line.split('"device_id":"')[1].split('"')[0]
                account = line.split('"account_id":"')[1].split('"')[0]
                holders[device].add(account in ring)
        shared.append(sum(len(kinds) == 2 for kinds in holders.values()))
    assert shared[0] <= 2 < 8 < shared[1]


def test_tiers_differ_for_every_typology() -> None:
    for tier in TIER_NAMES:
        played = play(seed=2, accounts=260, days=2, abusive_share=0.5, tier=tier)
        kinds = {row.typology for row in played.truth.values()} - {""}
        assert len(kinds) == 7


def asked(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Template, bool]]:
    """Filled, as a world runs, with each set question a module's actors put: its number, the
    template that it is asked in, and whether that is an application's."""
    found: list[tuple[int, Template, bool]] = []
    hold = module.hold

    def note(stage: Stage, at: int, talk: Conversation, *more: Any) -> None:
        if len(talk.script) == 1:
            assert talk.rig.template is not None
            found.append((talk.script[0], talk.rig.template, talk.rig.program.kind == "sdk"))
        hold(stage, at, talk, *more)

    monkeypatch.setattr(module, "hold", note)
    return found


@pytest.mark.parametrize("sets", [1, 16])
def test_public_questions_are_those_of_laboratories(
    sets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    harvested, honest = asked(harvesters, monkeypatch), asked(machines, monkeypatch)
    stage = staged(
        "distillation", accounts=1500, share=0.2, public_prompts=1, prompt_templates=sets
    )
    run(stage, 4)
    suite = {question: suite for suite in stage.suites for question in suite.questions}
    assert {suite[q] for q, _, _ in honest} == set(stage.suites), "laboratories use them all"
    for question, template, _ in honest:
        assert template == suite[question].template
    in_applications = [(q, template) for q, template, application in harvested if application]
    assert 0 < len(in_applications) < len(harvested)
    for question, template in in_applications:
        assert template == suite[question].template, "a question is asked in its own harness"
    assert {q for q, _, _ in harvested} <= set(suite)


def test_a_ring_of_its_own_questions_shares_none(monkeypatch: pytest.MonkeyPatch) -> None:
    harvested = asked(harvesters, monkeypatch)
    stage = staged("distillation", share=0.5, public_prompts=0, prompt_templates=4)
    run(stage, 4)
    assert harvested
    public = {question for suite in stage.suites for question in suite.questions}
    assert public.isdisjoint(q for q, _, _ in harvested)
