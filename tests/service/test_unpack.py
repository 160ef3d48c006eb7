import contextlib
import gzip
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from service import unpack
from service.problem import Problem
from service.unpack import Unpacker, unpacker

PACK = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}
MOST = 2**20


def made(encoding: str, most: int = MOST) -> Unpacker:
    told = unpacker(encoding, most)
    assert told is not None
    return told


def unpacked(encoding: str, body: bytes, cut: int, most: int = MOST) -> bytes:
    """A body that arrives in pieces of `cut` bytes."""
    whole = made(encoding, most)
    told = b"".join(whole.feed(body[i : i + cut]) for i in range(0, len(body), cut))
    whole.end()
    return told


@pytest.mark.parametrize("encoding", PACK)
@given(parts=st.lists(st.binary(max_size=3000), min_size=1, max_size=4), cut=st.integers(1, 5000))
def test_what_was_packed_comes_out(encoding: str, parts: list[bytes], cut: int) -> None:
    """In one part or several, however it is cut."""
    packed = b"".join(map(PACK[encoding], parts))
    assert unpacked(encoding, packed, cut) == b"".join(parts)


@pytest.mark.parametrize("encoding", PACK)
def test_the_limit_is_exact(encoding: str) -> None:
    body = bytes(5000)
    packed = PACK[encoding](body)
    assert unpacked(encoding, packed, 7, most=5000) == body
    with pytest.raises(Problem, match="at most 4999 bytes") as told:
        unpacked(encoding, packed, 7, most=4999)
    assert told.value.status == 413


def bombs() -> dict[str, bytes]:
    """256 MiB of zeros each."""
    piece = zlib.compressobj(9, wbits=31)
    zeros = bytes(2**20)
    packed = b"".join(piece.compress(zeros) for _ in range(256)) + piece.flush()
    long = zstandard.ZstdCompressor(level=1).compressobj()
    return {
        "gzip": packed,
        "zstd": b"".join(long.compress(zeros) for _ in range(256)) + long.flush(),
    }


def test_a_bomb_is_refused_before_it_is_in_memory() -> None:
    for encoding, bomb in bombs().items():
        assert len(bomb) < 2**20
        tracemalloc.start()
        try:
            with pytest.raises(Problem) as told:
                made(encoding).feed(bomb)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert told.value.status == 413
        assert most < 16 * 2**20, encoding


@pytest.mark.parametrize("encoding", PACK)
@given(body=st.binary(min_size=20, max_size=300), at=st.integers(0), bit=st.integers(0, 7))
def test_a_damaged_stream_is_said_to_be_one(encoding: str, body: bytes, at: int, bit: int) -> None:
    """A flipped bit is a problem, or (where nothing checks it) another body: never a surprise."""
    packed = bytearray(PACK[encoding](body))
    packed[at % len(packed)] ^= 1 << bit
    with contextlib.suppress(Problem):
        unpacked(encoding, bytes(packed), 50)


@pytest.mark.parametrize("encoding", PACK)
def test_a_stream_that_ends_too_early(encoding: str) -> None:
    packed = PACK[encoding](bytes(range(256)) * 40)
    for length in range(1, len(packed)):
        with pytest.raises(Problem) as told:
            unpacked(encoding, packed[:length], 64)
        assert told.value.status == 400
    assert unpacked(encoding, b"", 1) == b""  # an empty body is the reader's to refuse


@pytest.mark.parametrize("encoding", PACK)
def test_empty_parts_are_counted(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "PARTS_MAX", 5)
    empty = PACK[encoding](b"")
    assert unpacked(encoding, empty * 5, 1000) == b""
    with pytest.raises(Problem, match="more than 5 parts"):
        unpacked(encoding, empty * 6, 1000)


def test_a_window_larger_than_the_standard_asks_for_is_refused() -> None:
    wide = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    packed = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    body = packed.compress(bytes(2**20)) + packed.flush()
    with pytest.raises(Problem, match="memory") as told:
        unpacked("zstd", body, 1000)
    assert told.value.status == 400


def test_other_encodings() -> None:
    assert unpacker("", 1) is None
    assert unpacker(" Identity ", 1) is None
    assert unpacker("X-GZIP", 1) is not None
    for other in ("br", "deflate", "gzip, gzip", "zstd2"):
        with pytest.raises(Problem, match="gzip, zstd") as told:
            unpacker(other, 1)
        assert told.value.status == 415
        assert told.value.headers == {"Accept-Encoding": "gzip, zstd"}
