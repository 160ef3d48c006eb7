"""KYC mules: accounts verified with borrowed faces, then handed over.

A few people lend their faces, in a few rooms, to documents printed from one template. The accounts
are opened on the merchant's devices and used from elsewhere by whoever bought them, mostly one
person each, who behaves like any other customer.
"""

from synth.account import Account
from synth.agenda import Process
from synth.geography import BY_CODE
from synth.habits import Own, login, routine
from synth.honest import appetite
from synth.people import DAY, HOUR
from synth.signup import sign_up
from synth.stage import Stage
from synth.supply import MARKETS, Supply, ring_sizes
from synth.traits import traits

_VETERANS = 0.2
_LIFE_DAYS = 20.0
_PLANS = (("free", 3.0), ("pro", 5.0), ("max", 0.8), ("payg", 1.5))


def kyc_mule(stage: Stage, count: int, tier: str) -> None:
    """Rings with `count` accounts between them."""
    dice = stage.dice
    for size in ring_sizes(stage, count):
        supply = Supply(stage, "kyc_mule", traits(tier, dice))
        market = dice.weighted(MARKETS)
        for at in supply.batches(size):
            account = stage.account(dice.weighted(_PLANS), supply.truth)
            if dice.chance(_VETERANS):
                at = stage.start + dice.randrange(2 * DAY)
                stage.agenda.start(at, _hand_over(stage, at, account, supply, market))
            else:
                stage.agenda.start(at, _open(stage, at, account, supply, market))


def _open(stage: Stage, at: int, account: Account, supply: Supply, market: str) -> Process:
    """Open and verify the account, then let it lie until it is sold."""
    dice = stage.dice
    dossier = supply.dossier(kyc=0.88, paying=account.plan.price_usd > 0 or account.plan.metered,
                             disputes=0.15)  # fmt: skip
    at = sign_up(stage, at, account, dossier)
    yield at
    at += int(dice.spread(8 * HOUR))
    yield at
    yield from _hand_over(stage, at, account, supply, market)


def _hand_over(stage: Stage, at: int, account: Account, supply: Supply, market: str) -> Process:
    """The buyer takes over: another device, another place, an ordinary life."""
    dice = stage.dice
    home = BY_CODE[market] if dice.chance(0.5) else None
    buyer = stage.people.make(home)
    if dice.chance(0.7):
        login(stage, at, account, buyer.home.fragment() + dice.pick(buyer.devices).said())
    if dice.chance(0.4):
        buyer.networks = [(supply.egress.take(), 0.8), (buyer.home, 1.0)]
    stage.provider.watch(account, at, stage.end, mean_life_days=_LIFE_DAYS, wrong=0)
    yield from routine(stage, buyer, Own(stage, account, buyer), at, stage.end,
                       appetite(stage, buyer.mode) * 1.3, account)  # fmt: skip
