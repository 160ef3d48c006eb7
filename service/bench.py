"""`shoal bench`: what this machine can do at least (a floor), and our figures as ratios to it, in one run.

Machines differ and are shared; ratios travel, absolutes don't. Each row is the median of a few
rounds. A floor is the least work that any design must do: decode the bytes, walk the trees, sort the
sightings, ask the server. Nothing here is compared with a figure from another day.
"""

import asyncio
import gc
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from detector.engine import Engine
from detector.model import Model, load
from detector.policy import read_policy
from detector.sweep import look
from features.event import decode_lines
from features.memory import MemoryWindow
from features.reader import read_events
from features.redis import RedisWindow
from features.rows import Kinds, Names
from features.seal import Sealer
from service import offline
from service.demo import Served
from service.folder import OFFLINE, Folder
from service.intake import read_body
from service.log import EventLog
from service.pace import paced
from service.scenario import write
from service.shoal import Shoal
from service.valkey import EmbeddedValkey

BATCH = 1000
ROUNDS = 3
POSTS = 1500
STEADY_PER_S, STEADY_S, STEADY_TURNS = 500, 10.0, 4  # to each of the two


@dataclass(frozen=True)
class Row:
    """`ratio` is ours over the floor (cost) — smaller is better; `of` says what the floor is."""

    name: str
    value: float
    unit: str
    floor: float | None = None
    of: str = ""

    @property
    def ratio(self) -> float | None:
        return None if self.floor is None else self.value / self.floor


def cpu(call: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Median CPU seconds of this process for a call."""
    spent = []
    for _ in range(rounds):
        began = time.process_time()
        call()
        spent.append(time.process_time() - began)
    return statistics.median(spent)


def run(events: int, as_json: bool, err: Console, out: Console, progress: Any) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as name:
        folder = Path(name)
        accounts = max(300, events // 60)
        with progress("simulating", None) as advance:
            write("market", folder / "log", 11, accounts, 3, 0.08, "mixed", advance)
        path = folder / "log" / "events.ndjson.zst"
        model = offline.train(
            [path],
            folder / "log" / "truth.csv",
            folder / "data",
            "bench",
            None,
            lambda _: None,
            progress,
        )
        lines = [
            line for batch in read_events([path]) for line in map(msgspec.json.encode, batch.events)
        ][:events]
        rows: list[Row] = []
        for step in (_line, _window, _sweep, _http):
            err.print(f"measuring {step.__name__.strip('_')}", style="dim")
            rows += step(folder, lines, model)
    if as_json:
        print(msgspec.json.encode([{**vars(r), "ratio": r.ratio} for r in rows]).decode())
        return
    table = Table(box=None, padding=(0, 2))
    for column in ("", "measured", "", "ratio", "to"):
        table.add_column(column, justify="right" if column in ("measured", "ratio") else "left")
    for r in rows:
        table.add_row(
            r.name, f"{r.value:,.2f}", r.unit, "" if r.ratio is None else f"{r.ratio:.2f}", r.of
        )
    out.print(table)


def _line(folder: Path, lines: list[bytes], model: Model) -> list[Row]:
    """Bytes to durable decisions, in process: what an ingest costs without HTTP."""
    n = len(lines)
    bodies = [b"\n".join(lines[i : i + BATCH]) for i in range(0, n, BATCH)]

    def decode() -> None:
        for (
            body
        ) in bodies:  # one after the other, as they come: keeping them all costs twice as much
            decode_lines(body)

    decode_us = cpu(decode) / n * 1e6
    vectors = np.random.default_rng(1).normal(size=(BATCH, len(model.catalog.features)))
    model.event.score(vectors)
    walk_us = cpu(lambda: model.event.trees.margin(vectors)) / BATCH * 1e6
    booster_us = (
        cpu(lambda: model.event.booster.predict(vectors, raw_score=True, num_threads=1))
        / BATCH
        * 1e6
    )
    spent, wall = [], []
    for k in range(ROUNDS):
        shoal = Shoal(Folder(folder / f"ingest{k}"), read_policy(), model)
        shoal.start()
        gc.collect()
        gc.freeze()  # as a service does
        began, started = time.process_time(), time.monotonic()
        for body in bodies:
            shoal.ingest(read_body(body, "application/x-ndjson").events)
        spent.append(time.process_time() - began)
        wall.append(time.monotonic() - started)
        if k == ROUNDS - 1:
            began = time.monotonic()
            shoal.recover()
            recover = time.monotonic() - began
        shoal.close()
        gc.unfreeze()
    ingest_us = statistics.median(spent) / n * 1e6
    gc.freeze()
    steps = _steps(folder / "steps-valkey", bodies, model)
    gc.unfreeze()
    rest = ingest_us - sum(steps.values()) / n * 1e6
    return [
        Row("decode NDJSON", decode_us, "µs/event"),
        Row("walk the trees", walk_us, "µs/row", booster_us, "Booster.predict, one thread"),
        Row("ingest, durable and decided", n / statistics.median(wall), "events/s"),
        Row("  its CPU", ingest_us, "µs/event", decode_us + walk_us, "decode + tree walk"),
        *(Row(f"    {step}", seconds / n * 1e6, "µs/event") for step, seconds in steps.items()),
        Row("    answer and record", rest, "µs/event"),
        Row("restart from the log", n / recover, "events/s"),
    ]


def _steps(data: Path, bodies: list[bytes], model: Model) -> dict[str, float]:
    """CPU seconds of each step of an ingest, for all bodies."""
    engine, spent = Engine(read_policy(), OFFLINE, model), [0.0] * 5
    with EmbeddedValkey(data) as valkey:
        log = EventLog(valkey.client())
        for body in bodies:
            at = [time.process_time()]
            events = read_body(body, "application/x-ndjson").events
            at.append(time.process_time())
            sealed, _ = engine.sealer.seal(events)
            at.append(time.process_time())
            folded = engine.restore(sealed)
            at.append(time.process_time())
            answered = engine.decide(sealed, folded)
            at.append(time.process_time())
            log.append(sealed.bodies, msgspec.json.encode(answered.decisions))
            at.append(time.process_time())
            spent = [s + b - a for s, a, b in zip(spent, at, at[1:], strict=False)]
    names = ("read", "seal", "fold and book", "score and decide", "encode and log")
    return dict(zip(names, spent, strict=True))


def _window(folder: Path, lines: list[bytes], model: Model) -> list[Row]:
    """The fold alone, a replay of sealed events, and the redis window."""
    n = len(lines)
    engine = Engine(read_policy(), OFFLINE, model)
    sealed, _ = engine.sealer.seal(decode_lines(b"\n".join(lines))[0])
    rows, bodies = sealed.rows, sealed.bodies
    n = len(bodies)

    def fold() -> None:
        window = MemoryWindow(model.catalog)
        for i in range(0, n, BATCH):
            window.fold(rows.part(i, min(n, i + BATCH)))

    def replay() -> None:
        window, again = (
            MemoryWindow(model.catalog),
            Sealer(OFFLINE, Kinds(model.catalog.kinds), Names()),
        )
        for i in range(0, n, BATCH):
            part = bodies[i : i + BATCH]
            window.fold(again.read(part).rows)

    lookups = len(MemoryWindow(model.catalog).plan.sets)
    keys = np.random.default_rng(2).integers(1, 2**63, size=n * lookups // 8).astype(np.uint64)
    floor_us = cpu(lambda: np.sort(keys)) / n * 1e6
    fold_us, replay_us = cpu(fold) / n * 1e6, cpu(replay) / n * 1e6
    few = rows.part(0, min(n, 3000))
    with EmbeddedValkey(folder / "window-valkey") as valkey:
        client = valkey.client()

        def ping() -> None:
            with client.pipeline(transaction=False) as pipe:
                for _ in range(10_000):
                    pipe.ping()
                pipe.execute()

        ping()  # warm
        began = server_cpu(valkey.pid)
        ping()
        ping_us = (server_cpu(valkey.pid) - began) / 10_000 * 1e6
        window = RedisWindow(client, model.catalog)
        began, started = server_cpu(valkey.pid), time.process_time()
        for i in range(0, len(few), 256):
            window.fold(few.part(i, min(len(few), i + 256)))
        redis_us = (server_cpu(valkey.pid) - began) / len(few) * 1e6
        client_us = (time.process_time() - started) / len(few) * 1e6
    return [
        Row(
            f"fold alone, {lookups} families",
            fold_us,
            "µs/event",
            floor_us,
            "sorting an eighth of its keys",
        ),
        Row("replay of sealed events", 1e6 / replay_us, "events/s"),
        Row("redis window, server", redis_us, "µs/event", ping_us, "one empty command"),
        Row("redis window, client", client_us, "µs/event"),
    ]


def server_cpu(pid: int) -> float:
    """CPU seconds of another process so far, to the nanosecond, threads that have ended included.

    Linux's clock of a process (clock_getcpuclockid(3)); /proc counts in ticks of 10 ms.
    """
    return time.clock_gettime(~pid << 3 | 2)


def _sweep(folder: Path, lines: list[bytes], model: Model) -> list[Row]:
    engine = Engine(read_policy(), OFFLINE, model)
    events = decode_lines(b"\n".join(lines))[0]
    for i in range(0, len(events), BATCH):
        engine.ingest(events[i : i + BATCH])
    sightings = engine.window.sightings()
    look(engine.window, engine.kinds, model)
    seconds = cpu(lambda: look(engine.window, engine.kinds, model))
    floor = cpu(lambda: np.argsort(sightings.entity))
    return [
        Row(
            f"sweep of {len(engine.ledger):,} accounts, {len(sightings):,} sightings",
            seconds * 1e3,
            "ms",
            floor * 1e3,
            "sorting the sightings",
        ),
    ]


_NOOP = """
import uvicorn, sys
async def app(scope, receive, send):
    if scope["type"] != "http": return
    while (await receive()).get("more_body"): pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False, lifespan="off")
"""


def _http(folder: Path, lines: list[bytes], model: Model) -> list[Row]:
    """One event a POST, against a route that does nothing, and batches over HTTP."""
    load(Folder(folder / "data").models)
    port = 18_431 + os.getpid() % 1000
    bare = f"http://127.0.0.1:{port}/"
    noop = subprocess.Popen([sys.executable, "-c", _NOOP, str(port)])
    served = Served(folder / "data", 0)
    try:
        _wait(bare)
        with served as url:
            floor = _posts(bare, noop.pid, lines[:POSTS])
            ours = _posts(f"{url}/v1/events", served.process.pid, lines[:POSTS])
            steady = _steady(bare, f"{url}/v1/events", lines)
            began = time.monotonic()
            with httpx.Client(timeout=60) as client:
                for i in range(0, len(lines), BATCH):
                    client.post(
                        f"{url}/v1/events",
                        content=b"\n".join(lines[i : i + BATCH]),
                        headers={"content-type": "application/x-ndjson"},
                    ).raise_for_status()
            batched = len(lines) / (time.monotonic() - began)
    finally:
        noop.terminate()
        noop.wait()
    return [
        Row("POST of one event, server CPU", ours[0], "µs", floor[0], "bare ASGI no-op"),
        Row("POST of one event, median", ours[1], "ms", floor[1], "bare ASGI no-op"),
        Row("POST of one event, p99", ours[2], "ms", floor[2], "bare ASGI no-op"),
        *steady,
        Row("NDJSON over HTTP, batches of 1,000", batched, "events/s"),
    ]


def _steady(bare: str, ours: str, lines: list[bytes]) -> list[Row]:
    """Single events at a steady rate, to both in turns, so that a busy moment hits both."""
    fresh = itertools.count()
    took: dict[str, list[float]] = {bare: [], ours: []}
    for _ in range(STEADY_TURNS):
        for url, seen in took.items():
            bodies = [
                lines[i % len(lines)].replace(b'"event_id":"', b'"event_id":"steady%d-' % i, 1)
                for i in itertools.islice(fresh, round(STEADY_PER_S * STEADY_S / STEADY_TURNS))
            ]
            seen += asyncio.run(paced(url, bodies, STEADY_PER_S))

    def ms(url: str, q: float) -> float:
        return float(np.quantile(took[url], q)) * 1e3

    return [
        Row(
            f"{STEADY_PER_S} POSTs a second, {name}",
            ms(ours, q),
            "ms",
            ms(bare, q),
            "bare ASGI no-op",
        )
        for name, q in (("median", 0.5), ("p99", 0.99))
    ]


def _wait(url: str) -> None:
    for _ in range(200):
        try:
            httpx.get(url, timeout=1)
            return
        except httpx.HTTPError:
            time.sleep(0.05)


def _posts(url: str, pid: int, lines: list[bytes]) -> tuple[float, float, float]:
    """(server CPU µs a request, median ms, p99 ms) over one kept connection."""
    took = []
    with httpx.Client(timeout=60) as client:
        for line in lines[:100]:
            client.post(url, content=line, headers={"content-type": "application/json"})
        began = server_cpu(pid)
        for line in lines[100:]:
            started = time.perf_counter()
            client.post(url, content=line, headers={"content-type": "application/json"})
            took.append(time.perf_counter() - started)
        spent = server_cpu(pid) - began
    return (
        spent / len(took) * 1e6,
        statistics.median(took) * 1e3,
        float(np.quantile(took, 0.99)) * 1e3,
    )
