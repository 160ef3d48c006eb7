"""Who acts next: a discrete-event clock.

A *process* is a generator that yields the time (epoch ms) at which it wants to go on. The agenda
holds one heap entry a living process and wakes the earliest, so that memory follows the number of
actors and not the number of events, and what one actor does at noon can depend on everything that
any actor did before noon.
"""

import heapq
from collections.abc import Iterator

Process = Iterator[int]


class Agenda:
    def __init__(self) -> None:
        self.now = 0
        self._heap: list[tuple[int, int, Process]] = []
        self._ticket = 0

    def start(self, at: int, process: Process) -> None:
        """Wake `process` for the first time at `at`, or now if that has passed."""
        self._ticket += 1
        heapq.heappush(self._heap, (max(self.now, at), self._ticket, process))

    def run(self, until: int) -> None:
        """Let everything happen that is due up to `until`."""
        heap, replace, pop = self._heap, heapq.heapreplace, heapq.heappop
        while heap and heap[0][0] <= until:
            now, ticket, process = heap[0]
            self.now = now
            wake = next(process, None)
            # What the process has started is due now or later and has a higher ticket: the
            # process itself is still the first of the heap.
            if wake is None:
                pop(heap)
            else:
                replace(heap, (max(now, wake), ticket, process))
        self.now = until
