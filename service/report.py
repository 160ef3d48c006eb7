"""An evaluation for people: a table that fits 100 columns, and a page that needs no network.

A page is a verdict, a few large figures, and sections of figures. Each figure says what to see in it, carries its
numbers as a table, and names the command that made it. What was not measured is a dash, never a
zero; a figure with nothing to show is left out.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from jinja2 import Environment, select_autoescape
from markupsafe import Markup
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from service import chart
from service.chart import Axis, Dot, Node, Series, Tie, dollars, percent

Found = Mapping[str, Any]
TIERS = ("T0", "T1", "T2", "T3")
COHORT_GATE = 0.01  # most honest accounts of one cohort that may be hurt (EVALUATION.md) …
COHORT_RATIO = 5.0  # … and most times the overall rate
TOO_EASY = 0.99  # an S2 PR-AUC above it at T1-T3 is a failed generator
ECE_GATE = 0.05
CHANCE_GATE = 0.05  # share of the clusters that chance alone would raise
STEEP = 0.5  # a T3 that keeps less than this share of T1's recall is said out loud
STREET_PRICE = 0.12  # of a dollar's tokens in 2026, as a share of the official price
DASH = "–"


def number(value: Any, kind: str = "") -> str:
    """A figure as people read it; null is a dash."""
    if value is None:
        return DASH
    if kind == "%":
        return f"{value:.1%}"
    if kind == "$":
        return f"${value:,.2f}"
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


# --- the terminal


def rows(found: Found) -> list[tuple[str, list[tuple[str, str]]]]:
    """The evaluation as titled lists of (what, figure)."""
    a, c, t, m = found["account"], found["cluster"], found["time"], found["money"]
    interval = at(a, "intervals", "pr_auc")
    return [
        (
            f"accounts: {a['n']:,}, of them {a['n_abusive']:,} abusive",
            [
                ("PR-AUC", number(a["pr_auc"]) + _interval(interval)),
                ("AUC", number(a["auc"])),
                ("recall at 1 % FPR", number(a["recall_at_fpr"]["0.01"], "%")),
                ("recall at 0.1 % FPR", number(a["recall_at_fpr"]["0.001"], "%")),
                ("recall at the review budget", number(at(a, "recall_at_budget"), "%")),
                ("as decided: recall", number(a["realised"]["recall"], "%")),
                ("as decided: FPR", number(a["realised"]["fpr"], "%")),
                ("as decided: precision", number(a["realised"]["precision"], "%")),
                *(
                    (f"… were {float(rate):.1%} abusive", number(value, "%"))
                    for rate, value in (at(a, "precision_at_base_rate") or {}).items()
                ),
                ("calibration error (ECE)", number(a["ece"])),
            ],
        ),
        (
            f"clusters acted on: {c['n']:,}",
            [
                ("accounts in them: precision", number(at(c, "flagged", "precision"), "%")),
                ("accounts in them: recall", number(at(c, "flagged", "recall"), "%")),
                ("accounts in them: FPR", number(at(c, "flagged", "fpr"), "%")),
                ("pairwise F1", number(c["pairwise"]["f1"])),
                ("B³ F1 (abusive)", number(c["b3"]["f1"])),
                ("rings found (Jaccard ≥ ½)", number(c["ring_recall"], "%")),
                ("bystanders a cluster", number(c["bystanders"])),
            ],
        ),
        (
            f"until a ring's first alert ({t['rings']:,} rings, {t['rings_undetected']:,} never)",
            [
                ("accounts (median)", number(t["median_accounts"])),
                ("events (median)", number(t["median_events"])),
                ("hours (median)", number(t["median_hours"])),
                ("hours (90 %)", number(t["p90_hours"])),
                ("dollars leaked by then (median)", number(at(t, "leaked_usd_median"), "$")),
                ("dollars leaked before the stop", number(m["leaked_usd"], "$")),
                ("of what would have leaked", number(m["leaked_share"], "%")),
                ("break-even of a resold dollar", price(m["break_even_share"])),
                ("honest revenue blocked", number(at(m, "honest_blocked_usd"), "$")),
            ],
        ),
    ]


def _interval(interval: Any) -> str:
    low, high = at(interval, "low"), at(interval, "high")
    return "" if low is None or high is None else f"  [{low:.3f}, {high:.3f}]"


def _grid(title: str, columns: Sequence[str], lines: Iterable[Sequence[str]]) -> Table:
    grid = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for i, column in enumerate(columns):
        grid.add_column(column, justify="right" if i else "left", overflow="fold")
    for line in lines:
        grid.add_row(*line)
    return grid


def table(found: Found) -> RenderableType:
    """For the terminal."""
    parts: list[RenderableType] = []
    wrong = gates([Run("this log", found, "")])
    if wrong:
        parts += [*(Text(f"✗ {words}", style="bold red") for words in wrong), Text()]
    for title, figures in rows(found):
        grid = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
        for what, figure in figures:
            grid.add_row(what, Text(figure, justify="right"))
        parts += [grid, Text()]
    cohorts = [
        (name, number(r["n"]), number(r["fpr"], "%"), f"{r['low']:.1%} – {r['high']:.1%}")
        for name, r in found["cohorts"].items()
    ]
    parts += [_grid("honest cohorts", ("", "accounts", "hurt", "95 %"), cohorts), Text()]
    kinds = [
        (
            name,
            number(r["n"]),
            number(r["recall"], "%"),
            number(at(r, "recall_at_fpr", "0.01"), "%"),
            ", ".join(f"{t} {v:.0%}" for t, v in r["by_tier"].items()),
        )
        for name, r in found["typologies"].items()
    ]
    head = ("", "accounts", "caught", "at 1 % FPR", "by tier")
    parts += [_grid("typologies", head, kinds), Text()]
    for title, key in (("splits of the training log", "splits"), ("peers on this log", "peers")):
        lines = _compared(found, key)
        if lines:
            head = ("", "PR-AUC", "AUC", "recall at 1 % FPR", "at 0.1 %")
            parts += [_grid(title, head, lines), Text()]
    parts.append(
        Text(f"model {found['model']}, {found['events']:,} events in {found['seconds']:.1f} s")
    )
    return Group(*parts)


def _compared(found: Found, key: str) -> list[list[str]]:
    """Rows of a table of splits or peers, ours first among peers."""
    parts = dict(at(found, key) or {})
    if key == "splits":
        novel = parts.pop("S3", None) or {}
        parts.update({f"S3 without {name}": row for name, row in novel.items()})
    elif parts:
        parts = {"Shoal": found["account"], **parts}
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


# --- the page


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
class Section:
    id: str
    title: str
    says: str
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Run:
    """One evaluation on a page: what it is called, what was found, and by which command."""

    name: str
    found: Found
    command: str
    shade: int = 0
    tier: str = ""


@dataclass(frozen=True)
class Stat:
    """A large figure and what it is."""

    value: str
    what: str
    bad: bool = False


@dataclass
class Page:
    title: str
    lead: str
    command: str
    wrong: Sequence[str]
    stats: Sequence[Stat]
    sections: list[Section] = field(default_factory=list)
    notes: Sequence[str] = ()

    def add(self, id: str, title: str, says: str, figures: Iterable[Figure | None]) -> None:
        """A section of the figures that there are; none if there are none."""
        there = [f for f in figures if f is not None]
        if there:
            self.sections.append(Section(id, title, says, there))

    def render(self) -> str:
        source = resources.files("service").joinpath("report.html").read_text("utf-8")
        page = Environment(
            autoescape=select_autoescape(default=True), trim_blocks=True, lstrip_blocks=True
        ).from_string(source)
        return page.render(page=self)


def html(found: Found, command: str = "shoal evaluate") -> str:
    """One evaluation for the browser, in one file."""
    run = Run("this log", found, command)
    a, m = found["account"], found["money"]
    model = f"model {found['model']}" if found["model"] else "no model (clusters alone)"
    page = Page(
        "Evaluation",
        f"{found['events']:,} events of {a['n']:,} accounts, {a['n_abusive']:,} of them abusive, "
        f"replayed in time order through {model}. Every score uses the past only.",
        command,
        gates([run]),
        headline([run], m.get("break_even_share")),
        notes=_assumed(found),
    )
    _fill(page, [run])
    return page.render()


def _assumed(found: Found) -> list[str]:
    prices = at(found, "money", "assumed_prices_usd") or {}
    told = ", ".join(f"{good} ${usd:g}" for good, usd in prices.items())
    return [f"Prices assumed for the operator's goods: {told}."] if told else []


def _fill(page: Page, runs: Sequence[Run]) -> None:
    """The sections that one evaluation and the matrix have in common."""
    page.add(
        "accounts", "Accounts",
        "How well the score ranks accounts, and what a threshold on it would catch.",
        (precision_recall(runs), recall_at_fpr(runs), base_rates(runs), reliability(runs), tiers(runs)),
    )  # fmt: skip
    page.add(
        "harm", "Harm to honest people",
        "An honest account is hurt when anything at all is done about it. "
        "Each cohort resembles some attack: that is why it is here.",
        (cohorts(runs),),
    )  # fmt: skip
    page.add(
        "money", "Time and money",
        "From a ring's first event to its first correct alert, and what it consumed unpaid until then. "
        "Rings that were never found stay in the count.",
        (detection(runs), leaked(runs), typologies(runs)),
    )  # fmt: skip
    page.add(
        "rings", "Rings and clusters",
        "The cluster is the unit of decision: does it hold the ring, and nobody else?",
        (ring(runs), ring_sizes(runs), chance(runs)),
    )  # fmt: skip
    page.add(
        "compared", "Compared",
        "The same log, other methods; the same model, other ways to split.",
        (peers(runs), splits(runs)),
    )  # fmt: skip


# --- what is wrong, and what is large


def gates(runs: Sequence[Run]) -> list[str]:
    """What failed, in sentences; the worst come first."""
    wrong: list[str] = []
    where = (lambda r: f"{r.name}: ") if len(runs) > 1 else (lambda r: "")
    hurt: dict[str, tuple[float, str]] = {}
    for run in runs:
        overall = at(run.found, "harm", "overall_fpr")
        if overall is None:
            overall = run.found["account"]["realised"]["fpr"]
        for name, row in run.found["cohorts"].items():
            over = row["fpr"] > COHORT_GATE or (overall and row["fpr"] > COHORT_RATIO * overall)
            if over and row["fpr"] > hurt.get(name, (0.0, ""))[0]:
                hurt[name] = (row["fpr"], f"{row['fpr']:.1%} of {row['n']:,}{_of(run, runs)}")
    if hurt:
        worst = sorted(hurt.items(), key=lambda item: -item[1][0])
        told = ", ".join(f"{name} {words}" for name, (_, words) in worst[:4])
        more = f" and {len(worst) - 4} more" if len(worst) > 4 else ""
        wrong.append(
            f"Honest people are hurt beyond the gate of {COHORT_GATE:.0%} a cohort: {told}{more}."
        )
    for run in runs:
        found, said = run.found, where(run)
        value = at(found, "splits", "S2", "pr_auc")
        easy = run.found["account"]["pr_auc"] if run.tier in TIERS[1:] else value
        if easy is not None and easy > TOO_EASY:
            wrong.append(
                f"{said}PR-AUC {easy:.3f} on held-out operators is too good to be believed: "
                "the generator is too easy, and every figure here flatters."
            )
        ece = found["account"]["ece"]
        if ece is not None and ece > ECE_GATE:
            wrong.append(
                f"{said}the score is no probability: calibration error {ece:.3f} (gate {ECE_GATE:g})."
            )
        best = _better_peer(found)
        if best is not None:
            wrong.append(f"{said}{best}")
        share = chance_share(found)
        if share is not None and share > CHANCE_GATE:
            wrong.append(f"{said}chance alone would raise {share:.0%} of the clusters.")
    return wrong


def _of(run: Run, runs: Sequence[Run]) -> str:
    return f" ({run.name})" if len(runs) > 1 else ""


def _better_peer(found: Found) -> str | None:
    mine = found["account"]["pr_auc"]
    rivals = [(at(r, "pr_auc"), n) for n, r in (at(found, "peers") or {}).items()]
    best = max(((v, n) for v, n in rivals if v is not None), default=None)
    if best is None or mine is None or best[0] <= mine:
        return None
    return f"the peer {best[1]} ranks better: PR-AUC {best[0]:.3f} against {mine:.3f}."


def chance_share(found: Found) -> float | None:
    """The share of the clusters that chance alone would raise: by the worse of the two nulls."""
    observed = at(found, "null", "observed")
    nulls = [v for k in ("shuffled", "rewired") if (v := at(found, "null", k)) is not None]
    if not observed or not nulls or not isinstance(observed, int | float):
        return None
    return max(float(v) for v in nulls) / float(observed)


def headline(runs: Sequence[Run], share: float | None) -> list[Stat]:
    """The large figures: found, harm, price."""
    main = next((r for r in runs if r.tier == "T1"), runs[0])
    a, t = main.found["account"], main.found["time"]
    recall, fpr = a["recall_at_fpr"]["0.01"], a["realised"]["fpr"]
    worst = max(main.found["cohorts"].items(), key=lambda i: i[1]["fpr"], default=None)
    tier = f" at {main.tier}" if main.tier else ""
    stats = [
        Stat(number(a["pr_auc"]), f"PR-AUC of accounts{tier}"),
        Stat(_share(recall), f"of abusive accounts caught at 1 % FPR{tier}"),
        Stat(
            _share(fpr),
            "of honest accounts hurt, as decided",
            fpr is not None and fpr > COHORT_GATE,
        ),
    ]
    if worst is not None:
        stats.append(
            Stat(
                _share(worst[1]["fpr"]),
                f"in the worst cohort, {worst[0]}",
                worst[1]["fpr"] > COHORT_GATE,
            )
        )
    hours = t["median_hours"]
    stats.append(
        Stat(DASH if hours is None else f"{hours:,.1f} h", "median to a ring's first alert")
    )
    stats.append(
        Stat(
            price(share),
            "of the official price: break-even of a resold dollar",
            share is not None and share < 1,
        )
    )
    return stats


def _share(value: float | None) -> str:
    return DASH if value is None else percent(value)


# --- figures


SHARE_AXIS = ("share", 0.0, 1.0)


def _command(runs: Sequence[Run]) -> str:
    return (
        runs[0].command
        if len({r.command for r in runs}) == 1
        else "\n".join(dict.fromkeys(r.command for r in runs))
    )


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
        lines.append([run.name, number(run.found["account"]["n"]), number(abusive),
                      number(run.found["account"]["pr_auc"]), _interval(interval).strip() or DASH])  # fmt: skip
    if not series:
        return None
    drawn = chart.lines(
        "Precision against recall", "One line a run; up and to the right is better.", series,
        Axis("recall: share of abusive accounts caught", 0, 1, percent),
        Axis("precision", 0, 1, percent),
    )  # fmt: skip
    return Figure(
        "precision-recall", "Precision against recall",
        "How many of those pointed at are abusive, as more of the abusive are caught.",
        ("run", "accounts", "abusive", "PR-AUC", "95 % (rings resampled)"), lines, _command(runs), [drawn],
    )  # fmt: skip


def recall_at_fpr(runs: Sequence[Run]) -> Figure | None:
    dots, lines = [], []
    for run in runs:
        a = run.found["account"]
        for fpr in ("0.01", "0.001"):
            value = a["recall_at_fpr"][fpr]
            span = at(a, "intervals", f"recall_at_fpr_{fpr}")
            name = f"{run.name}, at {percent(float(fpr))} FPR"
            if value is not None:
                dots.append(Dot(name, value, at(span, "low"), at(span, "high"), f"{value:.1%}"))
            lines.append([name, number(value, "%"), _interval(span).strip() or DASH,
                          number(at(a, "recall_at_budget"), "%")])  # fmt: skip
    if not dots:
        return None
    drawn = chart.dots(
        "Recall at a fixed false-positive rate", "Share of abusive accounts caught, with 95 % intervals.",
        dots, Axis("recall", 0, 1, percent),
    )  # fmt: skip
    return Figure(
        "recall-at-fpr", "Recall at a fixed false-positive rate",
        "What is caught while 1 in 100, or 1 in 1,000, honest accounts is pointed at.",
        ("run", "recall", "95 %", "at the review budget"), lines, _command(runs), [drawn],
    )  # fmt: skip


def base_rates(runs: Sequence[Run]) -> Figure | None:
    lines = []
    for run in runs:
        told = at(run.found, "account", "precision_at_base_rate")
        r = run.found["account"]["realised"]
        if told:
            lines.append([run.name, number(r["recall"], "%"), number(r["fpr"], "%"),
                          *(number(told.get(k), "%") for k in ("0.001", "0.01", "0.05"))])  # fmt: skip
    if not lines:
        return None
    return Figure(
        "base-rates", "What the decisions mean where abuse is rare",
        "Precision of what the policy actually did, if 0.1 %, 1 % or 5 % of all accounts were abusive.",
        ("run", "recall, as decided", "FPR, as decided", "precision at 0.1 %", "at 1 %", "at 5 %"), lines, _command(runs),
    )  # fmt: skip


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
            lines.append([run.name, number(a["ece"]), number(a["brier"]),
                          number(at(top, "mean_score")), number(at(top, "share_abusive"))])  # fmt: skip
    if not lines:
        return None
    drawn = chart.lines(
        "Reliability", "Mean score of fifteen equal bins against the share that was abusive; the dashed diagonal is perfect.",
        series, Axis("mean score", 0, 1, percent), Axis("share abusive", 0, 1, percent),
    )  # fmt: skip
    return Figure(
        "reliability", "Does a score of 70 % mean 70 %?",
        "Fifteen bins of as many accounts each; on the diagonal the score is a probability.",
        ("run", "ECE", "Brier", "top 1 %: mean score", "top 1 %: abusive"), lines, _command(runs), [drawn],
    )  # fmt: skip


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
        lines.append([tier, run.name, number(at(row, "n")), number(at(row, "pr_auc")),
                      number(at(row, "recall_at_fpr", "0.01"), "%"), number(at(row, "recall_at_fpr", "0.001"), "%")])  # fmt: skip
    if not points:
        return None
    series = [
        Series(f"at {percent(float(fpr))} FPR", _means(drawn), i, marks=True)
        for i, (fpr, drawn) in enumerate(points.items())
    ]
    drawn = chart.lines(
        "Recall by the adversary's effort", "Recall at two false-positive rates for tiers T0 to T3, mean of the seeds.",
        series, Axis("tier: effort of the adversary", 0, 3, lambda v: f"T{v:.0f}" if v == int(v) else ""),
        Axis("recall", 0, 1, percent),
    )  # fmt: skip
    return Figure(
        "tiers", "What effort buys an adversary",
        "T0 runs relay software as it comes; T3 pins users to accounts and cleans request bodies.",
        ("tier", "run", "accounts", "PR-AUC", "recall at 1 % FPR", "at 0.1 %"), lines, _command(runs), [drawn],
    )  # fmt: skip


def _means(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, _mean([b for a, b in points if a == x])) for x in sorted({a for a, _ in points})]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def cohorts(runs: Sequence[Run]) -> Figure | None:
    """Runs' cohorts added up; the interval is Wilson's of the sum."""
    from detector.metrics import wilson

    size: dict[str, int] = {}
    hits: dict[str, int] = {}
    for run in runs:
        for name, row in run.found["cohorts"].items():
            size[name] = size.get(name, 0) + row["n"]
            hits[name] = hits.get(name, 0) + round(row["fpr"] * row["n"])
    if not size:
        return None
    overall = sum(hits.values()) / sum(size.values())
    dots, lines = [], []
    for name in sorted(size, key=lambda c: -hits[c] / size[c]):
        low, high = wilson(hits[name], size[name])
        rate = hits[name] / size[name]
        bad = rate > COHORT_GATE or rate > COHORT_RATIO * overall
        dots.append(
            Dot(name.replace("_", " "), rate, low, high, f"{hits[name]:,}/{size[name]:,}", bad)
        )
        lines.append([name, f"{size[name]:,}", f"{hits[name]:,}", (number(rate, "%"), "bad" if bad else ""),
                      f"{low:.1%} – {high:.1%}"])  # fmt: skip
    most = max(0.02, *(min(d.high or 0, 2.5 * max(d.value, COHORT_GATE)) for d in dots))
    drawn = chart.dots(
        "False positives of each honest cohort", "Share of each cohort's accounts hurt, with 95 % intervals and the 1 % gate.",
        dots, Axis("share of the cohort's accounts hurt; the line is the gate", 0, most, percent), COHORT_GATE,
    )  # fmt: skip
    over = sum(d.bad for d in dots)
    says = (
        f"{over} of {len(dots)} cohorts are above the gate."
        if over
        else "No cohort is above the gate."
    )
    return Figure(
        "cohorts", "Who is hurt by mistake", f"{says} Overall {number(overall, '%')} of honest accounts.",
        ("cohort", "accounts", "hurt", "share", "95 %"), lines, _command(runs), [drawn],
    )  # fmt: skip


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
        lines.append([run.name, number(t["rings"]), number(t["rings_undetected"]), number(t["median_hours"]),
                      number(t["p90_hours"]), number(t["median_accounts"]), number(t["median_events"]),
                      number(at(t, "leaked_usd_median"), "$")])  # fmt: skip
    if not series:
        return None
    drawn = chart.lines(
        "Rings alerted over time", "Share of rings with a first correct alert, by hours since their first event.",
        series, Axis("hours since the ring's first event", 0, latest, chart.plain), Axis("rings alerted", 0, 1, percent),
    )  # fmt: skip
    return Figure(
        "detection", "How long a ring lives unseen",
        "A staircase that never reaches the top leaves rings that were never found.",
        ("run", "rings", "never alerted", "median hours", "90 % hours", "median accounts", "median events", "leaked by then, median"),
        lines, _command(runs), [drawn],
    )  # fmt: skip


def leaked(runs: Sequence[Run]) -> Figure | None:
    rows, lines = [], []
    for run in runs:
        m = run.found["money"]
        usd, share = m["leaked_usd"], m["leaked_share"]
        lines.append([run.name, number(usd, "$"), number(share, "%"), price(m["break_even_share"]),
                      number(at(m, "honest_blocked_usd"), "$")])  # fmt: skip
        if usd is not None and share and usd > 0:
            rows.append((run.name, usd, usd / share, f"{dollars(usd)} of {dollars(usd / share)}"))
    drawn = (
        [chart.bars(
            "Dollars leaked", "List price of what abusive accounts consumed unpaid: before they were stopped, and without a detector.",
            rows, "full: leaked before the stop · faint: what would have leaked",
        )] if rows else []
    )  # fmt: skip
    return Figure(
        "leaked", "Dollars leaked",
        "List price of what abusive accounts consumed, less what they paid, until each was stopped.",
        ("run", "leaked", "of what would have", "break-even of a resold dollar", "honest revenue blocked"),
        lines, _command(runs), drawn,
    )  # fmt: skip


def typologies(runs: Sequence[Run]) -> Figure | None:
    lines = []
    for run in runs:
        for name, row in run.found["typologies"].items():
            lines.append([name.replace("_", " "), run.name, number(row["n"]), number(row["recall"], "%"),
                          number(at(row, "recall_at_fpr", "0.01"), "%"), number(at(row, "leaked_usd"), "$"),
                          ", ".join(f"{t} {v:.0%}" for t, v in row["by_tier"].items()) or DASH])  # fmt: skip
    if not lines:
        return None
    return Figure(
        "typologies", "By kind of abuse", "Caught as decided, and what a threshold at 1 % FPR would catch.",
        ("typology", "run", "accounts", "caught", "recall at 1 % FPR", "leaked", "caught by tier"),
        sorted(lines), _command(runs), wide=len(runs) > 1,
    )  # fmt: skip


def ring_sizes(runs: Sequence[Run]) -> Figure | None:
    lines = []
    for run in runs:
        for size, row in (at(run.found, "cluster", "ring_recall_by_size") or {}).items():
            if at(row, "n"):
                lines.append(
                    [
                        run.name,
                        size,
                        number(row["n"]),
                        number(at(row, "found")),
                        number(at(row, "recall"), "%"),
                    ]
                )
    if not lines:
        return None
    return Figure(
        "ring-sizes", "Rings found, by size", "A ring is found when one cluster is its match (Jaccard ≥ ½).",
        ("run", "accounts in the ring", "rings", "found", "share"), lines, _command(runs),
    )  # fmt: skip


def chance(runs: Sequence[Run]) -> Figure | None:
    lines = []
    for run in runs:
        null = at(run.found, "null")
        if isinstance(null, Mapping):
            share = chance_share(run.found)
            lines.append([run.name, *(_plain(null.get(k)) for k in ("observed", "shuffled", "rewired")),
                          number(share, "%")])  # fmt: skip
    if not lines:
        return None
    return Figure(
        "null", "What chance alone would raise",
        "Clusters acted on, beside those after times are shuffled within the day, and after members are rewired.",
        ("run", "clusters", "times shuffled", "rewired", "raised by chance"), lines, _command(runs),
    )  # fmt: skip


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    return number(value) if isinstance(value, int | float) or value is None else str(value)


def peers(runs: Sequence[Run]) -> Figure | None:
    there = [run for run in runs if at(run.found, "peers")]
    if not there:
        return None
    lines: list[Sequence[Entry]] = []
    dots = []
    for run in there:
        for row in _compared(run.found, "peers"):
            mine = row[0] == "Shoal"
            name = row[0] if len(there) == 1 else f"{run.name}: {row[0]}"
            lines.append([(name, "strong" if mine else ""), *row[1:]])
            value = at(
                run.found["account"] if mine else run.found["peers"][row[0]],
                "recall_at_fpr",
                "0.01",
            )
            if value is not None:
                dots.append(Dot(name, value, note=f"{value:.1%}", bad=mine))
    drawn = chart.dots(
        "Peers on the same log", "Recall at 1 % false positives of Shoal and of four other methods.",
        dots, Axis("recall at 1 % FPR", 0, 1, percent), names=210,
    ) if dots else None  # fmt: skip
    return Figure(
        "peers", "Beside what one would otherwise use",
        "Threshold rules, an isolation forest, LightGBM on per-account aggregates, components of shared entities.",
        ("method", "PR-AUC", "AUC", "recall at 1 % FPR", "at 0.1 %"), lines, _command(there), [drawn] if drawn else [],
    )  # fmt: skip


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
        "PR-AUC by split", "Random accounts, later time, held-out operators, a typology left out.",
        dots, Axis("PR-AUC", 0, 1, chart.plain),
    )  # fmt: skip
    leak = (
        f"S0 − S2 = {gap:+.3f}: what knowing the operator would be worth, so what a random split would have flattered."
        if gap is not None else "S0 is random accounts, S2 held-out operators."
    )  # fmt: skip
    return Figure(
        "splits", "The same model, split otherwise", leak,
        ("split", "PR-AUC", "AUC", "recall at 1 % FPR", "at 0.1 %"), _compared(run.found, "splits"), run.command, [drawn],
    )  # fmt: skip


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
    says = f"Cluster {told.get('cluster_id', '')}: the links are what it was drawn from, the evidence is what an analyst reads."
    return Figure(
        "ring", "One ring, with its evidence", says, ("evidence",), lines, run.command, [drawn], key
    )


def _family(link: Mapping[str, Any]) -> str:
    kinds = link.get("kinds") or ("other",)
    return str(kinds[0] if not isinstance(kinds, str) else kinds)


def _words(evidence: Any) -> str:
    return str(evidence.get("text", evidence)) if isinstance(evidence, Mapping) else str(evidence)


# --- the matrix

Results = Mapping[str, Mapping[str, Any]]


def _kind(results: Results, prefix: str) -> dict[str, Mapping[str, Any]]:
    return {n: c for n, c in results.items() if n == prefix or n.startswith(f"{prefix}-")}


def _about(cell: Mapping[str, Any]) -> dict[str, Any]:
    return dict(cell["spec"]["about"])


def _by_hand(cell: Mapping[str, Any]) -> str:
    """What makes one cell's evaluation again."""
    w = cell["spec"]["worlds"][-1]
    knobs = "".join(f" --knob {name}={value:g}" for name, value in w["knobs"])
    return (
        f"shoal evaluate --scenario {w['scenario']} --seed {w['seed']} --accounts {w['accounts']} --days {w['days']:g} "
        f"--abusive-share {w['abusive_share']:g} --tier {w['tier']}{knobs} --model train --data OUT_DIR"
    )


def headlines(results: Results) -> list[Run]:
    """The headline cells as runs, by tier."""
    runs = []
    for name, cell in sorted(_kind(results, "headline").items()):
        tier = cell["spec"]["worlds"][0]["tier"]
        runs.append(
            Run(
                name.removeprefix("headline-"),
                cell["result"]["found"],
                _by_hand(cell),
                TIERS.index(tier),
                tier,
            )
        )
    return runs


def pays(results: Results) -> list[tuple[str, str, float]]:
    """Typology and tier at which reselling pays with the detector acting, cheapest first."""
    told = []
    for cell in _kind(results, "loop").values():
        about, share = _about(cell), at(cell, "result", "defended", "break_even_share")
        if share is not None and share < 1:
            told.append((str(about["typology"]), str(about["tier"]), float(share)))
    return sorted(told, key=lambda t: t[2])


def wrong_in(results: Results, failed: Mapping[str, str]) -> list[str]:
    """What is bad in a matrix, in sentences."""
    runs = headlines(results)
    wrong = []
    if failed:
        told = "; ".join(f"{n}: {w}" for n, w in list(failed.items())[:3])
        wrong.append(f"{len(failed)} cells could not be run, so this page is incomplete: {told}.")
    wrong += gates(runs)
    by_tier = {
        tier: _mean([v for r in runs if r.tier == tier and (v := r.found["account"]["recall_at_fpr"]["0.01"]) is not None] or [0.0])
        for tier in sorted({r.tier for r in runs})
    }  # fmt: skip
    if by_tier.get("T1") and by_tier.get("T3", 1.0) < STEEP * by_tier["T1"]:
        wrong.append(
            f"A patient adversary gets away: recall at 1 % FPR falls from {by_tier['T1']:.0%} at T1 to {by_tier['T3']:.0%} at T3."
        )
    cheap = pays(results)
    if cheap:
        below = sum(share <= STREET_PRICE for _, _, share in cheap)
        typology, tier, share = cheap[0]
        wrong.append(
            f"Reselling still pays in {len(cheap)} of {len(_kind(results, 'loop'))} typologies and tiers with the detector acting "
            f"({below} below the street price of {STREET_PRICE:.0%}); cheapest: {typology.replace('_', ' ')} at {tier}, {price(share)} of the official price."
        )
    return wrong


def html_of_matrix(results: Results, failed: Mapping[str, str], command: str) -> str:
    """The matrix for the browser, in one file."""
    runs = headlines(results)
    seconds = sum(c["seconds"] for c in results.values())
    shares = [
        s
        for c in _kind(results, "loop").values()
        if (s := at(c, "result", "defended", "break_even_share")) is not None
    ]
    page = Page(
        "The standard matrix",
        f"{len(results)} experiments, {sum(r.found['events'] for r in runs):,} events in the headline worlds alone, "
        f"{seconds / 60:,.0f} processor-minutes. One model, trained on worlds of its own, met none of the operators it is judged on.",
        command,
        wrong_in(results, failed),
        headline(runs, sorted(shares)[len(shares) // 2] if shares else None) if runs else [],
        notes=_assumed(runs[0].found) if runs else [],
    )
    if runs:
        _fill(page, runs)
    trained = results.get("train")
    if trained is not None:
        page.add(
            "generalises", "Does it carry over?",
            "Held-out operators of the training log, rarer abuse, and worlds whose operators behave as none in training did.",
            (carried(results, trained, command), splits_of_training(results, trained, command)),
        )  # fmt: skip
    page.add(
        "effort", "Kinds of abuse and tiers",
        "Small worlds with one kind of abuse each, at each tier of effort.",
        (by_typology(results, command), break_even(results, command)),
    )  # fmt: skip
    page.add(
        "adversary", "An adversary who answers",
        "Each knob is turned alone; what it does to the detector stands beside what it costs the operator.",
        (swept(results, command), crowds(results, command), poisoned(results, command), responses(results, command), knocked_out(results, command)),
    )  # fmt: skip
    return page.render()


def carried(results: Results, trained: Mapping[str, Any], command: str) -> Figure:
    lines: list[Sequence[Entry]] = []

    def add(name: str, row: Any) -> None:
        lines.append([name, number(at(row, "n")), number(at(row, "n_abusive")), number(at(row, "pr_auc")),
                      number(at(row, "recall_at_fpr", "0.01"), "%"), number(at(row, "recall_at_fpr", "0.001"), "%"),
                      number(at(row, "ece"))])  # fmt: skip

    add("training log, operators held out (S2)", trained["result"].get("held_out_operators"))
    for name, cell in _kind(results, "headline").items():
        add(f"other seeds: {name.removeprefix('headline-')}", cell["result"]["found"]["account"])
    for name, cell in _kind(results, "base_rate").items():
        add(
            f"{float(name.removeprefix('base_rate-')):.1%} abusive, T1",
            cell["result"]["found"]["account"],
        )
    unseen = results.get("unseen")
    if unseen is not None:
        add("other seeds and unseen settings (S4)", unseen["result"]["found"]["account"])
    return Figure(
        "carried", "From training to worlds it has not seen", "Read down: a model that only knows its simulator falls.",
        ("", "accounts", "abusive", "PR-AUC", "recall at 1 % FPR", "at 0.1 %", "ECE"), lines, command, wide=True,
    )  # fmt: skip


def splits_of_training(results: Results, trained: Mapping[str, Any], command: str) -> Figure | None:
    told = dict(trained["result"].get("splits") or {})
    unseen = at(results.get("unseen"), "result", "found", "account")
    if not told:
        return None
    if unseen is not None:
        told["S4"] = unseen
    return splits([Run("training log", {"splits": told}, command)])


def _heat(
    results: Results, prefix: str, value: Callable[[Mapping[str, Any]], Entry]
) -> tuple[list[str], list[list[Entry]]]:
    """A table of typologies by tiers."""
    cells: dict[str, dict[str, Entry]] = {}
    for cell in _kind(results, prefix).values():
        about = _about(cell)
        cells.setdefault(str(about["typology"]), {})[str(about["tier"])] = value(cell)
    tiers = sorted({t for row in cells.values() for t in row})
    lines: list[list[Entry]] = [
        [name.replace("_", " "), *(row.get(t, DASH) for t in tiers)] for name, row in cells.items()
    ]
    return tiers, lines


def _heated(share: float | None) -> Entry:
    """Recall as text and shade, `h0` to `h4`."""
    return DASH if share is None else (percent(share), f"heat h{min(4, int(share * 5))}")


def _priced(share: float | None) -> Entry:
    """A break-even as text and shade: below the street price, below the official price, above it."""
    if share is None:
        return ("nothing sold", "heat h4")
    band = 0 if share <= STREET_PRICE else 1 if share < 0.5 else 2 if share < 1 else 4
    return (price(share), f"heat h{band}" + (" over" if share >= 1 else ""))


def by_typology(results: Results, command: str) -> Figure | None:
    tiers, lines = _heat(
        results,
        "typology",
        lambda c: _heated(at(c, "result", "found", "account", "recall_at_fpr", "0.01")),
    )
    return Figure(
        "typology-tier", "Recall at 1 % FPR", "Of each kind's accounts, in a world of its own.",
        ("", *tiers), lines, f"{command}\n# cells typology-*",
    ) if lines else None  # fmt: skip


def break_even(results: Results, command: str) -> Figure | None:
    tiers, lines = _heat(
        results, "loop", lambda c: _priced(at(c, "result", "defended", "break_even_share"))
    )
    _, bare = _heat(
        results, "loop", lambda c: price(at(c, "result", "undefended", "break_even_share"))
    )
    if not lines:
        return None
    both = [
        [line[0], *(cell for pair in zip(line[1:], quiet[1:], strict=True) for cell in (pair[0], (_text(pair[1]), "quiet")))]
        for line, quiet in zip(lines, bare, strict=True)
    ]  # fmt: skip
    columns = ["", *(c for t in tiers for c in (t, "without"))]
    return Figure(
        "break-even", "What a resold dollar costs its operator",
        "Everything the operator spends per list-price dollar he is served, with the detector acting in the world and without it. "
        f"He sells it for about {STREET_PRICE:.0%}; framed cells are past 100 %, where an honest customer is cheaper.",
        columns, both, f"{command}\n# cells loop-*",
        key=[("h0", f"≤ {STREET_PRICE:.0%}, the street price"), ("h1", "< 50 %"), ("h2", "< 100 %"), ("h4", "≥ 100 %: no business")],
        wide=True,
    )  # fmt: skip


def _text(entry: Entry) -> str:
    return entry if isinstance(entry, str) else entry[0]


def swept(results: Results, command: str) -> Figure | None:
    cells = {n: c for n, c in _kind(results, "sweep").items() if n != "sweep-nothing"}
    if not cells:
        return None

    def of(cell: Mapping[str, Any] | None) -> tuple[float | None, float | None]:
        return (
            at(cell, "result", "loop", "defended", "cost_per_survivor_usd"),
            at(cell, "result", "found", "account", "recall_at_fpr", "0.01"),
        )

    knobs: dict[str, list[tuple[float, float | None, float | None]]] = {}
    for cell in cells.values():
        about = _about(cell)
        knobs.setdefault(str(about["knob"]), []).append((float(about["value"]), *of(cell)))
    costs = [c for points in knobs.values() for _, c, _ in points if c is not None and c > 0]
    low, high = (min(costs), max(costs)) if costs else (1.0, 10.0)
    x = Axis("cost", low * 0.8, high * 1.25, dollars, log=True)
    y = Axis("recall", 0, 1, percent)
    cost, recall = of(results.get("sweep-nothing"))
    base = (cost, recall) if cost is not None and recall is not None else None
    drawn, lines = [], []
    for knob, points in knobs.items():
        there = [(c, r, _setting(knob, v)) for v, c, r in points if c is not None and r is not None]
        drawn.append(
            chart.panel(
                knob.replace("_", " "),
                f"Recall at 1 % FPR against cost per surviving account as {knob} is turned.",
                there,
                x,
                y,
                base,
            )  # fmt: skip
        )
        lines += [
            [
                knob,
                _setting(knob, v),
                number(r, "%"),
                "none survived" if c is None else number(c, "$"),
            ]
            for v, c, r in points
        ]
    lines.append(["nothing turned", DASH, number(recall, "%"), number(cost, "$")])
    return Figure(
        "sweeps", "Each knob: recall against what it costs the operator",
        "Up: recall at 1 % FPR. Right: dollars per account still alive at the end, with the detector acting (log scale, "
        "one scale for all). The ring marks the world in which nothing is turned; the ends of a line carry the knob's setting.",
        ("knob", "setting", "recall at 1 % FPR", "cost per surviving account"), lines, f"{command}\n# cells sweep-*", drawn, wide=True,
    )  # fmt: skip


def _setting(knob: str, value: float) -> str:
    if knob.endswith("_ms"):
        return f"{value / 3_600_000:g} h" if value >= 3_600_000 else f"{value / 60_000:g} min"
    return f"{value:g}"


def crowds(results: Results, command: str) -> Figure | None:
    clean = at(results.get("sweep-nothing"), "result", "found")
    lines = []
    for word, says in (
        ("hub", "rings hide under a very popular honest entity"),
        ("framing", "an attacker touches honest victims' entities"),
    ):
        for cell in _kind(results, word).values():
            found = cell["result"]["found"]
            share, fpr = float(_about(cell)["share"]), found["account"]["realised"]["fpr"]
            before = at(clean, "account", "realised", "fpr")
            victims = at(found, "cohorts", "framed", "fpr")
            lines.append([f"{word}: {says}", f"{share:.0%}", number(found["account"]["recall_at_fpr"]["0.01"], "%"),
                          number(at(clean, "account", "recall_at_fpr", "0.01"), "%"), number(fpr, "%"), number(before, "%"),
                          number(victims, "%")])  # fmt: skip
    return Figure(
        "crowds", "Hiding in a crowd, and framing the innocent",
        "Shares are of ring accounts (hub) and of honest accounts (framing). The last column is what happens to the victims.",
        ("", "share", "recall at 1 % FPR", "without", "honest hurt", "without", "victims hurt"), lines,
        f"{command}\n# cells hub-*, framing-*", wide=True,
    ) if lines else None  # fmt: skip


def poisoned(results: Results, command: str) -> Figure | None:
    clean = at(results.get("sweep-nothing"), "result", "found", "account")
    points, lines = [], []
    if clean is not None:
        points.append((0.0, clean["recall_at_fpr"]["0.01"]))
        lines.append(
            [
                "none",
                number(clean["pr_auc"]),
                number(clean["recall_at_fpr"]["0.01"], "%"),
                number(clean["realised"]["fpr"], "%"),
            ]
        )
    for cell in _kind(results, "poison").values():
        a, share = cell["result"]["found"]["account"], float(_about(cell)["share"])
        points.append((share, a["recall_at_fpr"]["0.01"]))
        lines.append(
            [
                f"{share:.0%}",
                number(a["pr_auc"]),
                number(a["recall_at_fpr"]["0.01"], "%"),
                number(a["realised"]["fpr"], "%"),
            ]
        )
    there = [(x, y) for x, y in points if y is not None]
    if len(points) < 2:
        return None
    drawn = chart.lines(
        "Poisoned labels", "Recall at 1 % FPR as a share of the training labels is turned round.",
        [Series("", there, 0, marks=True)], Axis("share of training labels turned round", 0, max(x for x, _ in points), percent),
        Axis("recall at 1 % FPR", 0, 1, percent),
    )  # fmt: skip
    return Figure(
        "poison", "Poisoned labels", "Labels turned round before training, of honest and abusive accounts alike.",
        ("turned round", "PR-AUC", "recall at 1 % FPR", "honest hurt"), lines, f"{command}\n# cells poison-*", [drawn],
    )  # fmt: skip


def responses(results: Results, command: str) -> Figure | None:
    before, after, lines = [], [], []
    for i, cell in enumerate(_kind(results, "response").values(), 1):
        told = cell["result"]
        seen, learned = (
            at(told, k, "account", "recall_at_fpr", "0.01") for k in ("attacked", "retrained")
        )
        if seen is not None:
            before.append((float(i), seen))
        if learned is not None:
            after.append((float(i), learned))
        chosen = ", ".join(f"{name} {_setting(name, value)}" for name, value in told["chosen"])
        lines.append([str(i), chosen, number(seen, "%"), number(learned, "%")])
    if not lines:
        return None
    drawn = chart.lines(
        "Best response", "Recall at 1 % FPR after each attack and after each retraining.",
        [Series("attacked", before, 1, marks=True), Series("retrained", after, 0, marks=True)],
        Axis("round", 0.5, len(lines) + 0.5, lambda v: f"{v:g}" if v == int(v) else ""), Axis("recall at 1 % FPR", 0, 1, percent),
    )  # fmt: skip
    return Figure(
        "response", "Attack, learn, attack again",
        "Each round the attacker adds the setting that gives most missed accounts per dollar; then the detector is trained on it.",
        ("round", "the attacker's settings", "recall under attack", "after retraining"), lines, f"{command}\n# cells response-*", [drawn],
    )  # fmt: skip


def knocked_out(results: Results, command: str) -> Figure | None:
    told = at(results.get("knockout"), "result", "without")
    if not isinstance(told, Mapping) or not told:
        return None
    whole = at(results.get("knockout"), "result", "whole", "recall_at_fpr", "0.01")
    dots, lines = [], []
    for family, row in sorted(told.items(), key=lambda i: at(i[1], "recall_at_fpr", "0.01") or 0.0):
        value = at(row, "recall_at_fpr", "0.01")
        if value is not None:
            dots.append(Dot(family, value, note=f"{value:.1%}"))
        lines.append([family, number(at(row, "pr_auc")), number(value, "%")])
    drawn = chart.dots(
        "Without one family of signals", "Recall at 1 % FPR when the model may not see a family; the line is with all.",
        dots, Axis("recall at 1 % FPR; the line is with all signals", 0, 1, percent), whole,
    )  # fmt: skip
    return Figure(
        "knock-outs", "Without one family of signals",
        "Trained and judged again as if an adversary had silenced a family. Far left of the line: what the detector stands on.",
        ("without", "PR-AUC", "recall at 1 % FPR"), lines, f"{command}\n# cell knockout", [drawn],
    )  # fmt: skip


def table_of_matrix(results: Results, failed: Mapping[str, str]) -> RenderableType:
    """For the terminal: what is wrong, the tiers, break-even."""
    parts: list[RenderableType] = [
        Text(f"✗ {words}", style="bold red") for words in wrong_in(results, failed)
    ]
    if parts:
        parts.append(Text())
    lines = []
    for run in headlines(results):
        a, t = run.found["account"], run.found["time"]
        lines.append(
            (
                run.name,
                number(a["n"]),
                number(a["n_abusive"]),
                number(a["pr_auc"]),
                number(a["recall_at_fpr"]["0.01"], "%"),
                number(a["recall_at_fpr"]["0.001"], "%"),
                number(a["realised"]["fpr"], "%"),
                number(t["median_hours"]),
                number(run.found["money"]["leaked_share"], "%"),
            )  # fmt: skip
        )
    head = (
        "headline",
        "accounts",
        "abusive",
        "PR-AUC",
        "at 1 %",
        "at 0.1 %",
        "hurt",
        "hours",
        "leaked",
    )
    parts += [
        _grid("by tier and seed: recall at an FPR, honest hurt, time, money", head, lines),
        Text(),
    ]
    for title, prefix, value in (
        (
            "recall at 1 % FPR",
            "typology",
            lambda c: _share(at(c, "result", "found", "account", "recall_at_fpr", "0.01")),
        ),
        (
            "break-even of a resold dollar, detector acting",
            "loop",
            lambda c: _text(_priced(at(c, "result", "defended", "break_even_share"))),
        ),
    ):
        tiers, rows_ = _heat(results, prefix, value)
        if rows_:
            parts += [
                _grid(title, ("", *tiers), [[_text(c) for c in row] for row in rows_]),
                Text(),
            ]
    for name, words in failed.items():
        parts.append(Text(f"failed: {name}: {words}", style="red"))
    return Group(*parts)
