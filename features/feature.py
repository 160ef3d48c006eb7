"""A feature is one declaration: what is counted, by which key, over which span, and what to say.

The name is derived, never typed, and the sentence an analyst reads sits beside the number a model
reads. Four declarations need the window (`Seen`, `Sum`, `Last`, `Age`); two are computed from what
the window already told (`Differ`, `Share`). In `of` and `by`, "account" counts *owners*: accounts of
one organisation may share anything, so an organisation counts once.
"""

from dataclasses import dataclass

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

SETS_CAP = (
    64  # members a sighting set keeps; a count saturates here, and that is part of its meaning
)


def span_name(over: int) -> str:
    """`600000` is `10m`, `86400000` is `1d`."""
    for unit, letter in ((DAY, "d"), (HOUR, "h"), (MINUTE, "m")):
        if over % unit == 0:
            return f"{over // unit}{letter}"
    return f"{over // SECOND}s"


def _plural(noun: str) -> str:
    if noun.endswith(("x", "s")):
        return noun + "es"
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeiou" else noun + "s"


@dataclass(frozen=True, slots=True)
class Seen:
    """How many distinct `of` were seen under this `by` within `over` milliseconds.

    `on` names the event types whose sightings count (empty: every type that carries both).
    Saturates at SETS_CAP, keeping the most recently seen.
    """

    of: str
    by: str
    over: int
    says: str
    family: str
    on: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        event = "".join(f"_on_{t}" for t in self.on)
        return f"{_plural(self.of)}_by_{self.by}_{span_name(self.over)}{event}"


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum of an amount (see features/rows.py) under this `by` within `over` milliseconds.

    Kept in BUCKETS event-time buckets, so the trailing edge moves in steps of over / 8.
    """

    of: str
    by: str
    over: int
    says: str
    family: str

    @property
    def name(self) -> str:
        return f"{self.of}_by_{self.by}_{span_name(self.over)}"


@dataclass(frozen=True, slots=True)
class Last:
    """The last number of this name the account was seen with (see features/rows.py)."""

    of: str
    says: str
    family: str

    @property
    def name(self) -> str:
        return f"last_{self.of}"


@dataclass(frozen=True, slots=True)
class Age:
    """Hours since the account was first seen."""

    says: str
    family: str

    @property
    def name(self) -> str:
        return "age_h"


@dataclass(frozen=True, slots=True)
class Differ:
    """1 where two class kinds of the account's profile are both known and differ, 0 where they agree."""

    a: str
    b: str
    says: str
    family: str

    @property
    def name(self) -> str:
        return f"{self.a}_differs_from_{self.b}"


@dataclass(frozen=True, slots=True)
class Share:
    """One feature as a share of another (both by name); unknown where the whole is 0 or unknown."""

    part: str
    whole: str
    says: str
    family: str

    @property
    def name(self) -> str:
        return f"{self.part}_per_{self.whole}"


Feature = Seen | Sum | Last | Age | Differ | Share


def sentence(feature: Feature, value: float) -> str:
    """The analyst's sentence with its number in it."""
    n = f"{value:.0%}" if isinstance(feature, Share) else f"{value:,.4g}"
    if isinstance(feature, Seen) and value >= SETS_CAP:
        n = f"{SETS_CAP} or more"
    return feature.says.format(n=n)
