"""KYC mules: accounts verified with borrowed faces, then handed over.

A few people lend their faces, in a few rooms, to documents printed from one template. The accounts
are opened on the merchant's devices and used from elsewhere by whoever bought them, mostly one
person each, who behaves like any other customer.
"""

from synth.account import Account
from synth.agenda import Process
from synth.cover import Brief
from synth.habits import Own, login
from synth.honest import appetite
from synth.operators import Operator, Tenure
from synth.stage import Stage
from synth.supply import Supply, market_of, ring_sizes


class Mules(Operator):
    """One merchant of verified accounts."""

    plans = (("free", 3.0), ("pro", 5.0), ("max", 0.8), ("payg", 1.5))
    kyc = 0.9
    disputes = 0.1

    def __init__(self, stage: Stage, supply: Supply, size: int) -> None:
        super().__init__(stage, supply, size)
        self.market = market_of(stage.dice)
        self.start()

    def use(self, at: int, account: Account, keeper: Tenure) -> Process:
        """The buyer takes over: another device, another place, an ordinary life."""
        stage, dice = self.stage, self.stage.dice
        buyer = stage.people.make(self.market if dice.chance(0.5) else None)
        if dice.chance(0.7):
            login(stage, at, account, buyer.home.fragment() + dice.pick(buyer.devices).said())
        if dice.chance(0.4):
            buyer.networks = [(self.supply.door(), 0.8), (buyer.home, 1.0)]
        buyer.workspaces = self.supply.places(buyer.workspaces)
        self.serve(at, buyer, Own(stage, account, buyer), appetite(stage, buyer.mode) * 1.2,
                   stage.end, account)  # fmt: skip
        yield from ()


def kyc_mule(stage: Stage, count: int, brief: Brief) -> None:
    """Rings with `count` accounts between them."""
    for size in ring_sizes(stage, count):
        Mules(stage, Supply(stage, "kyc_mule", brief, pools=False), size)
