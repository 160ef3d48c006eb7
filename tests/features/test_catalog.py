"""Laws that hold for every feature there is: a new one is tested by being in the list."""

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from msgspec import inspect

from features.catalog import BUILT_IN, Catalog, custom, with_kinds
from features.event import CLASS_OF, EVENT_TYPES, convert, encode
from features.feature import (
    DAY,
    HOUR,
    SETS_CAP,
    Age,
    Differ,
    Feature,
    Last,
    Seen,
    Share,
    Sum,
    sentence,
    span_name,
)
from features.identity import Secret
from features.kind import INDEX
from features.memory import MemoryWindow
from features.plan import BUCKETS, plan
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
from features.window import DUPLICATE, NEW, Folded

CATALOG = with_kinds(["wallet"])
EVERY = pytest.mark.parametrize("feature", CATALOG.features, ids=lambda f: f.name)
SEEN = pytest.mark.parametrize(
    "feature", [f for f in CATALOG.features if isinstance(f, Seen)], ids=lambda f: f.name
)
COUNTED = pytest.mark.parametrize(
    "feature", [f for f in CATALOG.features if isinstance(f, Seen | Sum)], ids=lambda f: f.name
)
# the start of a bucket of every tally, and of an hour
START = 7 * DAY * 2900


@dataclass(frozen=True)
class Fact:
    """An event as the windows see it; names are small numbers."""

    t: int
    account: int
    org: int = 0
    entities: Mapping[int, int] = field(default_factory=dict)
    amounts: Mapping[str, int] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    type_: str = "request"


def rows(facts: list[Fact]) -> Rows:
    n = len(facts)
    entities = [pair for f in facts for pair in f.entities.items()]
    return Rows(
        t=np.array([f.t for f in facts], np.int64),
        type_=np.array([EVENT_TYPES.index(f.type_) for f in facts], np.uint8),
        account=np.array([f.account for f in facts], np.uint64),
        org=np.array([f.org for f in facts], np.uint64),
        event_id=np.arange(1, n + 1).astype(np.uint64),
        body=np.zeros(n, np.uint64),
        start=np.cumsum([0, *(len(f.entities) for f in facts)]),
        kind=np.array([kind for kind, _ in entities], np.int32),
        id=np.array([name for _, name in entities], np.uint64),
        amount=np.array([[f.amounts.get(a, 0) for a in AMOUNTS] for f in facts], np.int64),
        number=np.array([[f.numbers.get(m, np.nan) for m in NUMBERS] for f in facts]),
    )


def fold(facts: list[Fact]) -> Folded:
    return MemoryWindow(CATALOG).fold(rows(facts))


def column(feature: Feature) -> int:
    return CATALOG.names.index(feature.name)


def named(name: str) -> Feature:
    return CATALOG.features[CATALOG.names.index(name)]


def kind(name: str) -> int:
    return INDEX[name] if name in INDEX else CUSTOM + CATALOG.kinds.index(name)


def sights(feature: Seen, n: int, t: int = START, org: int = 0) -> list[Fact]:
    """Facts after the last of which n members are seen under one key."""
    type_ = feature.on[0] if feature.on else "request"
    if feature.of == "account":
        there = {kind(feature.by): 999}
        return [Fact(t, 100 + i, org, there, type_=type_) for i in range(n)]
    if feature.of == "hour":
        return [Fact(t + i * HOUR, 100, org, type_=type_) for i in range(n)]
    if feature.of in ("partner", "continuation"):
        talk = INDEX["conversation"]
        made = [Fact(t, 200 + i, 0, {CHAIN_AFTER: 500 + i, talk: 700 + i}) for i in range(n)]
        carried_on = [Fact(t, 100, org, {CHAIN_LINK: 500 + i, talk: 700 + i}) for i in range(n)]
        return made + carried_on
    there = {} if feature.by == "account" else {kind(feature.by): 999}
    return [Fact(t, 100, org, there | {kind(feature.of): 300 + i}, type_=type_) for i in range(n)]


def moves(feature: Feature, t: int = START) -> list[Fact]:
    """Facts after the last of which the feature is known and not 0."""
    match feature:
        case Seen():
            return sights(feature, 3, t)
        case Sum():
            there = {} if feature.by == "account" else {kind(feature.by): 999}
            return [Fact(t, 100, 0, there, {feature.of: 5})]
        case Last():
            return [Fact(t, 100, numbers={feature.of: 0.25})]
        case Age():
            return [Fact(t, 100), Fact(t + HOUR, 100)]
        case Differ():
            return [Fact(t, 100, 0, {kind(feature.a): 1}), Fact(t, 100, 0, {kind(feature.b): 2})]
        case Share():
            return moves(named(feature.part), t) + moves(named(feature.whole), t)


# --- what is declared


def test_names_are_unique_and_every_kind_has_columns() -> None:
    assert len(set(CATALOG.names)) == len(CATALOG.names)
    assert CATALOG.features == (*BUILT_IN, *custom("wallet"))
    assert {f.by for f in custom("wallet") if isinstance(f, Seen)} == {"wallet", "account"}


@EVERY
def test_the_name_is_derived(feature: Feature) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", feature.name)
    match feature:
        case Seen() | Sum():
            assert f"_by_{feature.by}_{span_name(feature.over)}" in feature.name
            other = replace(feature, over=feature.over * 2)
            assert other.name != feature.name
        case Last() | Differ() | Share():
            parts = [v for f, v in vars_of(feature) if f not in ("says", "family")]
            assert all(part in feature.name for part in parts)
    assert replace(feature, says="", family="").name == feature.name


def vars_of(feature: Feature) -> Iterator[tuple[str, str]]:
    for name in feature.__slots__:
        yield name, getattr(feature, name)


@EVERY
def test_the_sentence_says_the_number(feature: Feature) -> None:
    said = sentence(feature, 0.25 if isinstance(feature, Share) else 3.0)
    assert "{" not in said
    assert feature.says[0] == said[0] or said[0].isdigit()
    assert feature.family
    if isinstance(feature, Differ):
        return  # there is nothing to count
    assert ("25%" if isinstance(feature, Share) else "3") in said
    assert sentence(feature, 0.5) != said
    assert (f"{SETS_CAP} or more" in sentence(feature, SETS_CAP)) == isinstance(feature, Seen)


def test_the_hash_is_of_the_list() -> None:
    assert Catalog().hash == Catalog().hash != CATALOG.hash
    assert with_kinds(["b", "a", "b"]) == with_kinds(["a", "b"]) == Catalog(("a", "b"))
    assert with_kinds(["device", "hour"]) == Catalog()


# --- what an event can carry


WORDS = ("a", "b", "c", "DE", "US", "JP", "400000")  # some fit any pattern of the contract


def value(type_: Any, field_: str, rng: random.Random) -> Any:
    """Some value of a field's type, one of few."""
    match type_:
        case inspect.UnionType():
            return value(type_.types[0], field_, rng)
        case inspect.LiteralType():
            return rng.choice(type_.values)
        case inspect.BoolType():
            return rng.random() < 0.5
        case inspect.IntType() | inspect.FloatType():
            number = max(type_.ge or 0, rng.choice((1, 2, 429)))
            return number if type_.le is None else min(number, type_.le)
        case inspect.StrType():
            words = [w for w in WORDS if re.search(type_.pattern or "", w)]
            return rng.choice(words)
        case inspect.ListType():
            return [value(type_.item_type, field_, rng) for _ in range(type_.min_length or 2)]
        case inspect.DictType():
            return {CATALOG.kinds[0]: "a"}
        case inspect.StructType():
            return {f.name: value(f.type, f.name, rng) for f in type_.fields}
    raise AssertionError(f"no value of {type_} for {field_}")


@pytest.fixture(scope="module")
def lived() -> Folded:
    """Vectors of accounts that send every type with every field, in many turns."""
    rng = random.Random(1)
    log = []
    for turn in range(40):
        for name, cls in CLASS_OF.items():
            told = value(inspect.type_info(cls), name, rng) | {
                "type": name,
                "event_id": f"{name}-{turn}",
                "account_id": f"account-{turn % 5}",
                "org_id": f"org-{turn % 5}",
                "occurred_at": START + turn * HOUR // 12,
            }
            log.append(convert(told))
    return MemoryWindow(CATALOG).fold(
        Sealer(Secret(bytes(32)), Kinds(CATALOG.kinds), Names()).read(list(map(encode, log))).rows
    )


@EVERY
def test_some_event_moves_it(feature: Feature, lived: Folded) -> None:
    assert np.nanmax(lived.vectors[:, column(feature)]) > 0


# --- what is counted


@EVERY
def test_it_moves(feature: Feature) -> None:
    assert fold(moves(feature)).vectors[-1, column(feature)] > 0


@EVERY
def test_the_same_log_gives_the_same_vectors(feature: Feature) -> None:
    a, b = fold(moves(feature)), fold(moves(feature))
    np.testing.assert_array_equal(a.vectors, b.vectors)


@EVERY
def test_redelivery_changes_nothing(feature: Feature) -> None:
    facts = moves(feature)
    after = [Fact(facts[-1].t, 100), *sights(feature, 1)] if isinstance(feature, Seen) else facts
    again, once = MemoryWindow(CATALOG), MemoryWindow(CATALOG)
    assert set(once.fold(rows(facts)).status.tolist()) == {NEW}
    again.fold(rows(facts))
    repeated = again.fold(rows(facts))
    assert set(repeated.status.tolist()) == {DUPLICATE}
    assert np.isnan(repeated.vectors).all()
    later = rows([replace(f, t=facts[-1].t) for f in after])
    later.event_id[:] += np.uint64(1000)
    np.testing.assert_array_equal(again.fold(later).vectors, once.fold(later).vectors)


@COUNTED
def test_it_forgets_after_its_span(feature: Seen | Sum) -> None:
    facts = sights(feature, 1) if isinstance(feature, Seen) else moves(feature)
    window = MemoryWindow(CATALOG)
    window.fold(rows(facts))
    account, at = np.array([facts[-1].account], np.uint64), column(feature)
    now, end = START, START + feature.over
    known = [window.ask(account, t)[0, at] for t in (now, end - 1, end, end + 400 * DAY)]
    assert known[0] > 0
    assert known == [known[0], known[0], 0, 0]


@COUNTED
def test_a_later_event_keeps_it(feature: Seen | Sum) -> None:
    """What happened half a span apart counts together, until the older half is forgotten."""
    first = sights(feature, 1) if isinstance(feature, Seen) else moves(feature)
    half = feature.over // BUCKETS * (BUCKETS // 2)
    second = [replace(f, t=f.t + half) for f in first]
    window = MemoryWindow(CATALOG)
    window.fold(rows([*first, *second]))
    account, at = np.array([first[-1].account], np.uint64), column(feature)
    both, later = (window.ask(account, START + t)[0, at] for t in (half, feature.over))
    if isinstance(feature, Sum):
        assert (both, later) == (10, 5)
    else:
        assert later == 1


@EVERY
def test_what_was_never_told_is_unknown(feature: Feature) -> None:
    vector = fold([Fact(START, 100)]).vectors[0, column(feature)]
    match feature:
        case Age():
            assert vector == 0
        case Sum(by="account"):
            assert vector == 0
        case Seen(by="account"):
            assert vector == (feature.of == "hour")
        case _:
            assert np.isnan(vector)
    if isinstance(feature, Differ):
        half = fold([Fact(START, 100, 0, {kind(feature.a): 1})])
        assert np.isnan(half.vectors[0, column(feature)])
        alike = fold([Fact(START, 100, 0, {kind(feature.a): 1, kind(feature.b): 1})])
        assert alike.vectors[0, column(feature)] == 0


@SEEN
def test_it_counts_what_is_distinct_up_to_the_cap(feature: Seen) -> None:
    for n in (1, 2, 5):
        assert fold(sights(feature, n)).vectors[-1, column(feature)] == n
        twice = sights(feature, n) + sights(feature, n)
        assert fold(twice).vectors[-1, column(feature)] == n
    if feature.of != "hour":
        many = fold(sights(feature, SETS_CAP + 9))
        assert many.vectors[-1, column(feature)] == SETS_CAP


@SEEN
def test_an_organisation_counts_once(feature: Seen) -> None:
    """Accounts of one organisation are one owner; what one account holds is counted as it is."""
    counted = fold(sights(feature, 5, org=7)).vectors[-1, column(feature)]
    assert counted == (1 if feature.of == "account" else 5)


@SEEN
def test_only_the_events_it_names_count(feature: Seen) -> None:
    counts = set(feature.on) or set(EVENT_TYPES)
    for type_ in EVENT_TYPES:
        facts = [replace(f, type_=type_) for f in sights(feature, 2)]
        counted = fold(facts).vectors[-1, column(feature)]
        assert counted == (2 if type_ in counts else 0)


def test_the_plan_has_every_column_once() -> None:
    p = plan(CATALOG)
    columns = [
        *p.reads[:, 2],
        *p.tallies[:, 3],
        *p.lasts[:, 1],
        *p.differs[:, 2],
        *p.shares[:, 2],
        p.age,
    ]
    assert sorted(columns) == list(range(p.width))


@pytest.mark.parametrize(
    "wrong",
    [
        Seen("account", "devise", DAY, "", ""),
        Seen("devise", "account", DAY, "", ""),
        Sum("requests", "devise", DAY, "", ""),
        Differ("devise", "country", "", ""),
    ],
)
def test_a_feature_of_no_kind_is_refused(wrong: Feature, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.catalog.BUILT_IN", (wrong,))
    with pytest.raises(ValueError, match="no kind 'devise'"):
        plan.__wrapped__(Catalog())


def test_an_amount_is_what_its_field_says() -> None:
    assert set(AMOUNTS) == {f.of for f in CATALOG.features if isinstance(f, Sum)}
    assert set(NUMBERS) == {f.of for f in CATALOG.features if isinstance(f, Last)}
