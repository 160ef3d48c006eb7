"""A world as files: events, truth, labels, the books of the rings, and the address plan."""

import csv
import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

import zstandard

from synth.labels import LabelRow
from synth.world import TruthRow, World, simulate

EVENTS, TRUTH, PLAN = "events.ndjson.zst", "truth.csv", "ip_plan.csv"
LABELS, BOOKS = "labels.csv", "books.csv"
_LEVEL = 1
_THREADS = 1  # beside the one that plays; how many is part of what the bytes of the file are


@dataclass(frozen=True, slots=True)
class Written:
    """What has been written, and where."""

    events: int
    accounts: int
    events_path: Path
    truth_path: Path
    plan_path: Path


def write(
    out_dir: Path | str,
    scenario: str = "market",
    *,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> Written:
    """Play a world into `out_dir`, which is made if need be; same arguments, same bytes.

    Args:
        progress: called with the number of events written so far, every few thousand.
        options: the keyword arguments of `simulate`.

    Raises:
        UnknownScenario: as `simulate` does, before anything is written.
    """
    with _uncollected():
        return _write(Path(out_dir), simulate(scenario, **options), progress)


def _write(out: Path, world: World, progress: Callable[[int], None] | None) -> Written:
    out.mkdir(parents=True, exist_ok=True)
    count = 0
    compressor = zstandard.ZstdCompressor(level=_LEVEL, threads=_THREADS)
    with (out / EVENTS).open("wb") as raw, compressor.stream_writer(raw) as sink:
        for block, lines in world.blocks():
            sink.write(block)
            count += lines
            if progress:
                progress(count)
    truth = world.truth()
    _rows(out / TRUTH, TruthRow, truth)
    _table(
        out / PLAN,
        ["prefix", "country", "asn", "network_type"],
        ((p.cidr, p.country, p.asn, p.network_type) for p in world.plan),
    )
    _rows(out / LABELS, LabelRow, world.labels())
    _table(
        out / BOOKS,
        ["ring_id", "typology", "tier", "accounts", "lost", "good", "usd"],
        (
            (b.ring_id, b.typology, b.tier, b.accounts, b.lost, good, round(usd, 2))
            for b in sorted(world.books(), key=lambda b: b.ring_id)
            for good, usd in [
                *sorted(b.spent_usd.items()),
                ("provider", b.paid_usd),
                ("served", b.served_usd),
            ]
        ),
    )
    return Written(count, len(truth), out / EVENTS, out / TRUTH, out / PLAN)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the cycle collector: the cast lives as long as the world and what is played leaves no
    cycles behind, so it would walk everything time and again and find nothing."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.freeze()  # there and back: what is here is old, and no reason to collect at once
            gc.unfreeze()
            gc.enable()


def _rows(path: Path, kind: type, rows: Iterable[object]) -> None:
    """A column for each field of a dataclass."""
    names = [field.name for field in fields(kind)]
    _table(path, names, map(attrgetter(*names), rows))


def _table(path: Path, header: list[str], rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(header)
        table.writerows(rows)
