"""What a window is: state folded from events, asked at the instant of each.

Two stand behind this contract, features/memory.py (compiled, one process) and features/redis.py
(shared by any number of workers). Both follow features/plan.py to the letter; an O(n²) oracle in
tests/ checks both on random logs, exactly.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.plan import CONTINUATION, Plan
from features.rows import F64, I64, U64, Kinds, Rows

NEW, DUPLICATE, CONFLICT, LATE_EVENT = 0, 1, 2, 3  # CONFLICT: another body under a known event_id


@dataclass(frozen=True, slots=True)
class Folded:
    """`vectors` [n, features], NaN = unknown; `status` [n]: NEW, DUPLICATE, CONFLICT or LATE_EVENT.

    Duplicates changed nothing and have an all-NaN vector. `ordinal` [n] counts accepted events from
    0; a duplicate has that of its first delivery. It is -1 where the window is shared with other
    writers, who would count too.
    """

    vectors: F64
    status: NDArray[np.int8]
    ordinal: I64


@dataclass(frozen=True, slots=True)
class Sightings:
    """`owner[i]` was last seen on `entity[i]` of `kind[i]` at `last[i]` (epoch ms); order is arbitrary."""

    kind: NDArray[np.int32]
    entity: U64
    owner: U64
    last: I64

    def __len__(self) -> int:
        return len(self.kind)


class Window(Protocol):
    plan: Plan

    @property
    def watermark(self) -> int:
        """The latest `occurred_at` folded so far, epoch ms."""

    def fold(self, rows: Rows) -> Folded:
        """Fold the events in order; each one's vector is as of that event, itself included."""

    def ask(self, accounts: U64, t: int) -> F64:
        """Vectors [n, features] of these accounts as of `t`, from their profiles; writes nothing."""

    def accounts(self) -> tuple[U64, U64, I64, I64]:
        """Every account known: name, owner, first and last seen (epoch ms)."""

    def sightings(self) -> Sightings:
        """Every live sighting that can link two owners."""


def kind_name(kinds: Kinds, number: int) -> str:
    """The name of a kind number found in `Sightings`."""
    return "continuation" if number == CONTINUATION else kinds.name(number)
