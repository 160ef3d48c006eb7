"""A world as files: events, truth, labels, the books of the rings, and the address plan."""

import csv
import gc
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
_PIECE = 4 << 20  # bytes compressed at a time: a thread waits milliseconds for the interpreter


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
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    with (
        (out / EVENTS).open("wb") as raw,
        compressor.stream_writer(raw) as sink,
        ThreadPoolExecutor(1) as aside,  # a piece is compressed while the next one is played
    ):
        writing = aside.submit(sink.write, b"")
        for piece, lines in _pieces(world.blocks()):
            writing.result()
            writing = aside.submit(sink.write, piece)
            count += lines
            if progress:
                progress(count)
        writing.result()
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


def _pieces(blocks: Iterable[tuple[bytes, int]]) -> Iterator[tuple[bytes, int]]:
    """Blocks and their lines, a few of them together."""
    held: list[bytes] = []
    size = lines = 0
    for block, count in blocks:
        held.append(block)
        size, lines = size + len(block), lines + count
        if size >= _PIECE:
            yield b"".join(held), lines
            held, size, lines = [], 0, 0
    if held:
        yield b"".join(held), lines


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
