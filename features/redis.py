"""The redis window: the same fold kept in Redis ≥ 7.0 or Valkey ≥ 7.2, shared by many workers.

Keyspace. Names are 16 hex digits, so that the server's order of bytes is the order of the numbers.
Every key but the first two carries one entity's hash tag and a script touches one tag only: it runs
on a Cluster as it is.

    shoal:watermark                          string  the latest occurred_at folded by any worker, ms
    shoal:kinds                              hash    undeclared kind -> its place (see RedisKinds)
    shoal:{id:E}                             string  what event_id E stands for: body (16) time (14),
                                                     and the log entry that it was folded from
    shoal:{claim:N}                          string  a claim: time (14) owner (16) account (16)
    shoal:{account:A}:profile                hash    first, last, org; `kind:K` its last entity of
                                                     kind K; `number:N` the last N, as repr
    shoal:{account:A}:talk:C                 hash    t; `kind:K` what conversation C sent last
    shoal:{K:N}:seen:OF[,EVENT_TYPE…]        zset    a sighting set: member, score its last time, ms
    shoal:{K:N}:sum:AMOUNT:SPAN              hash    a tally: bucket -> sum
    shoal:{…}:told:ENTRY:ET…                 string  what a script answered for event E at time T of
                                                     this log entry
    {shoal:watermark}:told:ENTRY:N           string  the watermark that events N… of a log entry are
                                                     judged by

K is a kind's name, `account`, `continuation` (a pair of owners on one conversation) or, for a kind
that is not declared, `#` and its place. A zset is a sighting set to the letter: ZADD GT keeps each
member's latest time, rank is (time, member), and the score range is what `seen` counts.

Phases. A batch is folded in four round trips, however many events it has; each sends one pipeline:

    0  admit    one SET NX GET for each event_id: what is new, late, a duplicate; the watermark
    1  profile  one script for each event: the account's profile and its conversation's environment
    2  claim    GET what the event refers to, then claim what it made (skipped if nobody does)
    3  count    one script for each entity that the event or its account's profile names: all sets
                and tallies under that key, written then read

The answers are those of one event after the other, because every key belongs to one phase. Within
a phase the commands on a key run in the order of the events (a pipeline is ordered), so each key
goes through the same states as it would event by event; and what a command is given depends only
on its event and on what earlier phases answered for that same event. A claim that one event reads
and the next one writes is a matter of phase 2 alone, a partner's sightings that one event writes
into another account and the next one reads are a matter of phase 3 alone. Batches of several
workers interleave, verb by verb; sets, tallies and claims do not depend on the order.

Time. Every worker reads the shared watermark at the start of a batch and judges by that, so workers
are at most one batch apart. Nothing depends on the server's clock but EXPIRE, which only collects
garbage: not before span + LATE + 18 hours after the last write. It could forget what still counts
only in a replay that runs slower than time itself. Profiles stay for ever, as they do in memory.

Failure. A fold that was cut off, by an error or the end of its process, is done again with the same
log entry, by anybody: `fold(rows, entry)`. An event_id remembers the entry, so its events are new to
that entry and duplicates to all others. Every script keeps its answer for an hour beside what it
wrote, in one step, under the names of entry and event; asked again it gives that answer and writes
nothing. So each verb of the fold runs once, in the order of the events on each key (what had been
done is a prefix there), and every answer is the one of a fold that was never cut off. The watermark
that the entry is judged by is kept likewise. To claim needs no answer: the greatest stands. Two
workers may fold one entry at once. One that slept for half an hour in the middle of a fold is
refused, before what tells it that others have gone on is forgotten.

Without an entry nothing is kept, and a fold that was cut off leaves events known and not all counted.
The client must not retry by itself. Scripts lost to a restart are loaded again and what the server
refused is sent again; nothing else is.
"""

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import msgspec
import numpy as np
import redis
from numpy.typing import NDArray
from redis.exceptions import NoScriptError

from features.catalog import Catalog
from features.event import EVENT_TYPES
from features.feature import DAY, HOUR, SETS_CAP
from features.kind import KINDS
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
    LINK_SPAN,
    PARTNER,
    PARTNERS,
    Plan,
    pair,
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
    Kinds,
    Rows,
)
from features.window import CONFLICT, DUPLICATE, LATE_EVENT, NEW, Folded, Sightings

BATCH_EVENTS_MAX = 512  # a larger batch is folded in parts, so that its replies fit in memory
SCAN_COUNT = 1000
NONE = b"0" * 16  # no member, no amount
GARBAGE = LATE + DAY  # how much longer than its span the server keeps a key, ms
REFRESH = 6 * HOUR  # a set that is written all the time has its time to live set anew this often
TOLD = HOUR  # how long a script's answer is kept: until then a fold that was cut off is done again
FOLD_S_MAX = TOLD // 2_000  # seconds of the server's clock in which a fold has to end

_WATERMARK: Final = """
local t = tonumber(redis.call('GET', KEYS[1]) or '0')
if tonumber(ARGV[1]) > t then redis.call('SET', KEYS[1], ARGV[1]) end
"""

# The watermark that a batch is judged by, and when it began, in seconds of the server's clock. KEYS: the
# watermark, and what keeps it for a fold that may have to be done again.
_BEGIN: Final = f"""
local told = KEYS[2] and redis.call('GET', KEYS[2])
local watermark = told or redis.call('GET', KEYS[1]) or '0'
if KEYS[2] and not told then redis.call('SET', KEYS[2], watermark, 'PX', {TOLD}) end
return {{watermark, redis.call('TIME')[1]}}
"""

# Begins a script that has its effect once: the last of KEYS keeps its answer. The last of ARGV is when
# the fold began; where that is empty nothing is kept and there is no such key.
_ONCE: Final = f"""
local begun = table.remove(ARGV)
local kept = begun ~= '' and table.remove(KEYS)
if kept then
  local told = redis.call('GET', kept)
  if told then return cmsgpack.unpack(told) end
  if redis.call('TIME')[1] - begun > {FOLD_S_MAX} then
    return redis.error_reply('ERR this fold began too long ago')
  end
end
local function tell(answer)
  if kept then redis.call('SET', kept, cmsgpack.pack(answer), 'PX', {TOLD}) end
  return answer
end
"""

# The event_id stood for an event that is too old to count: take its place, unless another worker
# did. ARGV: what was found, what it becomes, time to live.
_REPLACE: Final = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return held end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return false
"""

# The place of a kind in the order of first sight.
_PLACE: Final = """
local place = redis.call('HGET', KEYS[1], ARGV[1]) or redis.call('HLEN', KEYS[1])
redis.call('HSETNX', KEYS[1], ARGV[1], place)
return tonumber(place)
"""

# KEYS: the profile, and the conversation if the event names one. ARGV: t, edge of a live
# conversation, its time to live; as msgpack, fields and values of the profile and of the latter.
_PROFILE: Final = (
    _ONCE
    + """
local t = tonumber(ARGV[1])
local said, sent = unpack(cmsgpack.unpack(ARGV[4]))
local known = redis.call('HMGET', KEYS[1], 'first', 'last')
local first, last = ARGV[1], ARGV[1]
if known[1] and tonumber(known[1]) < t then first = known[1] end
if known[2] and tonumber(known[2]) > t then last = known[2] end
redis.call('HSET', KEYS[1], 'first', first, 'last', last, unpack(said))
local talk = {}
if KEYS[2] then
  local latest = redis.call('HGET', KEYS[2], 't')
  if latest and tonumber(latest) <= tonumber(ARGV[2]) then
    redis.call('DEL', KEYS[2])
    latest = false
  end
  if not latest or tonumber(latest) < t then latest = ARGV[1] end
  redis.call('HSET', KEYS[2], 't', latest, unpack(sent))
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  talk = redis.call('HGETALL', KEYS[2])
end
return tell({redis.call('HGETALL', KEYS[1]), talk})
"""
)

_HELD: Final = _ONCE + "return tell(redis.call('GET', KEYS[1]))"

# ARGV: the claim, its time to live. Fixed width, so the order of strings is (time, owner, account).
_CLAIM: Final = """
local held = redis.call('GET', KEYS[1])
if not held or held < ARGV[1] then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
"""

# KEYS: sighting sets, then tallies. ARGV: t, now, {{{span, {over…}}…}, {span…}} in msgpack; and
# what is told in 16 hex digits each: a member for each set, an amount for each tally, 0 for none.
# Answers the counts in the order of the `over`s, then the sums. What is dead is taken out when
# something comes in, for room's sake only: it has the lowest ranks. Times pass through %.0f because
# Lua's own conversion keeps 14 digits.
_COUNT: Final = (
    _ONCE
    + f"""
local t, now = tonumber(ARGV[1]), tonumber(ARGV[2])
local sets, tallies = unpack(cmsgpack.unpack(ARGV[3]))
local none = '{NONE.decode()}'
local answer = {{}}
for i, set in ipairs(sets) do
  local key, member, span = KEYS[i], string.sub(ARGV[4], 16 * i - 15, 16 * i), set[1]
  local newest = tonumber(redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2])
  local latest = math.max(now, newest or 0)
  if member ~= none then
    local added = redis.call('ZADD', key, 'GT', ARGV[1], member)
    if added == 1 then
      redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', latest - span))
      redis.call('ZREMRANGEBYRANK', key, 0, {-SETS_CAP - 1})
    end
    if added == 1 or newest < t - t % {REFRESH} then
      redis.call('PEXPIRE', key, string.format('%.0f', span + {GARBAGE}))
    end
    newest = t
  end
  for _, over in ipairs(set[2]) do
    local edge = string.format('(%.0f', latest - over)
    answer[#answer + 1] = newest and redis.call('ZCOUNT', key, edge, '+inf') or 0
  end
end
for i, span in ipairs(tallies) do
  local at, width = #sets + i, math.floor(span / {BUCKETS})
  local key, amount = KEYS[at], tonumber(string.sub(ARGV[4], 16 * at - 15, 16 * at), 16)
  local begun = false
  if amount ~= 0 then
    local bucket = string.format('%.0f', (t - t % width) / width)
    begun = redis.call('HINCRBY', key, bucket, string.format('%.0f', amount)) == amount
  end
  local held, last, total = redis.call('HGETALL', key), (now - now % width) / width, 0
  for j = 1, #held, 2 do last = math.max(last, tonumber(held[j])) end
  for j = 1, #held, 2 do
    if tonumber(held[j]) > last - {BUCKETS} then
      total = total + tonumber(held[j + 1])
    elseif begun then
      redis.call('HDEL', key, held[j])
    end
  end
  if begun then redis.call('PEXPIRE', key, string.format('%.0f', span + width + {GARBAGE})) end
  answer[#answer + 1] = total
end
return tell(answer)
"""
)

_SCRIPTS = tuple(text.strip() for text in (_WATERMARK, _REPLACE, _PROFILE, _HELD, _CLAIM, _COUNT))
_SET_WATERMARK, _TAKE_ID, _PROFILED, _FOUND, _CLAIMED, _COUNTED = _SCRIPTS

_encode = msgspec.msgpack.Encoder().encode
Command = tuple[Any, ...]  # a command, or one of the scripts, and its arguments


@dataclass(frozen=True, slots=True)
class _Group:
    """Everything kept under one sort of key: what one call of a script does for one entity.

    head, tails   the keys are `head + entity + tail`: sets first, then tallies
    counts        the spans and reads of these, packed for the script
    members       for each set, the event types that write (a mask) and the slot they write
    amounts       for each tally, the place of its amount
    columns       where each number of the answer goes
    told          the end of the keys that keep answers of this group: another catalogue has others
    """

    slot: int
    head: bytes
    tails: tuple[bytes, ...]
    counts: bytes
    members: tuple[tuple[int, int], ...] = ()
    amounts: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()
    told: bytes = field(init=False)

    def __post_init__(self) -> None:
        told = b":%08x" % zlib.crc32(b"".join((*self.tails, self.counts)))
        object.__setattr__(self, "told", told)

    def call(self, entity: bytes, event: "_Event", told: Iterable[bytes], nth: int = 0) -> Command:
        """`told` is a member for each set, then an amount for each tally, or NONE; `nth` tells apart
        what one event writes here more than once."""
        head = self.head + entity
        keys = [head + tail for tail in self.tails]
        if event.begun:
            keys.append(b"%s}:told:%s%s:%d" % (head, event.name, self.told, nth))
        t, now = event.t, event.now
        return (_COUNTED, len(keys), *keys, t, now, self.counts, b"".join(told), event.begun)


@dataclass(slots=True)
class _Event:
    """An admitted event on its way through the phases. Names are hex; slots are the plan's."""

    place: int
    t: int
    now: int
    account: bytes
    name: bytes = b""  # the log entry that it is folded from, its id and time
    begun: bytes = b""  # when a fold that can be done again began; empty for another
    owner: bytes = b""
    fresh: dict[int, bytes] = field(default_factory=dict)  # what it carries, by slot
    value: dict[int, bytes] = field(default_factory=dict)  # and what its account was seen with
    profile: dict[bytes, bytes] = field(default_factory=dict)
    refers: list[bytes] = field(default_factory=list)  # ids that somebody may have claimed
    makes: list[bytes] = field(default_factory=list)  # ids that are claimed now
    undeclared: list[tuple[int, bytes]] = field(default_factory=list)
    partners: dict[bytes, tuple[bytes, bytes]] = field(default_factory=dict)  # owner: account, talk


class RedisKinds(Kinds):
    """Kind numbers that all workers of one namespace agree on, also after a restart.

    The place of an undeclared kind is part of its keys: workers that numbered by themselves would
    write different kinds into one set.
    """

    def __init__(self, client: redis.Redis, declared: Sequence[str] = (), namespace: str = "shoal"):
        super().__init__(declared)
        self._client, self._key = client, f"{namespace}:kinds"
        self._undeclared = CUSTOM + len(self.names)

    def number(self, name: str) -> int:
        known = self._number.get(name)
        if known is None:
            # a place is never given twice, because names are never taken out
            place = self._client.eval(_PLACE.strip(), 1, self._key, name)
            known = self._number[name] = self._undeclared + int(cast(int, place))
        return known

    def name(self, number: int) -> str:
        if number >= CUSTOM + len(self.names):
            places = cast(dict[bytes, bytes], self._client.hgetall(self._key))
            del self.names[self._undeclared - CUSTOM :]
            self.names += [name.decode() for name in sorted(places, key=lambda n: int(places[n]))]
        return super().name(number)


class RedisWindow:
    """See features/window.py for the contract and features/plan.py for the exact meaning.

    Args:
        client: of a Redis, a Valkey or a Cluster of these; without `decode_responses`, and not one
            that retries by itself.
        namespace: begins every key, so that several windows can live on one server.

    Raises:
        ValueError: the client decodes responses, or the namespace has characters other than
            letters, digits and `_.:-`.
    """

    def __init__(self, client: redis.Redis, catalog: Catalog, namespace: str = "shoal") -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.:-]+", namespace):
            raise ValueError(
                f"namespace {namespace!r}: only letters, digits and _ . : - are allowed"
            )
        if client.get_encoder().decode_responses:
            raise ValueError("the redis window needs a client without decode_responses")
        self.plan = p = plan(catalog)
        self._client = client
        self._space = space = namespace.encode() + b":"
        self._latest = 0
        self._undeclared_from = CUSTOM + len(catalog.kinds)
        self._field = {slot: "kind:" + name for slot, name in _names(p).items() if slot >= 0}
        self._slot = {text.encode(): slot for slot, text in self._field.items()}
        self._number = ["number:" + name for name in NUMBERS]
        self._carried = frozenset(p.carried.tolist())
        self._lasts = [(self._number[n].encode(), column) for n, column in p.lasts.tolist()]
        self._differs = p.differs.tolist()
        self._shares = p.shares.tolist()
        self._groups = _groups(p, space)
        self._links = _links(p)
        met: list[tuple[int, Sequence[int]]] = [
            (p.sets[row, 3], []) for row in (p.partner, p.continuation)
        ]
        self._met = _Group(
            ACCOUNT, space + b"{account:", (b"}:seen:partner", b"}:seen:continuation"), _pack(met)
        )
        # the same set twice: two owners are seen on it at once
        self._pair = _Group(
            CONTINUATION,
            space + b"{continuation:",
            (b"}:seen:account",) * 2,
            _pack([(LINK_SPAN, [])] * 2),
        )
        self._other = _Group(
            CUSTOM, space + b"{#", (b"}:seen:account",), _pack([(CUSTOM_SPAN, [])])
        )
        self._load()

    @property
    def watermark(self) -> int:
        """The latest `occurred_at` of any worker, as of this one's last batch or question."""
        return self._latest

    def fold(self, rows: Rows, entry: str = "") -> Folded:
        """As the contract says; with the id of the log entry that holds them all, once each, a fold
        that was cut off can be done again and gives what it would have given."""
        n = len(rows)
        folded = Folded(
            np.full((n, self.plan.width), np.nan),
            np.full(n, NEW, np.int8),
            np.full(n, -1, np.int64),
        )
        for first in range(0, n, BATCH_EVENTS_MAX):
            last = min(first + BATCH_EVENTS_MAX, n)
            part = rows.part(first, last)
            events = self._admit(part, folded.status[first:last], entry.encode(), first)
            if events:
                self._read_profiles(part, events)
                self._claim(events)
                self._count(part, events, folded.vectors[first:last])
        return folded

    def ask(self, accounts: U64, t: int) -> F64:
        """Vectors of these accounts as of `t`, from their profiles; nothing is written."""
        vectors = np.full((len(accounts), self.plan.width), np.nan)
        now = max(t, self._see_watermark() - LATE)
        for first in range(0, len(accounts), BATCH_EVENTS_MAX):
            names = [b"%016x" % a for a in accounts[first : first + BATCH_EVENTS_MAX].tolist()]
            replies = self._send([("HGETALL", self._profile_key(name)) for name in names])
            events = []
            for i, (name, reply) in enumerate(zip(names, replies, strict=True)):
                if reply:
                    event = _Event(first + i, t, now, name)
                    self._take(event, reply)
                    events.append(event)
            self._count(None, events, vectors)
        return vectors

    def accounts(self) -> tuple[U64, U64, I64, I64]:
        """Every account: its name, its owner, when it was first and last seen.

        SCAN goes through every key of the server, not only ours: seconds for each million of keys.
        """
        begin, end = len(self._profile_key(b"")) - 9, -9  # around the name
        names = [key[begin:end] for key in self._scan(b"{account:*}:profile", "hash")]
        fields = ("org", "first", "last")
        found = [
            (int(name, 16), int(org or name, 16), int(first), int(last))
            for some in _runs(names)
            for name, (org, first, last) in zip(
                some,
                self._send([("HMGET", self._profile_key(name), *fields) for name in some]),
                strict=True,
            )
            if first is not None
        ]
        account, owner, first, last = zip(*found, strict=True) if found else ((), (), (), ())
        return (
            np.array(account, np.uint64),
            np.array(owner, np.uint64),
            np.array(first, np.int64),
            np.array(last, np.int64),
        )

    def sightings(self) -> Sightings:
        """Every live sighting of an owner on what can link owners; scans as `accounts` does."""
        edge = self._see_watermark() - LATE
        begin = len(self._space) + 1
        kinds, entities, owners, times = [], [], [], []
        for keys in _runs(self._scan(b"{*}:seen:account*", "zset")):
            pipe = self._client.pipeline(transaction=False)
            for key in keys:
                pipe.zrange(key, 0, -1, withscores=True)
            for key, members in zip(keys, pipe.execute(), strict=True):
                tag, _, tail = key[begin:].partition(b"}")
                kind, _, entity = tag.rpartition(b":")
                link = self._link(kind, tail)
                if link is None or not members:
                    continue
                number, span = link
                latest = max(edge, int(members[-1][1]))
                for owner, score in members:
                    if score > latest - span:
                        kinds.append(number)
                        entities.append(int(entity, 16))
                        owners.append(int(owner, 16))
                        times.append(int(score))
        return Sightings(
            np.array(kinds, np.int32),
            np.array(entities, np.uint64),
            np.array(owners, np.uint64),
            np.array(times, np.int64),
        )

    # --- phase 0: admit

    def _admit(
        self, rows: Rows, status: NDArray[np.int8], entry: bytes, first: int
    ) -> list[_Event]:
        """Tell the new events from the known, in order, and move the watermark that we judge by."""
        times = rows.t.tolist()
        numbers = rows.event_id.tolist()
        ids = [self._space + b"{id:%016x}" % x for x in numbers]
        bodies = [
            b"%016x%014x%s" % (x, t, entry) for x, t in zip(rows.body.tolist(), times, strict=True)
        ]
        pipe: Any = self._client.pipeline(transaction=False)  # execute_command has no types
        judged = [self._space + b"watermark"]
        if entry:
            judged.append(b"{%s}:told:%s:%d" % (judged[0], entry, first))
        pipe.execute_command("EVAL", _BEGIN.strip(), len(judged), *judged)
        for key, body in zip(ids, bodies, strict=True):
            pipe.set(key, body, px=IDS_SPAN + GARBAGE, nx=True, get=True)
        (watermark, seconds), *held = pipe.execute()
        begun = seconds if entry else b""
        latest = int(watermark)
        stands: dict[
            bytes, bytes
        ] = {}  # what an id of this batch stands for, after the events so far
        replaced: dict[
            bytes, bytes
        ] = {}  # ids that stood for an event too old to count: what they hold
        accounts = rows.account.tolist()
        events = []
        for i, (key, body, t) in enumerate(zip(ids, bodies, times, strict=True)):
            known = stands.get(key, held[i])
            if known is not None and (key in stands or not _is_of(known, entry)):
                if int(known[16:30], 16) > max(t, latest - LATE) - IDS_SPAN:
                    status[i] = _told_apart(known, body)
                    continue
                replaced.setdefault(key, held[i])
            stands[key] = body
            if t < latest:
                status[i] = LATE_EVENT
            latest = max(latest, t)
            name = b"%s:%016x%014x" % (entry, numbers[i], t)
            account = b"%016x" % accounts[i]
            events.append(_Event(i, t, max(t, latest - LATE), account, name, begun))
        self._latest = max(self._latest, latest)
        calls: list[Command] = [
            (_TAKE_ID, 1, key, old, stands[key], IDS_SPAN + GARBAGE)
            for key, old in replaced.items()
        ]
        for key, taken in zip(replaced, self._send(calls), strict=True):
            if taken is not None and not _is_of(taken, entry):
                # another worker took the id's place before us
                for event in [e for e in events if ids[e.place] == key]:
                    status[event.place] = _told_apart(taken, bodies[event.place])
                    events.remove(event)
        return events

    # --- phase 1: profile

    def _read_profiles(self, rows: Rows, events: list[_Event]) -> None:
        """Write what each event says of its account; read the account, complete the event."""
        calls: list[Command] = [(_SET_WATERMARK, 1, self._space + b"watermark", self._latest)]
        start, kinds, ids, orgs = rows.start.tolist(), rows.kind, rows.id, rows.org.tolist()
        for event in events:
            lo, hi = start[event.place], start[event.place + 1]
            for kind, x in zip(kinds[lo:hi].tolist(), ids[lo:hi].tolist(), strict=True):
                self._sort(event, kind, b"%016x" % x)
            numbers = rows.number[event.place]
            told: list[str] = []
            for slot, name in event.fresh.items():
                told += (self._field[slot], name.decode())
            for column in np.flatnonzero(~np.isnan(numbers)).tolist():
                told += (self._number[column], repr(float(numbers[column])))
            if orgs[event.place]:
                told += ("org", f"{orgs[event.place]:016x}")
            key = self._profile_key(event.account)
            keys = [key]
            sent: list[str] = []
            talk = event.fresh.get(self.plan.conversation)
            if talk is not None:
                keys.append(self._space + b"{account:%s}:talk:%s" % (event.account, talk))
                for slot in event.fresh.keys() & self._carried:
                    sent += (self._field[slot], event.fresh[slot].decode())
            if event.begun:
                keys.append(b"%s{account:%s}:told:%s" % (self._space, event.account, event.name))
            said = event.t, event.now - CARRY_SPAN, CARRY_SPAN + GARBAGE, _encode([told, sent])
            calls.append((_PROFILED, len(keys), *keys, *said, event.begun))
        for event, (profile, talk) in zip(events, self._send(calls)[1:], strict=True):
            self._take(event, dict(zip(profile[::2], profile[1::2], strict=True)))
            for name, x in zip(talk[::2], talk[1::2], strict=True):
                slot = self._slot.get(name, -1)
                if slot in self._carried:
                    event.fresh[slot] = event.value[slot] = x

    def _sort(self, event: _Event, kind: int, name: bytes) -> None:
        if kind < len(KINDS):
            event.fresh[kind] = name
        elif kind >= self._undeclared_from:
            event.undeclared.append((kind, name))
        elif kind >= CUSTOM:
            event.fresh[kind - CUSTOM + len(KINDS)] = name
        elif kind in (CHAIN_LINK, MINTED):
            event.refers.append(name)
        elif kind in (CHAIN_AFTER, EMITTED):
            event.makes.append(name)

    def _take(self, event: _Event, profile: dict[bytes, bytes]) -> None:
        event.profile = profile
        event.owner = profile.get(b"org", event.account)
        slots = self._slot
        event.value = {slots[name]: x for name, x in profile.items() if name in slots}

    # --- phase 2: claim

    def _claim(self, events: list[_Event]) -> None:
        """Find whose conversations and ids each event carries on, then claim what it made."""
        calls: list[Command] = []
        for event in events:
            calls += [self._find(event, name) for name in event.refers]
            claim = b"%014x%s%s" % (event.t, event.owner, event.account)
            life = CLAIM_SPAN + GARBAGE
            calls += [(_CLAIMED, 1, self._claim_key(name), claim, life) for name in event.makes]
        replies = iter(self._send(calls))
        for event in events:
            talk = event.fresh.get(self.plan.conversation)
            for name in event.refers:
                held = next(replies)
                if held is None or len(event.partners) == PARTNERS:
                    continue
                t, owner, account = int(held[:14], 16), held[14:30], held[30:]
                if t > event.now - CLAIM_SPAN and owner != event.owner and account != event.account:
                    event.partners.setdefault(owner, (account, talk or name))
            for _ in event.makes:
                next(replies)

    def _find(self, event: _Event, name: bytes) -> Command:
        key = self._claim_key(name)
        if event.begun:
            return (_FOUND, 2, key, b"%s:told:%s" % (key, event.name), event.begun)
        return ("GET", key)

    # --- phase 3: count

    def _count(self, rows: Rows | None, events: list[_Event], vectors: F64) -> None:
        """Write the sightings and amounts of these events (if `rows`), and fill their vectors."""
        calls: list[Command] = []
        columns: list[tuple[list[float], tuple[int, ...]]] = []
        filled = []
        for event in events:
            vector = [np.nan] * self.plan.width
            filled.append(vector)
            for call in self._met_by(event):
                calls.append(call)
                columns.append((vector, ()))
            mask = 1 << int(rows.type_[event.place]) if rows else 0
            amounts = rows.amount[event.place].tolist() if rows else ()
            hour = b"%016x" % (1 + event.t // HOUR % 24)
            member = {**event.fresh, ACCOUNT: event.owner, HOURS: hour}
            for group in self._groups:
                entity = event.account if group.slot == ACCOUNT else event.value.get(group.slot)
                if entity is None:
                    continue
                if rows and (group.slot == ACCOUNT or group.slot in event.fresh):
                    told = [
                        member.get(slot, NONE) if types & mask else NONE
                        for types, slot in group.members
                    ]
                    told += [b"%016x" % amounts[i] for i in group.amounts]
                else:
                    told = [NONE] * len(group.tails)
                calls.append(group.call(entity, event, told))
                columns.append((vector, group.columns))
        for (vector, places), answer in zip(columns, self._send(calls), strict=True):
            for place, number in zip(places, answer, strict=True):
                vector[place] = number
        for event, vector in zip(events, filled, strict=True):
            self._finish(event, vector)
            vectors[event.place] = vector

    def _met_by(self, event: _Event) -> Iterator[Command]:
        """What is seen beside the columns: partners, and kinds that are not declared."""
        owner = event.owner
        for nth, (other, (account, talk)) in enumerate(event.partners.items()):
            yield self._met.call(event.account, event, (other, talk), nth)
            yield self._met.call(account, event, (owner, talk), nth)
            entity = pair(int(talk, 16), int(owner, 16), int(other, 16))
            yield self._pair.call(b"%016x" % entity, event, (owner, other), nth)
        for nth, (kind, name) in enumerate(event.undeclared):
            entity_name = b"%d:%s" % (kind - self._undeclared_from, name)
            yield self._other.call(entity_name, event, (owner,), nth)

    def _finish(self, event: _Event, vector: list[float]) -> None:
        """The columns that no set and no tally holds."""
        value, profile = event.value, event.profile
        for number, column in self._lasts:
            told = profile.get(number)
            if told is not None:
                vector[column] = float(told)
        if self.plan.age >= 0:
            vector[self.plan.age] = max(0, event.t - int(profile[b"first"])) / HOUR
        for a, b, column in self._differs:
            if a in value and b in value:
                vector[column] = float(value[a] != value[b])
        for part, whole, column in self._shares:
            if vector[whole] > 0:
                vector[column] = vector[part] / vector[whole]

    # --- the server

    def _profile_key(self, account: bytes) -> bytes:
        return self._space + b"{account:" + account + b"}:profile"

    def _claim_key(self, name: bytes) -> bytes:
        return self._space + b"{claim:" + name + b"}"

    def _see_watermark(self) -> int:
        [watermark] = self._send([("GET", self._space + b"watermark")])
        self._latest = max(self._latest, int(watermark or 0))
        return self._latest

    def _link(self, kind: bytes, tail: bytes) -> tuple[int, int] | None:
        """The kind number and span of the sighting sets under such a key, if they link owners."""
        if kind[:1] == b"#" and tail == b":seen:account":
            return self._undeclared_from + int(kind[1:]), CUSTOM_SPAN
        return self._links.get((kind, tail))

    def _scan(self, pattern: bytes, type_: str) -> list[bytes]:
        found = self._client.scan_iter(self._space + pattern, count=SCAN_COUNT, _type=type_)
        return list(dict.fromkeys(found))  # SCAN may return a key twice

    def _send(self, calls: list[Command], reload: bool = True) -> list[Any]:
        """One pipeline; a call that begins with one of our scripts is sent by its digest."""
        if not calls:
            return []
        pipe: Any = self._client.pipeline(transaction=False)  # execute_command has no types
        for call in calls:
            sha = self._sha.get(call[0])
            if sha is None:
                pipe.execute_command(*call)
            else:
                pipe.execute_command("EVALSHA", sha, *call[1:])
        replies: list[Any] = pipe.execute(raise_on_error=False)
        lost = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if lost and reload:
            self._load()
            for i, reply in zip(
                lost, self._send([calls[i] for i in lost], reload=False), strict=True
            ):
                replies[i] = reply
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    def _load(self) -> None:
        self._sha = {text: str(self._client.script_load(text)) for text in _SCRIPTS}


def _names(p: Plan) -> dict[int, str]:
    """What the slots of a plan are called in keys."""
    special = {ACCOUNT: "account", HOURS: "hour", PARTNER: "partner", CONTINUATION: "continuation"}
    return dict(enumerate([k.name for k in KINDS] + list(p.catalog.kinds))) | special


def _tail(p: Plan, row: int) -> bytes:
    """The end of the key of a family of sighting sets, after the entity."""
    member, mask = int(p.sets[row, 1]), int(p.sets[row, 2])
    some = [name for i, name in enumerate(EVENT_TYPES) if mask >> i & 1]
    on = "" if len(some) in (0, len(EVENT_TYPES)) else "," + ",".join(some)
    return f"}}:seen:{_names(p)[member]}{on}".encode()


def _groups(p: Plan, space: bytes) -> list[_Group]:
    """The plan's sets and tallies by the slot of their key."""
    names = _names(p)
    groups = []
    for slot in sorted({*p.sets[:, 0].tolist(), *p.tallies[:, 0].tolist()} - {CONTINUATION}):
        sets = [row for row in range(len(p.sets)) if p.sets[row, 0] == slot]
        tallies = [row for row in p.tallies.tolist() if row[0] == slot]
        reads = [p.reads[p.read_start[row] : p.read_start[row + 1]] for row in sets]
        tails = [_tail(p, row) for row in sets]
        tails += [f"}}:sum:{AMOUNTS[amount]}:{span}".encode() for _, amount, span, _ in tallies]
        groups.append(
            _Group(
                slot,
                space + b"{%s:" % names[slot].encode(),
                tuple(tails),
                _pack(
                    [
                        (p.sets[row, 3], read[:, 1].tolist())
                        for row, read in zip(sets, reads, strict=True)
                    ],
                    [span for _, _, span, _ in tallies],
                ),
                tuple((int(p.sets[row, 2]), int(p.sets[row, 1])) for row in sets),
                tuple(amount for _, amount, _, _ in tallies),
                (*(int(c) for read in reads for c in read[:, 2]), *(c for _, _, _, c in tallies)),
            )
        )
    return groups


def _pack(sets: Sequence[tuple[int, Sequence[int]]], tallies: Sequence[int] = ()) -> bytes:
    """Spans and reads in the form _COUNT takes."""
    spans = [[int(span), [int(over) for over in reads]] for span, reads in sets]
    return _encode([spans, list(tallies)])


def _links(p: Plan) -> dict[tuple[bytes, bytes], tuple[int, int]]:
    """Sets that can link owners: (kind, end of the key) -> kind number, span."""
    names = _names(p)
    links = {}
    for row, (slot, _, _, span, linkable) in enumerate(p.sets.tolist()):
        if linkable >= 0:
            number = slot if slot < len(KINDS) else slot - len(KINDS) + CUSTOM
            links[names[slot].encode(), _tail(p, row)[1:]] = number, span
    return links


def _is_of(known: bytes, entry: bytes) -> bool:
    """Whether an event_id was taken for this log entry: by a fold that was cut off, or goes on."""
    return entry != b"" and known[30:] == entry


def _told_apart(known: bytes, body: bytes) -> int:
    return DUPLICATE if known[:16] == body[:16] else CONFLICT


def _runs(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for first in range(0, len(keys), SCAN_COUNT):
        yield keys[first : first + SCAN_COUNT]
