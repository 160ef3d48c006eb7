"""What was acted on reaches the records, whenever they can be written and however a service ended."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from served import START, Start, a_ring, live, one, post

from features.event import decode
from service import scribe as module
from service.database import RecordsError
from service.records import Decision, Records
from service.scribe import Hit, Scribe
from service.shoal import Shoal, Unavailable


def acted(n: int) -> Decision:
    return Decision(f"e{n}", "a", START + n, "review", 0.5, [{"code": "C"}], "m", "p")


def of_ring(n: int) -> bytes:
    """An event of an account that stands badly once the ring was looked at."""
    return msgspec.json.encode(one(500 + n, f"ring{n % 14}", device_id="shared"))


def feed(shoal: Shoal, lines: list[bytes]) -> None:
    shoal.ingest([decode(line) for line in lines])


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    with Records(f"sqlite:///{tmp_path / 'r.db'}", clock=lambda: 1) as kept:
        yield kept


class Down:
    """Has the records fail from `fail` to `mend`."""

    def __init__(self, records: Records, patch: pytest.MonkeyPatch) -> None:
        self._down = threading.Event()
        for name in ("add_decisions", "hit_canary", "list_keys"):
            patch.setattr(records, name, self._unless_down(getattr(records, name)))

    def _unless_down(self, call: Any) -> Any:
        def called(*args: Any) -> Any:
            if self._down.is_set():
                raise RecordsError("the disk is full")
            return call(*args)

        return called

    def fail(self) -> None:
        self._down.set()

    def mend(self) -> None:
        self._down.clear()


def test_what_is_told_is_written_in_the_order_it_was_told(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 7)
    monkeypatch.setattr(module, "PAUSE_S", 0.01)
    down, scribe = Down(records, monkeypatch), Scribe(records)
    records.add_canary("mark", "station")
    down.fail()
    scribe._thread.start()
    for n in range(50):
        scribe.tell(f"{n + 1}-0", [acted(n)])
    scribe.tell("51-0", [Hit("mark", "a", "e50", 1), Hit("unknown", "a", "e50", 1)])
    assert not scribe.flush(0.1)
    assert scribe.lost == "the disk is full"
    down.mend()
    assert scribe.flush(10)
    scribe.close()
    assert scribe.lost is None
    assert sorted(d.event_id for d in records.decisions_of("a")) == sorted(
        f"e{n}" for n in range(50)
    )
    assert [x.source for x in records.label_history(account_id="a")] == ["canary"]


def test_records_that_are_gone_keep_nobody_from_being_answered(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.01)
    shoal = start()
    feed(shoal, a_ring())
    shoal.look()
    down = Down(shoal.records, monkeypatch)
    with live(shoal) as api:
        down.fail()
        (told,) = post(api, [of_ring(0)])
        assert told["decision"]["action"] == "review"
        deadline = time.monotonic() + 20
        while shoal.scribe.lost is None and time.monotonic() < deadline:
            time.sleep(0.01)
        ready = api.get("/readyz").json()
        assert {"code": "records_lost", "detail": "the disk is full"} in ready["notes"]
        monkeypatch.setattr(module, "WAITING_MAX", 1)
        refused = api.post("/v1/events", content=of_ring(1))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert api.get("/readyz").json()["reasons"][0]["code"] == "records_lost"
        down.mend()
        assert shoal.scribe.flush(10)
        (told,) = post(api, [of_ring(1)])
        assert told["status"] == "new"
        kept = api.get("/v1/accounts/ring0").json()["decisions"]
        assert [d["event_id"] for d in kept] == ["e500"]


@pytest.mark.parametrize("standby", [False, True])
def test_what_nobody_came_to_write_down_is_written_by_the_next_writer(
    start: Start, monkeypatch: pytest.MonkeyPatch, standby: bool
) -> None:
    """A service that dies between its log and its records."""
    shoal = start()
    feed(shoal, a_ring())
    shoal.look()
    feed(shoal, [of_ring(0)])
    assert shoal.scribe.flush(10)
    mark = shoal.records.add_canary(shoal.canary_mark("marked"), "station").mark
    shoal.canaries |= {mark}
    other = start(standby=True) if standby else None
    monkeypatch.setattr(shoal.scribe, "tell", lambda *_: None)
    marked = one(600, "user", "request", status=200, prompt_id="marked")
    feed(shoal, [of_ring(n) for n in range(1, 6)] + [msgspec.json.encode(marked)])
    assert shoal.records.decisions_of("ring1") == []
    shoal.fault = "killed"  # close without a snapshot
    shoal.close()
    again = start() if other is None else other
    for _ in range(50):
        if not again.standby:
            break
        again._stopping.wait(0.2)
    assert again.scribe.flush(10)
    for n in range(6):
        assert [d.event_id for d in again.records.decisions_of(f"ring{n}")] == [f"e{500 + n}"]
    assert [x.source for x in again.records.label_history(account_id="user")] == ["canary"]
    # and how far that is stands in the log, for the one after this
    again.scribe.close()
    assert again.log.written() == again.entries.last


def test_an_erasure_waits_for_what_is_to_be_written(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.01)
    monkeypatch.setattr("service.shoal.FLUSH_S", 0.1)
    shoal = start()
    feed(shoal, a_ring())
    shoal.look()
    down = Down(shoal.records, monkeypatch)
    down.fail()
    feed(shoal, [of_ring(0)])
    with pytest.raises(Unavailable, match="disk is full"):
        shoal.erase("ring0")
    down.mend()
    assert shoal.scribe.flush(10)
    proof = shoal.erase("ring0")
    assert proof is not None
    assert proof.records["decisions"] >= 1
