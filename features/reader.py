"""Reading events from files: NDJSON (plain, gzip, zstd) and Parquet, one file or folders of them.

What a file is, its first bytes say; the suffix only helps to word an error. Reading streams: a
batch of events, a block and a line are in memory, however long the file is.

A bad line costs only itself: it is listed in its batch with the reason. What stops a file (it is
truncated, not UTF-8, not there) is raised after everything before the damage has been yielded.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Protocol

import zstandard

from features.archive import InputProblem, read_archive
from features.event import AnyEvent, Rejection, decode_lines, nearest

__all__ = [
    "Batch",
    "InputProblem",
    "event_files",
    "is_parquet",
    "missing_file",
    "not_utf8",
    "read_events",
    "read_lines",
    "total_bytes",
]

LINE_BYTES_MAX = 1 << 20  # a fully filled request is 2 kB
# Taken from a file at a time. Four bytes of zstd can stand for 128 kB of one repeated byte, so it
# is a small step that keeps a hostile file from filling the memory.
STEP_BYTES = 1 << 18
PACKED_STEP_BYTES = 1 << 12
_BOM = b"\xef\xbb\xbf"
_SUFFIXES = (
    ".parquet",
    *(kind + packed for kind in (".ndjson", ".jsonl") for packed in ("", ".gz", ".zst")),
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive lines of one file.

    `lines[i]` is the line (in Parquet the row) of `events[i]`, from 1. `rejected` are the lines
    refused, with reasons. `bytes_read` is how much of the file, as it lies on disk, was taken since
    the batch before: over a whole file of lines these sum to its size.
    """

    path: Path
    events: list[AnyEvent]
    lines: list[int]
    rejected: list[Rejection]
    bytes_read: int


def event_files(paths: Sequence[Path]) -> list[Path]:
    """The files behind these paths: a folder stands for the event files in and below it, by name.

    Raises:
        InputProblem: a path does not exist, or a folder holds no event file.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if _is_event_file(p, path))
            if not inside:
                hint = f"they end in {', '.join(_SUFFIXES)}"
                raise InputProblem(path, None, None, "no event files in this folder", hint)
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise missing_file(path)
    return files


def _is_event_file(path: Path, root: Path) -> bool:
    # names that begin with . or _ are what writers leave in such folders: .partial, _SUCCESS
    hidden = any(p.startswith((".", "_")) for p in path.relative_to(root).parts)
    return path.name.endswith(_SUFFIXES) and not hidden and path.is_file()


def missing_file(path: Path) -> InputProblem:
    """The problem of a path that does not exist, with the nearest name that does."""
    folder = path.parent
    if not folder.is_dir():
        return InputProblem(path, None, None, f"no such file, nor a folder {folder}")
    hint = nearest(path.name, sorted(p.name for p in folder.iterdir()))
    return InputProblem(path, None, None, "no such file", hint)


def total_bytes(paths: Sequence[Path]) -> int:
    """The size on disk of the files behind these paths: what `bytes_read` sums to."""
    return sum(path.stat().st_size for path in event_files(paths))


def read_events(paths: Sequence[Path], *, batch: int = 4096) -> Iterator[Batch]:
    """Read events from files and folders in the order given, at most `batch` lines at a time.

    An empty file holds no events and is no problem.

    Raises:
        InputProblem: a file is missing (before anything is read), or cannot be read further.
    """
    for path in event_files(paths):
        if is_parquet(path):
            yield from _from_archive(path, batch)
        else:
            yield from _from_lines(path, batch)


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet by its first bytes, or claims to be by its name.

    Raises:
        InputProblem: it cannot be opened.
    """
    with _opened(path) as file:
        return file.read(4) == b"PAR1" or path.suffix == ".parquet"


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as problem:
        raise InputProblem(path, None, None, problem.strerror or str(problem)) from None


def _from_archive(path: Path, batch: int) -> Iterator[Batch]:
    size, share, taken = path.stat().st_size, 0.0, 0
    for part in read_archive(path, batch):
        share += part.share
        now = round(size * share)
        yield Batch(path, part.events, part.rows, part.rejected, now - taken)
        taken = now


def _from_lines(path: Path, batch: int) -> Iterator[Batch]:
    good = 0
    for number, lines, bytes_read, stop in read_lines(path, batch):
        events, at, rejected = decode_lines(b"\n".join(lines), number)
        # a line that was accepted is UTF-8: every byte of it was read as JSON text
        for refused in rejected:
            if stop_here := not_utf8(lines[refused.line - number]):
                stop = refused.line, *stop_here
                at = [line for line in at if line < refused.line]
                events = events[: len(at)]
                rejected = [r for r in rejected if r.line < refused.line]
                break
        if lines or bytes_read:
            yield Batch(path, events, at, rejected, bytes_read)
        good += len(events)
        if stop is not None:
            line, error, hint = stop
            told = f"{error}; {good:,} good line{'' if good == 1 else 's'} came before"
            raise InputProblem(path, line, None, told, hint)


def not_utf8(line: bytes) -> tuple[str, str] | None:
    """Error and hint for a line that is not UTF-8."""
    try:
        line.decode()
    except UnicodeDecodeError as problem:
        encoding = "UTF-16" if line[:2] in (b"\xff\xfe", b"\xfe\xff") else "LATIN1"
        error = f"not UTF-8 at byte {problem.start + 1} of the line (0x{line[problem.start]:02x})"
        return error, f"convert it, for example with `iconv -f {encoding} -t UTF-8`"
    return None


# --- lines of a file, whatever it is packed in

Stop = tuple[int, str, str]  # the line a file stops at, the error, a hint


class _Broken(Exception):  # the reader turns it into an InputProblem
    """The data cannot be read further; the arguments are an error and a hint."""


def read_lines(path: Path, batch: int) -> Iterator[tuple[int, list[bytes], int, Stop | None]]:
    """Lists of at most `batch` lines, each with the number of its first line, the bytes of the file
    taken for it and, in the last, why the file cannot be read further, if it cannot.

    Raises:
        InputProblem: the file cannot be opened, or is not what its name says.
    """
    with _opened(path) as file:
        tap = _Tap(file)
        source = _lines(_blocks(path, tap))
        number, taken, stop = 1, 0, None
        while stop is None:
            lines: list[bytes] = []
            try:
                for line in islice(source, batch):
                    lines.append(line)  # not extend(): what came before a break is kept
            except _Broken as problem:
                stop = (number + len(lines), *problem.args)
            except OSError as problem:
                stop = (number + len(lines), problem.strerror or str(problem), "read error")
            if not lines and stop is None and tap.count == taken:
                return
            if number == 1 and lines:
                lines[0] = lines[0].removeprefix(_BOM)
            yield number, lines, tap.count - taken, stop
            number, taken = number + len(lines), tap.count


class _Tap:
    """Reads a file and counts (a pipe cannot `tell`)."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.count = file, 0

    def read(self, n: int) -> bytes:
        data = self.file.read(n)
        self.count += len(data)
        return data


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            if len(line) > LINE_BYTES_MAX:
                raise _too_long()
            yield line
        if len(rest) > LINE_BYTES_MAX:
            raise _too_long()
    if rest:
        yield rest


def _too_long() -> _Broken:
    return _Broken("a line is longer than 1 MiB", "NDJSON has one event on each line")


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _blocks(path: Path, tap: _Tap) -> Iterator[bytes]:
    start = tap.read(4)
    if start[:2] == b"\x1f\x8b":
        return _unpacked("gzip", start, tap, lambda: zlib.decompressobj(wbits=31))
    if start == b"\x28\xb5\x2f\xfd" or (start[1:] == b"\x2a\x4d\x18" and start[0] >> 4 == 5):
        return _unpacked("zstd", start, tap, zstandard.ZstdDecompressor().decompressobj)
    return _plain(path, start, tap)


def _plain(path: Path, start: bytes, tap: _Tap) -> Iterator[bytes]:
    text = start.removeprefix(_BOM).lstrip()
    if path.suffix in (".gz", ".zst") and start and not text.startswith(b"{"):
        error = f"named {path.suffix}, but does not begin like one"
        raise InputProblem(path, None, None, error, "was it copied whole?")
    yield start
    while data := tap.read(STEP_BYTES):
        yield data


def _unpacked(name: str, data: bytes, tap: _Tap, new: Callable[[], _Unpacker]) -> Iterator[bytes]:
    """Frames (zstd) or members (gzip) one after the other."""
    unpacker = new()
    try:
        while data:
            yield unpacker.decompress(data)
            data = unpacker.unused_data or tap.read(PACKED_STEP_BYTES)
            if unpacker.eof and data:
                unpacker = new()
    except (zlib.error, zstandard.ZstdError) as problem:
        reason = str(problem).removeprefix("zstd decompressor error: ")
        raise _Broken(f"damaged {name} data: {reason}", "was it copied whole?") from None
    if not unpacker.eof:
        raise _Broken(f"truncated: it ends inside {name} data", "was it copied whole?")
