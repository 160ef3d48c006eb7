"""How cost grows: from 10⁴ to 10⁶ accounts, and from 10⁵ to 10⁷ events.

    uv run python bench/growth.py [--largest ACCOUNTS] [--longest EVENTS] [--json] [--plots DIR]

Each size is a market of the generator, written to a file and told to an engine without a model, each in a
process of its own, so that a world's memory is not the engine's. An event's cost is the CPU time of
decoding, sealing, folding and answering it in batches of 1,000, over the last fifth of the log: what the
next event costs when so many have gone before. The window's size is that of its arrays; a sweep is the
median of three, over everybody. Accounts grow at a quarter of a day of traffic; events grow by the days
of 10,000 accounts.
"""

import argparse
import io
import json
import math
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import zstandard
from rich.console import Console
from rich.table import Table

from detector.engine import Engine
from detector.policy import read_policy
from features.event import decode
from service import chart, scenario
from service.chart import Axis, Series
from service.folder import OFFLINE

BATCH = 1000
ACCOUNTS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
EVENTS = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
SHORT = 0.25  # days of traffic while accounts grow
FEW = 10_000  # accounts while events grow
A_DAY = 15.0  # events an account and day, about: only how long a log of so many events is
LAST = 0.2


@dataclass(frozen=True)
class Size:
    """What one size cost."""

    accounts: int
    events: int
    event_us: float
    window_bytes: int
    peak_bytes: int
    sweep_s: float
    sighted: int  # owners that a sweep looks at


def measure(log: Path) -> Size:
    """Tell a log to an engine; everything is measured in here."""
    engine = Engine(read_policy(), OFFLINE)
    costs: list[tuple[int, float]] = []

    def told(lines: list[bytes]) -> None:
        began = time.process_time()
        engine.ingest([decode(line) for line in lines])
        costs.append((len(lines), time.process_time() - began))

    with zstandard.open(log, "rb") as stream:
        lines = io.BufferedReader(stream, 2**20)
        while batch := list(islice(lines, BATCH)):
            told(batch)
    late = costs[int(len(costs) * (1 - LAST)) :]
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        found = engine.sweep(everyone=True)
        seconds.append(time.perf_counter() - began)
    window = sum(array.nbytes for array in engine.window.save().values())  # type: ignore[attr-defined]
    return Size(
        len(found.account),
        sum(n for n, _ in costs),
        1e6 * sum(s for _, s in late) / sum(n for n, _ in late),
        window,
        1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        statistics.median(seconds),
        len(found.sets.owners),
    )


def sizes(wanted: Sequence[tuple[int, float]]) -> Iterator[Size]:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as apart:
        for accounts, days in wanted:
            with tempfile.TemporaryDirectory(prefix="shoal-") as temporary:
                folder = Path(temporary)
                world = ("market", folder, 5, accounts, days, 0.05, "mixed")
                apart.submit(scenario.write, *world).result()
                yield apart.submit(measure, folder / "events.ndjson.zst").result()


def shown(out: Console, title: str, found: Sequence[Size]) -> None:
    table = Table(
        "accounts", "events", "an event", "window", "an account", "peak", "sweep", title=title
    )
    for s in found:
        table.add_row(
            f"{s.accounts:,}", f"{s.events:,}", f"{s.event_us:.1f} µs", f"{s.window_bytes / 2**20:,.0f} MiB",
            f"{s.window_bytes / s.accounts / 1000:.1f} kB", f"{s.peak_bytes / 2**20:,.0f} MiB",
            f"{s.sweep_s:.2f} s",
        )  # fmt: skip
    out.print(table)


STYLE = (
    "<style>svg{font:12px system-ui,sans-serif;background:#fff}.line{fill:none;stroke-width:2}"
    ".s0{stroke:#2458a6}.dot.s0{fill:#2458a6}text{fill:#333;stroke:none}.grid{stroke:#ddd}"
    ".axis{stroke:#777}.end{text-anchor:end}.mid{text-anchor:middle}</style>"
)


def _around(values: Sequence[float]) -> tuple[float, float]:
    """Round numbers, of one digit, below the least and above the greatest."""
    low, high = min(values), max(values)
    below, above = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.floor(math.log10(high))
    return math.floor(low / below) * below, math.ceil(high / above) * above


def plot(
    folder: Path, name: str, title: str, points: Sequence[tuple[float, float]], x: str, y: str
) -> None:
    """One curve on log axes, as a file that stands alone."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    drawn = chart.lines(
        title, f"{y} against {x}, both logarithmic.", [Series("", points, marks=True)],
        Axis(x, *_around(xs), log=True),
        Axis(y, *_around(ys), log=True),
    )  # fmt: skip
    head, body = str(drawn).split(">", 1)
    if "xmlns" not in head:
        head = head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    (folder / f"{name}.svg").write_text(f"{head}>{STYLE}{body}\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--largest", type=int, default=ACCOUNTS[-1], help="most accounts")
    parser.add_argument("--longest", type=int, default=EVENTS[-1], help="most events")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plots", type=Path, help="folder for the curves as SVG")
    args = parser.parse_args()
    out = Console(stderr=args.json)
    wide = [(n, SHORT) for n in ACCOUNTS if n <= args.largest]
    long = [(FEW, n / A_DAY / FEW) for n in EVENTS if n <= args.longest]
    by_accounts, by_events = list(sizes(wide)), list(sizes(long))
    shown(out, "by accounts, a quarter of a day each", by_accounts)
    shown(out, f"by events, of {FEW:,} accounts", by_events)
    if args.json:
        print(
            json.dumps(
                {"accounts": list(map(asdict, by_accounts)), "events": list(map(asdict, by_events))}
            )
        )
    if args.plots:
        args.plots.mkdir(parents=True, exist_ok=True)
        for name, title, y, value in (
            ("event", "One more event", "CPU µs an event", lambda s: s.event_us),
            ("window", "The window", "MiB of the window", lambda s: s.window_bytes / 2**20),
            ("sweep", "A sweep over everybody", "seconds of a sweep", lambda s: s.sweep_s),
        ):
            plot(
                args.plots,
                f"{name}-by-accounts",
                title,
                [(s.accounts, value(s)) for s in by_accounts],
                "accounts",
                y,
            )
            plot(
                args.plots,
                f"{name}-by-events",
                title,
                [(s.events, value(s)) for s in by_events],
                "events",
                y,
            )


if __name__ == "__main__":
    main()
