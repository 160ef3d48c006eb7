"""The ledger: what each account has consumed at list price, what it has paid, and what it took to open.

Leaked = Σ cost - Σ paid - Σ charges net of refunds and disputes (EVENTS.md). Kept exactly, from the
first event on; it is money in evidence and evaluation, never a feature.
"""

from dataclasses import dataclass

from features.event import AnyEvent, KycChecked, Payment, PhoneVerified, Request


@dataclass(slots=True)
class Account:
    """US dollars, and counts of what an operator has to buy."""

    cost: float = 0.0
    paid: float = 0.0
    charged: float = 0.0
    refunded: float = 0.0
    disputed: float = 0.0
    events: int = 0
    phones: int = 0
    cards: int = 0
    faces: int = 0

    @property
    def kept(self) -> float:
        """What the provider has kept of the account's money."""
        return self.paid + self.charged - self.refunded - self.disputed

    @property
    def leaked(self) -> float:
        return self.cost - self.kept


# What an operator pays for his goods, US dollars. Assumptions, printed with every figure that rests on
# them: prices asked in public shops for numbers, virtual cards and verified identities.
OUTLAY = {"account": 0.30, "phone": 0.40, "card": 2.00, "face": 15.00}


def outlay(entry: Account) -> float:
    """What an account cost its operator beside what it paid the provider."""
    return (
        OUTLAY["account"]
        + OUTLAY["phone"] * entry.phones
        + OUTLAY["card"] * entry.cards
        + OUTLAY["face"] * entry.faces
    )


class Ledger(dict[str, Account]):
    """One entry an account."""

    def record(self, event: AnyEvent) -> None:
        entry = self.get(event.account_id)
        if entry is None:
            entry = self[event.account_id] = Account()
        entry.events += 1
        if type(event) is Request:
            entry.cost += event.cost_usd or 0.0
            entry.paid += event.paid_usd or 0.0
        elif type(event) is Payment:
            amount = event.amount_usd or 0.0
            if event.kind == "charge":
                entry.charged += amount
            elif event.kind == "refund":
                entry.refunded += amount
            elif event.kind == "dispute":
                entry.disputed += amount
            elif event.kind == "card_added":
                entry.cards += 1
        elif type(event) is PhoneVerified:
            entry.phones += event.result != "failed"
        elif type(event) is KycChecked:
            entry.faces += event.result == "passed"
