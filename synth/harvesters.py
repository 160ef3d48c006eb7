"""Distillation: a model's answers gathered systematically, through many accounts at a low rate.

Programs work through a list of short questions and through templated prompts, a few calls an
account and day. Both are the ring's own, or those of public sets of questions, which laboratories
put to the models too. The pool they call serves ordinary customers as well, who make the mixture
look like anybody's.
"""

from synth.account import Account
from synth.agenda import Process
from synth.conversation import Conversation
from synth.cover import Brief
from synth.habits import Tempo, hold
from synth.operators import Operator, Tenure
from synth.people import DAY, HOUR, Person
from synth.pool import Customer
from synth.stage import Stage
from synth.supply import Supply, ring_sizes
from synth.wire import fragment

_QUESTIONS = 400  # on a list of a ring's own; each is asked once and then again from the start
_LISTED = 0.12  # share of harvesting calls that come from the list
_MIXED = 0.5  # ordinary customers an account
_QUESTION = Tempo(1, 1.0, 60, 60, 500)
_LOAD = 1.3  # conversations an account and day


class Harvester(Operator):
    """One operator, his programs and his cover traffic."""

    plans = (("free", 3.0), ("payg", 4.0), ("pro", 3.0))
    kyc = 0.4

    def __init__(self, stage: Stage, supply: Supply, size: int) -> None:
        super().__init__(stage, supply, size)
        dice = stage.dice
        pool = self.pooled()
        sets = range(supply.traits.prompt_templates)
        suites = [dice.pick(stage.suites) for _ in sets] if supply.traits.public_prompts else []
        templates = [suite.template for suite in suites] or [
            stage.software.application() for _ in sets
        ]
        self.programs: list[Person] = []
        for _ in range(max(1, size // 2)):
            program = stage.people.make(self.market, self.trade)
            if self.trade == "application":
                program.rigs = [
                    stage.people.rig(program, program.devices[0], rig.program, dice.pick(templates))
                    for rig in program.rigs
                ]
            self.programs.append(program)
        self._list = [q for suite in suites for q in suite.questions] or stage.exchange.script(
            [fragment(prompt_id=dice.token()) for _ in range(_QUESTIONS)]
        )
        self._next = 0
        first = self.start()
        stage.agenda.start(first, pool.tend(first))

    def use(self, at: int, account: Account, keeper: Tenure) -> Process:
        """One more account: a share of the programs, and a customer every now and then."""
        stage, dice, pool = self.stage, self.stage.dice, self.pool
        assert pool is not None
        self.add(pool, account, keeper)
        program = dice.pick(self.programs)
        caller = Customer(pool)
        since = at + int(dice.spread(HOUR))
        mean = _LOAD * dice.spread(0.75)
        self.serve(since, program, caller, mean * (1 - _LISTED), stage.end)
        stage.agenda.start(since, self._cover(since, program, caller, mean * _LISTED))
        if dice.chance(_MIXED):
            person = self.customer(self.market)
            self.serve(since, person, Customer(pool), 1.5 * mean, stage.end)
        yield from ()

    def _cover(self, at: int, program: Person, caller: Customer, mean: float) -> Process:
        """Question after question of the list, `mean` of them a day."""
        stage, dice = self.stage, self.stage.dice
        while True:
            at += int(dice.expovariate(mean) * DAY)
            if at >= stage.end:
                return
            yield at
            talk = Conversation(dice, dice.pick(program.rigs), "")
            prompt = self._list[self._next % len(self._list)]
            talk.script = range(prompt, prompt + 1)
            self._next += 1
            hold(stage, at, talk, caller, _QUESTION, 1)


def distillation(stage: Stage, count: int, brief: Brief) -> None:
    """Harvesters with `count` accounts between them."""
    for size in ring_sizes(stage, count, median=10, sigma=1.0):
        Harvester(stage, Supply(stage, "distillation", brief), size)
