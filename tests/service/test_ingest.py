"""The queue before the engine: every caller gets its own answers, in order, whatever is gathered."""

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import one

from features.event import AnyEvent, convert
from service import ingest as queue
from service.ingest import Ingest, Room
from service.problem import Problem
from service.shoal import Answer, Taken, Unavailable


def events(caller: int, n: int) -> list[AnyEvent]:
    return [convert(one(k, f"a{caller}") | {"event_id": f"{caller}-{k}"}) for k in range(n)]


class Engine:
    """Stands for a Shoal: answers after `gate` is open, and keeps what it was given."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.shared = False
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[str]] = []
        self.problem: Exception | None = None

    def take_in(self, given: list[AnyEvent], hasty: bool = False) -> Taken:
        assert self.gate.wait(20)
        if self.problem is not None:
            raise self.problem
        self.batches.append([e.event_id for e in given])
        return Taken([Answer(e.event_id, "new") for e in given], [])


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


def played(
    engine: Engine,
    thread: ThreadPoolExecutor,
    play: Callable[[Ingest], Awaitable[Any]],
) -> Any:
    """`play` beside a running queue."""

    async def main() -> Any:
        ingest = Ingest(engine, thread, thread, lambda *_: None)  # type: ignore[arg-type]
        running = asyncio.create_task(ingest.run())
        try:
            async with asyncio.timeout(30):
                return await play(ingest)
        finally:
            running.cancel()
            assert ingest.count == 0

    return asyncio.run(main())


@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=30), slice_=st.integers(1, 40))
def test_everybody_gets_their_own_answers(sizes: list[int], slice_: int) -> None:
    """Callers of any size at once, against any slice: nothing lost, swapped or out of order."""
    engine = Engine()

    async def play(ingest: Ingest) -> list[list[Answer]]:
        asked = [ingest.put(events(c, n)) for c, n in enumerate(sizes)]
        return await asyncio.gather(*asked)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as thread:
        patch.setattr(queue, "SLICE", slice_)
        told = played(engine, thread, play)
    for caller, (answers, n) in enumerate(zip(told, sizes, strict=True)):
        assert [a.event_id for a in answers] == [f"{caller}-{k}" for k in range(n)]
    assert all(len(b) <= slice_ for b in engine.batches)
    folded = [id for batch in engine.batches for id in batch]
    assert len(folded) == len(set(folded)) == sum(sizes)
    for caller in range(len(sizes)):
        mine = [int(id.split("-")[1]) for id in folded if id.split("-")[0] == str(caller)]
        assert mine == sorted(mine)


def test_who_arrives_meanwhile_is_gathered(thread: ThreadPoolExecutor) -> None:
    engine = Engine()

    async def play(ingest: Ingest) -> None:
        engine.gate.clear()
        first = asyncio.create_task(ingest.put(events(0, 1)))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(ingest.put(events(c, 1))) for c in range(1, 100)]
        await asyncio.sleep(0.05)
        engine.gate.set()
        await asyncio.gather(first, *others)

    played(engine, thread, play)
    assert [len(b) for b in engine.batches] == [1, 99]


def test_one_event_does_not_wait_for_a_hundred_thousand(thread: ThreadPoolExecutor) -> None:
    engine = Engine()

    async def play(ingest: Ingest) -> None:
        large = asyncio.create_task(ingest.put(events(0, 10 * queue.SLICE)))
        await asyncio.sleep(0)
        await ingest.put(events(1, 1))
        assert len(engine.batches) <= 3
        assert not large.done()
        await large

    played(engine, thread, play)


def test_what_does_not_fit_is_refused_and_the_rest_is_answered(
    thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "QUEUE_MAX", 100)
    engine = Engine()

    async def play(ingest: Ingest) -> None:
        engine.gate.clear()
        asked = [asyncio.create_task(ingest.put(events(c, 30))) for c in range(5)]
        await asyncio.sleep(0.1)
        assert ingest.count == 90
        refused = [t for t in asked if t.done()]
        assert len(refused) == 2
        for task in refused:
            with pytest.raises(Problem) as told:
                task.result()
            assert (told.value.status, told.value.headers) == (503, {"Retry-After": "1"})
        engine.gate.set()
        assert [len(await t) for t in asked if t not in refused] == [30, 30, 30]
        assert len(await ingest.put(events(9, 100))) == 100  # room again

    played(engine, thread, play)


def test_a_log_that_is_lost_is_told_to_those_who_waited_and_to_nobody_else(
    thread: ThreadPoolExecutor,
) -> None:
    engine = Engine()

    async def play(ingest: Ingest) -> None:
        engine.problem = Unavailable("the log is gone")
        for n in (1, 3 * queue.SLICE):
            with pytest.raises(Unavailable):
                await ingest.put(events(0, n))
        engine.problem = None
        assert len(await ingest.put(events(1, 2))) == 2

    played(engine, thread, play)


def test_a_caller_who_leaves_harms_nobody(thread: ThreadPoolExecutor) -> None:
    engine = Engine()

    async def play(ingest: Ingest) -> None:
        engine.gate.clear()
        asked = [asyncio.create_task(ingest.put(events(c, 3000))) for c in range(6)]
        await asyncio.sleep(0.05)
        for n in (0, 3):
            asked[n].cancel()
        engine.gate.set()
        told = await asyncio.gather(*asked, return_exceptions=True)
        assert [t if isinstance(t, BaseException) else len(t) for t in told[1:3]] == [3000, 3000]
        assert isinstance(told[0], asyncio.CancelledError)

    played(engine, thread, play)


@pytest.mark.parametrize(
    ("quick_s", "wanted"), [(60.0, [False, True, False, True, False]), (0.0, [False] * 5)]
)
def test_few_are_folded_on_the_loop_unless_that_is_slow(
    thread: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    quick_s: float,
    wanted: list[bool],
) -> None:
    monkeypatch.setattr(queue, "QUICK_S", quick_s)
    engine = Engine()
    here, where = threading.get_ident(), []
    ingest_of = engine.take_in

    def noted(given: list[AnyEvent], hasty: bool = False) -> Taken:
        where.append(threading.get_ident() == here)
        assert hasty == where[-1]
        return ingest_of(given)

    monkeypatch.setattr(engine, "take_in", noted)

    async def play(ingest: Ingest) -> None:
        for n in (1, 1, queue.FEW + 1, 1):
            await ingest.put(events(0, n))
        with ThreadPoolExecutor(1) as other:  # a sweep that looks at the window
            other.submit(engine.lock.acquire).result()
            await ingest.put(events(0, 1))
            other.submit(engine.lock.release).result()

    played(engine, thread, play)
    assert where == wanted


def test_room_is_given_back() -> None:
    room, rng, held = Room(), random.Random(1), []
    refused = 0
    for _ in range(1000):
        size = rng.randrange(64 * 2**20)
        fits = sum(held) + size <= queue.BYTES_MAX
        if fits:
            room.take(size)
            held.append(size)
        else:
            refused += 1
            with pytest.raises(Problem, match="in hand"):
                room.take(size)
            room.give(held.pop(rng.randrange(len(held))))
        assert room.taken == sum(held)
    assert refused
