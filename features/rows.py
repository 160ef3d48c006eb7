"""Rows: a batch of sealed events as arrays, the form every window folds.

    t, type_, account, org, event_id, body   one value an event
    start, kind, id                          CSR: those of event i are id[start[i]:start[i+1]]
    amount[n, AMOUNTS]                       integers to be summed (integers, so that every window
                                             adds them exactly and in any order)
    number[n, NUMBERS]                       the last known value of which is kept, NaN = unknown

features/seal.py makes them. Names are 64-bit numbers here (features/identity.u64); `Names` remembers the owners' and
accounts' own words, because people read those.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.kind import KINDS

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
ROWS = 2  # the version of what names and hashes mean; snapshots of another are passed over
AMOUNT_MAX = 2**32  # so that a tally stays exact in a double (the redis window) for 2^21 events

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
        number = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest()) or 1
        self.setdefault(number, word)
        return number


@dataclass(frozen=True, slots=True)
class Rows:
    """See the module's docstring; n events, m entities in all."""

    t: I64
    type_: NDArray[np.uint8]
    account: U64
    org: U64  # 0 where the event names none
    event_id: U64
    body: U64  # hash of the sealed event, not 0: a second body under one event_id is told apart
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
