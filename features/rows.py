"""Rows: a batch of sealed events as arrays, the form every window folds.

    t, type_, account, org, event_id, body   one value an event
    start, kind, id                          CSR: the entities of event i are id[start[i]:start[i+1]]
    amount[n, AMOUNTS]                       integers to be summed (integers, so that every window
                                             adds them exactly and in any order)
    number[n, NUMBERS]                       the last known value of which is kept, NaN = unknown

Names become 64-bit numbers here (features/identity.u64); `Names` remembers the owners' and
accounts' own words, because people read those.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
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

_SINGLE: tuple[str, ...] = tuple(k.field for k in KINDS)


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


@cache
def _class_value(value: str) -> int:
    return u64(value)


def _opaque(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()) or 1


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
            self.t[at], self.type_[at], self.account[at], self.org[at], self.event_id[at], self.body[at],
            self.start[first : last + 1], self.kind, self.id, self.amount[at], self.number[at],
        )  # fmt: skip


Put = Callable[[Any, list[int], list[float]], None]


def _signup(event: AccountSignup, amount: list[int], number: list[float]) -> None:
    if event.form_ms is not None:
        number[_N["form_ms"]] = event.form_ms
    if event.email_class is not None:
        number[_N["disposable_email"]] = event.email_class == "disposable"
    if event.declared_seats is not None:
        number[_N["declared_seats"]] = event.declared_seats


def _phone(event: PhoneVerified, amount: list[int], number: list[float]) -> None:
    if event.otp_latency_ms is not None:
        number[_N["otp_latency_ms"]] = event.otp_latency_ms
    if event.line_type is not None:
        number[_N["voip_phone"]] = event.line_type == "voip"


def _kyc(event: KycChecked, amount: list[int], number: list[float]) -> None:
    if event.liveness is not None:
        number[_N["liveness"]] = event.liveness
    if event.attempts is not None:
        number[_N["kyc_attempts"]] = event.attempts


def _payment(event: Payment, amount: list[int], number: list[float]) -> None:
    if event.kind in ("card_declined", "charge_failed"):
        amount[_A["declines"]] = 1
    if event.funding is not None and event.funding != "unknown":
        number[_N["virtual_card"]] = event.funding in ("virtual", "prepaid")


def _credential(event: Credential, amount: list[int], number: list[float]) -> None:
    if event.kind == "token_refreshed" and event.lead_s is not None:
        number[_N["refresh_lead_s"]] = event.lead_s


def _request(event: Request, amount: list[int], number: list[float]) -> None:
    amount[_A["requests"]] = 1
    if event.status == 429:
        amount[_A["limited"]] = 1
    read = event.cache_read_tokens or 0
    prompt = (event.input_tokens or 0) + read + (event.cache_write_tokens or 0)
    amount[_A["prompt_tokens"]] = min(prompt, AMOUNT_MAX)
    amount[_A["cache_read_tokens"]] = min(read, AMOUNT_MAX)
    kind = event.kind
    if kind is not None and kind != "main":
        amount[_A["probes" if kind == "probe" else "auxiliary"]] = 1
    if event.window_used is not None:
        number[_N["window_used"]] = event.window_used
    if event.chain_length is not None:
        number[_N["chain_length"]] = event.chain_length


def _management(event: ManagementCall, amount: list[int], number: list[float]) -> None:
    amount[_A["polls"]] = 1


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
def _entities_of(cls: type[Event]) -> tuple[Callable[[Any], tuple[Any, ...]], tuple[tuple[int, bool], ...]]:
    """One getter for every entity field of a type, and the kind number and clearness of each."""
    present = [k for k in KINDS if k.field in cls.__struct_fields__]
    return attrgetter(*(k.field for k in present)), tuple((INDEX[k.name], k.clear) for k in present)


class RowBuilder:
    """Turns sealed events into rows, numbering custom kinds and remembering names on the way."""

    def __init__(self, kinds: Kinds, names: Names) -> None:
        self.kinds, self.names = kinds, names

    def build(self, events: Sequence[AnyEvent], bodies: Sequence[bytes] | None = None) -> Rows:
        """Rows of these sealed events; `bodies` are their encodings where the caller has them."""
        n = len(events)
        t, types, account, org, ids = [0] * n, [0] * n, [0] * n, [0] * n, [0] * n
        start = [0] * (n + 1)
        kind: list[int] = []
        entity: list[int] = []
        amounts: list[list[int]] = []
        numbers: list[list[float]] = []
        no_amounts = [0] * len(AMOUNTS)
        no_numbers = [np.nan] * len(NUMBERS)
        for i, event in enumerate(events):
            cls = type(event)
            t[i] = event.occurred_at  # type: ignore[call-overload]
            types[i] = _TYPE[cls]
            account[i] = self.names.name(event.account_id)
            if event.org_id is not None:
                org[i] = self.names.name(event.org_id)
            ids[i] = _opaque(event.event_id)
            getter, places = _entities_of(cls)
            for value, (number, clear) in zip(getter(event), places, strict=True):
                if value is not None:
                    kind.append(number)
                    entity.append(_class_value(value) if clear else u64(value))
            if event.entities:
                for name, value in event.entities.items():
                    kind.append(self.kinds.number(name))
                    entity.append(u64(value))
            if cls is Request:
                _links(event, kind, entity)  # type: ignore[arg-type]
            start[i + 1] = len(kind)
            amount, number_ = no_amounts.copy(), no_numbers.copy()
            put = _PUT.get(cls)
            if put is not None:
                put(event, amount, number_)
            if event.network_type is not None:
                number_[_N["datacentre"]] = event.network_type in _DATACENTRE
            if event.forwarded is not None:
                number_[_N["forwarded"]] = event.forwarded
            amounts.append(amount)
            numbers.append(number_)
        if bodies is None:
            bodies = [encode(e) for e in events]
        return Rows(
            np.array(t, np.int64),
            np.array(types, np.uint8),
            np.array(account, np.uint64),
            np.array(org, np.uint64),
            np.array(ids, np.uint64),
            np.array([_digest(b) for b in bodies], np.uint64),
            np.array(start, np.int64),
            np.array(kind, np.int32),
            np.array(entity, np.uint64),
            np.array(amounts, np.int64).reshape(n, len(AMOUNTS)),
            np.array(numbers, np.float64).reshape(n, len(NUMBERS)),
        )


def _links(event: Request, kind: list[int], entity: list[int]) -> None:
    # chain[-1] is the caller's newest message; the links before it are what a response may have made
    for link in (event.chain or ())[:-1]:
        kind.append(CHAIN_LINK)
        entity.append(u64(link))
    for ref in event.minted_refs or ():
        kind.append(MINTED)
        entity.append(u64(ref))
    if event.chain_after is not None:
        kind.append(CHAIN_AFTER)
        entity.append(u64(event.chain_after))
    for ref in event.emitted_refs or ():
        kind.append(EMITTED)
        entity.append(u64(ref))


def _digest(body: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(body, digest_size=8).digest())


_TYPE = {c: i for i, c in enumerate(EVENT_CLASSES)}
