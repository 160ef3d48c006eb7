"""Every call of every conversation, played by a compiled discrete-event loop.

Whoever wants to converse, honest or not, goes through a *pool*: the accounts a caller may use (one, an
organisation's keys, a station's seats) and the rule by which one is chosen. A *seat* is an account in a
pool and how the pool dresses its calls. A *talk* is a conversation: turns, pauses, the rolling prefix
chain, the prompt cache, minted ids. The loop takes the earliest talk off a heap, makes its next call, and
notes it as a slip (synth/slips.py).

Links and provider-made ids are salts with the right equalities: a link stands for the history up to it,
so the same history has the same link wherever it is sent. The prompt cache belongs to an account: a call
reads what this account has cached of the history and writes the rest, so a conversation that moves pays
for its history again; the program's own prefix may be warm there because of somebody else.

The tables are integers (and a few floats) whose columns are listed below; `synth/exchange.py` fills them.
Accounts are suspended between two times, so that what a slow hand does at 12:04 is not felt at 12:01.
Nothing here knows who is honest.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from synth import slips as s
from synth.prices import CALLS_A_CALL
from synth.slips import I64, REFS_MAX, compiled, mix

F64 = NDArray[np.float64]
NONE = s.NONE
MINUTE = 60_000
HOUR = 60 * MINUTE
FOREVER = 2**62
TABLE_BITS = 12
TABLE_MASK = (1 << TABLE_BITS) - 1
CONTEXT_MAX = 170_000  # tokens
QUOTA_MS = 5 * HOUR  # length of a quota window

# The imperfect wire: shares of slips that are observed late, twice, never.
LATE, TWICE, NEVER = 0.010, 0.004, 0.003
DELAY_MEDIAN_MS, DELAY_SIGMA, DELAY_MIN_MS, DELAY_MAX_MS = 25 * MINUTE, 1.2, 20_000, 24 * HOUR

# --- columns

# accounts: integers
(A_HEAD, A_BORN, A_BARRED, A_BARRED_UNTIL, A_THROTTLED, A_WINDOW_ENDS, A_WINDOW, A_WARM,
 A_WARM_UNTIL, A_EVENTS, A_ON_CREDIT, A_METERED, A_SEEN) = range(13)  # fmt: skip
ACCOUNT_COLUMNS = 13
# accounts: US dollars
V_WINDOW_USD, V_WINDOW_SPENT, V_SPENT, V_PAID, V_CREDIT = range(5)
VALUE_COLUMNS = 5
# seats
(T_ACCOUNT, T_POOL, T_NET, T_AGENT, T_TLS, T_DEVICE, T_STATED, T_ORDER, T_TEMPLATE, T_LINK, T_COOLS, T_USED,
 T_GONE, T_MASK, T_MASK_UNTIL, T_PLACE, T_PAGE) = range(17)  # fmt: skip
T_BUSY = 17  # when the calls under way will end
BUSY_MAX = 10
SEAT_COLUMNS = T_BUSY + BUSY_MAX
NOTHING = -2  # a fragment that is taken away, where NONE leaves the talk's own
# pools
(P_RULE, P_FIRST, P_SIZE, P_ROOM, P_STICKY_MS, P_SLIDING, P_PINNED, P_SWITCHES, P_AGAIN, P_AGAIN_MS,
 P_COOL_MS, P_OVERLOAD_MS, P_LIMIT_MS, P_OBEYS, P_JITTER, P_SEAT_CALLS, P_STOP, P_INTERCEPTS, P_PLACELESS,
 P_LINKS, P_MASKED, P_RELAY, P_NEXT, P_LINK_MS) = range(24)  # fmt: skip
POOL_COLUMNS = 24
# how a pool chooses, when nothing holds a conversation to a seat
# (RANDOM for each call, ANY for each conversation)
OWN, SWAP, RANDOM, ANY, LRU, ROUND_ROBIN, FILL_FIRST = range(7)
# whose network connection a call travels on
LINK_TALK, LINK_SHARED, LINK_CALL = range(3)

# talks: what is given …
(K_START, K_POOL, K_SEAT, K_CUSTOMER, K_TEMPO, K_TURNS, K_NET, K_MODEL, K_MODEL_TEXT, K_NOTE, K_FLAGS, K_SCRIPT,
 K_SCRIPT_N, K_SESSION, K_PLACE, K_USER,
 # these follow from the program alone
 K_PROGRAM, K_SYSTEM, K_TTL, K_AGENT, K_TLS, K_DEVICE, K_PAGE, K_STATED, K_ORDER, K_META, K_TEMPLATE,
 K_FIXED) = range(28)  # fmt: skip
GIVEN = 28
# … and how it stands
(K_LEFT, K_PATIENCE, K_CONTEXT, K_LENGTH, K_LINK1, K_LINK2, K_AFTER, K_PENDING, K_FRESH, K_ANSWER, K_PROMPT,
 K_TYPED, K_ROOT, K_PINNED, K_PINNED_UNTIL, K_TRIED, K_OPENING, K_REFS_N) = range(GIVEN, GIVEN + 18)  # fmt: skip
K_REFS = GIVEN + 18
K_LANES = K_REFS + REFS_MAX
LANES = 6  # seats of which a talk remembers what it said and what is cached there
L_SEAT, L_CACHED, L_UNTIL, L_TOLD, L_SALT = range(5)
LANE_COLUMNS = 5
TALK_COLUMNS = K_LANES + LANES * LANE_COLUMNS

CHATTY, HAS_SESSION, TITLES, AUXILIARY = 1, 2, 4, 8  # K_FLAGS

# tempi: medians in tokens and ms
(M_TURNS, M_MACHINE, M_OPENING, M_FRESH, M_ANSWER, M_GAP_FAST, M_GAP_SLOW, M_SIGMA, M_SPREAD) = (
    range(9)
)
TEMPO_COLUMNS = 9

# notices to the slow hand: a seat that will serve no more
LOST = 0

# places in `count`
RNG, HEAP, SLIPS, NOTICES, FREE = range(5)
# why the loop returned
DONE, MORE_SLIPS, MORE_NOTICES = range(3)

ERRORS = ((400, "invalid_request_error"), (500, "api_error"), (529, "overloaded_error"),
          (429, "rate_limit_error"), (402, "credit_exhausted"), (403, "account_suspended"))  # fmt: skip


class Tables(NamedTuple):
    """All that the loop reads and writes."""

    count: I64
    account: I64
    value: F64
    seat: I64
    member: I64  # seats of the pools, each pool a run of P_ROOM from P_FIRST
    pool: I64
    customer: I64  # the seat a customer is pinned to
    talk: I64
    heap_at: I64
    heap_talk: I64
    free: I64  # talks to be used again
    link: I64  # [n, 2] shared connections: salt, until
    tempo: F64
    price: F64  # [model, 2] US dollars a token, in and out
    incident: I64  # begin, end, begin, … of the provider's overloads
    error: I64  # fragment of each of ERRORS
    prompts: I64  # fragments of the short prompts that everybody types, the commonest first
    notes: I64  # fragments: main, title, count
    spread: F64  # e^(0.8 z) for standard normal z
    draft: I64  # the slip under way
    slip: I64
    seen: I64  # when each slip is observed
    notice: I64  # [n, 3] what, seat, when


# --- randomness: splitmix64, one stream


@compiled
def _bits(count: I64) -> int:
    count[RNG] += np.int64(0x1E3779B97F4A7C15)
    return mix(count[RNG])


@compiled
def _chance(count: I64) -> float:
    return ((_bits(count) >> 11) & ((1 << 53) - 1)) * (1.0 / (1 << 53))


@compiled
def _gauss(count: I64) -> float:
    # Box and Muller (1958)
    u = 1.0 - _chance(count)
    return np.sqrt(-2.0 * np.log(u)) * np.cos(2.0 * np.pi * _chance(count))


@compiled
def _spread(count: I64, table: F64, median: float) -> float:
    return median * table[_bits(count) & TABLE_MASK]


# --- the heap of talks, by (time, talk)


@compiled
def _push(count: I64, at: I64, talk: I64, when: int, k: int) -> None:
    i = count[HEAP]
    count[HEAP] = i + 1
    while i:
        up = (i - 1) >> 1
        if at[up] < when or (at[up] == when and talk[up] <= k):
            break
        at[i], talk[i] = at[up], talk[up]
        i = up
    at[i], talk[i] = when, k


@compiled
def _pop(count: I64, at: I64, talk: I64) -> None:
    n = count[HEAP] - 1
    count[HEAP] = n
    when, k = at[n], talk[n]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= n:
            break
        other = child + 1
        if other < n and (
            at[other] < at[child] or (at[other] == at[child] and talk[other] < talk[child])
        ):
            child = other
        if when < at[child] or (when == at[child] and k <= talk[child]):
            break
        at[i], talk[i] = at[child], talk[child]
        i = child
    at[i], talk[i] = when, k


# --- the provider


@compiled
def _admit(t: Tables, a: int, at: int) -> tuple[int, int]:
    """Whether a call is served: (index into ERRORS or -1, seconds to wait or 0)."""
    count, account, value = t.count, t.account, t.value
    if account[a, A_BARRED] <= at < account[a, A_BARRED_UNTIL]:
        return 5, 0
    if at > account[a, A_WINDOW_ENDS]:
        account[a, A_WINDOW_ENDS] = at + QUOTA_MS
        account[a, A_WINDOW] = _bits(count)
        value[a, V_WINDOW_SPENT] = 0.0
    if value[a, V_WINDOW_SPENT] >= value[a, V_WINDOW_USD]:
        return 3, max(1, (account[a, A_WINDOW_ENDS] - at) // 1000)
    if account[a, A_ON_CREDIT] and value[a, V_SPENT] >= value[a, V_CREDIT]:
        return 4, 0
    if at < account[a, A_THROTTLED] and _chance(count) < 0.5:
        return 3, 15 + np.int64(75 * _chance(count))
    luck = _chance(count)
    if luck < 0.004:
        return np.int64(3 * _chance(count)), 0
    if luck < 0.2 and np.searchsorted(t.incident, at, side="right") & 1:
        return 2, 0
    if luck > 0.996:
        return 3, 2 + np.int64(38 * _chance(count))
    return -1, 0


# --- the pool


@compiled
def _ready(t: Tables, p: int, seat: int, at: int) -> bool:
    row, pool = t.seat[seat], t.pool[p]
    if row[T_GONE] or row[T_COOLS] > at:
        return False
    a = row[T_ACCOUNT]
    if t.account[a, A_BORN] > at:
        return False
    if (
        pool[P_STOP] < 10_000
        and at <= t.account[a, A_WINDOW_ENDS]
        and (t.value[a, V_WINDOW_SPENT] * 10_000 > pool[P_STOP] * t.value[a, V_WINDOW_USD])
    ):
        return False
    if pool[P_SEAT_CALLS]:
        busy = 0
        for i in range(BUSY_MAX):
            busy += row[T_BUSY + i] > at
        if busy >= pool[P_SEAT_CALLS]:
            return False
    return True


@compiled
def _choose(t: Tables, p: int, at: int) -> int:
    """The next seat by the pool's rule, or -1."""
    pool = t.pool[p]
    first, size = pool[P_FIRST], pool[P_SIZE]
    if size == 0:
        return NONE
    rule = pool[P_RULE]
    if rule == OWN:
        return t.member[first]
    if rule == SWAP:
        return t.member[first + pool[P_NEXT] % size]
    if rule in (RANDOM, ANY):
        for _ in range(4):
            seat = t.member[first + np.int64(size * _chance(t.count))]
            if _ready(t, p, seat, at):
                return seat
    best, used = NONE, FOREVER
    start = pool[P_NEXT] if rule == ROUND_ROBIN else 0
    for i in range(size):
        seat = t.member[first + (start + i) % size]
        if t.seat[seat, T_USED] < used and _ready(t, p, seat, at):
            if rule != LRU:
                if rule == ROUND_ROBIN:
                    pool[P_NEXT] = (start + i + 1) % size
                return seat
            best, used = seat, t.seat[seat, T_USED]
    return best


@compiled
def _seat_of(t: Tables, k: I64, at: int) -> int:
    """Where the next call of a talk goes, or -1."""
    p = k[K_POOL]
    pool = t.pool[p]
    if k[K_SEAT] >= 0:  # to this seat, whatever it answers
        return k[K_SEAT]
    if pool[P_RULE] <= RANDOM:
        return _choose(t, p, at)
    customer = k[K_CUSTOMER]
    pinned = pool[P_PINNED] and customer >= 0
    seat = t.customer[customer] if pinned else k[K_PINNED]
    stays = seat >= 0 and not t.seat[seat, T_GONE] and t.seat[seat, T_COOLS] <= at
    if stays and not pinned:
        stays = at < k[K_PINNED_UNTIL]
    if not stays:
        seat = _choose(t, p, at)
        if seat < 0:
            return NONE
        if pinned:
            t.customer[customer] = seat
        k[K_PINNED] = seat
        k[K_PINNED_UNTIL] = at + pool[P_STICKY_MS]
    elif pool[P_SLIDING]:
        k[K_PINNED_UNTIL] = at + pool[P_STICKY_MS]
    t.seat[seat, T_USED] = at
    return seat


@compiled
def _refused(t: Tables, k: I64, seat: int, at: int, status: int, wait: int) -> None:
    """What a pool makes of a refusal."""
    p = k[K_POOL]
    pool, row = t.pool[p], t.seat[seat]
    rule = pool[P_RULE]
    if rule == SWAP:
        if status == 402 or status == 403 or status == 429:
            pool[P_NEXT] += 1
        return
    if not pool[P_RELAY]:
        return
    if status == 402 or status == 403:
        if not row[T_GONE]:
            row[T_GONE] = 1
            i = t.count[NOTICES]
            t.notice[i, 0], t.notice[i, 1], t.notice[i, 2] = LOST, seat, at
            t.count[NOTICES] = i + 1
    elif status != 400:
        cool = pool[P_OVERLOAD_MS] if status == 529 else pool[P_COOL_MS]
        if status == 429:
            cool = 1000 * wait if pool[P_OBEYS] and wait else pool[P_LIMIT_MS]
        spread = 1.0 + pool[P_JITTER] / 1000 * (2.0 * _chance(t.count) - 1.0)
        row[T_COOLS] = at + np.int64(cool * spread)
    k[K_PINNED] = NONE


# --- the talk


@compiled
def _lane(t: Tables, k: I64, seat: int) -> int:
    """Column at which the talk's memory of this seat begins; the one used longest ago gives way."""
    oldest = K_LANES
    for i in range(LANES):
        at = K_LANES + i * LANE_COLUMNS
        if k[at + L_SEAT] == seat:
            return at
        if k[at + L_SEAT] < 0:
            oldest = at
            break
        if k[at + L_UNTIL] < k[oldest + L_UNTIL]:
            oldest = at
    k[oldest + L_SEAT], k[oldest + L_CACHED], k[oldest + L_UNTIL] = seat, 0, 0
    k[oldest + L_TOLD], k[oldest + L_SALT] = 0, _bits(t.count) | 1
    return oldest


@compiled
def _address(t: Tables, k: I64, seat: int, lane: int, at: int, out: I64) -> None:
    """Everything of a slip that follows from who calls through which seat."""
    row, pool = t.seat[seat], t.pool[k[K_POOL]]
    a = row[T_ACCOUNT]
    salt = k[lane + L_SALT]
    out[s.HEAD] = t.account[a, A_HEAD]
    out[s.NET] = row[T_NET] if row[T_NET] >= 0 else k[K_NET]
    out[s.AGENT] = row[T_AGENT] if row[T_AGENT] >= 0 else k[K_AGENT]
    out[s.TLS] = row[T_TLS] if row[T_TLS] >= 0 else k[K_TLS]
    out[s.DEVICE] = k[K_DEVICE] if row[T_DEVICE] == NONE else row[T_DEVICE]  # may be NOTHING
    out[s.HOST] = salt
    if pool[P_LINKS] == LINK_SHARED and row[T_LINK] >= 0:
        link = t.link[row[T_LINK]]
        if at >= link[1]:
            link[0] = _bits(t.count) | 1
            link[1] = at + np.int64(_spread(t.count, t.spread, np.float64(pool[P_LINK_MS])))
        out[s.LINK] = link[0]
    elif pool[P_LINKS] == LINK_CALL:
        out[s.LINK] = _bits(t.count) | 1
    else:
        out[s.LINK] = salt
    if (salt >> 20) % 100 < 13:  # an edge that cannot tell
        out[s.LINK] = 0
    session = 0
    if k[K_FLAGS] & HAS_SESSION:
        session = k[K_SESSION]
    if pool[P_RELAY]:
        out[s.USER] = NONE
        if pool[P_MASKED]:
            if at >= row[T_MASK_UNTIL]:
                row[T_MASK] = _bits(t.count) | 1
            row[T_MASK_UNTIL] = at + 15 * MINUTE
            session = row[T_MASK]
        elif session:
            session = mix(session ^ mix(a)) | 1
    else:
        out[s.USER] = k[K_USER]
    out[s.SESSION] = session
    out[s.PAGE] = row[T_PAGE] if row[T_PAGE] >= 0 and k[K_PAGE] >= 0 else k[K_PAGE]
    out[s.FIXED], out[s.MODEL] = k[K_FIXED], k[K_MODEL_TEXT]
    out[s.STATED] = out[s.ORDER] = out[s.META] = out[s.TEMPLATE] = out[s.PLACE] = NONE
    if not k[lane + L_TOLD]:
        k[lane + L_TOLD] = 1
        out[s.STATED] = row[T_STATED] if row[T_STATED] >= 0 else k[K_STATED]
        chatty = k[K_FLAGS] & CHATTY
        out[s.ORDER] = (
            row[T_ORDER] if row[T_ORDER] >= 0 and (chatty or row[T_STATED] >= 0) else k[K_ORDER]
        )
        out[s.META] = k[K_META]
        out[s.TEMPLATE] = row[T_TEMPLATE] if row[T_TEMPLATE] >= 0 else k[K_TEMPLATE]
        if not pool[P_PLACELESS]:
            out[s.PLACE] = row[T_PLACE] if row[T_PLACE] >= 0 and k[K_PLACE] >= 0 else k[K_PLACE]


@compiled
def _copy(out: I64, slip: I64, i: int) -> None:
    for column in range(len(out)):
        slip[i, column] = out[column]


@compiled
def _file(t: Tables, a: int, out: I64) -> None:
    """Hand a slip to the imperfect wire."""
    count = t.count
    t.account[a, A_EVENTS] += 1
    out[s.SALT], out[s.LATE_AT], out[s.ACCOUNT] = _bits(count), 0, a
    i = count[SLIPS]
    luck = _chance(count)
    if luck < NEVER:
        return
    _copy(out, t.slip, i)
    t.seen[i] = out[s.ENDED]
    count[SLIPS] = i + 1
    if luck < NEVER + LATE + TWICE:
        delay = DELAY_MEDIAN_MS * np.exp(DELAY_SIGMA * _gauss(count))
        later = out[s.ENDED] + np.int64(min(max(delay, DELAY_MIN_MS), DELAY_MAX_MS))
        if luck < NEVER + LATE:
            t.slip[i, s.LATE_AT] = later
            t.seen[i] = later
        else:
            _copy(out, t.slip, i + 1)
            t.seen[i + 1] = later
            count[SLIPS] = i + 2


@compiled
def _message(t: Tables, k: I64) -> None:
    """The next message of a talk; one that is tried again stays the same."""
    count, tempo = t.count, t.tempo[k[K_TEMPO]]
    k[K_PENDING] = _bits(count) | 1
    fresh = tempo[M_OPENING] if k[K_OPENING] else tempo[M_FRESH]
    wide = tempo[M_SPREAD]
    k[K_FRESH] = np.int64(fresh * (1.0 + wide * (t.spread[_bits(count) & TABLE_MASK] - 1.0)))
    k[K_ANSWER] = 1 + np.int64(
        tempo[M_ANSWER] * (1.0 + wide * (t.spread[_bits(count) & TABLE_MASK] - 1.0))
    )
    k[K_FRESH] = max(k[K_FRESH], 1)
    k[K_ANSWER] = max(k[K_ANSWER], 1)
    k[K_PROMPT], k[K_TYPED] = NONE, 0
    if k[K_SCRIPT] >= 0:
        k[K_PROMPT] = k[K_SCRIPT] + (k[K_LENGTH] >> 1) % max(1, k[K_SCRIPT_N])
    elif _chance(count) < 0.1:  # a short one
        if _chance(count) < 0.6:
            u = _chance(count)
            k[K_PROMPT] = t.prompts[np.int64(len(t.prompts) * u * u)]
        else:
            k[K_TYPED] = _bits(count) | 1


@compiled
def _said(k: I64, out: I64) -> None:
    """The chain of the message under way and the ids of earlier answers in it."""
    out[s.NOTE], out[s.PROMPT], out[s.TYPED] = k[K_NOTE], k[K_PROMPT], k[K_TYPED]
    out[s.ROOT] = k[K_ROOT]
    n = 0
    if k[K_LENGTH]:
        for link in (k[K_LINK1], k[K_LINK2], k[K_AFTER]):
            if link != 0:
                out[s.CHAIN + n] = link
                n += 1
        out[s.CHAIN + n] = k[K_PENDING]
    else:
        out[s.CHAIN] = k[K_ROOT]
    out[s.CHAIN_N] = n + 1
    out[s.LENGTH] = k[K_LENGTH] + 1
    out[s.REFS_N] = k[K_REFS_N]
    for i in range(k[K_REFS_N]):
        out[s.REFS + i] = k[K_REFS + i]


@compiled
def _serve(t: Tables, k: I64, seat: int, lane: int, at: int, out: I64) -> int:
    """A call that is answered; returns when it ended."""
    count = t.count
    a = t.seat[seat, T_ACCOUNT]
    account, value = t.account[a], t.value[a]
    bits = _bits(count)
    chatty = k[K_FLAGS] & CHATTY
    history = k[K_CONTEXT] if k[K_CONTEXT] else k[K_PROGRAM]
    read = 0
    if at < k[lane + L_UNTIL]:
        read = min(k[lane + L_CACHED], history)
    elif k[K_TTL] and at < account[A_WARM_UNTIL] and account[A_WARM] == k[K_SYSTEM]:
        read = k[K_PROGRAM]
    total = history + k[K_FRESH]
    plain = 3 + (bits & 15 if chatty else 0)
    write = total - read
    if write < 1024 or not k[K_TTL]:
        plain += write
        write = 0
    else:
        until = at + k[K_TTL]
        k[lane + L_CACHED], k[lane + L_UNTIL] = total, until
        account[A_WARM], account[A_WARM_UNTIL] = k[K_SYSTEM], until
    answer, out[s.ABORTED] = k[K_ANSWER], 0
    if not (bits >> 4) & 63:
        answer, out[s.ABORTED] = 1 + answer // 4, 1
    price = t.price[k[K_MODEL]]
    cost = price[0] * (plain + 1.25 * write + 0.1 * read) + price[1] * answer
    value[V_WINDOW_SPENT] += cost
    value[V_SPENT] += cost
    micro = max(1, np.int64(cost * 1e6 + 0.5))
    out[s.COST], out[s.PAID] = micro, 0
    if account[A_METERED] and value[V_SPENT] > value[V_CREDIT]:
        out[s.PAID] = micro
        value[V_PAID] += cost
    out[s.USED] = min(10_000, np.int64(value[V_WINDOW_SPENT] / value[V_WINDOW_USD] * 10_000))
    first = np.int64((900 + total * 0.012) * t.spread[(bits >> 10) & TABLE_MASK])
    lasted = first + answer * (9 + ((bits >> 22) & 15))
    ended = at + lasted
    out[s.ENDED], out[s.DURATION], out[s.FIRST], out[s.STATUS] = ended, lasted, first, 200
    out[s.PLAIN], out[s.ANSWER], out[s.READ], out[s.WRITE] = plain, answer, read, write
    out[s.WINDOW] = account[A_WINDOW]
    after = _bits(count) | 1
    out[s.AFTER], out[s.EMITTED] = after, 0
    k[K_LINK1], k[K_LINK2] = k[K_AFTER], k[K_PENDING] if k[K_LENGTH] else k[K_ROOT]
    k[K_AFTER] = after
    k[K_CONTEXT] = min(total + answer, CONTEXT_MAX)
    k[K_LENGTH] += 2
    k[K_PENDING] = 0
    if chatty and ((bits >> 26) & 63) < 42:  # two answers in three call a tool
        ref = _bits(count) | 1
        out[s.EMITTED] = ref
        n = k[K_REFS_N]
        if n == REFS_MAX:
            for i in range(REFS_MAX - 1):
                k[K_REFS + i] = k[K_REFS + i + 1]
            n -= 1
        k[K_REFS + n] = ref
        k[K_REFS_N] = n + 1
    row = t.seat[seat]
    if t.pool[k[K_POOL], P_SEAT_CALLS]:
        for i in range(BUSY_MAX):
            if row[T_BUSY + i] <= at:  # as many calls as it stands for, one after the other
                row[T_BUSY + i] = at + CALLS_A_CALL * (ended - at)
                break
    return ended


@compiled
def _refuse(t: Tables, a: int, at: int, error: int, wait: int, tries: int, out: I64) -> int:
    lasted = np.int64(_spread(t.count, t.spread, 900.0 if error == 2 else 240.0))
    status = (400, 500, 529, 429, 402, 403)[error]
    out[s.ENDED], out[s.DURATION], out[s.STATUS] = at + lasted, lasted, status
    out[s.ERROR], out[s.WAIT], out[s.ATTEMPT] = t.error[error], wait, tries
    out[s.WINDOW] = t.account[a, A_WINDOW] if status == 429 else 0
    out[s.AFTER] = out[s.EMITTED] = out[s.ABORTED] = 0
    _file(t, a, out)
    return at + lasted


@compiled
def _aside(
    t: Tables, k: I64, seat: int, at: int, note: int, fresh: float, answer: int, out: I64
) -> None:
    """A small call beside the conversation: its title, or a count of tokens. It has a chain of its own."""
    a = t.seat[seat, T_ACCOUNT]
    error, _ = _admit(t, a, at)
    if error >= 0:
        return
    out[s.NOTE], out[s.PROMPT], out[s.TYPED] = t.notes[note], NONE, 0
    out[s.ROOT] = _bits(t.count) | 1
    out[s.CHAIN], out[s.CHAIN_N], out[s.LENGTH], out[s.REFS_N] = out[s.ROOT], 1, 1, 0
    out[s.WAIT] = out[s.ATTEMPT] = out[s.ABORTED] = out[s.EMITTED] = 0
    plain = 3 + np.int64(_spread(t.count, t.spread, fresh))
    price = t.price[k[K_MODEL]]
    cost = price[0] * plain + price[1] * answer
    t.value[a, V_WINDOW_SPENT] += cost
    t.value[a, V_SPENT] += cost
    micro = max(1, np.int64(cost * 1e6 + 0.5))
    metered = t.account[a, A_METERED] and t.value[a, V_SPENT] > t.value[a, V_CREDIT]
    if metered:
        t.value[a, V_PAID] += cost
    out[s.COST], out[s.PAID] = micro, micro if metered else 0
    out[s.USED] = min(
        10_000, np.int64(t.value[a, V_WINDOW_SPENT] / t.value[a, V_WINDOW_USD] * 10_000)
    )
    first = np.int64(_spread(t.count, t.spread, 600.0))
    out[s.DURATION], out[s.FIRST] = first + answer * 12, first
    out[s.ENDED], out[s.STATUS], out[s.AFTER] = at + first + answer * 12, 200, _bits(t.count) | 1
    out[s.PLAIN], out[s.ANSWER], out[s.READ], out[s.WRITE] = plain, answer, 0, 0
    out[s.WINDOW] = t.account[a, A_WINDOW]
    _file(t, a, out)


@compiled
def _gap(t: Tables, tempo: F64) -> int:
    """From one turn to the next, ms: a program's pace, a person's, a pause, a long absence."""
    count = t.count
    luck = _chance(count)
    if luck < tempo[M_MACHINE]:
        return np.int64(_spread(count, t.spread, tempo[M_GAP_FAST]))
    if luck < 0.87:
        return np.int64(_spread(count, t.spread, tempo[M_GAP_SLOW]))
    if luck < 0.972:
        return np.int64(3 * MINUTE + 12 * MINUTE * _chance(count))
    return np.int64(HOUR * (0.6 + 3 * _chance(count)))


@compiled
def _turn(t: Tables, i: int, at: int, out: I64) -> int:
    """The next call of talk `i`; returns when it goes on, or -1 when it is over."""
    k = t.talk[i]
    count, tempo = t.count, t.tempo[k[K_TEMPO]]
    pool = t.pool[k[K_POOL]]
    if k[K_PENDING] == 0:
        _message(t, k)
    # the retry count is what the client says: a relay's own attempts do not show in it
    tries = 4 - k[K_PATIENCE] if k[K_TRIED] else 0
    k[K_TRIED] = 1
    wait, attempt, again, served = 0, 0, 0, False
    while True:
        seat = _seat_of(t, k, at)
        if seat < 0:
            k[K_PATIENCE] -= 1
            if k[K_PATIENCE] <= 0 or _chance(count) < 0.4:
                return -1
            wait = max(wait, 60)
            break
        a = t.seat[seat, T_ACCOUNT]
        lane = _lane(t, k, seat)
        error, wait = _admit(t, a, at)
        _address(t, k, seat, lane, at, out)
        _said(k, out)
        if error < 0:
            out[s.WAIT], out[s.ATTEMPT] = 0, tries
            at = _serve(t, k, seat, lane, at, out)
            _file(t, a, out)
            served = True
            k[K_TRIED] = 0
            break
        at = _refuse(t, a, at, error, wait, tries, out)
        status = out[s.STATUS]
        if status == 403 and again < pool[P_AGAIN]:  # relay software tries the same account again
            again += 1
            at += pool[P_AGAIN_MS]
            continue
        _refused(t, k, seat, at, status, wait)
        if attempt >= pool[P_SWITCHES] or k[K_SEAT] >= 0:
            break
        attempt += 1
    if served:
        if k[K_OPENING]:
            k[K_OPENING] = 0
            if k[K_FLAGS] & TITLES and not pool[P_INTERCEPTS]:
                _aside(t, k, seat, at, 1, 300.0, 12, out)
        elif k[K_FLAGS] & AUXILIARY and not pool[P_INTERCEPTS] and _chance(count) < 0.06:
            _aside(t, k, seat, at, 2, 8.0, 1, out)
        k[K_LEFT] -= 1
        if k[K_LEFT] <= 0:
            return -1
        return at + max(1, _gap(t, tempo))
    if seat >= 0:
        k[K_PATIENCE] -= 1
        if k[K_PATIENCE] <= 0:
            return -1
    if wait > 150:  # the window is used up: some come back when it opens
        if _chance(count) < 0.75:
            return -1
        return at + 1000 * wait + np.int64(_spread(count, t.spread, 20.0 * MINUTE))
    return at + 1000 * wait + np.int64(_spread(count, t.spread, 3000.0) * (5 - k[K_PATIENCE]))


@compiled
def begin(t: Tables, given: I64) -> None:
    """Take in talks: rows of the GIVEN columns."""
    count = t.count
    for row in given:
        count[FREE] -= 1
        i = t.free[count[FREE]]
        k = t.talk[i]
        for column in range(TALK_COLUMNS):
            k[column] = row[column] if column < GIVEN else 0
        k[K_PATIENCE], k[K_OPENING], k[K_PINNED] = 4, 1, NONE
        k[K_ROOT] = _bits(count) | 1
        if k[K_SESSION] == 0:
            k[K_SESSION] = _bits(count) | 1
        k[K_LEFT] = k[K_TURNS]
        if k[K_LEFT] <= 0:
            tempo = t.tempo[k[K_TEMPO]]
            long = tempo[M_TURNS] * np.exp(tempo[M_SIGMA] * _gauss(count))
            k[K_LEFT] = 1 + np.int64(min(long, 140.0))
        for n in range(LANES):
            k[K_LANES + n * LANE_COLUMNS + L_SEAT] = NONE
        _push(count, t.heap_at, t.heap_talk, k[K_START], i)


@compiled
def play(t: Tables, until: int) -> int:
    """Make every call that is due up to `until`; returns DONE or what there must be more room for."""
    count, out = t.count, t.draft
    while count[HEAP] and t.heap_at[0] <= until:
        if count[SLIPS] + 64 > len(t.seen):
            return MORE_SLIPS
        if count[NOTICES] + 16 > len(t.notice):
            return MORE_NOTICES
        at, i = t.heap_at[0], t.heap_talk[0]
        _pop(count, t.heap_at, t.heap_talk)
        again = _turn(t, i, at, out)
        if again < 0:
            t.free[count[FREE]] = i
            count[FREE] += 1
        else:
            _push(count, t.heap_at, t.heap_talk, again, i)
    return DONE


def empty_rows(columns: int, room: int = 64) -> Any:
    return np.zeros((room, columns), np.int64)
