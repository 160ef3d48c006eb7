"""The compiled loop: scheduling, stickiness, failover, the wire; and printing, held to `json`."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth import calls as c
from synth import slips as s
from synth.dice import Dice
from synth.exchange import Exchange
from synth.prices import CALLS_A_CALL
from synth.wire import fragment

START = 1_772_409_600_000
HOUR = c.HOUR


class Bench:
    """A pool of a few accounts and nothing around it."""

    def __init__(self, rule: int, seats: int, window_usd: float = 1e9, **pool: int) -> None:
        self.exchange = ex = Exchange(Dice(1), [], [fragment(prompt_id="hi")])
        self.pool = ex.pool(rule, **pool)
        self.accounts = []
        for i in range(seats):
            n = ex.account(fragment(account_id=f"a{i}", credential_id=f"k{i}"))
            ex.t.value[n, c.V_WINDOW_USD] = window_usd
            self.accounts.append(n)
            ex.join(self.pool, ex.seat(n, self.pool))

    def talk(self, at: int, turns: int, tempo: tuple[float, ...], customer: int = -1) -> None:
        ex, given_ = self.exchange, [-1] * c.GIVEN
        given_[c.K_START], given_[c.K_POOL], given_[c.K_CUSTOMER] = at, self.pool, customer
        given_[c.K_TEMPO], given_[c.K_TURNS] = ex.tempo(tempo), turns
        given_[c.K_MODEL] = given_[c.K_PROGRAM] = given_[c.K_SYSTEM] = given_[c.K_SESSION] = 0
        given_[c.K_FLAGS], given_[c.K_TTL] = c.CHATTY | c.HAS_SESSION, 3_600_000
        ex.begin(np.array(given_, np.int64).tobytes())

    def play(self, until: int) -> list[dict[str, Any]]:
        """First deliveries in order of their occurrence."""
        self.exchange.play(until)
        lines = [line for block, _ in self.exchange.drain(c.FOREVER) for line in block.splitlines()]
        events = {e["event_id"]: e for e in map(json.loads, lines)}
        return sorted(events.values(), key=lambda e: e["occurred_at"])


# every turn ten seconds after the last, all messages of one size
STEADY = (1.0, 1.0, 2000.0, 2000.0, 50.0, 10_000.0, 10_000.0, 0.1, 0.0)


def accounts_of(events: list[dict[str, Any]]) -> list[str]:
    by_root: dict[str, list[str]] = {}
    for event in events:
        by_root.setdefault(event["chain_root"], []).append(event["account_id"])
    return [a for accounts in by_root.values() for a in accounts]


def test_a_sticky_conversation_hops_after_its_hour_and_a_sliding_one_never() -> None:
    slow = (*STEADY[:5], 20 * 60_000.0, 20 * 60_000.0, *STEADY[7:])
    for sliding, expected in ((0, True), (1, False)):
        bench = Bench(c.LRU, 5, sticky_ms=HOUR, sliding=sliding, relay=1)
        bench.exchange.t.spread[:] = 1.0
        bench.talk(START, 20, slow)
        bench.talk(START + 1, 20, slow)
        events = bench.play(START + 24 * HOUR)
        used = {root: set() for root in {e["chain_root"] for e in events}}  # type: ignore[var-annotated]
        for event in events:
            used[event["chain_root"]].add(event["account_id"])
        assert all((len(accounts) > 1) == expected for accounts in used.values())


def test_a_hop_loses_the_cache_and_staying_keeps_it() -> None:
    for rule, kept in ((c.OWN, True), (c.ROUND_ROBIN, False)):
        bench = Bench(rule, 6, relay=int(rule == c.ROUND_ROBIN))
        bench.talk(START, 6, STEADY)
        events = [e for e in bench.play(START + HOUR) if e["status"] == 200]
        read = [e["cache_read_tokens"] for e in events[1:]]
        assert all(r > 0 for r in read) == kept
        assert any(r > 0 for r in read) == kept


def test_strict_rotation_visits_every_key_in_turn() -> None:
    bench = Bench(c.ROUND_ROBIN, 4, relay=1)
    bench.talk(START, 12, STEADY)
    visited = [e["account_id"] for e in bench.play(START + HOUR) if e["status"] == 200]
    assert visited[:8] == [f"a{i % 4}" for i in range(8)]


def test_least_recently_used_spreads_and_fill_first_burns() -> None:
    counts = {}
    for rule in (c.LRU, c.FILL_FIRST):
        bench = Bench(rule, 4, sticky_ms=HOUR, relay=1)
        for k in range(40):
            bench.talk(START + 1000 * k, 1, STEADY)
        events = bench.play(START + HOUR)
        counts[rule] = np.unique([e["account_id"] for e in events], return_counts=True)[1]
    assert len(counts[c.LRU]) == 4
    assert counts[c.LRU].max() <= 12
    assert counts[c.FILL_FIRST].max() >= 38


def test_a_pinned_customer_stays_for_good() -> None:
    bench = Bench(c.LRU, 6, sticky_ms=1000, pinned=1, relay=1)
    customers = [bench.exchange.customer() for _ in range(3)]
    for k in range(30):
        bench.talk(START + 3_600_000 * k, 2, STEADY, customers[k % 3])
    events = [e for e in bench.play(START + 100 * HOUR) if e["status"] == 200]
    assert len({e["account_id"] for e in events}) == 3


def test_a_suspended_seat_is_reported_and_the_same_message_goes_elsewhere() -> None:
    bench = Bench(c.FILL_FIRST, 2, sticky_ms=HOUR, switches=3, again=2, again_ms=2000, relay=1)
    bench.exchange.t.account[bench.accounts[0], c.A_BARRED] = START + 30_000
    bench.talk(START, 8, STEADY)
    bench.exchange.t.spread[:] = 1.0
    notices = bench.exchange.play(START + HOUR)
    assert [what for what, _, _ in notices] == [c.LOST]
    lines = [x for block, _ in bench.exchange.drain(c.FOREVER) for x in block.splitlines()]
    events = sorted(map(json.loads, lines), key=lambda e: e["occurred_at"])
    refused = [e for e in events if e["status"] == 403]
    assert {e["account_id"] for e in refused} == {"a0"}
    assert len(refused) == 3  # once, and twice more two seconds apart
    message = refused[0]["chain"][-1]
    after = [e for e in events if e["chain"][-1] == message and e["status"] == 200]
    assert [e["account_id"] for e in after] == ["a1"]


def test_no_seat_has_more_calls_in_flight_than_its_cap() -> None:
    bench = Bench(c.LRU, 2, sticky_ms=0, seat_calls=3, relay=1)
    for k in range(60):
        bench.talk(START + 50 * k, 2, STEADY)
    events = [e for e in bench.play(START + HOUR) if e["status"] == 200]
    for account in ("a0", "a1"):
        edges = sorted(
            edge
            for e in events
            if e["account_id"] == account
            for edge in ((e["occurred_at"] - e["duration_ms"], 1), (e["occurred_at"], -1))
        )
        assert max(np.cumsum([step for _, step in edges])) <= 3


def test_a_call_holds_its_place_for_as_long_as_the_calls_that_it_stands_for() -> None:
    bench = Bench(c.LRU, 1, sticky_ms=0, seat_calls=1, relay=1)
    for k in range(8):
        bench.talk(START + 50 * k, 1, STEADY)
    events = [e for e in bench.play(START + 10 * HOUR) if e["status"] == 200]
    assert len(events) > 2
    for one, next_ in pairwise(events):
        began = next_["occurred_at"] - next_["duration_ms"]
        place_free = one["occurred_at"] + (CALLS_A_CALL - 1) * one["duration_ms"]
        assert began >= place_free


def test_a_full_window_refuses_until_it_ends() -> None:
    bench = Bench(c.OWN, 1, window_usd=0.02)
    for k in range(30):
        bench.talk(START + 20 * 60_000 * k, 1, STEADY)
    events = bench.play(START + 24 * HOUR)
    limited = [e for e in events if e["status"] == 429 and e.get("retry_after_s", 0) > 150]
    assert limited
    for e in limited:
        opens = e["occurred_at"] + 1000 * e["retry_after_s"]
        window = [x for x in events if x.get("window_id") == e["window_id"]]
        assert all(x["occurred_at"] - x["duration_ms"] <= opens + 2000 for x in window)


def test_members_come_and_go() -> None:
    bench = Bench(c.LRU, 9, relay=1)
    ex = bench.exchange
    row = ex.t.pool[bench.pool]
    for seat in (0, 4, 8):
        ex.leave(bench.pool, seat)
    held = ex.t.member[row[c.P_FIRST] : row[c.P_FIRST] + row[c.P_SIZE]]
    assert sorted(held.tolist()) == [1, 2, 3, 5, 6, 7]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=60))
def test_the_heap_gives_back_in_order(pushed: list[tuple[int, int]]) -> None:
    count = np.zeros(5, np.int64)
    at, talk = np.zeros(64, np.int64), np.zeros(64, np.int64)
    for when, k in pushed:
        c._push(count, at, talk, when, k)
    out = []
    while count[c.HEAP]:
        out.append((int(at[0]), int(talk[0])))
        c._pop(count, at, talk)
    assert out == sorted(pushed)


@given(st.data())
def test_a_line_says_what_its_slip_says(data: st.DataObject) -> None:
    row = np.zeros(s.WIDTH, np.int64)
    row[: s.CHAIN] = -1
    whole = st.integers(0, 2**40)
    salt = st.integers(1, 2**63 - 1)
    for column in (
        s.DURATION,
        s.FIRST,
        s.PLAIN,
        s.ANSWER,
        s.READ,
        s.WRITE,
        s.COST,
        s.PAID,
        s.WAIT,
        s.LENGTH,
    ):
        row[column] = data.draw(whole)
    for column in (s.SALT, s.ROOT, s.AFTER, s.EMITTED, s.SESSION, s.LINK, s.WINDOW):
        row[column] = data.draw(salt)
    row[s.ENDED], row[s.LATE_AT], row[s.TYPED] = START, 0, 0
    row[s.STATUS] = data.draw(st.sampled_from([200, 429, 503]))
    row[s.USED] = data.draw(st.integers(0, 10_000))
    row[s.ABORTED] = data.draw(st.integers(0, 1))
    row[s.CHAIN_N], row[s.REFS_N] = (
        data.draw(st.integers(1, 4)),
        data.draw(st.integers(0, s.REFS_MAX)),
    )
    for k in range(s.CHAIN, s.WIDTH):
        row[k] = data.draw(salt)
    head = b',"account_id":"a1"'
    ink = np.frombuffer(head + bytes(s.STEP), np.uint8)
    row[s.HEAD] = 0
    start = np.array([0, len(head)])
    block = np.zeros(1 << 14, np.uint8)
    printed = b"".join(
        text
        for text, _ in s.print_lines(
            np.array([0, -1]),
            row[None],
            [b'{"told":1}\n'],
            ink,
            start,
            np.zeros((1, 2), np.int64),
            block,
        )
    )
    first, second = map(json.loads, printed.splitlines())
    assert second == {"told": 1}
    assert first["account_id"] == "a1"
    assert first["occurred_at"] == START
    assert first["duration_ms"] == row[s.DURATION]
    assert len(first["chain"]) == row[s.CHAIN_N]
    assert first["chain"] == [f"{int(x):016x}" for x in row[s.CHAIN : s.CHAIN + row[s.CHAIN_N]]]
    assert len(first.get("minted_refs", [])) == row[s.REFS_N]
    assert ("aborted" in first) == bool(row[s.ABORTED])
    if row[s.STATUS] == 200:
        assert first["cost_usd"] == pytest.approx(row[s.COST] / 1e6, abs=1e-9)
        assert first["window_used"] == row[s.USED] / 10_000
        assert first["output_tokens"] == row[s.ANSWER]
    else:
        assert "cost_usd" not in first
