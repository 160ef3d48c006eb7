"""Countries and a synthetic address plan.

The plan says, for every address prefix of this world, its country, its autonomous system and the
kind of network. It stands for the third-party data that a provider would buy: the generator draws
the addresses of events from it, and writes it out beside them. Prefixes and AS numbers are drawn at
random; they resemble the public address space and describe nobody in it.
"""

import ipaddress
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from zoneinfo import ZoneInfo

from synth.dice import Dice
from synth.wire import fragment


@dataclass(frozen=True, slots=True)
class Country:
    """`weight` is its share of this provider's customers; `zones` are IANA names; `price` is what
    a plan costs there, in parts of the list price."""

    code: str
    zones: tuple[str, ...]
    language: str
    weight: float
    price: float = 1.0


COUNTRIES: tuple[Country, ...] = (
    Country("US", ("America/New_York", "America/Chicago", "America/Los_Angeles"), "en-US", 20),
    Country("GB", ("Europe/London",), "en-GB", 6),
    Country("DE", ("Europe/Berlin",), "de-DE", 6),
    Country("FR", ("Europe/Paris",), "fr-FR", 4),
    Country("ES", ("Europe/Madrid",), "es-ES", 3),
    Country("IT", ("Europe/Rome",), "it-IT", 2),
    Country("NL", ("Europe/Amsterdam",), "nl-NL", 3),
    Country("PL", ("Europe/Warsaw",), "pl-PL", 2),
    Country("SE", ("Europe/Stockholm",), "sv-SE", 2),
    Country("UA", ("Europe/Kyiv",), "uk-UA", 2, 0.5),
    Country("BR", ("America/Sao_Paulo",), "pt-BR", 5, 0.5),
    Country("MX", ("America/Mexico_City",), "es-MX", 2, 0.6),
    Country("AR", ("America/Argentina/Buenos_Aires",), "es-AR", 1, 0.4),
    Country("CA", ("America/Toronto", "America/Vancouver"), "en-CA", 4),
    Country("IN", ("Asia/Kolkata",), "en-IN", 9, 0.4),
    Country("JP", ("Asia/Tokyo",), "ja-JP", 5),
    Country("KR", ("Asia/Seoul",), "ko-KR", 4),
    Country("SG", ("Asia/Singapore",), "en-SG", 3),
    Country("TW", ("Asia/Taipei",), "zh-TW", 3),
    Country("MY", ("Asia/Kuala_Lumpur",), "ms-MY", 1, 0.6),
    Country("PH", ("Asia/Manila",), "en-PH", 2, 0.5),
    Country("ID", ("Asia/Jakarta",), "id-ID", 3, 0.4),
    Country("VN", ("Asia/Ho_Chi_Minh",), "vi-VN", 3, 0.4),
    Country("TH", ("Asia/Bangkok",), "th-TH", 1, 0.6),
    Country("TR", ("Europe/Istanbul",), "tr-TR", 2, 0.4),
    Country("AU", ("Australia/Sydney",), "en-AU", 3),
    Country("ZA", ("Africa/Johannesburg",), "en-ZA", 1, 0.6),
    Country("NG", ("Africa/Lagos",), "en-NG", 1, 0.3),
    Country("KE", ("Africa/Nairobi",), "en-KE", 1, 0.4),
    Country("CN", ("Asia/Shanghai",), "zh-CN", 2),
    Country("RU", ("Europe/Moscow",), "ru-RU", 1.5),
)
BY_CODE: dict[str, Country] = {country.code: country for country in COUNTRIES}
_WEIGHTED = tuple((country, country.weight) for country in COUNTRIES)


def any_country(dice: Dice) -> Country:
    """A country, as often as it has customers."""
    return dice.weighted(_WEIGHTED)


@cache
def offset_ms(zone: str, at: int) -> int:
    """What to add to UTC at `at` (epoch ms) to get the local wall clock of `zone`."""
    delta = datetime.fromtimestamp(at / 1000, ZoneInfo(zone)).utcoffset()
    return int(delta.total_seconds() * 1000) if delta else 0


@dataclass(frozen=True, slots=True)
class Prefix:
    cidr: str
    country: str
    asn: int
    network_type: str
    version: int
    base: int
    spare_bits: int
    said: str  # the fragment of what the plan knows of it

    def address(self, dice: Dice) -> "Egress":
        """A random address of the prefix."""
        host = self.base + dice.getrandbits(self.spare_bits)
        if self.version == 4:
            ip = f"{host >> 24}.{host >> 16 & 255}.{host >> 8 & 255}.{host & 255}"
        else:
            # Written in full: no run of zeros is shortened, so that a /64 is the first half.
            ip = ":".join(f"{host >> shift & 0xFFFF or 1:x}" for shift in range(112, -16, -16))
        return Egress(ip, self)


@dataclass(slots=True)
class Egress:
    """Where calls come from."""

    ip: str
    prefix: Prefix
    number: int = 0  # at the exchange, once it has been there

    @property
    def country(self) -> str:
        return self.prefix.country

    def fragment(self) -> str:
        """What an event says of the network: the address and what the plan knows of it."""
        return f',"ip":"{self.ip}"{self.prefix.said}'

    def neighbour(self, dice: Dice) -> "Egress":
        """Another address of the same household: the same one on IPv4, the same /64 on IPv6."""
        if self.prefix.version == 4:
            return self
        bits = dice.getrandbits
        host = f"{bits(15) + 1:x}:{bits(15) + 1:x}:{bits(15) + 1:x}:{bits(15) + 1:x}"
        return Egress(f"{self.ip.rsplit(':', 4)[0]}:{host}", self.prefix)


# Prefixes of each kind in every country, and how many address bits each leaves free.
_NATIONAL: tuple[tuple[str, int, int], ...] = (
    ("residential", 6, 15),
    ("mobile", 2, 9),
    ("business", 3, 12),
    ("education", 2, 11),
)
_WORLDWIDE: tuple[tuple[str, int, int], ...] = (("hosting", 24, 13), ("vpn", 14, 8), ("tor", 1, 7))
_RESERVED_FIRST_OCTETS = {0, 10, 100, 127, 169, 172, 192, 198, 203}
_UNKNOWN_SHARE = 0.04  # prefixes that the bought data does not classify


def _prefix(cidr: str, country: str, asn: int, network_type: str, base: int, bits: int) -> Prefix:
    said = fragment(country=country, asn=asn, network_type=network_type)
    return Prefix(cidr, country, asn, network_type, 6 if ":" in cidr else 4, base, bits, said)


class AddressPlan:
    """All prefixes of the world, by country and kind."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        blocks = [
            (first << 24) + (second << 16)
            for first in range(2, 223)
            if first not in _RESERVED_FIRST_OCTETS
            for second in range(0, 256, 8)
        ]
        dice.shuffle(blocks)
        numbers = dice.sample(range(3_000, 64_000), 400)
        self.prefixes: list[Prefix] = []
        self._of: dict[tuple[str, str], list[Prefix]] = {}
        for country in COUNTRIES:
            for kind, count, bits in _NATIONAL:
                systems = [numbers.pop() for _ in range(max(1, count // 2))]
                for n in range(count):
                    self._add(country.code, kind, systems[n % len(systems)], blocks.pop(), bits)
                if kind == "residential":
                    for asn in systems:
                        self._add_v6(country.code, asn)
        hosts = ("US", "US", "DE", "NL", "SG", "JP", "GB", "FR", "KR", "CA", "TW", "PL")
        for kind, count, bits in _WORLDWIDE:
            systems = [numbers.pop() for _ in range(max(1, count // 3))]
            for n in range(count):
                self._add(
                    hosts[n % len(hosts)], kind, systems[n % len(systems)], blocks.pop(), bits
                )

    def _add(self, country: str, kind: str, asn: int, block: int, bits: int) -> None:
        base = block + (self._dice.getrandbits(19) >> bits << bits)
        cidr = str(ipaddress.IPv4Network((base, 32 - bits)))
        said = "unknown" if self._dice.chance(_UNKNOWN_SHARE) else kind
        self._keep(_prefix(cidr, country, asn, said, base, bits), kind)

    def _add_v6(self, country: str, asn: int) -> None:
        base = (0x2A00 << 112) + ((self._dice.getrandbits(32) | 0x10001) << 80)
        cidr = str(ipaddress.IPv6Network((base, 48)))
        self._keep(_prefix(cidr, country, asn, "residential", base, 80), "residential")

    def _keep(self, prefix: Prefix, kind: str) -> None:
        self.prefixes.append(prefix)
        self._of.setdefault((prefix.country, kind), []).append(prefix)
        self._of.setdefault(("", kind), []).append(prefix)

    def prefix(self, kind: str, country: str = "") -> Prefix:
        """A prefix of this kind: in the country, or anywhere if it has none there."""
        choices = self._of.get((country, kind)) or self._of["", kind]
        return self._dice.pick(choices)

    def egress(self, kind: str, country: str = "") -> Egress:
        return self.prefix(kind, country).address(self._dice)

    @cached_property
    def carriers(self) -> dict[str, list[Egress]]:
        """The few addresses behind which a country's mobile users are."""
        return {
            country.code: [self.egress("mobile", country.code) for _ in range(24)]
            for country in COUNTRIES
        }

    def mobile(self, country: str) -> Egress:
        return self._dice.pick(self.carriers[country])
