"""Which entry holds an event: held against a plain list."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.log import NOTHING
from service.ordinals import Ordinals

_ENTRIES = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 2**42), st.integers(0, 2**31)), max_size=20
)


@given(_ENTRIES, st.integers(0, 100))
def test_an_event_is_in_the_entry_that_has_it(
    entries: list[tuple[int, int, int]], since: int
) -> None:
    told, held = Ordinals(), []
    for n, ms, seq in entries:
        told.add(len(held), f"{ms}-{seq}")
        held += [(f"{ms}-{seq}", at) for at in range(n)]
    assert [told.of(i) for i in range(len(held))] == held
    assert told.of(-1) is None
    assert told.last == (held[-1][0] if held else NOTHING)
    assert len(told) == len(entries)

    if held:
        told.drop_before(since := min(since, len(held) - 1))
        assert [told.of(i) for i in range(since, len(held))] == held[since:]
        assert told.of(since - held[since][1] - 1) is None  # of the entry before
        entries = entries[len(entries) - len(told) :]
    arrays = told.save()
    assert all(a.dtype == np.int64 for a in arrays.values())
    np.testing.assert_equal(Ordinals.load(dict(arrays), {}).save(), arrays)
    older = {"entry_first": arrays["entry_first"]}
    ids = [f"{ms}-{seq}" for _, ms, seq in entries]
    np.testing.assert_equal(Ordinals.load(older, {"entry_id": ids}).save(), arrays)
    assert not older


def test_there_is_nothing_before_the_first() -> None:
    assert Ordinals().of(0) is None
