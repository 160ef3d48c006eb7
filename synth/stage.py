"""What every actor of a world stands on: the clock, the dice, the goods, the provider."""

from collections.abc import Callable
from typing import NamedTuple

from synth.account import Account, Truth
from synth.agenda import Agenda
from synth.books import Book
from synth.clients import Software, Template
from synth.dice import Dice
from synth.exchange import Exchange
from synth.geography import AddressPlan
from synth.goods import Market
from synth.people import People
from synth.pools import Pools
from synth.provider import Provider, incidents
from synth.record import Record
from synth.wire import fragment

_SUITES = 4
_QUESTIONS = 240


class Suite(NamedTuple):
    """A set of questions with its harness. Those of the stage are public: unrelated people put them to the models."""

    template: Template
    questions: range  # their numbers


class Stage:
    """Built once a world, in a fixed order from one seed."""

    def __init__(self, seed: int, start: int, end: int, size: int) -> None:
        self.seed, self.start, self.end, self.size = seed, start, end, size
        self.dice = Dice(seed)
        self.pools = Pools.fill(seed)
        self.plan = AddressPlan(self.dice)
        self.software = Software(self.dice)
        self.market = Market(self.dice, self.plan, self.pools, size // 200)
        self.people = People(self.dice, self.plan, self.pools, self.software, start, size)
        # Short prompts that everybody types, the commonest first.
        self.prompts = [fragment(prompt_id=self.dice.token()) for _ in range(160)]
        self.agenda = Agenda()
        self.exchange = Exchange(self.dice, incidents(self.dice, start, end), self.prompts)
        self.suites = [self._suite() for _ in range(_SUITES)]
        self.record = Record(self.dice, self.exchange)
        self.provider = Provider(self.dice, self.agenda, self.record)
        self.roster: list[Account] = []
        self.books: list[Book] = []
        # who is told, and when (epoch ms), that a seat of the exchange will serve no more
        self.on_loss: dict[int, Callable[[int], None]] = {}

    def _suite(self) -> Suite:
        questions = self.questions(_QUESTIONS)
        return Suite(Template.make(self.dice, 700, tools=False), questions)

    def questions(self, count: int) -> range:
        """The numbers of this many new set prompts."""
        return self.exchange.script([fragment(prompt_id=self.dice.token()) for _ in range(count)])

    def account(self, plan: str, truth: Truth, org_id: str | None = None) -> Account:
        """A new account on the roster. Without a group of its own it is its own group."""
        account = Account(self.dice, self.exchange, plan, truth, org_id)
        self.roster.append(account)
        return account

    def moment(self, low: float = 0.0, high: float = 1.0) -> int:
        """A uniform time between two fractions of the span."""
        return int(self.start + (low + (high - low) * self.dice.random()) * (self.end - self.start))

    def pass_time(self, until: int) -> None:
        """Let everything happen up to `until`: first what people decide, then their calls."""
        self.agenda.run(until)
        for _, seat, at in self.exchange.play(until):
            if seat in self.on_loss:
                self.on_loss[seat](at)
