"""The proof of an erasure: what was removed from where, without saying of whom.

It goes into the audit and to whoever asked. Hashes are of the whole log and of the whole state before
and after: two that differ show that something went, and the later one can be computed again.
"""

import hashlib
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from service.log import Entry


@dataclass(frozen=True, slots=True)
class LogDigest:
    """What the log holds: `sha256` is over every entry's id and payloads, in order."""

    entries: int
    events: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure removed. `records` counts rows by table; times in epoch ms."""

    began_at: int
    ended_at: int
    resumed: bool  # an attempt before this one was cut off; what that removed is not counted
    events: int
    snapshots: int
    records: dict[str, int]
    log_before: LogDigest
    log_after: LogDigest
    state_before: str
    state_after: str


def digest_of_log(
    log: Iterable[Entry], named: Callable[[bytes], bool] = lambda _: False
) -> tuple[LogDigest, int]:
    """Of the log from its oldest entry to its end, cold and hot; and how many payloads are `named`."""
    entries = events = found = 0
    told = hashlib.sha256()
    for entry in log:
        entries += 1
        events += len(entry.events)
        found += sum(map(named, entry.events))
        for part in (entry.id.encode(), entry.name.encode(), entry.body, *entry.events):
            told.update(struct.pack("<I", len(part)) + part)
    return LogDigest(entries, events, told.hexdigest()), found


def digest_of_state(arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over the window's arrays, as a snapshot would keep them."""
    told = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        told.update(f"{name} {array.dtype} {array.shape}\n".encode())
        told.update(array.tobytes())
    return told.hexdigest()
