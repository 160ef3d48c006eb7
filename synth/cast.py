"""Who plays in which scenario: how many of each, honest and not."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from synth.carders import carded
from synth.cover import SCENARIO_KNOBS, Brief, framed
from synth.farms import credit_farm, sms_farm
from synth.harvesters import distillation
from synth.honest import Consumers
from synth.lookalikes import (
    Builder,
    carrier_nat,
    family,
    freelancer,
    hackathon,
    overnight_agent,
    university_lab,
    vpn_traveller,
)  # fmt: skip
from synth.mules import kyc_mule
from synth.orgs import company_gateway, seat_rollout
from synth.stage import Stage
from synth.stations import plan_sharing, transfer_station
from synth.traits import check_knob

SCENARIOS: dict[str, str] = {
    "market": "honest customers of every cohort, and rings of every typology",
    "honest": "nobody abuses anything: what remains is false alarms",
    "credit_farm": "honest customers, and farms that sign up in bulk for free credit",
    "sms_farm": "honest customers, and farms that sell accounts with a phone and nothing else",
    "carded": "honest customers, and accounts paid with other people's cards",
    "kyc_mule": "honest customers, and rings whose accounts were verified with borrowed faces",
    "plan_sharing": "honest customers, and car pools: few plans, each carved among a few people",
    "transfer_station": "honest customers, and stations that resell a pool of plan accounts",
    "distillation": "honest customers, and harvesters of answers through many accounts",
}

# Shares of the honest accounts; the rest are ordinary consumers.
_COHORTS: tuple[tuple[Builder, float], ...] = (
    (carrier_nat, 0.10),
    (company_gateway, 0.04),
    (hackathon, 0.05),
    (family, 0.05),
    (freelancer, 0.03),
    (overnight_agent, 0.02),
    (vpn_traveller, 0.04),
    (university_lab, 0.05),
    (seat_rollout, 0.04),
)
RingBuilder = Callable[[Stage, int, Brief], None]
# Shares of the abusive accounts in a market.
_TYPOLOGIES: dict[str, tuple[RingBuilder, float]] = {
    "credit_farm": (credit_farm, 0.18),
    "sms_farm": (sms_farm, 0.14),
    "carded": (carded, 0.12),
    "kyc_mule": (kyc_mule, 0.13),
    "plan_sharing": (plan_sharing, 0.10),
    "distillation": (distillation, 0.10),
    "transfer_station": (transfer_station, 0.23),
}


def check_knobs(knobs: Mapping[str, float]) -> None:
    """Refuse a knob that neither a ring nor a scenario has, or a share outside 0-1.

    Raises:
        ValueError: the message names the nearest right name.
    """
    for name, value in knobs.items():
        check_knob(name, SCENARIO_KNOBS)
        if name in SCENARIO_KNOBS and not 0 <= value <= 1:
            raise ValueError(f"knob {name!r} is a share within 0-1, not {value}")


def cast(stage: Stage, scenario: str, accounts: int, abusive_share: float, tier: str,
         knobs: Mapping[str, float] = MappingProxyType({})) -> None:  # fmt: skip
    """Put everybody on the stage: `accounts` of them, to the account.

    Args:
        knobs: fields of `Traits` for every ring, and `hub` (share of each ring's accounts that
            hide under something popular) and `framing` (share of honest accounts whose entities
            an attacker touches on purpose).
    """
    abusive = 0 if scenario == "honest" else round(accounts * abusive_share)
    honest = accounts - abusive
    consumers = Consumers(stage)
    left = honest
    for build, share in _COHORTS:
        count = min(left, round(honest * share))
        build(stage, consumers, count)
        left -= count
    victims = framed(stage, min(left, round(honest * knobs.get("framing", 0)))) if abusive else []
    for _ in range(left - len(victims)):
        consumers.one()
    brief = Brief(
        tier,
        {name: value for name, value in knobs.items() if name not in SCENARIO_KNOBS},
        knobs.get("hub", 0),
        victims,
    )
    chosen = _TYPOLOGIES if scenario == "market" else {scenario: _TYPOLOGIES.get(scenario)}
    left = abusive
    parts = [(name, entry) for name, entry in chosen.items() if entry is not None]
    for index, (_, (build_rings, share)) in enumerate(parts):
        last = index == len(parts) - 1
        count = left if last or scenario != "market" else min(left, round(abusive * share))
        build_rings(stage, count, brief)
        left -= count
