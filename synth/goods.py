"""The scarce goods that an account is made of: phone numbers, cards, identities, addresses.

An honest customer owns his. An abusive operator buys them from a few vendors, and every one costs
money, so each is used as often as it will pass: that reuse is the `Shelf`. Vendors serve several
operators and have a recognisable stock (number blocks, BINs, document templates, address ranges),
which honest users of pre-paid numbers, virtual cards and VPNs partly share.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Generic, TypeVar

import phonenumbers

from synth.dice import Dice
from synth.geography import COUNTRIES, AddressPlan, Egress, Prefix, any_country
from synth.pools import Pools

T = TypeVar("T")


class Shelf(Generic[T]):
    """Goods bought one by one and used up: each serves between `low` and `high` accounts.

    A few stay open at a time, so that reuse is spread over days rather than back to back.
    """

    def __init__(self, dice: Dice, buy: Callable[[], T], low: int, high: int, at_once: int = 3):
        self._dice, self._buy, self._low, self._high = dice, buy, low, high
        self._at_once = at_once
        self._open: list[tuple[T, int]] = []

    def take(self) -> T:
        dice = self._dice
        if len(self._open) < self._at_once:
            self._open.append((self._buy(), dice.randint(self._low, self._high)))
        index = dice.randrange(len(self._open))
        item, left = self._open[index]
        if left <= 1:
            del self._open[index]
        else:
            self._open[index] = (item, left - 1)
        return item


@dataclass(frozen=True, slots=True)
class Phone:
    number: str
    line_type: str


@dataclass(frozen=True, slots=True)
class Card:
    instrument_id: str
    bin: str
    funding: str
    country: str


@dataclass(frozen=True, slots=True)
class Identity:
    """What an identity check sees: a face, a document, and the room behind them."""

    face_id: str
    face_sketch: tuple[int, ...]
    document_id: str
    document_type: str
    document_country: str
    template_id: str
    document_sketch: tuple[int, ...]
    background_id: str
    mrz: str | None


@cache
def _number_blocks(region: str, kind: int) -> tuple[str, ...]:
    """Valid E.164 prefixes with four free digits, of one country and one line type.

    Built from the numbering plan's example number: its last digits are varied as far as the plan
    allows. Countries without numbers of that type give none.
    """
    example = phonenumbers.example_number_for_type(region, kind)
    if example is None:
        return ()
    text = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
    blocks: dict[str, None] = {}
    for step in range(400):
        middle = (step * 7919 + 13) % 1000
        block = f"{text[:-7]}{middle:03d}"
        if _is_kind(f"{block}5283", kind):
            blocks[block] = None
        if len(blocks) >= 40:
            break
    return tuple(blocks) or (text[:-4],)


def _is_kind(number: str, kind: int) -> bool:
    parsed = phonenumbers.parse(number)
    found = phonenumbers.number_type(parsed)
    return found in (kind, phonenumbers.PhoneNumberType.FIXED_LINE_OR_MOBILE)


def _phone(dice: Dice, block: str, line_type: str) -> Phone:
    return Phone(f"{block}{dice.randrange(10_000):04d}", line_type)


# Shares of honest line types; internet numbers are common where a SIM is dear.
_LINES = (("mobile", 88.0), ("voip", 9.0), ("fixed", 3.0))
_KIND = {
    "mobile": phonenumbers.PhoneNumberType.MOBILE,
    "voip": phonenumbers.PhoneNumberType.VOIP,
    "fixed": phonenumbers.PhoneNumberType.FIXED_LINE,
}
_BANKS_A_COUNTRY = 5
_TEMPLATES_A_COUNTRY = 3
_DOCUMENTS = (("id_card", 4.0), ("passport", 3.0), ("licence", 2.5), ("permit", 0.5))


class Market:
    """Where everybody's goods come from, honest or not."""

    def __init__(self, dice: Dice, plan: AddressPlan, pools: Pools, operators: int) -> None:
        self.dice, self.plan, self.pools = dice, plan, pools
        self._banks = {
            c.code: [f"{dice.randrange(400_000, 559_999)}" for _ in range(_BANKS_A_COUNTRY)]
            for c in COUNTRIES
        }
        # Virtual-card issuers have honest customers too; vendors buy from the same few.
        self._virtual_bins = [f"{dice.randrange(40_000_000, 55_999_999)}" for _ in range(7)]
        self._templates = {
            c.code: [dice.token(48) for _ in range(_TEMPLATES_A_COUNTRY)] for c in COUNTRIES
        }
        # Codes that many sign up with; nearly all who do are honest.
        self.promos = [
            f"{dice.pick(pools.words)}{dice.randrange(10, 99)}".upper() for _ in range(3)
        ]
        vendors = range(2 + operators // 4)
        self.phone_farms = [PhoneFarm(self) for _ in vendors]
        self.proxy_vendors = [ProxyVendor(self) for _ in vendors]
        self.face_farms = [FaceFarm(self) for _ in vendors]

    def phone(self, country: str) -> Phone:
        """A number of an honest customer of this country."""
        line = self.dice.weighted(_LINES)
        blocks = _number_blocks(country, _KIND[line])
        if not blocks:
            line, blocks = "mobile", _number_blocks(country, _KIND["mobile"])
        return _phone(self.dice, self.dice.pick(blocks), line)

    def card(self, country: str) -> Card:
        """A card of an honest customer: mostly of a bank of his country."""
        dice = self.dice
        if dice.chance(0.13):
            return self.virtual_card(dice.pick(self._virtual_bins), country)
        funding = dice.weighted((("debit", 5.0), ("credit", 5.0), ("prepaid", 0.7)))
        return Card(f"pm_{dice.token(96)}", dice.zipf(self._banks[country]), funding, country)

    def virtual_card(self, bin_: str, country: str) -> Card:
        funding = "virtual" if self.dice.chance(0.7) else "prepaid"
        return Card(f"pm_{self.dice.token(96)}", bin_, funding, country)

    def bought_card(self, bin_: str, country: str) -> Card:
        """A card from a merchant: of a virtual issuer, or somebody else's."""
        if bin_ in self._virtual_bins:
            return self.virtual_card(bin_, country)
        funding = self.dice.weighted((("debit", 5.0), ("credit", 5.0), ("prepaid", 1.0)))
        return Card(f"pm_{self.dice.token(96)}", bin_, funding, country)

    def virtual_bins(self, count: int) -> list[str]:
        return self.dice.sample(self._virtual_bins, min(count, len(self._virtual_bins)))

    def bank_bin(self, country: str) -> str:
        return self.dice.pick(self._banks[country])

    def face(self) -> tuple[str, tuple[int, ...]]:
        """The vendor's face cluster and its eight LSH bands."""
        return self.dice.token(80), self._bands()

    def _bands(self) -> tuple[int, ...]:
        return tuple(self.dice.getrandbits(31) for _ in range(8))

    def identity(
        self,
        country: str,
        last: str,
        *,
        face: tuple[str, tuple[int, ...]] | None = None,
        template: str | None = None,
        background: str | None = None,
    ) -> Identity:
        """A person before a camera with a document. What is not given is his own."""
        dice = self.dice
        face_id, sketch = face or self.face()
        kind = dice.weighted(_DOCUMENTS)
        number = f"{dice.pick('CFGHJKLMNPRTVWXYZ')}{dice.randrange(10**7, 10**8)}"
        mrz = None
        if kind == "passport":
            mrz = machine_readable(country, last, number, dice)
        # Two pictures of one face agree in most bands, not in all.
        bands = tuple(b if dice.chance(0.93) else dice.getrandbits(31) for b in sketch)
        return Identity(
            face_id,
            bands,
            number,
            kind,
            country,
            template or dice.pick(self._templates[country]),
            self._bands(),
            background or dice.token(64),
            mrz,
        )


_SOLD_BEFORE = 0.06  # share of goods that another customer of the vendor has used before
_NUMBERS_A_BLOCK = 400  # of ten thousand: the rest are somebody's


class PhoneFarm:
    """Rents out numbers for one SMS: neighbouring blocks in a few countries, each with a stock."""

    def __init__(self, market: Market) -> None:
        self._market = market
        dice = market.dice
        # What it has where nobody asks for a country, and what it has where somebody does.
        self._runs = [
            self._run(any_country(dice).code, "mobile" if index % 3 else "voip")
            for index in range(6)
        ]
        self._local: dict[tuple[str, str], list[tuple[str, str]]] = {}
        self._stock: dict[str, int] = {}
        self._sold: list[Phone] = []

    def _run(self, country: str, line: str) -> list[tuple[str, str]]:
        """Eight neighbouring blocks with their line type; not every country has internet numbers."""
        blocks = _number_blocks(country, _KIND[line])
        if not blocks:
            line, blocks = "mobile", _number_blocks(country, _KIND["mobile"])
        first = self._market.dice.randrange(max(1, len(blocks) - 8))
        return [(block, line) for block in blocks[first : first + 8]]

    def lease(self, width: int, voip: float, country: str = "") -> list[tuple[str, str]]:
        """`width` neighbouring blocks of one run, in the country if one is asked for; `voip` is the
        probability of internet numbers."""
        dice = self._market.dice
        line = "voip" if dice.chance(voip) else "mobile"
        if not country:
            run = dice.pick([run for run in self._runs if run[0][1] == line] or self._runs)
        else:
            if (country, line) not in self._local:
                self._local[country, line] = self._run(country, line)
            run = self._local[country, line]
        first = dice.randrange(max(1, len(run) - width + 1))
        return run[first : first + width]

    def rent(self, lease: list[tuple[str, str]]) -> Phone:
        """A number of these blocks; now and then one that another customer has used before. A
        block that is sold out sells used numbers only."""
        dice = self._market.dice
        block, line = dice.pick(lease)
        left = self._stock.get(block, _NUMBERS_A_BLOCK)
        if self._sold and (left <= 0 or dice.chance(_SOLD_BEFORE)):
            return dice.pick(self._sold)
        self._stock[block] = left - 1
        phone = _phone(dice, block, line)
        self._sold.append(phone)
        return phone

    def recycled(self) -> Phone | None:
        """A number that went back to the carrier and now belongs to somebody honest."""
        return self._market.dice.pick(self._sold) if self._sold else None


class FaceFarm:
    """People who lend their faces, and a generator; a face may serve two operators."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._sold: list[tuple[str, tuple[int, ...]]] = []

    def lend(self) -> tuple[str, tuple[int, ...]]:
        dice = self._market.dice
        if self._sold and dice.chance(_SOLD_BEFORE / 2):
            return dice.pick(self._sold)
        face = self._market.face()
        self._sold.append(face)
        return face


class ProxyVendor:
    """Sells egress: data-centre, VPN and (dearer) static residential addresses."""

    def __init__(self, market: Market) -> None:
        plan, dice = market.plan, market.dice
        self._plan, self._dice = plan, dice
        self._hosting = [plan.prefix("hosting") for _ in range(2)]
        self._vpn = [plan.prefix("vpn") for _ in range(2)]
        # Static lines of homes and small firms.
        self._homes = [
            plan.prefix(kind, any_country(dice).code)
            for kind in ("residential", "residential", "residential", "residential", "business")
        ]
        self._mobile = [plan.mobile(any_country(dice).code) for _ in range(10)]
        # What it has in a country that somebody asks for: one range of homes, one carrier.
        self._local: dict[str, tuple[Prefix, Egress]] = {}
        self._sold: dict[str, list[Egress]] = {}

    def buy(self, quality: float, country: str = "") -> Egress:
        """An egress; the share of residential and mobile ones is `quality` (0-1), and those are of
        the country, if one is asked for."""
        dice, sold = self._dice, self._sold.setdefault(country, [])
        if sold and dice.chance(_SOLD_BEFORE):
            return dice.pick(sold)
        if dice.chance(quality):
            homes, mobile = self._stock(country)
            if dice.chance(0.12):
                return dice.pick(mobile)
            prefix = dice.pick(homes)
        else:
            prefix = dice.pick(self._hosting if dice.chance(0.65) else self._vpn)
        egress = prefix.address(dice)
        sold.append(egress)
        return egress

    def _stock(self, country: str) -> tuple[Sequence[Prefix], Sequence[Egress]]:
        if not country:
            return self._homes, self._mobile
        if country not in self._local:
            self._local[country] = self._plan.prefix("residential", country), self._plan.mobile(country)  # fmt: skip
        home, carrier = self._local[country]
        return (home,), (carrier,)

    def sold_as(self, egress: Egress) -> str:
        """The good as which an egress is priced."""
        if egress.prefix in (*self._hosting, *self._vpn):
            return "egress_datacentre"
        sold_by_modem = egress in self._mobile or any(egress == e for _, e in self._local.values())
        return "egress_mobile" if sold_by_modem else "egress_residential"


_CHECK_WEIGHTS = (7, 3, 1)


def check_digit(text: str) -> str:
    """ICAO Doc 9303 part 3, 4.9: digits as they are, A-Z as 10-35, `<` as 0, weights 7-3-1."""
    total = 0
    for index, char in enumerate(text):
        value = 0 if char == "<" else int(char, 36)
        total += value * _CHECK_WEIGHTS[index % 3]
    return str(total % 10)


_ALPHA3 = {"US": "USA", "GB": "GBR", "DE": "D<<", "FR": "FRA", "ES": "ESP", "IT": "ITA"}


def machine_readable(country: str, last: str, number: str, dice: Dice) -> str:
    """The second line of a passport's machine-readable zone (44 characters)."""
    state = _ALPHA3.get(country, f"{country}<")
    document = number.ljust(9, "<")[:9]
    born = f"{dice.randrange(55, 99):02d}{dice.randrange(1, 13):02d}{dice.randrange(1, 28):02d}"
    expires = f"{dice.randrange(27, 36):02d}{dice.randrange(1, 13):02d}{dice.randrange(1, 28):02d}"
    personal = "<" * 14
    upper = (
        document + check_digit(document),
        born + check_digit(born),
        expires + check_digit(expires),
        personal + check_digit(personal),
    )
    sex = dice.pick("MF")
    line = f"{upper[0]}{state}{upper[1]}{sex}{upper[2]}{upper[3]}"
    return line + check_digit(upper[0] + upper[1] + upper[2] + upper[3])
