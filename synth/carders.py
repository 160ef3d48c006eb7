"""Carders: accounts paid with other people's cards.

A card is tested on an account or two, a plan is bought with the one that passes, and the account is
used hard until the card's owner sees the bill. The carder uses it himself, sells it to somebody, or
puts it into a pool.
"""

from synth.account import Account
from synth.agenda import Process
from synth.cover import Brief
from synth.honest import appetite
from synth.operators import Operator, Tenure
from synth.people import MINUTE
from synth.pool import Customer
from synth.signup import Dossier, charge
from synth.stage import Stage
from synth.supply import Supply, ring_sizes

_TESTS = 0.22  # share of accounts on which cards are tried before one passes
_UPGRADES = 0.45  # share that begins free and moves up at once
_DISPUTED = 0.45
_HARD = 1.2  # appetite, in parts of an honest one


class Carder(Operator):
    """One operator and his lists of cards."""

    plans = (("pro", 5.0), ("max", 1.2), ("payg", 2.0), ("free", 2.5))
    kyc = 0.5
    declines = 0.2
    disputes = _DISPUTED

    def __init__(self, stage: Stage, supply: Supply, size: int) -> None:
        super().__init__(stage, supply, size)
        pool = self.pooled() if stage.dice.chance(0.4) else None
        first = self.start()
        if pool:
            stage.agenda.start(first, pool.tend(first))

    def opened(self, at: int, account: Account, dossier: Dossier) -> Process:
        """Try cards; then move a free account up with the one that passed."""
        stage, dice, tell = self.stage, self.stage.dice, self.stage.record.tell
        here = dossier.egress.fragment() + dossier.device.said()
        if dice.chance(_TESTS):
            for _ in range(dice.randint(1, 3)):
                at += int(dice.spread(50_000))
                yield at
                tell(at, account, "payment", here + self.card_said(account)[0],
                     kind="card_declined",
                     decline_class=dice.pick(("do_not_honor", "fraudulent", "incorrect_cvc")),
                     )  # fmt: skip
        if account.plan.name == "free" and dice.chance(_UPGRADES):
            at += int(dice.spread(20 * MINUTE))
            yield at
            account.upgrade("max" if dice.chance(0.15) else "pro")
            said, country = self.card_said(account)
            tell(at, account, "payment", here, kind="plan_changed", plan=account.plan.name)
            tell(at + 1_500, account, "payment", here + said, kind="card_added")
            charge(stage, at + 4_000, account, here + said, country, self.disputes)

    def use(self, at: int, account: Account, keeper: Tenure) -> Process:
        stage = self.stage
        if self.pool:
            self.add(self.pool, account, keeper)
            user, since = self.customer(), at + int(stage.dice.spread(20 * MINUTE))
            mean = appetite(stage, user.mode) * _HARD
            self.serve(since, user, Customer(self.pool), mean, stage.end)
        else:
            self.sell(at, keeper, market=0.2, doors=0.9, load=_HARD)
        yield from ()


def carded(stage: Stage, count: int, brief: Brief) -> None:
    """Carders with `count` accounts between them."""
    for size in ring_sizes(stage, count, median=8):
        Carder(stage, Supply(stage, "carded", brief, pools=False, stolen=True), size)
