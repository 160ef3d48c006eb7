"""The provider: overload, and its own first word on abuse.

It reacts little. Calls beyond the window are refused, a grant runs out, the service is overloaded now and
then for everybody (all that in synth/calls.py), and a team of its own suspends some accounts, a few of them
by mistake. It knows nothing of rings. A detector's decisions are fed back by `act`.
"""

from synth.account import Account
from synth.agenda import Agenda, Process
from synth.dice import Dice
from synth.record import Record

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
_INCIDENTS_A_WEEK = 3
_REASONS = ("usage_policy", "payment_risk", "unusual_activity", "shared_access", "verification")


def incidents(dice: Dice, start: int, end: int) -> list[int]:
    """When the service is overloaded: begin, end, begin, … in order."""
    weeks = (end - start) / (7 * DAY)
    edges: list[int] = []
    for begin in sorted(
        int(start + dice.random() * (end - start))
        for _ in range(dice.poisson(_INCIDENTS_A_WEEK * weeks))
    ):
        edges += [begin, begin + int(dice.spread(14 * MINUTE))]
    return sorted(edges)


class Provider:
    def __init__(self, dice: Dice, agenda: Agenda, record: Record) -> None:
        self._dice, self._agenda, self._record = dice, agenda, record

    def suspend(self, account: Account, at: int, *, human: bool = False) -> None:
        """The provider's word: no further call of this account is served."""
        if account.suspended:
            return
        account.suspend(at)
        self._record.tell(
            at,
            account,
            "enforcement",
            action="suspend",
            source="human" if human else "auto",
            reason=self._dice.pick(_REASONS),
        )

    def review(self, account: Account, at: int, *, deserved: bool) -> Process:
        """Suspend at `at`; if it was a mistake, somebody appeals and is restored."""
        dice = self._dice
        self.suspend(account, at, human=dice.chance(0.25))
        if not dice.chance(0.25 if deserved else 0.85):
            return
        at += int(dice.spread(9 * HOUR))
        yield at
        self._record.tell(at, account, "appeal", outcome="filed")
        at += int(dice.spread(20 * HOUR))
        yield at
        if dice.chance(0.04 if deserved else 0.95):
            self._record.tell(at, account, "appeal", outcome="reversed")
            account.restore(at)
            self._record.tell(at + 1 + dice.randrange(90_000), account, "enforcement",
                              action="restore", source="human", reason="appeal")  # fmt: skip
        else:
            self._record.tell(at, account, "appeal", outcome="upheld")

    def bother(self, account: Account, at: int) -> Process:
        """A challenge or a throttle, on little evidence and against anybody."""
        dice = self._dice
        action = "challenge" if dice.chance(0.6) else "throttle"
        if action == "throttle":
            account.throttle(at + int(dice.spread(3 * HOUR)))
        self._record.tell(at, account, "enforcement", action=action, source="auto",
                          reason=dice.pick(_REASONS))  # fmt: skip
        yield from ()

    def watch(self, account: Account, since: int, until: int, *, mean_life_days: float,
              wrong: float) -> None:  # fmt: skip
        """Decide the account's fate between `since` and `until`.

        Args:
            mean_life_days: median days to a deserved suspension; 0 where none is deserved.
            wrong: probability of a mistaken one.
        """
        dice = self._dice
        if mean_life_days:
            at = since + int(dice.lognormal(mean_life_days, 1.4) * DAY)
            if at < until:
                self._agenda.start(at, self.review(account, at, deserved=True))
        elif dice.chance(wrong):
            at = since + int(dice.random() * (until - since))
            self._agenda.start(at, self.review(account, at, deserved=False))
        if dice.chance(0.02):
            at = since + int(dice.random() * (until - since))
            self._agenda.start(at, self.bother(account, at))
