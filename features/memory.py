"""The memory window: the fold compiled over arrays, to serve on one machine and replay history fast.

Layout. Every table is open addressing with linear probing on a 64-bit key (the entity's name mixed
with the family's salt), at most 60 % full; rows are never deleted one by one: when a table is full
its dead rows (older than their span behind the watermark, see features/plan.py) are dropped and the
rest rehashed, into twice the room if they still fill it by a third.

    sets      key -> place and size of its members in the arena; the arena holds (member, last) pairs
              in blocks of 2, 4, … 64 with a free list for each size (most sets never leave 2)
    tallies   key -> newest bucket and BUCKETS integers
    claims    key -> time, owner, account
    accounts  account -> dense row: organisation, first sight, profile slots, last numbers
    talks     conversation of an account -> the environment block to carry forward
    ids       event_id -> hash of its first body, time, ordinal

The kernel returns before an event for which a table might overflow; Python makes room and calls
again, so the hot loop never allocates. Measured by `shoal bench` as "fold alone".
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features.catalog import Catalog
from features.compiled import lean
from features.feature import HOUR, SETS_CAP
from features.plan import (
    ACCOUNT,
    BUCKETS,
    CARRY_SPAN,
    CLAIM_SPAN,
    CONTINUATION,
    CUSTOM_SPAN,
    HOURS,
    IDS_SPAN,
    LATE,
    PARTNER,
    PARTNERS,
    Plan,
    plan,
)
from features.rows import (
    AMOUNTS,
    CHAIN_AFTER,
    CHAIN_LINK,
    CUSTOM,
    EMITTED,
    F64,
    I64,
    MINTED,
    NUMBERS,
    U64,
    Rows,
)
from features.window import NEW, Folded, Sightings

_LOAD = 0.6
Int32 = NDArray[np.int32]
_BLOCKS = 6  # block sizes 2, 4, 8, 16, 32, 64
_SALT = np.uint64(0x9E3779B97F4A7C15)
_CUSTOM_SALT = np.uint64(0xD1B54A32D192ED03)

# places in `State.size`
SETS, ARENA, TALLIES, CLAIMS, ACCOUNTS, TALKS, IDS, WATERMARK, ACCEPTED = range(9)


class State(NamedTuple):
    """All arrays of the window; see the module's docstring."""

    size: I64
    free: I64
    set_key: U64
    set_entity: U64
    set_family: Int32
    set_at: I64
    set_n: NDArray[np.int32]
    set_block: NDArray[np.int32]
    arena_member: U64
    arena_last: I64
    tally_key: U64
    tally_family: NDArray[np.int32]
    tally_newest: I64
    tally_sum: I64
    claim_key: U64
    claim_t: I64
    claim_owner: U64
    claim_account: U64
    account_key: U64
    account_row: I64
    row_account: U64
    row_org: U64
    row_first: I64
    row_last: I64
    row_slot: U64
    row_number: F64
    talk_key: U64
    talk_t: I64
    talk_slot: U64
    id_key: U64
    id_body: U64
    id_t: I64
    id_ordinal: I64


class Tables(NamedTuple):
    """The plan's arrays in the form the kernel takes."""

    sets: I64
    set_salt: U64
    reads: I64
    read_start: I64
    tallies: I64
    tally_salt: U64
    lasts: I64
    differs: I64
    shares: I64
    carried: I64
    scalar: (
        I64  # age, partner, continuation, link, conversation, declared custom kinds, built-in kinds
    )


@lean
def _mix(x: np.uint64) -> np.uint64:
    # finaliser of MurmurHash3 (public domain): spreads near-equal keys over the table
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xFF51AFD7ED558CCD)
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xC4CEB9FE1A85EC53)
    x ^= x >> np.uint64(33)
    return x if x != np.uint64(0) else np.uint64(1)


@lean
def _find(keys: U64, key: np.uint64) -> Any:
    """Place of a key (an int64), or -1 - (the place it would take)."""
    mask = len(keys) - 1
    at = np.int64(key & np.uint64(mask))
    while keys[at] != key:
        if keys[at] == np.uint64(0):
            return -1 - at
        at = (at + 1) & mask
    return at


@lean
def _block(size: I64, free: I64, arena_last: I64, block: int) -> Any:
    head = free[block]
    if head >= 0:
        free[block] = arena_last[head]
        return head
    at = size[ARENA]
    size[ARENA] = at + (2 << block)
    return at


@lean
def _see(
    size: I64, free: I64, set_key: U64, set_entity: U64, set_family: Int32, set_at: I64, set_n: Int32,
    set_block: Int32, arena_member: U64, arena_last: I64,
    family: int, key: np.uint64, entity: np.uint64, member: np.uint64, t: int, now: int, span: int,
) -> None:  # fmt: skip
    """The writing half of `seen`: the member under the key at t; drop what is dead; keep the cap."""
    at = _find(set_key, key)
    if at < 0:
        if t <= now - span:
            return
        at = -1 - at
        size[SETS] += 1
        set_key[at], set_entity[at], set_family[at], set_block[at] = key, entity, family, 0
        place = _block(size, free, arena_last, 0)
        set_at[at], set_n[at] = place, 1
        arena_member[place], arena_last[place] = member, t
        return
    place, n = set_at[at], set_n[at]
    latest = max(now, t)
    for i in range(place, place + n):
        latest = max(latest, arena_last[i])
    dead = latest - span
    kept, found = place, False
    low = -1
    for i in range(place, place + n):
        last, who = arena_last[i], arena_member[i]
        if who == member:
            found = True
            last = max(last, t)
        if last <= dead:
            continue
        arena_last[kept], arena_member[kept] = last, who
        if (
            low < 0
            or last < arena_last[low]
            or (last == arena_last[low] and who < arena_member[low])
        ):
            low = kept
        kept += 1
    n = kept - place
    if not found and t > dead:
        if n == SETS_CAP:
            if t > arena_last[low] or (t == arena_last[low] and member > arena_member[low]):
                arena_last[low], arena_member[low] = t, member
        else:
            block = set_block[at]
            if n == 2 << block:
                bigger = _block(size, free, arena_last, block + 1)
                for i in range(n):
                    arena_last[bigger + i] = arena_last[place + i]
                    arena_member[bigger + i] = arena_member[place + i]
                arena_last[place] = free[block]
                free[block] = place
                place = bigger
                set_at[at], set_block[at] = place, block + 1
            arena_last[place + n], arena_member[place + n] = t, member
            n += 1
    set_n[at] = n


@lean
def _count(
    set_key: U64, set_at: I64, set_n: Int32, arena_last: I64,
    key: np.uint64, now: int, reads: I64, first: int, last: int, out: F64, e: int,
) -> None:  # fmt: skip
    """The reading half of `seen`, for every span asked of this set."""
    at = _find(set_key, key)
    if at < 0:
        for r in range(first, last):
            out[e, reads[r, 2]] = 0.0
        return
    place, n = set_at[at], set_n[at]
    latest = now
    for i in range(place, place + n):
        latest = max(latest, arena_last[i])
    for r in range(first, last):
        edge = latest - reads[r, 1]
        count = 0
        for i in range(place, place + n):
            if arena_last[i] > edge:
                count += 1
        out[e, reads[r, 2]] = count


@lean
def _tally(
    size: I64, tally_key: U64, tally_family: Int32, tally_newest: I64, tally_sum: I64,
    family: int, key: np.uint64, amount: int, t: int, now: int, span: int,
) -> int:  # fmt: skip
    width = span // BUCKETS
    bucket = t // width
    at = _find(tally_key, key)
    if at < 0:
        if amount == 0:
            return 0
        at = -1 - at
        size[TALLIES] += 1
        tally_key[at], tally_family[at], tally_newest[at] = key, family, bucket
        tally_sum[at, :] = 0
    newest = tally_newest[at]
    if amount != 0:
        if bucket > newest:
            for b in range(max(newest + 1, bucket - BUCKETS + 1), bucket + 1):
                tally_sum[at, b % BUCKETS] = 0
            newest = bucket
            tally_newest[at] = bucket
        if bucket > newest - BUCKETS:
            tally_sum[at, bucket % BUCKETS] += amount
    total = 0
    for b in range(max(now // width, newest) - BUCKETS + 1, newest + 1):
        total += tally_sum[at, b % BUCKETS]
    return total


@lean
def _claim(
    size: I64, claim_key: U64, claim_t: I64, claim_owner: U64, claim_account: U64,
    key: np.uint64, owner: np.uint64, account: np.uint64, t: int,
) -> None:  # fmt: skip
    at = _find(claim_key, key)
    if at < 0:
        at = -1 - at
        size[CLAIMS] += 1
        claim_key[at] = key
    elif t < claim_t[at] or (
        t == claim_t[at]
        and (owner < claim_owner[at] or (owner == claim_owner[at] and account <= claim_account[at]))
    ):
        return
    claim_t[at], claim_owner[at], claim_account[at] = t, owner, account


@lean
def _key(entity: np.uint64, salt: np.uint64) -> Any:  # a uint64
    return _mix(entity ^ salt)


@lean
def _fold(
    state: State,
    tables: Tables,
    rows: tuple[Any, ...],
    first: int,
    observe: bool,
    out: F64,
    status: NDArray[np.int8],
    ordinal: I64,
    scratch: tuple[U64, NDArray[np.bool_], U64, U64, U64],
) -> tuple[int, int]:
    """Fold events from `first` on; returns (events done, table to enlarge or -1)."""
    t_, type_, account_, org_, event_id, body, start, kind_, id_, amount, number = rows
    sets, salts, reads, read_start, tallies, tally_salt, lasts, differs, shares, carried, scalar = (
        tables
    )
    (
        size, free, set_key, set_entity, set_family, set_at, set_n, set_block, arena_member, arena_last,
        tally_key, tally_family, tally_newest, tally_sum, claim_key, claim_t, claim_owner, claim_account,
        account_key, account_row, row_account, row_org, row_first, row_last, row_slot, row_number,
        talk_key, talk_t, talk_slot, id_key, id_body, id_t, id_ordinal,
    ) = state  # fmt: skip
    age, s_partner, s_continuation, s_link, conversation, declared, built_in = scalar
    slots = row_slot.shape[1]
    value, fresh, partner, partner_account, talk = scratch
    none = np.uint64(0)
    for e in range(first, len(t_)):
        lo, hi = start[e], start[e + 1]
        t, account = t_[e], account_[e]
        if observe:
            # make sure beforehand that this event cannot overflow a table
            new_sets = len(sets) + hi - lo + 6 * PARTNERS
            if size[SETS] + new_sets > _LOAD * len(set_key):
                return e, SETS
            if size[ARENA] + new_sets * 2 * SETS_CAP > len(arena_last):
                return e, ARENA
            if size[TALLIES] + len(tallies) > _LOAD * len(tally_key):
                return e, TALLIES
            if size[CLAIMS] + hi - lo > _LOAD * len(claim_key):
                return e, CLAIMS
            if size[ACCOUNTS] + 1 > min(_LOAD * len(account_key), len(row_org)):
                return e, ACCOUNTS
            if size[TALKS] + 1 > _LOAD * len(talk_key):
                return e, TALKS
            if size[IDS] + 1 > _LOAD * len(id_key):
                return e, IDS
            at = _find(id_key, event_id[e])
            if at >= 0 and id_t[at] > max(t, size[WATERMARK] - LATE) - IDS_SPAN:
                status[e] = 1 if id_body[at] == body[e] else 2
                ordinal[e] = id_ordinal[at]
                continue
            if at < 0:
                at = -1 - at
                size[IDS] += 1
            id_key[at], id_body[at], id_t[at], id_ordinal[at] = (
                event_id[e],
                body[e],
                t,
                size[ACCEPTED],
            )
            ordinal[e] = size[ACCEPTED]
            size[ACCEPTED] += 1
            if t < size[WATERMARK]:
                status[e] = 3
            size[WATERMARK] = max(size[WATERMARK], t)
        now = max(t, size[WATERMARK] - LATE)

        # --- the account: its profile, its owner
        at = _find(account_key, account)
        if at < 0:
            if not observe:
                continue
            row = size[ACCOUNTS]
            size[ACCOUNTS] += 1
            account_key[-1 - at], account_row[-1 - at] = account, row
            row_account[row], row_org[row] = account, none
            row_first[row], row_last[row] = t, t
            row_slot[row, :] = none
            row_number[row, :] = np.nan
        else:
            row = account_row[at]
        if observe:
            row_first[row] = min(t, row_first[row])
            row_last[row] = max(t, row_last[row])
            if org_[e] != none:
                row_org[row] = org_[e]
            for j in range(number.shape[1]):
                if not np.isnan(number[e, j]):
                    row_number[row, j] = number[e, j]
        owner = row_org[row] if row_org[row] != none else account
        for j in range(slots):
            value[j] = row_slot[row, j]
            fresh[j] = False
        for i in range(lo, hi):
            j = int(kind_[i])
            if j >= CUSTOM:
                j = j - CUSTOM + built_in if j - CUSTOM < declared else slots
            if j < slots and (j < built_in or kind_[i] >= CUSTOM):
                value[j] = id_[i]
                fresh[j] = True
                row_slot[row, j] = id_[i]
        if observe and fresh[conversation]:
            # complete what the exporter sends once per conversation, and remember what it sent now
            key = _mix(account ^ _mix(value[conversation]))
            at = _find(talk_key, key)
            if at < 0:
                at = -1 - at
                size[TALKS] += 1
                talk_key[at], talk_t[at] = key, t
                talk_slot[at, :] = none
            elif talk_t[at] <= now - CARRY_SPAN:
                talk_t[at] = t
                talk_slot[at, :] = none
            talk_t[at] = max(t, talk_t[at])
            for c in range(len(carried)):
                j = carried[c]
                if fresh[j]:
                    talk_slot[at, c] = value[j]
                elif talk_slot[at, c] != none:
                    value[j] = talk_slot[at, c]
                    fresh[j] = True

        # --- claims: whose conversation, whose minted ids
        partners = 0
        if observe:
            for i in range(lo, hi):
                if (kind_[i] == CHAIN_LINK or kind_[i] == MINTED) and partners < PARTNERS:
                    at = _find(claim_key, id_[i])
                    if (
                        at >= 0
                        and claim_t[at] > now - CLAIM_SPAN
                        and claim_owner[at] != owner
                        and claim_account[at] != account
                    ):
                        other = claim_owner[at]
                        known = False
                        for p in range(partners):
                            known = known or partner[p] == other
                        if not known:
                            partner[partners], partner_account[partners] = other, claim_account[at]
                            talk[partners] = value[conversation] if fresh[conversation] else id_[i]
                            partners += 1
            for i in range(lo, hi):
                if kind_[i] == CHAIN_AFTER or kind_[i] == EMITTED:
                    _claim(
                        size,
                        claim_key,
                        claim_t,
                        claim_owner,
                        claim_account,
                        id_[i],
                        owner,
                        account,
                        t,
                    )
            for p in range(partners):
                other, far = partner[p], partner_account[p]
                pair = _mix(talk[p] ^ _mix(min(owner, other)) ^ (max(owner, other) * _SALT))
                for w in range(6):
                    # both accounts met each other's owner, both hold the conversation, both owners are linked
                    family = s_partner if w < 2 else s_continuation if w < 4 else s_link
                    entity = pair if w >= 4 else account if w % 2 == 0 else far
                    if w < 2:
                        member = other if w == 0 else owner
                    elif w < 4:
                        member = talk[p]
                    else:
                        member = owner if w == 4 else other
                    _see(
                        size, free, set_key, set_entity, set_family, set_at, set_n, set_block, arena_member, arena_last,
                        family, _key(entity, salts[family]), entity, member, t, now, sets[family, 3],
                    )  # fmt: skip
            # kinds without a column still make sightings, and links
            for i in range(lo, hi):
                if kind_[i] >= CUSTOM + declared:
                    salt = _mix(np.uint64(kind_[i]) * _CUSTOM_SALT)
                    _see(
                        size, free, set_key, set_entity, set_family, set_at, set_n, set_block, arena_member, arena_last,
                        -kind_[i], _key(id_[i], salt), id_[i], owner, t, now, CUSTOM_SPAN,
                    )  # fmt: skip

        # --- seen
        for s in range(len(sets)):
            key_slot, member_slot = sets[s, 0], sets[s, 1]
            if s == s_link:
                continue
            entity = account if key_slot == ACCOUNT else value[key_slot]
            if entity == none:
                continue
            key = _key(entity, salts[s])
            if (
                observe
                and (sets[s, 2] >> type_[e]) & 1
                and (key_slot == ACCOUNT or fresh[key_slot])
            ):
                member = none
                if member_slot == ACCOUNT:
                    member = owner
                elif member_slot == HOURS:
                    member = np.uint64(1 + (t // HOUR) % 24)
                elif member_slot != PARTNER and member_slot != CONTINUATION and fresh[member_slot]:
                    member = value[member_slot]
                if member != none:
                    _see(
                        size, free, set_key, set_entity, set_family, set_at, set_n, set_block, arena_member, arena_last,
                        s, key, entity, member, t, now, sets[s, 3],
                    )  # fmt: skip
            _count(
                set_key,
                set_at,
                set_n,
                arena_last,
                key,
                now,
                reads,
                read_start[s],
                read_start[s + 1],
                out,
                e,
            )

        # --- tally, last, and what is computed from them
        for i in range(len(tallies)):
            key_slot = tallies[i, 0]
            entity = account if key_slot == ACCOUNT else value[key_slot]
            if entity != none:
                wrote = observe and (key_slot == ACCOUNT or fresh[key_slot])
                out[e, tallies[i, 3]] = _tally(
                    size, tally_key, tally_family, tally_newest, tally_sum, i, _key(entity, tally_salt[i]),
                    amount[e, tallies[i, 1]] if wrote else 0, t, now, tallies[i, 2],
                )  # fmt: skip
        for i in range(len(lasts)):
            out[e, lasts[i, 1]] = row_number[row, lasts[i, 0]]
        if age >= 0:
            out[e, age] = max(0, t - row_first[row]) / HOUR
        for i in range(len(differs)):
            a, b = value[differs[i, 0]], value[differs[i, 1]]
            if a != none and b != none:
                out[e, differs[i, 2]] = 1.0 if a != b else 0.0
        for i in range(len(shares)):
            whole = out[e, shares[i, 1]]
            if whole > 0:
                out[e, shares[i, 2]] = out[e, shares[i, 0]] / whole
    return len(t_), -1


@njit(cache=True, nogil=True)
def _rehash(keys: U64, live: NDArray[np.bool_], size: int) -> tuple[U64, I64, int]:
    """A new key table, where each old place went (-1: dropped), and how many are left."""
    new = np.zeros(size, np.uint64)
    moved = np.full(len(keys), -1, np.int64)
    n = 0
    for i in range(len(keys)):
        if keys[i] != np.uint64(0) and live[i]:
            at = -1 - _find(new, keys[i])
            new[at] = keys[i]
            moved[i] = at
            n += 1
    return new, moved, n


@njit(cache=True, nogil=True)
def _live_sets(state: State, spans: I64, edge: int) -> NDArray[np.bool_]:
    live = np.zeros(len(state.set_key), np.bool_)
    for at in range(len(live)):
        if state.set_key[at] != np.uint64(0):
            family = state.set_family[at]
            span = spans[family] if family >= 0 else CUSTOM_SPAN
            for i in range(state.set_at[at], state.set_at[at] + state.set_n[at]):
                if state.arena_last[i] > edge - span:
                    live[at] = True
    return live


@njit(cache=True, nogil=True)
def _compact(state: State, member: U64, last: I64) -> int:
    """Copy every set's block into new arena arrays; returns the room used."""
    top = 0
    for at in range(len(state.set_key)):
        if state.set_key[at] != np.uint64(0):
            n, block = state.set_n[at], 0
            while 2 << block < n:
                block += 1
            for i in range(n):
                member[top + i] = state.arena_member[state.set_at[at] + i]
                last[top + i] = state.arena_last[state.set_at[at] + i]
            state.set_at[at], state.set_block[at] = top, block
            top += 2 << block
    return top


@njit(cache=True, nogil=True)
def _export(state: State, spans: I64, edge: int, linkable: I64, built_in: int) -> tuple[Any, ...]:
    total = 0
    for at in range(len(state.set_key)):
        if state.set_key[at] != np.uint64(0):
            total += state.set_n[at]
    kind = np.empty(total, np.int32)
    entity, owner, last = (
        np.empty(total, np.uint64),
        np.empty(total, np.uint64),
        np.empty(total, np.int64),
    )
    n = 0
    for at in range(len(state.set_key)):
        if state.set_key[at] == np.uint64(0):
            continue
        family = state.set_family[at]
        if family >= 0:
            code, span = linkable[family], spans[family]
            if code < 0:
                continue
        else:
            code, span = -family, CUSTOM_SPAN
        latest = edge
        for i in range(state.set_at[at], state.set_at[at] + state.set_n[at]):
            latest = max(latest, state.arena_last[i])
        for i in range(state.set_at[at], state.set_at[at] + state.set_n[at]):
            if state.arena_last[i] > latest - span:
                kind[n], entity[n] = code, state.set_entity[at]
                owner[n], last[n] = state.arena_member[i], state.arena_last[i]
                n += 1
    return kind[:n], entity[:n], owner[:n], last[:n]


def _new_state(slots: int, carried: int) -> State:
    u64, i64, i32 = np.uint64, np.int64, np.int32
    n = 1 << 12
    return State(
        np.zeros(9, i64), np.full(_BLOCKS, -1, i64),
        np.zeros(n, u64), np.zeros(n, u64), np.zeros(n, i32), np.zeros(n, i64), np.zeros(n, i32), np.zeros(n, i32),
        np.zeros(1 << 16, u64), np.zeros(1 << 16, i64),
        np.zeros(n, u64), np.zeros(n, i32), np.zeros(n, i64), np.zeros((n, BUCKETS), i64),
        np.zeros(n, u64), np.zeros(n, i64), np.zeros(n, u64), np.zeros(n, u64),
        np.zeros(n, u64), np.zeros(n, i64),
        np.zeros(n, u64), np.zeros(n, u64), np.zeros(n, i64), np.zeros(n, i64),
        np.zeros((n, slots), u64), np.zeros((n, len(NUMBERS)), np.float64),
        np.zeros(n, u64), np.zeros(n, i64), np.zeros((n, carried), u64),
        np.zeros(n, u64), np.zeros(n, u64), np.zeros(n, i64), np.zeros(n, i64),
    )  # fmt: skip


class MemoryWindow:
    """See features/window.py for the contract and features/plan.py for the exact meaning."""

    def __init__(self, catalog: Catalog) -> None:
        self.plan: Plan = plan(catalog)
        p = self.plan
        self._tables = Tables(
            p.sets, p.set_salt, p.reads, p.read_start, p.tallies, p.tally_salt, p.lasts, p.differs, p.shares,
            p.carried,
            np.array(
                [
                    p.age, p.partner, p.continuation, p.link, p.conversation,
                    len(catalog.kinds), p.slots - len(catalog.kinds),
                ],
                np.int64,
            ),
        )  # fmt: skip
        self._state = _new_state(p.slots, len(p.carried))

    @property
    def watermark(self) -> int:
        return int(self._state.size[WATERMARK])

    def fold(self, rows: Rows) -> Folded:
        return self._run(rows, observe=True)

    def ask(self, accounts: U64, t: int) -> F64:
        """Vectors of these accounts as of `t`, from their profiles; nothing is written."""
        n = len(accounts)
        none = np.zeros(n, np.uint64)
        rows = Rows(
            np.full(n, t, np.int64), np.zeros(n, np.uint8), accounts, none, none, none,
            np.zeros(n + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.uint64),
            np.zeros((n, len(AMOUNTS)), np.int64), np.full((n, len(NUMBERS)), np.nan),
        )  # fmt: skip
        return self._run(rows, observe=False).vectors

    def _run(self, rows: Rows, observe: bool) -> Folded:
        vectors = np.full((len(rows), self.plan.width), np.nan)
        status = np.full(len(rows), NEW, np.int8)
        ordinal = np.full(len(rows), -1, np.int64)
        packed = (
            rows.t, rows.type_, rows.account, rows.org, rows.event_id, rows.body,
            rows.start, rows.kind, rows.id, rows.amount, rows.number,
        )  # fmt: skip
        slots = self.plan.slots
        scratch = (
            np.zeros(slots, np.uint64), np.zeros(slots, np.bool_),
            np.zeros(PARTNERS, np.uint64), np.zeros(PARTNERS, np.uint64), np.zeros(PARTNERS, np.uint64),
        )  # fmt: skip
        done = 0
        while True:
            done, full = _fold(
                self._state, self._tables, packed, done, observe, vectors, status, ordinal, scratch
            )
            if full < 0:
                return Folded(vectors, status, ordinal)
            widest = int(np.diff(rows.start).max())
            self._make_room(
                full, arena=(len(self.plan.sets) + widest + 6 * PARTNERS) * 2 * SETS_CAP
            )

    def accounts(self) -> tuple[U64, U64, I64, I64]:
        """Every account: its name, its owner, when it was first and last seen."""
        s, n = self._state, self._state.size[ACCOUNTS]
        account, org = s.row_account[:n].copy(), s.row_org[:n]
        return (
            account,
            np.where(org != 0, org, account),
            s.row_first[:n].copy(),
            s.row_last[:n].copy(),
        )

    def sightings(self) -> Sightings:
        """Every live sighting of an owner on an entity that can link owners."""
        built_in = self.plan.slots - len(self.plan.catalog.kinds)
        kind, entity, owner, last = _export(
            self._state,
            self.plan.sets[:, 3].copy(),
            self.watermark - LATE,
            self.plan.sets[:, 4].copy(),
            built_in,
        )
        # slots of declared kinds and of the continuation get the numbers `Kinds` knows them by
        declared = len(self.plan.catalog.kinds)
        link = kind == built_in + declared
        custom = (kind >= built_in) & (kind < built_in + declared)
        kind = np.where(
            link, CONTINUATION, np.where(custom, kind - built_in + CUSTOM, kind)
        ).astype(np.int32)
        return Sightings(kind, entity, owner, last)

    # --- room

    def _make_room(self, full: int, arena: int) -> None:
        """Purge or enlarge one table; `arena` is the most that one event may need there."""
        s = self._state
        edge = self.watermark - LATE
        if full == SETS:
            live = _live_sets(s, self.plan.sets[:, 3].copy(), edge)
            self._move(
                ("set_key", "set_entity", "set_family", "set_at", "set_n", "set_block"), live, SETS
            )
            self._compact(arena)
        elif full == ARENA:
            self._compact(arena)
        elif full == TALLIES:
            spans = self.plan.tallies[:, 2]
            width = (spans // BUCKETS)[s.tally_family]
            live = s.tally_newest > edge // width - BUCKETS
            self._move(("tally_key", "tally_family", "tally_newest", "tally_sum"), live, TALLIES)
        elif full == CLAIMS:
            self._move(
                ("claim_key", "claim_t", "claim_owner", "claim_account"),
                s.claim_t > edge - CLAIM_SPAN,
                CLAIMS,
            )
        elif full == ACCOUNTS:
            if s.size[ACCOUNTS] + 1 > _LOAD * len(s.account_key):
                self._move(
                    ("account_key", "account_row"), np.ones(len(s.account_key), np.bool_), ACCOUNTS
                )
            s = self._state
            if s.size[ACCOUNTS] + 1 > len(s.row_org):
                wider = {
                    name: np.concatenate([getattr(s, name), np.zeros_like(getattr(s, name))])
                    for name in (
                        "row_account",
                        "row_org",
                        "row_first",
                        "row_last",
                        "row_slot",
                        "row_number",
                    )
                }
                self._state = s._replace(**wider)
        elif full == TALKS:
            self._move(("talk_key", "talk_t", "talk_slot"), s.talk_t > edge - CARRY_SPAN, TALKS)
        elif full == IDS:
            self._move(("id_key", "id_body", "id_t", "id_ordinal"), s.id_t > edge - IDS_SPAN, IDS)

    def _move(self, names: tuple[str, ...], live: NDArray[np.bool_], size: int) -> None:
        """Rehash one table with its live rows, into twice the room if they fill it by a third."""
        s = self._state
        keys = getattr(s, names[0])
        alive = int(np.count_nonzero(live & (keys != 0)))
        room = len(keys) * 2 if alive * 3 > len(keys) else len(keys)
        new, moved, n = _rehash(keys, live, room)
        kept = moved >= 0
        columns: dict[str, Any] = {names[0]: new}
        for name in names[1:]:
            old = getattr(s, name)
            column = np.zeros((room, *old.shape[1:]), old.dtype)
            column[moved[kept]] = old[kept]
            columns[name] = column
        self._state = s._replace(**columns)
        self._state.size[size] = n

    def _compact(self, free: int) -> None:
        s = self._state
        used = s.set_n[s.set_key != 0].astype(np.int64)
        room = int(2 ** np.ceil(np.log2(max(int((used * 2 + 2).sum()), free)))) * 2
        member, last = np.zeros(room, np.uint64), np.zeros(room, np.int64)
        top = _compact(s, member, last)
        self._state = s._replace(arena_member=member, arena_last=last)
        self._state.size[ARENA] = top
        self._state.free[:] = -1

    # --- snapshots

    def save(self) -> dict[str, NDArray[Any]]:
        """The state as named arrays."""
        return dict(self._state._asdict())

    def load(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Replace the state by what `save` gave, of a window with the same catalogue."""
        self._state = State(**{name: np.ascontiguousarray(arrays[name]) for name in State._fields})
