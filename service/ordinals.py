"""Which entry of the log holds the n-th event: 20 bytes an entry, for as long as the service runs.

A duplicate is answered by the ordinal of its first delivery. Single events make an entry each, so what is
kept of one is counted in bytes, not objects.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from features.rows import I64
from service.log import NOTHING, parse_id


class Ordinals:
    """The entries of a log, each with the ordinal of its first event; equal where they hold the same."""

    def __init__(self) -> None:
        self._first, self._ms, self._seq = array("q"), array("q"), array("I")

    def add(self, first: int, entry: str) -> None:
        """The next entry, and the ordinal of its first event."""
        ms, seq = parse_id(entry)
        self._first.append(first)
        self._ms.append(ms)
        self._seq.append(seq)

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

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ordinals) and self._columns() == other._columns()

    __hash__ = None  # type: ignore[assignment]

    def save(self) -> dict[str, I64]:
        """As arrays, for a snapshot."""
        return {f"entry_{name}": np.array(x, np.int64) for name, x in self._columns().items()}

    @classmethod
    def load(cls, arrays: dict[str, Any], meta: Mapping[str, Any]) -> "Ordinals":
        """What `save` gave, taken out of a snapshot's arrays; older snapshots have the ids in `meta`."""
        told = cls()
        told._first = array("q", arrays.pop("entry_first").tolist())
        ids: Iterable[tuple[int, int]]
        if "entry_id" in meta:
            ids = map(parse_id, meta["entry_id"])
        else:
            ids = zip(
                arrays.pop("entry_ms").tolist(), arrays.pop("entry_seq").tolist(), strict=True
            )
        for ms, seq in ids:
            told._ms.append(ms)
            told._seq.append(seq)
        return told

    def _columns(self) -> "dict[str, array[int]]":
        return {"first": self._first, "ms": self._ms, "seq": self._seq}

    def _id(self, place: int) -> str:
        return f"{self._ms[place]}-{self._seq[place]}"
