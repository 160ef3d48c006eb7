"""Packed bodies, unpacked piece by piece as they arrive and never further than the limit.

A few bytes can stand for gigabytes, so that what comes out is counted while it comes. The decoders
are fed so little at a time that one step stays small, whatever it holds: 256 bytes of gzip stand for
at most 264 KB, of zstd (where a block of four bytes may stand for 128 KiB) for 8 MiB.
"""

import zlib
from collections.abc import Callable
from typing import Protocol

import zstandard

from service.problem import Problem

ENCODINGS = "gzip, zstd"
STEP_BYTES = 256
PARTS_MAX = 10_000  # gzip members or zstd frames, which may follow one another and may be empty
WINDOW_BYTES = 8 * 2**20  # what RFC 8878 asks of every decoder; `zstd --long` wants more


class _Stream(Protocol):
    def decompress(self, data: bytes, /) -> bytes: ...
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


class Unpacker:
    """Unpacks one body to at most `most` bytes."""

    def __init__(self, encoding: str, part: Callable[[], _Stream], most: int) -> None:
        self._encoding, self._part, self._most = encoding, part, most
        self._stream = part()
        self._size, self._parts = 0, 0

    def feed(self, piece: bytes) -> bytes:
        """What this piece of the packed body stands for.

        Raises:
            Problem: 400 for a damaged stream, 413 beyond the limit.
        """
        told = []
        for at in range(0, len(piece), STEP_BYTES):
            step = piece[at : at + STEP_BYTES]
            while step:
                if self._stream.eof or not self._parts:
                    self._next()
                try:
                    told.append(self._stream.decompress(step))
                except (zlib.error, zstandard.ZstdError) as problem:
                    raise self._damaged(problem) from None
                self._size += len(told[-1])
                if self._size > self._most:
                    raise too_large(self._most)
                step = self._stream.unused_data
        return b"".join(told)

    def end(self) -> None:
        """Raises Problem (400) when the stream ended too early."""
        if self._parts and not self._stream.eof:
            raise self._damaged("it ends too early")

    def _next(self) -> None:
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise self._damaged(f"it has more than {PARTS_MAX} parts")
        self._stream = self._part()

    def _damaged(self, why: object) -> Problem:
        return Problem(400, "Damaged", f"the {self._encoding} stream cannot be unpacked: {why}")


def unpacker(encoding: str, most: int) -> Unpacker | None:
    """What unpacks a body of this Content-Encoding; None if it is not packed.

    Raises:
        Problem: 415 for an encoding that is not read.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return Unpacker("gzip", lambda: zlib.decompressobj(wbits=31), most)
        case "zstd":
            frames = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES)
            return Unpacker("zstd", frames.decompressobj, most)
    raise Problem(
        415,
        "Packed",
        f"a body in {encoding!r} is not read here; send it in one of {ENCODINGS}, or as it is",
        {"Accept-Encoding": ENCODINGS},
    )


def too_large(most: int, size: int | None = None) -> Problem:
    this = "" if size is None else f", this one {size}"
    return Problem(413, "Too large", f"a body holds at most {most} bytes{this}")
