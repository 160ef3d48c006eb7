"""What the provider writes down beside the calls, and the imperfect wire it goes over.

Nearly all events are observed as they occur; a few come late (and then carry `observed_at`), a few
twice, a few never. Which ones is decided without looking at the event; calls fare alike (synth/calls.py).
"""

from synth.account import Account
from synth.calls import DELAY_MAX_MS, DELAY_MEDIAN_MS, DELAY_MIN_MS, DELAY_SIGMA, LATE, NEVER, TWICE
from synth.dice import Dice
from synth.exchange import Exchange
from synth.wire import fragment


class Record:
    def __init__(self, dice: Dice, exchange: Exchange) -> None:
        self._dice, self._exchange = dice, exchange

    def tell(
        self, at: int, account: Account, type_: str, said: str = "", /, **fields: object
    ) -> str:
        """One event at `at` (epoch ms); `said` is a ready fragment. Returns the event's id."""
        event_id = f"evt_{self._dice.getrandbits(96):024x}"
        account.told += 1
        self._send(
            at,
            account.n,
            f'{{"event_id":"{event_id}","type":"{type_}","occurred_at":{at}'
            f"{account.head}{said}{fragment(**fields)}",
        )
        return event_id

    def _send(self, at: int, n: int, text: str) -> None:
        luck, tell = self._dice.random(), self._exchange.tell
        if luck >= LATE + TWICE + NEVER:
            tell(at, n, text)
        elif luck < LATE:
            seen = at + self._delay()
            tell(seen, n, f'{text},"observed_at":{seen}')
        elif luck < LATE + TWICE:
            tell(at, n, text)
            tell(at + self._delay(), n, text)

    def _delay(self) -> int:
        delay = self._dice.lognormal(DELAY_MEDIAN_MS, DELAY_SIGMA)
        return int(min(max(delay, DELAY_MIN_MS), DELAY_MAX_MS))
