"""Transfer stations: plan accounts bought in batches, pooled, and resold to many.

The operator buys accounts (opened by a merchant on other devices and addresses than those they
will be used from), lets some of them lie, adds them to the pool, and replaces what is suspended
within hours. His customers are people with homes and repositories of their own.
"""

from synth.account import Account
from synth.agenda import Process
from synth.geography import BY_CODE
from synth.habits import routine
from synth.people import DAY, HOUR
from synth.pool import Customer, Pool, Seat
from synth.signup import sign_up
from synth.stage import Stage
from synth.supply import MARKETS, Supply, ring_sizes
from synth.traits import traits

_VETERANS = 0.3
_LIFE_DAYS = 13.0
_PLANS = (("pro", 6.0), ("max", 0.8), ("payg", 2.5), ("free", 1.5))

_CUSTOMERS = (("terminal", 4.5), ("editor", 2.0), ("application", 1.8), ("web", 1.7))


class Station:
    """One operator and his pool."""

    def __init__(self, stage: Stage, supply: Supply, size: int) -> None:
        dice = stage.dice
        self.stage, self.supply = stage, supply
        self.pool = Pool(stage, supply.traits, fill_first=dice.chance(0.12))
        self.pool.on_loss = self._lost
        self.market = dice.weighted(MARKETS)
        # How busy it is: conversations an account and day, and customers an account.
        self.load = min(dice.lognormal(1.9, 0.55), 6.0)
        self.customers_a_seat = dice.pick((1, 2, 3, 4, 6))
        dossier = supply.dossier(kyc=0, paying=False)
        operator = stage.people.make(mode="terminal")
        self.pool.rig = stage.people.rig(operator, dossier.device, stage.software.program("cli"))
        self.waiting = [stage.account(dice.weighted(_PLANS), supply.truth) for _ in range(size)]
        self._opened = 0
        times = supply.batches(size)
        for at in times:
            veteran = dice.chance(_VETERANS)
            begin = stage.start + int(dice.spread(5 * HOUR)) if veteran else at
            stage.agenda.start(begin, self._recruit(begin, veteran=veteran))
        first = min(times)
        stage.agenda.start(first, self.pool.tend(first))

    def _recruit(self, at: int, *, veteran: bool = False) -> Process:
        """Buy an account unless all are bought, let it lie, put it to work."""
        stage, dice = self.stage, self.stage.dice
        if not self.waiting:
            return
        account = self.waiting.pop()
        if not veteran:
            paying = account.plan.price_usd > 0 or account.plan.metered
            dossier = self.supply.dossier(kyc=0.5, paying=paying, disputes=0.6)
            at = sign_up(stage, at, account, dossier)
            yield at
            if dice.chance(0.5):
                at += int(dice.spread(10 * HOUR) if dice.chance(0.6) else dice.spread(2 * DAY))
                yield at
        yield at + dice.randrange(HOUR)
        self.employ(account, stage.agenda.now)

    def employ(self, account: Account, at: int) -> None:
        """Put an account to work, and find it customers."""
        stage, dice = self.stage, self.stage.dice
        egress = self.supply.egress.take()
        self.pool.add(account, egress, self.supply.devices.take())
        stage.provider.watch(account, at, stage.end, mean_life_days=_LIFE_DAYS, wrong=0)
        for _ in range(self.customers_a_seat):
            home = BY_CODE[self.market] if dice.chance(0.8) else None
            person = stage.people.make(home, mode=dice.weighted(_CUSTOMERS), dear=0.3)
            since = at + int(dice.random() * 8 * HOUR)
            mean = self.load / self.customers_a_seat * dice.spread(0.75)
            stage.agenda.start(
                since, routine(stage, person, Customer(self.pool), since, stage.end, mean)
            )

    def _lost(self, seat: Seat, at: int) -> None:
        """Replace an account within hours, from what is in stock."""
        if self.waiting:
            begin = at + int(min(self.stage.dice.spread(4 * HOUR), 24 * HOUR))
            self.stage.agenda.start(begin, self._recruit(begin))


def transfer_station(stage: Stage, count: int, tier: str) -> None:
    """Stations with `count` accounts between them."""
    for size in ring_sizes(stage, count):
        Station(stage, Supply(stage, "transfer_station", traits(tier, stage.dice)), size)
