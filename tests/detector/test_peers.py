"""Peers on worlds whose figures are known, and their components against networkx."""

from collections import defaultdict

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

import detector.train
from detector.peers import COLUMNS, FEW, TIES, Aggregates, peers
from detector.train import replay
from features.event import AnyEvent, decode
from features.kind import KIND
from tests.detector.handmade import Fields, Log, engine_of, events_of, small_logs


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector.train, "ROUNDS", 20)


def collected(events: list[AnyEvent]) -> Aggregates:
    found = Aggregates()
    found.add(events)
    return found


def column(found: Aggregates, account: str, name: str) -> float:
    return float(found.table([account])[0, COLUMNS.index(name)])


def test_aggregates_counted_by_hand() -> None:
    log = Log()
    log.add("account_signup", "a", 0, form_ms=1200, device_id="d0", ip="192.0.2.1", country="DE")
    log.request(
        "a", 60, cost_usd=2.0, paid_usd=0.5, input_tokens=10, network_type="vpn", device_id="d1"
    )
    log.request("a", 61, cost_usd=1.0, kind="title")
    log.add("request", "a", 26 * 60, status=429)
    log.card("a", 70, "card0").add("payment", "a", 71, kind="charge", amount_usd=20.0)
    log.add("payment", "a", 72, kind="dispute", amount_usd=20.0)
    log.add("payment", "a", 73, kind="card_declined")
    log.request("b", 0)
    found = collected(log.events)
    expected = {
        "account_signup_events": 1, "request_events": 3, "payment_events": 4, "login_events": 0,
        "cost_usd": 3.0, "paid_usd": 0.5, "charged_usd": 20.0, "taken_back_usd": 20.0, "declines": 1, "cards": 1,
        "input_tokens": 10, "refused": 1, "limited": 1, "untrusted": 1, "side_calls": 1,
        "own_device": 2, "own_ip": 1, "own_card": 1, "own_country": 1,
        "hours_active": 3, "hours_of_day": 3, "span_h": 26.0, "form_ms": 1200, "liveness": -1,
    }  # fmt: skip
    assert {name: column(found, "a", name) for name in expected} == expected
    assert column(found, "b", "form_ms") == -1


@settings(max_examples=40)
@given(fields=small_logs(min_size=1), data=st.data())
def test_one_accounts_row_depends_on_no_other_and_on_no_order(
    fields: list[Fields], data: st.DataObject
) -> None:
    whole = collected(events_of(fields))
    mixed = collected(events_of(data.draw(st.permutations(fields))))
    for account in whole.accounts:
        alone = collected(events_of([f for f in fields if f["account_id"] == account]))
        if sum("org_id" in f for f in fields) == 0:
            assert mixed.owner(account) == account
        assert (whole.table([account]) == alone.table([account])).all()
        assert (whole.table([account]) == mixed.table([account])).all()


@settings(max_examples=60)
@given(fields=small_logs(min_size=1))
def test_components_are_those_of_networkx(fields: list[Fields]) -> None:
    org = {f["account_id"]: f["org_id"] for f in fields if "org_id" in f}
    graph: nx.Graph[object] = nx.Graph()
    users: dict[tuple[str, str], set[str]] = defaultdict(set)
    for f in fields:
        who = org.get(f["account_id"], f["account_id"])
        graph.add_node(who)
        for kind in TIES:
            if KIND[kind].field in f:
                users[kind, f[KIND[kind].field]].add(who)
    for owners in users.values():
        nx.add_path(graph, sorted(owners))
    found = collected(events_of(fields))
    names = list(found.accounts)
    component, size = found.components(names)
    expected = [nx.node_connected_component(graph, org.get(a, a)) for a in names]
    assert size.tolist() == [len(e) for e in expected]
    for i in range(len(names)):
        for j in range(i):
            assert (component[i] == component[j]) == (expected[i] == expected[j])
    for kind in ("device", "card", "ip"):
        most = dict.fromkeys(names, 0)
        for (k, _), owners in users.items():
            for a in names:
                if k == kind and org.get(a, a) in owners:
                    most[a] = max(most[a], len(owners))
        mine = {
            a: any(f["account_id"] == a and KIND[kind].field in f for f in fields) for a in names
        }
        told = found.busiest(kind, names)
        assert [told[i] for i, a in enumerate(names) if a not in org] == [
            most[a] for a in names if a not in org
        ]
        assert all(told[i] == 0 for i, a in enumerate(names) if not mine[a])


@pytest.mark.parametrize(("n", "tied"), [(FEW, True), (FEW + 1, False)])
def test_an_entity_of_a_crowd_ties_nobody(n: int, tied: bool) -> None:
    log = Log()
    for i in range(n):
        log.request(f"a{i}", i, device_id="d")
    _, size = collected(log.events).components([f"a{i}" for i in range(n)])
    assert set(size) == {n if tied else 1}


def ring_world() -> tuple[Aggregates, list[str], np.ndarray, list[str]]:
    """Eight rings of six on a device of their own, who spend a lot; eighty honest on a NAT, who spend little."""
    log = Log()
    for r in range(8):
        for i in range(6):
            log.request(f"r{r}.{i}", r * 10 + i, device_id=f"d{r}", cost_usd=50.0 + i)
    for h in range(80):
        log.request(f"h{h}", h, device_id=f"own{h}", ip="192.0.2.9", cost_usd=h / 80)
    found = collected(log.events)
    names = list(found.accounts)
    y = np.array([float(a[0] == "r") for a in names])
    return found, names, y, [a.split(".")[0] if a[0] == "r" else "" for a in names]


def test_figures_of_a_known_world() -> None:
    found, names, y, ring = ring_world()
    rings = {r: i for i, r in enumerate(sorted(set(ring) - {""}))}
    fold = np.array([rings[r] % 4 if r else i % 4 for i, r in enumerate(ring)])
    told = peers(found, names, y, ring, fold)
    assert told["rule: accounts per device"]["auc"] == 1.0
    assert told["rule: accounts per payment card"]["auc"] == 0.5, "nobody has one"
    assert told["rule: accounts per IP address"]["auc"] == 0.0, "the NAT is honest"
    assert told["rule: any of them"]["auc"] == 0.0
    assert told["components"]["auc"] == 1.0
    assert told["components"]["pairwise"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert told["LightGBM, accounts alone"]["auc"] > 0.99, "the sum spent is an account's own"
    x = np.log1p(found.table(names) + 1)
    forest = IsolationForest(n_estimators=200, random_state=7).fit(x)

    assert told["isolation forest"]["auc"] == pytest.approx(
        roc_auc_score(y, -forest.score_samples(x))
    )
    for row in told.values():
        assert (row["n"], row["n_abusive"]) == (128, 48)


def test_learning_holds_operators_out() -> None:
    """Each operator's sum can be memorised and says nothing of another's."""
    rng = np.random.default_rng(0)
    log, pace = Log(), rng.permutation(20)
    for o in range(20):
        for i in range(30):
            log.request(f"o{o}.{i}", i, cost_usd=float(pace[o]))
    found = collected(log.events)
    names = list(found.accounts)
    o = np.array([int(a[1:].split(".")[0]) for a in names])
    y, ring = (o % 2).astype(float), [f"o{k}" for k in o]
    known = peers(found, names, y, ring, rng.integers(0, 5, len(names)))
    unknown = peers(found, names, y, ring, o // 2 % 5)
    assert known["LightGBM, accounts alone"]["auc"] > 0.95
    assert unknown["LightGBM, accounts alone"]["auc"] < 0.8


def test_a_replayed_log_is_noted_sealed_and_whole() -> None:
    log = Log().crowd(9)
    log.request("a", 1, device_id="d")
    events = log.events
    found = Aggregates()
    replay(
        engine_of(),
        [events[:4], events[4:]],
        len(events),
        note=lambda sealed: found.add(map(decode, sealed.bodies)),
    )
    assert len(found.accounts) == 10
    assert all(value.startswith("h:") for value in found.seen["device"])
