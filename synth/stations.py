"""Transfer stations and car pools: accounts bought or opened, and carved among many.

A station buys accounts (opened by a merchant on other devices and addresses than those they will be
used from), pools them and replaces what is suspended within hours; its customers are people with
homes and repositories of their own. A car pool is a few people on a few plans, each with a fixed
seat.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from synth.account import Account
from synth.agenda import Process
from synth.cover import Brief
from synth.operators import Operator, Plans, Tenure
from synth.people import HOUR
from synth.pool import Customer
from synth.stage import Stage
from synth.supply import Supply, log_uniform, ring_sizes
from synth.traits import UNLIMITED, Range

_SUBSCRIPTIONS: Plans = (("pro", 6.0), ("max", 0.8), ("payg", 2.0), ("free", 2.2))
_BUSIEST = 9.0  # conversations an account and day


@dataclass(frozen=True, slots=True)
class Archetype:
    """A kind of station: accounts, customers an account, and conversations an account and day.

    Sizes and customers are users' claims [I]. A hydra makes some 26 calls an account and day [I], as
    here; real plan accounts make 300-3,000, ours a tenth of that, as honest ones do [A].
    """

    name: str
    weight: float
    accounts: Range
    customers: Range
    load: float
    plans: Plans = _SUBSCRIPTIONS
    trade: str = ""  # what it serves, where its accounts serve nothing else
    habits: Mapping[str, Any] = field(default_factory=dict)


_KEYS = {
    "relay": "key_rotation", "scheduler": "round_robin", "sticky_ms": 0, "pinned": False,
    "switches": 3, "probe_failing_only": True,
}  # fmt: skip
ARCHETYPES: tuple[Archetype, ...] = (
    Archetype("small", 20, (5, 30), (3, 12), 1.6),
    Archetype("large", 2.5, (50, 800), (3, 20), 1.6),
    Archetype("hydra", 0.6, (2_000, 20_000), (1, 2), 1.8),
    Archetype(
        "free_keys",
        1.2,
        (50, 5_000),
        (1, 3),
        2.2,
        (("free", 9.0), ("payg", 1.0)),
        "application",
        _KEYS,
    ),
)
_LEAST = 5  # accounts that a station of any kind can be scaled down to
_LARGEST_SHARE = 0.6  # of the accounts there are for all stations, that one can have


class Station(Operator):
    """One operator and his pool."""

    disputes = 0.3
    reach = 0.75  # share of its customers that live in its own market

    def __init__(self, stage: Stage, supply: Supply, size: int, kind: Archetype) -> None:
        super().__init__(stage, supply, size)
        dice = stage.dice
        self.kind, self.plans = kind, kind.plans
        self.trade = kind.trade or self.trade
        pool = self.pooled()
        self.load = min(dice.lognormal(kind.load, 0.55), _BUSIEST)
        operator = stage.people.make(mode="terminal")
        pool.rig = stage.people.rig(operator, supply.devices.take(), stage.software.program("cli"))
        self.customers_a_seat = dice.randint(*kind.customers)
        first = self.start()
        stage.agenda.start(first, pool.tend(first))

    def use(self, at: int, account: Account, keeper: Tenure) -> Process:
        """Put an account to work, and find it customers."""
        stage, dice, pool = self.stage, self.stage.dice, self.pool
        assert pool is not None
        self.add(pool, account, keeper)
        for index in range(self.customers_a_seat):
            home = self.market if dice.chance(self.reach) else None
            person = self.customer(home)
            since = at + int(dice.spread(2 * HOUR))
            mean = self.load / self.customers_a_seat * dice.spread(0.75)
            self.serve(since, person, Customer(pool), mean, stage.end, tries=index == 0)
        yield from ()


def station_sizes(stage: Stage, total: int) -> list[tuple[int, Archetype]]:
    """Split accounts among stations; one that is too large for what there is, is scaled down."""
    dice, largest = stage.dice, max(_LEAST + 1, int(_LARGEST_SHARE * total))
    found: list[tuple[int, Archetype]] = []
    left = total
    while left > 0:
        kind = dice.weighted([(k, k.weight) for k in ARCHETYPES if k.accounts[0] <= largest or
                              (k.name == "hydra" and largest > 60)])  # fmt: skip
        low, high = kind.accounts
        size = min(round(log_uniform(stage, (min(low, largest), min(high, largest)))), left)
        if left - size < _LEAST:
            size = left
        found.append((size, kind))
        left -= size
    return found


def transfer_station(stage: Stage, count: int, brief: Brief) -> None:
    """Stations with `count` accounts between them."""
    for size, kind in station_sizes(stage, count):
        Station(stage, Supply(stage, "transfer_station", brief, **kind.habits), size, kind)


_CARPOOL = Archetype("carpool", 1, (1, 4), (3, 6), 2.4, (("pro", 6.0), ("max", 2.0)))
_CARPOOL_HABITS: dict[str, Any] = {
    "pinned": True, "switches": 0, "card_uses": (2, 4), "phone_uses": (1, 2), "reserve": 0.0,
    "batch": (1, 4), "sticky_ms": UNLIMITED,
}  # fmt: skip


class Carpool(Station):
    """Friends of friends on one flat-rate plan or a few, organised by one of them."""

    veterans = 0.6
    kyc = 0.6
    declines = 0.07
    disputes = 0.03


def plan_sharing(stage: Stage, count: int, brief: Brief) -> None:
    """Car pools with `count` accounts between them."""
    low, high = _CARPOOL.accounts
    for size in ring_sizes(stage, count, median=2.6, sigma=0.4, low=low + 1, high=high):
        supply = Supply(stage, "plan_sharing", brief, pools=False, own=True, **_CARPOOL_HABITS)
        Carpool(stage, supply, size, _CARPOOL)
