"""Ordinary customers, and the accidents by which strangers meet.

A consumer signs up at some time, or did so before the world began, and uses the account as often as
he likes: a few try it and leave, some work in it all day. What strangers share is mostly an
accident: a phone number or a device that was somebody else's, a friend's card, a café's address.
"""

from collections.abc import Callable

from synth.account import Account, Truth
from synth.agenda import Process
from synth.conversation import Caller
from synth.geography import Egress
from synth.goods import Card
from synth.habits import Own, hold, login, routine, talk_of
from synth.people import DAY, HOUR, Device, Person
from synth.signup import Dossier, check_identity, local_price, papers, sign_up
from synth.stage import Stage
from synth.wire import fragment

VETERANS = 0.42  # share of accounts that signed up before the world began
WRONGLY_SUSPENDED = 0.012
_TRIES = 0.3  # share that leaves within days
NEVER_CALLS = 0.05  # share of sign-ups after which nothing follows [A]
_PLANS = (("free", 46.0), ("pro", 34.0), ("max", 8.0), ("payg", 12.0))
_APPETITE = {"terminal": 1.9, "editor": 1.7, "application": 4.2, "web": 2.0}

# Accidents of an ordinary consumer, as shares [A].
_SECOND_HAND_NUMBER = 0.015
_FROM_A_FARM = 0.3  # of such numbers: they were rented out for one SMS before
_SECOND_HAND_DEVICE = 0.012
_FRIENDS_CARD = 0.015
_AT_THE_CAFE = 0.05
_GUEST = 0.015  # logs in once on a friend's device
_BAD_PAYER = 0.04  # whose card is declined, or who quarrels over a bill
_CUSTOMERS_A_CAFE = 4

# What an honest owner does when the provider acts [A].
_APPEALS = 0.85
_COMES_BACK = 0.9  # of those who have been restored
_ANSWERS = 0.95  # of those who are challenged
_PASSES = 0.97
_BEARS_A_THROTTLE = 0.97


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


class Owner:
    """Answers for an honest account: appeals a suspension, shows a face when asked, or leaves."""

    __slots__ = ("_account", "_dossier", "_person", "_stage", "gone")

    def __init__(
        self, stage: Stage, account: Account, person: Person, dossier: Dossier | None
    ) -> None:
        self._stage, self._account, self._person = stage, account, person
        self._dossier = dossier  # what the provider has on file
        self.gone = False  # uses the account no more

    def suspended(self, at: int) -> None:
        stage, dice = self._stage, self._stage.dice
        if dice.chance(_APPEALS):
            at += int(dice.spread(9 * HOUR))
            stage.agenda.start(at, stage.provider.appeal(self._account, at))
        else:
            self.gone = True

    def restored(self, at: int) -> None:
        self.gone = not self._stage.dice.chance(_COMES_BACK)

    def challenged(self, at: int) -> None:
        """Show a document some hours later; who does not, or fails, is a customer lost."""
        stage, dice, person = self._stage, self._stage.dice, self._person
        if not dice.chance(_ANSWERS):
            self.gone = True
            return
        file = self._dossier = self._dossier or papers(stage, person, kyc=1.0, paying=False)
        file.identity = file.identity or stage.market.identity(person.country.code, person.last)
        passed = dice.chance(_PASSES)
        self.gone = not passed
        here = person.network(dice).fragment() + dice.pick(person.devices).said()
        check_identity(stage, at + int(dice.spread(5 * HOUR)), self._account, here, file,
                       "passed" if passed else "failed")  # fmt: skip

    def throttled(self, at: int) -> None:
        self.gone = self.gone or not self._stage.dice.chance(_BEARS_A_THROTTLE)


def live(
    stage: Stage, person: Person, account: Account, caller: Caller, mean: float, *,
    dossier: Dossier | None, at: int, until: int, user: str = "", on_file: Dossier | None = None,
    ready: Callable[[Account], None] | None = None, idle: bool = False,
) -> Process:  # fmt: skip
    """Sign up at `at` and try it at once (a veteran has no dossier); then the routine, until the
    owner has had enough.

    Args:
        idle: who signs up never makes a call.
        on_file: what a veteran once brought.
        ready: told when the account can be used.
    """
    dice = stage.dice
    on_file = dossier or on_file
    owner = account.keeper = Owner(stage, account, person, on_file)
    if dossier is not None:
        at = sign_up(stage, at, account, dossier) + int(dice.spread(4 * 60_000))
        yield at
    if ready is not None:
        ready(account)
    if idle and dossier is not None:
        return
    if dossier is not None:
        talk, tempo = talk_of(stage, person, user)
        hold(stage, at, talk, caller, tempo)
    elif account.plan.price_usd and dice.chance((stage.end - stage.start) / (30 * DAY)):
        due = stage.moment()
        card = on_file.card if on_file else None
        stage.agenda.start(due, _renewal(stage, due, account, person, card))
    for wake in routine(stage, person, caller, at, until, mean, account, user):
        if owner.gone:
            return
        yield wake


def _renewal(stage: Stage, at: int, account: Account, person: Person, card: Card | None) -> Process:
    card = card or stage.market.card(person.country.code)
    said = fragment(instrument_id=card.instrument_id, bin=card.bin, funding=card.funding,
                    card_country=card.country)  # fmt: skip
    stage.record.tell(at, account, "payment", said, kind="charge", plan=account.plan.name,
                      amount_usd=local_price(account, person.country.code))  # fmt: skip
    yield from ()


def settle(
    stage: Stage, person: Person, account: Account, mean: float, *,
    dossier: Dossier | None, at: int | None = None, until: int | None = None,
    on_file: Dossier | None = None, caller: Caller | None = None,
    ready: Callable[[Account], None] | None = None, idle: bool = False,
) -> None:  # fmt: skip
    """Put an honest person on the stage, on an account of his own unless there is a caller."""
    at = stage.start if at is None else at
    until = stage.end if until is None else until
    caller = caller or Own(stage, account, person)
    process = live(stage, person, account, caller, mean, dossier=dossier, at=at, until=until,
                   on_file=on_file, ready=ready, idle=idle)  # fmt: skip
    stage.agenda.start(at, process)
    stage.provider.watch(account, at, until, mean_life_days=0, wrong=WRONGLY_SUSPENDED)


def enter(
    stage: Stage, person: Person, account: Account, dossier: Dossier, mean: float | None = None, *,
    veteran: float = VETERANS, at: int | None = None, until: int | None = None,
    caller: Caller | None = None, ready: Callable[[Account], None] | None = None,
    idle: bool = False,
) -> int:  # fmt: skip
    """Settle somebody with these papers, who came at `at` (or at any time) or, with probability
    `veteran`, before the world began. Returns when the account is there (epoch ms)."""
    old = stage.dice.chance(veteran)
    begins = stage.start if old else min(arrival(stage, person) if at is None else at,
                                         stage.end - HOUR)  # fmt: skip
    mean = appetite(stage, person.mode) if mean is None else mean
    settle(stage, person, account, mean, dossier=None if old else dossier, at=begins, until=until,
           on_file=dossier, caller=caller, ready=ready, idle=idle)  # fmt: skip
    return begins


def exchange_device(stage: Stage, person: Person, old: Device, new: Device) -> None:
    """From now on the person has `new` instead of `old`, with the same programs on it."""
    said = fragment(device_id=old.device_id)
    person.devices = [new if device is old else device for device in person.devices]
    person.rigs = [
        stage.people.rig(person, new, rig.program, rig.template) if rig.device == said else rig
        for rig in person.rigs
    ]


class Consumers:
    """Makes consumers, and knows whose number, device or card may turn up again.

    They come before the cohorts, who inherit from them.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._signed: list[tuple[int, Dossier]] = []  # when, with what
        self._cards: list[Card] = []
        self._people: list[tuple[int, Person]] = []  # since when
        self._cafes: dict[str, list[Egress]] = {}

    def one(self, cohort: str = "consumer", person: Person | None = None, *,
            group: str = "", veteran: float = VETERANS) -> Account:  # fmt: skip
        """A consumer with an account, labelled as of `cohort`."""
        stage, dice = self._stage, self._stage.dice
        person = person or stage.people.make()
        plan = plan_of(stage, person)
        account = stage.account(plan, Truth(cohort=cohort, group_id=group))
        mean = appetite(stage, person.mode)
        if dice.chance(_AT_THE_CAFE):
            person.networks.append((self._cafe(person.country.code), 0.5))
        if dice.chance(_GUEST) and self._people:
            stage.agenda.start(at := stage.moment(), self._visit(at, account))
        at = stage.start
        if dice.chance(veteran):
            settle(stage, person, account, mean, dossier=None)
        else:
            at = arrival(stage, person)
            until = at + int(dice.spread(30 * HOUR)) if dice.chance(_TRIES) else None
            dossier = papers(stage, person, paying=plan != "free" or dice.chance(0.2))
            self._accidents(at, dossier, person)
            settle(stage, person, account, mean, dossier=dossier, at=at, until=until,
                   idle=dice.chance(NEVER_CALLS))  # fmt: skip
            self._signed.append((at, dossier))
            if dossier.card:
                self._cards.append(dossier.card)
        if cohort == "consumer":
            self._people.append((at, person))
        return account

    def _accidents(self, at: int, dossier: Dossier, person: Person) -> None:
        dice = self._stage.dice
        if dice.chance(_SECOND_HAND_NUMBER):
            self.second_hand_number(at, dossier)
        if dice.chance(_SECOND_HAND_DEVICE):
            self.second_hand_device(at, person, dossier)
        if dossier.card and self._cards and dice.chance(_FRIENDS_CARD):
            dossier.card = dice.pick(self._cards)
        if dice.chance(_BAD_PAYER):
            dossier.declines, dossier.disputes = 0.4, 0.2

    def second_hand_number(self, at: int, dossier: Dossier) -> None:
        """The number of these papers was somebody else's; whose is seen when they are used, at
        `at`."""
        self._stage.agenda.start(at - 1, self._number(at, dossier))

    def _number(self, at: int, dossier: Dossier) -> Process:
        dice = self._stage.dice
        if dice.chance(_FROM_A_FARM):
            rented = dice.pick(self._stage.market.phone_farms).recycled()
            if rented is not None:
                dossier.phone = rented
                return
        for _ in range(40):
            then, other = dice.pick(self._signed)
            if then < at - HOUR and other is not dossier and other.phone:
                dossier.phone = other.phone
                return
        yield from ()

    def second_hand_device(self, at: int, buyer: Person, dossier: Dossier | None) -> None:
        """At `at` a consumer's device becomes the buyer's: before the sign-up, if there is a
        dossier."""
        stage, dice = self._stage, self._stage.dice
        gone = at - int(dice.spread(5 * HOUR))
        for _ in range(60 if self._people else 0):
            since, seller = dice.pick(self._people)
            sold = dice.pick(seller.devices)
            shown = fragment(device_id=sold.device_id)
            fits = sold.system == buyer.devices[0].system and since < gone - 6 * HOUR
            if fits and seller is not buyer and any(rig.device == shown for rig in seller.rigs):
                break
        else:
            return
        stage.agenda.start(gone, _sale(stage, seller, sold, stage.people.device(sold.system)))
        if dossier is None:
            stage.agenda.start(at, _sale(stage, buyer, buyer.devices[0], sold))
        else:
            exchange_device(stage, buyer, buyer.devices[0], sold)
            dossier.device = sold

    def _cafe(self, country: str) -> Egress:
        """A café, a library: an address of which strangers make use."""
        stage, cafes = self._stage, self._cafes.setdefault(country, [])
        if not cafes or stage.dice.chance(1 / _CUSTOMERS_A_CAFE):
            kind = stage.dice.pick(("business", "residential", "education"))
            cafes.append(stage.plan.egress(kind, country))
        return stage.dice.pick(cafes)

    def _visit(self, at: int, account: Account) -> Process:
        """A log-in on the device of a friend."""
        dice = self._stage.dice
        _, host = dice.pick(self._people)
        if account.events and not account.suspended:
            here = host.home.neighbour(dice).fragment() + dice.pick(host.devices).said()
            login(self._stage, at, account, here)
        yield from ()


def _sale(stage: Stage, person: Person, old: Device, new: Device) -> Process:
    exchange_device(stage, person, old, new)
    yield from ()
