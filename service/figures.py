"""The figures of an evaluation: each says what to see in it, carries its numbers, and names its command.

What was not measured is a dash, never a zero; a figure with nothing to show is None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from detector.metrics import wilson
from service import chart
from service.chart import Axis, Dot, Node, Series, Tie, dollars, percent

Found = Mapping[str, Any]
TIERS = ("T0", "T1", "T2", "T3")
COHORT_GATE = 0.01  # most honest accounts of one cohort that may be hurt (EVALUATION.md) …
COHORT_RATIO = 5.0  # … and most times the overall rate
DASH = "–"
OURS = "Shoal"


def number(value: Any, kind: str = "") -> str:
    """A figure as people read it; null is a dash."""
    if value is None:
        return DASH
    if kind == "%":
        return f"{value:.1%}"
    if kind == "$":
        return f"{'−' if value < 0 else ''}${abs(value):,.2f}"
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"


def at(found: Any, *path: str) -> Any:
    """A figure inside nested objects; None where any step is missing."""
    for step in path:
        if not isinstance(found, Mapping):
            return None
        found = found.get(step)
    return found


def price(share: float | None) -> str:
    """A break-even price as a share of the official one."""
    if share is None:
        return DASH
    return "> 1,000 %" if share > 10 else percent(share)


def share_of(value: float | None) -> str:
    return DASH if value is None else percent(value)


def interval_of(interval: Any) -> str:
    low, high = at(interval, "low"), at(interval, "high")
    return "" if low is None or high is None else f"  [{low:.3f}, {high:.3f}]"


Entry = str | tuple[str, str]  # a table's cell: its text, or text and CSS class


@dataclass(frozen=True)
class Figure:
    """`says` is what to see in it; `key` explains colours, (shade, name)."""

    id: str
    title: str
    says: str
    columns: Sequence[str]
    lines: Sequence[Sequence[Entry]]
    command: str
    drawn: Sequence[Markup] = ()
    key: Sequence[tuple[str, str]] = ()
    wide: bool = False


@dataclass(frozen=True)
class Run:
    """One evaluation on a page: what it is called, what was found, and by which command."""

    name: str
    found: Found
    command: str
    shade: int = 0
    tier: str = ""


def compared(found: Found, key: str) -> list[list[str]]:
    """Rows of a table of splits or peers, ours first among peers."""
    parts = dict(at(found, key) or {})
    if key == "splits":
        novel = parts.pop("S3", None) or {}
        parts.update({f"S3 without {name}": row for name, row in novel.items()})
    elif parts:
        parts = {OURS: found["account"], **parts}
    return [
        [
            name,
            number(at(row, "pr_auc")),
            number(at(row, "auc")),
            number(at(row, "recall_at_fpr", "0.01"), "%"),
            number(at(row, "recall_at_fpr", "0.001"), "%"),
        ]
        for name, row in parts.items()
        if isinstance(row, Mapping)
    ]


def chance_share(found: Found) -> float | None:
    """The share of the clusters that chance alone would raise: by the worse of the two nulls."""
    observed = at(found, "null", "observed")
    nulls = [v for k in ("shuffled", "rewired") if (v := at(found, "null", k)) is not None]
    if not observed or not nulls or not isinstance(observed, int | float):
        return None
    return max(float(v) for v in nulls) / float(observed)


def _command(runs: Sequence[Run]) -> str:
    """What made a figure of these runs; of many, one to be run by hand."""
    if len(runs) == 1:
        return runs[0].command
    return f"{runs[0].command}\n# likewise {', '.join(r.name for r in runs[1:])}: other tiers and seeds"


def precision_recall(runs: Sequence[Run]) -> Figure | None:
    named: set[str] = set()
    series, lines = [], []
    for run in runs:
        recall, precision = (
            at(run.found, "account", "curve", "recall"),
            at(run.found, "account", "curve", "precision"),
        )
        if recall and precision:
            label = run.tier or run.name
            series.append(
                Series(
                    "" if label in named else label,
                    list(zip(recall, precision, strict=True)),
                    run.shade,
                )
            )
            named.add(label)
        interval = at(run.found, "account", "intervals", "pr_auc")
        abusive = run.found["account"]["n_abusive"]
        lines.append(
            [
                run.name,
                number(run.found["account"]["n"]),
                number(abusive),
                number(run.found["account"]["pr_auc"]),
                interval_of(interval).strip() or DASH,
            ]
        )
    if not series:
        return None
    drawn = chart.lines(
        "Precision against recall",
        "One line a run; up and to the right is better.",
        series,
        Axis("recall: share of abusive accounts caught", 0, 1, percent),
        Axis("precision", 0, 1, percent),
    )
    return Figure(
        "precision-recall",
        "Precision against recall",
        "How many of those pointed at are abusive, as more of the abusive are caught.",
        ("run", "accounts", "abusive", "PR-AUC", "95 % (rings resampled)"),
        lines,
        _command(runs),
        [drawn],
    )


def recall_at_fpr(runs: Sequence[Run]) -> Figure | None:
    dots, lines = [], []
    for fpr in ("0.01", "0.001"):
        for run in runs:
            a = run.found["account"]
            value = a["recall_at_fpr"][fpr]
            span = at(a, "intervals", f"recall_at_fpr_{fpr}")
            name = f"{run.name}, at {percent(float(fpr))} FPR"
            if value is not None:
                dots.append(Dot(name, value, at(span, "low"), at(span, "high"), f"{value:.1%}"))
            budget = number(at(a, "recall_at_budget"), "%")
            lines.append([name, number(value, "%"), interval_of(span).strip() or DASH, budget])
    if not dots:
        return None
    drawn = chart.dots(
        "Recall at a fixed false-positive rate",
        "Share of abusive accounts caught, with 95 % intervals.",
        dots,
        Axis("recall", 0, 1, percent),
    )
    return Figure(
        "recall-at-fpr",
        "Recall at a fixed false-positive rate",
        "What is caught while 1 in 100, or 1 in 1,000, honest accounts is pointed at.",
        ("run", "recall", "95 %", "at the review budget"),
        lines,
        _command(runs),
        [drawn],
    )


def base_rates(runs: Sequence[Run]) -> Figure | None:
    lines = []
    for run in runs:
        told = at(run.found, "account", "precision_at_base_rate")
        r = run.found["account"]["realised"]
        if told:
            lines.append(
                [
                    run.name,
                    number(r["recall"], "%"),
                    number(r["fpr"], "%"),
                    *(number(told.get(k), "%") for k in ("0.001", "0.01", "0.05")),
                ]
            )
    if not lines:
        return None
    return Figure(
        "base-rates",
        "What the decisions mean where abuse is rare",
        "Precision of what the policy actually did, if 0.1 %, 1 % or 5 % of all accounts were abusive.",
        ("run", "recall, as decided", "FPR, as decided", "precision at 0.1 %", "at 1 %", "at 5 %"),
        lines,
        _command(runs),
    )


def reliability(runs: Sequence[Run]) -> Figure | None:
    series, lines = [Series("", [(0, 0), (1, 1)], 5, dashed=True)], []
    named: set[str] = set()
    for run in runs:
        bins = [
            b
            for b in at(run.found, "account", "reliability") or []
            if b["n"] and b["mean_score"] is not None
        ]
        if bins:
            label = run.tier or run.name
            points = [(b["mean_score"], b["share_abusive"]) for b in bins]
            series.append(Series("" if label in named else label, points, run.shade, marks=True))
            named.add(label)
            top = at(run.found, "account", "reliability_top")
            a = run.found["account"]
            lines.append(
                [
                    run.name,
                    number(a["ece"]),
                    number(a["brier"]),
                    number(at(top, "mean_score")),
                    number(at(top, "share_abusive")),
                ]
            )
    if not lines:
        return None
    drawn = chart.lines(
        "Reliability",
        "Mean score of fifteen equal bins against the share that was abusive; the dashed diagonal is perfect.",
        series,
        Axis("mean score", 0, 1, percent),
        Axis("share abusive", 0, 1, percent),
    )
    return Figure(
        "reliability",
        "Does a score of 70 % mean 70 %?",
        "Fifteen bins of as many accounts each; on the diagonal the score is a probability.",
        ("run", "ECE", "Brier", "top 1 %: mean score", "top 1 %: abusive"),
        lines,
        _command(runs),
        [drawn],
    )


def tiers(runs: Sequence[Run]) -> Figure | None:
    told = [
        (run, tier, row) for run in runs for tier, row in (at(run.found, "tiers") or {}).items()
    ]
    by_name = [(run, run.tier, run.found["account"]) for run in runs if run.tier]
    points: dict[str, list[tuple[float, float]]] = {}
    lines = []
    for run, tier, row in by_name or told:
        for fpr in ("0.01", "0.001"):
            value = at(row, "recall_at_fpr", fpr)
            if value is not None and tier in TIERS:
                points.setdefault(fpr, []).append((float(TIERS.index(tier)), value))
        lines.append(
            [
                tier,
                run.name,
                number(at(row, "n")),
                number(at(row, "pr_auc")),
                number(at(row, "recall_at_fpr", "0.01"), "%"),
                number(at(row, "recall_at_fpr", "0.001"), "%"),
            ]
        )
    if not points:
        return None
    series = [
        Series(f"{percent(float(fpr))} FPR", _means(drawn), i, marks=True)
        for i, (fpr, drawn) in enumerate(points.items())
    ]
    drawn = chart.lines(
        "Recall by the adversary's effort",
        "Recall at two false-positive rates for tiers T0 to T3, mean of the seeds.",
        series,
        _tier_axis(),
        Axis("recall", 0, 1, percent),
    )
    return Figure(
        "tiers",
        "What effort buys an adversary",
        "T0 runs relay software as it comes; T3 pins users to accounts and cleans request bodies.",
        ("tier", "run", "accounts", "PR-AUC", "recall at 1 % FPR", "at 0.1 %"),
        lines,
        _command(runs),
        [drawn],
    )


def _means(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, mean([b for a, b in points if a == x])) for x in sorted({a for a, _ in points})]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def cohorts(runs: Sequence[Run]) -> Figure | None:
    """Runs' cohorts added up; the interval is Wilson's of the sum."""
    size: dict[str, int] = {}
    hits: dict[str, int] = {}
    for run in runs:
        for name, row in run.found["cohorts"].items():
            size[name] = size.get(name, 0) + row["n"]
            hits[name] = hits.get(name, 0) + round(row["fpr"] * row["n"])
    if not size:
        return None
    overall = sum(hits.values()) / sum(size.values())
    dots: list[Dot] = []
    lines: list[Sequence[Entry]] = []
    for name in sorted(size, key=lambda c: -hits[c] / size[c]):
        low, high = wilson(hits[name], size[name])
        rate = hits[name] / size[name]
        bad = rate > COHORT_GATE or rate > COHORT_RATIO * overall
        dots.append(
            Dot(name.replace("_", " "), rate, low, high, f"{hits[name]:,}/{size[name]:,}", bad)
        )
        lines.append(
            [
                name,
                f"{size[name]:,}",
                f"{hits[name]:,}",
                (number(rate, "%"), "bad" if bad else ""),
                f"{low:.1%} – {high:.1%}",
            ]
        )
    most = max(0.02, *(min(d.high or 0, 2.5 * max(d.value, COHORT_GATE)) for d in dots))
    drawn = chart.dots(
        "False positives of each honest cohort",
        "Share of each cohort's accounts hurt, with 95 % intervals and the 1 % gate.",
        dots,
        Axis("share of the cohort's accounts hurt; the line is the gate", 0, most, percent),
        COHORT_GATE,
    )
    over = sum(d.bad for d in dots)
    says = (
        f"{over} of {len(dots)} cohorts are above the gate."
        if over
        else "No cohort is above the gate."
    )
    return Figure(
        "cohorts",
        "Who is hurt by mistake",
        f"{says} Overall {number(overall, '%')} of honest accounts.",
        ("cohort", "accounts", "hurt", "share", "95 %"),
        lines,
        _command(runs),
        [drawn],
    )


def detection(runs: Sequence[Run]) -> Figure | None:
    named: set[str] = set()
    series, lines, latest = [], [], 1.0
    for run in runs:
        hours, share = (
            at(run.found, "time", "curve", "hours"),
            at(run.found, "time", "curve", "share_alerted"),
        )
        if hours and share:
            label = run.tier or run.name
            points = list(zip(hours, share, strict=True))
            series.append(Series("" if label in named else label, points, run.shade, step=True))
            named.add(label)
            latest = max(latest, *hours)
        t = run.found["time"]
        lines.append(
            [
                run.name,
                number(t["rings"]),
                number(t["rings_undetected"]),
                number(t["median_hours"]),
                number(t["p90_hours"]),
                number(t["median_accounts"]),
                number(t["median_events"]),
                number(at(t, "leaked_usd_median"), "$"),
            ]
        )
    if not series:
        return None
    drawn = chart.lines(
        "Rings alerted over time",
        "Share of rings with a first correct alert, by hours since their first event.",
        series,
        Axis("hours since the ring's first event", 0, latest, chart.plain),
        Axis("rings alerted", 0, 1, percent),
    )
    return Figure(
        "detection",
        "How long a ring lives unseen",
        "A staircase that never reaches the top leaves rings that were never found.",
        (
            "run",
            "rings",
            "never alerted",
            "median hours",
            "90 % hours",
            "median accounts",
            "median events",
            "leaked by then, median",
        ),
        lines,
        _command(runs),
        [drawn],
    )


def leaked(runs: Sequence[Run]) -> Figure | None:
    rows, lines = [], []
    for run in runs:
        m = run.found["money"]
        usd, share = m["leaked_usd"], m["leaked_share"]
        lines.append(
            [
                run.name,
                number(usd, "$"),
                number(share, "%"),
                price(m["break_even_share"]),
                number(at(m, "honest_blocked_usd"), "$"),
            ]
        )
        if usd is not None and share and usd > 0:
            rows.append((run.name, usd, usd / share, f"{dollars(usd)} of {dollars(usd / share)}"))
    drawn = (
        [
            chart.bars(
                "Dollars leaked",
                "List price of what abusive accounts consumed unpaid, with and without a detector.",
                rows,
                "full: leaked before the stop · faint: what would have leaked",
            )
        ]
        if rows
        else []
    )
    return Figure(
        "leaked",
        "Dollars leaked",
        "List price of what abusive accounts consumed, less what they paid, until each was stopped.",
        (
            "run",
            "leaked",
            "of what would have",
            "break-even of a resold dollar",
            "honest revenue blocked",
        ),
        lines,
        _command(runs),
        drawn,
    )


def typologies(runs: Sequence[Run]) -> Figure | None:
    """Runs of one tier are added up."""
    told: dict[tuple[str, str], list[Found]] = {}
    for run in runs:
        for name, row in run.found["typologies"].items():
            told.setdefault((name, run.tier or run.name), []).append(row)
    lines = []
    for (name, where), parts in sorted(told.items()):
        size = sum(row["n"] for row in parts)
        caught = sum(row["recall"] * row["n"] for row in parts) / size
        recalls = [v for row in parts if (v := at(row, "recall_at_fpr", "0.01")) is not None]
        dollars_leaked = [v for row in parts if (v := at(row, "leaked_usd")) is not None]
        by_tier = ", ".join(f"{t} {v:.0%}" for t, v in parts[0]["by_tier"].items())
        lines.append(
            [
                name.replace("_", " "),
                where,
                number(size),
                number(caught, "%"),
                number(mean(recalls) if recalls else None, "%"),
                number(sum(dollars_leaked) if dollars_leaked else None, "$"),
                *([by_tier or DASH] if len(runs) == 1 else []),
            ]
        )
    if not lines:
        return None
    return Figure(
        "typologies",
        "By kind of abuse",
        "Caught as decided, and what a threshold at 1 % FPR would catch.",
        ("typology", "in", "accounts", "caught", "recall at 1 % FPR", "leaked")
        + (("caught by tier",) if len(runs) == 1 else ()),
        lines,
        _command(runs),
        wide=len(runs) > 1,
    )


def ring_sizes(runs: Sequence[Run]) -> Figure | None:
    """Runs are added up."""
    rings: dict[str, list[int]] = {}
    for run in runs:
        for size, row in (at(run.found, "cluster", "ring_recall_by_size") or {}).items():
            if at(row, "n"):
                told = rings.setdefault(size, [0, 0])
                told[0] += row["n"]
                told[1] += at(row, "found") or 0
    lines = [
        [size, number(n), number(hit), number(hit / n, "%")] for size, (n, hit) in rings.items()
    ]
    if not lines:
        return None
    return Figure(
        "ring-sizes",
        "Rings found, by size",
        "A ring is found when one cluster is its match (Jaccard ≥ ½).",
        ("accounts in the ring", "rings", "found", "share"),
        lines,
        _command(runs),
    )


def chance(runs: Sequence[Run]) -> Figure | None:
    lines = []
    for run in runs:
        null = at(run.found, "null")
        if isinstance(null, Mapping):
            share = chance_share(run.found)
            lines.append(
                [
                    run.name,
                    *(_plain(null.get(k)) for k in ("observed", "shuffled", "rewired")),
                    number(share, "%"),
                ]
            )
    if not lines:
        return None
    return Figure(
        "null",
        "What chance alone would raise",
        "Clusters acted on, beside those after times are shuffled within the day, and after members are rewired.",
        ("run", "clusters", "times shuffled", "rewired", "raised by chance"),
        lines,
        _command(runs),
    )


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    return number(value) if isinstance(value, int | float) or value is None else str(value)


def peers(runs: Sequence[Run]) -> Figure | None:
    there = [run for run in runs if at(run.found, "peers")]
    if not there:
        return None
    lines: list[Sequence[Entry]] = []
    told: dict[str, list[tuple[float, float]]] = {}  # method -> (tier, recall) of each run
    for run in there:
        for row in compared(run.found, "peers"):
            name = row[0]
            shown = name if len(there) == 1 else f"{run.name}: {name}"
            lines.append([(shown, "strong" if name == OURS else ""), *row[1:]])
            one = run.found["account"] if name == OURS else run.found["peers"][name]
            value = at(one, "recall_at_fpr", "0.01")
            if value is not None:
                told.setdefault(name, []).append((float(max(0, _rank(run.tier))), value))
    if len({run.tier for run in there}) > 1:
        drawn = chart.lines(
            "Peers on the same logs, by tier",
            "Recall at 1 % false positives of Shoal and of other methods, mean of the seeds.",
            [
                Series(name, _means(points), i, marks=True, dashed=name != OURS)
                for i, (name, points) in enumerate(told.items())
            ],
            _tier_axis(),
            Axis("recall at 1 % FPR", 0, 1, percent),
        )
    else:
        drawn = chart.dots(
            "Peers on the same log",
            "Recall at 1 % false positives of Shoal and of other methods.",
            [
                Dot(
                    name,
                    mean([v for _, v in points]),
                    note=f"{points[0][1]:.1%}",
                    quiet=name != OURS,
                )
                for name, points in told.items()
            ],
            Axis("recall at 1 % FPR", 0, 1, percent),
        )
    return Figure(
        "peers",
        "Beside what one would otherwise use",
        "Other methods on the same log: thresholds, an isolation forest, LightGBM on per-account aggregates, "
        "components of shared entities.",
        ("method", "PR-AUC", "AUC", "recall at 1 % FPR", "at 0.1 %"),
        lines,
        _command(there),
        [drawn],
    )


def _rank(tier: str) -> int:
    return TIERS.index(tier) if tier in TIERS else -1


def _tier_axis() -> Axis:
    return Axis("tier: effort of the adversary", 0, 3, lambda v: f"T{v:.0f}" if v == int(v) else "")


def splits(runs: Sequence[Run]) -> Figure | None:
    run = next((run for run in runs if at(run.found, "splits")), None)
    if run is None:
        return None
    told = run.found["splits"]
    dots = []
    for name, row in told.items():
        rows = row.items() if name == "S3" else [(None, row)]
        for part, one in rows:
            value = at(one, "pr_auc")
            if value is not None:
                label = f"S3 without {part}" if part else name
                dots.append(Dot(label.replace("_", " "), value, note=f"{value:.3f}"))
    gap = None
    if at(told, "S0", "pr_auc") is not None and at(told, "S2", "pr_auc") is not None:
        gap = told["S0"]["pr_auc"] - told["S2"]["pr_auc"]
    drawn = chart.dots(
        "PR-AUC by split",
        "Random accounts, later time, held-out operators, a typology left out.",
        dots,
        Axis("PR-AUC", 0, 1, chart.plain),
    )
    leak = (
        f"S0 − S2 = {gap:+.3f}: what knowing the operator would be worth, so what a random split would have flattered."
        if gap is not None
        else "S0 is random accounts, S2 held-out operators."
    )
    return Figure(
        "splits",
        "The same model, split otherwise",
        leak,
        ("split", "PR-AUC", "AUC", "recall at 1 % FPR", "at 0.1 %"),
        compared(run.found, "splits"),
        run.command,
        [drawn],
    )


def ring(runs: Sequence[Run]) -> Figure | None:
    run = next((run for run in runs if at(run.found, "ring_example", "members")), None)
    if run is None:
        return None
    told = run.found["ring_example"]
    place = {m["account"]: i for i, m in enumerate(told["members"])}
    nodes = [Node(m["account"], bool(m.get("abusive"))) for m in told["members"]]
    count: dict[str, int] = {}
    for link in told.get("links", ()):
        count[_family(link)] = count.get(_family(link), 0) + 1
    families = sorted(count, key=lambda k: (-count[k], k))
    shade = {name: min(i, chart.SHADES - 1) for i, name in enumerate(families)}
    ties = [
        Tie(place[link["a"]], place[link["b"]], float(link.get("nats") or 0), shade[_family(link)])
        for link in told.get("links", ())
        if link["a"] in place and link["b"] in place
    ]
    drawn = chart.network(
        "A ring as it was found",
        f"{len(nodes)} accounts and {len(ties)} links; heavier links are wider.",
        nodes,
        ties,
    )
    key = [(f"s{shade[f]}", f.replace("_", " ")) for f in families[: chart.SHADES]]
    key += [("abusive", "abusive by the truth")]
    if not all(n.bad for n in nodes):
        key.append(("honest", "honest: a bystander"))
    lines = [[_words(e)] for e in told.get("evidence", ())]
    says = f"Cluster {told.get('cluster_id', '')}. The links drew it, the evidence is what an analyst reads."
    return Figure(
        "ring", "One ring, with its evidence", says, ("evidence",), lines, run.command, [drawn], key
    )


def _family(link: Mapping[str, Any]) -> str:
    kinds = link.get("kinds") or ("other",)
    return str(kinds[0] if not isinstance(kinds, str) else kinds)


def _words(evidence: Any) -> str:
    return str(evidence.get("text", evidence)) if isinstance(evidence, Mapping) else str(evidence)
