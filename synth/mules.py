"""KYC mules: accounts verified with borrowed faces, then handed over.

A few people lend their faces, in a few rooms, to documents printed from one template. The accounts
are opened on the merchant's devices and used by whoever bought them, from elsewhere or in the
browser profile that came with them: mostly one person each, who behaves like any other customer.
"""

from synth.account import Account
from synth.agenda import Process
from synth.cover import Brief
from synth.operators import Operator, Tenure
from synth.stage import Stage
from synth.supply import Supply, ring_sizes


class Mules(Operator):
    """One merchant of verified accounts."""

    plans = (("free", 3.0), ("pro", 5.0), ("max", 0.8), ("payg", 1.5))
    kyc = 0.9
    disputes = 0.1

    def __init__(self, stage: Stage, supply: Supply, size: int) -> None:
        super().__init__(stage, supply, size)
        self.start()

    def use(self, at: int, account: Account, keeper: Tenure) -> Process:
        """The buyer takes over: an ordinary life."""
        self.sell(at, keeper, market=0.5, doors=0.4, load=1.2)
        yield from ()


def kyc_mule(stage: Stage, count: int, brief: Brief) -> None:
    """Rings with `count` accounts between them."""
    for size in ring_sizes(stage, count):
        Mules(stage, Supply(stage, "kyc_mule", brief, pools=False), size)
