"""Sorting by radix: what a sweep does most, at a third of a comparison sort's cost on 64-bit keys."""

from typing import Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

_BITS = 11  # of a digit: 2,048 counters fit the first-level cache, six digits make a key
_DIGITS = 6


def argsort(values: NDArray[np.integer]) -> I64:
    """The stable order of 64-bit integers that are not negative, or are unsigned."""
    if len(values) == 0:
        return np.empty(0, np.int64)
    order: I64 = _radix((values - values.min()).astype(np.uint64))
    return order


Int = TypeVar("Int", np.int32, np.int64, np.uint64)


def unique(values: NDArray[Int]) -> tuple[NDArray[Int], I64, I64]:
    """The distinct values, rising; for each value the place of its own among them; how often each is there."""
    found, place, often = _distinct(values, argsort(values))
    return found, place, often


@njit(cache=True, nogil=True)
def group(number: NDArray[np.integer], count: int) -> tuple[I64, I64]:
    """Stable counting sort: rows of number k are `order[start[k]:start[k + 1]]`."""
    start = np.zeros(count + 1, np.int64)
    for k in number:
        start[k + 1] += 1
    start = np.cumsum(start)
    at, order = start[:-1].copy(), np.empty(len(number), np.int64)
    for i in range(len(number)):
        order[at[number[i]]] = i
        at[number[i]] += 1
    return start, order


@njit(cache=True, nogil=True)
def _radix(key: U64) -> I64:
    n, mask = len(key), np.uint64((1 << _BITS) - 1)
    count = np.zeros((_DIGITS, 1 << _BITS), np.int64)
    for i in range(n):
        for d in range(_DIGITS):
            count[d, (key[i] >> np.uint64(d * _BITS)) & mask] += 1
    order, key = np.arange(n), key.copy()
    order_to, key_to = np.empty(n, np.int64), np.empty(n, np.uint64)
    for d in range(_DIGITS):
        shift, at, total = np.uint64(d * _BITS), count[d], 0
        if n and at[(key[0] >> shift) & mask] == n:  # one digit for all
            continue
        for k in range(len(at)):
            at[k], total = total, total + at[k]
        for i in range(n):
            digit = (key[i] >> shift) & mask
            place = at[digit]
            at[digit] = place + 1
            key_to[place], order_to[place] = key[i], order[i]
        order, order_to, key, key_to = order_to, order, key_to, key
    return order


@njit(cache=True, nogil=True)
def _distinct(values: NDArray[Any], order: I64) -> tuple[NDArray[Any], I64, I64]:
    found, often = np.empty(len(values), values.dtype), np.empty(len(values), np.int64)
    place, n = np.empty(len(values), np.int64), 0
    for i in order:
        if n == 0 or values[i] != found[n - 1]:
            found[n], often[n] = values[i], 0
            n += 1
        often[n - 1] += 1
        place[i] = n - 1
    return found[:n].copy(), place, often[:n].copy()
