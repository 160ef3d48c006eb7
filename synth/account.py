"""An account as the provider keeps it: its plan, its quota window, its standing."""

from dataclasses import dataclass
from typing import Protocol

from synth.dice import Dice
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
    __slots__ = (
        "born", "credential", "credit_usd", "events", "head", "id", "keeper", "on_credit",
        "org_id", "paid_usd", "plan", "spent_usd", "suspended", "throttled_until", "truth", "warm_system", "warm_until",
        "window_ends", "window_said", "window_spent",
    )  # fmt: skip

    def __init__(self, dice: Dice, plan: str, truth: Truth, org_id: str | None = None) -> None:
        self.id = f"acct_{dice.token(80)}"
        self.org_id = org_id
        self.truth = truth
        self.plan = PLANS[plan]
        self.head = fragment(account_id=self.id, org_id=org_id)
        self.born = 0  # when it signed up; 0 means before the world began
        self.events = 0
        self.suspended = False
        self.throttled_until = 0
        self.credit_usd = self.plan.granted_usd
        self.on_credit = plan == "free"  # calls are paid from a grant that runs out
        self.keeper: Keeper | None = None
        self.paid_usd = 0.0  # charges and metered calls, net of what was taken back
        self.spent_usd = 0.0  # list price of what was served
        self.window_ends = 0
        self.window_spent = 0.0
        self.window_said = ""
        self.warm_system = ""  # whose prompt prefix is in the cache, and until when
        self.warm_until = 0
        self.credential = fragment(credential_id=f"key_{dice.token(96)}")

    def upgrade(self, plan: str) -> None:
        """Move to another plan; the quota window starts anew."""
        self.plan = PLANS[plan]
        self.on_credit = False
        self.window_ends = 0
