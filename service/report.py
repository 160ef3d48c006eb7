"""An evaluation for people: a table that fits 100 columns, and a page that needs no network.

A page is a verdict, a few large figures, and sections of figures (service/figures.py). What failed is said
first, in red.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources

from jinja2 import Environment, select_autoescape
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from detector.model import Model, target_of
from detector.policy import Policy
from detector.rehearse import CONFIDENCE
from service import figures as f
from service.chart import percent
from service.figures import (
    COHORT_GATE,
    COHORT_RATIO,
    DASH,
    TIERS,
    Figure,
    Found,
    Run,
    at,
    compared,
    interval_of,
    number,
    price,
    share_of,
)

TOO_EASY = 0.99  # an S2 PR-AUC above it at T1-T3 is a failed generator
ECE_GATE = 0.05
CHANCE_GATE = 0.05  # share of the clusters that chance alone would raise


# --- the terminal


def promises(model: Model, policy: Policy) -> RenderableType:
    """How many of the honest a model's thresholds let the policy hurt, as rehearsed when it was trained."""
    told = model.about["rehearsed"]
    text = Text(
        f"thresholds, rehearsed on {told['honest']:,} honest accounts; of others like them pass, "
        f"with {CONFIDENCE:.0%} confidence"
    )
    unkept = []
    for action, share in policy.granted:
        target = target_of(share, told["passed"])
        text.append(f"\n  {action.name}, granted {100 * share:g} %: ")
        if target is None:
            text.append("no threshold is as strict")
            continue
        at_most = told["at_most"][target]
        text.append(f"at most {100 * at_most:.2g} % ({told['passed'][target]:,} did)")
        if at_most > share:
            unkept.append(action.name)
    if unkept:
        text.append(
            f"\n✗ Too few honest accounts to promise so little: {', '.join(unkept)} is for what scores above all of "
            "them, and may hurt more than granted. Label more, or grant more in the policy.",
            style="bold red",
        )
    return text


def rows(found: Found) -> list[tuple[str, list[tuple[str, str]]]]:
    """The evaluation as titled lists of (what, figure)."""
    a, c, t, m = found["account"], found["cluster"], found["time"], found["money"]
    interval = at(a, "intervals", "pr_auc")
    return [
        (
            f"accounts: {a['n']:,}, of them {a['n_abusive']:,} abusive",
            [
                ("PR-AUC", number(a["pr_auc"]) + interval_of(interval)),
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
            f"clusters that call for an action: {c['n']:,}",
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
            f"until a ring is first put to review ({t['rings']:,} rings, {t['rings_undetected']:,} never)",
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


def grid(title: str, columns: Sequence[str], lines: Iterable[Sequence[str]]) -> Table:
    """A table of the terminal's; the first column names the line."""
    told = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for i, column in enumerate(columns):
        told.add_column(column, justify="right" if i else "left", overflow="fold")
    for line in lines:
        told.add_row(*line)
    return told


def table(found: Found) -> RenderableType:
    """For the terminal."""
    parts: list[RenderableType] = []
    wrong = wrong_with(found)
    if wrong:
        parts += [*(Text(f"✗ {words}", style="bold red") for words in wrong), Text()]
    for title, figures in rows(found):
        pairs = Table(
            title=title, title_justify="left", show_header=False, box=None, padding=(0, 2)
        )
        for what, figure in figures:
            pairs.add_row(what, Text(figure, justify="right"))
        parts += [pairs, Text()]
    cohorts = [
        (name, number(r["n"]), number(r["fpr"], "%"), f"{r['low']:.1%} – {r['high']:.1%}")
        for name, r in found["cohorts"].items()
    ]
    parts += [grid("honest cohorts", ("", "accounts", "hurt", "95 %"), cohorts), Text()]
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
    parts += [grid("typologies", head, kinds), Text()]
    for title, key in (("splits of the training log", "splits"), ("peers on this log", "peers")):
        lines = compared(found, key)
        if lines:
            head = ("", "PR-AUC", "AUC", "recall at 1 % FPR", "at 0.1 %")
            parts += [grid(title, head, lines), Text()]
    parts.append(
        Text(f"model {found['model']}, {found['events']:,} events in {found['seconds']:.1f} s")
    )
    return Group(*parts)


# --- the page


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    says: str
    figures: Sequence[Figure]


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
    summary: str = ""

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
        summary=summary(run, m.get("break_even_share")),
        notes=assumed(found),
    )
    fill(page, [run])
    return page.render()


def assumed(found: Found) -> list[str]:
    prices = at(found, "money", "assumed_prices_usd") or {}
    told = ", ".join(f"{good} ${usd:g}" for good, usd in prices.items())
    return [f"Prices assumed for the operator's goods: {told}."] if told else []


def fill(page: Page, runs: Sequence[Run]) -> None:
    """The sections that one evaluation and the matrix have in common."""
    page.add(
        "accounts",
        "Accounts",
        "How well the score ranks accounts, and what a threshold on it would catch.",
        (
            f.precision_recall(runs),
            f.recall_at_fpr(runs),
            f.base_rates(runs),
            f.reliability(runs),
            f.tiers(runs),
        ),
    )
    page.add(
        "harm",
        "Harm to honest people",
        "An honest account is hurt when anything at all is done about it. "
        "Each cohort resembles some attack: that is why it is here.",
        (f.cohorts(runs),),
    )
    page.add(
        "money",
        "Time and money",
        "From a ring's first event to its first correct alert, and what it consumed unpaid until then. "
        "Rings that were never found stay in the count.",
        (f.detection(runs), f.leaked(runs), f.typologies(runs)),
    )
    page.add(
        "rings",
        "Rings and clusters",
        "The cluster is the unit of decision: does it hold the ring, and nobody else?",
        (f.ring(runs), f.ring_sizes(runs), f.chance(runs)),
    )
    page.add(
        "compared",
        "Compared",
        "The same log, other methods; the same model, other ways to split.",
        (f.peers(runs), f.splits(runs)),
    )


# --- what is wrong, and what is large


def wrong_with(found: Found) -> list[str]:
    """What failed in one evaluation, in sentences."""
    return gates([Run("this log", found, "")])


def gates(runs: Sequence[Run]) -> list[str]:
    """What failed, in sentences; the worst come first."""
    wrong: list[str] = []
    same: dict[str, list[str]] = {}  # what is wrong, and in which runs by how much

    def add(words: str, value: str, run: Run) -> None:
        same.setdefault(words, []).append(value + _of(run, runs))

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
        found = run.found
        decided = found["account"]["realised"]
        if found["account"]["n_abusive"] and not decided["recall"] and not decided["fpr"]:
            add(
                "Nothing was done about anybody: all {} abusive accounts were let through (a shadow policy "
                "does nothing; what else a threshold needs to act, `shoal train` says)",
                number(found["account"]["n_abusive"]),
                run,
            )
        held_out = at(found, "splits", "S2", "pr_auc")
        easy = found["account"]["pr_auc"] if run.tier in TIERS[1:] else held_out
        if easy is not None and easy > TOO_EASY:
            add(
                "PR-AUC {} on held-out operators is too good to be believed: "
                "the generator is too easy, and every figure here flatters",
                number(easy),
                run,
            )
        ece = found["account"]["ece"]
        if ece is not None and ece > ECE_GATE:
            add("The score is no probability: calibration error {}", number(ece), run)
        best = better_peer(found)
        if best is not None:
            add(
                f"The peer {best[1]} ranks better: PR-AUC {{}}",
                f"{best[0]:.3f} against {found['account']['pr_auc']:.3f}",
                run,
            )
        share = f.chance_share(found)
        if share is not None and share > CHANCE_GATE:
            add("Chance alone would raise {} of the clusters", percent(share), run)
        if "not_learned" in found:
            add("Nothing was learned within the log: {}", str(found["not_learned"]), run)
    for words, cases in same.items():
        more = f" and {len(cases) - 3} more" if len(cases) > 3 else ""
        wrong.append(words.format(", ".join(cases[:3]) + more) + ".")
    return wrong


def _of(run: Run, runs: Sequence[Run]) -> str:
    return f" ({run.name})" if len(runs) > 1 else ""


def better_peer(found: Found) -> tuple[float, str] | None:
    """The best PR-AUC of a peer and its name, if it is above ours."""
    mine = found["account"]["pr_auc"]
    rivals = [(at(r, "pr_auc"), str(n)) for n, r in (at(found, "peers") or {}).items()]
    best = max(((float(v), n) for v, n in rivals if v is not None), default=None)
    return best if best is not None and mine is not None and best[0] > mine else None


def usual(runs: Sequence[Run]) -> Run:
    """The run that large figures are of: T1, the usual adversary."""
    return next((r for r in runs if r.tier == "T1"), runs[0])


def summary(run: Run, share: float | None, which: str = "") -> str:
    """What was found, at what harm and at what price, in plain words."""
    a, t = run.found["account"], run.found["time"]
    recall, hours = a["recall_at_fpr"]["0.01"], t["median_hours"]
    tier = f"At tier {run.tier} a" if run.tier else "A"
    told = []
    if recall is not None:
        told.append(
            f"{tier} threshold that points at 1 in 100 honest accounts catches "
            f"{percent(recall)} of the abusive ones."
        )
    caught, fpr, right = (a["realised"][k] for k in ("recall", "fpr", "precision"))
    if caught is not None and fpr is not None and right is not None:
        told.append(
            f"What the policy really did caught {percent(caught)} and hurt {percent(fpr)} of the honest; "
            f"{percent(right)} of those it acted on were abusive."
        )
    if t["rings"]:
        half = (
            f"half were alerted within {hours:,.1f} hours"
            if hours is not None
            else "fewer than half ever were alerted"
        )
        told.append(f"Of {t['rings']:,} rings {half}, {t['rings_undetected']:,} never.")
    if share is not None and which:
        pays = (
            "reselling at the official price would still pay"
            if share < 1
            else "reselling does not pay"
        )
        told.append(
            f"A resold dollar costs its operator {price(share)} of the official price{which}: {pays}."
        )
    elif share is not None:
        # no verdict: a log is a part of what an operator pays for, and a made-up one a sample
        told.append(
            f"Within this log a resold dollar cost its operator {price(share)} of the official price."
        )
    return " ".join(told)


def headline(runs: Sequence[Run], share: float | None, which: str = "") -> list[Stat]:
    """The large figures: found, harm, price."""
    main = usual(runs)
    a, t = main.found["account"], main.found["time"]
    recall, fpr = a["recall_at_fpr"]["0.01"], a["realised"]["fpr"]
    worst = max(main.found["cohorts"].items(), key=lambda i: i[1]["fpr"], default=None)
    tier = f" at {main.tier}" if main.tier else ""
    stats = [
        Stat(number(a["pr_auc"]), f"PR-AUC of accounts{tier}"),
        Stat(share_of(recall), f"of abusive accounts caught at 1 % FPR{tier}"),
        Stat(
            share_of(fpr),
            "of honest accounts hurt, as decided",
            fpr is not None and fpr > COHORT_GATE,
        ),
    ]
    if worst is not None:
        stats.append(
            Stat(
                share_of(worst[1]["fpr"]),
                f"in the worst cohort, {worst[0]}",
                worst[1]["fpr"] > COHORT_GATE,
            )
        )
    hours = t["median_hours"]
    stats.append(
        Stat(
            DASH if hours is None else f"{hours:,.1f} h",
            "median until a ring is first put to review",
        )
    )
    stats.append(
        Stat(
            price(share),
            f"of the official price: break-even of a resold dollar{which}",
            share is not None and share < 1,
        )
    )
    return stats
