"""Credit farms: accounts opened in bulk for what comes free with them.

Numbers from an SMS farm, addresses on a few domains, a script that makes a new account look used;
then the grant is drained, either through a pool that several customers call or by the farm's own
workers, who do one account after the other.
"""

from synth import calls as c
from synth.account import Account
from synth.agenda import Process
from synth.conversation import Conversation
from synth.geography import Egress
from synth.habits import Tempo, direct, hold, login, routine
from synth.people import DAY, HOUR, MINUTE, Person
from synth.pool import Customer, Pool
from synth.signup import Dossier, sign_up
from synth.stage import Stage
from synth.supply import Supply, ring_sizes
from synth.traits import traits

_VETERANS = 0.22
_LIFE_DAYS = 16.0
_CALLS_AN_ACCOUNT = 55  # what a grant is good for, about
_CALLS_A_CONVERSATION = 8
# The ageing script: the same few turns on every account, 8-25 s apart (ADVERSARY.md 2.18).
_STRICT = Tempo(5, 1.0, 40, 40, 160, fast_ms=13_000, spread=0.5)
_LOOSE = _STRICT._replace(fast_ms=26_000, spread=1.0)


class Desk:
    """The farm's own caller: one worker's machine on one account's egress."""

    seat = customer = c.NONE

    def __init__(
        self, stage: Stage, account: Account, egress: Egress, *, intercepts: bool = False
    ) -> None:
        self.pool = direct(
            stage, [account], c.OWN, stage.exchange.net(egress), intercepts=intercepts
        )

    def net(self) -> int:
        return c.NONE


class Farm:
    """One operator, his goods and his workers."""

    def __init__(self, stage: Stage, supply: Supply, size: int) -> None:
        dice = stage.dice
        self.stage, self.supply = stage, supply
        self.scripts = [
            stage.exchange.script([stage.prompts[20 + int(120 * dice.random())] for _ in range(5)])
            for _ in range(supply.traits.scripts)
        ]
        self.pool = (
            Pool(stage, supply.traits, fill_first=dice.chance(0.6)) if dice.chance(0.5) else None
        )
        self.workers = [
            stage.people.make(
                dice.pick(supply.countries),
                dice.pick(("terminal", "terminal", "editor", "application", "web")),
            )
            for _ in range(max(1, size // dice.randint(3, 6)))
        ]
        template = stage.software.application()
        for worker in self.workers:
            if worker.mode == "application":
                worker.rigs = [
                    stage.people.rig(worker, worker.devices[0], rig.program, template)
                    for rig in worker.rigs
                ]
        times = supply.batches(size)
        for at in times:
            account = stage.account("free" if dice.chance(0.85) else "payg", supply.truth)
            veteran = dice.chance(_VETERANS)
            begin = stage.start + int(dice.random() * 2 * DAY) if veteran else at
            stage.agenda.start(begin, self._open(begin, account, veteran=veteran))
        if self.pool:
            self._sell(self.pool, size, min(times))

    def _sell(self, pool: Pool, size: int, since: int) -> None:
        """Let customers call the pool about as often as the grants allow."""
        stage, dice = self.stage, self.stage.dice
        customers = max(2, size // dice.randint(2, 4))
        days = max(0.5, (stage.end - since) / DAY)
        mean = size * _CALLS_AN_ACCOUNT / _CALLS_A_CONVERSATION / customers / days
        for _ in range(customers):
            person = stage.people.make()
            begin = since + int(dice.spread(3 * HOUR))
            stage.agenda.start(
                begin, routine(stage, person, Customer(pool), begin, stage.end, mean)
            )
        stage.agenda.start(since, pool.tend(since))

    def _open(self, at: int, account: Account, *, veteran: bool) -> Process:
        stage, dice, supply = self.stage, self.stage.dice, self.supply
        dossier = supply.dossier(kyc=0.4, paying=account.plan.metered or dice.chance(0.5))
        if not veteran:
            at = sign_up(stage, at, account, dossier)
            yield at
        stage.provider.watch(account, at, stage.end, mean_life_days=_LIFE_DAYS, wrong=0)
        if not veteran and dice.chance(supply.traits.aged):
            at += int(45_000 + dice.random() * 135_000)
            yield at
            yield from self._age(at, account, dossier)
            at = stage.agenda.now
        at += int(dice.spread(5 * HOUR)) if dice.chance(0.7) else int(dice.spread(70_000))
        yield at
        if self.pool:
            self.pool.add(account, supply.egress.take(), supply.devices.take())
        else:
            yield from self._drain(at, account)

    def _age(self, at: int, account: Account, dossier: Dossier) -> Process:
        """The same few turns on every account, so that it looks used."""
        stage, dice = self.stage, self.stage.dice
        who = self.workers[0]
        rig = stage.people.rig(who, dossier.device, stage.software.program("web"))
        talk = Conversation(dice, rig, "")
        talk.script = dice.pick(self.scripts)
        desk = Desk(stage, account, dossier.egress, intercepts=True)
        tempo = _LOOSE if self.supply.traits.scripts > 1 else _STRICT
        hold(stage, at, talk, desk, tempo, talk.script[1])
        yield at + 3 * MINUTE

    def _drain(self, at: int, account: Account) -> Process:
        """A worker uses the account up within a few days."""
        stage, dice = self.stage, self.stage.dice
        worker: Person = dice.pick(self.workers)
        egress = self.supply.egress.take()
        login(stage, at, account, egress.fragment() + dice.pick(worker.devices).said())
        until = min(stage.end, at + int(dice.spread(2.2 * DAY)))
        desk = Desk(stage, account, egress)
        yield from routine(stage, worker, desk, at, until, 2.0 + dice.spread(3.0))


def credit_farm(stage: Stage, count: int, tier: str) -> None:
    """Farms with `count` accounts between them."""
    for size in ring_sizes(stage, count):
        Farm(stage, Supply(stage, "credit_farm", traits(tier, stage.dice)), size)
