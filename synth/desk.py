"""The plainest abusive caller: one machine on one account, from one egress."""

from synth import calls as c
from synth.account import Account
from synth.geography import Egress
from synth.habits import direct
from synth.stage import Stage


class Desk:
    """A worker's machine on one account's egress."""

    seat = customer = c.NONE

    def __init__(
        self, stage: Stage, account: Account, egress: Egress, *, intercepts: bool = False
    ) -> None:
        self.pool = direct(
            stage, [account], c.OWN, stage.exchange.net(egress), intercepts=intercepts
        )

    def net(self) -> int:
        return c.NONE
