"""The fault suite at length: services, logs and workers killed, stopped, starved and lied to under load.

    uv run python bench/faults.py [ROUNDS] [--seed N] [--only NAME]

ROUNDS rounds (160 unless given) are dealt to the faults of tests/service/faults.py in turn, each on a
service that is under load from two callers, with snapshots every 300 events and an archiver that is
never done; after each round everything ever sent is sent again and the log, a replay of it and every
answer are compared. A data folder serves ten rounds. What must be 0: events lost, counts that are
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
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "service"))

import faults
from faults import Target

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

FAULTS: dict[str, tuple[Callable[[Target], None], dict[str, float]]] = {
    "service killed (-9)": (faults.kill_service, {}),
    "service killed while archiving": (faults.kill_while_archiving, {}),
    "service ended (TERM)": (faults.end_service, {}),
    "Valkey killed (-9)": (faults.kill_valkey, {}),
    "Valkey paused": (faults.pause_valkey, {}),
    "Valkey paused, then killed": (faults.pause_then_kill_valkey, {}),
    "Valkey's file at its limit": (faults.full_disk, {}),
    "service's clock stepped": (faults.step_clock, {}),
    "log's clock stepped": (faults.step_log_clock, {}),
    "late flood": (faults.kill_service, {"late": 0.9}),
    "duplicates": (faults.kill_service, {"again": 0.7}),
    "poison": (faults.kill_service, {"poison": 0.7}),
}
FOLDER_ROUNDS = 10


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
    faults._notice(target)
    if target.dice.random() < 0.5:
        target.service.signal(faults.signal.SIGKILL)
        target.service.ended()
        filler.unlink()
        target.restart()
    filler.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A tmpfs of 48 MB on a folder; whether it could be mounted."""
    folder.mkdir()
    mounted = (
        shutil.which("mount") is not None
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=48m", "shoal-faults", str(folder)],
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
    asked.add_argument("--only", help="the faults whose name holds this")
    given = asked.parse_args()
    began = time.monotonic()
    total: dict[str, list[int]] = {}

    def play(
        name: str, fault: Callable[[Target], None], mix: dict[str, float], target: Target
    ) -> None:
        found = target.round(fault, **mix)
        row = total.setdefault(name, [0, 0, 0, 0, 0])
        for i, n in enumerate((1, 0, found.lost, found.doubled, found.wrong)):
            row[i] += n
        row[1] = max(row[1], len(target.callers.answers))
        for note in found.notes:
            print(f"{name}: {note}", file=sys.stderr, flush=True)

    chosen = {n: f for n, f in FAULTS.items() if given.only is None or given.only in n}
    names = list(chosen)
    with tempfile.TemporaryDirectory(prefix="shoal-faults-") as folder_name:
        folder = Path(folder_name)
        done = 0
        special = 0 if given.only else max(1, given.rounds // 16)
        while names and done < given.rounds - 2 * special:
            target = Target(folder / f"data{done}", given.seed + done)
            try:
                for _ in range(min(FOLDER_ROUNDS, given.rounds - 2 * special - done)):
                    name = names[done % len(names)]
                    play(name, *chosen[name], target)
                    done += 1
                    print(f"\r{done} rounds", end="", file=sys.stderr, flush=True)
            finally:
                target.close()
                shutil.rmtree(target.data)
        if special or given.only in ("disk",):
            with small_disk(folder / "small") as mounted:
                if mounted:
                    _series(
                        folder / "small" / "data", given.seed, special, "disk full", fill_disk, play
                    )
        if special or given.only in ("slow",):
            (folder / "slow").mkdir()
            with slow_syncs(folder / "slow") as made:
                if made:
                    name = "slow disk, Valkey killed (-9)"
                    data = folder / "slow" / "data"
                    _series(data, given.seed, special, name, faults.kill_valkey, play)
    kills = sum(
        row[0]
        for name, row in total.items()
        if "kill" in name or name in ("late flood", "duplicates", "poison")
    )
    print(
        "\n| fault | rounds | events lost | double counts | wrong answers |\n|---|---|---|---|---|"
    )
    for name, row in total.items():
        print(f"| {name} | {row[0]} | {row[2]} | {row[3]} | {row[4]} |")
    print(
        f"\n{sum(r[0] for r in total.values())} rounds, {kills} of them with kill -9, "
        f"in {time.monotonic() - began:.0f} s, seed {given.seed}"
    )
    sys.exit(any(row[2] or row[3] or row[4] for row in total.values()))


def _series(
    data: Path,
    seed: int,
    rounds: int,
    name: str,
    fault: Callable[[Target], None],
    play: Callable[..., None],
) -> None:
    """Rounds of one fault on one folder."""
    target = Target(data, seed)
    try:
        for _ in range(max(rounds, 1)):
            play(name, fault, {}, target)
    finally:
        target.close()


if __name__ == "__main__":
    main()
