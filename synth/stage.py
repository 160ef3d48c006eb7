"""What every actor of a world stands on: the clock, the dice, the goods, the provider."""

from synth.account import Account, Truth
from synth.agenda import Agenda
from synth.books import Book
from synth.clients import Software
from synth.conversation import Line
from synth.dice import Dice
from synth.feed import Feed
from synth.geography import AddressPlan
from synth.goods import Market
from synth.people import People
from synth.pools import Pools
from synth.provider import Provider
from synth.record import Record
from synth.wire import fragment


class Stage:
    """Built once a world, in a fixed order from one seed."""

    def __init__(self, seed: int, start: int, end: int, size: int) -> None:
        self.start, self.end, self.size = start, end, size
        self.dice = Dice(seed)
        self.pools = Pools.fill(seed)
        self.plan = AddressPlan(self.dice)
        self.software = Software(self.dice)
        self.market = Market(self.dice, self.plan, self.pools, size // 200)
        self.people = People(self.dice, self.plan, self.pools, self.software, start, size)
        # Short prompts that everybody types, the commonest first.
        self.prompts = [fragment(prompt_id=self.dice.token()) for _ in range(160)]
        self.agenda = Agenda()
        self.feed = Feed(self.dice, end)
        self.record = Record(self.dice, self.feed)
        self.provider = Provider(self.dice, self.agenda, self.record, start, end)
        self.line = Line(self.dice, self.provider, self.feed)
        self.roster: list[Account] = []
        self.books: list[Book] = []

    def account(self, plan: str, truth: Truth, org_id: str | None = None) -> Account:
        """A new account on the roster. Without a group of its own it is its own group."""
        account = Account(self.dice, plan, truth, org_id)
        self.roster.append(account)
        return account

    def moment(self, low: float = 0.0, high: float = 1.0) -> int:
        """A uniform time between two fractions of the span."""
        return int(self.start + (low + (high - low) * self.dice.random()) * (self.end - self.start))
