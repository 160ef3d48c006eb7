"""The cold log: what it holds is what the hot one held, whatever crashes between its steps."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import Start, a_ring, one
from test_shoal import feed

from features.event import AnyEvent, decode, encode
from features.reader import read_events
from service import cold as cold_module
from service.cold import ColdLog, History, archiver
from service.log import NOTHING, Entry, EventLog, LogCorrupted, LogTrimmed, parse_id
from service.shoal import Shoal
from service.valkey import EmbeddedValkey


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey") / "data") as running:
        yield running


@pytest.fixture
def hot(valkey: EmbeddedValkey) -> EventLog:
    valkey.client().flushall()
    return EventLog(valkey.client())


def logged(log: EventLog, n: int, first: int = 0) -> list[str]:
    """Append `n` entries of two events each; their ids."""
    bodies = [
        encode(decode(msgspec.json.encode(one(first + i, f"a{i % 3}")))) for i in range(2 * n)
    ]
    return [log.append(bodies[2 * i : 2 * i + 2], b'[{"n":%d},{}]' % i) for i in range(n)]


# valid, and not as we would write it: no columns give these bytes
ODD = b'{"type":"login", "event_id":"x","occurred_at":5,"account_id":"a","entities":{}}'


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data(), st.integers(0, 8), st.sampled_from([1, 3, 1 << 17]))
def test_the_whole_log_reads_the_same_however_much_of_it_is_cold(
    tmp_path_factory: pytest.TempPathFactory,
    valkey: EmbeddedValkey,
    any_event: st.SearchStrategy[AnyEvent],
    data: st.DataObject,
    cut: int,
    file_events: int,
) -> None:
    body = any_event.map(encode) | st.just(ODD)
    entries = st.lists(st.lists(body, min_size=1, max_size=4) | st.just("control"), max_size=8)
    what: list[list[bytes] | str] = data.draw(entries)
    valkey.client().flushall()
    hot = EventLog(valkey.client())
    history = History(hot, ColdLog(tmp_path_factory.mktemp("cold")))
    ids = [NOTHING]
    for i, entry in enumerate(what):
        if isinstance(entry, str):
            ids.append(hot.append_control(entry, b"\x00%d" % i))
        else:
            ids.append(hot.append(entry, b"[%s]" % b",".join(b"%d" % n for n in range(len(entry)))))
    whole = list(hot.read())
    at = ids[min(cut, len(ids) - 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cold_module, "FILE_EVENTS", file_events)
        history.archive(at)
    assert list(history.read()) == whole  # both hold the part that is archived
    history.trim(ids[-1])
    assert list(hot.read()) == [e for e in whole if parse_id(e.id) > parse_id(at)]
    assert list(history.read()) == whole
    for after in ids:
        assert list(history.read(after)) == [e for e in whole if parse_id(e.id) > parse_id(after)]
    for e in whole:
        if e.kind == "events":
            assert dict(history.answers([e.id])) == {e.id: e.answers}
    kept = {e.id: e.answers for e in whole if e.kind == "events"}
    assert dict(history.answers(kept)) == kept
    if any(e.kind == "events" for e in history.cold.read()):
        read = [e for batch in read_events([history.cold.folder]) for e in batch.events]
        assert read == [decode(b) for e in history.cold.read() for b in e.events]


def test_a_killed_archiver_leaves_whole_files_and_the_next_one_goes_on(
    hot: EventLog, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    history = History(hot, ColdLog(tmp_path / "cold"))
    ids = logged(hot, 3000)
    whole = list(hot.read())
    for after_s in (0.0, 0.6, 0.8, 1.0):
        child = archiver(history.cold, valkey.url, ids[-1])
        time.sleep(after_s)
        child.kill()
        child.wait()
        assert list(history.read()) == whole
    assert archiver(history.cold, valkey.url, ids[-1]).wait() == 0
    history.trim(ids[-1])
    assert hot.length() == 0
    assert list(history.read()) == whole
    assert list((tmp_path / "cold").rglob("*.partial")) == []


def test_nothing_is_trimmed_that_is_not_archived(hot: EventLog, tmp_path: Path) -> None:
    history = History(hot, ColdLog(tmp_path))
    ids = logged(hot, 4)
    assert history.trim(ids[3]) == 0
    history.archive(ids[1])
    assert history.trim(ids[3]) == 2
    assert hot.first_id() == ids[2]


def test_what_does_not_read_back_is_not_kept(
    hot: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(hot, ColdLog(tmp_path))
    ids = logged(hot, 2)
    real = os.fsync

    def bad_disk(descriptor: int) -> None:
        os.pwrite(descriptor, b"\xff" * 64, 200)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", bad_disk)
    with pytest.raises((LogCorrupted, OSError)):
        history.archive(ids[-1])
    monkeypatch.undo()
    assert history.cold.files() == []
    assert history.trim(ids[-1]) == 0


def test_a_lost_archive_is_said(hot: EventLog, tmp_path: Path) -> None:
    history = History(hot, ColdLog(tmp_path))
    ids = logged(hot, 4)
    history.archive(ids[1])
    history.trim(ids[1])
    history.cold.files()[0].unlink()
    with pytest.raises(LogTrimmed, match=r"put the folder of the cold log, .*, back"):
        list(history.read())
    with pytest.raises(LogTrimmed):
        history.archive(ids[-1])


def test_a_damaged_file_is_said(hot: EventLog, tmp_path: Path) -> None:
    history = History(hot, ColdLog(tmp_path))
    history.archive(logged(hot, 4)[-1])
    (path,) = history.cold.files()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(LogCorrupted, match=path.name):
        list(history.read())


def test_a_hot_log_that_lost_its_end_goes_on_behind_the_archive(
    hot: EventLog, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    history = History(hot, ColdLog(tmp_path))
    ids = logged(hot, 4)
    history.archive(ids[-1])
    whole = list(history.read())
    valkey.client().flushall()  # what a power cut can do to a file that is synced every second
    hot.follow_on(history.cold.last_id())
    hot.follow_on(history.cold.last_id())
    logged(hot, 1, first=100)
    assert [e for e in history.read() if e.kind == "events"][:4] == whole
    assert hot.length() == 2


numbers = st.integers(0, 3) | st.integers(0, 10**7)
milliseconds = st.integers(0, 3) | st.integers(999_999_999_998, 10_000_000_000_001)
ids = st.tuples(milliseconds, numbers | st.integers(0, 2**64 - 1)).filter(any)


@settings(max_examples=50, deadline=None)
@given(st.lists(ids, min_size=1, max_size=6, unique=True), st.sets(st.integers(0, 5)), st.data())
def test_files_are_in_the_order_of_the_log_however_wide_their_ids(
    tmp_path_factory: pytest.TempPathFactory,
    ids: list[tuple[int, int]],
    old: set[int],
    data: st.DataObject,
) -> None:
    """Names as an older Shoal gave them among them, and whatever folder they lie in."""
    cold = ColdLog(tmp_path_factory.mktemp("cold"))
    entries = [
        Entry(f"{ms}-{n}", "events", [encode(decode(msgspec.json.encode(one(i, "a"))))], b"[{}]")
        for i, (ms, n) in enumerate(sorted(ids))
    ]
    for entry in entries:
        assert cold.write([entry]) == 1
        assert cold.last_id() == entry.id
    for i, (path, (ms, n)) in enumerate(zip(cold.files(), sorted(ids), strict=True)):
        day = data.draw(st.sampled_from([path.parent.name, "1970-01-01", "9999-12-31"]))
        (cold.folder / day).mkdir(exist_ok=True)
        name = f"{ms:013d}-{n:06d}"
        path.rename(cold.folder / day / (f"{name}_{name}.parquet" if i in old else path.name))
    assert list(cold.read()) == entries
    assert cold.last_id() == entries[-1].id
    for i, entry in enumerate(entries):
        assert list(cold.read(entry.id)) == entries[i + 1 :]
        assert cold.holds(entry.id)
    assert cold.write(entries) == 0


def test_a_new_file_of_the_day_is_named_behind_an_old_one(tmp_path: Path) -> None:
    """Whoever has only the names, such as `--events cold`, reads them sorted as text."""
    cold = ColdLog(tmp_path)
    body = encode(decode(msgspec.json.encode(one(0, "a"))))
    ids = ["1700000000000-7", "1700000000001-999999", "1700000000001-1000000"]
    for id in ids:
        assert cold.write([Entry(id, "events", [body], b"[]")]) == 1
    first = cold.files()[0]
    first.rename(first.with_name("1700000000000-000007_1700000000000-000007.parquet"))
    assert [e.id for p in sorted(tmp_path.rglob("*.parquet")) for e in cold.read(files=[p])] == ids


# --- a service over both


def crash(shoal: Shoal) -> None:
    shoal.fault = "killed"  # no snapshot at the end
    shoal.close()


def archived(shoal: Shoal) -> None:
    """Let the service do its steps until nothing is left to do."""
    while True:
        shoal.mend()
        child = shoal._archiver
        if child is None:
            return
        assert child.wait() == 0


def test_a_crash_between_any_two_steps(start: Start) -> None:
    lines = [msgspec.json.encode(one(n, f"a{n % 7}", device_id=f"d{n % 5}")) for n in range(400)]
    answers: dict[str, Any] = {}

    def more(shoal: Shoal, lo: int, hi: int) -> None:
        for i in range(lo, hi, 10):
            answers.update({a.event_id: a.decision for a in feed(shoal, lines[i : i + 10])})

    def check(shoal: Shoal, upto: int) -> None:
        assert shoal.accepted == upto
        for answer in feed(shoal, lines[:upto]):
            assert answer.status == "duplicate"
            assert answer.decision == answers[str(answer.event_id)]

    shoal = start()
    more(shoal, 0, 100)
    shoal.snapshot()
    crash(shoal)  # a snapshot, nothing archived
    shoal = start()
    check(shoal, 100)
    more(shoal, 100, 200)
    shoal.snapshot()
    shoal.history.archive(shoal.log.last_id())
    crash(shoal)  # archived, nothing trimmed
    shoal = start()
    check(shoal, 200)
    more(shoal, 200, 300)
    shoal.snapshot()
    archived(shoal)
    held = shoal.log.length()
    more(shoal, 300, 400)
    crash(shoal)  # trimmed up to the older snapshot
    assert held < 20
    shoal = start()
    check(shoal, 400)
    for path in shoal.folder.snapshots.glob("*.snapshot"):
        path.unlink()
    crash(shoal)  # no snapshot at all: everything from both logs
    again = start()
    check(again, 400)
    crash(again)
    whole = start(data="other")
    for i in range(0, 400, 10):
        feed(whole, lines[i : i + 10])
    again = start()
    assert again.engine.ledger == whole.engine.ledger
    assert again.accepted == whole.accepted
    assert list(again.vector_of("a1")) == pytest.approx(list(whole.vector_of("a1")), nan_ok=True)


def test_erasure_reaches_the_archive(start: Start, tmp_path: Path) -> None:
    shoal = start()
    feed(shoal, a_ring())
    shoal.snapshot()
    archived(shoal)
    assert shoal.history.cold.files()
    assert shoal.erase("ring3")
    assert not any(decode(b).account_id == "ring3" for e in shoal.history.read() for b in e.events)
    shoal.close()
    files = list((tmp_path / "data").rglob("*.parquet"))
    assert not any("ring3" in pq.read_table(p).column("account_id").to_pylist() for p in files)
    again = start()
    assert "ring3" not in again.engine.ledger


def test_a_snapshot_ahead_of_a_log_that_lost_its_end_is_never_used(start: Start) -> None:
    lines = [msgspec.json.encode(one(n, f"a{n % 3}")) for n in range(60)]
    shoal = start()
    feed(shoal, lines[:20])
    shoal.snapshot()
    feed(shoal, lines[20:40])
    shoal.snapshot()
    lost = shoal.entries.last
    shoal.client.xdel("{shoal:log}", lost)  # as a power cut would
    crash(shoal)
    for upto in (20, 40):  # at once, and when other entries have come in its place
        again = start()
        assert again.accepted == upto
        feed(again, lines[40:60])
        assert again.accepted == 40
        crash(again)
    last = start()
    assert [a.status for a in feed(last, lines[20:40])] == ["late"] * 20
    assert last.accepted == sum(e.events for e in last.engine.ledger.values()) == 60


def test_what_is_archived_and_trimmed_while_one_reads_is_read_once(
    hot: EventLog, tmp_path: Path
) -> None:
    history = History(hot, ColdLog(tmp_path))
    ids = logged(hot, 200)
    whole = list(hot.read())
    history.archive(ids[20])
    reading = history.read()
    read = [next(reading) for _ in range(10)]  # the cold log is being read
    history.archive(ids[60])
    history.trim(ids[60])
    read += [next(reading) for _ in range(20)]
    history.archive(ids[150])
    history.trim(ids[150])
    read += list(reading)
    assert read == whole
