"""The cold log: the older part of the log as zstd Parquet, a folder a day, and the log as a whole.

    cold/2026-03-02/1772409600123-00000000000000000000_1772413200456-00000000000000000003.parquet

A file is named by the first and the last entry in it, lies under the day (UTC) of their ids, and is
never appended to. Sorted by these ids, the files are the log in its order; so they are sorted by name,
but for names with a shorter sequence, as they were given before. It is an archive of events like any
other (features/archive.py), so that `--events cold` trains, evaluates and replays, with three columns
that are the log's own:

    log.entry    the id of the entry that held the event
    log.answer   the answer it was given, as JSON; null where the log keeps none
    log.body     the event as it was logged, where the columns would give other bytes; else null

Control entries have no row; they stand in the file's metadata, and so does the format's version.

How the hot log is shortened, so that a crash between any two steps loses and doubles nothing:

    1. what follows the last archived entry is written to a hidden file, synced, and read back:
       each table must equal the one written, each row must give the bytes in the log
    2. the file takes its name, the folder is synced; from here on both logs hold these entries,
       and a reader of the whole (`History`) takes them from the cold one
    3. the hot log is trimmed, up to what is archived and no further than the older of two snapshots

Writing costs about 60 µs an event, most of it Python objects: it is done in a process of its own
(`python -m service.cold FOLDER URL ID`), which may be killed at any moment like everything else.
"""

import base64
import fcntl
import json
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import redis

from features.archive import (
    GROUP_ROWS,
    LOG,
    InputProblem,
    open_parquet,
    parquet_batches,
    part_of,
    table_of,
)
from features.disk import sync_folder, whole
from features.event import decode, encode
from service.folder import Folder
from service.log import (
    NOTHING,
    Entry,
    EventLog,
    LogCorrupted,
    LogFormatUnknown,
    LogTrimmed,
    parse_id,
)
from service.valkey import EmbeddedValkey

ENTRY, ANSWER, BODY = f"{LOG}entry", f"{LOG}answer", f"{LOG}body"
CONTROLS = b"shoal.controls"
VERSION, FORMAT = b"shoal.format", b"1"
IDENTITY = b"shoal.identity"  # for which identity key a file was rewritten, where one was
FILE_EVENTS = 8 * GROUP_ROWS  # events in a file at most, give or take an entry

_answers = msgspec.json.Decoder(list[msgspec.Raw]).decode


class ColdLog:
    """The archived part of a log, in a folder of its own. Reading needs no lock, writing takes one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> list[Path]:
        """In the order of the log, whatever folder they lie in."""
        return sorted(self.folder.glob("[0-9]*/[0-9]*.parquet"), key=_span)

    def last_id(self) -> str:
        """The last entry that is archived; "0-0" if there is none."""
        return max(map(_last, self.files()), key=parse_id, default=NOTHING)

    def read(self, after: str = NOTHING, files: Sequence[Path] | None = None) -> Iterator[Entry]:
        """Entries after the id, in order, of all files or of these.

        Entries that an erasure has emptied are not there.

        Raises:
            LogCorrupted: a file cannot be read, or does not hold what its log held.
        """
        position = parse_id(after)
        for path in self.files() if files is None else files:
            if _span(path)[1] > position:
                for entry in _entries(path):
                    if parse_id(entry.id) > position:
                        yield entry

    def answers(self, ids: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """The answers in these entries, as the hot log would give them, of those that are held.

        Raises:
            LogCorrupted: a file cannot be read.
        """
        for path in self.files() if ids else ():
            first, last = _span(path)
            within = [id for id in ids if first <= parse_id(id) <= last]
            if within:
                try:
                    found = pq.read_table(
                        path, columns=[ENTRY, ANSWER], filters=[(ENTRY, "in", within)]
                    )
                except (pa.ArrowException, OSError) as problem:
                    raise LogCorrupted(f"{path} cannot be read: {problem}") from None
                rows = zip(*(column.to_pylist() for column in found.columns), strict=True)
                for id, of_entry in groupby(rows, lambda row: row[0]):
                    yield id, _joined(answer for _, answer in of_entry)

    def holds(self, id: str) -> bool:
        """Whether there are events of this entry."""
        return any(self.answers([id]))

    def write(self, entries: Iterable[Entry]) -> int:
        """Archive entries that follow the last one; returns how many events there were.

        Raises:
            LogCorrupted: what is on disk is not what was written; OSError: from the disk.
        """
        written = 0
        with self._alone():
            last = parse_id(self.last_id())
            new = (e for e in entries if parse_id(e.id) > last)
            for day, of_day in groupby(new, _day):
                for part in _parts(of_day):
                    written += self._write(day, part)
        return written

    def erase(self, account_id: str) -> int:
        """Remove every event of an account, with its answer; returns how many there were.

        File by file, each as a whole: after a crash it is asked for again.
        """
        erased = 0
        with self._alone():
            for path in self.files():
                file = pq.read_table(path)
                left = file.filter(pc.not_equal(file.column("account_id"), account_id))
                if len(left) < len(file):
                    erased += len(file) - len(left)
                    _save(path, [left], file.schema.metadata)
        return erased

    def rename(self, change: Callable[[list[bytes]], list[bytes]], mark: str) -> int:
        """Put other payloads in the place of each entry's, as many; returns how many events there are.

        File by file, each as a whole, which says that it is of the identity key with this `mark`: after a
        crash it is asked for again, and passes over those.
        """
        events = 0
        with self._alone():
            for path in self.files():
                if pq.read_schema(path).metadata.get(IDENTITY) != mark.encode():
                    renamed = [replace(e, events=change(e.events)) for e in _entries(path)]
                    events += _save_entries(path, renamed, {IDENTITY: mark.encode()})
        return events

    def newest(self) -> int:
        """When the latest event in it happened, epoch ms; 0 where there is none."""
        told = 0
        for path in self.files():
            at = pq.read_table(path, columns=["occurred_at"]).column(0).cast(pa.int64())
            told = max(told, pc.max(at).as_py() or 0)
        return told

    def _write(self, day: str, entries: Sequence[Entry]) -> int:
        folder = self.folder / day
        if not folder.exists():
            folder.mkdir()
            sync_folder(self.folder)
        path = folder / f"{_padded_id(entries[0].id)}_{_padded_id(entries[-1].id)}.parquet"
        return _save_entries(path, entries)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One writer at a time, of whatever process; a lock that dies with its holder."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in self.folder.glob("*/.*.partial"):  # by a writer that was killed
                left.unlink()
            yield


class History:
    """The whole log: the cold one, and the hot one from where that ends."""

    def __init__(self, hot: EventLog, cold: ColdLog) -> None:
        self.hot, self.cold = hot, cold

    def read(self, after: str = NOTHING) -> Iterator[Entry]:
        """Entries after the id, each once, in order.

        Raises:
            LogTrimmed: the hot log was trimmed and the archive of what is gone is not there;
            LogError, redis.RedisError: what they say.
        """
        position = after
        while True:
            for path in self.cold.files():
                if _span(path)[1] > parse_id(position):
                    yield from self.cold.read(position, [path])
                    # not that of the last row: an erasure may have emptied the entry
                    position = _last(path)
            try:
                for entry in self.hot.read(position, gapless=True):
                    position = entry.id
                    yield entry
                return
            except LogTrimmed as problem:
                archived = self.cold.last_id()
                if parse_id(archived) <= parse_id(position):
                    raise LogTrimmed(
                        f"{problem}; the archive ends at {archived}: put the folder of the cold "
                        f"log, {self.cold.folder}, back"
                    ) from None
                # it was trimmed while we read, so it has been archived

    def holds(self, id: str) -> bool:
        """Whether this entry is there; "0-0", where every log begins, always is."""
        return id == NOTHING or self.hot.entry(id) is not None or self.cold.holds(id)

    def answers(self, ids: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """The answers in these entries, of those that are held. Raises like `read`."""
        archived = []
        for id in ids:
            held = self.hot.answers(id)
            if held is None:
                archived.append(id)
            else:
                yield id, held
        yield from self.cold.answers(archived)

    def archive(self, upto: str) -> int:
        """Copy what follows the last archived entry, up to and with this one; returns the events."""
        last = self.cold.last_id()
        return self.cold.write(_until(self.hot.read(last, gapless=True), parse_id(upto)))

    def trim(self, upto: str) -> int:
        """Drop archived entries up to and with this one from the hot log; returns how many."""
        milliseconds, sequence = min(parse_id(upto), parse_id(self.cold.last_id()))
        return self.hot.trim(f"{milliseconds}-{sequence + 1}")


def archiver(cold: ColdLog, url: str, upto: str) -> subprocess.Popen[bytes]:
    """A process that archives the hot log at `url` up to and with an entry; 0 when all is done."""
    words = [sys.executable, "-m", "service.cold", str(cold.folder), url, upto]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def archive_all(folder: Folder) -> int:
    """Archive all that the embedded log of a data folder holds; returns how many events were new.

    Raises:
        ValkeyError: a service runs on the folder; LogError: what it says; FolderProblem: the switch to
            another identity key has begun on it.
    """
    folder.refuse_half_switched()
    with EmbeddedValkey(folder.valkey) as valkey:
        hot = EventLog(valkey.client())
        return History(hot, ColdLog(folder.cold)).archive(hot.last_id())


# --- files


def _table(rows: Sequence[tuple[str, bytes, bytes | None]]) -> Any:
    """Rows of (entry, body, answer) as a table from which exactly they can be read."""
    table = table_of([decode(body) for _, body, _ in rows])
    given = _bodies(table)
    bodies = [
        None if again == body else body for (_, body, _), again in zip(rows, given, strict=True)
    ]
    answers = [a.decode() if a is not None else None for *_, a in rows]
    return (
        table.append_column(ENTRY, pa.array([e for e, *_ in rows], pa.string()))
        .append_column(ANSWER, pa.array(answers, pa.string()))
        .append_column(BODY, pa.array(bodies, pa.binary()))
    )


def _bodies(table: Any) -> list[bytes | None]:
    """The encoding of each row's event; None for a row that is not one."""
    found: list[bytes | None] = [None] * len(table)
    for batch in table.combine_chunks().to_batches():
        part = part_of(batch, 0, len(table))
        for row, event in zip(part.rows, part.events, strict=True):
            found[row] = encode(event)
    return found


def _save_entries(
    path: Path, entries: Sequence[Entry], marks: Mapping[bytes, bytes] = MappingProxyType({})
) -> int:
    """Write a file of these entries; returns how many events there are."""
    controls = [
        [e.id, e.name, base64.b64encode(e.body).decode()] for e in entries if e.kind == "control"
    ]
    rows = [
        (e.id, body, answer)
        for e in entries
        for body, answer in zip(
            e.events, _padded(_answers(e.answers or b"[]"), len(e.events)), strict=True
        )
    ]
    groups = range(0, max(len(rows), 1), GROUP_ROWS)
    tables = [_table(rows[i : i + GROUP_ROWS]) for i in groups]
    _save(path, tables, {VERSION: FORMAT, CONTROLS: json.dumps(controls).encode(), **marks})
    return len(rows)


def _save(path: Path, tables: Sequence[Any], metadata: dict[bytes, bytes]) -> None:
    def check(partial: Path) -> None:
        with pq.ParquetFile(partial) as file:
            again = file.read()
        if not again.equals(pa.concat_tables(tables)):
            raise LogCorrupted(f"{path} was read back and is not what was written")

    schema = tables[0].schema.with_metadata(metadata)
    with whole(path, check) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)


def _entries(path: Path) -> Iterator[Entry]:
    """The entries in a file, in order."""
    try:
        with open_parquet(path) as file:
            told = file.schema_arrow.metadata or {}
            if (version := told.get(VERSION)) != FORMAT:
                raise LogFormatUnknown(
                    f"{path} has format {version!r}; this Shoal reads {FORMAT!r}: "
                    f"use the Shoal that wrote it, or a newer one"
                )
            waiting = [
                Entry(id, "control", [], name=name, body=base64.b64decode(body))
                for id, name, body in json.loads(told[CONTROLS])
            ]
            rows = chain.from_iterable(
                _rows(path, batch) for _, batch in parquet_batches(path, file, GROUP_ROWS)
            )
            for id, of_entry in groupby(rows, lambda row: row[0]):
                while waiting and parse_id(waiting[0].id) < parse_id(id):
                    yield waiting.pop(0)
                bodies, answers = [], []
                for _, body, answer in of_entry:
                    bodies.append(body)
                    answers.append(answer)
                yield Entry(id, "events", bodies, _joined(answers))
            yield from waiting
    except InputProblem as problem:
        raise LogCorrupted(f"the cold log is damaged: {problem}") from None


def _rows(path: Path, batch: Any) -> Iterator[tuple[str, bytes, str | None]]:
    table = pa.Table.from_batches([batch])
    kept = (table.column(name).to_pylist() for name in (ENTRY, BODY, ANSWER))
    for id, body, answer, given in zip(*kept, _bodies(table), strict=True):
        told = body if body is not None else given
        if told is None:
            raise LogCorrupted(f"{path} holds a row of entry {id} that is no event")
        yield id, told, answer


def _joined(answers: Iterable[str | None]) -> bytes:
    return b"[%s]" % ",".join(a for a in answers if a is not None).encode()


def _padded(answers: Sequence[msgspec.Raw], n: int) -> list[bytes | None]:
    return [*map(bytes, answers), *[None] * (n - len(answers))]


def _parts(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Runs of entries for one file each."""
    part: list[Entry] = []
    size = 0
    for entry in entries:
        part.append(entry)
        size += len(entry.events)
        if size >= FILE_EVENTS:
            yield part
            part, size = [], 0
    if part:
        yield part


def _until(entries: Iterable[Entry], bound: tuple[int, int]) -> Iterator[Entry]:
    for entry in entries:
        if parse_id(entry.id) > bound:
            return
        yield entry


def _day(entry: Entry) -> str:
    return datetime.fromtimestamp(parse_id(entry.id)[0] / 1000, UTC).date().isoformat()


def _padded_id(id: str) -> str:
    """An id whose order as text is that of the log, until the year 2286.

    A sequence may have all the digits of 64 bits: while the clock is behind, Valkey counts it up.
    """
    milliseconds, sequence = parse_id(id)
    return f"{milliseconds:013d}-{sequence:020d}"


def _span(path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """The first and the last entry of a file, parsed."""
    first, last = path.stem.split("_")
    return parse_id(first), parse_id(last)


def _last(path: Path) -> str:
    """The last entry of a file, as the log writes its id."""
    milliseconds, sequence = _span(path)[1]
    return f"{milliseconds}-{sequence}"


if __name__ == "__main__":
    _folder, _url, _upto = sys.argv[1:]
    with redis.Redis.from_url(_url) as _client:
        History(EventLog(_client), ColdLog(Path(_folder))).archive(_upto)
