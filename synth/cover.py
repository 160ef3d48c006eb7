"""Two tricks against links: hiding under what everybody has, and putting it on somebody else.

*Hub*: some accounts of a ring sign up and call from a carrier's or a campus's address, with a code
that everybody knows, and their users' clients claim a public repository in a container's home.
*Framing*: an attacker touches what a victim has. A ring account is opened on the victim's mail
domain, from a number of the victim's block and on the victim's device; another makes one call from
the victim's address with the victim's device and workspace.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from synth.account import Truth
from synth.dice import Dice
from synth.geography import Egress, any_country
from synth.goods import Phone
from synth.honest import VETERANS, appetite, arrival, plan_of, settle
from synth.people import Person
from synth.pools import FREE_MAIL
from synth.signup import Dossier, papers
from synth.stage import Stage
from synth.wire import fragment

SCENARIO_KNOBS = ("hub", "framing")
_FREE = {domain for domain, _ in FREE_MAIL}


@dataclass(frozen=True, slots=True)
class Victim:
    """An honest person who is to look like a member, and what was brought to the sign-up."""

    person: Person
    dossier: Dossier
    since: int  # when the account is there (epoch ms)

    def smear(self, dice: Dice, dossier: Dossier) -> None:
        """Make a ring's sign-up resemble the victim's."""
        domain = self.dossier.email.rsplit("@", 1)[1]
        if domain not in _FREE:
            dossier.email = f"{dossier.email.rsplit('@', 1)[0]}@{domain}"
        if self.dossier.phone and dossier.phone:
            block = self.dossier.phone.number[:-4]
            dossier.phone = Phone(
                f"{block}{dice.randrange(10_000):04d}", self.dossier.phone.line_type
            )
        dossier.device = self.dossier.device


@dataclass(slots=True)
class Brief:
    """What a scenario asks of its rings."""

    tier: str
    knobs: Mapping[str, float] = field(default_factory=dict)
    hub: float = 0.0  # share of a ring's accounts that hide
    victims: list[Victim] = field(default_factory=list)  # not yet framed


class Hub:
    """The popular places of this world, as a ring knows them: a few it has got used to."""

    def __init__(self, stage: Stage) -> None:
        dice = stage.dice
        country = any_country(dice).code
        self._doors = [*stage.plan.carriers[country][:3], stage.plan.egress("education", country)]
        repo, instructions = stage.people.public[0]
        home = dice.pick(("/root", "/workspace", "/app"))
        name = repo.rsplit("/", 1)[1]
        self.place = fragment(
            workspace_id=f"{home}/{name}", home_id=home, repo_id=repo,
            instructions_id=instructions, workspace_os="linux", workspace_timezone="Etc/UTC",
        )  # fmt: skip
        self.promo = stage.market.promos[0]

    def door(self, dice: Dice) -> Egress:
        return dice.pick(self._doors)


def framed(stage: Stage, count: int) -> list[Victim]:
    """`count` ordinary consumers whom somebody will touch."""
    dice, victims = stage.dice, []
    for _ in range(count):
        person = stage.people.make()
        plan = plan_of(stage, person)
        account = stage.account(plan, Truth(cohort="consumer"))
        dossier = papers(stage, person, paying=plan != "free" or dice.chance(0.2))
        veteran = dice.chance(VETERANS)
        at = stage.start if veteran else arrival(stage, person)
        settle(stage, person, account, appetite(stage, person.mode),
               dossier=None if veteran else dossier, at=at)  # fmt: skip
        victims.append(Victim(person, dossier, at))
    return victims
