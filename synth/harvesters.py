"""Distillation: a model's answers gathered systematically, through many accounts at a low rate.

Programs work through sets of short questions and through templated prompts, a few calls an account
and day. The sets are the ring's own, or public ones, which laboratories put to the models too. Where
a ring's trade is applications, a set is asked in its harness, elsewhere in the program that the trade
is plied with. The pool they call serves ordinary customers as well, who make the mixture look like
anybody's.
"""

from collections.abc import Iterator
from itertools import cycle
from typing import NamedTuple

from synth.account import Account
from synth.agenda import Process
from synth.conversation import Conversation
from synth.cover import Brief
from synth.habits import Tempo, hold
from synth.operators import Operator, Tenure
from synth.people import DAY, HOUR, Person
from synth.pool import Customer
from synth.stage import Stage, Suite
from synth.supply import Supply, ring_sizes

_QUESTIONS = 400  # in the sets of a ring's own; each is asked once and then again from the start
_LISTED = 0.12  # share of harvesting calls that come from a set
_MIXED = 0.5  # ordinary customers an account
_QUESTION = Tempo(1, 1.0, 60, 60, 500)
_LOAD = 1.3  # conversations an account and day


class Program(NamedTuple):
    """What works through a set of questions; programs on one set share its `questions`, by number."""

    person: Person
    questions: Iterator[int]


class Harvester(Operator):
    """One operator, his programs and his cover traffic."""

    plans = (("free", 3.0), ("payg", 4.0), ("pro", 3.0))
    kyc = 0.4

    def __init__(self, stage: Stage, supply: Supply, size: int) -> None:
        super().__init__(stage, supply, size)
        dice = stage.dice
        pool = self.pooled()
        count = max(1, supply.traits.prompt_templates)
        suites = self._suites(count, supply.traits.public_prompts)
        asked = [cycle(suite.questions) for suite in suites]
        self.programs: list[Program] = []
        for _ in range(max(1, size // 2)):
            person, k = stage.people.make(self.market, self.trade), dice.randrange(len(suites))
            if self.trade == "application":
                harness = suites[k].template
                person.rigs = [
                    stage.people.rig(person, person.devices[0], rig.program, harness)
                    for rig in person.rigs
                ]
            self.programs.append(Program(person, asked[k]))
        first = self.start()
        stage.agenda.start(first, pool.tend(first))

    def _suites(self, count: int, public: bool) -> list[Suite]:
        """Public sets, as many as there are at most, or sets of the ring's own."""
        stage = self.stage
        if public:
            return stage.dice.sample(stage.suites, min(count, len(stage.suites)))
        each = max(1, _QUESTIONS // count)
        return [Suite(stage.software.application(), stage.questions(each)) for _ in range(count)]

    def use(self, at: int, account: Account, keeper: Tenure) -> Process:
        """One more account: a share of the programs, and a customer every now and then."""
        stage, dice, pool = self.stage, self.stage.dice, self.pool
        assert pool is not None
        self.add(pool, account, keeper)
        program = dice.pick(self.programs)
        caller = Customer(pool)
        since = at + int(dice.spread(HOUR))
        mean = _LOAD * dice.spread(0.75)
        self.serve(since, program.person, caller, mean * (1 - _LISTED), stage.end)
        stage.agenda.start(since, self._cover(since, program, caller, mean * _LISTED))
        if dice.chance(_MIXED):
            person = self.customer(self.market)
            self.serve(since, person, Customer(pool), 1.5 * mean, stage.end)
        yield from ()

    def _cover(self, at: int, program: Program, caller: Customer, mean: float) -> Process:
        """Question after question of its set, `mean` of them a day."""
        stage, dice = self.stage, self.stage.dice
        while True:
            at += int(dice.expovariate(mean) * DAY)
            if at >= stage.end:
                return
            yield at
            talk = Conversation(dice, dice.pick(program.person.rigs), "")
            question = next(program.questions)
            talk.script = range(question, question + 1)
            hold(stage, at, talk, caller, _QUESTION, 1)


def distillation(stage: Stage, count: int, brief: Brief) -> None:
    """Harvesters with `count` accounts between them."""
    for size in ring_sizes(stage, count, median=10, sigma=1.0):
        Harvester(stage, Supply(stage, "distillation", brief), size)
