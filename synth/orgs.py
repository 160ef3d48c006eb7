"""Honest organisations: many accounts, one owner.

A gateway shuffles its employees' calls over the organisation's own keys, so that most of its
conversations change accounts all the time; a roll-out gives fifty people a seat in an afternoon.
Accounts of one organisation carry one `org_id`, and that is all that tells them from a pool.
"""

from dataclasses import replace

from synth.account import Account, Truth
from synth.agenda import Process
from synth.conversation import Conversation, Lane
from synth.geography import Egress
from synth.habits import always, routine
from synth.honest import Consumers, appetite, settle
from synth.lookalikes import group_id, groups
from synth.people import DAY, HOUR, Person, Rig
from synth.signup import Dossier, papers, sign_up
from synth.stage import Stage
from synth.wire import fragment


class Gateway:
    """One egress, several own keys: a random one each call, another one on a refusal."""

    switches = 2
    intercepts = False

    def __init__(self, stage: Stage, accounts: list[Account], egress: Egress) -> None:
        self._stage, self._accounts = stage, accounts
        self._net = egress.fragment()
        self._link = ""
        self._link_until = 0

    def lane(self, at: int, talk: Conversation) -> Lane | None:
        dice = self._stage.dice
        ready = [a for a in self._accounts if 0 < a.born <= at]
        if not ready:
            return None
        account = dice.pick(ready)
        lane = talk.lanes.get(account.id)
        if lane is None:
            said = always(dice, account, self._net, talk, self._connection(at))
            lane = Lane(account, said, talk.once)
            talk.lanes[account.id] = lane
        return lane

    def refused(self, at: int, talk: Conversation, lane: Lane, status: int, wait_s: float) -> None:
        return

    def _connection(self, at: int) -> str:
        """The gateway keeps one connection alive for all of its keys."""
        if at > self._link_until:
            dice = self._stage.dice
            self._link = fragment(connection_id=dice.token(80))
            self._link_until = at + int(dice.spread(6 * HOUR))
        return self._link if self._stage.dice.chance(0.87) else ""


def _company(stage: Stage) -> tuple[str, str, Person]:
    """An organisation's id, its mail domain and the person who signs."""
    return f"org_{stage.dice.token(80)}", stage.pools.domain(stage.dice), stage.people.make()


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
    """One organisation, one egress, many keys."""
    dice = stage.dice
    for size in groups(stage, count, 10, 30):
        org, domain, boss = _company(stage)
        group = group_id(stage)
        egress = stage.plan.egress(dice.pick(("business", "hosting")), boss.country.code)
        accounts = [
            stage.account("enterprise", Truth(cohort="company_gateway", group_id=group), org)
            for _ in range(size)
        ]
        veteran = dice.chance(0.5)
        opens = stage.start if veteran else stage.moment(0.02, 0.6)
        card = stage.market.card(boss.country.code)
        for index, account in enumerate(accounts):
            if veteran:
                account.born = 1
                continue
            dossier = papers(stage, boss, kyc=0.2 if index else 0.9)
            dossier.email = f"{dice.pick(stage.pools.words)}{index}@{domain}"
            dossier.egress, dossier.card, dossier.channel = egress, card, "sso"
            dossier.seats = size * 6 if dice.chance(0.5) else None
            at = opens + int(dice.random() * (3 * HOUR if index < size // 2 else 2 * DAY))
            stage.agenda.start(at, _join(stage, at, account, dossier))
        at = opens + HOUR
        stage.agenda.start(at, _declare(stage, at, accounts[0], boss))
        gateway = Gateway(stage, accounts, egress)
        template = stage.software.application()
        program = stage.software.program("gateway")
        for _ in range(size * 3):
            person = stage.people.make(boss.country, mode="terminal")
            rig = stage.people.rig(person, person.devices[0], program, template)
            person.rigs = [rig] if dice.chance(0.6) else [_through(rig, r) for r in person.rigs]
            user = fragment(end_user_id=f"{person.user}{dice.randrange(10, 99)}@{domain}")
            since = opens + int(dice.spread(5 * HOUR))
            mean = appetite(stage, person.mode) * 0.45
            stage.agenda.start(
                since, routine(stage, person, gateway, since, stage.end, mean, user=user)
            )


def _through(gateway: Rig, own: Rig) -> Rig:
    """An employee's own client behind the gateway: its prompt, the gateway's headers."""
    return replace(own, agent=gateway.agent, tls=gateway.tls, device="", stated=gateway.stated)


def _join(stage: Stage, at: int, account: Account, dossier: Dossier) -> Process:
    sign_up(stage, at, account, dossier)
    yield from ()


def _declare(stage: Stage, at: int, account: Account, boss: Person) -> Process:
    stage.record.tell(at, account, "ownership_declared", owners=_owners(stage, boss))
    yield from ()


def seat_rollout(stage: Stage, consumers: Consumers, count: int) -> None:
    """A company gives its people seats: one domain, one office, one afternoon."""
    dice = stage.dice
    for size in groups(stage, count, 30, 90):
        org, domain, boss = _company(stage)
        group = group_id(stage)
        office = stage.plan.egress("business", boss.country.code)
        card = stage.market.card(boss.country.code)
        opens = stage.moment(0.05, 0.75)
        for index in range(size):
            person = stage.people.make(boss.country)
            person.networks = [(office, 0.75), (person.home, 1.0)]
            account = stage.account("team", Truth(cohort="seat_rollout", group_id=group), org)
            dossier = papers(stage, person, kyc=0.05)
            dossier.email = f"{person.first.lower()}.{person.last.lower()}@{domain}"
            dossier.egress, dossier.card, dossier.channel = office, card, "sso"
            dossier.seats = size if dice.chance(0.7) else None
            at = opens + int(dice.random() * (2.5 * HOUR if dice.chance(0.8) else 3 * DAY))
            if index == 0:
                at = opens
                stage.agenda.start(opens + HOUR, _declare(stage, opens + HOUR, account, boss))
            settle(stage, person, account, appetite(stage, person.mode), dossier=dossier,
                   at=min(at, stage.end - HOUR))  # fmt: skip
