"""Who acts next: a discrete-event clock.

A *process* is a generator that yields the time (epoch ms) at which it wants to go on. The agenda
holds one entry a living process and wakes the earliest, so that memory follows the number of
actors and not the number of events, and what one actor does at noon can depend on everything that
any actor did before noon.

Only what is due in the current slot is in order, in a heap that stays small; the rest waits by slots.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterator

Process = Iterator[int]

SLOT_MS = 15 * 60_000


class Agenda:
    def __init__(self) -> None:
        self.now = 0
        self._slot = 0
        self._heap: list[tuple[int, int, Process]] = []
        self._later: dict[int, list[tuple[int, int, Process]]] = defaultdict(list)  # by slot
        self._ticket = 0

    def start(self, at: int, process: Process) -> None:
        """Wake `process` for the first time at `at`, or now if that has passed."""
        self._ticket += 1
        self._put(max(self.now, at), self._ticket, process)

    def _put(self, at: int, ticket: int, process: Process) -> None:
        slot = at // SLOT_MS
        if slot <= self._slot:
            heapq.heappush(self._heap, (at, ticket, process))
        else:
            self._later[slot].append((at, ticket, process))

    def run(self, until: int) -> None:
        """Let everything happen that is due up to `until`."""
        heap, pop = self._heap, heapq.heappop
        self._slot = until // SLOT_MS
        for slot in [slot for slot in self._later if slot <= self._slot]:
            heap += self._later.pop(slot)
        heapq.heapify(heap)
        while heap and heap[0][0] <= until:
            now, ticket, process = pop(heap)
            self.now = now
            wake = next(process, None)
            if wake is not None:
                self._put(max(now, wake), ticket, process)
        self.now = until
