"""How long a service takes to be ready again: a snapshot plus a million events after it.

    uv run python bench/restart.py [EVENTS] [--json]

A made-up log is told to a Shoal without a model, as the service would take it in: as many events as
are given before a snapshot and again after it, the second half with fresh ids. Then the process
that serves is killed (-9, with its Valkey), and `Shoal.start` is timed in a fresh one, part by part.
"""

import argparse
import json
import multiprocessing
import os
import signal
import tempfile
import time
from pathlib import Path

import msgspec

from detector.policy import read_policy
from detector.sweep import Sweep
from features.event import AnyEvent, decode
from features.reader import read_events
from service import snapshot
from service.folder import Folder
from service.scenario import write
from service.shoal import Shoal
from service.valkey import EmbeddedValkey

BATCH = 512
DAY = 86_400_000


def fill(data: Path, events: int) -> None:
    """Take in twice `events`, a snapshot between the halves, and be killed."""
    with tempfile.TemporaryDirectory(prefix="shoal-restart-") as name:
        write("market", Path(name), 11, max(300, events // 60), 3, 0.08, "mixed")
        bodies = [
            msgspec.json.encode(event)
            for batch in read_events([Path(name) / "events.ndjson.zst"])
            for event in batch.events
        ]
    shoal = Shoal(Folder(data), read_policy(), None)
    shoal.start()
    taken = 0
    for part in range(1, 1 + -(-2 * events // len(bodies))):
        for first in range(0, len(bodies), BATCH):
            batch = [later(decode(body), part) for body in bodies[first : first + BATCH]]
            shoal.ingest(batch)
            if taken < events <= taken + len(batch):
                shoal.snapshot()
            taken += len(batch)
            if taken >= 2 * events:
                os.kill(os.getpid(), signal.SIGKILL)


def later(event: AnyEvent, part: int) -> AnyEvent:
    """The event with an id of its own, so many times three days later (and all of it long ago)."""
    event.event_id = f"{part}-{event.event_id}"
    assert isinstance(event.occurred_at, int)
    event.occurred_at += 3 * DAY * part - 320 * 7 * DAY
    return event


class Looking(Shoal):
    """A Shoal that says how long its last look at the links took."""

    looking = 0.0

    def look(self, everyone: bool = False) -> Sweep:
        began = time.perf_counter()
        found = super().look(everyone)
        self.looking = time.perf_counter() - began
        return found


def timed(data: Path, answer: "multiprocessing.Queue[dict[str, float]]") -> None:
    """Seconds of each part of a start, and of a whole one."""
    folder = Folder(data)
    warm = Shoal(Folder(data.with_name("warm")), read_policy(), None)
    warm.start()  # compiled code is loaded from its cache before the clock runs
    warm.close()
    began = time.perf_counter()
    with EmbeddedValkey(folder.valkey):
        opening = time.perf_counter() - began
    began = time.perf_counter()
    snapshot.load_latest(folder.snapshots)
    loading = time.perf_counter() - began
    shoal = Looking(folder, read_policy(), None)
    began, spent = time.perf_counter(), time.process_time()
    shoal.start()
    whole, spent = time.perf_counter() - began, time.process_time() - spent
    behind = shoal.accepted - shoal._snapshot_at
    log_bytes = sum(p.stat().st_size for p in folder.valkey.rglob("*") if p.is_file())
    answer.put(
        {
            "events in the snapshot": shoal._snapshot_at,
            "events after it": behind,
            "log on disk, MB": log_bytes / 1e6,
            "Valkey loads its file, s": opening,
            "the snapshot is read and checked, s": loading,
            "the first look at all links, s": shoal.looking,
            "ready, all in all, s": whole,
            "... of which CPU of the service, s": spent,
            "events/s of the log after the snapshot": behind
            / (whole - opening - loading - shoal.looking),
        }
    )
    shoal.fault = "measured"
    shoal.close()


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("events", nargs="?", type=int, default=1_000_000)
    asked.add_argument("--json", action="store_true")
    given = asked.parse_args()
    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="shoal-restart-") as name:
        data = Path(name) / "data"
        filler = processes.Process(target=fill, args=(data, given.events))
        filler.start()
        filler.join()
        assert filler.exitcode == -signal.SIGKILL, filler.exitcode
        answer: multiprocessing.Queue[dict[str, float]] = processes.Queue()
        measured = processes.Process(target=timed, args=(data, answer))
        measured.start()
        told = answer.get(timeout=600)
        measured.join()
    if given.json:
        print(json.dumps(told))
    else:
        for what, value in told.items():
            print(f"{what:40} {value:12,.2f}")


if __name__ == "__main__":
    main()
