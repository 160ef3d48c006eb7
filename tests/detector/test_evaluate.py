"""Figures of logs whose truth is known, counted by hand."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.evaluate import clean, evaluate
from detector.ledger import OUTLAY
from detector.model import Model
from features.event import InvalidEvent
from features.table import Truth, read_truth
from tests.detector.handmade import (
    Fields,
    Log,
    accepted,
    engine_of,
    events_of,
    made_model,
    small_logs,
)

NUMBER = (int, float, type(None))
AT_FPR = {"0.001": NUMBER, "0.01": NUMBER}
INTERVAL = {"value": NUMBER, "low": NUMBER, "high": NUMBER, "rounds": int}
BIN = {"n": int, "mean_score": NUMBER, "share_abusive": NUMBER}
AGREEMENT = {"precision": NUMBER, "recall": NUMBER, "f1": NUMBER}
# DESIGN's contract of `evaluate --json`; a name in angle brackets stands for any.
CONTRACT: dict[str, Any] = {
    "account": {
        "n": int,
        "n_abusive": int,
        "auc": NUMBER,
        "pr_auc": NUMBER,
        "recall_at_fpr": AT_FPR,
        "precision_at_base_rate": {"0.001": NUMBER, "0.01": NUMBER, "0.05": NUMBER},
        "recall_at_budget": NUMBER,
        "intervals": {"<statistic>": INTERVAL},
        "curve": {"recall": list, "precision": list},
        "reliability": list,
        "realised": {"fpr": NUMBER, "recall": NUMBER, "precision": NUMBER},
        "ece": NUMBER,
        "brier": NUMBER,
    },
    "cluster": {
        "n": int,
        "pairwise": AGREEMENT,
        "b3": AGREEMENT,
        "ring_recall": NUMBER,
        "bystanders": NUMBER,
    },
    "time": {
        "median_accounts": NUMBER,
        "median_events": NUMBER,
        "median_hours": NUMBER,
        "p90_hours": NUMBER,
        "rings_undetected": int,
        "leaked_usd_median": NUMBER,
        "curve": {"hours": list, "share_alerted": list},
    },
    "money": {
        "leaked_usd": NUMBER,
        "leaked_share": NUMBER,
        "break_even_share": NUMBER,
        "honest_blocked_usd": NUMBER,
    },
    "harm": {
        "overall_fpr": NUMBER,
        "worst_cohort": (str, type(None)),
        "worst_fpr": NUMBER,
        "ratio_between_cohorts": NUMBER,
        "appeals": int,
    },
    "tiers": {"<tier>": {"n": int, "pr_auc": NUMBER, "recall": NUMBER, "recall_at_fpr": AT_FPR}},
    "cohorts": {"<name>": {"n": int, "fpr": NUMBER}},
    "typologies": {
        "<name>": {
            "n": int,
            "recall": NUMBER,
            "by_tier": {"<tier>": NUMBER},
            "recall_at_fpr": AT_FPR,
            "leaked_usd": NUMBER,
        }
    },
    "model": (str, type(None)),
    "events": int,
    "seconds": (int, float),
}


def hold(told: Any, contract: Any, place: str = "$") -> None:
    """Every key of the contract is there, with a value of its type."""
    if isinstance(contract, dict):
        assert isinstance(told, dict), place
        for key, inner in contract.items():
            if key.startswith("<"):
                for name, value in told.items():
                    hold(value, inner, f"{place}.{name}")
            else:
                assert key in told, f"{place}.{key}"
                hold(told[key], inner, f"{place}.{key}")
    else:
        assert isinstance(told, contract), f"{place} is {told!r}"
        assert not isinstance(told, bool), place


def truth_of(folder: Path, *rows: str) -> Truth:
    """From `account_id,ring_id,typology,cohort,tier` rows."""
    path = folder / "truth.csv"
    path.write_text("\n".join(["account_id,ring_id,typology,cohort,tier", *rows]) + "\n")
    return read_truth(path)


def told(
    log: Log, truth: Truth, model: Model | None = None, parts: int = 512, **policy: Any
) -> dict[str, Any]:
    events = log.events
    batches = [events[at : at + parts] for at in range(0, len(events), parts)]
    return evaluate(engine_of(model, **policy), batches, truth)


# --- a hand-made world

WORLD = (
    *(f"stranger{i},,,user," for i in range(60)),
    *(f"r{i},ring-a,transfer_station,,T1" for i in range(8)),
    *(f"s{i},ring-b,credit_farm,,T3" for i in range(3)),
    "lone,,kyc_mule,,",
    *(f"home{i},,,family," for i in range(3)),
)


def world() -> Log:
    """Ring A is caught by its card, ring B by nothing; a family shares a card; ghosts are unnamed.

    The n-th account on a card is scored n tenths: challenged from .3, reviewed from .5 on.
    """
    log = Log().crowd(60)
    for i in range(8):
        log.card(f"r{i}", 300 + i, "card-a", device_id="device-a")
        log.request(f"r{i}", 300.5 + i, cost_usd=10.0, paid_usd=1.0)
    log.add("payment", "r0", 310, kind="charge", amount_usd=6.0)
    log.add("payment", "r0", 1000, kind="dispute", amount_usd=6.0)
    for i in range(3):
        log.request(f"s{i}", 600 + 60 * i, cost_usd=4.0)
        log.card(f"home{i}", 700 + i, "card-home", device_id=f"device-home{i}")
    log.request("lone", 800, cost_usd=1.0)
    return log


def test_a_world_counted_by_hand(
    made: Model, tmp_path: Path, golden: Callable[[str, str], None]
) -> None:
    found = told(world(), truth_of(tmp_path, *WORLD), made)
    hold(found, CONTRACT)
    account = found["account"]
    assert (account["n"], account["n_abusive"]) == (60 + 8 + 3 + 1 + 3, 8 + 3 + 1)
    # all of ring A in the end, and the third of the family
    assert found["flagged_accounts"] == [*(f"r{i}" for i in range(8)), "home2"]
    assert account["realised"] == {
        "fpr": pytest.approx(1 / 63),
        "recall": pytest.approx(8 / 12),
        "precision": pytest.approx(8 / 9),
    }
    # standing: .8 on ring A's device, .1 on a device of one's own, 0 without one
    assert account["auc"] == pytest.approx((8 * 63 + 4 * 0) / (12 * 63))
    assert account["recall_at_fpr"] == {
        "0.001": pytest.approx(8 / 12),
        "0.01": pytest.approx(8 / 12),
    }
    assert account["brier"] == pytest.approx((8 * 0.2**2 + 4 * 1 + 63 * 0.1**2) / 75)

    cluster = found["cluster"]
    assert cluster["n"] == 1
    assert cluster["pairwise"] == {
        "precision": 1.0,
        "recall": pytest.approx(28 / (28 + 3)),
        "f1": pytest.approx(2 * 28 / (28 + 28 + 3)),
    }
    assert cluster["ring_recall"] == 0.5
    assert cluster["bystanders"] == 0

    # ring A is alerted at its fifth card: 4 accounts with two events, and that one
    when = found["time"]
    assert (when["rings"], when["rings_undetected"]) == (2, 1)
    assert (when["median_accounts"], when["median_events"]) == (5, 9)
    assert when["median_hours"] == pytest.approx(4 / 60)
    assert when["p90_hours"] is None, "ring B never was: the ninth tenth is not reached"

    # r0..r3 are stopped by the sweep at the end; r4..r7 before their first request
    money = found["money"]
    assert money["leaked_usd"] == pytest.approx(4 * 9 + 3 * 4 + 1)
    assert money["leaked_share"] == pytest.approx((4 * 9 + 12 + 1) / (8 * 9 + 12 + 1))
    spent = 12 * OUTLAY["account"] + 8 * OUTLAY["card"] + 4 * 1.0
    assert money["break_even_share"] == pytest.approx(spent / (40 + 12 + 1))

    assert {c: v["fpr"] for c, v in found["cohorts"].items()} == {
        "user": 0,
        "family": pytest.approx(1 / 3),
    }
    all_, none = {"0.001": 1.0, "0.01": 1.0}, {"0.001": 0.0, "0.01": 0.0}
    assert found["typologies"] == {
        "transfer_station": {
            "n": 8,
            "recall": 1.0,
            "by_tier": {"T1": 1.0},
            "recall_at_fpr": all_,
            "leaked_usd": pytest.approx(4 * 9),
        },
        "credit_farm": {
            "n": 3,
            "recall": 0.0,
            "by_tier": {"T3": 0.0},
            "recall_at_fpr": none,
            "leaked_usd": 12.0,
        },
        "kyc_mule": {
            "n": 1,
            "recall": 0.0,
            "by_tier": {},
            "recall_at_fpr": none,
            "leaked_usd": 1.0,
        },
    }
    assert found["tiers"] == {
        "T1": {"n": 8, "pr_auc": 1.0, "recall": 1.0, "recall_at_fpr": all_},
        "T3": {"n": 3, "pr_auc": pytest.approx(3 / 66), "recall": 0.0, "recall_at_fpr": none},
    }
    # 75 accounts: one review, and eight that score alike
    assert account["recall_at_budget"] == pytest.approx(1 / 12)
    for rate in (0.001, 0.01, 0.05):
        assert account["precision_at_base_rate"][str(rate)] == pytest.approx(
            rate * 8 / 12 / (rate * 8 / 12 + (1 - rate) / 63)
        )
    assert account["reliability_top"] == {
        "n": 1,
        "mean_score": pytest.approx(0.8),
        "share_abusive": 1.0,
    }
    assert when["curve"] == {"hours": [pytest.approx(4 / 60)], "share_alerted": [0.5]}
    # by then four accounts had made their request, and the charge of one was still to come
    assert when["leaked_usd_median"] == pytest.approx(4 * 9)
    assert money["honest_blocked_usd"] == 0
    harm = found["harm"]
    assert (harm["worst_cohort"], harm["appeals"]) == ("family", 0)
    assert harm["overall_fpr"] == pytest.approx(1 / 63)
    assert harm["gate_passed"] is None, "one of three says nothing"
    ring = found["ring_example"]
    assert ring["members"] == [{"account": f"r{i}", "abusive": True} for i in range(8)]
    assert {tie["a"] for tie in ring["links"]} <= {f"r{i}" for i in range(8)}
    assert {kind for tie in ring["links"] for kind in tie["kinds"]} == {"card", "device"}
    assert {e["kind"] for e in ring["evidence"]} == {"card", "device"}
    assert (found["model"], found["events"]) == ("made", len(world().events))
    del found["seconds"]
    rounded = json.loads(json.dumps(found), parse_float=lambda x: round(float(x), 9))
    golden("evaluate.json", json.dumps(rounded, indent=1, sort_keys=True, allow_nan=False) + "\n")


def test_accounts_that_the_truth_does_not_name_are_counted_nowhere(
    made: Model, tmp_path: Path
) -> None:
    """Ghosts have a card, a ring and losses of their own, far from everybody else's."""
    truth = truth_of(tmp_path, *WORLD)
    log = world()
    for i in range(8):
        log.card(f"ghost{i}", 900 + i, "card-ghost", device_id="device-ghost")
        log.request(f"ghost{i}", 910 + i, cost_usd=999.0)
    without, with_ghosts = told(world(), truth, made), told(log, truth, made)
    for found in (without, with_ghosts):
        del found["seconds"], found["events"]
        for tie in found["ring_example"]["links"]:
            del tie["nats"]  # the more owners there are, the more a link surprises
    assert with_ghosts == without


def test_named_accounts_without_an_event_are_counted_nowhere(made: Model, tmp_path: Path) -> None:
    without = told(world(), truth_of(tmp_path, *WORLD), made)
    more = ("absent0,ring-c,credit_farm,,T0", "absent1,ring-a,,,", "absent2,,,user,")
    with_absent = told(world(), truth_of(tmp_path, *WORLD, *more), made)
    for found in (without, with_absent):
        del found["seconds"]
    assert with_absent == without


@settings(max_examples=15)
@given(parts=st.integers(1, 100))
def test_where_batches_end_does_not_matter(
    made: Model, tmp_path_factory: pytest.TempPathFactory, parts: int
) -> None:
    """A stop is a stop at its event: not at the end of the batch that was folded with it."""
    truth = truth_of(tmp_path_factory.getbasetemp(), *WORLD)
    # no sweep has a say, so that all there is are answers to events
    blind = made_model(standing="last_form_ms", cluster="hub_share")
    whole, cut = (told(world(), truth, blind, n, clusters={"review": 1.0}) for n in (512, parts))
    for found in (whole, cut):
        del found["seconds"]
    assert cut == whole
    assert whole["time"]["median_events"] == 9
    assert made is not blind


def test_the_last_sweep_looks_at_everybody_however_recent_the_one_before(
    made: Model, tmp_path: Path
) -> None:
    truth = truth_of(tmp_path, *WORLD)
    found = told(world(), truth, made, parts=10, sweep={"every_s": 10**7})
    assert found["typologies"]["transfer_station"]["recall"] == 1.0
    assert found["account"]["auc"] == pytest.approx((8 * 63) / (12 * 63))


def test_an_accounts_score_is_its_highest(made: Model, tmp_path: Path) -> None:
    """Forty days on nobody is on ring A's device any more; what was seen was seen."""
    truth = truth_of(tmp_path, *WORLD)
    log = world()
    n = len(log.events)
    for i in range(8):
        log.request(f"r{i}", 40 * 24 * 60)
    events = log.events
    found = evaluate(engine_of(made), [events[:n], events[n:]], truth)
    assert found["account"]["brier"] == pytest.approx((8 * 0.2**2 + 4 * 1 + 63 * 0.1**2) / 75)


def test_recall_is_told_by_tier(made: Model, tmp_path: Path) -> None:
    rows = [row.replace("credit_farm", "transfer_station") for row in WORLD]
    found = told(world(), truth_of(tmp_path, *rows), made)
    stations = found["typologies"]["transfer_station"]
    assert stations["n"] == 11
    assert stations["recall"] == pytest.approx(8 / 11)
    assert stations["by_tier"] == {"T1": 1.0, "T3": 0.0}


def test_a_foreign_truth_says_who_is_abusive_and_nothing_else(made: Model, tmp_path: Path) -> None:
    path = tmp_path / "foreign.csv"
    path.write_text(
        "\n".join(["account_id,ring_id", *(",".join(r.split(",")[:2]) for r in WORLD)]) + "\n"
    )
    found, whole = (
        told(world(), read_truth(path), made),
        told(world(), truth_of(tmp_path, *WORLD), made),
    )
    assert found["tiers"] == found["cohorts"] == {}
    assert set(found["typologies"]) == {"unknown"}
    assert found["harm"]["gate_passed"] is None, "without cohorts nobody can tell"
    assert found["time"] == whole["time"]
    for key in ("pairwise", "ring_recall_by_size", "b3"):
        assert found["cluster"][key] == whole["cluster"][key]


def test_the_future_moves_no_alert(made: Model, tmp_path: Path) -> None:
    """Whatever comes after ring A's alert, and in whatever order, it was alerted then."""
    truth = truth_of(tmp_path, *WORLD)
    fields = sorted(world().fields, key=lambda f: f["occurred_at"])
    alert = next(i for i, f in enumerate(fields) if f["account_id"] == "r4") + 1
    rng = np.random.default_rng(4)
    times = [f["occurred_at"] for f in fields]
    order = [*range(alert), *(alert + rng.permutation(len(fields) - alert)).tolist()]
    mixed = [fields[i] | {"occurred_at": t} for i, t in zip(order, times, strict=True)]
    # no sweep has a say: what is compared are the answers to events
    blind = made_model(standing="last_form_ms", cluster="hub_share")
    one, two = (
        evaluate(engine_of(blind, clusters={"review": 1.0}), [events_of(f)], truth)
        for f in (fields, mixed)
    )
    for key in ("curve", "median_hours", "median_events", "median_accounts"):
        assert one["time"][key] == two["time"][key]
    assert one["time"]["rings_undetected"] == 1


def test_what_honest_accounts_would_have_paid_is_blocked(made: Model, tmp_path: Path) -> None:
    """The third of the family is challenged, not stopped; the fifth on its card is."""
    truth = truth_of(tmp_path, *WORLD, "home3,,,family,", "home4,,,family,")
    log = world()
    for i in (3, 4):
        log.card(f"home{i}", 702 + i, "card-home", device_id=f"device-home{i}")
        log.request(f"home{i}", 720, cost_usd=9.0, paid_usd=7.0)
    log.request("home4", 705, cost_usd=5.0, paid_usd=4.0)
    log.add("appeal", "home4", 730, outcome="filed").add("appeal", "r1", 730, outcome="filed")
    found = told(log, truth, made)
    assert found["money"]["honest_blocked_usd"] == pytest.approx(7.0)
    assert found["harm"]["appeals"] == 1


def test_undetected_rings_are_censored_at_the_end_of_the_log(made: Model, tmp_path: Path) -> None:
    """Three rings, one of them caught after four minutes: a third is reached, the half is not."""
    rows = [*WORLD, "lone2,ring-c,credit_farm,,T3"]
    found = told(world().request("lone2", 10), truth_of(tmp_path, *rows), made)
    assert found["time"]["rings"] == 3
    assert found["time"]["rings_undetected"] == 2
    assert found["time"]["median_hours"] is None
    assert found["time"]["median_accounts"] is None


def test_a_late_event_can_be_a_rings_first(made: Model, tmp_path: Path) -> None:
    """Time to detection runs from when it happened, not from when it was heard of."""
    log = world()
    late = Log("late").request("r7", 300 - 60).events
    engine = engine_of(made)
    events = log.events
    at = next(i for i, e in enumerate(events) if e.account_id == "r1")
    found = evaluate(engine, [[*events[:at], *events[at:], *late]], truth_of(tmp_path, *WORLD))
    assert found["time"]["median_hours"] == pytest.approx((60 + 4) / 60)


def test_money_leaked_after_a_stop_is_not_ours(made: Model, tmp_path: Path) -> None:
    """r4 is reviewed at once; what it does later is prevented, its earlier charge is not."""
    truth = truth_of(tmp_path, *WORLD)
    before, log = told(world(), truth, made)["money"], world()
    log.request("r4", 900, cost_usd=500.0)
    log.add("payment", "r4", 901, kind="charge", amount_usd=50.0)
    log.add("payment", "r4", 902, kind="dispute", amount_usd=50.0)
    log.add("payment", "r5", 903, kind="charge", amount_usd=20.0)
    log.add("payment", "r5", 904, kind="refund", amount_usd=20.0)
    after = told(log, truth, made)["money"]
    assert after["leaked_usd"] == pytest.approx(before["leaked_usd"])
    assert after["leaked_share"] < before["leaked_share"]


def test_without_a_model_the_cluster_scores_its_members(tmp_path: Path) -> None:
    rules = {"review": 0.2, "suspend": 0.9}
    found = told(world(), truth_of(tmp_path, *WORLD), None, clusters=rules)
    hold(found, CONTRACT)
    assert found["model"] is None
    assert found["flagged_accounts"] == [f"r{i}" for i in range(8)]
    # the family's card makes a cluster too, too small a one to act on, which scores a little
    assert found["account"]["auc"] == pytest.approx((8 * 63 + 4 * 60 / 2) / (12 * 63))


def test_an_identifier_that_is_none_stops_the_evaluation(made: Model, tmp_path: Path) -> None:
    log = world().add("account_signup", "stranger0", 5, email="nowhere")
    with pytest.raises(InvalidEvent):
        told(log, truth_of(tmp_path, *WORLD), made)


def test_who_only_repeated_anothers_event_was_never_seen(made: Model, tmp_path: Path) -> None:
    log = world()
    first = log.events[0].event_id
    found = told(
        log.request("lone2", 2000, event_id=first),
        truth_of(tmp_path, *WORLD, "lone2,,carded,,"),
        made,
    )
    assert found["account"]["n_abusive"] == 12


def test_progress_counts_every_event(made: Model, tmp_path: Path) -> None:
    steps: list[int] = []
    events = world().events
    evaluate(engine_of(made), [events], truth_of(tmp_path, *WORLD), steps.append)
    assert sum(steps) == len(events)


# --- numbers or null

KINDS_OF_TRUTH = st.sampled_from(
    ["", "ring,,,T0", "ring,sms_farm,,T1", "other,,,", ",carded,,", ",,family,", ",,,"]
)


@settings(max_examples=40)
@given(
    fields=small_logs(),
    rows=st.lists(KINDS_OF_TRUTH, min_size=12, max_size=12),
    modelled=st.booleans(),
)
def test_whatever_happens_it_is_json_and_the_contract_holds(
    made: Model,
    tmp_path_factory: pytest.TempPathFactory,
    fields: list[Fields],
    rows: list[str],
    modelled: bool,
) -> None:
    truth = truth_of(
        tmp_path_factory.getbasetemp(), *(f"a{i},{row}" for i, row in enumerate(rows) if row)
    )
    engine = engine_of(made if modelled else None, clusters={"review": 0.01, "smallest": 2})
    found = evaluate(engine, [events_of(fields)], truth)
    json.dumps(found, allow_nan=False)
    hold(found, CONTRACT)
    known = {f["account_id"] for f in accepted(fields)} & set(truth.row)
    assert found["account"]["n"] == len(known)
    assert set(found["flagged_accounts"]) <= known
    assert sum(c["n"] for c in found["typologies"].values()) == found["account"]["n_abusive"]
    assert found["time"]["rings_undetected"] <= found["time"]["rings"]
    assert found["harm"]["gate_passed"] in (True, False, None)
    assert set(found["account"]["intervals"]) == (
        {"pr_auc", "recall_at_fpr_0.001", "recall_at_fpr_0.01"} if known else set()
    )
    for row in found["account"]["reliability"]:
        hold(row, BIN)
    shares = found["time"]["curve"]["share_alerted"]
    assert shares == sorted(shares)
    assert len(shares) <= found["time"]["rings"] - found["time"]["rings_undetected"]
    ring = found["ring_example"]
    if ring is not None:
        names = {member["account"] for member in ring["members"]}
        assert {tie[end] for tie in ring["links"] for end in ("a", "b")} <= names
        assert 2 * sum(bool(member["abusive"]) for member in ring["members"]) > len(names)


def test_clean_leaves_no_number_that_json_lacks() -> None:
    given_ = {
        "a": math.nan,
        "b": [math.inf, -math.inf, np.float64("nan"), np.float32(0.5)],
        3: (np.int64(4), "x", None, True, 0.25),
    }
    found = clean(given_)
    assert found == {"a": None, "b": [None, None, None, 0.5], "3": [4, "x", None, True, 0.25]}
    assert json.loads(json.dumps(found, allow_nan=False)) == found
