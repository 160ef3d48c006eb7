"""Who may come in, and how fast."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import gate as g
from service.database import RecordsError
from service.gate import BURST_S, Bucket, Caller, Gate
from service.problem import Problem
from service.records import Records


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    with Records(f"sqlite:///{tmp_path / 'r.db'}", clock=lambda: 1) as kept:
        yield kept


def looks(records: Records, patch: pytest.MonkeyPatch) -> list[None]:
    """One more each time the records are read."""
    counted: list[None] = []
    read = records._read

    def noted():  # type: ignore[no-untyped-def]
        counted.append(None)
        return read()

    patch.setattr(records, "_read", noted)
    return counted


@given(
    rate=st.floats(0.5, 1e5),
    asked=st.lists(st.tuples(st.floats(0, 10), st.integers(1, 1000)), max_size=60),
)
def test_nobody_exceeds_the_rate(rate: float, asked: list[tuple[float, int]]) -> None:
    """What passes never exceeds what the time that went by is good for, and the last batch."""
    clock = Clock()
    bucket, passed, last, began = Bucket(rate, clock), 0, 0, clock.now
    for pause, n in asked:
        clock.now += pause
        if not bucket.wait_s():
            bucket.pay(n)
            passed, last = passed + n, n
        assert passed - last <= (clock.now - began + BURST_S) * rate * (1 + 1e-9)


@given(rate=st.floats(0.5, 1e5), n=st.integers(1, 10**6))
def test_who_waits_as_long_as_told_is_let_in(rate: float, n: int) -> None:
    clock = Clock()
    bucket = Bucket(rate, clock)
    bucket.pay(n)
    clock.now += bucket.wait_s()
    assert bucket.wait_s() == 0


def test_a_key_above_its_rate(records: Records) -> None:
    clock = Clock()
    secret = f"Bearer {records.create_key('ann', ['ingest'])}"
    other = f"Bearer {records.create_key('bob', ['ingest'])}"
    gate = Gate(records, clock, rate=10)
    gate.admit(secret).knock()
    gate.admit(secret).pay(100)
    with pytest.raises(Problem) as told:
        gate.admit(secret).knock()
    assert (told.value.status, told.value.headers) == (429, {"Retry-After": "6"})
    gate.admit(other).knock()  # its own bucket
    clock.now += 6
    gate.admit(secret).knock()


def test_a_key_may_have_a_rate_of_its_own(records: Records) -> None:
    clock = Clock()
    slow = f"Bearer {records.create_key('ann', ['ingest'], rate=2)}"
    gate = Gate(records, clock, rate=1000)
    gate.admit(slow).pay(12)
    with pytest.raises(Problem) as told:
        gate.admit(slow).knock()
    assert told.value.headers == {"Retry-After": "2"}
    for rate in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="above 0"):
            records.create_key("bob", ["ingest"], rate=rate)


def test_everybody_where_there_are_no_keys(records: Records) -> None:
    caller = Gate(records).admit("")
    assert caller == Caller("local")
    for _ in range(1000):
        caller.knock()
        caller.must("admin")


def test_a_revoked_key_ends_at_once_where_it_was_revoked(records: Records) -> None:
    clock = Clock()
    secret = f"Bearer {records.create_key('ann', ['read'])}"
    records.create_key("bob", ["read"])
    gate, elsewhere = Gate(records, clock), Gate(records, clock)
    id = next(k.id for k in records.list_keys() if k.name == "ann")
    for one in (gate, elsewhere):
        assert one.admit(secret).name == "ann"
    records.revoke_key(id)
    gate.revoked(id)
    with pytest.raises(Problem):
        gate.admit(secret)
    assert elsewhere.admit(secret).name == "ann"
    clock.now += g.LIFE_S
    with pytest.raises(Problem):
        elsewhere.admit(secret)


def test_a_new_key_counts_at_once(records: Records) -> None:
    records.create_key("bob", ["read"])
    gate = Gate(records, Clock())
    with pytest.raises(Problem):
        gate.admit("")
    assert gate.admit(f"Bearer {records.create_key('ann', ['read'])}").name == "ann"


def test_guesses_cost_few_looks(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = f"Bearer {records.create_key('bob', ['read'])}"
    gate = Gate(records, Clock())
    assert gate.admit(secret).name == "bob"
    counted = looks(records, monkeypatch)
    for n in range(500):
        with pytest.raises(Problem):
            gate.admit(f"Bearer shoal_{n:016x}_guess")
    assert len(counted) == g.GUESSES
    with pytest.raises(Problem):  # from memory
        gate.recall("Bearer shoal_other_guess")
    assert gate.recall(secret) == gate.admit(secret)
    assert len(counted) == g.GUESSES


def test_wrong_secrets_of_a_key_are_remembered_and_bounded(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(g, "REMEMBERED", 50)
    secret = f"Bearer {records.create_key('bob', ['read'])}"
    gate = Gate(records, Clock())
    for n in range(200):
        with pytest.raises(Problem):
            gate.admit(f"{secret}{n}")
    assert len(gate._named) <= 50
    counted = looks(records, monkeypatch)
    with pytest.raises(Problem):
        gate.admit(f"{secret}199")
    assert not counted
    assert gate.admit(secret).name == "bob"


def test_who_was_let_in_stays_so_while_the_records_are_gone(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    secret = f"Bearer {records.create_key('ann', ['read'])}"
    gate = Gate(records, clock)
    ann = gate.admit(secret)
    with monkeypatch.context() as patch:

        def gone() -> None:
            raise RecordsError("gone")

        patch.setattr(records, "list_keys", gone)
        for _ in range(int(g.STALE_S) - 1):
            clock.now += 1
            assert not gate.fresh
            gate.look()
            assert (gate.recall(secret), gate.lost) == (ann, "gone")
        with pytest.raises(Problem):
            gate.admit("Bearer shoal_other_guess")
        clock.now += 1
        with pytest.raises(RecordsError):
            gate.look()
        assert not gate.fresh
        with pytest.raises(RecordsError):
            gate.admit(secret)
    gate.look()
    assert (gate.recall(secret), gate.lost) == (ann, None)


def test_nobody_waits_for_records_that_hang(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    secret = f"Bearer {records.create_key('ann', ['read'])}"
    gate = Gate(records, clock)
    ann = gate.admit(secret)
    asked, go = threading.Event(), threading.Event()
    list_keys = records.list_keys

    def hang() -> object:
        asked.set()
        assert go.wait(20)
        return list_keys()

    monkeypatch.setattr(records, "list_keys", hang)
    with ThreadPoolExecutor(1) as aside:
        look = aside.submit(gate.look)
        assert asked.wait(20)
        clock.now += g.STALE_S - 1
        assert gate.fresh
        assert gate.recall(secret) is ann
        clock.now += 1
        assert not gate.fresh
        go.set()
        look.result()
    assert gate.fresh
