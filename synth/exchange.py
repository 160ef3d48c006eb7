"""The telephone exchange: where actors, written in Python, meet the compiled loop of calls.

It holds the tables of synth/calls.py, gives them room, and turns words into the numbers they hold.
Words are kept once (`fragment` for those that recur, `ink` for one's own), so memory follows the number of
people and accounts; a talk's row is used again when it is over, and a slip is gone once it is printed.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from synth import calls as c
from synth import slips
from synth.agenda import SLOT_MS
from synth.calls import ERRORS, NONE, Tables
from synth.dice import Dice
from synth.geography import Egress
from synth.slips import I64, print_lines
from synth.wire import fragment

BLOCK = 1 << 20  # bytes printed at a time
_time = itemgetter(0)

# List prices in USD per token: input, output. A cache read costs a tenth of the input price and a
# write 1.25 times as much.
PRICES: dict[str, tuple[float, float]] = {
    "lagoon-mini-2": (0.8e-6, 4e-6),
    "lagoon-4": (3e-6, 15e-6),
    "lagoon-max-4": (12e-6, 60e-6),
}
MODEL_NUMBER = {name: i for i, name in enumerate(PRICES)}


class Exchange:
    """One a world. `begin` a talk, `play` up to a time, `drain` what has been observed by then."""

    def __init__(self, dice: Dice, incidents: Sequence[int], prompts: Sequence[str]) -> None:
        self._ink = np.zeros(1 << 16, np.uint8)
        self._ink_size = 0
        self._start = np.zeros(1 << 10, np.int64)
        self._fragments = 0
        self._known: dict[str, int] = {}
        self._nets = np.zeros((1 << 10, 2), np.int64)
        self._net_of: dict[str, int] = {}
        self._given = bytearray()  # talks to begin, as rows
        self._told: dict[int, list[tuple[int, int, str]]] = defaultdict(list)  # by slot
        self._block = np.zeros(BLOCK, np.uint8)
        self._sizes = {
            "account": 0,
            "seat": 0,
            "pool": 0,
            "customer": 0,
            "link": 0,
            "tempo": 0,
            "member": 0,
        }
        self._spare: dict[int, list[int]] = {}  # runs of members given back, by size
        self._tempi: dict[tuple[float, ...], int] = {}
        self.notes = {
            k: self.fragment(fragment(kind=k)) for k in ("main", "title", "count", "probe")
        }
        self.notes[""] = NONE
        self.models = {m: self.fragment(fragment(model=m)) for m in PRICES}
        count = np.zeros(5, np.int64)
        count[c.RNG] = dice.getrandbits(63)
        self.t = Tables(
            count=count,
            account=c.empty_rows(c.ACCOUNT_COLUMNS),
            value=np.zeros((64, c.VALUE_COLUMNS)),
            seat=c.empty_rows(c.SEAT_COLUMNS),
            member=np.zeros(64, np.int64),
            pool=c.empty_rows(c.POOL_COLUMNS),
            customer=np.zeros(64, np.int64),
            talk=c.empty_rows(c.TALK_COLUMNS),
            heap_at=np.zeros(64, np.int64),
            heap_talk=np.zeros(64, np.int64),
            free=np.arange(64)[::-1].copy(),
            link=c.empty_rows(2),
            tempo=np.zeros((64, c.TEMPO_COLUMNS)),
            price=np.array(list(PRICES.values())),
            incident=np.array(incidents, np.int64),
            error=np.array([self.fragment(fragment(error=word)) for _, word in ERRORS]),
            prompts=np.array([self.fragment(text) for text in prompts]),
            notes=np.array(list(self.notes.values())),
            spread=np.array(dice.table),
            draft=np.zeros(slips.WIDTH, np.int64),
            slip=c.empty_rows(slips.WIDTH, 1 << 10),
            seen=np.zeros(1 << 10, np.int64),
            notice=c.empty_rows(3),
        )
        count[c.FREE] = 64

    # --- words

    def fragment(self, text: str) -> int:
        """The number of a text that recurs; -1 for none."""
        if not text:
            return NONE
        number = self._known.get(text)
        if number is None:
            number = self._known[text] = self.ink(text)
        return number

    def ink(self, text: str) -> int:
        """The number of a text that is one actor's own; -1 for none."""
        if not text:
            return NONE
        raw = text.encode()
        if len(raw) > slips.LINE_MAX // 8:
            raise ValueError(f"a fragment of {len(raw)} bytes: {text[:60]}…")
        n = self._fragments
        if n + 2 > len(self._start):
            self._start = _grown(self._start)
        end = self._ink_size + len(raw)
        if end + slips.STEP > len(self._ink):
            self._ink = _grown(self._ink)
        self._ink[self._ink_size : end] = np.frombuffer(raw, np.uint8)
        self._start[n], self._start[n + 1] = self._ink_size, end
        self._ink_size, self._fragments = end, n + 1
        return n

    def net(self, egress: Egress, more: str = "") -> int:
        """The number of a network address and what is said of it. A household's IPv6 is known by its /64:
        which host calls is drawn for each talk."""
        if egress.number and not more:
            return egress.number
        if egress.prefix.version == 4:
            before, after = f',"ip":"{egress.ip}"{egress.prefix.said}{more}', ""
        else:
            before, after = f',"ip":"{egress.ip.rsplit(":", 4)[0]}:', f'"{egress.prefix.said}{more}'
        key = before + more
        n = self._net_of.get(key) or self._new_net(key, self.ink(before), self.fragment(after))
        if not more:
            egress.number = n
        return n

    def _new_net(self, key: str, before: int, after: int) -> int:
        n = len(self._net_of) + 1  # 0 stays free: it would read as "not known"
        if n >= len(self._nets):
            self._nets = _grown(self._nets)
        self._nets[n] = before, after
        self._net_of[key] = n
        return n

    def script(self, prompts: Sequence[str]) -> range:
        """The numbers of set prompts, which follow one another."""
        numbers = [self.ink(text) for text in prompts]
        return range(numbers[0], numbers[-1] + 1)

    def prompt(self, text: str) -> range:
        """The script of one prompt that recurs."""
        number = self.fragment(text)
        return range(number, number + 1)

    # --- rows

    def _room(self, table: str, *beside: str) -> int:
        """The next row of a table (and of those that run beside it)."""
        n = self._sizes[table]
        self._sizes[table] = n + 1
        if n >= len(getattr(self.t, table)):
            self.t = self.t._replace(
                **{name: _grown(getattr(self.t, name)) for name in (table, *beside)}
            )
        return n

    def account(self, head: str) -> int:
        """A new account, named by the fragment that goes on each of its calls. Its numbers are in `t.account`
        and `t.value`."""
        n = self._room("account", "value")
        row = self.t.account[n]
        row[:] = 0
        row[c.A_HEAD] = self.ink(head)
        row[c.A_BARRED] = row[c.A_BARRED_UNTIL] = c.FOREVER
        self.t.value[n] = 0.0
        return n

    def seat(self, account: int, pool: int, **columns: int) -> int:
        """A new seat, in no pool's run yet. Columns by their names in calls.py, without the `T_`."""
        n = self._room("seat")
        row = self.t.seat[n]
        row[:] = 0
        row[c.T_NET] = row[c.T_AGENT] = row[c.T_TLS] = row[c.T_DEVICE] = NONE
        row[c.T_STATED] = row[c.T_ORDER] = row[c.T_TEMPLATE] = row[c.T_LINK] = NONE
        row[c.T_PLACE] = row[c.T_PAGE] = NONE
        row[c.T_ACCOUNT], row[c.T_POOL] = account, pool
        for name, value in columns.items():
            row[getattr(c, f"T_{name.upper()}")] = value
        return n

    def pool(self, rule: int, **columns: int) -> int:
        """A new pool without seats. Columns by their names in calls.py, without the `P_`."""
        n = self._room("pool")
        row = self.t.pool[n]
        row[:] = 0
        row[c.P_RULE], row[c.P_STOP] = rule, 10_000
        self.set_pool(n, **columns)
        return n

    def set_pool(self, pool: int, **columns: int) -> None:
        """Change how a pool works."""
        for name, value in columns.items():
            self.t.pool[pool, getattr(c, f"P_{name.upper()}")] = value

    def join(self, pool: int, seat: int) -> None:
        """Put a seat into a pool."""
        row = self.t.pool[pool]
        first, size, room = int(row[c.P_FIRST]), int(row[c.P_SIZE]), int(row[c.P_ROOM])
        if size == room:
            bigger = self._run(max(1, 2 * room))
            self.t.member[bigger : bigger + size] = self.t.member[first : first + size]
            if room:
                self._spare.setdefault(room, []).append(first)
            first, row[c.P_FIRST], row[c.P_ROOM] = bigger, bigger, max(1, 2 * room)
        self.t.member[first + size] = seat
        row[c.P_SIZE] = size + 1

    def _run(self, size: int) -> int:
        spare = self._spare.get(size)
        if spare:
            return spare.pop()
        first = self._sizes["member"]
        self._sizes["member"] = first + size
        while first + size > len(self.t.member):
            self.t = self.t._replace(member=_grown(self.t.member))
        return first

    def leave(self, pool: int, seat: int) -> None:
        """Take a seat out of a pool."""
        row = self.t.pool[pool]
        first, size = int(row[c.P_FIRST]), int(row[c.P_SIZE])
        run = self.t.member[first : first + size]
        kept = run[run != seat]
        run[: len(kept)] = kept
        row[c.P_SIZE] = len(kept)

    def customer(self) -> int:
        """Somebody whom a pool may pin to a seat."""
        n = self._room("customer")
        self.t.customer[n] = NONE
        return n

    def link(self) -> int:
        """A network connection that several seats share; made anew when its time is over."""
        n = self._room("link")
        self.t.link[n] = 0
        return n

    def tempo(self, columns: tuple[float, ...]) -> int:
        """The number of a tempo; columns in the order of calls.py."""
        n = self._tempi.get(columns)
        if n is None:
            n = self._tempi[columns] = self._room("tempo")
            self.t.tempo[n] = columns
        return n

    # --- time

    def begin(self, given: bytes) -> None:
        """A talk, by the given columns of calls.py in their order, as 64-bit integers."""
        self._given += given

    def tell(self, seen: int, account: int, text: str) -> None:
        """A line about an account (a JSON object without its closing brace) that is observed at `seen`."""
        self._told[seen // SLOT_MS].append((seen, account, text))

    def play(self, until: int) -> list[tuple[int, int, int]]:
        """Make all calls due up to `until`; returns notices (what, seat, when)."""
        if self._given:
            given = np.frombuffer(self._given, np.int64).reshape(-1, c.GIVEN)
            self._given = bytearray()
            while self.t.count[c.FREE] < len(given):
                self._more_talks()
            c.begin(self.t, given)
        notices: list[tuple[int, int, int]] = []
        while (why := c.play(self.t, until)) != c.DONE:
            if why == c.MORE_SLIPS:
                self.t = self.t._replace(slip=_grown(self.t.slip), seen=_grown(self.t.seen))
            notices += self._notices()
        return notices + self._notices()

    def _notices(self) -> list[tuple[int, int, int]]:
        n = int(self.t.count[c.NOTICES])
        self.t.count[c.NOTICES] = 0
        return [(what, seat, at) for what, seat, at in self.t.notice[:n].tolist()]

    def _more_talks(self) -> None:
        old = len(self.t.talk)
        free = _grown(self.t.free)
        n = int(self.t.count[c.FREE])
        free[n : n + old] = np.arange(2 * old - 1, old - 1, -1)
        self.t.count[c.FREE] = n + old
        self.t = self.t._replace(
            talk=_grown(self.t.talk), heap_at=_grown(self.t.heap_at),
            heap_talk=_grown(self.t.heap_talk), free=free,
        )  # fmt: skip

    def drain(self, until: int) -> Iterator[tuple[bytes, int]]:
        """What is observed up to `until`, in order: blocks of NDJSON, and how many lines each holds."""
        t, slot = self.t, until // SLOT_MS
        now = [w for k in [k for k in self._told if k <= slot] for w in self._told.pop(k)]
        now.sort(key=_time)
        m = bisect_right(now, until, key=_time)
        if now[m:]:
            self._told[slot] = now[m:]
            del now[m:]
        n = int(t.count[c.SLIPS])
        seen = t.seen[:n]
        due = np.flatnonzero(seen <= until)
        if m or len(due):
            times = np.concatenate([seen[due], np.array([w[0] for w in now], np.int64)])
            codes = np.concatenate([due, -1 - np.arange(m)])
            t.account[t.slip[due, slips.ACCOUNT], c.A_SEEN] = 1
            t.account[[w[1] for w in now], c.A_SEEN] = 1
            order: I64 = codes[np.argsort(times, kind="stable")]
            lines = [(text + "}\n").encode() for _, _, text in now]
            yield from print_lines(
                order, t.slip, lines, self._ink, self._start, self._nets, self._block
            )
        later = np.flatnonzero(seen > until)
        t.slip[: len(later)] = t.slip[later]
        t.seen[: len(later)] = seen[later]
        t.count[c.SLIPS] = len(later)


def _grown(table: Any) -> Any:
    """Twice the room."""
    bigger = np.zeros((2 * len(table), *table.shape[1:]), table.dtype)
    bigger[: len(table)] = table
    return bigger
