"""Ordinary customers, and the accidents by which strangers meet.

A consumer signs up at some time, or did so before the world began, and uses the account as often as
he likes: a few try it and leave, some work in it all day. A phone number may have belonged to
somebody else before, and a device may have been bought second-hand.
"""

from synth.account import Account, Truth
from synth.agenda import Process
from synth.conversation import Caller
from synth.habits import Own, hold, routine, talk_of
from synth.people import DAY, HOUR, Device, Person
from synth.signup import Dossier, check_identity, local_price, papers, sign_up
from synth.stage import Stage
from synth.wire import fragment

VETERANS = 0.42  # share of accounts that signed up before the world began
WRONGLY_SUSPENDED = 0.012
_OBJECTS = 0.85  # share of suspensions against which somebody appeals
_COMPLIES = 0.93  # share of challenges that are met
_TRIES = 0.3  # share that leaves within days
_PLANS = (("free", 46.0), ("pro", 34.0), ("max", 8.0), ("payg", 12.0))
_APPETITE = {"terminal": 1.9, "editor": 1.7, "application": 4.2, "web": 2.0}
_RECYCLED_PHONE = 0.015
_RESOLD_DEVICE = 0.012


def appetite(stage: Stage, mode: str) -> float:
    """Conversations a working day; few people have many."""
    return min(stage.dice.lognormal(_APPETITE[mode], 0.95), 14.0)


def plan_of(stage: Stage, person: Person) -> str:
    if person.mode == "application":
        return "payg" if stage.dice.chance(0.7) else "free"
    return stage.dice.weighted(_PLANS)


def arrival(stage: Stage, person: Person) -> int:
    """A time to sign up: any day of the span, mostly within the person's waking hours."""
    dice = stage.dice
    while True:
        at = stage.moment(0.0, 0.94)
        hour = (at + person.offset_ms) % DAY / HOUR
        if (hour - person.starts_h) % 24 < person.awake_h or dice.chance(0.05):
            return at


def live(
    stage: Stage, person: Person, account: Account, caller: Caller, mean: float, *,
    dossier: Dossier | None, at: int, until: int, user: str = "",
) -> Process:  # fmt: skip
    """Sign up at `at` and try it at once (a veteran has no dossier); then the routine."""
    dice = stage.dice
    if dossier is not None:
        at = sign_up(stage, at, account, dossier) + int(dice.spread(4 * 60_000))
        yield at
        talk, tempo = talk_of(stage, person, user)
        hold(stage, at, talk, caller, tempo)
    elif account.plan.price_usd and dice.chance((stage.end - stage.start) / (30 * DAY)):
        due = stage.moment()
        stage.agenda.start(due, _renewal(stage, due, account, person))
    yield from routine(stage, person, caller, at, until, mean, account, user)


def _renewal(stage: Stage, at: int, account: Account, person: Person) -> Process:
    card = stage.market.card(person.country.code)
    said = fragment(instrument_id=card.instrument_id, bin=card.bin, funding=card.funding,
                    card_country=card.country)  # fmt: skip
    stage.record.tell(at, account, "payment", said, kind="charge", plan=account.plan.name,
                      amount_usd=local_price(account, person.country.code))  # fmt: skip
    yield from ()


class Owner:
    """An honest person's answer to what the provider does to the account."""

    def __init__(self, stage: Stage, account: Account, person: Person) -> None:
        self._stage, self._account, self._person = stage, account, person

    def suspended(self, at: int) -> None:
        """Most object, within a day."""
        stage = self._stage
        if stage.dice.chance(_OBJECTS):
            when = at + int(stage.dice.spread(9 * HOUR))
            stage.agenda.start(when, stage.provider.appeal(self._account, when))

    def restored(self, at: int) -> None:
        """Life goes on."""

    def challenged(self, at: int) -> None:
        """Shows a face and a document within hours, or cannot be bothered."""
        stage, person = self._stage, self._person
        if stage.dice.chance(_COMPLIES):
            dossier = papers(stage, person, kyc=1.0)
            here = dossier.egress.fragment() + dossier.device.said()
            when = at + int(stage.dice.spread(6 * HOUR))
            check_identity(stage, when, self._account, here, dossier)

    def throttled(self, at: int) -> None:
        """Waits."""


def settle(
    stage: Stage, person: Person, account: Account, mean: float, *,
    dossier: Dossier | None, at: int | None = None, until: int | None = None,
) -> None:  # fmt: skip
    """Put an honest person on the stage, on an account of his own."""
    at = stage.start if at is None else at
    until = stage.end if until is None else until
    process = live(stage, person, account, Own(stage, account, person), mean, dossier=dossier,
                   at=at, until=until)  # fmt: skip
    stage.agenda.start(at, process)
    account.keeper = Owner(stage, account, person)
    stage.provider.watch(account, at, until, mean_life_days=0, wrong=WRONGLY_SUSPENDED)


class Consumers:
    """Makes consumers, and remembers whose phone and device may turn up again."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._phones: list[Dossier] = []
        self._devices: list[Device] = []

    def one(self, cohort: str = "consumer", person: Person | None = None, *,
            group: str = "", veteran: float = VETERANS) -> Account:  # fmt: skip
        """A consumer with an account, labelled as of `cohort`."""
        stage, dice = self._stage, self._stage.dice
        person = person or stage.people.make()
        plan = plan_of(stage, person)
        account = stage.account(plan, Truth(cohort=cohort, group_id=group))
        mean = appetite(stage, person.mode)
        if dice.chance(veteran):
            settle(stage, person, account, mean, dossier=None)
            return account
        at = arrival(stage, person)
        until = at + int(dice.spread(30 * HOUR)) if dice.chance(_TRIES) else None
        dossier = papers(stage, person, paying=plan != "free" or dice.chance(0.2))
        self._accidents(dossier, person)
        settle(stage, person, account, mean, dossier=dossier, at=at, until=until)
        return account

    def _accidents(self, dossier: Dossier, person: Person) -> None:
        stage, dice = self._stage, self._stage.dice
        if dice.chance(_RECYCLED_PHONE):
            farm = dice.pick(stage.market.phone_farms).recycled() if dice.chance(0.3) else None
            if farm is not None:
                dossier.phone = farm
            elif self._phones:
                dossier.phone = dice.pick(self._phones).phone
        elif dossier.phone and dice.chance(0.05):
            self._phones.append(dossier)
        if self._devices and dice.chance(_RESOLD_DEVICE):
            old = dice.pick(self._devices)
            person.devices[0] = old
            dossier.device = old
            stage.people.equip(person)
        elif dice.chance(0.05):
            self._devices.append(dice.pick(person.devices))
