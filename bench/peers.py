"""Shoal beside what one would build or pick instead, on the same events, in one run:

    uv run --with duckdb --with river python bench/peers.py [--events 50000]

The usual design is pydantic, a Lua call an event on Redis, and `Booster.predict` of one row. DuckDB computes
the same features over history with window functions, River one event at a time. A peer that is not
installed is left out and said to be. CPU time of all processes that work for a row, one thread each; ratios travel,
absolutes don't.
"""

import argparse
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import pydantic
from rich.console import Console
from rich.table import Table

from detector.engine import Engine
from detector.model import Model
from detector.policy import read_policy
from features.catalog import Catalog
from features.feature import DAY, HOUR, Feature, Seen, Sum
from features.kind import INDEX
from features.memory import MemoryWindow
from features.reader import read_events
from features.rows import Rows
from service import offline
from service.bench import cpu, server_cpu
from service.folder import OFFLINE, Folder
from service.intake import read_body
from service.scenario import write
from service.shoal import Shoal
from service.valkey import EmbeddedValkey

BATCH = 1000
FEW = 3000  # events that the slow ones get
FEATURES: tuple[Feature, ...] = (
    Seen("account", "ip", DAY, "", ""),
    Seen("account", "device", 30 * DAY, "", ""),
    Seen("account", "home", 7 * DAY, "", ""),
    Seen("account", "prompt", HOUR, "", ""),
    Seen("home", "account", 7 * DAY, "", ""),
    Seen("conversation", "account", DAY, "", ""),
    Sum("requests", "account", HOUR, "", ""),
    Sum("prompt_tokens", "account", 7 * DAY, "", ""),
)


@dataclass(frozen=True)
class Eight(Catalog):
    """Eight features and no more."""

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        return FEATURES

    __hash__ = Catalog.__hash__


@dataclass
class Row:
    """CPU microseconds an event, and how many events that was measured on."""

    name: str
    us: float
    events: int
    ours: float | None = None  # microseconds of ours on the same work


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--events", type=int, default=50_000)
    n = options.parse_args().events
    out = Console()
    with tempfile.TemporaryDirectory(prefix="shoal-peers-") as name:
        folder = Path(name)
        write("market", folder / "log", 11, max(300, n // 60), 3, 0.08, "mixed")
        path = folder / "log" / "events.ndjson.zst"
        model = offline.train(
            [path],
            folder / "log" / "truth.csv",
            folder / "data",
            "peers",
            None,
            lambda _: None,
            _quiet,
        )
        engine = Engine(read_policy(), OFFLINE, model)
        lines, sealed = [], []
        for batch in read_events([path]):
            made, _ = engine.sealer.seal(batch.events)
            sealed.append(made.rows)
            lines += made.bodies
        rows = joined(sealed).part(0, min(n, sum(map(len, sealed))))
        lines = lines[: len(rows)]
        told = [*usual(folder, lines, model), *history(rows)]
    table = Table(box=None, padding=(0, 2))
    for column in ("", "µs of CPU an event", "events", "times ours"):
        table.add_column(column, justify="right" if column else "left")
    for r in told:
        times = "" if r.ours is None else f"{r.us / r.ours:,.1f}"
        table.add_row(r.name, f"{r.us:,.2f}", f"{r.events:,}", times)
    out.print(table)


@contextmanager
def _quiet(words: str, total: int | None) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


def joined(parts: list[Rows]) -> Rows:
    """Rows end to end."""
    shift = np.cumsum([0, *(len(p.id) for p in parts)])
    start = np.concatenate([p.start[:-1] + s for p, s in zip(parts, shift[:-1], strict=True)])
    fields = ("t", "type_", "account", "org", "event_id", "body", "kind", "id", "amount", "number")
    whole = {f: np.concatenate([getattr(p, f) for p in parts]) for f in fields}
    return Rows(start=np.append(start, shift[-1]).astype(np.int64), **whole)


# --- one event, one answer


class _Event(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", strict=True)
    event_id: str
    type: str
    account_id: str
    occurred_at: int


_LUA = """
local t, span = tonumber(ARGV[1]), 604800000
local found = {}
for i = 1, #KEYS do
  redis.call('ZADD', KEYS[i], t, ARGV[i + 1])
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', t - span)
  found[i] = redis.call('ZCARD', KEYS[i])
end
return found
"""


def usual(folder: Path, lines: list[bytes], model: Model) -> Iterable[Row]:
    """Bytes to a durable decision: ours, then pydantic, 20 keys by Lua, one `predict` an event."""
    shoal = Shoal(Folder(folder / "ours"), read_policy(), model)
    shoal.start()
    bodies = [b"\n".join(lines[i : i + BATCH]) for i in range(0, len(lines), BATCH)]
    shoal.ingest(read_body(bodies[0], "application/x-ndjson").events)
    ours = cpu(
        lambda: [shoal.ingest(read_body(b, "application/x-ndjson").events) for b in bodies[1:]],
        rounds=1,  # a second one would be all duplicates
    )
    ours = ours / max(1, len(lines) - BATCH) * 1e6
    shoal.close()
    yield Row("Shoal: bytes, durable, decided (batches of 1,000)", ours, len(lines))
    few = lines[:FEW]
    width = len(model.catalog.features)
    with EmbeddedValkey(folder / "usual") as valkey:
        client = valkey.client()
        script = client.register_script(_LUA)
        before = server_cpu(valkey.pid)

        def run() -> None:
            for line in few:
                event = _Event.model_validate_json(line)
                extra = event.model_extra or {}
                pairs = [(k, v) for k, v in extra.items() if isinstance(v, str)][:10]
                keys = [f"{k}:{v}" for k, v in pairs] + [
                    f"{event.account_id}:{k}" for k, _ in pairs
                ]
                members = [event.account_id] * len(pairs) + [v for _, v in pairs]
                counts = script(keys=keys, args=[event.occurred_at, *members])
                vector = np.zeros((1, width))
                vector[0, : min(width, len(counts))] = counts[:width]
                score = model.event.booster.predict(vector, num_threads=1)[0]
                client.xadd("log", {"event": line, "answer": json.dumps({"score": score})})

        spent = cpu(run, rounds=1) + server_cpu(valkey.pid) - before
    yield Row("the usual design", spent / len(few) * 1e6, len(few), ours)


# --- history


def history(rows: Rows) -> Iterable[Row]:
    """Eight features at every event of a log, as of that event."""
    n = len(rows)

    def fold(catalog: Catalog) -> np.ndarray:
        window = MemoryWindow(catalog)
        return np.concatenate(
            [window.fold(rows.part(i, min(n, i + BATCH))).vectors for i in range(0, n, BATCH)]
        )

    vectors = fold(Eight())  # compiled by now
    ours = cpu(lambda: fold(Eight())) / n * 1e6
    yield Row("Shoal: eight features", ours, n)
    yield Row("Shoal: the whole catalogue", cpu(lambda: fold(Catalog())) / n * 1e6, n)
    if importlib.util.find_spec("duckdb"):
        spent, same = duckdb_history(rows, vectors)
        yield Row(
            f"DuckDB: the same eight ({same:.1%} of the numbers equal)", spent / n * 1e6, n, ours
        )
    else:
        yield Row("DuckDB: not installed", float("nan"), 0)
    if importlib.util.find_spec("river"):
        few = rows.part(0, min(n, FEW))
        yield Row(
            "River: eight rolling sums and a model",
            river_history(few) / len(few) * 1e6,
            len(few),
            ours,
        )
    else:
        yield Row("River: not installed", float("nan"), 0)


def _column(rows: Rows, kind: str) -> np.ndarray:
    """The entity of a kind of each event as a signed integer, 0 for none."""
    out = np.zeros(len(rows), np.uint64)
    of = np.repeat(np.arange(len(rows)), np.diff(rows.start))
    first, last = rows.start[0], rows.start[-1]
    mine = rows.kind[first:last] == INDEX[kind]
    out[of[mine]] = rows.id[first:last][mine]
    return out.view(np.int64)


def _owner(rows: Rows) -> np.ndarray:
    return np.where(rows.org != 0, rows.org, rows.account).view(np.int64)


def duckdb_history(rows: Rows, vectors: np.ndarray) -> tuple[float, float]:
    """CPU seconds, and the share of the numbers that equal ours."""
    import duckdb
    import pyarrow as pa

    kinds = ("ip", "device", "home", "prompt", "conversation")
    events = pa.table(
        {
            "n": np.arange(len(rows)), "t": rows.t, "account": rows.account.view(np.int64), "owner": _owner(rows),
            **{k: _column(rows, k) for k in kinds},
            "requests": rows.amount[:, 0], "tokens": rows.amount[:, 2],
        }
    )  # fmt: skip
    parts = []
    for i, f in enumerate(FEATURES):
        key = "account" if f.by == "account" or isinstance(f, Sum) else f.by
        if isinstance(f, Sum):
            what = f"sum({'requests' if f.of == 'requests' else 'tokens'})"
        else:
            what = f"count(distinct nullif({f.of if f.by == 'account' else 'owner'}, 0))"
        span = f"range between {f.over} preceding and current row"
        parts.append(f"{what} over (partition by {key} order by t {span}) f{i}")
    con = duckdb.connect()
    con.execute("set threads = 1")
    con.register("events", events)
    began = time.process_time()
    found = con.execute(f"select {', '.join(parts)} from events order by n").fetchnumpy()
    spent = time.process_time() - began
    known = ~np.isnan(vectors)
    theirs = np.stack([np.asarray(found[f"f{i}"], float) for i in range(len(FEATURES))], axis=1)
    return spent, float((theirs[known] == vectors[known]).mean())


def river_history(rows: Rows) -> float:
    """CPU seconds of eight time-rolling sums an event by four keys and an online forest."""
    from river import feature_extraction as fx
    from river import forest, stats, utils

    keys = {k: _column(rows, k) for k in ("ip", "device", "home")} | {"account": rows.account}
    spans = (timedelta(hours=1), timedelta(days=7))
    aggregates = [
        fx.Agg("tokens", by=k, how=utils.TimeRolling(stats.Sum(), span))
        for k in keys
        for span in spans
    ]
    model = forest.ARFClassifier(n_models=3, seed=1)

    def run() -> None:
        for i in range(len(rows)):
            t = datetime.fromtimestamp(rows.t[i] / 1000, UTC).replace(tzinfo=None)
            x = {k: int(v[i]) for k, v in keys.items()} | {"tokens": int(rows.amount[i, 2])}
            seen: dict[str, float] = {}
            for j, a in enumerate(aggregates):
                a.learn_one(x, t)
                seen[str(j)] = next(iter(a.transform_one(x).values()))
            model.predict_proba_one(seen)
            model.learn_one(seen, i % 50 == 0)

    return cpu(run, rounds=1)


if __name__ == "__main__":
    main()
