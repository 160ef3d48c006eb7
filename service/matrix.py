"""The standard matrix of experiments: which cells there are, and how they are run.

`shoal evaluate --matrix OUT_DIR` trains one model on worlds of its own and holds it against every other: tiers, base
rates, typologies, the adversary's knobs, poisoned labels, attackers who answer, and operators whose accounts
are taken away. Each cell is a file in OUT_DIR/cells; one that is there and was made by the same
spec and code is not made again, so that an interrupted run goes on where it was.
"""

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import msgspec

from features.table import TYPOLOGIES
from service.cells import About, Cell, Place, World, code_identity, identity, run

TIERS = ("T0", "T1", "T2", "T3")
HOUR_MS, DAY_MS = 3_600_000, 86_400_000

# Every knob of EVALUATION.md "Adversary", and the values it is held at: fields of synth/traits.py.
KNOBS: tuple[tuple[str, str, tuple[float, ...]], ...] = (
    # field               what an operator turns                      values, from little trouble to much
    ("egress_uses",        "accounts that call from one address",      (20, 6, 2, 1)),
    ("signup_egress_uses", "accounts opened from one address",         (20, 6, 2, 1)),
    ("device_uses",        "accounts on one device",                   (20, 6, 2, 1)),
    ("card_uses",          "accounts on one card",                     (10, 4, 2, 1)),
    ("card_bins",          "issuers its cards come from",              (1, 3, 8)),
    ("phone_uses",         "accounts on one number",                   (6, 3, 2, 1)),
    ("phone_block",        "blocks of numbers it rents from",          (1, 4, 16)),
    ("face_uses",          "accounts on one face",                     (8, 4, 2, 1)),
    ("templates",          "document templates",                       (1, 3, 8)),
    ("domain_uses",        "accounts on one mail domain",              (20, 6, 2, 1)),
    ("batch",              "accounts opened in one go",                (60, 15, 4, 1)),
    ("batch_ms",           "how long one go takes",                    (HOUR_MS / 6, 6 * HOUR_MS, 48 * HOUR_MS)),
    ("cool_jitter",        "jitter of cool-downs",                     (0, .25, .5)),
    ("aged",               "share of accounts that are aged first",    (0, .5, 1)),
    ("scripts",            "different ageing scripts",                 (1, 4, 16)),
    ("seat_cap",           "calls in flight on one account",           (10, 4, 2)),
    ("sticky_ms",          "how long a conversation sticks",           (0, HOUR_MS / 12, HOUR_MS, 6 * HOUR_MS)),
    ("sliding",            "stickiness renewed on each use",           (0, 1)),
    ("pinned",             "a customer stays on one account",          (0, 1)),
    ("egress_quality",     "share of residential and mobile egress",   (0, .5, 1)),
    ("prompt_templates",   "different harvesting prompts",             (1, 4, 16)),
    ("leaks_headers",      "headers of another hop let through",       (.2, .05, 0)),
    ("sanitised",          "bodies say nothing of the workspace",      (0, 1)),
    ("credit_share",       "credit drained before rotation",           (1, .7, .4)),
)  # fmt: skip
# What an attacker who answers may do: one setting of each, the most trouble a T2 operator would take.
ANSWERS: tuple[tuple[str, float], ...] = (
    ("face_uses", 1),
    ("card_uses", 1),
    ("device_uses", 1),
    ("egress_uses", 1),
    ("pinned", 1),
    ("sanitised", 1),
)
# Settings outside of every tier that training has seen (split S4): many small blocks, slow and scattered.
UNSEEN: tuple[tuple[str, float], ...] = (
    ("phone_block", 16),
    ("card_bins", 12),
    ("batch_ms", 72 * HOUR_MS),
    ("sticky_ms", 2 * HOUR_MS),
    ("credit_share", 0.35),
    ("scripts", 20),
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a matrix is. Accounts and days are of one world; `tiers` are those of the small worlds."""

    train: tuple[int, int, float]  # worlds, accounts, days
    headline: tuple[int, float]
    seeds: Mapping[str, int]  # headline worlds of each tier
    base_rates: tuple[float, ...]  # beside the 5 % of the headline, at T1
    study: tuple[int, float]  # the log that is looked at from all sides
    small: tuple[int, float, float]  # a typology × tier world, with its abusive share ...
    smalls: int  # ... and how many of them: one of few rings is luck
    looped: tuple[int, float]  # a closed loop
    swept: tuple[int, float]
    tiers: tuple[str, ...]
    knobs: int  # of KNOBS, from its beginning; values are the first and the last in a quick matrix
    all_values: bool
    poisons: tuple[float, ...]
    crowds: tuple[float, ...]  # shares of hub abuse and of framing
    answers: int  # settings tried in a round
    rounds: int


SMALL_SHARE = 0.12  # abusive, in worlds too small for 5 % to hold a few rings
SIZES: Mapping[str, Sizes] = {
    "full": Sizes(
        train=(1, 12_000, 3), headline=(21_200, 2), seeds={"T0": 1, "T1": 5, "T2": 2, "T3": 2},
        base_rates=(0.001, 0.01), study=(5000, 3), small=(3600, 3, 0.05), smalls=3, looped=(1000, 4),
        swept=(1200, 3), tiers=TIERS, knobs=len(KNOBS), all_values=True, poisons=(0.01, 0.05, 0.1), crowds=(0.1, 0.3),
        answers=len(ANSWERS), rounds=3,
    ),
    "quick": Sizes(
        train=(1, 900, 2), headline=(700, 2), seeds={"T0": 1, "T1": 1, "T2": 1, "T3": 1},
        base_rates=(0.01,), study=(900, 2), small=(300, 2, SMALL_SHARE), smalls=1, looped=(300, 2),
        swept=(300, 2), tiers=("T1", "T3"), knobs=3, all_values=False, poisons=(0.1,), crowds=(0.2,),
        answers=2, rounds=1,
    ),
}  # fmt: skip
TRAIN_SEED, TEST_SEED, SMALL_SEED = (
    11,
    1001,
    5001,
)  # first seeds: no world of one is a world of another


def standard(size: str) -> list[Cell]:
    """The cells of the matrix, `full` or `quick`."""
    s = SIZES[size]
    count, accounts, days = s.train
    lessons = tuple(
        World("market", TRAIN_SEED + i, accounts, days, 0.1, "mixed") for i in range(count)
    )
    model = ("train",)
    cells = [Cell("train", "train", lessons)]
    before = "train"  # first, because each round waits for the one before
    for r in range(s.rounds):
        trial = World("market", SMALL_SEED + 300 + r, *s.swept, SMALL_SHARE, "T2")
        test = World("market", SMALL_SEED + 400 + r, *s.swept, SMALL_SHARE, "T2")
        name = f"response-{r + 1}"
        worlds = (*lessons, trial, test)
        cells.append(Cell(name, "respond", worlds, ANSWERS[: s.answers], (before,)))
        before = name

    wide, long = s.headline
    for tier, seeds in s.seeds.items():
        for i in range(seeds):
            world = World("market", TEST_SEED + i, wide, long, 0.05, tier)
            cells.append(Cell(f"headline-{tier}-{i + 1}", "judge", (world,), needs=model))
    for rate in s.base_rates:
        world = World("market", TEST_SEED, wide, long, rate, "T1")
        cells.append(Cell(f"base_rate-{rate:g}", "judge", (world,), (("rate", rate),), model))
    world = World("market", TEST_SEED + 900, wide, long, 0.05, "T1", UNSEEN)
    cells.append(Cell("unseen", "judge", (world,), needs=model))

    world = World("market", TEST_SEED + 800, *s.study, 0.08, "T2")
    cells.append(Cell("study", "study", (world,), needs=model))

    for t, typology in enumerate(TYPOLOGIES):
        for tier in s.tiers:
            seed, about = SMALL_SEED + t, (("typology", typology), ("tier", tier))
            for i in range(s.smalls):
                world = World(typology, seed + 1000 * i, *s.small, tier)
                name = f"typology-{typology}-{tier}-{i + 1}"
                cells.append(Cell(name, "judge", (world,), about, model))
            world = World(typology, seed + 100, *s.looped, SMALL_SHARE, tier)
            cells.append(Cell(f"loop-{typology}-{tier}", "closed", (world,), about, model))

    base = World("market", SMALL_SEED + 200, *s.swept, SMALL_SHARE, "T1")
    cells.append(Cell("sweep-nothing", "sweep", (base,), needs=model))
    for knob, _, values in KNOBS[: s.knobs]:
        for value in values if s.all_values else (values[0], values[-1]):
            world = World("market", SMALL_SEED + 200, *s.swept, SMALL_SHARE, "T1", ((knob, value),))
            turned: About = (("knob", knob), ("value", value))
            cells.append(Cell(f"sweep-{knob}-{value:g}", "sweep", (world,), turned, model))
    for kind in ("hub", "framing"):
        for share in s.crowds:
            world = World("market", SMALL_SEED + 200, *s.swept, SMALL_SHARE, "T1", ((kind, share),))
            cells.append(Cell(f"{kind}-{share:g}", "judge", (world,), (("share", share),), model))
    for share in s.poisons:
        worlds = (*lessons, base)
        cells.append(Cell(f"poison-{share:g}", "poison", worlds, (("share", share),)))
    return cells


def chosen(cells: Sequence[Cell], begins: str) -> list[Cell]:
    """The cells whose names begin so, and what they need, in the order given.

    Raises:
        ValueError: there are none; it names what there is.
    """
    by_name = {cell.name: cell for cell in cells}
    wanted = [name for name in by_name if name.startswith(begins)]
    if not wanted:
        there = ", ".join(dict.fromkeys(name.partition("-")[0] for name in by_name))
        raise ValueError(f"no cell's name begins with {begins!r}; there are {there}")
    for name in wanted:  # which grows
        wanted += [need for need in by_name[name].needs if need not in wanted]
    return [cell for cell in cells if cell.name in wanted]


# --- running them


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a matrix."""

    done: int
    kept: int  # finished before, by the same spec and code
    failed: Mapping[str, str]  # cell -> what went wrong, in its last line


def matrix(
    cells: Sequence[Cell],
    place: Place,
    jobs: int,
    say: Callable[[str], None],
    advance: Callable[[int], None],
) -> Ran:
    """Run what is not there yet, over `jobs` processes; a cell that fails costs only those that need it.

    Raises:
        KeyboardInterrupt: finished cells stay finished.
    """
    by_name = {cell.name: cell for cell in cells}
    wanted = {c.name: identity(c, by_name, place.policy) for c in cells}
    place.path("").parent.mkdir(parents=True, exist_ok=True)
    waiting = [c for c in cells if not finished(c, place, wanted[c.name])]
    kept = len(cells) - len(waiting)
    advance(kept)
    open_names = {c.name for c in waiting}
    failed: dict[str, str] = {}
    with _workers(min(jobs, len(waiting)), place) as workers:
        idle, busy = list(workers), dict[Connection, tuple[_Worker, Cell]]()
        while waiting or busy:
            for cell in [c for c in waiting if any(n in failed for n in c.needs)]:
                waiting.remove(cell)
                failed[cell.name] = f"needs {', '.join(n for n in cell.needs if n in failed)}"
                say(f"{cell.name}: not run, {failed[cell.name]}, which failed")
                advance(1)
            ready = [c for c in waiting if not open_names.intersection(c.needs)]
            while idle and ready:
                cell, worker = ready.pop(0), idle.pop()
                waiting.remove(cell)
                worker.give(cell, wanted[cell.name])
                busy[worker.pipe] = worker, cell
            for pipe in wait(list(busy)) if busy else ():  # an empty wait is for ever
                assert isinstance(pipe, Connection)
                worker, cell = busy.pop(pipe)
                problem = worker.answer()
                open_names.discard(cell.name)
                if problem is None:
                    say(f"{cell.name}: done")
                else:
                    failed[cell.name] = problem
                    say(f"{cell.name}: failed: {problem}")
                idle.append(worker)
                advance(1)
    return Ran(len(cells) - kept - len(failed), kept, failed)


def finished(cell: Cell, place: Place, wanted: str) -> bool:
    """Whether a cell's result is there, of this very spec and code, with the model that it made."""
    try:
        kept = msgspec.json.decode(place.path(cell.name).read_bytes())
    except (OSError, msgspec.DecodeError):
        return False
    made = cell.kind not in MAKES_A_MODEL or (place.models / cell.name).is_dir()
    return made and isinstance(kept, dict) and kept.get("identity") == wanted


MAKES_A_MODEL = ("train", "poison", "respond")


def results(cells: Sequence[Cell], place: Place) -> dict[str, dict[str, Any]]:
    """What is there: each finished cell's spec, seconds and result, by name."""
    by_name = {cell.name: cell for cell in cells}
    return {
        cell.name: msgspec.json.decode(place.path(cell.name).read_bytes())
        for cell in cells
        if finished(cell, place, identity(cell, by_name, place.policy))
    }


# One thread a process: cells run side by side, and two pools of spinning threads ruin each other.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class _Worker:
    """A process that runs one cell after another; replaced if it dies of one."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._start()

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, self._place), daemon=True)
        self._process.start()
        theirs.close()

    def give(self, cell: Cell, wanted: str) -> None:
        try:
            self.pipe.send((cell, wanted))
        except OSError:  # it died while it was idle
            self._start()
            self.pipe.send((cell, wanted))

    def answer(self) -> str | None:
        """None, or what went wrong with the cell it was given."""
        try:
            problem: str | None = self.pipe.recv()
            return problem
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            self._start()
            return f"its process ended with {code}"

    def end(self) -> None:
        self._process.terminate()
        self._process.join()
        self.pipe.close()


@contextmanager
def _workers(count: int, place: Place) -> Iterator[list[_Worker]]:
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))  # inherited by whom we spawn
    workers: list[_Worker] = []
    try:
        workers += [_Worker(place) for _ in range(count)]
        yield workers
    finally:
        for worker in workers:
            worker.end()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: Connection, place: Place) -> None:
    """The worker's side: a cell comes in, its result goes to a file, what went wrong goes back."""
    import signal
    import time

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear
    while True:
        try:
            cell, wanted = pipe.recv()
        except EOFError:
            return
        began = time.monotonic()
        trouble = place.path(cell.name).with_suffix(".failed")
        try:
            result = run(cell, place)
        except Exception as problem:  # any failure is the cell's, reported and kept; others go on
            trouble.write_text(traceback.format_exc())
            pipe.send(f"{type(problem).__name__}: {problem}".splitlines()[0])
            continue
        trouble.unlink(missing_ok=True)
        keep(cell, wanted, result, time.monotonic() - began, place)
        pipe.send(None)


def keep(cell: Cell, wanted: str, result: Mapping[str, Any], seconds: float, place: Place) -> None:
    """Write a result whole or not at all."""
    told = {
        "identity": wanted,
        "code": code_identity(),
        "spec": asdict(cell),
        "seconds": round(seconds, 2),
        "result": result,
    }
    path = place.path(cell.name)
    half = path.with_suffix(f".{os.getpid()}.part")
    half.write_bytes(msgspec.json.encode(told))
    half.replace(path)


def default_jobs() -> int:
    """As many as this process may use cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
