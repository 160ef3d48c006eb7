import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from detector.order import argsort, group, unique

LENGTHS = st.integers(0, 60)


@given(arrays(np.uint64, LENGTHS) | arrays(np.int32, LENGTHS, elements=st.integers(0, 2**31 - 1)))
def test_as_numpy_sorts_and_finds(values: np.ndarray) -> None:
    assert argsort(values).tolist() == np.argsort(values, kind="stable").tolist()
    for ours, numpys in zip(
        unique(values),
        np.unique(values, return_inverse=True, return_counts=True),
        strict=True,
    ):
        assert ours.tolist() == numpys.tolist()


@given(arrays(np.int64, LENGTHS, elements=st.integers(1_770_000_000_000, 1_770_000_000_050)))
def test_times_with_many_ties_stay_in_order(times: np.ndarray) -> None:
    assert argsort(times).tolist() == np.argsort(times, kind="stable").tolist()


@given(arrays(np.int64, LENGTHS, elements=st.integers(0, 6)))
def test_groups_are_a_stable_order_cut_where_the_number_changes(number: np.ndarray) -> None:
    start, order = group(number, 7)
    assert order.tolist() == np.argsort(number, kind="stable").tolist()
    assert start.tolist() == np.searchsorted(np.sort(number), np.arange(8)).tolist()
