"""Which entry of the log holds the n-th event: 20 bytes an entry, for as long as its ids are remembered.

A duplicate is answered by the ordinal of its first delivery. Single events make an entry each, so what is
kept of one is counted in bytes, not objects.
"""

from array import array
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import numpy as np

from features.rows import I64
from service.log import NOTHING, parse_id


class Ordinals:
    """The entries of a log, each with the ordinal of its first event."""

    def __init__(self) -> None:
        self._first, self._ms, self._seq = array("q"), array("q"), array("I")

    def add(self, first: int, entry: str) -> None:
        """The next entry, and the ordinal of its first event."""
        ms, seq = parse_id(entry)
        self._first.append(first)
        self._ms.append(ms)
        self._seq.append(seq)

    def drop_before(self, ordinal: int) -> None:
        """Forget the entries all of whose events come before this one. The newest entry stays."""
        gone = bisect_right(self._first, ordinal) - 1
        if gone > 0:
            for column in (self._first, self._ms, self._seq):
                del column[:gone]

    def of(self, ordinal: int) -> tuple[str, int] | None:
        """The entry that an event is in, and the event's place there; None before the first entry."""
        place = bisect_right(self._first, ordinal) - 1
        if ordinal < 0 or place < 0:
            return None
        return self._id(place), ordinal - self._first[place]

    @property
    def last(self) -> str:
        """The newest entry."""
        return self._id(-1) if self._first else NOTHING

    def __len__(self) -> int:
        return len(self._first)

    def save(self) -> dict[str, I64]:
        """As arrays, for a snapshot."""
        columns = {"entry_first": self._first, "entry_ms": self._ms, "entry_seq": self._seq}
        return {name: np.array(column, np.int64) for name, column in columns.items()}

    @classmethod
    def load(cls, arrays: dict[str, Any], meta: Mapping[str, Any]) -> "Ordinals":
        """What `save` gave, taken out of a snapshot's arrays; older snapshots have the ids in `meta`."""
        told, first = cls(), arrays.pop("entry_first").tolist()
        if "entry_id" in meta:
            for ordinal, entry in zip(first, meta["entry_id"], strict=True):
                told.add(ordinal, entry)
            return told
        told._first = array("q", first)
        told._ms = array("q", arrays.pop("entry_ms").tolist())
        told._seq = array("I", arrays.pop("entry_seq").tolist())
        return told

    def _id(self, place: int) -> str:
        return f"{self._ms[place]}-{self._seq[place]}"
