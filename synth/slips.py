"""Slips: what the provider notes of each call, as numbers, and their printing as JSON lines.

A request event has some forty fields of which a dozen change from call to call. The constant ones
are rendered once, when an account, a device, an egress or a program comes to be, as a *fragment* (the
text `,"name":value,…` that goes into the line as it is) and named by number. A slip is one row of
integers: fragment numbers, token counts, and 64-bit salts from which ids are printed in hex. Printing
is compiled: a line of a kilobyte costs under a microsecond.

Which columns a slip has is the list below; -1 stands for a fragment that is not there, 0 for an id.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]

# Compiled without reference counts (`_nrt`, a flag that Numba does not document): functions here allocate
# nothing and hand the same arrays down, and counting who holds them cost four fifths of the time.
compiled = njit(cache=True, nogil=True, _nrt=False)

# Columns of a slip. SALT is the root of the event's own id.
(
    SALT, ENDED, LATE_AT, HEAD, NET, HOST, LINK, AGENT, TLS, DEVICE, PAGE, SESSION, USER, FIXED,
    MODEL, ROOT, STATED, ORDER, META, TEMPLATE, PLACE, WINDOW, USED, STATUS, ERROR, DURATION, FIRST, PLAIN,
    ANSWER, READ, WRITE, COST, PAID, WAIT, ATTEMPT, NOTE, PROMPT, TYPED, CHAIN_N, LENGTH, AFTER, ABORTED,
    EMITTED, REFS_N, ACCOUNT,
) = range(45)  # fmt: skip
CHAIN = 45  # four links, oldest first
REFS = CHAIN + 4
REFS_MAX = 6
WIDTH = REFS + REFS_MAX
LINE_MAX = 8192  # bytes: no line is longer (fragments are checked when they are made)

STEP = 32  # bytes that are copied at a time
NONE = -1
_BYTES, _NIBBLES = np.uint64(0x000000FF000000FF), np.uint64(0x000F000F000F000F)


def _text(words: str) -> U8:
    """Its size, and the text with room for whole steps."""
    raw = words.encode()
    text = np.zeros(1 + len(raw) + STEP, np.uint8)
    text[0], text[1 : 1 + len(raw)] = len(raw), np.frombuffer(raw, np.uint8)
    return text


_BEGIN = _text('{"event_id":"evt_')
_TYPE = _text('","type":"request","occurred_at":')
_LINK = _text(',"connection_id":"')
_SESSION = _text(',"session_id":"')
_MODEL_ROOT = _text(',"chain_root":"')
_WINDOW = _text(',"window_id":"')
_USED = _text(',"window_used":')
_STATUS = _text(',"status":')
_ERROR = _text(',"error":"')
_DURATION = _text(',"duration_ms":')
_FIRST = _text(',"ttft_ms":')
_PLAIN = _text(',"input_tokens":')
_ANSWER = _text(',"output_tokens":')
_READ = _text(',"cache_read_tokens":')
_WRITE = _text(',"cache_write_tokens":')
_COST = _text(',"cost_usd":')
_PAID = _text(',"paid_usd":')
_WAIT = _text(',"retry_after_s":')
_ATTEMPT = _text(',"retry_count":')
_PROMPT = _text(',"prompt_id":"')
_CHAIN = _text(',"chain":["')
_COMMA = _text('","')
_CLOSE = _text('"]')
_LENGTH = _text(',"chain_length":')
_REFS = _text(',"minted_refs":["toolu_')
_NEXT_REF = _text('","toolu_')
_AFTER = _text(',"chain_after":"')
_ABORTED = _text(',"aborted":true')
_EMITTED = _text(',"emitted_refs":["toolu_')
_OBSERVED = _text(',"observed_at":')
_END = _text("}\n")


@compiled
def mix(x: int) -> int:
    """Spread a 64-bit number: the finaliser of splitmix64 (Steele et al., OOPSLA 2014)."""
    z = np.uint64(x) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64(z ^ (z >> np.uint64(31)))


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any, form: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), form.as_pointer())


def _copying(_: Any, out: Any, at: Any, text: Any, first: Any) -> Any:
    def build(context: Any, builder: Any, given: Any, args: Any) -> Any:
        step = ir.VectorType(ir.IntType(8), STEP)
        source = _place(context, builder, given.args[2], args[2], args[3], step)
        target = _place(context, builder, given.args[0], args[0], args[1], step)
        builder.store(builder.load(source, align=1), target, align=1)
        return context.get_dummy_value()

    return types.void(out, types.int64, text, types.int64), build


def _setting(_: Any, out: Any, at: Any, word: Any) -> Any:
    def build(context: Any, builder: Any, given: Any, args: Any) -> Any:
        target = _place(context, builder, given.args[0], args[0], args[1], ir.IntType(64))
        builder.store(args[2], target, align=1)
        return context.get_dummy_value()

    return types.void(out, types.int64, types.uint64), build


# Byte by byte a line costs four times as much. Both write whole steps: what comes next in the line
# overwrites what was too much, and every array has room for a step more.
_copy: Any = intrinsic(_copying)  # (out, at, text, first): STEP bytes of `text` from `first` on
_set: Any = intrinsic(_setting)  # (out, at, word): eight bytes, the lowest first


@compiled
def _put(out: U8, at: int, text: U8) -> int:
    size = text[0]
    for i in range(0, size, STEP):
        _copy(out, at + i, text, 1 + i)
    return at + size


@compiled
def _fragment(out: U8, at: int, ink: U8, start: I64, number: int) -> int:
    if number < 0:
        return at
    first = start[number]
    size = start[number + 1] - first
    for i in range(0, size, STEP):
        _copy(out, at + i, ink, first + i)
    return at + size


@compiled
def _eight(value: int) -> int:
    """Eight hex digits of the lowest 32 bits, as the bytes of a word, the highest digit lowest."""
    x = np.uint64(value) & np.uint64(0xFFFFFFFF)
    x = (x >> np.uint64(16)) | ((x & np.uint64(0xFFFF)) << np.uint64(32))
    x = ((x >> np.uint64(8)) & _BYTES) | ((x & _BYTES) << np.uint64(16))
    x = ((x >> np.uint64(4)) & _NIBBLES) | ((x & _NIBBLES) << np.uint64(8))
    letter = ((x + np.uint64(0x0606060606060606)) >> np.uint64(4)) & np.uint64(0x0101010101010101)
    return x + np.uint64(0x3030303030303030) + letter * np.uint64(39)


@compiled
def _hex(out: U8, at: int, value: int, digits: int) -> int:
    """The lowest `digits` hex digits of a value: 16, 8 or 4."""
    if digits == 16:
        _set(out, at, _eight(value >> 32))
        _set(out, at + 8, _eight(value))
    else:
        _set(out, at, _eight(value if digits == 8 else value << 16))
    return at + digits


@compiled
def _number(out: U8, at: int, value: int) -> int:
    if value == 0:
        out[at] = 48
        return at + 1
    digits, power = 1, 10
    while power <= value:
        power *= 10
        digits += 1
    rest = np.uint64(value)
    for i in range(digits):
        tens = rest // np.uint64(10)
        out[at + digits - 1 - i] = np.uint64(48) + rest - tens * np.uint64(10)
        rest = tens
    return at + digits


@compiled
def _count(out: U8, at: int, name: U8, value: int) -> int:
    return _number(out, _put(out, at, name), value)


@compiled
def _decimal(out: U8, at: int, value: int, places: int) -> int:
    """A non-negative `value` / 10^places with that many places."""
    scale = 1
    for _ in range(places):
        scale *= 10
    at = _number(out, at, value // scale)
    out[at] = 46
    at += 1
    rest = value % scale
    for i in range(places):
        out[at + places - 1 - i] = 48 + rest % 10
        rest //= 10
    return at + places


@compiled
def _groups(out: U8, at: int, salt: int) -> int:
    """Four groups of an IPv6 address, none of them 0 and none with a leading zero."""
    for k in range(4):
        group = ((salt >> (16 * k)) & 0x7FFF) | 0x1000
        at = _hex(out, at, group, 4)
        if k < 3:
            out[at] = 58
            at += 1
    return at


@compiled
def _line(out: U8, at: int, s: I64, ink: U8, start: I64, nets: I64) -> int:
    at = _put(out, at, _BEGIN)
    at = _hex(out, at, mix(s[SALT]), 16)
    at = _hex(out, at, mix(s[SALT] ^ 0x5BF0), 8)
    at = _count(out, at, _TYPE, s[ENDED])
    at = _fragment(out, at, ink, start, s[HEAD])
    if s[NET] >= 0:
        at = _fragment(out, at, ink, start, nets[s[NET], 0])
        if nets[s[NET], 1] >= 0:
            at = _groups(out, at, mix(s[HOST]))
            at = _fragment(out, at, ink, start, nets[s[NET], 1])
    if s[LINK] != 0:
        at = _put(out, at, _LINK)
        at = _hex(out, at, mix(s[LINK]), 16)
        at = _hex(out, at, s[LINK], 4)
        out[at] = 34
        at += 1
    at = _fragment(out, at, ink, start, s[AGENT])
    at = _fragment(out, at, ink, start, s[TLS])
    at = _fragment(out, at, ink, start, s[DEVICE])
    at = _fragment(out, at, ink, start, s[PAGE])
    if s[SESSION] != 0:
        at = _put(out, at, _SESSION)
        at = _hex(out, at, mix(s[SESSION]), 16)
        at = _hex(out, at, mix(s[SESSION] ^ 0x77), 8)
        out[at] = 34
        at += 1
    at = _fragment(out, at, ink, start, s[USER])
    at = _fragment(out, at, ink, start, s[FIXED])
    at = _fragment(out, at, ink, start, s[MODEL])
    at = _put(out, at, _MODEL_ROOT)
    at = _hex(out, at, s[ROOT], 16)
    out[at] = 34
    at += 1
    at = _fragment(out, at, ink, start, s[STATED])
    at = _fragment(out, at, ink, start, s[ORDER])
    at = _fragment(out, at, ink, start, s[META])
    at = _fragment(out, at, ink, start, s[TEMPLATE])
    at = _fragment(out, at, ink, start, s[PLACE])
    if s[WINDOW] != 0:
        at = _put(out, at, _WINDOW)
        at = _hex(out, at, mix(s[WINDOW]), 16)
        out[at] = 34
        at += 1
    status = s[STATUS]
    if status == 200:
        at = _put(out, at, _USED)
        at = _decimal(out, at, s[USED], 4)
    at = _count(out, at, _STATUS, status)
    if status != 200:
        at = _fragment(out, at, ink, start, s[ERROR])
    at = _count(out, at, _DURATION, s[DURATION])
    if status == 200:
        at = _count(out, at, _FIRST, s[FIRST])
        at = _count(out, at, _PLAIN, s[PLAIN])
        at = _count(out, at, _ANSWER, s[ANSWER])
        at = _count(out, at, _READ, s[READ])
        at = _count(out, at, _WRITE, s[WRITE])
        at = _put(out, at, _COST)
        at = _decimal(out, at, s[COST], 6)
        at = _put(out, at, _PAID)
        if s[PAID]:
            at = _decimal(out, at, s[PAID], 6)
        else:
            at = _number(out, at, 0)
    if s[WAIT] > 0:
        at = _count(out, at, _WAIT, s[WAIT])
    if s[ATTEMPT] > 0:
        at = _count(out, at, _ATTEMPT, s[ATTEMPT])
    at = _fragment(out, at, ink, start, s[NOTE])
    at = _fragment(out, at, ink, start, s[PROMPT])
    if s[TYPED] != 0:
        at = _put(out, at, _PROMPT)
        at = _hex(out, at, mix(s[TYPED]), 16)
        out[at] = 34
        at += 1
    at = _put(out, at, _CHAIN)
    for k in range(s[CHAIN_N]):
        if k:
            at = _put(out, at, _COMMA)
        at = _hex(out, at, s[CHAIN + k], 16)
    at = _put(out, at, _CLOSE)
    at = _count(out, at, _LENGTH, s[LENGTH])
    if s[REFS_N]:
        for k in range(s[REFS_N]):
            at = _put(out, at, _NEXT_REF if k else _REFS)
            at = _hex(out, at, s[REFS + k], 16)
        at = _put(out, at, _CLOSE)
    if s[AFTER] != 0:
        at = _put(out, at, _AFTER)
        at = _hex(out, at, s[AFTER], 16)
        out[at] = 34
        at += 1
    if s[ABORTED]:
        at = _put(out, at, _ABORTED)
    if s[EMITTED] != 0:
        at = _put(out, at, _EMITTED)
        at = _hex(out, at, s[EMITTED], 16)
        at = _put(out, at, _CLOSE)
    if s[LATE_AT] != 0:
        at = _put(out, at, _OBSERVED)
        at = _number(out, at, s[LATE_AT])
    return _put(out, at, _END)


@compiled
def _print(
    order: I64, first: int, slips: I64, told: U8, told_at: I64, ink: U8, start: I64, nets: I64, out: U8
) -> tuple[int, int]:  # fmt: skip
    """Print from `order[first]` until `out` is nearly full; returns (next, bytes)."""
    at = 0
    for k in range(first, len(order)):
        i = order[k]
        if i >= 0:
            if at + LINE_MAX + STEP > len(out):
                return k, at
            at = _line(out, at, slips[i], ink, start, nets)
        else:
            low, high = told_at[-1 - i], told_at[-i]
            if at + high - low + STEP > len(out):
                return k, at
            for j in range(0, high - low, STEP):
                _copy(out, at + j, told, low + j)
            at += high - low
    return len(order), at


def print_lines(
    order: I64, slips: I64, told: list[bytes], ink: U8, start: I64, nets: I64, block: U8
) -> Any:
    """Blocks of lines in the order given and how many lines each holds: `i >= 0` is slip i, else `told[-1 - i]`.
    Fragment n is `ink[start[n] : start[n + 1]]`, after the last of which STEP bytes must follow."""
    told_at = np.zeros(len(told) + 1, np.int64)
    np.cumsum([len(t) for t in told], out=told_at[1:])
    text = np.frombuffer(b"".join((*told, bytes(STEP))), np.uint8)
    done = 0
    while done < len(order):
        first = done
        done, size = _print(order, first, slips, text, told_at, ink, start, nets, block)
        yield block[:size].tobytes(), done - first
