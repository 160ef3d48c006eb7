"""What a ring spent, and what it got: one book a ring."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from synth.account import Account
from synth.prices import STREET_SHARE, USD


@dataclass(slots=True)
class Book:
    """Dollars. `paid_usd` went to the provider, net of what was taken back; `served_usd` is the
    list price of the tokens served. Both are filled by `settle`."""

    ring_id: str
    typology: str
    tier: str
    accounts: int = 0
    lost: int = 0
    spent_usd: dict[str, float] = field(default_factory=dict)
    paid_usd: float = 0.0
    served_usd: float = 0.0

    def buy(self, good: str, count: float = 1.0) -> None:
        """Pay the listed price of a good."""
        self.spent_usd[good] = self.spent_usd.get(good, 0.0) + USD[good] * count

    @property
    def outlay_usd(self) -> float:
        """Everything paid, to vendors and to the provider."""
        return sum(self.spent_usd.values()) + self.paid_usd

    @property
    def income_usd(self) -> float:
        """What the served tokens bring on the street."""
        return self.served_usd * STREET_SHARE


def settle(books: Iterable[Book], roster: Iterable[Account]) -> None:
    """Fill in each book what its accounts paid and were served so far."""
    by_ring = {book.ring_id: book for book in books}
    for book in by_ring.values():
        book.accounts, book.paid_usd, book.served_usd = 0, 0.0, 0.0
    for account in roster:
        book_of = by_ring.get(account.truth.ring_id)
        if book_of is not None and account.events:
            book_of.accounts += 1
            book_of.paid_usd += account.paid_usd
            book_of.served_usd += account.spent_usd
