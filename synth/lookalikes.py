"""Honest cohorts that resemble an operator: each shares something strong, for a good reason.

A carrier puts a town behind three addresses; a hackathon signs up in an hour with one code and one
template; a laboratory has twenty machines for everybody; a family has one card; a freelancer has
two accounts and swaps when one is limited. Organisations are in `orgs`.
"""

from collections.abc import Callable

from synth import calls as c
from synth.account import Account, Truth
from synth.agenda import Process
from synth.conversation import Caller, Conversation
from synth.goods import Card
from synth.habits import Own, Tempo, direct, hold
from synth.honest import (
    VETERANS,
    WRONGLY_SUSPENDED,
    Consumers,
    Owner,
    appetite,
    arrival,
    live,
    plan_of,
    settle,
)  # fmt: skip
from synth.people import DAY, HOUR, Person
from synth.signup import papers
from synth.stage import Stage
from synth.wire import fragment


def groups(stage: Stage, count: int, low: int, high: int) -> list[int]:
    """Split `count` into sizes between `low` and `high`; the last takes what is left."""
    sizes: list[int] = []
    while count > 0:
        size = min(stage.dice.randint(low, high), count)
        if 0 < count - size < low:
            size = count
        sizes.append(size)
        count -= size
    return sizes


def group_id(stage: Stage) -> str:
    return f"grp_{stage.dice.token(64)}"


def carrier_nat(stage: Stage, consumers: Consumers, count: int) -> None:
    """Subscribers of one carrier behind a few addresses, at home and on the road."""
    dice = stage.dice
    for size in groups(stage, count, 60, 140):
        person = stage.people.make()
        country = person.country
        doors = [stage.plan.mobile(country.code) for _ in range(dice.randint(2, 4))]
        for _ in range(size):
            person = stage.people.make(country)
            person.networks = [(dice.pick(doors), 0.75), (dice.pick(doors), 1.0)]
            consumers.one("carrier_nat", person)


def vpn_traveller(stage: Stage, consumers: Consumers, count: int) -> None:
    """People who are abroad or behind a VPN: another country every few conversations."""
    dice = stage.dice
    for _ in range(count):
        person = stage.people.make()
        vendor = dice.pick(stage.market.proxy_vendors)
        away = [(stage.plan.egress("vpn"), 1.0) for _ in range(dice.randint(2, 5))]
        away.append((vendor.buy(0.1), 1.0))
        person.networks = [(person.home, 0.35), *away]
        consumers.one("vpn_traveller", person)


def family(stage: Stage, consumers: Consumers, count: int) -> None:
    """One household: one address, one card, a shared tablet, sometimes one phone."""
    dice = stage.dice
    for size in groups(stage, count, 2, 4):
        head = stage.people.make()
        card: Card = stage.market.card(head.country.code)
        phone = stage.market.phone(head.country.code)
        address = f"{dice.pick(stage.pools.streets)}, {dice.randrange(10_000, 99_999)}"
        group = group_id(stage)
        for _ in range(size):
            person = stage.people.make(head.country)
            person.last = head.last
            person.networks[0] = head.networks[0]
            if dice.chance(0.5):
                person.devices[-1] = head.devices[-1]
                stage.people.equip(person)
            dossier = papers(stage, person)
            dossier.card, dossier.billing_address = card, address
            dossier.egress = head.home
            if dice.chance(0.4):
                dossier.phone = phone
            account = stage.account(plan_of(stage, person), Truth(cohort="family", group_id=group))
            veteran = dice.chance(VETERANS)
            settle(stage, person, account, appetite(stage, person.mode),
                   dossier=None if veteran else dossier,
                   at=None if veteran else arrival(stage, person))  # fmt: skip


class Two:
    """A person with two accounts: stays on one until it refuses, then goes on with the other."""

    seat = customer = c.NONE

    def __init__(self, stage: Stage, accounts: list[Account], person: Person) -> None:
        self._stage, self._person = stage, person
        self.pool = direct(stage, accounts, c.SWAP, switches=1)

    def net(self) -> int:
        return self._stage.exchange.net(self._person.place(self._stage.dice))


def freelancer(stage: Stage, consumers: Consumers, count: int) -> None:
    """One person, two own accounts (work and private), conversations carried across a limit."""
    dice = stage.dice
    for size in groups(stage, count, 2, 2):
        person = stage.people.make(mode=dice.pick(("terminal", "editor")))
        group = group_id(stage)
        card = stage.market.card(person.country.code)
        accounts = []
        for _ in range(size):
            plan = dice.pick(("free", "pro", "pro"))
            accounts.append(stage.account(plan, Truth(cohort="freelancer", group_id=group)))
        caller: Caller = (
            Two(stage, accounts, person) if size == 2 else Own(stage, accounts[0], person)
        )
        for index, account in enumerate(accounts):
            dossier = papers(stage, person)
            dossier.card = card
            veteran = dice.chance(VETERANS)
            at = stage.start if veteran else arrival(stage, person)
            own: Caller = caller if index == 0 else Own(stage, account, person)
            mean = appetite(stage, person.mode) * (1.6 if index == 0 else 0.5)
            stage.agenda.start(at, live(stage, person, account, own, mean,
                                        dossier=None if veteran else dossier, at=at,
                                        until=stage.end))  # fmt: skip
            account.keeper = Owner(stage, account, person)
            stage.provider.watch(account, at, stage.end, mean_life_days=0, wrong=WRONGLY_SUSPENDED)


_NIGHT = Tempo(110, 0.965, 16_000, 3_000, 330)


def overnight_agent(stage: Stage, consumers: Consumers, count: int) -> None:
    """Working people who let the agent run alone some nights."""
    dice = stage.dice
    for _ in range(count):
        person = stage.people.make(mode="terminal")
        account = stage.account(dice.pick(("pro", "max", "max")), Truth(cohort="overnight_agent"))
        settle(stage, person, account, appetite(stage, person.mode), dossier=None)
        for _ in range(dice.randint(1, 3)):
            at = stage.moment(0, 0.95)
            evening = at // DAY * DAY - person.offset_ms + int((22 + 2 * dice.random()) * HOUR)
            if stage.start < evening < stage.end:
                stage.agenda.start(evening, _night(stage, evening, account, person))


def _night(stage: Stage, at: int, account: Account, person: Person) -> Process:
    dice = stage.dice
    talk = Conversation(dice, dice.pick(person.rigs), dice.pick(person.workspaces))
    hold(stage, at, talk, Own(stage, account, person), _NIGHT)
    yield from ()


def hackathon(stage: Stage, consumers: Consumers, count: int) -> None:
    """A hundred sign-ups within an hour: one venue, one code, one starter repository."""
    dice = stage.dice
    for size in groups(stage, count, 80, 130):
        host = stage.people.make()
        venue = stage.plan.egress(dice.pick(("business", "education")), host.country.code)
        promo = f"{dice.pick(stage.pools.words)}{dice.randrange(20, 99)}".upper()
        repo = f"github.com/{dice.pick(stage.pools.words)}/{dice.pick(stage.pools.words)}-starter"
        starter = dice.pick(stage.software.starters)
        rules = dice.token(128)
        group = group_id(stage)
        opens = stage.moment(0.08, 0.8)
        for _ in range(size):
            person = stage.people.make(
                host.country, mode=dice.pick(("terminal", "editor", "application"))
            )
            person.networks = [(venue, 0.8), (person.home, 1.0)]
            person.workspaces = [_clone(place, repo, rules) for place in person.workspaces[:1]]
            if person.mode == "application":
                person.rigs = [
                    stage.people.rig(person, person.devices[0], rig.program, starter)
                    for rig in person.rigs
                ]
            dossier = papers(stage, person, kyc=0.4, paying=False)
            dossier.egress, dossier.promo_id = venue, promo
            at = opens + int(dice.random() * HOUR)
            account = stage.account("free", Truth(cohort="hackathon", group_id=group))
            until = at + int((20 + 40 * dice.random()) * HOUR)
            mean = 3.0 + appetite(stage, person.mode)
            settle(stage, person, account, mean, dossier=dossier, at=at, until=until)


def _clone(place: str, repo: str, rules: str) -> str:
    """A person's workspace with the repository everybody has cloned."""
    keep = [
        part for part in place.split(',"') if not part.startswith(("repo_id", "instructions_id"))
    ]
    return ',"'.join(keep) + fragment(repo_id=repo, instructions_id=rules)


def university_lab(stage: Stage, consumers: Consumers, count: int) -> None:
    """A class: one network, the laboratory's machines, one assignment."""
    dice = stage.dice
    for size in groups(stage, count, 30, 70):
        head = stage.people.make()
        campus = stage.plan.egress("education", head.country.code)
        machines = [stage.people.device("linux") for _ in range(max(3, size // 4))]
        school, course = dice.pick(stage.pools.words), dice.pick(stage.pools.words)
        repo = f"github.com/{school}-u/{course}-hw{dice.randrange(1, 9)}"
        rules = dice.token(128)
        group = group_id(stage)
        first_class = stage.moment(0.05, 0.6)
        for _ in range(size):
            person = stage.people.make(head.country, mode=dice.pick(("terminal", "editor")))
            person.networks = [(campus, 0.7), (person.home, 1.0)]
            person.devices = [dice.pick(machines), *person.devices[:1]]
            stage.people.equip(person)
            person.workspaces = [_clone(place, repo, rules) for place in person.workspaces[:2]]
            dossier = papers(stage, person, kyc=0.45, paying=False)
            dossier.egress = campus
            local = stage.pools.local_part(dice, person.first, person.last)
            dossier.email = f"{local}@{school}.edu"
            late = dice.chance(0.4)
            at = first_class + int(dice.random() * (3 * DAY if late else 2 * HOUR))
            account = stage.account("free", Truth(cohort="university_lab", group_id=group))
            veteran = at >= stage.end or dice.chance(0.2)
            settle(stage, person, account, appetite(stage, person.mode),
                   dossier=None if veteran else dossier, at=None if veteran else at)  # fmt: skip


Builder = Callable[[Stage, Consumers, int], None]
