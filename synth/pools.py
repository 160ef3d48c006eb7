"""Names, words and e-mail domains to draw from.

Faker takes 8-126 us a call and a pool 0.1 us, so Faker only fills the pools, once a world. Family
names come from several languages, written in ASCII, as user names are.
"""

import unicodedata
from dataclasses import dataclass

from faker import Faker

from synth.dice import Dice

_LOCALES = ("en_US", "de_DE", "es_ES", "it_IT", "tr_TR", "id_ID", "pl_PL", "en_IN")
_WORDY = [f"faker.providers.{kind}" for kind in ("person", "address", "lorem")]
_FIRST_NAMES = 90  # a locale
_LAST_NAMES = 140

FREE_MAIL: tuple[tuple[str, float], ...] = (
    ("gmail.com", 62),
    ("outlook.com", 12),
    ("hotmail.com", 6),
    ("yahoo.com", 6),
    ("icloud.com", 6),
    ("proton.me", 4),
    ("gmx.net", 2),
    ("qq.com", 3),
    ("mail.com", 1),
)
DISPOSABLE_MAIL: tuple[str, ...] = (
    "mailinator.com",
    "guerrillamail.com",
    "yopmail.com",
    "sharklasers.com",
    "trashmail.com",
    "dispostable.com",
)
_ENDINGS = (("com", 8), ("io", 2), ("net", 1.5), ("dev", 1), ("org", 1), ("co", 1), ("xyz", 0.8))
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def _ascii(text: str) -> str:
    flat = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return "".join(c for c in flat if c.isalpha())


@dataclass(frozen=True, slots=True)
class Pools:
    first_names: list[str]
    last_names: list[str]
    words: list[str]
    streets: list[str]

    @classmethod
    def fill(cls, seed: int) -> "Pools":
        first: dict[str, None] = {}
        last: dict[str, None] = {}
        for locale in _LOCALES:
            fake = Faker(locale, providers=["faker.providers.person"])
            fake.seed_instance(seed)
            first.update((_ascii(fake.first_name()), None) for _ in range(_FIRST_NAMES))
            last.update((_ascii(fake.last_name()), None) for _ in range(_LAST_NAMES))
        fake = Faker("en_US", providers=_WORDY)
        fake.seed_instance(seed)
        words = dict.fromkeys(fake.word() for _ in range(700))
        streets = [fake.street_address() for _ in range(400)]
        return cls(
            [n for n in first if len(n) > 1],
            [n for n in last if len(n) > 1],
            [w for w in words if len(w) > 3],
            streets,
        )

    def domain(self, dice: Dice) -> str:
        """A private domain: two words, sometimes with a hyphen or a number."""
        join = dice.weighted((("", 6), ("-", 2)))
        tail = str(dice.randrange(2, 99)) if dice.chance(0.1) else ""
        return (
            f"{dice.pick(self.words)}{join}{dice.pick(self.words)}{tail}.{dice.weighted(_ENDINGS)}"
        )

    def local_part(self, dice: Dice, first: str, last: str) -> str:
        """The part before the @, as a person with this name would choose it."""
        f, s = first.lower(), last.lower()
        shape = dice.randrange(8)
        digits = str(dice.randrange(1, 10 ** dice.randrange(1, 5)))
        if shape == 0:
            return f"{f}.{s}"
        if shape == 1:
            return f"{f}.{s}{digits}"
        if shape == 2:
            return f"{f}{s}{digits}"
        if shape == 3:
            return f"{f[0]}{s}{digits}"
        if shape == 4:
            return f"{dice.pick(self.words)}{dice.pick(self.words)}{digits}"
        if shape == 5:
            return f"{f}{dice.randrange(1965, 2010)}"
        if shape == 6:
            return f"{s}.{f[0]}{digits}"
        return f"{f}_{dice.pick(self.words)}{digits}"

    def scrambled(self, dice: Dice) -> str:
        """A local part that nobody would remember."""
        letters = "".join(dice.pick(_ALPHABET) for _ in range(dice.randrange(7, 12)))
        return f"{letters}{dice.randrange(10, 9999)}"
