"""Who plays in which scenario: how many of each, honest and not."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from synth.carders import carded
from synth.cohorts import head_count
from synth.cover import SCENARIO_KNOBS, Brief, framed
from synth.farms import credit_farm, sms_farm
from synth.harvesters import distillation
from synth.honest import Consumers
from synth.mules import kyc_mule
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
    cohorts = head_count(honest)
    plain = honest - sum(cohorts.values())
    victims = framed(stage, min(plain, round(honest * knobs.get("framing", 0)))) if abusive else []
    for _ in range(plain - len(victims)):  # before the cohorts, which inherit from them
        consumers.one()
    for cohort, count in cohorts.items():
        cohort.build(stage, consumers, count)
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
