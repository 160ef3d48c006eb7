"""What a restart folds: entries together in their order, events as far as they are needed."""

import threading
from collections.abc import Iterator
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.ledger import Ledger
from features.event import decode
from service.log import Entry
from service.refold import EVENTS, ahead, booked, runs
from synth.world import simulate


@given(sizes=st.lists(st.integers(0, 3000), max_size=30))  # 0: a control entry
def test_entries_are_folded_together_as_they_follow_each_other(sizes: list[int]) -> None:
    entries = [
        Entry(f"{n}-0", "events", [b"e"] * size) if size else Entry(f"{n}-0", "control", [])
        for n, size in enumerate(sizes)
    ]
    found = list(runs(entries))
    assert [entry for run in found for entry in run] == entries
    for run in found:
        assert len(run) == 1 or all(entry.kind == "events" for entry in run)
        assert sum(len(entry.events) for entry in run[:-1]) < EVENTS  # no larger than need be
    for one_run, next_run in pairwise(found):  # and no smaller
        if one_run[0].kind == next_run[0].kind == "events":
            assert sum(len(entry.events) for entry in one_run) >= EVENTS


def test_the_ledger_is_the_same_by_what_is_read_for_it() -> None:
    whole, brief = Ledger(), Ledger()
    kinds = set()
    for line in simulate(accounts=200, days=4, abusive_share=0.3, tier="mixed").lines():
        event = decode(line)
        kinds.add(type(event))
        # as the log has it
        body = msgspec.json.encode(event)
        whole.record(event)
        brief.record(booked(body))
    assert whole == brief
    assert len(kinds) == 11
    assert any(entry.paid for entry in whole.values())


def test_what_is_made_ahead_is_the_same_and_one_at_a_time() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for n in range(5):
            made.append(n)
            yield n

    for n in ahead(source()):
        assert len(made) <= n + 2
    assert made == [0, 1, 2, 3, 4]
    before = threading.active_count()
    taken = ahead(source())
    assert next(taken) == 0
    taken.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_what_fails_ahead_fails_in_its_place() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    taken = ahead(source())
    assert next(taken) == 1
    with pytest.raises(OSError, match="gone"):
        next(taken)
