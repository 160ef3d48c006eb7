"""An account as the provider keeps it: its plan, its quota window, its standing."""

from dataclasses import dataclass
from typing import Protocol

from synth import calls as c
from synth.calls import F64
from synth.dice import Dice
from synth.exchange import Exchange
from synth.slips import I64
from synth.wire import fragment


@dataclass(frozen=True, slots=True)
class Plan:
    """`window_usd` is the list price that fits into one five-hour window."""

    name: str
    price_usd: float
    window_usd: float
    metered: bool = False  # every call is billed
    granted_usd: float = 0.0  # credit that comes with the sign-up


PLANS: dict[str, Plan] = {
    plan.name: plan
    for plan in (
        Plan("free", 0, 2.8, granted_usd=9),
        Plan("pro", 20, 7),
        Plan("max", 100, 35),
        Plan("payg", 0, 80, metered=True, granted_usd=9),
        Plan("team", 30, 18),
        Plan("enterprise", 0, 150, metered=True),
    )
}


@dataclass(frozen=True, slots=True)
class Truth:
    """What the world knows about an account and no event says. Strings as in truth.csv."""

    ring_id: str = ""
    typology: str = ""
    cohort: str = ""
    tier: str = ""
    group_id: str = ""


class Keeper(Protocol):
    """Who answers for an account when the provider acts on it. Times are epoch ms."""

    def suspended(self, at: int) -> None: ...
    def restored(self, at: int) -> None: ...
    def challenged(self, at: int) -> None: ...
    def throttled(self, at: int) -> None: ...


class Account:
    """What the provider books of it is in the exchange's tables, row `n`."""

    __slots__ = (
        "_exchange", "charged_usd", "credential", "head", "id", "keeper", "n", "org_id", "plan",
        "told", "truth",
    )  # fmt: skip

    def __init__(
        self, dice: Dice, exchange: Exchange, plan: str, truth: Truth, org_id: str | None = None
    ) -> None:
        self.id = f"acct_{dice.token(80)}"
        self.org_id = org_id
        self.truth = truth
        self.keeper: Keeper | None = None
        self.head = fragment(account_id=self.id, org_id=org_id)
        self.credential = fragment(credential_id=f"key_{dice.token(96)}")
        self.charged_usd = 0.0  # plan money, net of refunds and disputes
        self.told = 0  # events that are not calls
        self._exchange = exchange
        self.n = exchange.account(self.head + self.credential)
        self._enter(plan)
        # calls are paid from a grant that runs out
        self._row[c.A_ON_CREDIT] = plan == "free"
        self._value[c.V_CREDIT] = self.plan.granted_usd

    def _enter(self, plan: str) -> None:
        self.plan = PLANS[plan]
        self._value[c.V_WINDOW_USD] = self.plan.window_usd
        self._row[c.A_METERED] = self.plan.metered

    @property
    def _row(self) -> I64:
        row: I64 = self._exchange.t.account[self.n]
        return row

    @property
    def _value(self) -> F64:
        row: F64 = self._exchange.t.value[self.n]
        return row

    @property
    def events(self) -> int:
        return self.told + int(self._exchange.t.account[self.n, c.A_EVENTS])

    @property
    def observed(self) -> bool:
        """Whether any event of it has been."""
        return bool(self._exchange.t.account[self.n, c.A_SEEN])

    @property
    def born(self) -> int:
        """When it signed up; 0 means before the world began."""
        return int(self._row[c.A_BORN])

    @born.setter
    def born(self, at: int) -> None:
        self._row[c.A_BORN] = at

    @property
    def spent_usd(self) -> float:
        """Tokens served, at list price."""
        return float(self._value[c.V_SPENT])

    @property
    def metered_usd(self) -> float:
        """What was billed call by call."""
        return float(self._value[c.V_PAID])

    @property
    def drained(self) -> bool:
        """Whether it lives on a grant, and that has run out."""
        t, n = self._exchange.t, self.n
        return bool(t.account[n, c.A_ON_CREDIT] and t.value[n, c.V_SPENT] >= t.value[n, c.V_CREDIT])

    @property
    def suspended(self) -> bool:
        book, n = self._exchange.t.account, self.n
        return bool(book[n, c.A_BARRED] != c.FOREVER and book[n, c.A_BARRED_UNTIL] == c.FOREVER)

    def suspend(self, at: int) -> None:
        """No call that starts at `at` or later is served, until it is restored."""
        row = self._row
        row[c.A_BARRED], row[c.A_BARRED_UNTIL] = at, c.FOREVER

    def restore(self, at: int) -> None:
        self._row[c.A_BARRED_UNTIL] = at

    def throttle(self, until: int) -> None:
        """Every other call is refused until then."""
        self._row[c.A_THROTTLED] = until

    def upgrade(self, plan: str) -> None:
        """Move to another plan; the quota window starts anew."""
        self._enter(plan)
        self._row[c.A_ON_CREDIT] = 0
        self._row[c.A_WINDOW_ENDS] = 0
