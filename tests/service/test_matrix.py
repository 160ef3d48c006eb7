import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from service import cells as cells_module
from service.cells import KINDS, Cell, Place, World, identity, missed_per_dollar
from service.matrix import (
    ANSWERS,
    KNOBS,
    TIERS,
    TYPOLOGIES,
    UNSEEN,
    chosen,
    finished,
    keep,
    matrix,
    results,
    standard,
)

TINY = World("market", 3, 60, 0.5, 0.2, "T1")
GOOD = Cell("good", "judge", (TINY,))
OTHER = Cell("other", "judge", (replace(TINY, seed=4),))
BAD = Cell("bad", "judge", (replace(TINY, scenario="no such"),))
AFTER_BAD = Cell("after", "judge", (TINY,), needs=("bad",))


def ran(cells: list[Cell], place: Place, jobs: int = 1) -> tuple[Any, list[str], int]:
    said: list[str] = []
    steps: list[int] = []
    told = matrix(cells, place, jobs, said.append, steps.append)
    return told, said, sum(steps)


def stamp(place: Place, name: str) -> tuple[int, int]:
    """Changes whenever a cell's file is written again."""
    told = place.path(name).stat()
    return told.st_mtime_ns, told.st_ino


# --- running


def test_a_failing_cell_costs_only_those_that_need_it(tmp_path: Path) -> None:
    place = Place(tmp_path)
    told, said, steps = ran([BAD, AFTER_BAD, GOOD, OTHER], place)
    assert set(told.failed) == {"bad", "after"}
    assert "no scenario 'no such'" in told.failed["bad"]
    assert told.failed["after"] == "needs bad"
    assert (told.done, told.kept, steps) == (2, 0, 4)
    assert [line for line in said if line.startswith("bad: failed: ScenarioProblem")]
    assert "Traceback" in place.path("bad").with_suffix(".failed").read_text()
    assert set(results([BAD, AFTER_BAD, GOOD, OTHER], place)) == {"good", "other"}
    assert not list(place.path("x").parent.glob("*.part"))

    # again: what is there stays, what failed is tried again
    before = stamp(place, "good"), stamp(place, "other")
    told, _, steps = ran([BAD, AFTER_BAD, GOOD, OTHER], place)
    assert (told.done, told.kept, set(told.failed), steps) == (0, 2, {"bad", "after"}, 4)
    assert (stamp(place, "good"), stamp(place, "other")) == before


SCRIPT = """
import sys
from pathlib import Path
from test_matrix import GOOD, OTHER, TINY, replace, Cell, Place, matrix
slow = Cell("slow", "judge", (replace(TINY, accounts=20_000, days=5),))
if __name__ == "__main__":
    matrix([GOOD, slow, OTHER], Place(Path(sys.argv[1])), 1, print, lambda n: None)
"""


def test_killed_after_one_cell_it_goes_on_where_it_was(tmp_path: Path) -> None:
    script, place = tmp_path / "script.py", Place(tmp_path / "out")
    script.write_text(SCRIPT)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, str(script), str(place.folder)], env=env, stdout=-1, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 60
        while not place.path("good").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its worker too
        process.communicate()
    before = stamp(place, "good")
    told, _, _ = ran([GOOD, OTHER], place)
    assert (told.done, told.kept, told.failed) == (1, 1, {})
    assert stamp(place, "good") == before
    assert place.path("other").exists()


def test_interrupted_it_keeps_what_is_finished_and_leaves_no_process(tmp_path: Path) -> None:
    place = Place(tmp_path)

    def stop(words: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        matrix([GOOD, OTHER], place, 1, stop, lambda n: None)
    assert finished(GOOD, place, identity(GOOD, {}))
    assert not place.path("other").exists()
    assert multiprocessing.active_children() == []
    assert "OMP_NUM_THREADS" not in os.environ or os.environ["OMP_NUM_THREADS"] == "1"


def test_a_cell_whose_process_dies_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    place, said = Place(tmp_path), list[str]()
    slow = Cell("slow", "judge", (replace(TINY, accounts=20_000, days=5),))

    def kill(words: str) -> None:
        said.append(words)
        if words.startswith("bad:"):
            for child in multiprocessing.active_children():
                child.kill()  # the idle one, and the one that is at the slow cell
                child.join()

    told = matrix([slow, BAD, GOOD], place, 2, kill, lambda n: None)
    assert told.failed.keys() == {"slow", "bad"}
    assert "ended with -9" in told.failed["slow"]
    assert place.path("good").exists()


# --- what is run again


@pytest.fixture
def there(tmp_path: Path) -> Callable[[Cell], bool]:
    """Whether a result of `GOOD` counts as a result of another cell of its name."""
    place = Place(tmp_path)
    place.path("x").parent.mkdir()
    keep(GOOD, identity(GOOD, {}), {}, 1.0, place)

    def counts(cell: Cell) -> bool:
        return finished(cell, place, identity(cell, {"good": GOOD, "bad": BAD}))

    assert counts(GOOD)
    return counts


def test_another_spec_is_run_again(there: Callable[[Cell], bool]) -> None:
    changed = [
        replace(GOOD, kind="closed"),
        replace(GOOD, about=(("rate", 0.01),)),
        replace(GOOD, needs=("bad",)),
        *(replace(GOOD, worlds=(w,)) for w in (
            replace(TINY, seed=5), replace(TINY, accounts=61), replace(TINY, days=0.6), replace(TINY, tier="T2"),
            replace(TINY, abusive_share=0.1), replace(TINY, knobs=(("aged", 0.5),)), replace(TINY, scenario="honest"),
        )),
    ]  # fmt: skip
    assert len(fields(World)) == 7
    assert not any(there(cell) for cell in changed)


def test_other_code_or_another_policy_is_run_again(
    there: Callable[[Cell], bool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('version = "2"\n')
    assert identity(GOOD, {}, policy) != identity(GOOD, {})
    monkeypatch.setattr(cells_module, "code_identity", lambda: "other")
    assert not there(GOOD)


def test_a_new_model_reruns_what_it_is_judged_in() -> None:
    old, new = (Cell("train", "train", (replace(TINY, seed=s),)) for s in (1, 2))
    judged = replace(GOOD, needs=("train",))
    assert identity(judged, {"train": old}) != identity(judged, {"train": new})


def test_a_lost_model_is_trained_again(tmp_path: Path) -> None:
    place, cell = Place(tmp_path), Cell("train", "train", (TINY,))
    place.path("x").parent.mkdir()
    (place.models / "train").mkdir(parents=True)
    keep(cell, "id", {}, 1.0, place)
    assert finished(cell, place, "id")
    (place.models / "train").rmdir()
    assert not finished(cell, place, "id")


def test_a_damaged_result_is_made_again(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.path("x").parent.mkdir()
    place.path("good").write_text('{"identity": "i')
    assert not finished(GOOD, place, "i")
    place.path("good").write_text("[]")
    assert not finished(GOOD, place, "i")


# --- the table of cells


@pytest.mark.parametrize("size", ["full", "quick"])
def test_the_standard_matrix_is_whole(size: str) -> None:
    cells = standard(size)
    names = [c.name for c in cells]
    assert len(set(names)) == len(names)
    assert {c.kind for c in cells} == set(KINDS)
    place = {name: i for i, name in enumerate(names)}
    assert all(place[n] < place[c.name] for c in cells for n in c.needs), "needs come first"
    assert {c.worlds[0].tier for c in cells if c.name.startswith("headline")} == set(TIERS)
    for kind in ("typology", "loop"):
        there = {dict(c.about)["typology"] for c in cells if c.name.startswith(f"{kind}-")}
        assert there == set(TYPOLOGIES)
    assert {n.split("-")[0] for n in names} == {
        "train", "headline", "base_rate", "unseen", "typology", "loop", "sweep", "hub", "framing", "poison",
        "response", "study",
    }  # fmt: skip


def test_a_part_of_the_matrix_is_what_was_asked_for_and_what_that_needs() -> None:
    cells = standard("full")
    assert chosen(cells, "") == cells
    part = [cell.name for cell in chosen(cells, "response-3")]
    assert part == ["train", "response-1", "response-2", "response-3"]
    with pytest.raises(ValueError, match="'typo!'; there are train, response, headline"):
        chosen(cells, "typo!")


def test_the_headline_is_large_and_its_base_rates_are_rare() -> None:
    cells = {c.name: c for c in standard("full")}
    for cell in (c for n, c in cells.items() if n.startswith(("headline", "base_rate"))):
        (world,) = cell.worlds
        assert world.accounts * (1 - world.abusive_share) >= 20_000
    rates = {
        c.worlds[0].abusive_share
        for n, c in cells.items()
        if n.startswith(("headline", "base_rate"))
    }
    assert rates == {0.001, 0.01, 0.05}
    assert sum(n.startswith("headline-T1") for n in cells) == 5
    assert sum(n.startswith("loop-") for n in cells) == 7 * 4
    assert sum(n.startswith("typology-") for n in cells) == 3 * 7 * 4
    assert {k for k, _, _ in KNOBS} == {
        dict(c.about)["knob"] for n, c in cells.items() if n.startswith("sweep-") and c.about
    }


@pytest.mark.parametrize("size", ["full", "quick"])
def test_nothing_is_judged_on_a_seed_that_was_trained_on(size: str) -> None:
    cells = standard(size)
    lessons = {w.seed for c in cells if c.kind == "train" for w in c.worlds}
    for cell in cells:
        judged = {
            "train": (), "judge": cell.worlds, "study": cell.worlds, "sweep": cell.worlds, "closed": cell.worlds,
            "poison": cell.worlds[-1:], "respond": cell.worlds[-2:],
        }[cell.kind]  # fmt: skip
        assert not lessons & {w.seed for w in judged}
    unseen = next(c for c in cells if c.name == "unseen")
    assert unseen.worlds[0].knobs == UNSEEN
    assert len(dict(UNSEEN)) == len(UNSEEN)
    assert dict(ANSWERS).keys() <= {k for k, _, _ in KNOBS}


def test_what_an_attacker_wants() -> None:
    assert (
        missed_per_dollar(0.5, 10.0) > missed_per_dollar(0.5, 20.0) > missed_per_dollar(0.9, 20.0)
    )
    assert missed_per_dollar(1.0, 1.0) == 0
    assert missed_per_dollar(0.0, 0.0) == 100  # goods that cost nothing do not divide by it
    assert missed_per_dollar(0.2, None) == missed_per_dollar(None, 5.0) == -1.0


# --- the cells themselves


def test_poisoned_labels_turn_the_same_accounts_round_on_every_run(tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    rows = [f"a{i},{'r' if i % 5 == 0 else ''},,," for i in range(2000)]
    truth.write_text("account_id,ring_id,typology,cohort,tier\n" + "\n".join(rows) + "\n")
    first, again = (
        cells_module._turned(truth, tmp_path / name, 0.1).read_text() for name in ("1.csv", "2.csv")
    )
    assert first == again
    told = [line.split(",") for line in first.splitlines()[1:]]
    turned = [i for i, (_, label, _) in enumerate(told) if (label == "abusive") != (i % 5 == 0)]
    assert 150 < len(turned) < 250
    assert 20 < sum(i % 5 == 0 for i in turned) < 60, "of either sort"
    assert [g for _, _, g in told[:2]] == ["r", ""]


def test_a_matrix_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model is trained and judged on another world by the command line, twice."""
    from service import cli
    from service import matrix as matrix_module

    lesson = World("market", 1, 250, 2, 0.15, "mixed")
    judged = World("market", 1003, 200, 2, 0.1, "T1")
    made = [
        Cell("train", "train", (lesson,)),
        Cell("headline-T1-1", "judge", (judged,), needs=("train",)),
    ]
    monkeypatch.setattr(matrix_module, "standard", lambda size: made)
    out, report = tmp_path / "out", tmp_path / "report.html"
    words = ["evaluate", "--matrix", str(out), "--quick", "--jobs", "1"]
    assert cli.app([*words, "--report", str(report)], standalone_mode=False) in (None, 0)
    said = capsys.readouterr()
    assert "T1-1" in said.out
    assert "2 cells run, 0 were there, 0 failed" in said.err
    page = report.read_text()
    assert "recall-at-fpr" in page
    assert str(tmp_path) not in page.replace(" ".join(sys.argv), "")
    assert cli.app([*words, "--json"], standalone_mode=False) in (None, 0)
    said = capsys.readouterr()
    assert "0 cells run, 2 were there, 0 failed" in said.err
    told = json.loads(said.out)["cells"]
    assert told["headline-T1-1"]["result"]["found"]["model"] == "train"
    assert told["train"]["result"]["trained_on"]["accounts"] > 200
    assert "flagged_accounts" not in told["headline-T1-1"]["result"]["found"]
