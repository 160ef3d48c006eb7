"""Money by hand."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.ledger import OUTLAY, Account, Ledger, outlay
from features.event import AnyEvent
from tests.detector.handmade import Log


def ledger_of(events: list[AnyEvent]) -> Ledger:
    ledger = Ledger()
    for event in events:
        ledger.record(event)
    return ledger


def pay(log: Log, kind: str, usd: float | None = None) -> Log:
    return log.add("payment", "a", 0, kind=kind, **({} if usd is None else {"amount_usd": usd}))


def test_leaked_is_list_price_less_what_was_kept() -> None:
    log = Log().request("a", 0, cost_usd=30.0, paid_usd=4.0).request("a", 1, cost_usd=20.0)
    pay(log, "charge", 25.0)
    assert ledger_of(log.events)["a"].leaked == pytest.approx(50 - 4 - 25)
    pay(log, "refund", 5.0)
    assert ledger_of(log.events)["a"].leaked == pytest.approx(50 - 4 - (25 - 5))
    pay(log, "dispute", 20.0)
    account = ledger_of(log.events)["a"]
    assert account.leaked == pytest.approx(50 - 4)
    assert account.kept == pytest.approx(4)


def test_what_is_given_or_failed_is_no_money() -> None:
    log = Log()
    for kind in ("charge_failed", "card_declined", "gift_card", "credit_grant", "plan_changed"):
        pay(log, kind, 10.0)
    pay(log, "charge")  # of an unknown amount
    log.request("a", 0)
    assert ledger_of(log.events)["a"] == Account(events=7)


def test_who_paid_too_much_leaks_less_than_nothing() -> None:
    log = pay(Log().request("a", 0, cost_usd=2.0), "charge", 20.0)
    assert ledger_of(log.events)["a"].leaked == pytest.approx(-18)


def test_what_an_operator_buys_is_counted() -> None:
    log = Log()
    for result in ("succeeded", None, "failed"):
        log.add("phone_verified", "a", 0, **({"result": result} if result else {}))
    for result in ("passed", "failed", "review"):
        log.add("kyc_checked", "a", 0, result=result)
    log.card("a", 0, "c1").card("a", 0, "c2").card("b", 0, "c1")
    ledger = ledger_of(log.events)
    a = ledger["a"]
    assert (a.phones, a.faces, a.cards, a.events) == (2, 1, 2, 8)
    assert outlay(a) == pytest.approx(
        OUTLAY["account"] + 2 * OUTLAY["phone"] + 2 * OUTLAY["card"] + OUTLAY["face"]
    )
    assert outlay(ledger["b"]) == pytest.approx(OUTLAY["account"] + OUTLAY["card"])


@given(data=st.data(), seed=st.integers())
def test_every_event_counts_and_their_order_does_not(
    any_event: st.SearchStrategy[AnyEvent], data: st.DataObject, seed: int
) -> None:
    events = data.draw(st.lists(any_event, max_size=8))
    for i, event in enumerate(events):
        event.account_id = "ab"[i % 2]
    ledger = ledger_of(events)
    assert sum(a.events for a in ledger.values()) == len(events)
    random.Random(seed).shuffle(events)
    again = ledger_of(events)
    assert again.keys() == ledger.keys()
    for name, account in ledger.items():
        assert again[name].leaked == pytest.approx(account.leaked, rel=1e-12, abs=1e-3)
        assert outlay(again[name]) == outlay(account) > 0
