"""Honest crowds: many strangers with one place, one occasion or one text in common.

A carrier puts a town behind three addresses; a hackathon signs up in an hour with one code and one
template; a laboratory has twenty machines for everybody; a tutorial is followed word by word.
"""

from dataclasses import replace

from synth.account import Account, Truth
from synth.clients import Program, Template
from synth.cohort import group_id, groups, retold, through
from synth.conversation import Conversation
from synth.habits import TEMPI, Own, hold
from synth.honest import NEVER_CALLS, Consumers, appetite, enter, plan_of
from synth.people import DAY, HOUR, MINUTE, Person
from synth.signup import papers
from synth.stage import Stage
from synth.wire import fragment


def carrier_nat(stage: Stage, consumers: Consumers, count: int) -> None:
    """Subscribers of one carrier behind a few addresses, at home and on the road.

    Like a farm: dozens of accounts sign up and call from one address.
    """
    dice = stage.dice
    for size in groups(stage, count, 60, 140):
        country = stage.people.make().country
        doors = [stage.plan.mobile(country.code) for _ in range(dice.randint(2, 4))]
        group = group_id(stage)
        for _ in range(size):
            person = stage.people.make(country)
            person.networks = [(dice.pick(doors), 0.75), (dice.pick(doors), 1.0)]
            consumers.one("carrier_nat", person, group=group)


def corporate_vpn(stage: Stage, consumers: Consumers, count: int) -> None:
    """Employees behind their company's always-on VPN, which opens TLS to look inside: one egress,
    one TLS fingerprint, one order of headers, for unrelated accounts. Some of them the company has
    paid, none carries its `org_id`.

    Like a relay: what the client says of itself and how it speaks do not belong together.
    """
    dice = stage.dice
    for size in groups(stage, count, 15, 60):
        boss = stage.people.make()
        door = stage.plan.egress(dice.pick(("business", "hosting")), boss.country.code)
        http = dice.pick(("1.1", "2"))
        ja4 = f"t13d{dice.randrange(10, 20)}{dice.randrange(10, 20)}h{http[0]}_{dice.token(48)}_{dice.token(48)}"
        tls, order = fragment(ja4=ja4, http_version=http), fragment(header_order_id=dice.token(64))
        domain, card = stage.pools.domain(dice), stage.market.card(boss.country.code)
        group = group_id(stage)
        for _ in range(size):
            person = stage.people.make(boss.country if dice.chance(0.7) else None)
            person.networks = [(door, 1.0)]
            through(person, tls, order)
            account = stage.account(
                plan_of(stage, person), Truth(cohort="corporate_vpn", group_id=group)
            )
            dossier = papers(stage, person, paying=account.plan.name != "free" or dice.chance(0.2))
            dossier.egress = door
            if dice.chance(0.4):
                dossier.email = f"{person.first.lower()}.{person.last.lower()}@{domain}"
            if dossier.card and dice.chance(0.35):
                dossier.card = card
            enter(stage, person, account, dossier)


def hackathon(stage: Stage, consumers: Consumers, count: int) -> None:
    """A hundred sign-ups within an hour: one venue, one code, one starter repository.

    Like a farm: a burst from one address with one promotion, drained within two days.
    """
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
            _clone(person, repo, rules, starter, keep=0)
            dossier = papers(stage, person, kyc=0.4, paying=False)
            dossier.egress, dossier.promo_id = venue, promo
            at = opens + int(dice.random() * HOUR)
            account = stage.account("free", Truth(cohort="hackathon", group_id=group))
            until = at + int((20 + 40 * dice.random()) * HOUR)
            mean = 3.0 + appetite(stage, person.mode)
            enter(stage, person, account, dossier, mean, veteran=0, at=at, until=until)


def _clone(person: Person, repo: str, rules: str, starter: Template, keep: int = 1) -> None:
    """The repository that everybody has cloned becomes where the person mostly works, beside `keep`
    of his own; who writes an application starts from the same one."""
    if person.workspaces:
        mine = person.workspaces
        shared = retold(mine[0], repo_id=repo, instructions_id=rules)
        person.workspaces = [shared, *mine[1 : 1 + keep]]
    if person.mode == "application":
        person.rigs = [replace(rig, template=starter) for rig in person.rigs]


def university_lab(stage: Stage, consumers: Consumers, count: int) -> None:
    """A class: one network, the laboratory's machines from one image, one assignment.

    Like a merchant's workshop: a few devices open dozens of accounts.
    """
    dice = stage.dice
    for size in groups(stage, count, 30, 70):
        head = stage.people.make()
        campus = stage.plan.egress("education", head.country.code)
        machines = [stage.people.device("linux") for _ in range(max(3, size // 4))]
        image = stage.software.program("cli")
        school, course = dice.pick(stage.pools.words), dice.pick(stage.pools.words)
        repo = f"github.com/{school}-u/{course}-hw{dice.randrange(1, 9)}"
        rules = dice.token(128)
        group = group_id(stage)
        first_class = stage.moment(0.05, 0.6)
        for _ in range(size):
            person = stage.people.make(head.country, mode="terminal")
            person.networks = [(campus, 0.7), (person.home, 1.0)]
            person.devices = [dice.pick(machines), *person.devices[:1]]
            stage.people.equip(person)
            person.rigs[0] = stage.people.rig(person, person.devices[0], image)
            _clone(person, repo, rules, stage.software.starters[0])
            dossier = papers(stage, person, kyc=0.45, paying=False)
            dossier.egress = campus
            local = stage.pools.local_part(dice, person.first, person.last)
            dossier.email = f"{local}@{school}.edu"
            late = dice.chance(0.4)
            at = first_class + int(dice.random() * (3 * DAY if late else 2 * HOUR))
            account = stage.account("free", Truth(cohort="university_lab", group_id=group))
            enter(stage, person, account, dossier, at=at, veteran=0.2)


def launch_day(stage: Stage, consumers: Consumers, count: int) -> None:
    """Something goes viral: hundreds of sign-ups within an hour or two, from everywhere, through
    one code and one referrer.

    Like a farm with an egress for each account: the burst and the code are all that is shared.
    """
    dice = stage.dice
    for size in groups(stage, count, 120, 400):
        promo = f"{dice.pick(stage.pools.words)}{dice.randrange(20, 99)}".upper()
        referrer = f"ref_{dice.token(40)}"
        group = group_id(stage)
        opens = stage.moment(0.1, 0.85)
        for _ in range(size):
            person = stage.people.make()
            plan = dice.weighted((("free", 85.0), ("pro", 12.0), ("payg", 3.0)))
            account = stage.account(plan, Truth(cohort="launch_day", group_id=group))
            dossier = papers(stage, person, kyc=0.5, paying=plan != "free")
            dossier.promo_id = promo if dice.chance(0.75) else None
            if dossier.promo_id is None or dice.chance(0.4):
                dossier.referrer_id = referrer
            at = opens + int(dice.lognormal(25 * MINUTE, 0.9))
            until = at + int(dice.spread(20 * HOUR)) if dice.chance(0.6) else None
            enter(stage, person, account, dossier, veteran=0, at=at, until=until,
                  idle=dice.chance(2 * NEVER_CALLS))  # fmt: skip


_STEPS = (5, 8)  # set prompts of a tutorial


def tutorial_users(stage: Stage, consumers: Consumers, count: int) -> None:
    """A tutorial that hundreds follow: its repository, its instructions file, its prompts word by
    word; or its starter, unchanged.

    Like an ageing script: the same turns in the same order on accounts of strangers.
    """
    dice = stage.dice
    for size in groups(stage, count, 60, 200):
        owner, name = dice.pick(stage.pools.words), dice.pick(stage.pools.words)
        repo, rules = f"github.com/{owner}/{name}-tutorial", dice.token(128)
        starter = Template.make(dice, 900, tools=True)
        steps = stage.exchange.script(
            [fragment(prompt_id=dice.token()) for _ in range(dice.randint(*_STEPS))]
        )
        referrer = f"ref_{dice.token(40)}" if dice.chance(0.5) else None
        group = group_id(stage)
        for _ in range(size):
            person = stage.people.make(
                mode=dice.pick(("terminal", "editor", "editor", "application"))
            )
            _clone(person, repo, rules, starter, keep=2)
            account = stage.account(
                plan_of(stage, person), Truth(cohort="tutorial_users", group_id=group)
            )
            dossier = papers(stage, person, paying=account.plan.name != "free")
            if dice.chance(0.4):
                dossier.referrer_id = referrer
            enter(stage, person, account, dossier, ready=_Reader(stage, person, steps).follow)


class _Reader:
    """Somebody who types what a tutorial says."""

    def __init__(self, stage: Stage, person: Person, steps: range) -> None:
        self._stage, self._person, self._steps = stage, person, steps

    def follow(self, account: Account) -> None:
        """Start on it within the next days, and finish it or not."""
        stage, dice, person = self._stage, self._stage.dice, self._person
        rig = person.rigs[0]
        place = person.workspaces[0] if person.workspaces else ""
        talk = Conversation(dice, rig, place)
        talk.script = self._steps
        at = stage.agenda.now + int(dice.spread(8 * HOUR))
        turns = dice.randint(2, self._steps[1])
        hold(stage, at, talk, Own(stage, account, person), TEMPI["web"], turns)


def coding_tool_users(stage: Stage, consumers: Consumers, count: int) -> None:
    """Everybody who uses one popular third-party tool: the same client, system prompt, tools and,
    as it ships with the tool, instructions file.

    Like the customers of a pool that dresses all its accounts alike.
    """
    dice = stage.dice
    base = stage.software.ide[0]
    template = Template.make(dice, 7_000, tools=True)
    order, beta = dice.token(64), dice.token(64)
    versions = ("0.14.2", "0.14.1", "0.13.8")
    releases = [
        Program("kelp", "ide", version, base.runtime, f"kelp/{version} ({{os}})", "2", order, beta,
                base.ja4, template)
        for version in versions
    ]  # fmt: skip
    preset = dice.token(128)
    for _ in range(count):
        person = stage.people.make(mode="editor")
        person.rigs = [stage.people.rig(person, d, dice.zipf(releases)) for d in person.devices]
        if dice.chance(0.7):
            person.workspaces = [retold(p, instructions_id=preset) for p in person.workspaces]
        consumers.one("coding_tool_users", person)
