"""What a ring buys to open accounts: the bought counterpart of an honest person's papers.

Vendors sell one good at a time; a ring keeps each on a shelf and uses it for as many accounts as
its traits say. Whatever is bought is booked, unless the accounts come ready-made: then the merchant
has paid for what is in them and the ring pays the merchant.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from synth.account import Account, Truth
from synth.agenda import Process
from synth.books import Book
from synth.conversation import Conversation
from synth.cover import Brief, Hub, Victim
from synth.desk import Desk
from synth.dice import Dice
from synth.geography import BY_CODE, Country, Egress, any_country
from synth.goods import Card, Phone, Shelf
from synth.habits import Tempo, hold, login
from synth.people import DAY, HOUR, Device, Profile
from synth.pools import DISPOSABLE_MAIL, FREE_MAIL
from synth.signup import PROMO_SHARE, Dossier
from synth.stage import Stage
from synth.traits import Range, traits, with_knobs

T = TypeVar("T")

# Where resellers find their customers: half of them as the provider does, half where an official
# plan is dear against wages or not to be had. It is nobody's nationality that makes a ring.
_LEANING: tuple[tuple[str, float], ...] = (
    ("CN", 1.6), ("RU", 1.2), ("IN", 1.2), ("VN", 1.0), ("ID", 1.0), ("TR", 0.9), ("BR", 1.0),
    ("TW", 0.8), ("KR", 0.7), ("SG", 0.5),
)  # fmt: skip


def market_of(dice: Dice) -> Country:
    """The country in which one reseller finds his customers."""
    return BY_CODE[dice.weighted(_LEANING)] if dice.chance(0.5) else any_country(dice)


# What a reseller sells access to, and how often: one way in, for nearly all of his customers.
TRADES: tuple[tuple[str, float], ...] = (
    ("terminal", 4.4), ("editor", 1.8), ("application", 1.8), ("web", 3.0),
)  # fmt: skip
_COUNTRIES = ((1, 5.0), (2, 3.0), (3, 2.0))  # whose papers one ring buys [A]
_USED_AT_ONCE = 0.75  # of fresh accounts
_ONE_TURN = Tempo(1.0, 0.0, 900, 900, 200)


def ring_sizes(stage: Stage, total: int, *, median: float = 9, sigma: float = 1.1,
               low: int = 3, high: int | None = None) -> list[int]:  # fmt: skip
    """Split the abusive accounts of one typology into rings: many small, a few large, none below
    `low` unless there are too few accounts for one."""
    dice, largest = stage.dice, high or max(6, int(0.55 * total))
    sizes: list[int] = []
    while total > 0:
        size = min(max(low, int(dice.lognormal(median, sigma))), largest, total)
        if 0 < total - size < low:
            size = total if total <= largest else max(low, total - low)
        sizes.append(size)
        total -= size
    return sizes


def log_uniform(stage: Stage, span: Range) -> float:
    """A value of a range whose ends are orders of magnitude apart."""
    low, high = span
    return low * math.exp(stage.dice.random() * math.log(high / low)) if high > low else low


class Supply:
    """A ring's goods, each from a shelf that reuses it as often as the ring's traits say."""

    def __init__(self, stage: Stage, typology: str, brief: Brief, *, pools: bool = True,
                 stolen: bool = False, own: bool = False, **habits: Any) -> None:  # fmt: skip
        """`habits` are traits that this kind of business has at every tier; knobs come last.
        Only who `pools` accounts buys them ready-made; `stolen` cards are somebody's, `own` cards and
        numbers the operator's."""
        dice, market = stage.dice, stage.market
        self.stage, self._brief = stage, brief
        self.stolen, self.own = stolen, own
        self.fixed = (*habits, *brief.knobs)
        drawn = replace(traits(brief.tier, dice), **habits)
        self.traits = with_knobs(drawn, brief.knobs)
        ring, tier = f"ring_{dice.token(64)}", self.traits.tier
        self.truth = Truth(ring_id=ring, typology=typology, tier=tier, group_id=ring)
        self.book = Book(ring, typology, tier)
        stage.books.append(self.book)
        self.ready = pools and dice.chance(self.traits.buys_ready)
        self.hub = Hub(stage) if brief.hub else None
        # Whose papers and cards it buys: rather where a plan is cheap.
        self.countries: list[Country] = [
            min((any_country(dice), any_country(dice)), key=lambda c: c.price)
            for _ in range(dice.weighted(_COUNTRIES))
        ]
        self._farm = dice.pick(market.phone_farms)
        self._vendor = dice.pick(market.proxy_vendors)
        self._faces_of = dice.pick(market.face_farms)
        self._mail = dice.weighted(
            (("domain", 5.0), ("alias", 2.0), ("scrambled", 2.0), ("disposable", 0.6))
        )
        self._mailbox = f"{dice.pick(stage.pools.words)}{dice.pick(stage.pools.words)}"
        self._referrer = f"ref_{dice.token(40)}" if dice.chance(0.3) else None
        self._own_papers = own or dice.chance(
            0.25
        )  # buys SIMs over the counter instead of SMS codes
        self.accounts: list[Account] = []
        self.restock()

    def restock(self) -> None:
        """Shelves as the traits now are."""
        stage, dice, market, traits = self.stage, self.stage.dice, self.stage.market, self.traits
        bank = max(1, dice.randint(*traits.card_bins) - 1)
        bins = [] if self.stolen else market.virtual_bins(dice.randint(1, 2))
        bins += [market.bank_bin(dice.pick(self.countries).code) for _ in range(bank)]
        self._templates = [dice.token(48) for _ in range(dice.randint(*traits.templates))]
        self._rooms = [dice.token(64) for _ in range(dice.randint(*traits.rooms))]
        lease = self._farm.lease(traits.phone_block, traits.voip, self._somewhere())

        def phone() -> Phone:
            rented = self._farm.rent(lease)
            self._pay("sms_voip" if rented.line_type == "voip" else "sms_mobile")
            return rented

        def card() -> Card:
            if self.own:
                return market.card(self.countries[0].code)
            self._pay("stolen_card" if self.stolen else "virtual_card")
            return market.bought_card(dice.pick(bins), dice.pick(self.countries).code)

        def face() -> tuple[str, tuple[int, ...]]:
            self._pay(self.face_good())
            return self._faces_of.lend()

        def egress() -> Egress:
            return self._vendor.buy(traits.egress_quality, self._somewhere())

        def door() -> Egress:
            bought = egress()
            self.book.buy(self._vendor.sold_as(bought))
            return bought

        def counter() -> Egress:
            self._pay("residential_gb", 0.05)
            return egress()

        self._phones = Shelf(dice, phone, *traits.phone_uses)
        self._cards = Shelf(dice, card, *traits.card_uses)
        self._faces = Shelf(dice, face, *traits.face_uses)
        self.devices: Shelf[Device] = Shelf(
            dice, self._paid("device", stage.people.device), *traits.device_uses
        )
        self._domains: Shelf[str] = Shelf(
            dice, self._paid("domain", lambda: stage.pools.domain(dice)), *traits.domain_uses,
            at_once=2,
        )  # fmt: skip
        self._doors = Shelf(dice, door, *traits.egress_uses, at_once=1)
        self._counters = Shelf(dice, counter, *traits.signup_egress_uses)

    def _somewhere(self) -> str:
        """A country whose papers it uses, or "": it does not look where."""
        dice = self.stage.dice
        return dice.pick(self.countries).code if dice.chance(self.traits.local) else ""

    def face_good(self) -> str:
        synthetic = self.stage.dice.chance(self.traits.synthetic_faces)
        return "synthetic_face" if synthetic else "identity"

    def _paid(self, good: str, make: Callable[[], T]) -> Callable[[], T]:
        def bought() -> T:
            self._pay(good)
            return make()

        return bought

    def _pay(self, good: str, count: float = 1.0) -> None:
        """Goods that go into an account; a merchant has paid for those of a ready one."""
        if not self.ready:
            self.book.buy(good, count)

    def pay_for(self, account: Account) -> None:
        """An account comes to the ring: the merchant's price, or some minutes of somebody's."""
        self.accounts.append(account)
        if self.ready:
            paying = account.plan.price_usd > 0 or account.plan.metered
            self.book.buy("account_plan" if paying else "account_free")
        else:
            self.book.buy("labour_hour", 0.1)

    def profile(self) -> Profile:
        """What one account is used from."""
        return self._profile(self.door())

    def _profile(self, egress: Egress) -> Profile:
        dice, country = self.stage.dice, BY_CODE[egress.country]
        language = country.language if dice.chance(0.7) else "en-US"
        return Profile(egress, self.devices.take(), dice.pick(country.zones), language)

    def door(self) -> Egress:
        """An egress for one account."""
        dice = self.stage.dice
        if self.hub and dice.chance(self._brief.hub):
            return self.hub.door(dice)
        return self._doors.take()

    def places(self, own: list[str]) -> list[str]:
        """Where a user of the ring's accounts says it works."""
        if self.hub and own and self.stage.dice.chance(self._brief.hub):
            return [self.hub.place]
        return own

    def card(self) -> Card:
        return self._cards.take()

    def _address(self, first: str, last: str) -> str:
        dice, pools = self.stage.dice, self.stage.pools
        local = pools.local_part(dice, first, last)
        if dice.chance(self.traits.human_mail):
            return f"{local}@{dice.weighted(FREE_MAIL)}"
        if self._mail == "domain":
            return f"{local}@{self._domains.take()}"
        if self._mail == "alias":
            return f"{self._mailbox}+{dice.pick(pools.words)}{dice.randrange(99)}@gmail.com"
        if self._mail == "scrambled":
            return f"{pools.scrambled(dice)}@{dice.weighted(FREE_MAIL)}"
        return f"{local}@{dice.pick(DISPOSABLE_MAIL)}"

    def dossier(self, *, kyc: float, paying: bool, declines: float = 0.09, disputes: float = 0.02,
                profile: Profile | None = None) -> Dossier:  # fmt: skip
        """What the ring brings to one sign-up; `kyc` is the probability of an identity check. Without
        a `profile` it is done at the counter: another address and device than those of use."""
        stage, dice = self.stage, self.stage.dice
        first, last = dice.pick(stage.pools.first_names), dice.pick(stage.pools.last_names)
        profile = profile or self._profile(self._counters.take())
        # papers of where the egress is, if the ring buys such
        there = [c for c in self.countries if c.code == profile.egress.country]
        country = dice.pick(there or self.countries)
        code = country.code
        identity = None
        if dice.chance(kyc):
            identity = stage.market.identity(
                code, last, face=self._faces.take(),
                template=dice.pick(self._templates) if dice.chance(0.7) else None,
                background=dice.pick(self._rooms) if dice.chance(0.6) else None,
            )  # fmt: skip
        if self._own_papers:
            phone = stage.market.phone(code)
            self._pay("sim")
        else:
            phone = self._phones.take()
        away = dice.chance(0.12)
        late = dice.chance(0.4)
        dossier = Dossier(
            email=self._address(first, last),
            egress=profile.egress,
            device=profile.device,
            zone=profile.zone,
            language=profile.language,
            phone=phone if dice.chance(0.91) else None,
            identity=identity,
            card=self._cards.take() if paying else None,
            billing_country=any_country(dice).code if away else code,
            billing_address=f"{dice.pick(stage.pools.streets)}, {dice.randrange(10_000, 99_999)}",
            channel=dice.weighted((("web", 7.2), ("oauth", 2.4), ("invite", 0.4))),
            promo_id=dice.zipf(stage.market.promos) if dice.chance(PROMO_SHARE) else None,
            referrer_id=self._referrer if dice.chance(0.3) else None,
            form_ms=int(dice.spread(34_000)),
            otp_ms=int(dice.spread(13_000)),
            kyc_after_ms=int(dice.random() * 4 * DAY if late else dice.spread(9 * 60_000)),
            declines=declines,
            disputes=disputes,
        )
        if self.hub and dice.chance(self._brief.hub):
            dossier.egress, dossier.promo_id = self.hub.door(dice), self.hub.promo
        if self._brief.victims and dice.chance(0.6):
            self._frame(dossier)
        return dossier

    def _frame(self, dossier: Dossier) -> None:
        """Take the next victim: sign up like him now, call like him later."""
        stage, dice = self.stage, self.stage.dice
        victim = self._brief.victims.pop()
        victim.smear(dice, dossier)
        at = max(stage.agenda.now, victim.since)
        at += int(dice.random() * max(0, stage.end - at))
        stage.agenda.start(at, self._touch(at, victim))

    def _touch(self, at: int, victim: Victim) -> Process:
        """One call on an account of the ring that looks as if the victim had made it."""
        stage, dice, person = self.stage, self.stage.dice, victim.person
        mine = [account for account in self.accounts if account.events and not account.suspended]
        if mine:
            account = dice.pick(mine)
            login(stage, at, account, person.home.fragment() + dice.pick(person.devices).said())
            place = dice.pick(person.workspaces) if person.workspaces else ""
            talk = Conversation(dice, dice.pick(person.rigs), place)
            hold(stage, at, talk, Desk(stage, account, person.home), _ONE_TURN, 1)
        yield from ()

    def batches(self, count: int) -> list[int]:
        """When `count` accounts are opened: batches all over the span, minutes to days wide."""
        stage, dice = self.stage, self.stage.dice
        times: list[int] = []
        while len(times) < count:
            opens, width = stage.moment(0.0, 0.88), log_uniform(stage, self.traits.batch_ms)
            for _ in range(round(log_uniform(stage, self.traits.batch))):
                times.append(min(int(opens + dice.random() * width), stage.end - HOUR))
        dice.shuffle(times)
        return sorted(times[:count])

    def dormancy(self, at: int) -> int:
        """How long an account opened at `at` lies (ms), within what is left of the world."""
        dice = self.stage.dice
        if dice.chance(_USED_AT_ONCE):
            return int(dice.spread(4 * 60_000))
        lies = log_uniform(self.stage, self.traits.dormancy_ms)
        return int(min(lies, 0.6 * dice.random() * (self.stage.end - at)))
