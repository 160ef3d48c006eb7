"""Credit farms and SMS farms: accounts opened in bulk for what comes free with them.

A credit farm opens accounts on numbers from an SMS farm and addresses on a few domains; a script
makes some look used; then the grant is drained, through a pool that several customers call or by
the farm's own workers, who do one account after the other. An SMS farm opens them too, with nothing
but a phone, and sells them on: one by one to people who use them a little, or by the hundred to who
rotates them as free keys.
"""

from synth.account import Account
from synth.agenda import Process
from synth.conversation import Conversation
from synth.cover import Brief
from synth.desk import Desk
from synth.habits import Tempo, hold, login
from synth.operators import Operator, Plans, Tenure
from synth.people import DAY, HOUR, MINUTE, Person
from synth.pool import Customer, Pool
from synth.signup import Dossier
from synth.stage import Stage
from synth.supply import Supply, ring_sizes

_CALLS_AN_ACCOUNT = 55  # what a grant is good for, about
_CALLS_A_CONVERSATION = 8
# The ageing script: the same few turns on every account, 8-25 s apart (ADVERSARY.md 2.18).
_STRICT = Tempo(5, 1.0, 40, 40, 160, fast_ms=13_000, spread=0.5)
_LOOSE = _STRICT._replace(fast_ms=26_000, spread=1.0)


class Farm(Operator):
    """One operator, his goods and his workers."""

    plans: Plans = (("free", 0.85), ("payg", 0.15))
    kyc = 0.45

    def __init__(self, stage: Stage, supply: Supply, size: int, *, pooling: float = 0.5) -> None:
        super().__init__(stage, supply, size)
        dice = stage.dice
        self.scripts = [
            stage.exchange.script([stage.prompts[20 + int(120 * dice.random())] for _ in range(5)])
            for _ in range(supply.traits.scripts)
        ]
        self.workers = [
            stage.people.make(dice.pick(supply.countries))
            for _ in range(max(1, size // dice.randint(2, 5)))
        ]
        for worker in self.workers:
            worker.workspaces = supply.places(worker.workspaces)
        pool = self.pooled() if dice.chance(pooling) else None
        first = self.start()
        if pool:
            self._sell(pool, first)

    def _sell(self, pool: Pool, since: int) -> None:
        """Let customers call the pool about as often as the grants allow."""
        stage, dice, supply = self.stage, self.stage.dice, self.supply
        customers = self.size * dice.randint(1, 2)
        days = max(0.5, (stage.end - since) / DAY) / 2  # they come one after the other
        calls = self.size * _CALLS_AN_ACCOUNT * supply.traits.credit_share
        mean = calls / _CALLS_A_CONVERSATION / customers / days
        for _ in range(customers):
            person = self.customer(self.market if dice.chance(0.9) else None)
            begin = stage.moment(0.0, 0.9)
            self.serve(max(begin, since + HOUR), person, Customer(pool), mean * dice.spread(0.75),
                       stage.end)  # fmt: skip
        stage.agenda.start(since, pool.tend(since))

    def opened(self, at: int, account: Account, dossier: Dossier) -> Process:
        """The same few turns on every aged account, so that it looks used."""
        stage, dice, supply = self.stage, self.stage.dice, self.supply
        if not dice.chance(supply.traits.aged):
            return
        at += int(45_000 + dice.random() * 135_000)
        yield at
        rig = stage.people.rig(self.workers[0], dossier.device, stage.software.program("web"))
        talk = Conversation(dice, rig, "")
        talk.script = dice.pick(self.scripts)
        desk = Desk(stage, account, dossier.egress, intercepts=True)
        tempo = _LOOSE if supply.traits.scripts > 1 else _STRICT
        hold(stage, at, talk, desk, tempo, len(talk.script))
        yield at + 3 * MINUTE

    def use(self, at: int, account: Account, keeper: Tenure) -> Process:
        if self.pool:
            self.add(self.pool, account, keeper)
        else:
            self.drain(at, account, keeper)
        yield from ()

    def drain(self, at: int, account: Account, keeper: Tenure) -> None:
        """A worker uses the account up within a few days."""
        stage, dice, profile = self.stage, self.stage.dice, keeper.profile
        worker: Person = dice.pick(self.workers)
        egress = profile.egress if profile else self.supply.door()
        device = profile.device if profile else dice.pick(worker.devices)
        if profile:
            worker = stage.people.moved(worker, profile)
        login(stage, at, account, egress.fragment() + device.said())
        until = min(stage.end, at + int(dice.spread(2.2 * DAY) * self.supply.traits.credit_share))
        desk = Desk(stage, account, egress)
        self.serve(at, worker, desk, 1.6 + dice.spread(2.0), until)


class SmsFarm(Farm):
    """Opens with a phone and little else; what it opens is sold on."""

    plans = (("free", 0.85), ("payg", 0.1), ("pro", 0.05))
    kyc = 0.3

    def __init__(self, stage: Stage, supply: Supply, size: int) -> None:
        super().__init__(stage, supply, size, pooling=0.4)

    def drain(self, at: int, account: Account, keeper: Tenure) -> None:
        """The buyer uses it as a person does."""
        self.sell(at, keeper, market=0.6, doors=0.3)


def credit_farm(stage: Stage, count: int, brief: Brief) -> None:
    """Farms with `count` accounts between them."""
    for size in ring_sizes(stage, count):
        Farm(stage, Supply(stage, "credit_farm", brief, pools=False), size)


def sms_farm(stage: Stage, count: int, brief: Brief) -> None:
    """SMS farms with `count` accounts between them."""
    for size in ring_sizes(stage, count, median=12):
        SmsFarm(stage, Supply(stage, "sms_farm", brief, pools=False), size)
