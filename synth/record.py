"""What the provider writes down. Every event but the request is rendered here."""

from synth.account import Account
from synth.dice import Dice
from synth.feed import Feed
from synth.wire import fragment


class Record:
    def __init__(self, dice: Dice, feed: Feed) -> None:
        self._dice, self._feed = dice, feed

    def tell(
        self, at: int, account: Account, type_: str, said: str = "", /, **fields: object
    ) -> str:
        """One event at `at` (epoch ms); `said` is a ready fragment. Returns the event's id."""
        event_id = f"evt_{self._dice.getrandbits(96):024x}"
        account.events += 1
        self._feed.send(
            at,
            f'{{"event_id":"{event_id}","type":"{type_}","occurred_at":{at}'
            f"{account.head}{said}{fragment(**fields)}",
        )
        return event_id
