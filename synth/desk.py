"""The plainest abusive caller: one machine on one account, from one egress."""

from synth.account import Account
from synth.conversation import Conversation, Lane
from synth.habits import always
from synth.stage import Stage


class Desk:
    """A worker's machine on one account's egress, until the provider serves no more."""

    switches = 0

    def __init__(
        self, stage: Stage, account: Account, net: str, *, intercepts: bool = False
    ) -> None:
        self._stage, self._account, self._net = stage, account, net
        self.intercepts = intercepts
        self._over = False

    def lane(self, at: int, talk: Conversation) -> Lane | None:
        if self._over:
            return None
        lane = talk.lanes.get("")
        if lane is None:
            said = always(self._stage.dice, self._account, self._net, talk)
            lane = talk.lanes[""] = Lane(self._account, said, talk.once)
        return lane

    def refused(self, at: int, talk: Conversation, lane: Lane, status: int, wait_s: float) -> None:
        self._over = status in (402, 403)
