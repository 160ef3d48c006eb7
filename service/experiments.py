"""What the standard matrix showed, for people: the figures of its cells, its page and its table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup
from rich.console import Group, RenderableType
from rich.text import Text

from service import chart
from service.chart import Axis, Dot, Series, dollars, percent
from service.figures import (
    DASH,
    TIERS,
    Entry,
    Figure,
    Run,
    at,
    chance,
    mean,
    number,
    peers,
    price,
    share_of,
    splits,
)
from service.report import Page, assumed, fill, gates, grid, headline, summary, usual

STEEP = 0.5  # a T3 that keeps less than this share of T1's recall is said out loud
STREET_PRICE = 0.12  # of a dollar's tokens in 2026, as a share of the official price


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
        wrong.append(
            f"{len(failed)} of the cells could not be run, so this page is incomplete: {told}."
        )
    wrong += gates(runs)
    by_tier = {tier: _recall_at(runs, tier) for tier in TIERS}
    usual, hardest = by_tier["T1"], by_tier["T3"]
    if usual and hardest is not None and hardest < STEEP * usual:
        wrong.append(
            f"A patient adversary gets away: recall at 1 % FPR falls from {usual:.0%} at T1 "
            f"to {hardest:.0%} at T3."
        )
    cheap = pays(results)
    if cheap:
        below = sum(share <= STREET_PRICE for _, _, share in cheap)
        typology, tier, share = cheap[0]
        wrong.append(
            f"Reselling still pays in {len(cheap)} of {len(_kind(results, 'loop'))} typologies and tiers "
            f"with the detector acting ({below} of them below the street price of {STREET_PRICE:.0%}); "
            f"cheapest: {_plain(typology)} at {tier}, {price(share)} of the official price."
        )
    return wrong


def _recall_at(runs: Sequence[Run], tier: str) -> float | None:
    """Recall at 1 % FPR at a tier, mean of its seeds."""
    told = [r.found["account"]["recall_at_fpr"]["0.01"] for r in runs if r.tier == tier]
    there = [v for v in told if v is not None]
    return mean(there) if there else None


def middle_price(results: Results) -> float | None:
    """The median over typologies at T1 of what a resold dollar costs with the detector acting."""
    told = [
        at(cell, "result", "defended", "break_even_share")
        for cell in _kind(results, "loop").values()
        if _about(cell)["tier"] == "T1"
    ]
    there = sorted(
        s if s is not None else float("inf") for s in told
    )  # nothing sold: no price is enough
    middle = there[len(there) // 2] if there else None
    return None if middle == float("inf") else middle


def _plain(name: str) -> str:
    return name.replace("_", " ")


def html_of_matrix(results: Results, failed: Mapping[str, str], command: str) -> str:
    """The matrix for the browser, in one file."""
    runs = headlines(results)
    seconds = sum(c["seconds"] for c in results.values())
    share = middle_price(results)
    page = Page(
        "The standard matrix",
        f"{len(results)} experiments, {sum(r.found['events'] for r in runs):,} events in the headline worlds alone, "
        f"{max(1, round(seconds / 60)):,} minutes of one processor. One model, trained on worlds of its own: "
        "it has met none of the operators it is judged on.",
        command,
        wrong_in(results, failed),
        headline(runs, share, ", middle typology at T1") if runs else [],
        notes=assumed(runs[0].found) if runs else [],
        summary=summary(usual(runs), share, " in the middle typology at T1") if runs else "",
    )
    if runs:
        fill(page, runs)
    trained = results.get("train")
    if trained is not None:
        page.add(
            "generalises",
            "Does it carry over?",
            "Held-out operators of the training log, rarer abuse, and operators who behave as none in training did.",
            (carried(results, trained, command),),
        )
    page.add(
        "one-log",
        "One log from all sides",
        "Learned within one log: split otherwise, with other methods beside ours, and what chance would raise.",
        [
            figure and replace(figure, id=f"log-{figure.id}")
            for figure in (f(studied(results)) for f in (splits, peers, chance))
        ],
    )
    page.add(
        "effort",
        "Kinds of abuse and tiers",
        "Small worlds with one kind of abuse each, at each tier of effort.",
        (by_typology(results, command), break_even(results, command)),
    )
    page.add(
        "adversary",
        "An adversary who answers",
        "Each knob is turned alone; what it does to the detector stands beside what it costs the operator.",
        (
            swept(results, command),
            crowds(results, command),
            poisoned(results, command),
            responses(results, command),
            knocked_out(results, command),
        ),
    )
    return page.render()


def carried(results: Results, trained: Mapping[str, Any], command: str) -> Figure:
    lines: list[Sequence[Entry]] = []

    def add(name: str, row: Any) -> None:
        lines.append(
            [
                name,
                number(at(row, "n")),
                number(at(row, "n_abusive")),
                number(at(row, "pr_auc")),
                number(at(row, "recall_at_fpr", "0.01"), "%"),
                number(at(row, "recall_at_fpr", "0.001"), "%"),
                number(at(row, "ece")),
            ]
        )

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
        "carried",
        "From training to worlds it has not seen",
        "Read down: a model that only knows its simulator falls.",
        ("", "accounts", "abusive", "PR-AUC", "recall at 1 % FPR", "at 0.1 %", "ECE"),
        lines,
        command,
        wide=True,
    )


def studied(results: Results) -> list[Run]:
    """The log that was looked at from all sides, if it was."""
    cell = results.get("study")
    if cell is None:
        return []
    found = dict(cell["result"]["found"])
    unseen = at(results.get("unseen"), "result", "found", "account")
    if unseen is not None and found.get("splits"):
        found["splits"] = {**found["splits"], "S4": unseen}
    return [Run("one log, T2", found, f"{_by_hand(cell)} --full")]


def _heat(
    results: Results, prefix: str, value: Callable[[Sequence[Mapping[str, Any]]], Entry]
) -> tuple[list[str], list[list[Entry]]]:
    """A table of typologies by tiers, of what `value` says of the cells of each."""
    cells: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for cell in _kind(results, prefix).values():
        about = _about(cell)
        row = cells.setdefault(str(about["typology"]), {})
        row.setdefault(str(about["tier"]), []).append(cell)
    tiers = sorted({t for row in cells.values() for t in row})
    lines: list[list[Entry]] = [
        [name.replace("_", " "), *(value(row[t]) if t in row else DASH for t in tiers)]
        for name, row in cells.items()
    ]
    return tiers, lines


def _of_accounts(cells: Sequence[Mapping[str, Any]], *keys: str) -> float | None:
    """The mean over worlds of what was measured of accounts; none if none of them had rings."""
    told = [v for c in cells if (v := at(c, "result", "found", "account", *keys)) is not None]
    return mean(told) if told else None


def _heated(cells: Sequence[Mapping[str, Any]]) -> Entry:
    """Recall as text and shade, `h0` to `h4`, and PR-AUC in small."""
    share, area = _of_accounts(cells, "recall_at_fpr", "0.01"), _of_accounts(cells, "pr_auc")
    if share is None:
        return DASH
    words = Markup("{}<small>{} PR-AUC</small>").format(percent(share), number(area))
    return words, f"heat h{min(4, int(share * 5))}"


def _priced(share: float | None) -> tuple[str, str]:
    """A break-even as text and shade: below the street price, below the official price, above it."""
    if share is None:
        return "nothing sold", "heat h4 over"
    band = 0 if share <= STREET_PRICE else 1 if share < 0.5 else 2 if share < 1 else 4
    return price(share), f"heat h{band}" + (" over" if share >= 1 else "")


def by_typology(results: Results, command: str) -> Figure | None:
    tiers, lines = _heat(results, "typology", _heated)
    return (
        Figure(
            "typology-tier",
            "Recall at 1 % FPR",
            "Of each kind's accounts, in worlds of its own; mean of the worlds.",
            ("", *tiers),
            lines,
            f"{command}\n# cells typology-*",
        )
        if lines
        else None
    )


def break_even(results: Results, command: str) -> Figure | None:
    def both(cells: Sequence[Mapping[str, Any]]) -> Entry:
        (cell,) = cells
        words, shade = _priced(at(cell, "result", "defended", "break_even_share"))
        bare = price(at(cell, "result", "undefended", "break_even_share"))
        return Markup("{}<small>{} without</small>").format(words, bare), shade

    tiers, lines = _heat(results, "loop", both)
    if not lines:
        return None
    return Figure(
        "break-even",
        "What a resold dollar costs its operator",
        "Everything the operator spends per list-price dollar he is served, with the detector acting in the "
        f"world; small: without it. He sells it for about {STREET_PRICE:.0%}. "
        "Framed cells are past 100 %, where he would be cheaper as an honest customer.",
        ("", *tiers),
        lines,
        f"{command}\n# cells loop-*",
        key=[
            ("h0", f"≤ {STREET_PRICE:.0%}, the street price"),
            ("h1", "< 50 %"),
            ("h2", "< 100 %"),
            ("h4", "≥ 100 %: no business"),
        ],
    )


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
            )
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
        "sweeps",
        "Each knob: recall against what it costs the operator",
        "Up: recall at 1 % FPR. Right: dollars per account still alive at the end, with the detector acting "
        "(log scale, one for all). The ring marks the world in which nothing is turned; "
        "the ends of a line carry the knob's setting.",
        ("knob", "setting", "recall at 1 % FPR", "cost per surviving account"),
        lines,
        f"{command}\n# cells sweep-*",
        drawn,
        wide=True,
    )


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
            lines.append(
                [
                    f"{word}: {says}",
                    f"{share:.0%}",
                    number(found["account"]["recall_at_fpr"]["0.01"], "%"),
                    number(at(clean, "account", "recall_at_fpr", "0.01"), "%"),
                    number(fpr, "%"),
                    number(before, "%"),
                    number(victims, "%"),
                ]
            )
    return (
        Figure(
            "crowds",
            "Hiding in a crowd, and framing the innocent",
            "Shares are of ring accounts (hub) and of honest accounts (framing). "
            "The last column is what happens to the victims.",
            ("", "share", "recall at 1 % FPR", "without", "honest hurt", "without", "victims hurt"),
            lines,
            f"{command}\n# cells hub-*, framing-*",
            wide=True,
        )
        if lines
        else None
    )


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
        "Poisoned labels",
        "Recall at 1 % FPR as a share of the training labels is turned round.",
        [Series("", there, 0, marks=True)],
        Axis("share of training labels turned round", 0, max(x for x, _ in points), percent),
        Axis("recall at 1 % FPR", 0, 1, percent),
    )
    return Figure(
        "poison",
        "Poisoned labels",
        "Labels turned round before training, of honest and abusive accounts alike.",
        ("turned round", "PR-AUC", "recall at 1 % FPR", "honest hurt"),
        lines,
        f"{command}\n# cells poison-*",
        [drawn],
    )


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
        "Best response",
        "Recall at 1 % FPR after each attack and after each retraining.",
        [Series("attacked", before, 1, marks=True), Series("retrained", after, 0, marks=True)],
        Axis("round", 0.5, len(lines) + 0.5, lambda v: f"{v:g}" if v == int(v) else ""),
        Axis("recall at 1 % FPR", 0, 1, percent),
    )
    return Figure(
        "response",
        "Attack, learn, attack again",
        "Each round the attacker adds the setting that gives most missed accounts per dollar; "
        "then the detector is trained on it.",
        ("round", "the attacker's settings", "recall under attack", "after retraining"),
        lines,
        f"{command}\n# cells response-*",
        [drawn],
    )


def knocked_out(results: Results, command: str) -> Figure | None:
    told = at(results.get("study"), "result", "found", "knockouts", "without")
    if not isinstance(told, Mapping) or not told:
        return None
    whole = at(
        results.get("study"), "result", "found", "knockouts", "whole", "recall_at_fpr", "0.01"
    )
    dots, lines = [], []
    for family, row in sorted(told.items(), key=lambda i: at(i[1], "recall_at_fpr", "0.01") or 0.0):
        value = at(row, "recall_at_fpr", "0.01")
        if value is not None:
            dots.append(Dot(family, value, note=f"{value:.1%}"))
        lines.append([family, number(at(row, "pr_auc")), number(value, "%")])
    drawn = chart.dots(
        "Without one family of signals",
        "Recall at 1 % FPR when the model may not see a family; the line is with all.",
        dots,
        Axis("recall at 1 % FPR; the line is with all signals", 0, 1, percent),
        whole,
    )
    return Figure(
        "knock-outs",
        "Without one family of signals",
        "Trained and judged again as if an adversary had silenced a family: its columns, and the links made of "
        "its entities; the neighbourhood and its parts lose columns only. "
        "Far left of the line: what the detector stands on.",
        ("without", "PR-AUC", "recall at 1 % FPR"),
        lines,
        f"{command}\n# cell study",
        [drawn],
    )


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
            )
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
        grid("by tier and seed: recall at an FPR, honest hurt, time, money", head, lines),
        Text(),
    ]
    for title, prefix, value in (
        (
            "recall at 1 % FPR and PR-AUC, mean of the worlds",
            "typology",
            lambda cells: (
                f"{share_of(_of_accounts(cells, 'recall_at_fpr', '0.01'))} "
                f"{number(_of_accounts(cells, 'pr_auc'))}"
            ),
        ),
        (
            "break-even of a resold dollar, detector acting",
            "loop",
            lambda cells: _text(_priced(at(cells[0], "result", "defended", "break_even_share"))),
        ),
    ):
        tiers, rows_ = _heat(results, prefix, value)
        if rows_:
            parts += [
                grid(title, ("", *tiers), [[_text(c) for c in row] for row in rows_]),
                Text(),
            ]
    for name, words in failed.items():
        parts.append(Text(f"failed: {name}: {words}", style="red"))
    return Group(*parts)
