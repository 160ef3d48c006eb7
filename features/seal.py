"""The seal: one compiled walk over a batch's bytes takes identifiers out and puts tokens and rows in.

`Sealer.seal` brings identifiers into canonical form (features/identity.py) and has the events encoded;
`Sealer.read` begins with encodings that a log kept. Then both are the same walk over the same bytes. It
meets every field once, by the hash of its name, and does what the tables below say of it:

    an identifier   its token is written in its place: `h:` + 32 hex digits of keyed BLAKE2b, in the domain
                    of its family. What begins with `h:` stays, so sealing twice changes nothing.
    an entity       its 64-bit name goes into the row, be it a token or the clear value of a class
    a number, a word of a closed list, a time
                    what the row keeps of it (`NUMBERS` and `AMOUNTS` in features/rows.py)
    anything else   is passed over, and copied with whatever else stays as it is

The bytes are those of our own encoder: no white space, the type first. Values met lately are found in
`Memo`, which has one place for each hash and forgets what stood there; a hash is 0.2 microseconds, a
value remembered a quarter of that. Unlike a value's place its comparison is exact, whoever made it up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from features import blake2b
from features.blake2b import BLOCK, U8, digest, eights
from features.compiled import lean
from features.event import (
    EVENT_CLASSES,
    EVENT_TYPES,
    AnyEvent,
    InvalidEvent,
    Owner,
)
from features.identity import Secret, canonical
from features.kind import FAMILY_OF, INDEX, NS, OF_FIELD
from features.rows import (
    AMOUNT_MAX,
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
    Names,
    Rows,
)

I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
_encode_lines = msgspec.json.Encoder().encode_lines
_decode = msgspec.json.Decoder(str).decode
MEMO = 1 << 15  # values remembered
# Of each: the hash of family and value, the value's size in bytes, its 64-bit name, the digits of its
# token, the value itself. Two lines of a processor's cache.
MEMO_WORDS = 16
_KEY, _SIZE, _NAME, _TOKEN, _TEXT = 0, 1, 2, 3, 7
_NEVER = np.uint64(2**63)  # no size: what is longer than its place is not remembered

# What is done with the value of a field.
(
    PASS, VALUE, TIME, EVENT_ID, ACCOUNT, ORG, OWNERS, PARTY, ENTITIES, NUMBER, STATUS, PROMPT, READ,
) = range(13)  # fmt: skip
_ACTS = {
    "occurred_at": TIME,
    "event_id": EVENT_ID,
    "account_id": ACCOUNT,
    "org_id": ORG,
    "owners": OWNERS,
    "entities": ENTITIES,
    "of": PARTY,
    "input_tokens": PROMPT,
    "cache_write_tokens": PROMPT,
    "cache_read_tokens": READ,
}
_LINKS = {
    "chain": CHAIN_LINK,
    "chain_after": CHAIN_AFTER,
    "minted_refs": MINTED,
    "emitted_refs": EMITTED,
}
# type and field -> the number its value is (a credential's lead only where it was refreshed)
_NUMBER = {
    ("account_signup", "form_ms"): "form_ms",
    ("account_signup", "declared_seats"): "declared_seats",
    ("phone_verified", "otp_latency_ms"): "otp_latency_ms",
    ("kyc_checked", "liveness"): "liveness",
    ("kyc_checked", "attempts"): "kyc_attempts",
    ("credential", "lead_s"): "refresh_lead_s",
    ("request", "window_used"): "window_used",
    ("request", "chain_length"): "chain_length",
}
# type and field -> the amount that is 1 with a word (a credential's word is looked at, too)
_COUNTED = {
    ("payment", "kind"): {"card_declined": "declines", "charge_failed": "declines"},
    ("request", "kind"): {
        "probe": "probes", "title": "auxiliary", "warmup": "auxiliary", "count": "auxiliary"
    },
    ("credential", "kind"): {},
}  # fmt: skip
# type and field -> the number that tells whether its word is one of these; `unknown` tells nothing
_AMONG = {
    ("account_signup", "email_class"): ("disposable_email", ("disposable",)),
    ("phone_verified", "line_type"): ("voip_phone", ("voip",)),
    ("payment", "funding"): ("virtual_card", ("virtual", "prepaid")),
} | {
    (type_, field): told
    for type_ in EVENT_TYPES
    for field, told in (
        ("network_type", ("datacentre", ("hosting", "vpn", "tor"))),
        ("forwarded", ("forwarded", ("true",))),
    )
}


def _vocabulary() -> list[str]:
    """Every type, field and word of a closed list; a word's place in it is its number in the walk."""
    found = dict.fromkeys((*EVENT_TYPES, "false", "true", "self"))
    for cls in (*EVENT_CLASSES, Owner):
        for field in msgspec.structs.fields(cls):
            found[field.name] = None
            for part in (field.type, *get_args(field.type)):
                found.update(dict.fromkeys(w for w in get_args(part) if isinstance(w, str)))
    return list(found)


_WORDS = _vocabulary()
_PLACE = {word: i for i, word in enumerate(_WORDS)}
_FAMILIES = tuple(sorted({*FAMILY_OF.values(), NS}))
_CLEAR, _OPAQUE = len(_FAMILIES), len(_FAMILIES) + 1  # the value of a class; an account's own name
_OWNER = len(EVENT_TYPES)  # an owner's fields are read like those of one more type
_ACT, _FAMILY, _KIND, _COLUMN, _SAYS = range(5)  # what `Tables.field` holds of a field
_NUMBERS = {name: i for i, name in enumerate(NUMBERS)}
_AMOUNTS = {name: i for i, name in enumerate(AMOUNTS)}


_STOP = b'"]},' * 16  # every search ends here


class Tables(NamedTuple):
    """What the walk looks up: constants."""

    word_key: U64  # open addressing: the hash of a word ...
    word_at: I16  # ... and its place in the vocabulary
    type_of: I16  # [word] the event type it names
    field: I16  # [type, word, 5] -1: no family, entity kind, number or saying
    says_number: F64  # [saying, word] what a word makes of the field's number; NaN: nothing
    says_amount: I16  # [saying, word] the amount that is 1 with this word, or -1
    always: I16  # [type] the amount that is 1 with every event, or -1
    # and single places: families from `clear` on have no key; (Numba would not notice that another file
    # has changed a constant it compiled in)
    clear: int
    own_family: int
    owner: int
    self_: int
    refreshed: int
    credential: int
    limited: int
    prompt_tokens: int
    read_tokens: int


def _tables() -> Tables:
    field = np.full((len(EVENT_TYPES) + 1, len(_WORDS), 5), -1, np.int16)
    field[:, :, _ACT] = PASS
    says_number: list[F64] = []
    says_amount: list[I16] = []

    def say(row: I16) -> None:
        row[_SAYS] = len(says_number)
        says_number.append(np.full(len(_WORDS), np.nan))
        says_amount.append(np.full(len(_WORDS), -1, np.int16))

    for type_, cls in enumerate((*EVENT_CLASSES, Owner)):
        for info in msgspec.structs.fields(cls):
            name = info.name
            row = field[type_, _PLACE[name]]
            if cls is not Owner and name in OF_FIELD:
                row[_ACT], row[_KIND], row[_FAMILY] = VALUE, INDEX[OF_FIELD[name].name], _CLEAR
            if name in FAMILY_OF:
                row[_ACT], row[_FAMILY] = VALUE, _FAMILIES.index(FAMILY_OF[name])
            if name in _LINKS:
                row[_KIND] = _LINKS[name]
            if name in ("account_id", "org_id"):
                row[_FAMILY] = _OPAQUE
            row[_ACT] = _ACTS.get(name, row[_ACT])
            key = EVENT_TYPES[type_] if type_ < _OWNER else "", name
            if key in _NUMBER:
                row[_ACT], row[_COLUMN] = NUMBER, _NUMBERS[_NUMBER[key]]
            if key in _AMONG:
                say(row)
                number, among = _AMONG[key]
                row[_COLUMN] = _NUMBERS[number]
                says_number[-1][:] = 0.0
                says_number[-1][[_PLACE[w] for w in among]] = 1.0
                if key == ("payment", "funding"):
                    says_number[-1][_PLACE["unknown"]] = np.nan
            if key in _COUNTED:
                say(row)
                for word, amount in _COUNTED[key].items():
                    says_amount[-1][_PLACE[word]] = _AMOUNTS[amount]
    field[EVENT_TYPES.index("request"), _PLACE["status"], _ACT] = STATUS
    type_of = np.full(len(_WORDS), -1, np.int16)
    type_of[[_PLACE[t] for t in EVENT_TYPES]] = range(len(EVENT_TYPES))
    always = np.full(len(EVENT_TYPES), -1, np.int16)
    always[EVENT_TYPES.index("request")] = _AMOUNTS["requests"]
    always[EVENT_TYPES.index("management_call")] = _AMOUNTS["polls"]
    word_key, word_at = np.zeros(1 << 11, np.uint64), np.zeros(1 << 11, np.int16)
    for place, word in enumerate(_WORDS):
        text = np.frombuffer(bytes(8) + word.encode() + bytes(8), np.uint8)
        h = _hash(eights(text.copy()), 8, 8 + len(word))
        assert h not in word_key, word  # a word is told by its hash alone
        at = int(h) & (len(word_key) - 1)
        while word_key[at]:
            at = (at + 1) & (len(word_key) - 1)
        word_key[at], word_at[at] = h, place
    return Tables(
        word_key, word_at, type_of, field, np.array(says_number), np.array(says_amount), always,
        _CLEAR, _FAMILIES.index(NS), _OWNER, _PLACE["self"], _PLACE["token_refreshed"],
        EVENT_TYPES.index("credential"), _AMOUNTS["limited"], _AMOUNTS["prompt_tokens"],
        _AMOUNTS["cache_read_tokens"],
    )  # fmt: skip


class Keys(NamedTuple):
    """Where the hashes of each family begin, how those of nothing end, and room to work in."""

    start: U64  # [family, 8]; the last two are without a key
    empty: U64  # [family, 2]
    state: U64
    block: U64


_QUOTE, _BACKSLASH, _COMMA, _COLON, _OPEN, _CLOSE, _BEGIN, _END = b'"\\,:[]{}'
_H, _MINUS, _POINT, _E = b"h-.e"
_ODD = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xD6E8FEB86659FD93)
_ONE = np.uint64(1)
_LOW, _HIGH = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_QUOTES, _ESCAPES = _LOW * np.uint64(_QUOTE), _LOW * np.uint64(_BACKSLASH)
_ORDER = np.uint64(0x0001020304050607)  # times 256^k: k in the highest byte
_PREFIX = np.uint64(int.from_bytes(b"h:", "little"))
_TEN = np.array([10.0**k for k in range(23)])


@lean
def _hash(eight: U64, first: int, last: int) -> Any:  # a uint64
    """A quick hash of the bytes first:last, before which there are eight more; not 0."""
    h = np.uint64(last - first + 1) * _ODD
    at = first
    while at + 8 < last:
        h = (h ^ eight[at]) * _MIX
        h ^= h >> np.uint64(32)
        at += 8
    if at < last:
        h = (h ^ (eight[last - 8] >> np.uint64(64 - 8 * (last - at)))) * _MIX
        h ^= h >> np.uint64(32)
    return max(h, _ONE)


@lean
def _word(eight: U64, first: int, last: int, word_key: U64, word_at: I16) -> int:
    """The place of a word in the vocabulary, -1 where it is none."""
    h = _hash(eight, first, last)
    at = np.int64(h & np.uint64(len(word_key) - 1))
    while word_key[at] != h:
        if word_key[at] == np.uint64(0):
            return -1
        at = (at + 1) & (len(word_key) - 1)
    return np.int64(word_at[at])


@lean
def _nibble(c: int) -> int:
    """The value of a hexadecimal digit, or -1."""
    if 48 <= c <= 57:
        return c - 48
    if 97 <= c <= 102:
        return c - 87
    return c - 55 if 65 <= c <= 70 else -1


@lean
def _digits(data: U8, first: int, last: int) -> Any:  # a uint64
    """The first 64 bits of a token of 32 digits, not 0; 0 where it is a token of another form."""
    name = np.uint64(0)
    if last - first != 34:
        return name
    worst = 0
    for k in range(32):
        digit = _nibble(np.int64(data[first + 2 + k]))
        worst |= digit
        if k < 16:
            name = (name << np.uint64(4)) | np.uint64(digit & 15)
    return max(name, _ONE) if worst >= 0 else np.uint64(0)


@lean
def _big(x: np.uint64) -> Any:  # a uint64
    """The number whose big-endian bytes are x's little-endian ones, not 0."""
    told = np.uint64(0)
    for k in range(8):
        told = (told << np.uint64(8)) | ((x >> np.uint64(8 * k)) & np.uint64(255))
    return max(told, _ONE)


@lean
def _zeros(x: np.uint64) -> Any:  # a uint64
    """The high bit of the lowest byte that is 0, perhaps of some above it; 0 where no byte is 0."""
    return (x - _LOW) & ~x & _HIGH


@lean
def _closing(eight: U64, at: int) -> tuple[int, bool]:
    """The quote that ends the string whose text begins at `at`, and whether there is an escape."""
    escaped = False
    while True:
        word = eight[at]
        quote, escape = _zeros(word ^ _QUOTES), _zeros(word ^ _ESCAPES)
        found = quote | escape
        if found == np.uint64(0):
            at += 8
            continue
        lowest = found & (np.uint64(0) - found)
        at += np.int64(((lowest >> np.uint64(7)) * _ORDER) >> np.uint64(56))
        if lowest & quote:
            return at, escaped
        escaped = True
        at += 2


@lean
def _unescape(data: U8, first: int, last: int, to: int) -> int:
    """Write the text of a JSON string at `to`, escaped as our encoder does it; returns its end."""
    at = first
    while at < last:
        c = np.int64(data[at])
        at += 1
        if c == _BACKSLASH:
            c = np.int64(data[at])
            at += 1
            if c == 117:  # \u00XX: the control characters without a letter
                c = 16 * _nibble(np.int64(data[at + 2])) + _nibble(np.int64(data[at + 3]))
                at += 4
            elif c == 98:
                c = 8
            elif c == 116:
                c = 9
            elif c == 110:
                c = 10
            elif c == 102:
                c = 12
            elif c == 114:
                c = 13
        data[to] = c
        to += 1
    return to


@lean
def _copy(eight: U64, first: int, last: int, out: U64, to: int) -> int:
    """Copy the bytes first:last, and what follows them up to a multiple of eight; returns their end."""
    for k in range(0, last - first, 8):
        out[to + k] = eight[first + k]
    return to + last - first


@lean
def _remember(
    eight: U64, first: int, last: int, family: int, clear: int, h: np.uint64, place: int, memo: U64,
    keys: Keys,
) -> None:  # fmt: skip
    """Hash a value and leave it at its place in the memo."""
    n = last - first
    state = keys.state
    if n > 0 or family >= clear:
        before = BLOCK if family < clear else 0
        digest(keys.start[family], before, eight, first, last, state, keys.block)
    else:
        state[0], state[1] = keys.empty[family, 0], keys.empty[family, 1]
    memo[place, _KEY], memo[place, _SIZE], memo[place, _NAME] = h, _NEVER, _big(state[0])
    if n <= 8 * (MEMO_WORDS - _TEXT):
        memo[place, _SIZE] = np.uint64(n)
        for k in range(0, n, 8):
            memo[place, _TEXT + (k >> 3)] = eight[first + k] & _mask(n - k)
    if family < clear:
        for k in range(4):
            memo[place, _TOKEN + k] = _hex(state[k >> 1] >> np.uint64(32 * (k & 1)))


@lean
def _mask(n: int) -> Any:  # a uint64
    """The lowest n bytes, all of them from 8 on."""
    return ~np.uint64(0) if n >= 8 else (_ONE << np.uint64(8 * n)) - _ONE


@lean
def _hex(x: np.uint64) -> Any:  # a uint64
    """The lowest four bytes as eight hexadecimal digits, in the order of memory."""
    text = np.uint64(0)
    for k in range(8):
        digit = (x >> np.uint64(8 * (k >> 1) + 4 * (1 - (k & 1)))) & np.uint64(15)
        digit += np.uint64(48) if digit < np.uint64(10) else np.uint64(87)
        text |= digit << np.uint64(8 * k)
    return text


@lean
def _string(
    data: U8, eight: U64, at: int, family: int, clear: int, spare: int, copied: int, out: U64,
    to: int, memo: U64, keys: Keys,
) -> Any:  # fmt: skip
    """Take in the string whose quote is at `at`, an identifier of this family.

    Returns the place after it, how far the data is copied, where the output ends, and the value's
    64-bit name.
    """
    begin = at + 1
    end, escaped = _closing(eight, begin)
    first, last = begin, end
    if escaped:
        first, last = spare, _unescape(data, begin, end, spare)
    n = last - first
    if data[first] == _H and data[first + 1] == _COLON and n >= 2 and family <= clear:
        name = _digits(data, first, last)
        if name != np.uint64(0):
            return end + 1, copied, to, name
        family = clear  # an edge's own form of token: a name like any other
    h = _hash(eight, first, last) ^ (np.uint64(family + 1) * _MIX)
    place = np.int64((h ^ (h >> np.uint64(40))) & np.uint64(MEMO - 1))
    differ = (memo[place, _KEY] ^ h) | (memo[place, _SIZE] ^ np.uint64(n))
    if differ == np.uint64(0):
        for k in range(0, n, 8):
            differ |= memo[place, _TEXT + (k >> 3)] ^ (eight[first + k] & _mask(n - k))
    if differ != np.uint64(0):
        _remember(eight, first, last, family, clear, h, place, memo, keys)
    if family < clear:
        to = _copy(eight, copied, begin, out, to)
        out[to] = _PREFIX
        for k in range(4):
            out[to + 2 + 8 * k] = memo[place, _TOKEN + k]
        to += 34
        copied = end
    return end + 1, copied, to, memo[place, _NAME]


@lean
def _value(data: U8, at: int) -> tuple[float, int, bool]:
    """(a JSON number, the place after it, whether it was read exactly).

    Up to 2^53 and 10^22 a double holds digits and power exactly, so that one operation rounds right.
    """
    negative = data[at] == _MINUS
    if negative:
        at += 1
    digits, power, count = 0, 0, 0
    after_point = False
    while True:
        c = np.int64(data[at])
        if 48 <= c <= 57:
            if count < 18:
                digits = 10 * digits + c - 48
            if digits > 0:
                count += 1
            if after_point:
                power -= 1
        elif c == _POINT:
            after_point = True
        else:
            break
        at += 1
    if data[at] == _E:
        at += 1
        below = data[at] == _MINUS
        if below or data[at] == 43:
            at += 1
        written = 0
        while 48 <= data[at] <= 57:
            written = 10 * written + np.int64(data[at]) - 48
            at += 1
        power += -written if below else written
    exact = count < 18 and digits <= 2**53 and -22 <= power <= 22
    told = float(digits)
    if exact and power > 0:
        told *= _TEN[power]
    elif exact:
        told /= _TEN[-power]
    return (-told if negative else told), at, exact


@lean
def _rank(kind: int) -> int:
    """Entities come in the order of their kinds, then the provider's own, then what links requests."""
    if kind < CHAIN_LINK:
        return kind
    if kind >= CUSTOM:
        return 1000
    return (
        1001
        if kind == CHAIN_LINK
        else 1002
        if kind == MINTED
        else 1003
        if kind == CHAIN_AFTER
        else 1004
    )


@lean
def _place(kinds: I32, names: U64, begin: int, at: int, kind: int, name: np.uint64) -> int:
    """Put one more entity into its event's, which begin at `begin`; returns how many there are in all."""
    to = at
    rank = _rank(kind)
    while to > begin and _rank(kinds[to - 1]) > rank:
        kinds[to], names[to] = kinds[to - 1], names[to - 1]
        to -= 1
    kinds[to], names[to] = kind, name
    return at + 1


@lean
def _past(data: U8, eight: U64, at: int) -> int:
    """The place after a value that nobody asks for: a string, a number, a word, a list of numbers."""
    if data[at] == _QUOTE:
        return _closing(eight, at + 1)[0] + 1
    if data[at] == _OPEN:
        while data[at] != _CLOSE:
            at += 1
        return at + 1
    while data[at] != _COMMA and data[at] != _END:
        at += 1
    return at


@lean
def _walk(
    data: U8, eight: U64, limit: int, spare: int, out: U64, tables: Tables, memo: U64, keys: Keys,
    rows: tuple[Any, ...], body_at: I64, name_at: I64, own: I64, rough: I64,
) -> tuple[int, int]:  # fmt: skip
    """Walk over the events in `data`, each with one byte behind it, up to `limit`; from `spare` on is room.

    Fills the rows, the sealed bytes and where each event's end (`body_at`), and notes what is Python's
    to do: where the account and the organisation of each event stand (`name_at`), the names of the
    provider's own kinds (`own`), and the numbers that `_value` could not read (`rough`: event, column,
    place). Returns how many there are of the last two; -1 for bytes that are not of our encoder (it ends
    at the first sign of that, at the latest in what stands behind `limit`).
    """
    t, type_, account, org, event_id, body, start, kind, name, amount, number = rows
    word_key, word_at, type_of, field, says_number, says_amount, always = tables[:7]
    clear, own_family, owner, self_, refreshed, credential, limited, prompt_tokens, read_tokens = (
        tables[7:]
    )
    at = copied = to = entities = owns = roughs = 0
    for e in range(len(t)):
        if at >= limit:
            return -1, 0
        begin = entities
        end, _ = _closing(eight, at + 9)  # behind {"type":"
        word = _word(eight, at + 9, end, word_key, word_at)
        which = np.int64(type_of[word]) if word >= 0 else -1
        if which < 0:
            return -1, 0
        type_[e] = which
        if always[which] >= 0:
            amount[e, always[which]] = 1
        inside, fresh, prompt = which, which != credential, 0.0
        at = end + 1
        while True:
            if data[at] == _END:
                at += 1
                if inside == which:
                    break
                if inside == owner and data[at] == _COMMA:
                    at += 1  # to the brace of the next owner
                else:
                    at += inside == owner
                    inside = which
                continue
            # a comma or a brace, then a field
            if at >= limit:
                return -1, 0
            first = at + 2
            end, _ = _closing(eight, first)
            at = end + 2
            act, family, sort, column, says = VALUE, own_family, CUSTOM + owns, -1, -1
            if inside > owner:  # within `entities`, whose kinds are anybody's
                own[owns, 0], own[owns, 1] = first, end
                owns += 1
            else:
                word = _word(eight, first, end, word_key, word_at)
                if word < 0:
                    return -1, 0
                act = np.int64(field[inside, word, _ACT])
                family = np.int64(field[inside, word, _FAMILY])
                sort = np.int64(field[inside, word, _KIND])
                column = np.int64(field[inside, word, _COLUMN])
                says = np.int64(field[inside, word, _SAYS])
            if says >= 0:
                quoted = data[at] == _QUOTE
                end = _past(data, eight, at) - quoted
                word = _word(eight, at + quoted, end, word_key, word_at)
                fresh = fresh or word == refreshed
                if word >= 0 and not np.isnan(says_number[says, word]):
                    number[e, column] = says_number[says, word]
                if word >= 0 and says_amount[says, word] >= 0:
                    amount[e, says_amount[says, word]] = 1
            if act == PARTY:
                end, _ = _closing(eight, at + 1)
                if _word(eight, at + 1, end, word_key, word_at) == self_:
                    family = -1
            if family >= 0:
                many = data[at] == _OPEN
                at += many
                held = np.uint64(0)
                while not many or data[at] != _CLOSE:
                    at += data[at] == _COMMA
                    first = at
                    at, copied, to, told = _string(
                        data, eight, at, family, clear, spare, copied, out, to, memo, keys
                    )
                    if act == ACCOUNT:
                        account[e], name_at[e, 0], name_at[e, 1] = told, first, at
                    elif act == ORG:
                        org[e], name_at[e, 2], name_at[e, 3] = told, first, at
                    elif sort == CHAIN_LINK:
                        # the last is the caller's newest message; those before may be what a response made
                        if held != np.uint64(0):
                            entities = _place(kind, name, begin, entities, sort, held)
                        held = told
                    elif sort >= 0:
                        entities = _place(kind, name, begin, entities, sort, told)
                    if not many:
                        break
                at += many
            elif act == EVENT_ID:
                first = at + 1
                last, escaped = _closing(eight, first)
                at = last + 1
                if escaped:
                    first, last = spare, _unescape(data, first, last, spare)
                digest(keys.start[clear], 0, eight, first, last, keys.state, keys.block)
                event_id[e] = _big(keys.state[0])
            elif act == TIME or act >= NUMBER:
                first = at
                value, at, exact = _value(data, at)
                if act == TIME:
                    t[e] = np.int64(value)
                elif act == NUMBER and fresh:
                    number[e, column] = value
                    if not exact:
                        rough[roughs, 0], rough[roughs, 1] = e, column
                        rough[roughs, 2], rough[roughs, 3] = first, at
                        roughs += 1
                elif act == STATUS:
                    amount[e, limited] = value == 429
                elif act >= PROMPT:
                    prompt += value
                    amount[e, prompt_tokens] = np.int64(min(prompt, AMOUNT_MAX))
                    if act == READ:
                        amount[e, read_tokens] = np.int64(min(value, AMOUNT_MAX))
            elif act == OWNERS and data[at + 1] == _BEGIN:
                at += 1
                inside = owner
            elif act == ENTITIES and data[at + 1] == _QUOTE:
                inside = owner + 1
            elif act == ENTITIES:
                at += 2
            else:
                at = _past(data, eight, at)
        to = _copy(eight, copied, at, out, to)
        at += 1
        copied = at
        body[e] = _hash(out, body_at[e], to)
        body_at[e + 1] = to
        start[e + 1] = entities
    return owns, roughs


_TABLES = _tables()


@dataclass(frozen=True, slots=True)
class Sealed:
    """A batch whose identifiers are hashed in `bodies`, its encodings, and `rows`, which windows fold.

    `events` still hold what came in, for as long as the batch is answered: nothing stores them.
    """

    events: Sequence[AnyEvent]
    bodies: list[bytes]
    rows: Rows


class Sealer:
    """Seals events with one key; numbers the provider's own kinds and remembers names on the way."""

    def __init__(self, secret: Secret, kinds: Kinds, names: Names) -> None:
        self.kinds, self.names = kinds, names
        starts = [secret.start(family) for family in _FAMILIES] + [blake2b.start(8)] * 2
        nothing = [bytes.fromhex(secret.token(family, "")[2:]) for family in _FAMILIES]
        self._keys = Keys(
            np.array(starts),
            np.frombuffer(b"".join(nothing), np.uint64).reshape(-1, 2),
            np.zeros(8, np.uint64),
            np.zeros(16, np.uint64),
        )
        self._memo = np.zeros((MEMO, MEMO_WORDS), np.uint64)

    def seal(self, events: Sequence[AnyEvent]) -> tuple[Sealed, list[tuple[int, InvalidEvent]]]:
        """The sealed events, and those that cannot be sealed, by index."""
        good: list[AnyEvent] = []
        refused: list[tuple[int, InvalidEvent]] = []
        for i, event in enumerate(events):
            try:
                canonical(event)
                good.append(event)
            except InvalidEvent as problem:
                refused.append((i, problem))
        return self._sealed(good, _encode_lines(good), None), refused

    def read(self, bodies: list[bytes], events: Sequence[AnyEvent] = ()) -> Sealed:
        """What `seal` gave these bodies for, from a log; with the events where the caller has them.

        Raises:
            ValueError: they are not what `seal` gives.
        """
        return self._sealed(events, b"\n".join((*bodies, b"")), bodies)

    def _sealed(
        self, events: Sequence[AnyEvent], lines: bytes, bodies: list[bytes] | None
    ) -> Sealed:
        n = len(events if bodies is None else bodies)
        size, text = len(lines), np.frombuffer(lines, np.uint8)
        quotes = np.count_nonzero(text == _QUOTE) + len(_STOP)  # of nothing are there more
        # behind the lines whatever ends a value, and as much room again for texts without their escapes
        data = np.empty(2 * size + 2 * len(_STOP), np.uint8)
        data[:size], data[size : size + len(_STOP)] = text, np.frombuffer(_STOP, np.uint8)
        out = np.empty(size + 34 * quotes, np.uint8)
        t, type_ = np.zeros(n, np.int64), np.zeros(n, np.uint8)
        account, org, event_id, body = (np.zeros(n, np.uint64) for _ in range(4))
        start = np.zeros(n + 1, np.int64)
        kind, name = np.empty(quotes, np.int32), np.empty(quotes, np.uint64)
        amount = np.zeros((n, len(AMOUNTS)), np.int64)
        number = np.full((n, len(NUMBERS)), np.nan)
        body_at, name_at = np.zeros(n + 1, np.int64), np.zeros((n, 4), np.int64)
        own, rough = np.empty((quotes, 2), np.int64), np.empty((quotes, 4), np.int64)
        owns, roughs = _walk(
            data, eights(data), size, size + len(_STOP), eights(out), _TABLES, self._memo, self._keys,
            (t, type_, account, org, event_id, body, start, kind, name, amount, number),
            body_at, name_at, own, rough,
        )  # fmt: skip
        if owns < 0:
            raise ValueError("these are not events as they are encoded here")
        if bodies is None:
            sealed = out[: body_at[n]].tobytes()
            bodies = [sealed[a:b] for a, b in pairwise(body_at.tolist())]
        m = start[n]
        kind, name = kind[:m], name[:m]
        if owns:
            given = [self.kinds.number(lines[a:b].decode()) for a, b in own[:owns].tolist()]
            at = kind >= CUSTOM
            kind[at] = np.array(given, np.int32)[kind[at] - CUSTOM]
        for e, column, first, last in rough[:roughs].tolist():
            number[e, column] = float(lines[first:last])
        for numbers, places in ((account, name_at[:, :2]), (org, name_at[:, 2:])):
            for i, known in enumerate(map(self.names.__contains__, numbers.tolist())):
                if not known and numbers[i]:
                    first, last = places[i].tolist()
                    self.names[int(numbers[i])] = _decode(lines[first:last])
        rows = Rows(t, type_, account, org, event_id, body, start, kind, name, amount, number)
        return Sealed(events, bodies, rows)
