"""The imperfect wire between what happened and what is observed.

Events come out in the order in which they are observed. Nearly all are observed as they occur; a
few come late (and then carry `observed_at`), a few twice, a few never. Which ones is decided
without looking at the event.
"""

from bisect import bisect_right
from collections.abc import Iterator
from operator import itemgetter

from synth.dice import Dice

LATE = 0.010
TWICE = 0.004
NEVER = 0.003
_DELAY_MEDIAN_MS = 25 * 60_000
_DELAY_SIGMA = 1.2
_DELAY_MAX_MS = 24 * 3_600_000
_time = itemgetter(0)


class Feed:
    def __init__(self, dice: Dice, until: int) -> None:
        self._dice = dice
        self._until = until
        self._waiting: list[tuple[int, str]] = []

    def send(self, at: int, text: str) -> None:
        """Take an event that occurs at `at`: its JSON text without the closing brace."""
        luck = self._dice.random()
        if luck >= LATE + TWICE + NEVER:
            self._waiting.append((at, text))
        elif luck < LATE:
            seen = at + self._delay()
            self._waiting.append((seen, f'{text},"observed_at":{seen}'))
        elif luck < LATE + TWICE:
            self._waiting.append((at, text))
            self._waiting.append((at + self._delay(), text))

    def _delay(self) -> int:
        delay = self._dice.lognormal(_DELAY_MEDIAN_MS, _DELAY_SIGMA)
        return int(min(max(delay, 20_000), _DELAY_MAX_MS))

    def drain(self, until: int) -> Iterator[bytes]:
        """What is observed up to `until`, in order. What would be observed after the end is not."""
        waiting = self._waiting
        waiting.sort()
        due = bisect_right(waiting, until, key=_time)
        self._waiting = waiting[due:]
        for _, text in waiting[:due]:
            yield (text + "}\n").encode()
