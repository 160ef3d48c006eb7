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


ACTS = ("challenge", "throttle", "review", "suspend")
# What a person makes of a case within hours: the share of abusive accounts that are then suspended, and
# of honest ones. A verdict on an appeal is about as good.
_SEEN_THROUGH, _MISJUDGED = 0.92, 0.015


class Provider:
    def __init__(self, dice: Dice, agenda: Agenda, record: Record) -> None:
        self._dice, self._agenda, self._record = dice, agenda, record

    def act(
        self, account: Account, action: str, at: int, *, human: bool = False, reason: str = ""
    ) -> None:
        """Do to an account what was decided, and let its keeper know. `review` asks a person first."""
        dice, keeper = self._dice, account.keeper
        if account.suspended:
            return
        if action == "review":
            when = at + int(dice.spread(6 * HOUR))
            self._agenda.start(when, self._look(account, when))
            return
        self._record.tell(
            at,
            account,
            "enforcement",
            action=action,
            source="human" if human else "auto",
            reason=reason or dice.pick(_REASONS),
        )
        if action == "suspend":
            account.suspend(at)
        elif action == "throttle":
            account.throttle(at + int(dice.spread(3 * HOUR)))
        if keeper is not None:
            {
                "suspend": keeper.suspended,
                "throttle": keeper.throttled,
                "challenge": keeper.challenged,
            }[action](at)

    def _look(self, account: Account, at: int) -> Process:
        """A person looks at a case."""
        if self._dice.chance(_SEEN_THROUGH if account.truth.ring_id else _MISJUDGED):
            self.act(account, "suspend", at, human=True)
        yield from ()

    def appeal(self, account: Account, at: int) -> Process:
        """Somebody objects at `at`; a person decides within a day or two."""
        dice = self._dice
        yield at
        self._record.tell(at, account, "appeal", outcome="filed")
        at += int(dice.spread(20 * HOUR))
        yield at
        if dice.chance(1 - _SEEN_THROUGH if account.truth.ring_id else 0.95):
            self._record.tell(at, account, "appeal", outcome="reversed")
            account.restore(at)
            self._record.tell(at + 1 + dice.randrange(90_000), account, "enforcement",
                              action="restore", source="human", reason="appeal")  # fmt: skip
            if account.keeper is not None:
                account.keeper.restored(at)
        else:
            self._record.tell(at, account, "appeal", outcome="upheld")

    def _own_word(self, account: Account, at: int, action: str) -> Process:
        """The provider's own team acts, without a detector."""
        self.act(account, action, at, human=action == "suspend" and self._dice.chance(0.25))
        yield from ()

    def watch(
        self, account: Account, since: int, until: int, *, mean_life_days: float, wrong: float,
        sigma: float = 1.4,
    ) -> None:  # fmt: skip
        """Decide what the provider's own team makes of the account between `since` and `until`.

        Args:
            mean_life_days: median days to a deserved suspension; 0 where none is deserved.
            wrong: probability of a mistaken one.
            sigma: spread (log) of the life.
        """
        dice = self._dice
        if mean_life_days:
            at = since + int(dice.lognormal(mean_life_days, sigma) * DAY)
            if at < until:
                self._agenda.start(at, self._own_word(account, at, "suspend"))
        elif dice.chance(wrong):
            at = since + int(dice.random() * (until - since))
            self._agenda.start(at, self._own_word(account, at, "suspend"))
        if dice.chance(0.02):  # on little evidence and against anybody
            at = since + int(dice.random() * (until - since))
            action = "challenge" if dice.chance(0.6) else "throttle"
            self._agenda.start(at, self._own_word(account, at, action))
