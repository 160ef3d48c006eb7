"""Sealing and rows the plain way: event by event, field by field, with hashlib. The compiled walk's oracle."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from features.event import (
    EVENT_CLASSES,
    AccountSignup,
    AnyEvent,
    Credential,
    Event,
    KycChecked,
    ManagementCall,
    OwnershipDeclared,
    Payment,
    PhoneVerified,
    Request,
    encode,
)
from features.identity import Secret, canonical, u64
from features.kind import KINDS, LINK_FAMILY, NS
from features.rows import (
    AMOUNT_MAX,
    AMOUNTS,
    CHAIN_AFTER,
    CHAIN_LINK,
    EMITTED,
    MINTED,
    NUMBERS,
    Kinds,
    Names,
    Rows,
)

_A = {name: i for i, name in enumerate(AMOUNTS)}
_N = {name: i for i, name in enumerate(NUMBERS)}
_HASHED = {k.field: k.family for k in KINDS if not k.clear} | LINK_FAMILY


def seal(event: AnyEvent, secret: Secret) -> None:
    """Replace every identifier of the event with its token, in place.

    Raises:
        InvalidEvent: an e-mail, phone or IP that cannot be read as one.
    """
    canonical(event)
    for field, family in _HASHED.items():
        value = getattr(event, field, None)
        if isinstance(value, list):
            setattr(event, field, [secret.token(family, v) for v in value])
        elif value is not None:
            setattr(event, field, secret.token(family, value))
    if event.entities:
        event.entities = {kind: secret.token(NS, v) for kind, v in event.entities.items()}
    if isinstance(event, OwnershipDeclared):
        for owner in event.owners or ():
            owner.owner = secret.token("party", owner.owner)
            if owner.of != "self":
                owner.of = secret.token("party", owner.of)


def _digest8(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest()) or 1


def _quick_hash(data: bytes) -> int:
    """A multiplication and a shift for each eight bytes."""
    h = (len(data) + 1) * 0x9E3779B97F4A7C15 % 2**64
    for at in range(0, len(data), 8):
        h = (h ^ int.from_bytes(data[at : at + 8], "little")) * 0xD6E8FEB86659FD93 % 2**64
        h ^= h >> 32
    return h or 1


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


def rows_of(events: Sequence[AnyEvent], kinds: Kinds, names: Names) -> Rows:
    """Rows of these sealed events."""
    n = len(events)
    start, found = [0], list[tuple[int, int]]()
    amounts, numbers = [0] * (n * len(AMOUNTS)), [np.nan] * (n * len(NUMBERS))
    for i, event in enumerate(events):
        for number, k in enumerate(KINDS):
            value = getattr(event, k.field, None)
            if value is not None:
                found.append((number, u64(value)))
        found += [(kinds.number(k), u64(v)) for k, v in (event.entities or {}).items()]
        if isinstance(event, Request):
            # the last is the caller's newest message; those before it may be what a response has made
            found += [(CHAIN_LINK, u64(v)) for v in (event.chain or [])[:-1]]
            found += [(MINTED, u64(v)) for v in event.minted_refs or []]
            found += [(CHAIN_AFTER, u64(event.chain_after))] if event.chain_after else []
            found += [(EMITTED, u64(v)) for v in event.emitted_refs or []]
        start.append(len(found))
        put = _PUT.get(type(event))
        if put is not None:
            put(event, amounts, i * len(AMOUNTS), numbers, i * len(NUMBERS))
        if event.network_type is not None:
            numbers[i * len(NUMBERS) + _N["datacentre"]] = event.network_type in _DATACENTRE
        if event.forwarded is not None:
            numbers[i * len(NUMBERS) + _N["forwarded"]] = event.forwarded
    bodies = [_quick_hash(encode(e)) for e in events]
    return Rows(
        np.array([e.occurred_at for e in events], np.int64),
        np.array([EVENT_CLASSES.index(type(e)) for e in events], np.uint8),
        np.array([names.name(e.account_id) for e in events], np.uint64),
        np.array([0 if e.org_id is None else names.name(e.org_id) for e in events], np.uint64),
        np.array([_digest8(e.event_id.encode()) for e in events], np.uint64),
        np.array(bodies, np.uint64),
        np.array(start, np.int64),
        np.array([kind for kind, _ in found], np.int32),
        np.array([id for _, id in found], np.uint64),
        np.array(amounts, np.int64).reshape(n, len(AMOUNTS)),
        np.array(numbers, np.float64).reshape(n, len(NUMBERS)),
    )
