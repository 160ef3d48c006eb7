"""Rows: a batch of sealed events as arrays, the form every window folds.

    t, type_, account, org, event_id, body   one value an event
    start, kind, id                          CSR: those of event i are id[start[i]:start[i+1]]
    amount[n, AMOUNTS]                       integers to be summed (integers, so that every window
                                             adds them exactly and in any order)
    number[n, NUMBERS]                       the last known value of which is kept, NaN = unknown

Names become 64-bit numbers here (features/identity.u64); `Names` remembers the owners' and
accounts' own words, because people read those.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import compress
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.event import (
    EVENT_CLASSES,
    AccountSignup,
    AnyEvent,
    Credential,
    Event,
    KycChecked,
    ManagementCall,
    Payment,
    PhoneVerified,
    Request,
    encode,
)
from features.identity import u64
from features.kind import INDEX, KINDS

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

AMOUNTS: tuple[str, ...] = (
    "requests",
    "limited",
    "prompt_tokens",
    "cache_read_tokens",
    "auxiliary",
    "probes",
    "polls",
    "declines",
)
NUMBERS: tuple[str, ...] = (
    "form_ms",
    "disposable_email",
    "declared_seats",
    "otp_latency_ms",
    "voip_phone",
    "liveness",
    "kyc_attempts",
    "virtual_card",
    "refresh_lead_s",
    "window_used",
    "chain_length",
    "datacentre",
    "forwarded",
)
AMOUNT_MAX = 2**32  # so that a tally stays exact in a double (the redis window) for 2^21 events
_A = {name: i for i, name in enumerate(AMOUNTS)}
_N = {name: i for i, name in enumerate(NUMBERS)}

# Entities beyond the built-in kinds; a custom kind's number is CUSTOM + its place in Kinds.
CHAIN_LINK, CHAIN_AFTER, MINTED, EMITTED = 250, 251, 252, 253
CUSTOM = 256


class Kinds:
    """Numbers for the custom kinds, in order of first sight; `declared` ones come first."""

    def __init__(self, declared: Sequence[str] = ()) -> None:
        self.names: list[str] = list(declared)
        self._number = {name: CUSTOM + i for i, name in enumerate(self.names)}

    def number(self, name: str) -> int:
        known = self._number.get(name)
        if known is None:
            known = self._number[name] = CUSTOM + len(self.names)
            self.names.append(name)
        return known

    def name(self, number: int) -> str:
        return KINDS[number].name if number < CUSTOM else self.names[number - CUSTOM]


class Names(dict[int, str]):
    """The words behind the 64-bit names of accounts and organisations."""

    def name(self, word: str) -> int:
        number = _opaque(word)
        self.setdefault(number, word)
        return number


@lru_cache(1 << 16)
def _opaque(word: str) -> int:
    return int.from_bytes(_digest8(word.encode("utf-8", "surrogatepass"))) or 1


def _digest8(data: bytes) -> bytes:
    state = _BLANK.copy()  # half the cost of a new one
    state.update(data)
    return state.digest()


def _numbers(digests: Sequence[bytes]) -> U64:
    """Digests of 8 bytes as numbers, never 0."""
    return np.maximum(np.frombuffer(b"".join(digests), ">u8").astype(np.uint64), _ONE)


_BLANK = hashlib.blake2b(digest_size=8)
_ONE = np.uint64(1)


class _ClassNumbers(dict[str, int]):
    """`u64` of the clear values met lately; there are few, and they come with every event."""

    def __missing__(self, value: str) -> int:
        if len(self) >= 1 << 14:
            self.clear()
        number = self[value] = u64(value)
        return number


def token_numbers(tokens: Sequence[str]) -> U64:
    """`u64` of many tokens, their digits read in one go at a tenth of the cost of one by one."""
    n = len(tokens)
    text = "".join(tokens).encode("utf-8", "surrogatepass")
    if len(text) == 34 * n:
        token = np.frombuffer(text, np.uint8).reshape(n, 34)
        if (token[:, :2] == np.frombuffer(b"h:", np.uint8)).all():
            try:
                digest = bytes.fromhex(token[:, 2:].tobytes().decode())
            except ValueError:
                digest = b""  # an edge's own form of token
            if len(digest) == 16 * n:  # fromhex passes over spaces
                return _numbers([digest])[::2]
    return np.fromiter(map(u64, tokens), np.uint64, n)


@dataclass(frozen=True, slots=True)
class Rows:
    """See the module's docstring; n events, m entities in all."""

    t: I64
    type_: NDArray[np.uint8]
    account: U64
    org: U64  # 0 where the event names none
    event_id: U64
    body: U64  # digest of the sealed event: a second body under one event_id is told apart
    start: NDArray[np.int64]
    kind: NDArray[np.int32]
    id: U64
    amount: I64
    number: F64

    def __len__(self) -> int:
        return len(self.t)

    def part(self, first: int, last: int) -> "Rows":
        """Events `first` to `last`; the entities are shared, not copied."""
        at = slice(first, last)
        return Rows(
            self.t[at], self.type_[at], self.account[at], self.org[at], self.event_id[at],
            self.body[at], self.start[first : last + 1], self.kind, self.id, self.amount[at],
            self.number[at],
        )  # fmt: skip


# Puts an event's amounts and numbers into the flat lists of its batch, from the given places on.
Put = Callable[[Any, list[int], int, list[float], int], None]


def _signup(event: AccountSignup, amount: list[int], a: int, number: list[float], n: int) -> None:
    if event.form_ms is not None:
        number[n + _N["form_ms"]] = event.form_ms
    if event.email_class is not None:
        number[n + _N["disposable_email"]] = event.email_class == "disposable"
    if event.declared_seats is not None:
        number[n + _N["declared_seats"]] = event.declared_seats


def _phone(event: PhoneVerified, amount: list[int], a: int, number: list[float], n: int) -> None:
    if event.otp_latency_ms is not None:
        number[n + _N["otp_latency_ms"]] = event.otp_latency_ms
    if event.line_type is not None:
        number[n + _N["voip_phone"]] = event.line_type == "voip"


def _kyc(event: KycChecked, amount: list[int], a: int, number: list[float], n: int) -> None:
    if event.liveness is not None:
        number[n + _N["liveness"]] = event.liveness
    if event.attempts is not None:
        number[n + _N["kyc_attempts"]] = event.attempts


def _payment(event: Payment, amount: list[int], a: int, number: list[float], n: int) -> None:
    if event.kind in ("card_declined", "charge_failed"):
        amount[a + _A["declines"]] = 1
    if event.funding is not None and event.funding != "unknown":
        number[n + _N["virtual_card"]] = event.funding in ("virtual", "prepaid")


def _credential(event: Credential, amount: list[int], a: int, number: list[float], n: int) -> None:
    if event.kind == "token_refreshed" and event.lead_s is not None:
        number[n + _N["refresh_lead_s"]] = event.lead_s


def _request(event: Request, amount: list[int], a: int, number: list[float], n: int) -> None:
    amount[a + _A["requests"]] = 1
    if event.status == 429:
        amount[a + _A["limited"]] = 1
    read = event.cache_read_tokens or 0
    prompt = (event.input_tokens or 0) + read + (event.cache_write_tokens or 0)
    amount[a + _A["prompt_tokens"]] = min(prompt, AMOUNT_MAX)
    amount[a + _A["cache_read_tokens"]] = min(read, AMOUNT_MAX)
    kind = event.kind
    if kind is not None and kind != "main":
        amount[a + _A["probes" if kind == "probe" else "auxiliary"]] = 1
    if event.window_used is not None:
        number[n + _N["window_used"]] = event.window_used
    if event.chain_length is not None:
        number[n + _N["chain_length"]] = event.chain_length


def _management(
    event: ManagementCall, amount: list[int], a: int, number: list[float], n: int
) -> None:
    amount[a + _A["polls"]] = 1


_PUT: dict[type[Event], Put] = {
    AccountSignup: _signup,
    PhoneVerified: _phone,
    KycChecked: _kyc,
    Payment: _payment,
    Credential: _credential,
    Request: _request,
    ManagementCall: _management,
}
_DATACENTRE = frozenset(("hosting", "vpn", "tor"))


@cache
def _entities_of(
    cls: type[Event],
) -> tuple[Callable[[Any], tuple[str | None, ...]], tuple[int, ...]]:
    """One getter for every entity field of a type, and the kind number of each."""
    present = [k for k in KINDS if k.field in cls.__struct_fields__]
    return attrgetter(*(k.field for k in present)), tuple(INDEX[k.name] for k in present)


class RowBuilder:
    """Turns sealed events into rows, numbering custom kinds and remembering names on the way."""

    def __init__(self, kinds: Kinds, names: Names) -> None:
        self.kinds, self.names = kinds, names
        self._class_number = _ClassNumbers().__getitem__

    def build(self, events: Sequence[AnyEvent], bodies: Sequence[bytes] | None = None) -> Rows:
        """Rows of these sealed events; `bodies` are their encodings where the caller has them."""
        n = len(events)
        name = self.names.name
        start = [0] * (n + 1)
        kind: list[int] = []
        word: list[str] = []  # of every entity: its token, or the clear value of a class
        # flat, filled where a value exists: a third of the cost of a list an event
        amounts = [0] * (n * len(AMOUNTS))
        numbers = [np.nan] * (n * len(NUMBERS))
        for i, event in enumerate(events):
            cls = type(event)
            getter, places = _entities_of(cls)
            values = getter(event)  # None or a word that is never empty, so truth tells them apart
            kind += compress(places, values)
            word += filter(None, values)
            if event.entities:
                kind += map(self.kinds.number, event.entities)
                word += event.entities.values()
            if cls is Request:
                _links(event, kind, word)  # type: ignore[arg-type]
            start[i + 1] = len(kind)
            put = _PUT.get(cls)
            if put is not None:
                put(event, amounts, i * len(AMOUNTS), numbers, i * len(NUMBERS))
            if event.network_type is not None:
                numbers[i * len(NUMBERS) + _N["datacentre"]] = event.network_type in _DATACENTRE
            if event.forwarded is not None:
                numbers[i * len(NUMBERS) + _N["forwarded"]] = event.forwarded
        if bodies is None:
            bodies = [encode(e) for e in events]
        kinds = np.array(kind, np.int32)
        clear = _CLEAR[np.minimum(kinds, CUSTOM)]
        ids = np.zeros(len(word), np.uint64)
        ids[clear] = list(map(self._class_number, compress(word, clear.tolist())))
        ids[~clear] = token_numbers(list(compress(word, (~clear).tolist())))
        return Rows(
            np.array([e.occurred_at for e in events], np.int64),
            np.array([_TYPE[type(e)] for e in events], np.uint8),
            np.array([name(e.account_id) for e in events], np.uint64),
            np.array([0 if e.org_id is None else name(e.org_id) for e in events], np.uint64),
            _numbers([_digest8(e.event_id.encode("utf-8", "surrogatepass")) for e in events]),
            _numbers([hashlib.sha256(b).digest()[:8] for b in bodies]),
            np.array(start, np.int64),
            kinds,
            ids,
            np.array(amounts, np.int64).reshape(n, len(AMOUNTS)),
            np.array(numbers, np.float64).reshape(n, len(NUMBERS)),
        )


def _links(event: Request, kind: list[int], word: list[str]) -> None:
    chain, minted, emitted = event.chain, event.minted_refs, event.emitted_refs
    if chain:
        # the last is the caller's newest message; those before it may be what a response has made
        kind += [CHAIN_LINK] * (len(chain) - 1)
        word += chain[:-1]
    if minted:
        kind += [MINTED] * len(minted)
        word += minted
    if event.chain_after is not None:
        kind.append(CHAIN_AFTER)
        word.append(event.chain_after)
    if emitted:
        kind += [EMITTED] * len(emitted)
        word += emitted


_TYPE = {c: i for i, c in enumerate(EVENT_CLASSES)}
_CLEAR = np.zeros(CUSTOM + 1, np.bool_)
_CLEAR[: len(KINDS)] = [k.clear for k in KINDS]
