"""BLAKE2b (RFC 7693), compiled: the hash of identifiers inside the walk over an event's bytes.

`hashlib` computes the same digests but costs a call and a string each; the tests hold the two together.
A hash begins as a `start`ing state (8 words of parameters, and, where there is a key, the key's block
already worked in) and ends as 8 words, of which a digest is the first bytes, little-endian.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.compiled import lean

U8 = NDArray[np.uint8]
U64 = NDArray[np.uint64]

BLOCK = 128  # bytes
_IV = np.array(
    [
        0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
        0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
    ],
    np.uint64,
)  # fmt: skip
_SIGMA = np.array(
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
        [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
        [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
        [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
        [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
        [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
        [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
        [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
        [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    ],
    np.int64,
)


@lean
def _turned(x: np.uint64, right: int) -> Any:  # a uint64
    return (x >> np.uint64(right)) | (x << np.uint64(64 - right))


@lean
def _mixed(
    a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64, x: np.uint64, y: np.uint64
) -> Any:
    a = a + b + x
    d = _turned(d ^ a, 32)
    c = c + d
    b = _turned(b ^ c, 24)
    a = a + b + y
    d = _turned(d ^ a, 16)
    c = c + d
    b = _turned(b ^ c, 63)
    return a, b, c, d


@lean
def _compress(h: U64, m: U64, length: int, last: bool) -> None:
    """Work 16 words `m` into the state `h`; `length` bytes have been taken in, these included."""
    v0, v1, v2, v3, v4, v5, v6, v7 = h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]
    v8, v9, v10, v11, v12, v13, v14, v15 = (
        _IV[0], _IV[1], _IV[2], _IV[3], _IV[4], _IV[5], _IV[6], _IV[7],
    )  # fmt: skip
    v12 ^= np.uint64(length)
    if last:
        v14 = ~v14
    for r in range(12):
        s = _SIGMA[r]
        v0, v4, v8, v12 = _mixed(v0, v4, v8, v12, m[s[0]], m[s[1]])
        v1, v5, v9, v13 = _mixed(v1, v5, v9, v13, m[s[2]], m[s[3]])
        v2, v6, v10, v14 = _mixed(v2, v6, v10, v14, m[s[4]], m[s[5]])
        v3, v7, v11, v15 = _mixed(v3, v7, v11, v15, m[s[6]], m[s[7]])
        v0, v5, v10, v15 = _mixed(v0, v5, v10, v15, m[s[8]], m[s[9]])
        v1, v6, v11, v12 = _mixed(v1, v6, v11, v12, m[s[10]], m[s[11]])
        v2, v7, v8, v13 = _mixed(v2, v7, v8, v13, m[s[12]], m[s[13]])
        v3, v4, v9, v14 = _mixed(v3, v4, v9, v14, m[s[14]], m[s[15]])
    h[0] ^= v0 ^ v8
    h[1] ^= v1 ^ v9
    h[2] ^= v2 ^ v10
    h[3] ^= v3 ^ v11
    h[4] ^= v4 ^ v12
    h[5] ^= v5 ^ v13
    h[6] ^= v6 ^ v14
    h[7] ^= v7 ^ v15


@lean
def digest(start: U64, before: int, eight: U64, first: int, last: int, h: U64, m: U64) -> None:
    """Hash the bytes first:last from `start`, which has taken in `before` bytes, into `h`.

    `eight[i]` are the eight bytes from i on, and can be read up to `last` at least; `m` is room for a
    block of 16 words. With a key there must be a byte to hash.
    """
    for i in range(8):
        h[i] = start[i]
    while True:
        n = min(BLOCK, last - first)
        for w in range(16):
            left = n - 8 * w
            if left >= 8:
                m[w] = eight[first + 8 * w]
            elif left > 0:
                m[w] = eight[first + 8 * w] & ((np.uint64(1) << np.uint64(8 * left)) - np.uint64(1))
            else:
                m[w] = np.uint64(0)
        first += n
        before += n
        _compress(h, m, before, first == last)
        if first == last:
            return


def eights(data: U8) -> U64:
    """The eight bytes that begin at each byte, as one little-endian number; a view."""
    return np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))


def start(digest_size: int, key: bytes = b"", person: bytes = b"") -> U64:
    """The state of a new hash; with a key, BLOCK bytes of it have been taken in (give `before`)."""
    parameters = np.zeros(64, np.uint8)
    parameters[:4] = digest_size, len(key), 1, 1
    parameters[48 : 48 + len(person)] = np.frombuffer(person, np.uint8)
    h: U64 = _IV ^ parameters.view(np.uint64)
    if key:
        block = np.zeros(BLOCK, np.uint8)
        block[: len(key)] = np.frombuffer(key, np.uint8)
        _compress(h, block.view(np.uint64), BLOCK, False)
    return h
