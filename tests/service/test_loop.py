"""The closed loop on worlds of a few lines: what is decided, when it is said, and what the books come to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from served import a_ring, one

from detector.engine import Engine
from detector.policy import Action, Policy, read_policy
from service.folder import OFFLINE
from service.loop import Decider, break_even, closed_loop, harm, sums, told
from service.loop import Outcome as PlayedOut

DECISIVE = {"review": 0.2, "suspend": 0.9}  # clusters alone score this ring above the first


@dataclass
class Bookkeeping:
    """One ring's books."""

    ring_id: str
    typology: str = "credit_farm"
    tier: str = "T1"
    accounts: int = 4
    lost: int = 1
    spent_usd: dict[str, float] = field(default_factory=dict)
    paid_usd: float = 0.0
    served_usd: float = 0.0


class Little:
    """A world that hands over its lines in parts and serves no account that was acted on."""

    def __init__(self, lines: Sequence[bytes], part: int = 20) -> None:
        self.lines, self.part = list(lines), part
        self.acted: list[tuple[str, str]] = []
        self.served: dict[str, float] = {}

    def play(self, decide: Callable[[bytes], Any], every_ms: int = 900_000) -> None:
        for at in range(0, len(self.lines), self.part):
            gone = {account for account, _ in self.acted}
            now = []
            for line in self.lines[at : at + self.part]:
                event = msgspec.json.decode(line)
                if event["account_id"] not in gone:
                    now.append(line)
                    cost = event.get("cost_usd", 0.0)
                    self.served[event["account_id"]] = (
                        self.served.get(event["account_id"], 0.0) + cost
                    )
            self.acted += list(decide(b"".join(line + b"\n" for line in now)))

    def truth(self) -> list[Any]:
        names = sorted({msgspec.json.decode(line)["account_id"] for line in self.lines})
        return [
            SimpleNamespace(
                account_id=n, ring_id="r" * n.startswith("ring"), typology="", cohort="plain"
            )
            for n in names
        ]

    def books(self) -> list[Bookkeeping]:
        mine = [v for n, v in self.served.items() if n.startswith("ring")]
        gone = {a for a, _ in self.acted if a.startswith("ring")}
        return [
            Bookkeeping(
                "r",
                accounts=len(mine),
                lost=len(gone),
                spent_usd={"card": 2.0},
                served_usd=sum(mine),
            )
        ]


def engine(**clusters: float) -> Engine:
    settings = msgspec.to_builtins(read_policy()) | {"clusters": {**DECISIVE, **clusters}}
    settings["sweep"] = {"every_s": 1, "after_share": 0.0}
    return Engine(msgspec.convert(settings, Policy), OFFLINE)


def long_ring() -> list[bytes]:
    """The ring of `a_ring`, which goes on for an hour after it could be seen."""
    more = [
        one(1000 + n, f"ring{n % 14}", "request", status=200, cost_usd=5.0, device_id="shared")
        | {"occurred_at": 1_580_000_000_000 + 60_000 * (n + 1)}
        for n in range(56)
    ]
    return a_ring() + [msgspec.json.encode(e) for e in more]


def test_the_detector_takes_accounts_from_the_ring_and_from_nobody_else() -> None:
    bare, held = Little(long_ring()), Little(long_ring())
    undefended, defended = closed_loop(bare, None), closed_loop(held, engine())
    assert bare.acted == []
    assert {a for a, _ in held.acted} == {f"ring{n}" for n in range(14)}
    found = told(defended, undefended)
    assert found["undefended"]["served_usd"] == 14 * 2.5 + 56 * 5
    assert found["defended"]["served_usd"] < found["undefended"]["served_usd"]
    assert found["defended"]["rings_alive"] == 0
    assert found["undefended"]["rings_alive"] == 1
    assert found["defended"]["break_even_share"] > found["undefended"]["break_even_share"]
    assert found["harm"]["hurt"] == 0
    assert found["cells"]["credit_farm"]["T1"]["defended"] == found["defended"]
    msgspec.json.encode(found)


def test_an_account_is_named_again_only_when_its_action_rises() -> None:
    world = Little(long_ring(), part=5)
    closed_loop(world, engine())
    rank = {a.name: a for a in Action}
    last: dict[str, Action] = {}
    for account, action in world.acted:
        assert rank[action] > last.get(account, Action.allow)
        last[account] = rank[action]
    assert last


def test_the_budget_and_shadow_mode_hold_in_the_loop() -> None:
    # the ring scores more than this, and may be suspended, but only two accounts a day
    narrow = engine(review=0.1, suspend=0.1)
    narrow.budget._limit[Action.suspend] = 2
    world = Little(long_ring())
    outcome = closed_loop(world, narrow)
    assert sum(a == Action.suspend for a in outcome.actions.values()) == 2
    assert sum(a == Action.review for a in outcome.actions.values()) == 12
    quiet = engine()
    quiet.policy = msgspec.structs.replace(quiet.policy, shadow=True)
    assert closed_loop(Little(long_ring()), quiet).actions == {}


def test_a_line_that_comes_twice_is_paid_once() -> None:
    paid = msgspec.json.encode(one(1, "a", "request", status=200, cost_usd=3.0))
    for decider in (Decider(None), Decider(engine())):
        decider(paid + b"\n" + paid + b"\n")
        decider(paid + b"\n\n")
        assert decider.ledger["a"].cost == 3.0
        assert decider.events == 3


# --- the books


def test_break_even_is_everything_spent_over_everything_served() -> None:
    assert break_even(30.0, 20.0, 200.0) == 0.25
    assert break_even(30.0, -10.0, 10.0) == 2.0  # the provider paid back more than it kept
    assert break_even(0.0, 0.0, 5.0) == 0.0
    assert break_even(30.0, 0.0, 0.0) is None


def test_books_add_up() -> None:
    books = [
        Bookkeeping("a", spent_usd={"face": 15.0, "sim": 5.0}, paid_usd=10.0, served_usd=90.0),
        Bookkeeping("b", spent_usd={"face": 30.0}, served_usd=30.0, accounts=6, lost=6),
    ]
    both = sums(books)
    assert both["spent_by_good_usd"] == {"face": 45.0, "sim": 5.0}
    assert both["break_even_share"] == pytest.approx((50 + 10) / 120)
    assert (both["rings"], both["rings_alive"], both["accounts"], both["lost"]) == (2, 1, 10, 7)
    assert both["cost_per_survivor_usd"] == pytest.approx(60 / 3)
    assert sums(books[1:])["cost_per_survivor_usd"] is None  # nobody survived
    assert sums([])["break_even_share"] is None


def test_rings_are_told_apart_by_typology_and_tier() -> None:
    here = [Bookkeeping("a", served_usd=1.0), Bookkeeping("b", tier="T3", served_usd=2.0),
            Bookkeeping("c", "carded", served_usd=4.0)]  # fmt: skip
    there = [Bookkeeping("d", served_usd=8.0)]
    found = told(PlayedOut(here, [], {}), PlayedOut(there, [], {}))  # type: ignore[arg-type]
    served = {
        (typology, tier): (c["defended"]["served_usd"], c["undefended"]["served_usd"])
        for typology, tiers in found["cells"].items()
        for tier, c in tiers.items()
    }
    assert served == {
        ("credit_farm", "T1"): (1, 8),
        ("credit_farm", "T3"): (2, 0),
        ("carded", "T1"): (4, 0),
    }
    assert [r["ring_id"] for r in found["rings"]] == ["a", "b", "c"]


def test_harm_counts_the_honest_and_what_they_no_longer_paid() -> None:
    truth = [
        SimpleNamespace(account_id=a, ring_id=r, typology="", cohort=c)
        for a, r, c in (
            ("h1", "", "family"),
            ("h2", "", "family"),
            ("h3", "", "plain"),
            ("x", "ring", ""),
        )
    ]

    def paid(**kept: float) -> dict[str, Any]:
        return {a: SimpleNamespace(kept=v) for a, v in kept.items()}

    here = PlayedOut(
        [],
        truth,
        paid(h1=5.0, h3=9.0),
        {"h1": Action.suspend, "x": Action.suspend, "h2": Action.challenge},
    )  # type: ignore[arg-type]
    there = PlayedOut([], truth, paid(h1=20.0, h2=1.0, h3=30.0))  # type: ignore[arg-type]
    found = harm(here, there)
    assert (found["n"], found["hurt"], found["suspended"]) == (3, 2, 1)
    assert found["honest_blocked_usd"] == pytest.approx(15 + 1)  # h3 was left alone
    assert found["cohorts"]["family"]["fpr"] == 1.0
    assert found["cohorts"]["plain"]["fpr"] == 0.0
