"""Decisions as server-sent events: each once, in order, and what is missing is said."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import Process, Start, a_ring, live, one, post

from detector.decision import Decision
from detector.policy import Action
from features.event import convert
from service import stream
from service.problem import Problem
from service.shoal import Answer
from service.stream import Decisions, Listening

STREAM = "/v1/decisions/stream"


def put(decisions: Decisions, first: int, actions: list[str], status: str = "new") -> None:
    events = [convert(one(first + k)) for k in range(len(actions))]
    answers = [
        Answer(e.event_id, status, Decision(a, 0.5, "high", [], None, None, "p"))
        for e, a in zip(events, actions, strict=True)
    ]
    decisions.put(events, answers)


def messages(text: bytes) -> list[dict[str, str]]:
    """The messages of an event stream, comments left out (the standard's own rules, in short)."""
    told = []
    for block in text.decode().split("\n\n"):
        fields = [line.partition(": ") for line in block.splitlines() if not line.startswith(":")]
        if fields:
            told.append({name: value for name, _, value in fields})
    return told


def ids(text: bytes) -> list[str]:
    return [msgspec.json.decode(m["data"])["event_id"] for m in messages(text) if "id" in m]


ACTIONS = [a.name for a in Action]


@given(
    batches=st.lists(st.lists(st.sampled_from(ACTIONS), max_size=8), max_size=8),
    kept=st.integers(1, 40),
    at=st.integers(0, 70),
    least=st.sampled_from([a for a in Action if a > Action.allow]),
)
def test_a_reader_gets_what_is_kept_from_its_place_on(
    batches: list[list[str]], kept: int, at: int, least: Action
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "KEPT", kept)
        patch.setattr(stream, "PIECE", 3)
        decisions = Decisions()
        acted: list[tuple[str, str]] = []
        for number, batch in enumerate(batches):
            put(decisions, 100 * number, batch)
            put(decisions, 100 * number, batch, status="duplicate")
            acted += [(f"e{100 * number + k}", a) for k, a in enumerate(batch) if a != "allow"]
        place, gap = decisions.after(f"{decisions.run}-{at}")
        assert gap == (not len(acted) - kept <= at <= len(acted))
        told, text = b"", b"."
        while place < decisions.next:
            text, place = decisions.read(place, least)
            told += text
    lost = max(0, len(acted) - kept)
    wanted = acted[lost:] if gap else acted[at:]
    assert ids(told) == [e for e, a in wanted if Action[a] >= least]


@pytest.mark.parametrize("last", ["", None, "x", "other-1", "-", "zz-9", "1", "é-1"])
def test_ids_of_others(last: str | None) -> None:
    decisions = Decisions()
    put(decisions, 0, ["review"] * 3)
    assert decisions.after(last) == ((1, True) if last else (4, False))
    assert decisions.after(f"{decisions.run}-²") == (1, True)
    assert decisions.after(f"{decisions.run}-{10**30}") == (1, True)


def listened(
    decisions: Decisions, steps: Any, reads: bool = True, last_id: str | None = None
) -> bytes:
    """What a listener got while `steps` ran."""
    got: list[bytes] = []

    async def main() -> None:
        left = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if not reads:
                await asyncio.sleep(3600)
            got.append(message.get("body", b""))

        async def welcome() -> bool:
            return True

        answer = Listening(decisions, last_id, Action.challenge, welcome)
        task = asyncio.create_task(answer({"type": "http"}, receive, send))
        await steps(left)
        async with asyncio.timeout(10):
            await task
        assert decisions.listeners == 0

    asyncio.run(main())
    return b"".join(got)


def test_a_listener_hears_what_is_decided() -> None:
    decisions = Decisions()

    async def steps(left: asyncio.Event) -> None:
        await asyncio.sleep(0.02)
        assert decisions.listeners == 1
        for n in range(3):
            put(decisions, n, ["suspend"])
            await asyncio.sleep(0.02)
        decisions.close()

    put(decisions, 90, ["review"])  # before it listened
    assert ids(listened(decisions, steps)) == ["e0", "e1", "e2"]


def test_who_falls_behind_is_told_and_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "KEPT", 5)
    decisions = Decisions()

    async def steps(left: asyncio.Event) -> None:
        await asyncio.sleep(0.02)
        put(decisions, 0, ["review"] * 20)

    told = messages(listened(decisions, steps))
    assert [m["event"] for m in told] == ["dropped"]


def test_who_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SEND_S", 0.05)
    decisions = Decisions()

    async def steps(left: asyncio.Event) -> None:
        await asyncio.sleep(0.01)

    assert listened(decisions, steps, reads=False) == b""


def test_who_leaves_is_noticed_at_the_next_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.05)
    decisions = Decisions()

    async def steps(left: asyncio.Event) -> None:
        await asyncio.sleep(0.2)
        left.set()

    assert b": alive\n\n" in listened(decisions, steps)


def test_so_many_may_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LISTENERS_MAX", 0)
    with pytest.raises(Problem, match="listen already") as told:
        Listening(Decisions(), None, Action.review, None)  # type: ignore[arg-type]
    assert told.value.status == 503


# --- over HTTP


@contextmanager
def listening(api: httpx.Client, **headers: str) -> Iterator[Callable[[int], list[dict[str, str]]]]:
    """`heard(n)` waits for n messages of the stream of a service; ids and all."""
    with (
        httpx.Client(base_url=api.base_url, timeout=20) as client,
        client.stream("GET", STREAM, headers=headers) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        pieces, text = response.iter_raw(), b""

        def heard(n: int) -> list[dict[str, str]]:
            nonlocal text
            while len(messages(text)) < n:
                text += next(pieces)
            return messages(text)

        assert heard(0) == []
        text += next(pieces)  # the welcome
        yield heard


def acted_on(api: httpx.Client, first: int, n: int) -> None:
    for k in range(n):
        answer = api.post("/v1/events", json=one(first + k, f"ring{k}")).json()
        assert answer["decision"]["action"] == "review"


def test_from_event_to_listener(start: Start) -> None:
    """A ring is acted on at its next events; who comes back with the last id hears the rest."""
    with live(start()) as api:
        post(api, a_ring())
        api.post("/v1/sweep").raise_for_status()
        with listening(api) as heard:
            api.post("/v1/events", json=one(800, "honest1"))  # allowed: not in the stream
            acted_on(api, 900, 2)
            api.post("/v1/events", json=one(900, "ring0"))  # a duplicate
            acted_on(api, 910, 1)
            told = heard(3)
        data = [msgspec.json.decode(m["data"]) for m in told]
        assert [d["event_id"] for d in data] == ["e900", "e901", "e910"]
        assert {m["event"] for m in told} == {"decision"}
        assert (data[0]["account_id"], data[0]["decision"]["action"]) == ("ring0", "review")
        assert data[0]["decision"]["reasons"]
        with listening(api, **{"last-event-id": told[0]["id"]}) as heard:
            assert heard(2) == told[1:]
        with listening(api, **{"last-event-id": "another-7"}) as heard:
            assert [m["event"] for m in heard(4)] == ["gap", *["decision"] * 3]
        refused = api.get(STREAM, params={"action": "allow"})
        assert refused.status_code == 422


def test_a_listener_with_a_revoked_key_is_sent_away(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.1)
    shoal = start()
    boss = {"authorization": f"Bearer {shoal.records.create_key('boss', ['admin'])}"}
    secret = shoal.records.create_key("ann", ["read"])
    with live(shoal) as api:
        (mine,) = (
            k for k in api.get("/v1/keys", headers=boss).json()["keys"] if k["name"] == "ann"
        )
        with listening(api, authorization=f"Bearer {secret}") as heard:
            told = api.delete(f"/v1/keys/{mine['id']}", headers=boss)
            assert told.json()["revoked_at"]
            with pytest.raises(StopIteration):
                heard(1)
        assert (
            api.get("/v1/cases", headers={"authorization": f"Bearer {secret}"}).status_code == 401
        )


def test_a_service_with_listeners_stops_at_once(tmp_path: Path) -> None:
    with Process(tmp_path / "data") as service, listening(service.client):
        began = time.monotonic()
        service.signal(signal.SIGTERM)
        assert service.ended() == 0
        assert time.monotonic() - began < 8  # the server would wait ten seconds for a listener
