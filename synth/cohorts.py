"""Every honest cohort, and how large it is.

Each shares at least one strong entity or timing cue with some attack, as its docstring says: a
cohort that shares nothing would be no test.
"""

from dataclasses import dataclass

from synth.cohort import Builder
from synth.crowds import (
    carrier_nat,
    coding_tool_users,
    corporate_vpn,
    hackathon,
    launch_day,
    tutorial_users,
    university_lab,
)
from synth.lookalikes import (
    expatriate,
    family,
    freelancer,
    new_employer_account,
    personal_pool,
    prepaid_user,
    recycled_phone,
    resold_device,
    vpn_traveller,
)
from synth.machines import benchmark_researcher, overnight_agent, subagent_power_user
from synth.orgs import agent_fleet, ci_fleet, company_gateway, reseller, seat_rollout


@dataclass(frozen=True, slots=True)
class Cohort:
    """`share` is of the honest accounts; fewer than `least` would have nobody to share with."""

    build: Builder
    share: float
    least: int = 2

    @property
    def name(self) -> str:
        return self.build.__name__


# The rest, nearly half, are ordinary consumers.
COHORTS: tuple[Cohort, ...] = (
    Cohort(carrier_nat, 0.040),
    Cohort(university_lab, 0.025),
    Cohort(hackathon, 0.025),
    Cohort(company_gateway, 0.025),
    Cohort(agent_fleet, 0.015),
    Cohort(reseller, 0.015),
    Cohort(corporate_vpn, 0.030),
    Cohort(family, 0.040),
    Cohort(seat_rollout, 0.030),
    Cohort(freelancer, 0.020),
    Cohort(personal_pool, 0.020),
    Cohort(coding_tool_users, 0.040),
    Cohort(vpn_traveller, 0.020),
    Cohort(expatriate, 0.020, least=1),
    Cohort(recycled_phone, 0.015, least=1),
    Cohort(resold_device, 0.015, least=1),
    Cohort(launch_day, 0.025),
    Cohort(benchmark_researcher, 0.015),
    Cohort(tutorial_users, 0.020),
    Cohort(overnight_agent, 0.015, least=1),
    Cohort(ci_fleet, 0.015),
    Cohort(new_employer_account, 0.020),
    Cohort(prepaid_user, 0.020),
    Cohort(subagent_power_user, 0.015, least=1),
)


def head_count(honest: int) -> dict[Cohort, int]:
    """How many of `honest` accounts are of each cohort; a cohort too small to share is left out."""
    counts = {cohort: round(honest * cohort.share) for cohort in COHORTS}
    return {cohort: count for cohort, count in counts.items() if count >= cohort.least}
