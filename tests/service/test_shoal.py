import json
import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from served import READY_S, START, Process, Start, a_ring, live, one, post, serve

from detector.engine import Engine
from detector.model import Model
from detector.policy import read_policy
from features.catalog import Catalog
from features.event import AnyEvent, decode, encode, milliseconds
from features.feature import HOUR
from features.identity import Secret
from features.rows import Names
from features.window import NEW
from service.folder import Folder
from service.log import EventLog, Fenced
from service.parity import parity
from service.shoal import CHUNK, HASTY_S, Answer, Shoal, Unavailable
from service.snapshot import load_latest, save
from service.valkey import EmbeddedValkey
from tests.features.mortal import Killed, Mortal, die

BATCH = 50
ROUNDS = 4


def feed(shoal: Shoal, lines: list[bytes]) -> list[Answer]:
    return shoal.ingest([decode(line) for line in lines])


def fold(log: EventLog, secret: Secret, catalog: Catalog) -> tuple[Engine, list[str]]:
    """A fresh engine over the log, one event after the other, and the event ids in it."""
    engine = Engine(read_policy(), secret, catalog=catalog)
    ids = []
    for entry in log.read():
        for body in entry.events:
            event = decode(body)
            ids.append(event.event_id)
            folded = engine.restore(engine.sealer.read([body], [event]))
            assert folded.status[0] in (0, 3)
    return engine, ids


def vectors(engine: Engine, accounts: list[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    numbers = np.array([Names().name(a) for a in accounts], np.uint64)
    return engine.window.ask(numbers, engine.window.watermark)


def same_state(left: Shoal, right: Shoal) -> None:
    """All that two Shoals answer from is the same."""
    accounts = sorted(left.engine.ledger)
    assert accounts == sorted(right.engine.ledger)
    assert left.engine.ledger == right.engine.ledger
    assert left.engine.names == right.engine.names
    assert left.engine.kinds.names == right.engine.kinds.names
    assert left.accepted == right.accepted
    np.testing.assert_equal(left.entries.save(), right.entries.save())
    assert left.engine.window.watermark == right.engine.window.watermark
    np.testing.assert_array_equal(vectors(left.engine, accounts), vectors(right.engine, accounts))
    assert left.cluster_list() == right.cluster_list()


# --- durability


def test_kill_loses_nothing_and_counts_nothing_twice(tmp_path: Path, world: list[bytes]) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    moment = random.Random(seed)
    data = tmp_path / "data"
    acknowledged: dict[str, dict[str, Any]] = {}
    at = 0
    for _ in range(ROUNDS):
        with Process(data) as service:
            assert service.process.pid is not None
            killer = threading.Timer(moment.uniform(0.02, 0.35), service.signal, [signal.SIGKILL])
            killer.start()
            try:
                while at < len(world):
                    for answer in post(service.client, world[at : at + BATCH]):
                        acknowledged.setdefault(answer["event_id"], answer)
                    at += BATCH
            except httpx.TransportError:
                pass
            killer.join()
            service.ended()
    assert len(acknowledged) > 0

    with Process(data) as service:
        again = [
            a for i in range(0, len(world), 1000) for a in post(service.client, world[i : i + 1000])
        ]
        assert len(again) == len(world)
        for answer in again:
            first = acknowledged.get(answer["event_id"])
            if first is not None:
                assert answer["status"] == "duplicate"
                assert answer["decision"] == first["decision"]

        # the log, read beside the service, against what was sent
        with redis.Redis(unix_socket_path=str(data / "valkey" / "valkey.sock")) as client:
            engine, ids = fold(EventLog(client), Folder(data).secret(), Catalog())
        assert sorted(ids) == sorted(decode(line).event_id for line in world)
        of = Counter(decode(line).account_id for line in world)
        for account, count in of.items():
            assert service.client.get(f"/v1/accounts/{account}").json()["events"] == count
        sample = moment.sample(sorted(of), 40)
        for account, vector in zip(sample, vectors(engine, sample).tolist(), strict=True):
            told = service.client.get(f"/v1/accounts/{account}/vector").json()
            assert list(told["vector"]) == list(engine.catalog.names)
            assert [float("nan") if v is None else v for v in told["vector"].values()] == (
                pytest.approx(vector, rel=0, abs=0, nan_ok=True)
            )
        told = service.client.get("/v1/parity").json()
        assert (told["events"], told["differing"]) == (len(world), 0)


def test_a_service_that_is_asked_to_end_keeps_a_snapshot_and_no_valkey(tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        data = tmp_path / number.name
        with Process(data) as service:
            post(service.client, a_ring())
            service.signal(number)
            assert service.ended() == 0
        assert len(list((data / "snapshots").glob("*.snapshot"))) == 1
        with EmbeddedValkey(data / "valkey") as valkey:  # nobody holds the folder
            assert sum(len(e.events) for e in EventLog(valkey.client()).read()) == len(a_ring())


# --- parity


def test_vectors_behind_decisions_are_those_of_the_log(
    start: Start, model: Model, world: list[bytes]
) -> None:
    shoal = start(model)
    served: dict[str, Any] = {}
    answer = shoal.engine.answer

    def seen(sealed: Any) -> Any:
        told = answer(sealed)
        for event, vector, decision in zip(
            sealed.events, told.vectors, told.decisions, strict=True
        ):
            if decision is not None:
                served[event.event_id] = vector
        return told

    shoal.engine.answer = seen  # type: ignore[method-assign]
    step = random.Random(3)
    at = 0
    while at < len(world):
        size = step.choice([1, 7, 300, 1500])
        feed(shoal, world[at : at + size])
        at += size
    assert len(served) == len(world)
    engine = Engine(read_policy(), shoal.secret, catalog=model.catalog)
    for entry in shoal.log.read():
        events = [decode(body) for body in entry.events]
        folded = engine.restore(engine.sealer.read(entry.events, events))
        assert (folded.status == NEW).any()
        there = np.array([served[e.event_id] for e in events])
        np.testing.assert_array_equal(folded.vectors, there)
    told = parity(shoal)
    assert (told.events, told.differing, told.largest_difference) == (len(world), 0, 0.0)
    assert told.vectors > len(shoal.engine.ledger)


def test_parity_tells_when_the_log_lost_something(start: Start) -> None:
    shoal = start()
    feed(shoal, a_ring())
    feed(shoal, [msgspec.json.encode(one(900, "ring0", device_id="another"))])
    assert parity(shoal).differing == 0
    last = shoal.entries.last
    shoal.client.xdel("{shoal:log}", last)
    told = parity(shoal)
    assert told.differing > 0
    assert told.largest_difference >= 1


def test_whatever_the_contract_allows_is_taken(
    start: Start, any_event: SearchStrategy[AnyEvent]
) -> None:
    shoal = start()

    @settings(max_examples=40)
    @given(batch=st.lists(any_event, max_size=8))
    def taken(batch: list[AnyEvent]) -> None:
        for event in batch:  # an event_id is known for a week
            event.occurred_at = START + milliseconds(event.occurred_at) % (7 * 86_400_000)
        bodies = [encode(event) for event in batch]
        told = shoal.ingest(batch)
        assert [a.event_id for a in told] == [decode(body).event_id for body in bodies]
        assert all(a.decision is not None for a in told if a.status != "rejected")
        again = shoal.ingest([decode(body) for body in bodies])
        for x, y in zip(told, again, strict=True):
            assert y.status == ("rejected" if x.status == "rejected" else "duplicate")
            assert y.decision == x.decision

    taken()
    shoal.look()
    assert parity(shoal).differing == 0
    shoal.snapshot()
    accepted = shoal.accepted
    shoal.close()
    assert start().accepted == accepted > 20


def test_parity_of_an_empty_service(start: Start) -> None:
    told = parity(start())
    assert (told.events, told.vectors, told.differing) == (0, 0, 0)


def test_a_snapshot_is_due_before_the_hot_log_fills_the_memory(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.shoal.SNAPSHOT_BYTES", 20_000)
    shoal = start()
    fed, due = [], []
    for n in range(200):
        feed(shoal, [msgspec.json.encode(one(n, f"a{n}"))])
        fed.append(shoal.client.memory_usage("{shoal:log}"))
        if shoal.snapshot_due():
            due.append(n)
            size = shoal.snapshot().stat().st_size
            monkeypatch.setattr(
                "service.shoal.SNAPSHOT_BYTES", 0
            )  # the snapshot's size then counts
            assert shoal._save_at - shoal.log.appended == max(20_000, size // 2)
    assert len(due) == 1
    assert 10_000 < fed[due[0]] < 40_000


def test_what_fails_between_fold_and_log_leaves_no_state_ahead_of_the_log(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    shoal = start()
    feed(shoal, a_ring())
    window = shoal.engine.window
    whole = window.fold

    def out_of_memory(rows: Any) -> Any:
        whole(rows)
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(window, "fold", out_of_memory)
        with pytest.raises(MemoryError):
            feed(shoal, [msgspec.json.encode(one(900, "ring1"))])
    assert shoal.fault is not None
    with pytest.raises(Unavailable, match="MemoryError"):
        feed(shoal, a_ring())
    shoal.mend()
    assert shoal.fault is None
    (told,) = feed(shoal, [msgspec.json.encode(one(900, "ring1"))])
    assert told.status == "new"
    fresh, _ = fold(shoal.log, shoal.secret, shoal.engine.catalog)
    assert shoal.engine.ledger == fresh.ledger


def test_an_append_that_was_given_up_cannot_come_after_the_state_was_rebuilt(start: Start) -> None:
    shoal = start()
    feed(shoal, a_ring())
    given_up = EventLog(shoal.client)
    given_up.token = shoal.log.token
    shoal._lose(redis.TimeoutError("paused"))
    shoal.mend()
    with pytest.raises(Fenced):
        given_up.append([msgspec.json.encode(one(900))], b"[]")
    assert feed(shoal, [msgspec.json.encode(one(901))])[0].status == "new"


def test_a_service_answers_while_it_starts_and_while_its_log_hangs(tmp_path: Path) -> None:
    data, go = tmp_path / "data", tmp_path / "go"
    with Process(data) as service:
        post(service.client, a_ring())
    with Process(data, _serve_slowly, (str(go),), ready=False) as service:
        deadline = time.monotonic() + READY_S
        while not service.alive():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        told = service.client.get("/readyz")
        assert (told.status_code, told.json()["reasons"][0]["code"]) == (503, "starting")
        assert service.client.post("/v1/events", json=one(900)).status_code == 503
        assert service.client.get("/metrics").status_code == 200
        go.touch()
        service.wait()
        assert service.client.get("/v1/accounts/ring1").json()["events"] == 3

        for n in range(3):  # the next is folded on the event loop
            service.client.post("/v1/events", json=one(900 + n)).raise_for_status()
        server = json.loads((data / "valkey" / "lock").read_text())["valkey_pid"]
        os.kill(server, signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(1) as aside:
                asked = aside.submit(
                    httpx.post, f"{service.client.base_url}/v1/events", json=one(910), timeout=60
                )
                time.sleep(2 * HASTY_S + 0.5)
                began = time.monotonic()
                assert service.client.get("/healthz").status_code == 200
                assert time.monotonic() - began < 1
                assert service.client.get("/readyz").status_code == 503
                assert asked.result().status_code == 503
        finally:
            os.kill(server, signal.SIGCONT)
        service.wait()
        answer = service.client.post("/v1/events", json=one(910)).json()
        assert answer["status"] in ("new", "duplicate")  # the log may have taken it after all
        assert answer["decision"] is not None


def _serve_slowly(port: int, data: str, said: str, go: str) -> None:
    warm_up = Shoal._warm_up

    def slow(shoal: Shoal) -> None:
        while not Path(go).exists():
            shoal._refuse_stopped()  # as between two pieces of a log that is read again
            time.sleep(0.01)
        warm_up(shoal)

    Shoal._warm_up = slow  # type: ignore[method-assign]
    serve(port, data, said)


def test_a_service_that_is_ended_while_it_starts_ends_in_peace(tmp_path: Path) -> None:
    data, go = tmp_path / "data", tmp_path / "go"
    with Process(data, _serve_slowly, (str(go),), ready=False) as service:
        deadline = time.monotonic() + READY_S
        while not service.alive():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        service.signal(signal.SIGTERM)
        assert service.ended() == 0
    with Process(data) as service:  # nothing holds the folder
        assert service.client.post("/v1/events", json=one(1)).status_code == 200


def test_a_start_that_fails_ends_the_service(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "valkey").mkdir(parents=True)
    (data / "valkey" / "foreign").touch()
    with Process(data, ready=False) as service:
        assert service.ended() != 0
    assert "was not made by Shoal" in (tmp_path / "data.stderr").read_text()


# --- idempotency


def test_the_same_event_gets_its_first_answer_for_good(
    start: Start, model: Model, world: list[bytes]
) -> None:
    part = world[:1500]
    other = decode(part[0])
    other.user_agent = "another"
    shoal = start(model)
    first = feed(shoal, part)
    assert {a.status for a in first} <= {"new", "late"}
    shoal.look()  # whoever is in a cluster now would be answered otherwise
    assert any(s.cluster_id for s in shoal.engine.standing.values())

    def again(shoal: Shoal) -> None:
        accepted = shoal.accepted
        for size in (len(part), 1, CHUNK + 1):
            told = feed(shoal, part[:size])
            assert [a.status for a in told] == ["duplicate"] * size
            assert [a.decision for a in told] == [a.decision for a in first[:size]]
            assert not any(a.conflict for a in told)
        (changed,) = shoal.ingest([decode(msgspec.json.encode(other))])
        assert (changed.status, changed.conflict, changed.decision) == (
            "duplicate",
            True,
            first[0].decision,
        )
        assert shoal.accepted == accepted

    again(shoal)
    shoal.fault = "killed"  # close without a snapshot
    shoal.close()
    again(shoal := start(model))
    shoal.snapshot()
    shoal.fault = "killed"
    shoal.close()
    again(start(model))


def test_duplicates_out_of_the_archive_keep_nobody_waiting(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their first answers are read without the lock, a file once, and none of a damaged one."""
    shoal = start()
    first = feed(shoal, a_ring())
    for _ in range(2):
        shoal.snapshot()
    shoal.history.archive(shoal.entries.last)
    shoal.history.trim(shoal.entries.last)
    assert shoal.log.length() == 0
    reads, read_table = [], pq.read_table

    def free(path: Path, **more: Any) -> Any:
        with ThreadPoolExecutor(1) as other:  # the lock is nobody's
            assert other.submit(shoal.lock.acquire, timeout=5).result()
            other.submit(shoal.lock.release).result()
        reads.append(path)
        return read_table(path, **more)

    monkeypatch.setattr(pq, "read_table", free)
    told = feed(shoal, a_ring())
    assert [(a.status, a.decision) for a in told] == [("duplicate", a.decision) for a in first]
    (path,) = reads
    path.write_bytes(path.read_bytes()[:-20])
    told = feed(shoal, [*a_ring(), msgspec.json.encode(one(900))])
    assert [(a.status, a.decision) for a in told[:-1]] == [("duplicate", None)] * len(first)
    assert told[-1].status == "new"
    assert shoal.fault is None


def test_where_an_event_is_in_the_log_is_forgotten_with_its_id(start: Start) -> None:
    shoal = start()
    for n in range(40):
        feed(shoal, [msgspec.json.encode(one(n, occurred_at=START + n * 12 * HOUR))])
    told = feed(shoal, [msgspec.json.encode(one(n, occurred_at=START)) for n in range(40)])
    known = [a.status == "duplicate" for a in told]
    assert (len(shoal.entries), known.index(True) > 10) == (41, True)
    shoal.snapshot()
    assert len(shoal.entries) == 41 - known.index(True)
    again = feed(shoal, [msgspec.json.encode(one(39, occurred_at=START + 39 * 12 * HOUR))])
    assert again[0].decision == told[39].decision is not None


def test_duplicates_inside_one_batch(start: Start) -> None:
    shoal = start()
    twice = [msgspec.json.encode(e) for e in (one(1), one(2), one(1), one(2, ip="198.51.100.1"))]
    told = feed(shoal, twice)
    assert [a.status for a in told] == ["new", "new", "duplicate", "duplicate"]
    assert [a.conflict for a in told] == [False, False, False, True]
    assert told[2].decision == told[0].decision is not None
    assert shoal.accepted == 2
    assert shoal.engine.ledger["a1"].events == 2


def test_a_late_event_is_taken_and_told(start: Start) -> None:
    shoal = start()
    day = 86_400_000
    now, late = one(40 * day), one(2)
    told = feed(shoal, [msgspec.json.encode(now), msgspec.json.encode(late)])
    assert [a.status for a in told] == ["new", "late"]
    assert told[1].decision is not None
    assert shoal.accepted == 2


def test_the_future_is_refused(start: Start) -> None:
    clock = 1_600_000_000_000
    shoal = start(clock=lambda: clock)
    five = 5 * 60_000
    events = [
        one(n) | {"occurred_at": clock + ahead} for n, ahead in enumerate((0, five, five + 1))
    ]
    told = feed(shoal, [msgspec.json.encode(e) for e in events])
    assert [a.status for a in told] == ["new", "new", "rejected"]
    assert told[2].field == "occurred_at"
    assert shoal.accepted == 2


# --- snapshots


def test_a_snapshot_and_the_rest_is_the_whole_log(
    start: Start, tmp_path: Path, model: Model, world: list[bytes]
) -> None:
    shoal = start(model)
    feed(shoal, world[:3000])
    shoal.snapshot()
    feed(shoal, world[3000:5000])
    shoal.close()
    without = tmp_path / "without"
    shutil.copytree(tmp_path / "data", without)
    shutil.rmtree(without / "snapshots")
    behind = tmp_path / "behind"  # the newest snapshot is gone: an older one and more of the log
    shutil.copytree(tmp_path / "data", behind)
    sorted((behind / "snapshots").iterdir())[-1].unlink()
    whole, replayed, both = start(model), start(model, "without"), start(model, "behind")
    assert whole.accepted == 5000
    same_state(whole, replayed)
    same_state(whole, both)
    told = [feed(s, world[4900:5200]) for s in (whole, replayed, both)]
    assert told[0] == told[1] == told[2]


def test_a_copied_folder_leaves_the_first_one_alone(start: Start, tmp_path: Path) -> None:
    shoal = start()
    feed(shoal, a_ring()[:5])
    copy = shutil.copytree(tmp_path / "data", tmp_path / "copy", ignore=_sockets)
    assert start(data=copy.name).accepted == 5
    feed(shoal, a_ring())
    assert shoal.accepted == len(a_ring())


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(folder, name).is_socket()]


def test_a_damaged_snapshot_is_passed_over(start: Start, tmp_path: Path) -> None:
    lines = a_ring()
    shoal = start()
    feed(shoal, lines[:30])
    shoal.snapshot()
    feed(shoal, lines[30:])
    newest = shoal.snapshot()
    shoal.close()
    newest.write_bytes(newest.read_bytes()[:-100])
    assert len(list((tmp_path / "data" / "snapshots").iterdir())) == 2
    again = start()
    assert again.accepted == len(lines)
    assert parity(again).differing == 0


@pytest.mark.parametrize("other", [{"catalog": "another"}, {"rows": 1}], ids=["catalogue", "rows"])
def test_a_snapshot_that_means_something_else_is_not_used(
    start: Start, other: dict[str, Any]
) -> None:
    shoal = start()
    feed(shoal, a_ring())
    shoal.look()
    before = shoal.cluster_list()
    shoal.close()
    kept = load_latest(shoal.folder.snapshots)
    assert kept is not None
    arrays, meta = kept
    for array in arrays.values():  # whoever took this for his own would answer nonsense
        array.view(np.uint8)[:] = 0
    save(shoal.folder.snapshots, "other", arrays, meta | {"accepted": 7} | other)
    again = start()
    assert again.accepted == len(a_ring())
    assert parity(again).differing == 0
    assert again.cluster_list() == before


# --- a log that fails


def test_a_dead_valkey_is_told_and_replaced(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.app.SWEEP_EVERY_S", 0.5)
    shoal = start()
    lines = a_ring()
    with live(shoal) as client:
        first = post(client, lines[:30])
        assert shoal._valkey is not None
        pid = shoal._valkey.pid
        os.kill(pid, signal.SIGKILL)
        refused = client.post("/v1/events", content=lines[30])
        assert refused.status_code == 503
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["retry-after"] == "1"
        told = refused.json()
        assert told["title"] == "Unavailable"
        assert "the log cannot be used" in told["detail"]
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert "the log cannot be used: " in ready.json()["detail"]
        assert client.get("/healthz").status_code == 200
        assert "shoal_ready 0.0" in client.get("/metrics").text
        assert client.get("/v1/accounts/honest1").status_code == 503

        deadline = time.monotonic() + 20
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        again = post(client, lines)
        assert [a["status"] for a in again] == ["duplicate"] * 30 + ["new"] * (len(lines) - 30)
        assert [a["decision"] for a in again[:30]] == [a["decision"] for a in first]
        assert client.get("/v1/parity").json()["differing"] == 0


def test_a_log_that_refuses_is_not_acknowledged(start: Start) -> None:
    """A full server refuses the write after the fold: what it did not take must not be known."""
    shoal = start()
    lines = a_ring()
    feed(shoal, lines[:10])
    shoal.client.config_set("maxmemory", 1)
    with pytest.raises(Unavailable, match="the log cannot be used"):
        feed(shoal, lines[10:20])
    with pytest.raises(Unavailable, match="the log cannot be used"):
        feed(shoal, lines[:1])  # a duplicate, but nobody is sure of anything now
    shoal.client.config_set("maxmemory", 0)
    shoal.mend()
    assert shoal.fault is None
    told = feed(shoal, lines)
    assert [a.status for a in told] == ["duplicate"] * 10 + ["new"] * (len(lines) - 10)
    assert parity(shoal).differing == 0


# --- a shared window


def test_two_instances_on_one_valkey_answer_alike(start: Start, tmp_path: Path) -> None:
    lines = a_ring()
    with EmbeddedValkey(tmp_path / "external") as external:
        shared = {"state": external.url, "records_url": f"sqlite:///{tmp_path / 'records.db'}"}
        shutil.copytree(
            start(data="key").folder.path, tmp_path / "one", ignore=shutil.ignore_patterns("valkey")
        )
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        a, b = start(data="one", **shared), start(data="two", **shared)
        first = [
            x
            for i in range(0, len(lines), 2)
            for s, n in ((a, i), (b, i + 1))
            for x in feed(s, lines[n : n + 1])
        ]
        assert {x.status for x in first} == {"new"}
        for shoal in (a, b):
            again = feed(shoal, lines)
            assert [x.status for x in again] == ["duplicate"] * len(lines)
            assert [x.decision for x in again] == [x.decision for x in first]
        changed = one(1, "honest1", "account_signup")
        (told,) = feed(b, [msgspec.json.encode(changed)])
        assert (told.status, told.conflict, told.decision) == ("duplicate", True, first[1].decision)
        twice = feed(a, [msgspec.json.encode(one(901)), msgspec.json.encode(one(901))])
        assert [x.status for x in twice] == ["new", "duplicate"]
        assert twice[1].decision == twice[0].decision

        for shoal in (a, b):
            shoal.mend()
            shoal.look()
        accounts = sorted(a.engine.ledger)
        assert a.engine.ledger == b.engine.ledger
        assert a.engine.ledger["ring1"].cost == 2.5
        np.testing.assert_array_equal(
            [a.vector_of(x) for x in accounts], [b.vector_of(x) for x in accounts]
        )
        assert a.cluster_list() == b.cluster_list() != []
        assert parity(a).differing == 0

        b.close()
        c = start(data="two", **shared)
        assert c.engine.ledger == a.engine.ledger
        assert c.cluster_list() == a.cluster_list()
        assert [x.status for x in feed(c, lines)] == ["duplicate"] * len(lines)
        with pytest.raises(Unavailable, match="embedded"):
            c.erase("ring1")


def test_a_shared_log_has_the_events_in_the_order_of_the_fold(start: Start, tmp_path: Path) -> None:
    first, last = (
        msgspec.json.encode(one(n, "honest1", "login", ip=f"203.0.113.{n}")) for n in (1, 2)
    )
    other = msgspec.json.encode(one(3, "honest2", "login", ip="203.0.113.1"))
    with EmbeddedValkey(tmp_path / "external") as external:
        shoal = start(state=external.url)
        told = feed(shoal, [first, last, first, other])
        assert [x.status for x in told] == ["new", "new", "duplicate", "new"]
        logged = [decode(body).event_id for e in shoal.log.read() for body in e.events]
        assert logged == ["e1", "e2", "e3"]
        assert parity(shoal).differing == 0


def test_a_shared_server_that_goes_away_and_comes_back(start: Start, tmp_path: Path) -> None:
    external = EmbeddedValkey(tmp_path / "external")
    external.start()
    shoal = start(state=external.url)
    lines = a_ring()
    feed(shoal, lines[:20])
    external.stop()
    with pytest.raises(Unavailable, match="the log cannot be used"):
        feed(shoal, lines[20:])
    shoal.mend()
    assert shoal.fault is not None
    external.start()
    shoal.mend()
    assert shoal.fault is None
    told = feed(shoal, lines)
    assert [x.status for x in told] == ["duplicate"] * 20 + ["new"] * (len(lines) - 20)
    shoal.close()
    external.stop()


EARLIER = 30  # events of a ring that were taken before an instance dies
BATCH_COMMANDS = len(a_ring()) - EARLIER + 1  # that admit the rest, and as many ask for profiles
DEATHS = {
    "logged": 0,
    "half admitted": BATCH_COMMANDS // 2,
    "admitted": BATCH_COMMANDS,
    "half profiled": BATCH_COMMANDS * 3 // 2,
    "profiled": BATCH_COMMANDS * 2,
    "half counted": BATCH_COMMANDS * 4,
    "counted": 10**6,
    "answered": 10**6,
}


def dies(shoal: Shoal, lines: list[bytes], where: str) -> None:
    """An instance is given a batch and never heard of again."""

    def killed(*_: Any) -> None:
        raise Killed

    window: Any = shoal.engine.window
    window._client = Mortal(shoal.client, [DEATHS[where]], die)
    if where == "counted":
        shoal._together.answers.keep = killed  # type: ignore[method-assign]
    shoal._record = killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        feed(shoal, lines)
    shoal.fault = "killed"


@pytest.mark.parametrize("by", ["a retry", "another's round", "a restart"])
@pytest.mark.parametrize("where", DEATHS)
def test_a_fold_that_a_dead_instance_began_is_ended_by_another(
    start: Start, tmp_path: Path, where: str, by: str
) -> None:
    """Its events are in the log once, counted once, and answered as one memory window would."""
    lines = a_ring()
    alone = start(data="key")
    told = feed(alone, lines[:EARLIER]) + feed(alone, lines[EARLIER:])
    key = alone.folder.path / "identity.key"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(key, tmp_path / name)
    with EmbeddedValkey(tmp_path / "external", fsync="no") as external:
        shared = {"state": external.url, "records_url": f"sqlite:///{tmp_path / 'records.db'}"}
        a = start(data="one", **shared)
        b = start(data="two", **shared) if by != "a restart" else None
        mark = a.secret.token("prompt", "p3")
        canary = a.records.add_canary(mark, "station").id
        for shoal in (a, b or a):
            shoal.canaries.add(mark)
        feed(a, lines[:EARLIER])
        a.mend()
        dies(a, lines[EARLIER:], where)
        if b is None:
            b = start(data="two", **shared)
        elif by == "another's round":
            b.mend()
            b.mend()
        again = feed(b, lines)
        assert [x.status for x in again] == ["duplicate"] * len(lines)
        if by == "a restart":  # looks at all links before it answers
            assert all(x.decision for x in again)
        else:
            assert [x.decision for x in again] == [x.decision for x in told]
        b.mend()
        b.mend()
        assert b.log.folding() == {}
        assert len(b.records.canary_accounts(canary)) == 1
        ids = [decode(body).event_id for entry in b.log.read() for body in entry.events]
        assert sorted(ids) == sorted(str(x.event_id) for x in told)
        assert b.engine.ledger == alone.engine.ledger
        for account in alone.engine.ledger:
            np.testing.assert_array_equal(b.vector_of(account), alone.vector_of(account))
        assert parity(b).differing == 0
        b.close()


def test_an_instance_that_slept_while_another_answered_gives_that_answer(
    start: Start, tmp_path: Path
) -> None:
    """In the middle of its fold another one is asked for the same events."""
    lines = a_ring()
    with EmbeddedValkey(tmp_path / "external", fsync="no") as external:
        shared = {"state": external.url, "records_url": f"sqlite:///{tmp_path / 'records.db'}"}
        a = start(data="one", **shared)
        (tmp_path / "two").mkdir()
        shutil.copy(tmp_path / "one" / "identity.key", tmp_path / "two")
        b = start(data="two", **shared)
        theirs: list[Answer] = []
        window: Any = a.engine.window
        window._client = Mortal(a.client, [200], lambda: theirs.extend(feed(b, lines)))
        ours = feed(a, lines)
        assert [x.status for x in ours] == ["new"] * len(lines)
        assert [x.status for x in theirs] == ["duplicate"] * len(lines)
        assert [x.decision for x in ours] == [x.decision for x in theirs]
        for shoal in (a, b):
            shoal.mend()
        assert a.engine.ledger == b.engine.ledger
        assert sum(len(entry.events) for entry in a.log.read()) == len(lines)
        assert parity(a).differing == 0
        a.close()
        b.close()


def test_an_entry_that_the_log_lost_is_taken_anew(start: Start, tmp_path: Path) -> None:
    """A failover may cost the stream its end and not what tells of it."""
    lines = a_ring()
    with EmbeddedValkey(tmp_path / "external", fsync="no") as external:
        shoal = start(state=external.url)
        dies(shoal, lines, "logged")
        (lost,) = shoal.log.folding()
        shoal.client.xdel("{shoal:log}", lost)
        again = start(data="again", state=external.url)
        assert again.log.folding() == {}
        assert [x.status for x in feed(again, lines)] == ["new"] * len(lines)
        again.close()


# --- erasure


def test_nothing_is_left_of_an_erased_account(start: Start, tmp_path: Path) -> None:
    shoal = start()
    lines = a_ring()
    feed(shoal, lines)
    shoal.look()
    (found,) = shoal.cluster_list()
    assert "ring3" in found["members"]
    (case,) = shoal.records.list_cases().cases
    assert "ring3" in case.body["members"]
    shoal.records.decide_case(
        case.id, "ann", "suspend", label="abusive", accounts=["ring3", "ring4"]
    )
    shoal.snapshot()
    name = found["cluster_id"]
    proof = shoal.erase("ring3", by="ann")
    assert proof is not None
    assert shoal.erase("ring3") is None

    kept = [decode(body) for entry in shoal.log.read() for body in entry.events]
    assert len(kept) == len(lines) - 3
    assert not any(e.account_id == "ring3" for e in kept)
    assert "ring3" not in shoal.engine.ledger
    nobody = shoal.vector_of("never seen")
    np.testing.assert_array_equal(shoal.vector_of("ring3"), nobody)
    assert list((tmp_path / "data" / "snapshots").iterdir()) == []
    (case,) = shoal.records.list_cases().cases
    assert "ring3" not in str(case.body)
    assert "ring4" in case.body["members"]
    assert [x.account_id for x in shoal.records.labels()] == [None, "ring4"]
    (left,) = shoal.cluster_list()
    assert left["cluster_id"] == name
    assert left["size"] == found["size"] - 1
    assert parity(shoal).differing == 0
    shoal.close()
    files = [p for p in (tmp_path / "data").rglob("*") if p.is_file()]
    assert [p for p in files if b"ring3" in p.read_bytes()] == []

    again = start()
    told = feed(again, lines)
    assert Counter(a.status for a in told) == {"duplicate": len(lines) - 3, "late": 3}


# --- cases survive


def test_a_case_keeps_its_cluster_without_a_snapshot(start: Start) -> None:
    shoal = start()
    lines = a_ring()
    feed(shoal, lines[:-6])  # two members come later
    shoal.look()
    (before,) = shoal.records.list_cases().cases
    feed(shoal, lines)
    shoal.look()
    shoal.fault = "killed"
    shoal.close()
    again = start()
    (after,) = again.records.list_cases().cases
    assert (after.id, after.cluster_id) == (before.id, before.cluster_id)
    assert again.cluster_list()[0]["cluster_id"] == before.cluster_id
