"""The fault suite at length: services, logs and workers killed, stopped, starved and lied to under load.

    uv run python bench/faults.py [ROUNDS] [--seed N] [--only NAME]

ROUNDS rounds (160 unless given) are shared out among the faults of tests/service/faulty.py, each on a
service that is under load from two callers, with snapshots every 300 events and an archiver that is
never done; after each round everything ever sent is sent again and the log, a replay of it and every
answer are compared. A data folder serves ten rounds of one fault. What must be 0: events lost, counts that are
doubled, answers that are wrong. The disk is filled on a small tmpfs where one can be mounted,
and by a limit on the size of Valkey's files elsewhere; a slow disk is a library that
delays each sync by half a second (it needs a C compiler). Exit code 1 when anything is found.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "service"))

import faulty
from faulty import Pair, Target, Worker

SLOW_SYNC = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
static int late(const char *name, int fd) {
    usleep(500000);
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
}
int fsync(int fd) { return late("fsync", fd); }
int fdatasync(int fd) { return late("fdatasync", fd); }
"""

Fault = Callable[[Target], None]
DISK_FULL = "disk full, killed (-9) or not"
SLOW_DISK = "slow disk, Valkey killed (-9)"
FOLDER_ROUNDS = 10  # of one fault, on one data folder
FAULTS: dict[str, tuple[type[Target], Fault, dict[str, float]]] = {
    "service killed (-9)": (Target, faulty.kill_service, {}),
    "service killed (-9) while archiving": (Target, faulty.kill_while_archiving, {}),
    "service ended (TERM)": (Target, faulty.end_service, {}),
    "Valkey killed (-9)": (Target, faulty.kill_valkey, {}),
    "Valkey paused": (Target, faulty.pause_valkey, {}),
    "Valkey paused, then killed (-9)": (Target, faulty.pause_then_kill_valkey, {}),
    "Valkey's file at its limit": (Target, faulty.full_disk, {}),
    "service's clock stepped": (Target, faulty.step_clock, {}),
    "log's clock stepped": (Target, faulty.step_log_clock, {}),
    "late flood, killed (-9)": (Target, faulty.kill_service, {"late": 0.9}),
    "duplicates, killed (-9)": (Target, faulty.kill_service, {"again": 0.7}),
    "poison, killed (-9)": (Target, faulty.kill_service, {"poison": 0.7}),
    "writer killed (-9), standby takes over": (Pair, faulty.kill_writer, {}),
    "writer paused, standby takes over": (Pair, faulty.pause_writer, {}),
    "worker over a shared window killed (-9)": (Worker, faulty.kill_service, {}),
}


def fill_disk(target: Target) -> None:
    """Nothing more fits on the disk of the data folder; then the room is back."""
    filler = target.data.parent / "filler"
    with filler.open("wb") as file:
        for size in (1 << 20, 1 << 14, 1 << 10, 1):
            try:
                while True:
                    os.write(file.fileno(), bytes(size))
            except OSError:
                pass
    faulty._notice(target)
    if target.dice.random() < 0.5:
        target.service.signal(faulty.signal.SIGKILL)
        target.service.ended()
        filler.unlink()
        target.restart()
    filler.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A tmpfs of 640 MB (with less than 256 free a service is not ready) on a folder; whether it could be mounted."""
    folder.mkdir()
    mounted = (
        shutil.which("mount") is not None
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=640m", "shoal-faults", str(folder)],
            capture_output=True,
        ).returncode
        == 0
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def slow_syncs(folder: Path) -> Iterator[bool]:
    """Every process that is started meanwhile syncs slowly; whether the library could be made."""
    source, library = folder / "slow.c", folder / "slow.so"
    source.write_text(SLOW_SYNC)
    compiler = shutil.which("cc") or shutil.which("gcc")
    made = (
        compiler is not None
        and not subprocess.run(
            [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"],
            capture_output=True,
        ).returncode
    )
    if made:
        os.environ["LD_PRELOAD"] = str(library)
    try:
        yield bool(made)
    finally:
        os.environ.pop("LD_PRELOAD", None)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("rounds", nargs="?", type=int, default=160)
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--only", default="", help="the faults whose name holds this")
    given = asked.parse_args()
    began = time.monotonic()
    print(f"seed {given.seed}\n\n| fault | rounds | events | lost | doubled | wrong |")
    print("|---|---|---|---|---|---|", flush=True)
    rows: list[tuple[str, int, bool]] = []
    with tempfile.TemporaryDirectory(prefix="shoal-faults-") as name, ExitStack() as special:
        folder = Path(name)
        chosen = {n: f for n, f in FAULTS.items() if given.only in n}
        if given.only in DISK_FULL and special.enter_context(small_disk(folder / "small")):
            chosen[DISK_FULL] = (Target, fill_disk, {})
        each = -(-given.rounds // (len(chosen) + (given.only in SLOW_DISK)))
        for fault in chosen:
            place = folder / "small" if fault == DISK_FULL else folder
            rows.append(_series(place, given.seed, each, fault, *chosen[fault]))
        if given.only in SLOW_DISK and special.enter_context(slow_syncs(folder)):
            rows.append(
                _series(folder, given.seed, each, SLOW_DISK, Target, faulty.kill_valkey, {})
            )
    kills = sum(rounds for name, rounds, _ in rows if "(-9)" in name)
    rounds = sum(rounds for _, rounds, _ in rows)
    print(f"\n{rounds} rounds, {kills} of them with kill -9, in {time.monotonic() - began:.0f} s")
    sys.exit(any(bad for *_, bad in rows))


def _series(
    folder: Path,
    seed: int,
    rounds: int,
    name: str,
    kind: type[Target],
    fault: Fault,
    mix: dict[str, float],
) -> tuple[str, int, bool]:
    """Rounds of one fault; prints its row. Returns name, rounds, and whether anything was found."""
    lost = doubled = wrong = events = 0
    for first in range(0, rounds, FOLDER_ROUNDS):
        target = kind(folder / "data", seed + first)
        try:
            for _ in range(min(FOLDER_ROUNDS, rounds - first)):
                found = target.round(fault, **mix)
                lost, doubled, wrong = (
                    lost + found.lost,
                    doubled + found.doubled,
                    wrong + found.wrong,
                )
                for note in found.notes:
                    print(f"{name}: {note}", file=sys.stderr, flush=True)
            events += len(target.callers.answers)
        finally:
            target.close()
            for left in folder.glob("data*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
    print(f"| {name} | {rounds} | {events:,} | {lost} | {doubled} | {wrong} |", flush=True)
    return name, rounds, bool(lost or doubled or wrong)


if __name__ == "__main__":
    main()
