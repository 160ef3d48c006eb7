import base64
import itertools
import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import msgspec
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from served import START

from detector.engine import Engine
from detector.policy import read_policy
from features.event import decode as decode_event
from service.folder import OFFLINE
from service.log import (
    STREAM,
    BeingFolded,
    Entry,
    EventLog,
    LogCorrupted,
    LogFormatUnknown,
    LogTrimmed,
    _checksum,
    _seal,
    answers_in,
    decode,
    encode_control,
    encode_events,
    parse_id,
)
from service.valkey import EmbeddedValkey

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path_factory.mktemp("log") / "valkey", fsync="no") as valkey:
        yield valkey


@pytest.fixture
def client(valkey: EmbeddedValkey) -> redis.Redis:
    client = valkey.client()
    client.flushall()
    return client


@pytest.fixture
def log(client: redis.Redis) -> EventLog:
    return EventLog(client)


payloads = st.lists(st.binary(max_size=300), min_size=1, max_size=20)
batches = st.tuples(st.just("events"), payloads, st.binary(max_size=300))
markers = st.tuples(st.just("control"), st.text(min_size=1, max_size=20), st.binary(max_size=300))
_names = itertools.count()


def strip(entry: Entry) -> tuple[str, object, bytes]:
    if entry.kind == "events":
        assert (entry.name, entry.body) == ("", b"")
        return "events", entry.events, entry.answers
    assert (entry.events, entry.answers) == ([], b"")
    return "control", entry.name, entry.body


@settings(deadline=None, max_examples=60)
@given(
    written=st.lists(st.one_of(batches, markers), max_size=12),
    chunk=st.integers(1, 5),
    data=st.data(),
)
def test_what_is_appended_is_read_in_order(
    valkey: EmbeddedValkey,
    written: list[tuple[str, object, bytes]],
    chunk: int,
    data: st.DataObject,
) -> None:
    with closing(redis.Redis.from_url(valkey.url)) as client:
        log = EventLog(client, stream=f"{{log{next(_names)}}}")
        ids = [
            log.append(what, blob)
            if isinstance(what, list)
            else log.append_control(str(what), blob)
            for _, what, blob in written
        ]
        read = list(log.read(chunk_entries=chunk))
        assert [strip(entry) for entry in read] == written
        assert [entry.id for entry in read] == ids
        assert [log.answers(id) for id in ids] == [entry.answers for entry in read]
        assert sorted(ids, key=parse_id) == ids
        assert len(set(ids)) == len(ids)
        assert log.length() == len(ids)
        assert log.first_id() == (ids[0] if ids else None)
        assert log.last_id() == (ids[-1] if ids else "0-0")
        if ids:
            start = data.draw(st.integers(0, len(ids) - 1))
            rest = [entry.id for entry in log.read(ids[start], chunk_entries=chunk)]
            assert rest == ids[start + 1 :]


@given(what=payloads, answers=st.binary(max_size=200), data=st.data())
def test_any_damage_is_noticed(what: list[bytes], answers: bytes, data: st.DataObject) -> None:
    fields = {bytes(k): bytes(v) for k, v in encode_events(what, answers).items()}  # type: ignore[arg-type]
    name = data.draw(st.sampled_from([b"k", b"n", b"z", b"c"]))
    at = data.draw(st.integers(0, len(fields[name]) - 1))
    flipped = bytearray(fields[name])
    flipped[at] ^= data.draw(st.integers(1, 255))
    for read in (decode, answers_in):
        with pytest.raises(LogCorrupted, match="log entry 7-3 is damaged"):
            read("7-3", {**fields, name: bytes(flipped)})


@given(what=payloads, answers=st.binary(max_size=3000), data=st.data())
def test_answers_that_are_cut_off_are_not_given(
    what: list[bytes], answers: bytes, data: st.DataObject
) -> None:
    """By something that writes checksums, too."""
    fields = {bytes(k): bytes(v) for k, v in encode_events(what, answers).items()}  # type: ignore[arg-type]
    frame = fields[b"z"][: data.draw(st.integers(0, len(fields[b"z"]) - 1))]
    crc = _checksum(b"1", fields[b"k"], fields[b"n"], frame)
    with suppress(LogCorrupted):
        assert answers_in("7-3", {**fields, b"z": frame, b"c": crc}) == answers


def test_truncated_blob_names_the_entry(log: EventLog, client: redis.Redis) -> None:
    log.append([b"fine"], b"")
    fields = encode_events([b"x" * 1000] * 3, b"answers")
    fields[b"z"] = bytes(fields[b"z"])[:-1]  # type: ignore[arg-type]
    id = client.xadd(STREAM, fields)
    reader = log.read()
    assert next(reader).events == [b"fine"]
    with pytest.raises(LogCorrupted, match=f"log entry {id.decode()} is damaged"):  # type: ignore[union-attr]
        next(reader)


def test_unknown_format_names_the_entry_and_what_to_do(log: EventLog, client: redis.Redis) -> None:
    id = client.xadd(STREAM, {"v": "2", "payload": "?"})
    with pytest.raises(LogFormatUnknown) as caught:
        list(log.read())
    assert f"log entry {id.decode()} has format '2'; this Shoal reads '1'" in str(caught.value)  # type: ignore[union-attr]


@pytest.mark.parametrize("lost", ["v", "k", "n", "z", "c"])
def test_missing_field_is_named(lost: str) -> None:
    fields = {bytes(k): bytes(v) for k, v in encode_control("sweep", b"").items()}  # type: ignore[arg-type]
    del fields[lost.encode()]
    with pytest.raises(LogCorrupted, match=f"log entry 1-0 lacks {lost}$"):
        decode("1-0", fields)


@pytest.mark.parametrize("count", [0, 2, 4, 10**6, -1])
def test_wrong_count_under_a_right_checksum(count: int) -> None:
    """Written by something that is not this module: refused, not misread."""
    sealed = _seal(b"events", b"%d" % count, struct.pack("<4I", 0, 1, 1, 1) + b"abc")
    fields = {bytes(k): bytes(v) for k, v in sealed.items()}  # type: ignore[arg-type]
    with pytest.raises(LogCorrupted, match="log entry 1-0 is damaged"):
        decode("1-0", fields)


def test_unknown_kind() -> None:
    fields = {bytes(k): bytes(v) for k, v in _seal(b"odd", b"", b"").items()}  # type: ignore[arg-type]
    with pytest.raises(LogCorrupted, match="log entry 1-0 is of kind 'odd'"):
        decode("1-0", fields)


def test_reads_what_is_appended_while_reading(log: EventLog) -> None:
    log.append([b"0"], b"")
    seen = []
    for entry in log.read(chunk_entries=1):
        seen += entry.events
        if len(seen) < 5:
            log.append([str(len(seen)).encode()], b"")
    assert seen == [b"0", b"1", b"2", b"3", b"4"]


def test_trim_keeps_the_bound_and_what_follows(log: EventLog) -> None:
    ids = [log.append([bytes([n])], b"") for n in range(10)]
    assert log.trim(ids[4]) == 4
    assert log.first_id() == ids[4]
    assert log.length() == 6
    assert log.trimmed_id() == ids[3]
    assert [entry.id for entry in log.read()] == ids[4:]
    assert log.trim(ids[2]) == 0
    assert log.trimmed_id() == ids[3]


def test_resuming_in_the_trimmed_part_is_refused(log: EventLog) -> None:
    ids = [log.append([bytes([n])], b"") for n in range(6)]
    log.trim(ids[3])
    assert [entry.id for entry in log.read(ids[2])] == ids[3:]
    with pytest.raises(LogTrimmed, match=rf"after {ids[1]} is gone.* with {ids[2]}"):
        list(log.read(ids[1]))


def test_trim_that_overtakes_a_reader_is_noticed(log: EventLog) -> None:
    ids = [log.append([bytes([n])], b"") for n in range(6)]
    reader = log.read(chunk_entries=1)
    assert next(reader).id == ids[0]
    log.trim(ids[3])
    with pytest.raises(LogTrimmed):
        next(reader)


def test_trim_of_all_remembers_the_last_id(log: EventLog) -> None:
    ids = [log.append([b"x"], b"") for _ in range(3)]
    milliseconds, sequence = parse_id(ids[-1])
    assert log.trim(f"{milliseconds}-{sequence + 1}") == 3
    assert log.length() == 0
    assert log.first_id() is None
    assert log.last_id() == ids[-1]
    assert list(log.read(ids[-1])) == []
    with pytest.raises(LogTrimmed):
        list(log.read(ids[0]))


def test_empty_log(log: EventLog) -> None:
    assert list(log.read()) == []
    assert (log.first_id(), log.last_id(), log.length()) == (None, "0-0", 0)
    assert log.trim("5-0") == 0


def test_log_survives_a_restart(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        id = EventLog(valkey.client()).append([b"one", b""], b"answer")
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        log = EventLog(valkey.client())
        assert list(log.read()) == [Entry(id, "events", [b"one", b""], b"answer")]
        assert parse_id(log.append([b"two"], b"")) > parse_id(id)


def test_compresses(log: EventLog, client: redis.Redis) -> None:
    payload = b'{"type":"request","account_id":"acct_%d","status":200}'
    log.append([payload % n for n in range(256)], b"")
    ((_, fields),) = client.xrange(STREAM)  # type: ignore[misc]
    assert fields is not None
    assert len(fields[b"z"]) < 256 * len(payload) / 5


@pytest.mark.parametrize("id", ["", "x", "-1", "1-", "1-2-3", "(1-0", "$", "１"])
def test_bad_id(log: EventLog, id: str) -> None:
    with pytest.raises(ValueError, match="is no entry id"):
        list(log.read(id))


def test_refuses_what_cannot_be_an_entry(log: EventLog) -> None:
    with pytest.raises(ValueError, match="at least one event"):
        log.append([], b"answers")
    with pytest.raises(ValueError, match="has a name"):
        log.append_control("")


def test_refuses_a_decoding_client(valkey: EmbeddedValkey) -> None:
    with (
        closing(redis.Redis.from_url(valkey.url, decode_responses=True)) as client,
        pytest.raises(ValueError, match="decode_responses=False"),
    ):
        EventLog(client)


def test_a_log_of_format_1_is_read(client: redis.Redis, log: EventLog) -> None:
    """The fixture is what a Valkey held when format 1 was first written; it is never written anew."""
    kept = msgspec.json.decode((GOLDEN / "log-v1.json").read_bytes())
    for id, fields in kept["entries"]:
        told = {name.encode(): base64.b64decode(value) for name, value in fields.items()}
        assert told[b"v"] == b"1"
        client.xadd(STREAM, told, id=id)  # type: ignore[arg-type]
    entries = list(log.read())
    assert [(e.kind, len(e.events), e.name, e.body) for e in entries] == [
        ("events", 20, "", b""),
        ("events", 20, "", b""),
        ("events", 18, "", b""),
        ("control", 0, "marker", b"body"),
        ("events", 1, "", b""),
    ]
    events = [decode_event(body) for e in entries for body in e.events]
    assert [e.event_id for e in events[:2] + events[-2:]] == ["e0", "e1", "e117", "e900"]
    assert (events[-2].account_id, events[-2].occurred_at) == ("ring5", START + 117)
    answers = [a for e in entries for a in msgspec.json.decode(e.answers or b"[]")]
    assert [a["action"] for a in answers] == ["allow"] * 59
    # and the engine of today still folds it: identifiers stay the tokens they were hashed to
    engine = Engine(read_policy(), OFFLINE)
    for e in entries:
        if e.kind == "events":
            engine.restore(engine.sealer.read(e.events, [decode_event(b) for b in e.events]))
    assert engine.ledger["ring5"].events == 3
    assert engine.ledger["ring5"].cost == 2.5
    found = engine.sweep(everyone=True)
    assert sorted(found.clusters.size.tolist()) == [6]


# --- entries that are folded next


def test_an_event_is_in_one_entry_until_it_is_folded(log: EventLog) -> None:
    first = log.append_to_fold([b"1", b"2"], ["one", "two"], [])
    second = log.append_to_fold([b"3"], ["three"], [])
    assert log.folding() == {first: ["one", "two"], second: ["three"]}
    with pytest.raises(BeingFolded) as refused:
        log.append_to_fold([b"4", b"2", b"3"], ["four", "two", "three"], [])
    assert refused.value.entries == {first, second}
    assert log.length() == 2
    log.folded(["three"])
    third = log.append_to_fold([b"4", b"2"], ["four", "two"], ["one", "two"])
    assert log.folding() == {third: ["four", "two"]}
    log.folded([])
    log.folded(["four", "two"])
    assert log.folding() == {}
    assert [entry.events for entry in log.read()] == [[b"1", b"2"], [b"3"], [b"4", b"2"]]
    assert [entry.answers for entry in log.read()] == [b"[]"] * 3


def test_what_is_done_is_forgotten_even_if_the_batch_is_refused(log: EventLog) -> None:
    first = log.append_to_fold([b"1"], ["one"], [])
    log.append_to_fold([b"2"], ["two"], [])
    with pytest.raises(BeingFolded):
        log.append_to_fold([b"1"], ["one"], ["two"])
    assert log.folding() == {first: ["one"]}
    with pytest.raises(ValueError, match="at least one event"):
        log.append_to_fold([], [], [])
