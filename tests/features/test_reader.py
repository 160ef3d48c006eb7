"""Reading event files: every packing gives the same events, and every damage is told well."""

import gzip
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.archive import write_archive
from features.event import AnyEvent, decode
from features.reader import (
    LINE_BYTES_MAX,
    Batch,
    InputProblem,
    event_files,
    read_events,
    total_bytes,
)


def line(n: int, **fields: Any) -> bytes:
    common = {"event_id": f"e{n}", "type": "login", "occurred_at": n, "account_id": f"a{n % 7}"}
    return msgspec.json.encode(common | fields)


def text(n: int) -> bytes:
    return b"".join(line(i) + b"\n" for i in range(1, n + 1))


def events(*paths: Path, batch: int = 4096) -> list[AnyEvent]:
    return [e for part in read_events(paths, batch=batch) for e in part.events]


def until_problem(path: Path, batch: int = 4096) -> tuple[list[Batch], InputProblem]:
    parts: list[Batch] = []
    with pytest.raises(InputProblem) as found:
        parts.extend(read_events([path], batch=batch))  # keeps what came before the error
    return parts, found.value


def many_frames(data: bytes, compress: Callable[[bytes], bytes]) -> bytes:
    third = len(data) // 3 + 1  # cuts lines in two as well
    return b"".join(compress(data[i : i + third]) for i in range(0, len(data), third))


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "gzip members": lambda data: many_frames(data, gzip.compress),
    "zstd": zstandard.compress,
    "zstd frames": lambda data: many_frames(data, zstandard.compress),
    "zstd with a skippable frame": lambda data: (
        b"\x50\x2a\x4d\x18\x04\x00\x00\x00meta" + zstandard.compress(data)
    ),
    "zstd without content size": lambda data: zstandard.ZstdCompressor(
        write_content_size=False, write_checksum=True
    ).compress(data),
}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(
    "name", ["events.ndjson", "events.bin", "events.ndjson.zst", "events.ndjson.gz"]
)
def test_the_first_bytes_say_what_a_file_is(tmp_path: Path, packing: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(PACKINGS[packing](text(5000)))
    parts = list(read_events([path]))
    assert [e for p in parts for e in p.events] == [decode(line(i)) for i in range(1, 5001)]
    assert [n for p in parts for n in p.lines] == list(range(1, 5001))
    assert sum(p.bytes_read for p in parts) == path.stat().st_size == total_bytes([path])


@pytest.mark.parametrize("packing", PACKINGS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(0, 60),
    batch=st.integers(1, 70),
    end=st.sampled_from([b"", b"\n", b"\n\n", b"\r\n"]),
    bom=st.booleans(),
)
def test_batches_cover_the_file(
    tmp_path: Path, packing: str, n: int, batch: int, end: bytes, bom: bool
) -> None:
    path = tmp_path / "events.ndjson"
    data = text(n)[:-1] + end if n else b""
    path.write_bytes(PACKINGS[packing](b"\xef\xbb\xbf" * bom + data))
    parts = list(read_events([path], batch=batch))
    assert [e.event_id for p in parts for e in p.events] == [f"e{i}" for i in range(1, n + 1)]
    assert all(len(p.lines) <= batch for p in parts)
    assert not any(p.rejected for p in parts)
    assert sum(p.bytes_read for p in parts) == path.stat().st_size


def test_an_empty_file_holds_no_events(tmp_path: Path) -> None:
    for name in ("events.ndjson", "events.ndjson.zst", "events.ndjson.gz"):
        path = tmp_path / name
        path.write_bytes(b"")
        assert events(path) == []
    (tmp_path / "packed.zst").write_bytes(zstandard.compress(b""))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(b""))
    assert events(tmp_path / "packed.zst", tmp_path / "packed.gz") == []


def test_rejected_lines_are_listed_and_cost_only_themselves(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    path.write_bytes(
        b"\n".join([line(1), b"", line(3, zzz=1), b"{", line(5), b"   ", line(7, asn="x"), line(8)])
    )
    for batch in (1, 2, 3, 100):
        parts = list(read_events([path], batch=batch))
        assert [n for p in parts for n in p.lines] == [1, 5, 8]
        refused = [(r.line, r.field, r.event_id) for p in parts for r in p.rejected]
        assert refused == [(3, "zzz", "e3"), (4, None, None), (7, "asn", "e7")]


# --- files and folders


def test_a_folder_stands_for_its_event_files_by_name(tmp_path: Path) -> None:
    drawn = [decode(line(i)) for i in range(1, 7)]
    for day in ("2026-01-02", "2026-01-01"):
        (tmp_path / day).mkdir()
    write_archive(drawn[0:2], tmp_path / "2026-01-01" / "a.parquet")
    write_archive(drawn[2:3], tmp_path / "2026-01-01" / "b.parquet")
    write_archive(drawn[3:5], tmp_path / "2026-01-02" / "a.parquet")
    (tmp_path / "2026-01-03.ndjson.zst").write_bytes(zstandard.compress(line(6)))
    for noise in ("truth.csv", "_SUCCESS", ".hidden.ndjson", "2026-01-01/.a.parquet.partial"):
        (tmp_path / noise).write_bytes(b"noise")
    assert events(tmp_path) == drawn
    assert [p.name for p in event_files([tmp_path])] == [
        "a.parquet", "b.parquet", "a.parquet", "2026-01-03.ndjson.zst",
    ]  # fmt: skip
    parts = list(read_events([tmp_path]))
    assert sum(p.bytes_read for p in parts) == total_bytes([tmp_path])


def test_nothing_is_read_when_a_path_is_missing(tmp_path: Path) -> None:
    good = tmp_path / "events.ndjson"
    good.write_bytes(text(3))
    with pytest.raises(InputProblem):
        next(read_events([good, tmp_path / "absent.ndjson"]))


# --- what stops a file


def test_good_lines_before_a_truncation_are_read(tmp_path: Path) -> None:
    rng = random.Random(7)
    data = b"".join(line(i, device_id=f"{rng.getrandbits(200):x}") + b"\n" for i in range(1, 3001))
    for pack in (gzip.compress, zstandard.compress):
        whole = pack(data)
        path = tmp_path / "cut"
        for size in (5, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:size])
            parts, problem = until_problem(path, batch=100)
            good = sum(len(p.events) for p in parts)
            assert [n for p in parts for n in p.lines] == list(range(1, good + 1))
            assert not any(p.rejected for p in parts)  # half a line is the file's fault
            assert problem.line == good + 1
            assert "truncated" in problem.error
            assert f"{good:,} good line" in problem.error
            if size > len(whole) // 3:
                assert good > 500


def test_good_lines_before_bytes_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    bad = line(4, device_id="x").replace(b'"x"', b'"caf\xe9"')
    path.write_bytes(b"\n".join([line(1), b"{", line(3), bad, line(5)]))
    parts, problem = until_problem(path)
    assert [n for p in parts for n in p.lines] == [1, 3]
    assert [r.line for p in parts for r in p.rejected] == [2]
    assert problem.line == 4
    assert "LATIN1" in (problem.hint or "")


def test_a_line_may_be_a_mebibyte_long_and_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    fits = b"{" + b" " * (LINE_BYTES_MAX - 2) + b"}"
    path.write_bytes(line(1) + b"\n" + fits + b"\n" + line(3))
    parts = list(read_events([path]))
    assert [n for p in parts for n in p.lines] == [1, 3]
    assert [r.line for p in parts for r in p.rejected] == [2]
    for rest in (b"\n" + line(3), b"", b" " * 3 * LINE_BYTES_MAX):
        path.write_bytes(line(1) + b"\n" + fits + b" " + rest)
        parts, problem = until_problem(path)
        assert [n for p in parts for n in p.lines] == [1]
        assert problem.line == 2
        assert "longer than 1 MiB" in problem.error


def test_the_words_of_every_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Callable[[str, str], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    packed_zstd, packed_gzip = zstandard.compress(text(1500)), gzip.compress(text(1500))
    other = zstandard.ZstdCompressor(write_checksum=True).compress(text(3))
    files = {
        "empty.parquet": b"",
        "text.parquet": text(2),
        "cut.ndjson.zst": zstandard.compress(text(2)) + packed_zstd[:-3],
        "cut.ndjson.gz": packed_gzip[:-3],
        "flipped.ndjson.zst": other[:-1] + bytes([other[-1] ^ 1]),
        "flipped.ndjson.gz": packed_gzip[:-8] + bytes(4) + packed_gzip[-4:],
        "tail.ndjson.gz": packed_gzip + b"and more",
        "named.ndjson.zst": b"PK\x03\x04 something else",
        "latin.ndjson": line(1) + b"\n" + line(2, device_id="\u00e9").replace(b"\xc3\xa9", b"\xe9"),
        "utf16.ndjson": text(1).decode().encode("utf-16"),
        "long.ndjson": line(1) + b"\n" + b"x" * (LINE_BYTES_MAX + 1),
    }
    for name, data in files.items():
        Path(name).write_bytes(data)
    Path("folder").mkdir()
    Path("folder", "notes.txt").write_bytes(b"")
    missing = ["cut.ndjson.zts", "elsewhere/events.ndjson", "folder/events.ndjson", "folder"]
    told = []
    for name in [*files, *missing]:
        parts, problem = until_problem(Path(name))
        assert problem.path == Path(name)
        told.append(f"{sum(len(p.events) for p in parts)} events, then {problem}\n")
    golden("reader_errors.txt", "".join(told))
