"""Honest organisations: many accounts, one owner.

A gateway shuffles its employees' calls over the organisation's own keys, so that most of its
conversations change accounts all the time; an authorised reseller has more end users than a station;
a fleet of agents or of build machines works from one image; a roll-out gives hundreds a seat in an
afternoon. Accounts of one organisation carry one `org_id`, and that is all that tells them from a
pool.
"""

from dataclasses import dataclass, replace

from synth import calls as c
from synth.account import Account, Truth
from synth.agenda import Process
from synth.clients import Program, Template
from synth.cohort import Tool, group_id, groups
from synth.conversation import Conversation
from synth.geography import Egress
from synth.goods import Card
from synth.habits import Own, Tempo, hold, routine
from synth.honest import WRONGLY_SUSPENDED, Consumers, Owner, appetite, enter
from synth.people import DAY, HOUR, Person, Rig
from synth.signup import Dossier, papers, sign_up
from synth.stage import Stage
from synth.wire import fragment

_SHUFFLES = 0.7  # share of gateways that take another key for each call [A]


class Gateway:
    """One egress, several own keys: a random one each call or, with some, each conversation; another
    one on a refusal."""

    seat = customer = c.NONE

    def __init__(self, stage: Stage, egress: Egress) -> None:
        self._stage = stage
        self._net, self._link = stage.exchange.net(egress), stage.exchange.link()
        # it keeps one connection alive for all of its keys
        shuffles = stage.dice.chance(_SHUFFLES)
        self.pool = stage.exchange.pool(
            c.RANDOM if shuffles else c.ANY, sticky_ms=0 if shuffles else HOUR, sliding=1, switches=2,
            links=c.LINK_SHARED, link_ms=6 * HOUR,
        )  # fmt: skip

    def add(self, account: Account) -> None:
        """One more key to call with."""
        exchange = self._stage.exchange
        seat = exchange.seat(account.n, self.pool, net=self._net, link=self._link)
        exchange.join(self.pool, seat)

    def net(self) -> int:
        return c.NONE


def _machine(boss: Person, doors: list[Egress]) -> Person:
    """The person in whose name a machine calls, from these addresses."""
    return replace(boss, networks=[(door, 1 / len(doors)) for door in doors])


@dataclass(frozen=True, slots=True)
class Company:
    """An organisation: its id, its mail domain, the person who signs, its card and its group."""

    org: str
    domain: str
    boss: Person
    card: Card
    group: str

    @classmethod
    def found(cls, stage: Stage) -> "Company":
        boss = stage.people.make()
        return cls(f"org_{stage.dice.token(80)}", stage.pools.domain(stage.dice), boss,
                   stage.market.card(boss.country.code), group_id(stage))  # fmt: skip

    def account(self, stage: Stage, plan: str, cohort: str) -> Account:
        return stage.account(plan, Truth(cohort=cohort, group_id=self.group), self.org)

    def key_papers(self, stage: Stage, index: int, egress: Egress) -> Dossier:
        """What the boss brings for the organisation's account number `index`."""
        dice = stage.dice
        dossier = papers(stage, self.boss, kyc=0.2 if index else 0.9)
        dossier.email = f"{dice.pick(stage.pools.words)}{index}@{self.domain}"
        dossier.egress, dossier.card, dossier.channel = egress, self.card, "sso"
        return dossier

    def declare(self, stage: Stage, at: int, account: Account) -> Process:
        stage.record.tell(at, account, "ownership_declared", owners=_owners(stage, self.boss))
        yield from ()

    def open(self, stage: Stage, at: int, account: Account, dossier: Dossier | None,
             gateway: Gateway | None = None) -> None:  # fmt: skip
        """The account signs up at `at`, or was there before (no dossier); then the gateway calls
        with it."""
        account.keeper = Owner(stage, account, self.boss, dossier)
        stage.provider.watch(account, at, stage.end, mean_life_days=0, wrong=WRONGLY_SUSPENDED)
        if dossier is not None:
            stage.agenda.start(at, _join(stage, at, account, dossier, gateway))
        elif gateway is not None:
            gateway.add(account)


def _join(stage: Stage, at: int, account: Account, dossier: Dossier,
          gateway: Gateway | None) -> Process:  # fmt: skip
    yield sign_up(stage, at, account, dossier)
    if gateway is not None:
        gateway.add(account)


def _owners(stage: Stage, boss: Person) -> list[dict[str, object]]:
    dice, code = stage.dice, boss.country.code
    name = f"{boss.first} {boss.last}"
    if dice.chance(0.5):
        return [{"owner": name, "share": 1.0, "of": "self", "country": code}]
    holding = f"{dice.pick(stage.pools.words)} holding".title()
    share = round(0.3 + 0.6 * dice.random(), 2)
    return [
        {"owner": holding, "share": share, "of": "self", "country": code},
        {"owner": name, "share": round(1 - share, 2), "of": "self", "country": code},
        {"owner": name, "share": 1.0, "of": holding, "country": code},
    ]


def company_gateway(stage: Stage, consumers: Consumers, count: int) -> None:
    """One organisation, one egress, many keys, and a monitor that tries them all.

    Like a station: employees fan out over all keys, conversations hop at every call, probes come in
    trains.
    """
    dice = stage.dice
    for size in groups(stage, count, 10, 30):
        company = Company.found(stage)
        egress = stage.plan.egress(dice.pick(("business", "hosting")), company.boss.country.code)
        gateway, program = Gateway(stage, egress), stage.software.program("gateway")
        accounts, opens = _keys(stage, company, "company_gateway", size, gateway, egress, size * 6)
        template = stage.software.application()
        for _ in range(size * 4):
            person = stage.people.make(company.boss.country, mode="terminal")
            _behind(stage, person, company, gateway, program, template, opens, direct_share=0.6,
                    busy=0.45)  # fmt: skip
        if dice.chance(0.7):
            rig = stage.people.rig(company.boss, company.boss.devices[0], program)
            tool = Tool(stage, _machine(company.boss, [egress]), accounts, rig,
                        noted=dice.chance(0.4))  # fmt: skip
            stage.agenda.start(opens + 3 * HOUR, _monitor(stage, opens + 3 * HOUR, tool))


def _keys(stage: Stage, company: Company, cohort: str, size: int, gateway: Gateway, egress: Egress,
          seats: int) -> tuple[list[Account], int]:  # fmt: skip
    """The organisation's accounts, opened one after the other, and since when there are some."""
    dice = stage.dice
    accounts = [company.account(stage, "enterprise", cohort) for _ in range(size)]
    veteran = dice.chance(0.5)
    opens = stage.start if veteran else stage.moment(0.02, 0.6)
    for index, account in enumerate(accounts):
        dossier, at = None, stage.start
        if not veteran:
            dossier = company.key_papers(stage, index, egress)
            dossier.seats = seats if dice.chance(0.5) else None
            at = opens + int(dice.random() * (3 * HOUR if index <= size // 2 else 2 * DAY))
            at = min(at, stage.end - HOUR)
        company.open(stage, at, account, dossier, gateway)
    stage.agenda.start(opens + HOUR, company.declare(stage, opens + HOUR, accounts[0]))
    return accounts, opens


def _behind(stage: Stage, person: Person, company: Company, gateway: Gateway, program: Program,
            template: Template, opens: int, *, direct_share: float, busy: float) -> None:  # fmt: skip
    """Somebody who calls through the organisation: by its own application, or (the share that is
    left) with his own client."""
    dice = stage.dice
    rig = stage.people.rig(person, person.devices[0], program, template)
    own = not dice.chance(direct_share)
    person.rigs = [_through(rig, r) for r in person.rigs] if own else [rig]
    user = fragment(end_user_id=f"{person.user}{dice.randrange(10, 99)}@{company.domain}")
    since = opens + int(dice.spread(5 * HOUR))
    mean = appetite(stage, person.mode) * busy
    stage.agenda.start(since, routine(stage, person, gateway, since, stage.end, mean, user=user))


def _through(gateway: Rig, own: Rig) -> Rig:
    """An employee's own client behind the gateway: its prompt, the gateway's headers."""
    return replace(own, agent=gateway.agent, tls=gateway.tls, device="", stated=gateway.stated,
                   order=gateway.order)  # fmt: skip


def _monitor(stage: Stage, at: int, tool: Tool) -> Process:
    """A health check of every key, a few times a day; some gateways draw a chart of the usage too."""
    dice = stage.dice
    charts, every = dice.chance(0.5), dice.pick((6, 12, 24)) * HOUR
    while at < stage.end:
        yield at
        tool.probe(at)
        if charts:
            tool.poll(at + dice.randrange(60_000))
        at += every + dice.randrange(4_000)


_END_USERS = 14  # an account


def reseller(stage: Stage, consumers: Consumers, count: int) -> None:
    """An aggregator under contract: one organisation, API accounts, customers of its own all over
    the world, each named by a stable `end_user_id`; ownership and size are declared.

    Like a station in everything that its customers do.
    """
    dice = stage.dice
    for size in groups(stage, count, 4, 15):
        company = Company.found(stage)
        egress = stage.plan.egress("hosting")
        gateway, users = Gateway(stage, egress), size * _END_USERS
        program = stage.software.program(dice.pick(("gateway", "sdk")))
        _, opens = _keys(stage, company, "reseller", size, gateway, egress, users * 20)
        template = stage.software.application()
        for _ in range(users):
            person = stage.people.make(mode=dice.pick(("terminal", "editor", "application")))
            _behind(stage, person, company, gateway, program, template, opens, direct_share=0.5,
                    busy=0.3)  # fmt: skip


_TASK = Tempo(6, 0.998, 9_000, 1_500, 350, sigma=0.6)
_TASK_EVERY_MS = 75 * 60_000
_BRIEFS = 6  # set prompts of a fleet


def agent_fleet(stage: Stage, consumers: Consumers, count: int) -> None:
    """One owner's agents, a key each: one image, one template, the same few tasks, round the clock,
    and a prompt cache that is always warm.

    Like distillation or a station at full load: near-identical prompts on many accounts, 24 hours.
    """
    dice = stage.dice
    for size in groups(stage, count, 8, 30):
        company = Company.found(stage)
        doors = [stage.plan.egress("hosting") for _ in range(dice.randint(1, 3))]
        boss, kind = company.boss, dice.pick(("cli", "sdk"))
        device = stage.people.device("linux")
        program, template = stage.software.program(kind), Template.make(dice, 2_600, tools=True)
        rig = stage.people.rig(boss, device, program, template)
        rig = replace(rig, cache_ttl="1h", meta=fragment(cache_ttl="1h"))
        home = dice.pick(("/root", "/workspace", "/app"))
        place = _container(stage, home, f"{home}/agent", f"agent@{company.domain}")
        briefs = stage.exchange.script([fragment(prompt_id=dice.token()) for _ in range(_BRIEFS)])
        opens = stage.start if dice.chance(0.6) else stage.moment(0.02, 0.5)
        first: Account | None = None
        for index in range(size):
            account = company.account(stage, "payg", "agent_fleet")
            dossier, at = None, opens
            if opens > stage.start:
                dossier = company.key_papers(stage, index, dice.pick(doors))
                dossier.seats = size if dice.chance(0.5) else None
                at += int(dice.random() * 2 * HOUR)
            company.open(stage, at, account, dossier)
            first = first or account
            since = at + HOUR + int(dice.random() * 3 * HOUR)
            runner = Own(stage, account, _machine(boss, doors))
            stage.agenda.start(since, _work(stage, since, runner, account, rig, place, briefs))
        if first is not None:
            stage.agenda.start(opens + HOUR, company.declare(stage, opens + HOUR, first))


def _container(stage: Stage, home: str, folder: str, git_user: str, repo: str | None = None) -> str:
    """The place of a process that runs in a container."""
    dice = stage.dice
    repo = repo or f"github.com/{dice.pick(stage.pools.words)}/{dice.pick(stage.pools.words)}"
    return fragment(
        workspace_id=folder, home_id=home, repo_id=repo, git_user_id=git_user,
        instructions_id=dice.token(128), workspace_os="linux", workspace_timezone="Etc/UTC",
    )  # fmt: skip


def _work(stage: Stage, at: int, runner: Own, account: Account, rig: Rig, place: str,
          briefs: range) -> Process:  # fmt: skip
    """Task after task, day and night."""
    dice = stage.dice
    while at < stage.end:
        yield at
        if not account.suspended:
            talk = Conversation(dice, rig, place)
            brief = dice.pick(briefs)
            talk.script = range(brief, brief + 1)
            hold(stage, at, talk, runner, _TASK)
        at += int(dice.spread(_TASK_EVERY_MS))


_JOB = Tempo(5, 0.999, 12_000, 2_000, 350, sigma=0.6)
_PUSHES_A_DAY = 6
_JOBS_A_PUSH = (1, 5)


def ci_fleet(stage: Stage, consumers: Consumers, count: int) -> None:
    """Build machines: every job in the same folder on the same image with its device id baked in,
    several keys at the same second, from the few addresses of a build service that other
    organisations use too.

    Like an operator's machines: one device and one minute on many accounts.
    """
    dice = stage.dice
    service = [stage.plan.egress("hosting") for _ in range(8 + count // 20)]
    for size in groups(stage, count, 6, 20):
        company = Company.found(stage)
        boss, image = company.boss, stage.people.device("linux")
        rig = stage.people.rig(boss, image, stage.software.program("cli"))
        doors = [dice.pick(service) for _ in range(5)]
        runners: list[Own] = []
        for index in range(size):
            account = company.account(stage, "payg", "ci_fleet")
            dossier, at = None, stage.start
            if dice.chance(0.35):
                dossier, at = company.key_papers(stage, index, boss.home), stage.moment(0.02, 0.7)
            company.open(stage, at, account, dossier)
            runner = Own(stage, account, _machine(boss, doors))
            stage.agenda.start(at + HOUR if dossier else at, _hire(runners, runner))
        owner = dice.pick(stage.pools.words)
        places = []
        for _ in range(dice.randint(1, 3)):
            name = f"{dice.pick(stage.pools.words)}-{dice.pick(stage.pools.words)}"
            places.append(
                _container(stage, "/home/runner", f"/home/runner/work/{name}/{name}",
                           f"ci@{company.domain}", f"github.com/{owner}/{name}")
            )  # fmt: skip
        stage.agenda.start(stage.start, _builds(stage, boss, runners, rig, places))


def _hire(runners: list[Own], runner: Own) -> Process:
    runners.append(runner)
    yield from ()


def _builds(stage: Stage, boss: Person, runners: list[Own], rig: Rig,
            places: list[str]) -> Process:  # fmt: skip
    """A push starts a few jobs at once, in the team's working hours."""
    dice = stage.dice
    day = (stage.start + boss.offset_ms) // DAY * DAY - boss.offset_ms
    while day < stage.end:
        for at in boss.moments(dice, day, _PUSHES_A_DAY + len(runners) / 2):
            if not stage.agenda.now <= at < stage.end or not runners:
                continue
            yield at
            place = dice.zipf(places)
            for _ in range(dice.randint(*_JOBS_A_PUSH)):
                talk = Conversation(dice, rig, place)
                hold(stage, at + dice.randrange(9_000), talk, dice.pick(runners), _JOB)
        day += DAY
        if day > stage.agenda.now:
            yield day


_UNUSED = 0.12  # share of seats that nobody ever uses [A]


def seat_rollout(stage: Stage, consumers: Consumers, count: int) -> None:
    """A company gives its people seats: one domain, one office, one card, one afternoon.

    Like a merchant's batch: fifty to hundreds of sign-ups in hours, paid from one card.
    """
    dice = stage.dice
    for size in groups(stage, count, 50, 250):
        company = Company.found(stage)
        country = company.boss.country
        office = stage.plan.egress("business", country.code)
        opens = stage.moment(0.05, 0.75)
        for index in range(size):
            person = stage.people.make(country)
            person.networks = [(office, 0.75), (person.home, 1.0)]
            account = company.account(stage, "team", "seat_rollout")
            dossier = papers(stage, person, kyc=0.05)
            dossier.email = f"{person.first.lower()}.{person.last.lower()}@{company.domain}"
            dossier.egress, dossier.card, dossier.channel = office, company.card, "sso"
            dossier.seats = size if dice.chance(0.7) else None
            at = opens + int(dice.random() * (2.5 * HOUR if dice.chance(0.8) else 3 * DAY))
            if index == 0:
                at = opens
                stage.agenda.start(opens + HOUR, company.declare(stage, opens + HOUR, account))
            enter(stage, person, account, dossier, veteran=0, at=at, idle=dice.chance(_UNUSED))
