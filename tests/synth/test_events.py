"""Every event is one that the contract accepts, and says nothing that the world contradicts."""

import ipaddress
from collections import Counter

import phonenumbers

from features.event import EVENT_TYPES, decode
from synth.dice import Dice
from synth.goods import check_digit, machine_readable
from tests.synth.played import Played, play


def test_strict_validity(market: Played) -> None:
    types = Counter(type(decode(line)).__struct_config__.tag for line in market.lines)
    assert set(types) == set(EVENT_TYPES)


def test_every_tier_is_valid() -> None:
    for tier in ("T0", "T2", "T3"):
        played = play(seed=2, accounts=120, days=2, abusive_share=0.4, tier=tier)
        for line in played.lines:
            decode(line)
        assert {row.tier for row in played.truth.values()} == {"", tier}


def test_addresses_come_from_the_plan(market: Played) -> None:
    of_prefix = {ipaddress.ip_network(p.cidr): p for p in market.world.plan}
    lengths = {(n.version, n.prefixlen) for n in of_prefix}
    for ip in {
        (e["ip"], e["country"], e["asn"], e["network_type"]) for e in market.events if "ip" in e
    }:
        address = ipaddress.ip_address(ip[0])
        homes = [
            of_prefix[net]
            for version, length in lengths
            if version == address.version
            and (net := ipaddress.ip_network((ip[0], length), strict=False)) in of_prefix
        ]
        assert [(p.country, p.asn, p.network_type) for p in homes] == [ip[1:]]
        assert address.is_global


def test_phones_are_valid_numbers(market: Played) -> None:
    numbers = {e["phone"] for e in market.events if "phone" in e}
    assert len(numbers) > 200
    for number in numbers:
        assert phonenumbers.is_valid_number(phonenumbers.parse(number)), number


def test_check_digit_is_that_of_the_standard() -> None:
    # ICAO Doc 9303 part 4, the specimen passport.
    assert [check_digit(t) for t in ("L898902C3", "740812", "120415", "ZE184226B<<<<<")] == list(
        "6291"
    )
    assert check_digit("L898902C3674081221204159ZE184226B<<<<<1") == "0"
    assert len(machine_readable("US", "DOE", "A1234567", Dice(1))) == 44


def test_a_conversation_is_a_chain(market: Played) -> None:
    """Each turn carries on from the answer before it, and refs were made before they are found."""
    after: dict[str, str] = {}
    made: set[str] = set()
    calls = followed = 0
    for event in sorted(market.events, key=lambda e: e["occurred_at"]):
        if event["type"] != "request":
            continue
        root, chain = event["chain_root"], event["chain"]
        if event["chain_length"] > 1 and root in after:
            calls += 1
            followed += chain[-2] == after[root]
        elif event["chain_length"] == 1:
            assert chain == [root]
        if "chain_after" in event:
            after[root] = event["chain_after"]
        made.update(event.get("emitted_refs", ()))
    assert followed > 0.97 * calls > 5_000  # a few turns are never observed
    found = [ref for e in market.events for ref in e.get("minted_refs", ())]
    assert sum(ref in made for ref in found) > 0.97 * len(found)


def test_money_adds_up(market: Played) -> None:
    for event in market.events:
        if event["type"] == "request" and event["status"] == 200:
            assert event["cost_usd"] > 0
            assert event["paid_usd"] in (0, event["cost_usd"])
            assert 0 <= event["window_used"] <= 1
        elif event["type"] == "request":
            assert "cost_usd" not in event
