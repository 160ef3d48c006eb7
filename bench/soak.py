"""A soak: single events at a steady pace for minutes on end; memory and latency have to stay flat.

    uv run python bench/soak.py [--minutes 15] [--per-second 500] [--json]

A market is simulated and a model trained on it; then its events are sent to a `shoal serve` of its own,
each when it is due, again and again with new ids and later times, so that the population stays the same.
Once a minute: latency from when a request was due, and the resident memory of the service and its
Valkey. The hot log grows until two snapshots cover its beginning, a snapshot every 500,000 events.
"""

import argparse
import asyncio
import itertools
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from restart import later
from rich.console import Console

from features.event import decode
from features.reader import read_events
from service import offline
from service.cli import progress
from service.demo import Served
from service.pace import paced
from service.scenario import write

ACCOUNTS = 1_500


def sent_again(path: Path) -> Iterator[bytes]:
    """The events of a log for ever, each time with ids of their own and three days later."""
    bodies = [msgspec.json.encode(e) for batch in read_events([path]) for e in batch.events]
    for turn in itertools.count():
        for body in bodies:
            yield msgspec.json.encode(later(decode(body), turn))


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    told = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(told[1]) / 1024 if told else 0.0


def soak(minutes: int, per_second: float, say: Console) -> list[dict[str, float]]:
    """What each minute was like."""
    with tempfile.TemporaryDirectory(prefix="shoal-soak-") as name:
        folder = Path(name)
        write("market", folder / "log", 11, ACCOUNTS, 3, 0.08, "mixed")
        path = folder / "log" / "events.ndjson.zst"
        truth, data = folder / "log" / "truth.csv", folder / "data"
        say.print("training", style="dim")
        offline.train([path], truth, data, "soak", None, lambda _: None, progress)
        events = sent_again(path)
        found: list[dict[str, float]] = []
        served = Served(data, 0)
        with served as url:
            service = served.process.pid
            valkey = json.loads((data / "valkey" / "lock").read_text())["valkey_pid"]
            for minute in range(1, minutes + 1):
                bodies = [*itertools.islice(events, int(60 * per_second))]
                took = asyncio.run(paced(f"{url}/v1/events", bodies, per_second))
                p50, p99, worst = np.percentile(took, [50, 99, 100]) * 1e3
                row = {
                    "minute": minute, "p50_ms": p50, "p99_ms": p99, "max_ms": worst,
                    "service_mb": resident_mb(service), "valkey_mb": resident_mb(valkey),
                }  # fmt: skip
                found.append(row)
                say.print("  ".join(f"{k} {v:,.1f}" for k, v in row.items()), style="dim")
        return found


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--minutes", type=int, default=15)
    asked.add_argument("--per-second", type=float, default=500)
    asked.add_argument("--json", action="store_true")
    given = asked.parse_args()
    found = soak(given.minutes, given.per_second, Console(stderr=True, highlight=False))
    if given.json:
        print(json.dumps(found))
        return
    for row in found:
        print("  ".join(f"{k} {v:9,.1f}" for k, v in row.items()))


if __name__ == "__main__":
    main()
