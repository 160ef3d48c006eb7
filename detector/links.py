"""Links: how surprising it is that two owners were seen on the same entities.

A link between owners i and j is worth as many nats as their sharing is improbable:

    surprise = -log( N * 2|dq| * chance(e1) * chance(e2)^further * ... )

- `chance(e) = p/N`: a stranger is found on an entity of popularity p. A set is exact up to its cap;
  one that is full says only how *recent* its members are, so its popularity is read from its pace:
  what part of all activity, over the stretch of time its members cover, is theirs.
- `2|dq|`: a stranger comes as near in time. dq is a distance on the activity clock (the quantile of
  all sightings of that family), so a busy day is long and a quiet night is short. It counts once a
  pair, at its nearest: the times of several shared entities are rarely independent.
- Further entities count for a share of their surprise (`further`): a card and its billing address,
  a transfer's two ends, an address and its block are not independent either.
- `N *`: N owners might have been the other one. What is left is how many owners would look so much
  like a friend of i by chance. A value that two alone share, months apart, is then worth nothing:
  somebody had to be the other one. The same value within the hour is worth a lot.
- Owners who are seen on much meet more by chance: `busy` discounts an entity, at both ends, by the
  owner's number of entities of that family over the family's mean.
- `RELIABILITY` is what we know of a family before looking: nats added where sharing means the same
  hands (a card, a face), taken off where strangers share all the time (an address, its block).

There is no popularity above which an entity stops counting. A cap is a place to hide: whoever
inflates an entity loses log(popularity), and a burst in it still stands out against its pace.

Entities of one *family* are compared across kinds: whoever pays an address and whoever is paid by
it were both seen on it. On real data (hop_sybil) half of all that can be found is found only so.

Cost: a member is compared with its `nearest` followers in time, so a set of n members yields at
most nearest * n pairs, and 5 M sightings of 1 M owners take 6 to 7 s on one core, 9 s if every set
is full. What was not done: all pairs of a set (nothing gained), a decay in hours (the clock of a
family is its own), a weight learned per kind (labels are few, and kinds differ between providers).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detector.order import argsort, group, unique
from features.kind import KIND, NS
from features.window import Sightings

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

CAP = 64  # members at which a window's set is full

# Nats that a family is worth before anything is counted; custom and unlisted ones are worth 0.
RELIABILITY: Mapping[str, float] = {
    "card": 4.0,
    "document": 4.0,
    "mrz": 4.0,
    "face": 4.0,
    "credential": 4.0,
    "continuation": 4.0,
    "phone": 3.0,
    "email": 3.0,
    "connection": 3.0,
    "device": 3.0,
    "session": 3.0,
    "chain": 3.0,
    "end_user": 2.0,
    "git_user": 2.0,
    "billing_address": 2.0,
    "home": 1.0,
    "background": 1.0,
    "referrer": -1.0,
    "ip_subnet": -1.0,
    "ip": -2.0,
    "document_template": -2.0,
    "system": -2.0,
    "phone_block": -3.0,
    "ip_block": -3.0,
    "promo": -3.0,
    "tools": -3.0,
    "prompt": -3.0,
    "email_domain": -4.0,
    "header_order": -4.0,
}


# Owners have a few entities at least: without it, a second one would double how busy they are.
_SMOOTH = 4.0

# What one set says of one pair.
_ROW = np.dtype(
    [
        ("other", np.int32),
        ("nats", np.float32),
        ("gap", np.float32),
        ("popularity", np.float32),
        ("family", np.uint8),
    ],
    align=True,
)


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Constants of the formula above, chosen on one half of the rings of hop_sybil.

    They lie on a plateau there: `further` .2-.3, `busy` 1.5-2.5 and `nearest` 4-63 move recall at
    94 % precision by about .02. From `further` .5 on, chains of transfers tie strangers together.
    """

    further: float = 0.3
    busy: float = 2.0
    nearest: int = 8
    cap: int = CAP
    floor: float = 1.0  # nats; weaker pairs are not kept at all
    reliability: Mapping[str, float] = field(default_factory=lambda: RELIABILITY)


@dataclass(frozen=True, slots=True)
class Links:
    """Pairs of owners, `a < b` (indices into `owners`), sorted by (a, b).

    `surprise` nats; `shared` entities they were adjacent on; `rarest` popularity of the one that
    speaks loudest; `gap` their least distance in time, a share of all activity in 0..1;
    `families` bit f set: an entity of family `names[f]` contributed.
    """

    owners: U64  # [n] sorted, every owner that was sighted
    a: I32
    b: I32
    surprise: F32
    shared: I32
    rarest: F32
    gap: F32
    families: U64
    names: tuple[str, ...]
    first: I64  # [n] earliest and latest of an owner's sightings, epoch ms
    latest: I64

    def __len__(self) -> int:
        return len(self.a)

    def index(self, owners: U64) -> I64:
        """Places of these owners in `owners`, -1 where one was never sighted."""
        if len(self.owners) == 0:
            return np.full(len(owners), -1, np.int64)
        at = np.minimum(np.searchsorted(self.owners, owners), len(self.owners) - 1)
        return np.where(self.owners[at] == owners, at, -1).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Sets:
    """Sightings as sets: members of set s are rows `start[s]:start[s+1]`, in time order.

    One row an owner in a set, at its latest sighting there. `quantile` is the place of that time
    among all sightings of the family, 0..1; `popularity` is estimated where the set is full.
    """

    owners: U64
    start: I64
    family: I32  # [sets]
    entity: U64  # [sets]
    popularity: F64  # [sets]
    member: I32  # [rows] index into owners
    last: I64
    quantile: F64
    busy: F32  # [rows] log of the member's entities in the family over the mean
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    of_kind: NDArray[np.uint16]  # [owners, kinds] how many sightings of each kind an owner has
    cap: int  # a set of so many members is full

    @property
    def sizes(self) -> I64:
        """Members kept, by set."""
        return np.diff(self.start)


def family_of(kind: str) -> str:
    """Kinds of one family share a name space; everything a provider adds is one family."""
    if kind in KIND:
        return KIND[kind].family
    return kind if kind == "continuation" else NS


def gather(
    sightings: Sightings, kind_name: Callable[[int], str], n_owners: int, cap: int = CAP
) -> Sets:
    """Sort sightings into sets. The result does not depend on the order they come in.

    Args:
        sightings: any order, an owner may repeat on an entity (its latest time counts).
        kind_name: the name of a kind number.
        n_owners: owners known in all, with or without a sighting.
        cap: a set with so many members or more is taken for full.
    """
    numbers, place, _ = unique(sightings.kind)
    called = [kind_name(k) for k in numbers.tolist()]
    kinds = tuple(sorted(set(called)))
    names = tuple(sorted({family_of(kind) for kind in kinds}))
    kind_of = np.array([kinds.index(kind) for kind in called], np.int32)[place]
    family: I32 = np.array([names.index(family_of(kind)) for kind in called], np.int32)[place]
    owners, inverse, _ = unique(sightings.owner)
    member: I32 = inverse.astype(np.int32)
    of_kind = np.zeros((len(owners), len(kinds)), np.uint16)
    _count_kinds(member, kind_of, of_kind)

    # one 64-bit key a set: entities are keyed hashes, so mixing the family in keeps them apart
    key = sightings.entity ^ _spread(family)
    order = argsort(key)
    key, family, member, last = key[order], family[order], member[order], sightings.last[order]
    edge = np.ones(len(key) + 1, np.bool_)
    edge[1:-1] = key[1:] != key[:-1]
    start = np.flatnonzero(edge).astype(np.int64)
    kept = np.empty(len(key), np.bool_)
    _order_members(start, member, last, cap, kept)
    sizes = np.add.reduceat(kept, start[:-1], dtype=np.int64) if len(key) else np.zeros(0, np.int64)
    set_family = family[start[:-1]]
    set_entity = key[start[:-1]] ^ _spread(set_family)
    family, member, last = family[kept], member[kept], last[kept]
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])

    by_time = argsort(last)
    family_start, of_family = group(family[by_time], len(names))
    quantile = np.empty(len(last), np.float64)
    busy = np.empty(len(last), np.float32)
    for f in range(len(names)):
        rows = by_time[of_family[family_start[f] : family_start[f + 1]]]
        _share_ranks(last, rows, quantile)
        count = np.bincount(member[rows], minlength=len(owners))
        mean = count.sum() / max(1, np.count_nonzero(count))
        busy[rows] = np.log((count + _SMOOTH) / (mean + _SMOOTH))[member[rows]]

    popularity = sizes.astype(np.float64)
    full = np.flatnonzero(sizes >= cap)
    covered = quantile[start[full + 1] - 1] - quantile[start[full]]
    pace = popularity[full] / np.maximum(covered, 1.0 / max(n_owners, 1))
    popularity[full] = np.clip(pace, popularity[full], np.maximum(popularity[full], n_owners / 2))
    return Sets(
        owners,
        start,
        set_family,
        set_entity,
        popularity,
        member,
        last,
        quantile,
        busy,
        names,
        kinds,
        of_kind,
        cap,
    )


def link(sets: Sets, n_owners: int, settings: LinkSettings | None = None) -> Links:
    """All links worth `settings.floor` nats or more.

    Raises:
        ValueError: more than 64 families (their names are bits of `Links.families`).
    """
    settings = settings or LinkSettings()
    if len(sets.names) > 64:
        raise ValueError(f"links hold at most 64 families of entities, these are {len(sets.names)}")
    n = len(sets.owners)
    total = max(n_owners, n, 2)
    worth = np.array([settings.reliability.get(name, 0.0) for name in sets.names], np.float64)
    chance = np.log(total / sets.popularity) + worth[sets.family]
    near = max(1, settings.nearest)
    slots = _count_pairs(sets.start, sets.member, near, n)
    rows = np.empty(slots[-1], _ROW)
    _file_pairs(
        sets.start,
        sets.member,
        sets.quantile,
        sets.busy,
        sets.popularity,
        sets.family,
        chance,
        near,
        settings.busy,
        slots[:-1].copy(),
        rows,
    )
    a, b, surprise, shared, rarest, least, families = _weigh(
        slots, rows, settings.further, settings.floor, total
    )
    first, latest = _seen(sets.member, sets.last, n)
    return Links(
        sets.owners, a, b, surprise, shared, rarest, least, families, sets.names, first, latest
    )


def shared_sets(sets: Sets, members: I64) -> tuple[I64, I64]:
    """What binds these owners: sets that at least two of them are in, and how many of them.

    Most of them first, then the rarest: the order in which a person reads evidence. `members` are
    indices into `sets.owners`; print a set by its `family`, `entity`, `popularity` and rows.
    """
    inside = np.zeros(len(sets.owners), np.bool_)
    inside[members] = True
    if len(sets.family) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    count = np.add.reduceat(inside[sets.member], sets.start[:-1], dtype=np.int64)
    found = np.flatnonzero(count >= 2)
    order = np.lexsort((sets.entity[found], sets.popularity[found], -count[found]))
    return found[order], count[found[order]]


def _spread(family: I32) -> U64:
    return (family.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True)
def _count_kinds(member: I32, kind: I32, count: NDArray[np.uint16]) -> None:
    for i in range(len(member)):
        if count[member[i], kind[i]] < 65535:
            count[member[i], kind[i]] += 1


@njit(cache=True, nogil=True)
def _share_ranks(times: I64, order: I64, out: F64) -> None:
    """Place of each time among those in `order`, 0..1; equal times share the middle of their run."""
    n, lo = len(order), 0
    while lo < n:
        hi = lo
        while hi < n and times[order[hi]] == times[order[lo]]:
            hi += 1
        for k in range(lo, hi):
            out[order[k]] = (lo + hi) / (2.0 * n)
        lo = hi


@njit(cache=True, nogil=True)
def _order_members(start: I64, member: I32, last: I64, cap: int, keep: NDArray[np.bool_]) -> None:
    """Each set in place: one row a member at its latest time, in time order, the last `cap`."""
    for s in range(len(start) - 1):
        lo, hi = start[s], start[s + 1]
        if hi - lo == 1:
            keep[lo] = True
            continue
        m, t = member[lo:hi], last[lo:hi]
        _sort(m, t)
        one = 0
        for k in range(hi - lo):  # a member's last row is its latest
            if k == hi - lo - 1 or m[k + 1] != m[k]:
                m[one], t[one] = m[k], t[k]
                one += 1
        _sort(t[:one], m[:one])
        skip = max(0, one - cap)
        for k in range(hi - lo):
            keep[lo + k] = k < one - skip
            if k < one - skip:
                m[k], t[k] = m[k + skip], t[k + skip]


@njit(cache=True, nogil=True)
def _sort(major: NDArray[np.generic], minor: NDArray[np.generic]) -> None:
    """Shell sort of two columns in place by (major, minor): no allocation, most sets are tiny."""
    n, step = len(major), 1
    while step < n // 3:
        step = 3 * step + 1
    while step > 0:
        for i in range(step, n):
            x, y, j = major[i], minor[i], i
            while j >= step and (
                major[j - step] > x or (major[j - step] == x and minor[j - step] > y)
            ):
                major[j], minor[j] = major[j - step], minor[j - step]
                j -= step
            major[j], minor[j] = x, y
        step //= 3


@njit(cache=True, nogil=True)
def _count_pairs(start: I64, member: I32, nearest: int, n: int) -> I64:
    """Where each owner's pairs begin, counted at the pair's lower end."""
    slots = np.zeros(n + 1, np.int64)
    for s in range(len(start) - 1):
        for i in range(start[s], start[s + 1]):
            for j in range(i + 1, min(i + 1 + nearest, start[s + 1])):
                slots[min(member[i], member[j]) + 1] += 1
    return np.cumsum(slots)


@njit(cache=True, nogil=True)
def _file_pairs(
    start: I64,
    member: I32,
    quantile: F64,
    busy: F32,
    popularity: F64,
    family: I32,
    chance: F64,
    nearest: int,
    weight: float,
    at: I64,
    rows: NDArray[np.void],
) -> None:
    """File what each set says of each pair under the pair's lower end, in the order of the sets."""
    for s in range(len(start) - 1):
        for i in range(start[s], start[s + 1]):
            for j in range(i + 1, min(i + 1 + nearest, start[s + 1])):
                a = min(member[i], member[j])
                row = rows[at[a]]
                at[a] += 1
                row.other = max(member[i], member[j])
                row.nats = chance[s] - weight * (busy[i] + busy[j])
                row.gap = quantile[j] - quantile[i]
                row.popularity = popularity[s]
                row.family = family[s]


@njit(cache=True, nogil=True)
def _weigh(
    slots: I64, rows: NDArray[np.void], further: float, floor: float, total: int
) -> tuple[I32, I32, F32, I32, F32, F32, U64]:
    """Sum each pair's rows; keep pairs worth `floor`."""
    n = len(rows)
    a, b, shared = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int32)
    surprise, gap, rarest = (
        np.empty(n, np.float32),
        np.empty(n, np.float32),
        np.empty(n, np.float32),
    )
    families = np.empty(n, np.uint64)
    room = np.diff(slots).max() if len(slots) > 1 else 0
    room_others, room_order = np.empty(room, np.int32), np.empty(room, np.int64)
    log_total = np.log(total)
    found = 0
    for owner in range(len(slots) - 1):
        lo, hi = slots[owner], slots[owner + 1]
        if lo == hi:
            continue
        others, order = room_others[: hi - lo], room_order[: hi - lo]
        for k in range(lo, hi):
            others[k - lo], order[k - lo] = rows[k].other, k
        _sort(others, order)
        k = 0
        while k < len(order):
            one, row, other = k, rows[order[k]], others[k]
            most, more, least, rare = row.nats, np.float32(0), row.gap, row.popularity
            bits = np.uint64(0)
            while k < len(order) and others[k] == other:
                row = rows[order[k]]
                if row.nats > most:
                    most, rare = row.nats, row.popularity
                more += max(row.nats, np.float32(0))
                least = min(least, row.gap)
                bits |= np.uint64(1) << np.uint64(row.family)
                k += 1
            nats = most + further * (more - max(most, np.float32(0)))
            nats -= np.log(2 * max(least, 0.5 / total)) + log_total
            if nats >= floor:
                a[found], b[found], surprise[found] = owner, other, nats
                shared[found], rarest[found], gap[found] = k - one, rare, least
                families[found] = bits
                found += 1
    return (
        a[:found].copy(),
        b[:found].copy(),
        surprise[:found].copy(),
        shared[:found].copy(),
        rarest[:found].copy(),
        gap[:found].copy(),
        families[:found].copy(),
    )


@njit(cache=True, nogil=True)
def _seen(member: I32, last: I64, n: int) -> tuple[I64, I64]:
    first, latest = np.full(n, np.iinfo(np.int64).max), np.full(n, np.iinfo(np.int64).min)
    for i in range(len(member)):
        first[member[i]] = min(first[member[i]], last[i])
        latest[member[i]] = max(latest[member[i]], last[i])
    return first, latest
