"""An evaluation for people: a table that fits 100 columns, and a page that needs no network."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, select_autoescape
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


def number(value: Any, kind: str = "") -> str:
    """A figure as people read it; null is a dash."""
    if value is None:
        return "–"
    if kind == "%":
        return f"{value:.1%}"
    if kind == "$":
        return f"${value:,.2f}"
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"


def rows(found: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The evaluation as titled lists of (what, figure)."""
    a, c, t, m = found["account"], found["cluster"], found["time"], found["money"]
    return [
        (
            f"accounts: {a['n']:,}, of them {a['n_abusive']:,} abusive",
            [
                ("PR-AUC", number(a["pr_auc"])),
                ("AUC", number(a["auc"])),
                ("recall at 1 % FPR", number(a["recall_at_fpr"]["0.01"], "%")),
                ("recall at 0.1 % FPR", number(a["recall_at_fpr"]["0.001"], "%")),
                ("as decided: recall", number(a["realised"]["recall"], "%")),
                ("as decided: FPR", number(a["realised"]["fpr"], "%")),
                ("as decided: precision", number(a["realised"]["precision"], "%")),
                ("calibration error (ECE)", number(a["ece"])),
            ],
        ),
        (
            f"clusters acted on: {c['n']:,}",
            [
                ("accounts in them: precision", number(c["flagged"]["precision"], "%")),
                ("accounts in them: recall", number(c["flagged"]["recall"], "%")),
                ("accounts in them: FPR", number(c["flagged"]["fpr"], "%")),
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
                ("dollars leaked before the stop", number(m["leaked_usd"], "$")),
                ("of what would have leaked", number(m["leaked_share"], "%")),
                ("break-even of a resold dollar", number(m["break_even_share"], "%")),
            ],
        ),
    ]


def table(found: Mapping[str, Any]) -> RenderableType:
    """For the terminal."""
    parts: list[RenderableType] = []
    for title, figures in rows(found):
        grid = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
        for what, figure in figures:
            grid.add_row(what, Text(figure, justify="right"))
        parts += [grid, Text()]
    for title, key in (("honest cohorts", "cohorts"), ("typologies", "typologies")):
        grid = Table(title=title, title_justify="left", box=None, padding=(0, 2))
        for column in (
            "",
            "accounts",
            "hurt" if key == "cohorts" else "caught",
            "95 %" if key == "cohorts" else "by tier",
        ):
            grid.add_column(column, justify="left" if not column else "right")
        for name, row in found[key].items():
            if key == "cohorts":
                span = f"{row['low']:.1%} – {row['high']:.1%}"
                grid.add_row(name, number(row["n"]), number(row["fpr"], "%"), span)
            else:
                tiers = ", ".join(f"{t} {v:.0%}" for t, v in row["by_tier"].items())
                grid.add_row(name, number(row["n"]), number(row["recall"], "%"), tiers)
        parts += [grid, Text()]
    parts.append(
        Text(f"model {found['model']}, {found['events']:,} events in {found['seconds']:.1f} s")
    )
    return Group(*parts)


def html(found: Mapping[str, Any]) -> str:
    """For the browser, in one file."""
    page = Environment(autoescape=select_autoescape(default=True)).from_string(
        resources.files("service").joinpath("report.html").read_text()
    )
    return page.render(found=found, sections=rows(found), number=number)
