"""Every honest cohort is there, and shares what it promises: it would be no test of a detector else.

The table says what each promises. A promise is kept if it holds of enough of the cohort, of few
ordinary consumers, and no longer once what is shared is taken away.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import msgspec
import numpy as np
import phonenumbers
import pytest

from synth.cohorts import COHORTS, head_count
from synth.world import simulate
from tests.synth.seen import HOUR, Line, Seen, look

Holds = Callable[[Seen, str], bool]
ACCOUNTS = 4000


@pytest.fixture(scope="session")
def seen() -> Seen:
    return look("market", seed=23, accounts=ACCOUNTS, days=4, abusive_share=0.03, tier="T1")


def shares(name: str, others: int = 1, among: str = "strangers") -> Holds:
    return lambda seen, account: seen.others(account, name, among) >= others


def hops(seen: Seen, account: str) -> bool:
    """One conversation on this and another account of the same group."""
    return seen.others(account, "chain_root", "group") >= 1


def both(*parts: Holds) -> Holds:
    return lambda seen, account: all(part(seen, account) for part in parts)


def either(*parts: Holds) -> Holds:
    return lambda seen, account: any(part(seen, account) for part in parts)


def many_users(seen: Seen, account: str) -> bool:
    return len(seen.shown[account]["end_user_id"]) >= 5


def round_the_clock(seen: Seen, account: str) -> bool:
    """Calls in most hours of the day, taken all days together."""
    calls = {x.occurred_at // HOUR % 24 for x in seen.lines[account] if x.type == "request"}
    return len(calls) >= 18


def all_night(seen: Seen, account: str) -> bool:
    """Three hours of calls without a pause of twenty minutes."""
    times = sorted(x.occurred_at for x in seen.lines[account] if x.type == "request")
    since = 0
    for before, at in pairwise(times):
        if at - before > HOUR / 3:
            since = at
        elif at - (since or times[0]) > 3 * HOUR:
            return True
    return False


def crowded_session(seen: Seen, account: str) -> bool:
    """Eight calls at once in one session."""
    edges: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for x in seen.lines[account]:
        if x.type == "request" and x.session_id:
            edges[x.session_id] += [(x.occurred_at - x.duration_ms, 1), (x.occurred_at, -1)]
    for times in edges.values():
        now = 0
        for _, step in sorted(times):
            now += step
            if now >= 8:
                return True
    return False


def far_from_its_papers(seen: Seen, account: str) -> bool:
    """Telephone or card of another country than that from which it mostly calls."""
    lines = seen.lines[account]
    home = Counter(x.country for x in lines if x.country).most_common(1)
    cards = {x.card_country for x in lines if x.card_country}
    phones = {
        phonenumbers.region_code_for_number(phonenumbers.parse(x.phone)) for x in lines if x.phone
    }
    papers = cards | phones - {None}
    return bool(home) and bool(papers - {home[0][0]})


def in_runner_home(seen: Seen, account: str) -> bool:
    return "/home/runner" in seen.shown[account]["home_id"]


def virtual_money(seen: Seen, account: str) -> bool:
    return any(x.funding in ("virtual", "prepaid") for x in seen.lines[account])


def two_owners(seen: Seen, account: str) -> bool:
    """Shares a device or a git identity with an account of another owner, one of them an organisation."""
    for name in ("device_id", "git_user_id"):
        for value in seen.shown[account][name]:
            for other in seen.holders[name, value] - {account}:
                if seen.owner(other) != seen.owner(account) and (
                    other in seen.org or account in seen.org
                ):
                    return True
    return False


def in_a_burst(seen: Seen, account: str) -> bool:
    """Signed up within half an hour of thirty others with the same code or referrer."""
    mine = [x for x in seen.lines[account] if x.type == "account_signup"]
    for sign_up in mine:
        for name in ("promo_id", "referrer_id"):
            value = getattr(sign_up, name)
            near = sum(
                any(
                    x.type == "account_signup"
                    and abs(x.occurred_at - sign_up.occurred_at) < HOUR / 2
                    for x in seen.lines[other][:3]
                )
                for other in seen.holders.get((name, value), ())
            )
            if near >= 15:
                return True
    return False


@dataclass(frozen=True)
class Promise:
    """`least` is the share of the cohort of which it holds; without `of` it is a cue in time or in an
    account's own fields, that nothing shared can take away."""

    cohort: str
    holds: Holds
    least: float
    of: tuple[str, ...] = ()
    usual: bool = False  # holds of ordinary consumers too, which is the point


PROMISES = (
    Promise("carrier_nat", shares("ip", 10), 0.9, ("ip",)),
    Promise("university_lab", shares("device_id", 2), 0.7, ("device_id",)),
    Promise("university_lab", shares("instructions_id", 15), 0.7, ("instructions_id",)),
    Promise("hackathon", shares("promo_id", 30), 0.95, ("promo_id",)),
    Promise("hackathon", in_a_burst, 0.9, ("promo_id", "referrer_id")),
    Promise("launch_day", in_a_burst, 0.7, ("promo_id", "referrer_id")),
    Promise("company_gateway", hops, 0.9, ("chain_root",)),
    Promise("company_gateway", shares("ip", 5, "owner"), 0.9, ("ip",)),
    Promise("reseller", hops, 0.9, ("chain_root",)),
    Promise("reseller", many_users, 0.9),
    Promise("agent_fleet", shares("prompt_id", 4, "owner"), 0.9, ("prompt_id",)),
    Promise("agent_fleet", round_the_clock, 0.5),
    Promise("ci_fleet", shares("device_id", 3, "owner"), 0.9, ("device_id",)),
    Promise("ci_fleet", both(in_runner_home, shares("ip", 1)), 0.7, ("ip",)),
    Promise("corporate_vpn", shares("header_order_id", 8, "group"), 0.9, ("header_order_id",)),
    Promise("corporate_vpn", shares("ip", 8, "group"), 0.9, ("ip",)),
    Promise("family", either(shares("instrument_id"), shares("device_id")), 0.5,
            ("instrument_id", "device_id")),
    Promise("family", shares("ip", 1, "group"), 0.5, ("ip",)),
    Promise("seat_rollout", shares("ip", 20, "owner"), 0.9, ("ip",)),
    Promise("seat_rollout", shares("instrument_id", 20, "owner"), 0.9, ("instrument_id",)),
    Promise("freelancer", either(shares("device_id", 1, "group"), shares("instrument_id")), 0.7,
            ("device_id", "instrument_id")),
    Promise("personal_pool", shares("device_id"), 0.8, ("device_id",)),
    Promise("personal_pool", hops, 0.3, ("chain_root",)),
    Promise("coding_tool_users", shares("instructions_id", 40), 0.5, ("instructions_id",)),
    Promise("coding_tool_users", shares("system_id", 40), 0.9, ("system_id",), usual=True),
    Promise("vpn_traveller", shares("ip", 3), 0.8, ("ip",)),
    Promise("expatriate", far_from_its_papers, 0.4),
    Promise("recycled_phone", shares("phone"), 0.7, ("phone",)),
    Promise("resold_device", shares("device_id"), 0.5, ("device_id",)),
    Promise("benchmark_researcher", lambda s, a: s.shared_values(a, "prompt_id", 8) >= 40, 0.7,
            ("prompt_id",)),
    Promise("tutorial_users", shares("instructions_id", 15), 0.5, ("instructions_id",)),
    Promise("overnight_agent", all_night, 0.5),
    Promise("new_employer_account", two_owners, 0.6, ("device_id", "git_user_id")),
    Promise("prepaid_user", both(virtual_money, shares("billing_address_id")), 0.3,
            ("billing_address_id",)),
    Promise("prepaid_user", shares("ip", 1, "group"), 0.6, ("ip",)),
    Promise("subagent_power_user", crowded_session, 0.7),
)  # fmt: skip
IDS = [f"{i} {p.cohort}" for i, p in enumerate(PROMISES)]


@pytest.mark.parametrize("promise", PROMISES, ids=IDS)
def test_a_cohort_keeps_its_promise(seen: Seen, promise: Promise) -> None:
    assert seen.share(promise.cohort, promise.holds) >= promise.least


@pytest.mark.parametrize("promise", [p for p in PROMISES if not p.usual], ids=lambda p: p.cohort)
def test_few_ordinary_consumers_do(seen: Seen, promise: Promise) -> None:
    assert seen.share("consumer", promise.holds) < promise.least / 2


@pytest.mark.parametrize("promise", [p for p in PROMISES if p.of], ids=lambda p: p.cohort)
def test_the_promise_is_broken_without_what_is_shared(seen: Seen, promise: Promise) -> None:
    assert seen.without(promise.of).share(promise.cohort, promise.holds) < promise.least / 4


def test_every_cohort_is_there_and_promises_something(seen: Seen) -> None:
    names = {cohort.name for cohort in COHORTS}
    assert {row.cohort for row in seen.truth.values()} - {""} == names | {"consumer"}
    assert {p.cohort for p in PROMISES} == names
    honest = round(ACCOUNTS * 0.97)
    for cohort, count in head_count(honest).items():
        assert 0.9 * count <= len(seen.cohort(cohort.name)) <= count, cohort.name
    assert len(seen.cohort("consumer")) >= 0.44 * honest


@pytest.mark.parametrize("honest", [0, 1, 2, 7, 33, 60, 150, 20_000])
def test_heads_add_up(honest: int) -> None:
    counts = head_count(honest)
    assert all(count >= cohort.least for cohort, count in counts.items())
    assert sum(counts.values()) <= 0.55 * honest or honest < 100
    assert sum(counts.values()) <= honest
    if honest >= 20_000:
        assert len(counts) == len(COHORTS)
        assert min(counts.values()) >= 300


def covered(seen: Seen, cohort: str, wanted: Callable[[Line], bool]) -> list[float]:
    """Of each group of a cohort with such an event: the largest share of its accounts that have
    one within the same two minutes."""
    of_group: dict[str, list[tuple[int, str]]] = defaultdict(list)
    born: dict[str, list[int]] = defaultdict(list)  # when each account of a group was first seen
    for account in seen.cohort(cohort):
        born[seen.truth[account].group_id].append(min(x.occurred_at for x in seen.lines[account]))
    for account in seen.cohort(cohort):
        for line in seen.lines[account]:
            if wanted(line):
                of_group[seen.truth[account].group_id].append((line.occurred_at, account))
    found = []
    for group, events in of_group.items():
        there = [sum(first <= at for first in born[group]) for at, _ in events]
        trains = [
            len({a for then, a in events if 0 <= then - at < 2 * HOUR / 60}) for at, _ in events
        ]
        found.append(max(n / of if of > 1 else 0.0 for n, of in zip(trains, there, strict=True)))
    return found


@pytest.mark.parametrize("cohort", ["company_gateway", "personal_pool"])
def test_tools_try_and_look_at_all_accounts(seen: Seen, cohort: str) -> None:
    """Health checks and looks at the usage come in trains over one's own accounts, as an operator's do."""
    groups = {seen.truth[a].group_id for a in seen.cohort(cohort)}
    tiny = covered(seen, cohort, lambda x: x.type == "request" and 0 < x.output_tokens <= 25)
    assert sum(share > 0.6 for share in tiny) > 0.15 * len(groups)
    assert whole_looks(seen, cohort) > 0.2


def whole_looks(seen: Seen, cohort: str) -> float:
    """The share of groups in which somebody looked at the usage of nearly all accounts at once."""
    groups = {seen.truth[a].group_id for a in seen.cohort(cohort)}
    looks = covered(seen, cohort, lambda x: x.type == "management_call")
    return sum(share > 0.6 for share in looks) / len(groups)


@pytest.mark.parametrize("cohort", ["family", "freelancer"])
def test_people_look_at_one_account(seen: Seen, cohort: str) -> None:
    assert whole_looks(seen, cohort) < 0.05


def test_a_fleet_keeps_its_cache_warm(seen: Seen) -> None:
    """Distillation asks once and reads nothing again; a fleet of agents reads most of each prompt."""
    for account in seen.cohort("agent_fleet"):
        calls = [x for x in seen.lines[account] if x.type == "request"]
        read = sum(x.cache_read_tokens for x in calls)
        sent = read + sum(x.cache_write_tokens + x.input_tokens for x in calls)
        assert not sent or len(calls) < 20 or read > 0.6 * sent


def test_ordinary_people_send_no_probes(seen: Seen) -> None:
    assert not covered(seen, "consumer", lambda x: x.kind == "probe")


def test_some_sign_up_and_never_call(seen: Seen) -> None:
    for cohort, low, high in (("consumer", 0.02, 0.12), ("seat_rollout", 0.05, 0.25)):
        signed = [
            {x.type for x in seen.lines[a]}
            for a in seen.cohort(cohort)
            if any(x.type == "account_signup" for x in seen.lines[a])
        ]
        silent = np.mean(["request" not in types for types in signed])
        assert low < silent < high, (cohort, silent)


def test_who_has_an_organisation(seen: Seen) -> None:
    """The accounts of organisations and nobody else's; never one that is a stranger's."""
    of_org = {"company_gateway", "reseller", "agent_fleet", "ci_fleet", "seat_rollout"}
    groups: dict[str, set[str]] = defaultdict(set)
    for account, row in seen.truth.items():
        org = seen.org.get(account)
        if row.cohort in of_org:
            assert org, row
        elif row.cohort != "new_employer_account":  # half of theirs are their own
            assert org is None, row
        if org:
            groups[org].add(row.group_id)
    assert all(len(ids) == 1 for ids in groups.values())
    halves = Counter(a in seen.org for a in seen.cohort("new_employer_account"))
    assert 0.35 < halves[True] / halves.total() < 0.65


def test_a_group_is_of_one_cohort(seen: Seen) -> None:
    cohorts: dict[str, set[str]] = defaultdict(set)
    for row in seen.truth.values():
        cohorts[row.group_id].add(row.cohort)
    assert all(len(names) == 1 for names in cohorts.values())


def test_people_are_not_their_homes(seen: Seen) -> None:
    """Strangers have homes and public repositories in common, never a git identity."""
    consumers = set(seen.cohort("consumer"))
    most: dict[str, int] = defaultdict(int)
    for (name, _), holders in seen.holders.items():
        most[name] = max(most[name], len(holders & consumers))
    assert most["home_id"] > 10
    assert most["repo_id"] > 3
    assert most["git_user_id"] <= 3  # a full name at a large mail service


def test_consumers_have_accidents(seen: Seen) -> None:
    """Some share a number, a device or a card with a stranger, and most do not."""
    for name in ("phone", "device_id", "instrument_id"):
        assert 0.003 < seen.share("consumer", shares(name)) < 0.12, name
    assert seen.share("consumer", shares("ip")) < 0.8


@pytest.fixture(scope="session")
def acted_on() -> Seen:
    """A world in which the provider acts on everybody."""
    world = simulate("honest", seed=4, accounts=400, days=6)
    stage, read = world._stage, msgspec.json.Decoder(Line)
    lines: list[Line] = []
    acted = False
    for block, _ in world.blocks():
        lines += [read.decode(raw) for raw in block.splitlines()]
        if not acted and stage.agenda.now > stage.start + 24 * HOUR:
            acted = True
            for index, account in enumerate(stage.roster):
                if account.events and account.keeper:
                    action = ("suspend", "challenge", "throttle")[index % 3]
                    stage.provider.act(account, action, stage.agenda.now)
    return Seen.of(lines, {row.account_id: row for row in world.truth()})


def test_owners_appeal_show_a_face_or_leave(acted_on: Seen) -> None:
    done: dict[str, list[list[Line]]] = defaultdict(list)
    for lines in acted_on.lines.values():
        lines = sorted(lines, key=lambda x: x.occurred_at)
        for index, line in enumerate(lines):
            if line.type == "enforcement" and line.action != "restore":
                done[line.action or ""].append(lines[index + 1 :])
                break
    appeals = [any(x.outcome == "filed" for x in after) for after in done["suspend"]]
    assert 0.7 < np.mean(appeals) < 0.95
    back = [any(x.action == "restore" for x in after) for after in done["suspend"]]
    assert 0.6 < np.mean(back) < np.mean(appeals)
    checks = [[x.result for x in after if x.type == "kyc_checked"] for after in done["challenge"]]
    assert np.mean([bool(results) for results in checks]) > 0.8
    results = Counter(results[0] for results in checks if results)
    assert results["passed"] / results.total() > 0.9
    # a few leave, most stay
    calls = {name: np.mean([any(x.type == "request" for x in after) for after in lives])
             for name, lives in done.items()}  # fmt: skip
    assert calls["throttle"] > 0.75
    assert calls["challenge"] > 0.7
