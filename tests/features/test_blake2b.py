"""The compiled BLAKE2b computes what hashlib's does."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.blake2b import BLOCK, digest, eights, start


@given(
    data=st.binary(min_size=1, max_size=400),
    key=st.binary(max_size=64),
    person=st.binary(max_size=16),
    size=st.sampled_from([8, 16, 64]),
    before=st.integers(0, 9),
)
def test_a_digest_is_hashlibs(
    data: bytes, key: bytes, person: bytes, size: int, before: int
) -> None:
    text = np.frombuffer(bytes(before) + data + b"beyond" * 2, np.uint8)
    state, block = np.zeros(8, np.uint64), np.zeros(16, np.uint64)
    taken = BLOCK if key else 0
    digest(start(size, key, person), taken, eights(text), before, before + len(data), state, block)
    expected = hashlib.blake2b(data, digest_size=size, key=key, person=person).digest()
    assert state.tobytes()[:size] == expected


@pytest.mark.parametrize("size", [8, 16])
def test_nothing_has_a_digest_where_there_is_no_key(size: int) -> None:
    state, block = np.zeros(8, np.uint64), np.zeros(16, np.uint64)
    digest(start(size), 0, eights(np.zeros(8, np.uint8)), 0, 0, state, block)
    assert state.tobytes()[:size] == hashlib.blake2b(b"", digest_size=size).digest()
