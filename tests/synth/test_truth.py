"""Truth is complete, and nothing in the form of the data betrays it."""

from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
from scipy.stats import spearmanr

from synth.cast import SCENARIOS
from synth.cohorts import head_count
from synth.world import START
from tests.synth.played import Played, auc

COHORTS = {"consumer"} | {cohort.name for cohort in head_count(552)}  # of the market
SHARED = (
    "ip", "device_id", "phone", "instrument_id", "promo_id", "repo_id", "connection_id",
    "git_user_id", "org_id",
)  # fmt: skip


def test_truth_is_complete(market: Played) -> None:
    assert {e["account_id"] for e in market.events} <= set(market.truth)
    for row in market.truth.values():
        assert bool(row.ring_id) == bool(row.typology) == bool(row.tier) != bool(row.cohort)
        assert row.group_id
        if row.ring_id:
            assert row.group_id == row.ring_id


def test_every_cohort_shares_something(market: Played) -> None:
    assert {row.cohort for row in market.truth.values()} - {""} == COHORTS
    holders: dict[tuple[str, str], set[str]] = defaultdict(set)
    for event in market.events:
        for name in SHARED:
            if name in event:
                holders[name, event[name]].add(event["account_id"])
    sharing = {
        account for accounts in holders.values() if len(accounts) > 1 for account in accounts
    }
    share = defaultdict(list)
    for account, row in market.truth.items():
        share[row.cohort or "ring"].append(account in sharing)
    assert all(any(values) for values in share.values())
    for cohort in ("carrier_nat", "company_gateway", "hackathon", "university_lab", "seat_rollout"):
        assert np.mean(share[cohort]) > 0.9, cohort
    for cohort in ("family", "freelancer"):
        assert np.mean(share[cohort]) > 0.5, cohort
    assert 0.05 < np.mean(share["consumer"]) < 0.8


def test_a_gateway_hops_within_its_organisation(market: Played) -> None:
    owners: dict[str, set[str]] = defaultdict(set)
    accounts: dict[str, set[str]] = defaultdict(set)
    for event in market.events:
        if (
            event["type"] == "request"
            and market.truth[event["account_id"]].cohort == "company_gateway"
        ):
            owners[event["chain_root"]].add(event["org_id"])
            accounts[event["chain_root"]].add(event["account_id"])
    assert all(len(orgs) == 1 for orgs in owners.values())
    assert np.mean([len(a) > 1 for a in accounts.values()]) > 0.3


def test_ids_are_opaque(crowded: Played) -> None:
    accounts = sorted(crowded.truth)
    abusive = [bool(crowded.truth[a].ring_id) for a in accounts]
    order = [float(i) for i in range(len(accounts))]
    split = auc([o for o, a in zip(order, abusive, strict=True) if a],
                [o for o, a in zip(order, abusive, strict=True) if not a])  # fmt: skip
    assert 0.44 < split < 0.56
    first = [min(e["occurred_at"] for e in crowded.of_account[a]) for a in accounts]
    assert abs(spearmanr(order, first).statistic) < 0.1
    assert len({len(a) for a in accounts}) == 1
    assert len({len(e["event_id"]) for e in crowded.events}) == 1
    rings = [crowded.truth[a].ring_id for a in accounts if crowded.truth[a].ring_id]
    assert len(set(rings)) >= 12
    same = np.mean([a == b for a, b in pairwise(rings)])
    assert same < 0.2  # neighbours in the order of ids are not of one ring


def test_last_digits_say_nothing(crowded: Played) -> None:
    for modulus in (10, 1000):
        sides: dict[bool, list[float]] = {True: [], False: []}
        for event in crowded.events:
            side = bool(crowded.truth[event["account_id"]].ring_id)
            sides[side].append(event["occurred_at"] % modulus)
        assert 0.48 < auc(sides[True], sides[False]) < 0.52


def test_sign_ups_interleave(crowded: Played) -> None:
    """Rings open accounts all over the span, among honest sign-ups."""
    days: dict[bool, Counter[int]] = {True: Counter(), False: Counter()}
    for event in crowded.events:
        if event["type"] == "account_signup":
            side = bool(crowded.truth[event["account_id"]].ring_id)
            days[side][(event["occurred_at"] - START) // 86_400_000] += 1
    for side in (True, False):
        assert len(days[side]) == 4
        assert max(days[side].values()) < 0.5 * sum(days[side].values())


def test_ring_sizes(crowded: Played) -> None:
    rings = Counter((r.typology, r.ring_id) for r in crowded.truth.values() if r.ring_id)
    of = Counter(typology for typology, _ in rings)
    assert of.keys() == set(SCENARIOS) - {"market", "honest"}
    assert min(of.values()) >= 2
    assert max(rings.values()) > 20
    assert sum(size <= 10 for size in rings.values()) >= 10
    assert max(size for (typology, _), size in rings.items() if typology == "plan_sharing") <= 4
