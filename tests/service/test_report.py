import io
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from found import MINIMAL, full, matrix_results
from msgspec import convert
from rich.console import Console, RenderableType

from detector.model import Model
from detector.policy import Policy, read_policy
from features.catalog import Catalog
from service.experiments import html_of_matrix, table_of_matrix
from service.figures import number, price
from service.matrix import standard
from service.report import html, promises, table, wrong_with

VOID = {"meta", "link", "br", "img", "input", "hr"}
PAGES = {
    "minimal": lambda: html(MINIMAL, "shoal evaluate --events a"),
    "full": lambda: html(full(), "shoal evaluate --scenario market"),
    "quick": lambda: html_of_matrix(
        matrix_results(standard("quick")), {}, "shoal evaluate --matrix out --quick"
    ),
    "standard": lambda: html_of_matrix(
        matrix_results(standard("full")), {"loop-x": "E: no <tag>"}, "shoal evaluate --matrix out"
    ),
    "empty": lambda: html_of_matrix({}, {"train": "E: no"}, "shoal evaluate --matrix out"),
}


class Parsed(HTMLParser):
    """A page whose every tag is closed in order; its figures, and what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.figures: dict[str, list[str]] = {}  # figure -> classes and tags inside
        self.ids: list[str] = []
        self.svgs = 0
        self._figure: str | None = None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        for name in ("src", "href", "data", "action"):
            if told.get(name):
                self.references.append(str(told[name]))
        if told.get("id"):
            self.ids.append(str(told["id"]))
        if tag == "figure":
            self._figure = str(told["id"])
            self.figures[self._figure] = []
        elif self._figure is not None:
            self.figures[self._figure] += [tag, str(told.get("class") or "")]
        self.svgs += tag == "svg"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "figure":
            self._figure = None


@pytest.mark.parametrize("name", PAGES)
def test_a_page_stands_alone_and_every_figure_has_its_command(name: str) -> None:
    text = PAGES[name]()
    page = Parsed(text)
    assert all(r.startswith("#") and r[1:] in page.ids for r in page.references)
    assert len(page.ids) == len(set(page.ids))
    assert "<script" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert not re.search(r"https?://", text.replace("http://www.w3.org/2000/svg", ""))
    for figure, inside in page.figures.items():
        assert "command" in inside, figure
        assert "table" in inside, f"{figure}: no numbers behind it"
    assert text.count("<svg") == text.count("</title><desc>") == page.svgs
    assert "nan" not in re.sub(r"[a-z]*nan[a-z]+|[a-z]+nan", "", text.lower())
    assert "None" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S)


FIGURES = {
    "precision-recall", "recall-at-fpr", "base-rates", "reliability", "tiers", "cohorts", "detection",
    "leaked", "typologies", "ring", "ring-sizes", "null", "peers", "splits",
}  # fmt: skip
MORE = {
    "carried",
    "typology-tier",
    "break-even",
    "sweeps",
    "crowds",
    "poison",
    "response",
    "log-splits",
    "log-peers",
    "log-null",
    "knock-outs",
}


def test_all_that_was_measured_is_shown() -> None:
    assert set(Parsed(PAGES["full"]()).figures) == FIGURES
    assert set(Parsed(PAGES["standard"]()).figures) >= FIGURES | MORE
    assert set(Parsed(PAGES["minimal"]()).figures) == {"leaked"}


def test_what_failed_is_said_first_and_in_red() -> None:
    text = html(full(), "shoal evaluate")
    wrong = text[text.index("What is wrong") : text.index('class="stats"')]
    assert "family 3.0% of 1,000" in wrong
    assert "LightGBM on aggregates ranks better: PR-AUC 0.750 against 0.700" in wrong
    assert "Chance alone would raise 10 % of the clusters" in wrong
    good = full(0.98, null={"observed": 40, "shuffled": 0, "rewired": 0}, cohorts={})
    assert "No gate failed" in html(good, "shoal evaluate")


def test_a_score_too_good_to_be_true_is_a_failure() -> None:
    part = {"S2": full()["account"] | {"pr_auc": 0.995}}
    assert "too good to be believed" in html(full(splits=part), "x")
    assert "too good to be believed" not in html(full(), "x")


def test_a_matrix_says_where_reselling_pays_and_what_a_patient_adversary_gets() -> None:
    text = PAGES["standard"]()
    wrong = text[text.index("What is wrong") : text.index('class="stats"')]
    assert "1 of the cells could not be run" in wrong
    assert "no &lt;tag&gt;" in wrong
    # T1 at 90 % and T2 at 30 % of the official price; nothing is sold at T3
    assert "still pays in 14 of 28" in wrong
    assert "recall at 1 % FPR falls from 56% at T1 to 5% at T3" in wrong


def test_what_came_from_a_log_is_escaped() -> None:
    assert "c&lt;1&gt;" in html(full(), "x")
    assert "&lt;b&gt;" in html(full(), "shoal evaluate --events '<b>'")
    assert "<b>'" not in html(full(), "shoal evaluate --events '<b>'")


def shown(what: RenderableType, width: int = 100) -> list[str]:
    to = io.StringIO()
    Console(file=to, width=width, highlight=False).print(what)
    return to.getvalue().splitlines()


@pytest.mark.parametrize(
    "what",
    [
        lambda: table(MINIMAL),
        lambda: table(full()),
        lambda: table_of_matrix(matrix_results(standard("full")), {"loop-x": "no"}),
        lambda: table_of_matrix({}, {"train": "no"}),
    ],
)
def test_tables_fit_a_hundred_columns(what: Any) -> None:
    """Every line of a wider screen is there at 100, whole; only sentences may be wrapped."""
    narrow, wide = shown(what()), shown(what(), 400)
    assert all(len(line) <= 100 for line in narrow)
    whole = [line.rstrip() for line in wide if not line.startswith(("✗", "failed"))]
    assert set(whole) <= {line.rstrip() for line in narrow}


def test_what_was_not_measured_is_a_dash() -> None:
    lines = shown(table(MINIMAL))
    assert any(re.search(r"PR-AUC +–", line) for line in lines)
    assert any(re.search(r"recall at the review budget +–", line) for line in lines)


def test_numbers_for_people() -> None:
    assert [number(v, k) for v, k in ((None, ""), (0.12345, ""), (0.5, "%"), (-3.5, "$"), (1234, ""))] == [
        "–", "0.123", "50.0%", "−$3.50", "1,234"
    ]  # fmt: skip
    assert [price(s) for s in (None, 0.034, 0.5, 1.9, 12.0)] == [
        "–",
        "3.4 %",
        "50 %",
        "190 %",
        "> 1,000 %",
    ]


def test_a_policy_that_acts_on_nobody_is_found_wanting() -> None:
    found = full()
    assert not any("Nothing was done" in words for words in wrong_with(found))
    found["account"]["realised"] = {"fpr": 0.0, "recall": 0.0, "precision": None}
    n = found["account"]["n_abusive"]
    assert any(f"all {n:,} abusive accounts were let through" in w for w in wrong_with(found))


def test_training_says_what_is_promised_and_what_is_not() -> None:
    rehearsed = {
        "honest": 865,
        "passed": {"0.001": 0, "0.003": 0, "0.01": 2, "0.03": 20},
        "at_most": {"0.001": 0.0031, "0.003": 0.0031, "0.01": 0.0068, "0.03": 0.029},
    }
    model = Model("m", Catalog(), {}, {"rehearsed": rehearsed})
    text = " ".join(shown(promises(model, read_policy())))
    assert "rehearsed on 865 honest accounts" in text
    assert "challenge, granted 1 %: at most 0.68 % (2 did)" in text
    assert "suspend, granted 0.1 %: at most 0.31 % (0 did)" in text
    assert "suspend, review is for" in text
    strict = convert({"version": "x", "accounts": {"suspend": 0.0001}}, Policy)
    assert "granted 0.01 %: no threshold is as strict" in " ".join(shown(promises(model, strict)))


def test_one_log_is_no_verdict_on_reselling() -> None:
    """It is a part of what an operator pays for; a closed loop (the matrix) has all of it."""
    assert "reselling does not pay" not in html(full())
    assert "Within this log a resold dollar cost its operator" in html(full())
