"""What a ring buys to open accounts: the bought counterpart of an honest person's papers."""

from synth.account import Truth
from synth.geography import Country, Egress, any_country
from synth.goods import Card, Phone, Shelf
from synth.people import Device
from synth.pools import DISPOSABLE_MAIL, FREE_MAIL
from synth.signup import Dossier
from synth.stage import Stage
from synth.traits import Traits

# Where stations find their customers, and how often.
MARKETS: tuple[tuple[str, float], ...] = (
    ("CN", 4.0), ("RU", 1.6), ("IN", 1.0), ("VN", 0.8), ("ID", 0.8), ("TR", 0.6), ("BR", 0.8),
    ("US", 0.8),
)  # fmt: skip


def ring_sizes(stage: Stage, total: int) -> list[int]:
    """Split the abusive accounts of one typology into rings: many small, a few large, none below 3
    unless there are too few accounts for one."""
    dice, largest = stage.dice, max(6, int(0.55 * total))
    sizes: list[int] = []
    while total > 0:
        size = min(max(3, int(dice.lognormal(9, 0.9))), largest, total)
        if total - size < 3:
            size = total
        sizes.append(size)
        total -= size
    return sizes


class Supply:
    """A ring's goods, each from a shelf that reuses it as often as the tier dares."""

    def __init__(self, stage: Stage, typology: str, traits: Traits) -> None:
        dice, market = stage.dice, stage.market
        self.stage, self.traits = stage, traits
        ring = f"ring_{dice.token(64)}"
        self.truth = Truth(ring_id=ring, typology=typology, tier=traits.tier, group_id=ring)
        # Whose papers and cards it buys: rather where a plan is cheap.
        self.countries: list[Country] = [
            min((any_country(dice), any_country(dice)), key=lambda c: c.price) for _ in range(3)
        ]
        farm, vendor = dice.pick(market.phone_farms), dice.pick(market.proxy_vendors)
        bins = market.virtual_bins(dice.randint(1, 3))
        if dice.chance(0.7):  # carded or borrowed ones of a real bank
            bins += [market.bank_bin(self.countries[0].code)] * dice.randint(1, 4)
        templates = [dice.token(48) for _ in range(dice.randint(1, 2))]
        rooms = [dice.token(64) for _ in range(dice.randint(1, 3))]
        self._templates, self._rooms = templates, rooms
        self._farm_phones: Shelf[Phone] = Shelf(dice, farm.rent, *traits.phone_uses)
        self._cards: Shelf[Card] = Shelf(
            dice,
            lambda: market.bought_card(dice.pick(bins), dice.pick(self.countries).code),
            *traits.card_uses,
        )
        self._faces = Shelf(dice, market.face, *traits.face_uses)
        self.devices: Shelf[Device] = Shelf(dice, stage.people.device, *traits.device_uses)
        self._domains: Shelf[str] = Shelf(
            dice, lambda: stage.pools.domain(dice), *traits.domain_uses, at_once=2
        )
        quality = traits.egress_quality
        self.egress: Shelf[Egress] = Shelf(dice, lambda: vendor.buy(quality), *traits.egress_uses)
        self._counters: Shelf[Egress] = Shelf(
            dice, lambda: vendor.buy(quality), *traits.signup_egress_uses
        )
        self._mail = dice.weighted(
            (("domain", 5.0), ("alias", 2.0), ("scrambled", 2.0), ("disposable", 0.6))
        )
        self._mailbox = f"{dice.pick(stage.pools.words)}{dice.pick(stage.pools.words)}"
        self._referrer = f"ref_{dice.token(40)}" if dice.chance(0.3) else None
        self._own_papers = dice.chance(0.35)  # buys SIMs over the counter instead of SMS codes

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

    def dossier(self, *, kyc: float, paying: bool, disputes: float = 0.02) -> Dossier:
        """What the ring brings to one sign-up; `kyc` is the probability of an identity check."""
        stage, dice = self.stage, self.stage.dice
        first, last = dice.pick(stage.pools.first_names), dice.pick(stage.pools.last_names)
        country = dice.pick(self.countries)
        code = country.code
        identity = None
        if dice.chance(kyc):
            identity = stage.market.identity(
                code, last, face=self._faces.take(),
                template=dice.pick(self._templates) if dice.chance(0.7) else None,
                background=dice.pick(self._rooms) if dice.chance(0.6) else None,
            )  # fmt: skip
        phone = stage.market.phone(code) if self._own_papers else self._farm_phones.take()
        away = dice.chance(0.15)
        return Dossier(
            email=self._address(first, last),
            egress=self._counters.take(),
            device=self.devices.take(),
            zone=dice.pick(country.zones),
            language=country.language if dice.chance(0.6) else "en-US",
            phone=phone if dice.chance(0.92) else None,
            identity=identity,
            card=self._cards.take() if paying else None,
            billing_country=any_country(dice).code if away else code,
            billing_address=f"{dice.pick(stage.pools.streets)}, {dice.randrange(10_000, 99_999)}",
            channel=dice.weighted((("web", 7.5), ("oauth", 2.2), ("invite", 0.3))),
            referrer_id=self._referrer if dice.chance(0.5) else None,
            form_ms=int(dice.spread(30_000)),
            otp_ms=int(dice.spread(15_000)),
            kyc_after_ms=int(dice.spread(9 * 60_000)),
            declines=0.1,
            disputes=disputes,
        )

    def batches(self, count: int) -> list[int]:
        """When `count` accounts are opened: batches all over the span, minutes to hours wide."""
        stage, dice = self.stage, self.stage.dice
        times: list[int] = []
        while len(times) < count:
            opens, width = stage.moment(0.0, 0.88), dice.spread(70 * 60_000)
            for _ in range(dice.randint(1, 8)):
                times.append(min(int(opens + dice.random() * width), stage.end - 3_600_000))
        return sorted(times[:count])
