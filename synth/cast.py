"""Who plays in which scenario: how many of each, honest and not."""

from collections.abc import Callable

from synth.cohorts import head_count
from synth.farms import credit_farm
from synth.honest import Consumers
from synth.mules import kyc_mule
from synth.stage import Stage
from synth.stations import transfer_station

SCENARIOS: dict[str, str] = {
    "market": "honest customers of every cohort, and rings of every typology",
    "credit_farm": "honest customers, and farms that sign up in bulk for free credit",
    "transfer_station": "honest customers, and stations that resell a pool of plan accounts",
    "kyc_mule": "honest customers, and rings whose accounts were verified with borrowed faces",
    "honest": "nobody abuses anything: what remains is false alarms",
}

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
    cohorts = head_count(honest)
    for _ in range(honest - sum(cohorts.values())):  # first: the cohorts inherit from them
        consumers.one()
    for cohort, count in cohorts.items():
        cohort.build(stage, consumers, count)
    chosen = _TYPOLOGIES if scenario == "market" else {scenario: _TYPOLOGIES.get(scenario)}
    left = abusive
    parts = [(name, entry) for name, entry in chosen.items() if entry is not None]
    for index, (_, (build_rings, share)) in enumerate(parts):
        last = index == len(parts) - 1
        count = left if last else min(left, round(abusive * share))
        build_rings(stage, count, tier)
        left -= count
