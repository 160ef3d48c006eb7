"""The queue between requests and the engine: bounded, fair, and gathered.

Whoever arrives while a batch is being folded is in the next one, so that single events of many callers
cost as little as a batch and nobody waits for a timer. A few events are folded where they are, on the
event loop: handing them to a thread and back costs a fifth of a request. There the log has a second to
answer (and none where it is another machine's), so that nothing else stops with it. A batch takes an equal
share of everybody who waits, so that one event does not wait for another caller's hundred thousand.
What does not fit is refused at once (503): memory holds what is here and never what is still to come.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from features.event import AnyEvent
from service.problem import busy
from service.shoal import Answer, Earlier, Shoal, Taken

QUEUE_MAX = 200_000  # events waiting
BYTES_MAX = 256 * 2**20  # of bodies that are arriving, being read or waiting
SLICE = 1024  # events folded between two chances for others
# So many are folded on the event loop: on the thread, beside a busy loop, each step that lets go of the
# interpreter waits to get it back, and a few dozen events take ten times as long.
FEW = 64
QUICK_S = 0.02  # unless the last batch took longer (a slow disk, a sweep that holds the lock)

Told = Callable[[Sequence[AnyEvent], Sequence[Answer]], None]


class Room:
    """How many bytes of bodies there are; asked before each piece is kept."""

    def __init__(self) -> None:
        self.taken = 0

    def take(self, size: int) -> None:
        """Raises Problem (503) when there is no room."""
        if self.taken + size > BYTES_MAX:
            raise busy(f"{self.taken} bytes of events are in hand")
        self.taken += size

    def give(self, size: int) -> None:
        self.taken -= size


@dataclass(slots=True, eq=False)
class _Waiting:
    events: list[AnyEvent]
    done: asyncio.Future[list[Answer]]
    answers: list[Answer] = field(default_factory=list)
    earlier: list[Earlier] = field(default_factory=list)

    @property
    def left(self) -> int:
        return len(self.events) - len(self.answers)


class Ingest:
    """Folds on `thread`, looks up what duplicates were answered first on `aside`.

    `told` is called with each batch and its answers, on the event loop.
    """

    def __init__(
        self, shoal: Shoal, thread: ThreadPoolExecutor, aside: ThreadPoolExecutor, told: Told
    ) -> None:
        self._shoal, self._thread, self._aside, self._told = shoal, thread, aside, told
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._quick = False  # until the first batch has shown it
        self.count = 0  # events waiting

    async def put(self, events: list[AnyEvent]) -> list[Answer]:
        """Answers of these events, in order.

        Raises:
            Problem: too many events wait already.
            Unavailable: the log cannot be written.
        """
        if self.count + len(events) > QUEUE_MAX:
            raise busy(f"{self.count} events are waiting")
        asked = _Waiting(events, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        self.count += len(events)
        self._wake.set()
        answers = await asked.done
        if asked.earlier:  # may have to be read out of the archive: nobody else waits for it
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._aside, self._shoal.look_up, asked.earlier)
        return answers

    async def run(self) -> None:
        """Answer whoever waits, for ever."""
        while True:
            await self._wake.wait()
            shares = self._shares()
            events = [e for w, n in shares for e in w.events[len(w.answers) : len(w.answers) + n]]
            try:
                taken = await self._fold(events)
                self._told(events, taken.answers)
            except Exception as problem:  # handed to every caller that waits, who fails with it
                for waiting, _ in shares:
                    self._end(waiting, problem)
            else:
                self._deal(taken, shares)
            if not self._waiting:
                self._wake.clear()

    def _deal(self, taken: Taken, shares: list[tuple[_Waiting, int]]) -> None:
        """Give everybody his answers."""
        earlier = {id(one.answer): one for one in taken.earlier}
        at = 0
        for waiting, n in shares:
            answers = taken.answers[at : at + n]
            at += n
            waiting.answers += answers
            if earlier:
                waiting.earlier += [earlier[id(a)] for a in answers if id(a) in earlier]
            if not waiting.left or waiting.done.done():
                self._end(waiting)

    async def _fold(self, events: list[AnyEvent]) -> Taken:
        began = time.perf_counter()
        lock = self._shoal.lock
        try:
            here = self._quick and len(events) <= FEW and not self._shoal.shared
            if here and lock.acquire(blocking=False):
                try:
                    return self._shoal.take_in(events, hasty=True)
                finally:
                    lock.release()
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._shoal.take_in, events)
        finally:
            self._quick = time.perf_counter() - began < QUICK_S

    def _shares(self) -> list[tuple[_Waiting, int]]:
        """How many events of whom come next: an equal share, and what is over to who came first."""
        share = max(1, SLICE // len(self._waiting))
        taken = [min(w.left, share) for w in self._waiting[:SLICE]]
        over = SLICE - sum(taken)
        shares = []
        for waiting, n in zip(self._waiting, taken, strict=False):
            more = min(over, waiting.left - n)
            over -= more
            shares.append((waiting, n + more))
        return shares

    def _end(self, waiting: _Waiting, problem: Exception | None = None) -> None:
        self._waiting.remove(waiting)
        self.count -= len(waiting.events)
        if waiting.done.done():  # its caller is gone; what is in the log by now stays
            return
        if problem is None:
            waiting.done.set_result(waiting.answers)
        else:
            waiting.done.set_exception(problem)
