"""The hot event log: a Valkey stream in which an entry is a whole batch and its answers.

Layout. One stream, `{shoal:log}`; an entry is one XADD with these fields:

    v   format version, "1"
    k   kind: "events" or "control"
    n   events: how many; control: the marker's name, as UTF-8
    z   one zstd frame (level 1)
          events:   n + 1 lengths (u32 little-endian), the answers', then each payload's; then
                    the answers and the payloads themselves, end to end
          control:  the body
    c   CRC-32 of v, k, n and z, each preceded by its u32 length; decimal

Beside it, `{shoal:log}:trimmed` holds the id of the last entry that was trimmed away, so that a
reader who resumes from a place that is gone is told so and does not skip the gap. `{shoal:log}:token`
holds the token of the one writer, where there is to be only one (service/lease.py): an append with
another is refused. `{shoal:log}:folding` is a hash from event_id to the entry that holds it, for the
entries whose fold into a shared window has not come to its end: written in one step with the entry, so
that a fold that nobody ends can be ended by anybody. `{shoal:log}:identity` says for which identity key it was
last rewritten (service/rotation.py), and `{shoal:log}:written` up to which entry the records have what was
acted on (service/scribe.py). (The braces keep all keys on one shard of a cluster.)

Why so. Entry by entry an event costs an XADD; by the batch of 256 it costs under a microsecond.
Events and the answers given to them are one entry, hence one write: after a crash an event is
either in the log with its answer or was never acknowledged. The order of entries is the order of
observation, and a control entry (a sweep ran, a model was promoted) has its place in it, so that a
replay meets it where the live service did.

What was not done: Valkey itself never looks inside an entry, so there is no read by account or by
time here; that is what the cold log is for. An append whose answer is lost on the network may be
sent again by the client and appear twice: the fold ignores a redelivered `event_id`.
"""

import re
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal, cast

import msgspec
import redis
import zstandard
from redis.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.typing import EncodableT, FieldT

STREAM = "{shoal:log}"
FORMAT = b"1"
FIELDS = frozenset({b"v", b"k", b"n", b"z", b"c"})
NOTHING = "0-0"
# Entries fetched at a time: of 256 events each, about 2 MB.
CHUNK_ENTRIES = 64
ZSTD_LEVEL = 1
ENTRY_BYTES = 100  # of an entry beside its frame, about
REWRITE_S = 60.0  # the longest that the rewriting of Valkey's file is waited for
REPLICA_MS_MAX = 1000  # how long an append on a cluster waits for a replica

FENCED = "another service has taken over this log"

# KEYS: from, to, the token. ARGV: our token.
_FENCED_RENAME = """
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return false end
return redis.call('RENAME', KEYS[1], KEYS[2])
"""

# KEYS: the stream, the token. ARGV: our token, then fields and values.
_FENCED_ADD = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return false end
return redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2))
"""

# KEYS: the stream, what is being folded. ARGV: how many event_ids are folded by now, how many come, these
# and those; then fields and values. Answers with the new entry's id, or with the entries that hold some of
# what comes: then nothing is appended.
_ADD_TO_FOLD = """
local done, come = tonumber(ARGV[1]), tonumber(ARGV[2])
if done > 0 then redis.call('HDEL', KEYS[2], unpack(ARGV, 3, 2 + done)) end
local ids, others = {unpack(ARGV, 3 + done, 2 + done + come)}, {}
for _, entry in ipairs(redis.call('HMGET', KEYS[2], unpack(ids))) do
  if entry then others[#others + 1] = entry end
end
if #others > 0 then return others end
local entry = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3 + done + come))
local told = {}
for i, id in ipairs(ids) do told[2 * i - 1], told[2 * i] = id, entry end
redis.call('HSET', KEYS[2], unpack(told))
return entry
"""

_LENGTH = struct.Struct("<I")
_ID = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")


class LogError(RuntimeError):
    """The log cannot be read as asked."""


class LogCorrupted(LogError):
    """An entry is not what was written."""


class LogFormatUnknown(LogError):
    """An entry was written by a newer Shoal."""


class Fenced(LogError):
    """Another service has become the writer of this log."""


class BeingFolded(LogError):
    """Some of these events are in the log, and their fold has not come to its end; `entries` hold them."""

    def __init__(self, entries: set[str]) -> None:
        super().__init__(f"events are being folded from {', '.join(sorted(entries))}")
        self.entries = entries


class LogTrimmed(LogError):
    """What follows the given id is no longer held."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log.

    `events` entries carry `events` (payloads as appended) and `answers`; `control` entries carry
    `name` and `body`. The fields of the other kind are empty.
    """

    id: str
    kind: Literal["events", "control"]
    events: list[bytes]
    answers: bytes = b""
    name: str = ""
    body: bytes = b""


class EventLog:
    """The log on a Valkey or Redis client (one that does not decode answers).

    `hasty` is a client of the same server that gives up soon, for who must not wait.

    May be used from several threads, and by several processes on one server.
    """

    def __init__(
        self, client: redis.Redis, *, stream: str = STREAM, hasty: redis.Redis | None = None
    ) -> None:
        if client.get_encoder().decode_responses:
            raise ValueError("the log needs a client that returns bytes: decode_responses=False")
        self._client, self._hasty = client, hasty or client
        # the client of a cluster has the interface of the other one, and no common type with it
        self._cluster = client if isinstance(cast(object, client), RedisCluster) else None
        self._stream = stream
        self._trimmed = f"{stream}:trimmed"
        self._folding = f"{stream}:folding"
        self._identity = f"{stream}:identity"
        self._written = f"{stream}:written"
        self.token: int | None = None  # of the one writer; None where anybody may append
        self.appended = 0  # bytes of events and answers that we have put into the server's memory

    def append(self, payloads: Sequence[bytes], answers: bytes, hasty: bool = False) -> str:
        """Append a batch and the answers given to it; returns the entry's id.

        When this returns the batch is in the log, as durable as the server's fsync policy.
        Raises ValueError for an empty batch, redis.RedisError when the server refuses or is gone,
        Fenced when `token` is no longer the writer's.
        """
        if not payloads:
            raise ValueError("an entry holds at least one event")
        fields = encode_events(payloads, answers)
        id = self._add(fields, self._hasty if hasty else self._client)
        self.appended += len(cast(bytes, fields[b"z"])) + ENTRY_BYTES
        return id

    def append_to_fold(
        self, payloads: Sequence[bytes], event_ids: Sequence[str], done: Sequence[str]
    ) -> str:
        """Append a batch that is folded next, into a shared window; returns the entry's id.

        `event_ids` are the batch's, at most a few thousand; those of `done`, of an earlier batch, are
        folded and answered by now. Raises BeingFolded when another entry holds some of the batch and
        is not done, ValueError for an empty batch, redis.RedisError when the server refuses or is gone:
        the batch may be in the log all the same.
        """
        if not payloads:
            raise ValueError("an entry holds at least one event")
        fields = encode_events(payloads, b"[]")
        told = [part for pair in fields.items() for part in pair]
        words = (len(done), len(event_ids), *done, *event_ids, *told)
        answer = self._send("EVAL", _ADD_TO_FOLD, 2, self._stream, self._folding, *words)
        if isinstance(answer, list):
            raise BeingFolded({_text(entry) for entry in answer})
        return _text(answer)

    def folding(self) -> dict[str, list[str]]:
        """The entries whose fold has not come to its end, oldest first, and their event_ids."""
        held: dict[str, list[str]] = {}
        told = cast(Mapping[bytes, bytes], self._client.hgetall(self._folding))
        for event_id, entry in told.items():
            held.setdefault(_text(entry), []).append(_text(event_id))
        return dict(sorted(held.items(), key=lambda one: parse_id(one[0])))

    def folded(self, event_ids: Sequence[str]) -> None:
        """These events are folded and answered."""
        if event_ids:
            self._client.hdel(self._folding, *event_ids)

    def append_control(self, name: str, body: bytes = b"") -> str:
        """Append a marker that has its place in the order of events; returns the entry's id."""
        if not name:
            raise ValueError("a control entry has a name")
        return self._add(encode_control(name, body), self._client)

    def read(
        self, after: str = NOTHING, *, gapless: bool = False, chunk_entries: int = CHUNK_ENTRIES
    ) -> Iterator[Entry]:
        """Entries after the id `after`, in order, up to the end at the time it is reached.

        Without `after`: from the oldest entry still held, whatever was trimmed before it; but
        `gapless` the log's beginning is a place like any other, which may have been trimmed. Fetched
        in chunks of `chunk_entries`; memory is that of one chunk. Raises LogTrimmed when `after`
        lies in the trimmed part, LogCorrupted and LogFormatUnknown with the entry's id, ValueError
        when `after` is no entry id.
        """
        position = parse_id(after)
        while True:
            # Both in one transaction, or a trim between the two could hide the gap it makes.
            with self._client.pipeline(transaction=True) as both:
                both.get(self._trimmed)
                both.xrange(self._stream, f"({_id(position)}", "+", count=chunk_entries)
                held, chunk = both.execute()
            trimmed = _text(held) if held is not None else NOTHING
            if position < parse_id(trimmed) and (gapless or position > (0, 0)):
                raise LogTrimmed(
                    f"the log after {_id(position)} is gone: it was trimmed up to and with "
                    f"{trimmed}; start from a snapshot at or after that id"
                )
            if not chunk:
                return
            for id, fields in chunk:
                if isinstance(fields, list):  # as a cluster's transaction hands it on
                    fields = dict(zip(fields[::2], fields[1::2], strict=True))
                entry = decode(_text(id), fields)
                position = parse_id(entry.id)
                yield entry

    def follow_on(self, id: str) -> None:
        """Have every later entry come after this id, which another copy of the log may hold."""
        if parse_id(self.last_id()) < parse_id(id):
            milliseconds, sequence = parse_id(id)
            fields = encode_control("follows", id.encode())
            self._client.xadd(self._stream, fields, id=f"{milliseconds}-{sequence + 1}")

    def entry(self, id: str) -> Entry | None:
        """The entry with this id, None where it is not held."""
        fields = self._fields(id)
        return decode(id, fields) if fields is not None else None

    def answers(self, id: str) -> bytes | None:
        """The answers in the entry with this id, None where it is not held."""
        fields = self._fields(id)
        return answers_in(id, fields) if fields is not None else None

    def _fields(self, id: str) -> Mapping[bytes, bytes] | None:
        found = self._client.xrange(self._stream, id, id, count=1)
        return cast(Mapping[bytes, bytes], found[0][1]) if found else None

    def rewrite(self, drop: Callable[[bytes], bool]) -> int:
        """Remove every event whose payload `drop` names, with its answer; returns how many.

        The log is copied without them under the same ids and takes the old one's place in one
        step, so that a crash leaves either. An entry keeps its place even when nothing is left in
        it (as a control entry `erased`). Answers are lists in JSON, one an event.
        """
        draft = f"{self._stream}:draft"
        self._client.delete(draft)
        dropped = 0
        for entry in self.read():
            fields = encode_control(entry.name, entry.body)
            if entry.kind == "events":
                keep = [not drop(payload) for payload in entry.events]
                dropped += len(keep) - sum(keep)
                events = [p for p, kept in zip(entry.events, keep, strict=True) if kept]
                answers = msgspec.json.decode(entry.answers, type=list[msgspec.Raw])
                left = [a for a, kept in zip(answers, keep, strict=False) if kept]
                fields = (
                    encode_events(events, msgspec.json.encode(left))
                    if events
                    else encode_control("erased", b"")
                )
            self._client.xadd(draft, fields, id=entry.id)
        if dropped:
            self._put_in_place(draft)
        else:
            self._client.delete(draft)
        return dropped

    def rename(self, change: Callable[[list[bytes]], list[bytes]], mark: str) -> int:
        """Put other payloads in the place of each entry's, as many; returns how many events there are.

        The log then says, in the same step, that it is of the identity key with this `mark`; one that
        says so already stays as it is (0). For whoever is alone with the log.
        """
        if self._client.get(self._identity) == mark.encode():
            return 0
        draft = f"{self._stream}:draft"
        self._client.delete(draft)
        events = 0
        for entry in self.read():
            fields = encode_control(entry.name, entry.body)
            if entry.kind == "events":
                events += len(entry.events)
                fields = encode_events(change(entry.events), entry.answers)
            self._client.xadd(draft, fields, id=entry.id)
        with self._client.pipeline(transaction=True) as both:
            if self.length():
                both.rename(draft, self._stream)
            both.set(self._identity, mark)
            both.execute()
        return events

    def rewrite_file(self) -> None:
        """Have the embedded server write its file anew, so that what was dropped leaves the disk, too.

        Raises redis.RedisError, a TimeoutError among them.
        """
        self._await_rewriting()
        self._client.bgrewriteaof()
        self._await_rewriting()

    def _await_rewriting(self) -> None:
        deadline = time.monotonic() + REWRITE_S
        while True:
            told = self._client.info("persistence")
            if not told["aof_rewrite_in_progress"] and not told["aof_rewrite_scheduled"]:
                return
            if time.monotonic() > deadline:
                raise redis.TimeoutError(f"Valkey has been rewriting its file for {REWRITE_S:g} s")
            time.sleep(0.02)

    def _put_in_place(self, draft: str) -> None:
        if self.token is None:
            self._client.rename(draft, self._stream)
            return
        keys = (draft, self._stream, f"{self._stream}:token")
        if self._client.eval(_FENCED_RENAME, 3, *keys, self.token) is None:
            raise Fenced(FENCED)

    def first_id(self) -> str | None:
        """Id of the oldest entry held, or None when the log is empty."""
        entries = self._client.xrange(self._stream, "-", "+", count=1)
        return _text(entries[0][0]) if entries else None

    def last_id(self) -> str:
        """Id of the last entry ever appended, trimmed or not; "0-0" if there was none."""
        try:
            return _text(self._client.xinfo_stream(self._stream)["last-generated-id"])
        except ResponseError as error:
            if "no such key" in str(error):
                return NOTHING
            raise

    def trimmed_id(self) -> str:
        """Id of the last entry that was trimmed away; "0-0" if nothing was."""
        held = self._client.get(self._trimmed)
        return _text(held) if held is not None else NOTHING

    def length(self) -> int:
        """Number of entries held."""
        return self._client.xlen(self._stream)

    def written(self) -> str | None:
        """Up to which entry the records have what was acted on; None where nobody ever said."""
        held = self._client.get(self._written)
        return _text(held) if held is not None else None

    def note_written(self, id: str) -> None:
        """The records have what was acted on up to and with this entry."""
        self._client.set(self._written, id)

    def trim(self, before_id: str) -> int:
        """Drop the entries older than `before_id`, which itself stays; returns how many.

        For one caller at a time: of two that race, the older bound may be the one remembered.
        Raises ValueError when `before_id` is no entry id.
        """
        bound = _id(parse_id(before_id))
        last = self._client.xrevrange(self._stream, f"({bound}", "-", count=1)
        if not last:
            return 0
        with self._client.pipeline(transaction=True) as both:
            both.set(self._trimmed, _text(last[0][0]))
            both.xtrim(self._stream, minid=bound, approximate=False)
            dropped = both.execute()[1]
        return int(dropped)

    def _add(self, fields: dict[FieldT, EncodableT], client: redis.Redis) -> str:
        if self.token is None:
            told = [part for pair in fields.items() for part in pair]
            return _text(self._send("XADD", self._stream, "*", *told))
        told = [part for field in fields.items() for part in field]
        keys = (self._stream, f"{self._stream}:token")
        id = _kept(client, "EVAL", _FENCED_ADD, 2, *keys, self.token, *told)
        if id is None:
            raise Fenced(FENCED)
        return _text(id)

    def _send(self, *command: EncodableT) -> Any:
        """The answer to a command that appends, when the entry is kept."""
        if self._cluster is not None:
            return self._send_to_two(self._cluster, command)
        return _kept(self._client, *command)

    def _send_to_two(self, cluster: Any, command: Sequence[EncodableT]) -> Any:
        """Append on the shard's primary, and wait until a replica of it, where it has one, holds it, too.

        A primary that fails is replaced by its replica, which knows what it was sent so far. WAIT
        speaks of the connection it is sent on, hence the pipeline to this one node.
        """
        node = cluster.get_node_from_key(self._stream)
        server = cluster.get_redis_connection(node) if node is not None else None
        if server is None:
            raise RedisConnectionError("no node of the cluster serves the log")
        nodes = cluster.nodes_manager.slots_cache[cluster.keyslot(self._stream)]
        wanted = min(1, len(nodes) - 1)
        with server.pipeline(transaction=False) as both:
            both.execute_command(*command)
            both.execute_command("WAIT", wanted, REPLICA_MS_MAX)
            answer, reached = both.execute()
        if int(reached) < wanted:
            raise RedisConnectionError("no replica of the log's node has confirmed the entry")
        return answer


def _kept(client: redis.Redis, *command: EncodableT) -> Any:
    """The answer to a command that appends, when the server has written it down.

    A server whose disk is full answers the write that filled it, and refuses the next command: a PING,
    too. So it is asked for one before anybody is told that the entry is kept. Both go straight to a
    connection: what `execute_command` adds for those who retry and trace is four times the wait.
    """
    pool = client.connection_pool
    connection: Any = pool.get_connection()
    try:
        connection.send_command(*command)
        answer = connection.read_response()
        connection.send_command("PING")
        connection.read_response()
    except BaseException:  # what comes on it later is not the answer to anything asked later
        connection.disconnect()
        raise
    finally:
        pool.release(connection)
    return answer


def encode_events(payloads: Sequence[bytes], answers: bytes) -> dict[FieldT, EncodableT]:
    """The fields of an `events` entry, for XADD."""
    pieces = [answers, *payloads]
    lengths = struct.pack(f"<{len(pieces)}I", *map(len, pieces))
    return _seal(b"events", b"%d" % len(payloads), lengths + b"".join(pieces))


def encode_control(name: str, body: bytes) -> dict[FieldT, EncodableT]:
    """The fields of a `control` entry, for XADD."""
    return _seal(b"control", name.encode(), body)


def decode(id: str, fields: Mapping[bytes, bytes]) -> Entry:
    """The entry that XRANGE returned. Raises LogFormatUnknown and LogCorrupted, naming the id."""
    kind, n, frame = _checked(id, fields)
    try:
        content = _ZSTD.decompressor.decompress(frame)
        if kind == b"events":
            answers, *events = _split(content, int(n) + 1)
            return Entry(id, "events", events, answers)
        return Entry(id, "control", [], name=n.decode(), body=content)
    except (zstandard.ZstdError, struct.error, ValueError) as error:
        raise LogCorrupted(f"log entry {id} is damaged: {error}") from error


def answers_in(id: str, fields: Mapping[bytes, bytes]) -> bytes:
    """The answers in an entry, for which a tenth of it is unpacked: they come first. Raises as `decode`."""
    kind, n, frame = _checked(id, fields)
    if kind != b"events":
        return b""
    try:
        with _ZSTD.decompressor.stream_reader(frame) as content:
            size, *_ = _LENGTH.unpack_from(content.read(_LENGTH.size * (int(n) + 1)))
            answers = content.read(size)
        if len(answers) < size:
            raise ValueError(f"its answers end at byte {len(answers)} of {size}")
        return answers
    except (zstandard.ZstdError, struct.error, ValueError) as error:
        raise LogCorrupted(f"log entry {id} is damaged: {error}") from error


def _checked(id: str, fields: Mapping[bytes, bytes]) -> tuple[bytes, bytes, bytes]:
    """Kind, name or count, and frame of an entry that is what was written."""
    version = fields.get(b"v")
    if version is not None and version != FORMAT:
        raise LogFormatUnknown(
            f"log entry {id} has format {version.decode(errors='replace')[:20]!r}; this Shoal "
            f"reads {FORMAT.decode()!r}: use the Shoal that wrote it, or a newer one"
        )
    missing = sorted(FIELDS - fields.keys())
    if version is None or missing:
        raise LogCorrupted(f"log entry {id} lacks {b', '.join(missing).decode()}")
    kind, n, frame, crc = fields[b"k"], fields[b"n"], fields[b"z"], fields[b"c"]
    if crc != _checksum(version, kind, n, frame):
        raise LogCorrupted(f"log entry {id} is damaged: its checksum does not match")
    if kind not in (b"events", b"control"):
        # The checksum holds, so it was written like this: by something that is not this module.
        raise LogCorrupted(
            f"log entry {id} is of kind {kind.decode(errors='replace')!r}, which is none"
        )
    return kind, n, frame


def parse_id(id: str) -> tuple[int, int]:
    """An entry id as (milliseconds, sequence), which compare in the order of the log.

    >>> parse_id("1700000000000-3") < parse_id("1700000000000-12")
    True

    Raises ValueError when it is none.
    """
    match = _ID.fullmatch(id)
    if match is None:
        raise ValueError(f"{id!r} is no entry id: it looks like 1700000000000-0")
    return int(match[1]), int(match[2] or 0)


class _Zstd(threading.local):
    """Contexts of zstandard are reusable, which is what makes them fast, but not shareable."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


_ZSTD = _Zstd()


def _seal(kind: bytes, n: bytes, content: bytes) -> dict[FieldT, EncodableT]:
    frame = _ZSTD.compressor.compress(content)
    return {
        b"v": FORMAT,
        b"k": kind,
        b"n": n,
        b"z": frame,
        b"c": _checksum(FORMAT, kind, n, frame),
    }


def _checksum(*fields: bytes) -> bytes:
    crc = 0
    for field in fields:
        crc = zlib.crc32(field, zlib.crc32(_LENGTH.pack(len(field)), crc))
    return b"%d" % crc


def _split(content: bytes, count: int) -> list[bytes]:
    """The pieces of `count` lengths followed by as many pieces."""
    lengths = struct.unpack_from(f"<{count}I", content)
    ends = list(accumulate(lengths, initial=4 * count))
    if ends[-1] != len(content):
        raise ValueError(f"its pieces end at byte {ends[-1]} of {len(content)}")
    return [content[start:end] for start, end in pairwise(ends)]


def _id(position: tuple[int, int]) -> str:
    return f"{position[0]}-{position[1]}"


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
