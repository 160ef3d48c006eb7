"""Who plays in which scenario: how many of each, honest and not."""

from collections.abc import Callable

from synth.farms import credit_farm
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
from synth.stations import transfer_station

SCENARIOS: dict[str, str] = {
    "market": "honest customers of every cohort, and rings of every typology",
    "credit_farm": "honest customers, and farms that sign up in bulk for free credit",
    "transfer_station": "honest customers, and stations that resell a pool of plan accounts",
    "kyc_mule": "honest customers, and rings whose accounts were verified with borrowed faces",
    "honest": "nobody abuses anything: what remains is false alarms",
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
_TYPOLOGIES: dict[str, tuple[Callable[[Stage, int, str], None], float]] = {
    "credit_farm": (credit_farm, 0.42),
    "transfer_station": (transfer_station, 0.36),
    "kyc_mule": (kyc_mule, 0.22),
}


def cast(stage: Stage, scenario: str, accounts: int, abusive_share: float, tier: str) -> None:
    """Put everybody on the stage: `accounts` of them, to the account."""
    abusive = 0 if scenario == "honest" else round(accounts * abusive_share)
    honest = accounts - abusive
    consumers = Consumers(stage)
    left = honest
    for build, share in _COHORTS:
        count = min(left, round(honest * share))
        build(stage, consumers, count)
        left -= count
    for _ in range(left):
        consumers.one()
    chosen = _TYPOLOGIES if scenario == "market" else {scenario: _TYPOLOGIES.get(scenario)}
    left = abusive
    parts = [(name, entry) for name, entry in chosen.items() if entry is not None]
    for index, (_, (build_rings, share)) in enumerate(parts):
        last = index == len(parts) - 1
        count = left if last else min(left, round(abusive * share))
        build_rings(stage, count, tier)
        left -= count
