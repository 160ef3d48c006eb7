"""Honest organisations: many accounts, one owner.

A gateway shuffles its employees' calls over the organisation's own keys, so that most of its
conversations change accounts all the time; a roll-out gives fifty people a seat in an afternoon.
Accounts of one organisation carry one `org_id`, and that is all that tells them from a pool.
"""

from dataclasses import replace

from synth import calls as c
from synth.account import Account, Truth
from synth.agenda import Process
from synth.geography import Egress
from synth.habits import routine
from synth.honest import Consumers, appetite, settle
from synth.lookalikes import group_id, groups
from synth.people import DAY, HOUR, Person, Rig
from synth.signup import Dossier, papers, sign_up
from synth.stage import Stage
from synth.wire import fragment


class Gateway:
    """One egress, several own keys: a random one each call, another one on a refusal."""

    seat = customer = c.NONE

    def __init__(self, stage: Stage, egress: Egress) -> None:
        self._stage = stage
        self._net, self._link = stage.exchange.net(egress), stage.exchange.link()
        # it keeps one connection alive for all of its keys
        self.pool = stage.exchange.pool(c.RANDOM, switches=2, links=c.LINK_SHARED, link_ms=6 * HOUR)

    def add(self, account: Account) -> None:
        """One more key to call with."""
        exchange = self._stage.exchange
        seat = exchange.seat(account.n, self.pool, net=self._net, link=self._link)
        exchange.join(self.pool, seat)

    def net(self) -> int:
        return c.NONE


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
        gateway = Gateway(stage, egress)
        veteran = dice.chance(0.5)
        opens = stage.start if veteran else stage.moment(0.02, 0.6)
        card = stage.market.card(boss.country.code)
        for index, account in enumerate(accounts):
            if veteran:
                gateway.add(account)
                continue
            dossier = papers(stage, boss, kyc=0.2 if index else 0.9)
            dossier.email = f"{dice.pick(stage.pools.words)}{index}@{domain}"
            dossier.egress, dossier.card, dossier.channel = egress, card, "sso"
            dossier.seats = size * 6 if dice.chance(0.5) else None
            at = opens + int(dice.random() * (3 * HOUR if index < size // 2 else 2 * DAY))
            stage.agenda.start(at, _join(stage, at, account, dossier, gateway))
        at = opens + HOUR
        stage.agenda.start(at, _declare(stage, at, accounts[0], boss))
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
    return replace(own, agent=gateway.agent, tls=gateway.tls, device="", stated=gateway.stated,
                   order=gateway.order)  # fmt: skip


def _join(stage: Stage, at: int, account: Account, dossier: Dossier, gateway: Gateway) -> Process:
    yield sign_up(stage, at, account, dossier)
    gateway.add(account)


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
