"""The plan: a catalogue compiled to tables, so that every window folds by the same instructions.

A window has three verbs and no others, each write-then-read in one step:

    seen(key, member, t, span)   -> how many distinct members within span
    tally(key, amount, t, span)  -> the sum within span
    claim(key, owner, t)         -> who held it before, and when

Exactly (every window and the oracle in tests/ agree on this, whatever the order of arrival):

* An event at `t` is judged at `now = max(t, watermark - LATE)`; the watermark is the latest `t` so
  far. An event later than LATE therefore joins the present instead of rewriting the past, and what
  lies more than `span` behind `watermark - LATE` is dead for good and may be dropped.
* A sighting set keeps for each member the latest time it was seen, and of the members the
  SETS_CAP latest by (time, member). `seen` counts those later than `max(now, latest) - span`.
* A tally keeps BUCKETS event-time buckets of `span / BUCKETS`; it sums those that end with the
  bucket of `max(now, latest)`, where `latest` is the last amount other than 0 (0 writes nothing).
* A claim keeps the latest holder by (time, owner, account); it answers with the holder before,
  unless that one's time is not later than `now - span`, or it is the same owner or account.

State is therefore a function of the *set* of sightings, not of their order; redelivery is stopped
by `event_id` before anything is folded (and moves nothing, the watermark included). Asking without
writing is the same verb with no member.

What an event does not carry is read from the account's *profile*: the entities, numbers and
organisation that its events carried last, in the order of arrival. Kinds that are `carried` are
first completed with what the same account's same conversation sent last, and then count as seen;
they do not enter the profile. A conversation is forgotten when its latest event is not later than
`now - CARRY_SPAN`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from features.catalog import Catalog
from features.event import EVENT_TYPES
from features.feature import DAY, Age, Differ, Last, Seen, Share, Sum
from features.identity import u64
from features.kind import INDEX, KINDS
from features.rows import AMOUNTS, NUMBERS

LATE = DAY
BUCKETS = 8
CLAIM_SPAN = 3 * DAY  # how long a conversation or a minted id can be continued and still be known
CARRY_SPAN = DAY  # how long a conversation's environment block is carried forward
IDS_SPAN = 8 * DAY  # how long an event_id is remembered: 7 days and the latest late event
PARTNERS = 4  # other owners whose conversation one event can be found to continue
LINK_SPAN = 30 * DAY  # how long "this conversation was carried on" links two owners
CUSTOM_SPAN = 365 * DAY  # sightings of a custom kind that has no column

# Keys and members that are not kinds.
ACCOUNT, HOURS, PARTNER, CONTINUATION = -1, -2, -3, -4
_SPECIAL = {"account": ACCOUNT, "hour": HOURS, "partner": PARTNER, "continuation": CONTINUATION}

Int = NDArray[np.int64]
_U64 = 2**64 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Instruction tables; row `s` of `sets` is one family of sighting sets.

    sets      [S, 5] key slot, member slot, mask of writing types, longest span, linkable kind or -1
    set_salt  [S]    folded into the key, from what is counted: stable across catalogues
    reads     [R, 3] set, span, column; sorted by set
    tallies   [T, 4] key slot, amount, span, column;  tally_salt [T]
    lasts     [L, 2] number, column
    differs   [D, 3] slot, slot, column
    shares    [H, 3] part column, whole column, column
    age              column or -1
    slots            number of profile slots: the built-in kinds and the declared custom ones
    carried   [C]    slots completed from the conversation
    partner, continuation, link    rows of `sets` that claims write
    """

    catalog: Catalog
    sets: Int
    set_salt: NDArray[np.uint64]
    reads: Int
    read_start: Int
    tallies: Int
    tally_salt: NDArray[np.uint64]
    lasts: Int
    differs: Int
    shares: Int
    age: int
    slots: int
    carried: Int
    partner: int
    continuation: int
    link: int
    conversation: int

    @property
    def width(self) -> int:
        return len(self.catalog.features)


@cache
def plan(catalog: Catalog) -> Plan:
    """Compile a catalogue.

    Raises:
        ValueError: a feature counts or keys on something that is not a kind, or a custom kind has
            the name of a built-in one.
    """
    slot_of = dict(INDEX) | {name: len(KINDS) + i for i, name in enumerate(catalog.kinds)}

    for name in catalog.kinds:
        if name in INDEX or name in _SPECIAL:
            raise ValueError(f"kind {name!r} is built in: a kind of your own needs another name")

    def slot(name: str) -> int:
        if name in _SPECIAL:
            return _SPECIAL[name]
        if name not in slot_of:
            raise ValueError(f"no kind {name!r}")
        return slot_of[name]

    families: dict[tuple[str, str, tuple[str, ...]], list[tuple[int, int]]] = {}
    for column, feature in enumerate(catalog.features):
        if isinstance(feature, Seen):
            families.setdefault((feature.of, feature.by, feature.on), []).append(
                (feature.over, column)
            )
    families.setdefault(("partner", "account", ()), [])
    families.setdefault(("continuation", "account", ()), [])
    sets: list[tuple[int, ...]] = []
    salts, reads, place = [], [], {}
    for (of, by, on), columns in families.items():
        mask = sum(1 << EVENT_TYPES.index(t) for t in on) if on else (1 << len(EVENT_TYPES)) - 1
        longest = max((over for over, _ in columns), default=LINK_SPAN)
        linkable = slot(by) if of == "account" else -1
        place[of, by] = len(sets)
        sets.append((slot(by), slot(of), mask, longest, linkable))
        salts.append(u64(f"{of}|{by}|{','.join(on)}"))
        reads += [(len(sets) - 1, over, column) for over, column in columns]
    # the pair of owners on a continued conversation: no column, but a link
    sets.append((CONTINUATION, ACCOUNT, 0, LINK_SPAN, len(KINDS) + len(catalog.kinds)))
    salts.append(u64("account|continuation|"))
    table = catalog.features
    column_of = {name: i for i, name in enumerate(catalog.names)}
    tallies = [
        (slot(f.by), AMOUNTS.index(f.of), f.over, i)
        for i, f in enumerate(table)
        if isinstance(f, Sum)
    ]
    return Plan(
        catalog=catalog,
        sets=_table(sets, 5),
        set_salt=np.array(salts, np.uint64),
        reads=_table(reads, 3),
        read_start=np.searchsorted([r[0] for r in reads], np.arange(len(sets) + 1)).astype(
            np.int64
        ),
        tallies=_table(tallies, 4),
        tally_salt=np.array(
            [u64(f"sum|{f.of}|{f.by}|{f.over}") for f in table if isinstance(f, Sum)], np.uint64
        ),
        lasts=_table(
            [(NUMBERS.index(f.of), i) for i, f in enumerate(table) if isinstance(f, Last)], 2
        ),
        differs=_table(
            [(slot(f.a), slot(f.b), i) for i, f in enumerate(table) if isinstance(f, Differ)], 3
        ),
        shares=_table(
            [
                (column_of[f.part], column_of[f.whole], i)
                for i, f in enumerate(table)
                if isinstance(f, Share)
            ],
            3,
        ),
        age=next((i for i, f in enumerate(table) if isinstance(f, Age)), -1),
        slots=len(slot_of),
        carried=np.array([i for i, k in enumerate(KINDS) if k.carried], np.int64),
        partner=place["partner", "account"],
        continuation=place["continuation", "account"],
        link=len(sets) - 1,
        conversation=INDEX["conversation"],
    )


def pair(talk: int, owner: int, other: int) -> int:
    """The entity under which a conversation carried on links two owners, in either order."""
    low, high = min(owner, other), max(owner, other)
    return mix(talk ^ mix(low) ^ high * 0x9E3779B97F4A7C15 & _U64)


def mix(x: int) -> int:
    """Spread a 64-bit number, never to 0: the finaliser of MurmurHash3 (public domain)."""
    x = (x ^ x >> 33) * 0xFF51AFD7ED558CCD & _U64
    x = (x ^ x >> 33) * 0xC4CEB9FE1A85EC53 & _U64
    return x ^ x >> 33 or 1


def _table(rows: Sequence[tuple[int, ...]], width: int) -> Int:
    return np.array(rows, np.int64).reshape(len(rows), width)
