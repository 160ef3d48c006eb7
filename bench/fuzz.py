"""Bodies and files that are nearly right, at every reader: never anything but the documented problem.

    uv run python bench/fuzz.py --minutes 10 [--seed 1]

Valid inputs of each form are mutated (bits, bytes, cuts, repeats, swapped pieces, odd words) and read. An
exception that a reader does not promise is a finding: it is printed with the input, and the exit code is 1.
`tests/test_fuzz.py` runs the same for a few seconds.
"""

import argparse
import gzip
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import zstandard

from features.archive import write_archive
from features.event import CLASS_OF, InvalidEvent, decode, decode_lines
from features.reader import InputProblem, read_events
from features.table import read_labels, read_truth
from service.intake import BODY_MAX, read_body
from service.problem import Problem
from service.unpack import unpacker

ODD = (
    b"null", b"NaN", b"1e999", b"-0", b'""', b"[]", b"{}", b"\\ud800", b"\xff", b"\x00", b"\xef\xbb\xbf",
    b"\r", b"9" * 400, b"[" * 400, b'{"a":' * 300, b"2020-02-30T00:00:00Z", b"-1", b"0.1", b"true", b'"', b",",
)  # fmt: skip


def event(n: int, type: str, **more: object) -> bytes:
    told = {"event_id": f"e{n}", "type": type, "occurred_at": 1_700_000_000_000 + n}
    return msgspec.json.encode(told | {"account_id": f"a{n % 7}"} | more)


def valid_lines() -> list[bytes]:
    return [
        event(1, "account_signup", email="a@b.example", phone="+4930123456", ip="2001:db8::1"),
        event(2, "login", ip="198.51.100.7", user_agent="Mozilla/5.0", entities={"k": "v"}),
        event(3, "request", status=200, prompt_id="p", cost_usd=0.25, model="m"),
        event(4, "payment", kind="card_added", instrument_id="c", bin="123456"),
        event(5, "ownership_declared", owners=[{"owner": "o", "share": 0.5, "of": "self"}]),
        event(6, "phone_verified", phone="+4930123456"),
    ]


@dataclass(frozen=True)
class Target:
    """A reader, inputs that it takes, and the problems that it promises."""

    name: str
    read: Callable[[bytes], object]
    valid: tuple[bytes, ...]
    promised: tuple[type[Exception], ...] = ()


def targets(folder: Path) -> list[Target]:
    """Every reader of what strangers and operators hand in."""
    lines = valid_lines()
    ndjson, array = b"\n".join(lines), b"[" + b",".join(lines) + b"]"
    events = [decode(line) for line in lines]
    archive = folder / "valid.parquet"
    write_archive(events, archive)

    def from_file(suffix: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
        path = folder / f"fuzzed{suffix}"

        def run(body: bytes) -> object:
            path.write_bytes(body)
            return read(path)

        return run

    def all_of(path: Path) -> list[object]:
        return list(read_events([path]))

    def unpack(encoding: str) -> Callable[[bytes], object]:
        def run(body: bytes) -> object:
            made = unpacker(encoding, BODY_MAX)
            assert made is not None
            told = made.feed(body)
            made.end()
            return read_body(told, "application/x-ndjson")

        return run

    gz, zst = gzip.compress(ndjson), zstandard.compress(ndjson)
    truth = b"account_id,abusive,typology,operator_id\na1,1,sms_farm,o1\na2,0,,\n"
    labels = b"account_id,label\na1,abusive\na2,honest\n"
    file = (InputProblem,)
    return [
        Target("decode", decode, tuple(lines), (InvalidEvent,)),
        Target("decode_lines", decode_lines, (ndjson,)),
        Target(
            "body, JSON",
            lambda b: read_body(b, "application/json"),
            (lines[0], array, ndjson),
            (Problem,),
        ),
        Target(
            "body, NDJSON", lambda b: read_body(b, "application/x-ndjson"), (ndjson,), (Problem,)
        ),
        Target("body, gzip", unpack("gzip"), (gz,), (Problem,)),
        Target("body, zstd", unpack("zstd"), (zst,), (Problem,)),
        Target("file .ndjson", from_file(".ndjson", all_of), (ndjson,), file),
        Target("file .gz", from_file(".ndjson.gz", all_of), (gz,), file),
        Target("file .zst", from_file(".ndjson.zst", all_of), (zst,), file),
        Target("file .parquet", from_file(".parquet", all_of), (archive.read_bytes(),), file),
        Target("truth .csv", from_file("t.csv", read_truth), (truth,), file),
        Target("labels .csv", from_file("l.csv", read_labels), (labels,), file),
    ]


def mutated(rng: random.Random, body: bytes) -> bytes:
    """The body with a few things wrong."""
    told = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at, size = rng.randrange(len(told) + 1), rng.choice((1, 2, 8, 64))
        match rng.randrange(8):
            case 0 if told:
                told[at % len(told)] ^= 1 << rng.randrange(8)
            case 1:
                told[at:at] = rng.randbytes(size)
            case 2:
                del told[at : at + size]
            case 3:
                told[at : at + size] = told[at : at + size] * rng.choice((2, 3, 50))
            case 4:
                del told[at:]
            case 5:
                told[at:at] = rng.choice(ODD)
            case 6:
                other = rng.randrange(len(told) + 1)
                told[at : at + size] = told[other : other + size]
            case _:
                told[at : at + size] = rng.choice(ODD)
    return bytes(told)


def findings(
    seconds: float, seed: int, said: Counter[str]
) -> Iterator[tuple[str, bytes, Exception]]:
    """Inputs that met an exception nobody promised. `said` counts what was tried and how it ended."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="shoal-fuzz-") as name:
        everything = targets(Path(name))
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for target in everything:
                body = mutated(rng, rng.choice(target.valid))
                said[f"{target.name}: tried"] += 1
                try:
                    target.read(body)
                except target.promised:
                    said[f"{target.name}: refused"] += 1
                except Exception as problem:
                    yield target.name, body, problem


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the readers.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    said: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for name, body, problem in findings(asked.minutes * 60, asked.seed, said):
        kind = f"{name}: {type(problem).__name__}: {str(problem)[:80]}"
        seen[kind] += 1
        if seen[kind] == 1:
            print(f"FOUND {kind}\n  {body[:300]!r}", flush=True)
    for name, n in sorted(said.items()):
        print(f"{name:28} {n:10,}")
    print(f"{sum(seen.values())} findings of {len(seen)} kinds; {len(CLASS_OF)} event types")
    return 1 if seen else 0


if __name__ == "__main__":
    sys.exit(main())
