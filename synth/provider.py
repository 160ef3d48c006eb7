"""The provider: quotas, overload, and its own first word on abuse.

It reacts little. Calls beyond the window are refused with 429, a grant runs out, the service is
overloaded now and then for everybody, and a team of its own suspends some accounts, a few of them
by mistake. It knows nothing of rings. A detector's decisions can be fed back by `suspend`.
"""

from bisect import bisect_right

from synth.account import Account
from synth.agenda import Agenda, Process
from synth.dice import Dice
from synth.record import Record
from synth.wire import fragment

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WINDOW = 5 * HOUR
_INCIDENTS_A_WEEK = 3
_FAULTS = ((500, "api_error"), (529, "overloaded_error"), (400, "invalid_request_error"))
_REASONS = ("usage_policy", "payment_risk", "unusual_activity", "shared_access", "verification")

Refusal = tuple[int, str, float | None]  # status, error class, retry after (seconds)


class Provider:
    def __init__(self, dice: Dice, agenda: Agenda, record: Record, start: int, end: int) -> None:
        self._dice, self._agenda, self._record = dice, agenda, record
        weeks = (end - start) / (7 * DAY)
        edges: list[int] = []
        for begin in sorted(
            int(start + dice.random() * (end - start))
            for _ in range(dice.poisson(_INCIDENTS_A_WEEK * weeks))
        ):
            edges += [begin, begin + int(dice.spread(14 * MINUTE))]
        self._incidents = sorted(edges)

    def admit(self, account: Account, at: int) -> Refusal | None:
        """Whether a call that starts at `at` is served, and if not why."""
        dice = self._dice
        if account.suspended:
            return 403, "account_suspended", None
        if at > account.window_ends:
            account.window_ends = at + WINDOW
            account.window_spent = 0.0
            account.window_said = fragment(window_id=dice.token(64))
        if account.window_spent >= account.plan.window_usd:
            return 429, "rate_limit_error", round((account.window_ends - at) / 1000)
        if account.on_credit and account.spent_usd >= account.credit_usd:
            return 402, "credit_exhausted", None
        if at < account.throttled_until and dice.random() < 0.5:
            return 429, "rate_limit_error", dice.randint(15, 90)
        luck = dice.random()
        if luck < 0.004 or (luck < 0.2 and self._overloaded(at)):
            status, error = _FAULTS[1] if luck > 0.004 else dice.pick(_FAULTS)
            return status, error, None
        if luck > 0.998:
            return 429, "rate_limit_error", dice.randint(2, 40)
        return None

    def _overloaded(self, at: int) -> bool:
        return bool(bisect_right(self._incidents, at) & 1)

    def charge(self, account: Account, cost: float) -> tuple[float, float]:
        """Book a served call; returns what is billed for it and how full the window is (0-1)."""
        account.window_spent += cost
        account.spent_usd += cost
        used = account.window_spent / account.plan.window_usd
        paid = 0.0
        if account.plan.metered and account.spent_usd > account.credit_usd:
            paid = round(cost, 6)
        return paid, (used if used < 1.0 else 1.0)

    def suspend(self, account: Account, at: int, *, human: bool = False) -> None:
        """The provider's word: no further call of this account is served."""
        if account.suspended:
            return
        account.suspended = True
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
            account.suspended = False
            self._record.tell(at + 1 + dice.randrange(90_000), account, "enforcement",
                              action="restore", source="human", reason="appeal")  # fmt: skip
        else:
            self._record.tell(at, account, "appeal", outcome="upheld")

    def bother(self, account: Account, at: int) -> Process:
        """A challenge or a throttle, on little evidence and against anybody."""
        dice = self._dice
        action = "challenge" if dice.chance(0.6) else "throttle"
        if action == "throttle":
            account.throttled_until = at + int(dice.spread(3 * HOUR))
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
