"""One experiment of the matrix: a small frozen spec, and the pure function that runs it to a JSON result.

A cell makes its own worlds from seeds and reads nothing but the models of the cells it needs, so that it can be
run anywhere, in any order, again. Its identity is a hash of its spec, of the code that could change
its result, and of the identities of what it needs.
"""

import csv
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from detector.engine import Engine
from detector.policy import read_policy
from features.feature import DAY
from service import loop, offline, scenario
from service.folder import OFFLINE, Folder
from service.serve import model_named

Knobs = tuple[tuple[str, float], ...]
About = tuple[tuple[str, str | float], ...]
WEEK_ONE = 1_772_409_600_000  # Monday 2026-03-02 00:00 UTC, when every test world begins
LESSON_SEEDS = 100_000  # added to a seed: worlds that nothing is judged on
JUDGED = ("features", "synth", "detector")  # folders whose code can change a result …
ALSO_JUDGED = ("cells.py", "loop.py", "offline.py", "scenario.py")  # … and these of service/


@dataclass(frozen=True, slots=True)
class World:
    """The arguments of one simulation."""

    scenario: str
    seed: int
    accounts: int
    days: float
    abusive_share: float = 0.05
    tier: str = "mixed"
    knobs: Knobs = ()

    def write(self, folder: Path, start: int = WEEK_ONE) -> None:
        scenario.write(
            self.scenario, folder, self.seed, self.accounts, self.days, self.abusive_share, self.tier,
            knobs=dict(self.knobs), start=start,
        )  # fmt: skip

    def stage(self) -> Any:
        return scenario.stage(
            self.scenario, dict(self.knobs), seed=self.seed, accounts=self.accounts,
            days=self.days, abusive_share=self.abusive_share, tier=self.tier,
        )  # fmt: skip

    @property
    def command(self) -> str:
        """What simulates and evaluates it by hand."""
        knobs = "".join(f" --knob {name}={value:g}" for name, value in self.knobs)
        return (
            f"shoal evaluate --scenario {self.scenario} --seed {self.seed} --accounts {self.accounts} "
            f"--days {self.days:g} --abusive-share {self.abusive_share:g} --tier {self.tier}{knobs}"
        )


@dataclass(frozen=True, slots=True)
class Cell:
    """A spec. `name` is its file's, too; `about` are parameters of the kind; `needs` names cells."""

    name: str
    kind: str
    worlds: tuple[World, ...]
    about: About = ()
    needs: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """The cell whose model is judged; `none` judges clusters alone."""
        return self.needs[0] if self.needs else "none"

    def told(self, key: str) -> Any:
        return dict(self.about)[key]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a matrix lies: models in a data folder, results in `cells/`."""

    folder: Path
    policy: Path | None = None

    @property
    def models(self) -> Path:
        return Folder(self.folder).models

    def path(self, name: str) -> Path:
        return self.folder / "cells" / f"{name}.json"

    def result(self, name: str) -> dict[str, Any]:
        """The result of a finished cell."""
        kept: dict[str, Any] = msgspec.json.decode(self.path(name).read_bytes())
        return dict(kept["result"])


@cache
def code_identity() -> str:
    """A hash of every source that could change a result."""
    told = hashlib.sha256()
    for package in (*JUDGED, "service"):
        for file in sorted(resources.files(package).iterdir(), key=lambda f: f.name):
            mine = package != "service" or file.name in ALSO_JUDGED
            if mine and file.name.endswith((".py", ".toml")):
                told.update(file.name.encode() + b"\0" + file.read_bytes())
    return told.hexdigest()


def identity(cell: Cell, others: Mapping[str, Cell], policy: Path | None = None) -> str:
    """What a result is the result of; two equal ones need not be computed twice."""
    told = hashlib.sha256(msgspec.json.encode(asdict(cell)))
    told.update(code_identity().encode())
    if policy is not None:
        told.update(policy.read_bytes())
    for name in cell.needs:
        told.update(identity(others[name], others, policy).encode())
    return told.hexdigest()


def run(cell: Cell, place: Place) -> dict[str, Any]:
    """The result of a cell, as JSON can carry it."""
    return KINDS[cell.kind](cell, place)


@contextmanager
def _silent(words: str, total: int | None) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


# --- the kinds


def train(cell: Cell, place: Place) -> dict[str, Any]:
    """A model of the cell's worlds, played one after the other, with operators held out."""
    return _train(cell.name, cell.worlds, place)


def judge(cell: Cell, place: Place) -> dict[str, Any]:
    """The needed model on one world it has not seen, and the rings' own books in it."""
    return _judge(cell.worlds[0], cell.model, place)


def sweep(cell: Cell, place: Place) -> dict[str, Any]:
    """One knob at one value: how well the model sees it, and what it costs when it acts."""
    acted = _loop(cell.worlds[0], cell.model, place)
    return {**judge(cell, place), "loop": {k: acted[k] for k in ("defended", "undefended")}}


def closed(cell: Cell, place: Place) -> dict[str, Any]:
    """The needed model acting in one world."""
    return _loop(cell.worlds[0], cell.model, place)


def poison(cell: Cell, place: Place) -> dict[str, Any]:
    """Training with a share of the labels turned round, judged on the last world."""
    told = _train(cell.name, cell.worlds[:-1], place, flipped=float(cell.told("share")))
    return {**_judge(cell.worlds[-1], cell.name, place), "train": told}


def respond(cell: Cell, place: Place) -> dict[str, Any]:
    """One round of best response: the attacker's best knob against the model so far, then retraining.

    The attacker keeps what he chose before and adds the setting that gives him most missed accounts per
    dollar of a surviving one. The defender then learns from a world in which rings do that.
    The last two worlds are the one the attacker tries in, and the one both are measured in.
    """
    model = cell.model
    before = place.result(model)
    chosen: Knobs = tuple((str(n), float(v)) for n, v in before.get("chosen", ()))
    trial, test = cell.worlds[-2:]
    tried = []
    for name, value in cell.about:
        if name in dict(chosen):
            continue
        knobs: Knobs = (*chosen, (name, float(value)))
        world = replace(trial, knobs=knobs)
        seen = _judge(world, model, place)
        cost = _loop(world, model, place)["defended"]["cost_per_survivor_usd"]
        recall = seen["found"]["account"]["recall_at_fpr"]["0.01"]
        tried.append({"knob": name, "value": value, "recall": recall, "cost_usd": cost})
    best = max(tried, key=lambda t: missed_per_dollar(t["recall"], t["cost_usd"]))
    chosen = (*chosen, (best["knob"], float(best["value"])))
    attacked = replace(test, knobs=chosen)
    seen = _judge(attacked, model, place)["found"]
    # learned from rings that will not be met: the same attack, other seeds
    lesson = replace(cell.worlds[0], seed=trial.seed + LESSON_SEEDS, knobs=chosen)
    _train(cell.name, (*cell.worlds[:-2], lesson), place)
    after = _judge(attacked, cell.name, place)["found"]
    return {"chosen": chosen, "tried": tried, "attacked": seen, "retrained": after}


def missed_per_dollar(recall: float | None, cost_usd: float | None) -> float:
    """What an attacker maximises: accounts missed per dollar of a surviving account.

    Nothing survived, or nothing could be measured: no reason to go there.
    """
    if recall is None or cost_usd is None:
        return -1.0
    return (1 - recall) / max(cost_usd, 0.01)


KINDS: dict[str, Callable[[Cell, Place], dict[str, Any]]] = {
    "train": train,
    "judge": judge,
    "sweep": sweep,
    "closed": closed,
    "poison": poison,
    "respond": respond,
}


# --- what they are made of


def _train(
    name: str, worlds: Sequence[World], place: Place, flipped: float = 0.0
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="shoal-") as temporary:
        folder, start = Path(temporary), WEEK_ONE
        logs = []
        for i, world in enumerate(worlds):
            world.write(folder / str(i), start)
            start += int(world.days * DAY)
            logs.append(folder / str(i) / "events.ndjson.zst")
        truth = folder / "truth.csv"
        _join([folder / str(i) / "truth.csv" for i in range(len(worlds))], truth)
        labels = truth if flipped == 0 else _turned(truth, folder / "labels.csv", flipped)
        shutil.rmtree(place.models / name, ignore_errors=True)  # of an older spec or older code
        said: list[str] = []
        model = offline.train(
            logs, labels, place.folder, name, place.policy, said.append, _silent, False
        )
    return {"model": model.version, **model.about}


def _join(tables: Sequence[Path], to: Path) -> None:
    """Tables with one header as one table."""
    with to.open("w", encoding="utf-8") as out:
        for i, table in enumerate(tables):
            header, _, rows = table.read_text("utf-8").partition("\n")
            out.write(rows if i else f"{header}\n{rows}")


def _turned(truth: Path, to: Path, share: float) -> Path:
    """Labels of which a share is turned round, the same accounts on every run."""
    with truth.open(encoding="utf-8", newline="") as there, to.open("w", encoding="utf-8") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(("account_id", "label", "group_id"))
        for row in csv.DictReader(there):
            bad = bool(row["ring_id"] or row["typology"])
            drawn = int.from_bytes(hashlib.sha256(row["account_id"].encode()).digest()[:8]) / 2**64
            label = "abusive" if bad != (drawn < share) else "honest"
            table.writerow((row["account_id"], label, row["ring_id"] or row.get("group_id", "")))
    return to


def _judge(world: World, model: str, place: Place) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="shoal-") as temporary:
        folder = Path(temporary)
        world.write(folder)
        found = offline.evaluate(
            [folder / "events.ndjson.zst"],
            folder / "truth.csv",
            place.folder,
            model,
            place.policy,
            _silent,
        )
    found.pop("flagged_accounts", None)  # thousands of names that nobody reads
    return {"found": found}


def _loop(world: World, model: str, place: Place) -> dict[str, Any]:
    engine = Engine(read_policy(place.policy), OFFLINE, model_named(Folder(place.folder), model))
    undefended = loop.closed_loop(world.stage(), None)
    return loop.told(loop.closed_loop(world.stage(), engine), undefended)
