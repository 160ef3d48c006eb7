"""The stream: reproducible, ordered by observation, imperfect, and bounded."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
import zstandard

from synth.world import SCENARIOS, TIERS, UnknownScenario, simulate
from synth.write import write
from tests.synth.played import Played

SMALL = {"accounts": 100, "days": 2.0, "abusive_share": 0.2}


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    counts: list[int] = []
    one = write(tmp_path / "a", seed=3, progress=counts.append, **SMALL)
    two = write(tmp_path / "b", seed=3, **SMALL)
    for name in ("events_path", "truth_path", "plan_path"):
        assert getattr(one, name).read_bytes() == getattr(two, name).read_bytes()
    assert counts[-1] == one.events
    assert list(simulate(seed=4, **SMALL).lines()) != list(simulate(seed=3, **SMALL).lines())


def test_files_hold_the_world(tmp_path: Path) -> None:
    done = write(tmp_path, "transfer_station", seed=3, **SMALL)
    world = simulate("transfer_station", seed=3, **SMALL)
    with done.events_path.open("rb") as handle:
        text = zstandard.ZstdDecompressor().stream_reader(handle).read()
    assert text == b"".join(world.lines())
    with done.truth_path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["account_id", "ring_id", "typology", "cohort", "tier", "group_id"]
    assert len(rows) == done.accounts == len(world.truth())
    with done.plan_path.open(newline="") as handle:
        assert next(csv.reader(handle)) == ["prefix", "country", "asn", "network_type"]


@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_scenarios(scenario: str) -> None:
    size = SMALL | ({"accounts": 260} if scenario == "market" else {})
    world = simulate(scenario, seed=1, tier="mixed", **size)
    assert sum(1 for _ in world.lines()) > 500
    typologies = {row.typology for row in world.truth()} - {""}
    expected = set() if scenario == "honest" else {scenario}
    if scenario == "market":
        expected = set(SCENARIOS) - {"market", "honest"}
    assert typologies == expected


def test_size_is_as_asked() -> None:
    world = simulate(seed=1, accounts=400, days=5, abusive_share=0.1)
    for _ in world.lines():
        pass
    truth = world.truth()
    assert 376 <= len(truth) <= 400  # a few old accounts never stir
    assert 0.08 < sum(bool(row.ring_id) for row in truth) / len(truth) <= 0.11


@pytest.mark.parametrize(
    "bad", [{"tier": "T9"}, {"accounts": 0}, {"days": 0}, {"abusive_share": 2}]
)
def test_impossible_worlds_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UnknownScenario):
        simulate("market", **bad)  # type: ignore[arg-type]


def test_unknown_scenario_names_the_known() -> None:
    with pytest.raises(UnknownScenario, match="transfer_station"):
        simulate("transfer-station")
    assert "T1" in TIERS


def test_order_of_observation(market: Played) -> None:
    """Events that are on time come in order; a late one stands where it was observed."""
    now = 0
    seen: set[str] = set()
    for line in market.lines:
        event = json.loads(line)
        if event["event_id"] in seen:
            continue  # a second delivery
        seen.add(event["event_id"])
        observed = event.get("observed_at", event["occurred_at"])
        assert observed >= now, (event, now)
        assert observed >= event["occurred_at"]
        now = observed


def test_imperfections(market: Played) -> None:
    total = len(market.events)
    late = sum("observed_at" in e for e in market.events)
    twice = len(market.lines) - total
    assert 0.006 < late / total < 0.014
    assert 0.002 < twice / total < 0.006
    abusive = [e for e in market.events if market.truth[e["account_id"]].ring_id]
    late_abusive = sum("observed_at" in e for e in abusive)
    assert 0.003 < late_abusive / len(abusive) < 0.02


def test_the_agenda_grows_with_accounts_not_events() -> None:
    world = simulate(seed=1, accounts=150, days=6)
    stage = world._stage
    most = waiting = 0
    for number, _ in enumerate(world.lines()):
        if number % 200 == 0:
            most = max(most, len(stage.agenda._heap))
            waiting = max(waiting, len(stage.feed._waiting))
    assert number > 5_000
    assert most < 8 * 150
    assert waiting < 3 * 150


def test_a_decision_can_be_fed_back() -> None:
    world = simulate("transfer_station", seed=8, accounts=60, days=4, abusive_share=0.3)
    lines = world.lines()
    victim = None
    served_after = 0
    for number, line in enumerate(lines):
        if victim is None and number > 1_500 and b'"status":200' in line:
            victim = line.split(b'"account_id":"')[1].split(b'"')[0]
            assert world.suspend(victim.decode())
            assert not world.suspend("acct_nobody")
            told = number
        elif victim and victim in line and b'"status":200' in line and number > told + 400:
            served_after += 1
    assert victim is not None
    assert served_after <= 3  # late deliveries


def test_statuses_are_mixed(market: Played) -> None:
    statuses = Counter(e["status"] for e in market.events if e["type"] == "request")
    assert statuses[200] > 0.93 * sum(statuses.values())
    assert {402, 403, 429, 500, 529} <= set(statuses)
    assert any("retry_after_s" in e for e in market.events if e.get("status") == 429)
